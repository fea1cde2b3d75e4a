"""Predict paths of any kind into one table."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from darklens.data.dataset import Cutouts
from darklens.data.layouts import open_with
from darklens.data.options import DataOptions
from darklens.errors import DataError
from darklens.inference.kept import KeptPredictions
from darklens.inference.model import TrainedModel, load_model
from darklens.inference.outliers import outlier_note
from darklens.inference.predictions import Predicted, Progress, predict_cutouts, prediction_table
from darklens.paths import check_absent
from darklens.workflows.options import PredictionOptions
from darklens.workflows.tables import without_lists, write_table

NAMED = 5
"""Empty images that a note names."""


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
    images an image is, and the columns of the catalogue. Until it is written, predictions are kept beside it
    (`parts_of`), from which the same call goes on if it is killed.

    Parameters
    ----------
    run
        A run folder, a model folder, or the name of a shipped model.
    paths
        Images in any layout.
    out
        The table, ``.parquet``, ``.csv`` or ``.fits``; the last two leave out columns of lists. Predicted images are
        written beside it, as ``.npy``.
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
    model = load_model(run, trust_code=trust_code).with_precision(choices.precision)
    if choices.prior is not None:
        model = model.with_prior(choices.prior)
    tables: list[pl.DataFrame] = []
    arrays: list[np.ndarray] = []
    gathered = Gathered()
    # Predicted images would be as many again on the disk.
    keep = None if model.task.predicts == "images" else parts_of(out)
    for path, cutouts, predicted in predict_each(
        model, paths, gathered, choices=choices, options=options, keep=keep, progress=progress
    ):
        array = predicted.prediction.array
        sets = model.task.prediction_sets(array, model.calibration, choices.coverage)
        tables.append(prediction_table(predicted, cutouts, model.task, sets=sets))
        arrays.append(array)
        gathered.note(path, model.task.notes(array))
    notes = [*gathered.sentences(), *gathered.empty_note("what is predicted of them means nothing")]
    table = joined_tables(tables, out)
    if choices.sort is not None:
        table = _sorted(table, choices.sort, out)
    table, left_out = without_lists(table, out)
    notes += left_out
    if model.task.predicts == "images":
        pictures = out.with_suffix(".npy")
        if choices.sort is not None:
            raise DataError(f"{out}: predicted images are in the order of the paths; leave out --sort")
        check_absent(pictures)
        np.save(pictures, np.concatenate(arrays).astype(np.float32))
        notes.append(f"{pictures}: the predicted images, one for each row of the table")
    write_table(table, out)
    shutil.rmtree(parts_of(out), ignore_errors=True)
    return Written(len(table), notes, gathered.skipped)


def parts_of(out: Path) -> Path:
    """Return the folder beside a table in which predictions are kept until the table is written."""
    return out.with_name(out.name + ".parts")


@dataclass
class Gathered:
    """What is to be said of the predictions of several paths."""

    notes: dict[str, list[Path]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    scores: list[np.ndarray] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    images: int = 0

    def note(self, path: Path, notes: Sequence[str]) -> None:
        """Add notes on a path."""
        for note in notes:
            self.notes.setdefault(note, []).append(path)

    def take(self, path: Path, cutouts: Cutouts, predicted: Predicted) -> None:
        """Add what is to be said of the images at a path and their predictions."""
        if predicted.prediction.outlier_score is not None:
            self.scores.append(predicted.prediction.outlier_score)
        reading = cutouts.overruled if cutouts.info.layout == "dataset" else cutouts.info.notes
        self.note(path, [*reading, *predicted.notes])
        self.skipped |= predicted.skipped
        self.images += len(predicted.rows)
        if predicted.empty.any():
            names = cutouts.ids
            self.empty += [names[row] for row in predicted.rows[predicted.empty]]

    def empty_note(self, consequence: str) -> list[str]:
        """Return a note on the images that show nothing, which ends in what follows for them; none if there are none."""
        if not self.empty:
            return []
        named = ", ".join(self.empty[:NAMED]) + (" and others" if len(self.empty) > NAMED else "")
        return [
            f"{len(self.empty):,} of {self.images:,} images are empty (all pixels of a band have one value, or none): "
            f"{named}; {consequence}"
        ]

    def sentences(self) -> list[str]:
        """Return the notes, each with its path or their number, and the warning of images unlike the training images."""
        notes = [f"{of[0] if len(of) == 1 else f'{len(of)} paths'}: {note}" for note, of in self.notes.items()]
        outliers = outlier_note(np.concatenate(self.scores)) if self.scores else None
        return [*notes, outliers] if outliers else notes


def predict_each(
    model: TrainedModel,
    paths: Sequence[Path],
    gathered: Gathered,
    *,
    choices: PredictionOptions,
    options: DataOptions,
    keep: Path | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[Path, Cutouts, Predicted]]:
    """Predict one path after the other; yield each with its images and predictions.

    Parameters
    ----------
    model
        What predicts.
    paths
        Images in any layout.
    gathered
        Gets the notes, what was skipped or is empty, and the outlier scores.
    choices
        How they are predicted.
    options
        How the paths are read.
    keep
        A folder in which predictions are kept as they are made; where they are there already, they are read. Whoever gives
        it removes it in the end.
    progress
        Called with the images done and their number.
    """
    for number, path in enumerate(paths):
        cutouts = open_with(path, options)
        told = {name: str(getattr(choices, name)) for name in ("skip", "symmetries", "precision")}
        told["options"] = str(options)
        kept = None if keep is None else KeptPredictions(keep / str(number), model, cutouts, told)
        predicted = predict_cutouts(
            model, cutouts, skip=choices.skip, symmetries=choices.symmetries, progress=progress, mask=options.mask,
            band=options.chosen(cutouts.info.bands), kept=kept,
        )  # fmt: skip
        gathered.take(path, cutouts, predicted)
        yield path, cutouts, predicted


def joined_tables(tables: Sequence[pl.DataFrame], out: Path) -> pl.DataFrame:
    """Return the tables of several paths as one. Raises DataError if a column differs in kind."""
    try:
        return pl.concat(tables, how="diagonal_relaxed")
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{out}: the catalogues of these paths differ in a column's kind; predict them apart"
        ) from error


def _sorted(table: pl.DataFrame, column: str, out: Path) -> pl.DataFrame:
    """The highest first; what is unlike the training images after all others."""
    numbers = [name for name, kind in table.schema.items() if kind.is_numeric()]
    if column not in numbers:
        raise DataError(f"{out}: cannot be sorted by {column!r}; columns of numbers are {', '.join(numbers)}")
    apart = ["outlier"] if "outlier" in table.columns else []
    descending = [False] * len(apart) + [True]
    return table.sort([*apart, column], descending=descending, nulls_last=True, maintain_order=True)
