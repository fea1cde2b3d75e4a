"""Predict paths of any kind into one table."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from darklens.data.layouts import open_with
from darklens.data.options import DataOptions
from darklens.errors import DataError
from darklens.inference.model import load_model
from darklens.inference.outliers import outlier_note
from darklens.inference.predictions import Progress, predict_cutouts, prediction_table
from darklens.paths import check_absent
from darklens.workflows.options import PredictionOptions


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
    *,
    choices: PredictionOptions = PredictionOptions(),
    options: DataOptions = DataOptions(),
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
        The table, ``.parquet`` or ``.csv``. A CSV leaves out columns of lists. Predicted images are written beside it, as
        ``.npy``.
    choices
        How they are predicted.
    options
        How the paths are read.
    trust_code
        Whether code that the model names may run.
    progress
        Called with the images done and their number.

    Returns
    -------
    Written
        Number of images, notes, and what was left out.

    Raises
    ------
    DataError
        If an image cannot be used, there is no column to sort by, or the table cannot be written.
    """
    model = load_model(run, trust_code=trust_code)
    tables: list[pl.DataFrame] = []
    arrays: list[np.ndarray] = []
    scores: list[np.ndarray] = []
    noted: dict[str, list[Path]] = {}
    skipped: dict[str, str] = {}
    for path in paths:
        cutouts = open_with(path, options)
        predicted = predict_cutouts(
            model, cutouts, skip=choices.skip, symmetries=choices.symmetries, progress=progress, mask=options.mask,
            band=options.chosen(cutouts.info.bands),
        )  # fmt: skip
        array = predicted.prediction.array
        sets = model.task.prediction_sets(array, model.calibration, choices.coverage)
        tables.append(prediction_table(predicted, cutouts, model.task, sets=sets))
        arrays.append(array)
        if predicted.prediction.outlier_score is not None:
            scores.append(predicted.prediction.outlier_score)
        reading = [] if cutouts.info.layout == "dataset" else cutouts.info.notes
        for note in [*reading, *predicted.notes, *model.task.notes(array)]:
            noted.setdefault(note, []).append(path)
        skipped |= predicted.skipped
    notes = [f"{said[0] if len(said) == 1 else f'{len(said)} paths'}: {note}" for note, said in noted.items()]
    if scores and (outliers := outlier_note(np.concatenate(scores))):
        notes.append(outliers)
    try:
        table = pl.concat(tables, how="diagonal_relaxed")
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{out}: the catalogues of these paths differ in a column's kind; predict them apart"
        ) from error
    if choices.sort is not None:
        table = _sorted(table, choices.sort, out)
    no_csv = [name for name, kind in table.schema.items() if kind.is_nested() or kind == pl.Binary]
    if out.suffix == ".csv" and no_csv:
        table = table.drop(no_csv)
        notes.append(f"{out.name}: left out columns that CSV cannot hold: {', '.join(no_csv)}")
    if model.task.predicts == "images":
        pictures = out.with_suffix(".npy")
        if choices.sort is not None:
            raise DataError(f"{out}: predicted images are in the order of the paths; leave out --sort")
        check_absent(pictures)
        np.save(pictures, np.concatenate(arrays).astype(np.float32))
        notes.append(f"{pictures}: the predicted images, one for each row of the table")
    _write(table, out)
    return Written(len(table), notes, skipped)


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
