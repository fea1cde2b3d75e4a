"""Reduced deflection angles of the deflectors that darklens simulates.

Every deflection takes image-plane positions ``x, y`` and parameters of any broadcastable shapes and returns the two
components of the deflection in arcsec. To sum over many deflectors, give the parameters a last dimension of them, the
positions one of length 1, and sum over it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from darklens.physics.coordinates import axis_ratio_and_angle, nearly_round

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
    near, safe = nearly_round(e1, e2)
    ax, ay = kormann_deflection(x, y, x0=x0, y0=y0, theta_E=theta_E, e1=safe, e2=e2)
    bx, by = _nearly_round_direction(*_direction(x - x0, y - y0), e1, e2, slope=1.0)
    return torch.where(near, theta_E * bx, ax), torch.where(near, theta_E * by, ay)


def kormann_deflection(
    x: Tensor, y: Tensor, *, x0: Tensor, y0: Tensor, theta_E: Tensor, e1: Tensor, e2: Tensor
) -> Deflection:
    """Return the deflection by singular isothermal ellipsoids that are not round, where derivatives are asked for.

    Parameters
    ----------
    x, y, x0, y0, theta_E, e1, e2
        Those of `sie_deflection`, which is slower and differentiable at the circle too.

    Returns
    -------
    Deflection in x and y, arcsec.
    """
    return kormann_along_axes(x, y, x0=x0, y0=y0, **kormann_axes(theta_E=theta_E, e1=e1, e2=e2))


def kormann_axes(*, theta_E: Tensor, e1: Tensor, e2: Tensor) -> dict[str, Tensor]:
    """Return what `kormann_along_axes` takes of each ellipsoid, so that it is not computed anew for each position.

    Parameters
    ----------
    theta_E, e1, e2
        Those of `sie_deflection`.

    Returns
    -------
    Cosine and sine of the major axis's angle, axis ratio ``q``, ``f = √(1 - q²)`` and ``scale``, in arcsec, by these names.
    """
    q, phi = axis_ratio_and_angle(e1, e2)
    # The round limit: with f below 1e-4 the correction to the isothermal sphere is under 1e-8.
    f = torch.sqrt((1 - q.square()).clamp_min(1e-8))
    return {"cos": torch.cos(phi), "sin": torch.sin(phi), "q": q, "f": f, "scale": theta_E * torch.sqrt(q) / f}


def kormann_along_axes(
    x: Tensor, y: Tensor, *, x0: Tensor, y0: Tensor, cos: Tensor, sin: Tensor, q: Tensor, f: Tensor, scale: Tensor
) -> Deflection:
    """Return the deflection of `kormann_deflection`.

    Parameters
    ----------
    x, y, x0, y0
        As there.
    cos, sin, q, f, scale
        What `kormann_axes` returns.

    Returns
    -------
    Deflection in x and y, arcsec.
    """
    dx, dy = x - x0, y - y0
    u, v = cos * dx + sin * dy, cos * dy - sin * dx
    over_psi = f * torch.rsqrt((q.square() * u.square() + v.square()).clamp_min(1e-24))
    au, av = scale * torch.atan(over_psi * u), scale * torch.atanh(over_psi * v)
    return cos * au - sin * av, sin * au + cos * av


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

    near, safe = nearly_round(e1, e2)
    q, phi = axis_ratio_and_angle(safe, e2)
    ax, ay = reduced_deflection_angle_epl(x0, y0, q, phi, theta_E, gamma - 1, x, y, n_iter=40, chunk_size=1)
    dx, dy = x - x0, y - y0
    bx, by = _nearly_round_direction(*_direction(dx, dy), e1, e2, slope=gamma - 1)
    modulus = theta_E * (theta_E.square() / (dx.square() + dy.square()).clamp_min(1e-24)).pow((gamma - 2) / 2)
    return torch.where(near, modulus * bx, ax), torch.where(near, modulus * by, ay)


def _direction(dx: Tensor, dy: Tensor) -> Deflection:
    """Cosine and sine of the position angle; zero at the centre."""
    inverse = torch.rsqrt((dx.square() + dy.square()).clamp_min(1e-24))
    return dx * inverse, dy * inverse


def _nearly_round_direction(c: Tensor, s: Tensor, e1: Tensor, e2: Tensor, slope: Tensor | float) -> Deflection:
    """Deflection by a power law over that of the round one, to first order in the ellipticity.

    With ``e = e1 + i e2`` and ``z = c + i s`` it is ``z - (2 - t) / 2 · e conj(z) + t (2 - t) / (8 - 2t) · conj(e) z³``,
    where ``t`` is the slope of the convergence: the solution of Poisson's equation for ``κ ∝ 1 + t Re(conj(e) z²)``.
    """
    first, third = (2 - slope) / 2, slope * (2 - slope) / (8 - 2 * slope)
    c2 = 4 * c.square()
    c3, s3 = c * (c2 - 3), s * (c2 - 1)
    ax = c - first * (e1 * c + e2 * s) + third * (e1 * c3 + e2 * s3)
    ay = s - first * (e2 * c - e1 * s) + third * (e1 * s3 - e2 * c3)
    return ax, ay


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
    axes = line_axes(half_length=half_length, phi=phi, theta_E=theta_E)
    return line_along_axes(x, y, x0=x0, y0=y0, **axes)


def line_axes(*, half_length: Tensor, phi: Tensor, theta_E: Tensor) -> dict[str, Tensor]:
    """Return what `line_along_axes` takes of each line, so that it is not computed anew for each position.

    Parameters
    ----------
    half_length, phi, theta_E
        Those of `line_mass_deflection`.

    Returns
    -------
    Half of the length, cosine and sine of the direction, and ``scale``, in arcsec, by the names of the arguments.
    """
    scale = theta_E.square() / (2 * half_length)
    return {"half_length": half_length, "cos": torch.cos(phi), "sin": torch.sin(phi), "scale": scale}


def line_along_axes(
    x: Tensor, y: Tensor, *, x0: Tensor, y0: Tensor, half_length: Tensor, cos: Tensor, sin: Tensor, scale: Tensor
) -> Deflection:
    """Return the deflection of `line_mass_deflection`.

    Parameters
    ----------
    x, y, x0, y0
        As there.
    half_length, cos, sin, scale
        What `line_axes` returns.

    Returns
    -------
    Deflection in x and y, arcsec.
    """
    dx, dy = x - x0, y - y0
    u, v = cos * dx + sin * dy, cos * dy - sin * dx
    sign = torch.copysign(torch.ones_like(u), u)
    ahead = sign * u  # |u|, with the right slope at 0
    beyond = ahead - half_length
    to_end = (beyond.square() + v.square()).clamp_min(1e-20)
    along = scale / 2 * sign * torch.log1p(4 * ahead * half_length / to_end)
    across = scale * torch.atan2(2 * v * half_length, beyond * (ahead + half_length) + v.square())
    return cos * along - sin * across, sin * along + cos * across


def vortex_point_masses(
    x0: Tensor, y0: Tensor, half_length: Tensor, phi: Tensor, theta_E: Tensor, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the point masses that stand for a vortex in the published data: equal, evenly spaced, ends included.

    A single one is in the middle.

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
    ends = (-1, 1) if count > 1 else (0, 0)
    t = torch.linspace(*ends, count, dtype=half_length.dtype, device=half_length.device) * half_length[:, None]
    x = x0[:, None] + t * torch.cos(phi)[:, None]
    y = y0[:, None] + t * torch.sin(phi)[:, None]
    return x, y, (theta_E / count**0.5)[:, None].expand_as(x)
