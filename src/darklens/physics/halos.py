"""Number density of dark-matter halos of the field, by mass and redshift.

The mass function is that of Sheth & Tormen (1999), of the linear power spectrum of Eisenstein & Hu (1998) without acoustic
oscillations, which halos below 1e13 M☉ hardly feel.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.special import hyp2f1

from darklens.physics.cosmology import Cosmology

Floats = NDArray[np.float64]

SIGMA_8, SPECTRAL_INDEX = 0.811, 0.965
"""Amplitude of the linear power spectrum in spheres of 8 Mpc/h today, and its slope. Source: Planck 2018 (A&A 641, A6)."""

CMB = 2.7255
"""Temperature of the cosmic microwave background, K."""

COLLAPSE = 1.686
"""Linear density contrast at which a spherical halo has collapsed."""

SHETH_TORMEN = 0.3222, 0.707, 0.3
"""A, a and p of Sheth & Tormen (1999, MNRAS 308, 119), eq. 10."""

CRITICAL_DENSITY = 2.77536627e11
"""Of H0 = 100 km/s/Mpc, M☉/Mpc³."""

MASSES = 1e4, 1e15
"""Lowest and highest mass at which the variance is tabulated, M☉."""


def halo_mass_function(mass: Floats, redshift: float | Floats, cosmology: Cosmology = Cosmology()) -> Floats:
    """Return the number density of halos per natural logarithm of the mass.

    Parameters
    ----------
    mass
        Mass of the halos in M☉, of any shape; from `MASSES`.
    redshift
        Their redshift; broadcast to ``mass``.
    cosmology
        Densities and Hubble constant. The amplitude and the slope of its power spectrum are `SIGMA_8` and
        `SPECTRAL_INDEX`.

    Returns
    -------
    dn / d ln m in 1/Mpc³, per comoving volume.

    Raises
    ------
    ValueError
        If a mass is out of range.

    Source: Sheth & Tormen (1999, MNRAS 308, 119), eq. 10.
    """
    low, high = MASSES
    if np.any((mass < low) | (mass > high)):
        raise ValueError(f"masses of halos are from {low:g} to {high:g} M☉")
    amplitude, a, p = SHETH_TORMEN
    spline = _log_sigma(cosmology)
    sigma = np.asarray(np.exp(spline(np.log(mass))) * growth_factor(redshift, cosmology), dtype=np.float64)
    nu = np.square(math.sqrt(a) * COLLAPSE / sigma)
    collapsed = amplitude * np.sqrt(2 * nu / math.pi) * (1 + nu**-p) * np.exp(-nu / 2)
    density: Floats = _matter_density(cosmology) / mass * collapsed * -spline(np.log(mass), 1)
    return density


def growth_factor(redshift: float | Floats, cosmology: Cosmology = Cosmology()) -> Floats:
    """Return the linear growth of matter fluctuations until a redshift, in units of that until today.

    Source: Heath (1977), as a hypergeometric function for flat ΛCDM.
    """
    ratio = (1 - cosmology.Om0) / cosmology.Om0

    def growth(a: float | Floats) -> Floats:
        found: Floats = np.asarray(a) * hyp2f1(1 / 3, 1, 11 / 6, -ratio * np.asarray(a) ** 3)
        return found

    relative: Floats = growth(1 / (1 + np.asarray(redshift))) / growth(1.0)
    return relative


def mass_deviation(mass: Floats, cosmology: Cosmology = Cosmology()) -> Floats:
    """Return the standard deviation of the linear density in spheres that hold a mass (M☉) in the mean, today."""
    radius = np.cbrt(3 * np.asarray(mass) / (4 * math.pi * _matter_density(cosmology)))
    h = cosmology.H0 / 100
    unscaled: Floats = _deviation(radius, cosmology) * SIGMA_8 / _deviation(np.array([8 / h]), cosmology)
    return unscaled


def transfer_function(k: Floats, cosmology: Cosmology = Cosmology()) -> Floats:
    """Return the transfer function of matter without acoustic oscillations, by the wave number in 1/Mpc.

    Source: Eisenstein & Hu (1998, ApJ 496, 605), eqs. 26 and 28 to 31.
    """
    h, theta = cosmology.H0 / 100, CMB / 2.7
    matter, baryons = cosmology.Om0 * h**2, cosmology.Ob0 * h**2
    share = cosmology.Ob0 / cosmology.Om0
    sound = 44.5 * math.log(9.83 / matter) / math.sqrt(1 + 10 * baryons**0.75)
    alpha = 1 - 0.328 * math.log(431 * matter) * share + 0.38 * math.log(22.3 * matter) * share**2
    shape = cosmology.Om0 * h * (alpha + (1 - alpha) / (1 + (0.43 * k * sound) ** 4))
    q = k / h * theta**2 / shape
    low = np.log(2 * math.e + 1.8 * q)
    transfer: Floats = low / (low + (14.2 + 731 / (1 + 62.5 * q)) * q**2)
    return transfer


def _matter_density(cosmology: Cosmology) -> float:
    """M☉ per comoving Mpc³."""
    return CRITICAL_DENSITY * (cosmology.H0 / 100) ** 2 * cosmology.Om0


def _deviation(radius: Floats, cosmology: Cosmology) -> Floats:
    """The deviation in top-hat spheres of radii (Mpc), of a spectrum with unit amplitude."""
    log_k = np.linspace(math.log(1e-5), math.log(1e6), 16384)
    k = np.exp(log_k)
    power = k ** (SPECTRAL_INDEX + 3) * transfer_function(k, cosmology) ** 2
    squares = []
    for x in (k * r for r in radius.ravel()):
        # For small arguments, the window is its series.
        window = np.where(x < 1e-2, 1 - x**2 / 10, 3 * (np.sin(x) - x * np.cos(x)) / x**3)
        squares.append(np.trapezoid(power * window**2, log_k))
    return np.sqrt(np.array(squares).reshape(radius.shape) / (2 * math.pi**2))


@lru_cache
def _log_sigma(cosmology: Cosmology) -> CubicSpline:
    """The logarithm of `mass_deviation` by that of the mass."""
    grid = np.linspace(math.log(MASSES[0]), math.log(MASSES[1]), 128)
    return CubicSpline(grid, np.log(mass_deviation(np.exp(grid), cosmology)))
