"""Draw a preset: images of each class, and how much its substructure changes the noise-free image of the same lens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from darklens.plots.pictures import colour_pictures, preset_preview, save, scene_preview
from darklens.simulation import BLOCK, ScenePreset, Simulator
from darklens.simulation.presets import Preset

COLUMNS = 4
"""Images that are drawn of each class."""

SCENES = 8
"""Images that are drawn of each class of scenes."""

IMAGES = 48
"""Images that are measured of each class. Detectability varies by a factor of ten between lenses: the median of 48 has a
standard error of about 15%, and fair-hst, the slowest preset, takes about ten seconds on two cores."""

ROUNDING = 1e-6
"""Largest residual, in σ of the noise in a pixel, that counts as none.

Rounding in float64 leaves about 1e-13 σ between an image and the same lens without substructure where a class has no
substructure; the weakest that could be told from noise, about 1 σ spread over all of a thousand pixels, is above 0.01 σ.
"""


WEAK = 10.0
"""Detectability in σ below which a preview warns.

A network knows neither lens nor source, and another smooth lens stands for most of what substructure changes: 32 σ, the
median of cdm in `fair-euclid`, leave an AUC of 0.83 (`docs/benchmarks.md`).
"""


@dataclass(frozen=True)
class Detectability:
    """Median and central 68% range (``low`` to ``high``) of the detectability in σ, over ``images`` images."""

    median: float
    low: float
    high: float
    images: int

    @property
    def is_weak(self) -> bool:
        """Whether there is a change, and hardly one that a network could see."""
        return ROUNDING < self.median < WEAK

    def __str__(self) -> str:
        if self.median == self.high == 0:
            return f"no change ({self.images} images)"
        return f"{self.median:.3g} σ (68%: {self.low:.3g} to {self.high:.3g} σ; {self.images} images)"


def preview_scenes(preset: ScenePreset, out: Path, seed: int = 0) -> dict[str, int]:
    """Draw eight images of each class to ``out``; return how many images of a round each label has.

    They are in colour where there are three bands. Of more than three, the reddest, the bluest and the one between are
    drawn, by their order in the preset.
    """
    simulator = Simulator(preset, seed)
    wanted = SCENES * len(preset.turns) // min(each.turns for each in preset.classes.values())
    made = list(simulator.blocks(-(-wanted // BLOCK) * BLOCK))
    images = torch.cat([block for block, _ in made]).numpy()
    objects = np.concatenate([rows["object"] for _, rows in made])
    bands = len(preset.bands)
    drawn = colour_pictures(images[:, [bands - 1, bands // 2, 0]]) if bands > 2 else images[:, bands - 1]
    rows = [drawn[np.flatnonzero(objects == name)[:SCENES]] for name in preset.classes]
    save(scene_preview(rows, list(preset.classes), preset.pixel_scale), out)
    labels = [preset.label_of(name) for name in preset.turns]
    return {label: labels.count(label) for label in preset.labels}


def preview(preset: Preset, out: Path, seed: int = 0) -> dict[str, Detectability]:
    """Draw 4 images of each class to ``out``; return the detectability of each class, from 48 images.

    The residual of an image is the noise-free image with substructure minus that of the same deflector and source
    without. The detectability is the root of the sum of its squares over the pixels, in σ of the noise: the
    signal-to-noise ratio of the substructure if all else were known.
    """
    simulator = Simulator(preset, seed)
    catalog = simulator.catalog(IMAGES * len(preset.labels))
    images: list[np.ndarray] = []
    drawn: list[np.ndarray | None] = []
    found = {}
    for label in preset.labels:
        rows = catalog.filter(label=label)
        residual = residuals(simulator, rows)
        if residual.abs().max() < ROUNDING:
            residual.zero_()
        found[label] = _detectability(residual)
        images.append(simulator.render(rows[:COLUMNS])[:, 0].numpy())
        drawn.append(residual[:COLUMNS].numpy() if residual.any() else None)
    save(preset_preview(images, drawn, preset.labels, preset.instrument.pixel_scale), out)
    return found


def residuals(simulator: Simulator, rows: pl.DataFrame) -> Tensor:
    """Compute what substructure changes in the images of catalogue rows (N, H, W), in σ of the noise in a pixel."""
    smooth = simulator.without_substructure(rows)
    clean = simulator.render(rows, noise=False, dtype=torch.float64)[:, 0]
    return (clean - smooth) / simulator.noise_sigma(rows, smooth)


def _detectability(residual: Tensor) -> Detectability:
    low, median, high = np.quantile(residual.square().sum((-2, -1)).sqrt().numpy(), [0.16, 0.5, 0.84])
    return Detectability(float(median), float(low), float(high), len(residual))
