"""The encoder of a network: what makes features of an image, without what makes an answer of the features."""

from __future__ import annotations

from torch import Tensor, nn

from darklens.errors import ModelError
from darklens.models.heads import Headed
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
