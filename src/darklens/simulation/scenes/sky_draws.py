"""Random numbers of galaxies, and of pairs of a source and a deflector before it, of which few are seen as lenses.

A pair is worked out in two steps: `draw_pairs` draws a round of them and leaves out what is no lens, and `Sky` finds which
of the rest are seen, of many rounds at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numba
import numpy as np
from numpy.random import Generator

from darklens.simulation.priors import Floats
from darklens.simulation.scenes.sky_tables import ARCSEC, BRIGHTEST, LIGHT_SPEED, Tables, from_table

PROPOSALS = 4096
"""Pairs of deflector and source that are drawn at once. With fewer, rounds are more; with more, some are drawn in vain."""

BLUEST, REDDEST, MEAN_SPECTRUM, SPECTRUM_SCATTER = 3.0, 1.0, 2.4, 0.5
"""Spectra of the counted galaxies, as numbers of `SPECTRA`: a Gaussian between bounds. Nine in ten are bluer than Sbc;
tuned to nothing."""

EARLY_SPECTRUM, EARLY_SCATTER = 0.3, 0.2
"""Spectra of early-type galaxies, as numbers of `SPECTRA`: a Gaussian from 0 to 1.

That of a local elliptical alone is too red for deflectors at a redshift of 0.5, which are younger: by 0.14 mag in r - i
against the galaxies of known lenses in Pan-STARRS (`benchmarks/realism.py`).
"""

SURE = 1 + 1e-6
"""Factor by which a pair must miss a bound to be left out by rough numbers, which are off by 1e-12 at most."""


class EarlyNumbers(NamedTuple):
    """Random numbers of N early-type galaxies, each (N,).

    Scatter of the absolute magnitude and of the logarithm of the size, number of the spectrum, Sérsic index, and a number
    between 0 and 1 and an angle (rad) for the ellipticity.
    """

    magnitude: Floats
    size: Floats
    spectrum: Floats
    n_sersic: Floats
    flattening: Floats
    angle: Floats

    @classmethod
    def draw(cls, rng: Generator, count: int) -> Self:
        """Draw those of so many galaxies."""
        return cls(
            rng.normal(0, 0.15 / 2.4, count), rng.normal(0, 0.11, count),
            rng.normal(EARLY_SPECTRUM, EARLY_SCATTER, count), rng.normal(4, 0.7, count), rng.uniform(size=count),
            rng.uniform(0, 2 * math.pi, count),
        )  # fmt: skip


class CountedNumbers(NamedTuple):
    """Random numbers of N galaxies of the number counts, each (N,).

    Number of the spectrum, scatter of the logarithms of the size and of the Sérsic index, and a number between 0 and 1 and
    an angle (rad) for the ellipticity.
    """

    spectrum: Floats
    size: Floats
    n_sersic: Floats
    flattening: Floats
    angle: Floats

    @classmethod
    def draw(cls, rng: Generator, count: int) -> Self:
        """Draw those of so many galaxies."""
        return cls(
            rng.normal(MEAN_SPECTRUM, SPECTRUM_SCATTER, count), rng.normal(0, 0.35, count), rng.normal(0, 0.35, count),
            rng.uniform(size=count), rng.uniform(0, 2 * math.pi, count),
        )  # fmt: skip


class Pairs(NamedTuple):
    """N pairs of deflector and source, each column (N,).

    Velocity dispersion (km/s), comoving distance of the deflector (Mpc), the source's i magnitude, the least magnification
    that lets it be seen, its redshift, Einstein radius (arcsec), the source's place in the circle in which it may be: a
    number between 0 and 1 and an angle (rad). The rest are random numbers of both galaxies.
    """

    sigma_v: Floats
    distance: Floats
    i: Floats
    least: Floats
    z_source: Floats
    theta_E: Floats
    radius: Floats
    angle: Floats
    source: CountedNumbers
    deflector: EarlyNumbers


def joined(rounds: Sequence[Pairs]) -> Pairs:
    """Return the pairs of all rounds, one round after the other."""

    def column(name: str) -> Floats:
        return np.concatenate([getattr(pairs, name) for pairs in rounds])

    source, deflector = (
        [np.concatenate(parts) for parts in zip(*(getattr(pairs, name) for pairs in rounds), strict=True)]
        for name in ("source", "deflector")
    )
    own = {name: column(name) for name in Pairs._fields if name not in ("source", "deflector")}
    return Pairs(**own, source=CountedNumbers(*source), deflector=EarlyNumbers(*deflector))


def draw_pairs(rng: Generator, tables: Tables, theta_E: tuple[float, float]) -> Pairs:
    """Return those of `PROPOSALS` pairs that are lenses, drawn by the area in which each source is lensed.

    Parameters
    ----------
    rng
        Random numbers.
    tables
        Those of the preset.
    theta_E
        Lowest and highest Einstein radius, arcsec.

    Returns
    -------
    Pairs
        As many as there are, most often a few in a thousand.
    """
    numbers = np.empty((5, PROPOSALS))
    for row in range(3):
        rng.random(out=numbers[row])
    rng.standard_gamma(3, out=numbers[3])
    rng.random(out=numbers[4])
    chosen = np.empty(PROPOSALS, np.intp)
    limits = (tables.farthest, tables.z_source, *theta_E)
    magnitudes = tables.likely[0]
    count = _may_be_lenses(numbers, (tables.velocities, magnitudes, tables.distances[1]), limits, chosen)
    of_velocity, of_distance, of_magnitude, of_redshift, of_ratio = numbers[:, chosen[:count]]
    # Rough numbers have left out most; what is left is decided, and put into the catalogue, by these.
    sigma_v, distance = from_table(tables.velocities, of_velocity), tables.farthest * np.cbrt(of_distance)
    i = from_table(magnitudes, of_magnitude)
    z = redshifts(of_redshift, i, tables.z_source)
    ratio = (1 - distance / tables.distance(z)).clip(0)
    radius = 4 * math.pi * (sigma_v / LIGHT_SPEED) ** 2 * ratio / ARCSEC
    likely = (of_ratio < ratio**2) & (radius > theta_E[0]) & (radius < theta_E[1])
    sigma_v, distance, i, z, radius = (each[likely] for each in (sigma_v, distance, i, z, radius))
    count = len(i)
    source = CountedNumbers.draw(rng, count)
    place = rng.uniform(size=count), rng.uniform(0, 2 * math.pi, count)
    deflector = EarlyNumbers.draw(rng, count)
    return Pairs(sigma_v, distance, i, least_magnification(tables, i), z, radius, *place, source, deflector)


def redshifts(gamma: Floats, i: Floats, highest: float) -> Floats:
    """Return redshifts of galaxies by their i magnitudes (LSST Science Collaboration 2009, section 3.7).

    Parameters
    ----------
    gamma
        Numbers of the gamma distribution of order 3, (N,).
    i
        Magnitudes, (N,).
    highest
        Redshift that none exceeds.

    Returns
    -------
    numpy.ndarray
        (N,), at least 0.02.
    """
    found: Floats = (gamma * (0.0417 * i - 0.744).clip(0.02)).clip(0.02, highest)
    return found


def least_magnification(tables: Tables, i: Floats) -> Floats:
    """Return the least magnification that lets sources of i magnitudes (N,) be seen, (N,)."""
    least = tables.likely[1]
    step = (tables.faintest_source - BRIGHTEST) / (len(least) - 1)
    # That of the brighter neighbour on the grid is at most that of the magnitude itself.
    found: Floats = least[((i - BRIGHTEST) / step).astype(np.intp)]
    return found


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _may_be_lenses(
    numbers: Any, tables: tuple[Any, Any, Any], limits: tuple[float, float, float, float], chosen: Any
) -> int:
    """Write which pairs may be lenses by their numbers (5, N), in their order; return how many."""
    velocities, magnitudes, distances = tables
    farthest, highest, low, high = limits
    steps, last = 1 / math.log1p(highest), distances[-1] / farthest
    scale = 4 * math.pi / LIGHT_SPEED**2 / ARCSEC
    count = 0
    for j in range(numbers.shape[1]):
        sigma_v = _at(velocities, numbers[0, j])
        # The ratio of distances, 1 - D_lens / D_source, must exceed the root of its number and make the Einstein radius
        # large enough: so the deflector is nearer than some distance. First that for the farthest source.
        needed = max(math.sqrt(numbers[4, j]), low / (scale * sigma_v * sigma_v))
        room = (1 - needed) * SURE + 1e-9
        near = last * room
        if room <= 0 or numbers[1, j] > near * near * near:
            continue
        i = _at(magnitudes, numbers[2, j])
        z = min(max(numbers[3, j] * max(0.0417 * i - 0.744, 0.02), 0.02), highest)
        behind = _at(distances, math.log1p(z) * steps) / farthest
        near = behind * room
        if numbers[1, j] > near * near * near:
            continue
        theta_E = scale * sigma_v * sigma_v * (1 - numbers[1, j] ** (1 / 3) / behind)
        if theta_E < high * SURE + 1e-9:
            chosen[count] = j
            count += 1
    return count


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _at(table: Any, share: float) -> float:
    """A table at a share of its length, linear between its numbers."""
    at = share * (len(table) - 1)
    low = min(int(at), len(table) - 2)
    return float(table[low] + (at - low) * (table[low + 1] - table[low]))
