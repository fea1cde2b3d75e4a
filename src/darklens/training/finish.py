"""From fitted weights to a model that can be trusted: calibrated, described, saved."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from darklens.evaluation.concerns import TRY, is_near_chance
from darklens.inference.calibration import Calibration, fit_calibration
from darklens.inference.model import BATCH, Ensemble, ModelConfig, TrainedModel, save_model
from darklens.inference.outliers import OutlierScore
from darklens.models.registry import count_parameters
from darklens.progress import progress_bar
from darklens.tasks.base import ImageTask
from darklens.tasks.regress import Regression
from darklens.training.card import model_card
from darklens.training.fit import Fitted, console
from darklens.training.job import Job, machine, peak_memory, write_record
from darklens.training.recipe import Recipe
from darklens.training.training_data import TrainingData

Result = TypeVar("Result")

CALIBRATION_IMAGES = 8192
"""Validation images that are enough to calibrate."""


def finish(job: Job, source: TrainingData, task: ImageTask, out: Path, fitted: Fitted) -> None:
    """Write the model of a fitted task into its run, with the record of its training."""
    trainer = fitted.trainer
    record = json.loads((out / "run.json").read_text("utf-8"))
    record["training"] = {
        "seconds": round(fitted.seconds, 1),
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "images": trainer.global_step * job.recipe.trainer.batch_size,
        "images_per_second": round(fitted.images_per_second, 1),
        "parameters": count_parameters(task.network),
        "precision": str(trainer.precision),
        "best_epoch": fitted.best_epoch,
        "peak_memory_mib": peak_memory(),
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "devices": trainer.num_devices * trainer.num_nodes,
    }
    record["data_description"] = source.description
    for parameter in task.network.parameters():  # gradual unfreezing may have ended before its last section
        parameter.requires_grad_(True)
    auc, held_out = fitted.validation_auc, len(source.validation)
    if auc is not None and is_near_chance(auc, held_out, len(source.classes)):
        console.print(
            f"! the model cannot be told from guessing: its macro AUC on {held_out:,} validation images is {auc:.3f}; "
            + TRY,
            highlight=False,
        )
    model = calibrated(TrainedModel(_model_config(job.recipe, source, task, record), task.network), source)
    save_model(out / "model", model, model_card(model.config, record))
    write_record(out, record)


def calibrated(model: TrainedModel, source: TrainingData) -> TrainedModel:
    """The model with temperature, scores for prediction sets, and its sense of what is unlike its training images.

    The members of an ensemble have that sense themselves.
    """
    count = min(len(source.validation), CALIBRATION_IMAGES)
    batches = [source.validation[range(i, min(i + BATCH, count))] for i in range(0, count, BATCH)]
    if len(model.members) > 1:
        images = [batch["image"] for batch in batches]
        outputs = torch.cat(_each(images, lambda image: model.predict_batch(image)[0])).clamp_min(1e-12).log()
        calibration = fit_calibration(outputs, torch.cat([batch["target"] for batch in batches]))
        config = dataclasses.replace(model.config, calibration=dataclasses.asdict(calibration))
        return Ensemble(config, model.members)
    outputs, features, statistics = _raw(model, [batch["image"] for batch in batches])
    _, known, known_statistics = _raw(
        model, [source.sample[i : i + BATCH] for i in range(0, len(source.sample), BATCH)]
    )
    calibration = Calibration()
    if model.config.task == "classify":
        calibration = fit_calibration(outputs, torch.cat([batch["target"] for batch in batches]))
    config = dataclasses.replace(model.config, calibration=dataclasses.asdict(calibration))
    outliers = OutlierScore.fit(known, known_statistics, (features, statistics))
    return TrainedModel(config, model.network, model.device, outliers)


def _raw(model: TrainedModel, batches: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    parts = _each(batches, lambda batch: model.raw(batch.to(model.device)))
    outputs, features, statistics = (torch.cat(part) for part in zip(*parts, strict=True))
    return outputs, features, statistics


def _each(batches: list[Tensor], function: Callable[[Tensor], Result]) -> list[Result]:
    """What a function returns for each batch, with a progress bar."""
    results: list[Result] = []
    with progress_bar("calibrating") as advance:
        for batch in batches:
            results.append(function(batch))
            advance(len(results), len(batches))
    return results


def _model_config(recipe: Recipe, source: TrainingData, task: ImageTask, record: dict[str, Any]) -> ModelConfig:
    options = {"name": recipe.network.name} | recipe.network.options()
    # What is loaded later comes from the model's own weights.
    options.pop("weights", None)
    if "pretrained" in options:
        options["pretrained"] = False
    regression = isinstance(task, Regression)
    return ModelConfig(
        task=recipe.task,
        network=options,
        preprocessing=dataclasses.asdict(task.preprocessing),
        channels=source.shape[0],
        pixels=source.shape[1],
        classes=source.classes,
        outputs=[recipe.target] if regression and recipe.target else [],
        output_center=task.center.tolist() if isinstance(task, Regression) else [],
        output_scale=task.scale.tolist() if isinstance(task, Regression) else [],
        bands=source.bands,
        pixel_scale=source.pixel_scale,
        unit=source.unit,
        recipe=dataclasses.asdict(recipe),
        data=source.description,
        measured={},
        versions=record["versions"],
    )
