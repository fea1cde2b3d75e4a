"""Temperature and prediction sets, on labels drawn from known probabilities."""

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, minimize
from scipy.special import expit, log_softmax
from sklearn.metrics import log_loss

from darklens.evaluation.calibration import fit_calibration, fit_temperature, prediction_sets


def drawn_logits(n, temperature, seed=0):
    """Logits whose labels follow from their softmax, then blown up by a temperature."""
    rng = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, 3, generator=rng)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=rng)[:, 0]
    return logits * temperature, labels


def test_temperature_is_found():
    logits, labels = drawn_logits(20_000, 3.0)
    assert fit_calibration(logits, labels).temperature == pytest.approx(3.0, rel=0.05)


@pytest.mark.parametrize("margin", [1.0, 4.0, 9.0, 30.0])
def test_temperature_without_errors_is_where_likelihood_and_prior_balance(margin):
    """Two classes, N right answers of margin m: with x = m / T, the slope in log T is N x / (1 + exp x) + log T / 0.5²."""
    labels = torch.tensor([0, 1] * 768)
    logits = torch.where(torch.eye(2)[labels].bool(), margin, 0.0) - 3.0
    expected = np.exp(brentq(lambda u: 1536 * margin * np.exp(-u) * expit(-margin * np.exp(-u)) + 4 * u, -3, 3))
    assert fit_temperature(logits, labels) == pytest.approx(expected, rel=1e-3)


def test_sure_logits_without_errors_do_not_raise_the_log_loss_of_other_images():
    """Logits as sure as they may be: of 1,536 images none is wrong, of 60,000 others five."""
    rng = torch.Generator().manual_seed(2)
    logits = 11.0 * torch.eye(3)[torch.randint(3, (61_536,), generator=rng)] + torch.randn(61_536, 3, generator=rng)
    truth = torch.multinomial(logits.softmax(-1), 1, generator=rng)[:, 0]
    wrong = logits.argmax(1) != truth
    assert (int(wrong[:1536].sum()), int(wrong.sum())) == (0, 5)
    found = fit_calibration(logits[:1536], truth[:1536]).temperature
    without_prior = fit_temperature(logits[:1536], truth[:1536], prior_width=np.inf)

    def loss(temperature):
        return log_loss(truth[1536:].numpy(), (logits[1536:].double() / temperature).softmax(-1).numpy())

    assert 0.8 < found < 1.1
    assert loss(found) < 1.05 * loss(1.0)
    assert without_prior < 0.2
    assert loss(without_prior) > 1.4 * loss(1.0)


@pytest.mark.parametrize(
    ("n", "temperature", "width"), [(40, 3.0, 0.5), (40, 0.2, 0.5), (300, 0.4, 0.25), (40, 2.0, 1)]
)
def test_temperature_maximises_likelihood_times_prior(n, temperature, width):
    logits, labels = drawn_logits(n, temperature, seed=3)

    def loss(u):
        p = log_softmax(logits.double().numpy() / np.exp(u[0]), axis=1)
        return -p[np.arange(n), labels].sum() + u[0] ** 2 / (2 * width**2)

    expected = np.exp(minimize(loss, [0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10}).x[0])
    assert fit_temperature(logits, labels, width) == pytest.approx(expected, rel=1e-3)
    assert fit_temperature(logits, labels, np.inf) != pytest.approx(expected, rel=0.02), "the prior matters here"


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


def test_sets_of_a_model_that_is_right_more_often_than_asked_are_not_empty():
    """Accuracy 0.995 and coverage 0.95: conformal prediction alone leaves one set in twenty empty."""
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 3, 8000)
    logits = 9 * np.eye(3)[truth] + rng.normal(0, 2.25, (8000, 3))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    right = p.argmax(1) == truth
    assert right.mean() == pytest.approx(0.995, abs=0.003)
    scores = 1 - p[np.arange(4000), truth[:4000]]
    sets = prediction_sets(p[4000:], scores.tolist(), 0.95)
    rank = (np.sort(scores)[:, None, None] >= 1 - p[4000:]).sum(0) + 1
    conformal = rank / 4001 > 0.05
    assert (~conformal.any(1)).mean() == pytest.approx(0.05, abs=0.01)
    np.testing.assert_array_equal(sets, conformal | np.eye(3, dtype=bool)[p[4000:].argmax(1)])
    assert (sets.sum(1) == 1).all()
    assert sets[np.arange(4000), truth[4000:]].mean() == right[4000:].mean()


def test_sets_of_equal_probabilities_hold_one_class_at_least():
    assert prediction_sets(np.full((1, 3), 1 / 3), [0.1, 0.2, 0.3], 0.5).sum() == 1
