"""The generator of ESRGAN (Wang et al. 2018, arXiv:1809.00219): residual-in-residual dense blocks."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

from darklens.models.upscaling import Upscaler, checked_scale, nearest, sub_pixel

ADDED = 0.2
"""What each addition is multiplied by, as the paper has it."""


class RRDBNet(Upscaler):
    """Residual-in-residual dense blocks, made finer by sub-pixel convolution.

    With width 64, blocks 23, growth 32, three bands, a factor of 4, upscaling nearest and skip false it has the 16.70
    million parameters of the published generator.

    Parameters
    ----------
    in_channels, outputs
        Bands of the images, and of the finer ones.
    scale
        Factor by which images are made finer.
    width, growth
        Channels, and those that each convolution of a dense block adds.
    blocks
        Residual-in-residual dense blocks.
    upscaling
        sub-pixel convolution, or nearest, which repeats pixels before a convolution.
    skip
        Whether the network adds to the interpolated image, from nothing at first. The paper's does not.
    """

    def __init__(
        self,
        in_channels: int,
        outputs: int,
        scale: int = 2,
        *,
        width: int = 32,
        blocks: int = 3,
        growth: int = 16,
        upscaling: Literal["sub-pixel", "nearest"] = "sub-pixel",
        skip: bool = True,
    ):
        checked_scale(scale, "rrdb")
        body = [*(ResidualInResidual(width, growth) for _ in range(blocks)), nn.Conv2d(width, width, 3, padding=1)]
        out = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(width, outputs, 3, padding=1)
        )
        finer = sub_pixel if upscaling == "sub-pixel" else nearest
        super().__init__(in_channels, nn.Sequential(*body), out, scale, skip=skip, finer=finer)


class ResidualInResidual(nn.Module):
    """Three dense blocks beside a shortcut.

    Parameters
    ----------
    width, growth
        Channels, and those that each convolution adds.
    """

    def __init__(self, width: int, growth: int):
        super().__init__()
        self.blocks = nn.Sequential(*(DenseBlock(width, growth) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.blocks(x)
        return x + ADDED * added


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees all before it, beside a shortcut.

    Parameters
    ----------
    width, growth
        Channels, and those that each convolution adds.
    """

    def __init__(self, width: int, growth: int):
        super().__init__()
        sizes = [growth] * 4 + [width]
        self.layers = nn.ModuleList(
            nn.Conv2d(width + number * growth, size, 3, padding=1) for number, size in enumerate(sizes)
        )
        for layer in self.layers:
            weight, bias = cast(Tensor, layer.weight), cast(Tensor, layer.bias)
            nn.init.kaiming_normal_(weight, a=0.2)
            weight.data.mul_(0.1)
            nn.init.zeros_(bias)

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for layer in list(self.layers)[:-1]:
            seen.append(nn.functional.leaky_relu(layer(torch.cat(seen, dim=1)), 0.2))
        added: Tensor = self.layers[-1](torch.cat(seen, dim=1))
        return x + ADDED * added
