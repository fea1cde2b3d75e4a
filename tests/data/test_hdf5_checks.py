"""HDF5 files that promise more than they store, or whose text has no end, are refused."""

import struct

import h5py
import numpy as np
import pytest

from darklens.data.layouts import open_data
from darklens.data.readers.hdf5_checks import check_text
from darklens.errors import DataError


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


def test_hdf5_whose_values_lie_elsewhere_is_refused(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(4 * 64))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", (4, 8, 8), "u1", external=[(str(tmp_path / "secret"), 0, 256)])
    with pytest.raises(DataError, match=r"a\.h5: dataset /images keeps its values in other files"):
        open_data(tmp_path / "a.h5")


@pytest.mark.parametrize(("labels", "padded"), [(["a", "b"], 8 + 8), (["a" * 8, "b" * 17], 8 + 24)])
def test_hdf5_text_without_end_is_refused(labels, padded, tmp_path):
    """Each text has a head of 16 bytes, and is padded to a multiple of eight."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=np.ones((2, 8, 8)))
        file.create_dataset("label", data=labels)
    assert open_data(path).catalog["label"].to_list() == labels
    content = bytearray(path.read_bytes())
    heap = content.index(b"GCOL")
    first_free = content.index(struct.pack("<HHIQ", 0, 0, 0, 4096 - 16 - 2 * 16 - padded), heap)
    content[first_free + 8 : first_free + 16] = bytes(8)
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.h5: damaged: its text, at byte {heap}, has no end"):
        open_data(path)


def test_virtual_datasets_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", data=np.ones((4, 8, 8)))
    layout = h5py.VirtualLayout((4, 8, 8), float)
    layout[:] = h5py.VirtualSource(tmp_path / "a.h5", "images", (4, 8, 8))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_virtual_dataset("images", layout)
    with pytest.raises(DataError, match=r"b\.h5: dataset /images keeps its values in other files"):
        open_data(tmp_path / "b.h5")


def test_chunks_are_no_larger_than_an_image_may_be(tmp_path, monkeypatch):
    images = np.random.default_rng(0).random((4, 8, 8))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", data=images, chunks=(4, 8, 8))
    np.testing.assert_array_equal(open_data(tmp_path / "a.h5").images[[2]][0, 0], images[2])
    monkeypatch.setattr("darklens.data.bounds.IMAGE_BYTES", 4 * 8 * 8 * 8 - 1)
    with pytest.raises(DataError, match=r"a\.h5: an image of 2,048 bytes"):
        open_data(tmp_path / "a.h5")


def test_text_of_many_lengths_is_read(tmp_path):
    labels = ["x" * length for length in range(0, 40)]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", data=np.ones((40, 2, 2)))
        file.create_dataset("label", data=labels)
    cutouts = open_data(tmp_path / "a.h5")
    assert cutouts.catalog["label"].to_list() == [None, *labels[1:]], "empty text is no label"
    assert "" not in cutouts.info.classes


def test_filters_that_compress_more_than_deflate_are_read(tmp_path):
    """Scale-offset stores a chunk of equal values in 21 bytes: 6,000 times less."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", data=np.full((8, 64, 64), -7, np.int32), chunks=(8, 64, 64), scaleoffset=0)
    np.testing.assert_array_equal(open_data(tmp_path / "a.h5").images[[5]], np.full((1, 1, 64, 64), -7))


@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_each_collection_of_texts_is_checked(damaged, tmp_path):
    """Three collections of 32 bytes, whose free space of 16 bytes counts its own header."""
    content = b"".join(
        b"GCOL\x01\0\0\0" + struct.pack("<Q", 32) + struct.pack("<HHIQ", 0, 0, 0, 0 if i == damaged else 16)
        for i in range(3)
    )
    (tmp_path / "a.h5").write_bytes(b"before it" + content)
    with pytest.raises(DataError, match=f"its text, at byte {9 + 32 * damaged}, has no end"):
        check_text(tmp_path / "a.h5")
