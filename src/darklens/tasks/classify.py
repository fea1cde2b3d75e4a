"""Tell classes of dark matter apart from one image."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC

from darklens.data.augmentation import Augmentation
from darklens.data.loading import Batch
from darklens.data.preprocessing import Preprocessing
from darklens.tasks.base import ImageTask, Optimization


class Classification(ImageTask):
    """Cross-entropy over classes; validated by accuracy and macro AUC."""

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        optimization: Optimization,
        classes: Sequence[str],
        augmentation: Augmentation = "none",
        label_smoothing: float = 0.0,
        seed: int = 0,
    ):
        super().__init__(network, preprocessing, optimization, augmentation, seed)
        self.classes = list(classes)
        self.loss = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
        number = len(classes)
        self.metrics = MetricCollection(
            {
                "validation/accuracy": MulticlassAccuracy(number, average="micro"),
                "validation/auc": MulticlassAUROC(number, average="macro"),
            }
        )

    def training_step(self, batch: Batch) -> Tensor:
        """Loss of one batch."""
        loss: Tensor = self.loss(self.augmented_output(batch["image"]), batch["target"])
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=len(batch["image"]))
        return loss

    def validation_step(self, batch: Batch) -> None:
        """Collect metrics."""
        logits = self(batch["image"])
        loss = nn.functional.cross_entropy(logits, batch["target"])
        self.metrics.update(logits.softmax(-1), batch["target"])
        self.log("validation/loss", loss, prog_bar=True, batch_size=len(logits), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Log metrics over all validation images."""
        self.log_dict(self.metrics.compute(), prog_bar=True, sync_dist=False)
        self.metrics.reset()
