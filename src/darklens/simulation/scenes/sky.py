"""Populations of galaxies that hang together: redshifts, velocity dispersions, sizes, colours and Einstein radii.

Deflectors are early-type galaxies drawn by velocity dispersion, sources and neighbours galaxies drawn by number counts. All
relations are published ones; each function names its own.
"""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.random import Generator

from darklens.errors import PresetError
from darklens.physics import sersic_total_flux
from darklens.physics.light import sersic_b
from darklens.physics.psf import SIGMA_PER_FWHM
from darklens.simulation.priors import Floats
from darklens.simulation.scenes.photometry import Photometry
from darklens.simulation.scenes.presets import ScenePreset
from darklens.simulation.scenes.sky_draws import (
    BLUEST,
    EARLY_SPECTRUM,
    PROPOSALS,
    REDDEST,
    CountedNumbers,
    EarlyNumbers,
    Pairs,
    draw_pairs,
    joined,
    least_magnification,
    redshifts,
)
from darklens.simulation.scenes.sky_tables import ARCSEC, BRIGHTEST, COUNTS_SLOPE, LIGHT_SPEED, Tables, from_table

COUNTS_FILTER = "lsst2023-i"
"""Filter of the magnitudes by which galaxies are counted."""

COUNTS_AT_25 = 46.0
"""Number of galaxies to i = 25 in a square arcminute (LSST Science Collaboration 2009, arXiv:0912.0201, section 3.7)."""

SOURCES, SOURCES_AT_ONCE = 8192, 256
"""Sources that are drawn behind a given galaxy before it is said to make no lens that is seen, and how many at once. With
more, galaxies of smaller Einstein radii find a source."""

VELOCITY_SCATTER = 0.07
"""Standard deviation of the logarithm of the velocity dispersion at a given luminosity (Bernardi et al. 2003)."""

MAGNITUDE_SCATTER = 0.3
"""Error of a magnitude in each band, by which galaxies are compared with spectra that do not evolve: as much as these are
off at a redshift of 0.5."""

MOST_AT_ONCE = 16
"""Rounds of pairs that are worked out at once, at most."""

MOST_ROUNDS = 400
"""Rounds for each lens that is seen, above which rules are said to leave out nearly all."""


class Galaxies(NamedTuple):
    """N galaxies.

    Redshift, number of the spectrum, magnitudes in the bands (N, bands), half-light radius in arcsec, Sérsic index and
    the two components of ellipticity, each (N,).
    """

    z: Floats
    spectrum: Floats
    magnitudes: Floats
    R_sersic: Floats
    n_sersic: Floats
    e1: Floats
    e2: Floats


class Lenses(NamedTuple):
    """N deflectors with their sources: velocity dispersion in km/s, Einstein radius and source position in arcsec.

    Those of a table of lenses have the number of its row, from 0 on.
    """

    deflector: Galaxies
    source: Galaxies
    sigma_v: Floats
    theta_E: Floats
    source_x: Floats
    source_y: Floats
    magnification: Floats
    arc_snr: Floats
    row: Floats | None = None


class Sky:
    """Draw galaxies and lenses as a survey sees them.

    Parameters
    ----------
    preset
        Gives bands, cosmology, rules and limits.

    Raises
    ------
    PresetError
        If a filter or spectrum cannot be had, or does not cover a redshift.
    """

    def __init__(self, preset: ScenePreset):
        self.preset = preset
        filters = {name: band.filter for name, band in preset.bands.items()}
        self.photometry = Photometry(filters | {"counts": COUNTS_FILTER}, highest=preset.z_source)
        self.detection = list(preset.bands).index(preset.detection_band)
        self._tables = Tables(preset, self.photometry)
        self._pool: list[Floats] = []
        # Rounds and what they found, of all streams of random numbers together.
        self._tally = np.array([1.0, 4.0])

    def comoving_distance(self, z: Floats) -> Floats:
        """Return comoving distances, Mpc, of redshifts (N,)."""
        return self._tables.distance(z)

    def distance_modulus(self, z: Floats) -> Floats:
        """Return luminosity distances as magnitudes, (N,)."""
        return 5 * np.log10((1 + z) * self.comoving_distance(z)) + 25

    def arcsec(self, kpc: Floats, z: Floats) -> Floats:
        """Return the angle of a length at a redshift, each (N,)."""
        return kpc * 1e-3 * (1 + z) / self.comoving_distance(z) / ARCSEC

    def einstein_radius(self, sigma_v: Floats, z_lens: Floats, z_source: Floats) -> Floats:
        """Return the Einstein radii of singular isothermal spheres, arcsec; 0 where the source is in front.

        Parameters
        ----------
        sigma_v
            Velocity dispersions, km/s, (N,).
        z_lens, z_source
            Redshifts, (N,).

        Returns
        -------
        Floats
            Radii (N,).
        """
        ratio = 1 - self.comoving_distance(z_lens) / self.comoving_distance(z_source)
        found: Floats = 4 * math.pi * (sigma_v / LIGHT_SPEED) ** 2 * ratio.clip(0) / ARCSEC
        return found

    def early_types(self, rng: Generator, sigma_v: Floats, z: Floats) -> Galaxies:
        """Return early-type galaxies of given velocity dispersions.

        Absolute magnitude and half-light radius follow from the velocity dispersion with scatter (Hyde & Bernardi 2009,
        MNRAS 396, 1171, as Collett 2015 uses them), axis ratios from Collett's Rayleigh distribution, colours from spectra
        between those of an elliptical and of an early spiral.

        Parameters
        ----------
        rng
            Random numbers.
        sigma_v
            Velocity dispersions, km/s, (N,).
        z
            Redshifts, (N,).

        Returns
        -------
        Galaxies
            One for each velocity dispersion.
        """
        return self._early_types(EarlyNumbers.draw(rng, len(z)), sigma_v, z)

    def _early_types(self, numbers: EarlyNumbers, sigma_v: Floats, z: Floats) -> Galaxies:
        log = np.log10(sigma_v)
        absolute = (-0.37 + np.sqrt((0.37**2 - 4 * 0.006 * (2.97 + log)).clip(0))) / (2 * 0.006)
        absolute = absolute + numbers.magnitude
        kpc = 10 ** (2.46 - 2.79 * log + 0.84 * log**2 + numbers.size)
        spectrum = numbers.spectrum.clip(0, 1)
        magnitudes = (absolute + self.distance_modulus(z))[:, None] + self.photometry.corrections(spectrum, z)
        n = np.clip(numbers.n_sersic, 2, 6)
        e1, e2 = _ellipticities(numbers.flattening, numbers.angle, 0.378 - 0.000572 * sigma_v)
        return Galaxies(z, spectrum, magnitudes[:, :-1], self.arcsec(kpc, z), n, e1, e2)

    def counted(self, rng: Generator, count: int, brightest: float, faintest: float) -> Galaxies:
        """Draw galaxies as they are counted on the sky.

        Magnitudes follow the number counts, and redshifts given the magnitude a gamma distribution (LSST Science
        Collaboration 2009, arXiv:0912.0201, section 3.7); half-light radii follow from absolute magnitude and redshift
        with a scatter of 0.35 dex (Newton et al. 2011, ApJ 734, 104, as Collett 2015 uses them).

        Parameters
        ----------
        rng
            Random numbers.
        count
            How many.
        brightest, faintest
            i magnitudes between which they are drawn.

        Returns
        -------
        Galaxies
            So many.
        """
        i = self._counts(rng, count, brightest, faintest)
        z = redshifts(rng.standard_gamma(3, count), i, self.preset.z_source)
        return self._counted(CountedNumbers.draw(rng, count), i, z)

    @staticmethod
    def _counts(rng: Generator, count: int, brightest: float, faintest: float) -> Floats:
        """Magnitudes i that follow the number counts."""
        low, high = 10 ** (COUNTS_SLOPE * brightest), 10 ** (COUNTS_SLOPE * faintest)
        return np.log10(low + (high - low) * rng.uniform(size=count)) / COUNTS_SLOPE

    def _counted(self, numbers: CountedNumbers, i: Floats, z: Floats) -> Galaxies:
        spectrum = numbers.spectrum.clip(REDDEST, BLUEST)
        corrections = self.photometry.corrections(spectrum, z)
        magnitudes = i[:, None] + corrections - corrections[:, -1:]
        absolute = i - self.distance_modulus(z) - corrections[:, -1]
        kpc = 10 ** (-(absolute + 18) / 4 + numbers.size) * ((1 + z) / 1.6) ** -1.2
        n = np.exp(numbers.n_sersic).clip(0.5, 3)
        e1, e2 = _ellipticities(numbers.flattening, numbers.angle, np.full(len(i), 0.3))
        return Galaxies(z, spectrum, magnitudes[:, :-1], self.arcsec(kpc, z).clip(0.02, 3), n, e1, e2)

    def neighbours(self, rng: Generator, images: int) -> tuple[np.ndarray, Galaxies]:
        """Return the galaxies that happen to be in the images' fields, and the number of the image of each.

        Parameters
        ----------
        rng
            Random numbers.
        images
            How many fields.
        """
        faintest = self.preset.faintest_neighbour
        per_arcmin = COUNTS_AT_25 * 10 ** (COUNTS_SLOPE * (faintest - 25))
        counts = rng.poisson(per_arcmin * (2 * self.preset.half_width / 60) ** 2, images)
        return np.repeat(np.arange(images), counts), self.counted(rng, int(counts.sum()), BRIGHTEST, faintest)

    def lenses(self, rng: Generator, count: int) -> Lenses:
        """Draw deflectors with sources that are seen as lenses.

        Deflectors are drawn by velocity dispersion and comoving volume, sources by their number behind an Einstein
        radius, and what the preset's rules leave out is drawn again: so faint sources are in the sample where
        magnification helps them.

        Parameters
        ----------
        rng
            Random numbers.
        count
            How many.

        Raises
        ------
        PresetError
            If the rules leave out nearly all.
        """
        rounds = 0
        while not self._pool or len(self._pool[0]) < count:
            missing = count - (len(self._pool[0]) if self._pool else 0)
            # As many at once as are likely needed: what is drawn in excess is drawn again.
            at_once = min(math.ceil(missing * self._tally[0] / self._tally[1]), MOST_AT_ONCE)
            drawn, used = self._rounds(rng, at_once, missing)
            pool = self._pool or [column[:0] for column in drawn]
            self._pool = [np.concatenate(pair) for pair in zip(pool, drawn, strict=True)]
            rounds += used
            self._tally += used, len(drawn[0])
            if rounds >= MOST_ROUNDS * (1 + len(self._pool[0])):
                raise PresetError(
                    f"preset {self.preset.name}: of {rounds * PROPOSALS:,} pairs of galaxies, {len(self._pool[0])} are "
                    "seen as lenses by its rules; loosen them"
                )
        columns = [column[:count] for column in self._pool]
        self._pool = [column[count:] for column in self._pool]
        return Lenses(Galaxies(*columns[:7]), Galaxies(*columns[7:14]), *columns[14:])

    def afresh(self) -> Sky:
        """Return the same sky without the lenses that were drawn and not used: for another stream of random numbers."""
        found = copy.copy(self)
        found._pool = []
        return found

    def _rounds(self, rng: Generator, rounds: int, missing: int) -> tuple[tuple[Floats, ...], int]:
        """Columns of the `Lenses` of some rounds of pairs, which end with that which has found what is missing.

        Numbers of the rounds after it are given back to the stream: how many are drawn at once changes the time alone.
        """
        drawn, states = list[Pairs](), list[Any]()
        for _ in range(rounds):
            drawn.append(draw_pairs(rng, self._tables, self.preset.rules.theta_E))
            states.append(rng.bit_generator.state)
        seen, columns = self._lenses_among(joined(drawn))
        ends = np.cumsum([len(pairs.i) for pairs in drawn])
        found = np.append(0, np.cumsum(seen))[ends]
        last = min(int(np.searchsorted(found, missing)), rounds - 1)
        if last < rounds - 1:
            rng.bit_generator.state = states[last]
        return tuple(column[: found[last]] for column in columns), last + 1

    def _lenses_among(self, pairs: Pairs) -> tuple[np.ndarray, tuple[Floats, ...]]:
        """Which of N pairs are seen as lenses, (N,), and the columns of the `Lenses` of those."""
        distances = self._tables.distances
        z_lens = np.interp(pairs.distance, distances[1], distances[0]).clip(0.02)
        source = self._counted(pairs.source, pairs.i, pairs.z_source)
        # Uniform in a circle: that of the Einstein radius, within which a singular isothermal sphere makes two images, or
        # where a point is magnified enough.
        beta = pairs.theta_E * np.minimum(1, 2 / pairs.least) * np.sqrt(pairs.radius)
        shown = np.flatnonzero(self._resolved(source, pairs.theta_E, beta))
        source = Galaxies(*(column[shown] for column in source))
        numbers = EarlyNumbers(*(column[shown] for column in pairs.deflector))
        sigma_v, theta_E, angle, z_lens, beta = (
            column[shown] for column in (pairs.sigma_v, pairs.theta_E, pairs.angle, z_lens, beta)
        )
        deflector = self._early_types(numbers, sigma_v, z_lens)
        bright, magnification, snr = self._bright(source, deflector, theta_E, beta)
        bright &= deflector.magnitudes[:, self.detection] < self.preset.rules.magnitude
        place = beta * np.cos(angle), beta * np.sin(angle)
        others = (sigma_v, theta_E, *place, magnification, snr)
        seen = np.zeros(len(pairs.i), bool)
        seen[shown[bright]] = True
        return seen, tuple(column[bright] for column in (*deflector, *source, *others))

    def _resolved(self, source: Galaxies, theta_E: Floats, beta: Floats) -> np.ndarray:
        """Which lensed sources (N,) keep the rules on sizes: those that do not ask how bright anything is."""
        rules, fwhm = self.preset.rules, self.typical_fwhm
        tangential = 1 + theta_E / np.hypot(beta, source.R_sersic / 2)
        seen = (theta_E > rules.theta_E[0]) & (theta_E < rules.theta_E[1])
        seen &= tangential > rules.tangential_magnification
        if rules.resolved:
            seen &= theta_E**2 > source.R_sersic**2 + (fwhm / 2) ** 2
            seen &= tangential * source.R_sersic > fwhm
        return seen

    def _bright(
        self, source: Galaxies, deflector: Galaxies, theta_E: Floats, beta: Floats
    ) -> tuple[np.ndarray, Floats, Floats]:
        """Which lensed sources are bright enough by the rules, their magnification and signal-to-noise ratio, each (N,)."""
        magnification = extended_magnification(theta_E, beta, source.R_sersic)
        snr, contrast = self.arc_visibility(source, deflector, theta_E, magnification)
        return (snr > self.preset.rules.arc_snr) & (contrast > self.preset.rules.arc_contrast), magnification, snr

    def behind(self, rng: Generator, deflector: Galaxies, sigma_v: Floats) -> tuple[np.ndarray, Lenses]:
        """Draw for each of some galaxies a source behind it that is seen as lensed by the preset's rules.

        Sources are drawn by their number behind the galaxy's Einstein radius, which depends on their redshift, until one is
        seen.

        Parameters
        ----------
        rng
            Random numbers.
        deflector
            The galaxies, N.
        sigma_v
            Their velocity dispersions, km/s, (N,).

        Returns
        -------
        np.ndarray
            Numbers (M,) of the galaxies with one, ascending. Behind the others, none of `SOURCES` is seen.
        Lenses
            Those M.
        """
        waiting, found = np.arange(len(sigma_v)), list[tuple[np.ndarray, ...]]()
        distance = self.comoving_distance(deflector.z)
        for _ in range(SOURCES // SOURCES_AT_ONCE):
            if not len(waiting):
                break
            host = np.repeat(waiting, SOURCES_AT_ONCE)
            i = from_table(self._tables.likely[0], rng.uniform(size=len(host)))
            least = least_magnification(self._tables, i)
            z = redshifts(rng.standard_gamma(3, len(host)), i, self.preset.z_source)
            ratio = (1 - distance[host] / self.comoving_distance(z)).clip(0)
            theta_E = 4 * math.pi * (sigma_v[host] / LIGHT_SPEED) ** 2 * ratio / ARCSEC
            likely = np.flatnonzero((rng.uniform(size=len(host)) < ratio**2) & (theta_E > self.preset.rules.theta_E[0]))
            host = host[likely]
            i, least, z, theta_E = (each[likely] for each in (i, least, z, theta_E))
            source = self._counted(CountedNumbers.draw(rng, len(i)), i, z)
            beta = theta_E * np.minimum(1, 2 / least) * np.sqrt(rng.uniform(size=len(i)))
            angle = rng.uniform(0, 2 * math.pi, len(i))
            main = Galaxies(*(column[host] for column in deflector))
            seen, magnification, snr = self._bright(source, main, theta_E, beta)
            seen &= self._resolved(source, theta_E, beta)
            others = (sigma_v[host], theta_E, beta * np.cos(angle), beta * np.sin(angle), magnification, snr)
            first = np.flatnonzero(seen)[np.unique(host[seen], return_index=True)[1]]
            found.append(tuple(column[first] for column in (host, *main, *source, *others)))
            waiting = np.setdiff1d(waiting, host[first])
        if not found:
            empty = np.zeros(0)
            none = Galaxies(*(column[:0] for column in deflector))
            return np.zeros(0, int), Lenses(none, none, *(empty,) * 6)
        columns = [np.concatenate(parts) for parts in zip(*found, strict=True)]
        order = np.argsort(columns[0])
        host, *columns = (column[order] for column in columns)
        return host, Lenses(Galaxies(*columns[:7]), Galaxies(*columns[7:14]), *columns[14:])

    def velocity_dispersions(self, rng: Generator, magnitude: Floats, z: Floats) -> Floats:
        """Return velocity dispersions of early-type galaxies, km/s, from their magnitudes in the detection band.

        The mean relation is that of `early_types` (Hyde & Bernardi 2009), and the scatter 0.07 dex at a given luminosity
        (Bernardi et al. 2003, AJ 125, 1849).

        Parameters
        ----------
        rng
            Random numbers.
        magnitude
            Apparent magnitudes, (N,).
        z
            Redshifts, (N,).

        Returns
        -------
        Floats
            One for each, (N,), from 40 to 450.
        """
        correction = self.photometry.corrections(np.full(len(z), EARLY_SPECTRUM), z)[:, self.detection]
        absolute = (magnitude - self.distance_modulus(z) - correction).clip(-26, -16)
        log = -(2.97 + 0.37 * absolute + 0.006 * absolute**2) + rng.normal(0, VELOCITY_SCATTER, len(z))
        found: Floats = (10**log).clip(40, 450)
        return found

    def redshifts_of(self, rng: Generator, magnitudes: Floats) -> Floats:
        """Draw redshifts of early-type galaxies given their magnitudes (N, bands), by the deflectors of lenses.

        Of `PROPOSALS` deflectors of the population, one is drawn for each galaxy, the likelier the nearer its magnitudes
        are, with errors of `MAGNITUDE_SCATTER`.
        """
        distance = self._tables.farthest * np.cbrt(rng.uniform(size=PROPOSALS))
        z = np.interp(distance, *self._tables.distances[::-1]).clip(0.02)
        pool = self.early_types(rng, from_table(self._tables.velocities, rng.uniform(size=PROPOSALS)), z)
        found = np.empty(len(magnitudes))
        for i, given in enumerate(magnitudes):
            known = np.isfinite(given)
            log = -(((pool.magnitudes[:, known] - given[known]) / MAGNITUDE_SCATTER) ** 2).sum(1) / 2
            weight = np.exp(log - log.max())
            found[i] = z[min(np.searchsorted(np.cumsum(weight), rng.uniform() * weight.sum()), PROPOSALS - 1)]
        return found

    @property
    def typical_fwhm(self) -> float:
        """Median full width at half maximum in the detection band, arcsec."""
        return self._tables.fwhm

    def arc_visibility(
        self, source: Galaxies, deflector: Galaxies, theta_E: Floats, magnification: Floats
    ) -> tuple[Floats, Floats]:
        """Estimate how well lensed sources are seen: their signal-to-noise ratio in the detection band, and their contrast.

        Half of the flux, within an area of the magnified half-light ellipse and of the seeing twice, against the noise of
        the sky, of its own photons and of those of the deflector at the Einstein radius, whose light is taken to be
        subtracted without error. Rendered arcs of finding-hsc have 0.82 times as much in the median (68%: 0.53 to 1.00;
        `tests/simulation/scenes/test_sky.py`).

        Parameters
        ----------
        source, deflector
            The unlensed sources and the deflectors, N of each.
        theta_E
            Einstein radii, arcsec, (N,).
        magnification
            Of all images of each source together, (N,).

        Returns
        -------
        The ratio (N,); and the surface brightness of the arcs over that of the deflector at the Einstein radius, in the
        band where it is highest, (N,).
        """
        band, scale = self.preset.bands[self.preset.detection_band], self.preset.pixel_scale
        flux = magnification * 10 ** (-0.4 * (source.magnitudes[:, self.detection] - band.zero_point)) / 2
        sigma = self.typical_fwhm * SIGMA_PER_FWHM
        area = math.pi * (magnification * source.R_sersic**2 + 4 * sigma**2)
        beside = _brightness(deflector, theta_E)
        variance = area / scale**2 * self._tables.rms**2
        if band.gain is not None:
            of_deflector = 10 ** (-0.4 * (deflector.magnitudes[:, self.detection] - band.zero_point)) * beside
            variance += (flux + area * of_deflector) / band.gain
        ratio = 10 ** (-0.4 * (source.magnitudes - deflector.magnitudes)).max(axis=1)
        contrast: Floats = magnification * ratio / 2 / area / beside
        return flux / np.sqrt(variance), contrast


def _brightness(galaxies: Galaxies, radius: Floats) -> Floats:
    """Surface brightness per arcsec² of round galaxies of flux 1 at some radius, (N,)."""
    R, n = (torch.from_numpy(each) for each in (galaxies.R_sersic, galaxies.n_sersic))
    amp = 1 / sersic_total_flux(torch.ones_like(R), R, n)
    found: Floats = (amp * torch.exp(-sersic_b(n) * ((torch.from_numpy(radius) / R) ** (1 / n) - 1))).numpy()
    return found


def ellipticities(rng: Generator, scale: Floats) -> tuple[Floats, Floats]:
    """Draw ellipticities whose ``1 - q`` follows Rayleigh distributions cut at ``q = 0.2``, at random angles.

    Parameters
    ----------
    rng
        Random numbers.
    scale
        Scale of each Rayleigh distribution, (N,).

    Returns
    -------
    The components ``e1`` and ``e2``, each (N,).
    """
    uniform = rng.uniform(size=len(scale))
    return _ellipticities(uniform, rng.uniform(0, 2 * math.pi, len(scale)), scale)


def _ellipticities(uniform: Floats, angle: Floats, scale: Floats) -> tuple[Floats, Floats]:
    # The inverse of the cumulative distribution up to the cut: no draws are thrown away.
    most = 1 - np.exp(-(0.8**2) / (2 * scale**2))
    flattening = scale * np.sqrt(-2 * np.log1p(-uniform * most))
    modulus = flattening / (2 - flattening)
    return modulus * np.cos(angle), modulus * np.sin(angle)


def extended_magnification(theta_E: Floats, beta: Floats, R: Floats) -> Floats:
    """Estimate the magnification of discs by singular isothermal spheres.

    Parameters
    ----------
    theta_E
        Einstein radii, arcsec, (N,).
    beta
        Distances of the discs' centres from the axis, arcsec, (N,).
    R
        Radii of the discs, arcsec, (N,).

    Returns
    -------
    ``2 theta_E / hypot(beta, R / 2)``, exact for points and for discs on the axis.
    """
    found: Floats = 2 * theta_E / np.hypot(beta, R / 2)
    return found
