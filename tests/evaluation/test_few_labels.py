"""Draws of labelled images, and the linear probe."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from darklens.errors import DataError
from darklens.evaluation.few_labels import draw_labelled, linear_probe


def test_draws_are_balanced_nested_and_differ():
    labels = np.repeat([0, 1, 2], [50, 30, 12])
    few, more, other = draw_labelled(labels, 3, 0), draw_labelled(labels, 10, 0), draw_labelled(labels, 10, 1)
    assert np.bincount(labels[few]).tolist() == [3, 3, 3]
    assert np.bincount(labels[more]).tolist() == [10, 10, 10]
    assert set(few) < set(more)
    assert set(more) != set(other)
    assert draw_labelled(labels, None, 0).tolist() == list(range(92))
    with pytest.raises(DataError, match="13 labelled images of each class were asked for; one class has 12"):
        draw_labelled(labels, 13, 0)


def test_probe_is_the_bayes_rule_of_separable_gaussians_and_ignores_units():
    """Two Gaussians of one covariance: the log-odds are linear, and the AUC is known."""
    rng = np.random.default_rng(0)

    def draw(number):
        labels = np.arange(number) % 2
        signal = rng.normal(2.0 * labels, 1.0)  # two standard deviations apart: AUC 0.921
        return np.column_stack([signal, rng.normal(size=(number, 5))]), labels

    (features, labels), (others, truth) = draw(400), draw(2000)
    predicted = linear_probe(features, labels, others, 2)
    assert roc_auc_score(truth, predicted[:, 1]) == pytest.approx(0.921, abs=0.015)
    units = np.array([1e-6, 1, 1e6, 1, 1, 1])
    np.testing.assert_allclose(linear_probe(features * units, labels, others * units, 2), predicted, atol=1e-6)


def test_probe_of_noise_says_hardly_more_than_the_shares_and_absent_classes_get_nothing():
    rng = np.random.default_rng(1)
    labels = np.arange(60) % 2 * 2
    predicted = linear_probe(rng.normal(size=(60, 40)), labels, rng.normal(size=(300, 40)), 3)
    assert (predicted[:, 1] == 0).all()
    np.testing.assert_allclose(predicted.sum(1), 1)
    assert np.abs(predicted[:, 0] - 0.5).max() < 0.1
