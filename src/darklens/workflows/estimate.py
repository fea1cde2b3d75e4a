"""How long a training will take, from a few of its steps."""

from __future__ import annotations

import dataclasses
import statistics
import time
from dataclasses import dataclass

import torch

from darklens.models.registry import count_parameters
from darklens.training.fit import resolve_precision
from darklens.training.job import Job, open_job_source
from darklens.training.recipe import recipe_from
from darklens.training.train import build_task

STEPS = 4


@dataclass(frozen=True)
class TrainingRate:
    """How fast a recipe trains, and how large it is; ``preparation``, and each ``validation``, in seconds."""

    parameters: int
    epoch_images: int
    images_per_second: float
    preparation: float
    validation: float


def training_rate(job: Job) -> TrainingRate:
    """Measured over a few steps, all members of an ensemble one after the other; nothing is written."""
    members = [recipe_from(member, member["name"]) for member in job.recipe.members] or [job.recipe]
    rates = [_rate(dataclasses.replace(job, recipe=member)) for member in members]
    return TrainingRate(
        sum(rate.parameters for rate in rates),
        rates[0].epoch_images,
        1 / sum(1 / rate.images_per_second for rate in rates),
        sum(rate.preparation for rate in rates),
        sum(rate.validation for rate in rates),
    )


def _rate(job: Job) -> TrainingRate:
    recipe = job.recipe
    began = time.perf_counter()
    source = open_job_source(job)
    task = build_task(recipe, source)
    preparation = time.perf_counter() - began
    optimizer = torch.optim.SGD(task.network.parameters(), lr=0.0)
    batches = iter(source.train_loader(0, 1))
    bf16 = resolve_precision(recipe.trainer.precision) == "bf16-mixed"
    seconds = []
    for _ in range(STEPS):
        started = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            break
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output = task.network(task.preprocessing(batch["image"]))
        output.float().square().mean().backward()
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    # The first step also warms up.
    rate = recipe.trainer.batch_size / statistics.median(seconds[1:] or seconds)
    held_out = next(iter(source.validation_loader(0, 1)))["image"]
    began = time.perf_counter()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        task.eval().network(task.preprocessing(held_out))
    validation = (time.perf_counter() - began) * len(source.validation) / len(held_out)
    return TrainingRate(
        count_parameters(task.network),
        min(recipe.trainer.epoch_images or source.train_images, source.train_images),
        rate,
        preparation,
        validation,
    )


def training_time(job: Job) -> str:
    """A sentence on size and duration of a training."""
    rate = training_rate(job)
    epochs = job.recipe.trainer.epochs
    seconds = rate.preparation + epochs * (rate.epoch_images / rate.images_per_second + rate.validation)
    return (
        f"{job.recipe.name}: {rate.parameters:,} parameters; {epochs} epochs of {rate.epoch_images:,} images at about "
        f"{rate.images_per_second:.0f} images/s on this CPU: about {seconds / 60:.0f} min"
    )
