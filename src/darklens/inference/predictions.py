"""Predict everything in a dataset, whatever its layout, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

import numpy as np
import polars as pl

from darklens.data.catalog_inputs import check_ids, check_joined, check_names_present
from darklens.data.checks import check_finite, empty_images, noise_of_data
from darklens.data.dataset import Cutouts
from darklens.errors import DataError
from darklens.inference.adapt import Adaptation, adaptation
from darklens.inference.kept import KeptPredictions, Part
from darklens.inference.model import BATCH, Prediction, TrainedModel, fitting_batch
from darklens.tasks.base import Task

Progress = Callable[[int, int], None]
Batch = TypeVar("Batch")

BATCHES = 64
"""Batches between two moments at which the predictions of a long run are kept."""


@dataclass
class Predicted:
    """Predictions of some rows of a dataset, how these were made to fit the model, and what was left out and why.

    ``empty`` (N,) is True of images in which all pixels of a band have one value, or none: predictions say nothing there.
    """

    rows: np.ndarray
    prediction: Prediction
    adapt: Adaptation
    skipped: dict[str, str] = field(default_factory=dict)
    of_catalog: list[str] = field(default_factory=list)
    empty: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))

    @property
    def notes(self) -> list[str]:
        """Return sentences on what was done to make the images, and rows of the catalogue, fit the model."""
        return [*self.adapt.notes, *self.of_catalog]


def predict_cutouts(
    model: TrainedModel,
    cutouts: Cutouts,
    *,
    band: str | None = None,
    mask: bool = False,
    skip: bool = False,
    symmetries: bool = False,
    batch_size: int = BATCH,
    progress: Progress | None = None,
    kept: KeptPredictions | None = None,
) -> Predicted:
    """Predict all images of a dataset.

    Parameters
    ----------
    model
        What predicts.
    cutouts
        The images.
    band
        Names of the bands to use, with commas between.
    mask
        Set pixels that are nan or infinite to 0 instead of refusing the image.
    skip
        Leave out images that cannot be read or used, and list them, instead of stopping.
    symmetries
        Average over the eight symmetries of the square.
    batch_size
        Images that the network sees at a time, at most.
    progress
        Called with the images done and their number.
    kept
        Where predictions are kept as they are made, and read where they are there already.

    Returns
    -------
    Predicted
        Predictions of the images that could be used.

    Raises
    ------
    DataError
        If an image cannot be used, and ``skip`` is not set; if the model takes columns of the catalogue, and one is
        missing, or an image has no row.
    """
    catalog = catalog_rows(model, cutouts)
    of_catalog = [] if catalog is None else model.catalog_notes(catalog, cutouts.where)
    adapt = adaptation(model.config, cutouts.info, cutouts.images.shape, band)
    pictures = model.task.predicts == "images"
    if pictures:
        adapt.check_keeps_pixels(cutouts.where, cutouts.images.shape)
    batch_size = fitting_batch(batch_size, model.config.pixels)
    ids = cutouts.ids
    length = batch_size * BATCHES

    def read(start: int, skipped: dict[str, str]) -> tuple[np.ndarray, _Read]:
        rows = np.arange(start, min(start + batch_size, len(cutouts)))
        try:
            return rows, _read(cutouts, rows, ids, mask)
        except DataError:
            if not skip:
                raise
            return _readable(cutouts, rows, ids, mask, skipped)

    def predict(first: int) -> Part:
        skipped: dict[str, str] = {}
        done, parts, empty = [], [], []
        starts = range(first, min(first + length, len(cutouts)), batch_size)
        for start, (rows, found) in zip(starts, _one_ahead(lambda at: read(at, skipped), starts), strict=True):
            if len(rows):
                fitting, sky = adapt.with_noise(found.images, found.noise)
                beside = None if catalog is None else catalog[rows]
                part = model.predict(fitting, noise=sky, catalog=beside, batch_size=batch_size, symmetries=symmetries)
                parts.append(_in_own_flux(part, adapt, found.images) if pictures else part)
                done.append(rows)
                empty.append(found.empty)
            if progress:
                progress(min(start + batch_size, len(cutouts)), len(cutouts))
        whole = _joined(model, parts)
        rows, nothing = (
            np.concatenate(each) if each else np.zeros(0, kind) for each, kind in ((done, np.int64), (empty, np.bool_))
        )
        return Part(rows, whole.array, whole.outlier_score, nothing, skipped)

    parts = []
    kept = kept if len(cutouts) > length else None  # one part alone is in the table at once
    for first in range(0, len(cutouts), length):
        part = None if kept is None else kept.read(first)
        if part is None:
            part = predict(first)
            if kept is not None:
                kept.write(first, part)
        elif progress:
            progress(min(first + length, len(cutouts)), len(cutouts))
        parts.append(part)
    parts = parts or [predict(0)]
    scores = [part.outlier_score for part in parts if part.outlier_score is not None]
    prediction = model.prediction(
        np.concatenate([part.array for part in parts]), np.concatenate(scores) if scores else None
    )
    rows, nothing = (np.concatenate([getattr(part, name) for part in parts]) for name in ("rows", "empty"))
    skipped = {name: reason for part in parts for name, reason in part.skipped.items()}
    return Predicted(rows, prediction, adapt, skipped, of_catalog, nothing)


def _in_own_flux(part: Prediction, adapt: Adaptation, images: np.ndarray) -> Prediction:
    """Predicted images in the flux scale of their cutouts, which were brought to the model's."""
    factors = adapt.flux_factors(images).double().numpy()
    if (factors == 1).all() or part.array.shape[1] % factors.shape[1]:
        return part
    times = part.array.shape[1] // factors.shape[1]
    return replace(part, array=part.array / np.tile(factors, times)[..., None, None])


def catalog_rows(model: TrainedModel, cutouts: Cutouts) -> pl.DataFrame | None:
    """Return the rows of images with the columns that a model takes beside them; None if it takes images alone.

    Raises
    ------
    DataError
        If columns are missing, an identifier comes twice, or an image has no row in the catalogue that was joined.
    """
    if not model.columns:
        return None
    check_names_present(cutouts.catalog, model.columns, cutouts.where)
    check_ids(cutouts.catalog, cutouts.where)
    check_joined(cutouts.without_row, cutouts.without_image, cutouts.where, every_row=False)
    return cutouts.catalog.select("id", *(name for name in model.columns if name != "id"))


def _one_ahead(read: Callable[[int], Batch], starts: Iterable[int]) -> Iterator[Batch]:
    """Batches in their order, each read in a thread of its own while the one before it is used."""
    with ThreadPoolExecutor(1) as thread:
        waiting: Future[Batch] | None = None
        for start in starts:
            coming = thread.submit(read, start)
            if waiting is not None:
                yield waiting.result()
            waiting = coming
        if waiting is not None:
            yield waiting.result()


def prediction_table(
    predicted: Predicted,
    cutouts: Cutouts,
    task: Task,
    *,
    sets: np.ndarray | None = None,
    reserved: Collection[str] = (),
) -> pl.DataFrame:
    """Return a table with one row an image: what was predicted, and the columns of the catalogue.

    Parameters
    ----------
    predicted
        Predictions of some rows.
    cutouts
        The images whose rows they are.
    task
        What is predicted.
    sets
        Prediction sets (N, K) of bool.
    reserved
        Names that count as taken, of columns that will be added.

    Returns
    -------
    Columns ``id`` and ``path``; those of the task (``predicted``, ``p_<class>`` and ``set``, or values);
    ``outlier_score`` and ``outlier`` (whether that is above 1) if the model knows them; then all
    columns of the catalogue, with ``catalog_`` before a name that is taken.
    """
    catalog = cutouts.catalog[predicted.rows]
    path = catalog["path"] if "path" in catalog.columns else pl.Series("path", [cutouts.where] * len(catalog))
    columns = [catalog["id"].cast(pl.String).alias("id"), path.alias("path")]
    p = predicted.prediction
    columns += [pl.Series(name, values) for name, values in task.columns(p.array, sets).items()]
    if p.outlier_score is not None:
        columns += [pl.Series("outlier_score", p.outlier_score), pl.Series("outlier", p.outlier_score > 1)]
    return beside_catalog(columns, catalog.drop("id", "path", strict=False), reserved)


def beside_catalog(columns: Sequence[pl.Series], catalog: pl.DataFrame, reserved: Collection[str] = ()) -> pl.DataFrame:
    """Return a table of columns and, behind them, those of a catalogue, with ``catalog_`` before a name that is taken.

    Parameters
    ----------
    columns
        Columns that keep their names, each (N,).
    catalog
        N rows.
    reserved
        Names that count as taken, of columns that will be added.

    Returns
    -------
    polars.DataFrame
        N rows.
    """
    columns = list(columns)
    taken = {*reserved, *(column.name for column in columns)}
    for column in catalog:
        name = column.name
        while name in taken:
            name = f"catalog_{name}"
        taken.add(name)
        columns.append(column.alias(name))
    return pl.DataFrame(columns)


class _Read(NamedTuple):
    """Images (N, C, H, W) that can be used, their noise maps if there are any, and which of them show nothing (N,)."""

    images: np.ndarray
    noise: np.ndarray | None
    empty: np.ndarray


def _read(cutouts: Cutouts, rows: np.ndarray, ids: list[str], mask: bool) -> _Read:
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, which is checked next
        images = np.asarray(cutouts.images[rows], dtype=np.float32)
    checked = check_finite(images, [ids[row] for row in rows], cutouts.where, mask=mask)
    noise = None if cutouts.noise is None else noise_of_data(cutouts.noise[rows], images)
    return _Read(checked, noise, empty_images(images))


def _readable(
    cutouts: Cutouts, rows: np.ndarray, ids: list[str], mask: bool, skipped: dict[str, str]
) -> tuple[np.ndarray, _Read]:
    """The rows of images that can be used, and these; the others are listed in ``skipped``."""
    good: list[int] = []
    read: list[_Read] = []
    for row in rows:
        try:
            read.append(_read(cutouts, np.array([row]), ids, mask))
            good.append(int(row))
        except DataError as error:
            skipped[ids[row]] = str(error)
    images = [each.images for each in read] or [np.zeros((0, *cutouts.images.shape[1:]))]
    maps = [each.noise for each in read if each.noise is not None]
    empty = [each.empty for each in read] or [np.zeros(0, dtype=bool)]
    return np.array(good, dtype=int), _Read(
        np.concatenate(images), np.concatenate(maps) if maps else None, np.concatenate(empty)
    )


def _joined(model: TrainedModel, parts: list[Prediction]) -> Prediction:
    scores = [part.outlier_score for part in parts if part.outlier_score is not None]
    if not parts:
        none = pl.DataFrame({name: [] for name in model.columns}) if model.columns else None
        return model.predict(
            np.zeros((0, model.config.channels, model.config.pixels, model.config.pixels)), catalog=none
        )
    return model.prediction(np.concatenate([part.array for part in parts]), np.concatenate(scores) if scores else None)
