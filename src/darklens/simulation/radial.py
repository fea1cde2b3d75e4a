"""Compute the deflection of many round deflectors from tables of it along their radius, compiled by Numba.

A table costs a deflector a few hundred evaluations of its profile, and each of thousands of places a cubic polynomial in
place of logarithms and arcs. A segment is all that has the leading bits of the squared radius in common, as a number in
single precision, so that those bits tell which segment it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from darklens.simulation.loops import SUMS
from darklens.simulation.profiles import Substructure

DIVISIONS = 3
"""Each octave of the squared radius is cut in two to this power, 8 segments. For the subhalos of fair-hst the error is then
below 3e-7 arcsec (``tests/simulation/test_radial.py``); with 2 it is 5e-6."""
SMALLEST = 2.0**-26
"""Squared radius, arcsec², below which the deflection goes as the radius: 1.2e-4 arcsec, a thousandth of a pixel."""
SHIFT = 23 - DIVISIONS
"""Bits of a number in single precision within a segment."""
FIRST = int(np.float32(SMALLEST).view(np.int32)) >> SHIFT
"""Leading bits of `SMALLEST`."""

Each = Callable[[Substructure, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Deflection of each of M deflectors at positions (M or 1, 1, w) and (M or 1, h, 1)."""


class RadialTables:
    """Tables of the deflection of M round deflectors.

    Parameters
    ----------
    added
        Flat: M deflectors on a CPU, each round about its ``x0, y0``.
    each
        Computes the deflection where it is tabulated.
    farthest
        Largest distance from a deflector at which the deflection is asked for, arcsec.
    """

    def __init__(self, added: Substructure, each: Each, farthest: float):
        like = added.weights
        octaves = int(np.ceil(2 * np.log2(farthest))) - int(np.log2(SMALLEST)) + 1
        segments = max(1, octaves) << DIVISIONS
        centre = torch.zeros_like(like)
        radius = _radii(segments).to(like)
        about = Substructure(added.deflection, added.parameters | {"x0": centre, "y0": centre}, added.weights)
        along, _ = each(about, radius[None, None, :], radius.new_zeros(1, 1, 1))
        self._x0, self._y0 = (added.parameters[name].numpy() for name in ("x0", "y0"))
        self._cubics = np.empty((len(like), segments, 4), radius.numpy().dtype)
        _fit((along[:, 0] / radius).numpy(), _through_four().astype(self._cubics.dtype), self._cubics)

    def deflection(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the deflection of each deflector, in x and y, (M, h, w), at x (M or 1, w) and y (M or 1, h), arcsec."""
        found = x.new_empty(2, len(self._cubics), y.shape[1], x.shape[1])
        _look_up(self._cubics, (self._x0, self._y0), x.numpy(), y.numpy(), found.numpy())
        return found[0], found[1]


@lru_cache
def _radii(segments: int) -> Tensor:
    """Radii between segments, arcsec, from the one before the first to the second one after the last, float64."""
    bits = (FIRST + np.arange(-1, segments + 2, dtype=np.int32)) << SHIFT
    return torch.from_numpy(np.sqrt(bits.astype(np.int32).view(np.float32).astype(np.float64)))


@lru_cache
def _through_four() -> np.ndarray:
    """Coefficients of cubic polynomials through four radii, the second one at 0 and the third one at 1.

    For each segment of an octave, (8, 4 radii, 4 powers): before an octave segments are half as long, after it twice.
    """
    at = np.tile(np.array([-1.0, 0.0, 1.0, 2.0]), (1 << DIVISIONS, 1))
    at[0, 0], at[-1, 3] = -0.5, 3.0
    return np.stack([np.linalg.inv(np.vander(each, 4, increasing=True)).T for each in at])


@numba.njit(nogil=True, cache=True)
def add_whole(total: Any, owners: Any, fields: Any) -> None:
    """Add the field of each deflector to that of its image.

    Parameters
    ----------
    total
        Changed: the sum over deflectors, (N, h, w).
    owners
        Image of each deflector, (M,).
    fields
        Of each, (M, h, w).
    """
    for m in range(len(owners)):
        out, own = total[owners[m]].ravel(), fields[m].ravel()
        for i in range(len(own)):
            out[i] += own[i]


@numba.njit(nogil=True, cache=True, fastmath=SUMS)
def _fit(values: Any, through: Any, cubics: Any) -> None:
    """Write the coefficients of all segments, (M, S, 4), from values (M, S + 3)."""
    deflectors, segments, _ = cubics.shape
    for m in range(deflectors):
        v = values[m]
        for s in range(segments):
            own = through[s % len(through)]
            for power in range(4):
                cubics[m, s, power] = (
                    own[0, power] * v[s]
                    + own[1, power] * v[s + 1]
                    + own[2, power] * v[s + 2]
                    + own[3, power] * v[s + 3]
                )


@numba.njit(nogil=True, cache=True, fastmath=SUMS)
def _look_up(cubics: Any, centres: Any, x: Any, y: Any, out: Any) -> None:
    """Write the deflection (2, M, h, w) at x (M or 1, w) and y (M or 1, h)."""
    x0, y0 = centres
    _, deflectors, height, width = out.shape
    squares = np.empty(width, np.float32)
    bits = squares.view(np.int32)
    smallest, unit, below = np.float32(SMALLEST), np.float32(2.0**-SHIFT), np.int32((1 << SHIFT) - 1)
    last = cubics.shape[1] - 1
    for m in range(deflectors):
        table = cubics[m]
        xs, ys = x[m if len(x) > 1 else 0], y[m if len(y) > 1 else 0]
        for a in range(height):
            dy = ys[a] - y0[m]
            for b in range(width):
                dx = xs[b] - x0[m]
                squares[b] = max(dx * dx + dy * dy, smallest)
            for b in range(width):
                segment = min((bits[b] >> SHIFT) - FIRST, last)
                t = np.float32(bits[b] & below) * unit
                c = table[segment]
                scale = c[0] + t * (c[1] + t * (c[2] + t * c[3]))
                out[0, m, a, b] = scale * (xs[b] - x0[m])
                out[1, m, a, b] = scale * dy
