"""Tables by which a sky draws its lenses, computed once for a preset: distances, velocity dispersions, magnitudes."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

from darklens.errors import PresetError
from darklens.physics.psf import SIGMA_PER_FWHM
from darklens.simulation.priors import Floats, median
from darklens.simulation.scenes.photometry import Photometry
from darklens.simulation.scenes.presets import ScenePreset

ARCSEC = math.pi / 180 / 3600
LIGHT_SPEED = 299_792.458
"""km/s."""

VELOCITY_STAR, ALPHA, BETA = 161.0, 2.32, 2.67
"""Velocity dispersion function of early-type galaxies, σ* in km/s (Choi, Park & Vogeley 2007, ApJ 658, 884), taken to be
the same in a comoving volume at all redshifts, as Collett (2015, ApJ 811, 20) does."""

SLOWEST = 100.0
"""Velocity dispersion below which galaxies do not deflect enough to be seen, km/s."""

COUNTS_SLOPE = 0.31
"""Logarithmic slope of the number of galaxies with the i magnitude (LSST Science Collaboration 2009, arXiv:0912.0201,
section 3.7). Beyond i = 25.5, an extrapolation."""

BRIGHTEST = 18.0
"""Magnitude of the brightest galaxy that is drawn from the counts."""

TABLE = 8193
"""Numbers of a table of an inverse cumulative distribution, between which it is linear."""


class Tables:
    """Tables of a preset, each computed when it is first needed.

    Parameters
    ----------
    preset
        Gives cosmology, rules, the detection band and limits.
    photometry
        Magnitudes of spectra in the preset's bands, and in that of the ``counts``.
    """

    def __init__(self, preset: ScenePreset, photometry: Photometry):
        self._preset, self._photometry = preset, photometry
        self.z_source = preset.z_source
        self.faintest_source = preset.faintest_source

    @cached_property
    def distances(self) -> tuple[Floats, Floats]:
        """Redshifts in equal steps of log(1 + z), and their comoving distances in Mpc."""
        from astropy.cosmology import FlatLambdaCDM

        preset = self._preset
        cosmology = FlatLambdaCDM(H0=preset.cosmology.H0, Om0=preset.cosmology.Om0)
        z = np.expm1(np.linspace(0, math.log1p(preset.z_source), 512))
        return z, np.asarray(cosmology.comoving_distance(z).value)

    def distance(self, z: Floats) -> Floats:
        """Return comoving distances, Mpc, of redshifts (N,)."""
        distance = self.distances[1]
        at = np.log1p(z) * ((len(distance) - 1) / math.log1p(self.z_source))
        low = np.minimum(at.astype(np.intp), len(distance) - 2)
        found: Floats = distance[low] + (at - low) * (distance[low + 1] - distance[low])
        return found

    @cached_property
    def farthest(self) -> float:
        """Comoving distance of the farthest deflector, Mpc."""
        return float(self.distance(np.array([self._preset.z_lens]))[0])

    @cached_property
    def velocities(self) -> Floats:
        """Velocity dispersions at equal steps of their cumulative distribution, from the least that can be seen.

        They are weighted with σ⁴, as a lens covers an area of that proportion.
        """
        from scipy.special import gammainc, gammaincinv

        farthest = LIGHT_SPEED * math.sqrt(self._preset.rules.theta_E[0] * ARCSEC / (4 * math.pi))
        order, least = (ALPHA + 4) / BETA, max(SLOWEST, farthest)
        start = gammainc(order, (least / VELOCITY_STAR) ** BETA)
        share = start + (1 - start) * np.linspace(0, 1 - 1e-9, TABLE)
        found: Floats = VELOCITY_STAR * gammaincinv(order, share) ** (1 / BETA)
        return found

    @cached_property
    def likely(self) -> tuple[Floats, Floats]:
        """Magnitudes i at equal steps of their cumulative distribution; the least magnification on a grid of them."""
        preset = self._preset
        band, scale = preset.bands[preset.detection_band], preset.pixel_scale
        i = np.linspace(BRIGHTEST, preset.faintest_source, 2048)
        bluest = self._photometry.bluest(preset.detection_band, "counts")
        flux = 10 ** (-0.4 * (i + bluest - band.zero_point)) / 2
        noise = math.sqrt(4 * math.pi) * self.fwhm * SIGMA_PER_FWHM / scale * self.rms
        least = np.maximum(preset.rules.arc_snr * noise / flux, 1e-6)
        density = 10 ** (COUNTS_SLOPE * i) * np.minimum(1, 2 / least) ** 2
        cumulative = np.append(0, np.cumsum((density[1:] + density[:-1]) / 2))
        return np.interp(np.linspace(0, 1, TABLE), cumulative / cumulative[-1], i), least

    @cached_property
    def fwhm(self) -> float:
        """Median full width at half maximum in the detection band, arcsec."""
        band = self._preset.bands[self._preset.detection_band]
        if band.psf_fwhm is None:
            raise PresetError(
                f"detection_band {self._preset.detection_band}: its psf_fwhm must be given, for rules to be kept"
            )
        return median(band.psf_fwhm)

    @cached_property
    def rms(self) -> float:
        """Typical standard deviation of the background in a pixel of the detection band."""
        band = self._preset.bands[self._preset.detection_band]
        if band.background_rms is not None:
            return band.background_rms
        assert band.depth is not None
        depth, fwhm = np.array([median(band.depth)]), np.array([self.fwhm])
        return float(background_of_depth(depth, fwhm, self._preset.pixel_scale, band.zero_point)[0])


def from_table(table: Floats, uniform: Floats) -> Floats:
    """Return draws from a distribution, of numbers between 0 and 1, by the table of its inverse cumulative distribution."""
    at = uniform * (len(table) - 1)
    low = at.astype(np.intp)
    found: Floats = table[low] + (at - low) * (table[low + 1] - table[low])
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
