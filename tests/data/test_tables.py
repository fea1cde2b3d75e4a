"""Parquet and CSV tables of unknown origin."""

import numpy as np
import polars as pl
import pytest

from darklens.data.readers.tables import check_names, read_csv, read_parquet
from darklens.errors import DataError


def test_parquet_that_expands_beyond_bounds_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    pl.DataFrame({"id": ["x"] * 100_000, "label": ["cdm"] * 100_000}).write_parquet(path)
    assert read_parquet(path)["label"].unique().to_list() == ["cdm"]
    monkeypatch.setattr("darklens.data.readers.tables.SMALL", 1000)
    monkeypatch.setattr("darklens.data.readers.tables.DEFLATE_RATIO", 1)
    with pytest.raises(DataError, match=r"a\.parquet: damaged: its header promises"):
        read_parquet(path)


def test_csv_has_typed_columns_comments_and_an_optional_header(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("# made by hand\nid,z,name\n7,-0.5,x\n8,1.25,\n")
    table = read_csv(path)
    assert table.to_dict(as_series=False) == {"id": [7, 8], "z": [-0.5, 1.25], "name": ["x", None]}
    path.write_text("7,-0.5\n8,1.25\n")
    assert read_csv(path, header=False).rows() == [("7", "-0.5"), ("8", "1.25")]
    path.write_bytes(b"id\n\xff\xfe\n")
    with pytest.raises(DataError, match=r"a\.csv: cannot be read as a table"):
        read_csv(path)


def test_parquet_of_many_batches_is_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("darklens.data.readers.tables.BATCH_ROWS", 7)
    frame = pl.DataFrame({"id": [f"o{i}" for i in range(50)], "z": np.linspace(-1, 2, 50), "n": [None, 3] * 25})
    frame.write_parquet(tmp_path / "a.parquet")
    assert read_parquet(tmp_path / "a.parquet").equals(frame)
    frame.clear().write_parquet(tmp_path / "b.parquet")
    assert read_parquet(tmp_path / "b.parquet").equals(frame.clear())


@pytest.mark.parametrize("name", ["id", "label", "split"])
def test_names_must_be_text_or_numbers(tmp_path, name):
    check_names(pl.DataFrame({name: ["a"], "other": [[1, 2]]}), tmp_path)
    check_names(pl.DataFrame({name: [1.5]}), tmp_path)
    for value in ([1, 2], {"a": 1}, b"x"):
        with pytest.raises(DataError, match=f"column '{name}' holds .*; expected text or numbers"):
            check_names(pl.DataFrame({name: [value]}), tmp_path)


def test_a_quote_within_a_field_does_not_break_a_long_table(tmp_path):
    """As in the names of authors and in arcseconds; Polars alone refuses such a file where it reads it in parts."""
    fields = ['5" ring', 'B\\"ohringer et al.', "plain", 'say "it"']
    lines = [f"obj{i},{i / 10},{fields[i % 4]},{'x' * 40}" for i in range(40_000)]
    path = tmp_path / "t.csv"
    path.write_text("id,ra,note,long\n" + "\n".join(lines) + "\n")
    frame = read_csv(path, text=("id",))
    assert frame.shape == (40_000, 4)
    assert frame["ra"].to_list() == [i / 10 for i in range(40_000)]
    assert frame["note"][:4].to_list() == fields


def test_numbers_that_are_missing_as_nan_or_null_do_not_make_a_column_text(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,mag,z,kind,whole\n001,20.5,NaN,nan,3\n002,nan,0.5,E,null\n003, NAN ,null,,4\n004,,1e-3,S,\n")
    table = read_csv(path, text=("id",))
    assert table["id"].to_list() == ["001", "002", "003", "004"]
    assert table["mag"].to_list() == [20.5, None, None, None]
    assert table["z"].fill_nan(None).to_list() == [None, 0.5, None, 0.001]
    assert table["whole"].to_list() == [3, None, 4, None]
    assert table["kind"].to_list() == ["nan", "E", None, "S"]
