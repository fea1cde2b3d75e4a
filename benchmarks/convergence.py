"""How far are images of a preset from those of very many rays?

    python benchmarks/convergence.py fair-hst fair-euclid --images 40       # half an hour on two cores
    python benchmarks/convergence.py fair-hst --uniform 2,4,8 --images 40   # beside the same rays in every pixel
    python benchmarks/convergence.py fair-hst:axion --quick --images 900    # against adaptive sampling of many more rays

The reference has REFERENCE × REFERENCE rays in every pixel, and the PSF is applied to them as they are. For each class,
the largest difference of an image is divided by the standard deviation of the noise in that pixel; what is printed are the
median, the 90th percentile and the largest of these, over the images.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from darklens.physics import gaussian_psf_taps, pixel_coordinates
from darklens.progress import progress_bar
from darklens.simulation import Preset, Simulator, load_preset, quadrature
from darklens.simulation.columns import columns_of, from_frame, select
from darklens.simulation.compiled import fused_light
from darklens.simulation.noise import noise_sigma
from darklens.simulation.scene import lensed_light
from darklens.training.job import machine

REFERENCE = 32
ROWS = 64
"""Rows of rays that are computed at once."""


def brute_force(preset: Preset, label: str, rows: dict, factor: int) -> Tensor:
    """Expected flux (N, H, W) in e-/s with ``factor`` × ``factor`` rays in every pixel, for a Gaussian PSF."""
    instrument = preset.instrument
    x, y = pixel_coordinates(preset.pixels, instrument.pixel_scale, factor)
    taps = gaussian_psf_taps(instrument.psf_fwhm / instrument.pixel_scale * factor, instrument.psf_truncation)
    seen = _seen(preset.pixels, factor, taps)
    images = []
    for i in range(len(rows["id"])):
        row, parts = select(rows, np.array([i])), []
        for start in range(0, len(x), ROWS):
            at = x[None, start : start + ROWS], y[None, start : start + ROWS]
            light = fused_light(preset, label, row, *at)
            parts.append(lensed_light(preset, label, row, *at, galaxies=None) if light is None else light)
        light = torch.cat(parts, 1)[0].double()
        images.append(seen @ light @ seen.T * instrument.pixel_scale**2)
    return torch.stack(images)


@contextmanager
def many_more_rays() -> Iterator[None]:
    """Adaptive sampling with six times as many rays, which finds what 32 × 32 in every pixel do, in seconds."""
    before = quadrature.LEVELS, quadrature.LEVELS_OF_KINKS, quadrature.KINKS
    quadrature.LEVELS = quadrature.LEVELS_OF_KINKS = (6000, 2048, 1024, 512, 256, 64)
    quadrature.KINKS = 1024
    try:
        yield
    finally:
        quadrature.LEVELS, quadrature.LEVELS_OF_KINKS, quadrature.KINKS = before


def rendered(simulator: Simulator, rows: dict, *, compile: bool) -> Tensor:
    """Expected flux (N, H, W) in e-/s as the preset samples it, by compiled kernels or without, a few images at a time."""
    parts = np.array_split(np.arange(len(rows["id"])), max(1, len(rows["id"]) // 16))
    images = simulator.renderer.images
    found = [images(select(rows, part), simulator.seed, noise=False, compile=compile)[:, 0] for part in parts]
    return torch.cat(found).double()


def _seen(pixels: int, factor: int, taps: list[float]) -> Tensor:
    """What each pixel sees of the rays along one axis, (pixels, pixels * factor): the outermost repeat beyond the edge."""
    rays = torch.arange(pixels * factor)
    seen = torch.zeros(pixels, len(rays), dtype=torch.float64)
    for offset, tap in enumerate(taps, -(len(taps) // 2)):
        places = rays // factor, (rays + offset).clamp(0, len(rays) - 1)
        seen.index_put_(places, torch.full((len(rays),), tap / factor, dtype=torch.float64), accumulate=True)
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="+")
    parser.add_argument("--images", type=int, default=40, help="of each class")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--uniform", default="", help="numbers of rays along each side of a pixel to compare as well")
    parser.add_argument("--quick", action="store_true", help="compare with many more rays where they matter alone")
    arguments = parser.parse_args()
    uniform = [int(factor) for factor in arguments.uniform.split(",") if factor]
    print(f"{machine()}; {arguments.images} images of each class, seed {arguments.seed}; |difference| / σ of the noise")
    print(f"{'preset':12} {'class':8} {'rays':9} {'median':>8} {'90%':>8} {'largest':>8} {'> 0.5':>6}")
    for name in arguments.presets:
        preset = load_preset(name)
        simulator = Simulator(preset, arguments.seed)
        catalog = from_frame(simulator.catalog(arguments.images * len(preset.labels)))
        for label in preset.labels:
            rows = select(catalog, np.flatnonzero(np.asarray(catalog["label"]) == label))
            count = len(rows["id"])
            reference, others = [], {factor: [] for factor in uniform}
            if arguments.quick:
                with many_more_rays():
                    reference = [rendered(simulator, rows, compile=False)]
            with progress_bar(f"{name} {label}") as advance:
                for i in range(0 if arguments.quick else count):
                    row = select(rows, np.array([i]))
                    reference.append(brute_force(preset, label, row, REFERENCE))
                    for factor in uniform:
                        others[factor].append(brute_force(preset, label, row, factor))
                    advance(i + 1, count)
            truth = torch.cat(reference)
            sigma = noise_sigma(preset, truth, columns_of(rows, ["exposure_time"], torch.float64)[0])
            images = {"preset": rendered(simulator, rows, compile=True)}
            images["by render"] = rendered(simulator, rows, compile=False)
            images |= {f"{factor} × {factor}": torch.cat(found) for factor, found in others.items() if found}
            for what, found in images.items():
                worst = ((found - truth) / sigma).abs().flatten(1).amax(1)
                figures = (worst.median(), worst.quantile(0.9), worst.max())
                told = " ".join(f"{float(v):8.3f}" for v in figures)
                print(f"{name:12} {label:8} {what:9} {told} {int((worst > 0.5).sum()):6}", flush=True)


if __name__ == "__main__":
    main()
