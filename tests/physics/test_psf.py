import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

from darklens.physics import bin_pixels, convolve, convolve_separable, gaussian_psf_taps, pixel_response, pixelated_psf


def t(value):
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize(("fwhm", "truncation"), [(1.74, 3.0), (1.0, 5.0), (4.2, 2.5)])
def test_gaussian_psf_agrees_with_scipy(fwhm, truncation):
    image = np.random.default_rng(0).random((3, 40, 40))
    sigma = fwhm / (2 * np.sqrt(2 * np.log(2)))
    expected = [gaussian_filter(i, sigma, mode="nearest", truncate=truncation) for i in image]
    assert_allclose(convolve_separable(t(image), gaussian_psf_taps(fwhm, truncation)), expected, rtol=1e-12)


def test_pixelated_psf_agrees_with_scipy():
    rng = np.random.default_rng(0)
    image, kernel = rng.random((2, 40, 31)), rng.random((7, 9))
    # An oblong image: its sides are not taken for one another.
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


def test_response_of_pixels_is_binning_after_convolution():
    image = torch.from_numpy(np.random.default_rng(3).normal(size=(2, 12, 12)))
    taps = [0.1, 0.5, 0.2, 0.15, 0.05]
    response = pixel_response(4, 3, taps)
    wanted = bin_pixels(convolve_separable(image, taps), 3)
    assert_allclose(response @ image @ response.mT, wanted, atol=1e-14)
