"""Catalogues of users: their formats, the names of their columns, and the join by identifier."""

import h5py
import numpy as np
import polars as pl
import pytest
from astropy.io import fits
from astropy.table import Table

from darklens.data.layouts import open_data
from darklens.data.readers.catalogs import join_catalog, read_catalog
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


def write(path, **columns):
    pl.DataFrame(columns).write_csv(path)
    return path


def test_columns_are_recognised_by_their_usual_names(tmp_path):
    path = write(
        tmp_path / "a.csv", NAME=["x ", " y"], RAJ2000=[1.5, 2.5], dec_deg=[-3.5, 4], Class=["q", "s"], z=[1, 2]
    )
    table, mapping = read_catalog(path)
    assert mapping == {"NAME": "id", "RAJ2000": "ra", "dec_deg": "dec", "Class": "label"}
    assert table.to_dict(as_series=False) == {
        "id": ["x", "y"], "ra": [1.5, 2.5], "dec": [-3.5, 4], "label": ["q", "s"], "z": [1, 2],
    }  # fmt: skip


@pytest.mark.parametrize("name", ["TARGETID", "Lens_Name", "objectId", "lens_id"])
def test_surveys_names_of_identifiers_are_known(tmp_path, name):
    table, mapping = read_catalog(write(tmp_path / "a.csv", **{"z": [0.5], name: ["007"]}))
    assert mapping == {name: "id"}
    assert table["id"].to_list() == ["007"]


def test_the_first_of_several_names_is_taken(tmp_path):
    path = write(tmp_path / "a.csv", filename=["f", "g"], object_id=[7, 8], lens=[0, 1], target=["t", "u"])
    table, mapping = read_catalog(path)
    assert mapping == {"object_id": "id", "target": "label"}
    assert table["id"].to_list() == ["7", "8"]
    assert table["filename"].to_list() == ["f", "g"]
    table, mapping = read_catalog(write(tmp_path / "b.csv", id=["a", "b"], ID=["c", "d"]))
    assert mapping == {"ID": "id"}
    assert table.to_dict(as_series=False) == {"catalog_id": ["a", "b"], "id": ["c", "d"]}


def test_tables_without_or_with_repeated_identifiers_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"a\.csv: no column for the identifier .*; rename one of \['z', 'y'\] to id"):
        read_catalog(write(tmp_path / "a.csv", z=[1], y=[2]))
    with pytest.raises(DataError, match=r"b\.csv: 3 rows share their id with another, the first is 'p'"):
        read_catalog(write(tmp_path / "b.csv", id=["o", "p", "q", "p ", " p"]))
    (tmp_path / "c.txt").write_text("id\n1\n")
    with pytest.raises(DataError, match=r"c\.txt: not a catalogue; expected \.csv, \.parquet, \.fits"):
        read_catalog(tmp_path / "c.txt")
    (tmp_path / "d.fits").write_text("id\n1\n")
    with pytest.raises(DataError, match=r"d\.fits: cannot be read as a table"):
        read_catalog(tmp_path / "d.fits")


def test_columns_of_several_values_are_left_out(tmp_path):
    Table({"id": ["a", "b"], "flux": [[1.0, 2.0], [3.0, 4.0]], "z": [0.5, 1.5]}).write(tmp_path / "a.fits")
    table, _ = read_catalog(tmp_path / "a.fits")
    assert table.to_dict(as_series=False) == {"id": ["a", "b"], "z": [0.5, 1.5]}


def test_rows_are_joined_by_identifier_in_the_order_of_the_images():
    images = pl.DataFrame({"id": ["c", "a", "x", "b"], "path": ["1", "2", "3", "4"]})
    table = pl.DataFrame({"id": ["a", "b", "c", "d"], "z": [1.5, 2.5, 3.5, 4.5], "path": ["no"] * 4})
    joined, note = join_catalog(images, table, "t.csv")
    assert joined.to_dict(as_series=False) == {
        "id": ["c", "a", "x", "b"], "path": ["1", "2", "3", "4"], "z": [3.5, 1.5, None, 2.5],
        "catalog_path": ["no", "no", None, "no"],
    }  # fmt: skip
    assert join_catalog(images, images.with_columns(w=pl.lit(2.5)), "t.csv")[0].columns == ["id", "path", "w"]
    both, _ = join_catalog(images, table.with_columns(catalog_path=pl.col("z").cast(pl.String)), "t.csv")
    assert both["catalog_path"].to_list() == ["3.5", "1.5", None, "2.5"]
    assert both["catalog_catalog_path"].to_list() == ["no", "no", None, "no"]
    assert note == "3 of 4 images have a row in the catalogue"
    with pytest.raises(
        DataError, match=r"t\.csv: no id of the catalogue .* images have ids like 'c', the catalogue like 'd'"
    ):
        join_catalog(images, table[3:], "t.csv")
