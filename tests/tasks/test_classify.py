"""Classification: what it makes of labels and probabilities, against scikit-learn, torch and numbers on paper."""

import math

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import auc, confusion_matrix, roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve
from torch.nn import functional

from darklens.data.dataset import Cutouts, DatasetInfo
from darklens.errors import DataError, RecipeError
from darklens.evaluation.bootstrap import Interval
from darklens.evaluation.calibration import Calibration
from darklens.tasks.classify import Classify, LossPhase, is_near_chance

CLASSES = ["no_sub", "cdm", "axion"]
TASK = Classify(class_names=CLASSES)


@pytest.fixture(scope="module")
def skilled():
    """Probabilities (700, 3) of some skill, and labels, of unequal numbers."""
    rng = np.random.default_rng(3)
    labels = rng.choice(3, 700, p=[0.5, 0.2, 0.3])
    logits = 1.3 * np.eye(3)[labels] + rng.normal(0, 1, (700, 3)) + [0.3, 0, -0.2]
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True), labels


def cutouts(labels, classes=()):
    frame = pl.DataFrame({"id": [str(i) for i in range(len(labels))], "label": labels})
    return Cutouts(np.zeros((len(labels), 1, 4, 4), np.float32), frame, DatasetInfo("here", list(classes)))


def test_classes_of_the_dataset_come_in_its_order():
    data = cutouts(["cdm", "axion", "cdm"], classes=["no_sub", "cdm", "axion"])
    task = Classify([LossPhase("focal")]).for_data(data)
    assert task == Classify([LossPhase("focal")], CLASSES)
    assert task.targets(data).tolist() == [1, 2, 1]
    assert list(task.needs.columns) == ["label"]
    assert not task.needs.pairs
    assert not task.needs.unlabelled
    with pytest.raises(DataError, match=r"here: a classification needs at least two classes; there is \['cdm'\]"):
        Classify().for_data(cutouts(["cdm", "cdm"], classes=CLASSES))


def test_images_without_labels_cannot_be_classified():
    frame = pl.DataFrame({"id": ["a", "b"], "z": [0.5, 0.7]})
    with pytest.raises(DataError, match="no column 'label'"):
        Classify().for_data(Cutouts(np.zeros((2, 1, 4, 4), np.float32), frame, DatasetInfo("here")))


def test_own_loss_is_called_with_logits_and_labels_and_averaged(tmp_path):
    (tmp_path / "own.py").write_text("def loss(logits, labels):\n    return logits[:, 0] * 10 + labels\n")
    phase = LossPhase(f"{tmp_path / 'own.py'}:loss")
    assert float(phase(torch.tensor([[1.0, 5.0], [-0.5, 2.0]]), torch.tensor([1, 0]))) == pytest.approx(3.0)


def test_label_smoothing_that_an_own_loss_would_not_see_is_refused():
    with pytest.raises(
        RecipeError, match=r"label_smoothing is for cross-entropy, focal; own\.py:loss would not see it"
    ):
        LossPhase("own.py:loss", label_smoothing=0.1)


def test_focal_loss_is_that_of_its_authors_without_weights():
    """(1 - p)² times the cross-entropy (Lin et al. 2017, eq. 4), smoothed labels included, by numpy."""
    logits, labels = torch.tensor([[2.0, -1.0, 0.3], [0.1, 0.4, -0.7]], dtype=torch.float64), torch.tensor([2, 1])
    p = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    smooth = np.full((2, 3), 0.3 / 3)
    smooth[[0, 1], labels] += 0.7
    expected = ((1 - p[[0, 1], labels]) ** 2 * -(smooth * np.log(p)).sum(1)).mean()
    assert float(LossPhase("focal", label_smoothing=0.3)(logits, labels)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("starts", [[], [2], [1, 1], [1, 5, 3]])
def test_phases_out_of_order_are_refused(starts):
    with pytest.raises(RecipeError, match="phases of the loss begin at epoch 1 and go on in order; got"):
        Classify([LossPhase(from_epoch=start) for start in starts])


def test_phase_ends_where_the_next_begins():
    task = Classify([LossPhase(label_smoothing=0.1), LossPhase(label_smoothing=0.5, from_epoch=2)], CLASSES)
    logits, labels = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([2])
    for epoch, smoothing in ((1, 0.1), (2, 0.5), (7, 0.5)):
        expected = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        torch.testing.assert_close(task.loss(logits, labels, epoch), expected)


def test_validation_metrics_are_those_of_scikit_learn(skilled):
    p, labels = skilled
    metrics = TASK.validation_metrics()
    assert list(metrics) == ["accuracy", "auc"]
    for metric in metrics.values():
        for part in np.array_split(np.arange(700), 3):
            metric.update(torch.from_numpy(p[part]), torch.from_numpy(labels[part]))
    assert float(metrics["accuracy"].compute()) == pytest.approx((p.argmax(1) == labels).mean(), abs=1e-6)
    expected = roc_auc_score(labels, p, multi_class="ovr", average="macro")
    assert float(metrics["auc"].compute()) == pytest.approx(expected, abs=1e-4)


def test_calibration_divides_logits_that_are_too_sure():
    """Logits that are three times too sure get a temperature of about three; scores are 1 - p of the truth, sorted."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (4000, 3))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([rng.choice(3, p=row) for row in p])
    found = TASK.calibrate(torch.from_numpy(3 * logits), torch.from_numpy(labels))
    assert found.temperature == pytest.approx(3, rel=0.1)
    warm = np.exp(3 * logits / found.temperature)
    warm /= warm.sum(1, keepdims=True)
    np.testing.assert_allclose(found.scores, np.sort(1 - warm[np.arange(4000), labels]), atol=1e-5)


def test_prediction_sets_need_scores():
    """Of 99 scores the 90th (0.736) bounds sets of 90%, so that classes of a probability above 0.264 belong to them."""
    p = np.array([[0.7, 0.25, 0.05], [0.4, 0.35, 0.25]])
    assert TASK.prediction_sets(p, Calibration(), 0.9) is None
    scores = np.linspace(0.1, 0.8, 99).tolist()
    assert TASK.prediction_sets(p, Calibration(1.0, scores), 0.9).tolist() == [
        [True, False, False],
        [True, True, False],
    ]
    assert TASK.prediction_sets(p, Calibration(1.0, scores), 0.5).tolist() == [[True, False, False]] * 2


def test_uncalibrated_is_the_logarithm_and_never_infinite():
    found = TASK.uncalibrated(torch.tensor([[0.25, 0.0]], dtype=torch.float64))
    assert found.tolist() == [pytest.approx([math.log(0.25), math.log(1e-12)])]


def test_columns_of_no_images_keep_their_types():
    columns = TASK.columns(np.zeros((0, 3)), np.zeros((0, 3), bool))
    assert columns["predicted"].dtype == columns["set"].dtype == pl.String
    assert "set" not in TASK.columns(np.zeros((0, 3)), None)


def test_details_are_what_scikit_learn_computes(skilled):
    p, labels = skilled
    details = TASK.details(p, labels)
    assert details["classes"] == CLASSES
    assert details["confusion"] == confusion_matrix(labels, p.argmax(1)).tolist()
    assert set(details["roc"]) >= {*CLASSES, "macro"}
    for i, name in enumerate(CLASSES):
        curve = details["roc"][name]
        false, true, _ = sklearn_roc_curve(labels == i, p[:, i])
        assert auc(curve["fpr"], curve["tpr"]) == pytest.approx(auc(false, true), abs=2e-3)
        assert (curve["fpr"][0], curve["tpr"][0]) == (0, 0)
        assert (curve["fpr"][-1], curve["tpr"][-1]) == (1, 1)
        assert 100 < len(curve["fpr"]) <= 400
        assert all(x == round(x, 5) for x in curve["fpr"] + curve["tpr"])
    bins = details["reliability"]
    highest = p.max(1)
    lowest_bin = highest < bins["confidence"][0] + (bins["confidence"][1] - bins["confidence"][0]) / 2
    assert sum(bins["number"]) == 700
    assert np.average(bins["confidence"], weights=bins["number"]) == pytest.approx(highest.mean())
    assert np.average(bins["accuracy"], weights=bins["number"]) == pytest.approx((p.argmax(1) == labels).mean())
    assert lowest_bin.any()


def test_thinned_curve_is_dense_where_it_is_steep():
    """Scores that rank perfectly but for the last images: the curve rises at 0 and then runs flat."""
    labels = np.repeat([0, 1], 2000)
    score = np.linspace(0.01, 0.99, 4000)
    score[1990:2010] = score[1990:2010][::-1]
    curve = Classify(class_names=["a", "b"]).details(np.column_stack([1 - score, score]), labels)["roc"]["b"]
    assert len(curve["fpr"]) == pytest.approx(400, abs=3)
    assert np.mean(np.array(curve["fpr"]) < 0.01) == pytest.approx(0.5, abs=0.02), "half of its length is the rise"
    steps = np.hypot(np.diff(curve["fpr"]), np.diff(curve["tpr"]))
    assert steps.max() < 3 * 2 / 400


def test_panels_draw_what_the_evaluation_holds(skilled):
    p, labels = skilled
    figures = {name: {"value": 0.81, "low": 0.7, "high": 0.9} for name in ("macro_auc", *(f"auc_{c}" for c in CLASSES))}
    figures["ece"] = {"value": 0.81, "if_calibrated": {"low": 0.7, "high": 0.9, "p": 0.5}}
    details = TASK.details(p, labels)
    drawn = TASK.panels(details | {"figures": figures}, p, labels)
    titles = [figure.axes[0].get_title() for figure in drawn]
    assert titles == ["ROC, one class against the rest", "Confusion", "Calibration"]
    roc, confusion, calibration = (figure.axes[0] for figure in drawn)
    np.testing.assert_allclose(roc.lines[1].get_xydata(), np.column_stack(list(details["roc"]["cdm"].values())))
    assert roc.lines[1].get_label() == "cdm  0.8100 [0.7000, 0.9000]"
    counts = confusion_matrix(labels, p.argmax(1))
    np.testing.assert_allclose(confusion.images[0].get_array(), counts / counts.sum(1, keepdims=True))
    assert [text.get_text() for text in confusion.get_xticklabels()] == CLASSES
    assert "ECE 0.8100 (0.7000 to 0.9000 if calibrated)" in {text.get_text() for text in calibration.texts}
    compared = TASK.comparison_panels(
        {"1  mine": details, "2  other": details | {"roc": {"macro": details["roc"]["cdm"]}}}
    )
    assert len(compared) == 1
    first, second = compared[0].axes[0].lines
    np.testing.assert_allclose(first.get_ydata(), details["roc"]["macro"]["tpr"])
    np.testing.assert_allclose(second.get_ydata(), details["roc"]["cdm"]["tpr"])
    assert [first.get_label(), second.get_label()] == ["1  mine", "2  other"]
    plt.close("all")


def test_gallery_shows_four_of_a_class_and_twelve_mistakes():
    truth = np.repeat([0, 2], [20, 5])
    p = np.zeros((25, 3))
    p[:, 1] = np.linspace(0.4, 0.9, 25)
    p[:, 0] = 1 - p[:, 1]
    p[3] = [0.91234567, 0.05, 0.03765433]
    gallery = TASK.gallery(p, truth)
    assert gallery.examples == [0, 1, 2, 3, 20, 21, 22, 23]
    assert gallery.captions == ["no_sub"] * 4 + ["axion"] * 4
    assert gallery.mistakes == list(range(24, 12, -1))
    assert gallery.called == ["cdm"] * 12
    assert gallery.truths == ["axion"] * 5 + ["no_sub"] * 7
    assert gallery.confidence[:2] == [0.9, round(0.9 - 0.5 / 24, 4)]
    assert (gallery.explained, gallery.explained_outputs) == ([0, 20], [0, 2])
    assert gallery.explained_captions == ["no_sub", "axion"]


def test_nothing_stands_out_up_to_a_twentieth_above_guessing():
    p = np.full((10, 2), 0.5)
    p[4] = [0.455, 0.545]
    assert TASK.notes(p) == [
        "no class stands out in any image: the highest probability is 0.545, and guessing gives 0.500; the model may "
        "have learned nothing (darklens evaluate tells)"
    ]
    p[4] = [0.445, 0.555]
    assert TASK.notes(p) == []


def interval(value, low, high):
    return Interval(value, low, high, n=60)


@pytest.mark.parametrize(
    ("auc_low", "accuracy_low", "begins"),
    [
        (0.5, 0.7, "the model cannot be told from guessing: its macro AUC of 0.600 (0.500 to 0.700) on 60 images"),
        (0.51, 0.5, "the accuracy of 0.800 (0.500 to 0.900) is not above the 0.500 of always saying the most"),
        (0.51, 0.51, None),
    ],
)
def test_intervals_that_hold_guessing_are_a_concern(auc_low, accuracy_low, begins):
    truth = np.repeat([0, 1, 2], [10, 30, 20])
    figures = {"macro_auc": interval(0.6, auc_low, 0.7), "accuracy": interval(0.8, accuracy_low, 0.9)}
    found = TASK.concerns(figures, np.eye(3)[np.roll(truth, 7)], truth)
    assert [sentence.startswith(begins) for sentence in found] == ([True] if begins else [])
    assert not any("calls every image" in sentence for sentence in found), "it calls all three"


@pytest.mark.parametrize(("size", "warned"), [(2.84, False), (2.86, True)])
def test_sets_of_nearly_all_classes_are_a_concern(size, warned):
    truth = np.repeat([0, 1, 2], 20)
    figures = {"macro_auc": interval(0.9, 0.8, 1), "accuracy": interval(0.9, 0.8, 1)}
    found = TASK.concerns(figures | {"set_size": interval(size, 2, 3)}, np.eye(3)[truth], truth)
    assert [s[:38] for s in found] == [f"prediction sets hold {size} of 3 classes"] * warned


@pytest.mark.parametrize(("images", "classes"), [(90, 3), (40, 2), (1000, 5)])
def test_bound_of_chance_is_two_standard_errors_of_mann_and_whitney(images, classes):
    m, n = images / classes, images - images / classes
    bound = 0.5 + 2 * math.sqrt((m + n + 1) / (12 * m * n))
    assert is_near_chance(bound - 1e-6, images, classes)
    assert not is_near_chance(bound + 1e-6, images, classes)


def test_bound_of_chance_of_hardly_any_images_counts_one_of_each_kind():
    """One positive and one negative: an error of sqrt(3 / 12)."""
    assert is_near_chance(1.0, 1, 3)
    assert is_near_chance(1.49, 1, 1)
    assert not is_near_chance(1.51, 1, 1)


def test_training_is_a_concern_by_the_number_of_its_classes():
    """0.6 is near chance for 60 images of ten classes, and not for 600 of two."""
    many = Classify(class_names=list("abcdefghij"))
    assert many.concern_of_training({"auc": 0.6}, 60).startswith(
        "the model cannot be told from guessing: its macro AUC on 60 validation images is 0.600; try more"
    )
    assert Classify(class_names=["a", "b"]).concern_of_training({"auc": 0.6}, 600) is None


def test_what_a_classification_is_for():
    assert TASK.purpose() == "To tell no_sub, cdm, axion in images like those above, to compare networks with"
    assert list(TASK.classes) == list(TASK.output_names) == CLASSES
    assert TASK.outputs == 3
