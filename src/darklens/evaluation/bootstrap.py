"""Metrics with bootstrap intervals, and paired differences: all resamples at once, no loop over images.

A bootstrap resample is a vector of counts, how often each image was drawn. A metric is computed from such weights, of shape
(rounds, N): its values in all resamples are one matrix operation.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from darklens.errors import DarklensError
from darklens.progress import progress_bar

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""From weights (rounds, N) of the test images to values (rounds,)."""
Draws = Callable[[int, int], Floats]
"""From a seed and a number of draws to values (draws,)."""

ROUNDS = 1000
"""Resamples. The ends of a 95% interval are then known to about a tenth of its length."""
ROUNDS_A_PAIR = 40
"""Resamples for each of several differences, at least: the smallest p value, corrected for their number, is then 0.025."""
WEIGHTS_AT_A_TIME = 2**24
"""Numbers in the weights of one chunk of resamples: 128 MiB. More takes more memory, less is slower."""

IF_CALIBRATED = (
    "“if calibrated”: the central 95% of what an exactly calibrated model of the same probabilities would show on as many "
    "images"
)
"""What is said below a table with such ranges."""


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
    calibrated
        Its values for a model whose probabilities are exactly right. A metric that has them is given with their range
        instead of a bootstrap interval: a mean of absolute deviations is above 0 by noise alone, and resampling adds noise.
    """

    key: str
    title: str
    statistic: Statistic
    unit: str = ""
    better: Literal["higher", "lower", "neither"] = "higher"
    perfect: float | None = None
    calibrated: Draws | None = None

    def describe(self) -> dict[str, Any]:
        """Return title, unit, direction and perfect value, as they are stored beside the figures."""
        return {"title": self.title, "unit": self.unit, "better": self.better, "perfect": self.perfect}


@dataclass(frozen=True)
class CalibratedRange:
    """What an exactly calibrated model of the same probabilities would show on as many images.

    Attributes
    ----------
    low, high
        The central 95% of its values.
    p
        Share of draws with a value at least as large as the measured one, which counts as one of them.
    """

    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Interval:
    """A figure over ``n`` test images with its 95% percentile bootstrap interval.

    A calibration error has ``if_calibrated`` instead; ``low`` and ``high`` are then nan.
    """

    value: float
    low: float
    high: float
    n: int
    if_calibrated: CalibratedRange | None = None

    def __str__(self) -> str:
        return figure_text(self.record())

    def record(self) -> dict[str, Any]:
        """Return the figure as it is stored: ``value``, ``n``, and either ``low`` and ``high`` or ``if_calibrated``."""
        if self.if_calibrated is None:
            return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}
        return {"value": self.value, "n": self.n, "if_calibrated": dataclasses.asdict(self.if_calibrated)}


def current_figures(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return stored figures without the bootstrap interval of the ECE that version 0.1 gave, which was not valid."""
    current = {key: dict(figure) for key, figure in figures.items()}
    if "ece" in current:
        for end in ("low", "high"):
            current["ece"].pop(end, None)
    return current


def figure_text(figure: Mapping[str, Any]) -> str:
    """Return a stored figure with its interval in brackets, or with its range of a calibrated model."""
    value = f"{figure['value']:.4f}"
    if (known := figure.get("if_calibrated")) is not None:
        return f"{value} ({known['low']:.4f} to {known['high']:.4f} if calibrated)"
    return f"{value} [{figure['low']:.4f}, {figure['high']:.4f}]" if "low" in figure else value


def range_text(figure: Mapping[str, Any]) -> str:
    """Return what stands beside the value of a stored figure in a table: its interval, or its range if calibrated."""
    known = figure.get("if_calibrated")
    ends = figure if known is None else known
    if "low" not in ends:
        return "–"
    return f"{ends['low']:.4f} – {ends['high']:.4f}" + (" if calibrated" if known is not None else "")


@dataclass(frozen=True)
class Difference:
    """A metric of ``first`` minus that of ``second``, its 95% interval, and the two-sided p value of no difference.

    ``p_holm`` is the p value corrected for the number of pairs that were compared; the interval is of this pair alone.
    """

    first: str
    second: str
    value: float
    low: float
    high: float
    p: float
    p_holm: float


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
        Number of resamples, and of draws of a calibrated model.

    Returns
    -------
    dict
        Value and 95% percentile interval of each metric; of a calibration error, the range of a calibrated model.
    """
    values = {metric.key: float(metric.statistic(np.ones((1, n)))[0]) for metric in metrics}
    samples: dict[str, list[Floats]] = {metric.key: [] for metric in metrics if metric.calibrated is None}
    if samples:
        for weights in _resamples(n, seed, rounds, "bootstrapping the intervals"):
            for metric in metrics:
                if metric.key in samples:
                    samples[metric.key].append(metric.statistic(weights))
    found = {}
    for metric in metrics:
        key, value = metric.key, values[metric.key]
        if metric.calibrated is not None:
            drawn = metric.calibrated(seed, rounds)
            found[key] = Interval(value, np.nan, np.nan, n, _calibrated_range(value, drawn))
        else:
            found[key] = Interval(value, *_percentiles(np.concatenate(samples[key])), n)
    return found


def _calibrated_range(value: float, drawn: Floats) -> CalibratedRange:
    """Where a value lies among those of a calibrated model; equal values may differ by rounding."""
    as_large = int((drawn >= value - 1e-12).sum())
    return CalibratedRange(*_percentiles(drawn), (as_large + 1) / (len(drawn) + 1))


def paired_differences(
    metrics: Mapping[str, Metric], n: int, seed: int = 0, rounds: int | None = None
) -> list[Difference]:
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
        Number of resamples; by default `ROUNDS`, or `ROUNDS_A_PAIR` for each pair if that is more.

    Returns
    -------
    list
        The difference of each pair. The p value is twice the fraction of resamples on the other side of zero, at least
        1 / ``rounds``.

    Raises
    ------
    DarklensError
        If there are too few resamples for so many pairs.
    """
    pairs = list(itertools.combinations(metrics, 2))
    needed = ROUNDS_A_PAIR * len(pairs)
    rounds = max(ROUNDS, needed) if rounds is None else rounds
    if rounds < needed:
        raise DarklensError(
            f"{rounds} resamples are too few for {len(pairs)} differences: corrected for their number, hardly a p value "
            f"could fall below 0.05; at least {needed} are needed"
        )
    values = {name: metric.statistic(np.ones((1, n))) for name, metric in metrics.items()}
    for weights in _resamples(n, seed, rounds, "bootstrapping the differences"):
        for name, metric in metrics.items():
            values[name] = np.append(values[name], metric.statistic(weights))
    gaps = [values[first] - values[second] for first, second in pairs]
    drawn = [gap[1:][np.isfinite(gap[1:])] for gap in gaps]
    p = [_p_of_no_difference(each, rounds) for each in drawn]
    compared = zip(pairs, gaps, drawn, p, holm(p), strict=True)
    return [
        Difference(*pair, float(gap[0]), *_percentiles(each), alone, corrected)
        for pair, gap, each, alone, corrected in compared
    ]


def _p_of_no_difference(drawn: Floats, rounds: int) -> float:
    """Twice the fraction of resampled differences on the other side of zero, from 1 / rounds to 1."""
    if not len(drawn):
        return 1.0
    beyond = 2 * min(float((drawn <= 0).mean()), float((drawn >= 0).mean()))
    return min(1.0, max(beyond, 1 / rounds))


def holm(p: Sequence[float]) -> list[float]:
    """Return p values corrected for their number, which bounds the chance of any false rejection (Holm 1979).

    Parameters
    ----------
    p
        P values of M hypotheses.

    Returns
    -------
    list
        For each, the level at which Holm's step-down procedure just rejects it, at most 1.
    """
    order = np.argsort(p, kind="stable")
    stepped = np.asarray(p)[order] * np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return [float(each) for each in corrected]


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
