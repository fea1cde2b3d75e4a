"""Draw Poisson numbers on a CPU, several times faster than PyTorch: photon noise is most of the work of a simulation.

A mean below 80 is split into a multiple of 1/8, whose numbers come from an alias table (Walker 1977; Vose 1991), and a rest
below 1/8, which nearly always gives zero; the sum of two Poisson numbers is one of the summed mean. Larger means go through
Hörmann's (1993) transformed rejection with squeeze, algorithm PTRS. Both are exact to the 2⁻³² of the tables. The stream is
SplitMix64 (Steele, Lea & Flood 2014).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

STEPS = 8
"""Alias tables per unit of the mean. More leave less to the slower second draw, and take more of the cache."""
LARGE = 80
"""Mean from which numbers come from rejection. Up to it, a table of `WIDTH` numbers leaves out less than 1e-10."""
WIDTH_BITS = 7
WIDTH = 1 << WIDTH_BITS
"""Numbers that a table holds, from 6.5 standard deviations and 3 below its mean. A byte must hold the largest."""

# Constants of SplitMix64: changing one changes every image with noise.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFT = (np.uint64(30), np.uint64(27), np.uint64(31))
_COLUMN, _LOW, _MASK = np.uint64(64 - WIDTH_BITS), np.uint64(20), np.uint64(0xFFFFFFFF)
_TOP, _UNIT = np.uint64(11), 1.0 / 2.0**53


def poisson_numbers(mean: NDArray[Any], seed: int) -> NDArray[Any]:
    """Draw a Poisson number for each of an array of means (N,), in its dtype; a mean that is not above zero gives zero.

    Parameters
    ----------
    mean
        Means (N,), finite.
    seed
        Of the random numbers.

    Returns
    -------
    Poisson numbers (N,).

    Raises
    ------
    ValueError
        If a mean is infinite or not a number.
    """
    return poisson_rows(mean[None], np.array([seed], np.uint64))[0]


def poisson_rows(mean: NDArray[Any], seeds: NDArray[np.uint64]) -> NDArray[Any]:
    """Draw for each row of means what `poisson_numbers` draws, with a seed of its own.

    Parameters
    ----------
    mean
        Means (N, P), finite.
    seeds
        Of the rows, (N,).

    Returns
    -------
    Poisson numbers (N, P), in the dtype of the means.

    Raises
    ------
    ValueError
        If a mean is infinite or not a number.
    """
    if not np.isfinite(mean).all():
        raise ValueError("Poisson numbers need finite means; some are infinite or not a number")
    out = np.empty_like(mean)
    _fill_rows(mean, out, seeds, *tables())
    return out


@lru_cache
def tables() -> tuple[NDArray[np.uint32], NDArray[np.uint8], NDArray[np.uint8]]:
    """Return thresholds and alternatives of the alias method for each multiple of 1 / STEPS, and its lowest number."""
    count = LARGE * STEPS
    thresholds = np.empty((count, WIDTH), dtype=np.uint32)
    aliases = np.empty((count, WIDTH), dtype=np.uint8)
    lowest = np.empty(count, dtype=np.uint8)
    for i in range(count):
        mean = i / STEPS
        lowest[i] = max(0, int(mean - 6.5 * math.sqrt(mean) - 3))
        numbers = np.arange(WIDTH) + lowest[i]
        log = -mean + numbers * math.log(mean) if mean else np.where(numbers == 0, 0.0, -np.inf)
        p = np.exp(log - np.array([math.lgamma(k + 1) for k in numbers]))
        _alias(p / p.sum() * WIDTH, thresholds[i], aliases[i])
    return thresholds, aliases, lowest


@numba.njit(cache=True)
def _alias(p: Any, thresholds: Any, aliases: Any) -> None:
    """Fill one table from probabilities that sum to the number of columns; ``p`` is used up."""
    small, large = np.empty(p.size, dtype=np.int64), np.empty(p.size, dtype=np.int64)
    smalls = larges = 0
    for k in range(p.size):
        aliases[k] = k
        if p[k] < 1.0:
            small[smalls] = k
            smalls += 1
        else:
            large[larges] = k
            larges += 1
    while smalls and larges:
        smalls -= 1
        low, high = small[smalls], large[larges - 1]
        aliases[low] = high
        p[high] -= 1.0 - p[low]
        if p[high] < 1.0:
            larges -= 1
            small[smalls] = high
            smalls += 1
    for k in range(p.size):
        thresholds[k] = np.uint32(min(max(p[k], 0.0), 1.0) * 4294967295.0)


@numba.njit(nogil=True, cache=True)
def _mix(z: Any) -> Any:
    z = (z ^ (z >> _SHIFT[0])) * _MIX[0]
    z = (z ^ (z >> _SHIFT[1])) * _MIX[1]
    return z ^ (z >> _SHIFT[2])


@numba.njit(nogil=True, cache=True)
def _fill(mean: Any, out: Any, seed: Any, thresholds: Any, aliases: Any, lowest: Any) -> None:
    z = seed
    for i in range(mean.size):
        rate = float(mean[i])
        if not rate > 0.0:
            out[i] = 0.0
        elif rate < LARGE:
            row = int(rate * STEPS)
            rest = rate - row / STEPS
            z += _GOLDEN
            bits = _mix(z)
            column = int(bits >> _COLUMN)
            below = ((bits >> _LOW) & _MASK) <= np.uint64(thresholds[row, column])
            number = float(lowest[row]) + (column if below else aliases[row, column])
            z += _GOLDEN
            u = float(_mix(z) >> _TOP) * _UNIT
            # The rest is zero with a chance of exp(-rest), which is above 1 - rest: that ends nearly all.
            if u > 1.0 - rest:
                number += _small(rest, u)
            out[i] = number
        else:
            out[i], z = _large(rate, z)


@numba.njit(nogil=True, cache=True)
def _fill_rows(mean: Any, out: Any, seeds: Any, thresholds: Any, aliases: Any, lowest: Any) -> None:
    for i in range(len(seeds)):
        _fill(mean[i], out[i], seeds[i], thresholds, aliases, lowest)


@numba.njit(nogil=True, cache=True)
def _small(rate: float, u: float) -> float:
    """The number whose cumulative probability first exceeds ``u``."""
    term, k = math.exp(-rate), 0.0
    while u > term and k < 12.0:
        u -= term
        k += 1.0
        term *= rate / k
    return k


@numba.njit(nogil=True, cache=True)
def _large(rate: float, z: Any) -> Any:
    b = 0.931 + 2.53 * math.sqrt(rate)
    a = -0.059 + 0.02483 * b
    squeeze = 0.9277 - 3.6224 / (b - 2.0)
    while True:
        z += _GOLDEN
        u = (float(_mix(z) >> _TOP) + 0.5) * _UNIT - 0.5
        z += _GOLDEN
        v = (float(_mix(z) >> _TOP) + 0.5) * _UNIT
        distance = 0.5 - abs(u)
        k = math.floor((2.0 * a / distance + b) * u + rate + 0.43)
        if distance >= 0.07 and v <= squeeze:
            return k, z
        if k < 10.0 or (distance < 0.013 and v > distance):
            continue
        inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
        left = math.log(v * inverse_alpha / (a / (distance * distance) + b))
        # The logarithm of the probability of k, by Stirling's series, which is exact to 1e-9 for k above 10.
        log_p = (
            k * math.log(rate / k)
            + k
            - rate
            - 0.5 * math.log(2.0 * math.pi * k)
            - (1.0 - 1.0 / (30.0 * k * k)) / (12.0 * k)
        )
        if left <= log_p:
            return k, z
