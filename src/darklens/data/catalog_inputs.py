"""Turn columns of a catalogue into numbers that a network takes beside an image; fitted to training rows.

Numbers are standardised, text and booleans become one number for each category, and what has no value is marked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from darklens.data.readers.catalogs import ALIASES
from darklens.errors import DarklensError, DataError
from darklens.schema import from_keys

ALL = "all"
"""In place of names of columns: all of the catalogue but identifiers, labels, names of files and positions."""
NO_INPUTS = {*(name for names in ALIASES.values() for name in names), "split", "path"}
"""Columns that `ALL` leaves out, in lower case."""
MOST_CATEGORIES = 64
"""Different texts that a column may have; one with more, such as a name, tells objects apart and teaches nothing."""
FAR = 10
"""Standard deviations of the training rows from which on a number is noted: -99 for no magnitude is 100 or so away."""
LISTED = 5
"""Identifiers that a message names."""


@dataclass(frozen=True)
class CatalogColumn:
    """A column of the catalogue and what training rows teach of it.

    Attributes
    ----------
    name
        Its name.
    mean, scale
        Of a column of numbers: mean and standard deviation of its values; else None.
    categories
        Of text or booleans: the different values, as text, in alphabetical order; of numbers, none.
    has_missing
        Whether some training rows have no value; an input that is 1 for such rows is added then.
    """

    name: str
    mean: float | None = None
    scale: float | None = None
    categories: list[str] = dataclasses.field(default_factory=list)
    has_missing: bool = False

    @property
    def features(self) -> list[str]:
        """Names of the inputs that it becomes."""
        own = [self.name] if self.mean is not None else [f"{self.name}={each}" for each in self.categories]
        return own + ([f"{self.name} is missing"] if self.has_missing else [])


@dataclass(frozen=True)
class CatalogEncoder:
    """Turn rows of a catalogue into inputs of a network. `fit_encoder` makes one.

    Attributes
    ----------
    columns
        The columns that it reads, in the order of their inputs.
    """

    columns: Sequence[CatalogColumn]

    @property
    def names(self) -> list[str]:
        """Names of the columns that it reads."""
        return [column.name for column in self.columns]

    @property
    def features(self) -> list[str]:
        """Names of the inputs, in their order."""
        return [name for column in self.columns for name in column.features]

    def content(self) -> list[dict[str, Any]]:
        """Return it in the types of JSON, as `read_encoder` reads it."""
        return [dataclasses.asdict(column) for column in self.columns]

    def encode(self, catalog: pl.DataFrame, where: str) -> np.ndarray:
        """Return the inputs of rows.

        Parameters
        ----------
        catalog
            N rows, with all columns of `names`; others are not looked at.
        where
            Names the data in errors.

        Returns
        -------
        numpy.ndarray
            (N, F) float32. A number without a value is at the mean of the training rows, 0; a text that no training row
            has is 0 in all categories.

        Raises
        ------
        DataError
            If a column is missing, holds text where it held numbers or the reverse, or holds infinite numbers.
        """
        check_names_present(catalog, self.names, where)
        parts: list[np.ndarray] = []
        for column in self.columns:
            series = catalog[column.name]
            if column.mean is not None and column.scale is not None:
                values = _numbers(series, catalog, where)
                missing = np.isnan(values)
                parts.append(np.where(missing, 0.0, (values - column.mean) / column.scale))
            else:
                texts = _texts(series, where)
                missing = texts.is_null().to_numpy()
                parts += [(texts == each).fill_null(False).to_numpy() for each in column.categories]
            if column.has_missing:
                parts.append(missing)
        if not parts:
            return np.zeros((len(catalog), 0), dtype=np.float32)
        return np.stack(parts, axis=1).astype(np.float32)

    def notes(self, catalog: pl.DataFrame, where: str) -> list[str]:
        """Return sentences on rows whose values training rows did not have: other texts, or none where all had one.

        Raises
        ------
        DataError
            If a column is missing, or does not hold what it held.
        """
        check_names_present(catalog, self.names, where)
        notes = []
        for column in self.columns:
            series = catalog[column.name]
            if column.mean is not None and column.scale is not None:
                values = _numbers(series, catalog, where)
                missing = int(np.isnan(values).sum())
                far = np.abs(values - column.mean) > FAR * column.scale
                if far.any():
                    notes.append(
                        f"column {column.name!r} is more than {FAR} standard deviations from the mean of the training rows "
                        f"in {int(far.sum()):,} of {len(catalog):,} rows, such as {values[far][0]:g}; if such a number "
                        "stands for no value, leave it empty"
                    )
            else:
                texts = _texts(series, where)
                missing = texts.null_count()
                unknown = texts.filter(texts.is_not_null() & ~texts.is_in(column.categories))
                if len(unknown):
                    named = ", ".join(map(repr, unknown.unique().sort().to_list()[:LISTED]))
                    notes.append(
                        f"column {column.name!r} holds {named} in {len(unknown):,} of {len(catalog):,} rows, which no "
                        "training row has; there it says nothing"
                    )
            if missing and not column.has_missing:
                notes.append(
                    f"column {column.name!r} has no value in {missing:,} of {len(catalog):,} rows; training rows always "
                    f"had one{', so that their mean is taken' if column.mean is not None else '; there it says nothing'}"
                )
        return notes


@dataclass(frozen=True)
class FittedColumns:
    """An encoder, and sentences on the columns that were left out where all were asked for."""

    encoder: CatalogEncoder
    notes: list[str]


def fit_encoder(catalog: pl.DataFrame, columns: Sequence[str] | str, where: str) -> FittedColumns:
    """Fit an encoder to training rows.

    Parameters
    ----------
    catalog
        The training rows.
    columns
        Names of columns, or `ALL`, which leaves out what cannot be an input: constants, lists, and texts that are all
        different, and says so.
    where
        Names the data in errors.

    Returns
    -------
    FittedColumns
        The encoder, with the columns in the order in which they are named, and notes.

    Raises
    ------
    DataError
        If a column is not there or comes twice, or one that is named cannot be an input; if there is none.
    """
    if isinstance(columns, str) and columns != ALL:
        columns = [name.strip() for name in columns.split(",")]
    if not isinstance(columns, str):
        check_names_present(catalog, columns, where)
        if names := [name for name in columns if name.lower() in ALIASES["id"]]:
            raise DataError(
                f"{where}: inputs.columns names {names[0]!r}, an identifier, of which a network learns nothing"
            )
        if twice := sorted({name for name in columns if list(columns).count(name) > 1}):
            raise DataError(f"{where}: inputs.columns names {twice[0]!r} twice")
        if not columns:
            raise DataError(f"{where}: inputs.columns names no column; say null for none, or {ALL}")
        return FittedColumns(CatalogEncoder([_fit(catalog, name, where) for name in columns]), [])
    found: list[CatalogColumn] = []
    reasons: dict[str, list[str]] = {}
    for name in catalog.columns:
        if name.lower().removeprefix("catalog_") in NO_INPUTS:
            continue
        try:
            found.append(_fit(catalog, name, where))
        except _UnusableColumnError as error:
            reasons.setdefault(error.reason, []).append(name)
    if not found:
        raise DataError(f"{where}: no column of the catalogue can be an input; there are {', '.join(catalog.columns)}")
    notes = [f"columns that are no inputs, as each {reason}: {', '.join(names)}" for reason, names in reasons.items()]
    return FittedColumns(CatalogEncoder(found), notes)


class _UnusableColumnError(DataError):
    """A column that cannot be an input; ``reason`` says why, without its name."""

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason


def _fit(catalog: pl.DataFrame, name: str, where: str) -> CatalogColumn:
    series = catalog[name]

    def refused(reason: str, hint: str) -> _UnusableColumnError:
        return _UnusableColumnError(f"{where}: column {name!r} {reason}; {hint}", reason)

    leave_out = "leave it out of inputs.columns"
    if series.dtype.is_nested() or series.dtype.is_temporal() or series.dtype in (pl.Binary, pl.Object):
        raise refused("holds neither numbers nor text", leave_out)
    if series.dtype.is_numeric():
        values = _numbers(series, catalog, where)
        known = values[~np.isnan(values)]
        if not len(known):
            raise refused("has no value in any training row", leave_out)
        constant = bool(known.min() == known.max())
        if constant and len(known) == len(values):
            raise refused("is constant over the training rows", leave_out)
        scale = 1.0 if constant else float(known.std())
        if not 0 < scale < np.inf:
            raise refused("has values too large, or too near to each other, to be scaled", leave_out)
        return CatalogColumn(name, float(known.mean()), scale, has_missing=len(known) < len(values))
    texts = _texts(series, where)
    different = sorted(texts.drop_nulls().unique().to_list())
    if not different:
        raise refused("has no value in any training row", leave_out)
    if len(different) == 1 and not texts.null_count():
        raise refused("is constant over the training rows", leave_out)
    if len(different) > MOST_CATEGORIES:
        raise refused(f"holds more than {MOST_CATEGORIES} different texts", leave_out + ", or make numbers of them")
    return CatalogColumn(name, categories=different, has_missing=bool(texts.null_count()))


def check_names_present(catalog: pl.DataFrame, names: Sequence[str], where: str) -> None:
    """Refuse a catalogue that lacks columns.

    Parameters
    ----------
    catalog
        The rows.
    names
        Columns that are needed.
    where
        Names the data in the message.

    Raises
    ------
    DataError
        If some are missing; the message names them, and those that there are.
    """
    if missing := [name for name in names if name not in catalog.columns]:
        there = ", ".join(name for name in catalog.columns if name != "id") or "none"
        raise DataError(
            f"{where}: no column {', '.join(map(repr, missing))}, which the network takes beside the image; the catalogue "
            f"has {there}. --catalog joins a table of your own"
        )


def _numbers(series: pl.Series, catalog: pl.DataFrame, where: str) -> np.ndarray:
    """Values as float64, nan for none; refused if they are no numbers, or infinite."""
    if series.null_count() == len(series):  # of a file that has nothing to tell its type by
        series = series.cast(pl.Float64)
    if not series.dtype.is_numeric():
        row = int((series.is_not_null()).arg_max() or 0)
        raise DataError(
            f"{where}: column {series.name!r} holds {series.dtype} where training rows held numbers; the first is "
            f"{series[row]!r} ({_row(catalog, row)})"
        )
    values = series.cast(pl.Float64).fill_null(np.nan).to_numpy()
    if np.isinf(values).any():
        row = int(np.flatnonzero(np.isinf(values))[0])
        raise DataError(
            f"{where}: column {series.name!r} is infinite ({_row(catalog, row)}); leave such values empty, as missing"
        )
    return values


def _texts(series: pl.Series, where: str) -> pl.Series:
    """Text, or booleans as text; null where it is empty."""
    if series.dtype not in (pl.String, pl.Boolean, pl.Null, pl.Categorical) and not isinstance(series.dtype, pl.Enum):
        raise DataError(f"{where}: column {series.name!r} holds {series.dtype} where training rows held text")
    texts = series.cast(pl.String).str.strip_chars()
    return texts.set(texts == "", None)


def _row(catalog: pl.DataFrame, row: int) -> str:
    return f"id {catalog['id'][row]}" if "id" in catalog.columns else f"row {row}"


def read_encoder(content: Sequence[Mapping[str, Any]], where: str, error: type[DarklensError]) -> CatalogEncoder | None:
    """Return the encoder that a model's description holds; None if it takes images alone.

    Parameters
    ----------
    content
        What `CatalogEncoder.content` returned.
    where
        Names the file in errors.
    error
        What is raised.

    Returns
    -------
    CatalogEncoder or None
        With its columns in their order.

    Raises
    ------
    DarklensError
        ``error``, if it makes no sense.
    """
    columns = [from_keys(CatalogColumn, each, f"{where}: catalog", error) for each in content]
    for column in columns:
        is_number = column.mean is not None and column.scale is not None and column.scale > 0
        is_text = column.mean is None and column.scale is None and len(column.categories) > 0
        if not (is_number and not column.categories) and not is_text:
            raise error(
                f"{where}: catalog: column {column.name!r} has mean {column.mean}, scale {column.scale} and "
                f"{len(column.categories)} categories; expected a mean with a scale above 0, or categories"
            )
    if len({column.name for column in columns}) < len(columns):
        raise error(f"{where}: catalog: a column comes twice")
    return CatalogEncoder(columns) if columns else None


def check_ids(catalog: pl.DataFrame, where: str) -> None:
    """Refuse identifiers that come twice: two rows would claim one image.

    Raises
    ------
    DataError
        If there are such; the message lists some.
    """
    ids = catalog["id"].cast(pl.String)
    twice = ids.filter(ids.is_duplicated()).unique(maintain_order=True).to_list()
    if twice:
        raise DataError(f"{where}: {_listed(twice, 'identifiers')} in more than one row; keep one row for each image")


def check_joined(
    without_row: Sequence[str], without_image: Sequence[str], where: str, *, every_row: bool = True
) -> None:
    """Refuse images without a row in the joined catalogue, and rows without an image.

    Parameters
    ----------
    without_row
        Identifiers of images that have no row.
    without_image
        Identifiers of rows that have no image.
    where
        Names the data in the message.
    every_row
        Whether rows without an image are refused; in a prediction they are not looked at.

    Raises
    ------
    DataError
        If there are such; the message lists some.
    """
    wrong = []
    if without_row:
        wrong.append(f"{_listed(without_row, 'images')} without a row in the catalogue")
    if every_row and without_image:
        wrong.append(f"{_listed(without_image, 'rows of the catalogue')} without an image")
    if wrong:
        raise DataError(
            f"{where}: {' and '.join(wrong)}; columns are inputs of the network, so add what is missing, or leave these out"
        )


def _listed(ids: Sequence[str], what: str) -> str:
    more = ", …" if len(ids) > LISTED else ""
    return f"{len(ids):,} {what} ({', '.join(ids[:LISTED])}{more})"
