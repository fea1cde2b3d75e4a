"""A transformer on patches of an image: the encoder that masked and contrastive pre-training share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from darklens.errors import ModelError
from darklens.models.heads import Headed
from darklens.models.transformer import Residual, SelfAttention, draw_weights, perceptron


class PatchEncoder(nn.Module):
    """A vision transformer (Dosovitskiy et al. 2021) with a convolutional patch embedding and fixed positions.

    Positions are sines and cosines of row and column, so images of any multiple of the patch can be given.

    Parameters
    ----------
    in_channels
        Channels of the images.
    width
        Channels of a token, a multiple of 4 and of ``heads``.
    depth
        Number of transformer blocks.
    heads
        Heads of the attention.
    patch
        Side of a patch, pixels.
    """

    def __init__(self, in_channels: int, *, width: int, depth: int, heads: int, patch: int):
        super().__init__()
        if width < 4 or width % 4:
            raise ModelError(f"width is {width}; positions of patches take a multiple of 4")
        for name, number in (("depth", depth), ("patch", patch)):
            if number < 1:
                raise ModelError(f"{name} is {number}; expected at least 1")
        self.width, self.patch = width, patch
        self.embedding = nn.Conv2d(in_channels, width, patch, stride=patch)
        self.blocks = nn.ModuleList(transformer_block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        draw_weights(self)

    def tokens(self, images: Tensor, shown: Tensor | None = None) -> Tensor:
        """Return the tokens of patches.

        Parameters
        ----------
        images
            (N, C, H, W), both sides multiples of the patch.
        shown
            Numbers (N, S) of the patches that are looked at, row by row; all if None.

        Returns
        -------
        Tensor
            (N, S, width), in the order of ``shown``.

        Raises
        ------
        ModelError
            If the images are no multiple of the patch.
        """
        check_multiple(images.shape[-2], images.shape[-1], self.patch)
        grid = self.embedding(images)
        rows, columns = grid.shape[-2:]
        tokens = grid.flatten(2).transpose(1, 2) + positions(rows, columns, self.width).to(grid)
        if shown is not None:
            tokens = tokens.gather(1, shown[..., None].expand(-1, -1, self.width))
        for block in self.blocks:
            tokens = block(tokens)
        normal: Tensor = self.norm(tokens)
        return normal

    def forward(self, images: Tensor) -> Tensor:
        """Mean over patches of the tokens, (N, width), of images (N, C, H, W)."""
        return self.tokens(images).mean(1)


def transformer_block(width: int, heads: int) -> nn.Module:
    """Self-attention and a perceptron of four times the width, each beside a shortcut."""
    return nn.Sequential(Residual(width, SelfAttention(width, heads)), Residual(width, perceptron(width, 4)))


def positions(rows: int, columns: int, width: int) -> Tensor:
    """Return the positions (rows · columns, width) of patches: sines and cosines of the row, then of the column.

    Parameters
    ----------
    rows, columns
        Number of patches along each axis.
    width
        Channels of a token, a multiple of 4.

    Source: Vaswani et al. (2017), section 3.5, for each axis.
    """
    quarter = width // 4
    rates = torch.exp(-math.log(10_000) * torch.arange(quarter) / quarter)
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = [axis.reshape(-1, 1) * rates for axis in (y, x)]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1)


def check_multiple(height: int, width: int, patch: int) -> None:
    """Raise a `ModelError` that says what would fit, if an image cannot be divided into patches."""
    if height % patch == 0 and width % patch == 0 and min(height, width) > 0:
        return
    side = min(height, width)
    smaller, larger = side // patch * patch, -(-max(height, width) // patch) * patch
    crop = f"crop them to {smaller} (--preprocessing.crop {smaller}), " if smaller else ""
    divisors = [n for n in (16, 8, 7, 6, 5, 4) if height % n == width % n == 0 and n != patch and n < side]
    other = f", or choose --network.patch {' or '.join(map(str, divisors))}" if divisors else ""
    what = "smaller than" if not smaller else "no multiple of"
    raise ModelError(
        f"images of {height}×{width} pixels are {what} a patch of {patch}×{patch}: {crop}bring them to {larger} "
        f"(--preprocessing.resize {larger}){other}"
    )


def patch_transformer(
    in_channels: int,
    outputs: int,
    *,
    width: int = 128,
    depth: int = 6,
    heads: int = 4,
    patch: int = 8,
    hidden: Sequence[int] = (512, 256),
    dropout: float = 0.0,
) -> nn.Module:
    """Build a transformer on patches of an image, whose tokens are averaged before a head of dense layers.

    Parameters
    ----------
    width
        Channels of a token, a multiple of 4 and of ``heads``.
    depth
        Number of transformer blocks.
    heads
        Heads of the attention.
    patch
        Side of a patch, pixels, of which the sides of images are multiples.
    hidden
        Numbers after each dense layer of the head but the last.
    dropout
        Fraction of these that is set to 0 in training.

    Raises
    ------
    ModelError
        If a size makes no sense.
    """
    encoder = PatchEncoder(in_channels, width=width, depth=depth, heads=heads, patch=patch)
    layers: list[nn.Module] = []
    before = width
    for size in hidden:
        if size < 1:
            raise ModelError(f"hidden is {list(hidden)}; expected numbers of at least 1")
        layers += [nn.Linear(before, size), nn.ReLU(), nn.Dropout(dropout)]
        before = size
    return Headed(encoder, nn.Sequential(*layers, nn.Linear(before, outputs)))
