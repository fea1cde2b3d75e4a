"""Probabilities that can be trusted: one temperature, and prediction sets with a stated coverage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

TEMPERATURE_PRIOR = 0.5
"""Standard deviation of the prior of the logarithm of the temperature: T lies between 0.37 and 2.7 with 95% probability.

Measured with ``benchmarks/calibration.py`` (100 calibration sets of each size, log loss of 6,144 test images). The shipped
model of Model I needs no temperature (0.0161 at T = 1). Fitted to 32 images, of which three sets in four hold no error, it
has 0.0928 without a prior, and 0.0176, 0.0166 and 0.0162 with widths of 1, 0.5 and 0.25. Networks that need T of about 0.3
(0.521 at T = 1, 0.394 at best) have 0.444 without a prior, and 0.420, 0.426 and 0.477. From 512 images on, widths of 0.5
and 1 differ by less than 0.001 in both. A larger width trusts few images more; a smaller one leaves models uncalibrated
that are far from T = 1."""


@dataclass(frozen=True)
class Calibration:
    """What validation images teach of a trained model.

    Attributes
    ----------
    temperature
        What logits are divided by (Guo et al. 2017).
    scores
        One minus the probability of the true class, of every validation image: the nonconformity scores of prediction
        sets.
    """

    temperature: float = 1.0
    scores: list[float] = field(default_factory=list)


def fit_calibration(logits: Tensor, labels: Tensor) -> Calibration:
    """Return the temperature that `fit_temperature` finds for labels (N,) and logits (N, C), and the scores under it."""
    temperature = round(fit_temperature(logits, labels), 5)
    probabilities = (logits.double() / temperature).softmax(-1)
    scores = 1 - probabilities.gather(1, labels[:, None])[:, 0]
    return Calibration(temperature, [round(float(s), 6) for s in scores.sort().values])


def fit_temperature(logits: Tensor, labels: Tensor, prior_width: float = TEMPERATURE_PRIOR) -> float:
    """Return the temperature of the highest posterior probability: likelihood of the labels times a prior.

    Parameters
    ----------
    logits
        (N, C), of images that were not trained on.
    labels
        Label numbers (N,), the truth.
    prior_width
        Standard deviation of the normal prior of log T about 0; infinity leaves the likelihood alone.

    Returns
    -------
    float
        T, between exp(-3) and exp(3).
    """
    from scipy.optimize import minimize_scalar
    from torch.nn.functional import cross_entropy

    logits = logits.double()

    def loss(log_temperature: float) -> float:
        likelihood = float(cross_entropy(logits / np.exp(log_temperature), labels, reduction="sum"))
        return likelihood + 0.5 * (log_temperature / prior_width) ** 2

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def prediction_sets(probabilities: np.ndarray, scores: list[float], coverage: float) -> np.ndarray:
    """Return which classes belong to the prediction set of each image.

    A set holds the truth with probability ``coverage`` if the image is of the kind of the validation images (inductive
    conformal prediction, Vovk et al. 2005). The most probable class is in every set, also where conformal prediction alone
    would leave it empty: that can only raise the coverage.

    Parameters
    ----------
    probabilities
        (N, C).
    scores
        Nonconformity scores of validation images.
    coverage
        From 0 to 1.

    Returns
    -------
    numpy.ndarray
        (N, C) of bool.
    """
    from crepes import ConformalClassifier

    if not len(probabilities):
        return np.zeros(probabilities.shape, dtype=bool)
    conformal = ConformalClassifier().fit(np.asarray(scores))
    sets = conformal.predict_set(1 - probabilities, confidence=coverage, smoothing=False)
    most_probable = np.arange(probabilities.shape[1]) == probabilities.argmax(1)[:, None]
    return np.asarray(sets).astype(bool) | most_probable
