"""The network that tells images that were made finer from true ones, in adversarial training."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class Discriminator(nn.Module):
    """Convolutions in the manner of VGG, every second of which halves the image, for images of any size.

    Parameters
    ----------
    channels
        Bands of the images.
    widths
        Channels of each pair of convolutions. The paper of ESRGAN (arXiv:1809.00219) has 64 to 512 on 128 pixels; a smaller
        one suffices for images of few kinds.
    """

    def __init__(self, channels: int, widths: Sequence[int] = (32, 64, 128)):
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for width in widths:
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.LeakyReLU(0.2)]
            # Groups in place of batches: what is said of an image does not depend on those beside it.
            layers += [nn.Conv2d(width, width, 4, stride=2, padding=1), nn.GroupNorm(8, width), nn.LeakyReLU(0.2)]
            before = width
        self.layers = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * before, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N,) of being true of images (N, C, H, W)."""
        logits: Tensor = self.head(self.layers(images))
        return logits[:, 0]
