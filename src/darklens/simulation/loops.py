"""Loops over sub-pixels that PyTorch's operations take several times longer for, compiled by Numba.

They compute what `darklens.simulation.quadrature` computes on any device and with derivatives, on a CPU and without. All
arrays are contiguous and of one floating type.
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
            seven_along(padded[i, a], taps, rows[a])
        for a in range(n):
            seven_rows(rows[a : a + TAPS], taps, out[i, a])


@numba.njit(nogil=True, cache=True)
def choose(values: Any, owners: Any, above: Any, most: int, row: int) -> Any:
    """Return what `darklens.simulation.choosing.choose` does, ragged.

    Parameters
    ----------
    values, owners, above, most
        As there: (R, K), (R,), (N,) and a number.
    row
        Numbers in each row of what is returned.

    Returns
    -------
    Numbers among all values (R', row), the image of each row (R',), and which of the numbers were chosen, (R', row).
    """
    flat, length = values.ravel(), values.shape[1]
    counts = np.zeros(len(above), np.int64)
    for r in range(len(owners)):
        threshold, count = above[owners[r]], 0
        for k in range(length):
            count += values[r, k] > threshold
        counts[owners[r]] += count
    rows = 0
    for i in range(len(above)):
        rows += -(-min(counts[i], most) // row)
    # A compiled kernel would be compiled anew for no row and for one.
    fill = max(0, 2 - rows)
    index = np.zeros((rows + fill, row), np.int64)
    images = np.full(rows + fill, owners[0])
    there = np.zeros((rows + fill, row), values.dtype)
    out, r = fill, 0
    for i in range(len(above)):
        start = r * length
        while r < len(owners) and owners[r] == i:
            r += 1
        threshold, count = above[i], min(counts[i], most)
        if count == 0:
            continue
        equal = 0
        if counts[i] > most:
            own = np.empty(counts[i], values.dtype)
            at = 0
            for j in range(start, r * length):
                if flat[j] > threshold:
                    own[at] = flat[j]
                    at += 1
            threshold = np.partition(own, counts[i] - most)[counts[i] - most]
            equal = int(most - np.count_nonzero(own > threshold))
        at, j = 0, start
        while at < count:
            if flat[j] > threshold or (equal > 0 and flat[j] == threshold):
                equal -= flat[j] == threshold
                index[out + at // row, at % row] = j
                there[out + at // row, at % row] = 1
                at += 1
            j += 1
        rest = -count % row
        images[out : out + (count + rest) // row] = i
        out += (count + rest) // row
        index[out - 1, row - rest :] = j - 1
    return index, images, there


@numba.njit(nogil=True, cache=True)
def positions(parts: Any, offsets: Any, corner: float, width: float, out: Any) -> None:
    """Write the positions of the places in some sub-pixels.

    Parameters
    ----------
    parts
        Numbers of the sub-pixels, row by row, (N, K); how many there are along each side of an image, n; the numbers of
        their parts along either axis, each (N, K); and the image that each row is of, (N,).
    offsets
        Places in each part, in sub-pixels from the centre of the whole, (parts, Q).
    corner, width
        Coordinate of the first sub-pixel's centre along either axis, and the width of a sub-pixel, arcsec.
    out
        Written: x and y, arcsec, (2, N, K, Q, Q).
    """
    cells, n, column, row, _ = parts
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
    cells, n, column, row, owners = parts
    images, count, nodes, _ = out.shape
    wide = n + 2 * REACH
    along, sums = np.empty((TAPS, LANES), field.dtype), np.empty(LANES, field.dtype)
    for i in range(images):
        for k in range(count):
            across, down = polynomials[column[i, k]], polynomials[row[i, k]]
            start = cells[i, k] // n * wide + cells[i, k] % n
            for a in range(TAPS):
                _seven(across, field[owners[i], start : start + TAPS], along[a])
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


@numba.njit(nogil=True, cache=True, fastmath=SUMS)
def deposit(parts: Any, there: Any, shares: Any, light: Any, total: Any) -> None:
    """Add light at places to sub-pixels, each of which has its share.

    Parameters
    ----------
    parts
        As of `positions`.
    there
        0 for sub-pixels whose light does not count, (N, K).
    shares
        Of the neighbours in each place's light, or of its own sub-pixel alone, as `in_lanes` returns them,
        (parts, Q, LANES).
    light
        At the places, (N, K, Q, Q).
    total
        Changed: sub-pixels, with a border of `REACH` if neighbours have shares, and `LANES` more numbers, (N, ·).
    """
    cells, n, column, row, owners = parts
    images, count, nodes, _ = light.shape
    taps = 1 if total.shape[1] == n * n + LANES else TAPS
    wide = n + taps - 1
    sums = np.empty((TAPS, LANES), light.dtype)
    for i in range(images):
        out = total[owners[i]]
        for k in range(count):
            if there[i, k] == 0:
                continue
            across, down, own = shares[column[i, k]], shares[row[i, k]], light[i, k]
            sums[:] = 0
            for a in range(0, nodes, 3):
                if nodes == 6:
                    _share_of_six(across, down[a : a + 3], own[a : a + 3], sums)
                else:
                    _share(across, down[a : a + 3], own[a : a + 3], sums)
            start = cells[i, k] // n * wide + cells[i, k] % n
            for a in range(taps):
                sums[a, taps:] = 0  # no share, and yet not a number where light is none
                for b in range(LANES):
                    out[start + b] += sums[a, b]
                start += wide


@numba.njit(nogil=True, inline="always", fastmath=SUMS)
def _share(across: Any, down: Any, light: Any, sums: Any) -> None:
    """Add to the sums, (7, LANES), what three by three places have for them; one loop, with all else at hand."""
    p0, p1, p2 = light[0, 0], light[0, 1], light[0, 2]
    q0, q1, q2 = light[1, 0], light[1, 1], light[1, 2]
    r0, r1, r2 = light[2, 0], light[2, 1], light[2, 2]
    u, v, w = down[0], down[1], down[2]
    u0, u1, u2, u3, u4, u5, u6 = u[0], u[1], u[2], u[3], u[4], u[5], u[6]
    v0, v1, v2, v3, v4, v5, v6 = v[0], v[1], v[2], v[3], v[4], v[5], v[6]
    w0, w1, w2, w3, w4, w5, w6 = w[0], w[1], w[2], w[3], w[4], w[5], w[6]
    for b in range(LANES):
        x, y, z = across[0, b], across[1, b], across[2, b]
        p = p0 * x + p1 * y + p2 * z
        q = q0 * x + q1 * y + q2 * z
        r = r0 * x + r1 * y + r2 * z
        sums[0, b] += u0 * p + v0 * q + w0 * r
        sums[1, b] += u1 * p + v1 * q + w1 * r
        sums[2, b] += u2 * p + v2 * q + w2 * r
        sums[3, b] += u3 * p + v3 * q + w3 * r
        sums[4, b] += u4 * p + v4 * q + w4 * r
        sums[5, b] += u5 * p + v5 * q + w5 * r
        sums[6, b] += u6 * p + v6 * q + w6 * r


@numba.njit(nogil=True, inline="always", fastmath=SUMS)
def _share_of_six(across: Any, down: Any, light: Any, sums: Any) -> None:
    """Add to the sums, (7, LANES), what three rows of six places have for them, as `_share`."""
    p0, p1, p2, p3, p4, p5 = light[0, 0], light[0, 1], light[0, 2], light[0, 3], light[0, 4], light[0, 5]
    q0, q1, q2, q3, q4, q5 = light[1, 0], light[1, 1], light[1, 2], light[1, 3], light[1, 4], light[1, 5]
    r0, r1, r2, r3, r4, r5 = light[2, 0], light[2, 1], light[2, 2], light[2, 3], light[2, 4], light[2, 5]
    u, v, w = down[0], down[1], down[2]
    u0, u1, u2, u3, u4, u5, u6 = u[0], u[1], u[2], u[3], u[4], u[5], u[6]
    v0, v1, v2, v3, v4, v5, v6 = v[0], v[1], v[2], v[3], v[4], v[5], v[6]
    w0, w1, w2, w3, w4, w5, w6 = w[0], w[1], w[2], w[3], w[4], w[5], w[6]
    for b in range(LANES):
        x0, x1, x2, x3, x4, x5 = across[0, b], across[1, b], across[2, b], across[3, b], across[4, b], across[5, b]
        p = p0 * x0 + p1 * x1 + p2 * x2 + p3 * x3 + p4 * x4 + p5 * x5
        q = q0 * x0 + q1 * x1 + q2 * x2 + q3 * x3 + q4 * x4 + q5 * x5
        r = r0 * x0 + r1 * x1 + r2 * x2 + r3 * x3 + r4 * x4 + r5 * x5
        sums[0, b] += u0 * p + v0 * q + w0 * r
        sums[1, b] += u1 * p + v1 * q + w1 * r
        sums[2, b] += u2 * p + v2 * q + w2 * r
        sums[3, b] += u3 * p + v3 * q + w3 * r
        sums[4, b] += u4 * p + v4 * q + w4 * r
        sums[5, b] += u5 * p + v5 * q + w5 * r
        sums[6, b] += u6 * p + v6 * q + w6 * r


@numba.njit(nogil=True, cache=True)
def without(values: Any, light: Any, index: Any, there: Any) -> None:
    """Take the light of chosen parts of sub-pixels away.

    Parameters
    ----------
    values
        Changed: light in wholes, (N, Q, Q).
    light
        That of their parts, one for each or four quarters, (N or 4 N, 3, 3).
    index, there
        Numbers of parts, and 0 for those that do not count, each (R, K).
    """
    pieces = values.shape[1] // 3
    rows, count = index.shape
    for r in range(rows):
        for k in range(count):
            if there[r, k] == 0:
                continue
            part = index[r, k] % pieces**2
            own, down, across = values[index[r, k] // pieces**2], 3 * (part // pieces), 3 * (part % pieces)
            for a in range(3):
                for b in range(3):
                    own[down + a, across + b] -= light[index[r, k], a, b]


@numba.njit(nogil=True, cache=True, fastmath=SUMS)
def quarters(finer: Any, coarse: Any, there: Any, halves: Any, weights: Any, out: Any) -> None:
    """Sort light by quarters of sub-pixels, and write how far its means are from what coarser light promised.

    Parameters
    ----------
    finer
        Light at 3 × 3 places in each quarter, (N, K, 6, 6).
    coarse
        At as many in each whole, (N, K, 3, 3).
    there
        0 for sub-pixels whose light does not count, (N, K).
    halves
        Means over either half of the polynomial through three places, (2, 3).
    weights
        Of three places, (3,).
    out
        Written: the light (N, 4 K, 3, 3), the differences (N, 4 K), -1 where light does not count, and ``there`` of the
        quarters, (N, 4 K).
    """
    light, error, which = out
    rows, count = there.shape
    for i in range(rows):
        for k in range(count):
            for quarter in range(4):
                down, across = quarter // 2, quarter % 2
                q = 4 * k + quarter
                mean = expected = finer[i, k, 0, 0] * 0
                for a in range(3):
                    for b in range(3):
                        value = finer[i, k, 3 * down + a, 3 * across + b]
                        light[i, q, a, b] = value
                        mean += weights[a] * weights[b] * value
                        expected += halves[down, a] * halves[across, b] * coarse[i, k, a, b]
                which[i, q] = there[i, k]
                error[i, q] = abs(mean - expected) if there[i, k] > 0 else -1


@numba.njit(nogil=True, inline="always", fastmath=SUMS)
def seven_rows(rows: Any, w: Any, out: Any) -> None:
    """Write the weighted sum of seven rows of numbers.

    Parameters
    ----------
    rows
        (7, n), or more rows, of which the first seven count.
    w
        Weights (7,).
    out
        Written: (n,).
    """
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
def seven_along(values: Any, w: Any, out: Any) -> None:
    """Write the weighted sums of seven numbers that follow each other.

    Parameters
    ----------
    values
        (n + 6,), or more.
    w
        Weights (7,).
    out
        Written: (n,).
    """
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
