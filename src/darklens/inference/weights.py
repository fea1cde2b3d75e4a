"""Build the network that a description names, and fill it with weights of strangers, if both are of one size."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from darklens.data.bounds import named_errors
from darklens.data.catalog_inputs import read_encoder
from darklens.data.preprocessing import Preprocessing
from darklens.errors import ModelError
from darklens.inference.config import FILE, ModelConfig, numbers_in
from darklens.inference.outliers import OutlierScore
from darklens.inference.shipped import WEIGHTS
from darklens.models.heads import last_linear
from darklens.models.registry import build_network
from darklens.usercode import is_reference

OUTLIERS = "outliers.safetensors"
LARGEST_OPTION = 4096
"""An option of a network (a width, a number of blocks) may be this, or as many as its file has tensors or numbers along
the longest axis of one."""


def load_network(folder: Path, config: ModelConfig) -> tuple[nn.Module, OutlierScore | None]:
    """Return the network of a model folder with its weights, and its outlier score if there is one.

    The network is first built without memory for its weights, to see that they fit it: a description can name a network
    of any size.

    Raises
    ------
    ModelError
        If the network cannot be built, or the weights are damaged or of another network.
    """
    state = _read(folder / WEIGHTS)
    shape = Preprocessing(**config.preprocessing).output_shape((config.channels, config.pixels, config.pixels))
    if not is_reference(config.network.get("name")):  # a network of the user's own may need memory to be built
        _check_fit(folder, config, shape[0], state)
    with named_errors(folder, "its weights are damaged, or not of this network", ModelError):
        network = _build(folder, config, shape[0]).eval()
        network.load_state_dict(state)
    with named_errors(folder, "its network cannot take images of its size", ModelError), torch.inference_mode():
        extra = [torch.zeros(1, features)] if (features := catalog_features(config)) else []
        output = network(torch.zeros(1, *shape), *extra)
        if tuple(output.shape[:2]) != (expected := (1, len(config.outputs))):
            raise ModelError(f"{folder}: its network puts out {tuple(output.shape)}; expected {expected}")
    outliers = None
    if (folder / OUTLIERS).is_file():
        tensors = _read(folder / OUTLIERS)
        with named_errors(folder / OUTLIERS, "damaged", ModelError):
            outliers = OutlierScore.from_tensors(tensors)
            layer = last_linear(network)
            outliers.check(layer.in_features if layer is not None else 1, 5 * shape[0])
    return network, outliers


def catalog_features(config: ModelConfig) -> int:
    """Return how many inputs from the catalogue a network takes beside images."""
    encoder = read_encoder(config.catalog, FILE, ModelError)
    return 0 if encoder is None else len(encoder.features)


def _check_fit(folder: Path, config: ModelConfig, channels: int, state: dict[str, Tensor]) -> None:
    most = max([LARGEST_OPTION, len(state), *(n for tensor in state.values() for n in tensor.shape)])
    if too_large := [number for number in numbers_in(config.network) if not abs(number) <= most]:
        raise ModelError(f"{folder}: its network has an option {too_large[0]:g}, more than its weights are for")
    with named_errors(folder, "its network cannot be built", ModelError), torch.device("meta"):
        own = {name: tuple(tensor.shape) for name, tensor in _build(folder, config, channels).state_dict().items()}
    if own != {name: tuple(tensor.shape) for name, tensor in state.items()}:
        raise ModelError(f"{folder}: its weights are damaged, or not of this network: {_difference(own, state)}")


def _difference(own: dict[str, tuple[int, ...]], state: dict[str, Tensor]) -> str:
    for name, shape in own.items():
        if name not in state:
            return f"there is no {name}"
        if tuple(state[name].shape) != shape:
            return f"{name} is of shape {tuple(state[name].shape)}, the network's of {shape}"
    return f"the network has no {next(name for name in state if name not in own)}"


def _build(folder: Path, config: ModelConfig, channels: int) -> nn.Module:
    options = dict(config.network)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise ModelError(f"{folder}: network.name is {name!r}; expected the name of a network")
    try:
        return build_network(name, channels, len(config.outputs), options, catalog_features=catalog_features(config))
    except ModelError as error:
        raise ModelError(f"{folder}: its network cannot be built: {error}") from error


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    with named_errors(path, "its weights are damaged, or not of this network", ModelError):
        return load_file(path)
