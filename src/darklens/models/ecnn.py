"""An encoder of lens images that is invariant under the symmetries of the square, with anti-aliased pooling.

The equivariant network of a published comparison of domain adaptation (arXiv:2112.12121), of which kernels, fields and
places of the pooling are taken. Its last features are averaged over positions, so that they do not change with the symmetry
and images of any size are taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad, relu

from darklens.errors import ModelError
from darklens.models.equivariant import D4, GroupConvolution, GroupNorm2d
from darklens.models.heads import Headed, with_latent

KERNELS = (7, 5, 5, 5, 5, 5)
"""Side of each convolution's kernel, pixels."""
POOLED = (1, 3)
"""The convolutions, from 0, after which the image is halved."""
EVEN, ODD = (1.0, 3.0, 3.0, 1.0), (1.0, 4.0, 6.0, 4.0, 1.0)
"""Binomial weights of the blur before a side with an even, and with an odd number of pixels is halved. Their centre is
between two pixels, and on one: only so are the pixels that are left symmetric about the image's centre."""


def blurred_half(x: Tensor) -> Tensor:
    """Blur images and leave every second pixel out (Zhang 2019), symmetric for even and odd sides.

    Turning or mirroring the image before is the same as doing so afterwards.

    Parameters
    ----------
    x
        (N, C, H, W); pixels beyond the border are as those at it.

    Returns
    -------
    Tensor
        (N, C, ⌈H/2⌉, ⌈W/2⌉).
    """
    channels = x.shape[1]
    for axis in (2, 3):
        weights = torch.tensor(ODD if x.shape[axis] % 2 else EVEN, dtype=x.dtype, device=x.device)
        kernel = (
            (weights / weights.sum()).view(1, 1, -1, 1) if axis == 2 else (weights / weights.sum()).view(1, 1, 1, -1)
        )
        border = len(weights) // 2 if x.shape[axis] % 2 else len(weights) // 2 - 1
        padded = pad(x, (0, 0, border, border) if axis == 2 else (border, border, 0, 0), mode="replicate")
        stride = (2, 1) if axis == 2 else (1, 2)
        x = conv2d(padded, kernel.expand(channels, 1, -1, -1), stride=stride, groups=channels)
    return x


class EquivariantEncoder(nn.Module):
    """Six group convolutions of the square's symmetries (D4), pooled over group and positions: invariant features.

    Parameters
    ----------
    in_channels
        Bands of the images.
    features
        Numbers that come out.
    widths
        Fields after each convolution; each field is eight channels, one a symmetry.
    """

    def __init__(self, in_channels: int, features: int, widths: Sequence[int]):
        super().__init__()
        if len(widths) != len(KERNELS):
            raise ModelError(f"widths has {len(widths)} numbers; expected {len(KERNELS)}, one for each convolution")
        before = [in_channels, *widths[:-1]]
        self.convolutions = nn.ModuleList(
            GroupConvolution(a, b, D4, kernel=kernel, lifting=not i)
            for i, (a, b, kernel) in enumerate(zip(before, widths, KERNELS, strict=True))
        )
        self.norms = nn.ModuleList(GroupNorm2d(width, len(D4)) for width in widths)
        self.dense = nn.Sequential(nn.Linear(widths[-1], features), nn.BatchNorm1d(features), nn.ELU())

    def forward(self, images: Tensor) -> Tensor:
        """Invariant features (N, features) of images (N, C, H, H)."""
        x = images
        for i, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = relu(norm(convolution(x)))
            if i in POOLED:
                x = blurred_half(x)
        fields = x.reshape(len(x), -1, len(D4), *x.shape[-2:])
        features: Tensor = self.dense(fields.amax(2).mean((2, 3)))
        return features


def ecnn(
    in_channels: int,
    outputs: int,
    widths: Sequence[int] = (12, 24, 24, 48, 48, 32),
    latent: int = 256,
    dropout: float = 0.5,
) -> Headed:
    """Return an equivariant encoder and a dense layer on its features.

    Parameters
    ----------
    in_channels, outputs
        Bands of the images, and numbers to put out.
    widths
        Fields after each of the six convolutions; each field is eight channels, one a symmetry of the square.
    latent
        Features of the encoder.
    dropout
        Before the last dense layer of the encoder.

    Returns
    -------
    Headed
        From images (N, C, H, H) to (N, outputs); its ``features`` are (N, latent).

    Raises
    ------
    ModelError
        If there are not six widths.
    """
    return with_latent(EquivariantEncoder(in_channels, latent, widths), latent, outputs, latent, dropout)
