"""Find which images are most like a cutout: those whose features are nearest to its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from darklens.data.dataset import Cutouts
from darklens.data.layouts import open_with
from darklens.data.options import DataOptions
from darklens.errors import DataError
from darklens.evaluation.feature_space import FeatureSpace

MOST_LIKE = 20
"""Cutouts at one path whose neighbours are listed."""
FAR = 0.99
"""Share of the images that are less isolated than a cutout, above which its neighbours are said not to be like it."""


@dataclass(frozen=True)
class Like:
    """Cutouts whose neighbours are sought, with their features (M, F); ``inside`` if it is one of the images itself."""

    cutouts: Cutouts
    inside: bool
    features: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))

    def with_features(self, features: np.ndarray) -> Like:
        """Return the cutouts with their features. Raises DataError if one is no number."""
        if not np.isfinite(features).all():
            raise DataError(
                f"{self.cutouts.where}: features of an image of --like are no numbers, so nothing is near it"
            )
        return dataclasses.replace(self, features=features)


@dataclass(frozen=True)
class Liked:
    """A cutout and its nearest neighbours: rows in the table, distances, ids and labels; ``concern`` if none is near."""

    name: str
    cutouts: Cutouts
    rows: np.ndarray
    distances: np.ndarray
    ids: Sequence[str]
    labels: Sequence[str]
    concern: str | None = None

    @property
    def lines(self) -> list[tuple[str, str, str]]:
        """Return identifier, distance and label of each neighbour as text, the nearest first."""
        return [
            (name, f"{distance:.3f}", label)
            for name, distance, label in zip(self.ids, self.distances, self.labels, strict=True)
        ]


def open_like(like: str | None, opened: Sequence[Cutouts], options: DataOptions, *, with_catalog: bool) -> Like | None:
    """Return the cutouts whose neighbours are sought; None if there are none to seek.

    Parameters
    ----------
    like
        A path, or else the identifier of one of the images.
    opened
        The images.
    options
        How a path is read.
    with_catalog
        Whether the catalogue of the options is joined, which the model needs: that of the images says nothing of others.

    Raises
    ------
    DataError
        If it is neither, or there are more than `MOST_LIKE` cutouts at the path.
    """
    if like is None:
        return None
    if Path(like).exists():
        found = open_with(like, options if with_catalog else dataclasses.replace(options, catalog=None))
        if len(found) > MOST_LIKE:
            raise DataError(f"{like}: {len(found):,} images; --like takes at most {MOST_LIKE}")
        return Like(found, inside=False)
    for cutouts in opened:
        if like in (ids := cutouts.ids):
            return Like(cutouts.subset(np.array([ids.index(like)])), inside=True)
    raise DataError(f"--like {like}: neither a path nor the identifier of an image")


def find_likes(
    space: FeatureSpace, isolation: np.ndarray, rows: np.ndarray, like: Like, table: pl.DataFrame, neighbours: int
) -> list[Liked]:
    """Return the neighbours of each cutout; an image is none of its own.

    Parameters
    ----------
    space, isolation
        Of the images (N,).
    rows
        Their rows in the table, (N,).
    like
        The cutouts.
    table
        With ``id``, and ``label`` where there are labels.
    neighbours
        How many to return of each, at most N - 1.
    """
    more = 1 if like.inside else 0
    near, distances = space.nearest(like.features, neighbours + more)
    alone = space.isolation_of(like.features, neighbours + more)
    ids = table["id"]
    labels = table["label"].cast(pl.String).fill_null("") if "label" in table.columns else [""] * len(table)
    found = []
    for place, name in enumerate(like.cutouts.ids):
        own = ids.to_list().index(name) if like.inside else -1
        kept = np.flatnonzero(rows[near[place]] != own)[:neighbours]
        chosen = rows[near[place, kept]]
        above = float((isolation < alone[place]).mean())
        concern = f"{name} is farther from the others than {100 * above:.1f}% of them: no neighbour is much like it"
        found.append(
            Liked(
                name, like.cutouts.subset(np.array([place])), chosen, distances[place, kept],
                [ids[row] for row in chosen.tolist()], [labels[row] for row in chosen.tolist()],
                concern if above > FAR else None,
            )
        )  # fmt: skip
    return found
