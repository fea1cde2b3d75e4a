"""Parts that the vision transformers of darklens share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from darklens.errors import ModelError


class SmallestSide(nn.Module):
    """Passes images on, and refuses those that are too small for the layers behind it.

    Parameters
    ----------
    network
        What the network is called in the error.
    pixels
        The smallest side that it takes.
    """

    def __init__(self, network: str, pixels: int):
        super().__init__()
        self.network, self.pixels = network, pixels

    def forward(self, images: Tensor) -> Tensor:
        """The images (N, C, H, W) themselves."""
        height, width = images.shape[-2:]
        if min(height, width) < self.pixels:
            raise ModelError(
                f"network {self.network} takes images of at least {self.pixels} pixels a side; got {height}×{width}. "
                f"Crop less, or enlarge them with --preprocessing.resize {self.pixels}"
            )
        return images


class Residual(nn.Module):
    """A branch on normalised tokens beside a shortcut: x + branch(norm(x)).

    Parameters
    ----------
    width
        Channels of the tokens.
    branch
        Maps tokens (N, …, C) to tokens of the same shape.
    drop_path
        Probability that an image goes through the shortcut alone in training (stochastic depth, Huang et al. 2016).
    """

    def __init__(self, width: int, branch: nn.Module, drop_path: float = 0.0):
        super().__init__()
        self.norm, self.branch, self.drop_path = nn.LayerNorm(width), branch, drop_path

    def forward(self, x: Tensor, *where: int) -> Tensor:
        """Tokens (N, …, C); ``where`` is passed on to the branch."""
        y: Tensor = self.branch(self.norm(x), *where)
        if self.training and self.drop_path > 0:
            kept = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device) >= self.drop_path
            y = y * kept / (1 - self.drop_path)
        return x + y


class SelfAttention(nn.Module):
    """Attention of all tokens (N, T, C) to each other, in several heads (Vaswani et al. 2017)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        check_heads(width, heads)
        self.heads = heads
        self.query_key_value, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Tokens (N, T, C); ``bias`` (1 or N, heads, T, T) is added to the logits of the attention."""
        query, key, value = self.query_key_value(x).chunk(3, dim=-1)
        mixed: Tensor = self.output(attend(query, key, value, self.heads, bias))
        return mixed


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """Attention in several heads.

    Parameters
    ----------
    query
        (N, T, C).
    key, value
        (N, S, C).
    heads
        Channels are divided among them.
    bias
        (1 or N, heads, T, S), added to the logits.

    Returns
    -------
    Tensor
        (N, T, C), for each query the mean of values weighted by how well their keys match it.
    """
    q, k, v = (torch.unflatten(x, -1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    return scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(-2)


def check_heads(width: int, heads: int) -> None:
    """Raise a `ModelError` if channels cannot be divided among heads."""
    if heads < 1 or width % heads:
        raise ModelError(f"{width} channels cannot be divided among {heads} heads of attention")


def perceptron(width: int, ratio: float) -> nn.Sequential:
    """Two dense layers on each token, the hidden one ``ratio`` times as wide."""
    hidden = round(width * ratio)
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


def drop_paths(depth: int, last: float) -> list[float]:
    """The probabilities of `Residual` of each block, which grow from 0 to ``last``."""
    return [last * block / max(depth - 1, 1) for block in range(depth)]


def draw_weights(network: nn.Module) -> nn.Module:
    """Draw the weights of dense layers as vision transformers do, and return the network."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network
