"""Reduced deflection angles of the deflectors that darklens simulates.

Every function takes image-plane positions ``x, y`` and parameters of any broadcastable shapes and returns the two
components of the deflection in arcsec. Many deflectors are summed by giving each a place in a last dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor

from darklens.physics.ellipticity import axis_ratio_and_angle, rotate

Deflection = tuple[Tensor, Tensor]


def point_mass_deflection(x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, theta_E: Tensor) -> Deflection:
    """Deflection by point masses at ``x0, y0`` with Einstein radius ``theta_E``, arcsec. Zero at the mass itself.

    Source: Schneider, Kochanek & Wambsganss (2006), eq. 23.
    """
    dx, dy = x - x0, y - y0
    scale = theta_E.square() / (dx.square() + dy.square()).clamp_min(1e-20)
    return scale * dx, scale * dy


def sis_deflection(x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, theta_E: Tensor) -> Deflection:
    """Deflection by singular isothermal spheres: of constant size ``theta_E`` (arcsec), away from the centre."""
    dx, dy = x - x0, y - y0
    scale = theta_E * torch.rsqrt((dx.square() + dy.square()).clamp_min(1e-24))
    return scale * dx, scale * dy


def sie_deflection(x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, theta_E: Tensor, e1: Tensor, e2: Tensor) -> Deflection:
    """Deflection by singular isothermal ellipsoids.

    ``theta_E`` (arcsec) is the product average √(ab) of the critical ellipse, as in lenstronomy.
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
    x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, theta_E: Tensor, gamma: Tensor, e1: Tensor, e2: Tensor
) -> Deflection:
    """Deflection by elliptical power laws with three-dimensional slope ``gamma`` (2: isothermal).

    The series of Tessore & Metcalf (2015), eqs. 13 and 29, as caustics implements it. It converges like
    ``((1 - q) / (1 + q))**n``; the 40 terms taken here are exact to 1e-9 for axis ratios above 0.26.
    """
    from caustics.lenses.func import reduced_deflection_angle_epl

    q, phi = axis_ratio_and_angle(e1, e2)
    return reduced_deflection_angle_epl(x0, y0, q, phi, theta_E, gamma - 1, x, y, n_iter=40, chunk_size=1)


def shear_deflection(x: Tensor, y: Tensor, gamma1: Tensor, gamma2: Tensor) -> Deflection:
    """Deflection by an external shear about the origin."""
    return gamma1 * x + gamma2 * y, gamma2 * x - gamma1 * y


def line_mass_deflection(
    x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, half_length: Tensor, phi: Tensor, theta_E: Tensor
) -> Deflection:
    """Deflection by a uniform line mass (an idealised axion vortex), in closed form.

    The complex deflection of the line from -L to L is the integral of that of a point mass,
    ``conj(α) = θ_E² / 2L · log[(z + L) / (z - L)]``, whose branch cut is the line itself. Written with ``atanh`` and
    ``atan2`` it keeps its precision far from the line and for short lines.

    Parameters
    ----------
    x0, y0
        Centre of the line, arcsec.
    half_length
        Half of its length, arcsec, above zero.
    phi
        Its direction, radians counter-clockwise from +x.
    theta_E
        Einstein radius of its whole mass as a point, arcsec.
    """
    u, v = rotate(x - x0, y - y0, phi)
    r2, l2 = u.square() + v.square(), half_length.square()
    scale = theta_E.square() / (2 * half_length)
    along = scale * torch.atanh(2 * u * half_length / (r2 + l2))
    across = scale * torch.atan2(2 * v * half_length, r2 - l2)
    return rotate(along, across, -phi)


def vortex_point_masses(
    x0: Tensor, y0: Tensor, half_length: Tensor, phi: Tensor, theta_E: Tensor, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """A vortex as the published data have it: ``count`` equal point masses, evenly spaced, ends included.

    Parameters are those of `line_mass_deflection`, of shape (N,). Returns ``x0, y0, theta_E`` of the masses, (N, count).
    """
    t = torch.linspace(-1, 1, count, dtype=half_length.dtype, device=half_length.device) * half_length[:, None]
    x = x0[:, None] + t * torch.cos(phi)[:, None]
    y = y0[:, None] + t * torch.sin(phi)[:, None]
    return x, y, (theta_E / count**0.5)[:, None].expand_as(x)
