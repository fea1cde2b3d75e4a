"""Domain-adversarial training of networks (Ganin et al. 2016, arXiv:1505.07818)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from darklens.adaptation.losses import domain_loss, reverse_gradient
from darklens.adaptation.module import AdaptationModule, discriminator, feature_count, outputs_and_features
from darklens.data.batches import Batch


class DannModule(AdaptationModule):
    """Learn the source, and features from which a discriminator cannot tell the domain."""

    def __init__(self, *given: Any, **named: Any):
        super().__init__(*given, **named)
        self.discriminator = discriminator(feature_count(self.network), list(self.method.discriminator))

    def trained_modules(self) -> nn.Module:
        """Return the network and the discriminator."""
        return nn.ModuleList([self.network, self.discriminator])

    def training_step(self, batch: Batch) -> Tensor:
        """Return the task's loss on the source and the discriminator's on both, whose gradient is reversed in features."""
        images, targets = self.augmented(batch)
        both = torch.cat([images, self.weak_view(batch)])
        outputs, features = outputs_and_features(self.network, both)
        supervised = self.supervised_loss(outputs[: len(images)], targets)
        domain = self.discriminated(outputs, features, len(images))
        loss = supervised + domain + self.few_labels_loss(self.network, len(images))
        self.log_losses(len(images), loss=loss, domain_loss=domain)
        return loss

    def discriminated(self, outputs: Tensor, features: Tensor, count: int) -> Tensor:
        """Return the discriminator's loss on features (N, F), of which the first ``count`` are of the source."""
        logits = self.discriminator(self.reversed(features))
        return domain_loss(logits[:count], logits[count:])

    def reversed(self, features: Tensor) -> Tensor:
        """Return features (N, F), whose gradient is reversed as strongly as this share of the training asks for."""
        return reverse_gradient(features, reversal_strength(self.method, self.share_done))


def reversal_strength(method: Any, share: float) -> float:
    """Return the factor on the reversed gradient after a share of the training (Ganin et al. 2016, eq. 14)."""
    return float(method.weight * (2 / (1 + math.exp(-method.rise * share)) - 1))
