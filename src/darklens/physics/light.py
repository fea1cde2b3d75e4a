"""Surface brightness of sources: elliptical Sérsic profiles and pixelated images of real galaxies."""

import math

import torch
from torch import Tensor

from darklens.physics.coordinates import axis_ratio_and_angle, nearly_round, rotate


def sersic_light(
    x: Tensor,
    y: Tensor,
    *,
    x0: Tensor,
    y0: Tensor,
    amp: Tensor,
    R_sersic: Tensor,
    n_sersic: Tensor,
    e1: Tensor,
    e2: Tensor,
) -> Tensor:
    """Return the surface brightness of elliptical Sérsic profiles.

    Parameters
    ----------
    x, y
        Source-plane positions, arcsec.
    x0, y0
        Centre of each source, arcsec.
    amp
        Surface brightness at the half-light radius, per arcsec².
    R_sersic
        Half-light radius, arcsec, as the product average √(ab).
    n_sersic
        Sérsic index; ``b_n`` is lenstronomy's 1.9992 n - 0.3271. As there, radii below 1e-4″ count as 1e-4″.
    e1, e2
        Ellipticity components.

    Returns
    -------
    Surface brightness in the units of ``amp``.
    """
    radius = _elliptical_radius(x, y, x0, y0, e1, e2)
    return amp * torch.exp(-_b(n_sersic) * ((radius / R_sersic).pow(1 / n_sersic) - 1))


def exponential_light(
    x: Tensor, y: Tensor, *, x0: Tensor, y0: Tensor, amp: Tensor, R_sersic: Tensor, e1: Tensor, e2: Tensor
) -> Tensor:
    """Return the surface brightness of exponential discs: `sersic_light` of index 1, without its power.

    Parameters
    ----------
    x, y
        Source-plane positions, arcsec.
    x0, y0
        Centre of each source, arcsec.
    amp
        Surface brightness at the half-light radius, per arcsec².
    R_sersic
        Half-light radius, arcsec, as the product average √(ab).
    e1, e2
        Ellipticity components.

    Returns
    -------
    Surface brightness in the units of ``amp``.
    """
    radius = _elliptical_radius(x, y, x0, y0, e1, e2)
    return amp * torch.exp(-_b(torch.ones_like(amp)) * (radius / R_sersic - 1))


def sersic_total_flux(amp: Tensor, R_sersic: Tensor, n_sersic: Tensor) -> Tensor:
    """Return the flux of Sérsic profiles, integrated to infinity.

    Parameters
    ----------
    amp
        Surface brightness at the half-light radius, per arcsec².
    R_sersic
        Half-light radius, arcsec.
    n_sersic
        Sérsic index.

    Returns
    -------
    Flux in the units of ``amp`` times arcsec².
    """
    b = _b(n_sersic)
    log = torch.log(2 * math.pi * n_sersic) + b - 2 * n_sersic * torch.log(b) + torch.lgamma(2 * n_sersic)
    return amp * R_sersic.square() * torch.exp(log)


def pixelated_light(
    x: Tensor, y: Tensor, *, x0: Tensor, y0: Tensor, image: Tensor, amp: Tensor, phi: Tensor, pixel_scale: Tensor
) -> Tensor:
    """Return the surface brightness of images placed in the source plane, interpolated bilinearly, zero outside.

    Parameters
    ----------
    x, y
        Positions, arcsec, (N, H, W).
    x0, y0, amp, phi, pixel_scale
        Centre (arcsec), factor, rotation (radians) and arcsec per pixel of each image, (N, 1, 1).
    image
        Surface brightness per arcsec², (N, h, w).

    Returns
    -------
    Surface brightness per arcsec², (N, H, W).
    """
    u, v = rotate((x - x0) / pixel_scale, (y - y0) / pixel_scale, phi)
    height, width = image.shape[-2:]
    grid = torch.stack([2 * u / (width - 1), 2 * v / (height - 1)], dim=-1)
    sampled = torch.nn.functional.grid_sample(
        image[:, None], grid, mode="bilinear", padding_mode="zeros", align_corners=True
    )
    return amp * sampled[:, 0]


def _elliptical_radius(x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, e1: Tensor, e2: Tensor) -> Tensor:
    near, safe = nearly_round(e1, e2)
    dx, dy = x - x0, y - y0
    q, phi = axis_ratio_and_angle(safe, e2)
    u, v = rotate(dx, dy, phi)
    square = q * u.square() + v.square() / q
    # The same to first order in the ellipticity, without an angle, so that it has derivatives at the circle.
    dx2, dy2 = dx.square(), dy.square()
    nearly_round_square = dx2 + dy2 - 2 * (e1 * (dx2 - dy2) + 2 * e2 * dx * dy)
    return torch.sqrt(torch.where(near, nearly_round_square, square).clamp_min(1e-8))


def _b(n_sersic: Tensor) -> Tensor:
    return (1.9992 * n_sersic - 0.3271).clamp_min(1e-5)
