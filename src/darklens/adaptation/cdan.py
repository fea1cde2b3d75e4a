"""Conditional domain-adversarial networks (Long et al. 2018, arXiv:1705.10667)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from darklens.adaptation.dann import DannModule
from darklens.adaptation.losses import certainty_weights, conditioned, domain_loss
from darklens.adaptation.module import discriminator, feature_count


class CdanModule(DannModule):
    """Learn the source, and features from which, knowing the predicted class, a discriminator cannot tell the domain."""

    def __init__(self, *given: Any, **named: Any):
        super().__init__(*given, **named)
        width = feature_count(self.network) * len(self.task.classes)
        self.discriminator = discriminator(width, list(self.method.discriminator))

    def discriminated(self, outputs: Tensor, features: Tensor, count: int) -> Tensor:
        """Return the discriminator's loss on products of features and predictions, the first ``count`` of the source."""
        predictions = self.task.predictions(outputs)
        logits = self.discriminator(self.reversed(conditioned(features, predictions)))
        weights = certainty_weights(predictions)
        pair = (weights[:count], weights[count:]) if self.method.entropy else None
        return domain_loss(logits[:count], logits[count:], pair)
