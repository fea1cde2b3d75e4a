"""How real simulated and painted images are: a network is trained to tell them from real ones, and tested on others.

    python benchmarks/realism.py ps1 PATH/ps1_lenses
    python benchmarks/realism.py hsc PATH/hsc_lenses --zero_point 27 --pixel_scale 0.168 --bands 0,1,2

Real are the lenses at the centres of the cutouts that have a galaxy there as the preset's rules allow. They are
compared with the preset's simulated lenses, with lenses painted over the galaxies beside them, and, half of them, with
lenses painted over the other half. All are cut about the brightest pixel, and compared in pairs of one magnitude: which
lenses are known is no matter of this survey. The AUC is over all images, each predicted by networks that were not trained
on any image of its field (five folds); 0.5 is perfect. Single statistics of the images tell what gives a simulation away.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from scipy import ndimage
from torch import nn

from darklens.data.dataset import Cutouts, DatasetInfo
from darklens.data.layouts import open_with
from darklens.data.options import DataOptions
from darklens.data.synthesis import simulate_cutouts
from darklens.errors import DataError
from darklens.evaluation.bootstrap import Metric, figure_text, intervals
from darklens.evaluation.classification import auc_statistic
from darklens.models.compact import CompactResNet
from darklens.simulation import ScenePreset, load_preset
from darklens.simulation.scenes.painting import Painter, adapted, sky_noise_of
from darklens.workflows.options import PaintOptions
from darklens.workflows.paint import paint

SIDE = 32
"""Pixels along a side of the images that are compared."""

FOLDS, EPOCHS, BATCH = 5, 40, 32
DETECTED = 15.0
"""Signal-to-noise ratio of the brightest pixel above which something beside a lens is looked at."""


def beside(field: np.ndarray, detection: int, around: int) -> list[tuple[int, int]]:
    """Return the pixels of the bright objects in a field (bands, H, W) whose cutouts do not show its centre."""
    image = ndimage.gaussian_filter(np.nan_to_num(field[detection]), 1.0)
    noise = float(sky_noise_of(torch.from_numpy(image)[None, None]))
    peaks = np.argwhere((image == ndimage.maximum_filter(image, 9)) & (image > DETECTED * noise))
    half, (height, width) = around // 2, image.shape
    found: list[tuple[int, int]] = []
    for y, x in sorted(map(tuple, peaks.tolist()), key=lambda place: -image[place]):
        inside = half <= y <= height - half and half <= x <= width - half
        away = max(abs(y - height / 2), abs(x - width / 2)) > SIDE // 2 + 6
        alone = all(max(abs(y - v), abs(x - u)) >= half for v, u in found)
        if inside and away and alone:
            found.append((y, x))
    return found


def painted_over(
    places: list[tuple[int, int, int]], fields: np.ndarray, preset: ScenePreset, around: int
) -> Set | None:
    """Return sources painted over the objects at places (field, y, x); None if too few can be hosts."""
    if len(places) < 20:
        return None
    images = np.stack([cut(fields[i], y, x, around) for i, y, x in places])
    catalog = pl.DataFrame({"id": [f"{i}-{y}-{x}" for i, y, x in places], "field": [i for i, _, _ in places]})
    zero_points: list[float | None] = [band.zero_point for band in preset.bands.values()]
    info = DatasetInfo("fields", [], list(preset.bands), preset.pixel_scale, zero_points)
    with tempfile.TemporaryDirectory() as temporary:
        options = PaintOptions(share=0.8, split="0.6,0.2,0.2")
        done = paint(Cutouts(images, catalog, info), preset, Path(temporary) / "painted", options=options, seed=1)
        print(f"left out as hosts: {done.left_out}")
        rows = pl.read_parquet(done.path / "catalog.parquet")
        lens = (rows["label"] == "lens").to_numpy()
        return centred(np.load(done.path / "images.npy")[lens], rows["field"].to_numpy()[lens], preset)


def cut(field: np.ndarray, y: int, x: int, side: int = SIDE) -> np.ndarray:
    """Return the square of some pixels about a pixel."""
    half = side // 2
    return field[:, y - half : y + half, x - half : x + half]


class Set(NamedTuple):
    """Images (N, bands, H, W) of galaxies at their centres, the numbers of their fields (N,), and magnitudes (N,)."""

    images: np.ndarray
    fields: np.ndarray
    magnitudes: np.ndarray

    def rows(self, chosen: np.ndarray) -> Set:
        """Return some of them."""
        return Set(*(column[chosen] for column in self))


def centred(images: np.ndarray, fields: np.ndarray, preset: ScenePreset) -> Set:
    """Return squares of `SIDE` pixels about the brightest pixels near the centres of images.

    Images without a galaxy there that the preset's rules allow are left out.
    """
    painter = Painter(dataclasses.replace(preset, pixels=images.shape[-1]))
    pixels = torch.from_numpy(images).double()
    kernels = painter.kernels(painter.observed(np.random.default_rng(0), len(images)), {})
    hosts = painter.measure(pixels, sky_noise_of(pixels).expand_as(pixels), kernels)
    fit = np.flatnonzero([not reason for reason in painter.unfit(hosts)])
    middle, scale = images.shape[-1] // 2, preset.pixel_scale
    places = (
        np.rint(np.stack([hosts.y, hosts.x], 1) / scale + middle - 0.5)
        .astype(int)
        .clip(SIDE // 2, images.shape[-1] - SIDE // 2)
    )
    cuts = [cut(images[i], *places[i]) for i in fit]
    return Set(np.stack(cuts), fields[fit], hosts.magnitudes[fit, painter.sky.detection])


def matched(made: Set, real: Set, most: float = 0.15) -> tuple[Set, Set]:
    """Return pairs of a made and a real image whose magnitudes differ by less than ``most``; no image is in two pairs."""
    theirs, ours = paired(real.magnitudes, made.magnitudes, most)
    return made.rows(ours), real.rows(theirs)


def paired(some: np.ndarray, others: np.ndarray, most: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of pairs of numbers that differ by less than ``most``; none is in two pairs."""
    free, pairs = np.ones(len(others), dtype=bool), []
    for i in np.random.default_rng(0).permutation(len(some)):
        distance = np.where(free, np.abs(others - some[i]), np.inf)
        if len(distance) and distance.min() < most:
            free[nearest := int(distance.argmin())] = False
            pairs.append((i, nearest))
    first, second = np.array(pairs, dtype=int).reshape(-1, 2).T
    return first, second


def in_units_of(images: np.ndarray, zero_points: Sequence[float | None], preset: ScenePreset) -> np.ndarray:
    """Return images (N, bands, H, W) in the units of the preset's bands."""
    own = [band.zero_point for band in preset.bands.values()]
    factor = 10 ** (-0.4 * (np.array(zero_points, float) - np.array(own)))
    return (images * factor[:, None, None]).astype(np.float32)


def statistics(images: np.ndarray, bands: Sequence[str]) -> dict[str, np.ndarray]:
    """Return single numbers of images (N, bands, H, W) by name, each (N,)."""
    side = images.shape[-1]
    r = np.hypot(*(np.indices((side, side)) - (side - 1) / 2))
    edge = r > 0.4 * side
    found: dict[str, np.ndarray] = {}
    brighter = None
    for i, band in enumerate(bands):
        image = images[:, i].astype(np.float64)
        outer = image[:, edge]
        noise = 1.4826 * np.median(np.abs(outer - np.median(outer, 1)[:, None]), 1)
        top = image[:, :4]
        correlation = (top[:, :, 1:] * top[:, :, :-1]).mean((1, 2)) / (top**2).mean((1, 2)).clip(1e-30)
        flux = [image[:, r < radius].sum(1) for radius in (3, 6, 12)]
        found |= {
            f"noise {band}": np.log(noise.clip(1e-30)), f"neighbouring pixels' correlation {band}": correlation,
            f"sky {band}": np.median(outer, 1) / noise.clip(1e-30), f"flux {band}": np.arcsinh(flux[1] / noise / 6),
            f"concentration {band}": flux[0] / np.abs(flux[2]).clip(1e-30), f"brightest {band}": image.max((1, 2)) / noise,
            f"faintest {band}": image.min((1, 2)) / noise,
        }  # fmt: skip
        bright = np.arcsinh(flux[1] / noise)
        if brighter is not None:
            found[f"colour {bands[i - 1]}-{band}"] = brighter - bright
        brighter = bright
    return found


def held_out(images: np.ndarray, real: np.ndarray, fields: np.ndarray, seed: int) -> np.ndarray:
    """Return the logit that each image (N, bands, H, W) is real, by networks that saw no image of its field."""
    data = torch.from_numpy(np.arcsinh(images / np.median(np.abs(images), axis=(0, 2, 3), keepdims=True)))
    data = (data - data.mean((0, 2, 3), keepdim=True)) / data.std((0, 2, 3), keepdim=True)
    target = torch.from_numpy(real.astype(np.float32))
    rng = np.random.default_rng(seed)
    fold = rng.permutation(fields.max() + 1)[fields] % FOLDS
    scores = np.zeros(len(images))
    for number in range(FOLDS):
        torch.manual_seed(seed + number)
        net = CompactResNet(images.shape[1], 1, widths=(16, 32, 64), blocks=(1, 1, 1))
        train = np.flatnonzero(fold != number)
        steps = EPOCHS * max(1, len(train) // BATCH)
        optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
        weight = torch.tensor(float((~real[train]).sum() / real[train].sum()))
        net.train()
        for _ in range(steps):
            rows = torch.from_numpy(rng.choice(train, BATCH))
            batch = torch.rot90(data[rows], int(rng.integers(4)), (2, 3))
            batch = batch.flip(3) if rng.integers(2) else batch
            loss = nn.functional.binary_cross_entropy_with_logits(net(batch)[:, 0], target[rows], pos_weight=weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        net.eval()
        with torch.no_grad():
            rest = torch.from_numpy(np.flatnonzero(fold == number))
            turned = [torch.rot90(data[rest], k, (2, 3)) for k in range(4)]
            scores[rest.numpy()] = torch.stack([net(each)[:, 0] for each in turned]).mean(0).numpy()
    return scores


def compare(name: str, made: Set, real: Set, bands: Sequence[str]) -> dict[str, Any]:
    """Print and return how well real images are told from made ones."""
    images = np.concatenate([real.images, made.images])
    is_real = np.repeat([True, False], [len(real.images), len(made.images)])
    _, fields = np.unique(np.concatenate([real.fields, made.fields]), return_inverse=True)
    scores = held_out(images, is_real, fields, seed=0)
    positive = is_real.astype(np.float64)
    metric = Metric("auc", "AUC", auc_statistic(scores, positive))
    figure = intervals([metric], len(images), 0)["auc"]
    alone = {}
    for statistic, values in statistics(images, bands).items():
        values = np.nan_to_num(values)
        auc = float(auc_statistic(values, positive)(np.ones((1, len(values))))[0])
        alone[statistic] = max(auc, 1 - auc)
    worst = dict(sorted(alone.items(), key=lambda pair: -pair[1])[:8])
    print(f"\n{name}: {len(real.images)} real, {len(made.images)} made: AUC {figure_text(figure.record())}")
    print("  by one statistic alone: " + ", ".join(f"{key} {value:.2f}" for key, value in worst.items()), flush=True)
    return {"real": len(real.images), "made": len(made.images), "auc": figure.record(), "statistics": worst}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("survey", help="of the presets finding-SURVEY")
    parser.add_argument("cutouts", type=Path, help="of lenses, at their centres")
    parser.add_argument("--zero_point", type=float, help="of all bands, for images that do not say it")
    parser.add_argument("--pixel_scale", type=float, help="arcsec, for images that do not say it")
    parser.add_argument("--bands", help="which, with commas between")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    arguments = parser.parse_args()
    options = DataOptions(bands=arguments.bands, pixel_scale=arguments.pixel_scale)
    opened = open_with(arguments.cutouts, options)
    if options.band_names:
        opened = opened.with_bands(options.band_names)
    preset = load_preset(f"finding-{arguments.survey}")
    assert isinstance(preset, ScenePreset)
    bands = list(preset.bands)
    scale = opened.info.pixel_scale
    if scale is None or (arguments.zero_point is None and None in opened.info.zero_points):
        raise DataError("--pixel_scale, --zero_point: not known of these images")
    zero_points = opened.info.zero_points if arguments.zero_point is None else [arguments.zero_point] * len(bands)
    fields = in_units_of(np.asarray(opened.images[np.arange(len(opened))], np.float64), zero_points, preset)
    own = adapted(preset, bands, SIDE, scale)
    seen = bands.index(preset.detection_band)

    middle, around = fields.shape[-1] // 2, SIDE + 12
    whole = [i for i in range(len(fields)) if np.isfinite(cut(fields[i], middle, middle, around)).all()]
    real = centred(np.stack([cut(fields[i], middle, middle, around) for i in whole]), np.array(whole), own)
    print(f"{len(fields)} lenses, {len(real.images)} of them with a galaxy at the centre as the preset's rules have it")
    # Which lenses are known is no matter of this survey: its images did not choose them.
    known = dataclasses.replace(own, rules=dataclasses.replace(own.rules, arc_snr=3, arc_contrast=0, resolved=False))
    several = simulate_cutouts(dataclasses.replace(known, pixels=around), 30 * len(own.turns), 0)
    clean = (several.catalog["object"] == "lens") & (several.catalog["artefacts"] == "")
    lenses = np.asarray(several.images)[clean.to_numpy()]
    simulated = centred(lenses, len(fields) + np.arange(len(lenses)), own)
    results = {"simulated lenses": compare("simulated lenses", *matched(simulated, real), bands)}
    places = [(i, y, x) for i in range(len(fields)) for y, x in beside(fields[i], seen, around)]
    places = [(i, y, x) for i, y, x in places if np.isfinite(cut(fields[i], y, x, around)).all()]
    print(f"{len(places)} objects beside the lenses")
    odd = [(i, middle, middle) for i in whole if i % 2]
    for name, hosts, others in (
        ("painted over galaxies beside lenses", places, real),
        ("painted over half of the lens galaxies", odd, real.rows(real.fields % 2 == 0)),
    ):
        painted = painted_over(hosts, fields, known, around)
        if painted is not None:
            results[name] = compare(name, *matched(painted, others, 0.5), bands)
    print(json.dumps(results, indent=2)) if arguments.out is None else arguments.out.write_text(
        json.dumps(results, indent=2)
    )


if __name__ == "__main__":
    main()
