"""Temperature and prediction sets, on labels drawn from known probabilities."""

import numpy as np
import pytest
import torch

from darklens.evaluation.calibration import fit_calibration, prediction_sets


def drawn_logits(n, temperature, seed=0):
    """Logits whose labels follow from their softmax, then blown up by a temperature."""
    rng = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, 3, generator=rng)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=rng)[:, 0]
    return logits * temperature, labels


def test_temperature_is_found():
    logits, labels = drawn_logits(20_000, 3.0)
    assert fit_calibration(logits, labels).temperature == pytest.approx(3.0, rel=0.05)


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_prediction_sets_hold_the_truth_as_often_as_they_promise(coverage):
    logits, labels = drawn_logits(4000, 1.0)
    calibration = fit_calibration(logits[:2000], labels[:2000])
    probabilities = (logits[2000:] / calibration.temperature).double().softmax(-1).numpy()
    sets = prediction_sets(probabilities, calibration.scores, coverage)
    assert sets[np.arange(2000), labels[2000:]].mean() == pytest.approx(coverage, abs=0.03)
    larger = prediction_sets(probabilities, calibration.scores, 0.99)
    assert (larger >= sets).all()
    assert prediction_sets(np.zeros((0, 3)), calibration.scores, coverage).shape == (0, 3)


def test_scores_are_one_minus_the_probability_of_the_truth_in_order():
    logits, labels = drawn_logits(50, 1.0)
    found = fit_calibration(logits, labels)
    p = (logits.double() / found.temperature).softmax(-1)[torch.arange(50), labels]
    np.testing.assert_allclose(found.scores, np.sort(1 - p.numpy()), atol=2e-6)
    assert found.temperature == round(found.temperature, 5)


def test_sets_are_those_of_inductive_conformal_prediction():
    """By hand: a class belongs to the set if at least the stated fraction of scores, its own counted, is not above."""
    scores = [0.05, 0.1, 0.2, 0.4, 0.8]
    p = np.array([[0.7, 0.25, 0.05], [0.5, 0.3, 0.2]])
    found = prediction_sets(p, scores, 0.7)
    own = 1 - p
    rank = (np.array(scores)[:, None, None] >= own).sum(0) + 1
    np.testing.assert_array_equal(found, rank / 6 > 0.3)
