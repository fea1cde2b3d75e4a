"""Metrics of searches, against scikit-learn, loops over thresholds, and numbers on paper."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from darklens.evaluation.bootstrap import intervals
from darklens.evaluation.finding import (
    candidates_statistic,
    finding_metrics,
    population_weights,
    precision_statistic,
    purity_at,
    recall_statistic,
    shift_prior,
)

PRIOR = 0.02


@pytest.fixture(scope="module")
def search():
    """Probabilities of 1,500 images at the prior, many of them equal, and which of them are lenses."""
    rng = np.random.default_rng(8)
    positive = (rng.random(1500) < 0.3).astype(float)
    odds = 1.5 * rng.normal(0, 1, 1500) + 2.5 * positive - 3
    return np.round(1 / (1 + np.exp(-odds)), 2).clip(0.002, 0.998), positive


def value(statistic, images):
    return float(statistic(np.ones((1, images)))[0])


def values(probabilities, positive, prior=PRIOR):
    return {m.key: value(m.statistic, len(positive)) for m in finding_metrics(probabilities, positive, prior)}


def best_recall(scores, positive, allowed):
    """The highest recall over all thresholds whose number of false positives is allowed, in a loop."""
    found = 0.0
    for threshold in np.unique(scores):
        called = scores >= threshold
        if allowed(int((called & (positive == 0)).sum())):
            found = max(found, positive[called].sum() / positive.sum())
    return found


def test_recall_before_false_positives_is_that_of_a_loop_over_thresholds(search):
    scores, positive = search
    found = values(scores, positive)
    assert found["tpr0"] == best_recall(scores, positive, lambda false: false == 0)
    assert found["tpr10"] == best_recall(scores, positive, lambda false: false < 10)
    negatives = int((positive == 0).sum())
    assert found["recall_fpr_0.01"] == best_recall(scores, positive, lambda false: false <= 0.01 * negatives)
    assert 0 < found["tpr0"] < found["tpr10"] < 1
    assert "recall_fpr_0.001" not in found  # a thousandth of 1,050 is one image


def test_recall_on_paper():
    scores, positive = np.array([0.9, 0.8, 0.8, 0.7, 0.2, 0.1]), np.array([1.0, 1, 0, 1, 0, 1])
    assert value(recall_statistic(scores, positive, before=1), 6) == 0.25
    assert value(recall_statistic(scores, positive, before=2), 6) == 0.75
    assert value(recall_statistic(scores, positive, rate=0.5), 6) == 0.75
    assert value(recall_statistic(scores, positive, before=10), 6) == 1.0
    # The highest score is a negative's: nothing is found before it.
    assert value(recall_statistic(-scores, 1 - positive, before=1), 6) == 0.0


def test_resampled_recall_is_that_of_repeated_images(search):
    """Weights of a bootstrap are counts: each image as often as it was drawn."""
    scores, positive = search
    rows = np.random.default_rng(1).integers(0, 1500, 1500)
    weights = np.bincount(rows, minlength=1500)[None].astype(float)
    for key, expected in values(scores[rows], positive[rows]).items():
        metric = next(m for m in finding_metrics(scores, positive, PRIOR) if m.key == key)
        if key not in ("purity", "ece", "log_loss"):  # which weigh by the fraction among the images as they are
            assert_allclose(metric.statistic(weights)[0], expected, rtol=1e-12, err_msg=key)


def test_area_and_precision_are_those_of_scikit_learn(search):
    scores, positive = search
    found = values(scores, positive)
    assert_allclose(found["auc"], roc_auc_score(positive, scores), rtol=1e-12)
    assert_allclose(found["average_precision"], average_precision_score(positive, scores), rtol=1e-12)
    weights = np.random.default_rng(2).integers(0, 4, (2, 1500)).astype(float)
    expected = [average_precision_score(positive, scores, sample_weight=w) for w in weights]
    assert_allclose(precision_statistic(scores, positive)(weights), expected, rtol=1e-12)


def test_purity_is_that_of_a_population_at_the_prior(search):
    """A population in which each lens is repeated once and each other image as often as the prior wants."""
    scores, positive = search
    found = values(scores, positive)
    called, lenses, others = scores > 0.5, positive > 0, positive == 0
    true, false = (called & lenses).sum() / lenses.sum(), (called & others).sum() / others.sum()
    assert_allclose(found["completeness"], true, rtol=1e-12)
    assert_allclose(found["purity"], PRIOR * true / (PRIOR * true + (1 - PRIOR) * false), rtol=1e-12)
    weights = population_weights(positive, PRIOR)
    assert_allclose(weights.mean(), 1)
    assert_allclose(weights[lenses].sum() / weights.sum(), PRIOR)
    assert_allclose(found["log_loss"], log_loss(positive, scores, sample_weight=weights), rtol=1e-9)


def test_purity_of_rates_is_that_of_a_population_counted_on_paper():
    true, false = np.array([0.8, 0.5, 0.0]), np.array([0.01, 0.0, 0.1])
    lenses, others = 20_000 * true, 980_000 * false  # among a million at the prior of 0.02
    assert_allclose(purity_at(PRIOR, true, false), lenses / (lenses + others))


def test_candidates_to_inspect_for_half_of_the_lenses():
    scores, positive = np.array([0.9, 0.8, 0.7, 0.6, 0.3, 0.2, 0.1]), np.array([1.0, 0, 1, 0, 1, 1, 0])
    # Half of four lenses are found at 0.7, with one of three others: 0.1 × 1/2 lenses and 0.9 × 1/3 others.
    assert_allclose(value(candidates_statistic(scores, positive, 0.1), 7), (0.05 + 0.3) / 0.05)
    assert value(candidates_statistic(scores, positive, 0.1, recall=0.25), 7) == 1.0


@pytest.mark.parametrize(("probability", "prior", "to", "expected"), [(0.5, 0.5, 0.01, 0.01), (0.3, 0.3, 0.3, 0.3)])
def test_probabilities_at_another_prior(probability, prior, to, expected):
    assert_allclose(shift_prior(np.array([probability]), prior, to), [expected], rtol=1e-12)


def test_shifted_probabilities_are_those_of_bayes():
    """Two normal distributions, whose densities give the probability at any prior."""
    x = np.linspace(-2, 3, 11)
    ratio = np.exp(-0.5 * (x - 1) ** 2) / np.exp(-0.5 * x**2)
    at = {p: p * ratio / (p * ratio + 1 - p) for p in (0.4, 0.001)}
    assert_allclose(shift_prior(at[0.4], 0.4, 0.001), at[0.001], rtol=1e-12)


def test_calibration_error_of_exact_probabilities_is_within_its_range_and_of_others_is_not():
    rng = np.random.default_rng(4)
    positive = (rng.random(8000) < 0.5).astype(float)
    x = rng.normal(positive, 0.5)
    ratio = np.exp(-0.5 * ((x - 1) / 0.5) ** 2 + 0.5 * (x / 0.5) ** 2)
    exact = PRIOR * ratio / (PRIOR * ratio + 1 - PRIOR)
    found = intervals(finding_metrics(exact, positive, PRIOR), 8000)["ece"]
    assert found.if_calibrated.low <= found.value <= found.if_calibrated.high
    # Taken as they come out of a training on as many of both, far too many are called lenses.
    among = 0.5 * ratio / (0.5 * ratio + 0.5)
    wrong = intervals(finding_metrics(among, positive, PRIOR), 8000)["ece"]
    assert wrong.value > 5 * found.value
    assert wrong.value > wrong.if_calibrated.high
    # And the sum of the exact ones is the number of lenses in the population.
    weights = population_weights(positive, PRIOR)
    assert_allclose((weights * exact).sum() / 8000, PRIOR, rtol=0.1)


def test_one_kind_alone_has_no_recall():
    found = values(np.array([0.2, 0.7, 0.4]), np.zeros(3))
    assert np.isnan(list(found.values())).all()
    found = values(np.array([0.2, 0.7]), np.ones(2))
    assert found.pop("completeness") == 0.5
    assert np.isnan(list(found.values())).all()
