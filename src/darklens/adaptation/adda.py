"""Adversarial discriminative domain adaptation (Tzeng et al. 2017, arXiv:1702.05464)."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from darklens.adaptation.losses import domain_loss
from darklens.adaptation.module import AdaptationModule, discriminator, feature_count, outputs_and_features
from darklens.data.batches import Batch
from darklens.models.heads import last_linear
from darklens.tasks.optimization import make_optimizer


class AddaModule(AdaptationModule):
    """Train a target encoder against a discriminator; the source encoder and the classifier stay as they are.

    The network is the target encoder with the classifier; it begins as a copy of the one that learned the source.
    """

    def __init__(self, *given: Any, **named: Any):
        super().__init__(*given, **named)
        self.automatic_optimization = False
        self.source = copy.deepcopy(self.network).requires_grad_(False).eval()
        classifier = last_linear(self.network)
        assert classifier is not None
        classifier.requires_grad_(False)
        self.discriminator = discriminator(feature_count(self.network), list(self.method.discriminator))

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the networks that are trained; the source encoder evaluates always."""
        super().train(mode)
        self.source.eval()
        return self

    def training_step(self, batch: Batch) -> Tensor:
        """Step the discriminator, then the target encoder; return the encoder's loss."""
        images, _ = self.augmented(batch)
        critic, encoder = self.optimizers()  # type: ignore[attr-defined]
        with torch.no_grad():
            _, known = outputs_and_features(self.source, images)
        _, features = outputs_and_features(self.network, self.weak_view(batch))
        domain = domain_loss(self.discriminator(known), self.discriminator(features.detach()))
        critic.zero_grad()
        self.manual_backward(domain)
        critic.step()
        judged = self.discriminator(features)
        fooled = binary_cross_entropy_with_logits(judged, torch.ones_like(judged))
        loss = fooled + self.few_labels_loss(self.network, len(images))
        encoder.zero_grad()
        self.manual_backward(loss)
        encoder.step()
        for schedule in self.lr_schedulers():  # type: ignore[union-attr]
            schedule.step()
        self.log_losses(len(images), loss=loss, domain_loss=domain)
        return loss

    def configure_optimizers(self) -> Any:
        """Return the optimisers of the discriminator and of the target encoder, on one schedule."""
        rate = dataclasses.replace(self.options.optimizer, lr=float(self.method.discriminator_lr))
        optimizers = [make_optimizer(rate, self.discriminator), make_optimizer(self.options.optimizer, self.network)]
        return optimizers, [self.schedule(each) for each in optimizers]
