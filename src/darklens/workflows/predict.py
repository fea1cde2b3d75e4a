"""Predict paths of any kind into one table."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from darklens.data.layouts import open_data
from darklens.errors import DataError
from darklens.inference.calibration import prediction_sets
from darklens.inference.model import TrainedModel, load_model
from darklens.inference.predict import Predicted, Progress, predict_cutouts, prediction_table


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
    layout: str | None = None,
    catalog: Path | None = None,
    band: str | None = None,
    mask: bool = False,
    skip: bool = False,
    pixel_scale: float | None = None,
    symmetries: bool = False,
    coverage: float = 0.95,
    progress: Progress | None = None,
) -> Written:
    """Write one row an image to ``out`` (``.parquet`` or ``.csv``), whole or not at all.

    ``pixel_scale`` (arcsec) is for images that do not say their own, or say it wrong. A calibrated classifier adds a
    prediction set of the stated ``coverage``; what is unlike the images that the model knows is noted.
    """
    model = load_model(run)
    tables: list[pl.DataFrame] = []
    notes: list[str] = []
    skipped: dict[str, str] = {}
    for path in paths:
        cutouts = open_data(path, layout, catalog)
        if pixel_scale is not None:
            cutouts = replace(cutouts, info=replace(cutouts.info, pixel_scale=pixel_scale))
        predicted = predict_cutouts(model, cutouts, band, mask, skip, symmetries, progress=progress)
        tables.append(prediction_table(predicted, cutouts, prediction_sets_of(model, predicted, coverage)))
        notes += [f"{path}: {note}" for note in [*predicted.notes, *_warnings(predicted)]]
        skipped |= predicted.skipped
    table = pl.concat(tables)
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
    return Written(len(table), notes, skipped)


def prediction_sets_of(model: TrainedModel, predicted: Predicted, coverage: float) -> np.ndarray | None:
    """Prediction sets (N, classes) of bool, if the model is calibrated for them."""
    probabilities = predicted.prediction.probabilities
    if probabilities is None or not model.calibration.scores:
        return None
    return prediction_sets(probabilities, model.calibration.scores, coverage)


def _warnings(predicted: Predicted) -> list[str]:
    unlike = predicted.prediction.unlike
    strange = 0 if unlike is None else int((unlike > 1).sum())
    if not strange:
        return []
    return [
        f"{strange:,} of {len(predicted.rows):,} images are unlike those that the model knows (unlike > 1): "
        "what it says of them means little"
    ]
