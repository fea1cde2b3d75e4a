"""Read Parquet and CSV tables of strangers: bounded in memory, and refused by name if they are damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from darklens.data.bounds import DEFLATE, TABLE_BYTES, check_expansion, naming
from darklens.errors import DataError

BATCH_ROWS = 4096
"""Rows that are decoded before the size of the table is looked at."""
SMALL = 2**26
"""Bytes that any table may take: runs of one value in Parquet are shorter than deflate makes them."""


def read_parquet(path: Path) -> pl.DataFrame:
    """Return a Parquet file as a table. It is decoded by Arrow, whose errors on damaged files can be caught.

    Raises
    ------
    DataError
        If it is damaged, its text is not UTF-8, or it takes more memory than `TABLE_BYTES`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with naming(path, "cannot be read as Parquet"):
        limit = min(TABLE_BYTES, max(SMALL, path.stat().st_size * DEFLATE))
        batches: list[Any] = []
        size = 0
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH_ROWS):
                size += batch.nbytes
                check_expansion(path, size, limit, 1)
                batches.append(batch)
            table = pa.Table.from_batches(batches, schema=file.schema_arrow)
        table.validate(full=True)
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        return frame


def read_csv(path: Path, header: bool = True) -> pl.DataFrame:
    """Return a CSV file as a table: types found in its values, or all text if it has no header. Raises DataError."""
    with naming(path, "cannot be read as a table"):
        if header:
            return pl.read_csv(path, infer_schema_length=10_000, comment_prefix="#")
        return pl.read_csv(path, has_header=False, infer_schema=False)


def check_names(frame: pl.DataFrame, path: Path) -> None:
    """Refuse a table whose identifiers, labels or splits are lists or bytes. Raises DataError."""
    for name in ("id", "label", "split"):
        kind = frame.schema.get(name)
        if kind is not None and (kind.is_nested() or kind in (pl.Binary, pl.Object)):
            raise DataError(f"{path}: column {name!r} holds {kind}; expected text or numbers")
