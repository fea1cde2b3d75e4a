"""From fitted weights to a model that can be trusted: calibrated, described, saved."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from darklens.adaptation.module import AdaptationModule
from darklens.data.batches import Batch
from darklens.data.seeds import make_generator
from darklens.data.splits import sample_rows
from darklens.inference.model import BATCH, Ensemble, ModelConfig, TrainedModel, save_model
from darklens.inference.outliers import OutlierScore
from darklens.models.registry import count_parameters
from darklens.progress import progress_bar
from darklens.tasks.registry import task_content
from darklens.tasks.supervised import SupervisedModule
from darklens.training.card import model_card
from darklens.training.fit import Fitted, batches_done, console
from darklens.training.job import Job, machine, peak_memory, read_record, write_record
from darklens.training.recipe import Recipe
from darklens.training.training_data import TrainingData

Result = TypeVar("Result")
Given = TypeVar("Given")
BESIDE = ("noise", "catalog")
"""What batches may carry beside images that a network or its preprocessing takes."""

CALIBRATION_IMAGES = 8192
"""Validation images that are enough to calibrate: of larger sets, so many are drawn at random. The coverage of prediction
sets then differs by 0.2% (standard deviation) from what is asked at 95%, as sqrt(0.95 × 0.05 / 8192) says; a larger number
takes longer in proportion, a smaller one makes coverage and temperature less certain."""


def finish(job: Job, data: TrainingData, module: SupervisedModule, out: Path, fitted: Fitted) -> None:
    """Calibrate a fitted module, and write its model and the record of its training into the run folder."""
    for parameter in module.network.parameters():  # gradual unfreezing may have ended before its last section
        parameter.requires_grad_(True)
    record = read_record(out) | {"training": _training(module, fitted), "data_description": data.description}
    if concern := data.task.concern_of_training(fitted.measured, len(data.validation)):
        console.print(f"! {concern}", highlight=False)
    config = _model_config(job.recipe, data, module, record)
    if isinstance(module, AdaptationModule):
        for note in module.notes:
            console.print(f"! {note}", highlight=False)
        record["notes"] = [*record.get("notes", []), *module.notes]
    model = calibrated(TrainedModel(config, module.network, data.task), data)
    save_model(out / "model", model, model_card(model.config, data.task, record))
    write_record(out, record)


def _training(module: SupervisedModule, fitted: Fitted) -> dict[str, Any]:
    """What a training took."""
    trainer = fitted.trainer
    return {
        "seconds": round(fitted.seconds, 1),
        "epochs": trainer.current_epoch,
        "steps": batches_done(trainer),
        "images": fitted.images,
        "images_per_second": round(fitted.images_per_second, 1),
        "parameters": count_parameters(module.network),
        "precision": str(trainer.precision),
        "best_epoch": fitted.best_epoch,
        "peak_memory_mib": peak_memory(),
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "devices": trainer.num_devices * trainer.num_nodes,
    }


def calibrated(model: TrainedModel, data: TrainingData) -> TrainedModel:
    """Return the model with its calibration, and its score of images unlike those that it was trained on.

    Both are fitted to `CALIBRATION_IMAGES` validation images, or all if there are fewer: a random sample that follows from
    the seed, with the validation set's fraction of each class. The members of an ensemble have that score themselves.
    """
    rng = make_generator(data.seed, "calibration")
    rows = sample_rows(_labels(data.validation.targets), CALIBRATION_IMAGES, rng)
    batches = [data.validation[rows[i : i + BATCH]] for i in range(0, len(rows), BATCH)]
    targets = torch.cat([batch["target"] for batch in batches])
    if len(model.members) > 1:
        table = data.validation_rows() if model.columns and data.validation_rows is not None else None
        catalogs = [None if table is None else table[rows[i : i + BATCH]] for i in range(0, len(rows), BATCH)]
        predicted = _each(
            list(zip(batches, catalogs, strict=True)),
            lambda both: model.predict_batch(both[0]["image"], noise=both[0].get("noise"), catalog=both[1])[0],
        )
        means = torch.cat(predicted)
        calibration = model.task.calibrate(model.task.uncalibrated(means), targets)
        config = dataclasses.replace(model.config, calibration=dataclasses.asdict(calibration))
        return Ensemble(config, model.members)
    outputs, features, statistics = _features(model, batches)
    beside = {"noise": data.sample_noise, "catalog": data.sample_catalog}
    sample = {"image": data.sample} | {name: tensor for name, tensor in beside.items() if tensor is not None}
    parts = [{name: of[i : i + BATCH] for name, of in sample.items()} for i in range(0, len(data.sample), BATCH)]
    _, known, known_statistics = _features(model, parts)
    calibration = model.task.calibrate(outputs, targets)
    config = dataclasses.replace(model.config, calibration=dataclasses.asdict(calibration))
    if data.target is not None:  # what such a model is for; the source's images may be unlike it
        (_, known, known_statistics), (_, features, statistics) = (
            _features(model, [{"image": part} for part in torch.split(images, BATCH)])
            for images in (data.target.sample, data.target.images.validation)
        )
    outliers = OutlierScore.fit(known, known_statistics, (features, statistics))
    return TrainedModel(config, model.network, model.task, device=model.device, outliers=outliers)


def _labels(targets: Any) -> np.ndarray:
    """Label numbers (N,) among targets; of values and images, which are not read, one label for all."""
    if len(targets.shape) == 1 and not np.issubdtype(targets.dtype, np.floating):
        return np.asarray(targets)
    return np.zeros(targets.shape[0], dtype=np.int64)


def _features(model: TrainedModel, batches: list[Batch]) -> tuple[Tensor, Tensor, Tensor]:
    def computed(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        noise, catalog = (tensor if tensor is None else tensor.to(model.device) for tensor in map(batch.get, BESIDE))
        return model.outputs_and_features(batch["image"].to(model.device), noise, catalog)

    parts = _each(batches, computed)
    outputs, features, statistics = (torch.cat(part) for part in zip(*parts, strict=True))
    return outputs, features, statistics


def _each(batches: list[Given], function: Callable[[Given], Result]) -> list[Result]:
    """What a function returns for each batch, with a progress bar."""
    results: list[Result] = []
    with progress_bar("calibrating") as advance:
        for batch in batches:
            results.append(function(batch))
            advance(len(results), len(batches))
    return results


def _model_config(recipe: Recipe, data: TrainingData, module: SupervisedModule, record: dict[str, Any]) -> ModelConfig:
    network = dict(recipe.network)
    # What is loaded later comes from the model's own weights.
    network.pop("weights", None)
    if "pretrained" in network:
        network["pretrained"] = False
    return ModelConfig(
        task=task_content(data.task, recipe.task["name"]),
        network=network,
        preprocessing=dataclasses.asdict(module.preprocessing),
        channels=data.shape[0],
        pixels=data.shape[1],
        outputs=list(data.task.output_names),
        classes=list(data.task.classes),
        bands=data.bands,
        pixel_scale=data.pixel_scale,
        unit=data.unit,
        zero_points=data.zero_points,
        recipe=dataclasses.asdict(recipe),
        data=data.description,
        measured={},
        versions=record["versions"],
        catalog=[] if data.encoder is None else data.encoder.content(),
    )
