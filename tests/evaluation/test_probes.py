"""Probes of features: against scikit-learn's own scores of the same folds, and what is left out."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier

from darklens.evaluation import probes
from darklens.evaluation.probes import FOLDS, probe


def images(count=90, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.array(["cdm", "axion", "no_sub"])[np.arange(count) % 3]
    shift = {"cdm": 0.0, "axion": 1.2, "no_sub": -1.2}
    features = rng.normal(size=(count, 4)) * [1, 100, 0.01, 1]
    features[:, 0] += [shift[label] for label in labels]
    return features, labels.tolist()


@pytest.mark.parametrize(
    ("name", "method"), [("linear", LogisticRegression(max_iter=1000)), ("neighbours", KNeighborsClassifier(7))]
)
def test_probes_are_cross_validated_on_standardised_features(name, method):
    features, labels = images()
    names = np.array(labels)
    classes = sorted(set(labels))
    probabilities = np.zeros((len(names), 3))
    for fitted, held in StratifiedKFold(FOLDS, shuffle=True, random_state=4).split(features, names):
        mean, scatter = features[fitted].mean(0), features[fitted].std(0)
        method.fit((features[fitted] - mean) / scatter, names[fitted])
        probabilities[held] = method.predict_proba((features[held] - mean) / scatter)
    found = probe(features, labels, 7, seed=4)
    figures = found.figures[name]
    accuracy = accuracy_score(names, np.array(classes)[probabilities.argmax(1)])
    assert figures["accuracy"].value == pytest.approx(accuracy)
    assert figures["macro_auc"].value == pytest.approx(roc_auc_score(names, probabilities, multi_class="ovr"))
    assert figures["accuracy"].low < accuracy < figures["accuracy"].high
    assert found.classes == {"axion": 30, "cdm": 30, "no_sub": 30}
    assert found.most_frequent == pytest.approx(1 / 3)
    assert figures["accuracy"].value > 0.5


def test_labels_that_say_nothing_are_told_by_chance_alone():
    features, labels = images(300)
    shuffled = np.random.default_rng(1).permutation(labels).tolist()
    figure = probe(features, shuffled, 7).figures["linear"]["macro_auc"]
    assert figure.low < 0.5 < figure.high


def test_images_without_a_label_and_rare_classes_do_not_count():
    features, labels = images()
    changed = [None if row < 10 else "ring" if row in (20, 21) else label for row, label in enumerate(labels)]
    changed[10] = ""
    found = probe(features, changed, 7)
    assert found.notes == ["no probe of ring: a class needs 5 images"]
    assert sum(found.classes.values()) == 90 - 10 - 1 - 2
    kept = [row for row, label in enumerate(changed) if label not in (None, "", "ring")]
    again = probe(features[kept], [changed[row] for row in kept], 7)
    assert again.figures == found.figures


def test_one_class_or_none_is_no_probe():
    features, _ = images(12)
    assert probe(features, ["lens"] * 12, 3).notes == ["no probe: it takes images of two classes at least"]
    assert probe(features, [None] * 12, 3) == probe(features, [], 3)
    assert not probe(features, [], 3).notes


def test_of_many_images_some_of_each_class_are_probed(monkeypatch):
    monkeypatch.setattr(probes, "PROBED", 60)
    found = probe(*images(), 7)
    assert found.classes == {"axion": 20, "cdm": 20, "no_sub": 20}
    assert found.notes == ["probes are of 60 of the images, drawn at random"]


def test_more_neighbours_than_images_are_as_many_as_there_can_be():
    assert set(probe(*images(15), 50).figures) == {"linear", "neighbours"}
