"""Losses, predictions, columns and galleries of the tasks, and what a recipe may say of them."""

import json
import re
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn import functional

from darklens.data.dataset import Cutouts, DatasetInfo
from darklens.errors import DataError, ModelError, RecipeError
from darklens.evaluation.calibration import Calibration
from darklens.tasks.classify import Classify, LossPhase
from darklens.tasks.registry import current_model, current_task, make_task, task_content
from darklens.tasks.regress import Regress

CLASSES = ["no_sub", "cdm", "axion"]


def catalogue(**columns):
    count = len(next(iter(columns.values())))
    frame = pl.DataFrame({"id": [str(i) for i in range(count)], **columns}, strict=False)
    return Cutouts(np.zeros((count, 1, 4, 4), np.float32), frame, DatasetInfo("here"))


def test_losses_by_name():
    torch.manual_seed(0)
    logits, labels = torch.randn(7, 3), torch.tensor([0, 2, 1, 1, 0, 2, 2])
    p = logits.softmax(-1)[torch.arange(7), labels]
    smooth = LossPhase(label_smoothing=0.2)(logits, labels)
    torch.testing.assert_close(smooth, functional.cross_entropy(logits, labels, label_smoothing=0.2))
    torch.testing.assert_close(LossPhase("focal")(logits, labels), (-((1 - p) ** 2) * p.log()).mean())
    with pytest.raises(RecipeError, match=r"no loss 'crossentropy'; there are cross-entropy, focal, and your own"):
        LossPhase("crossentropy")


def test_phases_of_the_loss_take_turns():
    task = Classify([LossPhase(), LossPhase("focal", from_epoch=3)], CLASSES)
    logits, labels = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([1])
    plain, focal = LossPhase()(logits, labels), LossPhase("focal")(logits, labels)
    assert [float(task.loss(logits, labels, epoch)) for epoch in (1, 2, 3, 9)] == pytest.approx(
        [float(plain), float(plain), float(focal), float(focal)]
    )
    assert float(task.validation_loss(logits, labels)) == pytest.approx(float(plain)), "the same in all epochs"
    assert float(plain) != pytest.approx(float(focal))


def test_regression_learns_in_units_of_the_scatter():
    task = Regress("theta_E").fit(np.array([[1.0], [3.0], [5.0]], np.float32))
    assert task.center == [3.0]
    assert task.scale == pytest.approx([np.std([1, 3, 5])])
    output = torch.tensor([[0.0], [1.0]])
    torch.testing.assert_close(task.predictions(output), torch.tensor([[3.0], [3 + np.std([1, 3, 5])]]).float())
    targets = task.predictions(torch.tensor([[0.5], [-1.0]]))
    torch.testing.assert_close(task.loss(output, targets, 1), torch.tensor((0.25 + 4) / 2))
    absolute = Regress("theta_E", "mae", task.center, task.scale)
    torch.testing.assert_close(absolute.loss(output, targets, 1), torch.tensor((0.5 + 2) / 2))


@pytest.mark.parametrize("value", [1.2, 0.0, -23.1])
def test_equal_targets_are_refused_whatever_float32_makes_of_them(value):
    with pytest.raises(DataError, match="every training image has the same theta_E"):
        Regress("theta_E").fit(np.full((500, 1), value, np.float32))


def test_targets_come_from_the_catalogue():
    labelled = catalogue(label=["cdm", "no_sub", "cdm"], theta_E=[1.0, None, 2.0])
    task = Classify().for_data(labelled)
    assert task.class_names == ["cdm", "no_sub"]
    assert task.targets(labelled).tolist() == [0, 1, 0]
    assert task.truth_columns(task.targets(labelled)) == {"true": ["cdm", "no_sub", "cdm"]}
    np.testing.assert_array_equal(Regress("theta_E").targets(labelled), [[1.0], [np.nan], [2.0]])
    with pytest.raises(DataError, match=r"here: a classification needs at least two classes; there is \['cdm'\]"):
        Classify().for_data(catalogue(label=["cdm", "cdm"]))


def test_each_truth_of_several_outputs_is_a_column():
    @dataclass(frozen=True)
    class Position(Regress):
        @property
        def output_names(self):
            return ("source_x", "source_y")

    truth = np.array([[1.0, -2.0], [3.0, 4.0], [5.0, 0.5]])
    columns = Position("source_x").truth_columns(truth)
    assert {name: values.tolist() for name, values in columns.items()} == {
        "true_source_x": [1.0, 3.0, 5.0], "true_source_y": [-2.0, 4.0, 0.5],
    }  # fmt: skip
    assert list(Regress("theta_E").truth_columns(truth[:, :1])) == ["true"]
    assert list(Regress("theta_E").truth_columns(truth)) == ["true_0", "true_1"], "more truths than outputs"


def test_calibration_divides_logits_and_averages_probabilities():
    task = Classify(class_names=CLASSES)
    logits = torch.tensor([[1.0, -2.0, 0.5]])
    warm = task.calibrated(logits, Calibration(2.0))
    np.testing.assert_allclose(warm, functional.softmax(logits.double() / 2, -1))
    both = torch.stack([warm, torch.tensor([[0.2, 0.7, 0.1]]).double()])
    np.testing.assert_allclose(task.averaged(both, Calibration()), both.mean(0), atol=1e-12)
    colder = task.averaged(both, Calibration(0.5))
    np.testing.assert_allclose(colder, both.mean(0) ** 2 / (both.mean(0) ** 2).sum(), atol=1e-9)


def test_columns_captions_and_sets_of_a_classification():
    task = Classify(class_names=CLASSES)
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    columns = task.columns(p, np.array([[True, True, False], [False, False, False]]))
    assert {name: list(values) for name, values in columns.items()} == {
        "predicted": ["no_sub", "axion"], "p_no_sub": [0.7, 0.1], "p_cdm": [0.2, 0.3], "p_axion": [0.1, 0.6],
        "set": ["no_sub|cdm", ""],
    }  # fmt: skip
    assert task.captions(p) == ["no_sub (0.70)", "axion (0.60)"]
    assert task.explained_outputs(p) == [0, 2]


def test_gallery_shows_the_most_confident_mistakes_first():
    task = Classify(class_names=CLASSES)
    truth = np.array([0, 1, 2, 1, 0])
    p = np.array([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7], [0.9, 0.05, 0.05], [0.2, 0.7, 0.1], [0.2, 0.5, 0.3]])
    gallery = task.gallery(p, truth)
    assert list(gallery.mistakes) == [2, 1, 4]
    assert list(zip(gallery.truths, gallery.called, gallery.confidence, strict=True)) == [
        ("axion", "no_sub", 0.9), ("cdm", "axion", 0.7), ("no_sub", "cdm", 0.5),
    ]  # fmt: skip
    assert list(zip(gallery.examples, gallery.captions, strict=True)) == [
        (0, "no_sub"), (4, "no_sub"), (1, "cdm"), (3, "cdm"), (2, "axion"),
    ]  # fmt: skip
    assert list(zip(gallery.explained, gallery.explained_captions, gallery.explained_outputs, strict=True)) == [
        (0, "no_sub", 0), (1, "cdm", 1), (2, "axion", 2),
    ]  # fmt: skip


def test_gallery_of_a_regression_shows_the_largest_errors_first():
    gallery = Regress("m").gallery(np.array([[1.0], [2.5], [-3.0]]), np.array([[1.1], [2.0], [-1.0]]))
    assert list(gallery.mistakes) == [2, 1, 0]
    assert list(gallery.truths) == ["-1.00", "2.00", "1.10"]
    assert list(gallery.called) == ["-3.00", "2.50", "1.00"]
    assert gallery.captions[0] == "m = -1.00"
    assert gallery.captions[-1] == "m = 2.00"


def test_undecided_predictions_are_noted():
    task = Classify(class_names=CLASSES)
    flat = np.full((12, 3), 1 / 3)
    assert "no class stands out in any image: the highest probability is 0.333" in task.notes(flat)[0]
    assert task.notes(flat[:9]) == [], "too few to say"
    flat[5] = [0.5, 0.3, 0.2]
    assert task.notes(flat) == []


@pytest.mark.parametrize("task", [Classify([LossPhase("focal")], CLASSES), Regress("m", "mae", [2.0], [0.5])])
def test_task_survives_its_record(task):
    name = type(task).__name__.lower()
    content = json.loads(json.dumps(task_content(task, name)))
    assert make_task(content, "model", learned=True) == task


BAD = {
    "task is 'clasify'; there are classify, find, regress": {"name": "clasify"},
    "unknown key task.lossses; did you mean task.losses?": {"name": "classify", "lossses": []},
    "unknown key task.losses[0].smoothing; did you mean": {"name": "classify", "losses": [{"smoothing": 0.1}]},
    "unknown key task.class_names": {"name": "classify", "class_names": ["a", "b"]},
    "phases of the loss begin at epoch 1 and go on in order; got [2]": {
        "name": "classify",
        "losses": [{"from_epoch": 2}],
    },
    "a regression needs a target": {"name": "regress"},
    "no loss 'huber'": {"name": "regress", "target": "m", "error": "huber"},
}


@pytest.mark.parametrize(("message", "content"), BAD.items())
def test_bad_task_is_named(message, content):
    with pytest.raises(RecipeError, match=re.escape(f"recipe mine: {message}")):
        make_task(content, "recipe mine")
    with pytest.raises(ModelError, match="model here: "):
        make_task({"name": "nothing"}, "model here", error=ModelError)


def test_records_of_version_0_1_are_read():
    assert current_task("regress", "m", [{"name": "cross-entropy"}]) == {"name": "regress", "target": "m"}
    focal = [{"name": "focal"}]
    assert current_task("classify", None, focal) == {"name": "classify", "losses": focal}
    old = {"task": "regress", "classes": [], "outputs": ["m"], "output_center": [1.5], "output_scale": [2.0]}
    assert make_task(current_model(old)["task"], "model", learned=True) == Regress("m", "mse", [1.5], [2.0])
    old = {"task": "classify", "classes": CLASSES, "outputs": []}
    assert make_task(current_model(old)["task"], "model", learned=True) == Classify(class_names=CLASSES)
