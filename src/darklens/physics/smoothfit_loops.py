"""Fits of smooth lenses on a CPU, image by image, compiled by Numba.

They compute what `darklens.physics.smoothfit` computes on any device with operations on whole batches: these go through
memory some thirty times in each step, loops over the pixels of one image do not. All arrays of pixels and parameters are
contiguous float32; sums over pixels are float64.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numba
import numpy as np

SUMS = {"reassoc", "contract"}
"""What the compiler may change: the order of sums, and a product and a sum in one. What is not finite stays so."""
PARAMETERS = 15
FIELDS = 9
"""What a trace writes of each ray: deflection (2), position from the source's centre (2), its squared radius there, the
logarithm of the radius over the source's, the power of the Sérsic law, brightness, and the inverse of the deflector's
elliptical radius."""
AX, AY, U, V, RADIUS2, LOG_RADIUS, POWER, LIGHT, TIDE = range(FIELDS)
# Numbers as float32: others would make float64 of all that they are multiplied with.
ZERO, ONE, TWO, HALF = (np.float32(k) for k in (0, 1, 2, 0.5))
LEAST, LEAST2 = np.float32(1e-6), np.float32(1e-24)
THREE, FOUR, FIVE, SIX, EIGHT = (np.float32(k) for k in (3, 4, 5, 6, 8))
LOWEST, HIGHEST, OVER_LOG_2, ROOT_2 = (np.float32(k) for k in (-87, 88, 1 / math.log(2), math.sqrt(2)))
# The first has few digits, so that its product with a whole number is exact.
LOG_2_HIGH, LOG_2_LOW = np.float32(355 / 512), np.float32(math.log(2) - 355 / 512)
THIRD, FIFTH, SEVENTH, NINTH, ELEVENTH, THIRTEENTH, FIFTEENTH = (np.float32(1 / k) for k in range(3, 16, 2))
B1, B0 = np.float32(1.9992), np.float32(0.3271)
MOST = 6
"""Rays along each axis of a pixel, at most."""
DONE, SETTLED = 0.001, 0.1
"""Fall of the sum of squares that another step promises below which a fit ends, while the damping is below so much. A
choice: differences of one are what noise makes."""
ROUND = 0.01
"""Ellipticity below which derivatives by it are differences, as its angle is hardly known to float32 there."""
STEP = np.float32(1e-3)
"""Step of these differences: a smaller one loses them to rounding."""


class Problem(NamedTuple):
    """What fits have in common.

    ``mean`` (15,) and ``precision`` (15, 15) of the prior and the bounds ``low`` and ``high`` (15,), float64; weights of
    the blur, ``taps``, none for no blur; and three numbers of the ``sampling``: how far the light of a pixel may be from
    its mean, in units of the noise (0: whatever one ray through its centre says), the variance of a pixel's shot noise over
    its brightness, and the number of detector pixels that each pixel is the mean of.
    """

    mean: Any
    precision: Any
    low: Any
    high: Any
    taps: Any
    sampling: Any


class Room(NamedTuple):
    """Arrays that are written again and again, of an image of W pixels a side.

    ``fields`` (W, 9, W), ``light``, ``rough``, ``sharp`` and ``rays`` (W, W), ``slopes`` (15, W); of the rays within a
    pixel ``x`` and ``y`` (R,), ``within`` (9, R) and ``of_rays`` (15, R); ``bits`` (W or R,).
    """

    fields: Any
    light: Any
    rough: Any
    sharp: Any
    rays: Any
    slopes: Any
    x: Any
    y: Any
    within: Any
    of_rays: Any
    bits: Any


def make_room(width: int) -> Room:
    """Return the arrays for images of so many pixels a side."""

    def floats(*shape: int) -> Any:
        return np.empty(shape, np.float32)

    most = MOST * MOST
    return Room(
        floats(width, FIELDS, width), floats(width, width), floats(width, width), floats(width, width),
        np.ones((width, width), np.int64), floats(PARAMETERS, width), floats(most), floats(most), floats(FIELDS, most),
        floats(PARAMETERS, most), np.empty(max(width, most), np.int32),
    )  # fmt: skip


class Fits(NamedTuple):
    """Parameters (N, 15) in float32, their ``curvature`` (N, 15, 15) and the cost (N,) in float64."""

    parameters: Any
    curvature: Any
    cost: Any


@numba.njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def deflect(lens: Any, x: Any, y: Any, out: Any) -> None:
    """Write the deflection of an isothermal ellipsoid at the origin.

    Parameters
    ----------
    lens
        What `ellipsoid` returns.
    x, y
        Positions (M,).
    out
        Written: the deflection along both axes, (2, M or more).
    """
    q, cos, sin, f, scale = lens
    q2 = q * q
    for j in range(len(x)):
        u, v = cos * x[j] + sin * y[j], cos * y[j] - sin * x[j]
        over_psi = f / np.sqrt(max(q2 * u * u + v * v, LEAST2))
        au, av = scale * arctan(over_psi * u), scale * arctanh(over_psi * v)
        out[0, j], out[1, j] = cos * au - sin * av, sin * au + cos * av


@numba.njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def arctan(t: Any) -> Any:
    """Return the arc tangent to float32's precision, by operations that a processor does for several numbers at once.

    A quarter of the angle is below π/8, where the power series needs few terms.
    """
    t = t / (ONE + np.sqrt(ONE + t * t))
    t = t / (ONE + np.sqrt(ONE + t * t))
    return FOUR * _odd_series(t, -t * t)


@numba.njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def arctanh(t: Any) -> Any:
    """Return the inverse hyperbolic tangent of numbers to ±0.998, by its eighth, as `arctan` does."""
    t = t / (ONE + np.sqrt(max(ONE - t * t, LEAST)))
    t = t / (ONE + np.sqrt(max(ONE - t * t, LEAST)))
    t = t / (ONE + np.sqrt(max(ONE - t * t, LEAST)))
    return EIGHT * _odd_series(t, t * t)


@numba.njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def exp(t: Any, bits: Any, out: Any) -> None:
    """Write the exponentials of numbers (W,) to float32's precision: a power of two, times that of a rest below ln(2)/2.

    Parameters
    ----------
    t
        Numbers; below -87 and above 88 they count as these.
    bits
        Room for whole numbers, (W,) int32.
    out
        Written: (W,); ``t`` itself, if need be.
    """
    powers = bits.view(np.float32)
    for j in range(len(t)):
        part = min(max(t[j], LOWEST), HIGHEST)
        whole = np.floor(part * OVER_LOG_2 + HALF)
        bits[j] = (np.int32(whole) + 127) << 23
        out[j] = (part - whole * LOG_2_HIGH) - whole * LOG_2_LOW
    for j in range(len(t)):
        r = out[j]
        total = (((r / SIX + ONE) * r / FIVE + ONE) * r / FOUR + ONE) * r / THREE + ONE
        out[j] = ((total * r * HALF + ONE) * r + ONE) * powers[j]


@numba.njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def log(t: Any, bits: Any, out: Any) -> None:
    """Write the natural logarithms of numbers (W,) to float32's precision.

    Parameters
    ----------
    t
        Positive numbers of at least 1.2e-38.
    bits
        Room for whole numbers, (W,) int32.
    out
        Written: (W,); ``t`` itself, if need be.
    """
    mantissas = bits.view(np.float32)
    out[:] = t
    found = out.view(np.int32)
    for j in range(len(t)):
        bits[j] = (found[j] & 0x7FFFFF) | 0x3F800000
        exponent = (found[j] >> 23) - 127
        out[j] = np.float32(exponent)
    for j in range(len(t)):
        m, exponent = mantissas[j], out[j]
        if m > ROOT_2:
            m, exponent = m * HALF, exponent + ONE
        s = (m - ONE) / (m + ONE)
        out[j] = exponent * LOG_2_HIGH + (exponent * LOG_2_LOW + TWO * _odd_series(s, s * s))


@numba.njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def _odd_series(t: Any, square: Any) -> Any:
    total = (THIRTEENTH + square * FIFTEENTH) * square + ELEVENTH
    total = ((total * square + NINTH) * square + SEVENTH) * square + FIFTH
    return t * ((total * square + THIRD) * square + ONE)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def ellipsoid(theta_E: Any, e1: Any, e2: Any) -> Any:
    """Return what belongs to an isothermal ellipsoid and not to a position, as of `darklens.physics.kormann_axes`.

    Parameters
    ----------
    theta_E, e1, e2
        Einstein radius and ellipticity.

    Returns
    -------
    Axis ratio q, cosine and sine of the angle, √(1 - q²) and scale, float32.
    """
    modulus = min(max(math.hypot(e1, e2), 1e-20), 0.9999)
    phi = math.atan2(e2, e1) / 2
    q = (1 - modulus) / (1 + modulus)
    f = math.sqrt(max(1 - q * q, 1e-8))
    scale = theta_E * math.sqrt(q) / f
    return np.float32(q), np.float32(math.cos(phi)), np.float32(math.sin(phi)), np.float32(f), np.float32(scale)


@numba.njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def trace(p: Any, lens: Any, x: Any, y: Any, fields: Any, bits: Any) -> None:
    """Write what rays see in the source.

    Parameters
    ----------
    p
        Parameters of one lens, (15,), in the order of `darklens.physics.smoothfit.PARAMETERS`.
    lens
        What `ellipsoid` returns of it.
    x, y
        Positions (M,), in units of half the image's side.
    fields
        Written: (9, M or more), see `FIELDS`.
    bits
        Room for whole numbers, (M or more,) int32.
    """
    rays = len(x)
    x0, y0, gamma1, gamma2, sx, sy, log_R, log_amp = p[3], p[4], p[5], p[6], p[7], p[8], p[9], p[13]
    n = np.float32(math.exp(p[10]))
    inverse_n, b = ONE / n, B1 * n - B0
    u, v, radius2, tide = fields[U, :rays], fields[V, :rays], fields[RADIUS2, :rays], fields[TIDE, :rays]
    radius, power, light = fields[LOG_RADIUS, :rays], fields[POWER, :rays], fields[LIGHT, :rays]
    for j in range(rays):
        u[j] = x[j] - x0
    for j in range(rays):
        v[j] = y[j] - y0
    deflect(lens, u, v, fields[: AY + 1])
    _radius2(u, v, p[1], p[2], tide)
    for j in range(rays):
        tide[j] = ONE / np.sqrt(tide[j])
    for j in range(rays):
        u[j] = (x[j] - fields[AX, j]) - gamma1 * x[j] - gamma2 * y[j] - sx
    for j in range(rays):
        v[j] = (y[j] - fields[AY, j]) - gamma2 * x[j] + gamma1 * y[j] - sy
    _radius2(u, v, p[11], p[12], radius2)
    log(radius2, bits, radius)
    for j in range(rays):
        radius[j] = HALF * radius[j] - log_R
        power[j] = radius[j] * inverse_n
    exp(power, bits, power)
    for j in range(rays):
        light[j] = log_amp - b * (power[j] - ONE)
    exp(light, bits, light)


@numba.njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def _radius2(u: Any, v: Any, e1: Any, e2: Any, out: Any) -> None:
    modulus2 = e1 * e1 + e2 * e2
    over = ONE / (ONE - modulus2)
    for j in range(len(u)):
        cross = e1 * (u[j] * u[j] - v[j] * v[j]) + TWO * e2 * u[j] * v[j]
        out[j] = max(((ONE + modulus2) * (u[j] * u[j] + v[j] * v[j]) - TWO * cross) * over, LEAST)


@numba.njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def slopes_of(p: Any, lens: Any, x: Any, y: Any, fields: Any, out: Any) -> None:
    """Write the derivatives of the brightness of rays by the parameters.

    Parameters
    ----------
    p, lens, x, y, fields
        As of `trace`.
    out
        Written: (15, M or more).
    """
    rays = len(x)
    theta_E, x0, y0, s1, s2 = p[0], p[3], p[4], p[11], p[12]
    n = np.float32(math.exp(p[10]))
    b = B1 * n - B0
    modulus2 = s1 * s1 + s2 * s2
    over, larger = ONE / (ONE - modulus2), ONE + modulus2
    # Loops with few arrays each, which the compiler turns into operations on several numbers at once.
    fall, slope, du, dv, tidal = out[9], out[13], out[7], out[8], out[3]
    for j in range(rays):
        fall[j] = -fields[LIGHT, j] * b / n * fields[POWER, j]
        slope[j] = fall[j] / fields[RADIUS2, j] * over
    for j in range(rays):
        u, v = fields[U, j], fields[V, j]
        du[j] = slope[j] * (larger * u - TWO * (s1 * u + s2 * v))
        dv[j] = slope[j] * (larger * v - TWO * (s2 * u - s1 * v))
    for j in range(rays):
        u, v = fields[U, j], fields[V, j]
        square, difference = u * u + v * v + fields[RADIUS2, j], u * u - v * v
        out[11, j] = slope[j] * (s1 * square - difference)
        out[12, j] = slope[j] * (s2 * square - TWO * u * v)
    for j in range(rays):
        lx, ly = x[j] - x0, y[j] - y0
        strength = theta_E * fields[TIDE, j] / max(lx * lx + ly * ly, LEAST)  # of the tangential tidal field
        tidal[j] = strength * (dv[j] * lx - du[j] * ly)
    if is_round(p):
        _by_ellipticity_as_difference(p, x, y, fields, out)
    else:
        _by_ellipticity(p, lens, x, y, fields, out)
    over_theta_E = ONE / theta_E
    for j in range(rays):
        out[0, j] = -(du[j] * fields[AX, j] + dv[j] * fields[AY, j]) * over_theta_E
        out[5, j] = dv[j] * y[j] - du[j] * x[j]
        out[6, j] = -(du[j] * y[j] + dv[j] * x[j])
    for j in range(rays):
        out[4, j] = tidal[j] * (x[j] - x0)
        tidal[j] = -tidal[j] * (y[j] - y0)
    for j in range(rays):
        light = fields[LIGHT, j]
        out[10, j] = light * -B1 * n * (fields[POWER, j] - ONE) - fall[j] * fields[LOG_RADIUS, j]
        out[13, j] = light
        out[14, j] = ONE
    for j in range(rays):
        du[j], dv[j], fall[j] = -du[j], -dv[j], -fall[j]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def is_round(p: Any) -> Any:
    """Return whether derivatives by the deflector's ellipticity are differences."""
    return math.hypot(p[1], p[2]) < ROUND


@numba.njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def _by_ellipticity(p: Any, lens: Any, x: Any, y: Any, fields: Any, out: Any) -> None:
    """Write the derivatives by ``e1`` and ``e2`` where `slopes_of` has those by the source's place and the tidal field."""
    q, cos, sin, f, scale = lens
    e, x0, y0 = np.float32(math.hypot(p[1], p[2])), p[3], p[4]
    # Derivatives of axis ratio and angle by the ellipticity, and of the logarithm of the scale by the axis ratio.
    dq = -TWO / ((ONE + e) * (ONE + e)) / e
    q1, q2, phi1, phi2 = dq * p[1], dq * p[2], -HALF * p[2] / (e * e), HALF * p[1] / (e * e)
    grows = HALF / q + q / (f * f)
    du, dv, tidal = out[7], out[8], out[3]
    for j in range(len(x)):
        ax, ay, lx, ly = fields[AX, j], fields[AY, j], x[j] - x0, y[j] - y0
        r2 = max(lx * lx + ly * ly, LEAST)
        # Along the axes of the ellipsoid: derivatives of scale, arc tangent and its hyperbolic twin by the axis ratio.
        a, c = cos * lx + sin * ly, cos * ly - sin * lx
        psi = np.sqrt(max(q * q * a * a + c * c, LEAST2))
        rise = scale * (psi / f + f * a * a / psi) / r2
        by_q_a = (cos * ax + sin * ay) * grows - rise * q * a
        by_q_c = (cos * ay - sin * ax) * grows - rise * c / q
        by_q = (cos * du[j] + sin * dv[j]) * by_q_a + (cos * dv[j] - sin * du[j]) * by_q_c
        # A turn of the ellipsoid turns the deflection, of a place that turns back.
        by_phi = dv[j] * ax - du[j] * ay - r2 * tidal[j]
        out[1, j] = -(by_q * q1 + by_phi * phi1)
        out[2, j] = -(by_q * q2 + by_phi * phi2)


@numba.njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def _by_ellipticity_as_difference(p: Any, x: Any, y: Any, fields: Any, out: Any) -> None:
    lx, ly, moved = x - p[3], y - p[4], np.empty((2, len(x)), np.float32)
    for k in range(1, 3):
        lens = ellipsoid(p[0], p[1] + STEP, p[2]) if k == 1 else ellipsoid(p[0], p[1], p[2] + STEP)
        deflect(lens, lx, ly, moved)
        for j in range(len(x)):
            along, across = moved[0, j] - fields[AX, j], moved[1, j] - fields[AY, j]
            out[k, j] = -(out[7, j] * along + out[8, j] * across) / STEP


@numba.njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def image_of(p: Any, lens: Any, axis: Any, sampling: Any, room: Room) -> None:
    """Write the light of a smooth lens before it is blurred, without the sky, and what its rays see.

    Parameters
    ----------
    p, lens
        As of `trace`.
    axis
        Positions of the pixels along each axis, (W,).
    sampling
        What `Problem` says of it.
    room
        Written: ``fields`` of the ray through the centre of each pixel, ``light``, and how many ``rays`` along each axis of
        a pixel it is the mean of.
    """
    width = len(axis)
    x, y = axis, np.empty(width, np.float32)
    light, rough = room.light, room.rough
    for i in range(width):
        y[:] = axis[i]
        trace(p, lens, x, y, room.fields[i], room.bits)
        light[i] = room.fields[i, LIGHT]
    room.rays[:] = 1
    tolerance, shot, binned = sampling
    if tolerance <= ZERO:
        return
    # The mean of the light over a pixel is that at its centre, but for a 24th of the second differences.
    for i in range(width):
        for j in range(width):
            middle, total = TWO * light[i, j], ZERO
            if 0 < j < width - 1:
                total += abs(light[i, j - 1] + light[i, j + 1] - middle)
            if 0 < i < width - 1:
                total += abs(light[i - 1, j] + light[i + 1, j] - middle)
            rough[i, j] = total / np.sqrt((ONE + shot * light[i, j]) / binned)
    for i in range(width):
        for j in range(width):
            worst = rough[i, j]
            if i > 0:
                worst = max(worst, rough[i - 1, j])
            if i < width - 1:
                worst = max(worst, rough[i + 1, j])
            if j > 0:
                worst = max(worst, rough[i, j - 1])
            if j < width - 1:
                worst = max(worst, rough[i, j + 1])
            rays = min(math.ceil(math.sqrt(worst / (24 * tolerance))), MOST)
            if rays > 1:
                room.rays[i, j] = rays
                inside(axis, i, j, rays, room)
                these = slice(0, rays * rays)
                trace(p, lens, room.x[these], room.y[these], room.within, room.bits)
                total = ZERO
                for k in range(rays * rays):
                    total += room.within[LIGHT, k]
                room.sharp[i, j] = total / np.float32(rays * rays)
    for i in range(width):
        for j in range(width):
            if room.rays[i, j] > 1:
                light[i, j] = room.sharp[i, j]


@numba.njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def inside(axis: Any, i: int, j: int, rays: int, room: Room) -> None:
    """Write the positions of evenly spaced rays in a pixel.

    Parameters
    ----------
    axis
        As of `image_of`.
    i, j
        Row and column of the pixel.
    rays
        Their number along each axis.
    room
        Written: ``x`` and ``y``, the first ``rays``² of them.
    """
    step = (axis[1] - axis[0]) / np.float32(rays)
    first = (ONE - np.float32(rays)) * HALF
    for a in range(rays):
        for c in range(rays):
            room.x[a * rays + c] = axis[j] + (first + np.float32(c)) * step
            room.y[a * rays + c] = axis[i] + (first + np.float32(a)) * step


@numba.njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def row_of_slopes(p: Any, lens: Any, axis: Any, i: int, room: Room) -> None:
    """Write the derivatives of a row of the image by the parameters, after `image_of` of the same lens.

    Parameters
    ----------
    p, lens, axis
        As of `image_of`.
    i
        The row.
    room
        Written: ``slopes``.
    """
    width = len(axis)
    x, y = axis, np.full(width, axis[i])
    slopes_of(p, lens, x, y, room.fields[i], room.slopes)
    for j in range(width):
        rays = room.rays[i, j]
        if rays > 1:
            inside(axis, i, j, rays, room)
            these = slice(0, rays * rays)
            trace(p, lens, room.x[these], room.y[these], room.within, room.bits)
            slopes_of(p, lens, room.x[these], room.y[these], room.within, room.of_rays)
            over = ONE / np.float32(rays * rays)
            for a in range(PARAMETERS):
                total = ZERO
                for k in range(rays * rays):
                    total += room.of_rays[a, k]
                room.slopes[a, j] = total * over


@numba.njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def blur(image: Any, taps: Any, rows: Any, out: Any) -> None:
    """Write an image convolved with the same weights along each axis; beyond the edge the outermost pixel repeats.

    Parameters
    ----------
    image, out
        Read and written, (H, W); they may be the same.
    taps
        The weights, an odd number; none for no blur.
    rows
        Room for an image, (H, W).
    """
    height, width = image.shape
    if not len(taps):
        out[:] = image
        return
    reach = len(taps) // 2
    for i in range(height):
        for j in range(width):
            rows[i, j] = taps[reach] * image[i, j]
        for k in range(-reach, reach + 1):
            if k == 0:
                continue
            start = min(width, max(0, -k))
            stop = max(start, min(width, width - k))
            for j in range(start):
                rows[i, j] += taps[reach + k] * image[i, 0]
            for j in range(start, stop):
                rows[i, j] += taps[reach + k] * image[i, j + k]
            for j in range(stop, width):
                rows[i, j] += taps[reach + k] * image[i, width - 1]
    for i in range(height):
        for j in range(width):
            out[i, j] = taps[reach] * rows[i, j]
        for k in range(-reach, reach + 1):
            if k != 0:
                other = min(max(i + k, 0), height - 1)
                for j in range(width):
                    out[i, j] += taps[reach + k] * rows[other, j]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def solve(matrix: Any, right: Any, out: Any) -> None:
    """Write the solution of a linear system by Cholesky's method.

    Parameters
    ----------
    matrix
        Symmetric, (P, P), float64; its lower half is read.
    right
        The other side, (P,).
    out
        Written: (P,); zero if the matrix is not positive definite.
    """
    size = len(right)
    lower = np.zeros((size, size))
    for a in range(size):
        for c in range(a + 1):
            left = matrix[a, c]
            for k in range(c):
                left -= lower[a, k] * lower[c, k]
            if a == c:
                if not left > 0 or math.isinf(left):
                    out[:] = 0
                    return
                lower[a, a] = math.sqrt(left)
            else:
                lower[a, c] = left / lower[c, c]
    for a in range(size):
        left = right[a]
        for k in range(a):
            left -= lower[a, k] * out[k]
        out[a] = left / lower[a, a]
    for back in range(size):
        a = size - 1 - back
        left = out[a]
        for k in range(a + 1, size):
            left -= lower[k, a] * out[k]
        out[a] = left / lower[a, a]


@numba.njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def refine(images: Any, axis: Any, problem: Problem, steps: int, found: Fits, room: Room) -> None:
    """Fit smooth lenses by Levenberg and Marquardt's method, as `darklens.physics.smoothfit` does.

    Parameters
    ----------
    images
        (N, W, W) in units of the sky noise.
    axis
        As of `image_of`.
    problem
        What is the same for all of them.
    steps
        How often the model is computed, at most: a fit ends when another step promises less than `DONE`.
    found
        Where the fits start; written.
    room
        What `make_room` returns.
    """
    mean, precision, low, high, taps, sampling = problem
    _, shot, binned = sampling
    width = len(axis)
    model, weight = np.empty((width, width), np.float32), np.empty((width, width), np.float32)
    gap, rows = np.empty((width, width), np.float32), np.empty((width, width), np.float32)
    slopes, weighted = room.slopes, np.empty((PARAMETERS, width), np.float32)
    curvature, gradient = np.zeros((PARAMETERS, PARAMETERS)), np.zeros(PARAMETERS)
    damped, step = np.empty((PARAMETERS, PARAMETERS)), np.empty(PARAMETERS)
    away, pull, trial = np.empty(PARAMETERS), np.empty(PARAMETERS), np.empty(PARAMETERS, np.float32)
    for number in range(len(images)):
        image, best = images[number], found.parameters[number]
        trial[:] = best
        least, damping = np.inf, 1e-2
        curvature[:] = 0
        gradient[:] = 0
        for _ in range(steps):
            lens = ellipsoid(trial[0], trial[1], trial[2])
            image_of(trial, lens, axis, sampling, room)
            blur(room.light, taps, rows, model)
            cost = 0.0
            for i in range(width):
                of_row = ZERO
                for j in range(width):
                    light = model[i, j] + trial[14]
                    root = ONE / np.sqrt((ONE + shot * max(light, ZERO)) / binned)
                    left = (image[i, j] - light) * root
                    weight[i, j], gap[i, j] = root, left * root
                    of_row += left * left
                cost += float(of_row)
            away[:] = mean - trial
            for a in range(PARAMETERS):
                pull[a] = 0.0
                for c in range(PARAMETERS):
                    pull[a] += precision[a, c] * away[c]
                cost += pull[a] * away[a]
            if cost < least:
                least, damping = cost, damping / 5
                best[:] = trial
                # The gradient is exact: what is left, blurred once more, meets the slopes of the sharp image.
                blur(gap, taps, rows, gap)
                curvature[:] = precision
                gradient[:] = pull
                for i in range(width):
                    row_of_slopes(trial, lens, axis, i, room)
                    for a in range(PARAMETERS):
                        along = ZERO
                        for j in range(width):
                            along += slopes[a, j] * gap[i, j]
                            weighted[a, j] = slopes[a, j] * weight[i, j]
                        gradient[a] += along
                    for a in range(PARAMETERS):
                        for c in range(a + 1):
                            product = ZERO
                            for j in range(width):
                                product += weighted[a, j] * weighted[c, j]
                            curvature[a, c] += product
                for a in range(PARAMETERS):
                    for c in range(a):
                        curvature[c, a] = curvature[a, c]
            else:
                damping *= 6
            damping = min(max(damping, 1e-6), 1e6)
            damped[:] = curvature
            for a in range(PARAMETERS):
                damped[a, a] += damping * curvature[a, a]
            solve(damped, gradient, step)
            promised = 0.0
            for a in range(PARAMETERS):
                promised += gradient[a] * step[a]
            if damping <= SETTLED and promised < DONE:
                break
            for a in range(PARAMETERS):
                trial[a] = min(max(best[a] + step[a], low[a]), high[a])
        found.curvature[number] = curvature
        found.cost[number] = least


@numba.njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def render(parameters: Any, axis: Any, taps: Any, sampling: Any, room: Room, out: Any) -> None:
    """Write images of smooth lenses in units of the sky noise.

    Parameters
    ----------
    parameters
        (N, 15).
    axis, room
        As of `image_of`.
    taps, sampling
        What `Problem` says of them.
    out
        Written: (N, W, W).
    """
    rows = np.empty((len(axis), len(axis)), np.float32)
    for number in range(len(parameters)):
        p = parameters[number]
        image_of(p, ellipsoid(p[0], p[1], p[2]), axis, sampling, room)
        blur(room.light, taps, rows, out[number])
        out[number] += p[14]


@numba.njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def best_start(images: Any, axis: Any, start: Any, shifts: Any, best: Any, least: Any) -> None:
    """Take a start and one of several positions of the source where the image is nearer than to the best so far.

    Parameters
    ----------
    images
        (N, W, W).
    axis
        As of `image_of`.
    start
        Parameters (N, 15).
    shifts
        Positions of the source that are tried, (N, S, 2).
    best, least
        Parameters (N, 15) and summed squares of what is left (N,), float64, of the best so far; written.
    """
    width = len(axis)
    fields, y = np.empty((width, FIELDS, width), np.float32), np.empty(width, np.float32)
    radius2, light = np.empty(width, np.float32), np.empty(width, np.float32)
    u, v, bits = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.int32)
    for number in range(len(images)):
        p = start[number]
        lens = ellipsoid(p[0], p[1], p[2])
        for i in range(width):
            y[:] = axis[i]
            trace(p, lens, axis, y, fields[i], bits)
        n = np.float32(math.exp(p[10]))
        inverse_n, b = ONE / n, B1 * n - B0
        for s in range(shifts.shape[1]):
            dx, dy = p[7] - shifts[number, s, 0], p[8] - shifts[number, s, 1]
            with_image, squared, whole = 0.0, 0.0, 0.0
            for i in range(width):
                for j in range(width):
                    u[j], v[j] = fields[i, U, j] + dx, fields[i, V, j] + dy
                _radius2(u, v, p[11], p[12], radius2)
                log(radius2, bits, light)
                for j in range(width):
                    light[j] = (HALF * light[j] - p[9]) * inverse_n
                exp(light, bits, light)
                for j in range(width):
                    light[j] = p[13] - b * (light[j] - ONE)
                exp(light, bits, light)
                of_row, square, image = ZERO, ZERO, ZERO
                for j in range(width):
                    of_row += images[number, i, j] * light[j]
                    square += light[j] * light[j]
                    image += images[number, i, j] * images[number, i, j]
                with_image += float(of_row)
                squared += float(square)
                whole += float(image)
            scale = max(with_image / max(squared, 1e-20), 1e-3)
            left = whole - 2 * scale * with_image + scale * scale * squared
            if left < least[number]:
                least[number] = left
                best[number] = p
                best[number, 7], best[number, 8] = shifts[number, s, 0], shifts[number, s, 1]
                best[number, 13] = p[13] + math.log(scale)
