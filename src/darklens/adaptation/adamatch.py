"""AdaMatch: pseudo-labels with aligned distributions (Berthelot et al. 2022, arXiv:2106.04732)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from darklens.adaptation.losses import aligned, interpolated_logits, pseudo_label_loss, relative_threshold
from darklens.adaptation.module import AdaptationModule
from darklens.data.batches import Batch


class AdaMatchModule(AdaptationModule):
    """Learn weak and strong views of the source, and strong views of the target from what the weak ones are taken for."""

    source_mean: Tensor
    target_mean: Tensor
    updates: Tensor

    def __init__(self, *given: Any, **named: Any):
        super().__init__(*given, **named)
        for name in ("source_mean", "target_mean"):
            self.register_buffer(name, torch.zeros(self.task.outputs))
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    def training_step(self, batch: Batch) -> Tensor:
        """Return the task's loss on both views of the source, and that of the target's pseudo-labels."""
        weak_source, targets = self.augmented(batch)
        weak_target = self.weak_view(batch)
        strong = self.method.strong
        source = torch.cat([weak_source, self.strong_view(weak_source, strong)])
        target = torch.cat([weak_target, self.strong_view(weak_target, strong)])
        joint = self.network(torch.cat([source, target])).float()
        with frozen_statistics(self.network):
            alone = self.network(source).float()
        share = torch.rand(alone.shape, generator=self._generator).to(alone)
        logits = interpolated_logits(joint[: len(source)], alone, share)
        weak_logits, strong_logits = logits.chunk(2)
        of_weak, of_strong = joint[len(source) :].chunk(2)
        with torch.no_grad():
            known, labels = self.task.predictions(weak_logits), self.task.predictions(of_weak)
            if self.method.align:
                labels = aligned(labels, *self.running_means(known.mean(0), labels.mean(0)))
            threshold = relative_threshold(known, self.method.tau)
        supervised = self.supervised_loss(weak_logits, targets) + self.supervised_loss(strong_logits, targets)
        unsupervised = pseudo_label_loss(of_strong, labels, threshold)
        rise = self.method.weight * target_weight(self.share_done)
        loss = supervised + rise * unsupervised + self.few_labels_loss(self.network, len(weak_source))
        self.log_losses(len(weak_source), loss=loss, target_loss=unsupervised)
        return loss

    def running_means(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the running means of predictions (K,) of both domains, with a batch's means added to them."""
        self.updates += 1
        found = []
        for mean, new in ((self.source_mean, source), (self.target_mean, target)):
            mean.lerp_(new.to(mean), 1 - self.method.align_decay)
            # As Adam corrects its moments, which begin at 0.
            found.append(mean / (1 - self.method.align_decay ** float(self.updates)))
        return found[0], found[1]


def target_weight(share: float) -> float:
    """Return the weight of the target's loss after a share of the training: 0 to 1 over its first half (section 3.5)."""
    return 0.5 - math.cos(min(math.pi, 2 * math.pi * share)) / 2


@contextmanager
def frozen_statistics(network: nn.Module) -> Iterator[None]:
    """Keep the running statistics of batch normalisation as they are; batches are still normalised by their own."""
    norms = [each for each in network.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
    tracking = [norm.track_running_stats for norm in norms]
    kept = [(norm.running_mean, norm.running_var) for norm in norms]
    for norm in norms:
        norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
    try:
        yield
    finally:
        for norm, track, (mean, var) in zip(norms, tracking, kept, strict=True):
            norm.track_running_stats, norm.running_mean, norm.running_var = track, mean, var
