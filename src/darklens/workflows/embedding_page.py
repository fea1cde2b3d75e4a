"""What the page of an embedding shows: images, colours of their points, and lists of neighbours and outliers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch.nn.functional import interpolate

from darklens.data.dataset import Cutouts
from darklens.evaluation.feature_space import MAPPED
from darklens.evaluation.probes import Probes
from darklens.inference.predictions import Predicted
from darklens.plots.pictures import STRETCHES, stretched_pictures
from darklens.report.embedding_map import TILE, Card, Colouring, EmbeddingMap, Group, write_embedding_map
from darklens.workflows.likes import Liked
from darklens.workflows.options import EmbeddingOptions

OUTLIERS = 12
"""Most isolated images that a page lists: two rows of its cards."""
CLUSTERS = 12
"""Clusters that a page lists, the largest."""
OF_CLUSTER = 6
"""Images that are shown of a cluster, those nearest to its middle on the map."""
SCORES = 6
"""Predicted numbers by which points can be coloured; of more, such as an embedding's, none are."""
READ = 64
"""Images that are read at a time: they are made small before more are."""
T_SNE = (
    "Images that are near on this map (t-SNE) are mostly alike, but sizes of groups, gaps between them and far distances "
    "on it mean nothing; clusters, neighbours and isolation are from the features, not from the map."
)


@dataclass(frozen=True)
class Source:
    """Images of one path with their predictions."""

    path: str
    cutouts: Cutouts
    predicted: Predicted


@dataclass(frozen=True)
class Explored:
    """What follows from the features of images.

    Attributes
    ----------
    rows
        Rows of the table whose features are numbers.
    clusters
        Their number.
    probes, likes
        How well classes are told, and neighbours of the cutouts that were asked for.
    neighbours
        How many tell the isolation of an image.
    share
        Of the scatter of features, what a map by principal components shows; None for t-SNE.
    notes
        What should be known.
    """

    rows: np.ndarray
    clusters: int = 0
    probes: Probes = field(default_factory=Probes)
    likes: list[Liked] = field(default_factory=list)
    neighbours: int = 0
    share: float | None = None
    notes: list[str] = field(default_factory=list)


def write_map(
    explored: Explored,
    sources: Sequence[Source],
    table: pl.DataFrame,
    choices: EmbeddingOptions,
    *,
    run: Path,
    names: str,
    scores: Sequence[str],
    notes: Sequence[str],
) -> Path:
    """Write the page of an embedding.

    Parameters
    ----------
    explored
        What follows from the features.
    sources
        Images, in the order of the table.
    table
        What `darklens.workflows.embed.embed_paths` writes.
    choices
        With the page's path.
    run
        The model.
    names
        Of the images, for the heading.
    scores
        Columns of what the model predicts, of which those of numbers colour the points.
    notes
        Sentences that are folded up.

    Returns
    -------
    Path
        The page.
    """
    assert choices.page is not None
    shown, total = _shown_rows(explored, table, choices.seed), len(table)
    tiles = dict(zip(shown.tolist(), _tiles(sources, shown), strict=True))
    some = table[shown]
    drawn = "" if len(shown) == total else f" {len(shown):,} of them, drawn at random, and those listed are on the map."
    page = EmbeddingMap(
        title=f"Embedding of {names}",
        summary=f"{total:,} images by the encoder of {run}.{drawn}",
        caveat=T_SNE if explored.share is None else _pca_caveat(explored.share),
        notes=notes,
        places=some.select("map_x", "map_y").to_numpy(),
        tiles=np.stack([tiles[row] for row in shown.tolist()]),
        texts=[_texts(row) for row in some.iter_rows(named=True)],
        colourings=list(_colourings(some, scores)),
        groups=list(_groups(explored, table, {row: place for place, row in enumerate(shown.tolist())})),
        figures=explored.probes.figures,
        classes=explored.probes.classes,
        most_frequent=explored.probes.most_frequent,
    )
    return write_embedding_map(page, choices.page)


def _pca_caveat(share: float) -> str:
    return (
        f"The map shows the first two principal components, which hold {100 * share:.0f}% of the scatter of features: "
        "images that are near on it may differ in what it leaves out; clusters, neighbours and isolation are from all."
    )


def _shown_rows(explored: Explored, table: pl.DataFrame, seed: int) -> np.ndarray:
    """Rows on the page: all, or a random choice of many with those that are listed."""
    rows = explored.rows
    if len(rows) <= MAPPED:
        return rows
    chosen = np.random.default_rng(seed).permutation(rows)[:MAPPED]
    listed = [_most_isolated(table), *(each.rows for each in explored.likes), *_middles(explored, table)]
    return np.unique(np.concatenate([chosen, *listed]))


def _most_isolated(table: pl.DataFrame) -> np.ndarray:
    isolation = table["isolation"].fill_null(-1).to_numpy()
    return np.argsort(-isolation, kind="stable")[:OUTLIERS]


def _middles(explored: Explored, table: pl.DataFrame) -> Iterator[np.ndarray]:
    """Of each cluster that is listed, the rows nearest to its middle on the map."""
    clusters = table["cluster"].fill_null(-1).to_numpy()
    places = table.select("map_x", "map_y").to_numpy()
    for number in range(min(explored.clusters, CLUSTERS)):
        rows = np.flatnonzero(clusters == number)
        away = np.hypot(*(places[rows] - np.median(places[rows], axis=0)).T)
        yield rows[np.argsort(away, kind="stable")[:OF_CLUSTER]]


def _tiles(sources: Sequence[Source], shown: np.ndarray) -> Iterator[np.ndarray]:
    """Pictures (TILE, TILE, 3) of rows of the table, in their order; bands of one path are on one scale of colours."""
    start = 0
    for source in sources:
        rows = source.predicted.rows
        mine = rows[shown[(shown >= start) & (shown < start + len(rows))] - start]
        start += len(rows)
        if len(mine):
            yield from _pictures(source.cutouts, mine)


def _pictures(cutouts: Cutouts, rows: np.ndarray) -> np.ndarray:
    small = [_made_small(cutouts.images[rows[begin : begin + READ]]) for begin in range(0, len(rows), READ)]
    drawn = stretched_pictures(np.concatenate(small), cutouts.info.bands)[STRETCHES[0]]
    pixels = torch.from_numpy(drawn).permute(0, 3, 1, 2)
    side = max(pixels.shape[-2:])
    if pixels.shape[-2:] != (TILE, TILE):
        scaled = [max(1, round(TILE * length / side)) for length in pixels.shape[-2:]]
        pixels = interpolate(pixels, size=scaled, mode="nearest-exact")
    found = np.zeros((len(pixels), TILE, TILE, 3), np.uint8)
    height, width = pixels.shape[-2:]
    top, left = (TILE - height) // 2, (TILE - width) // 2
    found[:, top : top + height, left : left + width] = pixels.permute(0, 2, 3, 1).numpy()
    return found[:, ::-1]  # the first row of pixels at the bottom, as astronomers draw images


def _made_small(images: np.ndarray) -> np.ndarray:
    """Images (N, C, H, W) of at most TILE pixels a side, finite; pixels of larger ones are averaged."""
    finite = np.nan_to_num(np.asarray(images, np.float32), posinf=0, neginf=0)
    side = max(finite.shape[-2:])
    if side <= TILE:
        return finite
    size = [max(1, round(TILE * length / side)) for length in finite.shape[-2:]]
    found: np.ndarray = interpolate(torch.from_numpy(finite), size=size, mode="area").numpy()
    return found


def _texts(row: dict[str, object]) -> list[str]:
    """What is said of an image where its point is pointed at: its identifier, and what is known of it."""
    said = [str(row["id"]), *(f"{name}: {row[name]}" for name in ("label", "predicted") if row.get(name))]
    said.append("no cluster" if row["cluster"] is None else f"cluster {row['cluster']}")
    for name in ("isolation", "outlier_score"):
        value = row.get(name)
        if isinstance(value, float):
            said.append(f"{name.replace('_', ' ')} {value:.2f}")
    return said


def _colourings(table: pl.DataFrame, scores: Sequence[str]) -> Iterator[Colouring]:
    """The ways to colour points for which there are columns."""
    for name in ("label", "predicted"):
        if name in table.columns and table[name].null_count() < len(table):
            yield Colouring(name, names=table[name].cast(pl.String).to_list())
    if table["cluster"].null_count() < len(table):
        yield Colouring("cluster", names=[None if each is None else str(each) for each in table["cluster"]])
    yield Colouring("isolation", numbers=table["isolation"].to_numpy())
    numbers = [name for name in scores if table.schema[name].is_numeric()]
    for name in (*(numbers if len(numbers) <= SCORES else []), "outlier_score"):
        if name in table.columns:
            yield Colouring(name.replace("_", " "), numbers=table[name].cast(pl.Float64).fill_null(np.nan).to_numpy())


def _groups(explored: Explored, table: pl.DataFrame, place: dict[int, int]) -> Iterator[Group]:
    """Lists of images: neighbours of what was asked for, clusters, and the most isolated."""

    def cards(rows: Sequence[int] | np.ndarray, texts: Sequence[str]) -> list[Card]:
        ids = table["id"]
        return [Card(place[int(row)], str(ids[int(row)]), text) for row, text in zip(rows, texts, strict=True)]

    labels = table["label"].cast(pl.String).to_list() if "label" in table.columns else [None] * len(table)
    for each in explored.likes:
        picture = _pictures(each.cutouts, np.array([0]))[0]
        texts = [distance + (f", {label}" if label else "") for _, distance, label in each.lines]
        text = "The nearest first, with the distance in units of the root mean square distance of two images."
        yield Group(f"Nearest to {each.name}", each.concern or text, cards(each.rows, texts), picture=picture)
    clusters = table["cluster"].fill_null(-1).to_numpy()
    for number, rows in enumerate(_middles(explored, table)):
        members = np.flatnonzero(clusters == number)
        counts = Counter(labels[row] for row in members.tolist() if labels[row])
        made_of = ", ".join(f"{name} {100 * count / len(members):.0f}%" for name, count in counts.most_common(4))
        text = f"{len(members):,} images" + (f": {made_of}" if made_of else "") + "; those at its middle on the map."
        yield Group(f"Cluster {number}", text, cards(rows, [str(labels[row] or "") for row in rows.tolist()]))
    rows = _most_isolated(table)
    isolation = table["isolation"]
    text = (
        f"Farthest from their {explored.neighbours} nearest neighbours: rare objects, artefacts, or faults of the data."
    )
    kept = [int(row) for row in rows if isolation[int(row)] is not None]
    texts = [f"{isolation[row]:.2f}" + (f", {labels[row]}" if labels[row] else "") for row in kept]
    yield Group("Outliers", text, cards(kept, texts))
