"""Pixels that are nan or infinite, and images without structure."""

import numpy as np
import pytest

from darklens.data.checks import check_finite, constant_images
from darklens.errors import DataError

RNG = np.random.default_rng(2)


def test_bad_pixels_are_counted_in_the_first_image_that_has_any():
    images = RNG.normal(-3, 1, (5, 2, 3, 4)).astype(np.float32)
    images[2, 1, 0, 3], images[2, 0, 1, 1], images[4, 0, 0, 0] = np.nan, np.inf, -np.inf
    with pytest.raises(DataError, match=r"^survey: image c has 2 pixels that are nan or infinite; --mask true sets"):
        check_finite(images, list("abcde"), "survey")
    with pytest.raises(DataError, match=r"image e has 1 pixels"):
        check_finite(images[3:], list("de"), "survey", mask=False)


def test_masking_sets_bad_pixels_alone_to_zero():
    images = RNG.normal(-3, 1, (3, 2, 3, 4)).astype(np.float32)
    expected = images.copy()
    for place, value in (((0, 1, 2, 3), np.nan), ((2, 0, 0, 0), np.inf), ((2, 0, 0, 1), -np.inf)):
        images[place], expected[place] = value, 0
    given = images.copy()
    masked = check_finite(images, list("abc"), "survey", mask=True)
    np.testing.assert_array_equal(masked, expected)
    assert masked.dtype == np.float32
    np.testing.assert_array_equal(images, given)


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize(
    "images",
    [
        np.full((2, 1, 3, 3), 7, dtype=np.uint16),
        np.full((2, 1, 3, 3), -2.5),
        np.full((2, 1, 3, 3), 1e308),  # the sum overflows, no pixel does
        np.full((2, 1, 3, 3), 3e38, dtype=np.float32),
    ],
    ids=["integers", "floats", "huge", "huge float32"],
)
def test_finite_images_are_returned_as_they_are(images, mask):
    assert check_finite(images, ["a", "b"], "survey", mask=mask) is images


def test_images_are_constant_if_every_band_is():
    images = np.zeros((4, 2, 3, 3))
    images[0, 1] = 5.5  # two bands of one value each
    images[1, 1, 2, 2] = -1e-9
    images[2, 0, 0, 0] = 1
    assert constant_images(images).tolist() == [True, False, False, True]
