"""Parquet and CSV tables of unknown origin."""

import polars as pl
import pytest

from darklens.data.readers.tables import read_parquet
from darklens.errors import DataError


def test_parquet_that_expands_beyond_bounds_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    pl.DataFrame({"id": ["x"] * 100_000, "label": ["cdm"] * 100_000}).write_parquet(path)
    assert read_parquet(path)["label"].unique().to_list() == ["cdm"]
    monkeypatch.setattr("darklens.data.readers.tables.SMALL", 1000)
    monkeypatch.setattr("darklens.data.readers.tables.DEFLATE_RATIO", 1)
    with pytest.raises(DataError, match=r"a\.parquet: damaged: its header promises"):
        read_parquet(path)
