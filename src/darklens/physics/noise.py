"""Noise of an instrument: its level, and random numbers from the generator that is passed in."""

from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

Seconds = TypeVar("Seconds", float, NDArray[np.float64])


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
        Seconds of one exposure; a number or an array of any shape.
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
    return np.sqrt(exposures * read_noise**2 + sky) / total


def gaussian_noise(image: Tensor, sigma: Tensor | float, generator: Generator) -> Tensor:
    """Draw Gaussian noise of mean zero.

    Parameters
    ----------
    image
        Gives shape, dtype and device.
    sigma
        Standard deviation, broadcast to ``image``, in its unit.
    generator
        Of the device of ``image``.

    Returns
    -------
    Noise of the shape of ``image``.
    """
    return sigma * torch.randn(image.shape, dtype=image.dtype, device=image.device, generator=generator)


def poisson(mean: Tensor, generator: Generator) -> Tensor:
    """Draw photon noise: Poisson numbers, in the dtype of their means; negative means count as 0.

    Parameters
    ----------
    mean
        Means of any shape, finite.
    generator
        Of the device of ``mean``. One state gives other numbers on a CPU than on a GPU.

    Returns
    -------
    Poisson numbers of the shape of ``mean``.

    Raises
    ------
    ValueError
        If a mean on a CPU is infinite or not a number. On another device, where a check would wait, the number is nan.
    """
    if mean.device.type != "cpu":
        numbers = torch.poisson(mean.nan_to_num(0, 0, 0).clamp_min(0), generator=generator)
        return torch.where(mean.isfinite(), numbers, torch.nan)
    from darklens.physics.poisson_tables import poisson_numbers

    seed = int(torch.randint(2**62, (1,), generator=generator))
    return torch.from_numpy(poisson_numbers(mean.detach().reshape(-1).numpy(), seed)).reshape(mean.shape)
