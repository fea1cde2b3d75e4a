"""Flux, place and noise of resampled images, beside integrals of a Gaussian and random draws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import erf

from darklens.data.resampling import Axis, about_centre, resample, resample_noise, resample_psf
from darklens.data.sizes import crop_or_pad


def gaussian(pixels: int, step: float, centre: tuple[float, float], sigma: float) -> np.ndarray:
    """A source of flux 1 integrated over pixels ``step`` wide about the origin, exactly."""
    edges = (np.arange(pixels + 1) - pixels / 2) * step
    rows, columns = (np.diff(erf((edges - c) / sigma / np.sqrt(2))) / 2 for c in centre)
    return rows[:, None] * columns


@pytest.mark.parametrize(("old", "step"), [(75, 0.25), (300, 4.0), (41, 0.7), (40, 1.9)])
def test_flux_of_a_point_is_one_wherever_it_is(old, step):
    axis = about_centre(old, step)
    for place in (old // 2, old // 2 - 3, old // 3):
        point = np.zeros((old, old))
        point[place, place + 1] = 1
        assert resample(point, axis, axis).sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("old", "wide", "step", "tolerance"), [(64, 0.2, 0.5, 0.02), (100, 0.1, 2.0, 0.002), (90, 0.1, 1.5, 0.003)]
)
def test_a_smooth_source_is_that_of_the_new_pixels(old, wide, step, tolerance):
    centre, sigma = (0.83, -1.27), 0.35
    axis = about_centre(old, step)
    found = resample(gaussian(old, wide, centre, sigma), axis, axis)
    expected = gaussian(axis.count, wide * step, centre, sigma)
    assert np.abs(found - expected).max() < tolerance * expected.max()


def test_a_flat_image_stays_flat():
    found = resample(np.full((31, 44), 3.0), about_centre(31, 0.6), about_centre(44, 0.6))
    np.testing.assert_allclose(found, 3 * 0.36, rtol=1e-6)


def test_the_same_pixels_are_left_as_they_are():
    image = np.random.default_rng(3).normal(size=(2, 9, 13)).astype(np.float32)
    np.testing.assert_allclose(resample(image, about_centre(9, 1), about_centre(13, 1)), image, atol=1e-6)
    assert about_centre(9, 1).is_same(9)
    assert not about_centre(9, 1).is_same(10)
    assert not Axis(9, 0.3, 1).is_same(9)


def test_whole_pixels_are_shifted_and_mirrored():
    image = np.random.default_rng(4).normal(size=(6, 8))
    shifted = resample(image, Axis(4, 2, 1), Axis(8, 7, -1))
    np.testing.assert_allclose(shifted, image[2:, ::-1], atol=1e-6)


def test_what_is_not_covered_has_no_data():
    image = np.ones((4, 6))
    image[1, 2] = np.nan
    found = resample(image, Axis(4, 0, 1), Axis(8, -1, 1))
    expected = np.pad(image, ((0, 0), (1, 1)), constant_values=np.nan)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    binned = resample(image, Axis(2, 0.5, 2), Axis(3, 0.5, 2))
    np.testing.assert_allclose(binned, 4, atol=0.4)  # three pixels with data of four, brought to the whole
    assert np.isfinite(binned).all()


@pytest.mark.parametrize("step", [0.5, 0.37, 2.0])
def test_noise_of_large_areas_is_kept(step):
    rng = np.random.default_rng(5)
    noise = np.concatenate([np.full((40, 20), 0.5), np.full((40, 20), 2.0)], axis=1)
    images = rng.normal(size=(400, 40, 40)) * noise
    axis = about_centre(40, step)
    found = resample(images, axis, axis)
    quarter = slice(axis.count // 8, axis.count * 3 // 8)
    for columns in (quarter, slice(axis.count * 5 // 8, axis.count * 7 // 8)):
        measured = found[:, quarter, columns].sum((1, 2)).std()
        expected = np.sqrt((resample_noise(noise, axis, axis)[quarter, columns].astype(float) ** 2).sum())
        assert measured == pytest.approx(expected, rel=0.12)


@pytest.mark.parametrize("covered", [0.5, 0.7, 1.0])
def test_noise_of_pixels_that_data_cover_in_part_is_that_of_what_is_brought_to_the_whole(covered):
    """The first column of new pixels, two old ones wide, lies in part beyond the border."""
    images = np.random.default_rng(6).normal(size=(2000, 24, 24)) * 3
    rows, columns = about_centre(24, 2.0), Axis(8, -0.5 + (covered - 0.5) * 2, 2.0)
    measured = resample(images, rows, columns)[..., 0].std()
    said = resample_noise(np.full((24, 24), 3.0), rows, columns)[:, 0]
    np.testing.assert_allclose(said, 6 / np.sqrt(covered), rtol=1e-6)
    assert measured == pytest.approx(float(said[0]), rel=0.04)
    with_gap = np.where(np.arange(24) < 2 * (1 - covered), np.inf, np.full((24, 24), 3.0))
    inside = resample_noise(with_gap, rows, about_centre(24, 2.0))[:, 0]
    np.testing.assert_allclose(inside, 6 / np.sqrt(1 - np.ceil(2 * (1 - covered)) / 2), rtol=1e-6)


def test_noise_of_new_pixels_is_that_of_their_area():
    axis = about_centre(10, 0.5)
    np.testing.assert_allclose(resample_noise(np.full((10, 10), 3.0), axis, axis), 1.5, rtol=1e-6)
    no_data = resample_noise(np.full((10, 10), np.inf), axis, axis)
    assert np.isinf(no_data).all()


def test_a_psf_has_odd_sides_and_sum_one():
    kernel = gaussian(31, 1, (0, 0), 3.0)
    found = resample_psf(kernel, 1.5)
    expected = gaussian(19, 1.5, (0, 0), 3.0)
    assert found.shape == (19, 19)
    assert found.sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(found, expected / expected.sum(), atol=1e-3 * expected.max())


@pytest.mark.parametrize("side", [4, 7, 40])
def test_the_centre_alone_is_that_of_the_whole(side):
    image = np.random.default_rng(9).normal(size=(2, 13, 10))
    rows, columns = about_centre(13, 0.7), about_centre(10, 0.7)
    whole = resample(image, rows, columns)
    part = resample(image, rows.central(side), columns.central(side))
    np.testing.assert_allclose(part, crop_or_pad(whole, side) if side < 14 else whole, atol=1e-6)
