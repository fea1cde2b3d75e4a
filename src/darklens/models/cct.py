"""CCT (Hassani et al. 2021, arXiv:2104.05704): a small transformer on tokens that convolutions make."""

from __future__ import annotations

import itertools
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from darklens.models.transformer import Residual, SelfAttention, SmallestSide, draw_weights, drop_paths, perceptron

STEM = 64
"""Channels between two convolutions of the tokenizer."""


def cct(
    in_channels: int,
    outputs: int,
    *,
    width: int = 384,
    depth: int = 14,
    heads: int = 6,
    mlp_ratio: float = 3.0,
    kernel: int = 7,
    convolutions: int = 2,
    grid: int = 14,
    dropout: float = 0.0,
    drop_path: float = 0.0,
) -> nn.Module:
    """A compact convolutional transformer; the defaults are those of CCT-14/7×2 for images of 224 pixels.

    Parameters
    ----------
    in_channels, outputs
        Channels of the images, and numbers to put out.
    width
        Channels of the tokens.
    depth
        Number of blocks.
    heads
        Heads of attention, among which the channels are divided.
    mlp_ratio
        How many times as wide the hidden layer of a block's perceptron is.
    kernel
        Side of the convolutions that make tokens, an odd number of pixels; those above 3 have a stride of 2.
    convolutions
        Their number. After each comes a max pooling that halves the grid, so that two of 7 pixels make a token of 16×16
        pixels.
    grid
        Side of the grid of tokens whose positions are learned; to other grids they are interpolated.
    dropout
        Share of the features left out before the last layer in training.
    drop_path
        Probability that an image skips the last block in training; it grows to that from 0 at the first.
    """
    stride = 2 if kernel > 3 else 1
    widths = [in_channels, *[STEM] * (convolutions - 1), width]
    tokenizer: list[nn.Module] = []
    for narrow, wide in itertools.pairwise(widths):
        convolution = nn.Conv2d(narrow, wide, kernel, stride=stride, padding=kernel // 2, bias=False)
        nn.init.kaiming_normal_(convolution.weight)
        tokenizer += [convolution, nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1)]
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        size=SmallestSide("cct", (2 * stride) ** convolutions),
        tokenizer=nn.Sequential(*tokenizer),
        positions=LearnedPositions(width, grid),
    )
    for number, drop in enumerate(drop_paths(depth, drop_path), 1):
        layers[f"block{number}"] = nn.Sequential(
            Residual(width, SelfAttention(width, heads), drop), Residual(width, perceptron(width, mlp_ratio), drop)
        )
    layers["pool"] = nn.Sequential(nn.LayerNorm(width), SequencePool(width))
    layers["head"] = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, outputs))
    return draw_weights(nn.Sequential(layers))


class LearnedPositions(nn.Module):
    """Adds to each token a vector for its place, learned for a grid of one size, and interpolated to others."""

    def __init__(self, width: int, grid: int):
        super().__init__()
        self.table = nn.Parameter(torch.empty(1, width, grid, grid))
        nn.init.trunc_normal_(self.table, std=0.2)

    def forward(self, x: Tensor) -> Tensor:
        """From (N, C, H, W) to tokens (N, H·W, C)."""
        table: Tensor = self.table
        if table.shape[-2:] != x.shape[-2:]:
            table = interpolate(table, size=x.shape[-2:], mode="bicubic", align_corners=False)
        return (x + table).flatten(2).transpose(1, 2)


class SequencePool(nn.Module):
    """The mean of all tokens, weighted by a learned function of each, in place of a class token."""

    def __init__(self, width: int):
        super().__init__()
        self.importance = nn.Linear(width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """From tokens (N, T, C) to (N, C)."""
        weights: Tensor = self.importance(x).softmax(1)
        return (weights * x).sum(1)
