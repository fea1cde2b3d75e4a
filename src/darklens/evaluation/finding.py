"""Metrics of searches: recall before false positives, purity at a prior; few lenses among many that are none."""

from __future__ import annotations

import numpy as np

from darklens.evaluation.bootstrap import Draws, Floats, Metric, Statistic
from darklens.evaluation.classification import BINS, auc_statistic, bin_members

FALSE_POSITIVE_RATES = (1e-2, 1e-3)
"""Rates at which the recall is given, as far as there are negatives enough to measure them."""


def shift_prior(probabilities: Floats, prior: float, to: float) -> Floats:
    """Return probabilities of the positive class for another prior, by Bayes' theorem.

    Parameters
    ----------
    probabilities
        Of the positive class, any shape, calibrated where a fraction ``prior`` of the images is positive.
    prior, to
        Fractions of positives, above 0 and below 1.

    Returns
    -------
    numpy.ndarray
        Of the same shape: calibrated where the fraction is ``to``.
    """
    positive = probabilities * (to / prior)
    negative = (1 - probabilities) * ((1 - to) / (1 - prior))
    shifted: Floats = positive / (positive + negative)
    return shifted


def purity_at(prior: float, true: Floats, false: Floats) -> Floats:
    """Return the fraction of positives among what is called positive, in a population with a fraction ``prior`` of them.

    Parameters
    ----------
    prior
        Fraction of positives, above 0 and below 1.
    true, false
        Fractions of the positives and of the negatives that are called positive, of one shape. One of them is above 0.

    Returns
    -------
    numpy.ndarray
        Of the same shape.
    """
    found: Floats = prior * true / (prior * true + (1 - prior) * false)
    return found


def finding_metrics(probabilities: Floats, positive: Floats, prior: float) -> list[Metric]:
    """Return the metrics of a search for rare objects.

    Parameters
    ----------
    probabilities
        Of being positive (N,), calibrated for a prior.
    positive
        1 for positives and 0 for negatives (N,). Of one kind alone, metrics that need both are nan.
    prior
        Fraction of positives in the population that is searched, above 0 and below 1. It may differ from that among the
        images, which are weighed by it.

    Returns
    -------
    list of Metric
        ``tpr0`` and ``tpr10`` (recall before the first and before the tenth false positive, which depend on the number of
        negatives; Metcalf et al. 2019), ``recall_fpr_…`` (recall at a false-positive rate that at least ten negatives
        make), ``purity`` and ``completeness`` of the objects with a probability above 1/2, in the population,
        ``candidates_per_lens`` (objects to look at for each lens, to find half of all), calibration error at the prior,
        log loss at the prior, average precision of the images, AUC.
    """
    positive = np.asarray(positive, dtype=np.float64)
    weight = population_weights(positive, prior)
    negatives = int(len(positive) - positive.sum())
    called = (probabilities > 0.5).astype(np.float64)
    of_truth = np.where(positive > 0, probabilities, 1 - probabilities).clip(1e-12)
    metrics = [
        Metric("tpr0", "TPR0", recall_statistic(probabilities, positive, before=1), perfect=1, worst=0),
        Metric("tpr10", "TPR10", recall_statistic(probabilities, positive, before=10), perfect=1, worst=0),
    ]
    for rate in FALSE_POSITIVE_RATES:
        if negatives * rate >= 10:
            recall = recall_statistic(probabilities, positive, rate=rate)
            metrics.append(
                Metric(
                    f"recall_fpr_{rate:g}", f"Recall at a false-positive rate of {rate:g}", recall, perfect=1, worst=0
                )
            )
    return [
        *metrics,
        Metric(
            "purity", f"Purity at a prior of {prior:g}", _ratio(weight * positive * called, weight * called), perfect=1
        ),
        Metric("completeness", "Completeness", _ratio(positive * called, positive), perfect=1, worst=0),
        Metric(
            "candidates_per_lens",
            f"Candidates per lens at {prior:g}",
            candidates_statistic(probabilities, positive, prior),
            better="lower",
            perfect=1,
        ),
        Metric(
            "ece",
            f"ECE at a prior of {prior:g}",
            prior_ece_statistic(probabilities, positive, weight),
            better="lower",
            perfect=0,
            calibrated=_calibrated_prior_ece(probabilities, positive, prior),
        ),
        Metric(
            "log_loss",
            f"Log loss at a prior of {prior:g}",
            _ratio(weight * -np.log(of_truth), weight),
            better="lower",
            perfect=0,
        ),
        Metric(
            "average_precision", "Average precision", precision_statistic(probabilities, positive), perfect=1, worst=0
        ),
        Metric("auc", "AUC", auc_statistic(probabilities, positive), perfect=1, worst=0),
    ]


def population_weights(positive: Floats, prior: float) -> Floats:
    """Return how much each image (N,) counts where a fraction ``prior`` of the population is positive; their mean is 1.

    Images of one kind alone stand for no population: nan.
    """
    share = float(np.mean(positive))
    if not 0 < share < 1:
        return np.full(len(positive), np.nan)
    return _weights(positive, prior, share)


def _weights(positive: Floats, prior: float, share: float) -> Floats:
    """How much images count for a prior, where a fraction ``share`` of images is positive."""
    return np.where(positive > 0, prior / share, (1 - prior) / (1 - share))


def recall_statistic(scores: Floats, positive: Floats, before: float | None = None, *, rate: float = 0.0) -> Statistic:
    """Return the highest recall of a threshold with few false positives.

    Parameters
    ----------
    scores
        (N,), higher for what is more likely positive. Images of equal scores are called alike.
    positive
        1 or 0 (N,).
    before
        The number of false positives that must not be reached.
    rate
        Without ``before``: the highest false-positive rate.

    Returns
    -------
    Statistic
        From 0 to 1; nan without positives or without negatives.
    """
    thresholds = _Thresholds(scores, positive)

    def statistic(weights: Floats) -> Floats:
        true, false = thresholds.counts(weights)
        allowed = false < before if before is not None else false <= rate * false[:, -1:] * (1 + 1e-12)
        found = np.where(allowed, true, 0).max(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            recall: Floats = np.where(false[:, -1] > 0, found / true[:, -1], np.nan)
        return recall

    return statistic


def candidates_statistic(scores: Floats, positive: Floats, prior: float, recall: float = 0.5) -> Statistic:
    """Return how many objects have to be looked at for each positive, at the highest threshold of a recall.

    Parameters
    ----------
    scores, positive
        As of `recall_statistic`.
    prior
        Fraction of positives in the population.
    recall
        Fraction of the positives that are to be found.

    Returns
    -------
    Statistic
        At least 1; nan without positives or without negatives.
    """
    thresholds = _Thresholds(scores, positive)

    def statistic(weights: Floats) -> Floats:
        true, false = thresholds.counts(weights)
        with np.errstate(invalid="ignore", divide="ignore"):
            true, false = true / true[:, -1:], false / false[:, -1:]
            enough = (true >= recall * (1 - 1e-12)).argmax(1)[:, None]
            of_true = prior * np.take_along_axis(true, enough, 1)[:, 0]
            of_false = (1 - prior) * np.take_along_axis(false, enough, 1)[:, 0]
            candidates: Floats = (of_true + of_false) / of_true
        return candidates

    return statistic


def precision_statistic(scores: Floats, positive: Floats) -> Statistic:
    """Return the average precision: the mean precision over positives, from the highest score on; nan of one kind alone."""
    thresholds = _Thresholds(scores, positive)

    def statistic(weights: Floats) -> Floats:
        true, false = thresholds.counts(weights)
        steps = np.diff(true, axis=1, prepend=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.where(steps > 0, true / (true + false), 0)
            average: Floats = np.where(false[:, -1] > 0, (steps * precision).sum(1) / true[:, -1], np.nan)
        return average

    return statistic


def prior_ece_statistic(probabilities: Floats, positive: Floats, weight: Floats, bins: int = BINS) -> Statistic:
    """Return the calibration error over bins of probability in a population that images stand for by weights (N,).

    Parameters
    ----------
    probabilities
        Of being positive (N,).
    positive
        1 or 0 (N,).
    weight
        How much each image counts (N,), as of `population_weights`.
    bins
        Number of bins from 0 to 1.

    Returns
    -------
    Statistic
        The weighted mean over bins of the gap between mean probability and fraction of positives.
    """
    gaps = bin_members(probabilities, bins) * (weight * (positive - probabilities))[:, None]

    def statistic(weights: Floats) -> Floats:
        return np.abs(weights @ gaps).sum(1) / (weights @ weight)

    return statistic


def _calibrated_prior_ece(probabilities: Floats, positive: Floats, prior: float) -> Draws:
    """The calibration errors of an exactly calibrated model: labels are drawn from its probabilities among the images."""
    share = float(np.mean(positive))
    if not 0 < share < 1:
        share = prior
    chance, member = shift_prior(probabilities, prior, share), bin_members(probabilities, BINS)

    def draws(seed: int, number: int) -> Floats:
        rng = np.random.default_rng(seed)
        found = np.empty(number)
        for i in range(number):
            drawn = (rng.random(len(chance)) < chance).astype(np.float64)
            weight = _weights(drawn, prior, share)
            found[i] = np.abs((weight * (drawn - probabilities)) @ member).sum() / weight.sum()
        return found

    return draws


def _ratio(above: Floats, below: Floats) -> Statistic:
    def statistic(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio: Floats = (weights @ above) / (weights @ below)
        return ratio

    return statistic


class _Thresholds:
    """Every threshold between distinct scores, from the highest down."""

    def __init__(self, scores: Floats, positive: Floats) -> None:
        _, group = np.unique(-scores, return_inverse=True)
        self._order = np.argsort(group, kind="stable")
        self._starts = np.flatnonzero(np.diff(group[self._order], prepend=-1))
        self._positive = positive[self._order]

    def counts(self, weights: Floats) -> tuple[Floats, Floats]:
        """Weights of positives and negatives above each threshold, both (rounds, thresholds)."""
        w = weights[:, self._order]
        true: Floats = np.add.reduceat(w * self._positive, self._starts, axis=1).cumsum(1)
        false: Floats = np.add.reduceat(w * (1 - self._positive), self._starts, axis=1).cumsum(1)
        return true, false
