"""Training, validation and test: stratified, seeded, and stored with the data or the run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from darklens.errors import DataError

FRACTIONS = {"train": 0.9, "validation": 0.1}


def split_rows(
    catalog: pl.DataFrame, fractions: Mapping[str, float], seed: int, stratify: str | None = "label"
) -> np.ndarray:
    """The split of each row, (N,) text.

    Each class is shared out in the same ``fractions`` (which sum to 1), at random by ``seed``. Raises DataError if a
    split would be empty.
    """
    if abs(sum(fractions.values()) - 1) > 1e-9 or min(fractions.values()) <= 0:
        raise DataError(f"split fractions must be above 0 and sum to 1; got {dict(fractions)}")
    rng = np.random.default_rng(np.random.SeedSequence([seed, 7]))
    names = list(fractions)
    split = np.empty(len(catalog), dtype=object)
    groups = catalog[stratify].to_numpy() if stratify in catalog.columns else np.zeros(len(catalog))
    for group in dict.fromkeys(groups.tolist()):
        rows = rng.permutation(np.flatnonzero(groups == group))
        edges = np.round(np.cumsum(list(fractions.values())) * len(rows)).astype(int)[:-1]
        for name, part in zip(names, np.split(rows, edges), strict=True):
            split[part] = name
    if empty := [name for name in names if not (split == name).any()]:
        raise DataError(f"{len(catalog)} images are too few to split into {dict(fractions)}: {empty[0]} would be empty")
    return split


def ensure_split(catalog: pl.DataFrame, seed: int, fractions: Mapping[str, float] = FRACTIONS) -> pl.DataFrame:
    """The catalogue with a column ``split``: its own, completed with validation rows where it has none, or a new one."""
    if "split" not in catalog.columns:
        return catalog.with_columns(pl.Series("split", split_rows(catalog, fractions, seed).tolist(), dtype=pl.String))
    if "validation" in catalog["split"].to_list():
        return catalog
    train = np.flatnonzero((catalog["split"] == "train").to_numpy())
    if not len(train):
        raise DataError("the catalogue's column 'split' names no row 'train'")
    split = catalog["split"].to_numpy().astype(object)
    split[train] = split_rows(catalog[train], FRACTIONS, seed)
    return catalog.with_columns(pl.Series("split", split.tolist(), dtype=pl.String))
