"""Noise of many images at once on any device: random numbers from counters, by tensor operations alone.

The numbers of an image follow from its own seed and from the place of the pixel. They do not depend on the other images of
the batch, and nothing is copied to the host. A number is the output of SplitMix64 (Steele, Lea & Flood 2014) at
``seed + counter * increment``. On a CPU, `darklens.physics.noise` is faster.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from darklens.physics.poisson_tables import LARGE, STEPS, tables

DRAWS = 3
"""Random numbers for each pixel: two for a Poisson number, one for a Gaussian one."""
REST_TERMS = 8
"""Terms of the cumulative probability of a mean below 1 / STEPS; what is left out is below 1e-12."""

# SplitMix64's increment and multipliers, as signed numbers, which wrap around at 64 bits.
_INCREMENT = 0x9E3779B97F4A7C15 - 2**64
_MULTIPLIERS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)


def split_mix(seeds: Tensor, counter: Tensor) -> Tensor:
    """Return the outputs of SplitMix64 number ``counter`` (from 0) for ``seeds``, 64 random bits each as an int64."""
    z = seeds + (counter + 1) * _INCREMENT
    z = (z ^ _shifted(z, 30)) * _MULTIPLIERS[0]
    z = (z ^ _shifted(z, 27)) * _MULTIPLIERS[1]
    return z ^ _shifted(z, 31)


def batched_gaussian_noise(images: Tensor, sigma: Tensor, seeds: Tensor) -> Tensor:
    """Draw Gaussian noise of mean zero for many images.

    Parameters
    ----------
    images
        (N, H, W); gives shape, dtype and device.
    sigma
        Standard deviation, broadcast to ``images``, in their unit.
    seeds
        A seed for each image, int64, (N,).

    Returns
    -------
    Noise (N, H, W).
    """
    return sigma * torch.special.ndtri(_uniform(_bits(images, seeds, 2))).to(images.dtype)


def batched_poisson(mean: Tensor, seeds: Tensor) -> Tensor:
    """Draw photon noise for many images: Poisson numbers; a mean below zero counts as 0.

    Means below 80 use the tables of `darklens.physics.poisson_tables`. For larger ones the cumulative probability is
    inverted by its asymptotic series (Giles 2016, ACM TOMS 42, algorithm 955). Its error moves a number by one in 2e-5 of
    the cases for a mean of 80, and in fewer for larger means.

    Parameters
    ----------
    mean
        Means (N, H, W).
    seeds
        A seed for each image, int64, (N,).

    Returns
    -------
    Poisson numbers (N, H, W), in the dtype of ``mean``; nan where a mean is infinite or not a number.
    """
    rate = mean.double()
    rate = torch.where((rate > 0) & rate.isfinite(), rate, 0.0)
    first, u = _bits(mean, seeds, 0), _uniform(_bits(mean, seeds, 1))
    number = torch.where(rate < LARGE, _below(rate, first, u), _above(rate.clamp_min(LARGE), u))
    return torch.where(mean.isfinite(), number.to(mean.dtype), torch.nan)


def _below(rate: Tensor, bits: Tensor, u: Tensor) -> Tensor:
    """Return a number of the table of a multiple of 1 / STEPS, plus one of the rest by inversion."""
    thresholds, aliases, lowest = _tables_on(rate.device)
    row = (rate * STEPS).clamp_max(LARGE * STEPS - 1).long()
    column = _shifted(bits, 57)
    keep = (_shifted(bits, 20) & 0xFFFFFFFF) <= thresholds[row, column]
    number = (lowest[row] + torch.where(keep, column, aliases[row, column])).double()
    rest = rate - row / STEPS
    term = torch.exp(-rest)
    cumulative = term
    for k in range(1, REST_TERMS + 1):
        number = number + (u > cumulative)
        term = term * rest / k
        cumulative = cumulative + term
    return number


def _above(rate: Tensor, u: Tensor) -> Tensor:
    w, root = torch.special.ndtri(u), torch.sqrt(rate)
    w2 = w.square()
    quantile = rate + root * w + (2 + w2) / 6 - (2 * w + w * w2) / (72 * root)
    return torch.floor(quantile + (-16 + 7 * w2 + 3 * w2.square()) / (810 * rate)).clamp_min(0)


def _bits(images: Tensor, seeds: Tensor, draw: int) -> Tensor:
    pixels = math.prod(images.shape[1:])
    counter = torch.arange(pixels, device=images.device) * DRAWS + draw
    return split_mix(seeds[:, None], counter).reshape(images.shape)


def _uniform(bits: Tensor) -> Tensor:
    """Return numbers between 0 and 1, both excluded, from 64 random bits."""
    return (_shifted(bits, 11).double() + 0.5) * 2.0**-53


def _shifted(z: Tensor, by: int) -> Tensor:
    """Shift to the right and fill with zeros, which ``>>`` of a signed number does not."""
    return (z >> by) & (2 ** (64 - by) - 1)


@lru_cache
def _tables_on(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    thresholds, aliases, lowest = (torch.from_numpy(table.astype("int64")).to(device) for table in tables())
    return thresholds, aliases, lowest
