"""Identifiers of images and of catalogues, as strangers write them."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from astropy.io import fits

from darklens.data.identifiers import counted_from_one, file_kind, identifier, match_identifiers
from darklens.data.layouts import open_data
from darklens.errors import DataError


@pytest.mark.parametrize(
    ("name", "expected", "kind"),
    [
        ("J0123.4+56.fits", "J0123.4+56", "fits"),
        ("J0123.9-12.FITS.GZ", "J0123.9-12", "fits"),
        ("a.b.fits.fz", "a.b", "fits"),
        ("000001.npy", "000001", "npy"),
        ("v1.2.png", "v1.2", "png"),
        ("notes.v2.txt", "notes.v2.txt", None),
    ],
)
def test_identifier_is_the_name_without_the_suffix_of_the_format(name, expected, kind):
    assert identifier(Path("some.folder") / name) == expected
    assert identifier(Path("root/cdm.x") / name, Path("root")) == f"cdm.x/{expected}"
    assert file_kind(Path(name)) == kind


def series(*values):
    return pl.Series(values, dtype=pl.String)


def test_identifiers_are_matched_as_they_are_before_anything_is_changed():
    match = match_identifiers(series("1", "01", "x"), series("01", "1"))
    assert (match.count, match.note) == (2, "")
    match = match_identifiers(series("cdm/a", "cdm/b"), series("dir/a.fits.gz", "b", None))
    assert (match.count, match.note) == (2, "compared without folders and suffixes")
    match = match_identifiers(series("000001", "000020", "7x"), series("20", "1", "7"))
    assert (match.count, match.note) == (2, "compared as numbers")


def test_identifiers_that_would_be_taken_for_each_other_match_nothing():
    assert match_identifiers(series("cdm/1", "axion/1"), series("1")).count == 0
    assert match_identifiers(series("x", "y"), series("a/x.fits", "b/x.npy")).count == 0
    assert match_identifiers(series("cdm/1", "axion/1", "axion/2"), series("2")).count == 1, "the others have no row"


def write_fits(folder, *names):
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        fits.writeto(folder / name, np.full((8, 8), float(number), dtype=np.float32))


def test_names_with_dots_have_rows_of_their_own(tmp_path):
    write_fits(tmp_path / "a", "J0123.4+56.fits", "J0123.9-12.fits")
    table = tmp_path / "t.csv"
    pl.DataFrame({"name": ["J0123.9-12", "J0123.4+56"], "label": ["lens", "galaxy"]}).write_csv(table)
    data = open_data(tmp_path / "a", catalog=table)
    assert data.ids == ["J0123.4+56", "J0123.9-12"]
    assert data.catalog["label"].to_list() == ["galaxy", "lens"]


def test_numbers_keep_their_zeros(tmp_path):
    write_fits(tmp_path / "a", "000001.fits", "000010.fits", "0010.fits")
    table = tmp_path / "t.csv"
    table.write_text("id,label\n000001,x\n0010,y\n000010,z\n")
    assert open_data(tmp_path / "a", catalog=table).catalog["label"].to_list() == ["x", "z", "y"]
    (tmp_path / "a" / "0010.fits").unlink()
    table.write_text("id,label\n1,x\n10,z\n")
    data = open_data(tmp_path / "a", catalog=table)
    assert data.catalog["label"].to_list() == ["x", "z"]
    assert any(
        "2 of 2 images have a row in the catalogue; identifiers were compared as numbers" in n for n in data.info.notes
    )


def test_of_several_columns_that_could_identify_images_the_one_that_does_is_taken(tmp_path):
    write_fits(tmp_path / "a", "p.fits", "q.fits")
    table = tmp_path / "t.csv"
    pl.DataFrame({"id": [7, 8], "filename": ["cut/q.fits", "cut/p.fits"], "z": [0.5, 1.5]}).write_csv(table)
    data = open_data(tmp_path / "a", catalog=table)
    assert data.values("z").tolist() == [1.5, 0.5]
    assert data.catalog["catalog_id"].to_list() == ["8", "7"]
    assert any("filename read as id" in note for note in data.info.notes)
    pl.DataFrame({"id": [7, 8], "filename": ["r.fits", "s.fits"]}).write_csv(table)
    with pytest.raises(DataError, match="no id of the catalogue is the id of an image; images have ids like 'p'"):
        open_data(tmp_path / "a", catalog=table)


def test_identifiers_of_float_columns_are_whole_numbers(tmp_path):
    write_fits(tmp_path / "a", "12.fits", "13.fits")
    pl.DataFrame({"id": [13.0, 12.0], "z": [0.5, 1.5]}).write_parquet(tmp_path / "t.parquet")
    assert open_data(tmp_path / "a", catalog=tmp_path / "t.parquet").values("z").tolist() == [1.5, 0.5]


@pytest.mark.parametrize(
    ("images", "rows", "expected"),
    [
        ("012", "123", True),
        ("012", "31", True),
        ("012", "12", False),
        ("012", "0123", False),
        ("012", "1234", False),
        ("012", "12x3", False),
        ("021", "123", False),
        ("abc", "123", False),
    ],
)
def test_catalogues_that_count_from_one_are_told_by_their_ends(images, rows, expected):
    assert counted_from_one(series(*images), series(*rows)) is expected


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("width", [1, 4])
def test_catalogue_of_a_stack_may_count_from_zero_or_one(first, width, tmp_path):
    values = np.arange(12, dtype=np.float32)
    np.save(tmp_path / "images.npy", np.tile(values[:, None, None, None], (1, 1, 8, 8)))
    rows = pl.DataFrame({"id": [f"{i + first:0{width}}" for i in range(12)][::-1], "redshift": values[::-1]})
    rows.write_csv(tmp_path / "rows.txt.csv")
    data = open_data(tmp_path, catalog=tmp_path / "rows.txt.csv")
    assert data.catalog["redshift"].to_list() == values.tolist()
    counted = "rows.txt.csv: numbers the images from 1, so its row 12 is that of the last image"
    assert (counted in data.info.notes) == (first == 1)
    assert any("12 of 12 images have a row" in note for note in data.info.notes)


def test_files_keep_their_names_where_a_catalogue_counts_from_one(tmp_path):
    write_fits(tmp_path / "a", "0.fits", "1.fits")
    pl.DataFrame({"id": [1, 2], "redshift": [0.1, 0.2]}).write_csv(tmp_path / "t.csv")
    assert open_data(tmp_path / "a", catalog=tmp_path / "t.csv").catalog["redshift"].to_list() == [None, 0.1]
