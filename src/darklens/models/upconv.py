"""Super-resolution of a masked autoencoder's parts: a transformer on patches, and up-convolutions to any size."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from darklens.errors import ModelError
from darklens.models.upscaling import checked_scale, interpolated, prime_factors, without_effect


class MAEUpconv(nn.Module):
    """A transformer on patches of a convolutional embedding, and up-convolutions to the finer pixels.

    Parameters
    ----------
    in_channels, outputs
        Bands of the images, and of the finer ones.
    scale
        Factor by which images are made finer.
    patch
        Side of a patch, pixels; images are padded to whole patches.
    width, depth, heads
        Length of a token, blocks of the encoder, and heads of their attention.
    skip
        Whether the network adds to the interpolated image, from nothing at first. The published system does not.
    """

    def __init__(
        self,
        in_channels: int,
        outputs: int,
        scale: int = 2,
        *,
        patch: int = 4,
        width: int = 96,
        depth: int = 4,
        heads: int = 4,
        skip: bool = True,
    ):
        super().__init__()
        if patch < 2 or width % heads or width % 4:
            raise ModelError(
                f"network mae-upconv: patch must be at least 2, and width a multiple of heads and of 4; got {patch}, "
                f"{width} and {heads}"
            )
        self.scale, self.outputs, self.skip = checked_scale(scale, "mae-upconv"), outputs, skip
        self.patch, self.width = patch, width
        self.embed = nn.Sequential(
            nn.Conv2d(in_channels, width // 2, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width // 2, width, patch, stride=patch),
        )
        self.encoder = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)), nn.LayerNorm(width))
        layers: list[nn.Module] = []
        before = width
        for factor in prime_factors(patch * scale):
            after = max(16, before // 2)
            # Repeated pixels before a convolution leave no checkerboard, unlike strided transposed convolutions.
            layers += [nn.Upsample(scale_factor=factor), nn.Conv2d(before, after, 3, padding=1), nn.GELU()]
            before = after
        self.decoder = nn.Sequential(*layers)
        self.beside = nn.Conv2d(in_channels, before, 3, padding=1)
        self.out = nn.Sequential(
            nn.Conv2d(2 * before, before, 3, padding=1), nn.GELU(), nn.Conv2d(before, outputs, 3, padding=1)
        )
        if skip:
            without_effect(self.out[-1])

    def forward(self, images: Tensor) -> Tensor:
        """Return finer images (N, outputs, H × scale, W × scale) of images (N, C, H, W)."""
        height, width = images.shape[-2:]
        more = [-height % self.patch, -width % self.patch]
        padded = nn.functional.pad(images, (0, more[1], 0, more[0]), mode="replicate")
        grid = self.embed(padded)
        tokens = grid.flatten(2).transpose(1, 2) + places(grid.shape[-2], grid.shape[-1], self.width).to(grid)
        features = self.encoder(tokens).transpose(1, 2).reshape(grid.shape)
        decoded = self.decoder(features)[..., : height * self.scale, : width * self.scale]
        finer = interpolated(images, images.shape[1], self.scale)
        found: Tensor = self.out(torch.cat([decoded, self.beside(finer)], dim=1))
        return found + finer[:, : self.outputs] if self.skip else found


def places(rows: int, columns: int, width: int) -> Tensor:
    """Return sines and cosines of the places of patches, (rows × columns, width), so that any size can be told."""
    frequencies = 1 / 100 ** (torch.arange(width // 4) / (width // 4))
    y, x = (torch.arange(count)[:, None] * frequencies for count in (rows, columns))
    rows_part = torch.cat([y.sin(), y.cos()], dim=1)[:, None].expand(rows, columns, -1)
    columns_part = torch.cat([x.sin(), x.cos()], dim=1)[None].expand(rows, columns, -1)
    return torch.cat([rows_part, columns_part], dim=2).flatten(0, 1)
