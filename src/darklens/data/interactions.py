"""Find pairs of columns that tell the label together, though neither may tell it alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

ROWS_A_CELL = 8
"""Rows that a cell of two columns has on average, at least; with fewer, the fraction of a label in a cell is chance."""
MOST_BINS = 12
"""Quantiles that a column is cut into, at most: of a step at any place of two columns, a sixth of the cells are mixed."""


def coded(values: np.ndarray, bins: int) -> np.ndarray:
    """Return a whole number for each row of a column: its quantile, the category, or a number of its own for missing ones.

    Parameters
    ----------
    values
        (N,) numbers with nan for missing ones, or (N, L) of categories, of which equal rows are one.
    bins
        Quantiles that numbers are cut into.

    Returns
    -------
    numpy.ndarray
        (N,), from 0 without gaps.
    """
    if values.ndim == 2:
        return np.unique(values, axis=0, return_inverse=True)[1].reshape(-1)
    known = np.isfinite(values)
    edges = np.unique(np.quantile(values[known], np.arange(1, bins) / bins)) if known.any() else np.zeros(0)
    codes = np.where(known, np.searchsorted(edges, np.where(known, values, 0), side="right"), len(edges) + 1)
    return np.unique(codes, return_inverse=True)[1].reshape(-1)


def interacting_pairs(columns: Sequence[np.ndarray], labels: np.ndarray, most: int) -> list[tuple[int, int]]:
    """Return the pairs of columns in whose cells the labels are least mixed.

    The two columns of a pair cut the rows into cells. The label of each row is foretold by the others in its cell, and the
    pairs are ranked by the mean square error of that, which columns without information do not lower.

    Parameters
    ----------
    columns
        K columns as `darklens.data.leaks.find_leaks` gives them to trees: (N,) numbers, nan where missing, or (N, L)
        categories.
    labels
        (N,).
    most
        Number of pairs, at most.

    Returns
    -------
    list of tuple of int
        Numbers of two columns each, the best pair first.
    """
    bins = int(np.clip(np.sqrt(len(labels) / ROWS_A_CELL), 2, MOST_BINS))
    codes = [coded(column, bins) for column in columns]
    is_label = [(labels == label).astype(np.float64) for label in np.unique(labels)]
    errors = []
    for a, b in combinations(range(len(codes)), 2):
        cells = codes[a] * (int(codes[b].max()) + 1) + codes[b]
        errors.append((_error_of_the_others(cells, is_label), (a, b)))
    return [pair for _, pair in sorted(errors)[:most]]


def _error_of_the_others(cells: np.ndarray, is_label: Sequence[np.ndarray]) -> float:
    """The sum of squared errors where a row's label is foretold by the other rows of its cell, and one of the mean."""
    count = np.bincount(cells)
    total = 0.0
    for one in is_label:
        of_label = np.bincount(cells, one)
        mean = float(one.mean())
        if_it_is = (of_label - 1 + mean) / np.maximum(count, 1)
        if_not = (of_label + mean) / np.maximum(count, 1)
        total += float((of_label * (1 - if_it_is) ** 2 + (count - of_label) * if_not**2).sum())
    return total
