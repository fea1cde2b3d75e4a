"""Truncated NFW halos: the subhalos of cold dark matter.

Density ``ρ(r) = ρ0 / (x (1 + x)²) · τ² / (τ² + x²)`` with ``x = r / Rs`` and ``τ = r_trunc / Rs``, as in lenstronomy's
``TNFW``. Source: Baltz, Marshall & Oguri (2009), appendix A.
"""

import math

import torch
from torch import Tensor


def truncated_nfw_deflection(
    x: Tensor, y: Tensor, *, x0: Tensor, y0: Tensor, Rs: Tensor, alpha_Rs: Tensor, r_trunc: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the deflection by truncated NFW halos; zero at their centres.

    Parameters
    ----------
    x, y, x0, y0
        Image-plane positions and centres of the halos, arcsec, of any broadcastable shapes.
    Rs, r_trunc
        Scale and truncation radius, arcsec.
    alpha_Rs
        Deflection of the same halo *without* truncation at ``Rs``, arcsec (lenstronomy's normalisation).

    Returns
    -------
    Deflection in x and y, arcsec.
    """
    dx, dy = x - x0, y - y0
    u = torch.sqrt(dx.square() + dy.square()).clamp_min(1e-10) / Rs
    scale = alpha_Rs / (Rs * (1 - math.log(2))) * _enclosed(u, r_trunc / Rs) / u.square()
    return scale * dx, scale * dy


def truncated_nfw_mass(Rs: Tensor, alpha_Rs: Tensor, r_trunc: Tensor, sigma_crit: float) -> Tensor:
    """Return the total mass of truncated NFW halos.

    Parameters
    ----------
    Rs, r_trunc
        Scale and truncation radius, arcsec.
    alpha_Rs
        Deflection of the same halo without truncation at ``Rs``, arcsec.
    sigma_crit
        Critical surface density, M☉/arcsec².

    Returns
    -------
    Mass in M☉.

    Source: Baltz, Marshall & Oguri (2009), eq. A.4.
    """
    return math.pi * sigma_crit * Rs * alpha_Rs / (1 - math.log(2)) * _total(r_trunc / Rs)


def truncated_nfw_scale_deflection(mass: Tensor, Rs: Tensor, r_trunc: Tensor, sigma_crit: float) -> Tensor:
    """Return ``alpha_Rs`` of halos of a given total mass: the inverse of `truncated_nfw_mass`.

    Parameters
    ----------
    mass
        *Total* mass, M☉.
    Rs, r_trunc
        Scale and truncation radius, arcsec.
    sigma_crit
        Critical surface density, M☉/arcsec².

    Returns
    -------
    Deflection of the same halo without truncation at ``Rs``, arcsec.
    """
    return mass * (1 - math.log(2)) / (math.pi * sigma_crit * Rs * _total(r_trunc / Rs))


def _total(tau: Tensor) -> Tensor:
    """Mass to infinity in units of 4π ρ0 Rs³."""
    t2 = tau.square()
    return t2 / (t2 + 1).square() * ((t2 - 1) * torch.log(tau) + tau * math.pi - (t2 + 1))


def _enclosed(u: Tensor, tau: Tensor) -> Tensor:
    """Mass in the cylinder of radius ``u = R / Rs`` in units of 4π ρ0 Rs³. Eq. A.11."""
    t2, u2 = tau.square(), u.square()
    root = torch.sqrt(t2 + u2)
    log = torch.log(u / (tau + root))
    terms = (
        (t2 + 2 * u2 - 1) * _nfw_function(u)
        + tau * math.pi
        + (t2 - 1) * torch.log(tau)
        + root * (-math.pi + log * (t2 - 1) / tau)
    )
    return t2 / (t2 + 1).square() * terms


def _nfw_function(u: Tensor) -> Tensor:
    """``arccos(1/u) / √(u² - 1)``, continued to u < 1 by ``arccosh``, with its Taylor series about u = 1. Eq. A.5."""
    # Below, each branch is kept away from u = 1, where it is 0/0 and its gradient is not a number.
    series = torch.finfo(u.dtype).eps ** 0.2
    d = u - 1
    near = 1 + d * (-2 / 3 + d * (7 / 15 + d * (-12 / 35 + d * 83 / 315)))
    inner, outer = u.clamp_max(1 - series), u.clamp_min(1 + series)
    w_in, w_out = torch.sqrt(1 - inner.square()), torch.sqrt(outer.square() - 1)
    return torch.where(d.abs() < series, near, torch.where(d < 0, torch.atanh(w_in) / w_in, torch.atan(w_out) / w_out))
