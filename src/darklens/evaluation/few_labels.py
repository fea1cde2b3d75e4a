"""Draw a few labelled images of each class, and classify by a linear probe of features that was fitted to them."""

from __future__ import annotations

import numpy as np

from darklens.errors import DataError
from darklens.evaluation.bootstrap import Floats

STRENGTHS = 9
"""Strengths of the penalty from 1e-4 to 1e4, of which cross-validation within the labelled images chooses one."""
FOLDS = 5
"""Parts of the labelled images in that cross-validation, or as many as the rarest class has images."""


def draw_labelled(labels: np.ndarray, number: int | None, draw: int, seed: int = 0) -> np.ndarray:
    """Draw the same number of images of each class at random, and return their rows in ascending order.

    Draws are nested: the images of a smaller number are among those of a larger one with the same ``draw`` and ``seed``.

    Parameters
    ----------
    labels
        Label number of each image, (N,).
    number
        Images of each class, at least 2; None takes all, whatever the draw.
    draw, seed
        Which draw.

    Returns
    -------
    np.ndarray
        Row numbers.

    Raises
    ------
    DataError
        If a class has fewer images.
    """
    if number is None:
        return np.arange(len(labels))
    rng = np.random.default_rng([seed, draw])
    found = []
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        if len(rows) < number:
            raise DataError(f"{number} labelled images of each class were asked for; one class has {len(rows)}")
        found.append(rows[:number])
    return np.sort(np.concatenate(found))


def linear_probe(features: Floats, labels: np.ndarray, others: Floats, classes: int) -> Floats:
    """Fit a logistic regression to features of labelled images, and return probabilities (M, classes) of others.

    Features are brought to mean 0 and variance 1 on the labelled images. The strength of the penalty is that of the highest
    likelihood in cross-validation within these.

    Parameters
    ----------
    features
        Of labelled images, (N, F).
    labels
        Their label numbers (N,), 0 to ``classes`` - 1, at least two of each that occurs.
    others
        Features (M, F) of the images to classify.
    classes
        Number of classes; one that no labelled image has gets the probability 0.

    Returns
    -------
    np.ndarray
        Probabilities (M, classes), whose sum is 1.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    known, counts = np.unique(labels, return_counts=True)
    folds = StratifiedKFold(min(FOLDS, int(counts.min())), shuffle=True, random_state=0)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    strengths = {"logisticregression__C": np.logspace(-4, 4, STRENGTHS)}
    fitted = GridSearchCV(probe, strengths, scoring="neg_log_loss", cv=folds).fit(features, labels)
    probabilities = np.zeros((len(others), classes))
    probabilities[:, known] = fitted.predict_proba(others)
    return probabilities
