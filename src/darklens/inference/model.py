"""The trained model: weights and everything needed to use them, in one folder laid out like a hub repository.

``model.safetensors``, ``config.json`` and ``README.md`` (the model card). No pickle, no absolute paths.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from darklens.data.preprocessing import Preprocessing
from darklens.errors import ModelError
from darklens.models.registry import build_network

FORMAT = 1


@dataclass(frozen=True)
class ModelConfig:
    """The content of ``config.json``.

    ``channels`` and ``pixels`` are those of the images it was trained on, ``pixel_scale`` in arcsec. A regression has
    ``outputs`` (column names) with the mean and standard deviation of its training targets.
    """

    task: str
    network: dict[str, Any]
    preprocessing: dict[str, Any]
    channels: int
    pixels: int
    classes: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    output_center: list[float] = field(default_factory=list)
    output_scale: list[float] = field(default_factory=list)
    bands: list[str] = field(default_factory=list)
    pixel_scale: float | None = None
    unit: str | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT


@dataclass(frozen=True)
class Prediction:
    """What a model says of images: ``probabilities`` (N, classes), or ``values`` (N, outputs), float64."""

    classes: list[str]
    outputs: list[str]
    probabilities: np.ndarray | None = None
    values: np.ndarray | None = None


class TrainedModel:
    """A model ready to predict. `load_model` makes one.

    Whoever predicts never has to know how images were prepared in training; they are given as the detector gave them.
    """

    def __init__(self, config: ModelConfig, network: nn.Module, device: torch.device | str = "cpu"):
        self.config = config
        self.device = torch.device(device)
        self.network = network.to(self.device).eval()
        self.preprocessing = Preprocessing(**config.preprocessing)

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of the probabilities; empty for a regression."""
        return self.config.classes

    def predict(self, images: Tensor | np.ndarray, batch_size: int = 256) -> Prediction:
        """Predict images (N, C, H, W), (N, H, W) for one channel, or one image (H, W).

        Raises
        ------
        ModelError
            If channels or size do not fit the model, or pixels are nan or infinite.
        """
        batch = self._checked(images)
        outputs = [self._forward(batch[i : i + batch_size]) for i in range(0, len(batch), batch_size)]
        joined = torch.cat(outputs).double() if outputs else torch.zeros(0, self._width, dtype=torch.float64)
        if self.config.task == "classify":
            return Prediction(self.classes, [], probabilities=joined.softmax(-1).numpy())
        scale, center = np.array(self.config.output_scale), np.array(self.config.output_center)
        return Prediction([], self.config.outputs, values=joined.numpy() * scale + center)

    @torch.inference_mode()
    def _forward(self, batch: Tensor) -> Tensor:
        return self.network(self.preprocessing(batch.to(self.device))).float().cpu()

    @property
    def _width(self) -> int:
        return len(self.classes or self.config.outputs)

    def _checked(self, images: Tensor | np.ndarray) -> Tensor:
        array = images.numpy() if isinstance(images, Tensor) else np.asarray(images)
        # PyTorch knows no unsigned 16-bit arithmetic, which detectors write.
        batch = torch.from_numpy(np.require(array, np.float32, ["C", "W"]))
        if batch.ndim == 2:
            batch = batch[None, None]
        elif batch.ndim == 3:
            batch = batch[:, None] if self.config.channels == 1 else batch[None]
        if batch.ndim != 4 or batch.shape[1] != self.config.channels:
            raise ModelError(
                f"images of shape {tuple(array.shape)} do not fit a model of {self.config.channels} channels: "
                "expected (N, C, H, W)"
            )
        if batch.shape[-1] != self.config.pixels or batch.shape[-2] != self.config.pixels:
            raise ModelError(
                f"images of {batch.shape[-2]}×{batch.shape[-1]} pixels; the model was trained on "
                f"{self.config.pixels}×{self.config.pixels}. 'darklens predict' resamples and crops for you"
            )
        if not torch.isfinite(batch).all():
            rows = torch.nonzero(~torch.isfinite(batch).flatten(1).all(1)).flatten()
            raise ModelError(f"{len(rows)} images have pixels that are nan or infinite; the first is number {rows[0]}")
        return batch


def save_model(path: Path, config: ModelConfig, network: nn.Module, card: str) -> None:
    """Write a model folder; an existing one is replaced whole."""
    from safetensors.torch import save_file

    path.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, path / "model.safetensors", metadata={"format": "pt"})
    (path / "config.json").write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n", "utf-8")
    (path / "README.md").write_text(card, "utf-8")


def load_model(path: str | Path, device: torch.device | str = "cpu") -> TrainedModel:
    """A trained model from its folder, or from a run that holds one in ``model/``.

    Raises
    ------
    ModelError
        If there is none, it is damaged, or a newer darklens wrote it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = model_folder(path)
    config = read_config(folder)
    options = dict(config.network)
    preprocessing = Preprocessing(**config.preprocessing)
    channels, _, _ = preprocessing.output_shape((config.channels, config.pixels, config.pixels))
    network = build_network(options.pop("name"), channels, len(config.classes or config.outputs), options)
    try:
        network.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{folder / 'model.safetensors'}: damaged, or not of this network: {reason}") from error
    return TrainedModel(config, network, device)


def model_folder(path: str | Path) -> Path:
    """Where a model lies: the folder itself, or ``model/`` of a run."""
    where = Path(path)
    for folder in (where, where / "model"):
        if (folder / "config.json").is_file() and (folder / "model.safetensors").is_file():
            return folder
    if (where / "checkpoints").is_dir():
        raise ModelError(f"{where}: training has not finished; go on with darklens train … --resume")
    raise ModelError(f"{where}: no trained model here (config.json and model.safetensors)")


def read_config(folder: Path) -> ModelConfig:
    """The description of the model in a folder."""
    try:
        content = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder / 'config.json'}: cannot be read: {error}") from error
    if content.get("format", 0) > FORMAT:
        raise ModelError(
            f"{folder}: written by a newer darklens (format {content['format']}, this one reads up to {FORMAT}); upgrade"
        )
    known = {f.name for f in dataclasses.fields(ModelConfig)}
    try:
        return ModelConfig(**{key: value for key, value in content.items() if key in known})
    except TypeError as error:
        raise ModelError(f"{folder / 'config.json'}: not a model's description: {error}") from error
