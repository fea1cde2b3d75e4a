"""How long a training will take, from a few of its steps."""

from __future__ import annotations

import time

import torch

from darklens.models.registry import count_parameters
from darklens.training.fit import resolve_precision
from darklens.training.job import Job, open_job_source
from darklens.training.train import build_task

STEPS = 3


def training_time(job: Job) -> str:
    """A sentence on size and duration of a training; three steps are taken, and nothing is written."""
    recipe = job.recipe
    source = open_job_source(job)
    task = build_task(recipe, source)
    batches = iter(source.train_loader(0, 1))
    bf16 = resolve_precision(recipe.trainer.precision) == "bf16-mixed"
    seconds = []
    for _ in range(STEPS):
        batch = next(batches, None)
        if batch is None:
            break
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output = task.network(task.preprocessing(batch["image"]))
        output.float().square().mean().backward()
        seconds.append(time.perf_counter() - started)
    rate = recipe.trainer.batch_size / min(seconds)
    total = source.train_images * recipe.trainer.epochs / rate
    return (
        f"{recipe.name}: {count_parameters(task.network):,} parameters; {recipe.trainer.epochs} epochs of "
        f"{source.train_images:,} images at about {rate:.0f} images/s on this CPU: about {total / 60:.0f} min"
    )
