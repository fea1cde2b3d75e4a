"""Does a trained model know what it does not know? ROC of ``outlier_score`` for images of other kinds against its own.

    python benchmarks/outliers.py substructure-model-1                # a minute

Its own are fresh simulated images. Against them: the same with the artefacts that cutouts of a survey have, images without
any lens, simulated lenses of other presets, and real Euclid Q1 cutouts (the bundled one, or those in ``--real``), each
turned and mirrored and shifted a little. Copies of one cutout are not independent: resampled are the originals, and below
five of these no interval is given. Other scales and units are fitted to the model as ``darklens predict`` does it.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import torch

from darklens.data.augmentation import transform
from darklens.data.dataset import Cutouts
from darklens.data.layouts import open_data
from darklens.data.synthesis import simulated_info
from darklens.evaluation.bootstrap import Interval, Metric, Statistic, intervals, mean_statistic
from darklens.evaluation.classification import auc_statistic
from darklens.inference.adapt import adaptation
from darklens.inference.model import TrainedModel, load_model
from darklens.simulation import Simulator, load_preset

Images = np.ndarray
FEWEST = 5
"""Originals below which their scatter is not known well enough for an interval."""


def cosmic_rays(images: Images, rng: np.random.Generator) -> Images:
    """A few bright tracks of a pixel's width."""
    spoilt = images.copy()
    side = images.shape[-1]
    for image in spoilt:
        for _ in range(rng.integers(1, 4)):
            angle, length = rng.uniform(0, np.pi), rng.uniform(4, 15)
            along = np.arange(0, length, 0.5)
            y, x = rng.uniform(side * 0.25, side * 0.75, 2)
            rows = np.clip(y + along * np.sin(angle), 0, side - 1).astype(int)
            columns = np.clip(x + along * np.cos(angle), 0, side - 1).astype(int)
            image[0, rows, columns] = images.max() * rng.uniform(0.5, 3)
    return spoilt


def dead_columns(images: Images, rng: np.random.Generator) -> Images:
    """Three columns without a signal."""
    spoilt = images.copy()
    for image in spoilt:
        start = rng.integers(images.shape[-1] // 3, images.shape[-1] * 2 // 3)
        image[..., start : start + 3] = 0
    return spoilt


def edge_of_the_detector(images: Images, rng: np.random.Generator) -> Images:
    """Nothing beyond a line that cuts the lens."""
    spoilt = images.copy()
    for i, image in enumerate(spoilt):
        image[..., : rng.integers(images.shape[-1] // 3, images.shape[-1] // 2)] = 0
        spoilt[i] = transform(torch.from_numpy(image), int(rng.integers(8))).numpy()
    return spoilt


def companion(images: Images, rng: np.random.Generator) -> Images:
    """A star beside the lens."""
    side = images.shape[-1]
    y, x = np.mgrid[:side, :side]
    spoilt = images.astype(np.float32)
    for image in spoilt:
        angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.3) * side
        row, column = side / 2 + radius * np.sin(angle), side / 2 + radius * np.cos(angle)
        image[0] += images.max() * rng.uniform(0.5, 3) * np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * 1.2**2))
    return spoilt


def no_lens(images: Images, rng: np.random.Generator) -> Images:
    """Pixels of the image's border, shuffled over all of it: sky and nothing else."""
    side, border = images.shape[-1], images.shape[-1] // 10
    sky = np.concatenate([images[:, 0, :border], images[:, 0, -border:]], axis=1).reshape(len(images), -1)
    return np.stack([rng.choice(row, (1, side, side)) for row in sky]).astype(np.float32)


ARTEFACTS: dict[str, Callable[[Images, np.random.Generator], Images]] = {
    "cosmic rays": cosmic_rays,
    "dead columns": dead_columns,
    "edge of the detector": edge_of_the_detector,
    "a star beside it": companion,
    "no lens": no_lens,
}


def scores(model: TrainedModel, images: Images, info: object) -> np.ndarray:
    """How unlike images are, fitted to the model as predict does it."""
    adapt = adaptation(model.config, info, images.shape)  # type: ignore[arg-type]
    unlike = model.predict(adapt(images)).outlier_score
    assert unlike is not None, "this model does not know what it knows"
    return unlike


def real_images(opened: list[Cutouts], rng: np.random.Generator, count: int = 48) -> tuple[Images, np.ndarray]:
    """Real cutouts, turned, mirrored and shifted by up to three pixels, and the number of the original of each."""
    found = []
    side = min(min(cutouts.images.shape[-2:]) for cutouts in opened)
    for i in range(count):
        image = np.nan_to_num(np.asarray(opened[i % len(opened)].images[np.array([0])], dtype=np.float32))[0, :1]
        shifted = np.roll(image, rng.integers(-3, 4, 2), (-2, -1))
        top, left = ((n - side) // 2 for n in shifted.shape[-2:])
        square = torch.from_numpy(shifted[:, top : top + side, left : left + side])
        found.append(transform(square, int(rng.integers(8))).numpy())
    return np.stack(found), np.arange(count) % len(opened)


def over_originals(statistic: Statistic, originals: np.ndarray) -> Interval:
    """The value of a statistic over images (N,), with the interval that resampling their originals gives.

    Parameters
    ----------
    statistic
        From weights of the images.
    originals
        The number of the original that each image (N,) is a copy of.
    """
    different, number = np.unique(originals, return_inverse=True)
    metric = Metric("value", "Value", lambda weights: statistic(weights[:, number]))
    return intervals([metric], len(different))["value"]


def compared(usual: np.ndarray, strange: np.ndarray, originals: np.ndarray) -> tuple[str, str]:
    """Return the AUC of scores, and how many of the strange ones are above 1, as text.

    Parameters
    ----------
    usual, strange
        Scores of the model's own images (N,) and of others (M,).
    originals
        The number of the original that each of the others (M,) is a copy of; the model's own are 0 to N - 1.
    """
    both = np.concatenate([usual, strange])
    positive = np.repeat([0.0, 1.0], [len(usual), len(strange)])
    auc = over_originals(auc_statistic(both, positive), np.concatenate([np.arange(len(usual)), originals]))
    flagged = over_originals(mean_statistic((strange > 1) * 1.0), originals)
    number = len(np.unique(originals))
    if number < FEWEST:
        return f"{auc.value:.4f}", f"{flagged.value:.4f} ({number} image{'s' if number > 1 else ''})"
    return str(auc), str(flagged)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--real", type=Path, help="a folder of Euclid Q1 cutouts")
    parser.add_argument("--images", type=int, default=768, help="of each simulated kind")
    parser.add_argument("--seed", type=int, default=555)
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    own = model.config.data["source"].removeprefix("preset:")
    rng = np.random.default_rng(arguments.seed)

    def simulated(name: str) -> tuple[Images, object]:
        preset = load_preset(name)
        blocks = list(Simulator(preset, arguments.seed).blocks(arguments.images))
        return torch.cat([images for images, _ in blocks]).numpy(), simulated_info(preset, arguments.seed)

    images, info = simulated(own)
    usual = scores(model, images, info)
    each = np.arange(len(usual))
    found = {name: (scores(model, spoil(images, rng), info), each) for name, spoil in ARTEFACTS.items()}
    for other in ("model-1", "model-3-noisy", "fair-hst", "fair-euclid"):
        if other != own:
            found[f"preset {other}"] = scores(model, *simulated(other)), len(each) + each
    with resources.as_file(resources.files("darklens") / "examples" / "euclid") as bundled:
        opened = [open_data(path) for path in sorted((arguments.real or bundled).glob("*.fits"))]
        info = dataclasses.replace(opened[0].info, bands=opened[0].info.bands[:1])
        copies, originals = real_images(opened, rng)
        found["real, Euclid Q1"] = scores(model, copies, info), len(each) + originals
    print(f"{arguments.model} on {len(usual)} of its own ({own}), seed {arguments.seed}; 95% intervals")
    print(f"{'':22} {'AUC':26} flagged (outlier_score > 1)")
    print(f"{'its own':22} {'':26} {over_originals(mean_statistic((usual > 1) * 1.0), each)}")
    for name, (strange, of) in found.items():
        auc, flagged = compared(usual, strange, of)
        print(f"{name:22} {auc:26} {flagged}")


if __name__ == "__main__":
    main()
