"""Tables on disk: what FITS can hold, and what is said of the rest."""

import numpy as np
import polars as pl
import pytest
from astropy.table import Table

from darklens.errors import DataError
from darklens.workflows.tables import without_lists, write_table


def test_fits_keeps_values_and_marks_what_is_missing(tmp_path):
    long = 2**53 + 1
    table = pl.DataFrame(
        {
            "id": ["a", None, "c"], "long": [long, None, 5], "whole": [long, -2, 5], "some": [1, None, 3],
            "flag": [True, None, False], "on": [True, False, True], "x": [0.5, None, 2.5],
        }
    )  # fmt: skip
    write_table(table, tmp_path / "t.fits")
    found = Table.read(tmp_path / "t.fits")
    assert [str(text) for text in found["long"].filled("")] == [str(long), "", "5"]
    assert [str(text) for text in found["id"].filled("")] == ["a", "", "c"]
    assert found["whole"].tolist() == [long, -2, 5]
    assert found["on"].tolist() == [True, False, True]
    for name, values in (("some", [1, np.nan, 3]), ("flag", [1, np.nan, 0]), ("x", [0.5, np.nan, 2.5])):
        np.testing.assert_array_equal(np.ma.filled(found[name], np.nan), values)


def test_fits_of_no_rows_and_of_other_letters(tmp_path):
    write_table(pl.DataFrame({"id": []}, schema={"id": pl.String}), tmp_path / "none.fits")
    assert len(Table.read(tmp_path / "none.fits")) == 0
    with pytest.raises(DataError, match=r"other.fits: FITS holds plain ASCII, and 'é' is not; write .parquet or .csv"):
        write_table(pl.DataFrame({"id": ["é"]}), tmp_path / "other.fits")
    assert [path.name for path in tmp_path.iterdir()] == ["none.fits"]


def test_lists_are_left_out_where_they_cannot_be_held(tmp_path):
    table = pl.DataFrame({"a": [1], "b": [[1, 2]]})
    assert without_lists(table, tmp_path / "t.parquet") == (table, [])
    assert without_lists(table, tmp_path / "t.fits")[1] == ["t.fits: left out columns that FITS cannot hold: b"]
    assert without_lists(table, tmp_path / "t.csv")[0].columns == ["a"]
