"""The equivariant encoder: exact symmetries for sides of any parity, and pooling that is blind to small shifts."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.ndimage import correlate1d

from darklens.data.augmentation import transform
from darklens.errors import ModelError
from darklens.models.ecnn import EVEN, ODD, blurred_half, ecnn


def network(side=64, channels=3):
    """A small one whose norms have statistics of their own, so that an error in them shows."""
    torch.manual_seed(0)
    made = ecnn(channels, 2, widths=(2, 2, 2, 3, 3, 4), latent=16)
    made.train()
    with torch.no_grad():
        made(torch.randn(8, channels, side, side))
    return made.eval()


@pytest.mark.parametrize("side", [64, 65, 101])
def test_outputs_and_features_are_invariant_under_all_eight_symmetries(side):
    made, images = network(side), torch.randn(2, 3, side, side)
    with torch.no_grad():
        features, outputs = made.features(images), made(images)
        assert features.std() > 1e-3
        for symmetry in range(8):
            turned = transform(images, symmetry)
            torch.testing.assert_close(made.features(turned), features, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(made(turned), outputs, rtol=1e-5, atol=1e-5)


def test_features_are_not_those_of_shuffled_pixels():
    made, images = network(), torch.randn(2, 3, 64, 64)
    shuffled = images.flatten(2)[..., torch.randperm(64 * 64)].view_as(images)
    with torch.no_grad():
        assert (made.features(images) - made.features(shuffled)).abs().max() > 1e-4


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 9), (8, 9), (3, 2)])
def test_halving_is_a_blur_by_binomial_weights_and_every_second_pixel(height, width):
    """By scipy, whose border is extended in the same way."""
    image = torch.randn(2, 3, height, width, dtype=torch.float64)
    expected = image.numpy()
    for axis in (2, 3):
        if expected.shape[axis] % 2:
            smooth = correlate1d(expected, np.array(ODD) / sum(ODD), axis=axis, mode="nearest")
            expected = smooth.take(range(0, expected.shape[axis], 2), axis)
        else:
            smooth = correlate1d(expected, np.array(EVEN) / sum(EVEN), axis=axis, mode="nearest", origin=-1)
            expected = smooth.take(range(0, expected.shape[axis], 2), axis)
    assert_allclose(blurred_half(image), expected, atol=1e-12)


@pytest.mark.parametrize("side", [2, 7, 8, 33, 64])
def test_halving_commutes_with_the_symmetries(side):
    image = torch.randn(1, 2, side, side, dtype=torch.float64)
    for symmetry in range(8):
        found = blurred_half(transform(image, symmetry))
        torch.testing.assert_close(found, transform(blurred_half(image), symmetry), rtol=0, atol=1e-12)
        assert found.shape[-1] == (side + 1) // 2


@pytest.mark.parametrize("side", [64, 65])
def test_halving_is_anti_aliased(side):
    """After a shift by one pixel, rectified features pooled over positions change far less than without the blur."""
    torch.manual_seed(1)
    image = torch.zeros(1, 8, side, side)
    image[..., 20:40, 20:40] = torch.randn(1, 8, 20, 20).relu()
    shifted = image.roll(1, -1)

    def change(halve):
        one, other = (halve(x).square().sum((2, 3)) for x in (image, shifted))
        return float(((one - other).abs() / one).mean())

    assert change(blurred_half) < 0.2 * change(lambda x: x[..., ::2, ::2])
    # The highest frequency, which every second pixel takes for a constant, is gone.
    checkered = (torch.arange(side) % 2 * 2.0 - 1).expand(1, 1, side, side)
    assert checkered[..., ::2].abs().min() == 1
    assert blurred_half(checkered)[..., 2:-2].abs().max() < 1e-6


def test_widths_are_one_for_each_convolution():
    with pytest.raises(ModelError, match="widths has 3 numbers; expected 6, one for each convolution"):
        ecnn(1, 2, widths=(1, 2, 3))
