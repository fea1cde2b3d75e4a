"""Images of several sizes, cropped or padded to one."""

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from darklens.data.layouts import open_data
from darklens.data.sizes import OneSize, central_window, crop_or_pad, sizes_message
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
    if kind == "fits":
        opened = open_data(tmp_path)
        assert opened.info.notes == [
            "images of 3 sizes brought to 20×20 pixels: 1 cropped, 1 padded; --crop or --pad chooses another"
        ]
        np.testing.assert_array_equal(opened.images[[3]][0, 0], images["o3"][2:22, 2:22])
        np.testing.assert_array_equal(opened.images[[2]][0, 0, 1:18], images["o2"])
    else:
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


@pytest.mark.parametrize(
    ("height", "width", "side", "rows", "columns"),
    [
        (9, 14, 4, (2, 6), (5, 9)),
        (9, 14, 5, (2, 7), (4, 9)),
        (14, 9, 5, (4, 9), (2, 7)),
        (4, 14, 6, (0, 4), (4, 10)),
        (14, 4, 6, (4, 10), (0, 4)),
        (3, 4, 9, (0, 3), (0, 4)),
    ],
)
def test_central_window(height, width, side, rows, columns):
    assert central_window(height, width, side) == (slice(*rows), slice(*columns))


def test_each_image_and_band_is_padded_with_the_median_of_its_own_edge():
    images = RNG.normal(-3, 1, (2, 3, 4, 5))
    images[0, 1, 0, 0] = np.nan
    images[:, :, 1:3, 1:4] += 1000
    padded = crop_or_pad(images, 8)
    np.testing.assert_array_equal(padded[..., 2:6, 1:6], images)
    edges = np.concatenate([images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]], axis=-1)
    for place in ((0, 0), (0, 7), (7, 0), (7, 7), (1, 3), (6, 3), (3, 0), (3, 6)):
        np.testing.assert_array_equal(padded[..., place[0], place[1]], np.nanmedian(edges, axis=-1))
    assert np.isnan(crop_or_pad(np.full((1, 2, 2), np.nan), 3)).all()


def test_sizes_are_bounded_and_both_axes_count():
    assert (OneSize(crop=1).side, OneSize(pad=16_384).side, OneSize().side) == (1, 16_384, None)
    with pytest.raises(DataError, match="--pad takes a number of pixels, 1 to 16384; got 16385"):
        OneSize(pad=16_385)
    for shape in ((9, 5), (5, 9)):
        with pytest.raises(DataError, match=rf"a: {shape[0]}×{shape[1]} pixels; --crop 6 needs --pad 6 beside it"):
            OneSize(crop=6)(np.ones((1, *shape)), "a")
        with pytest.raises(DataError, match=rf"a: {shape[0]}×{shape[1]} pixels; --pad 6 needs --crop 6 beside it"):
            OneSize(pad=6)(np.ones((1, *shape)), "a")
    images = RNG.normal(0, 1, (2, 5, 9))
    assert OneSize()(images, "a") is images


def test_message_lists_the_six_commonest_sizes():
    shapes = {(1, 20 + i, 30 - i): [f"{i}{j}.npy" for j in range(i)] for i in range(1, 9)}
    message = sizes_message(shapes)
    assert message == (
        "images of 8 sizes: bands×height×width are 1×28×22 (8, such as 80.npy), 1×27×23 (7, such as 70.npy), "
        "1×26×24 (6, such as 60.npy), 1×25×25 (5, such as 50.npy), 1×24×26 (4, such as 40.npy), "
        "1×23×27 (3, such as 30.npy) and 2 other sizes; bring them to one with --crop 21 or --pad 29 "
        "(both with the same number to choose another)"
    )
    del shapes[(1, 21, 29)], shapes[(1, 22, 28)]
    assert sizes_message(shapes).endswith(
        "1×23×27 (3, such as 30.npy); bring them to one with --crop 22 or --pad 28 "
        "(both with the same number to choose another)"
    )
    bands = {(3, 8, 8): ["a.npy"], (1, 8, 8): ["b.npy", "c.npy"]}
    assert sizes_message(bands) == (
        "images differ in their bands: bands×height×width are 1×8×8 (2, such as b.npy), 3×8×8 (1, such as a.npy); "
        "keep those of one kind in a folder"
    )
