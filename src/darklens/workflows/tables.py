"""Write a table as Parquet, CSV or FITS, whole or not at all."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl

from darklens.errors import DataError


def without_lists(table: pl.DataFrame, out: Path) -> tuple[pl.DataFrame, list[str]]:
    """Return the table without columns that the format of a file cannot hold, and a note on these if there are any."""
    if out.suffix == ".parquet":
        return table, []
    lists = [name for name, kind in table.schema.items() if kind.is_nested() or kind == pl.Binary]
    if not lists:
        return table, []
    kind = out.suffix.removeprefix(".").upper()
    return table.drop(lists), [f"{out.name}: left out columns that {kind} cannot hold: {', '.join(lists)}"]


def write_table(table: pl.DataFrame, out: Path) -> None:
    """Write a table without lists as ``.csv`` or ``.fits``, or any as Parquet.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    temporary = out.with_name(out.name + ".tmp")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".csv":
            table.write_csv(temporary)
        elif out.suffix == ".fits":
            _write_fits(table, temporary)
        else:
            table.write_parquet(temporary)
        temporary.replace(out)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise DataError(f"{out}: cannot be written: {error.strerror or error}") from error
    except UnicodeEncodeError as error:
        with suppress(OSError):
            temporary.unlink()
        raise DataError(
            f"{out}: FITS holds plain ASCII, and {error.object!r} is not; write .parquet or .csv"
        ) from error


def _write_fits(table: pl.DataFrame, path: Path) -> None:
    """A binary table; what has no value is empty text, or nan, for which whole numbers become floating ones.

    Whole numbers that these cannot hold, such as long identifiers, become text.
    """
    from astropy.table import Table

    columns = {}
    for column in table:
        whole = column.dtype.is_integer() and column.null_count() > 0
        too_long = whole and int((column.cast(pl.Int128).abs() > 2**53).sum()) > 0
        if (column.dtype.is_numeric() or column.dtype == pl.Boolean) and not too_long:
            floating = column.null_count() > 0 or column.dtype.is_decimal()
            columns[column.name] = (column.cast(pl.Float64) if floating else column).to_numpy()
        else:
            texts = [text.encode("ascii") for text in column.cast(pl.String).fill_null("").to_list()]
            columns[column.name] = np.array(texts, dtype=np.bytes_) if texts else np.zeros(0, "S1")
    Table(columns).write(path, format="fits", overwrite=True)
