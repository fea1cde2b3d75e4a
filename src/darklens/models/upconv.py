"""Super-resolution of a masked autoencoder's parts: a transformer on patches, and up-convolutions to any size."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from darklens.errors import ModelError
from darklens.models.patches import PatchEncoder
from darklens.models.upscaling import checked_scale, interpolated, prime_factors, without_effect


class MAEUpconv(nn.Module):
    """The encoder of a masked autoencoder, and up-convolutions from its tokens to the finer pixels.

    With ``--start RUN`` the encoder is that of a run of pretraining/mae of the same width, depth, heads and patch.

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
        if patch < 2:
            raise ModelError(f"network mae-upconv: patch must be at least 2; got {patch}")
        super().__init__()
        self.scale, self.outputs, self.skip = checked_scale(scale, "mae-upconv"), outputs, skip
        self.patch = patch
        self.encoder = PatchEncoder(in_channels, width=width, depth=depth, heads=heads, patch=patch)
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
        rows, columns = (side // self.patch for side in padded.shape[-2:])
        grid = self.encoder.tokens(padded).transpose(1, 2).reshape(len(images), -1, rows, columns)
        decoded = self.decoder(grid)[..., : height * self.scale, : width * self.scale]
        finer = interpolated(images, images.shape[1], self.scale)
        found: Tensor = self.out(torch.cat([decoded, self.beside(finer)], dim=1))
        return found + finer[:, : self.outputs] if self.skip else found
