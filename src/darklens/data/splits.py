"""Split the images of a dataset into training, validation and test sets, or sample some of them, stratified by class."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from darklens.data.seeds import make_generator
from darklens.errors import DataError

SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
"""What folders and columns call the three sets, in small letters, and what they are called here."""
FRACTIONS = {"train": 0.9, "validation": 0.1}
"""Split of a dataset that has none. A convention, not tuned: a larger share for validation makes the choice of the best
epoch and the calibration less noisy, and leaves fewer images to train on."""


def split_rows(
    catalog: pl.DataFrame, fractions: Mapping[str, float], seed: int, *, stratify: str | None = "label"
) -> np.ndarray:
    """Assign each row at random to a split, in the same fractions within each class, and return the splits' names.

    A class with at least as many rows as there are splits has one in each, whatever the fractions.

    Parameters
    ----------
    catalog
        A row for each of N images.
    fractions
        Fraction of each split by its name; each above 0, their sum 1.
    seed
        Seed of the random assignment, 0 or above.
    stratify
        Column with the class; a column that is not there, or None, makes all rows one class.

    Returns
    -------
    np.ndarray
        Name of the split of each row, (N,), text as Python objects.

    Raises
    ------
    DataError
        If the fractions are not above 0 or do not sum to 1, or a split would be empty.
    """
    if abs(sum(fractions.values()) - 1) > 1e-9 or min(fractions.values()) <= 0:
        raise DataError(f"split fractions must be above 0 and sum to 1; got {dict(fractions)}")
    rng = make_generator(seed, "split")
    names = list(fractions)
    split = np.empty(len(catalog), dtype=object)
    groups = catalog[stratify].to_numpy() if stratify in catalog.columns else np.zeros(len(catalog))
    for group in dict.fromkeys(groups.tolist()):
        rows = rng.permutation(np.flatnonzero(groups == group))
        edges = np.round(np.cumsum(list(fractions.values())) * len(rows)).astype(int)[:-1]
        for name, part in zip(names, np.split(rows, _none_empty(edges, len(rows))), strict=True):
            split[part] = name
    if empty := [name for name in names if not (split == name).any()]:
        raise DataError(f"{len(catalog)} images are too few to split into {dict(fractions)}: {empty[0]} would be empty")
    return split


def _none_empty(edges: np.ndarray, count: int) -> np.ndarray:
    """Edges between parts of so many rows, moved so that no part is empty, if there are enough rows."""
    sizes = np.diff([0, *edges, count])
    while count >= len(sizes) and not sizes.all():
        sizes[sizes.argmax()] -= 1
        sizes[sizes.argmin()] += 1
    return np.cumsum(sizes)[:-1]


def sample_rows(labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw rows at random without repetition, stratified by label, and return them in ascending order.

    Rows are shuffled, sorted by label, and every (N / count)-th is taken from a random start (systematic sampling): all
    rows are drawn with the same probability, and the number of rows of a label differs by less than 1 from its fraction
    of ``count``.

    Parameters
    ----------
    labels
        Label of each row, (N,); all equal for a sample that is not stratified.
    count
        Number of rows to draw, above 0; all rows are returned if there are no more.
    rng
        Source of the random numbers.

    Returns
    -------
    np.ndarray
        Row numbers, (min(N, count),).
    """
    number = len(labels)
    if number <= count:
        return np.arange(number)
    shuffled = rng.permutation(number)
    by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
    # In whole numbers: the last place is N - 1 at most.
    places = (np.arange(count) * number + rng.integers(number)) // count
    return np.sort(by_label[places])


def named_splits(column: pl.Series) -> pl.Series:
    """Return a column of splits with our names for them; those of `SPLIT_NAMES` in any case, others as they are."""
    names = column.cast(pl.String).str.strip_chars()
    lower = names.str.to_lowercase()
    return lower.replace(SPLIT_NAMES).zip_with(lower.is_in(list(SPLIT_NAMES)), names).rename("split")


def ensure_split(
    catalog: pl.DataFrame,
    seed: int,
    fractions: Mapping[str, float] = FRACTIONS,
    *,
    stratify: str | None = "label",
) -> pl.DataFrame:
    """Return the catalogue with a column ``split`` that has training and validation rows.

    A column that is there is kept; if it has no validation rows, `FRACTIONS` of its training rows become such.

    Parameters
    ----------
    catalog
        A row for each image.
    seed
        Seed of the random assignment, 0 or above.
    fractions
        Fraction of each split by its name, for a catalogue without the column.
    stratify
        Column with the class, as of `split_rows`.

    Returns
    -------
    pl.DataFrame
        The rows in the same order.

    Raises
    ------
    DataError
        If the catalogue's own column has unknown names or no training rows, or a split would be empty.
    """
    if "split" not in catalog.columns:
        split = split_rows(catalog, fractions, seed, stratify=stratify)
        return catalog.with_columns(pl.Series("split", split.tolist(), dtype=pl.String))
    catalog = catalog.with_columns(named_splits(catalog["split"]))
    if unknown := sorted(set(catalog["split"].drop_nulls()) - set(SPLIT_NAMES.values())):
        raise DataError(f"the catalogue's column 'split' says {unknown[0]!r}; expected train, validation or test")
    if "validation" in catalog["split"].to_list():
        return catalog
    train = np.flatnonzero((catalog["split"] == "train").to_numpy())
    if not len(train):
        raise DataError("the catalogue's column 'split' names no row 'train'")
    split = catalog["split"].to_numpy().astype(object)
    split[train] = split_rows(catalog[train], FRACTIONS, seed, stratify=stratify)
    return catalog.with_columns(pl.Series("split", split.tolist(), dtype=pl.String))
