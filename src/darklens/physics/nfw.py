"""Truncated NFW halos: the subhalos of cold dark matter.

Density ``ρ(r) = ρ0 / (x (1 + x)²) · τ² / (τ² + x²)`` with ``x = r / Rs`` and ``τ = r_trunc / Rs``, as in lenstronomy's
``TNFW``. Source: Baltz, Marshall & Oguri (2009), appendix A.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

REPETITIONS = 16
"""Of the search for M200, to the last digit in float64: a concentration goes as M200 to a power of about -0.1, and M200 as
the concentration to one of about 0.6."""


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
    return truncated_nfw_of_terms(x, y, x0=x0, y0=y0, **truncated_nfw_terms(Rs=Rs, alpha_Rs=alpha_Rs, r_trunc=r_trunc))


def truncated_nfw_terms(*, Rs: Tensor, alpha_Rs: Tensor, r_trunc: Tensor) -> dict[str, Tensor]:
    """Return what `truncated_nfw_of_terms` takes of each halo, so that it is not computed anew for each position.

    Parameters
    ----------
    Rs, alpha_Rs, r_trunc
        Those of `truncated_nfw_deflection`.

    Returns
    -------
    ``Rs``, ``tau = r_trunc / Rs`` and a factor in arcsec², by the names of the arguments.
    """
    tau = r_trunc / Rs
    t2 = tau.square()
    factor = alpha_Rs * Rs / (1 - math.log(2)) * (t2 / (t2 + 1).square())
    return {"Rs": Rs, "tau": tau, "factor": factor}


def truncated_nfw_of_terms(
    x: Tensor, y: Tensor, *, x0: Tensor, y0: Tensor, Rs: Tensor, tau: Tensor, factor: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the deflection of `truncated_nfw_deflection`.

    Parameters
    ----------
    x, y, x0, y0
        As there.
    Rs, tau, factor
        What `truncated_nfw_terms` returns.

    Returns
    -------
    Deflection in x and y, arcsec.
    """
    dx, dy = x - x0, y - y0
    square = (dx.square() + dy.square()).clamp_min(1e-20)
    scale = factor * _enclosed(torch.sqrt(square) / Rs, tau) / square
    return scale * dx, scale * dy


def truncated_nfw_mass(Rs: Tensor, alpha_Rs: Tensor, r_trunc: Tensor, sigma_crit: float | Tensor) -> Tensor:
    """Return the total mass of truncated NFW halos.

    Parameters
    ----------
    Rs, r_trunc
        Scale and truncation radius, arcsec.
    alpha_Rs
        Deflection of the same halo without truncation at ``Rs``, arcsec.
    sigma_crit
        Critical surface density, M☉/arcsec²; a number, or one for each halo.

    Returns
    -------
    Mass in M☉.

    Source: Baltz, Marshall & Oguri (2009), eq. A.4.
    """
    return math.pi * sigma_crit * Rs * alpha_Rs / (1 - math.log(2)) * _total(r_trunc / Rs)


def truncated_nfw_scale_deflection(mass: Tensor, Rs: Tensor, r_trunc: Tensor, sigma_crit: float | Tensor) -> Tensor:
    """Return ``alpha_Rs`` of halos of a given total mass: the inverse of `truncated_nfw_mass`.

    Parameters
    ----------
    mass
        *Total* mass, M☉.
    Rs, r_trunc
        Scale and truncation radius, arcsec.
    sigma_crit
        Critical surface density, M☉/arcsec²; a number, or one for each halo.

    Returns
    -------
    Deflection of the same halo without truncation at ``Rs``, arcsec.
    """
    return mass * (1 - math.log(2)) / (math.pi * sigma_crit * Rs * _total(r_trunc / Rs))


def truncated_nfw_share(tau: Tensor, concentration: Tensor) -> Tensor:
    """Return the total mass of truncated NFW halos in units of M200 of the same halos without truncation.

    Parameters
    ----------
    tau
        Truncation radius in scale radii.
    concentration
        r200 / Rs.

    Returns
    -------
    A factor, of their shape.

    Source: Baltz, Marshall & Oguri (2009), eq. A.4.
    """
    return _total(tau) / (torch.log1p(concentration) - concentration / (1 + concentration))


def nfw_mass_before_truncation(
    mass: Tensor, tau: Tensor, concentration: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Return M200 of the halos without truncation that truncated ones of a given total mass once were.

    The total mass is M200 times a factor of truncation and concentration, which itself depends on M200: solved by
    repetition, each of which lowers the error at least tenfold.

    Parameters
    ----------
    mass
        *Total* mass, M☉.
    tau
        Truncation radius in scale radii.
    concentration
        r200 / Rs of halos of given M200.

    Returns
    -------
    M200 in M☉, and the concentration.
    """
    before = mass
    for _ in range(REPETITIONS):
        c = concentration(before)
        before = mass * (torch.log1p(c) - c / (1 + c)) / _total(tau)
    return before, concentration(before)


def _total(tau: Tensor) -> Tensor:
    """Mass to infinity in units of 4π ρ0 Rs³."""
    t2 = tau.square()
    return t2 / (t2 + 1).square() * ((t2 - 1) * torch.log(tau) + tau * math.pi - (t2 + 1))


def _enclosed(u: Tensor, tau: Tensor) -> Tensor:
    """Mass in the cylinder of radius ``u = R / Rs`` in units of 4π ρ0 Rs³ τ² / (τ² + 1)².

    This is eq. A.11, with the terms that cancel each other for small and for large ``u`` taken together. F is that of
    eq. A.5. What is not used of a branch is finite, and so are its gradients.
    """
    t2, u2, d, log = tau.square(), u.square(), u - 1, torch.log(u / 2)
    series = torch.finfo(u.dtype).eps ** 0.2
    w = torch.rsqrt((d * (u + 1)).abs().clamp_min(series))  # 1 / √|u² - 1|
    arc = torch.atan(w)  # arcsin(1 / u) for u above 1
    # Mass without truncation, log(u / 2) + F: its Taylor series about 1, and F by logarithms below and by arcs above.
    near = log + 1 + d * (-2 / 3 + d * (7 / 15 + d * (-12 / 35 + d * 83 / 315)))
    part = u2.clamp_max(1) * w / (1 + w)
    below = (torch.log1p(-part / 2) - part * log) * w
    above = log + (math.pi / 2 - arc) * w
    mass = torch.where(d.abs() < series, near, torch.where(d < 0, below, above))
    root = torch.sqrt(t2 + u2)
    longer = u2 / (tau + root)  # root - tau
    arsinh = torch.log1p(tau / u * (1 + tau / (root + u)))  # of tau / u
    bracket = mass - torch.log1p(longer / (2 * tau)) - longer / tau * arsinh
    # 2 u² F - π (root - tau), for u below 2, where F does not vanish, and above, by u² w - root.
    inner = 2 * u2 * (mass - log) - math.pi * longer
    outer = math.pi * (tau + (t2 + u2 * (1 - t2)) * w**2 / (u2 * w + root)) - 2 * u2 * arc * w
    return (t2 - 1) * bracket + torch.where(u < 2, inner, outer)
