"""Whether one classifier is better than another on the same images: paired bootstrap."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from darklens.evaluation.bootstrap import ROUNDS, Floats
from darklens.evaluation.classification import auc_figure
from darklens.progress import progress_bar


@dataclass(frozen=True)
class Difference:
    """Figure of ``first`` minus that of ``second``, its 95% interval, and the two-sided p value of no difference."""

    first: str
    second: str
    value: float
    low: float
    high: float
    p: float


def macro_auc_differences(
    probabilities: Mapping[str, Floats], labels: np.ndarray, seed: int = 0, rounds: int = ROUNDS
) -> list[Difference]:
    """Differences of macro AUC between all pairs, every resample of the images shared by all.

    ``probabilities`` maps names to (N, C) for the same N images, whose label numbers are ``labels`` (N,). The p value is
    twice the share of resamples on the other side of zero, at least 1 / rounds.
    """
    rng = np.random.default_rng(seed)
    n = len(labels)
    weights = np.vstack([np.ones((1, n)), rng.multinomial(n, np.full(n, 1 / n), size=rounds)]).astype(np.float64)
    onehot = np.eye(next(iter(probabilities.values())).shape[1])[labels]
    values = {}
    with progress_bar("bootstrapping the differences") as advance:
        for name, given in probabilities.items():
            figures = [auc_figure(given[:, i], onehot[:, i])(weights) for i in range(given.shape[1])]
            values[name] = np.mean(figures, axis=0)
            advance(len(values), len(probabilities))
    found = []
    for first, second in itertools.combinations(values, 2):
        gap = values[first] - values[second]
        low, high = np.quantile(gap[1:], [0.025, 0.975])
        beyond = 2 * min(float((gap[1:] <= 0).mean()), float((gap[1:] >= 0).mean()))
        p = min(1.0, max(beyond, 1 / rounds))
        found.append(Difference(first, second, float(gap[0]), float(low), float(high), p))
    return found
