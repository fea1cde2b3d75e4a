"""Take the statistics of batch normalisation from the target (Li et al. 2017, arXiv:1603.04779)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from darklens.adaptation.module import BATCH
from darklens.adaptation.source_only import SourceOnlyModule
from darklens.errors import ModelError


class AdaBNModule(SourceOnlyModule):
    """Learn from the source; before each validation, means and variances become those of target images."""

    def __init__(self, *given: Any, **named: Any):
        super().__init__(*given, **named)
        if not _norms(self.network):
            raise ModelError("adabn: the network has no batch normalisation whose statistics could be adapted")

    def on_validation_epoch_start(self) -> None:
        """Replace the statistics of batch normalisation."""
        if self.target is None or self.trainer.sanity_checking:
            return
        count = min(len(self.target.train), int(self.method.statistics_images))
        if count < 2:
            raise ModelError(
                "adabn: needs at least two target images for statistics; raise --adaptation.statistics_images"
            )
        # As equal as can be: batch normalisation cannot take the variance of one image of one pixel.
        parts = torch.arange(count).tensor_split(-(-count // BATCH))
        batches = (self.preprocessing(self.target.train[rows.tolist()]["image"].to(self.device)) for rows in parts)
        replace_statistics(self.network, batches)


def replace_statistics(network: nn.Module, batches: Any) -> None:
    """Replace means and variances of batch normalisation by their averages over batches; all else stays as it is.

    Parameters
    ----------
    network
        Whose statistics are replaced.
    batches
        Preprocessed images, (n, C, H, W) each.
    """
    training = network.training
    network.eval()
    norms = _norms(network)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average over batches
        norm.train()
    with torch.no_grad():
        for images in batches:
            network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.train(training)


def _norms(network: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [
        each
        for each in network.modules()
        if isinstance(each, nn.modules.batchnorm._BatchNorm) and each.track_running_stats
    ]
