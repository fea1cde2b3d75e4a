"""Metrics with bootstrap intervals, and paired differences: all resamples at once, no loop over images.

A bootstrap resample is a vector of counts, how often each image was drawn. A metric is computed from such weights, of shape
(rounds, N): its values in all resamples are one matrix operation.

Of a recipe that was trained several times, with other seeds, a figure is the mean over the trainings. Its interval then
holds two independent sources: the choice of the test images, by the bootstrap, and the scatter of the trainings, by
Student's t.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
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
    worst
        The value that none is beyond on the other side, if there is one.
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
    worst: float | None = None
    calibrated: Draws | None = None

    def within(self, values: Floats) -> Floats:
        """Return values with those beyond `perfect` or `worst` set to it."""
        ends = (self.worst, self.perfect) if self.better == "higher" else (self.perfect, self.worst)
        low, high = ends if self.better != "neither" else (None, None)
        return values if low is None and high is None else np.clip(values, low, high)

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

    A calibration error has ``if_calibrated`` instead; ``low`` and ``high`` are then nan. The mean over several trainings
    has their number, ``seeds``, and ``scatter``, the standard deviation over them.
    """

    value: float
    low: float
    high: float
    n: int
    if_calibrated: CalibratedRange | None = None
    seeds: int = 1
    scatter: float | None = None

    def __str__(self) -> str:
        return figure_text(self.record())

    def record(self) -> dict[str, Any]:
        """Return the figure as it is stored: ``value``, ``n``, and those of the rest that it has."""
        if self.if_calibrated is not None:
            return {"value": self.value, "n": self.n, "if_calibrated": dataclasses.asdict(self.if_calibrated)}
        ends = {} if np.isnan(self.low) and self.seeds > 1 else {"low": self.low, "high": self.high}
        over = {} if self.seeds == 1 else {"seeds": self.seeds, "scatter": self.scatter}
        return {"value": self.value, **ends, "n": self.n, **over}


def current_figures(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return stored figures without the bootstrap interval of the ECE that version 0.1 gave, which was not valid."""
    current = {key: dict(figure) for key, figure in figures.items()}
    if "ece" in current:
        for end in ("low", "high"):
            current["ece"].pop(end, None)
    return current


NARROW = 1e-4
"""Width of an interval, and size of a value, below which four decimals say too little."""


def figure_text(figure: Mapping[str, Any]) -> str:
    """Return a stored figure with its interval in brackets, its range of a calibrated model, or its scatter over seeds."""
    value = value_text(figure)
    if (known := figure.get("if_calibrated")) is not None:
        return f"{value} ({known['low']:.4f} to {known['high']:.4f} if calibrated)"
    if "low" in figure:
        low, high = _numbers([figure["low"], figure["high"]], figure)
        return f"{value} [{low}, {high}]"
    return f"{value} ± {figure['scatter']:.4f}" if "scatter" in figure else value


def range_text(figure: Mapping[str, Any]) -> str:
    """Return what stands beside the value of a stored figure in a table: its interval, range if calibrated, or scatter."""
    known = figure.get("if_calibrated")
    ends = figure if known is None else known
    if "low" not in ends:
        return f"± {figure['scatter']:.4f}" if "scatter" in figure else "–"
    return " – ".join(_numbers([ends["low"], ends["high"]], ends)) + (" if calibrated" if known is not None else "")


def value_text(figure: Mapping[str, Any]) -> str:
    """Return the value of a stored figure with four decimals, or with as many as its interval asks for."""
    return _numbers([figure["value"]], figure)[0]


def _numbers(values: Sequence[float], figure: Mapping[str, Any]) -> list[str]:
    """Numbers with four decimals, or more where the interval is so narrow that four would hide it."""
    width = figure["high"] - figure["low"] if "high" in figure and "low" in figure else 1.0
    if not 0 < width < NARROW:  # nan is not
        return [f"{value:.4f}" for value in values]
    decimals = 1 - math.floor(math.log10(width))
    if max(map(abs, values)) < NARROW:
        return [f"{value:.3g}" for value in values]
    return [f"{value:.{decimals}f}" for value in values]


@dataclass(frozen=True)
class Difference:
    """A metric of ``first`` minus that of ``second``, its 95% interval, and the two-sided p value of no difference.

    The metric is the mean over trainings where there are several. ``p_holm`` is the p value corrected for the number of
    pairs that were compared; the interval is of this pair alone.
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
    return intervals_over_seeds([metrics], n, seed=seed, rounds=rounds)


def intervals_over_seeds(
    trainings: Sequence[Sequence[Metric]], n: int, *, seed: int = 0, rounds: int = ROUNDS
) -> dict[str, Interval]:
    """Compute the mean of each metric over several trainings, with its interval; return them by key.

    Parameters
    ----------
    trainings
        For each training of a recipe (S), the metrics of its predictions of the same test images: the same keys, in any
        order.
    n
        Number of test images.
    seed
        Of the resamples, which all trainings share, and of the draws from Student's t.
    rounds
        Number of resamples, and of draws of a calibrated model.

    Returns
    -------
    dict
        Mean, and 95% percentile interval of the mean in resamples of the test images plus t s / √S: s is the standard
        deviation over the trainings, t is drawn from Student's t with S - 1 degrees of freedom; no draw is taken to be
        better than perfect or worse than the worst. Of a calibration error,
        the mean and s. Of one training, what `intervals` gives: the interval holds the choice of the test images alone.

    Notes
    -----
    What the test images and a training do together counts twice, as s holds a part of it: where it is most of the scatter
    the interval is too wide. With two trainings it is very wide, as t has one degree of freedom. In simulations, intervals
    of differences of recipes with three trainings each hold the truth in about 98% of cases, with five each in 95 to 97%.
    """
    first, count = trainings[0], len(trainings)
    resampled = {metric.key for metric in first if metric.calibrated is None}
    values = {metric.key: np.zeros(count) for metric in first}
    samples = {key: np.zeros(rounds) for key in resampled}
    for number, metrics in enumerate(trainings):
        for metric in metrics:
            values[metric.key][number] = metric.statistic(np.ones((1, n)))[0]
    if resampled:
        done = 0
        for weights in _resamples(n, seed, rounds, "bootstrapping the intervals"):
            part = slice(done, done := done + len(weights))
            for metric in (each for metrics in trainings for each in metrics if each.key in resampled):
                samples[metric.key][part] += metric.statistic(weights) / count
    found = {}
    for metric in first:
        each = values[metric.key]
        value, scatter = float(each.mean()), float(each.std(ddof=1)) if count > 1 else None
        if metric.key in resampled:
            # Draws of a few trainings' scatter go beyond what a metric can be.
            ends = _percentiles(metric.within(samples[metric.key] + _training_noise(each, rounds, (seed, 1))))
            found[metric.key] = Interval(value, *ends, n, None, count, scatter)
        else:
            known = (
                _calibrated_range(value, metric.calibrated(seed, rounds)) if metric.calibrated and count == 1 else None
            )
            found[metric.key] = Interval(value, np.nan, np.nan, n, known, count, scatter)
    return found


def _training_noise(values: Floats, rounds: int, seed: tuple[int, int]) -> Floats:
    """Draws (rounds,) of how far the mean of values (S,) of S trainings is from that of all; 0 of one training."""
    count = len(values)
    if count == 1:
        return np.zeros(rounds)
    return np.random.default_rng(seed).standard_t(count - 1, rounds) * values.std(ddof=1) / np.sqrt(count)


def _calibrated_range(value: float, drawn: Floats) -> CalibratedRange:
    """Where a value lies among those of a calibrated model; equal values may differ by rounding."""
    as_large = int((drawn >= value - 1e-12).sum())
    return CalibratedRange(*_percentiles(drawn), (as_large + 1) / (len(drawn) + 1))


def paired_differences(
    metrics: Mapping[str, Metric | Sequence[Metric]], n: int, seed: int = 0, rounds: int | None = None
) -> list[Difference]:
    """Compare one metric of several models on the same images, every resample shared by all of them.

    Parameters
    ----------
    metrics
        For each model's name, the metric of its predictions; of a recipe that was trained several times, the metric of each
        training. Their mean is compared then, and their scatter counts as in `intervals_over_seeds`, independently for each
        name.
    n
        Number of test images, in the same order for all models.
    seed
        Of the resamples, and of the draws from Student's t.
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
    trainings = {name: [each] if isinstance(each, Metric) else list(each) for name, each in metrics.items()}
    noise = {}
    values = {}
    for number, (name, each) in enumerate(trainings.items(), 1):
        found = np.concatenate([metric.statistic(np.ones((1, n))) for metric in each])
        noise[name] = np.append(0, _training_noise(found, rounds, (seed, number)))
        values[name] = found.mean(keepdims=True)
    for weights in _resamples(n, seed, rounds, "bootstrapping the differences"):
        for name, each in trainings.items():
            mean = np.mean([metric.statistic(weights) for metric in each], axis=0)
            values[name] = np.append(values[name], mean)
    gaps = [values[first] + noise[first] - values[second] - noise[second] for first, second in pairs]
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
