"""What does the prior of the temperature change, and what does it cost to choose the epoch and calibrate on one set?

    python benchmarks/calibration.py                                  # about six minutes on one core

The prior: sets of several sizes are drawn from a pool of images that were not trained on, and the temperature is fitted to
each, for the shipped model of Model I, which is wrong once in 200 images, and for small networks trained on model-3-noisy.

One set for both: of the small networks the checkpoints of all later epochs are kept. The epoch of the lowest loss is chosen
on one set, and the calibration is fitted to the same set, to another of the same size, or to the half that was not used for
the choice. All are measured on the same fresh test images.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from scipy.special import log_softmax
from scipy.stats import t as student

from darklens.data.synthesis import simulate_cutouts, simulate_dataset
from darklens.evaluation.bootstrap import Metric, intervals, mean_statistic
from darklens.evaluation.calibration import fit_temperature
from darklens.evaluation.classification import ece_statistic
from darklens.inference.model import BATCH, TrainedModel, load_model
from darklens.inference.outliers import OutlierScore
from darklens.simulation import load_preset
from darklens.training.job import Job, machine, open_job_data
from darklens.training.recipe import load_recipe
from darklens.training.train import train

WIDTHS = (0.25, 0.5, 1.0, np.inf)
SIZES = (128, 512, 2048)
COVERAGE, USUAL = 0.95, 0.99
SMALL = {
    "network.widths": [16, 32, 64], "network.blocks": [0, 1, 1], "preprocessing.crop": 48, "optimizer.name": "AdamW",
    "optimizer.lr": 3e-3, "trainer.batch_size": 64, "trainer.keep_every": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Outputs:
    """Logits (E, N, C) and outlier scores (E, N) of N images in E epochs, and their label numbers (N,)."""

    logits: np.ndarray
    outliers: np.ndarray
    labels: np.ndarray

    def losses(self, epoch: int, temperature: float) -> np.ndarray:
        """Return the log loss of each image (N,)."""
        return -log_softmax(self.logits[epoch] / temperature, axis=1)[np.arange(len(self.labels)), self.labels]

    @cached_property
    def plain_losses(self) -> np.ndarray:
        """Log loss of each epoch and image without a temperature (E, N)."""
        return np.stack([self.losses(epoch, 1.0) for epoch in range(len(self.logits))])

    def temperature(self, epoch: int, rows: np.ndarray, width: float = 0.5) -> float:
        """Return the temperature fitted to some rows."""
        return fit_temperature(torch.from_numpy(self.logits[epoch, rows]), torch.from_numpy(self.labels[rows]), width)


def forward(model: TrainedModel, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return logits, features and statistics of images (N, C, H, W)."""
    parts = [model.outputs_and_features(images[i : i + BATCH].float()) for i in range(0, len(images), BATCH)]
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


def simulated(name: str, count: int, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    """Return fresh images and their label numbers."""
    preset = load_preset(name)
    cutouts = simulate_cutouts(preset, count, seed)
    labels = np.array([preset.labels.index(label) for label in cutouts.catalog["label"]])
    return torch.from_numpy(np.asarray(cutouts.images, dtype=np.float32)), labels


def shipped(count: int, seed: int) -> list[Outputs]:
    """Return the outputs of the shipped model for 2,048 images of Model I to draw from, and for test images."""
    model = load_model("substructure-model-1")
    images, labels = simulated("model-1", 2048 + count, seed)
    logits = forward(model, images)[0].double().numpy()[None]
    parts = (slice(0, 2048), slice(2048, None))
    return [Outputs(logits[:, part], np.empty(0), labels[part]) for part in parts]


def trained(
    folder: Path, out: Path, seed: int, epochs: int, parts: list[tuple[torch.Tensor, np.ndarray]]
) -> list[Outputs]:
    """Train a small network, and return its outputs of each part in each epoch of the later half."""
    job = Job(load_recipe("substructure/demo", SMALL | {"trainer.epochs": epochs}), str(folder), seed=seed)
    model, sample = load_model(train(job, out)), open_job_data(job).sample
    collected: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in parts]
    for epoch in range(epochs // 2, epochs):
        state = torch.load(out / "checkpoints" / f"epoch={epoch}.ckpt", weights_only=True)["state_dict"]
        own = {k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")}
        model.network.load_state_dict(own)
        _, known, statistics = forward(model, sample)
        score = OutlierScore.fit(known, statistics, (known, statistics))
        for found, (images, _) in zip(collected, parts, strict=True):
            logits, *rest = forward(model, images)
            found.append((logits.double().numpy(), score(*rest).numpy()))
    return [
        Outputs(np.stack([a for a, _ in found]), np.stack([b for _, b in found]), labels)
        for found, (_, labels) in zip(collected, parts, strict=True)
    ]


def prior_widths(models: list[list[Outputs]], sizes: tuple[int, ...], draws: int, rng: np.random.Generator) -> None:
    """Print log loss and ECE of the last epoch, by size of the calibration set and width of the prior."""
    plain = np.mean([scored(test, 1.0) for _, test in models], axis=0)
    best = [scored(test, test.temperature(-1, np.arange(len(test.labels)), np.inf)) for _, test in models]
    print("last epoch, mean over models and draws (95th percentile of the draws)")
    print(f"T = 1: log loss {plain[0]:.5f}, ECE {plain[1]:.4f}")
    print(f"T fitted to the test images: log loss {np.mean(best, axis=0)[0]:.5f}, ECE {np.mean(best, axis=0)[1]:.4f}")
    for size in sizes:
        rows = [[rng.permutation(len(pool.labels))[:size] for _ in range(draws)] for pool, _ in models]
        errors = [
            (pool.logits[-1].argmax(1) != pool.labels)[r].sum()
            for (pool, _), drawn in zip(models, rows, strict=True)
            for r in drawn
        ]
        print(f"{size} images, without an error {np.mean(np.array(errors) == 0):.2f}")
        for width in WIDTHS:
            temperatures = [
                [pool.temperature(-1, r, width) for r in drawn] for (pool, _), drawn in zip(models, rows, strict=True)
            ]
            found = np.array(
                [[scored(test, t) for t in each] for (_, test), each in zip(models, temperatures, strict=True)]
            )
            loss, ece = found.mean((0, 1))
            worst = np.quantile(found[..., 0], 0.95, axis=1).mean()
            lowest, highest = np.min(temperatures), np.max(temperatures)
            print(
                f"  prior {width:4}: log loss {loss:.5f} ({worst:.5f}), ECE {ece:.4f}, T {lowest:.2f} to {highest:.2f}"
            )


def scored(test: Outputs, temperature: float) -> tuple[float, float]:
    """Return log loss and ECE of the last epoch at a temperature."""
    p = np.exp(log_softmax(test.logits[-1] / temperature, axis=1))
    ece = ece_statistic(p.max(1), p.argmax(1) == test.labels)(np.ones((1, len(p))))[0]
    return float(test.losses(-1, temperature).mean()), float(ece)


def measured(pool: Outputs, test: Outputs, choice: np.ndarray, rows: np.ndarray) -> tuple[float, float, float]:
    """Return coverage, log loss and outlier rate of the test images, by rows for the choice of the epoch and the rest."""
    epoch = int(pool.plain_losses[:, choice].mean(1).argmin())
    temperature = pool.temperature(epoch, rows)
    losses = test.losses(epoch, temperature)
    scores, own = (1 - np.exp(-each) for each in (pool.losses(epoch, temperature)[rows], losses))
    # A set holds the truth if the fraction of scores that are not below its own, itself counted, is above 1 - coverage.
    above = len(rows) - np.searchsorted(np.sort(scores), own, side="left") + 1
    threshold = np.quantile(pool.outliers[epoch, rows], USUAL)
    holds = above / (len(rows) + 1) > 1 - COVERAGE
    return float(holds.mean()), float(losses.mean()), float((test.outliers[epoch] > threshold).mean())


def shared_sets(models: list[list[Outputs]], draws: int, rng: np.random.Generator) -> None:
    """Print what one set, two sets and two halves of one set come to."""
    print("\nchoice and calibration on one set, on two sets of that size, on halves: mean over models and draws (scatter "
          "of the draws); difference to two sets with the 95% interval over models")  # fmt: skip
    for size in SIZES:
        found = np.empty((len(models), draws, 3, 3))
        for (pool, test), values in zip(models, found, strict=True):
            for value in values:
                one, other = rng.permutation(len(pool.labels))[: 2 * size].reshape(2, size)
                value[0] = measured(pool, test, one, one)
                value[1] = measured(pool, test, one, other)
                value[2] = measured(pool, test, one[: size // 2], one[size // 2 :])
        half = student.ppf(0.975, len(models) - 1) / np.sqrt(len(models))
        for i, name in enumerate(("coverage", "log loss", "outliers")):
            for j, kind in enumerate(("one set", "two sets", "halves")):
                gap = (found[:, :, j, i] - found[:, :, 1, i]).mean(1)
                width = half * gap.std(ddof=1)
                mean, scatter = found[:, :, j, i].mean(), found[:, :, j, i].std(axis=1).mean()
                shown = "" if j == 1 else f"; {gap.mean():+.4f} [{gap.mean() - width:+.4f}, {gap.mean() + width:+.4f}]"
                print(f"{size:5} images, {name:8} {kind:8} {mean:.4f} ({scatter:.4f}){shown}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument(
        "--draws", type=int, default=100, help="sets that are drawn from the pool, of each size and model"
    )
    parser.add_argument("--test", type=int, default=6144, help="test images")
    parser.add_argument("--seed", type=int, default=41)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(arguments.seed)
    print(f"{machine()}; seed {arguments.seed}")
    sure = shipped(arguments.test, arguments.seed)
    wrong = (sure[1].logits[0].argmax(1) != sure[1].labels).sum()
    print(f"\nsubstructure-model-1, {arguments.test:,} test images of which {wrong} are called wrong")
    prior_widths([sure], (32, *SIZES[:-1]), arguments.draws, rng)
    name, seed = "model-3-noisy", arguments.seed
    parts = [simulated(name, count, seed + i) for i, count in enumerate((2 * max(SIZES), arguments.test), 1)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = simulate_dataset(load_preset(name), 2304, seed, out=Path(temporary) / "data")
        models = [
            trained(folder, Path(temporary) / f"run-{i}", seed + i, arguments.epochs, parts)
            for i in range(arguments.models)
        ]
    print(f"\n{arguments.models} networks of {arguments.epochs} epochs on {name}, {arguments.test:,} test images, "
          f"{2 * max(SIZES):,} images to draw from")  # fmt: skip
    accuracy = np.mean([test.logits[-1].argmax(1) == test.labels for _, test in models], axis=0)
    print("accuracy of the last epoch", intervals([Metric("a", "", mean_statistic(accuracy))], len(accuracy))["a"])
    prior_widths(models, (32, *SIZES), arguments.draws, rng)
    shared_sets(models, arguments.draws, rng)


if __name__ == "__main__":
    main()
