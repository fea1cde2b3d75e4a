"""Metrics with bootstrap intervals, and paired differences: all resamples at once, no loop over images.

A bootstrap resample is a vector of counts, how often each image was drawn. A metric is computed from such weights, of shape
(rounds, N): its values in all resamples are one matrix operation.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from darklens.progress import progress_bar

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""From weights (rounds, N) of the test images to values (rounds,)."""

ROUNDS = 1000
"""Resamples. The ends of a 95% interval are then known to about a tenth of its length."""
WEIGHTS_AT_A_TIME = 2**24
"""Numbers in the weights of one chunk of resamples: 128 MiB. More takes more memory, less is slower."""


@dataclass(frozen=True)
class Metric:
    """One number that says how good predictions are.

    Parameters
    ----------
    key
        Its name in files and on the command line.
    title
        Its name for readers.
    statistic
        Its value for weights of the test images.
    unit
        Unit of the value; empty for a pure number.
    better
        Which values are better: ``higher``, ``lower``, or neither (of a bias, say).
    perfect
        The value of a perfect prediction, if there is one.
    """

    key: str
    title: str
    statistic: Statistic
    unit: str = ""
    better: Literal["higher", "lower", "neither"] = "higher"
    perfect: float | None = None

    def describe(self) -> dict[str, Any]:
        """Return title, unit, direction and perfect value, as they are stored beside the figures."""
        return {"title": self.title, "unit": self.unit, "better": self.better, "perfect": self.perfect}


@dataclass(frozen=True)
class Interval:
    """A figure with its 95% percentile bootstrap interval, over ``n`` test images."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True)
class Difference:
    """A metric of ``first`` minus that of ``second``, its 95% interval, and the two-sided p value of no difference."""

    first: str
    second: str
    value: float
    low: float
    high: float
    p: float


def mean_statistic(values: Floats) -> Statistic:
    """Return the statistic that is the weighted mean of values (N,)."""
    return lambda weights: weights @ values / weights.sum(1)


def intervals(metrics: Sequence[Metric], n: int, seed: int = 0, rounds: int = ROUNDS) -> dict[str, Interval]:
    """Compute each metric over all test images, with its interval; return them by key.

    Parameters
    ----------
    metrics
        What to compute; the same resamples serve all.
    n
        Number of test images.
    seed
        Of the resamples.
    rounds
        Number of resamples.

    Returns
    -------
    dict
        Value and 95% percentile interval of each metric.
    """
    values = {metric.key: float(metric.statistic(np.ones((1, n)))[0]) for metric in metrics}
    samples: dict[str, list[Floats]] = {metric.key: [] for metric in metrics}
    for weights in _resamples(n, seed, rounds, "bootstrapping the intervals"):
        for metric in metrics:
            samples[metric.key].append(metric.statistic(weights))
    found = {}
    for key, value in values.items():
        low, high = _percentiles(np.concatenate(samples[key]))
        found[key] = Interval(value, low, high, n)
    return found


def paired_differences(metrics: Mapping[str, Metric], n: int, seed: int = 0, rounds: int = ROUNDS) -> list[Difference]:
    """Compare one metric of several models on the same images, every resample shared by all of them.

    Parameters
    ----------
    metrics
        For each model's name, the metric of its predictions.
    n
        Number of test images, in the same order for all models.
    seed
        Of the resamples.
    rounds
        Number of resamples.

    Returns
    -------
    list
        The difference of each pair. The p value is twice the fraction of resamples on the other side of zero, at least
        1 / ``rounds``.
    """
    values = {name: metric.statistic(np.ones((1, n))) for name, metric in metrics.items()}
    for weights in _resamples(n, seed, rounds, "bootstrapping the differences"):
        for name, metric in metrics.items():
            values[name] = np.append(values[name], metric.statistic(weights))
    found = []
    for first, second in itertools.combinations(values, 2):
        gap = values[first] - values[second]
        drawn = gap[1:][np.isfinite(gap[1:])]
        low, high = _percentiles(drawn)
        beyond = 2 * min(float((drawn <= 0).mean()), float((drawn >= 0).mean())) if len(drawn) else 1.0
        found.append(Difference(first, second, float(gap[0]), low, high, min(1.0, max(beyond, 1 / rounds))))
    return found


def _resamples(n: int, seed: int, rounds: int, what: str) -> Iterator[Floats]:
    """Weights (some rounds, N) of all resamples, chunk by chunk; the chunks do not matter to the random stream."""
    rng = np.random.default_rng(seed)
    step = max(1, WEIGHTS_AT_A_TIME // n)
    with progress_bar(what) as advance:
        for start in range(0, rounds, step):
            yield rng.multinomial(n, np.full(n, 1 / n), size=min(step, rounds - start)).astype(np.float64)
            advance(min(start + step, rounds), rounds)


def _percentiles(drawn: Floats) -> tuple[float, float]:
    """The central 95%; a resample without a value (an AUC where a class is missing) is left out."""
    if not np.isfinite(drawn).any():
        return np.nan, np.nan
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(low), float(high)
