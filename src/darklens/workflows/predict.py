"""Predict paths of any kind into one table."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from darklens.data.layouts import open_with
from darklens.data.options import DataOptions
from darklens.errors import DataError
from darklens.inference.calibration import prediction_sets
from darklens.inference.model import TrainedModel, load_model
from darklens.inference.outliers import outlier_note
from darklens.inference.predictions import Predicted, Progress, predict_cutouts, prediction_table

SEVERAL, UNDECIDED = 10, 0.05
"""Images from which on a model is said to be undecided, and how far above guessing its highest probability then is."""


@dataclass(frozen=True)
class Written:
    """How many images are in the table, what was done to fit them to the model, and which were left out and why."""

    images: int
    notes: list[str]
    skipped: dict[str, str]


def predict_paths(
    run: Path,
    paths: Sequence[Path],
    out: Path,
    options: DataOptions = DataOptions(),
    *,
    band: str | None = None,
    skip: bool = False,
    pixel_scale: float | None = None,
    symmetries: bool = False,
    coverage: float = 0.95,
    sort: str | None = None,
    trust_code: bool = False,
    progress: Progress | None = None,
) -> Written:
    """Predict images into a table with one row an image, written whole or not at all; return what was done.

    The table has identifier, path, predictions, a prediction set of a calibrated classifier, how unlike the training
    images an image is, and the columns of the catalogue.

    Parameters
    ----------
    run
        A run folder, a model folder, or the name of a shipped model.
    paths
        Images in any layout.
    out
        The table, ``.parquet`` or ``.csv``. A CSV leaves out columns of lists.
    options
        How the paths are read.
    band
        Names or numbers of the bands to use, with commas between.
    skip
        Leave out images that cannot be used, and list them.
    pixel_scale
        Arcsec, for images that do not say their own, or say it wrong.
    symmetries
        Average over the eight symmetries of the square.
    coverage
        With which probability a prediction set holds the truth.
    sort
        A column to sort by, the highest first; images unlike the training images come after all others.
    trust_code
        Whether code that the model names may run.
    progress
        Called with the images done and their number.

    Raises
    ------
    DataError
        If an image cannot be used, there is no column ``sort``, or the table cannot be written.
    """
    model = load_model(run, trust_code=trust_code)
    tables: list[pl.DataFrame] = []
    notes: list[str] = []
    skipped: dict[str, str] = {}
    for path in paths:
        cutouts = open_with(path, options)
        if pixel_scale is not None:
            cutouts = replace(cutouts, info=replace(cutouts.info, pixel_scale=pixel_scale))
        predicted = predict_cutouts(model, cutouts, band, options.mask, skip, symmetries, progress=progress)
        tables.append(prediction_table(predicted, cutouts, prediction_sets_of(model, predicted, coverage)))
        said = [outlier_note(predicted.prediction.outlier_score), _undecided_note(predicted.prediction.probabilities)]
        notes += [f"{path}: {note}" for note in [*predicted.notes, *filter(None, said)]]
        skipped |= predicted.skipped
    try:
        table = pl.concat(tables, how="diagonal_relaxed")
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{out}: the catalogues of these paths differ in a column's kind; predict them apart"
        ) from error
    if sort is not None:
        table = _sorted(table, sort, out)
    no_csv = [name for name, kind in table.schema.items() if kind.is_nested() or kind == pl.Binary]
    if out.suffix == ".csv" and no_csv:
        table = table.drop(no_csv)
        notes.append(f"{out.name}: left out columns that CSV cannot hold: {', '.join(no_csv)}")
    _write(table, out)
    return Written(len(table), notes, skipped)


def _undecided_note(probabilities: np.ndarray | None) -> str | None:
    """A warning where no class stands out in any of several images (N, classes)."""
    if probabilities is None or len(probabilities) < SEVERAL:
        return None
    highest, guess = float(probabilities.max()), 1 / probabilities.shape[1]
    if highest > guess + UNDECIDED:
        return None
    return (
        f"no class stands out in any image: the highest probability is {highest:.3f}, and guessing gives {guess:.3f}; the "
        "model may have learned nothing (darklens evaluate tells)"
    )


def _sorted(table: pl.DataFrame, column: str, out: Path) -> pl.DataFrame:
    """The highest first; what is unlike the training images after all others."""
    numbers = [name for name, kind in table.schema.items() if kind.is_numeric()]
    if column not in numbers:
        raise DataError(f"{out}: cannot be sorted by {column!r}; columns of numbers are {', '.join(numbers)}")
    apart = ["outlier"] if "outlier" in table.columns else []
    descending = [False] * len(apart) + [True]
    return table.sort([*apart, column], descending=descending, nulls_last=True, maintain_order=True)


def _write(table: pl.DataFrame, out: Path) -> None:
    temporary = out.with_name(out.name + ".tmp")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".csv":
            table.write_csv(temporary)
        else:
            table.write_parquet(temporary)
        temporary.replace(out)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise DataError(f"{out}: cannot be written: {error.strerror or error}") from error


def prediction_sets_of(model: TrainedModel, predicted: Predicted, coverage: float) -> np.ndarray | None:
    """Prediction sets (N, classes) of bool, if the model is calibrated for them."""
    probabilities = predicted.prediction.probabilities
    if probabilities is None or not model.calibration.scores:
        return None
    return prediction_sets(probabilities, model.calibration.scores, coverage)
