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

AT_ONCE = 2 * FINEST * FINEST
"""Parts of sub-pixels whose light is computed at once: of several sub-pixels, as loops over four places are slow."""

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

    Of a row or of the parts of sub-pixels: positions ``x`` and ``y`` in the image and ``u`` and ``v`` in the source plane,
    ``square`` of the radius, ``power``, ``found``, ``parts`` and widths of sub-pixels ``stretch``, each (W,); ``bits``
    (W,) int32; ``bent`` (2, W). Of sub-pixels that are divided: their ``cells``, numbers of parts along a ``side`` and
    which of them are ``near`` a component, int64.
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
    cells: Any
    side: Any
    near: Any


def make_room(width: int) -> Room:
    """Return the arrays for rows of so many sub-pixels."""
    size = max(width, AT_ONCE)
    x, y, u, v, square, power, found, parts, stretch = (np.empty(size, np.float32) for _ in range(9))
    bits, bent = np.empty(size, np.int32), np.empty((2, size), np.float32)
    cells, side, near = (np.empty(size, np.int64) for _ in range(3))
    return Room(x, y, u, v, square, power, found, parts, stretch, bits, bent, cells, side, near)


@numba.njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def brightness(c: Any, dx: Any, dy: Any, room: Room) -> tuple[int, int]:
    """Write the surface brightness of a component at places, without its arms.

    Parameters
    ----------
    c
        The component, a row of `Scene.components`.
    dx, dy
        Positions from the centre of the component, in its plane, arcsec, (M,).
    room
        Written: ``found``, brightness relative to that on a ring, or at the centre of a Sérsic profile, which keeps most
        digits where it is brightest; and what `parts_needed` and `add_arms` read.

    Returns
    -------
    The first place within the component's reach and the one after the last, or twice 0: the others are not written.
    """
    count = len(dx)
    square = room.square[:count]
    e1, e2, over_axes, reach2 = c[E1], c[E2], c[OVER_AXES], c[REACH2]
    for j in range(count):
        u, v = dx[j] - (e1 * dx[j] + e2 * dy[j]), dy[j] - (e2 * dx[j] - e1 * dy[j])
        square[j] = max((u * u + v * v) * over_axes, LEAST)
    first, last = 0, count
    while first < count and square[first] > reach2:
        first += 1
    while last > first and square[last - 1] > reach2:
        last -= 1
    if first == last:
        return 0, 0
    square, found, bits = room.square[first:last], room.found[first:last], room.bits[first:last]
    if c[RING] > ZERO:
        radius, over_width = c[RADIUS], ONE / c[RING]
        for j in range(len(found)):
            across = (np.sqrt(square[j]) - radius) * over_width
            found[j] = -HALF * across * across
        exp(found, bits, found)
        return first, last
    over_r2, half_power, b = c[OVER_R2], c[HALF_POWER], c[B]
    power = room.power[first:last]
    for j in range(len(power)):
        power[j] = square[j] * over_r2
    log(power, bits, power)
    for j in range(len(power)):
        power[j] = half_power * power[j]
    exp(power, bits, power)
    for j in range(len(power)):
        found[j] = -b * power[j]
    exp(found, bits, found)
    for j in range(len(found)):
        found[j] = found[j] if square[j] <= reach2 else ZERO
    return first, last


@numba.njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def parts_needed(c: Any, width: Any, span: tuple[int, int], room: Room) -> None:
    """Write the parts along either side, with fractions, that sub-pixels need at the places of `brightness`.

    Parameters
    ----------
    c
        The component, a row of `Scene.components`.
    width
        Of the sub-pixels in its plane, arcsec, (M,).
    span
        What `brightness` returned.
    room
        As `brightness` left it. Written: ``parts`` within the span.
    """
    first, last = span
    square, power, found = room.square[first:last], room.power[first:last], room.found[first:last]
    parts, width = room.parts[first:last], width[first:last]
    sharp = c[SHARPNESS] * OVER_STEEP
    if c[RING] > ZERO:
        over_width = ONE / c[RING]
        for j in range(len(parts)):
            parts[j] = sharp * width[j] * over_width
        return
    b = c[B]
    factor, over_middle = TWO * c[HALF_POWER] * b, np.float32(math.exp(b))
    for j in range(len(parts)):
        # A sample at the centre of a sub-pixel is off by a twenty-fourth of the second derivative.
        # Of its places, the nearest to a centre counts.
        wide = width[j]
        r = np.sqrt(square[j])
        near = sharp * wide / max(r - HALF * wide, TENTH * wide + SMALLEST)
        slope = factor * power[j] * near
        inside = min(ONE, found[j] * over_middle)
        inside = ONE if r < wide else inside
        parts[j] = np.sqrt(slope * (slope + near) * inside)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def add_arms(c: Any, dx: Any, dy: Any, span: tuple[int, int], room: Room) -> None:
    """Multiply the brightness of a component along a row with that of its spiral arms, if it has any.

    Parameters
    ----------
    c
        Numbers of the component.
    dx, dy
        Places from its centre, as `brightness` had them.
    span
        First place and the one after the last.
    room
        Its ``found`` is changed, and its ``square`` is what `brightness` left there.
    """
    if c[ARM] <= ZERO:
        return
    for j in range(span[0], span[1]):
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


def place_of(part: int, parts: int) -> float:
    """Return where one of an even number of parts is sampled, in sub-pixels from the middle of all.

    Two at a time are where Gauss's rule has them, so that their mean is exact for cubic functions.
    """
    aside = -GAUSS if part % 2 == 0 else GAUSS
    return (2 * (part // 2) + 1 + aside) / parts - 0.5


PLACES: Any = np.array(
    [[place_of(part, parts) if part < parts else 0.0 for part in range(FINEST)] for parts in range(FINEST + 1)],
    np.float32,
)
"""`place_of` by number of parts and part."""


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
    x, y, u, v, bent = room.x[:count], room.y[:count], room.u[:count], room.v[:count], room.bent
    x0, y0, gamma1, gamma2 = lens[0], lens[1], lens[7], lens[8]
    for j in range(count):
        u[j], v[j] = x[j] - x0, y[j] - y0
    deflect((lens[2], lens[3], lens[4], lens[5], lens[6]), u, v, bent)
    right, up = bent[0, :count], bent[1, :count]
    for j in range(count):
        u[j] = x[j] - right[j] - (gamma1 * x[j] + gamma2 * y[j])
    for j in range(count):
        v[j] = y[j] - up[j] - (gamma2 * x[j] - gamma1 * y[j])
    for k in range(len(perturbers)):
        x0, y0, theta_E = perturbers[k, 0], perturbers[k, 1], perturbers[k, 2]
        for j in range(count):
            dx, dy = x[j] - x0, y[j] - y0
            over_r = theta_E / np.sqrt(max(dx * dx + dy * dy, LEAST * LEAST))
            u[j] -= over_r * dx
            v[j] -= over_r * dy


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _parts_within(x: float, y: float, width: float, parts: int, start: int, room: Room) -> int:
    """Write the positions of the parts of a sub-pixel from a place on; return where they end."""
    end = start + parts * parts
    xs, ys = room.x[start:end], room.y[start:end]
    for b in range(parts):
        xs[b] = x + width * PLACES[parts, b]
    for a in range(parts):
        level = np.float32(y + width * PLACES[parts, a])
        for b in range(parts):
            ys[a * parts + b] = level
            xs[a * parts + b] = xs[b]
    return end


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
            span = brightness(c, row.x[:count], row.y[:count], row)
            if divide:
                parts_needed(c, row.stretch[:count], span, row)
            add_arms(c, row.x[:count], row.y[:count], span, row)
            if divide:
                divided, end = 0, 0
                for j in range(span[0], span[1]):
                    if row.parts[j] > 1:
                        parts = parts_of(row.parts[j])
                        if end + parts * parts > AT_ONCE:
                            _divide(scene, (k, i, first), (divided, end), row.found, within, out)
                            divided, end = 0, 0
                        end = _parts_within(corner + (first + j) * width - x0, y, width, parts, end, within)
                        within.cells[divided], within.side[divided], within.near[divided] = j, parts, divided
                        divided += 1
                if divided:
                    _divide(scene, (k, i, first), (divided, end), row.found, within, out)
            for band in range(bands):
                light = scene.flux[k, band]
                for j in range(span[0], span[1]):
                    out[band, i, first + j] += light * row.found[j]
    if any_lensed:
        _add_lensed(scene, grid, row, within, out)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _divide(
    scene: Scene, which: tuple[int, int, int], counts: tuple[int, int], mean: Any, within: Room, out: Any
) -> None:
    """Replace the brightness of a component in sub-pixels of a row by the mean of their parts.

    ``which`` component, which row and the first column of ``mean``; ``counts`` of sub-pixels and of parts.
    """
    k, i, first = which
    divided, end = counts
    c = scene.components[k]
    span = brightness(c, within.x[:end], within.y[:end], within)
    if span[1]:
        _darken_outside(span, end, within)
        add_arms(c, within.x[:end], within.y[:end], span, within)
        _add_means(scene.flux[k], i, divided, first, mean, within, out)


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
            c = scene.components[k]
            x0, y0 = np.float32(scene.centres[k, 0]), np.float32(scene.centres[k, 1])
            for j in range(n):
                row.x[j], row.y[j] = row.u[j] - x0, row.v[j] - y0
            span = brightness(c, row.x[:n], row.y[:n], row)
            if divide:
                parts_needed(c, row.stretch[:n], span, row)
                for j in range(span[0], span[1]):
                    most[j] = max(most[j], row.parts[j])
            add_arms(c, row.x[:n], row.y[:n], span, row)
            for j in range(span[0], span[1]):
                plain[place, j] = row.found[j]
        divided, end = 0, 0
        for j in range(n):
            if most[j] > 1:
                parts = parts_of(most[j])
                if end + parts * parts > AT_ONCE:
                    _divide_lensed(scene, lensed, i, divided, end, plain, within, out)
                    divided, end = 0, 0
                end = _parts_within(corner + j * width, y, width, parts, end, within)
                within.cells[divided], within.side[divided] = j, parts
                divided += 1
        if divided:
            _divide_lensed(scene, lensed, i, divided, end, plain, within, out)
        for place, k in enumerate(lensed):
            for band in range(bands):
                light = scene.flux[k, band]
                for j in range(n):
                    out[band, i, j] += light * plain[place, j]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _divide_lensed(
    scene: Scene, lensed: Any, i: int, divided: int, end: int, plain: Any, within: Room, out: Any
) -> None:
    """Replace the brightness of all lensed components in sub-pixels of a row by the mean of their parts."""
    source_plane(scene.lens, scene.perturbers, end, within)
    for place, k in enumerate(lensed):
        c = scene.components[k]
        x0, y0 = np.float32(scene.centres[k, 0]), np.float32(scene.centres[k, 1])
        e1, e2, over_axes = c[E1], c[E2], c[OVER_AXES]
        squares = within.square.view(np.int32)
        start, packed, near = 0, 0, 0
        for cell in range(divided):
            count = within.side[cell] ** 2
            us, vs = within.u[start : start + count], within.v[start : start + count]
            dx, dy = within.x[packed : packed + count], within.y[packed : packed + count]
            for j in range(count):
                dx[j], dy[j] = us[j] - x0, vs[j] - y0
                u, v = dx[j] - (e1 * dx[j] + e2 * dy[j]), dy[j] - (e2 * dx[j] - e1 * dy[j])
                within.square[j] = (u * u + v * v) * over_axes
            # Numbers above zero are in the order of their bits, of which a processor finds the least of several at once.
            nearest = squares[0]
            for j in range(count):
                nearest = min(nearest, squares[j])
            squares[0] = nearest
            start += count
            # What is out of reach is written over by the next.
            if not within.square[0] > c[REACH2]:
                within.near[near] = cell
                near += 1
                packed += count
        span = brightness(c, within.x[:packed], within.y[:packed], within)
        if span[1]:
            _darken_outside(span, packed, within)
            add_arms(c, within.x[:packed], within.y[:packed], span, within)
            _add_means(scene.flux[k], i, near, 0, plain[place], within, out)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _darken_outside(span: tuple[int, int], count: int, room: Room) -> None:
    """Write zero where `brightness` has written nothing."""
    room.found[: span[0]] = 0
    room.found[span[1] : count] = 0


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _add_means(flux: Any, i: int, near: int, first: int, mean: Any, within: Room, out: Any) -> None:
    """Write the mean brightness of the parts of sub-pixels, which is that of their cells, and move their light."""
    start = 0
    for place in range(near):
        cell, side = within.cells[within.near[place]], within.side[within.near[place]]
        mean[cell] = _mean(start, side, within)
        _add_moments(flux, mean[cell], i, first + cell, within, out)
        start += side * side


@numba.njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def _mean(start: int, parts: int, room: Room) -> Any:
    """Return the mean brightness of a sub-pixel's parts; write its first and second moments, in sub-pixels, to ``bent``."""
    total, right, up, wide, high, across = 1e-30, 0.0, 0.0, 0.0, 0.0, 0.0
    xs = PLACES[parts, :parts]
    for a in range(parts):
        y = xs[a]
        lights = room.found[start + a * parts : start + (a + 1) * parts]
        light: Any = ZERO
        first: Any = ZERO
        second: Any = ZERO
        for b in range(parts):
            moved = lights[b] * xs[b]
            light += lights[b]
            first += moved
            second += moved * xs[b]
        total += light
        right += first
        up += light * y
        wide += second
        high += light * y * y
        across += first * y
    room.bent[0, 0], room.bent[0, 1] = right / total, wide / total
    room.bent[1, 0], room.bent[1, 1], room.bent[0, 2] = up / total, high / total, across / total
    return np.float32(total / (parts * parts))


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
