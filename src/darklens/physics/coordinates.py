"""Coordinates in the image: pixel grids, rotated axes, and ellipticity in lenstronomy's convention."""

import torch
from torch import Tensor


def pixel_coordinates(
    pixels: int,
    pixel_scale: float,
    supersampling: int = 1,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Return the centres of the (sub-)pixels of a square image centred on the origin.

    Parameters
    ----------
    pixels
        Side of the image in pixels.
    pixel_scale
        arcsec per pixel.
    supersampling
        Sub-pixels along each side of a pixel.
    dtype, device
        Of the returned tensors. Positions are computed in float64 and then rounded.

    Returns
    -------
    ``x, y`` in arcsec, each of shape ``(pixels * supersampling,) * 2``: x grows along the last axis, y along the
    first, as in lenstronomy and in matplotlib's ``origin="lower"``.
    """
    n = pixels * supersampling
    axis = (torch.arange(n, dtype=torch.float64, device=device) - (n - 1) / 2) * (pixel_scale / supersampling)
    y, x = torch.meshgrid(axis.to(dtype), axis.to(dtype), indexing="ij")
    return x, y


def bin_pixels(image: Tensor, factor: int) -> Tensor:
    """Return the mean over blocks of ``factor`` × ``factor`` pixels of the last two axes, whose lengths it divides."""
    *batch, height, width = image.shape
    return image.reshape(*batch, height // factor, factor, width // factor, factor).mean((-3, -1))


def rotate(x: Tensor, y: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
    """Express positions in rotated axes.

    Parameters
    ----------
    x, y
        Positions, in any unit and of any broadcastable shape.
    phi
        Angle from the old x axis to the new one, radians counter-clockwise.

    Returns
    -------
    ``x, y`` along the new axes, in the same unit.
    """
    cos, sin = torch.cos(phi), torch.sin(phi)
    return cos * x + sin * y, cos * y - sin * x


def axis_ratio_and_angle(e1: Tensor, e2: Tensor) -> tuple[Tensor, Tensor]:
    """Return axis ratio ``q`` (minor over major) and angle ``phi`` of the major axis, radians from +x.

    ``e1`` and ``e2`` may have any broadcastable shape. Moduli above 0.9999 are clipped, as lenstronomy does. The angle of a
    circle is 0. There ``q`` and ``phi`` have no derivatives, and those that are returned are finite and mean nothing; see
    `nearly_round`.
    """
    circle = (e1 == 0) & (e2 == 0)
    modulus = torch.hypot(torch.where(circle, 1e-20, e1), e2).clamp(1e-20, 0.9999)
    phi = torch.atan2(e2, torch.where(circle, 1.0, e1)) / 2
    return (1 - modulus) / (1 + modulus), phi


def nearly_round(e1: Tensor, e2: Tensor) -> tuple[Tensor, Tensor]:
    """Tell the ellipticities whose square is below rounding, where formulas with an angle have no derivatives.

    Parameters
    ----------
    e1, e2
        Ellipticity components, of any broadcastable shapes.

    Returns
    -------
    Where that is so, and ``e1`` with 0.1 in its place there, for a formula whose result is not used.
    """
    near = e1.square() + e2.square() < torch.finfo(e1.dtype).eps
    return near, torch.where(near, 0.1, e1)


def ellipticity(q: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
    """Return the components ``e1, e2`` of axis ratio ``q`` and position angle ``phi`` (radians from +x)."""
    modulus = (1 - q) / (1 + q)
    return modulus * torch.cos(2 * phi), modulus * torch.sin(2 * phi)
