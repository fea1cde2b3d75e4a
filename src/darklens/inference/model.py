"""The trained model: weights and everything needed to use them, in one folder laid out like a hub repository.

``model.safetensors``, ``config.json`` and ``README.md`` (the model card). No pickle, no absolute paths.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from darklens.data.augmentation import transform, turned_back
from darklens.data.catalog_inputs import read_encoder
from darklens.data.preprocessing import Preprocessing
from darklens.errors import ModelError, UserCodeError
from darklens.evaluation.calibration import Calibration
from darklens.inference.carried import copy_code, trusted_config
from darklens.inference.config import ModelConfig as ModelConfig
from darklens.inference.config import read_config as read_config
from darklens.inference.outliers import OutlierScore, image_statistics
from darklens.inference.precision import Precision
from darklens.inference.shipped import WEIGHTS, model_folder
from darklens.inference.weights import OUTLIERS, load_network
from darklens.models.heads import last_linear
from darklens.tasks.base import Task
from darklens.tasks.registry import make_task

BATCH = 64
"""Images that a model sees at a time: on CPUs more are slower, and take more memory."""


BATCH_PIXELS = 2**24
"""Pixels that a model sees at a time, for images of more than 512 × 512; more can take more memory than there is."""


def fitting_batch(batch_size: int, pixels: int) -> int:
    """Return how many images of ``pixels`` × ``pixels`` a model is given at a time, at most ``batch_size``."""
    return max(1, min(batch_size, BATCH_PIXELS // pixels**2))


@dataclass(frozen=True)
class Prediction:
    """Predictions of images.

    Attributes
    ----------
    array
        (N, K), float64: probabilities of K classes, or K values; (N, K, H, W) of images.
    outputs
        K names.
    classes
        The same names if they are classes; else empty.
    outlier_score
        (N,), above 1 for images unlike 99% of those that the model was trained on; None if the model has no such score.
    """

    array: np.ndarray
    outputs: Sequence[str]
    classes: Sequence[str] = ()
    outlier_score: np.ndarray | None = None

    @property
    def probabilities(self) -> np.ndarray | None:
        """Probabilities (N, classes); None if something else is predicted."""
        return self.array if self.classes else None

    @property
    def values(self) -> np.ndarray | None:
        """Values (N, outputs); None if probabilities are predicted."""
        return None if self.classes else self.array


class TrainedModel:
    """A model ready to predict. `load_model` makes one.

    Whoever predicts never has to know how images were prepared in training; they are given as the detector gave them.

    Parameters
    ----------
    config
        Its description.
    network
        From preprocessed images (N, C, H, W) to outputs (N, K).
    task
        What it has learned to do.
    device
        Where it computes.
    outliers
        Its score of images unlike those that it was trained on.
    """

    def __init__(
        self,
        config: ModelConfig,
        network: nn.Module,
        task: Task,
        *,
        device: torch.device | str = "cpu",
        outliers: OutlierScore | None = None,
    ):
        self.config = config
        self.task = task
        self.device = torch.device(device)
        # A third faster on CPUs.
        self.network = network.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.preprocessing = Preprocessing(**config.preprocessing)
        self.calibration = Calibration(**config.calibration)
        self.outliers = outliers
        self.encoder = read_encoder(config.catalog, "config.json", ModelError)
        self.precision: Precision = "float32"

    @property
    def columns(self) -> list[str]:
        """Columns of the catalogue that it takes beside images; empty for images alone."""
        return [] if self.encoder is None else self.encoder.names

    def catalog_notes(self, catalog: pl.DataFrame, where: str) -> list[str]:
        """Return sentences on rows (N,) whose values the training rows did not have; ``where`` names the data.

        Raises
        ------
        DataError
            If a column is missing, or does not hold what it held in training.
        """
        return [] if self.encoder is None else self.encoder.notes(catalog, where)

    @property
    def classes(self) -> Sequence[str]:
        """Class names, in the order of the probabilities; empty if something else is predicted."""
        return self.task.classes

    @property
    def members(self) -> list[TrainedModel]:
        """The models that it averages: itself alone, if it is no ensemble."""
        return [self]

    def with_prior(self, prior: float) -> TrainedModel:
        """Return the model with probabilities for another fraction of what it searches for, by Bayes' theorem.

        Parameters
        ----------
        prior
            Fraction among all objects, above 0 and below 1.

        Raises
        ------
        ModelError
            If the model is no search.
        """
        other = copy.copy(self)
        other.task = self.task.with_prior(prior)
        other.config = dataclasses.replace(self.config, task=self.config.task | {"prior": prior})
        return other

    def with_precision(self, precision: Precision) -> TrainedModel:
        """Return the model with a network that computes in another precision; images are prepared in float32 as before.

        Parameters
        ----------
        precision
            ``float32``, or ``bfloat16``, which processors with instructions for it compute up to twice as fast.
        """
        other = copy.copy(self)
        other.precision = precision
        return other

    def predict(
        self,
        images: Tensor | np.ndarray,
        *,
        noise: Tensor | None = None,
        catalog: pl.DataFrame | Mapping[str, Any] | None = None,
        batch_size: int = BATCH,
        symmetries: bool = False,
    ) -> Prediction:
        """Predict images.

        Parameters
        ----------
        images
            (N, C, H, W), (N, H, W) for one channel, or one image (H, W), as the detector gave them.
        noise
            Standard deviation of the sky's noise (N, C), nan where unknown; None estimates it from the images.
        catalog
            Of a model that takes `columns` beside images: a table with these columns and N rows, in the order of the
            images, or a dict of lists or arrays. Missing values are None or nan.
        batch_size
            Images that the network sees at a time, at most.
        symmetries
            Average over the eight symmetries of the square: the network sees each image eight times.

        Returns
        -------
        Prediction
            Probabilities or values, and how unlike the training images each image is.

        Raises
        ------
        ModelError
            If channels or size do not fit the model, or pixels are nan or infinite, or ``catalog`` is not what it needs.
        DataError
            If a column of the catalogue is missing, or does not hold what it held in training.
        """
        batch = self._checked(images)
        table = self._checked_catalog(catalog, len(batch))
        batch_size = fitting_batch(batch_size, self.config.pixels)
        predictions, scores = [], []
        for start in range(0, len(batch), batch_size):
            some = slice(start, start + batch_size)
            sky = None if noise is None else noise[some].to(self.device)
            rows = None if table is None else table[some]
            predicted, score = self.predict_batch(batch[some].to(self.device), symmetries, noise=sky, catalog=rows)
            predictions.append(predicted)
            scores.append(score)
        if not predictions:
            return self.prediction(np.zeros((0, self.task.outputs)), np.zeros(0) if self.knows_outliers else None)
        outlier_score = torch.cat(scores).double().numpy() if self.knows_outliers else None
        return self.prediction(torch.cat(predictions).double().numpy(), outlier_score)

    def prediction(self, array: np.ndarray, outlier_score: np.ndarray | None) -> Prediction:
        """Return predictions (N, K) and outlier scores (N,) with the names of the outputs."""
        return Prediction(array, self.task.output_names, self.task.classes, outlier_score)

    @property
    def knows_outliers(self) -> bool:
        """Whether it has a score of images unlike those that it was trained on."""
        return self.outliers is not None

    @torch.inference_mode()
    def predict_batch(
        self,
        images: Tensor,
        symmetries: bool = False,
        *,
        noise: Tensor | None = None,
        catalog: pl.DataFrame | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return calibrated predictions and outlier scores of a batch.

        Parameters
        ----------
        images
            (N, C, H, W), on the model's device.
        symmetries
            Average over the eight symmetries of the square.
        noise
            Standard deviation of the sky's noise (N, C); None estimates it from the images.
        catalog
            Rows (N,) with `columns`, where it takes such.

        Returns
        -------
        tuple of Tensor
            Predictions (N, K) and outlier scores (N,), on the CPU.
        """
        prepared = self.preprocessing(images, noise=noise)
        beside = self.inputs(catalog)
        output, features, statistics = self._forward_with_features(prepared, *beside)
        score = self.outliers(features, statistics) if self.outliers is not None else torch.zeros(len(output))
        # Preprocessing comes first: a lens need not be fitted again because its image is turned.
        predicted = self.task.calibrated(output, self.calibration)
        if symmetries:
            turned = [self._output(transform(prepared, k), *beside) for k in range(1, 8)]
            if self.task.predicts == "images":
                turned = [turned_back(each, k) for k, each in enumerate(turned, 1)]
            calibrated = [predicted, *(self.task.calibrated(each, self.calibration) for each in turned)]
            # As members of an ensemble, which needs no temperature of its own.
            predicted = self.task.averaged(torch.stack(calibrated), Calibration())
        return self._whole(predicted, len(images)), score

    def _whole(self, predicted: Tensor, images: int) -> Tensor:
        """Predictions of a batch as a task returned them, refused if they are not those of so many images."""
        columns = self.task.predicts == "columns"
        expected = (images, self.task.outputs) if columns else (images, *predicted.shape[-3:])
        if predicted.shape != expected or (not columns and predicted.ndim != 4):
            raise UserCodeError(
                f"predictions of {type(self.task).__name__} for {images} images have shape {tuple(predicted.shape)}; "
                + (
                    f"expected {expected}, a column for each of its output_names"
                    if columns
                    else "expected (N, C, H, W)"
                )
            )
        return predicted

    @torch.inference_mode()
    def outputs_and_features(
        self, images: Tensor, noise: Tensor | None = None, catalog: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the network's output (N, K), the features before its last layer (N, F), and image statistics (N, S).

        Parameters
        ----------
        images
            (N, C, H, W), on the model's device.
        noise
            Standard deviation of the sky's noise (N, C); None estimates it from the images.
        catalog
            Inputs from the catalogue, as batches carry them, (N, G).

        Returns
        -------
        tuple of Tensor
            Output (N, K), features (N, F) and statistics (N, S), on the CPU.
        """
        beside = [] if catalog is None else [catalog]
        return self._forward_with_features(self.preprocessing(images, noise=noise), *beside)

    def inputs(self, catalog: pl.DataFrame | None) -> list[Tensor]:
        """Return what the network is called with beside images: nothing, or the inputs (N, F) of rows of a catalogue.

        Raises
        ------
        ModelError
            If there is no catalogue where it takes one.
        """
        if self.encoder is None:
            return []
        if catalog is None:
            raise ModelError(_no_catalog(self.columns))
        return [torch.from_numpy(self.encoder.encode(catalog, "catalog")).to(self.device)]

    def _checked_catalog(self, catalog: pl.DataFrame | Mapping[str, Any] | None, images: int) -> pl.DataFrame | None:
        """The catalogue as a table of as many rows as there are images; None if the model takes none."""
        if not self.columns:
            if catalog is not None:
                raise ModelError("this model takes images alone; leave catalog out")
            return None
        if catalog is None:
            raise ModelError(_no_catalog(self.columns))
        try:
            table = pl.DataFrame(catalog, nan_to_null=True, strict=False)
        except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
            raise ModelError(f"catalog is no table, or columns by name: {error}") from error
        if len(table) != images:
            raise ModelError(f"catalog has {len(table)} rows for {images} images; give one for each, in their order")
        return table

    def _output(self, prepared: Tensor, *beside: Tensor) -> Tensor:
        low = self.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            output: Tensor = self.network(prepared, *beside)
        return output.float().cpu()

    def _forward_with_features(self, prepared: Tensor, *beside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen: list[Tensor] = []
        layer = last_linear(self.network)
        hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) if layer is not None else None
        try:
            output = self._output(prepared, *beside)
        finally:
            if hook is not None:
                hook.remove()
        # Of layers that see each place of an image, the mean over places.
        features = seen[0].float().flatten(1, -2).mean(1) if seen and seen[0].ndim > 2 else None
        if features is None:
            features = seen[0].float().flatten(1) if seen else torch.zeros(len(output), 1)
        features = features.cpu()
        return output, features, image_statistics(prepared).cpu()

    def _checked(self, images: Tensor | np.ndarray) -> Tensor:
        if isinstance(images, str | Path):
            raise ModelError(f"{images}: predict takes arrays; those of files are darklens.open_data(path).images")
        try:
            array = images.numpy() if isinstance(images, Tensor) else np.asarray(images)
            # PyTorch knows no unsigned 16-bit arithmetic, which detectors write.
            batch = torch.from_numpy(np.require(array, np.float32, ["C", "W"]))
        except (TypeError, ValueError) as error:
            raise ModelError(f"images are no array of numbers: {error}") from error
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


def _no_catalog(columns: Sequence[str]) -> str:
    return f"this model takes columns of the catalogue beside images ({', '.join(columns)}); give catalog with them"


class Ensemble(TrainedModel):
    """Models whose predictions are averaged: the mean of their calibrated probabilities, or values.

    Parameters
    ----------
    config
        Its description.
    members
        The models.
    """

    def __init__(self, config: ModelConfig, members: list[TrainedModel]):
        # Each member has its own columns, standardised as it knows them.
        config = dataclasses.replace(config, catalog=[])
        super().__init__(config, nn.Identity(), members[0].task, device=members[0].device)
        self._members = members

    @property
    def members(self) -> list[TrainedModel]:
        """The models that it averages."""
        return self._members

    def with_prior(self, prior: float) -> Ensemble:
        """Return the ensemble with the probabilities of all members, and so its own, for another prior."""
        config = dataclasses.replace(self.config, task=self.config.task | {"prior": prior})
        return Ensemble(config, [member.with_prior(prior) for member in self._members])

    def with_precision(self, precision: Precision) -> Ensemble:
        """Return the ensemble with networks that compute in another precision."""
        return Ensemble(self.config, [member.with_precision(precision) for member in self._members])

    @property
    def knows_outliers(self) -> bool:
        """Whether all members have such a score."""
        return all(member.knows_outliers for member in self._members)

    @property
    def columns(self) -> list[str]:
        """Columns of the catalogue that any of the members takes beside images."""
        return list(dict.fromkeys(name for member in self._members for name in member.columns))

    def catalog_notes(self, catalog: pl.DataFrame, where: str) -> list[str]:
        """Return what the members have to say of rows (N,); ``where`` names the data."""
        return list(dict.fromkeys(note for member in self._members for note in member.catalog_notes(catalog, where)))

    @torch.inference_mode()
    def predict_batch(
        self,
        images: Tensor,
        symmetries: bool = False,
        *,
        noise: Tensor | None = None,
        catalog: pl.DataFrame | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the mean over the members of what `TrainedModel.predict_batch` gives, as the task averages them."""
        each = [member.predict_batch(images, symmetries, noise=noise, catalog=catalog) for member in self._members]
        predictions, scores = zip(*each, strict=True)
        averaged = self.task.averaged(torch.stack(predictions), self.calibration)
        return self._whole(averaged, len(images)), torch.stack(scores).mean(0)


def save_model(path: Path, model: TrainedModel, card: str, *, half: bool = False) -> None:
    """Write a model folder; an existing one is replaced whole.

    Parameters
    ----------
    path
        The folder.
    model
        The model.
    card
        The text of ``README.md``.
    half
        Keep weights in half precision.

    Notes
    -----
    Members of an ensemble are written by `save_model`, each into its folder of ``config.members``.
    """
    from safetensors.torch import save_file

    path.mkdir(parents=True, exist_ok=True)
    # Copies, as weights that two layers share would be refused.
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.network.state_dict().items()}
    if half:
        state = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
    save_file(state, path / WEIGHTS, metadata={"format": "pt"})
    if model.outliers is not None:
        # In double precision: what the components leave of few features is all rounding.
        tensors = {name: t.contiguous() for name, t in model.outliers.tensors().items()}
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

    Returns
    -------
    TrainedModel
        Ready to predict.

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
    config = trusted_config(config, folder, trust_code)
    task = load_task(folder, config, trust_code=trust_code)
    network, outliers = load_network(folder, config)
    return TrainedModel(config, network, task, device=device, outliers=outliers)


def load_task(folder: Path, config: ModelConfig, *, trust_code: bool = False) -> Task:
    """Return what a model has learned to do.

    Parameters
    ----------
    folder
        Of the model.
    config
        What `read_config` read there.
    trust_code
        Whether the code of a user's own task, which the folder carries, may run.

    Returns
    -------
    Task
        With what it has learned.

    Raises
    ------
    ModelError
        If its description makes no sense.
    UntrustedCodeError
        If it is a user's own, and ``trust_code`` is not set.
    """
    if config.members:
        return load_task(folder / config.members[0], read_config(folder / config.members[0]), trust_code=trust_code)
    content = trusted_config(config, folder, trust_code).task
    task = make_task(content, str(folder / "config.json"), learned=True, error=ModelError)
    if list(task.output_names) != config.outputs:
        raise ModelError(f"{folder}: its outputs are {config.outputs}; those of its task are {list(task.output_names)}")
    return task


def _load_member(folder: Path, whole: ModelConfig, device: torch.device | str, trust_code: bool) -> TrainedModel:
    own = read_config(model_folder(folder))
    if own.members:
        raise ModelError(f"{folder}: a member of an ensemble is an ensemble itself")
    if own.task["name"] != whole.task["name"]:
        raise ModelError(f"{folder}: its task is {own.task['name']!r}, that of the ensemble {whole.task['name']!r}")
    for name in ("classes", "outputs", "channels", "pixels"):
        if getattr(own, name) != getattr(whole, name):
            raise ModelError(
                f"{folder}: its {name} are {getattr(own, name)!r}, those of the ensemble {getattr(whole, name)!r}"
            )
    return load_model(folder, device, trust_code=trust_code)
