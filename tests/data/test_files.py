"""Images that are stored one in a file, ``.npy`` and PNG."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from darklens.data.importing import import_data
from darklens.data.layouts import open_data
from darklens.data.readers.files import NpyFiles, as_channels, count_shapes, is_channels_last
from darklens.errors import DataError

RNG = np.random.default_rng(0)


def png(width: int, height: int, data: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("width", "message"), [(9000, "header promises 10,125,000 bytes"), (60000, "could be decompression")]
)
def test_png_that_promises_more_than_deflate_can_hold_is_refused(tmp_path, width, message):
    (tmp_path / "a.png").write_bytes(png(4, 4, bytes(20)))
    assert open_data(tmp_path / "a.png").images[[0]].shape == (1, 1, 4, 4)
    (tmp_path / "a.png").write_bytes(png(width, width, bytes(20)))
    with pytest.raises(DataError, match=rf"a\.png: .*{message}"):
        open_data(tmp_path / "a.png")


def test_other_formats_named_png_are_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
    with pytest.raises(DataError, match=r"a\.png: not a readable PNG"):
        open_data(tmp_path / "a.png")


def test_png_files(tmp_path):
    Image.fromarray(RNG.integers(0, 255, (8, 8), dtype=np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(RNG.integers(0, 255, (8, 8), dtype=np.uint8)).save(tmp_path / "b.png")
    assert open_data(tmp_path).images.shape == (2, 1, 8, 8)
    colour = RNG.integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(colour).save(tmp_path / "c.png")
    np.testing.assert_array_equal(open_data(tmp_path / "c.png").images[[0]][0], np.moveaxis(colour, -1, 0))
    with pytest.raises(DataError, match=r"c\.png: images differ in their bands: .*1×8×8 \(2, .*3×8×8 \(1, "):
        open_data(tmp_path).images[:]


def test_png_of_8_and_16_bits_in_one_folder_keep_their_values(tmp_path):
    small, large = RNG.integers(0, 255, (8, 8), dtype=np.uint8), RNG.integers(0, 65535, (8, 8), dtype=np.uint16)
    Image.fromarray(small).save(tmp_path / "a.png")
    Image.fromarray(large).save(tmp_path / "b.png")
    Image.fromarray(small > 99).save(tmp_path / "c.png")
    images = open_data(import_data(open_data(tmp_path), tmp_path / "out")).images
    for row, expected in enumerate((small, large, small > 99)):
        np.testing.assert_array_equal(images[[row]][0, 0], expected)


def test_folder_of_colour_arrays_is_read_file_by_file(tmp_path):
    images = RNG.random((2, 16, 16, 3))
    np.save(tmp_path / "a.npy", images[0])
    np.save(tmp_path / "b.npy", np.moveaxis(images[1], -1, 0))
    data = open_data(tmp_path)
    np.testing.assert_allclose(data.images[:], np.moveaxis(images, -1, 1), rtol=1e-6)
    assert sum("bands in the last place" in note for note in data.info.notes) == 1


@pytest.mark.parametrize(
    ("shape", "channels", "last"),
    [
        ((9, 9, 3), None, True),
        ((5, 9, 4), None, True),
        ((4, 9, 3), None, False),
        ((9, 9, 2), None, False),
        ((9, 9, 5), None, False),
        ((9, 9, 3), "first", False),
        ((3, 9, 9), "last", True),
    ],
)
def test_axis_of_the_bands_is_guessed_or_chosen(shape, channels, last):
    assert is_channels_last(shape, channels) is last
    image = RNG.normal(0, 1, shape)
    np.testing.assert_array_equal(as_channels(image, "a.npy", channels), image.transpose(2, 0, 1) if last else image)


def test_what_is_no_image_is_refused():
    np.testing.assert_array_equal(as_channels(np.eye(3)[:2], "a.npy"), np.eye(3)[None, :2])
    for shape in ((4,), (2, 3, 4, 5), (0, 4)):
        with pytest.raises(
            DataError, match=r"a\.npy: an array of shape .*; expected one image, \(H, W\) or \(C, H, W\)"
        ):
            as_channels(np.ones(shape), "a.npy")


def test_files_are_read_by_number_in_the_order_asked_for(tmp_path):
    images = RNG.normal(-2, 3, (5, 4, 6)).astype(np.float32)
    paths = [tmp_path / f"{i}.npy" for i in range(5)]
    for path, image in zip(paths, images, strict=True):
        np.save(path, image)
    files = NpyFiles(paths)
    assert (files.shape, files.dtype, files.masses) == ((5, 1, 4, 6), np.float32, [None] * 5)
    for rows in ([3, 0, 0, -1], slice(1, 4), np.array([True, False, False, True, False])):
        np.testing.assert_array_equal(files[rows][:, 0], images[rows])
    np.testing.assert_array_equal(files[2][:, 0], images[[2]])


def test_types_of_files_are_widened_to_floats(tmp_path):
    for kind, expected in (("i2", "f4"), ("f8", "f8"), ("i4", "f8")):
        np.save(tmp_path / "a.npy", np.array([[1, -2]], dtype=kind))
        assert NpyFiles([tmp_path / "a.npy"]).dtype == np.dtype(expected)


def test_masses_of_some_files_are_theirs(tmp_path):
    for i, mass in enumerate((None, 2e9, None, -3.5)):
        value = np.empty(2, dtype=object)
        value[0], value[1] = np.full((2, 3), i), mass
        np.save(tmp_path / f"{i}.npy", np.full((2, 3), float(i)) if mass is None else value, allow_pickle=True)
    files = NpyFiles([tmp_path / f"{i}.npy" for i in range(4)])
    assert (files.masses, files.has_masses) == ([None, 2e9, None, -3.5], True)
    assert files[:][:, 0, 1, 2].tolist() == [0, 1, 2, 3]


def test_shapes_are_counted_and_unreadable_files_left_out():
    def shape_of(path):
        if path.name == "bad":
            raise DataError("no")
        return [len(path.name), 2]

    paths = [Path(name) for name in ("x/a", "x/bb", "bad", "y/c")]
    assert count_shapes(paths, shape_of) == {(1, 2): ["a", "c"], (2, 2): ["bb"]}


def test_colour_pictures_have_the_bands_r_g_b_and_no_unit(tmp_path):
    colour = RNG.integers(0, 255, (3, 5, 3), dtype=np.uint8)
    Image.fromarray(colour).save(tmp_path / "a.png")
    opened = open_data(tmp_path)
    assert (opened.info.bands, opened.info.unit, opened.info.pixel_scale) == (["R", "G", "B"], None, None)
    Image.fromarray(colour[..., 0]).save(tmp_path / "a.png")
    assert open_data(tmp_path).info.bands == []


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG"])
def test_jpeg_is_read_as_pil_decodes_it(tmp_path, name):
    smooth = np.add.outer(np.arange(24) * 5, np.arange(40) * 3)
    colour = np.stack([smooth, 255 - smooth, smooth // 2], axis=-1).astype(np.uint8)
    Image.fromarray(colour).save(tmp_path / name, format="JPEG", quality=95)
    opened = open_data(tmp_path)
    assert opened.ids == ["a"]
    assert opened.info.bands == ["R", "G", "B"]
    assert opened.info.notes == ["JPEG: brightness may be stretched, and is not calibrated"]
    decoded = opened.images[:][0].astype(int)
    np.testing.assert_array_equal(decoded, np.asarray(Image.open(tmp_path / name)).transpose(2, 0, 1))
    assert np.abs(decoded - colour.transpose(2, 0, 1)).max() < 12, "compression loses little of what is smooth"
    Image.fromarray(colour[..., 0]).save(tmp_path / name, format="JPEG", quality=95)
    assert open_data(tmp_path / name).images.shape == (1, 1, 24, 40)


def test_jpeg_of_print_colours_becomes_rgb(tmp_path):
    """Cyan ink alone takes away red, and leaves green and blue."""
    Image.new("CMYK", (16, 8), (255, 0, 0, 0)).save(tmp_path / "a.jpg", quality=95)
    found = open_data(tmp_path).images[:][0].astype(int)
    np.testing.assert_allclose(found.mean((1, 2)), [0, 255, 255], atol=3)


def test_damaged_jpeg_and_other_formats_named_jpg_are_refused(tmp_path):
    Image.fromarray(RNG.integers(0, 255, (60, 60, 3), dtype=np.uint8)).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"a\.jpg: not a readable JPEG"):
        open_data(tmp_path / "a.jpg")
    Image.new("L", (4, 4)).save(tmp_path / "b.jpg", format="PNG")
    with pytest.raises(DataError, match=r"b\.jpg: not a readable JPEG"):
        open_data(tmp_path / "b.jpg")


def test_grey_and_colour_in_one_folder_are_refused_with_one_of_each(tmp_path):
    for name, shape in (("a", (6, 7, 3)), ("b", (6, 7)), ("c", (6, 7))):
        Image.fromarray(RNG.integers(0, 255, shape, dtype=np.uint8)).save(tmp_path / f"{name}.png")
    message = r"images differ in their bands: .*1×6×7 \(2, such as b\.png\), 3×6×7 \(1, such as a\.png\)"
    with pytest.raises(DataError, match=message):
        open_data(tmp_path).images[:]


def test_transparency_is_left_out_with_a_note(tmp_path):
    grey = RNG.integers(0, 255, (3, 5, 2), dtype=np.uint8)
    Image.fromarray(grey, "LA").save(tmp_path / "a.png")
    opened = open_data(tmp_path)
    np.testing.assert_array_equal(opened.images[:][0, 0], grey[..., 0])
    assert [note for note in opened.info.notes if "alpha" in note] == ["a.png: transparency (alpha) is left out"]
    Image.fromarray(grey[..., 0]).save(tmp_path / "a.png")
    assert not [note for note in open_data(tmp_path).info.notes if "alpha" in note]


def test_transparency_and_palettes_become_colours(tmp_path):
    colour = RNG.integers(0, 255, (3, 5, 4), dtype=np.uint8)
    Image.fromarray(colour, "RGBA").save(tmp_path / "a.png")
    np.testing.assert_array_equal(open_data(tmp_path / "a.png").images[:][0], colour[..., :3].transpose(2, 0, 1))
    indexed = Image.fromarray(np.array([[0, 1], [1, 0]], dtype=np.uint8), "P")
    indexed.putpalette([9, 8, 7, 100, 110, 120])
    indexed.save(tmp_path / "b.png")
    assert open_data(tmp_path / "b.png").images[:][0].tolist() == [
        [[9, 100], [100, 9]], [[8, 110], [110, 8]], [[7, 120], [120, 7]],
    ]  # fmt: skip
