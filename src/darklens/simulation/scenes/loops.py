"""Loops over sub-pixels and components of scenes, compiled by Numba: the light of whole images, a row at a time.

Sub-pixels in which a profile is steep are divided further: those about the centres of galaxies, and those in which a lens
shows the centre of a source. All arrays are contiguous float32.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numba
import numpy as np

from darklens.physics.smoothfit_loops import SUMS, deflect, exp, log

FAINTEST = 18.0
"""Logarithm of the ratio of brightness at the half-light radius to the faintest that counts: 1e-8."""

STEEP = 0.3
"""Root of the second derivative of brightness, relative to brightness, in sub-pixels, up to which a sub-pixel is one
sample. Images of `tests/simulation/scenes/test_rendering.py` are then within 0.2% of their brightest pixel of
lenstronomy's on sub-pixels ten times finer, and 2% without any division; with half of it, light takes 1.6 times as long."""

FINEST = 32
"""Parts of a sub-pixel along either side, at most."""

GAUSS = 1 / math.sqrt(3)
"""Of Gauss's rule of two points, in halves of its interval."""

COLUMNS = 15
"""Of a component: see `Scene`."""
RADIUS, B, E1, E2, OVER_AXES, OVER_R2, HALF_POWER, REACH2 = range(8)
ARM, ARMS, TWIST, PHASE, RING, SHARPNESS, LENSED = range(8, COLUMNS)
ZERO, HALF, ONE, TWO, QUARTER, TENTH, LEAST, SMALLEST = (np.float32(k) for k in (0, 0.5, 1, 2, 0.25, 0.1, 1e-8, 1e-12))
OVER_STEEP = np.float32(1 / STEEP)


class Scene(NamedTuple):
    """The components of an image and what deflects their light.

    ``centres`` in arcsec, (K, 2), float64. ``components``, a row for each, (K, `COLUMNS`):
    half-light radius (or radius of a ring), ``b_n``, e1, e2, ``1 / (1 - e²)``, ``1 / R²``, ``1 / 2n``, the square of the
    radius beyond which it is too faint to count; amplitude, number, ``1 / (2 tan pitch)`` and phase of arms; width of a
    ring, or 0; mean radius over half of the short axis, along which an ellipse is steepest; whether it is lensed.
    ``flux``: brightness of each in each band where `brightness` is 1, (K, bands). ``lens`` and ``perturbers`` as of
    `source_plane`; without a lens there must be no component that is lensed.
    """

    centres: Any
    components: Any
    flux: Any
    lens: Any
    perturbers: Any


class Room(NamedTuple):
    """Arrays that are written again and again.

    Of a row or of the parts of a sub-pixel: positions ``x`` and ``y`` in the image and ``u`` and ``v`` in the source plane,
    ``square`` of the radius, ``power``, ``found``, ``parts`` and widths of sub-pixels ``stretch``, each (W,); ``bits``
    (W,) int32; ``bent`` (2, W).
    """

    x: Any
    y: Any
    u: Any
    v: Any
    square: Any
    power: Any
    found: Any
    parts: Any
    stretch: Any
    bits: Any
    bent: Any


def make_room(width: int) -> Room:
    """Return the arrays for rows of so many sub-pixels."""
    size = max(width, FINEST * FINEST)
    x, y, u, v, square, power, found, parts, stretch = (np.empty(size, np.float32) for _ in range(9))
    bits, bent = np.empty(size, np.int32), np.empty((2, size), np.float32)
    return Room(x, y, u, v, square, power, found, parts, stretch, bits, bent)


@numba.njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def brightness(c: Any, dx: Any, dy: Any, width: Any, room: Room) -> bool:
    """Write the surface brightness of a component at places, and the parts that sub-pixels there need.

    Parameters
    ----------
    c
        The component, a row of `Scene.components`.
    dx, dy
        Positions from the centre of the component, in its plane, arcsec, (M,).
    width
        Of the sub-pixels in that plane, arcsec, (M,).
    room
        Written: ``found``, brightness relative to that on a ring, or at the centre of a Sérsic profile, which keeps most
        digits where it is brightest; and ``parts`` along either side, with fractions.

    Returns
    -------
    Whether any place is within the component's reach; otherwise nothing is written.
    """
    count = len(dx)
    square, power, found, parts = room.square, room.power, room.found, room.parts
    e1, e2, over_axes = c[E1], c[E2], c[OVER_AXES]
    nearest = np.float32(np.inf)
    for j in range(count):
        u, v = dx[j] - (e1 * dx[j] + e2 * dy[j]), dy[j] - (e2 * dx[j] - e1 * dy[j])
        square[j] = max((u * u + v * v) * over_axes, LEAST)
        nearest = min(nearest, square[j])
    if nearest > c[REACH2]:
        return False
    sharp = c[SHARPNESS] * OVER_STEEP
    reach2 = c[REACH2]
    if c[RING] > ZERO:
        radius, over_width = c[RADIUS], ONE / c[RING]
        for j in range(count):
            across = (np.sqrt(square[j]) - radius) * over_width
            found[j] = -HALF * across * across
            parts[j] = sharp * width[j] * over_width
        exp(found[:count], room.bits[:count], found[:count])
        return True
    over_r2, half_power, b = c[OVER_R2], c[HALF_POWER], c[B]
    for j in range(count):
        power[j] = square[j] * over_r2
    log(power[:count], room.bits[:count], power[:count])
    for j in range(count):
        power[j] *= half_power
    exp(power[:count], room.bits[:count], power[:count])
    for j in range(count):
        found[j] = -b * power[j]
    exp(found[:count], room.bits[:count], found[:count])
    factor, over_middle = TWO * half_power * b, np.float32(math.exp(b))
    for j in range(count):
        # A sample at the centre of a sub-pixel is off by a twenty-fourth of the second derivative.
        # Of its places, the nearest to a centre counts.
        r = np.sqrt(square[j])
        near = sharp * width[j] / max(r - HALF * width[j], TENTH * width[j] + SMALLEST)
        slope = factor * power[j] * near
        inside = ONE if r < width[j] else min(ONE, found[j] * over_middle)
        parts[j] = np.sqrt(slope * (slope + near) * inside)
        if square[j] > reach2:
            found[j] = ZERO
            parts[j] = parts[j] if r < width[j] else ZERO
    if c[ARM] > ZERO:
        _add_arms(c, dx, dy, room)
    return True


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _add_arms(c: Any, dx: Any, dy: Any, room: Room) -> None:
    """Multiply brightness at places with that of spiral arms."""
    for j in range(len(dx)):
        if room.found[j] > ZERO:
            u = dx[j] - (c[E1] * dx[j] + c[E2] * dy[j])
            v = dy[j] - (c[E2] * dx[j] - c[E1] * dy[j])
            ratio = room.square[j] * c[OVER_R2]
            wave = math.cos(c[ARMS] * (math.atan2(v, u) - math.log(ratio) * c[TWIST]) - c[PHASE])
            room.found[j] *= ONE + c[ARM] * ratio / (ratio + QUARTER) * np.float32(wave)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def parts_of(wanted: float) -> int:
    """Return an even number of parts that is as large as is wanted, or `FINEST`."""
    return min(FINEST, 2 * math.ceil(wanted / 2))


@numba.njit(nogil=True, cache=True, error_model="numpy")
def place_of(part: int, parts: int) -> float:
    """Return where one of an even number of parts is sampled, in sub-pixels from the middle of all.

    Two at a time are where Gauss's rule has them, so that their mean is exact for cubic functions.
    """
    aside = -GAUSS if part % 2 == 0 else GAUSS
    return (2 * (part // 2) + 1 + aside) / parts - 0.5


@numba.njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def source_plane(lens: Any, perturbers: Any, count: int, room: Room) -> None:
    """Write where rays end in the source plane.

    Parameters
    ----------
    lens
        Centre in x and y, axis ratio q, cosine and sine of the major axis's angle, ``√(1 - q²)``, scale of the
        deflection, both components of the shear, Einstein radius.
    perturbers
        Centre in x and y and Einstein radius of singular isothermal spheres, (P, 3).
    count
        How many of the positions ``x`` and ``y`` in the room are meant.
    room
        Written: ``u`` and ``v``.
    """
    x, y, u, v, bent = room.x, room.y, room.u, room.v, room.bent
    for j in range(count):
        u[j], v[j] = x[j] - lens[0], y[j] - lens[1]
    deflect((lens[2], lens[3], lens[4], lens[5], lens[6]), u[:count], v[:count], bent)
    gamma1, gamma2 = lens[7], lens[8]
    for j in range(count):
        u[j] = x[j] - bent[0, j] - (gamma1 * x[j] + gamma2 * y[j])
        v[j] = y[j] - bent[1, j] - (gamma2 * x[j] - gamma1 * y[j])
    for k in range(len(perturbers)):
        x0, y0, theta_E = perturbers[k, 0], perturbers[k, 1], perturbers[k, 2]
        for j in range(count):
            dx, dy = x[j] - x0, y[j] - y0
            over_r = theta_E / np.sqrt(max(dx * dx + dy * dy, LEAST * LEAST))
            u[j] -= over_r * dx
            v[j] -= over_r * dy


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _parts_within(x: float, y: float, width: float, parts: int, room: Room) -> int:
    """Write the positions of the parts of a sub-pixel; return their number."""
    for a in range(parts):
        for b in range(parts):
            room.x[a * parts + b] = x + width * place_of(b, parts)
            room.y[a * parts + b] = y + width * place_of(a, parts)
    return parts * parts


@numba.njit(nogil=True, cache=True, error_model="numpy")
def add_light(scene: Scene, grid: tuple[float, float, bool], row: Room, within: Room, out: Any) -> None:
    """Add the light of one image's components to its sub-pixels.

    Parameters
    ----------
    scene
        What is seen.
    grid
        Coordinate of the first sub-pixel's centre along either axis, width of a sub-pixel, both in arcsec, and whether
        sub-pixels are divided where needed.
    row, within
        Of `make_room`, for rows and for the parts of sub-pixels.
    out
        Added to: mean surface brightness of each sub-pixel, (bands, n, n).
    """
    corner, width, divide = grid
    bands, n, _ = out.shape
    any_lensed = False
    for k in range(len(scene.components)):
        c = scene.components[k]
        if c[LENSED] > 0:
            any_lensed = True
            continue
        x0, y0 = scene.centres[k]
        reach = math.sqrt(c[REACH2]) * c[SHARPNESS]
        first, last = _range(x0, reach, corner, width, n)
        top, bottom = _range(y0, reach, corner, width, n)
        count = last - first
        for j in range(count):
            # Differences in double precision: near a centre, they are small ones of large numbers.
            row.x[j] = corner + (first + j) * width - x0
            row.stretch[j] = width
        for i in range(top, bottom):
            y = corner + i * width - y0
            row.y[:count] = y
            if not brightness(c, row.x[:count], row.y[:count], row.stretch[:count], row):
                continue
            if divide:
                for j in range(count):
                    if row.parts[j] > 1:
                        parts = _parts_within(
                            corner + (first + j) * width - x0, y, width, parts_of(row.parts[j]), within
                        )
                        if brightness(c, within.x[:parts], within.y[:parts], within.stretch[:parts], within):
                            row.found[j] = _mean(parts, within)
                            _add_moments(scene.flux[k], row.found[j], i, first + j, within, out)
            for band in range(bands):
                light = scene.flux[k, band]
                for j in range(count):
                    out[band, i, first + j] += light * row.found[j]
    if any_lensed:
        _add_lensed(scene, grid, row, within, out)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _add_lensed(scene: Scene, grid: tuple[float, float, bool], row: Room, within: Room, out: Any) -> None:
    """Add the light of the components that are lensed."""
    corner, width, divide = grid
    bands, n, _ = out.shape
    most = np.empty(n, np.float32)
    lensed = np.flatnonzero(scene.components[:, LENSED] > 0)
    lens_x, lens_y, theta_E = scene.lens[0], scene.lens[1], scene.lens[9]
    plain = np.empty((len(lensed), n), np.float32)
    for i in range(n):
        y = corner + i * width
        for j in range(n):
            row.x[j] = corner + j * width
            row.y[j] = y
            # Inside half of the Einstein radius the lens maps a sub-pixel to a larger one.
            distance = math.sqrt((row.x[j] - lens_x) ** 2 + (y - lens_y) ** 2)
            row.stretch[j] = width * max(1.0, abs(1 - theta_E / max(distance, width / 2)))
        source_plane(scene.lens, scene.perturbers, n, row)
        most[:] = 0
        plain[:] = 0
        for place, k in enumerate(lensed):
            if _brightness_at(scene, int(k), n, row):
                for j in range(n):
                    plain[place, j] = row.found[j]
                    most[j] = max(most[j], row.parts[j])
        for j in range(n):
            if divide and most[j] > 1:
                parts = _parts_within(corner + j * width, y, width, parts_of(most[j]), within)
                source_plane(scene.lens, scene.perturbers, parts, within)
                for place, k in enumerate(lensed):
                    if _brightness_at(scene, int(k), parts, within):
                        plain[place, j] = _mean(parts, within)
                        _add_moments(scene.flux[k], plain[place, j], i, j, within, out)
        for place, k in enumerate(lensed):
            for band in range(bands):
                light = scene.flux[k, band]
                for j in range(n):
                    out[band, i, j] += light * plain[place, j]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _mean(count: int, room: Room) -> Any:
    """Return the mean brightness of a sub-pixel's parts; write its first and second moments, in sub-pixels, to ``bent``."""
    parts = int(math.sqrt(count) + 0.5)
    total, right, up, wide, high, across = 1e-30, 0.0, 0.0, 0.0, 0.0, 0.0
    for a in range(parts):
        y = place_of(a, parts)
        for b in range(parts):
            x, found = place_of(b, parts), room.found[a * parts + b]
            total += found
            right += found * x
            up += found * y
            wide += found * x * x
            high += found * y * y
            across += found * x * y
    room.bent[0, 0], room.bent[0, 1] = right / total, wide / total
    room.bent[1, 0], room.bent[1, 1], room.bent[0, 2] = up / total, high / total, across / total
    return np.float32(total / count)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _add_moments(flux: Any, found: Any, i: int, j: int, room: Room, out: Any) -> None:
    """Move light from a sub-pixel to its neighbours, so that its place and its width are what they were between the two.

    Otherwise a small galaxy would be seen at the centre of its sub-pixel.
    """
    bands, n, _ = out.shape
    if not (0 < i < n - 1 and 0 < j < n - 1):
        return
    right, wide, up, high = room.bent[0, 0], room.bent[0, 1], room.bent[1, 0], room.bent[1, 1]
    for band in range(bands):
        light = HALF * flux[band] * found
        out[band, i, j - 1] += (wide - right) * light
        out[band, i, j + 1] += (wide + right) * light
        out[band, i - 1, j] += (high - up) * light
        out[band, i + 1, j] += (high + up) * light
        out[band, i, j] -= TWO * (wide + high) * light
        corner = HALF * room.bent[0, 2] * light
        out[band, i - 1, j - 1] += corner
        out[band, i + 1, j + 1] += corner
        out[band, i - 1, j + 1] -= corner
        out[band, i + 1, j - 1] -= corner


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _brightness_at(scene: Scene, k: int, count: int, room: Room) -> bool:
    """Write the brightness of a component at places ``u`` and ``v`` of the room, as `brightness` does."""
    x0, y0 = np.float32(scene.centres[k, 0]), np.float32(scene.centres[k, 1])
    for j in range(count):
        room.x[j], room.y[j] = room.u[j] - x0, room.v[j] - y0
    return brightness(scene.components[k], room.x[:count], room.y[:count], room.stretch[:count], room)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def add_images(starts: Any, scenes: Scene, grid: tuple[float, float, bool], row: Room, within: Room, out: Any) -> None:
    """Add the light of all images' components to their sub-pixels.

    Parameters
    ----------
    starts
        Where the components and the perturbers of each image begin, and an end, (2, N + 1).
    scenes
        Those of all images one after the other; ``lens`` is (N, 10).
    grid, row, within
        As of `add_light`.
    out
        Added to: (N, bands, n, n).
    """
    within.stretch[:] = 0
    for image in range(len(out)):
        own = slice(starts[0, image], starts[0, image + 1])
        beside = slice(starts[1, image], starts[1, image + 1])
        scene = Scene(
            scenes.centres[own], scenes.components[own], scenes.flux[own], scenes.lens[image], scenes.perturbers[beside]
        )
        add_light(scene, grid, row, within, out[image])


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _range(centre: float, reach: float, corner: float, width: float, n: int) -> tuple[int, int]:
    """First sub-pixel within reach of a centre along an axis, and the one after the last."""
    first = math.floor((centre - reach - corner) / width)
    last = math.ceil((centre + reach - corner) / width) + 1
    return max(0, min(n, first)), max(0, min(n, last))
