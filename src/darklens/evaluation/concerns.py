"""Results that a reader must be warned of: models that cannot be told from guessing, sets that say nothing."""

from __future__ import annotations

import math

from darklens.evaluation.classification import Classified
from darklens.evaluation.regression import Regressed

FULL_SETS = 0.95
"""Prediction sets that hold more than this share of the classes in the mean are said to exclude nothing."""
TRY = (
    "try more training images or epochs, a learning rate three times lower or higher, or pretrained weights where the "
    "recipe has them"
)


def concerns(result: Classified | Regressed) -> list[str]:
    """Return what is wrong with a result, in sentences for whoever reads it; an empty list if nothing is.

    A classifier cannot be told from guessing where the 95% interval of its macro AUC holds 0.5, a regression where that of
    R² holds 0, as the mean of the truths has.
    """
    if isinstance(result, Regressed):
        r2 = result.figures["r2"]
        if r2.low > 0:
            return []
        return [
            f"the model is no better than always saying the mean: R² is {r2.value:.3f} ({r2.low:.3f} to {r2.high:.3f}) on "
            f"{r2.n:,} images; {TRY}"
        ]
    return [*_guessing(result), *_full_sets(result)]


def _guessing(result: Classified) -> list[str]:
    auc, accuracy = result.figures["macro_auc"], result.figures["accuracy"]
    called = result.confusion.sum(0)
    always = f"; it calls every image {result.classes[int(called.argmax())]}" if (called > 0).sum() == 1 else ""
    share = result.confusion.sum(1).max() / result.confusion.sum()
    if auc.low <= 0.5:
        return [
            f"the model cannot be told from guessing: its macro AUC of {auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f}) "
            f"on {auc.n:,} images is not above 0.5, and its accuracy is {accuracy.value:.3f} where always saying the most "
            f"frequent class gives {share:.3f}{always}; {TRY}"
        ]
    if accuracy.low <= share:
        return [
            f"the accuracy of {accuracy.value:.3f} ({accuracy.low:.3f} to {accuracy.high:.3f}) is not above the "
            f"{share:.3f} of always saying the most frequent class{always}; {TRY}"
        ]
    return []


def _full_sets(result: Classified) -> list[str]:
    size = result.figures.get("set_size")
    if size is None or size.value < FULL_SETS * len(result.classes):
        return []
    return [
        f"prediction sets hold {size.value:.2f} of {len(result.classes)} classes in the mean: they exclude nothing; a "
        "lower --coverage makes them smaller, a better model too"
    ]


def is_near_chance(auc: float, images: int, classes: int) -> bool:
    """Return whether a macro AUC over so many images, as many of each class, is within two standard errors of 0.5.

    The standard error is that of one class against the rest without any skill (Mann & Whitney 1947).
    """
    positive = max(1.0, images / classes)
    negative = max(1.0, images - positive)
    error = math.sqrt((positive + negative + 1) / (12 * positive * negative))
    return auc < 0.5 + 2 * error
