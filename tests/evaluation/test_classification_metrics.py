"""Metrics and curves of classifiers against scikit-learn and torchmetrics."""

import numpy as np
import pytest
import torch
from sklearn import metrics
from sklearn.calibration import calibration_curve
from torchmetrics.functional.classification import multiclass_calibration_error

from darklens.evaluation.bootstrap import CalibratedRange, intervals, paired_differences
from darklens.evaluation.classification import classification_metrics, confusion_matrix, reliability, roc_curves

CLASSES = ["no_sub", "cdm", "axion"]


def simulated(n=900, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    logits = rng.normal(0, 1, (n, 3)) + np.array([0.6, 1.2, 2.0]) * np.eye(3)[labels]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return (np.round(p, 1) if ties else p), labels


def figures(p, labels, sets=None):
    found = classification_metrics(p, labels, CLASSES, sets)
    return {name: interval.value for name, interval in intervals(found, len(labels), rounds=2).items()}


@pytest.mark.parametrize("ties", [False, True])
def test_metrics_agree_with_scikit_learn(ties):
    p, labels = simulated(ties=ties)
    value, onehot = figures(p, labels), np.eye(3)[labels]
    assert value["accuracy"] == pytest.approx(metrics.accuracy_score(labels, p.argmax(1)), abs=1e-12)
    for i, name in enumerate(CLASSES):
        assert value[f"auc_{name}"] == pytest.approx(metrics.roc_auc_score(onehot[:, i], p[:, i]), abs=1e-12)
    assert value["macro_auc"] == pytest.approx(metrics.roc_auc_score(onehot, p, average="macro"), abs=1e-12)
    assert value["micro_auc"] == pytest.approx(metrics.roc_auc_score(onehot, p, average="micro"), abs=1e-12)
    if not ties:
        assert value["log_loss"] == pytest.approx(metrics.log_loss(labels, p), abs=1e-9)


def test_weighted_auc_agrees_with_scikit_learn():
    p, labels = simulated(n=200)
    weights = np.random.default_rng(3).integers(0, 4, (2, 200)).astype(float)
    found = next(m for m in classification_metrics(p, labels, CLASSES) if m.key == "auc_cdm").statistic(weights)
    expected = [metrics.roc_auc_score(labels == 1, p[:, 1], sample_weight=w) for w in weights]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_confusion_has_the_truth_down_and_the_prediction_across():
    p, labels = simulated()
    found = confusion_matrix(p.argmax(1), labels, 3)
    np.testing.assert_array_equal(found, metrics.confusion_matrix(labels, p.argmax(1)))
    assert not np.array_equal(found, found.T)


def test_roc_curves_agree_with_scikit_learn():
    p, labels = simulated()
    curves, onehot = roc_curves(p, labels, CLASSES), np.eye(3)[labels]
    grid = np.linspace(0, 1, 57)
    each = []
    for i, name in enumerate(CLASSES):
        fpr, tpr, _ = metrics.roc_curve(onehot[:, i], p[:, i], drop_intermediate=False)
        np.testing.assert_allclose(curves[name], (fpr, tpr), atol=1e-12)
        each.append(np.interp(grid, fpr, tpr))
    fpr, tpr, _ = metrics.roc_curve(onehot.ravel(), p.ravel(), drop_intermediate=False)
    np.testing.assert_allclose(curves["micro"], (fpr, tpr), atol=1e-12)
    np.testing.assert_allclose(np.interp(grid, *curves["macro"]), np.mean(each, axis=0), atol=2e-3)


def test_calibration_error_agrees_with_torchmetrics():
    p, labels = simulated()
    expected = multiclass_calibration_error(torch.tensor(p), torch.tensor(labels), num_classes=3, n_bins=15)
    assert figures(p, labels)["ece"] == pytest.approx(float(expected), abs=1e-6)


def test_calibration_errors_of_calibrated_models_are_in_their_range_as_often_as_it_says():
    """Of 2,000 models whose labels are drawn from their probabilities, 95 ± 2% (four standard errors) are inside."""
    rng = np.random.default_rng(0)
    found = []
    for seed in range(2000):
        p = rng.dirichlet([0.4] * 3, 100)
        labels = (rng.random((100, 1)) > p.cumsum(1)).sum(1)
        found.append(calibration_error(p, labels, seed))
    inside = np.mean([each.if_calibrated.low <= each.value <= each.if_calibrated.high for each in found])
    assert 0.93 < inside < 0.97
    assert 0.03 < np.mean([each.if_calibrated.p <= 0.05 for each in found]) < 0.07


def test_calibration_error_of_a_model_that_is_too_sure_is_above_its_range():
    p, labels = simulated(n=3000)
    sure = p**3 / (p**3).sum(1, keepdims=True)
    found = calibration_error(sure, labels)
    assert found.value > 3 * found.if_calibrated.high
    assert found.if_calibrated.p == 1 / 1001, "none of 1,000 draws is as large"
    assert np.isnan([found.low, found.high]).all()
    assert found.record() == {
        "value": found.value, "n": 3000,
        "if_calibrated": {"low": found.if_calibrated.low, "high": found.if_calibrated.high, "p": 1 / 1001},
    }  # fmt: skip


def test_range_if_calibrated_is_that_of_labels_drawn_from_the_probabilities():
    p, labels = simulated(n=400)
    found = calibration_error(p, labels).if_calibrated
    rng = np.random.default_rng(9)
    drawn = [
        float(multiclass_calibration_error(torch.tensor(p), torch.tensor(each), num_classes=3, n_bins=15))
        for each in ((rng.random((400, 1)) > p.cumsum(1)).sum(1) for _ in range(1000))
    ]
    assert (found.low, found.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), rel=0.1)


def test_range_if_calibrated_depends_on_the_seed_and_not_on_chunks(monkeypatch):
    p, labels = simulated(n=90)
    first = calibration_error(p, labels, 4)
    assert calibration_error(p, labels, 5) != first
    monkeypatch.setattr("darklens.evaluation.classification.WEIGHTS_AT_A_TIME", 700)
    assert repr(calibration_error(p, labels, 4)) == repr(first)


def test_calibration_error_that_cannot_be_smaller_has_p_1():
    found = calibration_error(np.eye(3)[[0, 1, 2, 2]], np.array([0, 1, 2, 2]))
    assert (found.value, found.if_calibrated) == (0, CalibratedRange(0, 0, 1))


def calibration_error(p, labels, seed=0):
    metric = next(metric for metric in classification_metrics(p, labels, CLASSES) if metric.key == "ece")
    return intervals([metric], len(labels), seed)["ece"]


def test_reliability_agrees_with_scikit_learn():
    p, labels = simulated(n=3000)
    p = p**3 / (p**3).sum(1, keepdims=True)  # overconfident, so that confidence and accuracy are far apart
    confidence, right = p.max(1), p.argmax(1) == labels
    found = reliability(confidence, right)
    accuracy, mean = calibration_curve(right, confidence, n_bins=15)
    np.testing.assert_allclose(found["accuracy"], accuracy, atol=1e-12)
    np.testing.assert_allclose(found["confidence"], mean, atol=1e-12)
    assert np.abs(found["accuracy"] - found["confidence"]).max() > 0.1
    assert found["number"].sum() == 3000


def test_class_without_test_images_has_no_auc():
    p, labels = simulated()
    keep = labels != 2
    value = figures(p[keep], labels[keep])
    assert "auc_axion" not in value
    assert value["macro_auc"] == pytest.approx((value["auc_no_sub"] + value["auc_cdm"]) / 2, abs=1e-12)
    assert "axion" not in roc_curves(p[keep], labels[keep], CLASSES)


def test_prediction_sets_are_counted():
    p, labels = simulated(n=4)
    sets = np.zeros((4, 3), dtype=bool)
    sets[np.arange(3), labels[:3]] = True  # the fourth is empty
    sets[0] = True
    value = figures(p, labels, sets)
    assert value["coverage"] == 0.75
    assert value["set_size"] == 1.25


def test_what_is_stored_of_each_metric():
    p, labels = simulated(n=60)
    found = classification_metrics(p, labels, CLASSES, np.ones((60, 3), dtype=bool))
    assert [(m.key, m.title, m.better, m.perfect) for m in found] == [
        ("accuracy", "Accuracy", "higher", 1), ("macro_auc", "Macro AUC", "higher", 1),
        ("micro_auc", "Micro AUC", "higher", 1), ("auc_no_sub", "AUC no_sub", "higher", 1),
        ("auc_cdm", "AUC cdm", "higher", 1), ("auc_axion", "AUC axion", "higher", 1), ("ece", "ECE", "lower", 0),
        ("log_loss", "Log loss", "lower", 0), ("coverage", "Coverage of prediction sets", "higher", None),
        ("set_size", "Classes in a prediction set", "lower", None),
    ]  # fmt: skip
    assert {m.unit for m in found} == {""}


def test_images_of_one_class_have_no_auc_and_all_else():
    rng = np.random.default_rng(3)
    probabilities, labels = rng.dirichlet([1, 1, 1], 40), np.ones(40, dtype=int)
    metrics = classification_metrics(probabilities, labels, ["a", "b", "c"])
    found = intervals(metrics, 40, rounds=50)
    assert np.isnan([found["macro_auc"].value, found["macro_auc"].low]).all()
    assert found["accuracy"].value == (probabilities.argmax(1) == 1).mean()
    assert set(roc_curves(probabilities, labels, ["a", "b", "c"])) == {"micro"}
    # Nothing is known of the difference of two models, and nothing is shown as real.
    (difference,) = paired_differences({"x": metrics[1], "y": metrics[1]}, 40, rounds=50)
    assert difference.p == 1


def test_mean_curves_begin_at_the_origin():
    """Where all curves rise before the first false positive, that is a vertical line from 0."""
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    false, true = roc_curves(probabilities, np.array([0, 0, 1, 1]), ["a", "b"])["macro"]
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(true, false) == 1
    assert (np.diff(false) >= 0).all()
