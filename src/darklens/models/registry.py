"""Networks by the names that recipes call them. A user's own is ``file.py:Class``, called with channels and outputs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from darklens.errors import ModelError
from darklens.models.attention import cbam_densenet
from darklens.models.backbones import timm_network
from darklens.models.compact import CompactResNet
from darklens.models.equivariant import EquivariantResNet
from darklens.usercode import is_reference, load_function

NETWORKS = {
    "compact": CompactResNet,
    "equivariant": EquivariantResNet,
    "cbam-densenet": cbam_densenet,
    "timm": timm_network,
}


def build_network(name: str, in_channels: int, outputs: int, options: Mapping[str, Any]) -> nn.Module:
    """A network for images of ``in_channels`` channels that puts out ``outputs`` numbers.

    Raises
    ------
    ModelError
        If there is no such network, or it does not take one of the options.
    """
    if name not in NETWORKS and not is_reference(name):
        raise ModelError(f"no network {name!r}; there are {', '.join(NETWORKS)}, and your own as my_network.py:Class")
    maker: Any = load_function(name) if is_reference(name) else NETWORKS[name]
    known = [p for p in inspect.signature(maker).parameters if p not in ("in_channels", "outputs")]
    if unknown := set(options) - set(known):
        raise ModelError(f"network {name} has no option {sorted(unknown)[0]!r}; it takes {', '.join(known)}")
    network: nn.Module = maker(in_channels, outputs, **options)
    return network


def count_parameters(network: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
