"""Search cutouts for lenses: one list of all, the most probable first, and a page of the first ones."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from darklens.data.dataset import Cutouts
from darklens.data.options import DataOptions
from darklens.data.positions import lenscat_table, nearest, positions_of, read_named_positions
from darklens.errors import ModelError
from darklens.inference.model import TrainedModel, load_model
from darklens.inference.predictions import Predicted, Progress, beside_catalog
from darklens.report.mosaic import Candidate, write_mosaic
from darklens.workflows.options import PredictionOptions, SearchOptions
from darklens.workflows.predict import Gathered, joined_tables, parts_of, predict_each
from darklens.workflows.tables import without_lists, write_table

APART = 3.0
"""Distance in arcsec within which a known lens is the object."""

DRAWN = 200
"""Candidates on a page, unless another number is asked for."""


@dataclass(frozen=True)
class Found:
    """What a search gave.

    Attributes
    ----------
    images, kept
        Numbers of the images that were ranked, and of those in the table.
    first, expected
        A number of candidates from the top, and the lenses that are expected among them by their probabilities.
    prior
        The fraction of lenses among all objects that probabilities are for.
    notes, skipped
        What should be known, and which images were left out and why.
    """

    images: int
    kept: int
    first: int
    expected: float
    prior: float | None
    notes: list[str]
    skipped: dict[str, str]


def find_lenses(
    run: Path,
    paths: Sequence[Path],
    out: Path,
    *,
    search: SearchOptions = SearchOptions(),
    options: DataOptions = DataOptions(),
    trust_code: bool = False,
    progress: Progress | None = None,
) -> Found:
    """Rank images by the probability of a lens, and write the table and the page of the first ones.

    The table has the columns ``rank``, ``id``, ``file``, ``probability``, ``outlier_score`` and ``outlier`` (if the model
    knows them), ``ra``, ``dec``, ``known_lens`` and ``known_lens_separation`` (if they are known), then the others of the
    catalogue. Of equal probabilities, the image that was read first ranks higher. Empty images, of one value in each band,
    have no probability and come last. Images are read a batch at a time; only those of the page are kept in memory. Until
    the table is written, predictions are kept beside it (`parts_of`), from which the same call goes on if it is killed.

    Parameters
    ----------
    run
        A run folder or model folder, of a lens finder.
    paths
        Images in any layout.
    out
        The table, ``.parquet``, ``.csv`` or ``.fits``.
    search
        How they are searched, and what is drawn.
    options
        How the paths are read.
    trust_code
        Whether code that the model names may run.
    progress
        Called with the images done and their number.

    Returns
    -------
    Found
        Numbers, notes, and what was left out.

    Raises
    ------
    ModelError
        If the model is no lens finder.
    DataError
        If an image cannot be used, or something cannot be written.
    """
    model = load_model(run, trust_code=trust_code)
    if model.task.sought is None:
        raise ModelError(
            f"{run}: its task is {model.config.task['name']}, which ranks nothing; darklens find takes a model of the task "
            "find (recipes that begin with finding/)"
        )
    model = (model if search.prior is None else model.with_prior(search.prior)).with_precision(search.precision)
    known = _known_lenses(search)
    choices = PredictionOptions(skip=search.skip, symmetries=search.symmetries, precision=search.precision)
    drawn = 0 if search.mosaic is None else search.top or DRAWN
    tables: list[pl.DataFrame] = []
    first, gathered, start = _First(drawn), Gathered(), 0
    for path, cutouts, predicted in predict_each(
        model, paths, gathered, choices=choices, options=options, keep=parts_of(out), progress=progress
    ):
        p = np.where(predicted.empty, np.nan, probability_of_sought(model, predicted))
        tables.append(_candidates(predicted, cutouts, p))
        first.add(cutouts, predicted.rows, p, start, str(path))
        start += len(p)
    table = joined_tables(tables, out)
    notes = [*gathered.sentences(), *gathered.empty_note("they have no probability, and come last")]
    if known is not None:
        table, said = _with_known_lenses(table, *known)
        notes += said
    elif search.known_lenses is None:
        notes.append(
            "known lenses are not marked: install darklens[lenses], or give --known_lenses a table of your own"
        )
    prior = model.task.stated_prior
    notes.append(
        f"{model.task.prior_text} (--prior states another); they add up to "
        f"{table['probability'].sum():.3g} lenses among {len(table):,} images"
    )
    total, stated = float(table["probability"].sum()), (prior or 0.0) * len(table)
    if total > stated + 5 * stated**0.5 + 5:
        notes.append(
            f"{stated:.3g} lenses would be among {len(table):,} objects at the prior: either these were chosen and hold "
            "more, and a higher --prior is right, or they are unlike the training images, and their probabilities are too "
            "high"
        )
    ranked = rank_candidates(table)
    unknown = ranked["probability"].null_count()
    if undefined := unknown - len(gathered.empty):
        notes.append(
            f"{undefined:,} images have no probability, as the network's output is no number for them; they come last"
        )
    number = min(search.top or DRAWN, len(ranked) - unknown)
    expected = ranked["probability"].head(number).to_numpy().cumsum()
    if "outlier" in ranked.columns and (strange := int(ranked["outlier"].head(number).sum())):
        notes.append(
            f"{strange:,} of the first {number:,} are unlike the training images (outlier): their probabilities say "
            "little, and so does the number of lenses that is expected"
        )
    if search.mosaic is not None:
        write_mosaic(
            first.candidates(ranked),
            search.mosaic,
            title=f"Lens candidates in {_names(paths)}",
            summary=f"The first {number:,} of {len(ranked):,} images, by {run}, where {prior:g} of all objects are lenses.",
            notes=notes,
            expected=expected.tolist(),
        )
    kept, left_out = without_lists(ranked if search.top is None else ranked.head(search.top), out)
    write_table(kept, out)
    shutil.rmtree(parts_of(out), ignore_errors=True)
    return Found(
        len(ranked), len(kept), number, float(expected[-1]) if number else 0.0, prior, [*notes, *left_out],
        gathered.skipped,
    )  # fmt: skip


def probability_of_sought(model: TrainedModel, predicted: Predicted) -> np.ndarray:
    """Return the probability (N,) of what the model searches for."""
    place = list(model.task.output_names).index(str(model.task.sought))
    found: np.ndarray = predicted.prediction.array[:, place]
    return found


def rank_candidates(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table sorted by ``probability``, the highest first and those without one last, with ``rank`` in front."""
    table = table.sort("probability", descending=True, nulls_last=True, maintain_order=True)
    return table.select(pl.int_range(1, len(table) + 1, dtype=pl.Int64, eager=True).alias("rank"), pl.all())


def _candidates(predicted: Predicted, cutouts: Cutouts, p: np.ndarray) -> pl.DataFrame:
    """The columns of a search for one path, not yet sorted."""
    catalog = cutouts.catalog[predicted.rows]
    file = catalog["path"] if "path" in catalog.columns else pl.Series([cutouts.where] * len(catalog), dtype=pl.String)
    columns = [catalog["id"].cast(pl.String), file.alias("file"), pl.Series("probability", p).fill_nan(None)]
    score = predicted.prediction.outlier_score
    if score is not None:
        columns += [pl.Series("outlier_score", score), pl.Series("outlier", score > 1)]
    if positions_of(catalog) is not None:
        columns += [catalog["ra"].cast(pl.Float64), catalog["dec"].cast(pl.Float64)]
        catalog = catalog.drop("ra", "dec")
    rest = catalog.drop("id", "path", strict=False)
    return beside_catalog(columns, rest, reserved=("rank", "known_lens", "known_lens_separation"))


def _known_lenses(search: SearchOptions) -> tuple[list[str], np.ndarray] | None:
    """Names and positions of known lenses; None if they are not to be marked, or no table of them is there."""
    if search.known_lenses == "false":
        return None
    own = None if search.known_lenses is None else Path(search.known_lenses)
    tables = [read_named_positions(path) for path in (own, lenscat_table()) if path is not None]
    if not tables:
        return None
    return [name for names, _ in tables for name in names], np.concatenate([positions for _, positions in tables])


def _with_known_lenses(
    table: pl.DataFrame, names: Sequence[str], positions: np.ndarray
) -> tuple[pl.DataFrame, list[str]]:
    """The table with the nearest known lens of each object, and what is to be said."""
    of_objects = positions_of(table)
    if of_objects is None:
        return table, [
            "known lenses are not marked: there are no positions (columns ra and dec; --catalog joins a table)"
        ]
    rows, apart = nearest(of_objects, positions, APART)
    columns = [
        pl.Series("known_lens", [None if row < 0 else names[row] for row in rows], dtype=pl.String),
        pl.Series("known_lens_separation", apart).fill_nan(None),
    ]
    place = table.columns.index("dec") + 1
    before, behind = table.columns[:place], table.columns[place:]
    marked = table.select(*before, *columns, *behind)
    return marked, [f"{int((rows >= 0).sum()):,} of {len(table):,} objects are within {APART:g}″ of a known lens"]


def _names(paths: Sequence[Path]) -> str:
    name = paths[0].resolve().name
    return name if len(paths) == 1 else f"{name} and {len(paths) - 1} other paths"


@dataclass(frozen=True)
class _Kept:
    """The image of a candidate; ``number`` is its row in the table before it is sorted."""

    probability: float
    number: int
    image: np.ndarray
    bands: Sequence[str]
    pixel_scale: float | None
    path: str


class _First:
    """The images of the candidates with the highest probabilities so far, ``most`` at the most."""

    def __init__(self, most: int):
        self._most = most
        self._kept: list[_Kept] = []

    def add(self, cutouts: Cutouts, rows: np.ndarray, p: np.ndarray, start: int, path: str) -> None:
        """Take the images of rows (n,) with probabilities (n,) that are among the first; the others are not read."""
        if not self._most:
            return
        least = self._kept[-1].probability if len(self._kept) == self._most else -np.inf
        order = np.argsort(-p, kind="stable")[: self._most]  # nan comes last
        places = np.sort(order[p[order] > least])  # and is above nothing
        if not len(places):
            return
        images = np.nan_to_num(np.asarray(cutouts.images[rows[places]], np.float32), posinf=0, neginf=0)
        info = cutouts.info
        self._kept += [
            _Kept(float(p[place]), start + int(place), image, info.bands, info.pixel_scale, path)
            for place, image in zip(places, images, strict=True)
        ]
        self._kept = sorted(self._kept, key=lambda each: (-each.probability, each.number))[: self._most]

    def candidates(self, ranked: pl.DataFrame) -> list[Candidate]:
        """Return what the page shows, from the sorted table, whose first rows they are."""
        rows = ranked.head(len(self._kept)).iter_rows(named=True)
        return [_candidate(kept, row) for kept, row in zip(self._kept, rows, strict=True)]


def _candidate(kept: _Kept, row: dict[str, Any]) -> Candidate:
    ra, dec = row.get("ra"), row.get("dec")
    return Candidate(
        kept.image,
        kept.bands,
        kept.path,
        kept.pixel_scale,
        row["id"],
        row["probability"],
        position=None if ra is None or dec is None or not np.isfinite([ra, dec]).all() else (ra, dec),
        outlier_score=row.get("outlier_score"),
        known_lens=row.get("known_lens"),
        separation=row.get("known_lens_separation"),
    )
