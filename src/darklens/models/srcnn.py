"""SRCNN (Dong et al. 2014, arXiv:1501.00092): interpolation, and three convolutions that sharpen it."""

from __future__ import annotations

from torch import Tensor, nn

from darklens.models.upscaling import checked_scale, interpolated, without_effect


class SRCNN(nn.Module):
    """Cubic interpolation, then three convolutions; 8,129 parameters for one band, of which 8,032 are the paper's weights.

    Parameters
    ----------
    in_channels, outputs
        Bands of the images, and of the finer ones.
    scale
        Factor by which images are made finer.
    widths
        Channels of the first two convolutions.
    kernels
        Sides of the three convolutions, pixels; odd numbers.
    skip
        Whether the convolutions add to the interpolated image, from nothing at first. The paper's make it anew.
    """

    def __init__(
        self,
        in_channels: int,
        outputs: int,
        scale: int = 2,
        *,
        widths: tuple[int, int] = (64, 32),
        kernels: tuple[int, int, int] = (9, 1, 5),
        skip: bool = True,
    ):
        super().__init__()
        self.scale, self.outputs, self.skip = checked_scale(scale, "srcnn"), outputs, skip
        sizes = [in_channels, *widths, outputs]
        layers: list[nn.Module] = []
        for before, after, kernel in zip(sizes[:-1], sizes[1:], kernels, strict=True):
            # Beyond the edge the outermost pixel repeats: dark pixels there would darken the border.
            layers += [nn.Conv2d(before, after, kernel, padding=kernel // 2, padding_mode="replicate"), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])
        if skip:
            without_effect(layers[-2])

    def forward(self, images: Tensor) -> Tensor:
        """Return finer images (N, outputs, H × scale, W × scale) of images (N, C, H, W)."""
        finer = interpolated(images, images.shape[1], self.scale)
        found: Tensor = self.layers(finer)
        return found + finer[:, : self.outputs] if self.skip else found
