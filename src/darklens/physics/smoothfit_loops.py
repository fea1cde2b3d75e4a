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
"""Arrays of pixels that a trace writes: deflection (2), position from the source's centre (2), its squared radius there,
its logarithm, the power of the Sérsic law, brightness, and the inverse of the deflector's elliptical radius."""
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
ROUND = 0.01
"""Ellipticity below which derivatives by it are differences, as its angle is hardly known to float32 there."""
STEP = np.float32(1e-3)
"""Step of these differences: a smaller one loses them to rounding."""


class Problem(NamedTuple):
    """What fits have in common.

    ``mean`` (15,) and ``precision`` (15, 15) of the prior and the bounds ``low`` and ``high`` (15,), float64; weights of
    the blur, ``taps``, none for no blur; the variance of a pixel's ``shot`` noise over its brightness; and the number of
    detector pixels that each pixel is the mean of, ``binned``.
    """

    mean: Any
    precision: Any
    low: Any
    high: Any
    taps: Any
    shot: Any
    binned: Any


class Fits(NamedTuple):
    """Parameters (N, 15) in float32, their ``curvature`` (N, 15, 15) and the cost (N,) in float64."""

    parameters: Any
    curvature: Any
    cost: Any


@numba.njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def deflect(lens: Any, x: Any, y: Any, out: Any) -> None:
    """Write the deflection of an isothermal ellipsoid.

    Parameters
    ----------
    lens
        Einstein radius and the two components of the ellipticity.
    x, y
        Positions from its centre along the axes, (W,) and (H,).
    out
        Written: the deflection along both axes, (2, H, W).
    """
    theta_E, e1, e2 = lens
    ax, ay = out[0], out[1]
    q, cos, sin, f = _axes(e1, e2)
    scale = np.float32(theta_E * math.sqrt(q) / f)
    q2 = q * q
    for i in range(len(y)):
        for j in range(len(x)):
            u, v = cos * x[j] + sin * y[i], cos * y[i] - sin * x[j]
            over_psi = f / np.sqrt(max(q2 * u * u + v * v, LEAST2))
            au, av = scale * arctan(over_psi * u), scale * arctanh(over_psi * v)
            ax[i, j], ay[i, j] = cos * au - sin * av, sin * au + cos * av


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
def _axes(e1: Any, e2: Any) -> Any:
    """Axis ratio, cosine and sine of the angle, and √(1 - q²), as of `darklens.physics.deflectors.kormann_axes`."""
    modulus = min(max(math.hypot(e1, e2), 1e-20), 0.9999)
    phi = math.atan2(e2, e1) / 2
    q = (1 - modulus) / (1 + modulus)
    f = math.sqrt(max(1 - q * q, 1e-8))
    return np.float32(q), np.float32(math.cos(phi)), np.float32(math.sin(phi)), np.float32(f)


@numba.njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def trace(p: Any, axis: Any, fields: Any) -> None:
    """Write what rays see in the source.

    Parameters
    ----------
    p
        Parameters of one lens, (15,), in the order of `darklens.physics.smoothfit.PARAMETERS`.
    axis
        Positions along each axis of the image, (W,), in units of half its side.
    fields
        Written: (9, W, W), see `FIELDS`.
    """
    x = y = axis
    lx, ly = x - p[3], y - p[4]
    deflect((p[0], p[1], p[2]), lx, ly, fields[: AY + 1])
    gamma1, gamma2, log_R, log_amp = p[5], p[6], p[9], p[13]
    n = np.float32(math.exp(p[10]))
    inverse_n, b, bits = ONE / n, B1 * n - B0, np.empty(len(x), np.int32)
    for i in range(len(y)):
        along, across = gamma2 * y[i] + p[7], y[i] + gamma1 * y[i] - p[8]
        for j in range(len(x)):
            fields[U, i, j] = (x[j] - fields[AX, i, j]) - gamma1 * x[j] - along
        for j in range(len(x)):
            fields[V, i, j] = across - fields[AY, i, j] - gamma2 * x[j]
        _radius2(fields[U, i], fields[V, i], p[11], p[12], fields[RADIUS2, i])
        log(fields[RADIUS2, i], bits, fields[LOG_RADIUS, i])
        for j in range(len(x)):
            fields[LOG_RADIUS, i, j] = HALF * fields[LOG_RADIUS, i, j] - log_R
            fields[POWER, i, j] = fields[LOG_RADIUS, i, j] * inverse_n
        exp(fields[POWER, i], bits, fields[POWER, i])
        for j in range(len(x)):
            fields[LIGHT, i, j] = log_amp - b * (fields[POWER, i, j] - ONE)
        exp(fields[LIGHT, i], bits, fields[LIGHT, i])
        for j in range(len(x)):  # along the row, as positions from the deflector's centre
            fields[TIDE, i, j] = ly[i]
        _radius2(lx, fields[TIDE, i], p[1], p[2], fields[TIDE, i])
        for j in range(len(x)):
            fields[TIDE, i, j] = ONE / np.sqrt(fields[TIDE, i, j])


@numba.njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def _radius2(u: Any, v: Any, e1: Any, e2: Any, out: Any) -> None:
    modulus2 = e1 * e1 + e2 * e2
    over = ONE / (ONE - modulus2)
    for j in range(len(u)):
        cross = e1 * (u[j] * u[j] - v[j] * v[j]) + TWO * e2 * u[j] * v[j]
        out[j] = max(((ONE + modulus2) * (u[j] * u[j] + v[j] * v[j]) - TWO * cross) * over, LEAST)


@numba.njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def jacobian_row(p: Any, axis: Any, i: int, fields: Any, ellipticity: Any, out: Any) -> None:
    """Write the derivatives of a row of an image by the parameters.

    Parameters
    ----------
    p, axis, fields
        As of `trace`.
    i
        The row.
    ellipticity
        What `ellipticity_differences` writes, where `is_round`.
    out
        Written: (15, W).
    """
    x = y = axis
    q, cos, sin, f = _axes(p[1], p[2])
    e = np.float32(math.hypot(p[1], p[2]))
    scale = np.float32(p[0] * math.sqrt(q) / f)
    n = np.float32(math.exp(p[10]))
    b = B1 * n - B0
    s1, s2 = p[11], p[12]
    modulus2 = s1 * s1 + s2 * s2
    over, larger = ONE / (ONE - modulus2), ONE + modulus2
    # Derivatives of axis ratio and angle by the ellipticity, and of the logarithm of the scale by the axis ratio.
    nearly = is_round(p)
    safe = ONE if nearly else e
    dq = -TWO / ((ONE + e) * (ONE + e)) / safe
    q1, q2, phi1, phi2 = dq * p[1], dq * p[2], -HALF * p[2] / (safe * safe), HALF * p[1] / (safe * safe)
    grows = HALF / q + q / (f * f)
    # Loops with few arrays each, which the compiler turns into operations on several numbers at once.
    fall, slope, du, dv = out[9], out[13], out[7], out[8]
    for j in range(len(x)):
        fall[j] = -fields[LIGHT, i, j] * b / n * fields[POWER, i, j]
        slope[j] = fall[j] / fields[RADIUS2, i, j] * over
    for j in range(len(x)):
        u, v = fields[U, i, j], fields[V, i, j]
        du[j] = slope[j] * (larger * u - TWO * (s1 * u + s2 * v))
        dv[j] = slope[j] * (larger * v - TWO * (s2 * u - s1 * v))
    for j in range(len(x)):
        u, v = fields[U, i, j], fields[V, i, j]
        square, difference = u * u + v * v + fields[RADIUS2, i, j], u * u - v * v
        out[11, j] = slope[j] * (s1 * square - difference)
        out[12, j] = slope[j] * (s2 * square - TWO * u * v)
    tidal = out[3]
    for j in range(len(x)):
        lx, ly = x[j] - p[3], y[i] - p[4]
        strength = p[0] * fields[TIDE, i, j] / max(lx * lx + ly * ly, LEAST)  # of the tangential tidal field
        tidal[j] = strength * (dv[j] * lx - du[j] * ly)
    if nearly:
        for j in range(len(x)):
            out[1, j] = -(du[j] * ellipticity[0, i, j] + dv[j] * ellipticity[1, i, j])
            out[2, j] = -(du[j] * ellipticity[2, i, j] + dv[j] * ellipticity[3, i, j])
    else:
        for j in range(len(x)):
            ax, ay, lx, ly = fields[AX, i, j], fields[AY, i, j], x[j] - p[3], y[i] - p[4]
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
    over_theta_E = ONE / p[0]
    for j in range(len(x)):
        out[0, j] = -(du[j] * fields[AX, i, j] + dv[j] * fields[AY, i, j]) * over_theta_E
        out[5, j] = dv[j] * y[i] - du[j] * x[j]
        out[6, j] = -(du[j] * y[i] + dv[j] * x[j])
    for j in range(len(x)):
        out[4, j] = tidal[j] * (x[j] - p[3])
        tidal[j] = -tidal[j] * (y[i] - p[4])
    for j in range(len(x)):
        light = fields[LIGHT, i, j]
        out[10, j] = light * -B1 * n * (fields[POWER, i, j] - ONE) - fall[j] * fields[LOG_RADIUS, i, j]
        out[13, j] = light
        out[14, j] = ONE
    for j in range(len(x)):
        du[j], dv[j], fall[j] = -du[j], -dv[j], -fall[j]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def is_round(p: Any) -> Any:
    """Return whether derivatives by the deflector's ellipticity are differences."""
    return math.hypot(p[1], p[2]) < ROUND


@numba.njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def ellipticity_differences(p: Any, axis: Any, fields: Any, out: Any) -> None:
    """Write the derivatives of the deflection by the deflector's ellipticity, as differences.

    Parameters
    ----------
    p, axis, fields
        As of `trace`.
    out
        Written: derivatives of both components by ``e1``, then by ``e2``, (4, W, W).
    """
    x = y = axis
    lx, ly = x - p[3], y - p[4]
    deflect((p[0], p[1] + STEP, p[2]), lx, ly, out[:2])
    deflect((p[0], p[1], p[2] + STEP), lx, ly, out[2:])
    over = ONE / STEP
    for k in range(4):
        for i in range(len(y)):
            for j in range(len(x)):
                out[k, i, j] = (out[k, i, j] - fields[k % 2, i, j]) * over


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
            start, stop = max(0, -k), min(width, width - k)
            for j in range(start):
                rows[i, j] += taps[reach + k] * image[i, 0]
            for j in range(start, stop):
                rows[i, j] += taps[reach + k] * image[i, j + k]
            for j in range(max(stop, start), width):
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
def refine(images: Any, axis: Any, problem: Problem, steps: int, found: Fits) -> None:
    """Fit smooth lenses by Levenberg and Marquardt's method, as `darklens.physics.smoothfit` does.

    Parameters
    ----------
    images
        (N, W, W) in units of the sky noise.
    axis
        As of `trace`.
    problem
        What is the same for all of them.
    steps
        How often the model is computed.
    found
        Where the fits start; written.
    """
    mean, precision, low, high, taps, shot, binned = problem
    parameters, curvature, cost = found
    _, height, width = images.shape
    fields = np.empty((FIELDS, height, width), np.float32)
    ellipticity = np.empty((4, height, width), np.float32)
    model, weight = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    gap, rows = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    slopes, weighted = np.empty((PARAMETERS, width), np.float32), np.empty((PARAMETERS, width), np.float32)
    best_curvature, best_gradient = np.zeros((PARAMETERS, PARAMETERS)), np.zeros(PARAMETERS)
    damped, step = np.empty((PARAMETERS, PARAMETERS)), np.empty(PARAMETERS)
    away, pull, trial = np.empty(PARAMETERS), np.empty(PARAMETERS), np.empty(PARAMETERS, np.float32)
    for number in range(len(images)):
        image, best = images[number], parameters[number]
        trial[:] = best
        least, damping = np.inf, 1e-2
        best_curvature[:] = 0
        best_gradient[:] = 0
        for _ in range(steps):
            trace(trial, axis, fields)
            blur(fields[LIGHT], taps, rows, model)
            trial_cost = 0.0
            for i in range(height):
                of_row = 0.0
                for j in range(width):
                    light = model[i, j] + trial[14]
                    root = ONE / np.sqrt((ONE + shot * max(light, ZERO)) / binned)
                    left = (image[i, j] - light) * root
                    weight[i, j], gap[i, j] = root, left * root
                    of_row += left * left
                trial_cost += of_row
            away[:] = mean - trial
            for a in range(PARAMETERS):
                pull[a] = 0.0
                for c in range(PARAMETERS):
                    pull[a] += precision[a, c] * away[c]
                trial_cost += pull[a] * away[a]
            if trial_cost < least:
                least, damping = trial_cost, damping / 5
                best[:] = trial
                # The gradient is exact: what is left, blurred once more, meets the slopes of the sharp image.
                blur(gap, taps, rows, gap)
                if is_round(trial):
                    ellipticity_differences(trial, axis, fields, ellipticity)
                best_curvature[:] = precision
                best_gradient[:] = pull
                for i in range(height):
                    jacobian_row(trial, axis, i, fields, ellipticity, slopes)
                    for a in range(PARAMETERS):
                        along = ZERO
                        for j in range(width):
                            along += slopes[a, j] * gap[i, j]
                            weighted[a, j] = slopes[a, j] * weight[i, j]
                        best_gradient[a] += along
                    for a in range(PARAMETERS):
                        for c in range(a + 1):
                            product = ZERO
                            for j in range(width):
                                product += weighted[a, j] * weighted[c, j]
                            best_curvature[a, c] += product
                for a in range(PARAMETERS):
                    for c in range(a):
                        best_curvature[c, a] = best_curvature[a, c]
            else:
                damping *= 6
            damping = min(max(damping, 1e-6), 1e6)
            damped[:] = best_curvature
            for a in range(PARAMETERS):
                damped[a, a] += damping * best_curvature[a, a]
            solve(damped, best_gradient, step)
            for a in range(PARAMETERS):
                trial[a] = min(max(best[a] + step[a], low[a]), high[a])
        curvature[number] = best_curvature
        cost[number] = least


@numba.njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def best_start(images: Any, axis: Any, start: Any, shifts: Any, best: Any, least: Any) -> None:
    """Take a start and one of several positions of the source where the image is nearer than to the best so far.

    Parameters
    ----------
    images
        (N, W, W).
    axis
        As of `trace`.
    start
        Parameters (N, 15).
    shifts
        Positions of the source that are tried, (N, S, 2).
    best, least
        Parameters (N, 15) and summed squares of what is left (N,), float64, of the best so far; written.
    """
    _, height, width = images.shape
    fields = np.empty((FIELDS, height, width), np.float32)
    radius2, light = np.empty(width, np.float32), np.empty(width, np.float32)
    u, v, bits = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.int32)
    for number in range(len(images)):
        p = start[number]
        trace(p, axis, fields)
        n = np.float32(math.exp(p[10]))
        inverse_n, b = ONE / n, B1 * n - B0
        for s in range(shifts.shape[1]):
            dx, dy = p[7] - shifts[number, s, 0], p[8] - shifts[number, s, 1]
            with_image, squared, whole = 0.0, 0.0, 0.0
            for i in range(height):
                for j in range(width):
                    u[j], v[j] = fields[U, i, j] + dx, fields[V, i, j] + dy
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
