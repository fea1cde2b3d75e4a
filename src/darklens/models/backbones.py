"""Backbones from timm, with ImageNet weights where they can be had."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from darklens.errors import ModelError
from darklens.models.heads import Head, Headed, make_head, with_latent
from darklens.models.hub import pretrained_file


def timm_network(
    in_channels: int,
    outputs: int,
    architecture: str,
    *,
    pretrained: bool = False,
    weights: str | None = None,
    dropout: float = 0.0,
    head: Head | None = None,
    latent: int | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A timm model with ``outputs`` numbers in place of its ImageNet classes.

    Parameters
    ----------
    pretrained
        Start from timm's weights, which are fetched from the hub once and cached.
    weights
        A local file of weights instead (``.safetensors``, or a ``.pth`` state dict, which is read without running
        code). The classifier is left out, and the first layer adapted to ``in_channels``.
    head
        A head of `make_head` in place of timm's own.
    latent
        Put dropout, a dense layer to so many features and PReLU before the last layer, in place of a head.
    arguments
        More arguments of the timm model, such as ``img_size`` of a vision transformer.

    Raises
    ------
    ModelError
        If there is no such architecture, its weights cannot be fetched or do not fit, or there are two heads.
    """
    import timm

    if not timm.is_model(architecture):
        near = ", ".join(difflib.get_close_matches(architecture, timm.list_models(), 4))
        raise ModelError(f"timm has no model {architecture!r}{f'; near are {near}' if near else ''}")
    options = {"in_chans": in_channels, **(arguments or {})}
    if head is not None and latent is not None:
        raise ModelError(f"latent {latent} is a head of its own; leave out network.head {head}, or network.latent")
    if head is None and latent is None:
        options |= {"num_classes": outputs, "drop_rate": dropout}
        return _create(architecture, options, pretrained, weights)
    backbone = _create(architecture, options | {"num_classes": 0}, pretrained, weights)
    if head is None:
        return with_latent(backbone, backbone.num_features, outputs, latent, dropout)  # type: ignore[arg-type]
    return Headed(backbone, make_head(head, backbone.num_features, outputs, dropout))  # type: ignore[arg-type]


def _create(architecture: str, options: dict[str, Any], pretrained: bool, weights: str | None) -> nn.Module:
    import timm

    if weights is not None:
        network: nn.Module = timm.create_model(architecture, pretrained=False, **options)
        _load_weights(network, Path(weights), architecture)
        return network
    try:
        if pretrained and (file := pretrained_file(architecture)) is not None:
            options = options | {"pretrained_cfg_overlay": {"file": str(file)}}
        return timm.create_model(architecture, pretrained=pretrained, **options)
    except Exception as error:
        if not pretrained:
            raise ModelError(f"timm's {architecture} cannot be made of these arguments: {error}") from error
        where = os.environ.get("HF_HOME", "the hub's cache")
        raise ModelError(
            f"the pretrained weights of {architecture} cannot be fetched ({type(error).__name__}). Fetch them once where "
            f"there is a network and bring {where} along, name a file with --network.weights, or start from random "
            "weights with --network.pretrained false"
        ) from error


def _load_weights(network: nn.Module, path: Path, architecture: str) -> None:
    own = network.state_dict()
    state = _read_state(path)
    if not set(state) & set(own) and len(state) == len(own):
        # Another code base's names for the same layers, in the same order.
        state = dict(zip(own, state.values(), strict=True))
    fitting: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name in own and own[name].shape == tensor.shape:
            fitting[name] = tensor
        elif name in own and tensor.ndim == 4 and own[name].shape[1] == 1 and own[name].shape[0] == tensor.shape[0]:
            fitting[name] = tensor.sum(1, keepdim=True)  # colours to one channel, as timm does
    backbone = {name for name in own if not name.startswith(("classifier", "fc", "head"))}
    if missing := sorted(backbone - set(fitting)):
        raise ModelError(
            f"{path}: {len(missing)} of {len(backbone)} tensors of {architecture} are missing or of another shape, "
            f"the first is {missing[0]}; are these its weights?"
        )
    network.load_state_dict(own | fitting)


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(f"{path}: cannot be read as weights: {error}") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelError(f"{path}: expected a dict of tensors")
    return state
