"""Measure seeing and noise of images without labels, and degrade sharper or quieter ones to them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from darklens.data.strong_views import blurred

REACH = 4
"""Largest distance, pixels, over which noise is taken to be correlated; resampling of exposures correlates it over two."""
BORDER = 0.125
"""Rows at the top and at the bottom where sky is looked for, as a fraction of the side; see `noise_covariance`."""
NORMAL = 1 / (0.6745 * 2**0.5)
"""Standard deviation of a normal variable over the median of its difference to another of the same distribution."""
BINS = 16
"""Of spatial frequency, from 0 to half a cycle a pixel, in which power spectra are averaged."""


def noise_covariance(images: Tensor) -> Tensor:
    """Return the covariance of the sky's noise between pixels, of each band of each image.

    It comes from medians of differences between pixels so far apart, in rows where a central object has little light, so
    that neither the level of the background nor a few neighbours count.

    Parameters
    ----------
    images
        (N, C, H, W), at least 16 pixels high and wide.

    Returns
    -------
    Tensor
        (N, C, 2 REACH + 1, 2 REACH + 1), the variance at its centre; symmetric about it.
    """
    border = max(2 * REACH, round(BORDER * images.shape[-2]))
    strips = torch.stack([images[..., :border, :], images[..., -border:, :]], 2)
    far = _scatter(strips, 0, 2 * REACH)
    size = 2 * REACH + 1
    found = torch.empty(*images.shape[:2], size, size, dtype=images.dtype, device=images.device)
    for down in range(REACH + 1):
        for right in range(-REACH, REACH + 1):
            covariance = far if down == right == 0 else far - _scatter(strips, down, right)
            found[..., REACH + down, REACH + right] = covariance
            found[..., REACH - down, REACH - right] = covariance
    return found


def _scatter(strips: Tensor, down: int, right: int) -> Tensor:
    """Half the variance of differences between pixels (N, C, S, H, W) so far apart, (N, C)."""
    height, width = strips.shape[-2:]
    rows, columns = height - down, width - abs(right)
    first = strips[..., :rows, max(0, -right) : max(0, -right) + columns]
    other = strips[..., down:, max(0, right) : max(0, right) + columns]
    median = (first - other).abs().flatten(2).median(2).values
    return (median * NORMAL).square()


def noise_spectrum(covariance: Tensor, height: int, width: int) -> Tensor:
    """Return the power spectrum of noise with a covariance (…, D, D), on the grid of `torch.fft.rfft2`, at least 0.

    Its mean over all frequencies is the variance of a pixel.
    """
    size = covariance.shape[-1]
    grid = torch.zeros(*covariance.shape[:-2], height, width, dtype=covariance.dtype, device=covariance.device)
    grid[..., :size, :size] = covariance
    grid = torch.roll(grid, (-(size // 2), -(size // 2)), (-2, -1))
    return torch.fft.rfft2(grid).real.clamp_min(0)


def correlated_noise(spectrum: Tensor, width: int, generator: Generator) -> Tensor:
    """Return Gaussian noise (…, H, W) with a power spectrum (…, H, W // 2 + 1), random numbers drawn on the CPU."""
    shape = (*spectrum.shape[:-1], width)
    white = torch.randn(shape, generator=generator).to(spectrum)
    noise: Tensor = torch.fft.irfft2(torch.fft.rfft2(white) * spectrum.sqrt(), s=shape[-2:])
    return noise


def light_spectrum(images: Tensor, covariance: Tensor) -> Tensor:
    """Return the mean power of light, without that of the noise, in `BINS` bins of frequency, (BINS,).

    Parameters
    ----------
    images
        (N, C, H, W); each weighs by the inverse of its whole power, so that bright ones do not outweigh others.
    covariance
        Of their noise, (N, C, D, D).
    """
    height, width = images.shape[-2:]
    window = torch.hann_window(height, False)[:, None] * torch.hann_window(width, False)
    window = window.to(images) / window.square().mean().sqrt()
    level = images.flatten(2).median(2).values[..., None, None]
    power = torch.fft.rfft2((images - level) * window).abs().square() / (height * width)
    light = power - noise_spectrum(covariance, height, width)
    weight = 1 / power.mean((-2, -1), keepdim=True).clamp_min(torch.finfo(images.dtype).tiny)
    mean = (light * weight).mean((0, 1)).flatten()
    place = (frequencies(height, width) * 2 * BINS).long().flatten()
    sums = [
        each.new_zeros(BINS + 1).index_add(0, place.clamp_max(BINS), each)
        for each in (mean.cpu(), torch.ones(mean.shape))
    ]
    return (sums[0] / sums[1].clamp_min(1))[:BINS]


def frequencies(height: int, width: int) -> Tensor:
    """Return spatial frequencies, cycles a pixel, on the grid of `torch.fft.rfft2`, (H, W // 2 + 1)."""
    return torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width))


def missing_blur(source: Tensor, target: Tensor) -> float:
    """Return the standard deviation, pixels, of the Gaussian that makes the source as blurred as the target; 0 if sharper.

    It supposes that objects in both are as large: what differs between power spectra is taken for seeing.

    Parameters
    ----------
    source, target
        Power of light (BINS,) of each, as `light_spectrum` gives it.
    """
    middle = (torch.arange(BINS) + 0.5) / (2 * BINS)
    # Where light is below a ten-thousandth of its largest power, what is left of the noise is as large.
    kept = (source > 1e-4 * source.max()) & (target > 1e-4 * target.max())
    if int(kept.sum()) < 3:
        return 0.0
    x, y = middle[kept].square(), (target[kept] / source[kept]).log()
    x, y = x - x.mean(), y - y.mean()
    variance = -float((x * y).sum() / x.square().sum()) / (4 * torch.pi**2)
    return max(0.0, variance) ** 0.5


@dataclass(frozen=True)
class Matching:
    """How source images are degraded to a target.

    Attributes
    ----------
    seeing
        Standard deviation of the Gaussian that they are blurred by, pixels.
    target
        Covariance of the target's noise (C, D, D), the median over images.
    levels
        Variances of the noise of target images, relative to that median, (M,).
    source
        Covariance of the source's noise (C, D, D), the median over images.
    noise
        Whether noise is added.
    """

    seeing: float
    target: Tensor
    levels: Tensor
    source: Tensor
    noise: bool = True

    def __call__(self, images: Tensor, generator: Generator, lacking: Tensor | None = None) -> Tensor:
        """Return images (N, C, H, W) blurred, with as much noise as each lacks of that of a target image drawn for it.

        Of the variance of that image's noise, ``lacking`` (N,) is wanted; without it, all.
        """
        count, _, height, width = images.shape
        drawn = self.levels[torch.randint(len(self.levels), (count,), generator=generator)]
        if self.seeing > 0:
            images = blurred(images, torch.full((count,), self.seeing))
        if not self.noise:
            return images.clone()
        drawn = drawn if lacking is None else drawn * lacking
        left = noise_spectrum(self.source, height, width) * transfer(self.seeing, height, width)
        wanted = noise_spectrum(self.target, height, width)
        added = (drawn[:, None, None, None] * wanted - left).clamp_min(0)
        return images + correlated_noise(added, width, generator).to(images)


def transfer(sigma: float, height: int, width: int) -> Tensor:
    """Return what is left of the power of an image blurred by a Gaussian of so many pixels, (H, W // 2 + 1)."""
    return torch.exp(-4 * torch.pi**2 * sigma**2 * frequencies(height, width).square())


def measure_matching(source: Tensor, target: Tensor, *, seeing: float | None = None, noise: bool = True) -> Matching:
    """Return how source images are degraded to a target, from images of both without labels.

    Parameters
    ----------
    source, target
        (N, C, H, W) and (M, C, H, W), in the same unit.
    seeing
        Standard deviation of the Gaussian to blur by, pixels; None measures it.
    noise
        Whether noise is to be added.
    """
    covariances = [noise_covariance(images.float()) for images in (source, target)]
    if seeing is None:
        spectra = [light_spectrum(*pair) for pair in zip((source.float(), target.float()), covariances, strict=True)]
        seeing = missing_blur(*spectra)
    medians = [each.median(0).values for each in covariances]
    variances, typical = (each[..., REACH, REACH] for each in (covariances[1], medians[1]))
    tiny = torch.finfo(typical.dtype).tiny
    return Matching(seeing, medians[1], (variances / typical.clamp_min(tiny)).mean(1), medians[0], noise)
