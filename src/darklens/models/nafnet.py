"""A restorer without activation functions, after NAFNet (Chen et al. 2022, arXiv:2204.04676), on the images' own pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from darklens.models.upscaling import Upscaler, checked_scale


class NAFNet(Upscaler):
    """Blocks of gated convolutions at one scale, made finer by sub-pixel convolution.

    Parameters
    ----------
    in_channels, outputs
        Bands of the images, and of the finer ones.
    scale
        Factor by which images are made finer.
    width
        Channels.
    blocks
        Gated blocks. The paper's network for restoration has a U of several scales; arcs are small, and one is enough.
    skip
        Whether the network adds to the interpolated image, from nothing at first.
    """

    def __init__(
        self, in_channels: int, outputs: int, scale: int = 2, *, width: int = 32, blocks: int = 8, skip: bool = True
    ):
        checked_scale(scale, "nafnet")
        body = nn.Sequential(*(GatedBlock(width) for _ in range(blocks)))
        out = nn.Sequential(nn.Conv2d(width, outputs, 3, padding=1))
        super().__init__(in_channels, body, out, scale, skip=skip)


class GatedBlock(nn.Module):
    """Convolutions of each channel whose halves multiply each other, with attention to channels, and a gated dense layer.

    Parameters
    ----------
    width
        Channels.
    """

    def __init__(self, width: int):
        super().__init__()
        self.first_norm, self.second_norm = ChannelNorm(width), ChannelNorm(width)
        self.wide = nn.Conv2d(width, 2 * width, 1)
        self.depthwise = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.attention = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, width, 1))
        self.narrow = nn.Conv2d(width, width, 1)
        self.dense = nn.Conv2d(width, 2 * width, 1)
        self.project = nn.Conv2d(width, width, 1)
        self.beta, self.gamma = (nn.Parameter(torch.zeros(1, width, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        gated = gate(self.depthwise(self.wide(self.first_norm(x))))
        x = x + self.beta * self.narrow(gated * self.attention(gated))
        added: Tensor = self.project(gate(self.dense(self.second_norm(x))))
        return x + self.gamma * added


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel.

    Parameters
    ----------
    width
        Channels.
    """

    def __init__(self, width: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(1, width, 1, 1)), nn.Parameter(torch.zeros(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        scatter = (x - mean).square().mean(1, keepdim=True)
        return (x - mean) * torch.rsqrt(scatter + 1e-6) * self.weight + self.bias


def gate(x: Tensor) -> Tensor:
    """Return the product of the two halves of the channels."""
    first, second = x.chunk(2, dim=1)
    return first * second
