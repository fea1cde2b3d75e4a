"""Lightning modules that learn from two views of each image: one network, or a student and its teacher."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from darklens.data.augmentation import augment
from darklens.data.batches import Batch
from darklens.data.preprocessing import Preprocessing
from darklens.errors import RecipeError
from darklens.pretraining.losses import distillation
from darklens.pretraining.views import Views, observed_again, shifted
from darklens.tasks.base import Task
from darklens.tasks.optimization import LearningOptions
from darklens.tasks.supervised import SupervisedModule

VALIDATION_SEED = 2_147_483_629
"""Of the views of validation images, which are the same in all epochs."""
TEACHER_SHARPER = 0.4
"""Temperature of the teacher as a fraction of the student's: 0.04 and 0.1 of Caron et al. (2021)."""
CENTER_KEPT = 0.9
"""What the centre of the teacher's logits keeps at each step (Caron et al. 2021)."""


class TwoViews(SupervisedModule):
    """Train a network to make nearly the same of two views of an image.

    Views differ in sharpness and noise, drawn before preprocessing, then in place and, as the recipe's augmentation
    says, orientation. A smooth lens that preprocessing fits is that of the image itself in all views.

    Parameters
    ----------
    task, network, preprocessing, options
        As of `SupervisedModule`; the network's output is the embedding (N, K).
    views
        How much views differ.
    of_views
        The loss of two embeddings (N, K).
    """

    def __init__(
        self,
        task: Task,
        network: nn.Module,
        preprocessing: Preprocessing,
        options: LearningOptions,
        *,
        views: Views,
        of_views: Callable[[Tensor, Tensor], Tensor] | None = None,
    ):
        super().__init__(task, network, preprocessing, options)
        self.views, self.of_views = views, of_views

    def two_views(self, batch: Batch) -> Tensor:
        """Return prepared images (2 N, C, H, W): one view of each image of a batch, then the other."""
        lenses = self.lenses_of(batch)
        made = []
        for _ in range(2):
            images, added = observed_again(batch["image"], self.views, self._generator)
            noise = batch.get("noise")
            if noise is not None:
                noise = (noise.square() + added.square()).sqrt()
            prepared = shifted(self.preprocessing(images, lenses, noise), self.views.shift, self._generator)
            made.append(augment(prepared, self.options.augmentation, self._generator))
        return torch.cat(made)

    def loss_of(self, batch: Batch) -> Tensor:
        """Return the loss of two views of a batch."""
        assert self.of_views is not None
        with torch.no_grad():
            views = self.two_views(batch)
        one, other = self._both(self.network, views, batch)
        return self.of_views(one, other)

    def _both(self, network: nn.Module, views: Tensor, batch: Batch) -> Tensor:
        """Embeddings (2, N, K) of both views (2 N, C, H, W)."""
        beside = [torch.cat([batch["catalog"]] * 2)] if "catalog" in batch else []
        embeddings: Tensor = network(views, *beside)
        return torch.stack(embeddings.float().chunk(2))

    def training_step(self, batch: Batch) -> Tensor:
        """Return the loss of a training batch."""
        number = len(batch["image"])
        if number < 2:
            raise RecipeError("pre-training tells the images of a batch apart; choose --trainer.batch_size 2 or more")
        loss = self.loss_of(batch)
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=number)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Draw the same views of validation images in all epochs."""
        self._generator.manual_seed(VALIDATION_SEED)

    def validation_step(self, batch: Batch) -> None:
        """Log the loss of a validation batch, and collect its embeddings for the metrics."""
        number = len(batch["image"])
        self.metrics.update(self(batch), batch["target"])
        if number > 1:  # of one image alone there is no loss
            self.log("validation/loss", self.loss_of(batch), prog_bar=True, batch_size=number, sync_dist=True)


class SelfDistillation(TwoViews):
    """Train a student on what its teacher, a moving average of it, says of another view (DINO).

    The teacher is the network that is kept. Two views of the whole image are used; small crops beside them are not.

    Parameters
    ----------
    task, network, preprocessing, options, views
        As of `TwoViews`; the network's output are logits (N, K).
    temperature
        By which the student's logits are divided; the teacher's are by `TEACHER_SHARPER` of it.
    momentum
        What the teacher keeps of its weights at each step.
    """

    keeps_last: ClassVar[bool] = True  # what the loss compares with is the teacher, which changes
    logit_center: Tensor

    def __init__(
        self,
        task: Task,
        network: nn.Module,
        preprocessing: Preprocessing,
        options: LearningOptions,
        *,
        views: Views,
        temperature: float,
        momentum: float,
    ):
        super().__init__(task, network, preprocessing, options, views=views)
        self.student = copy.deepcopy(network)
        self.temperature, self.momentum = temperature, momentum
        self.register_buffer("logit_center", torch.zeros(task.outputs))

    def trained_modules(self) -> nn.Module:
        """Return the student, whose weights the optimiser changes."""
        return self.student

    def loss_of(self, batch: Batch) -> Tensor:
        """Return the loss of what the student says of two views of a batch."""
        with torch.no_grad():
            views = self.two_views(batch)
            teacher = self._both(self.network, views, batch)
        student = self._both(self.student, views, batch)
        loss = distillation(
            student,
            teacher,
            self.logit_center,
            temperature=self.temperature,
            sharper=TEACHER_SHARPER * self.temperature,
        )
        if self.training:
            self.logit_center.lerp_(teacher.mean((0, 1)), 1 - CENTER_KEPT)
        return loss

    @torch.no_grad()
    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        # The teacher moves towards the student.
        for weight, trained in zip(self.network.parameters(), self.student.parameters(), strict=True):
            weight.lerp_(trained, 1 - self.momentum)
        for buffer, newest in zip(self.network.buffers(), self.student.buffers(), strict=True):
            buffer.copy_(newest)
