"""Read Parquet and CSV tables of unknown origin: bounded in memory, and with errors that name the file."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from darklens.data.bounds import DEFLATE_RATIO, TABLE_BYTES, check_expansion, named_errors
from darklens.errors import DataError

BATCH_ROWS = 4096
"""Rows that are decoded before the size of the table is checked. Measured on a million rows of ten columns:
6.3 s at 256 rows, 0.9 s at 4096 and at 65 536; more only raises the memory that a damaged file can take."""
SMALL = 2**26
"""Bytes that any table may take, 64 MiB: Parquet stores runs of one value in fewer bytes than deflate needs, so the ratio
of deflate alone would refuse small valid files. A choice; a larger value lets a small damaged file take that much."""


def read_parquet(path: Path) -> pl.DataFrame:
    """Read a Parquet file, and return it as a table.

    It is decoded by Arrow, whose errors on damaged files can be caught.

    Raises
    ------
    DataError
        If it is damaged, its text is not UTF-8, or it takes more memory than `TABLE_BYTES`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with named_errors(path, "cannot be read as Parquet"):
        limit = min(TABLE_BYTES, max(SMALL, path.stat().st_size * DEFLATE_RATIO))
        batches: list[Any] = []
        size = 0
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH_ROWS):
                size += batch.nbytes
                check_expansion(path, size, limit, ratio=1)
                batches.append(batch)
            table = pa.Table.from_batches(batches, schema=file.schema_arrow)
        table.validate(full=True)
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        return frame


def read_csv(path: Path, header: bool = True, text: Collection[str] = ()) -> pl.DataFrame:
    """Read a CSV file, and return it as a table.

    Types are inferred from the first 10 000 rows; lines that begin with # are comments. A column of numbers may say nan or
    null where it has none, in any case; both are null then. A table without a header has columns of text only.

    Parameters
    ----------
    path
        The file.
    header
        Whether its first line has the names of the columns.
    text
        Names, in small letters, of columns that are text whatever they look like, such as identifiers: 000001 is not 1.

    Returns
    -------
    pl.DataFrame
        The table.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    with named_errors(path, "cannot be read as a table"):
        if header:
            names = pl.read_csv(path, n_rows=0, comment_prefix="#").columns
            types = {name: pl.String for name in names if name.strip().lower() in text}
            read = partial(pl.read_csv, infer_schema_length=10_000, comment_prefix="#", schema_overrides=types)
            try:
                table = read(path)
            except pl.exceptions.ComputeError as error:
                if "malformed" not in str(error):
                    raise
                table = read(_quoted(path))
            return table.with_columns(_numbers(column) for column in table if column.name not in types)
        return pl.read_csv(path, has_header=False, infer_schema=False)


def _numbers(column: pl.Series) -> pl.Series:
    """A column as it is, or as numbers if it is text only because some of them are nan or null."""
    if column.dtype != pl.String:
        return column
    small = column.str.strip_chars().str.to_lowercase()
    known = column.set(small.is_in(["nan", "null", ""]), None)
    numbers = known.str.strip_chars().cast(pl.Float64, strict=False)
    is_number = known.null_count() < len(known) and numbers.null_count() == known.null_count() > column.null_count()
    return numbers if is_number else column


def _quoted(path: Path) -> io.BytesIO:
    """A CSV file with quotes about the fields that hold one, which Polars reads in parts and cannot tell from others."""
    text = io.StringIO()
    with path.open(newline="", encoding="utf-8") as file:
        csv.writer(text).writerows(csv.reader(file))
    return io.BytesIO(text.getvalue().encode())


def check_names(frame: pl.DataFrame, path: Path) -> None:
    """Refuse a table whose columns ``id``, ``label`` or ``split`` hold lists, structures or bytes.

    Raises
    ------
    DataError
        If so; it names the column.
    """
    for name in ("id", "label", "split"):
        kind = frame.schema.get(name)
        if kind is not None and (kind.is_nested() or kind in (pl.Binary, pl.Object)):
            raise DataError(f"{path}: column {name!r} holds {kind}; expected text or numbers")
