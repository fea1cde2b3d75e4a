"""How much of a preset can be read from the size of the ring alone?

    python benchmarks/ring.py model-1 fair-hst fair-euclid            # a few minutes

To every image a smooth lens is fitted whose Einstein radius is free and whose other properties come from the prior that
training images teach. Then a classifier that sees this one number, by the densities of the classes among the training
images, names the class of fresh ones. In a fair preset it should do no better than chance.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from scipy.stats import gaussian_kde

from darklens.data.preprocessing import Preprocessing
from darklens.evaluation.bootstrap import intervals
from darklens.evaluation.classification import classification_metrics
from darklens.physics.smoothfit import SmoothPrior, fit_smooth_lens, sky_noise
from darklens.simulation import Simulator, load_preset
from darklens.training.job import machine

CROPS = {"model-1": 80, "fair-hst": 56, "fair-euclid": 48}
TRAIN, TEST = 3072, 3072


def ring_sizes(
    preset_name: str, count: int, seed: int, prior: SmoothPrior | None
) -> tuple[np.ndarray, np.ndarray, SmoothPrior]:
    """Fitted Einstein radii (N,) and label numbers (N,) of simulated images, and the prior that they were fitted with."""
    preset = load_preset(preset_name)
    crop = CROPS.get(preset_name, preset.pixels)
    sizes, labels = [], []
    blocks = list(Simulator(preset, seed, compile=True).blocks(count))
    if prior is None:
        table = Preprocessing(crop=crop, lens_model=True).fit(torch.cat([images for images, _ in blocks])).lens_prior
        assert table is not None
        covariance = torch.linalg.inv(torch.tensor(table["precision"], dtype=torch.float64))
        covariance[0, :] = covariance[:, 0] = 0
        covariance[0, 0] = 0.15**2
        prior = SmoothPrior(torch.tensor(table["mean"]), torch.linalg.inv(covariance).float(), table["blur"])
    for images, rows in blocks:
        edge = (images.shape[-1] - crop) // 2
        cut = images[:, 0, edge : edge + crop, edge : edge + crop].float()
        sizes.append(fit_smooth_lens(cut / sky_noise(cut), prior).parameters[:, 0].numpy())
        labels += [preset.labels.index(name) for name in rows["label"]]
    return np.concatenate(sizes), np.array(labels), prior


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="+")
    parser.add_argument("--seed", type=int, default=31)
    arguments = parser.parse_args()
    print(f"{machine()}; {TRAIN:,} training and {TEST:,} test images, seeds {arguments.seed}, {arguments.seed + 1}")
    for name in arguments.presets:
        classes = load_preset(name).labels
        sizes, labels, prior = ring_sizes(name, TRAIN, arguments.seed, None)
        fresh, truth, _ = ring_sizes(name, TEST, arguments.seed + 1, prior)
        density = np.stack([gaussian_kde(sizes[labels == i])(fresh) for i in range(len(classes))], axis=1) + 1e-12
        metrics = classification_metrics(density / density.sum(1, keepdims=True), truth, classes)
        found = intervals(metrics, len(truth))
        for key in ("accuracy", "macro_auc", *(f"auc_{c}" for c in classes)):
            print(f"{name:14} {key:12} {found[key]}")


if __name__ == "__main__":
    main()
