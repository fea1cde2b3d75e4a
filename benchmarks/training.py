"""Training throughput side by side: darklens train against a bare PyTorch loop, same network, batches and precision.

    python benchmarks/training.py              # about two minutes on two cores

Both run the demo's recipe on the same images, read from the same folder, with the same augmentation and optimiser; the
bare loop has nothing else. They take turns; the ratio of medians is printed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer

from darklens.data.augmentation import augment
from darklens.data.synthesis import simulate_dataset
from darklens.simulation import load_preset
from darklens.tasks.optimization import make_optimizer
from darklens.tasks.precision import resolve_precision
from darklens.training import fit as fitting
from darklens.training.build import build_module
from darklens.training.job import Job, machine
from darklens.training.recipe import Recipe, load_recipe
from darklens.training.train import train
from darklens.training.training_data import TrainingData, open_training_data

WARM_UP = 5


class StepTimer(Callback):
    """Images a second of the steps after the first few."""

    def __init__(self, batch_size: int):
        self.batch_size, self.rate, self._started, self._steps = batch_size, 0.0, 0.0, 0

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        self._steps += 1
        if self._steps == WARM_UP:
            self._started = time.perf_counter()
        elif self._steps > WARM_UP:
            self.rate = (self._steps - WARM_UP) * self.batch_size / (time.perf_counter() - self._started)


def bare_rate(recipe: Recipe, source: TrainingData) -> float:
    module = build_module(recipe, source)
    network, preprocessing = module.network, module.preprocessing
    optimizer = make_optimizer(recipe.optimizer, network)
    average = torch.optim.swa_utils.AveragedModel(
        network, avg_fn=fitting.moving_average(recipe.trainer.ema), use_buffers=True
    )
    generator = torch.Generator()
    bf16 = resolve_precision("auto") == "bf16-mixed"
    started, steps = 0.0, 0
    for batch in source.train_loader(0, 1):
        prepared = augment(preprocessing(batch["image"]), recipe.augmentation, generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = network(prepared)
        loss = torch.nn.functional.cross_entropy(logits.float(), batch["target"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update_parameters(network)
        steps += 1
        if steps == WARM_UP:
            started = time.perf_counter()
    return (steps - WARM_UP) * recipe.trainer.batch_size / (time.perf_counter() - started)


def darklens_rate(recipe: Recipe, data: Path, out: Path) -> float:
    timer = StepTimer(recipe.trainer.batch_size)
    lines = fitting.EpochLines

    class Timed(lines):  # type: ignore[misc, valid-type]
        def on_train_batch_end(self, trainer: Trainer, *rest: object) -> None:
            timer.on_train_batch_end(trainer, *rest)

    fitting.EpochLines = Timed  # type: ignore[misc]
    try:
        train(Job(recipe, str(data)), out)
    finally:
        fitting.EpochLines = lines  # type: ignore[misc]
    return timer.rate


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=6400)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = simulate_dataset(load_preset("model-1"), options.images, 0, out=Path(folder) / "data")
        recipe = load_recipe("substructure/demo", {"trainer.epochs": 1})
        source = open_training_data(str(data), recipe, 0)
        ours, bare = [], []
        for i in range(options.rounds):
            bare.append(bare_rate(recipe, source))
            ours.append(darklens_rate(recipe, data, Path(folder) / f"run{i}"))
    a, b = statistics.median(ours), statistics.median(bare)
    print(f"{machine()}, {torch.get_num_threads()} threads, {resolve_precision('auto')}")
    print(f"bare loop {b:.0f} images/s ({min(bare):.0f} to {max(bare):.0f})")
    print(f"darklens  {a:.0f} images/s ({min(ours):.0f} to {max(ours):.0f}); ratio {a / b:.3f}")


if __name__ == "__main__":
    main()
