"""The symmetries of the square, and their random choice."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from darklens.data.augmentation import augment, transform

ORIENTATIONS = [
    [[1, 2, 3], [4, 5, 6]],
    [[3, 2, 1], [6, 5, 4]],
    [[4, 5, 6], [1, 2, 3]],
    [[6, 5, 4], [3, 2, 1]],
    [[1, 4], [2, 5], [3, 6]],
    [[3, 6], [2, 5], [1, 4]],
    [[4, 1], [5, 2], [6, 3]],
    [[6, 3], [5, 2], [4, 1]],
]
"""What each of the eight makes of the first."""


@pytest.mark.parametrize("symmetry", range(8))
def test_each_symmetry_moves_pixels_to_where_it_should(symmetry):
    image = torch.tensor(ORIENTATIONS[0])
    moved = transform(torch.stack([image, image + 10])[:, None], symmetry)
    assert moved.tolist() == [[ORIENTATIONS[symmetry]], [(np.array(ORIENTATIONS[symmetry]) + 10).tolist()]]


@pytest.mark.parametrize(
    ("kind", "shape", "number"),
    [("dihedral", (2, 3, 3), 8), ("flips", (2, 3, 3), 4), ("dihedral", (2, 3, 4), 4), ("none", (2, 3, 3), 1)],
)
def test_every_image_is_turned_within_itself_and_all_symmetries_are_as_likely(kind, shape, number):
    images = torch.arange(800 * float(np.prod(shape))).view(800, *shape)
    out = augment(images, kind, torch.Generator().manual_seed(0))
    counts = np.zeros(8, dtype=int)
    for before, after in zip(images.numpy(), out.numpy(), strict=True):
        x, y = before[..., ::-1], before[:, ::-1]
        candidates = [before, x, y, x[:, ::-1]]
        if shape[1] == shape[2]:
            candidates += [candidate.swapaxes(-1, -2) for candidate in candidates]
        (found,) = (i for i, candidate in enumerate(candidates) if np.array_equal(candidate, after))
        counts[found] += 1
    assert counts[number:].sum() == 0
    assert number == 1 or chisquare(counts[:number]).pvalue > 0.001


def test_augmentation_follows_from_the_seed():
    images = torch.arange(40 * 9.0).view(40, 1, 3, 3)
    first, again, other = (augment(images, "dihedral", torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
