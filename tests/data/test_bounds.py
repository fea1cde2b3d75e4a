"""Files that promise more than they can hold, and gzip files that expand too far, are refused."""

import gzip
import zlib

import numpy as np
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
from darklens.errors import DataError


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
