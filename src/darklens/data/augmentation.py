"""Augmentation of batches on their device, by exact symmetries of the square: no interpolation, so noise stays noise."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor

Augmentation = Literal["dihedral", "flips", "none"]


def augment(images: Tensor, kind: Augmentation, generator: Generator) -> Tensor:
    """Apply a random symmetry to each image (N, C, H, W).

    ``dihedral`` draws from all eight of the square, ``flips`` from the four without a transposition. The generator is
    on the CPU whatever the device of the images, so a seed means the same everywhere.
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
    """One of the eight symmetries of the square on the last two axes: bits flip x, flip y, transpose."""
    axes = [axis for bit, axis in ((1, -1), (2, -2)) if symmetry & bit]
    flipped = images.flip(axes) if axes else images
    return flipped.transpose(-1, -2) if symmetry & 4 else flipped
