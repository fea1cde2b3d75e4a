import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lenstronomy.LightModel.light_model import LightModel
from lenstronomy.SimulationAPI.observation_api import SingleBand
from numpy.testing import assert_allclose
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

from darklens.physics import (
    background_rms,
    bin_pixels,
    convolve,
    convolve_separable,
    counts_per_second,
    gaussian_noise,
    gaussian_psf_matrix,
    pixelated_light,
    pixelated_psf,
    poisson_noise,
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
    matrix = gaussian_psf_matrix(40, fwhm, truncation, torch.float64)
    assert_allclose(convolve_separable(t(image), matrix), expected, rtol=1e-12)


def test_pixelated_psf_agrees_with_scipy():
    rng = np.random.default_rng(0)
    image, kernel = rng.random((2, 40, 40)), rng.random((7, 9))
    expected = [fftconvolve(i, kernel / kernel.sum(), mode="same") for i in image]
    assert_allclose(convolve(t(image), pixelated_psf(t(kernel))), expected, rtol=1e-10)


@settings(max_examples=20, deadline=None)
@given(fwhm=st.floats(0.5, 5), x=st.integers(15, 25), y=st.integers(15, 25))
def test_psf_keeps_flux_away_from_the_edge(fwhm, x, y):
    image = torch.zeros(41, 41, dtype=torch.float64)
    image[y, x] = 1
    blurred = convolve_separable(image, gaussian_psf_matrix(41, fwhm, 4.0, torch.float64))
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


def test_noise_has_the_mean_and_variance_of_theory():
    generator = torch.Generator().manual_seed(0)
    flux, time, n = torch.full((400_000,), 0.05), 300.0, 400_000
    photons = poisson_noise(flux, time, generator)
    variance = 0.05 / time
    assert abs(photons.mean() - 0.05) < 5 * np.sqrt(variance / n)
    # The variance of a sample variance of a Poisson is close to that of a Gaussian at 15 counts.
    assert abs(photons.var() / variance - 1) < 5 * np.sqrt(2.2 / n)
    noise = gaussian_noise(flux, 0.3, generator)
    assert abs(noise.mean()) < 5 * 0.3 / np.sqrt(n)
    assert abs(noise.var() / 0.09 - 1) < 5 * np.sqrt(2 / n)


def test_negative_flux_counts_as_none():
    assert poisson_noise(torch.full((10,), -1.0), 100.0, torch.Generator()).eq(0).all()
