"""How long a training will take, from a few of its steps."""

from __future__ import annotations

import dataclasses
from statistics import median
from time import perf_counter
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from darklens.data.batches import Batch
from darklens.models.registry import count_parameters
from darklens.progress import working
from darklens.tasks.supervised import SupervisedModule
from darklens.training.build import build_module
from darklens.training.fit import TrainingDataModule, make_trainer
from darklens.training.job import Job, open_job_data

STEPS, VALIDATION_STEPS = 6, 2


@dataclasses.dataclass(frozen=True)
class TrainingRate:
    """How fast a recipe trains, and how large it is.

    Attributes
    ----------
    parameters
        Of its network.
    epochs, epoch_images, train_images
        Epochs, images of each, and after how many images they come again, if they do.
    step, first
        Seconds for an image, and how many more when it comes for the first time.
    preparation, validation
        Seconds before the first step, and of each validation.
    """

    parameters: int
    epochs: int
    epoch_images: int
    train_images: int
    step: float
    first: float
    preparation: float
    validation: float

    @property
    def images(self) -> int:
        """Images of all epochs."""
        return self.epochs * self.epoch_images

    @property
    def stepping(self) -> float:
        """Seconds of all steps."""
        return self.images * self.step + min(self.images, self.train_images) * self.first

    @property
    def seconds(self) -> float:
        """Seconds of the training."""
        return self.preparation + self.stepping + self.epochs * self.validation


def training_time(job: Job, *, trust_code: bool = False) -> str:
    """Return a sentence on size and duration of a training; a few of its steps are done, and nothing is written.

    Parameters
    ----------
    job
        What is trained on what; the parts of a recipe that is made of others are timed one after the other.
    trust_code
        Whether code that a preset in YAML names may run.
    """
    recipe = job.recipe
    jobs = [
        dataclasses.replace(
            job,
            recipe=part,
            unlabelled=job.unlabelled if part.takes_unlabelled else None,
            labels=job.labels if part.adaptation else None,
        )
        for part in recipe.parts()
    ]
    rates = [training_rate(part, trust_code=trust_code) for part in jobs]
    size = f"{recipe.name}: {sum(rate.parameters for rate in rates):,} parameters"
    speed = sum(rate.images for rate in rates) / sum(rate.stepping for rate in rates)
    if recipe.trainer.minutes is not None:
        return f"{size}; about {speed:.0f} images/s on this machine; {recipe.trainer.minutes:g} min, as asked"
    epochs = " + ".join(f"{rate.epochs} epochs of {rate.epoch_images:,} images" for rate in rates)
    most = "at most" if any(part.trainer.unfreezing != "none" for part in recipe.parts()) else "about"
    seconds = sum(rate.seconds for rate in rates)
    time = f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
    return f"{size}; {epochs} at about {speed:.0f} images/s on this machine: {most} {time}"


def training_rate(job: Job, *, trust_code: bool = False) -> TrainingRate:
    """Do a few steps of a training, on one device, and return how fast they were; nothing is written.

    Parameters
    ----------
    job
        What is trained on what; its recipe has no members or stages.
    trust_code
        Whether code that a preset in YAML names may run.
    """
    trainer_options = job.recipe.trainer
    began = _now()
    data = open_job_data(job, trust_code=trust_code)
    module = build_module(job.recipe, data, job.start, trust_code=trust_code)
    preparation = _now() - began
    timer = _Timer()
    trainer = make_trainer(
        dataclasses.replace(trainer_options, epochs=1, devices="1", nodes=1),
        callbacks=[timer],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        limit_train_batches=STEPS,
        limit_val_batches=VALIDATION_STEPS,
    )
    with working(f"timing a few steps of {job.recipe.name}"):
        trainer.fit(module, datamodule=TrainingDataModule(data))
    size, validations = trainer_options.batch_size, -(-len(data.validation) // timer.validation_batch)
    return TrainingRate(
        count_parameters(module.network),
        trainer_options.epochs,
        min(trainer_options.epoch_images or data.train_images, data.train_images),
        data.train_images,
        timer.typical("step") / size,
        timer.typical("first") / size,
        preparation + validations * timer.typical("validation first"),
        validations * timer.typical("validation"),
    )


class _Timer(Callback):
    """Take the time of steps, reading included, and of what is only done when images come for the first time."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}
        self.validation_batch = 1
        self._mark = 0.0

    def typical(self, what: str) -> float:
        """Return the median of times; the first, which also warms up, does not count if there are others."""
        return median(self.times[what][1:] or self.times[what])

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._mark = _now()

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        reading = _now() - self._mark
        self._fit(pl_module, batch, "first")
        self._mark -= reading

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self._keep("step")

    def on_validation_batch_start(self, trainer: Trainer, pl_module: Any, batch: Batch, *_: Any) -> None:
        self._fit(pl_module, batch, "validation first")

    def on_validation_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Batch, *_: Any) -> None:
        self._keep("validation")
        self.validation_batch = max(self.validation_batch, len(batch["image"]))

    def _fit(self, module: SupervisedModule, batch: Batch, what: str) -> None:
        """Prepare a batch twice: what the second time spares is what the first time does once for all."""
        began = _now()
        with torch.no_grad():
            module.prepared(batch)
            between = _now()
            module.prepared(batch)
        self._mark = _now()
        self.times.setdefault(what, []).append(max(0.0, 2 * between - began - self._mark))

    def _keep(self, what: str) -> None:
        now = _now()
        self.times.setdefault(what, []).append(now - self._mark)
        self._mark = now


def _now() -> float:
    """The time when all that was begun on a GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return perf_counter()
