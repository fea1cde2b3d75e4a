"""Fit elliptical isophotes to the galaxy at the centre of many images at once: what they leave may be lensed arcs.

As Jedrzejewski (1987) did for one galaxy, harmonics of the brightness along an ellipse tell how to move and to turn it.
Along each ellipse the brightness is taken somewhat below the median, and it never rises outwards: arcs, neighbours and
rings, which cover a part of an ellipse or are brighter than what is inside, are left in the residual. No point-spread
function and no profile is assumed.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from darklens.physics.coordinates import pixel_coordinates

ANGLES = 32
"""Points along each ellipse. With 16, arcs of a seeing disc are missed between points; time grows with it."""
ROUNDS = 2
"""Corrections of centre and ellipticity. More change little."""
QUANTILES = (0.375, 0.53)
"""The profile is the mean of the pixels of an ellipse between these quantiles: about the median, where noise is symmetric
and an arc covers up to half of the ellipse."""
MOST = 0.75
"""Largest ellipticity |e| = (1 - q²) / (1 + q²); of an axis ratio q of 0.38."""
FINER = 8
"""Radii a pixel at which isophotes are tabulated before they are drawn."""
_WINDOW = 41
"""Side of the central square, at most, in which centre and ellipticity are first looked for, pixels."""
_CENTRE = 5.0
"""Largest distance of the galaxy from the image's centre, pixels."""
_INNER = (0.5, 3.2)
"""Isophotes of radii between these, pixels, tell where the centre is."""
_SCATTER = 0.1
"""Standard deviation of a correction of the ellipticity that is believed without doubt."""


class Isophotes(NamedTuple):
    """Hold the isophotes of N images of C bands, at R radii.

    ``x`` and ``y`` (N,) are pixels from the image's centre; ``e1`` and ``e2`` (N, R) are the components of the
    ellipticity (1 - q²) / (1 + q²) of each isophote, in all bands alike; ``profile`` (N, C, R) is the brightness along it.
    """

    x: Tensor
    y: Tensor
    e1: Tensor
    e2: Tensor
    profile: Tensor


@cache
def isophote_radii(pixels: int) -> Tensor:
    """Return the radii (R,) of the isophotes of images of ``pixels`` × ``pixels``, pixels: their circles of equal area."""
    found = [0.0, 0.7]
    while found[-1] < pixels * 0.68:  # the corners and somewhat more, as ellipses are long
        found.append(max(found[-1] + 0.7, found[-1] * 1.13))
    return torch.tensor(found)


def fit_isophotes(images: Tensor) -> Isophotes:
    """Fit isophotes to the galaxy at the centre of each image.

    Parameters
    ----------
    images
        (N, C, H, H), float32, each band in units of the noise of its sky, finite. Bands are added where the shape of
        isophotes is found.

    Returns
    -------
    Isophotes
        The same centre and shapes for all bands of an image, and a profile for each.

    Raises
    ------
    ValueError
        If images are not square.
    """
    pixels = images.shape[-1]
    if images.ndim != 4 or images.shape[-2] != pixels:
        raise ValueError(f"images have the shape {tuple(images.shape)}; expected (N, C, H, H)")
    radius = isophote_radii(pixels).to(images)
    together = images.sum(1, keepdim=True) / math.sqrt(images.shape[1])
    zero = torch.zeros(len(images), device=images.device)
    window = slice(margin := max(0, (pixels - _WINDOW) // 2), pixels - margin)
    middle = together[:, 0, window, window]
    # What has no counterpart opposite to it is no part of the galaxy; but that holds about its centre only.
    first = _moments(torch.minimum(middle, middle.flip(-2, -1)), (zero, zero, zero, zero, zero + 6.0), rounds=5)
    x, y, *_ = _moments(middle, first, rounds=3)
    _, _, e1, e2, _ = first
    e1, e2 = e1[:, None].expand(-1, len(radius)), e2[:, None].expand(-1, len(radius))
    for _ in range(ROUNDS):
        x, y, e1, e2 = _corrected(together, radius, x, y, e1, e2)
    along = _along_ellipses(images, radius, x, y, e1, e2).sort(-1).values
    low, high = (round(quantile * ANGLES) for quantile in QUANTILES)
    profile = along[..., low:high].mean(-1).cummin(-1).values
    return Isophotes(x, y, e1, e2, profile)


def isophote_images(isophotes: Isophotes, pixels: int) -> Tensor:
    """Return the images (N, C, pixels, pixels) of isophotes, in the unit that they were fitted in."""
    x, y = (axis.flatten() for axis in pixel_coordinates(pixels, 1.0, device=isophotes.x.device))
    dx, dy = x - isophotes.x[:, None], y - isophotes.y[:, None]
    plus, cross, square = dx * dx, 2 * dx * dy, dy * dy
    square, plus = plus + square, plus - square
    finely = _finely(pixels, isophotes.x.device)
    e1, e2 = isophotes.e1 @ finely, isophotes.e2 @ finely
    rounder = (1 - e1 * e1 - e2 * e2).rsqrt()
    e1, e2, at = e1 * rounder, e2 * rounder, square.sqrt()
    for _ in range(2):  # the ellipse on which a pixel lies is nearly that of its circle
        index = (at * FINER + 0.5).long().clamp_max_(finely.shape[1] - 1)
        at = square * rounder.gather(1, index)
        at = at.sub_(plus * e1.gather(1, index)).sub_(cross * e2.gather(1, index)).clamp_min_(0).sqrt_()
    at = at.mul_(FINER).clamp_max_(finely.shape[1] - 1.001)
    index = at.long()
    profile = (isophotes.profile.asinh() @ finely).sinh()
    found = [torch.lerp(band.gather(1, index), band.gather(1, index + 1), at - index) for band in profile.unbind(1)]
    return torch.stack(found, dim=1).reshape(len(dx), -1, pixels, pixels)


def _moments(images: Tensor, start: tuple[Tensor, ...], rounds: int) -> tuple[Tensor, ...]:
    """Centre, ellipticity and squared size, each (N,), of what is at the start in images (N, H, W)."""
    light = images.clamp_min(0)
    x, y = pixel_coordinates(images.shape[-1], 1.0, device=images.device)
    x0, y0, e1, e2, size = start
    for _ in range(rounds):
        dx, dy = x - x0[:, None, None], y - y0[:, None, None]
        a, b, d = (of[:, None, None] for of in (1 - e1, e2, 1 + e1))
        scale = (size * (1 - e1 * e1 - e2 * e2))[:, None, None]
        weight = light * torch.exp(-0.5 * (a * dx * dx - 2 * b * dx * dy + d * dy * dy) / scale)
        total = weight.sum((1, 2)).clamp_min(1e-12)
        mean_x, mean_y, xx, xy, yy = ((weight * of).sum((1, 2)) / total for of in (dx, dy, dx * dx, dx * dy, dy * dy))
        # A Gaussian's moments under a weight of its own shape are half its own.
        x0, y0 = (x0 + 2 * mean_x).clamp(-_CENTRE, _CENTRE), (y0 + 2 * mean_y).clamp(-_CENTRE, _CENTRE)
        trace = (xx + yy).clamp_min(1e-6)
        e1, e2 = _bounded((xx - yy) / trace, 2 * xy / trace)
        size = trace.clamp(1.4, max(1.4, (images.shape[-1] / 6) ** 2))
    return x0, y0, e1, e2, size


def _corrected(
    images: Tensor, radius: Tensor, x: Tensor, y: Tensor, e1: Tensor, e2: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centres and ellipticities after a correction by the harmonics along the ellipses of images (N, 1, H, W)."""
    values = _along_ellipses(images, radius, x, y, e1, e2)[:, 0]
    median = values.median(-1, keepdim=True).values
    scatter = 1.4826 * (values - median).abs().median(-1, keepdim=True).values
    values = torch.minimum(torch.maximum(values, median - 3 * scatter), median + 1.5 * scatter)  # arcs are brighter
    cos1, sin1, cos2, sin2 = (values @ of * (2 / ANGLES) for of in _harmonics(images.device))
    slope = torch.gradient(median[..., 0], spacing=(radius,), dim=1)[0]
    fall = (-slope * radius).clamp_min(1e-2)
    inner = ((radius > _INNER[0]) & (radius < _INNER[1])) * (fall / radius.clamp_min(_INNER[0]))
    total = inner.square().sum(1)
    x = (x + ((inner * cos1).sum(1) / total).clamp(-0.7, 0.7)).clamp(-_CENTRE, _CENTRE)
    y = (y + ((inner * sin1).sum(1) / total).clamp(-0.7, 0.7)).clamp(-_CENTRE, _CENTRE)
    error = 2 * math.sqrt(2 / ANGLES) * scatter[..., 0] / fall
    weight = (_SCATTER**2 + error**2).reciprocal()
    smooth = _neighbours(len(radius), images.device)
    total = weight @ smooth + 0.5 / _SCATTER**2
    e1, e2 = (e + (weight * 2 * of / fall) @ smooth / total for e, of in ((e1, cos2), (e2, sin2)))
    return x, y, *_bounded(e1, e2)


def _along_ellipses(images: Tensor, radius: Tensor, x: Tensor, y: Tensor, e1: Tensor, e2: Tensor) -> Tensor:
    """Brightness (N, C, R, ANGLES) of images along ellipses of centres (N,) and ellipticities (N, R)."""
    cos, sin = _harmonics(images.device)[:2]
    # The square root of the matrix ((1 + e1, e2), (e2, 1 - e1)), scaled to keep areas, makes ellipses of circles.
    minor = (1 - e1 * e1 - e2 * e2).sqrt()
    scale = radius * (minor * (2 + 2 * minor)).rsqrt()
    a, b, d = ((scale * of)[..., None] for of in (1 + e1 + minor, e2, 1 - e1 + minor))
    along_x = x[:, None, None] + a * cos + b * sin
    along_y = y[:, None, None] + b * cos + d * sin
    grid = torch.stack([along_x, along_y], dim=-1) * (2 / (images.shape[-1] - 1))
    return grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=True)


@cache
def _harmonics(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    angle = torch.arange(ANGLES, device=device) * (2 * math.pi / ANGLES)
    return angle.cos(), angle.sin(), (2 * angle).cos(), (2 * angle).sin()


@cache
def _neighbours(count: int, device: torch.device) -> Tensor:
    """Weights (R, R) with which corrections of neighbouring isophotes count."""
    number = torch.arange(count, device=device)
    return torch.exp(-0.5 * ((number[:, None] - number) / 1.5) ** 2)


def _bounded(e1: Tensor, e2: Tensor) -> tuple[Tensor, Tensor]:
    shorter = (MOST / torch.hypot(e1, e2).clamp_min(1e-6)).clamp_max(1)
    return e1 * shorter, e2 * shorter


@cache
def _finely(pixels: int, device: torch.device) -> Tensor:
    """Matrix (R, F) that interpolates linearly from the radii of isophotes to all radii 0, 1 / FINER, 2 / FINER, …."""
    radius = isophote_radii(pixels).double().numpy()
    fine = np.arange(0, radius[-1] + 2 / FINER, 1 / FINER)
    rows = [np.interp(fine, radius, unit) for unit in np.eye(len(radius))]
    return torch.tensor(np.array(rows), dtype=torch.float32, device=device)
