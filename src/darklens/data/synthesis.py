"""Simulate dataset folders. An interrupted simulation is resumed, and ends with the same bytes as an uninterrupted one."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import torch

from darklens.data.dataset import Cutouts, DatasetInfo, DatasetWriter, checksum, versions
from darklens.data.seeds import simulation_seed
from darklens.data.simulated_blocks import BlockMaker, image_dtype
from darklens.progress import working
from darklens.simulation import BLOCK, AnyPreset, Simulator
from darklens.simulation.columns import to_frame
from darklens.simulation.pairs import Target
from darklens.simulation.parallel import in_order

Progress = Callable[[int, int], None]
COMPILE_FROM = 1024
"""From this many images on, kernels are compiled. Measured on one core with the preset model-1: compiling takes 39 s, once
on a machine, and raises the rate from 21 to 256 images a second, so it pays from 900 images on. With a smaller number small
sets wait for the compiler; with a larger one, sets below it take up to twelve times as long."""
CHECKPOINT = 16 * BLOCK
"""Images between two checkpoints: what an interruption loses at most. Measured on 8192
images of 64 × 64 pixels: checkpoints cost 2.2 s every 64 images, 0.5 s every 1024. A larger number loses more."""


def simulate_dataset(
    preset: AnyPreset,
    count: int,
    seed: int,
    *,
    out: Path,
    noise: bool = True,
    device: str = "cpu",
    target: Target | None = None,
    noisy_targets: bool = False,
    processes: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Write simulated images and their truths as a dataset folder, or finish one that was interrupted; return its path.

    Parameters
    ----------
    preset
        What is simulated.
    count
        Number of images, a total over the classes, which alternate.
    seed
        Seed of all random numbers, from 0 to `darklens.data.seeds.SEEDS` - 1.
    out
        The folder to write; ``<out>.partial`` holds the images until all are written.
    noise
        Whether images have noise; without it they are the expectation.
    device
        PyTorch's name of the device that renders, such as ``cpu`` or ``cuda``.
    target
        How the sharper image of each pair for super-resolution is seen, which goes to ``targets.npy``; None makes none.
    noisy_targets
        Whether those have noise.
    processes
        Blocks are made in so many processes, one core each, or by threads of this one if it is 1. The images are the
        same. As each process imports the main module of the program, a script that asks for several has its own work under
        ``if __name__ == "__main__"``.
    progress
        Called after each checkpoint with the images written and their total.

    Returns
    -------
    Path
        The folder ``out``.

    Raises
    ------
    DataError
        If the folder exists or cannot be written, its partial folder is of other settings, or the seed is out of range.
    """
    seed = simulation_seed(seed, "dataset")
    fingerprint = {"preset": preset.resolved, "seed": seed, "noise": noise, "versions": versions(), "device": device}
    fingerprint |= {"files": {str(path): checksum(path) for path in preset.files}}
    # Version 0.1 drew rows at the end, and noise from seeds of 32 bits.
    fingerprint |= {"rows": "at checkpoints", "streams": "of names and contents, 128 bits"}
    make = BlockMaker(
        preset, seed, count, noise, device, compile=count >= COMPILE_FROM, target=target, noisy_targets=noisy_targets
    )
    if target is not None:
        fingerprint |= {"targets": [target.preset.name, target.preset.pixels, noisy_targets]}
    fingerprint |= {"mask": True} if make.masked else {}
    writer = DatasetWriter(
        out,
        (count, *preset.shape),
        image_dtype(preset, noise),
        fingerprint=fingerprint,
        targets=None if target is None else (count, *target.preset.shape),
        mask=make.masked,
    )
    start, truths = writer.done, []
    several = processes > 1 and device == "cpu"
    workers = processes if several else torch.get_num_threads() if device == "cpu" else 1
    for block in in_order(make, range(start // BLOCK, -(-count // BLOCK)), workers, processes=several):
        writer.write(start, block.images, targets=block.targets, mask=block.mask)
        truths.append(to_frame(block.rows))
        start += len(block.images)
        if start % CHECKPOINT == 0 or start == count:
            writer.checkpoint(start, pl.concat(truths, how="diagonal_relaxed"))
            truths.clear()
            if progress:
                progress(start, count)
    seeds = pl.lit(seed).alias("seed")
    with working("writing the truths and the checksum"):
        catalog = writer.kept_rows() if count else Simulator(preset, seed).catalog(0)
        info = simulated_info(preset, seed, noise)
        if target is not None:
            kind = "with noise" if noisy_targets else "without noise"
            scale = target.preset.half_width * 2 / target.preset.pixels
            info.notes.append(f"targets.npy: the same {kind}, by {target.preset.name}, on pixels of {scale:.4g}″")
        return writer.finish(catalog.with_columns(seeds), info)


def simulate_cutouts(preset: AnyPreset, count: int, seed: int, *, progress: Progress | None = None) -> Cutouts:
    """Return simulated images with noise and their truths, in memory.

    Parameters
    ----------
    preset
        What is simulated.
    count
        Number of images, a total over the classes, which alternate.
    seed
        Seed of all random numbers, 0 or above.
    progress
        Called after each block with the images done and their total.

    Returns
    -------
    Cutouts
        Images (count, 1, H, W) and a catalogue row for each.
    """
    simulator = Simulator(preset, seed, compile=count >= COMPILE_FROM)
    images = np.empty((count, *preset.shape), image_dtype(preset, noise=True))
    done, truths = 0, []
    for block, rows in simulator.blocks(count):
        images[done : done + len(rows["id"])] = block.numpy()
        truths.append(to_frame(rows))
        done += len(rows["id"])
        if progress:
            progress(done, count)
    catalog = pl.concat(truths, how="diagonal_relaxed") if count else simulator.catalog(0)
    return Cutouts(images, catalog, simulated_info(preset, seed))


def simulated_info(preset: AnyPreset, seed: int, noise: bool = True) -> DatasetInfo:
    """Return the description of a simulated dataset.

    Parameters
    ----------
    preset
        What is simulated.
    seed
        Seed of all random numbers.
    noise
        Whether images have noise.

    Returns
    -------
    DatasetInfo
        Content of ``dataset.json``, without versions and checksum.
    """
    return DatasetInfo(
        source=f"preset:{preset.name}",
        classes=preset.labels,
        bands=preset.band_names,
        pixel_scale=preset.pixel_scale,
        zero_points=preset.zero_points,
        unit=preset.unit,
        seed=seed,
        noise=noise,
        preset={"name": preset.name, **preset.resolved},
        notes=[preset.description],
    )


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Time that a simulation takes, and its size.

    Parameters
    ----------
    images_per_second
        Measured rate.
    seconds
        Time for all images.
    bytes
        Size of the images on disk.
    """

    images_per_second: float
    seconds: float
    bytes: int


def estimate(preset: AnyPreset, count: int, noise: bool = True) -> Estimate:
    """Estimate time and size of a simulation from one block, and return both.

    The block is rendered on the CPU by the kernels that are not compiled; compiled ones are several times faster.

    Parameters
    ----------
    preset
        What is simulated.
    count
        Number of images.
    noise
        Whether images have noise.

    Returns
    -------
    Estimate
        An upper limit of the time, and the size.
    """
    simulator = Simulator(preset, seed=0)
    next(simulator.blocks(BLOCK, noise=noise))
    started = time.perf_counter()
    next(simulator.blocks(BLOCK, noise=noise))
    rate = BLOCK / (time.perf_counter() - started)
    return Estimate(rate, count / rate, count * math.prod(preset.shape) * image_dtype(preset, noise).itemsize)
