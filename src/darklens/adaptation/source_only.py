"""Learn from the source alone: the baseline of every comparison."""

from __future__ import annotations

from torch import Tensor

from darklens.adaptation.module import AdaptationModule
from darklens.data.batches import Batch


class SourceOnlyModule(AdaptationModule):
    """Learn from labelled source images, and from labelled target images if there are some."""

    def training_step(self, batch: Batch) -> Tensor:
        """Return the task's loss on the source."""
        images, targets = self.augmented(batch)
        loss = self.supervised_loss(self.network(images).float(), targets)
        loss = loss + self.few_labels_loss(self.network, len(images))
        self.log_losses(len(images), loss=loss)
        return loss
