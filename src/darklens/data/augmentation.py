"""Augment batches by exact symmetries of the square: no pixel is interpolated, so the noise keeps its statistics."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor

Augmentation = Literal["dihedral", "flips", "none"]


def augment(images: Tensor, kind: Augmentation, generator: Generator) -> Tensor:
    """Apply a random symmetry of the square to each image, and return the images.

    Parameters
    ----------
    images
        (N, C, H, W), on any device.
    kind
        ``dihedral`` draws from all eight symmetries, ``flips`` from the four without a transposition, as ``dihedral``
        does for images that are not square; ``none`` returns the images unchanged.
    generator
        Source of the random numbers, on the CPU whatever the device of the images, so that a seed means the same on all.

    Returns
    -------
    Tensor
        (N, C, H, W), the same type and device.
    """
    if kind == "none":
        return images
    number = 8 if kind == "dihedral" and images.shape[-1] == images.shape[-2] else 4
    choice = torch.randint(number, (len(images),), generator=generator)
    out = torch.empty_like(images)
    for symmetry in range(number):
        rows = torch.nonzero(choice == symmetry).flatten().to(images.device)
        out[rows] = transform(images[rows], symmetry)
    return out


def transform(images: Tensor, symmetry: int) -> Tensor:
    """Return images (…, H, W) after one of the eight symmetries of the square, 0 to 7.

    The bit of 1 in the number flips x, the last axis; that of 2 flips y; that of 4 then exchanges the two, which makes the
    shape (…, W, H).
    """
    axes = [axis for bit, axis in ((1, -1), (2, -2)) if symmetry & bit]
    flipped = images.flip(axes) if axes else images
    return flipped.transpose(-1, -2) if symmetry & 4 else flipped


def turned_back(images: Tensor, symmetry: int) -> Tensor:
    """Return images (…, H, W) before one of the eight symmetries of the square: the reverse of `transform`."""
    straight = images.transpose(-1, -2) if symmetry & 4 else images
    axes = [axis for bit, axis in ((1, -1), (2, -2)) if symmetry & bit]
    return straight.flip(axes) if axes else straight
