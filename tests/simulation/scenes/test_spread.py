"""Light spread by point-spread functions, against transforms in double precision and against the functions themselves."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.special import gamma, kv

from darklens.simulation.scenes.spread import Places, Seeing, size_of, spread

NO_POINTS = Places(np.zeros(0, int), np.zeros(0), np.zeros((2, 0)))

SIGNS = [(1, 1), (1, -1), (-1, 1), (-1, -1)]


def by_double_precision(image, fwhm, e1, e2, beta, *, points, factor, size):
    """Binned images by transforms of the whole spectrum, float64."""
    grid = np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size))
    # At half of the size a frequency and its negative are one: whatever differs between them is the mean.
    signs = [[np.where(np.isclose(f, -0.5), -f * s, f) for f, s in zip(grid, pair, strict=True)] for pair in SIGNS]
    spectrum = np.fft.fft2(image, s=(size, size))
    for flux, x, y in points:
        spectrum += np.mean([flux * np.exp(-2j * np.pi * (x * across + y * down)) for across, down in signs], axis=0)
    transfer = np.mean([transform(fwhm, e1, e2, beta, *pair) for pair in signs], axis=0)
    across, down = grid
    seen = np.fft.ifft2(spectrum * transfer * np.sinc(across) * np.sinc(down)).real
    pixels = len(image) // factor
    return seen[: len(image), : len(image)].reshape(pixels, factor, pixels, factor).sum((1, 3))


def transform(fwhm, e1, e2, beta, across, down):
    f = fwhm / np.sqrt(1 - e1**2 - e2**2) * np.hypot((1 + e1) * across + e2 * down, e2 * across + (1 - e1) * down)
    if beta is None:
        return np.exp(-(np.pi**2) / (4 * np.log(2)) * f**2)
    u = np.maximum(np.pi / np.sqrt(2 ** (1 / beta) - 1) * f, 1e-9)
    return 2 / gamma(beta - 1) * (u / 2) ** (beta - 1) * kv(beta - 1, u)


def scene(side, seed=0):
    """Sharp and smooth light: noise, a gradient and single bright parts."""
    rng = np.random.default_rng(seed)
    image = rng.uniform(size=(side, side)) + np.linspace(0, 3, side)
    image[rng.integers(side, size=6), rng.integers(side, size=6)] += 100
    return image.astype(np.float32)


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize(
    ("fwhm", "beta"),
    [(3.1, None), (7.1, None), (1.4, None), (0.5, None), (9.2, 3.5), (5.0, 3.5), (2.0, 2.5), (0.7, 4.8)],
)
def test_images_are_those_of_whole_spectra_in_double_precision(factor, fwhm, beta):
    side = 24 * factor
    size = size_of(side + 3 * factor, factor)
    e1, e2 = np.array([0.0, 0.11, -0.2]), np.array([0.0, -0.07, 0.25])
    images = np.stack([scene(side, seed) for seed in range(3)])
    owner, flux = np.array([1, 2, 2]), np.array([40.0, 3.0, 90.0])
    at = np.array([[3.3, 11.02, 20.5], [8.5, 1.25, 16.9]]) * factor
    seeing = Seeing(np.array([fwhm, fwhm * 1.2, fwhm]), e1, e2)
    found = spread(torch.from_numpy(images), seeing, beta, points=Places(owner, flux, at), factor=factor, size=size)
    for i in range(3):
        own = [(flux[k], *at[:, k]) for k in np.flatnonzero(owner == i)]
        expected = by_double_precision(
            images[i], seeing.fwhm[i], e1[i], e2[i], beta, points=own, factor=factor, size=size
        )
        assert_allclose(found[i].numpy(), expected, rtol=0, atol=1e-6 * expected.max())


def test_an_image_does_not_depend_on_those_beside_it():
    images = torch.from_numpy(np.stack([scene(32, seed) for seed in range(5)]))
    seeing = Seeing(np.linspace(2, 9, 5), np.linspace(-0.1, 0.1, 5), np.zeros(5))
    together = spread(images, seeing, 3.5, points=NO_POINTS, factor=2, size=40)
    for i in range(5):
        own = Seeing(*(each[i : i + 1] for each in seeing))
        assert torch.equal(spread(images[i : i + 1], own, 3.5, points=NO_POINTS, factor=2, size=40)[0], together[i])


def test_what_is_no_point_spread_function_leaves_nan():
    seeing = Seeing(np.array([3.0, np.nan, 0.0, 3.0]), np.array([0.0, 0.0, 0.0, 1.1]), np.zeros(4))
    found = spread(torch.ones(4, 32, 32), seeing, 3.5, points=NO_POINTS, factor=2, size=40)
    assert found.isfinite().all((1, 2)).tolist() == [True, False, False, False]


def test_a_point_looks_like_a_gaussian():
    at = np.array([[24.3], [22.6]])
    points = Places(np.zeros(1, int), np.array([2.0]), at)
    seeing = Seeing(np.array([6.0]), np.zeros(1), np.zeros(1))
    found = spread(torch.zeros(1, 48, 48), seeing, None, points=points, factor=1, size=96)[0].numpy()
    from scipy.special import erf

    sigma, edges = 6.0 / np.sqrt(8 * np.log(2)), np.arange(49) - 0.5
    across, down = (np.diff(erf((edges - centre) / sigma / np.sqrt(2))) / 2 for centre in at[:, 0])
    assert_allclose(found, 2 * down[:, None] * across, rtol=0, atol=1e-6 * found.max())


@pytest.mark.parametrize(
    ("least", "factor", "expected"), [(152, 2, 160), (97, 1, 100), (151, 3, 162), (91, 1, 96), (7, 7, 14)]
)
def test_sides_of_transforms_are_even_and_multiples(least, factor, expected):
    assert size_of(least, factor) == expected
