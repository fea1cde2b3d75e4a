"""The encoder of a network: what makes features of an image, without what makes an answer of the features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from darklens.errors import ModelError
from darklens.models.heads import Headed, last_linear
from darklens.models.masked import MaskedAutoencoder
from darklens.models.sections import sections
from darklens.models.upconv import MAEUpconv


def encoder_weights(network: nn.Module) -> dict[str, Tensor]:
    """Return the weights and statistics of a network's encoder by name, which share their memory with the network.

    That of a masked autoencoder, and of `MAEUpconv`, is what sees the patches, that of a `Headed` its backbone; of other
    networks it is all but the first of `darklens.models.sections.sections`, the head.
    """
    state = network.state_dict()
    for kind, attribute in ((MaskedAutoencoder, "encoder."), (MAEUpconv, "encoder."), (Headed, "backbone.")):
        if isinstance(network, kind):
            return {name.removeprefix(attribute): t for name, t in state.items() if name.startswith(attribute)}
    layers = {name.rpartition(".")[0] + "." for name in sections(network)[0]}
    return {name: tensor for name, tensor in state.items() if not name.startswith(tuple(layers))}


ENCODER_OPTIONS = ("width", "depth", "heads", "patch")
"""Options that a masked autoencoder and a transformer on patches share: those of the encoder."""


def network_of_encoder(pretrained: Mapping[str, Any], head: Mapping[str, Any]) -> dict[str, Any]:
    """Return name and options of a network that has the encoder of a pre-trained one, and a head.

    Parameters
    ----------
    pretrained
        Name and options of the network that was pre-trained. Of a masked autoencoder, the encoder is that of
        ``patch-transformer``.
    head
        Name and options of a network whose head is taken, if it is of the same kind; of another kind, the network is the
        pre-trained one with the head that it has.
    """
    kept = dict(pretrained)
    if pretrained["name"] == "masked-autoencoder":
        shared = {name: pretrained[name] for name in ENCODER_OPTIONS if name in pretrained}
        kept = {"name": "patch-transformer"} | shared
    if head["name"] != kept["name"]:
        return kept
    of_head = {name: value for name, value in head.items() if name not in ENCODER_OPTIONS}
    return kept | of_head if kept["name"] == "patch-transformer" else kept


def encoder_features(network: nn.Module, images: Tensor) -> Tensor:
    """Return the features (N, F) that a network's head reads, of prepared images (N, C, H, W).

    Of a `Headed` and of a masked autoencoder they are its ``features``; of others, the input of the last dense layer, where
    that sees several places of an image their mean.

    Raises
    ------
    ModelError
        If it has no dense layer.
    """
    if isinstance(network, Headed | MaskedAutoencoder):
        return network.features(images)
    layer = last_linear(network)
    if layer is None:
        raise ModelError(f"{type(network).__name__} has no dense layer, whose input would be the features of an image")
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        network(images)
    finally:
        hook.remove()
    return seen[0].flatten(1, -2).mean(1) if seen[0].ndim > 2 else seen[0]


def load_encoder(network: nn.Module, trained: nn.Module, where: str) -> None:
    """Give a network the encoder of a trained one; its head stays as it is.

    Parameters
    ----------
    network
        Whose encoder is replaced.
    trained
        Whose encoder it gets.
    where
        Names the trained model in errors.

    Raises
    ------
    ModelError
        If the encoders are not of one shape; nothing is changed then.
    """
    own, given = encoder_weights(network), encoder_weights(trained)
    wrong = []
    for name in [*own, *(each for each in given if each not in own)]:
        if name not in given:
            wrong.append(f"{name} is missing in it")
        elif name not in own:
            wrong.append(f"{name} has no place here")
        elif own[name].shape != given[name].shape:
            wrong.append(f"{name} is {_shape(given[name])} there and {_shape(own[name])} here")
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ModelError(
            f"{where}: its encoder, of {type(trained).__name__}, does not fit this recipe's network, "
            f"{type(network).__name__}: {wrong[0]}{more}. Channels of the images and options of both networks have to be "
            "the same: see network and preprocessing in the model's config.json"
        )
    for name, tensor in own.items():
        tensor.copy_(given[name])


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"
