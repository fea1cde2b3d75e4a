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
    """Return a network for images of ``in_channels`` channels that puts out ``outputs`` numbers.

    Parameters
    ----------
    name
        One of `NETWORKS`, or a user's own, ``file.py:Class``, whose code is run.
    in_channels, outputs
        Channels of the images, and numbers to put out.
    options
        Arguments of the network. ``pretrained: false`` is what networks without such weights do anyway.

    Raises
    ------
    ModelError
        If there is no such network, or it does not take one of the options.
    """
    known = network_options(name)
    if options.get("pretrained") is False and "pretrained" not in known:
        options = {key: value for key, value in options.items() if key != "pretrained"}
    if unknown := set(options) - set(known):
        takes = f"it takes {', '.join(known)}" if known else "it takes none"
        raise ModelError(f"network {name} has no option {sorted(unknown)[0]!r}; {takes}")
    network: nn.Module = _maker(name)(in_channels, outputs, **options)
    return network


def network_options(name: str) -> list[str]:
    """Return the names of the arguments that a network takes beside channels and outputs.

    Raises
    ------
    ModelError
        If there is no such network.
    """
    return list(inspect.signature(_maker(name)).parameters)[2:]


def _maker(name: str) -> Any:
    if name not in NETWORKS and not is_reference(name):
        raise ModelError(f"no network {name!r}; there are {', '.join(NETWORKS)}, and your own as my_network.py:Class")
    return load_function(name) if is_reference(name) else NETWORKS[name]


def count_parameters(network: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
