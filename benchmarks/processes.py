"""Images a second of a simulation on threads of one process, and in as many processes: once they run, and until they do.

    python benchmarks/processes.py fair-hst fair-euclid model-1 finding-deeplense finding-hsc     # 12 minutes, two cores

Both take turns on the same blocks. The first blocks, while kernels are loaded, count as the start.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from darklens.data.simulated_blocks import BlockMaker
from darklens.simulation import BLOCK, load_preset
from darklens.simulation.parallel import in_order
from darklens.training.job import machine

FIRST = 8
"""Blocks that count as the start."""


def timed(name: str, images: int, workers: int, processes: bool) -> tuple[float, float]:
    """Seconds until `FIRST` blocks are made, and images a second after that."""
    make = BlockMaker(load_preset(name), 1, (FIRST + 1) * BLOCK + images, compile=True)
    begun = time.perf_counter()
    started, done = 0.0, 0
    for number, block in enumerate(in_order(make, range(FIRST + images // BLOCK), workers, processes=processes)):
        if number == FIRST - 1:
            started = time.perf_counter()
        elif number >= FIRST:
            done += len(block.images)
    return started - begun, done / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("presets", nargs="+")
    parser.add_argument("--images", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    workers = torch.get_num_threads()
    print(
        f"{machine()}; {workers} threads, {workers} processes; {options.images:,} images, {options.rounds} rounds, medians"
    )
    print(f"{'preset':20} {'threads, images/s':>18} {'processes':>10} {'ratio':>6} {'start, s':>9} {'processes':>10}")
    for name in options.presets:
        found = [
            [timed(name, options.images, workers, processes) for processes in (False, True)]
            for _ in range(options.rounds)
        ]
        starts = [statistics.median(each[kind][0] for each in found) for kind in (0, 1)]
        rates = [statistics.median(each[kind][1] for each in found) for kind in (0, 1)]
        print(
            f"{name:20} {rates[0]:18.0f} {rates[1]:10.0f} {rates[1] / rates[0]:6.2f} {starts[0]:9.1f} {starts[1]:10.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
