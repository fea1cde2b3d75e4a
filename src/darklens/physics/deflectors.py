"""Reduced deflection angles of the deflectors that darklens simulates.

Every deflection takes image-plane positions ``x, y`` and parameters of any broadcastable shapes and returns the two
components of the deflection in arcsec. To sum over many deflectors, give the parameters a last dimension of them, the
positions one of length 1, and sum over it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from darklens.physics.coordinates import axis_ratio_and_angle, rotate

Deflection = tuple[Tensor, Tensor]


def point_mass_deflection(x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, theta_E: Tensor) -> Deflection:
    """Return the deflection by point masses; zero at the mass itself.

    Parameters
    ----------
    x, y
        Image-plane positions, arcsec.
    x0, y0, theta_E
        Position and Einstein radius of each mass, arcsec.

    Returns
    -------
    Deflection in x and y, arcsec.

    Source: Schneider, Kochanek & Wambsganss (2006), eq. 23.
    """
    dx, dy = x - x0, y - y0
    scale = theta_E.square() / (dx.square() + dy.square()).clamp_min(1e-20)
    return scale * dx, scale * dy


def sis_deflection(x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, theta_E: Tensor) -> Deflection:
    """Return the deflection by singular isothermal spheres; zero at their centres.

    Parameters
    ----------
    x, y
        Image-plane positions, arcsec.
    x0, y0, theta_E
        Centre and Einstein radius of each sphere, arcsec.

    Returns
    -------
    Deflection in x and y, arcsec, of the constant modulus ``theta_E``.
    """
    dx, dy = x - x0, y - y0
    scale = theta_E * torch.rsqrt((dx.square() + dy.square()).clamp_min(1e-24))
    return scale * dx, scale * dy


def sie_deflection(
    x: Tensor, y: Tensor, *, x0: Tensor, y0: Tensor, theta_E: Tensor, e1: Tensor, e2: Tensor
) -> Deflection:
    """Return the deflection by singular isothermal ellipsoids.

    Parameters
    ----------
    x, y
        Image-plane positions, arcsec.
    x0, y0
        Centre of each ellipsoid, arcsec.
    theta_E
        Einstein radius, arcsec: the product average √(ab) of the critical ellipse, as in lenstronomy.
    e1, e2
        Ellipticity components.

    Returns
    -------
    Deflection in x and y, arcsec.

    Source: Kormann, Schneider & Bartelmann (1994), eq. 27; Keeton & Kochanek (1998).
    """
    q, phi = axis_ratio_and_angle(e1, e2)
    u, v = rotate(x - x0, y - y0, phi)
    # The round limit: with f below 1e-4 the correction to the isothermal sphere is under 1e-8.
    f = torch.sqrt((1 - q.square()).clamp_min(1e-8))
    psi = torch.sqrt((q.square() * u.square() + v.square()).clamp_min(1e-24))
    scale = theta_E * torch.sqrt(q) / f
    return rotate(scale * torch.atan(f * u / psi), scale * torch.atanh(f * v / psi), -phi)


def epl_deflection(
    x: Tensor, y: Tensor, *, x0: Tensor, y0: Tensor, theta_E: Tensor, gamma: Tensor, e1: Tensor, e2: Tensor
) -> Deflection:
    """Return the deflection by elliptical power laws.

    Parameters
    ----------
    x, y
        Image-plane positions, arcsec.
    x0, y0
        Centre of each deflector, arcsec.
    theta_E
        Einstein radius, arcsec: the product average √(ab) of the critical ellipse, as in lenstronomy.
    gamma
        Slope of the three-dimensional density; 2 is isothermal.
    e1, e2
        Ellipticity components.

    Returns
    -------
    Deflection in x and y, arcsec.

    Source: the series of Tessore & Metcalf (2015), eqs. 13 and 29, as caustics implements it. It converges like
    ``((1 - q) / (1 + q))**n``; the 40 terms taken here are exact to 1e-9 for axis ratios above 0.26.
    """
    from caustics.lenses.func import reduced_deflection_angle_epl

    q, phi = axis_ratio_and_angle(e1, e2)
    return reduced_deflection_angle_epl(x0, y0, q, phi, theta_E, gamma - 1, x, y, n_iter=40, chunk_size=1)


def shear_deflection(x: Tensor, y: Tensor, gamma1: Tensor, gamma2: Tensor) -> Deflection:
    """Return the deflection by an external shear about the origin.

    Parameters
    ----------
    x, y
        Image-plane positions, arcsec.
    gamma1, gamma2
        Shear components.

    Returns
    -------
    Deflection in x and y, arcsec.
    """
    return gamma1 * x + gamma2 * y, gamma2 * x - gamma1 * y


def line_mass_deflection(
    x: Tensor, y: Tensor, *, x0: Tensor, y0: Tensor, half_length: Tensor, phi: Tensor, theta_E: Tensor
) -> Deflection:
    """Return the deflection by a uniform line mass (an idealised axion vortex), in closed form.

    The complex deflection of the line from -L to L is the integral of that of a point mass,
    ``conj(α) = θ_E² / 2L · log[(z + L) / (z - L)]``, whose branch cut is the line itself. Written with ``log1p`` and
    ``atan2`` it keeps its precision far from the line, for short lines, and near the ends, where it grows as a logarithm.

    Parameters
    ----------
    x, y
        Image-plane positions, arcsec.
    x0, y0
        Centre of the line, arcsec.
    half_length
        Half of its length, arcsec, above zero.
    phi
        Its direction, radians counter-clockwise from +x.
    theta_E
        Einstein radius of its whole mass as a point, arcsec.

    Returns
    -------
    Deflection in x and y, arcsec. Its component across the line jumps there; closer to an end than 1e-10″ the one along
    it grows no further.
    """
    u, v = rotate(x - x0, y - y0, phi)
    scale = theta_E.square() / (2 * half_length)
    sign = torch.copysign(torch.ones_like(u), u)
    ahead = sign * u  # |u|, with the right slope at 0
    beyond = ahead - half_length
    to_end = (beyond.square() + v.square()).clamp_min(1e-20)
    along = scale / 2 * sign * torch.log1p(4 * ahead * half_length / to_end)
    across = scale * torch.atan2(2 * v * half_length, beyond * (ahead + half_length) + v.square())
    return rotate(along, across, -phi)


def vortex_point_masses(
    x0: Tensor, y0: Tensor, half_length: Tensor, phi: Tensor, theta_E: Tensor, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the point masses that stand for a vortex in the published data: equal, evenly spaced, ends included.

    Parameters
    ----------
    x0, y0
        Centre of each vortex, arcsec, (N,).
    half_length
        Half of its length, arcsec, (N,).
    phi
        Its direction, radians counter-clockwise from +x, (N,).
    theta_E
        Einstein radius of its whole mass as a point, arcsec, (N,).
    count
        Point masses in each vortex.

    Returns
    -------
    ``x0, y0, theta_E`` of the masses, arcsec, each (N, count).
    """
    t = torch.linspace(-1, 1, count, dtype=half_length.dtype, device=half_length.device) * half_length[:, None]
    x = x0[:, None] + t * torch.cos(phi)[:, None]
    y = y0[:, None] + t * torch.sin(phi)[:, None]
    return x, y, (theta_E / count**0.5)[:, None].expand_as(x)
