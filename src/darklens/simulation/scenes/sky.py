"""Populations of galaxies that hang together: redshifts, velocity dispersions, sizes, colours and Einstein radii.

Deflectors are early-type galaxies drawn by velocity dispersion, sources and neighbours galaxies drawn by number counts. All
relations are published ones; each function names its own.
"""

from __future__ import annotations

import copy
import math
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator

from darklens.errors import PresetError
from darklens.physics import sersic_total_flux
from darklens.physics.light import sersic_b
from darklens.physics.psf import SIGMA_PER_FWHM
from darklens.simulation.priors import Floats, median
from darklens.simulation.scenes.photometry import Photometry
from darklens.simulation.scenes.presets import ScenePreset

COUNTS_FILTER = "lsst2023-i"
"""Filter of the magnitudes by which galaxies are counted."""

ARCSEC = math.pi / 180 / 3600
LIGHT_SPEED = 299_792.458
"""km/s."""

VELOCITY_STAR, ALPHA, BETA = 161.0, 2.32, 2.67
"""Velocity dispersion function of early-type galaxies, σ* in km/s (Choi, Park & Vogeley 2007, ApJ 658, 884), taken to be
the same in a comoving volume at all redshifts, as Collett (2015, ApJ 811, 20) does."""

SLOWEST = 100.0
"""Velocity dispersion below which galaxies do not deflect enough to be seen, km/s."""

COUNTS_SLOPE, COUNTS_AT_25 = 0.31, 46.0
"""Logarithmic slope of the number of galaxies with the i magnitude, and their number to i = 25 in a square arcminute (LSST
Science Collaboration 2009, arXiv:0912.0201, section 3.7). Beyond i = 25.5, an extrapolation."""

BRIGHTEST = 18.0
"""Magnitude of the brightest galaxy that is drawn from the counts."""

BLUEST, REDDEST, MEAN_SPECTRUM, SPECTRUM_SCATTER = 3.0, 1.0, 2.4, 0.5
"""Spectra of the counted galaxies, as numbers of `SPECTRA`: a Gaussian between bounds. Nine in ten are bluer than Sbc;
tuned to nothing."""

EARLY_SPECTRUM, EARLY_SCATTER = 0.3, 0.2
"""Spectra of early-type galaxies, as numbers of `SPECTRA`: a Gaussian from 0 to 1.

That of a local elliptical alone is too red for deflectors at a redshift of 0.5, which are younger: by 0.14 mag in r - i
against the galaxies of known lenses in Pan-STARRS (`benchmarks/realism.py`).
"""

TABLE = 8193
"""Numbers of a table of an inverse cumulative distribution, between which it is linear."""

PROPOSALS = 4096
"""Pairs of deflector and source that are drawn at once. With fewer, rounds are more; with more, some are drawn in vain."""

SOURCES, SOURCES_AT_ONCE = 8192, 256
"""Sources that are drawn behind a given galaxy before it is said to make no lens that is seen, and how many at once. With
more, galaxies of smaller Einstein radii find a source."""

VELOCITY_SCATTER = 0.07
"""Standard deviation of the logarithm of the velocity dispersion at a given luminosity (Bernardi et al. 2003)."""

MAGNITUDE_SCATTER = 0.3
"""Error of a magnitude in each band, by which galaxies are compared with spectra that do not evolve: as much as these are
off at a redshift of 0.5."""

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
        self._pool: list[Floats] = []

    @cached_property
    def _distances(self) -> tuple[Floats, Floats]:
        """Redshifts in equal steps of log(1 + z), and their comoving distances in Mpc."""
        from astropy.cosmology import FlatLambdaCDM

        preset = self.preset
        cosmology = FlatLambdaCDM(H0=preset.cosmology.H0, Om0=preset.cosmology.Om0)
        z = np.expm1(np.linspace(0, math.log1p(preset.z_source), 512))
        return z, np.asarray(cosmology.comoving_distance(z).value)

    def comoving_distance(self, z: Floats) -> Floats:
        """Return comoving distances, Mpc, of redshifts (N,)."""
        distance = self._distances[1]
        at = np.log1p(z) * ((len(distance) - 1) / math.log1p(self.preset.z_source))
        low = np.minimum(at.astype(np.intp), len(distance) - 2)
        found: Floats = distance[low] + (at - low) * (distance[low + 1] - distance[low])
        return found

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
        log = np.log10(sigma_v)
        absolute = (-0.37 + np.sqrt((0.37**2 - 4 * 0.006 * (2.97 + log)).clip(0))) / (2 * 0.006)
        absolute = absolute + rng.normal(0, 0.15 / 2.4, len(z))
        kpc = 10 ** (2.46 - 2.79 * log + 0.84 * log**2 + rng.normal(0, 0.11, len(z)))
        spectrum = rng.normal(EARLY_SPECTRUM, EARLY_SCATTER, len(z)).clip(0, 1)
        magnitudes = (absolute + self.distance_modulus(z))[:, None] + self.photometry.corrections(spectrum, z)
        n = np.clip(rng.normal(4, 0.7, len(z)), 2, 6)
        e1, e2 = ellipticities(rng, 0.378 - 0.000572 * sigma_v)
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
        return self._of_magnitude(rng, i, self._redshifts(rng, i))

    @staticmethod
    def _counts(rng: Generator, count: int, brightest: float, faintest: float) -> Floats:
        """Magnitudes i that follow the number counts."""
        low, high = 10 ** (COUNTS_SLOPE * brightest), 10 ** (COUNTS_SLOPE * faintest)
        return np.log10(low + (high - low) * rng.uniform(size=count)) / COUNTS_SLOPE

    def _redshifts(self, rng: Generator, i: Floats) -> Floats:
        """Redshifts of galaxies of given i magnitudes."""
        scale = (0.0417 * i - 0.744).clip(0.02)
        return rng.gamma(3, scale).clip(0.02, self.preset.z_source)

    def _of_magnitude(self, rng: Generator, i: Floats, z: Floats) -> Galaxies:
        spectrum = rng.normal(MEAN_SPECTRUM, SPECTRUM_SCATTER, len(i)).clip(REDDEST, BLUEST)
        corrections = self.photometry.corrections(spectrum, z)
        magnitudes = i[:, None] + corrections - corrections[:, -1:]
        absolute = i - self.distance_modulus(z) - corrections[:, -1]
        kpc = 10 ** (-(absolute + 18) / 4 + rng.normal(0, 0.35, len(i))) * ((1 + z) / 1.6) ** -1.2
        n = np.exp(rng.normal(0, 0.35, len(i))).clip(0.5, 3)
        e1, e2 = ellipticities(rng, np.full(len(i), 0.3))
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
            drawn = self._proposals(rng)
            pool = self._pool or [column[:0] for column in drawn]
            self._pool = [np.concatenate(pair) for pair in zip(pool, drawn, strict=True)]
            rounds += 1
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

    def _proposals(self, rng: Generator) -> tuple[Floats, ...]:
        """Columns of `Lenses` of those of `PROPOSALS` pairs that are seen."""
        rules = self.preset.rules
        sigma_v = _from_table(self._velocities, rng.uniform(size=PROPOSALS))
        farthest = self.comoving_distance(np.array([self.preset.z_lens]))[0]
        distance = farthest * np.cbrt(rng.uniform(size=PROPOSALS))
        i, least = self._likely_magnitudes(rng, PROPOSALS)
        z_source = self._redshifts(rng, i)
        ratio = (1 - distance / self.comoving_distance(z_source)).clip(0)
        theta_E = 4 * math.pi * (sigma_v / LIGHT_SPEED) ** 2 * ratio / ARCSEC
        likely = rng.uniform(size=PROPOSALS) < ratio**2
        likely &= (theta_E > rules.theta_E[0]) & (theta_E < rules.theta_E[1])
        sigma_v, distance, i, least, z_source, theta_E = (
            each[likely] for each in (sigma_v, distance, i, least, z_source, theta_E)
        )
        z_lens = np.interp(distance, self._distances[1], self._distances[0]).clip(0.02)
        source = self._of_magnitude(rng, i, z_source)
        # Uniform in a circle: that of the Einstein radius, within which a singular isothermal sphere makes two images, or
        # where a point is magnified enough.
        beta = theta_E * np.minimum(1, 2 / least) * np.sqrt(rng.uniform(size=len(i)))
        angle = rng.uniform(0, 2 * math.pi, len(i))
        deflector = self.early_types(rng, sigma_v, z_lens)
        seen, magnification, snr = self._seen(source, deflector, theta_E, beta)
        seen &= deflector.magnitudes[:, self.detection] < rules.magnitude
        others = (sigma_v, theta_E, beta * np.cos(angle), beta * np.sin(angle), magnification, snr)
        return tuple(column[seen] for column in (*deflector, *source, *others))

    def _seen(
        self, source: Galaxies, deflector: Galaxies, theta_E: Floats, beta: Floats
    ) -> tuple[np.ndarray, Floats, Floats]:
        """Which sources are seen as lensed by the rules, their magnification and signal-to-noise ratio, each (N,)."""
        rules, fwhm = self.preset.rules, self.typical_fwhm
        magnification = extended_magnification(theta_E, beta, source.R_sersic)
        tangential = 1 + theta_E / np.hypot(beta, source.R_sersic / 2)
        seen = (theta_E > rules.theta_E[0]) & (theta_E < rules.theta_E[1])
        seen &= tangential > rules.tangential_magnification
        if rules.resolved:
            seen &= theta_E**2 > source.R_sersic**2 + (fwhm / 2) ** 2
            seen &= tangential * source.R_sersic > fwhm
        snr, contrast = self.arc_visibility(source, deflector, theta_E, magnification)
        seen &= (snr > rules.arc_snr) & (contrast > rules.arc_contrast)
        return seen, magnification, snr

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
            i, least = self._likely_magnitudes(rng, len(host))
            z = self._redshifts(rng, i)
            ratio = (1 - distance[host] / self.comoving_distance(z)).clip(0)
            theta_E = 4 * math.pi * (sigma_v[host] / LIGHT_SPEED) ** 2 * ratio / ARCSEC
            likely = np.flatnonzero((rng.uniform(size=len(host)) < ratio**2) & (theta_E > self.preset.rules.theta_E[0]))
            host = host[likely]
            i, least, z, theta_E = (each[likely] for each in (i, least, z, theta_E))
            source = self._of_magnitude(rng, i, z)
            beta = theta_E * np.minimum(1, 2 / least) * np.sqrt(rng.uniform(size=len(i)))
            angle = rng.uniform(0, 2 * math.pi, len(i))
            main = Galaxies(*(column[host] for column in deflector))
            seen, magnification, snr = self._seen(source, main, theta_E, beta)
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
        farthest = self.comoving_distance(np.array([self.preset.z_lens]))[0]
        distance = farthest * np.cbrt(rng.uniform(size=PROPOSALS))
        z = np.interp(distance, self._distances[1], self._distances[0]).clip(0.02)
        pool = self.early_types(rng, _from_table(self._velocities, rng.uniform(size=PROPOSALS)), z)
        found = np.empty(len(magnitudes))
        for i, given in enumerate(magnitudes):
            known = np.isfinite(given)
            log = -(((pool.magnitudes[:, known] - given[known]) / MAGNITUDE_SCATTER) ** 2).sum(1) / 2
            weight = np.exp(log - log.max())
            found[i] = z[min(np.searchsorted(np.cumsum(weight), rng.uniform() * weight.sum()), PROPOSALS - 1)]
        return found

    def _likely_magnitudes(self, rng: Generator, count: int) -> tuple[Floats, Floats]:
        """Magnitudes i of sources, and the least magnification that lets each be seen.

        They follow the counts times the share of the Einstein radius's area in which a point is magnified so much: what
        is not drawn could not be seen.
        """
        magnitudes, least = self._likely
        i = _from_table(magnitudes, rng.uniform(size=count))
        step = (self.preset.faintest_source - BRIGHTEST) / (len(least) - 1)
        # The least magnification of the brighter neighbour on the grid is at most that of the magnitude itself.
        return i, least[((i - BRIGHTEST) / step).astype(np.intp)]

    @cached_property
    def _velocities(self) -> Floats:
        """Velocity dispersions at equal steps of their cumulative distribution, from the least that can be seen.

        They are weighted with σ⁴, as a lens covers an area of that proportion.
        """
        from scipy.special import gammainc, gammaincinv

        farthest = LIGHT_SPEED * math.sqrt(self.preset.rules.theta_E[0] * ARCSEC / (4 * math.pi))
        order, least = (ALPHA + 4) / BETA, max(SLOWEST, farthest)
        start = gammainc(order, (least / VELOCITY_STAR) ** BETA)
        share = start + (1 - start) * np.linspace(0, 1 - 1e-9, TABLE)
        found: Floats = VELOCITY_STAR * gammaincinv(order, share) ** (1 / BETA)
        return found

    @cached_property
    def _likely(self) -> tuple[Floats, Floats]:
        """Magnitudes i at equal steps of their cumulative distribution; the least magnification on a grid of them."""
        band, scale = self.preset.bands[self.preset.detection_band], self.preset.pixel_scale
        i = np.linspace(BRIGHTEST, self.preset.faintest_source, 2048)
        bluest = self.photometry.bluest(self.preset.detection_band, "counts")
        flux = 10 ** (-0.4 * (i + bluest - band.zero_point)) / 2
        noise = math.sqrt(4 * math.pi) * self.typical_fwhm * SIGMA_PER_FWHM / scale * self._typical_rms
        least = np.maximum(self.preset.rules.arc_snr * noise / flux, 1e-6)
        density = 10 ** (COUNTS_SLOPE * i) * np.minimum(1, 2 / least) ** 2
        cumulative = np.append(0, np.cumsum((density[1:] + density[:-1]) / 2))
        return np.interp(np.linspace(0, 1, TABLE), cumulative / cumulative[-1], i), least

    @cached_property
    def typical_fwhm(self) -> float:
        """Median full width at half maximum in the detection band, arcsec."""
        band = self.preset.bands[self.preset.detection_band]
        if band.psf_fwhm is None:
            raise PresetError(
                f"detection_band {self.preset.detection_band}: its psf_fwhm must be given, for rules to be kept"
            )
        return median(band.psf_fwhm)

    @cached_property
    def _typical_rms(self) -> float:
        band = self.preset.bands[self.preset.detection_band]
        if band.background_rms is not None:
            return band.background_rms
        assert band.depth is not None
        depth, fwhm = np.array([median(band.depth)]), np.array([self.typical_fwhm])
        return float(background_of_depth(depth, fwhm, self.preset.pixel_scale, band.zero_point)[0])

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
        variance = area / scale**2 * self._typical_rms**2
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


def _from_table(table: Floats, uniform: Floats) -> Floats:
    """Draws from a distribution, of numbers between 0 and 1, by the table of its inverse cumulative distribution."""
    at = uniform * (len(table) - 1)
    low = at.astype(np.intp)
    found: Floats = table[low] + (at - low) * (table[low + 1] - table[low])
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
    # The inverse of the cumulative distribution up to the cut: no draws are thrown away.
    most = 1 - np.exp(-(0.8**2) / (2 * scale**2))
    flattening = scale * np.sqrt(-2 * np.log1p(-rng.uniform(size=len(scale)) * most))
    modulus, angle = flattening / (2 - flattening), rng.uniform(0, 2 * math.pi, len(scale))
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


def background_of_depth(depth: Floats, fwhm: Floats, pixel_scale: float, zero_point: float) -> Floats:
    """Return the standard deviation of the background in a pixel, from the magnitude of a point source at 5σ.

    Parameters
    ----------
    depth
        AB magnitude at 5σ, measured with a Gaussian point-spread function as weight.
    fwhm
        Its full width at half maximum, arcsec.
    pixel_scale
        arcsec.
    zero_point
        AB magnitude of 1 in the images' unit.

    Returns
    -------
    Floats
        In the images' unit.
    """
    pixels = 4 * math.pi * (fwhm * SIGMA_PER_FWHM / pixel_scale) ** 2
    found: Floats = 10 ** (-0.4 * (depth - zero_point)) / 5 / np.sqrt(pixels)
    return found
