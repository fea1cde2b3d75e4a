"""Super-resolution by a lens model: the fitted lens on finer pixels, what a network adds, and the image that was seen."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from darklens.errors import ModelError
from darklens.models.consistency import ImageConsistency
from darklens.models.edsr import ResidualBlock
from darklens.models.upscaling import checked_scale, sub_pixel, without_effect
from darklens.physics.degrading import Response

GIVEN = 3
"""Channels that ``preprocessing.lens_fine`` adds to an image: what the fit leaves, the fit, and the fit on finer pixels."""
SPREAD = (0.05, 0.005)
"""Error of the rendered lens to begin with: a fraction of its light, and a constant, units of the scatter of the images."""


class LensResidual(nn.Module):
    """The fitted lens as it is rendered on finer pixels, plus what residual blocks make of the residual.

    Untrained, its answer is the rendered lens. Once it knows how pixels gather light (`learn_response`), the sum is the
    mean of what is believed before the image is seen; the network gives its spread too, and the answer is the mean after it
    (`ImageConsistency`).

    Parameters
    ----------
    in_channels, outputs
        Channels of `Preprocessing` with ``lens_fine``, and bands of the finer images, which is 1.
    scale
        Factor by which images are made finer; that of ``lens_fine``.
    width, blocks
        Channels and residual blocks, on the images' own pixels.
    consistency_steps
        Steps in which the answer is brought to agree with the image; 0 leaves it as it is.
    """

    def __init__(
        self,
        in_channels: int,
        outputs: int,
        scale: int = 2,
        *,
        width: int = 48,
        blocks: int = 6,
        consistency_steps: int = 8,
    ):
        super().__init__()
        if in_channels != 1 + GIVEN or outputs != 1:
            raise ModelError(
                f"network lens-residual takes images of one band with preprocessing.lens_model true and lens_fine {scale}; "
                f"got {in_channels} channels and {outputs} outputs"
            )
        if consistency_steps < 0:
            raise ModelError(f"network lens-residual: consistency_steps is 0 or more; got {consistency_steps}")
        self.scale = checked_scale(scale, "lens-residual")
        # Each pixel of the fit, finer than the images', is a channel on their pixels.
        self.first = nn.Conv2d(GIVEN + scale**2, width, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(width, 1.0) for _ in range(blocks)))
        self.finer = sub_pixel(width, scale)
        self.out = nn.Conv2d(width, 2, 3, padding=1)
        without_effect(self.out)
        self.consistency = ImageConsistency(scale, consistency_steps)

    def learn_response(self, response: Response, *, image: tuple[float, float], target: tuple[float, float]) -> None:
        """Take how pixels gather light, and their noise, as `ImageConsistency.learn` does."""
        self.consistency.learn(response, image=image, target=target)

    def forward(self, images: Tensor) -> Tensor:
        """Return finer images (N, 1, H, W) of prepared ones (N, 4, H, W), whose pixels are repeated to that size."""
        coarse, fine = images[:, :GIVEN, :: self.scale, :: self.scale], images[:, GIVEN:]
        unfolded = nn.functional.pixel_unshuffle(fine, self.scale)
        features = self.first(torch.cat([coarse, unfolded], dim=1))
        added, spread = self.out(self.finer(features + self.blocks(features))).float().chunk(2, dim=1)
        believed = fine.float() + added
        return self.consistency(believed, self._spread(believed, spread), coarse[:, :1])

    def _spread(self, believed: Tensor, log_factor: Tensor) -> Tensor:
        """Expected error of each pixel: `SPREAD`, times what the network says of it."""
        fraction, constant = SPREAD
        light = (believed.detach() + self.consistency.dark).clamp_min(0)
        return (fraction * light + constant) * log_factor.clamp(-5, 5).exp()
