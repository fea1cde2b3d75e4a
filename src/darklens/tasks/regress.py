"""Measure numbers, such as the logarithm of a mass, from one image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError

from darklens.data.augmentation import Augmentation
from darklens.data.batches import Batch
from darklens.data.preprocessing import Preprocessing
from darklens.tasks.base import ImageTask, Optimization


class Regression(ImageTask):
    """Mean squared error of standardised targets; the network's output is in units of their scatter.

    ``center`` and ``scale`` (outputs,) are mean and standard deviation of the training targets.
    """

    center: Tensor
    scale: Tensor

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        optimization: Optimization,
        center: Sequence[float],
        scale: Sequence[float],
        augmentation: Augmentation = "none",
        seed: int = 0,
        unfreezing: bool = False,
    ):
        super().__init__(network, preprocessing, optimization, augmentation, seed, unfreezing)
        self.register_buffer("center", torch.tensor(list(center)))
        self.register_buffer("scale", torch.tensor(list(scale)))
        self.metrics = MetricCollection({"validation/mse": MeanSquaredError(), "validation/mae": MeanAbsoluteError()})

    def training_step(self, batch: Batch) -> Tensor:
        """Loss of one batch."""
        loss = nn.functional.mse_loss(self.augmented_output(batch), self._standardised(batch))
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=len(batch["image"]))
        return loss

    def validation_step(self, batch: Batch) -> None:
        """Collect metrics, in the target's own unit."""
        output = self(batch)
        self.log(
            "validation/loss",
            nn.functional.mse_loss(output, self._standardised(batch)),
            prog_bar=True,
            batch_size=len(output),
            sync_dist=True,
        )
        self.metrics.update(output * self.scale + self.center, batch["target"].to(output))

    def on_validation_epoch_end(self) -> None:
        """Log metrics over all validation images."""
        self.log_dict(self.metrics.compute(), prog_bar=True, sync_dist=False)
        self.metrics.reset()

    def _standardised(self, batch: Batch) -> Tensor:
        return (batch["target"].to(self.center) - self.center) / self.scale
