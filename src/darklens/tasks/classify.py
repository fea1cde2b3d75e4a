"""Tell classes of dark matter apart from one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC

from darklens.data.augmentation import Augmentation
from darklens.data.batches import Batch
from darklens.data.preprocessing import Preprocessing
from darklens.tasks.base import ImageTask, Optimization


@dataclass(frozen=True)
class LossPhase:
    """A loss from an epoch on (counted from 1); names and meanings are those of recipes."""

    name: str = "cross-entropy"
    label_smoothing: float = 0.0
    from_epoch: int = 1

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of logits (N, classes) and label numbers (N,)."""
        each = nn.functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing, reduction="none")
        if self.name == "focal":
            sure = logits.softmax(-1).gather(1, labels[:, None])[:, 0]
            each = each * (1 - sure).square()
        return each.mean()


class Classification(ImageTask):
    """A loss over classes that may change at an epoch; validated by cross-entropy, accuracy and macro AUC."""

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        optimization: Optimization,
        classes: Sequence[str],
        augmentation: Augmentation = "none",
        losses: Sequence[LossPhase] = (LossPhase(),),
        seed: int = 0,
        unfreezing: bool = False,
    ):
        super().__init__(network, preprocessing, optimization, augmentation, seed, unfreezing)
        self.classes = list(classes)
        self.losses = list(losses)
        number = len(classes)
        self.metrics = MetricCollection(
            {
                "validation/accuracy": MulticlassAccuracy(number, average="micro"),
                "validation/auc": MulticlassAUROC(number, average="macro"),
            }
        )

    def training_step(self, batch: Batch) -> Tensor:
        """Loss of one batch."""
        phase = [phase for phase in self.losses if phase.from_epoch <= self.current_epoch + 1][-1]
        loss = phase(self.augmented_output(batch), batch["target"])
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=len(batch["image"]))
        return loss

    def validation_step(self, batch: Batch) -> None:
        """Collect metrics."""
        logits = self(batch)
        loss = nn.functional.cross_entropy(logits, batch["target"])
        self.metrics.update(logits.softmax(-1), batch["target"])
        self.log("validation/loss", loss, prog_bar=True, batch_size=len(logits), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Log metrics over all validation images."""
        self.log_dict(self.metrics.compute(), prog_bar=True, sync_dist=False)
        self.metrics.reset()
