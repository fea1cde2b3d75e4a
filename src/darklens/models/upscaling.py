"""Parts that networks for super-resolution share: interpolation, sub-pixel convolution, and checks of the factor."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from darklens.errors import ModelError
from darklens.physics.degrading import bicubic


class Upscaler(nn.Module):
    """Layers on the images' own pixels beside a shortcut, made finer at the end: EDSR, NAFNet and ESRGAN's generator.

    Parameters
    ----------
    in_channels
        Bands of the images.
    body
        From features (N, width, H, W) to what is added to them.
    out
        From features on the finer pixels to bands, `bands`; its last layer is a convolution.
    scale
        Factor by which images are made finer.
    skip
        Whether the network adds to the interpolated image, from nothing at first.
    finer
        Makes the layers that make features finer, of their number and the factor.
    """

    def __init__(
        self,
        in_channels: int,
        body: nn.Module,
        out: nn.Sequential,
        scale: int,
        *,
        skip: bool,
        finer: Callable[[int, int], nn.Module] | None = None,
    ):
        super().__init__()
        first, last = out[0], out[-1]
        assert isinstance(first, nn.Conv2d)
        assert isinstance(last, nn.Conv2d)
        width = first.in_channels
        self.scale, self.bands, self.skip = scale, last.out_channels, skip
        self.first = nn.Conv2d(in_channels, width, 3, padding=1)
        self.body = body
        self.finer = (finer or sub_pixel)(width, scale)
        self.out = out
        if skip:
            without_effect(last)

    def forward(self, images: Tensor) -> Tensor:
        """Return finer images (N, bands, H × scale, W × scale) of images (N, C, H, W)."""
        features = self.first(images)
        found: Tensor = self.out(self.finer(features + self.body(features)))
        return found + interpolated(images, self.bands, self.scale) if self.skip else found


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
