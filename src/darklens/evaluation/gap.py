"""How much of the gap between a baseline and a ceiling a method closes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from darklens.evaluation.bootstrap import ROUNDS, Metric

UNDECIDED = 0.025
"""Fraction of resamples without a gap, above which a share of it has no interval: the gap itself is not established."""


@dataclass(frozen=True)
class GapShare:
    """Share of the gap that is closed: 0 as the baseline, 1 as the ceiling, and beyond either.

    Attributes
    ----------
    value
        On all test images; nan where the ceiling is not above the baseline.
    low, high
        The central 95% of resamples; nan where the gap itself is not established.
    without_gap
        Fraction of resamples in which the ceiling is not above the baseline.
    """

    value: float
    low: float
    high: float
    without_gap: float


def share_of_gap(
    method: Sequence[Metric],
    baseline: Sequence[Metric],
    ceiling: Sequence[Metric],
    n: int,
    *,
    seed: int = 0,
    rounds: int = ROUNDS,
) -> GapShare:
    """Return (method - baseline) / (ceiling - baseline) of one metric, with the bootstrap interval of the ratio.

    Parameters
    ----------
    method, baseline, ceiling
        The metric of each training (S), all on the same test images; trainings are averaged. Of metrics that are better
        when lower the ratio is the same.
    n
        Number of test images.
    seed
        Of the resamples, which all share, and of which trainings each one holds: they are drawn with repetition too.
    rounds
        Number of resamples.

    Returns
    -------
    GapShare
        The ratio, with an interval where there is a gap.
    """
    sign = 1.0 if method[0].better == "higher" else -1.0
    ones = np.ones((1, n))
    values = [
        np.array([float(each.statistic(ones)[0]) for each in some]).mean() for some in (method, baseline, ceiling)
    ]
    rng = np.random.default_rng([seed, 29])
    drawn = []
    for start in range(0, rounds, 100):
        count = min(100, rounds - start)
        weights = rng.multinomial(n, np.full(n, 1 / n), size=count).astype(np.float64)
        means = []
        for some in (method, baseline, ceiling):
            each = np.stack([metric.statistic(weights) for metric in some])
            chosen = rng.integers(len(some), size=(len(some), count))
            means.append(np.take_along_axis(each, chosen, 0).mean(0))
        drawn.append(np.stack(means))
    found, base, top = sign * np.concatenate(drawn, axis=1)
    gap = top - base
    known = np.isfinite(gap) & np.isfinite(found)
    without = float((gap[known] <= 0).mean()) if known.any() else 1.0
    whole = sign * (values[2] - values[1])
    value = float(sign * (values[0] - values[1]) / whole) if whole > 0 else np.nan
    if without > UNDECIDED or np.isnan(value):
        return GapShare(value, np.nan, np.nan, without)
    ratio = (found - base)[known & (gap > 0)] / gap[known & (gap > 0)]
    low, high = np.quantile(ratio, [0.025, 0.975])
    return GapShare(value, float(low), float(high), without)
