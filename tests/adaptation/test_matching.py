"""Noise and seeing measured without labels, against the kernels and widths that images were made with."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.signal import correlate2d

from darklens.adaptation.matching import (
    REACH,
    correlated_noise,
    light_spectrum,
    measure_matching,
    missing_blur,
    noise_covariance,
    noise_spectrum,
)

KERNEL = np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25])


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def galaxies(count, seed, sigma=0.0, side=64):
    """Elliptical exponential galaxies of many sizes, blurred by a Gaussian of sigma pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    made = []
    for _ in range(count):
        axis, size = rng.uniform(0.5, 1), rng.uniform(1.5, 4)
        image = np.exp(-np.hypot(x * axis, y / axis) / size) * rng.uniform(50, 200)
        made.append(gaussian_filter(image, sigma, mode="wrap") if sigma else image)
    return np.stack(made)[:, None]


def correlated(shape, scale, rng):
    """Noise whose pixels are scale times white noise seen through the kernel."""
    white = rng.normal(size=shape)
    blurred = sum(KERNEL[i, j] * np.roll(white, (i - 1, j - 1), (-2, -1)) for i in range(3) for j in range(3))
    return scale * blurred


def test_noise_covariance_is_that_of_the_kernel_whatever_the_level_and_the_galaxy(rng):
    images = correlated((300, 1, 64, 64), 3.0, rng) + galaxies(300, 0) + 40
    found = noise_covariance(torch.from_numpy(images)).median(0).values[0].numpy()
    expected = np.zeros((2 * REACH + 1,) * 2)
    expected[REACH - 2 : REACH + 3, REACH - 2 : REACH + 3] = 9 * correlate2d(KERNEL, KERNEL)
    np.testing.assert_allclose(found, expected, atol=0.04 * expected.max())


def test_noise_has_the_covariance_of_its_spectrum():
    covariance = torch.zeros(2 * REACH + 1, 2 * REACH + 1, dtype=torch.float64)
    covariance[REACH - 2 : REACH + 3, REACH - 2 : REACH + 3] = torch.from_numpy(correlate2d(KERNEL, KERNEL))
    spectrum = noise_spectrum(covariance, 32, 48)
    noise = correlated_noise(spectrum.expand(400, -1, -1), 48, torch.Generator().manual_seed(1)).numpy()
    for down, right in ((0, 0), (0, 1), (1, 0), (1, -1), (2, 2), (3, 0)):
        found = (noise * np.roll(noise, (-down, -right), (1, 2))).mean()
        assert found == pytest.approx(float(covariance[REACH + down, REACH + right]), abs=0.003)


@pytest.mark.parametrize("sigma", [0.8, 1.5])
def test_missing_blur_is_what_the_target_was_blurred_by(sigma, rng):
    sharp = torch.from_numpy(galaxies(200, 1, 0.7) + rng.normal(size=(200, 1, 64, 64)))
    soft = torch.from_numpy(galaxies(200, 1, np.hypot(0.7, sigma)) + correlated((200, 1, 64, 64), 4.0, rng))
    spectra = [light_spectrum(each, noise_covariance(each)) for each in (sharp, soft)]
    assert missing_blur(*spectra) == pytest.approx(sigma, rel=0.15)
    assert missing_blur(*spectra[::-1]) == 0


def test_degraded_source_is_as_noisy_and_as_blurred_as_the_target(rng):
    source = torch.from_numpy(galaxies(200, 3, 0.7) + rng.normal(size=(200, 1, 64, 64))).float()
    target = torch.from_numpy(galaxies(200, 3, 1.3) + correlated((200, 1, 64, 64), 6.0, rng)).float()
    matching = measure_matching(source, target)
    made = matching(source, torch.Generator().manual_seed(0))
    found, expected = (noise_covariance(each).median(0).values[0].numpy() for each in (made, target))
    np.testing.assert_allclose(found, expected, atol=0.06 * expected.max())
    spectra = [light_spectrum(each, noise_covariance(each)) for each in (made, target)]
    assert missing_blur(*spectra) < 0.45
    unchanged = measure_matching(source, target, seeing=0.0, noise=False)
    assert torch.equal(unchanged(source, torch.Generator()), source)
