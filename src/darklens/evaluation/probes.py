"""What features are worth for telling classes apart: a linear probe and nearest neighbours, cross-validated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from darklens.data.splits import sample_rows
from darklens.evaluation.bootstrap import Floats, Interval, intervals
from darklens.evaluation.classification import classification_metrics

FOLDS = 5
"""Parts of the images, of which each is predicted by probes that were fitted to the others."""
PROBED = 10_000
"""Images, a random choice of more, on which probes are fitted and tested: intervals are then some thousandths long."""
MEASURED = ("accuracy", "macro_auc")


@dataclass(frozen=True)
class Probes:
    """How well simple methods tell classes by features.

    Attributes
    ----------
    figures
        For ``linear`` and ``neighbours``, accuracy and macro AUC with 95% intervals.
    classes
        Images of each class that was told apart.
    most_frequent
        Accuracy of always naming the most frequent class.
    notes
        What was left out.
    """

    figures: dict[str, dict[str, Interval]] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    most_frequent: float = float("nan")
    notes: list[str] = field(default_factory=list)


def probe(features: Floats, labels: Sequence[str | None], neighbours: int, seed: int = 0) -> Probes:
    """Predict each image's class from features by methods that were fitted to other images, and measure how well.

    Both methods see features that are brought to mean 0 and variance 1 on their training images. The linear probe is a
    logistic regression with scikit-learn's default penalty, and not tuned.

    Parameters
    ----------
    features
        (N, F), finite.
    labels
        Class names, N; None or empty of images without one, which do not count.
    neighbours
        Nearest training images whose classes are counted.
    seed
        Of folds and bootstrap.

    Returns
    -------
    Probes
        Intervals hold the choice of the images, not that of the folds. Without figures if fewer than two classes have an
        image for each of the `FOLDS`.
    """
    labelled = np.array([row for row, label in enumerate(labels) if label], dtype=int)
    names = np.array([str(labels[row]) for row in labelled])
    some = sample_rows(names, PROBED, np.random.default_rng(seed))
    notes = [f"probes are of {len(some):,} of the images, drawn at random"] if len(some) < len(names) else []
    counts = Counter(names[some].tolist())
    few = sorted(name for name, count in counts.items() if count < FOLDS)
    notes += [f"no probe of {', '.join(few)}: a class needs {FOLDS} images"] if few else []
    classes = sorted(name for name in counts if name not in few)
    if len(classes) < 2:
        return Probes(notes=[*notes, "no probe: it takes images of two classes at least"] if counts else [])
    some = some[~np.isin(names[some], few)]
    truth = np.searchsorted(classes, names[some])
    numbers = np.bincount(truth)
    figures = {
        name: _measured(method, features[labelled[some]], truth, classes, seed)
        for name, method in _methods(min(neighbours, len(some) // 2)).items()
    }
    return Probes(figures, dict(zip(classes, numbers.tolist(), strict=True)), float(numbers.max() / len(some)), notes)


def _methods(neighbours: int) -> dict[str, Any]:
    """Methods by name, each with the standardisation of its training images."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return {
        "linear": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        "neighbours": make_pipeline(StandardScaler(), KNeighborsClassifier(neighbours)),
    }


def _measured(
    method: Any, features: Floats, truth: np.ndarray, classes: Sequence[str], seed: int
) -> dict[str, Interval]:
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    probabilities = cross_val_predict(method, features, truth, cv=folds, method="predict_proba")
    metrics = [each for each in classification_metrics(probabilities, truth, classes) if each.key in MEASURED]
    return intervals(metrics, len(truth), seed)
