"""The trained model: weights and everything needed to use them, in one folder laid out like a hub repository.

``model.safetensors``, ``config.json`` and ``README.md`` (the model card). No pickle, no absolute paths.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from darklens.data.augmentation import transform
from darklens.data.preprocessing import Preprocessing
from darklens.errors import ModelError
from darklens.inference.calibration import Calibration
from darklens.inference.carried import copy_code, trusted_network
from darklens.inference.config import ModelConfig as ModelConfig
from darklens.inference.config import read_config as read_config
from darklens.inference.outliers import OutlierScore, image_statistics, last_linear
from darklens.inference.shipped import WEIGHTS, model_folder
from darklens.inference.weights import OUTLIERS, load_network

BATCH = 64
"""Images that a model sees at a time: on CPUs more are slower, and take more memory."""


BATCH_PIXELS = 2**24
"""Pixels that a model sees at a time, for images of more than 512 × 512; more can take more memory than there is."""


def fitting_batch(batch_size: int, pixels: int) -> int:
    """Return how many images of ``pixels`` × ``pixels`` a model is given at a time, at most ``batch_size``."""
    return max(1, min(batch_size, BATCH_PIXELS // pixels**2))


@dataclass(frozen=True)
class Prediction:
    """What a model says of images: ``probabilities`` (N, classes), or ``values`` (N, outputs), float64.

    ``outlier_score`` (N,) is above 1 for images unlike 99% of those that the model knows; None if the model cannot say.
    """

    classes: list[str]
    outputs: list[str]
    probabilities: np.ndarray | None = None
    values: np.ndarray | None = None
    outlier_score: np.ndarray | None = None


class TrainedModel:
    """A model ready to predict. `load_model` makes one.

    Whoever predicts never has to know how images were prepared in training; they are given as the detector gave them.
    """

    def __init__(
        self,
        config: ModelConfig,
        network: nn.Module,
        device: torch.device | str = "cpu",
        outliers: OutlierScore | None = None,
    ):
        self.config = config
        self.device = torch.device(device)
        # A third faster on CPUs.
        self.network = network.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.preprocessing = Preprocessing(**config.preprocessing)
        self.calibration = Calibration(**config.calibration)
        self.outliers = outliers

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of the probabilities; empty for a regression."""
        return self.config.classes

    @property
    def members(self) -> list[TrainedModel]:
        """The models that it averages: itself alone, if it is no ensemble."""
        return [self]

    def predict(self, images: Tensor | np.ndarray, batch_size: int = BATCH, symmetries: bool = False) -> Prediction:
        """Predict images (N, C, H, W), (N, H, W) for one channel, or one image (H, W).

        ``symmetries`` averages over the eight symmetries of the square: the network sees each image eight times.

        Raises
        ------
        ModelError
            If channels or size do not fit the model, or pixels are nan or infinite.
        """
        batch = self._checked(images)
        batch_size = fitting_batch(batch_size, self.config.pixels)
        answers, unlike = [torch.zeros(0, self._width)], [torch.zeros(0)]
        for start in range(0, len(batch), batch_size):
            part = batch[start : start + batch_size].to(self.device)
            answer, strange = self.predict_batch(part, symmetries)
            answers.append(answer)
            unlike.append(strange)
        joined = torch.cat(answers).double().numpy()
        strangeness = torch.cat(unlike).double().numpy() if self.knows_outliers else None
        if self.config.task == "classify":
            return Prediction(self.classes, [], probabilities=joined, outlier_score=strangeness)
        return Prediction([], self.config.outputs, values=joined, outlier_score=strangeness)

    @property
    def knows_outliers(self) -> bool:
        """Whether it can say which images are unlike those that it knows."""
        return self.outliers is not None

    @torch.inference_mode()
    def predict_batch(self, images: Tensor, symmetries: bool = False) -> tuple[Tensor, Tensor]:
        """Calibrated probabilities or values (N, K), and how unlike (N,), of images (N, C, H, W); on the CPU."""
        prepared = self.preprocessing(images)
        output, features, statistics = self._forward_with_features(prepared)
        unlike = self.outliers(features, statistics) if self.outliers is not None else torch.zeros(len(output))
        # Preprocessing comes first: a lens need not be fitted again because its image is turned.
        turned = [self.network(transform(prepared, k)).float().cpu() for k in range(1, 8)] if symmetries else []
        return torch.stack([self._calibrated(each) for each in (output, *turned)]).mean(0), unlike

    @torch.inference_mode()
    def raw(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The network's output (N, K), the features before its last layer (N, F), and the image's statistics (N, S)."""
        return self._forward_with_features(self.preprocessing(images))

    def _calibrated(self, output: Tensor) -> Tensor:
        if self.config.task == "classify":
            return (output.double() / self.calibration.temperature).softmax(-1)
        scale, center = torch.tensor(self.config.output_scale), torch.tensor(self.config.output_center)
        return output.double() * scale + center

    def _forward_with_features(self, prepared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen: list[Tensor] = []
        layer = last_linear(self.network)
        hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) if layer is not None else None
        try:
            output = self.network(prepared).float().cpu()
        finally:
            if hook is not None:
                hook.remove()
        features = seen[0].float().flatten(1).cpu() if seen else torch.zeros(len(output), 1)
        return output, features, image_statistics(prepared).cpu()

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


class Ensemble(TrainedModel):
    """Models that answer together: the mean of their calibrated probabilities, or values."""

    def __init__(self, config: ModelConfig, members: list[TrainedModel]):
        super().__init__(config, nn.Identity(), members[0].device)
        self._members = members

    @property
    def members(self) -> list[TrainedModel]:
        """The models that it averages."""
        return self._members

    @property
    def knows_outliers(self) -> bool:
        """Whether all members can say which images are unlike those that they know."""
        return all(member.knows_outliers for member in self._members)

    @torch.inference_mode()
    def predict_batch(self, images: Tensor, symmetries: bool = False) -> tuple[Tensor, Tensor]:
        """Mean over the members of what `TrainedModel.predict_batch` gives."""
        answers, unlike = zip(*(member.predict_batch(images, symmetries) for member in self._members), strict=True)
        mean = torch.stack(answers).mean(0)
        if self.config.task == "classify":
            mean = (mean.clamp_min(1e-12).log() / self.calibration.temperature).softmax(-1)
        return mean, torch.stack(unlike).mean(0)


def save_model(path: Path, model: TrainedModel, card: str, half: bool = False) -> None:
    """Write a model folder; an existing one is replaced whole. ``half`` keeps weights in half precision.

    Members of an ensemble are written by `save_model`, each into its folder of ``config.members``.
    """
    from safetensors.torch import save_file

    path.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.network.state_dict().items()}
    if half:
        state = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
    save_file(state, path / WEIGHTS, metadata={"format": "pt"})
    if model.outliers is not None:
        tensors = {name: t.float().contiguous() for name, t in model.outliers.tensors().items()}
        save_file(tensors, path / OUTLIERS, metadata={"format": "pt"})
    config = copy_code(model.config, path)
    (path / "config.json").write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n", "utf-8")
    (path / "README.md").write_text(card, "utf-8")


def load_model(path: str | Path, device: torch.device | str = "cpu", *, trust_code: bool = False) -> TrainedModel:
    """Load a trained model from its folder, from a run that holds one in ``model/``, or by the name of a shipped one.

    Parameters
    ----------
    path
        Where it is, or its name.
    device
        Where it computes.
    trust_code
        Whether the code of a network of its user's own, which the folder carries, may run.

    Raises
    ------
    ModelError
        If there is none, it is damaged, or a newer darklens wrote it.
    UntrustedCodeError
        If its network is a user's own, and ``trust_code`` is not set: nothing was run.
    """
    folder = model_folder(path)
    config = read_config(folder)
    if config.members:
        members = [_load_member(folder / member, config, device, trust_code) for member in config.members]
        return Ensemble(config, members)
    config = dataclasses.replace(config, network=trusted_network(config, folder, trust_code))
    network, outliers = load_network(folder, config)
    return TrainedModel(config, network, device, outliers)


def _load_member(folder: Path, whole: ModelConfig, device: torch.device | str, trust_code: bool) -> TrainedModel:
    own = read_config(model_folder(folder))
    if own.members:
        raise ModelError(f"{folder}: a member of an ensemble is an ensemble itself")
    for name in ("task", "classes", "outputs", "channels", "pixels"):
        if getattr(own, name) != getattr(whole, name):
            raise ModelError(
                f"{folder}: its {name} are {getattr(own, name)!r}, those of the ensemble {getattr(whole, name)!r}"
            )
    return load_model(folder, device, trust_code=trust_code)
