"""Images of several sizes, cropped or padded to one."""

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from darklens.data.layouts import open_data
from darklens.data.sizes import crop_or_pad
from darklens.errors import DataError

RNG = np.random.default_rng(3)


def test_crop_and_pad_keep_the_centre_and_the_level_of_the_edge():
    image = np.arange(30.0).reshape(1, 5, 6)
    np.testing.assert_array_equal(crop_or_pad(image, 3), image[:, 1:4, 1:4])
    padded = crop_or_pad(image, 8)
    np.testing.assert_array_equal(padded[0, 1:6, 1:7], image[0])
    edge = np.concatenate([image[0, 0], image[0, -1], image[0, :, 0], image[0, :, -1]])
    outside = np.ones((8, 8), dtype=bool)
    outside[1:6, 1:7] = False
    np.testing.assert_array_equal(padded[0][outside], np.full(outside.sum(), np.median(edge)))
    # One axis too long and the other too short.
    np.testing.assert_array_equal(crop_or_pad(np.ones((2, 3, 9)), 5), np.ones((2, 5, 5)))
    assert crop_or_pad(np.full((1, 2, 2), 7, dtype=np.uint8), 4).dtype == np.uint8


def save(folder, kind, sizes):
    images = {}
    for i, (height, width) in enumerate(sizes):
        image = images[f"o{i}"] = RNG.integers(0, 200, (height, width)).astype(np.uint8)
        if kind == "png":
            Image.fromarray(image).save(folder / f"o{i}.png")
        elif kind == "fits":
            fits.writeto(folder / f"o{i}.fits", image.astype(np.float32))
        else:
            np.save(folder / f"o{i}.npy", image.astype(np.float32))
    return images


@pytest.mark.parametrize("kind", ["png", "fits", "npy"])
def test_folder_of_several_sizes_says_which_and_how_many_and_is_read_at_one(tmp_path, kind):
    images = save(tmp_path, kind, [(20, 20), (20, 20), (17, 20), (24, 25), (20, 20)])
    with pytest.raises(DataError) as raised:
        open_data(tmp_path).images[:]
    message = str(raised.value)
    for part in ("3 sizes", f"1×20×20 (3, such as o0.{kind})", "1×17×20 (1, such as", "--crop 17 or --pad 25"):
        assert part in message
    cropped = open_data(tmp_path, crop=17).images
    assert cropped.shape == (5, 1, 17, 17)
    np.testing.assert_array_equal(cropped[[3]][0, 0], images["o3"][3:20, 4:21])
    padded = open_data(tmp_path, pad=25).images
    np.testing.assert_array_equal(padded[[0, 3]][1, 0, :24], images["o3"])
    both = open_data(tmp_path, crop=20, pad=20).images
    np.testing.assert_array_equal(both[[2]][0, 0, 1:18], images["o2"])
    np.testing.assert_array_equal(both[[3]][0, 0], images["o3"][2:22, 2:22])
    with pytest.raises(DataError, match=r"o2\.\w+: 17×20 pixels; --crop 20 needs --pad 20 beside it"):
        open_data(tmp_path, crop=20).images[:]
    with pytest.raises(DataError, match=r"o3\.\w+: 24×25 pixels; --pad 20 needs --crop 20 beside it"):
        open_data(tmp_path, pad=20).images[:]


def test_sizes_that_cannot_be():
    with pytest.raises(DataError, match="--crop takes a number of pixels, 1 to 16384; got 0"):
        open_data(".", crop=0)
    with pytest.raises(DataError, match="--crop 5 and --pad 6 are two sizes"):
        open_data(".", crop=5, pad=6)
