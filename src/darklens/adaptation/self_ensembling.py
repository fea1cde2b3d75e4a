"""Self-ensembling for visual domain adaptation: a mean teacher (French et al. 2018, arXiv:1706.05208)."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from darklens.adaptation.losses import class_balance_loss, consistency_loss
from darklens.adaptation.module import AdaptationModule
from darklens.data.batches import Batch


class AveragedModule(AdaptationModule):
    """Train a student, and keep the moving average of its weights as ``network``."""

    def __init__(self, *given: Any, **named: Any):
        super().__init__(*given, **named)
        self.student = copy.deepcopy(self.network)

    @property
    def decay(self) -> float:
        """Decay of the moving average."""
        raise NotImplementedError

    def trained_modules(self) -> nn.Module:
        """Return the student."""
        return self.student

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Move the averaged weights towards the student's."""
        move_average(self.network, self.student, self.decay)


class SelfEnsemblingModule(AveragedModule):
    """A student learns the source, and the target from its teacher, the moving average of its weights.

    The teacher is what is kept; it sees weak views, the student strong ones.
    """

    @property
    def decay(self) -> float:
        """Decay of the teacher's weights."""
        return float(self.method.teacher_decay)

    def training_step(self, batch: Batch) -> Tensor:
        """Return the task's loss on the source, and the student's distance from the teacher on the target."""
        images, targets = self.augmented(batch)
        supervised = self.supervised_loss(self.student(images).float(), targets)
        weak = self.weak_view(batch)
        seen = self.task.predictions(self.student(self.strong_view(weak, self.method.strong)).float())
        with torch.no_grad():
            taught = self.task.predictions(self.network(weak).float())
        consistency = consistency_loss(seen, taught, self.method.threshold)
        balance = class_balance_loss(seen, taught, self.method.threshold)
        target = consistency + self.method.balance * balance
        loss = supervised + self.method.weight * target + self.few_labels_loss(self.student, len(images))
        self.log_losses(len(images), loss=loss, target_loss=target)
        return loss


def move_average(average: nn.Module, current: nn.Module, decay: float) -> None:
    """Move the parameters of one network towards another's: decay × average + (1 - decay) × current."""
    with torch.no_grad():
        for mean, now in zip(average.parameters(), current.parameters(), strict=True):
            mean.lerp_(now, 1 - decay)
