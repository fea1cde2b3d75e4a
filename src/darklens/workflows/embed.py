"""Embed images: features of any trained model's encoder in a table, what they are worth, and a page to explore them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from darklens.data.dataset import Cutouts
from darklens.data.layouts import open_with
from darklens.data.options import DataOptions
from darklens.data.seeds import simulation_seed
from darklens.data.seen import how_seen
from darklens.data.synthesis import simulate_cutouts
from darklens.errors import DataError
from darklens.evaluation.feature_space import MAPPED, FeatureSpace
from darklens.evaluation.probes import Probes, probe
from darklens.inference.features import FeatureRecorder
from darklens.inference.model import TrainedModel, load_model
from darklens.inference.predictions import Predicted, Progress, predict_cutouts, prediction_table
from darklens.paths import check_absent
from darklens.report.page import write_page
from darklens.simulation import load_preset
from darklens.workflows.embedding_page import Explored, Source, write_map
from darklens.workflows.likes import Like, Liked, find_likes, open_like
from darklens.workflows.options import EmbeddingOptions
from darklens.workflows.predict import Gathered, joined_tables
from darklens.workflows.tables import without_lists, write_table

ADDED = ("isolation", "cluster", "map_x", "map_y")
"""Columns of the table beside predictions and features."""


@dataclass(frozen=True)
class Embedded:
    """What an embedding gave.

    Attributes
    ----------
    images, features
        Numbers of rows, and of features of each.
    clusters
        How many were found; 0 if none stand out.
    probes
        How well classes are told by the features, where there are labels.
    likes
        Nearest neighbours of the cutouts that were asked for.
    beside
        The file with figures and settings.
    notes, skipped
        What should be known, and which images were left out and why.
    """

    images: int
    features: int
    clusters: int
    probes: Probes
    likes: list[Liked]
    beside: Path
    notes: list[str]
    skipped: dict[str, str]


def embed_paths(
    run: Path,
    paths: Sequence[Path],
    out: Path,
    *,
    choices: EmbeddingOptions = EmbeddingOptions(),
    options: DataOptions = DataOptions(),
    trust_code: bool = False,
    line: str = "",
    progress: Progress | None = None,
) -> Embedded:
    """Write the features of images and what follows from them; return figures, neighbours and notes.

    The table has ``id`` and ``path``, what the model predicts (of a classifier ``predicted`` and ``p_<class>``),
    ``outlier_score`` and ``outlier`` where the model has them, the columns of the catalogue with ``label``, then
    ``isolation`` (distance to the k-th nearest neighbour, in units of the root mean square distance between images),
    ``cluster`` (0 for the largest, none outside of all), ``map_x`` and ``map_y`` where a page is drawn, and features
    ``f000`` and so on. A JSON file of the same name holds settings and figures.

    Parameters
    ----------
    run
        A run folder, a model folder, or the name of a shipped model.
    paths
        Images in any layout, or ``preset:NAME`` for fresh ones.
    out
        The table, ``.parquet``, ``.csv`` or ``.fits``.
    choices
        Neighbours, clusters, map and page.
    options
        How the paths are read.
    trust_code
        Whether code that the model or a preset in YAML names may run.
    line
        The command, which is recorded.
    progress
        Called with the images done and their number.

    Returns
    -------
    Embedded
        Numbers, figures, and what was left out.

    Raises
    ------
    ModelError
        If the model has no features of whole images.
    DataError
        If an image cannot be used, there are too few for what is asked, or something cannot be written.
    """
    model = load_model(run, trust_code=trust_code)
    recorder = FeatureRecorder(model, str(run))
    beside = out.with_suffix(".json")
    check_absent(beside)
    opened = [_open(path, options, choices, trust_code=trust_code) for path in paths]
    _check_number(sum(map(len, opened)), choices)
    like = open_like(choices.like, opened, options, with_catalog=bool(model.columns))
    gathered = Gathered()
    with recorder:
        sources, features = _embed_each(
            model, recorder, paths, opened, gathered, options=options, skip=choices.skip, progress=progress
        )
        if like is not None:
            _predict(model, like.cutouts, options, skip=False)
            like = like.with_features(recorder.take())
    names = [f"f{number:03d}" for number in range(features.shape[1])]
    parts = [
        prediction_table(each.predicted, each.cutouts, model.task, reserved=(*ADDED, *names))
        for each in sources
    ]  # fmt: skip
    table = joined_tables(parts, out)
    explored, added = _explore(table, features, choices, like)
    table = table.with_columns(
        *added, *(pl.Series(name, column) for name, column in zip(names, features.T, strict=True))
    )
    notes = [*gathered.sentences(), *gathered.empty_note("their features mean nothing"), *_seen(model, paths, opened)]
    notes += explored.notes
    if choices.page is not None:
        scores = list(model.task.columns(sources[0].predicted.prediction.array, None))
        write_map(explored, sources, table, choices, run=run, names=_names(paths), scores=scores, notes=notes)
    table, left_out = without_lists(table, out)
    record = _record(explored, table, run, features.shape[1], choices)
    write_page(json.dumps({"command": line, **record, "notes": notes}, indent=1) + "\n", beside)
    write_table(table, out)
    return Embedded(
        len(table), len(names), explored.clusters, explored.probes, explored.likes, beside, [*notes, *left_out],
        gathered.skipped,
    )  # fmt: skip


def _open(path: Path, options: DataOptions, choices: EmbeddingOptions, *, trust_code: bool) -> Cutouts:
    """The images at a path, or fresh ones of a preset, which no training has seen."""
    if not str(path).startswith("preset:"):
        return open_with(path, options)
    preset = load_preset(str(path).removeprefix("preset:"), trust_code=trust_code)
    cutouts = simulate_cutouts(preset, choices.count, simulation_seed(choices.seed, "test"))
    return cutouts if options.band_names is None else cutouts.with_bands(options.band_names)


def _check_number(images: int, choices: EmbeddingOptions) -> None:
    if choices.page is not None and images < 3:
        raise DataError(f"{choices.page}: a map takes at least 3 images; {images} can be used")
    if choices.clusters is not None and choices.clusters > images:
        raise DataError(f"--clusters {choices.clusters} is more than the {images} images that can be used")


def _embed_each(
    model: TrainedModel,
    recorder: FeatureRecorder,
    paths: Sequence[Path],
    opened: Sequence[Cutouts],
    gathered: Gathered,
    *,
    options: DataOptions,
    skip: bool,
    progress: Progress | None,
) -> tuple[list[Source], np.ndarray]:
    """Images and predictions of each path, and the features (N, F) of all."""
    sources, features = [], []
    for path, cutouts in zip(paths, opened, strict=True):
        predicted = _predict(model, cutouts, options, skip=skip, progress=progress)
        gathered.take(path, cutouts, predicted)
        found = recorder.take()
        if len(found):
            sources.append(Source(str(path), cutouts, predicted))
            features.append(found)
    if not features:
        raise DataError(f"{_names(paths)}: none of the images can be used")
    return sources, np.concatenate(features)


def _predict(
    model: TrainedModel, cutouts: Cutouts, options: DataOptions, *, skip: bool, progress: Progress | None = None
) -> Predicted:
    band = options.chosen(cutouts.info.bands)
    return predict_cutouts(model, cutouts, skip=skip, progress=progress, mask=options.mask, band=band)


def _explore(
    table: pl.DataFrame, features: np.ndarray, choices: EmbeddingOptions, like: Like | None
) -> tuple[Explored, pl.DataFrame]:
    """What follows from features (N, F) of images, and the columns that the table gets."""
    rows = np.flatnonzero(np.isfinite(features).all(1))
    notes = []
    if undefined := len(features) - len(rows):
        named = ", ".join(table["id"].filter(~pl.Series(np.isfinite(features).all(1)))[:5])
        notes.append(
            f"features of {undefined:,} images are no numbers ({named}): they have no isolation and no cluster"
        )
    _check_number(len(rows), choices)
    if len(rows) < 2:
        nothing = [_scattered(name, np.full(len(rows), np.nan), rows, len(table)) for name in ADDED[:2]]
        return Explored(rows, notes=[*notes, "one image alone has no neighbours"]), pl.DataFrame(nothing)
    try:
        space = FeatureSpace(features[rows], choices.seed)
    except ValueError as error:
        raise DataError(f"{error}: to this model they look alike, and its features say nothing of them") from error
    kind = choices.map if len(rows) <= MAPPED else "pca"
    if kind != choices.map and choices.page is not None:
        notes.append(f"the map is by principal components: t-SNE takes at most {MAPPED:,} images, not {len(rows):,}")
    k = min(choices.neighbours, len(rows) - 1)
    isolation, clusters = space.isolation(k), space.clusters(choices.clusters)
    number = int(clusters.max()) + 1
    if not number:
        notes.append("no cluster stands out; --clusters 8 would divide the images by k-means")
    labels = table["label"].cast(pl.String).to_list() if "label" in table.columns else []
    probes = probe(features[rows], [labels[row] for row in rows] if labels else [], choices.neighbours, choices.seed)
    notes += probes.notes
    columns = {"isolation": isolation, "cluster": clusters}
    places = space.map(kind) if choices.page is not None else None
    if places is not None:
        columns |= {"map_x": places[:, 0], "map_y": places[:, 1]}
    likes = [] if like is None else find_likes(space, isolation, rows, like, table, k)
    notes += [each.concern for each in likes if each.concern]
    share = space.share_mapped if kind == "pca" else None
    explored = Explored(rows, number, probes, likes, k, share, notes)
    return explored, pl.DataFrame([_scattered(name, each, rows, len(table)) for name, each in columns.items()])


def _scattered(name: str, values: np.ndarray, rows: np.ndarray, length: int) -> pl.Series:
    """Values (n,) of some rows as a column of all, null elsewhere, and where a cluster is -1."""
    full = np.full(length, np.nan)
    full[rows] = values
    if name != "cluster":
        return pl.Series(name, full).fill_nan(None)
    return pl.Series(name, np.where(full >= 0, full, np.nan)).fill_nan(None).cast(pl.Int64)


def _seen(model: TrainedModel, paths: Sequence[Path], opened: Sequence[Cutouts]) -> list[str]:
    return [
        f"{path}: the model has seen images of this dataset in its training; figures of probes on them are too good"
        for path, cutouts in zip(paths, opened, strict=True)
        if how_seen(model.config.data, cutouts.info) is not None
    ]


def _record(
    explored: Explored, table: pl.DataFrame, run: Path, features: int, choices: EmbeddingOptions
) -> dict[str, Any]:
    """Settings and figures, in JSON's types."""
    probes = explored.probes
    record: dict[str, Any] = {
        "model": str(run), "images": len(table), "features": features, "neighbours": explored.neighbours,
        "clusters": explored.clusters, "seed": choices.seed,
    }  # fmt: skip
    if probes.figures:
        record["probes"] = {
            name: {key: figure.record() for key, figure in of.items()} for name, of in probes.figures.items()
        }
        record |= {"classes": probes.classes, "accuracy_of_the_most_frequent_class": probes.most_frequent}
    if explored.likes:
        record["like"] = {
            each.name: [
                {"id": name, "distance": float(distance)}
                for name, distance in zip(each.ids, each.distances, strict=True)
            ]
            for each in explored.likes
        }
    return record


def _names(paths: Sequence[Path]) -> str:
    name = paths[0].name if str(paths[0]).startswith("preset:") else paths[0].resolve().name
    return name if len(paths) == 1 else f"{name} and {len(paths) - 1} other paths"
