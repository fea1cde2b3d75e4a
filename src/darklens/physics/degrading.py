"""From a sharp image to one of larger pixels and a wider point-spread function, and back by interpolation."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate

from darklens.physics.coordinates import bin_pixels

REACH = 2
"""Pixels on each side of its own from which a pixel gets light: a point-spread function of 2.5 pixels full width has less
than 2% of its light beyond. A larger number makes weights of sharp images noisier, and leaves a wider border uncompared."""
RIDGE = 1e-4
"""Added to the curvature of the weights, as a fraction of its mean: what smooth images do not tell stays near zero."""
LEAST_ERROR = 0.01
"""Part of its light by which an image is taken to be off at least when weights are learned: no few bright ones decide."""
NOISE_ROUNDS = 8
"""Rounds in which the variance of pixels is fitted with weights that follow from it; it has settled after about five."""
ROWS_A_WEIGHT = (60, 1000)
"""Equations for each weight that is learned: the fewest, and as many as are taken where `WORK` allows. Of 512 images of
``fair-hst`` the truth of the worst had a χ² per pixel of 1.38 with 60 (two images), 1.08 with 600, 1.07 with 3,000."""
WORK = 1e11
"""Multiplications in learning the weights, of which there are more than a thousand for a factor of 7 and above: seconds."""


class Response(NamedTuple):
    """Hold how pixels gather the light of finer ones, and how noisy they are.

    ``weights`` (C, K, K), one set a band, act on the K = (2 `REACH` + 1) × factor fine pixels about each pixel; the
    variance of a pixel is ``sky`` + ``shot`` × its light, both (C,).
    """

    weights: Tensor
    sky: Tensor
    shot: Tensor


def bicubic(images: Tensor, factor: int) -> Tensor:
    """Return images (N, C, H, W) on pixels so many times finer, by cubic convolution (Keys 1981, a = -1/2)."""
    size = [side * factor for side in images.shape[-2:]]
    return interpolate(images, size=size, mode="bicubic", align_corners=False, antialias=True)


def lanczos(images: Tensor, factor: int, lobes: int = 3) -> Tensor:
    """Return images (N, C, H, W) on pixels so many times finer, by Lanczos's windowed sinc.

    Parameters
    ----------
    images
        (N, C, H, W).
    factor
        Fine pixels along the side of a pixel.
    lobes
        Half the width of the kernel, in pixels.

    Returns
    -------
    (N, C, H × factor, W × factor). At the border, the weights inside the image are scaled to sum to 1.
    """
    rows, columns = (_lanczos_weights(side, factor, lobes).to(images) for side in images.shape[-2:])
    return rows @ images @ columns.mT


def _lanczos_weights(side: int, factor: int, lobes: int) -> Tensor:
    """Weights (side × factor, side) of the pixels in each fine one, along one axis."""
    fine = (torch.arange(side * factor, dtype=torch.float64) + 0.5) / factor - 0.5
    away = fine[:, None] - torch.arange(side, dtype=torch.float64)
    weights = torch.where(away.abs() < lobes, torch.sinc(away) * torch.sinc(away / lobes), 0.0)
    return weights / weights.sum(1, keepdim=True)


def degrade(fine: Tensor, weights: Tensor, factor: int) -> Tensor:
    """Return what larger pixels see of fine images, without their outermost `REACH` pixels.

    Parameters
    ----------
    fine
        Images (N, C, H × factor, W × factor).
    weights
        Of a `Response`, (C, K, K).
    factor
        Fine pixels along the side of a pixel.

    Returns
    -------
    Images (N, C, H - 2 `REACH`, W - 2 `REACH`).
    """
    return conv2d(fine, weights[:, None].to(fine), stride=factor, groups=fine.shape[1])


def inner(images: Tensor) -> Tensor:
    """Return images (…, H, W) without their outermost `REACH` pixels, as `degrade` leaves them out."""
    return images[..., REACH:-REACH, REACH:-REACH]


def fit_response(images: Tensor, fine: Tensor) -> Response:
    """Learn from pairs how pixels gather the light of finer ones, by least squares, and the noise that is left.

    Parameters
    ----------
    images
        (N, C, H, W), at least 2 `REACH` + 1 pixels a side.
    fine
        The same scenes on pixels that are a whole number of times finer, (N, C, H × factor, W × factor). Their own noise,
        if any, makes the weights smaller than they are.

    Returns
    -------
    Response
        In double precision; fluxes and surface brightnesses are told apart by the sum of the weights.
    """
    factor = fine.shape[-1] // images.shape[-1]
    side = (2 * REACH + 1) * factor
    seen, unknown = inner(images).double(), side**2
    fewest, most = (each * unknown for each in ROWS_A_WEIGHT)
    needed = max(fewest, min(most, WORK / unknown**2))
    # Images are taken as they come, up to as many equations as are needed.
    count = max(1, min(len(images), math.ceil(needed / seen[0, 0].numel())))
    parts = [_fit_band(seen[:, band], fine[:, band].double(), factor, count) for band in range(images.shape[1])]
    weights, sky, shot = (torch.stack(each) for each in zip(*parts, strict=True))
    return Response(weights, sky, shot)


def _fit_band(seen: Tensor, fine: Tensor, factor: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (K, K), variance of the sky and its growth with light, of images (N, h, w) of one band."""
    # First each image counts alike; then as much as its noise allows, which is known by now.
    scales = seen.square().mean((1, 2))
    for _ in range(2):
        weights = _fit_weights(seen[:count], fine[:count], factor, scales)
        model = degrade(fine[:, None], weights[None], factor)[:, 0]
        sky, shot = _fit_noise((seen - model).square().flatten(), model.clamp_min(0).flatten())
        scales = sky + shot * model.mean((1, 2)).clamp_min(0) + (LEAST_ERROR * seen).square().mean((1, 2))
    return weights, sky, shot


def _fit_weights(seen: Tensor, fine: Tensor, factor: int, scales: Tensor) -> Tensor:
    """Weights (K, K) by least squares, where each image (N, h, w) counts by the inverse of its scale (N,)."""
    side = (2 * REACH + 1) * factor
    curvature, slope = fine.new_zeros(side**2, side**2), fine.new_zeros(side**2)
    for image, target, scale in zip(fine, seen, scales.clamp_min(1e-60), strict=False):
        patches = image.unfold(0, side, factor).unfold(1, side, factor).reshape(-1, side**2)
        curvature += patches.T @ patches / scale
        slope += patches.T @ target.flatten() / scale
    ridge = (RIDGE * curvature.diagonal().mean()).clamp_min(1e-60)
    return torch.linalg.solve(curvature + ridge * torch.eye(side**2).to(curvature), slope).reshape(side, side)


def _fit_noise(square: Tensor, light: Tensor) -> tuple[Tensor, Tensor]:
    """The constant and the slope of squared differences (n,) over light (n,), none below 0, by weighted least squares."""
    least = (1e-6 * square.mean()).clamp_min(1e-300)
    sky, shot = square.mean().clamp_min(least), square.new_zeros(())
    for _ in range(NOISE_ROUNDS):
        weight = (sky + shot * light).square().reciprocal()
        weight = weight / weight.sum()
        mean, middle = (weight * square).sum(), (weight * light).sum()
        spread = (weight * (light - middle).square()).sum().clamp_min(1e-300)
        shot = ((weight * (light - middle) * (square - mean)).sum() / spread).clamp(
            0, float(mean / middle.clamp_min(1e-300))
        )
        sky = (mean - shot * middle).clamp_min(least)
    return sky, shot


def variance(response: Response, light: Tensor) -> Tensor:
    """Return the variance of pixels (N, C, H, W) that would have so much light without noise."""
    sky, shot = (each.to(light)[:, None, None] for each in (response.sky, response.shot))
    return (sky + shot * light.clamp_min(0)).clamp_min(torch.finfo(light.dtype).tiny)


def correlation(images: Tensor, fine: Tensor) -> Tensor:
    """Return Pearson's correlation (N,) of images (N, C, H, W) with finer ones of the same size, summed to their pixels.

    It is 0 where one of the two is constant.
    """
    factor = fine.shape[-1] // images.shape[-1]
    a, b = (each.double().flatten(1) for each in (images, bin_pixels(fine, factor)))
    a, b = (each - each.mean(1, keepdim=True) for each in (a, b))
    norm = a.square().sum(1).sqrt() * b.square().sum(1).sqrt()
    return torch.where(norm > 0, (a * b).sum(1) / norm.clamp_min(1e-300), 0.0)
