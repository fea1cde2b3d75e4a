"""Rate of fits of smooth lenses: image by image, compiled, as on a CPU, against operations on whole batches.

    python benchmarks/smoothfit.py --preset model-1 --crop 96 --images 128

Both are timed in turns on the same images, on as many threads as ``--threads`` says; the median of the rounds counts. It
also says how many fits agree in what is left of the image to a thousandth.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from darklens.physics import smoothfit
from darklens.physics.smoothfit import SmoothFit, broad_prior, fit_smooth_lens, sky_noise
from darklens.simulation import Simulator
from darklens.training.job import machine


def main() -> None:
    """Time both and print a line on each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="model-1")
    parser.add_argument("--crop", type=int, default=96)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    simulator = Simulator(given.preset, seed=5)
    images = torch.as_tensor(simulator.render(simulator.catalog(given.images))).squeeze(1).float()
    start = (images.shape[-1] - given.crop) // 2
    images = images[:, start : start + given.crop, start : start + given.crop].contiguous()
    images = images / sky_noise(images)
    prior = broad_prior()._replace(blur=0.8 * 2 / given.crop)
    ways = {"compiled": smoothfit._refine, "batches": smoothfit._refine_together}

    def fitted(way: str) -> tuple[SmoothFit, float]:
        smoothfit._refine = ways[way]  # type: ignore[assignment]
        began = time.perf_counter()
        found = fit_smooth_lens(images, prior)
        return found, (time.perf_counter() - began) / len(images)

    first = {way: fitted(way)[0] for way in ways}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(given.rounds):
        for way in ways:
            seconds[way].append(fitted(way)[1])
    alike = (first["compiled"].cost / first["batches"].cost - 1).abs() < 1e-3
    print(f"{given.preset}, {given.images} images of {given.crop}×{given.crop}; {machine()}, threads: {given.threads}")
    for way, times in seconds.items():
        print(
            f"{way}: {1e3 * statistics.median(times):.2f} ms an image ({1e3 * min(times):.2f} to {1e3 * max(times):.2f})"
        )
    print(f"{int(alike.sum())} of {len(alike)} end alike")


if __name__ == "__main__":
    main()
