"""What a model's encoder makes of images: the numbers that its head, or another one, answers from."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from darklens.errors import ModelError
from darklens.inference.model import TrainedModel
from darklens.models.heads import Headed, last_linear
from darklens.models.masked import MaskedAutoencoder


class FeatureRecorder:
    """Records the features of all images that a model predicts inside its ``with`` block.

    Features are what ``darklens train --start`` hands on: of a masked autoencoder those of the whole image, of a network
    with a separate head what that reads, of any other the input of its last dense layer, where that sees several places
    of an image their mean. Those of the members of an ensemble stand one after the other.

    Parameters
    ----------
    model
        The model.
    where
        Names it in errors.

    Raises
    ------
    ModelError
        If a network has no such layer.
    """

    def __init__(self, model: TrainedModel, where: str):
        if model.task.predicts == "images":
            raise ModelError(
                f"{where}: its task, {model.config.task['name']}, makes images of images, and has no features of a whole "
                "one; take a model that classifies, finds, regresses or was pre-trained"
            )
        self._members = [_Member(member.network, where) for member in model.members]
        self._hooks = ExitStack()

    def __enter__(self) -> Self:
        for member in self._members:
            for handle in member.hooks():
                self._hooks.callback(handle.remove)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._hooks.close()

    def take(self) -> np.ndarray:
        """Return the features (N, F), float32, of all images since the block began or the last call; forget them."""
        each = [member.take() for member in self._members]
        return np.concatenate(each, axis=1) if each[0].size else np.zeros((0, 0), np.float32)


class _Member:
    """One network, and the features of each batch that it saw."""

    def __init__(self, network: nn.Module, where: str):
        self.network = network
        reader = network.head if isinstance(network, Headed) else last_linear(network)
        if reader is None and not isinstance(network, MaskedAutoencoder):
            raise ModelError(
                f"{where}: {type(network).__name__} has no dense layer, whose input would be the features of an image"
            )
        self.reader = reader
        self.batches: list[Tensor] = []
        self._begun = False

    def hooks(self) -> list[Any]:
        """Begin to record; return what ends it."""
        found = [self.network.register_forward_pre_hook(self._begin)]
        if self.reader is not None:
            found.append(self.reader.register_forward_pre_hook(self._read))
        return found

    def take(self) -> np.ndarray:
        """Return the features of all batches (N, F), and forget them."""
        found = torch.cat(self.batches).numpy() if self.batches else np.zeros((0, 0), np.float32)
        self.batches.clear()
        return found

    def _begin(self, network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(network, MaskedAutoencoder):
            self.batches.append(network.features(inputs[0]).float().cpu())
        self._begun = True

    def _read(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if not self._begun:  # called again in the same pass
            return
        self._begun = False
        values = inputs[0].float()
        # Of layers that see each place of an image, the mean over places.
        values = values.flatten(1, -2).mean(1) if values.ndim > 2 else values
        self.batches.append(values.cpu())
