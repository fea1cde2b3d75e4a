"""EDSR (Lim et al. 2017, arXiv:1707.02921): residual blocks without batch norm, and sub-pixel convolution."""

from __future__ import annotations

from torch import Tensor, nn

from darklens.models.upscaling import Upscaler, checked_scale


class EDSR(Upscaler):
    """Residual blocks on the images' own pixels, made finer at the end.

    With the paper's options (width 256, blocks 32, residual_scale 0.1, skip false) and three bands it has the paper's 40.7
    million parameters at a factor of 2; its baseline (width 64, blocks 16) has 1.37 million.

    Parameters
    ----------
    in_channels, outputs
        Bands of the images, and of the finer ones.
    scale
        Factor by which images are made finer.
    width
        Channels.
    blocks
        Residual blocks.
    residual_scale
        What each block's addition is multiplied by, which keeps wide networks stable.
    skip
        Whether the network adds to the interpolated image, from nothing at first. The paper's does not; short trainings
        need it.
    """

    def __init__(
        self,
        in_channels: int,
        outputs: int,
        scale: int = 2,
        *,
        width: int = 64,
        blocks: int = 16,
        residual_scale: float = 1.0,
        skip: bool = True,
    ):
        checked_scale(scale, "edsr")
        body = [*(ResidualBlock(width, residual_scale) for _ in range(blocks)), nn.Conv2d(width, width, 3, padding=1)]
        out = nn.Sequential(nn.Conv2d(width, outputs, 3, padding=1))
        super().__init__(in_channels, nn.Sequential(*body), out, scale, skip=skip)


class ResidualBlock(nn.Module):
    """Two convolutions with a ReLU between them, beside a shortcut.

    Parameters
    ----------
    width
        Channels.
    residual_scale
        What the addition is multiplied by.
    """

    def __init__(self, width: int, residual_scale: float):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )
        self.residual_scale = residual_scale

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.layers(x)
        return x + self.residual_scale * added
