"""Simulated dataset folders: resumable, and the same bytes whatever the interruptions."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from darklens.data.dataset import Cutouts, DatasetInfo, DatasetWriter, versions
from darklens.progress import working
from darklens.simulation import BLOCK, Preset, Simulator

Progress = Callable[[int, int], None]
COMPILE_FROM = 1024
"""From this many images on, compiled kernels are worth their compilation."""


def simulate_dataset(
    preset: Preset,
    count: int,
    seed: int,
    out: Path,
    noise: bool = True,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Path:
    """Write ``count`` images (a total over the classes, which take turns) as a dataset folder; resumes.

    ``progress`` is called with the images done and their total. Raises DataError if ``out`` exists or cannot be
    written.
    """
    dtype = image_dtype(preset, noise)
    shape = (count, 1, preset.pixels, preset.pixels)
    fingerprint = {"preset": preset.resolved, "seed": seed, "noise": noise, "versions": versions(), "device": device}
    writer = DatasetWriter(out, shape, dtype, fingerprint)
    simulator = Simulator(preset, seed, device, compile=count >= COMPILE_FROM)
    start = writer.done
    for images, rows in simulator.blocks(count - start, start, noise):
        writer.write(start, images.cpu().numpy().astype(dtype))
        start += len(rows["id"])
        if start % (16 * BLOCK) == 0 or start == count:
            writer.checkpoint(start)
            if progress:
                progress(start, count)
    seeds = pl.lit(seed).alias("seed")
    with working("writing the truths and the checksum"):
        catalog = simulator.catalog(count)
        return writer.finish(catalog.with_columns(seeds), simulated_info(preset, seed, noise))


def simulate_cutouts(preset: Preset, count: int, seed: int, progress: Progress | None = None) -> Cutouts:
    """Return ``count`` simulated images (a total over the classes) with their truths, in memory and not on disk."""
    simulator = Simulator(preset, seed, compile=count >= COMPILE_FROM)
    images = np.empty((count, 1, preset.pixels, preset.pixels), image_dtype(preset, noise=True))
    done = 0
    for made, rows in simulator.blocks(count):
        images[done : done + len(rows["id"])] = made.numpy()
        done += len(rows["id"])
        if progress:
            progress(done, count)
    return Cutouts(images, simulator.catalog(count), simulated_info(preset, seed))


def image_dtype(preset: Preset, noise: bool) -> np.dtype:
    """Counts fit the detector's integers; all else is float32."""
    return np.dtype(np.uint16 if preset.unit == "counts" and noise else np.float32)


def simulated_info(preset: Preset, seed: int, noise: bool = True) -> DatasetInfo:
    """What a simulated dataset is."""
    instrument = preset.instrument
    return DatasetInfo(
        source=f"preset:{preset.name}",
        classes=preset.labels,
        bands=[instrument.name],
        pixel_scale=instrument.pixel_scale,
        zero_points=[instrument.zero_point],
        unit=preset.unit,
        seed=seed,
        noise=noise,
        preset={"name": preset.name, **preset.resolved},
        notes=[preset.description],
    )


@dataclasses.dataclass(frozen=True)
class Estimate:
    """How long and how big a simulation will be."""

    images_per_second: float
    seconds: float
    bytes: int


def estimate(preset: Preset, count: int, noise: bool = True) -> Estimate:
    """Measured on one block with the eager kernels; compiled ones are several times faster."""
    simulator = Simulator(preset, seed=0)
    next(simulator.blocks(BLOCK, noise=noise))
    started = time.perf_counter()
    next(simulator.blocks(BLOCK, noise=noise))
    rate = BLOCK / (time.perf_counter() - started)
    return Estimate(rate, count / rate, count * preset.pixels**2 * image_dtype(preset, noise).itemsize)
