"""The description of a trained model (``config.json``), and the checks that it makes sense."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from darklens.data.catalog_inputs import read_encoder
from darklens.data.preprocessing import Preprocessing
from darklens.errors import ModelError
from darklens.evaluation.calibration import Calibration
from darklens.physics.smoothfit import PARAMETERS
from darklens.schema import from_keys, known_keys, read_versioned
from darklens.tasks.registry import current_model, make_task
from darklens.usercode import is_reference

FORMAT = 2
"""1: the task was a name, and what it had learned lay beside it."""
PIXELS = 2048
"""Side of the largest images that a model can be for; a batch of such takes gigabytes in a network."""
FILE = "config.json"


@dataclass(frozen=True)
class ModelConfig:
    """The content of ``config.json``.

    Attributes
    ----------
    task
        ``name`` and options of the task, with what it has learned, such as class names.
    network
        ``name`` and options of the network.
    preprocessing
        From detector to network.
    channels, pixels
        Of the images it was trained on.
    outputs
        Names of what is predicted.
    classes
        Names of the classes, if probabilities of classes are predicted.
    bands, pixel_scale, unit
        Of the images it was trained on; pixel scale in arcsec.
    zero_points
        AB magnitude of one ``unit`` in each of their bands, None where unknown; of models that do not record it, None.
    recipe, data, measured, versions
        How it was made, and how good it is.
    calibration
        What validation images taught.
    members
        Of an ensemble: folders beside this file.
    code
        The SHA-256 of each file of code that the model carries.
    catalog
        Columns of the catalogue that it takes beside images, and what training rows taught of them
        (`darklens.data.catalog_inputs.CatalogColumn`); empty for images alone.
    """

    task: dict[str, Any]
    network: dict[str, Any]
    preprocessing: dict[str, Any]
    channels: int
    pixels: int
    outputs: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    bands: list[str] = field(default_factory=list)
    pixel_scale: float | None = None
    unit: str | None = None
    zero_points: list[float | None] | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    members: list[str] = field(default_factory=list)
    code: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    catalog: list[dict[str, Any]] = field(default_factory=list)
    format: int = FORMAT


def read_config(folder: Path) -> ModelConfig:
    """Return the description of the model in a folder; keys that this version does not know are left out.

    Raises
    ------
    ModelError
        If it cannot be read, a newer darklens wrote it, or a value is of the wrong type or makes no sense.
    """
    path = folder / FILE
    content = read_versioned(path, FORMAT, ModelError)
    if isinstance(content.get("task"), str):
        content = current_model(content)
    content = known_keys(ModelConfig, content)
    config = from_keys(ModelConfig, content, str(path), ModelError)
    _check_outputs(config, path)
    _check_range(path, "channels", config.channels, 1, 4096)
    _check_range(path, "pixels", config.pixels, 1, PIXELS)
    if config.pixel_scale is not None and config.pixel_scale <= 0:
        raise ModelError(f"{path}: pixel_scale is {config.pixel_scale}; expected arcsec per pixel, above 0")
    if not isinstance(config.data.get("typical_peak", 0.0), int | float | None):
        raise ModelError(f"{path}: data.typical_peak is no number")
    _check_preprocessing(from_keys(Preprocessing, config.preprocessing, f"{path}: preprocessing", ModelError), path)
    read_encoder(config.catalog, str(path), ModelError)
    calibration = from_keys(Calibration, config.calibration, f"{path}: calibration", ModelError)
    _check_range(path, "calibration.temperature", calibration.temperature, 1e-3, 1e3)
    for member in config.members:
        if PurePosixPath(member).is_absolute() or not member.strip("./") or ".." in PurePosixPath(member).parts:
            raise ModelError(f"{path}: member {member!r} is no folder beside this file")
    return config


def _check_outputs(config: ModelConfig, path: Path) -> None:
    """The names of outputs; of a user's own task more is known only when its code is run."""
    names = config.outputs
    if not names or len(set(names)) < len(names):
        raise ModelError(f"{path}: outputs are {', '.join(names) or 'none'}; expected different names, at least one")
    if is_reference(config.task.get("name")):
        return
    task = make_task(config.task, str(path), learned=True, error=ModelError)
    if [list(task.output_names), list(task.classes)] != [names, config.classes]:
        raise ModelError(
            f"{path}: outputs are {', '.join(names)} of classes {', '.join(config.classes) or 'none'}; its task has "
            f"{', '.join(task.output_names) or 'none'}"
        )


def _check_preprocessing(preprocessing: Preprocessing, path: Path) -> None:
    smallest = 8 if preprocessing.lens_model or preprocessing.lens_light else 1
    for name in ("crop", "resize"):
        if (side := getattr(preprocessing, name)) is not None:
            _check_range(path, f"preprocessing.{name}", side, smallest, PIXELS)
    _check_range(path, "preprocessing.repeat_channels", preprocessing.repeat_channels, 1, 64)
    if preprocessing.scale == 0:
        raise ModelError(f"{path}: preprocessing.scale is 0, by which pixels are divided")
    if preprocessing.lens_model:
        _check_prior(preprocessing.lens_prior or {}, path)


def _check_prior(prior: dict[str, Any], path: Path) -> None:
    size = len(PARAMETERS)
    try:
        mean, precision = torch.tensor(prior["mean"]), torch.tensor(prior["precision"])
        blur = float(prior["blur"])
        # A fit inverts it, and so fails where it has no inverse.
        finite = mean.isfinite().all() and torch.linalg.inv(precision).isfinite().all()
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path}: preprocessing.lens_prior is damaged: {error}") from error
    if not isinstance(fine := prior.get("fine", False), bool):
        raise ModelError(f"{path}: preprocessing.lens_prior has fine {fine!r}; expected true or false")
    if mean.shape != (size,) or precision.shape != (size, size) or not finite or not 0 <= blur <= 2:
        raise ModelError(
            f"{path}: preprocessing.lens_prior has mean {tuple(mean.shape)}, precision {tuple(precision.shape)} and blur "
            f"{blur:g}; expected finite numbers, ({size},), ({size}, {size}) and 0 to 2"
        )


def _check_range(path: Path, name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ModelError(f"{path}: {name} is {value}; expected {low:g} to {high:g}")


def numbers_in(value: Any) -> Sequence[float]:
    """Return all numbers in JSON's lists and dicts, however deep."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for item in value for number in numbers_in(item)]
    return [value] if isinstance(value, int | float) else []
