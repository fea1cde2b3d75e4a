"""CrossFormer (Wang et al. 2022, arXiv:2108.00154): patches of several sizes, attention near by and far off in turn."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from darklens.models.transformer import Residual, SelfAttention, SmallestSide, draw_weights, drop_paths, perceptron


def crossformer(
    in_channels: int,
    outputs: int,
    *,
    widths: Sequence[int] = (64, 128, 256, 512),
    depths: Sequence[int] = (1, 1, 8, 6),
    heads: Sequence[int] = (2, 4, 8, 16),
    group: int = 7,
    dropout: float = 0.0,
    drop_path: float = 0.0,
) -> nn.Module:
    """A transformer across scales; the defaults are those of CrossFormer-T.

    Parameters
    ----------
    in_channels, outputs
        Channels of the images, and numbers to put out.
    widths
        Channels of each stage. The first has a token for 4×4 pixels; each later one halves their grid.
    depths
        Blocks of each stage.
    heads
        Heads of attention of each stage, among which its channels are divided.
    group
        Tokens attend to each other in groups of at most so many along each axis.
    dropout
        Share of the features left out before the last layer in training.
    drop_path
        Probability that an image skips the last block in training; it grows to that from 0 at the first.
    """
    dropped = iter(drop_paths(sum(depths), drop_path))
    layers: OrderedDict[str, nn.Module] = OrderedDict(size=SmallestSide("crossformer", 2 ** (len(widths) + 1)))
    width = in_channels
    for number, (wider, depth, count) in enumerate(zip(widths, depths, heads, strict=True), 1):
        kernels, stride = ((4, 8, 16, 32), 4) if number == 1 else ((2, 4), 2)
        stage: list[nn.Module] = [CrossScaleEmbedding(width, wider, kernels, stride)]
        for block, drop in enumerate(itertools.islice(dropped, depth)):
            stage.append(Residual(wider, GroupedAttention(wider, count, group, distant=block % 2 == 1), drop))
            stage.append(Residual(wider, perceptron(wider, 4), drop))
        layers[f"stage{number}"] = nn.Sequential(*stage, ChannelsFirst())
        width = wider
    layers["norm"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(width))
    layers["head"] = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, outputs))
    return draw_weights(nn.Sequential(layers))


class CrossScaleEmbedding(nn.Module):
    """Tokens that each see patches of several sizes about one centre, made by one convolution for each size.

    Parameters
    ----------
    width, wider
        Channels that come in, and of the tokens: half of them from the smallest patches, a quarter from the next, and so
        on; the largest two sizes have as many.
    kernels
        Sides of the patches, in pixels, from the smallest.
    stride
        Pixels from one token to the next.
    """

    def __init__(self, width: int, wider: int, kernels: Sequence[int], stride: int):
        super().__init__()
        shares = [wider >> halvings for halvings in range(1, len(kernels))]
        shares.append(wider - sum(shares))
        self.convolutions = nn.ModuleList(
            nn.Conv2d(width, share, kernel, stride=stride, padding=(kernel - stride) // 2)
            for share, kernel in zip(shares, kernels, strict=True)
        )
        self.norm = nn.LayerNorm(wider)

    def forward(self, x: Tensor) -> Tensor:
        """From (N, C, H, W) to tokens (N, H', W', C')."""
        joined = torch.cat([convolution(x) for convolution in self.convolutions], dim=1)
        tokens: Tensor = self.norm(joined.permute(0, 2, 3, 1))
        return tokens


class ChannelsFirst(nn.Module):
    """From tokens (N, H, W, C) to (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


class GroupedAttention(nn.Module):
    """Attention within groups of tokens, which are neighbours, or lie apart at equal distances.

    The grid is divided into as few groups as their size allows, padded to a multiple, and padding is not attended to. Of
    a grid of 56×56 tokens and groups of 7×7, as in the paper, groups are windows, or every eighth token.

    Parameters
    ----------
    width, heads
        Channels of the tokens, and heads of attention.
    group
        Tokens of a group along each axis, at most.
    distant
        Whether groups lie apart.
    """

    def __init__(self, width: int, heads: int, group: int, *, distant: bool):
        super().__init__()
        self.attention, self.position_bias = SelfAttention(width, heads), PositionBias(width, heads)
        self.group, self.distant = group, distant

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, H, W, C)."""
        n, height, width, _ = x.shape
        rows, columns = -(-height // self.group), -(-width // self.group)
        high, wide = -(-height // rows), -(-width // columns)
        margins = (0, 0, 0, columns * wide - width, 0, rows * high - height)
        bias = self.position_bias(high, wide)[None]
        if any(margins):
            present = self._grouped(pad(torch.ones_like(x[:1, ..., :1]), margins), rows, columns)[:, :, 0] > 0
            absent = torch.zeros_like(present, dtype=bias.dtype).masked_fill(~present, -torch.inf)
            bias = (bias + absent[:, None, None]).repeat(n, 1, 1, 1)
        mixed = self.attention(self._grouped(pad(x, margins), rows, columns), bias)
        return self._spread(mixed, rows, columns, high, wide)[:, :height, :width]

    def _grouped(self, x: Tensor, rows: int, columns: int) -> Tensor:
        """From (N, H, W, C) to groups (N·G, T, C)."""
        n, height, width, channels = x.shape
        if self.distant:
            parted = x.reshape(n, height // rows, rows, width // columns, columns, channels).permute(0, 2, 4, 1, 3, 5)
        else:
            parted = x.reshape(n, rows, height // rows, columns, width // columns, channels).permute(0, 1, 3, 2, 4, 5)
        return parted.flatten(3, 4).flatten(0, 2)

    def _spread(self, groups: Tensor, rows: int, columns: int, high: int, wide: int) -> Tensor:
        """From groups (N·G, T, C) to (N, H, W, C)."""
        parted = groups.reshape(-1, rows, columns, high, wide, groups.shape[-1])
        order = (0, 3, 1, 4, 2, 5) if self.distant else (0, 1, 3, 2, 4, 5)
        return parted.permute(order).flatten(3, 4).flatten(1, 2)


class PositionBias(nn.Module):
    """What is added to the attention of two tokens, learned as a function of how they lie to each other.

    It is three dense layers from the offset, in tokens of the group, to a number for each head; any size of a group will
    do.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        hidden = width // 4
        self.layers = nn.Sequential(
            nn.Linear(2, hidden),
            *(nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, hidden)),
            *(nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, heads)),
        )

    def forward(self, high: int, wide: int) -> Tensor:
        """The bias (heads, T, T) of groups of T = ``high`` · ``wide`` tokens."""
        like = next(self.parameters())
        y, x = (torch.arange(1 - n, n, device=like.device, dtype=like.dtype) for n in (high, wide))
        table = self.layers(torch.cartesian_prod(y, x)).reshape(2 * high - 1, 2 * wide - 1, -1)
        rows, columns = (torch.arange(n, device=like.device) for n in (high, wide))
        down = (rows[:, None] - rows + high - 1)[:, None, :, None]
        right = (columns[:, None] - columns + wide - 1)[None, :, None, :]
        return table[down, right].flatten(0, 1).flatten(1, 2).permute(2, 0, 1)
