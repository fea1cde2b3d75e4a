"""Which lenses a search finds: completeness in bins of what is known of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import binomtest

if TYPE_CHECKING:
    import polars as pl

    from darklens.evaluation.bootstrap import Floats

BANDS = ("i", "r", "VIS")
"""Bands whose magnitude is taken, the first that there is; else the first of the catalogue."""
FEWEST = 20
"""Lenses in a bin: of 20, a completeness of 0.5 has a 95% interval from 0.30 to 0.70."""
MOST_BINS = 6
"""Bins of a column."""


def completeness_by_column(probabilities: Floats, positive: Floats, catalog: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the completeness of a search in bins of catalogue columns that hold about equally many lenses.

    Parameters
    ----------
    probabilities
        Of being a lens (N,).
    positive
        1 for lenses and 0 for all else (N,).
    catalog
        N rows. Of its columns count ``theta_E`` (arcsec), ``arc_snr_estimate``, and a magnitude each of galaxy and source.

    Returns
    -------
    list of dict
        One for each column with at least two bins: ``column``, ``title``, ``edges`` (B + 1), ``middles`` (B, medians),
        ``lenses`` (B), and ``found``: for ``probability`` (above 0.5) and ``tenth`` (before the tenth false positive, where
        there are ten negatives) the fractions ``value`` (B) with their 95% intervals ``low`` and ``high`` (Wilson).
    """
    lens = np.asarray(positive) == 1
    others = np.sort(probabilities[~lens])[::-1]
    called = {"probability": probabilities > 0.5}
    if len(others) >= 10:
        called["tenth"] = probabilities > others[9]
    found = []
    for column, title in _columns(catalog).items():
        values = catalog[column].cast(float, strict=False).fill_null(np.nan).to_numpy()
        known = lens & np.isfinite(values)
        bins = min(MOST_BINS, int(known.sum()) // FEWEST)
        edges = np.unique(np.quantile(values[known], np.linspace(0, 1, bins + 1))) if bins > 1 else np.empty(0)
        if len(edges) < 3:
            continue
        member = np.searchsorted(edges[1:-1], values[known], side="right")
        rows = [np.flatnonzero(known)[member == number] for number in range(len(edges) - 1)]
        found.append(
            {
                "column": column,
                "title": title,
                "edges": edges.tolist(),
                "middles": [float(np.median(values[row])) if len(row) else None for row in rows],
                "lenses": [len(row) for row in rows],
                "found": {name: _fractions([mask[row] for row in rows]) for name, mask in called.items()},
            }
        )
    return found


def _columns(catalog: pl.DataFrame) -> dict[str, str]:
    """Columns of one number a row that a completeness may depend on, with titles."""
    numbers = [name for name, kind in catalog.schema.items() if kind.is_numeric()]
    titles = {"theta_E": "Einstein radius (″)", "arc_snr_estimate": "signal-to-noise of the arcs"}
    chosen = {name: title for name, title in titles.items() if name in numbers}
    for kind in ("galaxy", "source"):
        bands = [name.removeprefix(f"{kind}_magnitude_") for name in numbers if name.startswith(f"{kind}_magnitude_")]
        if bands:
            band = next((each for each in BANDS if each in bands), bands[0])
            chosen[f"{kind}_magnitude_{band}"] = f"magnitude of the {kind}, {band}"
    return chosen


def _fractions(called: list[np.ndarray]) -> dict[str, list[float | None]]:
    """Fraction of each bin that is called a lens, with its interval by Wilson; None of an empty bin."""
    fractions: dict[str, list[float | None]] = {"value": [], "low": [], "high": []}
    for each in called:
        if not len(each):
            for values in fractions.values():
                values.append(None)
            continue
        test = binomtest(int(each.sum()), len(each))
        interval = test.proportion_ci(method="wilson")
        for name, value in (("value", test.statistic), ("low", interval.low), ("high", interval.high)):
            fractions[name].append(float(value))
    return fractions
