"""Images that are stored one in a file, ``.npy`` and PNG."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from darklens.data.importing import import_data
from darklens.data.layouts import open_data
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
