"""Super-resolution by a lens model: the fitted lens on finer pixels, and a network that adds what it cannot explain."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from darklens.errors import ModelError
from darklens.models.edsr import ResidualBlock
from darklens.models.upscaling import checked_scale, sub_pixel, without_effect

GIVEN = 3
"""Channels that ``preprocessing.lens_fine`` adds to an image: what the fit leaves, the fit, and the fit on finer pixels."""


class LensResidual(nn.Module):
    """The fitted lens as it is rendered on finer pixels, plus what residual blocks make of the residual.

    Untrained, its answer is the rendered lens.

    Parameters
    ----------
    in_channels, outputs
        Channels of `Preprocessing` with ``lens_fine``, and bands of the finer images, which is 1.
    scale
        Factor by which images are made finer; that of ``lens_fine``.
    width, blocks
        Channels and residual blocks, on the images' own pixels.
    """

    def __init__(self, in_channels: int, outputs: int, scale: int = 2, *, width: int = 48, blocks: int = 6):
        super().__init__()
        if in_channels != 1 + GIVEN or outputs != 1:
            raise ModelError(
                f"network lens-residual takes images of one band with preprocessing.lens_model true and lens_fine {scale}; "
                f"got {in_channels} channels and {outputs} outputs"
            )
        self.scale = checked_scale(scale, "lens-residual")
        # Each pixel of the fit, finer than the images', is a channel on their pixels.
        self.first = nn.Conv2d(GIVEN + scale**2, width, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(width, 1.0) for _ in range(blocks)))
        self.finer = sub_pixel(width, scale)
        self.out = nn.Conv2d(width, outputs, 3, padding=1)
        without_effect(self.out)

    def forward(self, images: Tensor) -> Tensor:
        """Return finer images (N, 1, H, W) of prepared ones (N, 4, H, W), whose pixels are repeated to that size."""
        coarse, fine = images[:, :GIVEN, :: self.scale, :: self.scale], images[:, GIVEN:]
        unfolded = nn.functional.pixel_unshuffle(fine, self.scale)
        features = self.first(torch.cat([coarse, unfolded], dim=1))
        added: Tensor = self.out(self.finer(features + self.blocks(features)))
        return fine + added
