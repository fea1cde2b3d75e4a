"""Searches: probabilities for a stated prior, against Bayes' theorem and scikit-learn."""

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.metrics import roc_auc_score

from darklens.data.dataset import Cutouts, DatasetInfo
from darklens.errors import DataError, RecipeError
from darklens.evaluation.bootstrap import Interval, intervals
from darklens.evaluation.calibration import Calibration
from darklens.tasks.find import Find

TASK = Find(class_names=["nonlens", "lens"], prior=0.01, share=0.4)
LOGITS = torch.tensor([[0.3, -0.4], [-1.0, 2.5], [0.0, 0.0]])


def cutouts(labels, classes=()):
    frame = pl.DataFrame({"id": [str(i) for i in range(len(labels))], "label": labels})
    return Cutouts(np.zeros((len(labels), 1, 4, 4), np.float32), frame, DatasetInfo("here", list(classes)))


@pytest.mark.parametrize("classes", [[], ["lens", "nonlens"], ["nonlens", "lens"]])
def test_lens_is_the_second_output_whatever_the_order_of_the_labels(classes):
    data = cutouts(["lens", "nonlens", "nonlens"], classes)
    task = Find().for_data(data)
    assert task.class_names == ["nonlens", "lens"]
    assert task.targets(data).tolist() == [1, 0, 0]
    other = Find(positive="yes").for_data(cutouts(["no", "yes", "no"]))
    assert other.class_names == ["no", "yes"]


def test_labels_beyond_two_are_refused():
    with pytest.raises(DataError, match=r"here: has the labels lens, ring, spiral; a search needs two, 'lens' and one"):
        Find().for_data(cutouts(["ring", "spiral", "lens"]))
    with pytest.raises(
        DataError, match=r"here: has the labels no, yes; a search needs two, 'lens' and one for all else"
    ):
        Find().for_data(cutouts(["no", "yes"]))
    with pytest.raises(DataError, match="at least two classes"):
        Find().for_data(cutouts(["lens", "lens"]))


@pytest.mark.parametrize("prior", [0.0, 1.0, -0.5, 7.0])
def test_a_prior_that_is_no_fraction_is_refused(prior):
    with pytest.raises(
        RecipeError, match=r"prior is .*; expected the fraction of lenses, above 0 and below 1, or null"
    ):
        Find(prior=prior)


def test_fraction_of_lenses_is_learned_from_the_training_images():
    assert Find().fit(np.array([0, 1, 0, 0])).share == 0.25
    assert Find(prior=None).fit(np.array([0, 1, 0, 0])).stated_prior == 0.25
    assert Find(prior=0.003).fit(np.array([0, 1])).stated_prior == 0.003
    for labels, message in (([0, 0], "no training image is a lens"), ([1, 1], "every training image is a lens")):
        with pytest.raises(DataError, match=message):
            Find().fit(np.array(labels))


def test_probabilities_are_those_at_the_prior_by_bayes():
    found = TASK.calibrated(LOGITS, Calibration(temperature=2.0)).numpy()
    among_training = (LOGITS.double() / 2).softmax(-1).numpy()
    weighed = among_training * [0.99 / 0.6, 0.01 / 0.4]
    assert_allclose(found, weighed / weighed.sum(1, keepdims=True), rtol=1e-12)
    assert_allclose(TASK.uncalibrated(torch.from_numpy(found)).softmax(-1), among_training, rtol=1e-10)
    own = Find(class_names=TASK.class_names, prior=None, share=0.4)
    assert_allclose(own.calibrated(LOGITS, Calibration(2.0)), among_training, rtol=1e-12)


def test_half_of_the_objects_at_one_half_are_lenses():
    """Logits of a classifier that is calibrated among the training images, applied where 1% are lenses."""
    rng = np.random.default_rng(0)
    lens = rng.random(2_000_000) < 0.01
    x = rng.normal(np.where(lens, 3.0, 0), 1)
    logits = np.column_stack([np.zeros(len(x)), 3 * x - 3**2 / 2 + np.log(0.4 / 0.6)])
    probability = TASK.calibrated(torch.from_numpy(logits), Calibration()).numpy()[:, 1]
    near = np.abs(probability - 0.5) < 0.1
    assert near.sum() > 1000
    assert lens[near].mean() == pytest.approx(probability[near].mean(), abs=0.06)
    assert probability.sum() == pytest.approx(20_000, rel=0.05)
    assert TASK.notes(np.column_stack([1 - probability, probability]))[0].startswith(
        "probabilities are for objects of which a fraction of 0.01 are lenses (--prior states another); they"
    )


def test_an_ensemble_is_shifted_to_the_prior_once():
    """Members are averaged among the training images: at a small prior the most confident one would decide alone."""
    other = LOGITS * torch.tensor([1.0, -2.0])
    among_training = torch.stack([LOGITS.double().softmax(-1), other.double().softmax(-1)]).mean(0).numpy()
    weighed = among_training * [0.99 / 0.6, 0.01 / 0.4]
    members = torch.stack([TASK.calibrated(LOGITS, Calibration()), TASK.calibrated(other, Calibration())])
    found = TASK.averaged(members, Calibration())
    assert_allclose(found, weighed / weighed.sum(1, keepdims=True), rtol=1e-9)


def test_prediction_sets_hold_the_truth_as_often_as_promised():
    rng = np.random.default_rng(6)
    labels = torch.from_numpy((rng.random(6000) < 0.4).astype(np.int64))
    logits = torch.from_numpy(rng.normal(0, 1, (6000, 2)) + 1.2 * np.eye(2)[labels])
    calibration = TASK.calibrate(logits[:3000], labels[:3000])
    predicted = TASK.calibrated(logits[3000:], calibration).numpy()
    sets = TASK.prediction_sets(predicted, calibration, 0.9)
    assert sets[np.arange(3000), labels[3000:]].mean() == pytest.approx(0.9, abs=0.02)
    assert TASK.prediction_sets(predicted, Calibration(), 0.9) is None


@pytest.fixture(scope="module")
def searched():
    """Probabilities (2000, 2) at the prior, and which images are lenses."""
    rng = np.random.default_rng(11)
    truth = (rng.random(2000) < 0.3).astype(int)
    logits = np.column_stack([np.zeros(2000), rng.normal(0, 1, 2000) + 3.0 * truth - 1.5])
    return TASK.calibrated(torch.from_numpy(logits), Calibration()).numpy(), truth


def test_figures_are_those_of_a_search(searched):
    predicted, truth = searched
    found = {m.key: float(m.statistic(np.ones((1, 2000)))[0]) for m in TASK.metrics(predicted, truth)}
    assert found["auc"] == pytest.approx(roc_auc_score(truth, predicted[:, 1]))
    # Ten negatives are needed at a rate of 0.001, and here are fewer.
    assert {TASK.ranking, *TASK.headlines} - {"recall_fpr_0.001"} <= set(found)
    highest = predicted[truth == 0, 1].max()
    assert found["tpr0"] == pytest.approx((predicted[truth == 1, 1] > highest).mean())


def test_what_makes_figures_meaningless_is_said(searched):
    predicted, truth = searched
    good = intervals(TASK.metrics(predicted, truth), 2000)
    common = Find(class_names=TASK.class_names, prior=0.4, share=0.4)
    assert common.concerns(good, TASK.uncalibrated(torch.from_numpy(predicted)).softmax(-1).numpy(), truth) == []
    assert TASK.concerns(good, predicted[:5], np.zeros(5, int)) == [
        "all images are nonlens: how well lenses are found cannot be measured"
    ]
    chance = good | {"auc": Interval(0.51, 0.47, 0.55, 2000)}
    assert TASK.concerns(chance, predicted, truth)[0].startswith(
        "the model cannot be told from guessing: its AUC of 0.510 (0.470 to 0.550) on"
    )
    rare = Find(class_names=TASK.class_names, prior=1e-4, share=0.4)
    assert "say little of a search among 10,000 objects for each lens" in rare.concerns(good, predicted / 4, truth)[0]


def test_charts_show_the_curves(searched):
    predicted, truth = searched
    details = TASK.details(predicted, truth)
    assert (details["lenses"], details["others"], details["prior"]) == (truth.sum(), (truth == 0).sum(), 0.01)
    evaluation = details | {
        "figures": {m: i.record() for m, i in intervals(TASK.metrics(predicted, truth), 2000).items()}
    }
    roc, purity, *_ = TASK.panels(evaluation, predicted, truth)
    (line,) = [each for each in roc.axes[0].lines if len(each.get_xdata()) > 2]
    assert roc.axes[0].get_xscale() == "log"
    area = np.trapezoid(details["search"]["tpr"], details["search"]["fpr"])
    assert area == pytest.approx(roc_auc_score(truth, predicted[:, 1]), abs=1e-9)
    assert_allclose(line.get_ydata(), details["search"]["tpr"])
    (line,) = purity.axes[0].lines
    complete, pure = line.get_xdata(), line.get_ydata()
    false = np.asarray(details["search"]["fpr"])[np.asarray(details["search"]["tpr"]) > 0]
    assert_allclose(pure, 0.01 * complete / (0.01 * complete + 0.99 * false))
    both = TASK.comparison_panels({"one": evaluation, "other": evaluation})[0]
    assert [text.get_text() for text in both.axes[0].get_legend().get_texts()] == ["one", "other"]
    plt.close("all")


def test_purity_without_a_false_positive_is_given_with_its_lower_bound():
    """Two of four lenses above 1/2 and none of 300 others: the rate of false positives is at most 3 / 300 (95%)."""
    lens = np.concatenate([[0.9, 0.8, 0.3, 0.2], np.linspace(0.001, 0.1, 300)])
    predicted, truth = np.column_stack([1 - lens, lens]), np.repeat([1, 0], [4, 300])
    figures = intervals(TASK.metrics(predicted, truth), 304)
    assert figures["purity"].value == 1
    (said,) = TASK.concerns(figures, predicted, truth)
    least = 0.01 * 0.5 / (0.01 * 0.5 + 0.99 * 0.01)
    assert f"purity is measured as 1, and can be as low as {least:.2g} (95%)" in said


def test_gallery_holds_the_highest_others_and_the_lowest_lenses(searched):
    predicted, truth = searched
    shown = TASK.gallery(predicted, truth)
    lens = predicted[:, 1]
    assert shown.truths == ["nonlens"] * 6 + ["lens"] * 6
    assert sorted(lens[shown.mistakes[:6]]) == sorted(np.sort(lens[truth == 0])[-6:])
    assert sorted(lens[shown.mistakes[6:]]) == sorted(np.sort(lens[truth == 1])[:6])
    assert_allclose(shown.confidence, lens[shown.mistakes], atol=1e-4)
    assert shown.captions == ["nonlens"] * 4 + ["lens"] * 4


def test_captions_and_what_is_explained(searched):
    assert TASK.captions(np.array([[0.9988, 0.0012], [0.25, 0.75]])) == ["lens 0.0012", "lens 0.75"]
    assert TASK.explained_outputs(searched[0][:3]) == [1, 1, 1]
    assert "fraction of 0.01 are lenses" in TASK.purpose()


def test_a_balanced_loss_weighs_both_labels_alike_and_teaches_the_same_probabilities():
    """Of one number that tells little, a logistic regression learns the probability among the training images."""
    rng = np.random.default_rng(2)
    labels = torch.from_numpy((rng.random(40_000) < 0.05).astype(np.int64))
    value = torch.from_numpy(rng.normal(0, 1, 40_000)) + labels
    share = float(labels.double().mean())
    for balance in (False, True):
        task = Find(class_names=["nonlens", "lens"], share=share, balance=balance)
        weights = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([weights], max_iter=60)

        def closure(task=task, weights=weights, optimizer=optimizer):
            optimizer.zero_grad()
            logit = weights[0] + weights[1] * value
            loss = task.loss(torch.stack([torch.zeros_like(logit), logit], 1), labels, 1)
            loss.backward()
            return loss

        optimizer.step(closure)
        # The log odds are those of the prior, and of two normal distributions one apart.
        assert_allclose(weights.detach(), [np.log(share / (1 - share)) - 0.5, 1.0], atol=0.06)
    logits, targets = torch.tensor([[0.0, 1.0], [0.0, -2.0], [0.0, 0.5]]), torch.tensor([1, 0, 0])
    task = Find(class_names=["nonlens", "lens"], share=0.2, balance=True)
    shifted = logits - torch.tensor([0.0, np.log(0.25)])
    each = -shifted.log_softmax(1)[torch.arange(3), targets]
    assert float(task.loss(logits, targets, 1)) == pytest.approx(
        float((each * torch.tensor([2.5, 0.625, 0.625])).mean())
    )
    only = task.loss(logits[1:], targets[1:], 1)
    assert float(only) == pytest.approx(float((each[1:] * 0.625).mean()))
