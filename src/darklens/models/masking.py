"""Which patches or pixels of an image a masked autoencoder hides."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

Masking = Literal["informative", "random", "pixels"]

FLOOR = 0.1
"""Weight of the dimmest patch beside that of the brightest, 1. A choice, not tuned: with 0 the sky would never be hidden
while anything else is left, with 1 masking is uniform."""


def brightness_weights(images: Tensor, patch: int) -> Tensor:
    """Return the weights by which informative masking chooses patches.

    Parameters
    ----------
    images
        (N, C, H, W), both sides multiples of the patch.
    patch
        Side of a patch, pixels.

    Returns
    -------
    Tensor
        (N, T), from `FLOOR` for the dimmest patch of an image to 1 for its brightest, linear in their mean brightness
        over pixels and channels; all 1 where all patches are equally bright.
    """
    means = avg_pool2d(images.float().mean(1, keepdim=True), patch).flatten(1)
    low, high = means.amin(1, keepdim=True), means.amax(1, keepdim=True)
    span = high - low
    relative = torch.where(span > 0, (means - low) / span.clamp_min(torch.finfo(means.dtype).tiny), 1.0)
    return FLOOR + (1 - FLOOR) * relative


def weighted_order(weights: Tensor) -> Tensor:
    """Draw places one after the other, each with a probability in proportion to its weight among those that are left.

    Parameters
    ----------
    weights
        (N, T), above 0.

    Returns
    -------
    Tensor
        All places (N, T), in the order in which they are drawn.

    Source: Efraimidis & Spirakis (2006): the places with the largest log w + g, with g from Gumbel's distribution.
    """
    exponential = torch.empty_like(weights).exponential_()
    return (weights.log() - exponential.log()).argsort(dim=1, descending=True)


def regular_groups(rows: int, columns: int, device: torch.device | None = None) -> Tensor:
    """Return a number from 0 to 3 for each place of a grid, (rows · columns,): by the parity of its row and column.

    Parameters
    ----------
    rows, columns
        Of the grid.
    device
        Where the numbers are made.
    """
    y, x = torch.arange(rows, device=device) % 2, torch.arange(columns, device=device) % 2
    return (2 * y[:, None] + x).flatten()
