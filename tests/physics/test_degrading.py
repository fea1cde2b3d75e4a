"""Interpolation, degrading by a learned response, and the noise that is left of pairs."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from PIL import Image

from darklens.physics.coordinates import bin_pixels
from darklens.physics.degrading import REACH, bicubic, correlation, degrade, fit_response, inner, lanczos, variance
from darklens.physics.psf import convolve, psf_kernel


def blobs(count: int, side: int, seed: int = 0) -> torch.Tensor:
    """Random images (N, 1, side, side) with light on all scales."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.gamma(0.3, 1, (count, 1, side, side)))


@pytest.mark.parametrize(("ours", "theirs"), [(bicubic, Image.BICUBIC), (lanczos, Image.LANCZOS)])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_interpolation_is_that_of_pillow(ours, theirs, factor):
    image = np.random.default_rng(1).normal(size=(11, 14)).astype(np.float32)
    expected = np.asarray(Image.fromarray(image).resize((14 * factor, 11 * factor), theirs))
    assert_allclose(ours(torch.from_numpy(image)[None, None], factor)[0, 0].numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("factor", [2, 3])
def test_known_response_is_learned_from_pairs(factor):
    """Light through a narrow point-spread function and binned: the weights are the function binned."""
    fine = blobs(60, 14 * factor)
    kernel = psf_kernel(factor, torch.tensor(0.8 * factor, dtype=torch.float64))
    images = bin_pixels(convolve(fine, kernel), factor) * factor**2
    found = fit_response(images, fine)
    side = (2 * REACH + 1) * factor
    point = torch.zeros(side**2, 1, side, side, dtype=torch.float64)
    point[torch.arange(side**2), 0, torch.arange(side**2) // side, torch.arange(side**2) % side] = 1
    middle = slice(REACH * factor, (REACH + 1) * factor)
    expected = convolve(point, kernel)[..., middle, middle].sum((1, 2, 3)).reshape(side, side)
    assert_allclose(found.weights[0], expected, atol=3e-3)
    assert_allclose(degrade(fine, found.weights, factor)[:, :, 1:-1, 1:-1], inner(images)[:, :, 1:-1, 1:-1], atol=0.02)


def test_noise_of_sky_and_photons_is_learned():
    fine = blobs(80, 32)
    light = bin_pixels(fine, 2) * 4
    rng = np.random.default_rng(2)
    noise = torch.from_numpy(rng.normal(size=light.shape)) * (0.09 + 0.25 * light).sqrt()
    found = fit_response(light + noise, fine)
    assert_allclose(found.sky + found.shot * 2.0, 0.09 + 0.25 * 2.0, rtol=0.1)
    chi = (noise.square() / variance(found, light)).mean()
    assert 0.9 < float(chi) < 1.1


@pytest.mark.parametrize(("factor_of_units", "total"), [(1.0, 4.0), (0.25, 1.0)])
def test_weights_sum_to_the_ratio_of_units(factor_of_units, total):
    """Each of four fine pixels counts wholly in a flux, and by a quarter in a mean, as a surface brightness is."""
    fine = blobs(40, 28)
    found = fit_response(bin_pixels(fine, 2) * 4 * factor_of_units, fine)
    assert float(found.weights.sum()) == pytest.approx(total, rel=1e-3)


def test_correlation_is_pearsons_and_0_for_constant_images():
    images, fine = blobs(3, 8), blobs(3, 16, seed=5)
    images[2] = 7
    expected = [np.corrcoef(images[i].ravel(), bin_pixels(fine, 2)[i].ravel())[0, 1] for i in range(2)]
    assert_allclose(correlation(images, fine), [*expected, 0], atol=1e-12)


def test_response_holds_for_images_that_it_was_not_learned_from():
    """Of noisy pairs of very different brightness, χ² of further truths is 1, the brightest included."""
    kernel = psf_kernel(2, torch.tensor(1.6, dtype=torch.float64))
    brightness = torch.from_numpy(np.random.default_rng(3).lognormal(0, 1.5, (48, 1, 1, 1)))
    fine = brightness * convolve(blobs(48, 64, seed=4), kernel)
    light = bin_pixels(convolve(fine, kernel), 2) * 4
    noise = torch.from_numpy(np.random.default_rng(5).normal(size=light.shape)) * (0.01 + 0.001 * light).sqrt()
    found = fit_response((light + noise)[:32], fine[:32])
    model = degrade(fine[32:], found.weights, 2)
    chi = ((inner(light + noise)[32:] - model).square() / variance(found, model)).mean((1, 2, 3))
    assert_allclose(chi, 1, atol=0.15)
