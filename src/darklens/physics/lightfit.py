"""Fit the light of a galaxy, a Sérsic profile behind a point-spread function, to all images of a batch at once."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from darklens.physics.coordinates import bin_pixels, pixel_coordinates
from darklens.physics.light import sersic_light, sersic_total_flux
from darklens.physics.psf import convolve

SHAPE = ("x", "y", "log_R", "log_n", "e1", "e2")
"""Parameters of the shape, in this order: pixels from the centre of the image, natural logarithms of half-light radius in
pixels and Sérsic index, components of the ellipticity."""

COARSE, FINE = 2, 4
"""Samples along each axis of a pixel over which light is averaged, where a fit begins, and where it ends. Their square
counts in time. With 2, fluxes of profiles of index 4 and a radius of 3 pixels are off by 6%, with 4 by 1%
(`tests/physics/test_lightfit.py`)."""

STEPS = 25
"""Steps of Levenberg and Marquardt's method, at most. Most fits end after 12."""

ENOUGH = 1e-3
"""Relative decrease of the cost below which a fit has ended."""

_DIFFERENCE = 1e-3
"""Step of the parameters by which derivatives are differences."""

_MEAN, _WIDTH = (0.0, 0.0, 1.0, math.log(2.0), 0.0, 0.0), (2.0, 2.0, 1.2, 0.5, 0.25, 0.25)
"""Mean and standard deviation of each of `SHAPE` before an image is seen; the radius's mean is its guess. They keep what an
image says nothing of where it is likely."""

_LOW, _HIGH = (
    (-6.0, -6.0, math.log(0.2), math.log(0.4), -0.7, -0.7),
    (6.0, 6.0, math.log(60.0), math.log(8.0), 0.7, 0.7),
)
"""Bounds of `SHAPE`."""


class GalaxyFit(NamedTuple):
    """Hold the best galaxies of N images.

    ``shape`` (N, 6) is in the order of `SHAPE`; ``flux`` (N,) and ``background`` of a pixel (N,) are in the images' unit,
    ``flux_error`` is the flux's standard deviation with the shape held, and ``chi2`` the mean of squared residuals in units
    of the noise over the pixels that count.
    """

    shape: Tensor
    flux: Tensor
    flux_error: Tensor
    background: Tensor
    chi2: Tensor

    @property
    def radius(self) -> Tensor:
        """Half-light radius, pixels, (N,)."""
        return self.shape[:, 2].exp()

    @property
    def sersic_index(self) -> Tensor:
        """Sérsic index (N,)."""
        return self.shape[:, 3].exp()


def galaxy_image(shape: Tensor, pixels: int, psf: Tensor, finer: int = FINE) -> Tensor:
    """Render galaxies of flux 1.

    Parameters
    ----------
    shape
        (N, 6) in the order of `SHAPE`.
    pixels
        Side of the images.
    psf
        Kernels (N or 1, k, k) of sum 1, k odd.
    finer
        Samples along each axis of a pixel.

    Returns
    -------
    Tensor
        Images (N, pixels, pixels).
    """
    x, y = pixel_coordinates(pixels * finer, 1 / finer, device=shape.device, dtype=shape.dtype)
    x0, y0, log_R, log_n, e1, e2 = (column[:, None, None] for column in shape.unbind(1))
    R, n, ones = log_R.exp(), log_n.exp(), torch.ones_like(log_R)
    amp = 1 / sersic_total_flux(ones, R, n)
    fine = sersic_light(x, y, x0=x0, y0=y0, amp=amp, R_sersic=R, n_sersic=n, e1=e1, e2=e2)
    return convolve(bin_pixels(fine, finer), psf)


def asymmetric(images: Tensor, noise: Tensor, sigmas: float = 4.0, share: float = 0.3) -> Tensor:
    """Return which pixels are brighter than those opposite to them about the centre: neighbours of the central galaxy.

    Parameters
    ----------
    images
        (N, H, W).
    noise
        Standard deviation of each pixel's noise, (N, H, W).
    sigmas
        By how many standard deviations of the difference, at least.
    share
        And by which share of the opposite pixel: a galaxy whose centre is between pixels is brighter on one side.

    Returns
    -------
    Tensor
        (N, H, W) of bool, with the neighbours of such pixels.
    """
    opposite, its_noise = images.flip(-2, -1), noise.flip(-2, -1)
    brighter = (images - opposite) > sigmas * torch.hypot(noise, its_noise) + share * opposite.clamp_min(0)
    grown = torch.nn.functional.max_pool2d(brighter[:, None].float(), 3, stride=1, padding=1)
    return grown[:, 0] > 0


def fit_galaxies(images: Tensor, weight: Tensor, psf: Tensor, radius: float) -> GalaxyFit:
    """Fit an elliptical Sérsic profile and a constant background to each image.

    Flux and background are solved for in every step; the six parameters of the shape are found by Levenberg and Marquardt's
    method from two starts, a disc and a steep profile, of which the better fit is kept.

    Parameters
    ----------
    images
        (N, H, H), float64 or float32, without nan.
    weight
        Inverse variance of each pixel's noise, (N, H, H); 0 where a pixel does not count.
    psf
        Kernels (N or 1, k, k) of sum 1, k odd.
    radius
        Half-light radius that galaxies have about, pixels: from there the fits start.

    Returns
    -------
    GalaxyFit
        One fit for each image.

    Raises
    ------
    ValueError
        If images and weights are not (N, H, H).
    """
    if images.ndim != 3 or images.shape[-1] != images.shape[-2] or images.shape != weight.shape:
        raise ValueError(
            f"images and weights have shapes {tuple(images.shape)} and {tuple(weight.shape)}; expected (N, H, H) of both"
        )
    images, weight, psf = images.double(), weight.double(), psf.double()
    mean = torch.tensor(_MEAN, dtype=torch.float64).repeat(len(images), 1)
    mean[:, 2] = math.log(radius)
    found = []
    for index in (1.0, 4.0):
        start = mean.clone()
        start[:, 3] = math.log(index)
        found.append(_refined(images, weight, psf, start, mean, COARSE))
    (one, its_cost), (other, other_cost) = found
    best = torch.where((its_cost <= other_cost)[:, None], one, other)
    return _described(images, weight, psf, _refined(images, weight, psf, best, mean, FINE)[0])


def fit_fluxes(images: Tensor, weight: Tensor, psf: Tensor, shape: Tensor) -> GalaxyFit:
    """Return the fluxes and backgrounds of galaxies of known shape, as they are in another band.

    Parameters
    ----------
    images, weight, psf
        As of `fit_galaxies`.
    shape
        (N, 6) in the order of `SHAPE`.

    Returns
    -------
    GalaxyFit
        With the given shape.
    """
    return _described(images.double(), weight.double(), psf.double(), shape.double())


def _refined(
    images: Tensor, weight: Tensor, psf: Tensor, start: Tensor, mean: Tensor, finer: int
) -> tuple[Tensor, Tensor]:
    """The shapes (N, 6) after fits from a start, with a prior of some mean, and their costs (N,)."""
    width, pixels = torch.tensor(_WIDTH, dtype=start.dtype), images.shape[-1]
    low, high = (torch.tensor(of, dtype=start.dtype) for of in (_LOW, _HIGH))
    prior = torch.diag(width**-2)
    shape, damping = start.clamp(low, high), torch.full((len(start),), 1e-2, dtype=start.dtype)
    open_, cost = torch.arange(len(start)), torch.full((len(start),), math.inf, dtype=start.dtype)
    for _ in range(STEPS):
        at, w, kernels = shape[open_], weight[open_], psf if len(psf) == 1 else psf[open_]
        unit = galaxy_image(at, pixels, kernels, finer)
        flux, background, _ = _linear(images[open_], w, unit)
        residual = images[open_] - flux[:, None, None] * unit - background[:, None, None]
        cost[open_] = _cost(residual, w, at, mean[open_], prior)
        columns = [unit, torch.ones_like(unit)]
        for i in range(len(SHAPE)):
            moved = at.clone()
            moved[:, i] += _DIFFERENCE
            change = (galaxy_image(moved, pixels, kernels, finer) - unit) / _DIFFERENCE
            columns.append(flux[:, None, None] * change)
        jacobian = torch.stack(columns, 1).flatten(2)
        weighted = jacobian * w.flatten(1)[:, None]
        curvature = weighted @ jacobian.mT
        gradient = (weighted @ residual.flatten(1)[:, :, None])[..., 0]
        curvature[:, 2:, 2:] += prior
        gradient[:, 2:] += (mean[open_] - at) @ prior
        scale = curvature.diagonal(dim1=1, dim2=2)
        tried = curvature + torch.diag_embed(damping[open_, None] * scale + 1e-12 * scale.amax(1, keepdim=True) + 1e-30)
        step = torch.linalg.solve(tried, gradient)[:, 2:]
        new = (at + step).clamp(low, high)
        unit = galaxy_image(new, pixels, kernels, finer)
        flux, background, _ = _linear(images[open_], w, unit)
        residual = images[open_] - flux[:, None, None] * unit - background[:, None, None]
        after = _cost(residual, w, new, mean[open_], prior)
        better = after < cost[open_]
        ended = better & (cost[open_] - after < ENOUGH * (1 + after.abs()))
        shape[open_] = torch.where(better[:, None], new, at)
        cost[open_] = torch.where(better, after, cost[open_])
        damping[open_] *= torch.where(better, 0.2, 8.0)
        open_ = open_[~ended & (damping[open_] < 1e8)]
        if not len(open_):
            break
    return shape, cost


def _cost(residual: Tensor, weight: Tensor, shape: Tensor, mean: Tensor, prior: Tensor) -> Tensor:
    """Twice the negative logarithm of the posterior, but for a constant, (N,)."""
    off = shape - mean
    return (residual.square() * weight).sum((1, 2)) + ((off @ prior) * off).sum(1)


def _linear(images: Tensor, weight: Tensor, unit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The best flux and background of images for the images of flux 1, and the flux's standard deviation, each (N,)."""
    s, m, mm = ((weight * of).sum((1, 2)) for of in (1, unit, unit.square()))
    d, md = ((weight * images * of).sum((1, 2)) for of in (1, unit))
    determinant = (s * mm - m * m).clamp_min(1e-300)
    return (s * md - m * d) / determinant, (mm * d - m * md) / determinant, (s / determinant).sqrt()


def _described(images: Tensor, weight: Tensor, psf: Tensor, shape: Tensor) -> GalaxyFit:
    unit = galaxy_image(shape, images.shape[-1], psf)
    flux, background, error = _linear(images, weight, unit)
    residual = images - flux[:, None, None] * unit - background[:, None, None]
    chi2 = (residual.square() * weight).sum((1, 2)) / (weight > 0).sum((1, 2)).clamp_min(1)
    return GalaxyFit(shape, flux, error, background, chi2)
