"""Catalogues of users: their formats, the names of their columns, and the join by identifier."""

import h5py
import numpy as np
import polars as pl
import pytest
from astropy.io import fits
from astropy.table import Table

from darklens.data.layouts import open_data
from darklens.errors import DataError

RNG = np.random.default_rng(0)


def save_images(folder, names, shape=(16, 16)):
    folder.mkdir(parents=True, exist_ok=True)
    images = RNG.normal(5, 1, (len(names), *shape)).astype(np.float32)
    for name, image in zip(names, images, strict=True):
        np.save(folder / f"{name}.npy", image)
    return images


@pytest.mark.parametrize("suffix", ["csv", "parquet", "fits"])
def test_catalogue_formats(tmp_path, suffix):
    save_images(tmp_path / "cutouts", ["a", "b"])
    table = Table({"object_id": ["a", "b"], "mag_g": [20.5, 21.5]})
    path = tmp_path / f"objects.{suffix}"
    if suffix == "parquet":
        pl.DataFrame({"object_id": ["a", "b"], "mag_g": [20.5, 21.5]}).write_parquet(path)
    else:
        table.write(path)
    assert open_data(tmp_path / "cutouts", catalog=path).values("mag_g").tolist() == [20.5, 21.5]


def test_fits_folder_with_catalogue(tmp_path):
    for i in range(3):
        fits.writeto(tmp_path / f"obj{i}.fits", np.full((8, 8), float(i), dtype=np.float32))
    Table({"SourceID": ["obj0", "obj1", "obj9"], "RIGHT_ASCENSION": [1.0, 2.0, 3.0]}).write(tmp_path / "c.ecsv")
    data = open_data(tmp_path)
    assert data.catalog["ra"].to_list() == [1.0, 2.0, None]
    assert any("2 of 3 images have a row" in note for note in data.info.notes)
    assert any("RIGHT_ASCENSION read as ra" in note for note in data.info.notes)


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
