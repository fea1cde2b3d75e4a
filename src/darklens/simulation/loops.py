"""Loops over sub-pixels and deflectors that PyTorch's operations take several times longer for, compiled by Numba.

They compute what `darklens.simulation.quadrature` and `darklens.simulation.multilevel` compute on any device and with
derivatives, on a CPU and without. All arrays are contiguous and of one floating type.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

REACH = 3
"""Sub-pixels on each side that polynomials go through, and that light is shared with."""
TAPS = 2 * REACH + 1
SUMS = {"reassoc", "contract"}
"""What the compiler may change: the order of sums, and a product and a sum in one. What is not finite stays so."""
LANES = 8
"""Numbers that a processor works on at once: loops over so many are the fastest."""


@numba.njit(nogil=True, cache=True, fastmath=SUMS)
def roughness(padded: Any, out: Any) -> None:
    """Write the moduli of the fourth differences along both axes, summed.

    Parameters
    ----------
    padded
        A field with a border of `REACH`, (N, n + 2 REACH, n + 2 REACH).
    out
        Written: (N, n, n).
    """
    images, n, _ = out.shape
    for i in range(images):
        for a in range(n):
            for b in range(n):
                y, x = a + REACH, b + REACH
                p = padded[i]
                middle = 6 * p[y, x]
                along = p[y, x - 2] + p[y, x + 2] - 4 * (p[y, x - 1] + p[y, x + 1]) + middle
                down = p[y - 2, x] + p[y + 2, x] - 4 * (p[y - 1, x] + p[y + 1, x]) + middle
                out[i, a, b] = abs(along) + abs(down)


@numba.njit(nogil=True, cache=True, fastmath=SUMS)
def convolve(padded: Any, taps: Any, out: Any) -> None:
    """Write a field convolved with seven weights along each axis.

    Parameters
    ----------
    padded, out
        As of `roughness`.
    taps
        The weights, (7,).
    """
    images, n, _ = out.shape
    rows = np.empty((n + 2 * REACH, n), out.dtype)
    for i in range(images):
        for a in range(n + 2 * REACH):
            _seven_along(padded[i, a], taps, rows[a])
        for a in range(n):
            _seven_rows(rows[a : a + TAPS], taps, out[i, a])


@numba.njit(nogil=True, cache=True)
def positions(parts: Any, offsets: Any, corner: float, width: float, out: Any) -> None:
    """Write the positions of the places in some sub-pixels.

    Parameters
    ----------
    parts
        Numbers of the sub-pixels, row by row, (N, K); how many there are along each side of an image, n; and the numbers of
        their parts along either axis, each (N, K).
    offsets
        Places in each part, in sub-pixels from the centre of the whole, (parts, Q).
    corner, width
        Coordinate of the first sub-pixel's centre along either axis, and the width of a sub-pixel, arcsec.
    out
        Written: x and y, arcsec, (2, N, K, Q, Q).
    """
    cells, n, column, row = parts
    images, count = cells.shape
    nodes = offsets.shape[1]
    for i in range(images):
        for k in range(count):
            x0, y0 = cells[i, k] % n, cells[i, k] // n
            for a in range(nodes):
                at_y = corner + width * (y0 + offsets[row[i, k], a])
                for b in range(nodes):
                    out[0, i, k, a, b] = corner + width * (x0 + offsets[column[i, k], b])
                    out[1, i, k, a, b] = at_y


@numba.njit(nogil=True, cache=True, fastmath=SUMS)
def interpolate(parts: Any, polynomials: Any, field: Any, out: Any) -> None:
    """Write a field at places, by polynomials through sub-pixels.

    Parameters
    ----------
    parts
        As of `positions`.
    polynomials
        Those through seven neighbours, at the places in each part, as `in_lanes` returns them, (parts, 7, LANES).
    field
        Its values with a border, (N, (n + 2 REACH)²).
    out
        Written: the field, (N, K, Q, Q).
    """
    cells, n, column, row = parts
    images, count, nodes, _ = out.shape
    wide = n + 2 * REACH
    along, sums = np.empty((TAPS, LANES), field.dtype), np.empty(LANES, field.dtype)
    for i in range(images):
        for k in range(count):
            across, down = polynomials[column[i, k]], polynomials[row[i, k]]
            start = cells[i, k] // n * wide + cells[i, k] % n
            for a in range(TAPS):
                _seven(across, field[i, start : start + TAPS], along[a])
                start += wide
            for a in range(nodes):
                _seven(along, down[:, a], sums)
                for b in range(nodes):
                    out[i, k, a, b] = sums[b]


@numba.njit(nogil=True, inline="always", fastmath=SUMS)
def _seven(rows: Any, weights: Any, out: Any) -> None:
    """Write the weighted sum of seven rows of `LANES` numbers."""
    w0, w1, w2, w3, w4, w5, w6 = weights[0], weights[1], weights[2], weights[3], weights[4], weights[5], weights[6]
    for b in range(LANES):
        out[b] = (
            w0 * rows[0, b]
            + w1 * rows[1, b]
            + w2 * rows[2, b]
            + w3 * rows[3, b]
            + w4 * rows[4, b]
            + w5 * rows[5, b]
            + w6 * rows[6, b]
        )


@numba.njit(nogil=True, inline="always", fastmath=SUMS)
def _three_by_three(rows: Any, weights: Any, out: Any) -> None:
    """Write the weighted sum of three or six rows of `LANES` numbers."""
    w0, w1, w2 = weights[0], weights[1], weights[2]
    for b in range(LANES):
        out[b] = w0 * rows[0, b] + w1 * rows[1, b] + w2 * rows[2, b]
    if len(weights) == 6:
        w0, w1, w2 = weights[3], weights[4], weights[5]
        for b in range(LANES):
            out[b] += w0 * rows[3, b] + w1 * rows[4, b] + w2 * rows[5, b]


@numba.njit(nogil=True, cache=True, fastmath=SUMS)
def deposit(parts: Any, shares: Any, light: Any, sign: int, total: Any) -> None:
    """Add light at places to sub-pixels, each of which has its share.

    Parameters
    ----------
    parts
        As of `positions`.
    shares
        Of the neighbours in each place's light, or of its own sub-pixel alone, as `in_lanes` returns them,
        (parts, Q, LANES).
    light
        At the places, (N, K, Q, Q).
    sign
        1 adds, -1 takes away.
    total
        Changed: sub-pixels, with a border of `REACH` if neighbours have shares, (N, ·).
    """
    cells, n, column, row = parts
    images, count, nodes, _ = light.shape
    taps = 1 if total.shape[1] == n * n else TAPS
    wide = n + taps - 1
    along, sums = np.empty((nodes, LANES), light.dtype), np.empty(LANES, light.dtype)
    for i in range(images):
        for k in range(count):
            across, down = shares[column[i, k]], shares[row[i, k]]
            for a in range(nodes):
                _three_by_three(across, light[i, k, a], along[a])
            start = cells[i, k] // n * wide + cells[i, k] % n
            for a in range(taps):
                _three_by_three(along, down[:, a], sums)
                for b in range(taps):
                    total[i, start + b] += sign * sums[b]
                start += wide


@numba.njit(nogil=True, cache=True, fastmath=SUMS)
def add_lacking(total: Any, owners: Any, starts: Any, exact: Any, rough: Any, halves: Any) -> None:
    """Add to a grid what deflectors have there and polynomials through a coarser grid have not.

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
    along, before, after = np.empty(half + 6, exact.dtype), np.empty(half, exact.dtype), np.empty(half, exact.dtype)
    for m in range(len(owners)):
        image, left = total[owners[m]], column[m]
        for a in range(2 * half):
            start = second[m] + a // 2
            _seven_rows(rough[m, start : start + TAPS, first[m] : first[m] + half + 6], halves[a % 2], along)
            _seven_along(along, halves[0], before)
            _seven_along(along, halves[1], after)
            there, out = exact[m, a], image[row[m] + a]
            for b in range(half):
                out[left + 2 * b] += there[2 * b] - before[b]
                out[left + 2 * b + 1] += there[2 * b + 1] - after[b]


@numba.njit(nogil=True, inline="always", fastmath=SUMS)
def _seven_rows(rows: Any, w: Any, out: Any) -> None:
    for b in range(len(out)):
        out[b] = (
            w[0] * rows[0, b]
            + w[1] * rows[1, b]
            + w[2] * rows[2, b]
            + w[3] * rows[3, b]
            + w[4] * rows[4, b]
            + w[5] * rows[5, b]
            + w[6] * rows[6, b]
        )


@numba.njit(nogil=True, inline="always", fastmath=SUMS)
def _seven_along(values: Any, w: Any, out: Any) -> None:
    for b in range(len(out)):
        out[b] = (
            w[0] * values[b]
            + w[1] * values[b + 1]
            + w[2] * values[b + 2]
            + w[3] * values[b + 3]
            + w[4] * values[b + 4]
            + w[5] * values[b + 5]
            + w[6] * values[b + 6]
        )


def in_lanes(matrices: Any) -> Any:
    """Return matrices (parts, P, Q) transposed, each row filled up with zeros to `LANES` numbers, (parts, Q, LANES)."""
    parts, rows, columns = matrices.shape
    filled = np.zeros((parts, columns, LANES), matrices.dtype)
    filled[..., :rows] = matrices.swapaxes(1, 2)
    return filled
