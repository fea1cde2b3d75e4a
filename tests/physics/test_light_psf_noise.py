import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lenstronomy.LightModel.light_model import LightModel
from lenstronomy.SimulationAPI.observation_api import SingleBand
from numpy.testing import assert_allclose
from scipy import stats
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

from darklens.physics import (
    background_rms,
    bin_pixels,
    convolve,
    convolve_separable,
    counts_per_second,
    exponential_light,
    gaussian_noise,
    gaussian_psf_taps,
    pixelated_light,
    pixelated_psf,
    poisson,
    sersic_light,
    sersic_total_flux,
)


def t(value):
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("n", [0.7, 1.0, 4.0])
@pytest.mark.parametrize(("e1", "e2"), [(0.0, 0.0), (-0.1, 0.1), (0.3, -0.2)])
def test_sersic_agrees_with_lenstronomy(n, e1, e2, grid):
    kwargs = {"amp": 3.0, "R_sersic": 0.4, "n_sersic": n, "e1": e1, "e2": e2, "center_x": 0.1, "center_y": -0.2}
    model = LightModel(["SERSIC_ELLIPSE"])
    expected = model.surface_brightness(grid[0].numpy().ravel(), grid[1].numpy().ravel(), [kwargs])
    actual = sersic_light(*grid, t(0.1), t(-0.2), t(3.0), t(0.4), t(n), t(e1), t(e2))
    assert_allclose(actual.numpy().ravel(), expected, rtol=1e-9)
    if n == 1:
        disc = exponential_light(*grid, t(0.1), t(-0.2), t(3.0), t(0.4), t(e1), t(e2))
        assert_allclose(disc, actual, rtol=1e-12)
    flux = sersic_total_flux(t(3.0), t(0.4), t(n))
    assert_allclose(flux, model.total_flux([kwargs])[0], rtol=1e-12)


def test_pixelated_light_agrees_with_lenstronomy(grid):
    image = np.random.default_rng(0).random((31, 31))
    kwargs = {"image": image, "amp": 2.0, "center_x": 0.3, "center_y": -0.1, "phi_G": 0.6, "scale": 0.11}
    expected = LightModel(["INTERPOL"]).surface_brightness(grid[0].numpy().ravel(), grid[1].numpy().ravel(), [kwargs])
    one = [t(v).view(1, 1, 1) for v in (0.3, -0.1)]
    amp, phi, scale = (t(v).view(1, 1, 1) for v in (2.0, 0.6, 0.11))
    actual = pixelated_light(grid[0][None], grid[1][None], *one, t(image)[None], amp, phi, scale)
    assert_allclose(actual.numpy().ravel(), expected, atol=1e-10)


@pytest.mark.parametrize(("fwhm", "truncation"), [(1.74, 3.0), (1.0, 5.0), (4.2, 2.5)])
def test_gaussian_psf_agrees_with_scipy(fwhm, truncation):
    image = np.random.default_rng(0).random((3, 40, 40))
    sigma = fwhm / (2 * np.sqrt(2 * np.log(2)))
    expected = [gaussian_filter(i, sigma, mode="nearest", truncate=truncation) for i in image]
    assert_allclose(convolve_separable(t(image), gaussian_psf_taps(fwhm, truncation)), expected, rtol=1e-12)


def test_pixelated_psf_agrees_with_scipy():
    rng = np.random.default_rng(0)
    image, kernel = rng.random((2, 40, 40)), rng.random((7, 9))
    expected = [fftconvolve(i, kernel / kernel.sum(), mode="same") for i in image]
    assert_allclose(convolve(t(image), pixelated_psf(t(kernel))), expected, rtol=1e-10)


@settings(max_examples=20, deadline=None)
@given(fwhm=st.floats(0.5, 5), x=st.integers(15, 25), y=st.integers(15, 25))
def test_psf_keeps_flux_away_from_the_edge(fwhm, x, y):
    image = torch.zeros(1, 41, 41, dtype=torch.float64)
    image[0, y, x] = 1
    blurred = convolve_separable(image, gaussian_psf_taps(fwhm, 4.0))
    assert_allclose(blurred.sum(), 1, rtol=1e-12)


@pytest.mark.parametrize("kernel", [torch.ones(4, 5), torch.zeros(3, 3), torch.full((3, 3), float("nan"))])
def test_psf_without_a_central_pixel_or_flux_is_refused(kernel):
    with pytest.raises(ValueError, match="PSF"):
        pixelated_psf(kernel)


def test_bin_pixels_is_the_mean_of_subpixels():
    image = torch.arange(16.0).view(4, 4)
    assert_allclose(bin_pixels(image, 2), [[2.5, 4.5], [10.5, 12.5]])


def test_instrument_numbers_agree_with_lenstronomy():
    band = SingleBand(
        pixel_scale=0.101, exposure_time=566.0, magnitude_zero_point=25.72, read_noise=4.2, ccd_gain=3.1,
        sky_brightness=22.3, num_exposures=4, seeing=0.16,
    )  # fmt: skip
    assert_allclose(background_rms(4.2, 566.0, 4, 22.3, 25.72, 0.101), band.background_noise, rtol=1e-12)
    assert_allclose(counts_per_second(t(20.0), 25.72), band.magnitude2cps(20.0), rtol=1e-12)


@pytest.mark.parametrize("mean", [0.02, 0.3, 3.05, 9.99, 57.2, 79.99, 80.0, 600.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_poisson_numbers_follow_their_distribution(mean, dtype):
    n = 400_000
    drawn = poisson(torch.full((n,), mean, dtype=dtype), torch.Generator().manual_seed(1)).double().numpy()
    mean = float(torch.tensor(mean, dtype=dtype))
    law = stats.poisson(mean)
    assert abs(drawn.mean() - mean) < 5 * np.sqrt(mean / n)
    spread = np.sqrt((1 / mean + 2) / n)  # of a sample variance, relative
    assert abs(drawn.var() / mean - 1) < 5 * spread
    edges = np.unique(law.ppf(np.linspace(0.001, 0.999, 30)))
    observed = np.histogram(drawn, np.concatenate([[-0.5], edges + 0.5, [np.inf]]))[0]
    expected = n * np.diff(np.concatenate([[0], law.cdf(edges), [1]]))
    keep = expected > 10
    chi2 = ((observed - expected) ** 2 / expected)[keep].sum()
    assert stats.chi2.sf(chi2, keep.sum()) > 1e-4


def test_gaussian_noise_has_its_mean_and_variance():
    n = 400_000
    noise = gaussian_noise(torch.zeros(n), 0.3, torch.Generator().manual_seed(0))
    assert abs(noise.mean()) < 5 * 0.3 / np.sqrt(n)
    assert abs(noise.var() / 0.09 - 1) < 5 * np.sqrt(2 / n)


def test_no_photons_come_from_no_flux():
    means = torch.tensor([-1.0, 0.0, float("nan")])
    assert poisson(means, torch.Generator()).eq(0).all()


def test_numbers_follow_from_the_generator():
    means = torch.rand(1000, generator=torch.Generator().manual_seed(0)) * 100
    first, again = (poisson(means, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, poisson(means, torch.Generator().manual_seed(8)))
