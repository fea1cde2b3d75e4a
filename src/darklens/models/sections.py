"""The sections of a network, from its head to its stem, as gradual unfreezing thaws them."""

from __future__ import annotations

import itertools
from typing import Any

from torch import nn

from darklens.models.heads import Headed, Latent


def sections(network: nn.Module) -> list[list[str]]:
    """Names of the parameters of each section, the head first.

    timm's networks know their own stages; of others, every child is a section.
    """
    if isinstance(network, Headed):
        inner = [[f"backbone.{name}" for name in names] for names in sections(network.backbone)]
        return [[f"head.{name}" for name, _ in network.head.named_parameters()], *inner]
    if isinstance(network, Latent):
        inner = [[f"backbone.{name}" for name in names] for names in sections(network.backbone)]
        return [[f"projection.{name}" for name, _ in network.projection.named_parameters()], *inner]
    if hasattr(network, "group_matcher") and hasattr(network, "get_classifier"):
        from timm.models import group_parameters

        model: Any = network
        groups = group_parameters(model, model.group_matcher(coarse=True))
        classifier = {id(p) for p in nn.ModuleList(_classifiers(model)).parameters()}
        every = dict(network.named_parameters())
        head = [name for name, parameter in every.items() if id(parameter) in classifier]
        body = [[n for n in groups[key] if n not in head] for key in sorted(groups, reverse=True)]
        return [names for names in (head, *body) if names]
    grouped = itertools.groupby((n for n, _ in network.named_parameters()), key=lambda name: name.split(".")[0])
    return [list(names) for _, names in grouped][::-1]


def _classifiers(model: Any) -> list[nn.Module]:
    """The last layers of a timm model; one that learns from another network as well has two."""
    found = model.get_classifier()
    return list(found) if isinstance(found, tuple) else [found]


def thaw_epochs(network: nn.Module, epochs: int) -> list[int]:
    """The epoch, from 0, at which each section of `sections` is thawed: each is the newest for a share of the epochs in
    proportion to its parameters, as far as whole epochs allow; all are thawed by the last."""
    sizes = {name: p.numel() for name, p in network.named_parameters()}
    counts = [sum(sizes[name] for name in names) for names in sections(network)]
    before = list(itertools.accumulate([0, *counts[:-1]]))
    return [min(round(epochs * b / sum(counts)), epochs - 1) for b in before]
