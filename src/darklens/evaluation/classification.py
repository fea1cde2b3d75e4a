"""Metrics and curves of classifiers: accuracy, areas under ROC curves, calibration, confusion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from darklens.evaluation.bootstrap import WEIGHTS_AT_A_TIME, Draws, Floats, Metric, Statistic, mean_statistic

BINS = 15
"""Bins of confidence in the calibration error, as in Guo et al. (2017); more make it noisier, and larger by chance."""


def classification_metrics(
    probabilities: Floats, labels: np.ndarray, classes: Sequence[str], sets: np.ndarray | None = None
) -> list[Metric]:
    """Return the metrics of probabilities of classes.

    The AUC of a class is one against the rest; macro is their mean over classes, micro pools all class decisions. A class
    without test images has no AUC, and macro is over the others; of images of one class alone it is nan.

    Parameters
    ----------
    probabilities
        (N, C), rows that sum to 1.
    labels
        Label numbers (N,), the truth.
    classes
        C names.
    sets
        Prediction sets (N, C) of bool: ``coverage`` is how many hold the truth, ``set_size`` how many classes they hold.

    Returns
    -------
    list
        Accuracy, AUCs, ECE, log loss and, of prediction sets, coverage and size.
    """
    onehot = np.eye(len(classes))[labels]
    predicted = probabilities.argmax(1)
    right, confidence = predicted == labels, probabilities.max(1)
    present = [i for i in range(len(classes)) if 0 < onehot[:, i].sum() < len(labels)]
    per_class = {i: auc_statistic(probabilities[:, i], onehot[:, i]) for i in present}
    of_truth = probabilities[np.arange(len(labels)), labels]
    metrics = [
        Metric("accuracy", "Accuracy", mean_statistic(right.astype(np.float64)), perfect=1, worst=0),
        Metric("macro_auc", "Macro AUC", _mean_of(list(per_class.values())), perfect=1, worst=0),
        Metric("micro_auc", "Micro AUC", _pooled(probabilities, onehot), perfect=1, worst=0),
        *(Metric(f"auc_{classes[i]}", f"AUC {classes[i]}", each, perfect=1, worst=0) for i, each in per_class.items()),
        Metric(
            "ece",
            "ECE",
            ece_statistic(confidence, right),
            better="lower",
            perfect=0,
            calibrated=calibrated_ece(confidence),
        ),
        Metric("log_loss", "Log loss", mean_statistic(-np.log(np.clip(of_truth, 1e-12, 1))), better="lower", perfect=0),
    ]
    if sets is not None:
        holds = sets[np.arange(len(labels)), labels].astype(np.float64)
        size = mean_statistic(sets.sum(1).astype(np.float64))
        metrics.append(Metric("coverage", "Coverage of prediction sets", mean_statistic(holds)))
        metrics.append(Metric("set_size", "Classes in a prediction set", size, better="lower"))
    return metrics


def _mean_of(statistics: Sequence[Statistic]) -> Statistic:
    """The mean of several statistics; nan if there are none."""

    def statistic(weights: Floats) -> Floats:
        values = [each(weights) for each in statistics]
        return np.mean(values, axis=0) if values else np.full(len(weights), np.nan)

    return statistic


def auc_statistic(scores: Floats, positive: Floats) -> Statistic:
    """Return the area under the ROC curve: the chance that a positive scores above a negative, ties counting half."""
    _, group = np.unique(scores, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    sorted_positive = positive[order]

    def statistic(weights: Floats) -> Floats:
        w = weights[:, order]
        # Weight of positives and negatives at each distinct score.
        ties_positive = np.add.reduceat(w * sorted_positive, starts, axis=1)
        ties_negative = np.add.reduceat(w * (1 - sorted_positive), starts, axis=1)
        below = np.cumsum(ties_negative, axis=1) - ties_negative
        wins = (ties_positive * (below + ties_negative / 2)).sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return wins / (ties_positive.sum(1) * ties_negative.sum(1))

    return statistic


def _pooled(probabilities: Floats, onehot: Floats) -> Statistic:
    statistic = auc_statistic(probabilities.reshape(-1), onehot.reshape(-1))
    return lambda weights: statistic(np.repeat(weights, probabilities.shape[1], axis=1))


def ece_statistic(confidence: Floats, correct: np.ndarray, bins: int = BINS) -> Statistic:
    """Return the expected calibration error over bins of confidence of equal width (Guo et al. 2017).

    Parameters
    ----------
    confidence
        Highest probability of each image (N,).
    correct
        Whether the class of that probability is the true one (N,).
    bins
        Number of bins from 0 to 1.

    Returns
    -------
    Statistic
        The mean over images of the gap between confidence and accuracy of their bin.
    """
    member = bin_members(confidence, bins)

    def statistic(weights: Floats) -> Floats:
        gap = weights @ (member * (correct - confidence)[:, None])
        return np.abs(gap).sum(1) / weights.sum(1)

    return statistic


def calibrated_ece(confidence: Floats, bins: int = BINS) -> Draws:
    """Return the calibration errors of an exactly calibrated model, by consistency resampling (Bröcker & Smith 2007).

    In each draw the true class of every image is drawn from its probabilities: the most probable class is right with the
    probability that it has.

    Parameters
    ----------
    confidence
        Highest probability of each image (N,).
    bins
        Number of bins from 0 to 1.

    Returns
    -------
    Draws
        Values of `ece_statistic` of such labels.
    """
    member = bin_members(confidence, bins)

    def draws(seed: int, number: int) -> Floats:
        rng = np.random.default_rng(seed)
        step = max(1, WEIGHTS_AT_A_TIME // len(confidence))
        found = []
        for start in range(0, number, step):
            right = rng.random((min(step, number - start), len(confidence))) < confidence
            found.append(np.abs((right - confidence) @ member).sum(1) / len(confidence))
        return np.concatenate(found)

    return draws


def reliability(confidence: Floats, correct: np.ndarray, bins: int = BINS) -> dict[str, Floats]:
    """Return mean ``confidence``, ``accuracy`` and ``number`` of images of each bin that has any.

    Parameters
    ----------
    confidence
        Highest probability of each image (N,).
    correct
        Whether the class of that probability is the true one (N,).
    bins
        Number of bins from 0 to 1.

    Returns
    -------
    dict
        Three arrays (filled bins,).
    """
    member = bin_members(confidence, bins)
    number = member.sum(0)
    filled = number > 0
    return {
        "confidence": (confidence @ member)[filled] / number[filled],
        "accuracy": (correct.astype(np.float64) @ member)[filled] / number[filled],
        "number": number[filled],
    }


def bin_members(confidence: Floats, bins: int) -> Floats:
    """Return which bin of equal width from 0 to 1 each confidence (N,) is in: 1 there, else 0, (N, bins)."""
    members: Floats = np.eye(bins)[np.minimum((confidence * bins).astype(int), bins - 1)]
    return members


def confusion_matrix(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Count the images of class i that are called j.

    Parameters
    ----------
    predicted, labels
        Class numbers (N,), as predicted and as they are.
    classes
        Number of classes C.

    Returns
    -------
    numpy.ndarray
        Counts (C, C): true classes down, predicted ones across.
    """
    confusion = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    return confusion


def roc_curves(probabilities: Floats, labels: np.ndarray, classes: Sequence[str]) -> dict[str, tuple[Floats, Floats]]:
    """Return the ROC curve of each class against the rest, and ``micro`` and ``macro`` averages.

    Parameters
    ----------
    probabilities
        (N, C).
    labels
        Label numbers (N,), the truth.
    classes
        C names. Those without test images have no curve, nor has any if all images are of one class.

    Returns
    -------
    dict
        False and true positive rates by name.
    """
    onehot = np.eye(len(classes))[labels]
    present = [i for i in range(len(classes)) if 0 < onehot[:, i].sum() < len(labels)]
    curves = {classes[i]: roc_curve(probabilities[:, i], onehot[:, i]) for i in present}
    averages = {
        "micro": roc_curve(probabilities.reshape(-1), onehot.reshape(-1)),
        **({"macro": _macro(list(curves.values()))} if curves else {}),
    }
    return curves | averages


def roc_curve(scores: Floats, positive: Floats) -> tuple[Floats, Floats]:
    """Return false and true positive rates at every distinct threshold, from (0, 0) to (1, 1)."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    true = np.cumsum(positive[order])[last]
    false = np.cumsum(1 - positive[order])[last]
    return np.append(0, false / false[-1]), np.append(0, true / true[-1])


def _macro(curves: list[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    false = np.unique(np.concatenate([curve[0] for curve in curves]))
    true = np.mean([np.interp(false, *curve) for curve in curves], axis=0)
    return np.append(0, false), np.append(0, true)  # where curves rise at once, the first value is not 0
