"""Views of images: blur, noise and shifts against references."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from darklens.physics.smoothfit import sky_noise
from darklens.pretraining.views import Views, blurred, observed_again, shifted


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_blur_is_that_of_scipy():
    torch.manual_seed(0)
    images = torch.randn(2, 2, 24, 20)
    found = blurred(images, torch.tensor([1.3, 1.3]))
    for n in range(2):
        for c in range(2):
            expected = gaussian_filter(images[n, c].numpy(), 1.3, mode="mirror", radius=4)
            np.testing.assert_allclose(found[n, c], expected, atol=2e-6)


def test_each_image_has_its_own_blur_and_none_is_none():
    images = torch.randn(2, 1, 16, 16)
    found = blurred(images, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(found[0], images[0])
    assert found[1].std() < 0.6 * images[1].std()
    assert blurred(images, torch.zeros(2)) is images


def test_noise_is_added_in_units_of_the_sky():
    torch.manual_seed(0)
    images = torch.tensor([2.0, 7.0])[None, :, None, None] * torch.randn(64, 2, 40, 40)
    seen, added = observed_again(images, Views(noise=3.0), generator())
    scatter = (seen - images).std((2, 3))
    torch.testing.assert_close(scatter, added, rtol=0.1, atol=1e-6)
    sky = sky_noise(images.flatten(0, 1)).reshape(64, 2)
    assert ((added >= 0) & (added <= 3 * sky)).all()
    torch.testing.assert_close((added / sky)[:, 0], (added / sky)[:, 1])
    assert float((added / sky).mean()) == pytest.approx(1.5, abs=0.5)


def test_views_without_changes_are_the_image():
    images = torch.randn(3, 1, 12, 12)
    seen, added = observed_again(images, Views(), generator())
    assert torch.equal(seen, images)
    assert not added.any()
    assert shifted(images, 0, generator()) is images


def test_shift_moves_whole_pixels_and_mirrors_what_comes_in():
    images = torch.arange(2 * 35.0).reshape(2, 1, 5, 7)
    found = shifted(images, 2, generator(1))
    steps = torch.randint(-2, 3, (2, 2), generator=generator(1))
    for image, moved, (down, right) in zip(images, found, steps.tolist(), strict=True):
        padded = np.pad(image[0].numpy(), 2, mode="reflect")
        np.testing.assert_array_equal(moved[0], padded[2 + down : 7 + down, 2 + right : 9 + right])


def test_views_follow_from_the_generator():
    images = torch.randn(2, 1, 16, 16)
    views = Views(blur=1.0, noise=1.0)
    assert torch.equal(observed_again(images, views, generator(3))[0], observed_again(images, views, generator(3))[0])
    assert not torch.equal(
        observed_again(images, views, generator(3))[0], observed_again(images, views, generator(4))[0]
    )
