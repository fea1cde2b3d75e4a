"""Strong views: each change against a reference, strengths within their bounds, and the same for a seed."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, shift

from darklens.data.strong_views import blurred, masked, shifted, strong_view

NOTHING = {"blur": 0.0, "noise": 0.0, "background": 0.0, "patch": 0.0, "shift": 0}


@pytest.fixture
def images():
    return torch.from_numpy(np.random.default_rng(2).normal(3, 1, (6, 2, 20, 24)).astype(np.float32))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_blur_is_that_of_scipy(images):
    sigma = torch.tensor([0.0, 0.5, 1.0, 1.5, 1.9, 2.0])
    found = blurred(images, sigma).numpy()
    np.testing.assert_array_equal(found[0], images[0])
    for image, width, result in zip(images.numpy()[1:], sigma.tolist()[1:], found[1:], strict=True):
        for band, seen in zip(image, result, strict=True):
            expected = gaussian_filter(band.astype(float), width, mode="nearest", radius=6)
            np.testing.assert_allclose(seen, expected, rtol=1e-4, atol=1e-4)


def test_shift_is_that_of_scipy(images):
    offsets = torch.tensor([[0, 0], [3, 0], [0, -2], [-4, 5], [1, 1], [-1, -1]])
    found = shifted(images, offsets).numpy()
    for image, offset, result in zip(images.numpy(), offsets.tolist(), found, strict=True):
        for band, seen in zip(image, result, strict=True):
            np.testing.assert_allclose(seen, shift(band, offset, order=0, mode="nearest"), rtol=1e-6)


def test_mask_is_a_square_of_the_median(images):
    corners, sides = torch.tensor([[2, 5]] * 6), torch.tensor([0, 1, 2, 3, 4, 9])
    found = masked(images, corners, sides)
    torch.testing.assert_close(found[0], images[0])
    for number, side in enumerate(sides.tolist()):
        inside = torch.zeros(20, 24, dtype=bool)
        inside[2 : 2 + side, 5 : 5 + side] = True
        torch.testing.assert_close(found[number][:, ~inside], images[number][:, ~inside])
        level = images[number].flatten(1).median(1).values
        torch.testing.assert_close(found[number][:, inside], level[:, None].expand(-1, side * side))


def test_nothing_asked_changes_nothing(images):
    torch.testing.assert_close(strong_view(images, seeded(), **NOTHING), images, rtol=0, atol=0)


def test_noise_and_background_have_the_strength_that_is_drawn():
    images = torch.randn(400, 1, 32, 32, generator=seeded(1)) * torch.linspace(0.5, 5, 400)[:, None, None, None]
    scatter = images.flatten(1).std(1)
    noise = (strong_view(images, seeded(), **NOTHING | {"noise": 0.4}) - images).flatten(1).std(1) / scatter
    assert noise.min() >= 0
    assert noise.max() < 0.4 * 1.1
    assert noise.mean().item() == pytest.approx(0.2, abs=0.02)
    level = (strong_view(images, seeded(), **NOTHING | {"background": 0.5}) - images).flatten(1)
    assert level.std(1).max() < 1e-5 * scatter.max()
    relative = level.mean(1) / scatter
    assert relative.abs().max() <= 0.5
    assert relative.mean().abs() < 0.05
    assert relative.std().item() == pytest.approx(1 / np.sqrt(12), rel=0.1)


def test_view_follows_from_the_seed(images):
    all_of_them = {"blur": 1.0, "noise": 0.3, "background": 0.3, "patch": 0.3, "shift": 3}
    one, again = (strong_view(images, seeded(3), **all_of_them) for _ in range(2))
    other = strong_view(images, seeded(4), **all_of_them)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert one.dtype == images.dtype
    assert one.shape == images.shape
    assert one.isfinite().all()
