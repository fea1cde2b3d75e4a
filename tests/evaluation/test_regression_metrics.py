"""Metrics of regressions against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics

from darklens.evaluation.bootstrap import intervals
from darklens.evaluation.regression import regression_metrics


def test_metrics_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    true = rng.normal(-23, 0.5, 400)
    predicted = true + rng.normal(0.1, 0.3, 400)
    found = regression_metrics(predicted, true, "dex")
    value = {name: interval.value for name, interval in intervals(found, 400, rounds=2).items()}
    assert value["mse"] == pytest.approx(metrics.mean_squared_error(true, predicted))
    assert value["rmse"] == pytest.approx(metrics.root_mean_squared_error(true, predicted))
    assert value["mae"] == pytest.approx(metrics.mean_absolute_error(true, predicted))
    assert value["r2"] == pytest.approx(metrics.r2_score(true, predicted), abs=1e-9)
    assert value["bias"] == pytest.approx((predicted - true).mean())
    assert value["scatter"] == pytest.approx((predicted - true).std())
    assert {metric.key: metric.unit for metric in found} == {
        "mse": "(dex)²", "rmse": "dex", "mae": "dex", "r2": "", "bias": "dex", "scatter": "dex",
    }  # fmt: skip


def test_weighted_r2_agrees_with_scikit_learn():
    rng = np.random.default_rng(1)
    true = rng.normal(2, 1, 50)
    predicted, weights = true + rng.normal(0.2, 0.5, 50), rng.integers(0, 3, 50).astype(float)
    found = next(m for m in regression_metrics(predicted, true) if m.key == "r2").statistic(weights[None])
    assert found[0] == pytest.approx(metrics.r2_score(true, predicted, sample_weight=weights), abs=1e-9)


def test_what_is_stored_of_each_metric():
    zeros = np.zeros(3)
    assert [(m.key, m.title, m.better, m.perfect) for m in regression_metrics(zeros, zeros)] == [
        ("mse", "MSE", "lower", 0), ("rmse", "RMSE", "lower", 0), ("mae", "Mean absolute error", "lower", 0),
        ("r2", "R²", "higher", 1), ("bias", "Bias", "neither", 0), ("scatter", "Scatter", "lower", 0),
    ]  # fmt: skip
    described = regression_metrics(zeros, zeros, "dex")[0].describe()
    assert described == {"title": "MSE", "unit": "(dex)²", "better": "lower", "perfect": 0}
