"""Networks by the names that recipes call them. A user's own is ``file.py:Class``, called with channels and outputs."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from darklens.errors import DarklensError, ModelError
from darklens.models.attention import cbam_densenet
from darklens.models.backbones import timm_network
from darklens.models.catalog import attention_fusion, metadata_network
from darklens.models.cct import cct
from darklens.models.cmu_deeplens import CMUDeepLens
from darklens.models.compact import CompactResNet
from darklens.models.crossformer import crossformer
from darklens.models.cvt import cvt
from darklens.models.ecnn import ecnn
from darklens.models.edsr import EDSR
from darklens.models.equivariant import EquivariantResNet
from darklens.models.flow import Flow
from darklens.models.lens_residual import LensResidual
from darklens.models.masked import MaskedAutoencoder
from darklens.models.nafnet import NAFNet
from darklens.models.patches import patch_transformer
from darklens.models.rotated import equivariant_transformer
from darklens.models.rrdb import RRDBNet
from darklens.models.srcnn import SRCNN
from darklens.models.upconv import MAEUpconv
from darklens.schema import typed_arguments
from darklens.usercode import is_reference, load_function

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "compact": CompactResNet,
    "equivariant": EquivariantResNet,
    "ecnn": ecnn,
    "cmu-deeplens": CMUDeepLens,
    "cbam-densenet": cbam_densenet,
    "cvt": cvt,
    "crossformer": crossformer,
    "cct": cct,
    "timm": timm_network,
    "metadata": metadata_network,
    "attention-fusion": attention_fusion,
    "srcnn": SRCNN,
    "edsr": EDSR,
    "rrdb": RRDBNet,
    "mae-upconv": MAEUpconv,
    "nafnet": NAFNet,
    "flow": Flow,
    "lens-residual": LensResidual,
    "patch-transformer": patch_transformer,
    "masked-autoencoder": MaskedAutoencoder,
    "equivariant-transformer": equivariant_transformer,
}


CATALOG = "catalog_features"
"""Parameter of networks that take inputs from the catalogue beside images: how many. It is not for recipes to say."""


def build_network(
    name: str, in_channels: int, outputs: int, options: Mapping[str, Any], *, catalog_features: int = 0
) -> nn.Module:
    """Build a network for images of ``in_channels`` channels that puts out ``outputs`` numbers.

    Parameters
    ----------
    name
        One of `NETWORKS`, or a user's own, ``file.py:Class``, whose code is run.
    in_channels, outputs
        Channels of the images, and numbers to put out.
    options
        Arguments of the network. ``pretrained: false`` is what networks without such weights do anyway.
    catalog_features
        Inputs from the catalogue. Where there are some the network is called with images and these, (N, catalog_features).

    Returns
    -------
    torch.nn.Module
        The network.

    Raises
    ------
    ModelError
        If there is no such network, or it does not take one of the options, or inputs from the catalogue.
    """
    arguments = network_arguments(name, options, f"network {name}", ModelError)
    if CATALOG in inspect.signature(network_class(name)).parameters:
        arguments = arguments | {CATALOG: catalog_features}
    elif catalog_features:
        takers = [each for each, maker in NETWORKS.items() if CATALOG in inspect.signature(maker).parameters]
        raise ModelError(
            f"network {name} takes images alone, and inputs.columns names columns of the catalogue; choose --network.name "
            f"{' or '.join(takers)}, or one of your own with a parameter {CATALOG}, or say --inputs.columns null"
        )
    try:
        network: nn.Module = network_class(name)(in_channels, outputs, **arguments)
    except ModelError:
        raise
    except Exception as error:  # of a user's own network, any
        raise ModelError(
            f"network {name} cannot be made of {arguments or 'its defaults'}: {type(error).__name__}: {error}"
        ) from error
    return network


def network_arguments(name: str, options: Mapping[str, Any], where: str, error: type[DarklensError]) -> dict[str, Any]:
    """Return the options of a network, checked against its own signature.

    Parameters
    ----------
    name
        One of `NETWORKS`, or a user's own, ``file.py:Class``, whose code is run.
    options
        Values by name.
    where
        Names the recipe or model in errors.
    error
        What is raised.

    Returns
    -------
    dict
        The same values, in the types that the signature says.

    Raises
    ------
    DarklensError
        ``error``, if an option is unknown, missing, or not of its type.
    """
    maker = network_class(name)
    skip = [*list(inspect.signature(maker).parameters)[:2], CATALOG]
    if options.get("pretrained") is False and "pretrained" not in inspect.signature(maker).parameters:
        options = {key: value for key, value in options.items() if key != "pretrained"}
    return typed_arguments(maker, options, where=where, prefix="network.", error=error, skip=skip)


def network_options(name: str) -> list[str]:
    """Return the names of the arguments that a network takes beside channels and outputs.

    Raises
    ------
    ModelError
        If there is no such network.
    """
    return [each for each in list(inspect.signature(network_class(name)).parameters)[2:] if each != CATALOG]


def has_learned_weights(name: str, options: Mapping[str, Any]) -> bool:
    """Return whether a network begins with weights that were learned: its options ``pretrained`` or ``weights`` say so.

    Parameters
    ----------
    name
        One of `NETWORKS`, or a user's own, ``file.py:Class``, whose code is run. One of a user's own that has neither
        option may bring weights of itself, and is taken to.
    options
        Values by name, as `network_arguments` returns them; those that are not given have their defaults.

    Raises
    ------
    ModelError
        If there is no such network.
    """
    values = {each.name: each.default for each in inspect.signature(network_class(name)).parameters.values()}
    values |= options
    asked = [values[option] for option in ("pretrained", "weights") if option in values]
    return any(asked) if asked else is_reference(name)


def refuses_constant(name: str, options: Mapping[str, Any]) -> bool:
    """Return whether a network cannot learn from images without contrast: its option ``masking`` is informative.

    Parameters
    ----------
    name
        One of `NETWORKS`, or a user's own, ``file.py:Class``, whose code is run.
    options
        Values by name; those that are not given have their defaults.

    Raises
    ------
    ModelError
        If there is no such network.
    """
    masking = inspect.signature(network_class(name)).parameters.get("masking")
    return masking is not None and options.get("masking", masking.default) == "informative"


def network_class(name: str) -> Callable[..., nn.Module]:
    """Return the class or function that makes a network; the file of a user's own is run.

    Raises
    ------
    ModelError
        If there is no such network.
    """
    if is_reference(name):
        return load_function(name)
    if name not in NETWORKS:
        near = difflib.get_close_matches(name, NETWORKS, 1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise ModelError(
            f"no network {name!r}{hint} There are {', '.join(NETWORKS)}, and your own as my_network.py:Class"
        )
    return NETWORKS[name]


def count_parameters(network: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
