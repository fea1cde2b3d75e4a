"""Figures of classifiers: accuracy, areas under ROC curves, calibration, confusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from darklens.evaluation.bootstrap import Figure, Floats, Interval, intervals

BINS = 15


@dataclass(frozen=True)
class Classified:
    """Everything that a report says of a classifier on one test set.

    ``confusion[i, j]`` counts images of class i called j. ``roc`` maps each class, ``micro`` and ``macro`` to false and
    true positive rates. ``reliability`` has confidence, accuracy and number of images of each filled bin.
    """

    classes: list[str]
    figures: dict[str, Interval]
    confusion: np.ndarray
    roc: dict[str, tuple[Floats, Floats]]
    reliability: dict[str, Floats]


def evaluate_classification(
    probabilities: Floats, labels: np.ndarray, classes: Sequence[str], seed: int = 0, sets: np.ndarray | None = None
) -> Classified:
    """Evaluate probabilities (N, C) against label numbers (N,).

    AUC of a class is one against the rest; macro is their mean over classes, micro pools all class decisions. A class
    without test images has no AUC, and macro is over the others. ``sets`` (N, C) of bool are prediction sets: ``coverage``
    is how many hold the truth, ``set_size`` how many classes they hold.
    """
    onehot = np.eye(len(classes))[labels]
    predicted = probabilities.argmax(1)
    present = [i for i in range(len(classes)) if 0 < onehot[:, i].sum() < len(labels)]
    per_class = {i: auc_figure(probabilities[:, i], onehot[:, i]) for i in present}
    figures: dict[str, Figure] = {
        "accuracy": mean_figure((predicted == labels).astype(np.float64)),
        "macro_auc": lambda w: np.mean([figure(w) for figure in per_class.values()], axis=0),
        "micro_auc": _pooled(probabilities, onehot),
        **{f"auc_{classes[i]}": figure for i, figure in per_class.items()},
        "ece": ece_figure(probabilities.max(1), predicted == labels),
        "log_loss": mean_figure(-np.log(np.clip(probabilities[np.arange(len(labels)), labels], 1e-12, 1))),
    }
    if sets is not None:
        figures["coverage"] = mean_figure(sets[np.arange(len(labels)), labels].astype(np.float64))
        figures["set_size"] = mean_figure(sets.sum(1).astype(np.float64))
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    curves = {classes[i]: roc_curve(probabilities[:, i], onehot[:, i]) for i in present}
    curves["micro"] = roc_curve(probabilities.reshape(-1), onehot.reshape(-1))
    curves["macro"] = _macro(list(curves.values())[:-1])
    found = intervals(figures, len(labels), seed)
    return Classified(list(classes), found, confusion, curves, reliability(probabilities.max(1), predicted == labels))


def mean_figure(values: Floats) -> Figure:
    """A mean over images."""
    return lambda weights: weights @ values / weights.sum(1)


def auc_figure(scores: Floats, positive: Floats) -> Figure:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half."""
    _, group = np.unique(scores, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    sorted_positive = positive[order]

    def figure(weights: Floats) -> Floats:
        w = weights[:, order]
        # Weight of positives and negatives at each distinct score.
        ties_positive = np.add.reduceat(w * sorted_positive, starts, axis=1)
        ties_negative = np.add.reduceat(w * (1 - sorted_positive), starts, axis=1)
        below = np.cumsum(ties_negative, axis=1) - ties_negative
        wins = (ties_positive * (below + ties_negative / 2)).sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return wins / (ties_positive.sum(1) * ties_negative.sum(1))

    return figure


def _pooled(probabilities: Floats, onehot: Floats) -> Figure:
    figure = auc_figure(probabilities.reshape(-1), onehot.reshape(-1))
    return lambda weights: figure(np.repeat(weights, probabilities.shape[1], axis=1))


def ece_figure(confidence: Floats, correct: np.ndarray, bins: int = BINS) -> Figure:
    """Expected calibration error over equal-width bins of confidence (Guo et al. 2017)."""
    member = np.eye(bins)[_bin(confidence, bins)]

    def figure(weights: Floats) -> Floats:
        gap = weights @ (member * (correct - confidence)[:, None])
        return np.abs(gap).sum(1) / weights.sum(1)

    return figure


def reliability(confidence: Floats, correct: np.ndarray, bins: int = BINS) -> dict[str, Floats]:
    """Mean confidence, accuracy and number of images in each bin that has any."""
    member = np.eye(bins)[_bin(confidence, bins)]
    number = member.sum(0)
    filled = number > 0
    return {
        "confidence": (confidence @ member)[filled] / number[filled],
        "accuracy": (correct.astype(np.float64) @ member)[filled] / number[filled],
        "number": number[filled],
    }


def _bin(confidence: Floats, bins: int) -> np.ndarray:
    return np.minimum((confidence * bins).astype(int), bins - 1)


def roc_curve(scores: Floats, positive: Floats) -> tuple[Floats, Floats]:
    """False and true positive rates at every distinct threshold, from (0, 0) to (1, 1)."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    true = np.cumsum(positive[order])[last]
    false = np.cumsum(1 - positive[order])[last]
    return np.append(0, false / false[-1]), np.append(0, true / true[-1])


def _macro(curves: list[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    false = np.unique(np.concatenate([curve[0] for curve in curves]))
    return false, np.mean([np.interp(false, *curve) for curve in curves], axis=0)
