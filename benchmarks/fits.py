"""How good fits of smooth lenses are, on smooth lenses of a preset whose truth is known.

    python benchmarks/fits.py fair-hst:56 fair-euclid:48 --images 1000

For each preset and crop: how many fits end with a sum of squares more than 9 (3σ) above that of a fit which begins at the
truth, and how far the fitted image is from the image without noise, in units of the noise (the root of the summed squares).
Noise alone moves the parameters, 14 of which are free: that makes about 3.7. The same without what makes fits as they are:
five ellipticities to begin with, enough steps, and light as means over pixels.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor

from darklens.physics import smoothfit
from darklens.physics.smoothfit import PARAMETERS, SmoothPrior, fit_smooth_lens, learn_prior, sky_noise, smooth_image
from darklens.simulation import Simulator, load_preset
from darklens.training.job import machine

LEARNED_FROM = 256
"""Images of all classes that the distribution of lenses is learned from, as in a training."""


def cropped(images: Tensor, crop: int) -> Tensor:
    """Return the central part of images (N, 1, H, W), as (N, crop, crop)."""
    start = (images.shape[-1] - crop) // 2
    return images[:, 0, start : start + crop, start : start + crop].float().contiguous()


def truth(rows: dict[str, Tensor], half: float, prior: SmoothPrior, clean: Tensor) -> Tensor:
    """Return the true parameters (N, 15), with the brightness that fits the noise-free images ``clean`` best."""
    found = torch.zeros(len(clean), len(PARAMETERS))
    for k, name in enumerate(PARAMETERS[:9]):
        lengths = ("theta_E", "lens_x", "lens_y", "source_x", "source_y")
        found[:, k] = rows[name] / (half if name in lengths else 1)
    found[:, 9], found[:, 10] = torch.log(rows["source_R_sersic"] / half), torch.log(rows["source_n_sersic"])
    found[:, 11], found[:, 12] = rows["source_e1"], rows["source_e2"]
    shape = smooth_image(found, clean.shape[-1], prior.blur, prior.fine)
    found[:, 13] = torch.log((clean * shape).sum((1, 2)) / shape.square().sum((1, 2)))
    return found


def measure(name: str, crop: int, images: int) -> None:
    """Print how good the fits to smooth lenses of a preset are."""
    preset = load_preset(name)
    everything = Simulator(preset, seed=21)
    seen = cropped(torch.as_tensor(everything.render(everything.catalog(LEARNED_FROM))), crop)
    prior = learn_prior(seen / sky_noise(seen))
    simulator = Simulator(f"{name}:no_sub", seed=11)
    rows = simulator.catalog(images)
    noisy, clean = (cropped(torch.as_tensor(simulator.render(rows, noise=n)), crop) for n in (True, False))
    noise = sky_noise(noisy)
    noisy, clean = noisy / noise, clean / noise
    numbers = {c: torch.tensor(rows[c].to_numpy()).float() for c in rows.columns if rows[c].dtype.is_float()}
    start = truth(numbers, crop * preset.instrument.pixel_scale / 2, prior, clean)
    from_truth = smoothfit._refine(noisy, prior, start, 1, smoothfit.FINE_STEPS)
    ways = {"as they are": {}, "one start": {"_ELLIPTICITIES": ((0.0, 0.0),)}}
    ways["one start, at most 10 and 7 steps"] = ways["one start"] | {"COARSE_STEPS": 10, "FINE_STEPS": 7}
    print(f"{name}, crop {crop}, {images} images; light as means over pixels: {prior.fine}; {machine()}")
    for way, changes in ways.items():
        report(way, noisy, clean, prior, from_truth.cost, changes)
    plain = prior._replace(fine=False)
    report("the same, light at centres of pixels", noisy, clean, plain, from_truth.cost, changes)


def report(
    way: str, noisy: Tensor, clean: Tensor, prior: SmoothPrior, least: Tensor, changes: dict[str, object]
) -> None:
    """Fit images with some of the constants of `smoothfit` changed, and print a line."""
    before = {name: getattr(smoothfit, name) for name in changes}
    for name, value in changes.items():
        setattr(smoothfit, name, value)
    try:
        began = time.perf_counter()
        fit = fit_smooth_lens(noisy, prior)
        seconds = time.perf_counter() - began
    finally:
        for name, value in before.items():
            setattr(smoothfit, name, value)
    image = smooth_image(fit.parameters, clean.shape[-1], prior.blur, prior.fine)
    distance = ((clean - image) * torch.rsqrt(1 + smoothfit._SHOT * image.clamp_min(0))).square().sum((1, 2)).sqrt()
    median, most = (float(distance.quantile(q)) for q in (0.5, 0.95))
    worse = float((fit.cost - least > 9).float().mean())
    print(
        f"  {way}: {worse:.1%} end more than 9 above; {median:.1f} σ from the image without noise (95%: {most:.1f}); "
        f"{1e3 * seconds / len(noisy):.0f} ms an image"
    )


def main() -> None:
    """Measure each preset that is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="+", help="PRESET:CROP")
    parser.add_argument("--images", type=int, default=1000)
    given = parser.parse_args()
    for each in given.presets:
        name, _, crop = each.partition(":")
        measure(name, int(crop), given.images)


if __name__ == "__main__":
    main()
