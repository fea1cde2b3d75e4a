"""Surface brightness of sources: elliptical Sérsic profiles and pixelated images of real galaxies."""

import math

import torch
from torch import Tensor

from darklens.physics.coordinates import rotate


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
    # The power as exponential of a logarithm: half the time of `pow`, and as exact as is needed.
    power = torch.exp(torch.log(_elliptical_square(x - x0, y - y0, e1, e2) / R_sersic.square()) * (0.5 / n_sersic))
    return amp * torch.exp(-sersic_b(n_sersic) * (power - 1))


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
    radius = torch.sqrt(_elliptical_square(x - x0, y - y0, e1, e2))
    return amp * torch.exp(-sersic_b(torch.ones_like(amp)) * (radius / R_sersic - 1))


def ring_light(
    x: Tensor, y: Tensor, *, x0: Tensor, y0: Tensor, amp: Tensor, radius: Tensor, width: Tensor, e1: Tensor, e2: Tensor
) -> Tensor:
    """Return the surface brightness of elliptical rings, whose profile across is Gaussian.

    Parameters
    ----------
    x, y
        Positions, arcsec.
    x0, y0
        Centre of each ring, arcsec.
    amp
        Surface brightness on the ring, per arcsec².
    radius
        Radius, arcsec, as the product average √(ab).
    width
        Standard deviation of the profile across, arcsec.
    e1, e2
        Ellipticity components.

    Returns
    -------
    Surface brightness in the units of ``amp``.
    """
    distance = torch.sqrt(_elliptical_square(x - x0, y - y0, e1, e2))
    return amp * torch.exp(-((distance - radius) / width).square() / 2)


def ring_total_flux(amp: Tensor, radius: Tensor, width: Tensor) -> Tensor:
    """Return the flux of rings, integrated to infinity.

    Parameters
    ----------
    amp
        Surface brightness on the ring, per arcsec².
    radius, width
        As in `ring_light`, arcsec.

    Returns
    -------
    Flux in the units of ``amp`` times arcsec².
    """
    a = radius / width
    inner = width.square() * torch.exp(-a.square() / 2)
    outer = radius * width * math.sqrt(math.pi / 2) * (1 + torch.erf(a / math.sqrt(2)))
    return 2 * math.pi * amp * (inner + outer)


def spiral_arms(
    x: Tensor,
    y: Tensor,
    *,
    x0: Tensor,
    y0: Tensor,
    R_sersic: Tensor,
    e1: Tensor,
    e2: Tensor,
    amplitude: Tensor,
    number: Tensor,
    pitch: Tensor,
    phase: Tensor,
) -> Tensor:
    """Return the factor by which logarithmic spiral arms change the surface brightness of a disc.

    Its mean along every ellipse is 1, so that the flux stays. Towards the centre the arms fade.

    Parameters
    ----------
    x, y
        Positions, arcsec.
    x0, y0, R_sersic, e1, e2
        Of the disc, as in `sersic_light`.
    amplitude
        From 0, no arms, to 1, dark between them.
    number
        Number of arms; one is a tidal tail.
    pitch
        Angle between an arm and a circle, radians; negative winds the other way.
    phase
        Radians.

    Returns
    -------
    A factor of 0 or more.
    """
    dx, dy = x - x0, y - y0
    u, v = dx - (e1 * dx + e2 * dy), dy - (e2 * dx - e1 * dy)
    square = _elliptical_square(dx, dy, e1, e2) / R_sersic.square()
    # The angle of a position on the axis of a circle is not defined: its derivative would be nan.
    angle = torch.atan2(v, torch.where((u == 0) & (v == 0), 1.0, u))
    wave = torch.cos(number * (angle - torch.log(square) / (2 * torch.tan(pitch))) - phase)
    return 1 + amplitude * square / (square + 0.25) * wave


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
    b = sersic_b(n_sersic)
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


def _elliptical_square(dx: Tensor, dy: Tensor, e1: Tensor, e2: Tensor) -> Tensor:
    """Squared radius q u² + v²/q along the axes of an ellipse; at least 1e-8 arcsec².

    Without the angle of the axes, which a circle has not: with ``z = dx + i dy`` it is ``|z - e conj(z)|² / (1 - |e|²)``.
    Moduli of ``e`` above 0.9999 are clipped, as lenstronomy does.
    """
    square = e1.square() + e2.square()
    clip = 0.9999 * torch.rsqrt(square.clamp_min(0.9999**2))
    e1, e2 = clip * e1, clip * e2
    u, v = dx - (e1 * dx + e2 * dy), dy - (e2 * dx - e1 * dy)
    return ((u.square() + v.square()) / (1 - square.clamp_max(0.9999**2))).clamp_min(1e-8)


def sersic_b(n_sersic: Tensor) -> Tensor:
    """Return what multiplies the power of the radius in Sérsic profiles of given indices: lenstronomy's approximation."""
    return (1.9992 * n_sersic - 0.3271).clamp_min(1e-5)
