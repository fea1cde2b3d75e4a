"""Einstein radii and scale radii in arcsec from masses and redshifts, with astropy's distances in float64.

A redshift is a number, or an array with one for each mass. Distances of a flat ΛCDM cosmology are elliptic integrals, which
astropy computes for whole arrays: 64 pairs of redshifts take 50 µs, exact to rounding, so that nothing is interpolated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from astropy.cosmology import FlatLambdaCDM

Mass = TypeVar("Mass", float, np.ndarray, torch.Tensor)
Redshift = float | NDArray[np.float64]
Z = TypeVar("Z", bound=Redshift)
Function = TypeVar("Function", bound=Callable[..., Any])

ARCSEC_PER_RADIAN = 180 * 3600 / math.pi
ARCSEC_PER_RADIAN_DEEPLENSE = 206265.0
"""The rounded value in DeepLense's code: larger than the exact one by 9e-7 of it."""


class Cosmology(NamedTuple):
    """A flat ΛCDM cosmology: Hubble constant in km/s/Mpc, matter and baryon density today."""

    H0: float = 70.0
    Om0: float = 0.3
    Ob0: float = 0.05


def remembered(function: Function) -> Function:
    """Remember what a function returned for numbers; for arrays, it is computed each time."""
    cached = lru_cache(function)

    @wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        arrays = any(isinstance(one, np.ndarray) for one in (*arguments, *named.values()))
        return (function if arrays else cached)(*arguments, **named)

    called.cache_clear = cached.cache_clear  # type: ignore[attr-defined]
    return called  # type: ignore[return-value]


def einstein_radius(mass: Mass, z_lens: Redshift, z_source: Redshift, cosmology: Cosmology = Cosmology()) -> Mass:
    """Return the Einstein radius of a point mass, from angular-diameter distances.

    Parameters
    ----------
    mass
        Mass in M☉; a number or an array or tensor of any shape.
    z_lens, z_source
        Redshifts of deflector and source; ``z_source`` must be the larger. Numbers, or arrays of the shape of ``mass``.
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
    return _root(mass) * _like(mass, _einstein_radius_of_one_solar_mass(z_lens, z_source, cosmology))


def einstein_radius_luminosity_distance(
    mass: Mass, z_lens: Redshift, z_source: Redshift, cosmology: Cosmology = Cosmology()
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
        Redshifts of deflector and source; ``z_source`` must be the larger. Numbers, or arrays of the shape of ``mass``.
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
    return _root(mass) * _like(mass, _deeplense_radius_of_one_solar_mass(z_lens, z_source, cosmology))


@remembered
def critical_surface_density(z_lens: Z, z_source: Z, cosmology: Cosmology = Cosmology()) -> Z:
    """Return the critical surface density: the mass inside an Einstein radius over the area of its circle.

    Parameters
    ----------
    z_lens, z_source
        Redshifts of deflector and source; ``z_source`` must be the larger. Numbers, or arrays of equal shape.
    cosmology
        Cosmology of the distances.

    Returns
    -------
    Σ_crit in M☉ per arcsec², a number or an array.
    """
    density: Any = 1 / (math.pi * _einstein_radius_of_one_solar_mass(z_lens, z_source, cosmology) ** 2)
    return density


@remembered
def deflection_rescaling(z_lens: Z, z_source: Z, z_source_convention: float, cosmology: Cosmology = Cosmology()) -> Z:
    """Return the factor that rescales reduced deflection angles from one source redshift to another.

    Parameters
    ----------
    z_lens
        Redshift of the deflector, below both others; a number or an array.
    z_source
        Redshift of the source that is seen; of the same shape.
    z_source_convention
        Redshift of the source that the angles are quoted for.
    cosmology
        Cosmology of the distances.

    Returns
    -------
    ``D_LS(z_source) D_S(z_source_convention) / (D_S(z_source) D_LS(z_source_convention))``.
    """
    model = _ordered(z_lens, z_source, cosmology)

    def efficiency(z: Redshift) -> Redshift:
        return _number((model.angular_diameter_distance(z_lens, z) / model.angular_diameter_distance(z)).to_value(""))

    ratio: Any = efficiency(z_source) / efficiency(z_source_convention)
    return ratio


@remembered
def kpc_per_arcsec(redshift: Z, cosmology: Cosmology = Cosmology()) -> Z:
    """Return the proper transverse size of one arcsecond at a redshift, or at each of an array, kpc."""
    distance = _astropy(cosmology).angular_diameter_distance(redshift).to_value("kpc")
    return _number(distance / ARCSEC_PER_RADIAN)


def comoving_distance(redshift: NDArray[np.float64], cosmology: Cosmology = Cosmology()) -> NDArray[np.float64]:
    """Return the comoving distances to redshifts, Mpc, of the same shape."""
    found: NDArray[np.float64] = _astropy(cosmology).comoving_distance(redshift).to_value("Mpc")
    return found


def hubble_distance(redshift: NDArray[np.float64], cosmology: Cosmology = Cosmology()) -> NDArray[np.float64]:
    """Return c / H at redshifts, Mpc: the comoving depth of a unit of redshift."""
    model = _astropy(cosmology)
    found: NDArray[np.float64] = model.hubble_distance.to_value("Mpc") * model.inv_efunc(redshift)
    return found


def nfw_concentration(mass: Mass, redshift: Redshift, cosmology: Cosmology = Cosmology()) -> Mass:
    """Return the median concentration of NFW halos.

    Parameters
    ----------
    mass
        M200 with respect to the critical density, M☉.
    redshift
        Redshift of the halos; a number, or an array of the shape of ``mass``.
    cosmology
        Gives the Hubble constant.

    Returns
    -------
    r200 / Rs, of the shape of ``mass``.

    Source: Dutton & Macciò (2014, MNRAS 441, 3359), eqs. 8, 10 and 11.
    """
    # NumPy's exponential may differ from that of one number in the last digit, which published catalogues keep.
    exp: Callable[[Any], Any] = np.exp if isinstance(redshift, np.ndarray) else math.exp
    slope = -0.101 + 0.026 * redshift
    offset = 0.520 + (0.905 - 0.520) * exp(-0.617 * redshift**1.21)
    return _like(mass, 10**offset) * (mass * (cosmology.H0 / 100 / 1e12)) ** _like(mass, slope)


def nfw_scale_radius(
    mass: Mass, concentration: Mass | float, redshift: Redshift, cosmology: Cosmology = Cosmology()
) -> Mass:
    """Return the scale radius of NFW halos.

    Parameters
    ----------
    mass
        M200 with respect to the critical density, M☉.
    concentration
        r200 / Rs, of the shape of ``mass``.
    redshift
        Redshift of the halos; a number, or an array of the shape of ``mass``.
    cosmology
        Cosmology of the critical density and of the distance.

    Returns
    -------
    Scale radius in arcsec, of the shape of ``mass``.
    """
    density = _astropy(cosmology).critical_density(redshift).to_value("Msun/kpc3")
    virial_radius = (mass * _like(mass, 3 / (4 * math.pi * 200 * density))) ** (1 / 3)
    return virial_radius / concentration / _like(mass, kpc_per_arcsec(redshift, cosmology))


@remembered
def _einstein_radius_of_one_solar_mass(z_lens: Redshift, z_source: Redshift, cosmology: Cosmology) -> Redshift:
    model = _ordered(z_lens, z_source, cosmology)
    d_lens = model.angular_diameter_distance(z_lens)
    d_source = model.angular_diameter_distance(z_source)
    d_lens_source = model.angular_diameter_distance(z_lens, z_source)
    return _radius(d_lens_source / (d_lens * d_source)) * ARCSEC_PER_RADIAN


@remembered
def _deeplense_radius_of_one_solar_mass(z_lens: Redshift, z_source: Redshift, cosmology: Cosmology) -> Redshift:
    model = _ordered(z_lens, z_source, cosmology)
    d_lens, d_source = model.luminosity_distance(z_lens), model.luminosity_distance(z_source)
    return _radius((d_source - d_lens) / (d_lens * d_source)) * ARCSEC_PER_RADIAN_DEEPLENSE


def _radius(inverse_distance: Any) -> Redshift:
    from astropy import constants

    return _number(np.sqrt((4 * constants.G * constants.M_sun / constants.c**2 * inverse_distance).to_value("")))


def _number(value: Any) -> Any:
    """An array as it is, and what NumPy has for one number as a float."""
    return value if np.ndim(value) else float(value)


def _like(mass: Any, values: Any) -> Any:
    """An array as a tensor, if masses are one."""
    return torch.as_tensor(values) if isinstance(mass, torch.Tensor) and isinstance(values, np.ndarray) else values


def _ordered(z_lens: Redshift, z_source: Redshift, cosmology: Cosmology) -> FlatLambdaCDM:
    if not np.all((np.asarray(z_lens) > 0) & (np.asarray(z_source) > z_lens)):
        raise ValueError(f"the source must lie behind the deflector: z_lens={z_lens}, z_source={z_source}")
    return _astropy(cosmology)


@lru_cache
def _astropy(cosmology: Cosmology) -> FlatLambdaCDM:
    from astropy.cosmology import FlatLambdaCDM

    return FlatLambdaCDM(H0=cosmology.H0, Om0=cosmology.Om0, Ob0=cosmology.Ob0)


def _root(mass: Mass) -> Mass:
    return mass**0.5
