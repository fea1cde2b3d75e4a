"""Models at chance are called so, and only these."""

import numpy as np
import pytest

from darklens.evaluation.bootstrap import intervals
from darklens.tasks.classify import Classify, is_near_chance
from darklens.tasks.regress import Regress

TASK = Classify(class_names=["no_sub", "cdm", "axion"])
RNG = np.random.default_rng(5)
LABELS = RNG.permutation(np.repeat([0, 1, 2], 200))


def concerns(skill, sets=None, bias=0.0):
    logits = skill * np.eye(3)[LABELS] + RNG.normal(0, 1, (600, 3))
    logits[:, 1] += bias
    p = np.exp(logits)
    p /= p.sum(1, keepdims=True)
    return TASK.concerns(intervals(TASK.metrics(p, LABELS, sets), 600), p, LABELS)


def test_guessing_is_called_guessing():
    found = concerns(0.0)
    assert len(found) == 1
    assert found[0].startswith("the model cannot be told from guessing: its macro AUC of 0.")
    assert "on 600 images is not above 0.5" in found[0]
    assert "always saying the most frequent class gives 0.333" in found[0]
    assert "try more training images or epochs" in found[0]


def test_one_class_for_all_images_is_named():
    assert "it calls every image cdm" in concerns(0.0, bias=50)[0]
    found = concerns(1.0, bias=50)
    assert len(found) == 1
    assert found[0].startswith("the accuracy of 0.333")
    assert "not above the 0.333 of always saying the most frequent class; it calls every image cdm" in found[0]


def test_skill_is_no_concern():
    assert concerns(1.5) == []


def test_worse_than_guessing_is_called_so_too():
    assert "cannot be told from guessing" in concerns(-1.0)[0]


@pytest.mark.parametrize(("share", "warned"), [(1.0, True), (0.97, True), (0.6, False)])
def test_sets_that_hold_all_classes_say_nothing(share, warned):
    found = concerns(1.5, sets=RNG.random((600, 3)) < share)
    assert [s.startswith("prediction sets hold") for s in found] == [True] * warned


def test_regression_no_better_than_the_mean():
    task, true = Regress("log10_mass"), RNG.normal(-23, 0.5, (300, 1))

    def found(predicted):
        return task.concerns(intervals(task.metrics(predicted, true), 300), predicted, true)

    guess = np.full((300, 1), true.mean()) + RNG.normal(0, 0.01, (300, 1))
    assert found(guess)[0].startswith("the model is no better than always saying the mean: R² is ")
    assert found(true + RNG.normal(0, 0.2, (300, 1))) == []


def test_validation_auc_near_chance_has_the_scatter_of_one_without_skill():
    """Of AUCs of random scores about 2% lie above two standard errors; the bound is checked against brute force."""
    images, classes, rounds = 90, 3, 2000
    positive = np.arange(images) < images // classes
    ranks = np.argsort(np.argsort(RNG.random((rounds, images)), axis=1), axis=1) + 1
    wins = ranks[:, positive].sum(1) - positive.sum() * (positive.sum() + 1) / 2
    aucs = wins / (positive.sum() * (~positive).sum())
    above = np.mean([not is_near_chance(auc, images, classes) for auc in aucs])
    assert 0.01 < above < 0.035
    assert is_near_chance(0.4, images, classes)
    assert not is_near_chance(0.9, images, classes)


def test_training_at_chance_is_a_concern_and_skill_is_not():
    assert "its macro AUC on 90 validation images is 0.520" in TASK.concern_of_training({"auc": 0.52}, 90)
    assert TASK.concern_of_training({"auc": 0.9}, 90) is None
    assert TASK.concern_of_training({}, 90) is None
