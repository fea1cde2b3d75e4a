"""A small residual network for lens cutouts, made for two cores and ten minutes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import relu


class CompactResNet(nn.Module):
    """A residual network that is told how far from the centre each pixel is.

    Substructure is judged against a ring about the image's centre; convolutions alone do not know where that is and
    learn it slowly from the borders. A second input channel holds the radius, which the symmetries of the square leave
    as it is, so augmentation by them stays exact (cf. CoordConv, Liu et al. 2018).

    Parameters
    ----------
    in_channels, outputs
        Channels of the image, and numbers that come out.
    widths, blocks
        Channels and residual blocks of each stage; stages after the first halve the image.
    """

    def __init__(
        self,
        in_channels: int,
        outputs: int,
        widths: Sequence[int] = (32, 64, 128, 256),
        blocks: Sequence[int] = (1, 1, 1, 1),
        dropout: float = 0.0,
    ):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels + 1, widths[0], 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        )
        layers: list[nn.Module] = []
        width = widths[0]
        for stage, (wider, count) in enumerate(zip(widths, blocks, strict=True)):
            for block in range(count):
                layers.append(ResidualBlock(width, wider, stride=2 if stage and not block else 1))
                width = wider
        self.stages = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(width, outputs))

    def forward(self, images: Tensor) -> Tensor:
        """Logits or values (N, outputs) of images (N, C, H, W)."""
        radius = radius_channel(images).expand(len(images), -1, -1, -1)
        joined = torch.cat([images, radius], dim=1).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.head(self.stages(self.stem(joined)))
        return logits


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut, which starts as the identity (He et al. 2016; Goyal et al. 2017)."""

    def __init__(self, width: int, wider: int, stride: int):
        super().__init__()
        self.first = nn.Conv2d(width, wider, 3, stride=stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(wider)
        self.second = nn.Conv2d(wider, wider, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(wider)
        nn.init.zeros_(self.second_norm.weight)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width != wider:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity(),
                nn.Conv2d(width, wider, 1, bias=False),
                nn.BatchNorm2d(wider),
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.second_norm(self.second(relu(self.first_norm(self.first(x)))))
        return relu(y + self.shortcut(x))


def radius_channel(images: Tensor) -> Tensor:
    """Distance of each pixel from the centre, (1, 1, H, W), as a fraction of half the side, minus one half."""
    height, width = images.shape[-2:]
    y = torch.linspace(-1, 1, height, dtype=images.dtype, device=images.device)
    x = torch.linspace(-1, 1, width, dtype=images.dtype, device=images.device)
    return (torch.hypot(y[:, None], x[None, :]) - 0.5)[None, None]
