"""Files that promise more than they hold, or hold something else than they promise, are refused before they are read."""

import gzip
import json
import struct
import zlib

import h5py
import numpy as np
import polars as pl
import pytest
from astropy.io import fits

from darklens.data.bounds import (
    DEFLATE_RATIO,
    IMAGE_BYTES,
    TILE_RATIO,
    check_expansion,
    check_gzip,
    check_image,
    check_whole,
)
from darklens.data.dataset import DatasetInfo, DatasetWriter, read_dataset
from darklens.data.layouts import open_data
from darklens.data.readers.tables import read_parquet
from darklens.data.unpickle import load_npy, read_header, split_pair
from darklens.errors import DataError


def write_npy(path, header: bytes, data: bytes = b""):
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data)
    return path


HEADERS = {
    b"{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3": "not a .npy file",
    b"{'descr': '<f8', 'fortran_order': False, 'shape': (-2, -3), }\n": "promises the shape",
    b"{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296), }\n": "truncated: .* promises 147573952",
    b"{'descr': '<c16', 'fortran_order': False, 'shape': (2, 2), }\n": "holds complex128, not numbers",
    b"{'descr': '|V9', 'fortran_order': False, 'shape': (2, 2), }\n": "holds .*V9, not numbers",
    b"{'descr': '<M8[s]', 'fortran_order': False, 'shape': (2, 2), }\n": "holds datetime64",
    b"[" * 5000: "not a .npy file",
}


@pytest.mark.parametrize("header", HEADERS, ids=range(len(HEADERS)))
def test_npy_headers_that_lie_are_refused(tmp_path, header):
    path = write_npy(tmp_path / "a.npy", header, bytes(64))
    with pytest.raises(DataError, match=rf"a\.npy: .*{HEADERS[header]}"):
        read_header(path)
    with pytest.raises(DataError, match=r"a\.npy"):
        open_data(path)


def test_npy_header_of_four_gigabytes_is_not_read(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x02\x00\xff\xff\xff\xff{'descr'")
    with pytest.raises(
        DataError, match=r"a\.npy: not a \.npy file \(EOF: reading array header, expected 4294967295 bytes"
    ):
        load_npy(tmp_path / "a.npy")


@pytest.mark.parametrize(
    "parts", [["a", 1.0], [np.zeros((4, 4)), "x"], [[[1.0], [1.0, 2.0]], 1.0], [np.zeros((4, 4)), 1j]]
)
def test_pairs_of_anything_but_numbers_are_refused(tmp_path, parts):
    pair = np.empty(2, dtype=object)
    pair[0], pair[1] = parts
    with pytest.raises(DataError, match=r"expected \[image, mass\]"):
        split_pair(pair, tmp_path / "a.npy")


def fits_header(**cards) -> bytes:
    text = "".join(f"{key:8}= {value:>20}".ljust(80) for key, value in cards.items()) + "END"
    return text.ljust(-(-len(text) // 2880) * 2880).encode()


@pytest.mark.parametrize("sides", [(64, 2_000_000_000), (2_000_000_000, 64), (4000, 4000)])
def test_fits_headers_that_promise_more_than_the_file_are_refused(tmp_path, sides):
    header = fits_header(SIMPLE="T", BITPIX=-32, NAXIS=2, NAXIS1=sides[1], NAXIS2=sides[0])
    (tmp_path / "a.fits").write_bytes(header + bytes(2880))
    with pytest.raises(DataError, match=r"a\.fits: (truncated: 5760 bytes where|an image of)"):
        open_data(tmp_path / "a.fits")


def test_compressed_fits_that_promise_more_than_tiles_can_hold_are_refused(tmp_path):
    path = tmp_path / "a.fits"
    packed = fits.CompImageHDU(np.zeros((16, 16), np.int32), compression_type="RICE_1")
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(path)
    assert open_data(path).images[[0]].shape == (1, 1, 16, 16)
    text = path.read_bytes()
    for key in (b"ZNAXIS1", b"ZTILE1"):
        old = key.ljust(8) + b"=                   16"
        assert old in text
        text = text.replace(old, old.replace(b"      16", b"20000000"))
    path.write_bytes(text)
    with pytest.raises(
        DataError, match=rf"a\.fits: damaged: its header promises 1,280,000,000 bytes, and {len(text):,} "
    ):
        open_data(path).images[[0]]


@pytest.mark.parametrize(
    "value",
    [b"=                    0", b"=0                  16", b"=                    F", b"=                  0.5"],
)
@pytest.mark.parametrize("suffix", [".fits", ".fits.gz"])
def test_compressed_fits_with_a_side_of_nothing_are_refused(tmp_path, value, suffix):
    """cfitsio divides by it, which ends the process."""
    packed = fits.CompImageHDU(np.zeros((16, 16), np.int32), compression_type="RICE_1")
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(tmp_path / "whole.fits")
    text = (tmp_path / "whole.fits").read_bytes().replace(b"ZNAXIS2 =                   16", b"znaxis2 " + value)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(text if suffix == ".fits" else gzip.compress(text))
    with pytest.raises(DataError, match=rf"a{suffix}: damaged: its header says 'znaxis2 {value.decode()}'; expected"):
        open_data(path)


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\x1f\x9d\x90", b"BZh9", b"XIMPLE"])
def test_archives_and_other_files_named_fits_are_refused(tmp_path, start):
    (tmp_path / "a.fits").write_bytes(start + bytes(5756))
    with pytest.raises(DataError, match=r"a\.fits: not a readable FITS file: it does not begin with SIMPLE"):
        open_data(tmp_path / "a.fits")


def test_text_that_is_not_ascii_in_fits_headers_is_refused_by_name(tmp_path):
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones((8, 8)), name="VIS")]).writeto(path)
    path.write_bytes(path.read_bytes().replace(b"NAXIS1  =                    8", b"NAXIS1  =           \xff        8"))
    with pytest.raises(DataError, match=r"a\.fits: .*decode"):
        open_data(path)


def test_gzip_that_expands_beyond_bounds_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.fits.gz"
    path.write_bytes(gzip.compress(bytes(10_000_000)))
    check_gzip(path)
    monkeypatch.setattr("darklens.data.bounds.IMAGE_BYTES", 5_000_000)
    with pytest.raises(DataError, match=r"a\.fits\.gz: an image of \d"):
        check_gzip(path)


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


def test_hdf5_that_promises_more_than_it_stores_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", (1000, 500, 500), np.float64)  # nothing written: nothing stored
    with pytest.raises(DataError, match=r"a\.h5: truncated: 0 bytes where its header promises 2000000000"):
        open_data(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("images", (1000, 5000, 5000), np.float64, chunks=(1, 50, 50), compression="gzip")
        file["images"][0, :50, :50] = 1
    with pytest.raises(DataError, match=r"b\.h5: damaged: its header promises 200,000,000,000 bytes"):
        open_data(tmp_path / "b.h5")


@pytest.mark.parametrize("labels", [[0, np.nan, 1], [0, np.inf, 1], ["a", "b", "c"]])
def test_labels_that_are_no_numbers_are_refused(tmp_path, labels):
    np.save(tmp_path / "images.npy", np.ones((3, 1, 8, 8)))
    np.save(tmp_path / "labels.npy", np.array(labels))
    with pytest.raises(DataError, match=r"labels\.npy: (labels of type float64, or nan|holds <U1, not numbers)"):
        open_data(tmp_path)


def test_hdf5_whose_values_lie_elsewhere_is_refused(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(4 * 64))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", (4, 8, 8), "u1", external=[(str(tmp_path / "secret"), 0, 256)])
    with pytest.raises(DataError, match=r"a\.h5: dataset /images keeps its values in other files"):
        open_data(tmp_path / "a.h5")


def test_hdf5_text_without_end_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=np.ones((2, 8, 8)))
        file.create_dataset("label", data=["a", "b"])
    assert open_data(path).catalog["label"].to_list() == ["a", "b"]
    content = bytearray(path.read_bytes())
    heap = content.index(b"GCOL")
    first_free = content.index(struct.pack("<HHIQ", 0, 0, 0, 4096 - 16 - 2 * 24), heap)
    content[first_free + 8 : first_free + 16] = bytes(8)
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.h5: damaged: its text, at byte {heap}, has no end"):
        open_data(path)


def test_parquet_that_expands_beyond_bounds_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    pl.DataFrame({"id": ["x"] * 100_000, "label": ["cdm"] * 100_000}).write_parquet(path)
    assert read_parquet(path)["label"].unique().to_list() == ["cdm"]
    monkeypatch.setattr("darklens.data.readers.tables.SMALL", 1000)
    monkeypatch.setattr("darklens.data.readers.tables.DEFLATE_RATIO", 1)
    with pytest.raises(DataError, match=r"a\.parquet: damaged: its header promises"):
        read_parquet(path)


@pytest.fixture
def folder(tmp_path):
    writer = DatasetWriter(tmp_path / "set", (2, 1, 8, 8), np.dtype(np.float32), fingerprint={})
    writer.write(0, np.ones((2, 1, 8, 8)))
    return writer.finish(pl.DataFrame({"id": ["0", "1"]}), DatasetInfo("a telescope", ["cdm"], ["VIS"], 0.1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": "cdm"}, r"classes is 'cdm'; expected list\[str\]"),
        ({"classes": [1]}, r"classes is \[1\]; expected list\[str\]"),
        ({"pixel_scale": "0.1"}, r"pixel_scale is '0.1'; expected float or null"),
        ({"pixel_scale": True}, "pixel_scale is True"),
        ({"pixel_scale": float("nan")}, "pixel_scale is nan"),
        ({"seed": 1.5}, r"seed is 1.5; expected int or null"),
        ({"format": "1"}, "format is '1'; expected a whole number"),
        ({"format": 2}, "written by a newer darklens"),
        ({"bands": ["VIS", "Y"]}, "names 2 bands; images.npy has 1"),
    ],
)
def test_descriptions_of_datasets_with_wrong_values_are_refused(folder, change, message):
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"not known": 1}))
    assert read_dataset(folder).info.classes == ["cdm"]
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=rf"dataset\.json: {message}"):
        read_dataset(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "holds a list; expected keys and values"),
        ("[" * 100_000, "not valid JSON"),
        ("{}", "no key 'source'"),
        (r'{"source": "\ud800"}', "not valid JSON: .*surrogates"),
    ],
)
def test_descriptions_that_are_none_are_refused(folder, text, message):
    (folder / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=rf"dataset\.json: {message}"):
        read_dataset(folder)


@pytest.mark.parametrize("array", [np.ones((2, 8, 8)), np.ones((2, 1, 0, 8)), np.array([[1, None]], dtype=object)])
def test_datasets_whose_images_are_none_are_refused(folder, array):
    np.save(folder / "images.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=r"images\.npy: .* expected numbers, \(N, C, H, W\)"):
        read_dataset(folder)


def test_damaged_catalogues_are_refused(folder):
    path = folder / "catalog.parquet"
    pl.DataFrame({"id": [[0], [1]]}).write_parquet(path)
    with pytest.raises(DataError, match=r"catalog\.parquet: column 'id' holds List"):
        read_dataset(folder)
    pl.DataFrame({"name": ["a", "b"]}).write_parquet(path)
    with pytest.raises(DataError, match=r"catalog\.parquet: no column 'id'; there are name"):
        read_dataset(folder)


def test_bounds_are_what_they_say(tmp_path):
    worst = len(zlib.compress(bytes(2**24), 9))
    check_expansion(tmp_path, 2**24, worst)
    with pytest.raises(DataError):
        check_expansion(tmp_path, worst * DEFLATE_RATIO + 1, worst)
    constant = fits.CompImageHDU(np.zeros((512, 512), np.int16), compression_type="PLIO_1", tile_shape=(512, 512))
    constant.writeto(tmp_path / "a.fits")
    check_expansion(tmp_path, 512 * 512 * 2, (tmp_path / "a.fits").stat().st_size, ratio=TILE_RATIO)
    check_whole(tmp_path, 10, 10)
    with pytest.raises(DataError, match="truncated: 9 bytes where its header promises 10"):
        check_whole(tmp_path, 10, 9)
    check_image(tmp_path, IMAGE_BYTES)
    with pytest.raises(DataError, match="so cut it"):
        check_image(tmp_path, IMAGE_BYTES + 1)
