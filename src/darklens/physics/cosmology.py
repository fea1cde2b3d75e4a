"""Einstein radii and scale radii in arcsec from masses and redshifts, with astropy's distances in float64."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import torch

if TYPE_CHECKING:
    from astropy.cosmology import FlatLambdaCDM

Mass = TypeVar("Mass", float, np.ndarray, torch.Tensor)

ARCSEC_PER_RADIAN = 180 * 3600 / math.pi
ARCSEC_PER_RADIAN_DEEPLENSE = 206265.0
"""The rounded value in DeepLense's code: larger than the exact one by 9e-7 of it."""


class Cosmology(NamedTuple):
    """A flat ΛCDM cosmology: Hubble constant in km/s/Mpc, matter and baryon density today."""

    H0: float = 70.0
    Om0: float = 0.3
    Ob0: float = 0.05


def einstein_radius(mass: Mass, z_lens: float, z_source: float, cosmology: Cosmology = Cosmology()) -> Mass:
    """Return the Einstein radius of a point mass, from angular-diameter distances.

    Parameters
    ----------
    mass
        Mass in M☉; a number or an array or tensor of any shape.
    z_lens, z_source
        Redshifts of deflector and source; ``z_source`` must be the larger.
    cosmology
        Cosmology of the distances.

    Returns
    -------
    θ_E in arcsec, of the shape of ``mass``.

    Raises
    ------
    ValueError
        If the source does not lie behind the deflector.

    Source: Schneider, Kochanek & Wambsganss (2006), eq. 24.
    """
    return _root(mass) * _einstein_radius_of_one_solar_mass(z_lens, z_source, cosmology)


def einstein_radius_luminosity_distance(
    mass: Mass, z_lens: float, z_source: float, cosmology: Cosmology = Cosmology()
) -> Mass:
    """Return the Einstein radius of a point mass as the published DeepLense data have it.

    DeepLense uses *luminosity* distances, with ``D_LS = D_S - D_L``, where the physics asks for angular-diameter
    distances, and 206265 arcsec in a radian. Use it only to reproduce those data: 1e12 M☉ at redshift 0.5 in front
    of 1.0 gives 1.2814905676″.

    Parameters
    ----------
    mass
        Mass in M☉; a number or an array or tensor of any shape.
    z_lens, z_source
        Redshifts of deflector and source; ``z_source`` must be the larger.
    cosmology
        Cosmology of the distances.

    Returns
    -------
    θ_E in arcsec, of the shape of ``mass``.

    Raises
    ------
    ValueError
        If the source does not lie behind the deflector.
    """
    return _root(mass) * _deeplense_radius_of_one_solar_mass(z_lens, z_source, cosmology)


@lru_cache
def critical_surface_density(z_lens: float, z_source: float, cosmology: Cosmology = Cosmology()) -> float:
    """Return the critical surface density: the mass inside an Einstein radius over the area of its circle.

    Parameters
    ----------
    z_lens, z_source
        Redshifts of deflector and source; ``z_source`` must be the larger.
    cosmology
        Cosmology of the distances.

    Returns
    -------
    Σ_crit in M☉ per arcsec².
    """
    return 1 / (math.pi * _einstein_radius_of_one_solar_mass(z_lens, z_source, cosmology) ** 2)


@lru_cache
def deflection_rescaling(
    z_lens: float, z_source: float, z_source_convention: float, cosmology: Cosmology = Cosmology()
) -> float:
    """Return the factor that rescales reduced deflection angles from one source redshift to another.

    Parameters
    ----------
    z_lens
        Redshift of the deflector, below both others.
    z_source
        Redshift of the source that is seen.
    z_source_convention
        Redshift of the source that the angles are quoted for.
    cosmology
        Cosmology of the distances.

    Returns
    -------
    ``D_LS(z_source) D_S(z_source_convention) / (D_S(z_source) D_LS(z_source_convention))``.
    """
    model = _ordered(z_lens, z_source, cosmology)

    def efficiency(z: float) -> float:
        return float(model.angular_diameter_distance(z_lens, z) / model.angular_diameter_distance(z))

    return efficiency(z_source) / efficiency(z_source_convention)


@lru_cache
def kpc_per_arcsec(redshift: float, cosmology: Cosmology = Cosmology()) -> float:
    """Return the proper transverse size of one arcsecond at a redshift, kpc."""
    distance = _astropy(cosmology).angular_diameter_distance(redshift).to_value("kpc")
    return float(distance / ARCSEC_PER_RADIAN)


def nfw_concentration(mass: Mass, redshift: float, cosmology: Cosmology = Cosmology()) -> Mass:
    """Return the median concentration of NFW halos.

    Parameters
    ----------
    mass
        M200 with respect to the critical density, M☉.
    redshift
        Redshift of the halos.
    cosmology
        Gives the Hubble constant.

    Returns
    -------
    r200 / Rs, of the shape of ``mass``.

    Source: Dutton & Macciò (2014, MNRAS 441, 3359), eqs. 8, 10 and 11.
    """
    slope = -0.101 + 0.026 * redshift
    offset = 0.520 + (0.905 - 0.520) * math.exp(-0.617 * redshift**1.21)
    return 10**offset * (mass * (cosmology.H0 / 100 / 1e12)) ** slope


def nfw_scale_radius(
    mass: Mass, concentration: Mass | float, redshift: float, cosmology: Cosmology = Cosmology()
) -> Mass:
    """Return the scale radius of NFW halos.

    Parameters
    ----------
    mass
        M200 with respect to the critical density, M☉.
    concentration
        r200 / Rs, of the shape of ``mass``.
    redshift
        Redshift of the halos.
    cosmology
        Cosmology of the critical density and of the distance.

    Returns
    -------
    Scale radius in arcsec, of the shape of ``mass``.
    """
    density = _astropy(cosmology).critical_density(redshift).to_value("Msun/kpc3")
    virial_radius = (mass * (3 / (4 * math.pi * 200 * density))) ** (1 / 3)
    return virial_radius / concentration / kpc_per_arcsec(redshift, cosmology)


@lru_cache
def _einstein_radius_of_one_solar_mass(z_lens: float, z_source: float, cosmology: Cosmology) -> float:
    model = _ordered(z_lens, z_source, cosmology)
    d_lens = model.angular_diameter_distance(z_lens)
    d_source = model.angular_diameter_distance(z_source)
    d_lens_source = model.angular_diameter_distance(z_lens, z_source)
    return _radius(d_lens_source / (d_lens * d_source)) * ARCSEC_PER_RADIAN


@lru_cache
def _deeplense_radius_of_one_solar_mass(z_lens: float, z_source: float, cosmology: Cosmology) -> float:
    model = _ordered(z_lens, z_source, cosmology)
    d_lens, d_source = model.luminosity_distance(z_lens), model.luminosity_distance(z_source)
    return _radius((d_source - d_lens) / (d_lens * d_source)) * ARCSEC_PER_RADIAN_DEEPLENSE


def _radius(inverse_distance: Any) -> float:
    from astropy import constants

    return float(np.sqrt((4 * constants.G * constants.M_sun / constants.c**2 * inverse_distance).to_value("")))


def _ordered(z_lens: float, z_source: float, cosmology: Cosmology) -> FlatLambdaCDM:
    if not 0 < z_lens < z_source:
        raise ValueError(f"the source must lie behind the deflector: z_lens={z_lens}, z_source={z_source}")
    return _astropy(cosmology)


@lru_cache
def _astropy(cosmology: Cosmology) -> FlatLambdaCDM:
    from astropy.cosmology import FlatLambdaCDM

    return FlatLambdaCDM(H0=cosmology.H0, Om0=cosmology.Om0, Ob0=cosmology.Ob0)


def _root(mass: Mass) -> Mass:
    return mass**0.5
