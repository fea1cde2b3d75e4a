"""Pixel grids, supersampled or not."""

import torch
from torch import Tensor


def pixel_coordinates(
    pixels: int,
    pixel_scale: float,
    supersampling: int = 1,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Centres of the (sub-)pixels of a square image centred on the origin.

    Returns ``x, y`` in arcsec, each of shape ``(pixels * supersampling,) * 2``: x grows along the last axis, y along the
    first, as lenstronomy and matplotlib's ``origin="lower"`` have it.
    """
    n = pixels * supersampling
    axis = (torch.arange(n, dtype=torch.float64, device=device) - (n - 1) / 2) * (pixel_scale / supersampling)
    y, x = torch.meshgrid(axis.to(dtype), axis.to(dtype), indexing="ij")
    return x, y


def bin_pixels(image: Tensor, factor: int) -> Tensor:
    """Mean over blocks of ``factor`` × ``factor`` pixels of the last two axes, whose lengths it must divide."""
    *batch, height, width = image.shape
    return image.reshape(*batch, height // factor, factor, width // factor, factor).mean((-3, -1))
