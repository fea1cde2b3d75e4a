"""SIDDA: features aligned by their Sinkhorn divergence, with learned weights (Pandya et al. 2025, arXiv:2501.14048)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from darklens.adaptation.losses import sinkhorn_divergence
from darklens.adaptation.module import AdaptationModule, outputs_and_features
from darklens.data.batches import Batch

LEAST_WEIGHT = 1e-3
"""Least value of the learned weight of the task; at 0 its loss would be infinite."""
LEAST_SHARE = 0.25
"""Least value of the divergence's relative to it, as in the published training: without that, the divergence can be made
small and its weight large, until all features are the same."""
LEAST_DISTANCE = 0.01
"""Least length scale of the regularisation, in units of features."""


class SiddaModule(AdaptationModule):
    """Learn the source, and features of both domains that are distributed alike."""

    def __init__(self, *given: Any, **named: Any):
        super().__init__(*given, **named)
        self.weights = nn.ParameterList([nn.Parameter(torch.ones(())) for _ in range(2)])

    def trained_modules(self) -> nn.Module:
        """Return the network and the learned weights."""
        return nn.ModuleList([self.network, self.weights])

    def training_step(self, batch: Batch) -> Tensor:
        """Return the task's loss and the divergence of features, weighted as the uncertainties of two tasks are."""
        images, targets = self.augmented(batch)
        outputs, features = outputs_and_features(self.network, torch.cat([images, self.weak_view(batch)]))
        supervised = self.supervised_loss(outputs[: len(images)], targets)
        # In units of their scatter: to shrink them all would be the cheapest way to bring them together.
        features = features / features.std(0).square().sum().sqrt().clamp_min(torch.finfo(features.dtype).tiny)
        source, target = features[: len(images)], features[len(images) :]
        extent = float(torch.cdist(features.detach(), features.detach()).max())
        epsilon = max(self.method.blur * extent, LEAST_DISTANCE) ** 2
        divergence = sinkhorn_divergence(source, target, epsilon, self.method.iterations)
        if self.current_epoch + 1 < self.method.start_epoch:
            loss = supervised
        else:
            first = self.weights[0].clamp_min(LEAST_WEIGHT)
            second = torch.maximum(self.weights[1], LEAST_SHARE * first.detach())
            loss = supervised / (2 * first**2) + divergence / (2 * second**2) + (first * second).log()
        loss = loss + self.few_labels_loss(self.network, len(images))
        self.log_losses(len(images), loss=loss, divergence=divergence)
        return loss
