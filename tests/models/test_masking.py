"""Which parts are hidden: the distribution of informative masking against its closed form."""

import itertools

import pytest
import torch
from torch.nn.functional import avg_pool2d

from darklens.models.masking import FLOOR, brightness_weights, regular_groups, weighted_order

DRAWS = 200_000


def test_places_are_drawn_with_the_probabilities_of_a_draw_without_replacement():
    """P(i first, j second) = w_i / W · w_j / (W − w_i), to five standard deviations for each pair."""
    torch.manual_seed(0)
    w = torch.tensor([0.1, 0.2, 0.55, 1.0])
    order = weighted_order(w.expand(DRAWS, -1))
    assert (order.sort(1).values == torch.arange(4)).all()
    for i, j in itertools.permutations(range(4), 2):
        expected = float(w[i] / w.sum() * w[j] / (w.sum() - w[i]))
        found = float(((order[:, 0] == i) & (order[:, 1] == j)).float().mean())
        assert abs(found - expected) < 5 * (expected * (1 - expected) / DRAWS) ** 0.5, (i, j)


def test_weights_are_linear_in_the_brightness_of_a_patch():
    torch.manual_seed(1)
    images = torch.randn(3, 2, 8, 12)
    mean = avg_pool2d(images.mean(1), 4).flatten(1)
    low, high = mean.amin(1, keepdim=True), mean.amax(1, keepdim=True)
    expected = FLOOR + (1 - FLOOR) * (mean - low) / (high - low)
    torch.testing.assert_close(brightness_weights(images, 4), expected)
    torch.testing.assert_close(brightness_weights(5 * images - 3, 4), expected), "whatever the scale"


@pytest.mark.parametrize("level", [0.0, -2.5])
def test_equally_bright_patches_have_equal_weights(level):
    assert (brightness_weights(torch.full((2, 1, 8, 8), level), 4) == 1).all()


@pytest.mark.parametrize(("rows", "columns"), [(4, 6), (3, 3), (1, 4)])
def test_regular_groups_have_every_second_place_of_every_second_row(rows, columns):
    groups = regular_groups(rows, columns).reshape(rows, columns)
    for y in range(rows):
        for x in range(columns):
            assert groups[y, x] == 2 * (y % 2) + x % 2
