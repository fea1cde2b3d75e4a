import importlib

import numpy as np
import pytest
import torch
from lenstronomy.SimulationAPI.observation_api import SingleBand
from numpy.testing import assert_allclose
from poisson_law import assert_poisson

from darklens.physics import (
    background_rms,
    correlate_noise,
    correlated_variance,
    counts_per_second,
    gaussian_noise,
    poisson,
)


def t(value):
    return torch.tensor(value, dtype=torch.float64)


def test_instrument_numbers_agree_with_lenstronomy():
    band = SingleBand(
        pixel_scale=0.101, exposure_time=566.0, magnitude_zero_point=25.72, read_noise=4.2, ccd_gain=3.1,
        sky_brightness=22.3, num_exposures=4, seeing=0.16,
    )  # fmt: skip
    assert_allclose(background_rms(4.2, 566.0, 4, 22.3, 25.72, 0.101), band.background_noise, rtol=1e-12)
    shorter = background_rms(4.2, np.array([566.0, 12.5]), 4, 22.3, 25.72, 0.101)
    # 4 read-outs of 4.2 e- and the sky of 4 * 12.5 s at 10**((25.72 - 22.3) / 2.5) e-/s/arcsec².
    by_hand = np.sqrt(4 * 4.2**2 + 23.33458062281 * 0.101**2 * 50) / 50
    assert_allclose(shorter, [band.background_noise, by_hand], rtol=1e-9)
    assert_allclose(counts_per_second(t(20.0), 25.72), band.magnitude2cps(20.0), rtol=1e-12)


@pytest.mark.parametrize("mean", [0.02, 0.3, 3.05, 9.99, 57.2, 79.99, 80.0, 600.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_poisson_numbers_follow_their_distribution(mean, dtype):
    n = 400_000
    drawn = poisson(torch.full((n,), mean, dtype=dtype), np.random.default_rng(1)).double().numpy()
    assert_poisson(drawn, float(torch.tensor(mean, dtype=dtype)))


def test_gaussian_noise_has_its_mean_and_variance():
    n = 400_000
    noise = gaussian_noise(torch.zeros(n), 0.3, np.random.default_rng(0))
    assert abs(noise.mean()) < 5 * 0.3 / np.sqrt(n)
    assert abs(noise.var() / 0.09 - 1) < 5 * np.sqrt(2 / n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gaussian_noise_is_that_of_the_generator_in_the_dtype_of_the_image(dtype):
    sigma = torch.tensor([[[0.5]], [[2.0]]], dtype=dtype)
    noise = gaussian_noise(torch.zeros(2, 3, 4, dtype=dtype), sigma, np.random.default_rng(3))
    kind = np.float32 if dtype == torch.float32 else np.float64
    normal = np.random.default_rng(3).standard_normal((2, 3, 4), dtype=kind)
    torch.testing.assert_close(noise, sigma * torch.from_numpy(normal), rtol=0, atol=0)


def test_the_function_is_not_hidden_by_a_module_of_its_name():
    poisson(torch.ones(3), np.random.default_rng(0))
    assert callable(importlib.import_module("darklens.physics").poisson)


def test_no_photons_come_from_no_flux():
    assert poisson(torch.tensor([-1.0, 0.0]), np.random.default_rng(0)).eq(0).all()


@pytest.mark.parametrize("mean", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_numbers_come_from_a_mean_that_is_not_finite(mean, dtype):
    with pytest.raises(ValueError, match=r"^Poisson numbers need finite means"):
        poisson(torch.tensor([3.0, mean], dtype=dtype), np.random.default_rng(0))


def test_numbers_follow_from_the_generator():
    means = torch.from_numpy(np.random.default_rng(0).uniform(0, 100, 1000))
    first, again = (poisson(means, np.random.default_rng(7)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, poisson(means, np.random.default_rng(8)))


def test_correlated_noise_keeps_its_variance_and_correlates_as_the_gaussian_does():
    white = torch.from_numpy(np.random.default_rng(4).normal(size=(4000, 11, 9)))
    noise = correlate_noise(white, 2.5).numpy()
    assert_allclose(noise.std(0), 1, atol=6 / np.sqrt(2 * 4000))
    sigma = 2.5 / (2 * np.sqrt(2 * np.log(2)))
    for shift in (1, 2, 3):
        along_y = (noise[:, 4, 4] * noise[:, 4 + shift, 4]).mean()
        diagonal = (noise[:, 4, 4] * noise[:, 4 - shift, 4 + shift]).mean()
        assert abs(along_y - np.exp(-(shift**2) / (4 * sigma**2))) < 5 / np.sqrt(4000)
        assert abs(diagonal - np.exp(-(2 * shift**2) / (4 * sigma**2))) < 5 / np.sqrt(4000)


def test_variance_of_correlated_noise_is_that_of_many_draws():
    variance = torch.from_numpy(np.random.default_rng(4).uniform(0, 3, (1, 8, 6)))
    white = torch.from_numpy(np.random.default_rng(5).normal(size=(40_000, 8, 6)))
    noise = correlate_noise(white * variance.sqrt(), 1.7)
    assert_allclose(correlated_variance(variance, 1.7)[0], noise.var(0), rtol=0.04)
