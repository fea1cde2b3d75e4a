"""CvT (Wu et al. 2021, arXiv:2103.15808): a transformer whose tokens and projections are made by convolutions."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from darklens.models.transformer import (
    Residual,
    SmallestSide,
    attend,
    check_heads,
    draw_weights,
    drop_paths,
    perceptron,
)


def cvt(
    in_channels: int,
    outputs: int,
    *,
    widths: Sequence[int] = (64, 192, 384),
    depths: Sequence[int] = (1, 2, 10),
    heads: Sequence[int] = (1, 3, 6),
    dropout: float = 0.0,
    drop_path: float = 0.0,
) -> nn.Module:
    """A convolutional vision transformer; the defaults are those of CvT-13.

    Convolutions tell the tokens where they are, so there is no other encoding of positions, and any image size is taken.

    Parameters
    ----------
    in_channels, outputs
        Channels of the images, and numbers to put out.
    widths
        Channels of each stage. The first has a token for 4×4 pixels; each later one halves their grid.
    depths
        Blocks of each stage. In the last, a class token joins those of the image.
    heads
        Heads of attention of each stage, among which its channels are divided.
    dropout
        Share of the class token's channels left out before the last layer in training.
    drop_path
        Probability that an image skips the last block in training; it grows to that from 0 at the first.
    """
    dropped = iter(drop_paths(sum(depths), drop_path))
    layers: OrderedDict[str, nn.Module] = OrderedDict(size=SmallestSide("cvt", 2 ** (len(widths) + 1)))
    width = in_channels
    for number, (wider, depth, count) in enumerate(zip(widths, depths, heads, strict=True), 1):
        last = number == len(widths)
        drops = list(itertools.islice(dropped, depth))
        layers[f"stage{number}"] = ConvolutionalStage(
            width, wider, count, drops, patch=(7, 4, 2) if number == 1 else (3, 2, 1), class_token=last
        )
        width = wider
    layers["head"] = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, outputs))
    return draw_weights(nn.Sequential(layers))


class ConvolutionalStage(nn.Module):
    """A convolution to tokens, and blocks of attention and perceptron.

    Parameters
    ----------
    width, wider
        Channels that come in, and of the tokens.
    heads
        Heads of attention.
    drops
        Probability of each block that it is skipped in training.
    patch
        Kernel, stride and padding of the convolution.
    class_token
        Whether a learned token joins those of the image, and alone leaves the stage.
    """

    def __init__(
        self,
        width: int,
        wider: int,
        heads: int,
        drops: Sequence[float],
        *,
        patch: tuple[int, int, int],
        class_token: bool,
    ):
        super().__init__()
        self.embedding = nn.Conv2d(width, wider, *patch)
        self.embedding_norm = nn.LayerNorm(wider)
        self.class_token = nn.Parameter(torch.zeros(1, 1, wider)) if class_token else None
        self.attention = nn.ModuleList(Residual(wider, ConvolutionalAttention(wider, heads), drop) for drop in drops)
        self.perceptrons = nn.ModuleList(Residual(wider, perceptron(wider, 4), drop) for drop in drops)
        self.norm = nn.LayerNorm(wider) if class_token else None
        if self.class_token is not None:
            nn.init.trunc_normal_(self.class_token, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """From (N, C, H, W) to the tokens as (N, C', H', W'), or to the class token (N, C')."""
        x = self.embedding(x)
        height, width = x.shape[-2:]
        tokens = self.embedding_norm(x.flatten(2).transpose(1, 2))
        if self.class_token is not None:
            tokens = torch.cat([self.class_token.expand(len(x), -1, -1), tokens], dim=1)
        for attention, dense in zip(self.attention, self.perceptrons, strict=True):
            tokens = dense(attention(tokens, height, width))
        if self.norm is not None:
            return self.norm(tokens[:, 0])
        return torch.unflatten(tokens.transpose(1, 2), 2, (height, width))


class ConvolutionalAttention(nn.Module):
    """Attention whose queries, keys and values are depth-wise convolutions of the tokens; of keys and values, a quarter."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        check_heads(width, heads)
        self.heads = heads
        self.query, self.key, self.value = (ConvolutionalProjection(width, stride) for stride in (1, 2, 2))
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """Tokens (N, T, C), the last H·W of which are an image's."""
        others, grid = x[:, : -height * width], x[:, -height * width :]
        image = torch.unflatten(grid.transpose(1, 2), 2, (height, width))
        query, key, value = (project(others, image) for project in (self.query, self.key, self.value))
        mixed: Tensor = self.output(attend(query, key, value, self.heads))
        return mixed


class ConvolutionalProjection(nn.Module):
    """A depth-wise 3×3 convolution of the image's tokens, batch norm, and a dense layer on all tokens."""

    def __init__(self, width: int, stride: int):
        super().__init__()
        self.convolution = nn.Conv2d(width, width, 3, stride=stride, padding=1, groups=width, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.dense = nn.Linear(width, width)

    def forward(self, others: Tensor, image: Tensor) -> Tensor:
        """From other tokens (N, T, C) and those of the image (N, C, H, W) to tokens (N, T + H'·W', C)."""
        convolved = self.norm(self.convolution(image)).flatten(2).transpose(1, 2)
        tokens: Tensor = self.dense(torch.cat([others, convolved], dim=1))
        return tokens
