"""How long a training will take, from a few of its steps."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from darklens.data.batches import Batch
from darklens.models.registry import count_parameters
from darklens.progress import working
from darklens.tasks.precision import resolve_precision
from darklens.tasks.supervised import SupervisedModule
from darklens.training.build import build_module
from darklens.training.job import Job, open_job_data
from darklens.training.recipe import Recipe
from darklens.training.training_data import TrainingData

STEPS = 4


@dataclass(frozen=True)
class TrainingRate:
    """How fast a recipe trains, and how large it is.

    Attributes
    ----------
    parameters
        Of all members.
    epoch_images
        Images of an epoch.
    train_images
        After how many images they come again, if they do.
    step, first
        Seconds for an image, and how many more when it comes for the first time.
    preparation, validation
        Seconds before the first step, and of each validation.
    """

    parameters: int
    epoch_images: int
    train_images: int
    step: float
    first: float
    preparation: float
    validation: float

    def seconds(self, images: float) -> float:
        """How long so many images take."""
        return images * self.step + min(images, self.train_images) * self.first

    def images(self, seconds: float) -> float:
        """How many images so many seconds are enough for."""
        if seconds < self.seconds(self.train_images):
            return max(0.0, seconds) / (self.step + self.first)
        return (seconds - self.train_images * self.first) / self.step


def training_rate(job: Job, *, trust_code: bool = False) -> TrainingRate:
    """Measured over a few steps, all members of an ensemble one after the other; nothing is written."""
    rates = [_rate(dataclasses.replace(job, recipe=part), trust_code) for part in job.recipe.parts()]
    return TrainingRate(
        sum(rate.parameters for rate in rates),
        rates[0].epoch_images,
        rates[0].train_images,
        sum(rate.step for rate in rates),
        sum(rate.first for rate in rates),
        sum(rate.preparation for rate in rates),
        sum(rate.validation for rate in rates),
    )


def _rate(job: Job, trust_code: bool) -> TrainingRate:
    recipe = job.recipe
    began = time.perf_counter()
    data = open_job_data(job, trust_code=trust_code)
    module = build_module(recipe, data)
    preparation = time.perf_counter() - began
    with working(f"timing a few steps of {recipe.name}"):
        return _measured(data, module, recipe, preparation)


def _measured(data: TrainingData, module: SupervisedModule, recipe: Recipe, preparation: float) -> TrainingRate:
    optimizer = torch.optim.SGD(module.network.parameters(), lr=0.0)
    batches = iter(data.train_loader(0, 1))
    bf16 = resolve_precision(recipe.trainer.precision) == "bf16-mixed"
    steps, fits = [], []
    for _ in range(STEPS):
        began = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            break
        reading = time.perf_counter() - began
        fits.append(_fitting(module, batch))
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output = module(batch)
        output.square().mean().backward()
        optimizer.step()
        steps.append(reading + time.perf_counter() - began)
    size = recipe.trainer.batch_size
    held_out = next(iter(data.validation_loader(0, 1)))
    share = len(data.validation) / len(held_out["image"])
    module.eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        preparation += share * _fitting(module, held_out)
        validation = share * _seconds(module, held_out)
    return TrainingRate(
        count_parameters(module.network),
        min(recipe.trainer.epoch_images or data.train_images, data.train_images),
        data.train_images,
        # The first step also warms up.
        statistics.median(steps[1:] or steps) / size,
        statistics.median(fits[1:] or fits) / size,
        preparation,
        validation,
    )


def _fitting(module: SupervisedModule, batch: Batch) -> float:
    """Seconds for what is done only when images come for the first time."""
    return max(0.0, _seconds(module.prepared, batch) - _seconds(module.prepared, batch))


def _seconds(function: Callable[[Batch], object], batch: Batch) -> float:
    began = time.perf_counter()
    function(batch)
    return time.perf_counter() - began


def training_time(job: Job, *, trust_code: bool = False) -> str:
    """A sentence on size and duration of a training."""
    rate = training_rate(job, trust_code=trust_code)
    epochs = job.recipe.trainer.epochs
    steps = rate.seconds(epochs * rate.epoch_images)
    seconds = rate.preparation + steps + epochs * rate.validation
    return (
        f"{job.recipe.name}: {rate.parameters:,} parameters; {epochs} epochs of {rate.epoch_images:,} images at about "
        f"{epochs * rate.epoch_images / steps:.0f} images/s on this CPU: about {seconds / 60:.0f} min"
    )
