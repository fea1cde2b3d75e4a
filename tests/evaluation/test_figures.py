"""Every figure against scikit-learn, and intervals against theory and scipy."""

import numpy as np
import pytest
from scipy.stats import bootstrap
from sklearn import metrics

from darklens.evaluation.bootstrap import intervals
from darklens.evaluation.classification import auc_figure, evaluate_classification, mean_figure
from darklens.evaluation.regression import evaluate_regression

CLASSES = ["no_sub", "cdm", "axion"]


def simulated(n=900, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    logits = rng.normal(0, 1, (n, 3)) + 1.2 * np.eye(3)[labels]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return (np.round(p, 1) if ties else p), labels


@pytest.mark.parametrize("ties", [False, True])
def test_classification_figures_agree_with_scikit_learn(ties):
    p, labels = simulated(ties=ties)
    result = evaluate_classification(p, labels, CLASSES)
    value = {name: figure.value for name, figure in result.figures.items()}
    onehot = np.eye(3)[labels]
    assert value["accuracy"] == pytest.approx(metrics.accuracy_score(labels, p.argmax(1)), abs=1e-12)
    for i, name in enumerate(CLASSES):
        assert value[f"auc_{name}"] == pytest.approx(metrics.roc_auc_score(onehot[:, i], p[:, i]), abs=1e-12)
    assert value["macro_auc"] == pytest.approx(metrics.roc_auc_score(onehot, p, average="macro"), abs=1e-12)
    assert value["micro_auc"] == pytest.approx(metrics.roc_auc_score(onehot, p, average="micro"), abs=1e-12)
    np.testing.assert_array_equal(result.confusion, metrics.confusion_matrix(labels, p.argmax(1)))
    if not ties:
        assert value["log_loss"] == pytest.approx(metrics.log_loss(labels, p), abs=1e-9)
    for i, name in enumerate(CLASSES):
        fpr, tpr, _ = metrics.roc_curve(onehot[:, i], p[:, i], drop_intermediate=False)
        np.testing.assert_allclose(result.roc[name], (fpr, tpr), atol=1e-12)
    assert all(f.low <= f.value <= f.high for f in result.figures.values() if f is not result.figures["ece"])
    assert result.figures["accuracy"].n == 900


def test_calibration_error_agrees_with_torchmetrics():
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    p, labels = simulated()
    expected = multiclass_calibration_error(torch.tensor(p), torch.tensor(labels), num_classes=3, n_bins=15)
    assert evaluate_classification(p, labels, CLASSES).figures["ece"].value == pytest.approx(float(expected), abs=1e-6)


def test_class_without_test_images_has_no_auc():
    p, labels = simulated()
    keep = labels != 2
    result = evaluate_classification(p[keep], labels[keep], CLASSES)
    assert "auc_axion" not in result.figures
    assert np.isfinite(result.figures["macro_auc"].value)


def test_regression_figures_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    true = rng.normal(-23, 0.5, 400)
    predicted = true + rng.normal(0.1, 0.3, 400)
    value = {name: f.value for name, f in evaluate_regression(predicted, true, "m").figures.items()}
    assert value["mse"] == pytest.approx(metrics.mean_squared_error(true, predicted))
    assert value["rmse"] == pytest.approx(metrics.root_mean_squared_error(true, predicted))
    assert value["mae"] == pytest.approx(metrics.mean_absolute_error(true, predicted))
    assert value["r2"] == pytest.approx(metrics.r2_score(true, predicted), abs=1e-9)
    assert value["bias"] == pytest.approx((predicted - true).mean())
    assert value["scatter"] == pytest.approx((predicted - true).std())


def test_interval_of_a_mean_agrees_with_scipy():
    values = np.random.default_rng(0).exponential(1, 500)
    ours = intervals({"mean": mean_figure(values)}, 500, rounds=4000)["mean"]
    theirs = bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.01)
    assert ours.high == pytest.approx(theirs.high, abs=0.01)


def test_interval_of_an_auc_covers_the_truth_as_often_as_it_says():
    """The AUC of two unit Gaussians one apart is Φ(1/√2) = 0.7602."""
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        positive = np.repeat([0.0, 1.0], 60)
        scores = rng.normal(0, 1, 120) + positive
        found = intervals({"auc": auc_figure(scores, positive)}, 120, seed, rounds=300)["auc"]
        covered += found.low <= 0.7602499 <= found.high
    assert 0.88 <= covered / 200 <= 0.985
