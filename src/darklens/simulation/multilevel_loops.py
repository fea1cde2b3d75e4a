"""Loops over grids of deflections, compiled by Numba: `darklens.simulation.multilevel` on a CPU, without derivatives.

All arrays are contiguous and of one floating type.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from darklens.simulation.loops import LANES, SUMS, TAPS, seven_along, seven_rows


@numba.njit(nogil=True, cache=True, fastmath=SUMS)
def add_lacking(total: Any, owners: Any, starts: Any, exact: Any, rough: Any, halves: Any) -> None:
    """Add to a grid what deflectors have there and polynomials through a coarser grid have not.

    A square has at most ``2 * (2 * LANES - 6)`` places along each side.

    Parameters
    ----------
    total
        Changed: the sum over deflectors, (N, n, n).
    owners
        Image of each deflector, (M,).
    starts
        Column and row of the first place of each deflector's square of the grid, and of that of the coarser grid from which
        on the polynomials go, four of (M,).
    exact
        What it has there, (M, s, s).
    rough
        What it has on a grid of twice the spacing, (M, h, w).
    halves
        Polynomials through seven places, a quarter of their spacing before the middle one and after it, (2, 7).
    """
    column, row, first, second = starts
    half = exact.shape[1] // 2
    # Filled up with zeros to two times LANES, as loops over so many are the fastest.
    near, along = np.zeros((half + TAPS - 1, 2 * LANES), exact.dtype), np.zeros(3 * LANES, exact.dtype)
    before, after = np.empty(2 * LANES, exact.dtype), np.empty(2 * LANES, exact.dtype)
    for m in range(len(owners)):
        image, left = total[owners[m]], column[m]
        for a in range(half + TAPS - 1):
            for b in range(half + TAPS - 1):
                near[a, b] = rough[m, second[m] + a, first[m] + b]
        for a in range(2 * half):
            start, w = a // 2, halves[a % 2]
            w0, w1, w2, w3, w4, w5, w6 = w[0], w[1], w[2], w[3], w[4], w[5], w[6]
            for b in range(2 * LANES):
                along[b] = (
                    w0 * near[start, b]
                    + w1 * near[start + 1, b]
                    + w2 * near[start + 2, b]
                    + w3 * near[start + 3, b]
                    + w4 * near[start + 4, b]
                    + w5 * near[start + 5, b]
                    + w6 * near[start + 6, b]
                )
            seven_along(along, halves[0], before)
            seven_along(along, halves[1], after)
            there, out = exact[m, a], image[row[m] + a]
            for b in range(half):
                out[left + 2 * b] += there[2 * b] - before[b]
                out[left + 2 * b + 1] += there[2 * b + 1] - after[b]


@numba.njit(nogil=True, cache=True, fastmath=SUMS)
def refine(fine: Any, coarse: Any, halves: Any) -> None:
    """Add to a grid what polynomials through one of twice the spacing have there.

    Parameters
    ----------
    fine
        Changed: (N, n, n), with n even.
    coarse
        (N, m, m), of which the first place is `REACH` of its spacings less a quarter before that of ``fine``.
    halves
        As of `add_lacking`.
    """
    images, n, _ = fine.shape
    half = n // 2
    along = np.empty(half + TAPS - 1, fine.dtype)
    before, after = np.empty(half, fine.dtype), np.empty(half, fine.dtype)
    for i in range(images):
        for a in range(n):
            start = a // 2
            seven_rows(coarse[i, start : start + TAPS], halves[a % 2], along)
            seven_along(along, halves[0], before)
            seven_along(along, halves[1], after)
            out = fine[i, a]
            for b in range(half):
                out[2 * b] += before[b]
                out[2 * b + 1] += after[b]
