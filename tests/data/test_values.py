"""Values that a format or a type could change without a word."""

import h5py
import numpy as np
import polars as pl
import pytest
from PIL import Image

from darklens.data.importing import import_data
from darklens.data.layouts import open_data
from darklens.errors import DataError

RNG = np.random.default_rng(0)


def test_png_of_8_and_16_bits_in_one_folder_keep_their_values(tmp_path):
    small, large = RNG.integers(0, 255, (8, 8), dtype=np.uint8), RNG.integers(0, 65535, (8, 8), dtype=np.uint16)
    Image.fromarray(small).save(tmp_path / "a.png")
    Image.fromarray(large).save(tmp_path / "b.png")
    Image.fromarray(small > 99).save(tmp_path / "c.png")
    images = open_data(import_data(open_data(tmp_path), tmp_path / "out")).images
    for row, expected in enumerate((small, large, small > 99)):
        np.testing.assert_array_equal(images[[row]][0, 0], expected)


def test_what_float32_cannot_hold_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.full((6, 8, 8), 1e39))
    with pytest.raises(DataError, match=r"image a:0 has 64 pixels that are nan or infinite"):
        import_data(open_data(tmp_path / "a.npy"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_labels_that_are_not_a_number_are_missing(tmp_path):
    images = RNG.random((6, 8, 8)).astype(np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = images
        file["label"] = np.array([0.0, 1, np.nan, 0, 1, np.nan])
    data = open_data(tmp_path / "a.h5")
    assert data.info.classes == ["0.0", "1.0"]
    assert data.catalog["label"].to_list() == ["0.0", "1.0", None] * 2
    np.save(tmp_path / "b.npy", images)
    ids = [f"b:{i}" for i in range(6)]
    pl.DataFrame({"id": ids, "label": [0.0, 1, float("nan")] * 2}).write_parquet(tmp_path / "c.parquet")
    data = open_data(tmp_path / "b.npy", catalog=tmp_path / "c.parquet")
    assert data.info.classes == ["0.0", "1.0"]
    with pytest.raises(DataError, match=r"a\.parquet: there is no such file"):
        open_data(tmp_path / "b.npy", catalog=tmp_path / "a.parquet")
