"""Metrics of regressions: errors, bias, scatter, explained variance."""

from __future__ import annotations

import numpy as np

from darklens.evaluation.bootstrap import Floats, Metric, mean_statistic


def regression_metrics(predicted: Floats, true: Floats, unit: str = "") -> list[Metric]:
    """Return the metrics of predicted values.

    Parameters
    ----------
    predicted, true
        Values (N,).
    unit
        Their unit.

    Returns
    -------
    list
        MSE, RMSE, mean absolute error, R² (the fraction of the variance that is explained), bias (the mean of predicted
        minus true) and scatter (the standard deviation of the same).
    """
    error = predicted - true
    mse, bias = mean_statistic(error**2), mean_statistic(error)
    mean, square = mean_statistic(true), mean_statistic(true**2)
    squared = f"({unit})²" if unit else ""
    return [
        Metric("mse", "MSE", mse, squared, "lower", 0),
        Metric("rmse", "RMSE", lambda w: np.sqrt(mse(w)), unit, "lower", 0),
        Metric("mae", "Mean absolute error", mean_statistic(np.abs(error)), unit, "lower", 0),
        Metric("r2", "R²", lambda w: 1 - mse(w) / (square(w) - mean(w) ** 2), perfect=1),
        Metric("bias", "Bias", bias, unit, "neither", 0),
        Metric("scatter", "Scatter", lambda w: np.sqrt(np.maximum(mse(w) - bias(w) ** 2, 0)), unit, "lower", 0),
    ]
