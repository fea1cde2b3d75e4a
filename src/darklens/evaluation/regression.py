"""Figures of regressions: errors, bias, scatter, explained variance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from darklens.evaluation.bootstrap import Figure, Floats, Interval, intervals
from darklens.evaluation.classification import mean_figure


@dataclass(frozen=True)
class Regressed:
    """Everything that a report says of a regression on one test set; ``true`` and ``predicted`` are (N,)."""

    output: str
    figures: dict[str, Interval]
    true: Floats
    predicted: Floats


def evaluate_regression(predicted: Floats, true: Floats, output: str, seed: int = 0) -> Regressed:
    """Evaluate predictions (N,) against truths (N,).

    ``bias`` is the mean of predicted minus true, ``scatter`` the standard deviation of the same, ``r2`` the share of the
    variance that is explained.
    """
    error = predicted - true
    mse = mean_figure(error**2)
    bias = mean_figure(error)
    mean, square = mean_figure(true), mean_figure(true**2)
    figures: dict[str, Figure] = {
        "mse": mse,
        "rmse": lambda w: np.sqrt(mse(w)),
        "mae": mean_figure(np.abs(error)),
        "r2": lambda w: 1 - mse(w) / (square(w) - mean(w) ** 2),
        "bias": bias,
        "scatter": lambda w: np.sqrt(np.maximum(mse(w) - bias(w) ** 2, 0)),
    }
    return Regressed(output, intervals(figures, len(true), seed), true, predicted)
