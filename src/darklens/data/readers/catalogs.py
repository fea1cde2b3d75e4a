"""Read catalogues of users (CSV, Parquet, FITS and other tables), recognise their columns, and join them to images."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import polars as pl

from darklens.data.bounds import named_errors
from darklens.data.identifiers import match_identifiers
from darklens.data.readers.tables import check_names, read_csv, read_parquet
from darklens.errors import DataError
from darklens.paths import check_present

_KEY = " key"  # no column of a table has such a name
SUFFIXES = (".csv", ".parquet", ".fits", ".fit", ".ecsv", ".vot", ".xml")

ALIASES = {
    "id": (
        "id", "object_id", "objectid", "objid", "obj_id", "source_id", "sourceid", "target_id", "targetid", "lens_id",
        "name", "lens_name", "lensname", "filename", "file",
    ),
    "ra": ("ra", "right_ascension", "raj2000", "ra_j2000", "alpha_j2000", "ra_deg", "ramean"),
    "dec": ("dec", "declination", "dej2000", "dec_j2000", "delta_j2000", "dec_deg", "decmean"),
    "label": ("label", "class", "target", "is_lens", "lens"),
}  # fmt: skip


def read_catalog(path: Path, images: pl.Series | None = None) -> tuple[pl.DataFrame, dict[str, str]]:
    """Read a table, and return it with the columns that were recognised (its name → ours); ``id`` becomes text.

    Parameters
    ----------
    path
        The table.
    images
        Identifiers of the images that it describes. Of several columns that could be the identifier, the one is taken
        that matches most of them; without it, or of equals, the first in `ALIASES`.

    Returns
    -------
    tuple of pl.DataFrame and dict
        The table with our names, and those that were changed.

    Raises
    ------
    DataError
        If the file is no table of a known kind, or has no column that could be an identifier, or repeats one.
    """
    check_present(path)
    frame = read_table(path)
    mapping: dict[str, str] = {}
    if identifier := _identifier(frame, images):
        mapping[identifier] = "id"
    for ours, names in ALIASES.items():
        if ours == "id":
            continue
        by_lower = {column.lower(): column for column in frame.columns if column not in mapping}
        if found := next((by_lower[name] for name in names if name in by_lower), None):
            mapping[found] = ours
    if "id" not in mapping.values():
        raise DataError(
            f"{path}: no column for the identifier ({', '.join(ALIASES['id'])}); rename one of {frame.columns} to id"
        )
    taken = [c for c in frame.columns if c in mapping.values() and c not in mapping]
    kept = {name: f"catalog_{name}" for name in taken if f"catalog_{name}" not in frame.columns}
    frame = frame.drop([name for name in taken if name not in kept]).rename(kept | mapping)
    check_names(frame, path)
    with named_errors(path, "cannot be read as a catalogue"):
        frame = frame.with_columns(_text(frame["id"]))
    if (repeated := frame.filter(pl.col("id").is_duplicated())["id"]).len():
        raise DataError(f"{path}: {repeated.len()} rows share their id with another, the first is {repeated[0]!r}")
    return frame, {theirs: ours for theirs, ours in mapping.items() if theirs != ours}


def _identifier(frame: pl.DataFrame, images: pl.Series | None) -> str | None:
    """The column that identifies the images."""
    by_lower = {column.lower(): column for column in frame.columns}
    found = [by_lower[name] for name in ALIASES["id"] if name in by_lower]
    if images is None or len(found) < 2:
        return found[0] if found else None
    plain = [name for name in found if not frame.schema[name].is_nested() and frame.schema[name] != pl.Binary]
    return max(plain, key=lambda name: match_identifiers(images, _text(frame[name])).count, default=found[0])


def _text(column: pl.Series) -> pl.Series:
    """Identifiers as text, of whole numbers without a point."""
    if column.dtype.is_float() and column.drop_nulls().is_finite().all() and (column.drop_nulls() % 1 == 0).all():
        column = column.cast(pl.Int64)
    return column.cast(pl.String).str.strip_chars()


def read_table(path: Path) -> pl.DataFrame:
    """Read a table of one value in a column and row, as it is.

    Raises
    ------
    DataError
        If the file is no table of a known kind, or cannot be read.
    """
    if path.suffix == ".csv":
        return read_csv(path, text=ALIASES["id"])
    if path.suffix == ".parquet":
        return read_parquet(path)
    if path.suffix in SUFFIXES:
        from astropy.table import Table

        with named_errors(path, "cannot be read as a table"):
            table = Table.read(path)
            columns = {}
            for name in table.colnames:
                if table[name].ndim == 1:
                    values = table[name].tolist()
                    columns[name] = [v.decode() if isinstance(v, bytes) else v for v in values]
            return pl.DataFrame(columns)
    raise DataError(f"{path}: not a catalogue; expected {', '.join(SUFFIXES)}")


def names_beside(frame: pl.DataFrame, catalog: pl.DataFrame) -> dict[str, str]:
    """Return the columns of a catalogue that images have already, each with its name beside theirs: ``catalog_NAME``."""
    taken: dict[str, str] = {}
    for name in catalog.columns:
        if name in frame.columns and name != "id":
            new = f"catalog_{name}"
            while new in (*frame.columns, *catalog.columns, *taken.values()):
                new = f"catalog_{new}"
            taken[name] = new
    return taken


def join_catalog(frame: pl.DataFrame, catalog: pl.DataFrame, source: str) -> tuple[pl.DataFrame, str]:
    """Add the columns of a catalogue to the rows of images with the same id, and return them with a note.

    Parameters
    ----------
    frame
        A row for each of N images.
    catalog
        The table to add, with a text column ``id`` without repetitions. A column that images have already gets
        ``catalog_`` before its name, and is left out if it says the same.
    source
        Where the catalogue comes from, for errors.

    Returns
    -------
    tuple of pl.DataFrame and str
        The N rows in the same order, null where the catalogue has no row, and a sentence on how many matched.

    Raises
    ------
    DataError
        If no id matches.
    """
    keyed = frame.with_columns(pl.col("id").cast(pl.String))
    taken = names_beside(frame, catalog)
    extra = catalog.rename(taken)
    match = match_identifiers(keyed["id"], extra["id"])
    if not match.count:
        raise DataError(
            f"{source}: no id of the catalogue is the id of an image; images have ids like {keyed['id'][0]!r}, "
            f"the catalogue like {extra['id'][0]!r}"
        )
    keyed = keyed.with_columns(match.images.alias(_KEY))
    extra = extra.drop("id").with_columns(match.catalog.alias(_KEY))
    joined = keyed.join(extra, on=_KEY, how="left", maintain_order="left").drop(_KEY)
    text = joined.select(pl.col([*taken, *taken.values()]).cast(pl.String, strict=False))
    joined = joined.drop([new for old, new in taken.items() if text[old].equals(text[new])])
    matches = f"{match.count:,} of {len(frame):,} images have a row in the catalogue"
    return joined, f"{matches}; identifiers were {match.note}" if match.note else matches


class Unmatched(NamedTuple):
    """Identifiers of images that have no row in a catalogue, and of rows that have no image."""

    images: list[str]
    rows: list[str]


def unmatched(images: pl.Series, rows: pl.Series) -> Unmatched:
    """Return which images and rows `join_catalog` leaves alone.

    Parameters
    ----------
    images
        Identifiers (N,) of images, text.
    rows
        Identifiers (M,) of the rows of the catalogue, text.
    """
    match = match_identifiers(images, rows)
    with_row = match.images.is_in(match.catalog.implode()).fill_null(False)
    with_image = match.catalog.is_in(match.images.implode()).fill_null(False)
    return Unmatched(images.filter(~with_row).to_list(), rows.filter(~with_image).fill_null("no id").to_list())
