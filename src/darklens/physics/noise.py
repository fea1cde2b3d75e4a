"""Noise of an instrument: its level, and random numbers from the generator that is passed in."""

import math
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from darklens.physics.psf import convolve, gaussian_psf_taps

Seconds = TypeVar("Seconds", float, NDArray[np.float64], Tensor)


def counts_per_second(magnitude: Tensor, zero_point: float) -> Tensor:
    """Return the flux in e-/s of an AB magnitude, where ``zero_point`` is the magnitude of 1 e-/s."""
    return torch.pow(10, (zero_point - magnitude) / 2.5)


def background_rms(
    read_noise: float,
    exposure_time: Seconds,
    exposures: int,
    sky_brightness: float,
    zero_point: float,
    pixel_scale: float,
) -> Seconds:
    """Return the standard deviation of read-out and sky noise in one pixel of a stack of exposures.

    Parameters
    ----------
    read_noise
        e- per read-out.
    exposure_time
        Seconds of one exposure; a number, an array or a tensor of any shape.
    exposures
        Number of exposures that are stacked.
    sky_brightness
        AB mag/arcsec².
    zero_point
        AB magnitude of 1 e-/s.
    pixel_scale
        arcsec.

    Returns
    -------
    Standard deviation in e-/s, of the shape of ``exposure_time``.
    """
    total = exposure_time * exposures
    sky = 10 ** ((zero_point - sky_brightness) / 2.5) * pixel_scale**2 * total
    variance: Seconds = exposures * read_noise**2 + sky
    return variance**0.5 / total


def gaussian_noise(image: Tensor, sigma: Tensor | float, generator: np.random.Generator) -> Tensor:
    """Draw Gaussian noise of mean zero.

    Parameters
    ----------
    image
        Gives shape, dtype and device.
    sigma
        Standard deviation, broadcast to ``image``, in its unit.
    generator
        Gives the same numbers whatever the device of ``image``. They are drawn on the host.

    Returns
    -------
    Noise of the shape of ``image``.
    """
    dtype = np.float32 if image.dtype == torch.float32 else np.float64
    normal = torch.from_numpy(generator.standard_normal(image.shape, dtype=dtype))
    return sigma * normal.to(image)


def correlate_noise(noise: Tensor, fwhm: float) -> Tensor:
    """Return noise with correlations between neighbours, as drizzling makes them, and with its variance kept.

    Parameters
    ----------
    noise
        Independent noise of mean zero, (N, H, W).
    fwhm
        Full width at half maximum in pixels of the Gaussian that spreads it.

    Returns
    -------
    Noise (N, H, W). Two pixels that lie r apart correlate as the Gaussian does with itself: exp(-r² / 4 s²) for its
    standard deviation s, where that is well sampled.
    """
    taps = torch.tensor(gaussian_psf_taps(fwhm, 4), dtype=noise.dtype, device=noise.device)
    for axis in (-1, -2):
        noise = _spread(noise, taps, axis) / _spread(torch.ones_like(noise[:1]), taps.square(), axis).sqrt()
    return noise


def band_limit_noise(noise: Tensor, cutoff: float) -> Tensor:
    """Return noise without its highest frequencies, as resampling leaves it, and with its variance kept.

    Its power falls as a logistic function of the frequency, a tenth of the cutoff wide. Stacks of Pan-STARRS have such
    noise, with half of the power at 0.5 cycles a pixel: neighbours correlate by 0.16, and those on diagonals by -0.08.

    Parameters
    ----------
    noise
        Independent noise of mean zero, (N, H, W).
    cutoff
        Frequency at which half of the power is left, cycles a pixel.

    Returns
    -------
    Noise (N, H, W).
    """
    kernel = _band_limit_kernel(cutoff).to(noise)
    spread = convolve(torch.ones_like(noise[:1]), kernel.square())
    return convolve(noise, kernel) / spread.sqrt()


@lru_cache(maxsize=32)
def _band_limit_kernel(cutoff: float) -> Tensor:
    """The kernel (2 r + 1, 2 r + 1) that takes the frequencies above a cutoff out of noise."""
    radius = math.ceil(4 / cutoff)
    size = 4 * radius
    frequency = torch.fft.fftfreq(size, dtype=torch.float64)
    power = torch.sigmoid((cutoff - torch.hypot(frequency[:, None], frequency)) / (0.1 * cutoff))
    kernel = torch.fft.fftshift(torch.fft.ifft2(power.sqrt()).real)
    middle = size // 2
    return kernel[middle - radius : middle + radius + 1, middle - radius : middle + radius + 1]


def correlated_variance(variance: Tensor, fwhm: float) -> Tensor:
    """Return the variance in each pixel after `correlate_noise`.

    Parameters
    ----------
    variance
        Of the independent noise, (N, H, W).
    fwhm
        As in `correlate_noise`.

    Returns
    -------
    Variance (N, H, W), in the unit of ``variance``.
    """
    squares = torch.tensor(gaussian_psf_taps(fwhm, 4), dtype=variance.dtype, device=variance.device).square()
    for axis in (-1, -2):
        variance = _spread(variance, squares, axis) / _spread(torch.ones_like(variance[:1]), squares, axis)
    return variance


def _spread(image: Tensor, taps: Tensor, axis: int) -> Tensor:
    """Convolve along one axis; there is nothing beyond the edge."""
    radius, turned = len(taps) // 2, image.transpose(axis, -1)
    padded = pad(turned, (radius, radius))
    return (padded.unfold(-1, len(taps), 1) @ taps).transpose(axis, -1)


def poisson(mean: Tensor, generator: np.random.Generator) -> Tensor:
    """Draw photon noise: Poisson numbers, in the dtype of their means; negative means count as 0.

    Parameters
    ----------
    mean
        Means of any shape, finite.
    generator
        Gives the same numbers whatever the device of ``mean``. They are drawn on the host.

    Returns
    -------
    Poisson numbers of the shape of ``mean``.

    Raises
    ------
    ValueError
        If a mean is infinite or not a number.
    """
    from darklens.physics.poisson_tables import poisson_numbers

    numbers = poisson_numbers(mean.detach().cpu().reshape(-1).numpy(), int(generator.integers(2**62)))
    return torch.from_numpy(numbers).reshape(mean.shape).to(mean.device)
