"""Parts that networks for super-resolution share: interpolation, sub-pixel convolution, and checks of the factor."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from darklens.errors import ModelError
from darklens.physics.degrading import bicubic


def checked_scale(scale: int, name: str) -> int:
    """Return the factor by which a network makes images finer.

    Raises
    ------
    ModelError
        If it is not from 2 to 16.
    """
    if not 2 <= scale <= 16:
        raise ModelError(f"network {name}: scale is the factor by which images are made finer, 2 to 16; got {scale}")
    return scale


def prime_factors(number: int) -> list[int]:
    """Return the prime factors of a whole number of at least 2, the smallest first: the steps in which images grow."""
    factors, rest, divisor = [], number, 2
    while rest > 1:
        while rest % divisor == 0:
            factors.append(divisor)
            rest //= divisor
        divisor += 1
    return factors


def sub_pixel(width: int, scale: int) -> nn.Sequential:
    """Return convolutions that make ``width`` channels finer, a prime factor at a time (Shi et al. 2016)."""
    layers: list[nn.Module] = []
    for factor in prime_factors(scale):
        layers += [nn.Conv2d(width, width * factor**2, 3, padding=1), nn.PixelShuffle(factor)]
    return nn.Sequential(*layers)


def nearest(width: int, scale: int) -> nn.Sequential:
    """Return convolutions behind repeated pixels, a prime factor at a time, as ESRGAN makes features finer."""
    layers: list[nn.Module] = []
    for factor in prime_factors(scale):
        layers += [nn.Upsample(scale_factor=factor), nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers)


def without_effect(layer: nn.Module) -> None:
    """Set weight and bias of a convolution to 0: what it is added to is unchanged until it is trained."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def interpolated(images: Tensor, channels: int, scale: int) -> Tensor:
    """Return the first channels of images (N, C, H, W) on finer pixels, by cubic convolution in float32."""
    with torch.autocast(images.device.type, enabled=False):
        return bicubic(images[:, :channels].float(), scale)
