"""Draw a preset: images of each class, and what each class does to the noise-free image of the same lens."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from darklens.report.figures import preset_preview, save
from darklens.simulation import Simulator
from darklens.simulation.presets import Preset

COLUMNS = 4


def preview(preset: Preset, out: Path, seed: int = 0) -> dict[str, Any]:
    """Draw to ``out``; returns images a second and, for each class, the median detectability in σ.

    The residual of a class is the image with its substructure less that of the same lens and source without, both
    noise-free. Its detectability is the root of the summed squares in units of the noise: what an observer who knew all
    else would have.
    """
    simulator = Simulator(preset, seed)
    rows = simulator.catalog(COLUMNS * len(preset.labels))
    started = time.perf_counter()
    noisy = simulator.render(rows)[:, 0]
    rate = len(rows) / (time.perf_counter() - started)
    clean = simulator.render(rows, noise=False, dtype=torch.float64)[:, 0]
    smooth = simulator.without_substructure(rows)
    sigma = simulator.noise_sigma(rows, smooth)
    residual = (clean - smooth) / sigma
    strength = residual.square().sum((-2, -1)).sqrt().numpy()
    labels = np.array(rows["label"].to_list())
    order = [np.flatnonzero(labels == name) for name in preset.labels]
    figure = preset_preview(
        [noisy[rows].numpy() for rows in order],
        [residual[rows].numpy() for rows in order],
        preset.labels,
        preset.instrument.pixel_scale,
    )
    save(figure, out)
    detectability = {name: float(np.median(strength[rows])) for name, rows in zip(preset.labels, order, strict=True)}
    return {"images_per_second": rate, "detectability": detectability}
