"""Spread the light of images by point-spread functions of a formula, on a CPU: an image at a time, to whole pixels.

The spectrum of an image is computed up to the frequency that a point-spread function lets through. Sums over the parts of
pixels are folds of the spectrum, so that the transform back is that of whole pixels.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

FAINTEST = 1e-7
"""Value of a point-spread function's Fourier transform below which it counts as 0: float32 holds no more of a sum."""

FREQUENCIES = 8192
"""Places at which a Fourier transform is tabulated. Between two of them it is linear to 1e-7."""

SEARCHED = 20.0
"""Frequency up to which that of `FAINTEST` is looked for, over the inverse of the full width."""


class Profile(NamedTuple):
    """Fourier transform of a point-spread function of full width at half maximum 1.

    ``table`` (`FREQUENCIES` + 2,) float32 at equal steps of the frequency from 0 to ``reach``, where it is `FAINTEST`, and
    two zeros.
    """

    table: Any
    reach: float


@lru_cache(maxsize=32)
def profile(beta: float | None) -> Profile:
    """Return the Fourier transform of a Moffat function of an exponent, or of a Gaussian.

    Source: Trujillo et al. (2001, MNRAS 328, 977), with the modified Bessel function of the second kind.
    """
    search = np.linspace(0, SEARCHED, 100_001)
    reach = float(search[np.argmax(np.append(_transform(beta, search), 0) < FAINTEST) - 1])
    table = np.zeros(FREQUENCIES + 2, np.float32)
    table[:FREQUENCIES] = _transform(beta, np.linspace(0, reach, FREQUENCIES))
    return Profile(table, reach)


def _transform(beta: float | None, frequency: np.ndarray) -> Any:
    if beta is None:
        return np.exp(-(math.pi**2) / (4 * math.log(2)) * frequency**2)
    from scipy.special import gamma, kv

    width = 1 / (2 * math.sqrt(2 ** (1 / beta) - 1))
    u = 2 * math.pi * width * frequency
    found = np.ones_like(u)
    found[1:] = 2 / gamma(beta - 1) * (u[1:] / 2) ** (beta - 1) * kv(beta - 1, u[1:])
    return found


class Seeing(NamedTuple):
    """Point-spread functions of N images: full width at half maximum in parts of a pixel, two components of ellipticity."""

    fwhm: Any
    e1: Any
    e2: Any


class Places(NamedTuple):
    """Points: number of the image (M,), flux (M,) and places in parts of a pixel from the first, (2, M)."""

    image: Any
    flux: Any
    at: Any


def spread(image: Tensor, seeing: Seeing, beta: float | None, *, points: Places, factor: int, size: int) -> Tensor:
    """Return images as a detector sees them through their point-spread functions.

    Parameters
    ----------
    image
        Flux in the parts of pixels, (N, n, n), float32. Light in a part is spread over it evenly.
    seeing
        The point-spread functions.
    beta
        Exponent of a Moffat function; without it, a Gaussian.
    points
        What is not extended.
    factor
        Parts of a pixel along either side.
    size
        Side of the transforms in parts of a pixel, even and a multiple of ``factor``: with what is beyond the image dark,
        they are periodic.

    Returns
    -------
    Tensor
        Flux in pixels, (N, n / factor, n / factor), float32; nan where a full width is not above 0, or an ellipticity not
        below 1. Each image is what it is without those beside it.
    """
    pixels, whole = image.shape[-1] // factor, size // factor
    own, e = profile(beta), np.hypot(seeing.e1, seeing.e2)
    out = np.empty((len(image), pixels, pixels), np.float32)
    possible = (seeing.fwhm > 0) & (e < 1)
    scale = np.where(possible, seeing.fwhm, 1) / np.sqrt(1 - np.where(possible, e, 0) ** 2)
    # Where the function is widest, its transform is narrowest, and the other way round.
    highest = np.minimum(size // 2, own.reach * size / (scale * (1 - np.where(possible, e, 0))) + 1).astype(int)
    step = scale * (FREQUENCIES - 1) / own.reach / size
    matrices = np.stack([step * (1 + seeing.e1), step * seeing.e2, step * (1 - seeing.e1)], axis=1).astype(np.float32)
    weights = _weights(size, factor)
    for i, one in enumerate(image):
        if not possible[i]:
            out[i] = np.nan
            continue
        # A row for each frequency across, so that frequencies down are one after the other in memory.
        across = torch.fft.rfft(one, n=size)[:, : highest[i] + 1].T.contiguous()
        spectrum = torch.fft.fft(across, n=size).numpy()
        if (mine := np.flatnonzero(points.image == i)).size:
            spectrum = spectrum + _waves(points, mine, size, highest[i])
        folded = np.zeros((whole // 2 + 1, whole), np.complex64)
        _fold(spectrum, own.table, matrices[i], weights, folded)
        found = torch.fft.irfft2(torch.from_numpy(folded), s=(whole, whole), dim=(1, 0))
        out[i] = found[:pixels, :pixels].numpy().T
    return torch.from_numpy(out)


def size_of(least: int, factor: int) -> int:
    """Return the next side of a transform that is even, and ``factor`` times a number without prime factors above 5."""
    while True:
        rest = least // factor
        for prime in (2, 3, 5):
            while rest > 1 and rest % prime == 0:
                rest //= prime
        if rest == 1 and least % 2 == 0 and least % factor == 0:
            return least
        least += 1


@lru_cache(maxsize=32)
def _weights(size: int, factor: int) -> Any:
    """What parts of pixels do to a spectrum at the frequencies of a transform: (size,) complex64.

    Light is spread over a part, the parts of a pixel are summed, and one of ``factor`` sums is kept.
    """
    frequency = np.fft.fftfreq(size)
    summed = np.exp(2j * math.pi * frequency[:, None] * np.arange(factor)).mean(1)
    return (np.sinc(frequency) * summed).astype(np.complex64)


def _waves(points: Places, mine: np.ndarray, size: int, highest: int) -> Any:
    """Spectrum of some of the points, (highest + 1, size)."""
    waves = np.exp(-2j * math.pi * points.at[:, mine, None] * np.fft.fftfreq(size))
    waves[:, :, size // 2] = waves[:, :, size // 2].real  # half of a frequency and half of its negative
    x, y = waves
    return (x[:, : highest + 1].T @ (y * points.flux[mine][:, None])).astype(np.complex64)


@numba.njit(nogil=True, cache=True, fastmath={"contract"}, error_model="numpy")
def _fold(spectrum: Any, table: Any, matrix: Any, weights: Any, out: Any) -> None:
    """Add a spectrum (K, M), seen through a point-spread function, to that of the sums of parts, (m // 2 + 1, m).

    ``matrix`` makes of a frequency its place in the table; by symmetry, three numbers. Rows are frequencies across, from 0
    on; those that are negative have the complex conjugates.
    """
    rows, size = spectrum.shape
    whole, half = out.shape[1], size // 2
    transfer, value = np.empty(size, np.float32), np.empty(size, np.complex64)
    for k in range(rows):
        _transfer(np.float32(k), table, matrix, transfer)
        of_row = weights[k]
        for j in range(size):
            value[j] = spectrum[k, j] * (of_row * weights[j]) * transfer[j]
        at = k % whole
        if at < len(out):
            for part in range(size // whole):
                for j in range(whole):
                    out[at, j] += value[part * whole + j]
        opposite = (whole - at) % whole
        # Those of the first and the last row are rows of their own.
        if 0 < k < half and opposite < len(out):
            for j in range(size):
                out[opposite, (size - j) % whole] += np.conj(value[j])


@numba.njit(nogil=True, cache=True, fastmath={"contract"}, error_model="numpy")
def _transfer(x: Any, table: Any, matrix: Any, out: Any) -> None:
    """Write the transform at a frequency across and all of those down, (M,)."""
    xx, xy, yy = matrix[0], matrix[1], matrix[2]
    size, end = len(out), np.float32(len(table) - 2)
    half = size // 2
    for j in range(size):
        y = np.float32(j if j < half else j - size)
        u, v = xx * x + xy * y, xy * x + yy * y
        out[j] = min(np.sqrt(u * u + v * v), end)
    y = np.float32(half)
    u, v = xx * x + xy * y, xy * x + yy * y
    other = min(np.sqrt(u * u + v * v), end)
    for j in range(size):
        low = np.int32(out[j])
        out[j] = table[low] + (out[j] - np.float32(low)) * (table[low + 1] - table[low])
    # At half of the size, a frequency and its negative are one: half of each.
    low = np.int32(other)
    seen = table[low] + (other - np.float32(low)) * (table[low + 1] - table[low])
    out[half] = np.float32(0.5) * (out[half] + seen)
