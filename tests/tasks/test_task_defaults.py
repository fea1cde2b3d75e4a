"""What a task has that says nothing of its own beyond what it must."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from darklens.data.preprocessing import Preprocessing
from darklens.evaluation.bootstrap import Interval, Metric, mean_statistic
from darklens.evaluation.calibration import Calibration
from darklens.tasks.base import Gallery, Goal, Needs, Task, learned, options_of
from darklens.tasks.optimization import LearningOptions
from darklens.tasks.supervised import SupervisedModule


@dataclass(frozen=True)
class Two(Task):
    """Two numbers; its loss grows with the epoch."""

    width: float = 1.0
    mean: float = learned(default=0.5)
    spread: list[float] = learned(factory=lambda: [2.0])

    ranking: ClassVar[str] = "mse"

    def targets(self, cutouts):
        return np.zeros((len(cutouts), 2))

    @property
    def output_names(self):
        return ("g", "h")

    def loss(self, output, targets, epoch):
        return (output - targets).abs().mean() * epoch

    def metrics(self, predicted, truth, sets=None):
        return []


@dataclass(frozen=True)
class Pictures(Two):
    """The same, of images."""

    predicts: ClassVar[str] = "images"


PREDICTED = np.array([[0.126, -3.0], [2.0, 41.5], [0.0, -0.004]])


def test_fields_that_are_learned_are_no_options():
    assert options_of(Two) == ["width"]
    assert (Two().mean, Two().spread) == (0.5, [2.0])
    assert Two().spread is not Two().spread
    assert Two(mean=3.0).mean == 3.0


def test_nothing_is_needed_nor_learned_of_data():
    task = Two()
    assert task.needs == Needs((), pairs=False, unlabelled=False)
    assert task.for_data(SimpleNamespace()) is task
    assert task.fit(PREDICTED) is task
    assert task.outputs == 2
    assert task.classes == ()


def test_predictions_are_the_output():
    task, output = Two(), torch.tensor([[1.25, -2.0]])
    assert task.predictions(output) is output
    calibrated = task.calibrated(output, Calibration(5.0))
    assert calibrated.dtype == torch.float64
    assert calibrated.tolist() == [[1.25, -2.0]]
    assert task.calibrate(output, output) == Calibration(1.0, [])
    members = torch.tensor([[[1.0, 4.0]], [[2.0, -4.0]], [[6.0, 3.0]]])
    assert task.averaged(members, Calibration(5.0)).tolist() == [[3.0, 1.0]]
    assert task.uncalibrated(output) is output
    assert task.prediction_sets(PREDICTED, Calibration(1.0, [0.1]), 0.9) is None


def test_validation_loss_is_that_of_the_first_epoch():
    output, targets = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0.5]])
    assert float(Two().validation_loss(output, targets)) == 1.25
    assert float(Two().loss(output, targets, 4)) == 5.0
    assert Two().validation_metrics() == {}
    assert Two().concern_of_training({"mse": 1.0}, 10) is None


def test_module_is_supervised_with_what_it_is_given():
    task, network, preprocessing = Two(), nn.Linear(3, 2), Preprocessing(scale=2.0)
    options = LearningOptions(seed=4)
    made = task.module(network, preprocessing, options)
    assert type(made) is SupervisedModule
    assert (made.task, made.network, made.preprocessing, made.options) == (task, network, preprocessing, options)


def test_columns_are_the_outputs():
    columns = Two().columns(PREDICTED, None)
    assert {name: values.tolist() for name, values in columns.items()} == {
        "g": [0.126, 2.0, 0.0], "h": [-3.0, 41.5, -0.004],
    }  # fmt: skip
    truths = Two().truth_columns(PREDICTED)
    assert {name: values.tolist() for name, values in truths.items()} == {
        "true_g": [0.126, 2.0, 0.0], "true_h": [-3.0, 41.5, -0.004],
    }  # fmt: skip
    assert Two().truth_columns(np.array([3, 1, 2]))["true"].tolist() == [3, 1, 2]
    assert Pictures().columns(PREDICTED, None) == Pictures().truth_columns(PREDICTED) == {}


def test_what_is_said_and_shown():
    task = Two()
    assert task.captions(PREDICTED) == ["g = 0.13, h = -3.00", "g = 2.00, h = 41.50", "g = 0.00, h = -0.00"]
    assert task.explained_outputs(PREDICTED) == [0, 0, 0]
    assert task.trivial(PREDICTED) is None
    assert task.notes(PREDICTED) == task.concerns({}, PREDICTED, PREDICTED) == []
    assert task.panels({}, PREDICTED, PREDICTED) == task.comparison_panels({}) == []
    assert task.details(PREDICTED, PREDICTED) == {}
    assert task.gallery(PREDICTED, PREDICTED) == Gallery((), (), (), (), (), (), (), (), ())
    assert task.purpose() == "To estimate g, h"
    assert (task.goal, task.validation_curve, task.headlines) == (None, None, ())


def test_captions_need_a_name_for_each_output():
    with pytest.raises(ValueError, match="argument"):
        Two().captions(PREDICTED[:, :1])


def test_goal_has_a_title():
    assert Goal("auc", 0.95, "AUC 0.95").title == "AUC 0.95"


@dataclass(frozen=True)
class Ranked(Two):
    """The same, ranked by the mean squared error of the first number, or by its negative."""

    better: str = "lower"

    def metrics(self, predicted, truth, sets=None):
        sign = 1 if self.better == "lower" else -1
        return [Metric("mse", "Error", mean_statistic(sign * (predicted[:, 0] - truth[:, 0]) ** 2), better=self.better)]

    def trivial(self, truth):
        return "always saying 2", np.full((len(truth), 2), 2.0)


@pytest.mark.parametrize(
    ("better", "sign", "end"), [("lower", 1, "1.05 (0.9 to 1.2) on 7 images, and 1 without"), ("higher", -1, "-1.05 ")]
)
def test_a_model_that_is_no_better_than_what_is_trivial_is_a_concern(better, sign, end):
    truth, task = np.array([[1.0, 0], [3.0, 0]]), Ranked(better=better)  # the trivial error is 1
    middle, good = (
        Interval(sign * value, *sorted((sign * low, sign * high)), 7)
        for value, low, high in ((1.05, 0.9, 1.2), (0.5, 0.4, 0.99))
    )
    (said,) = task.concerns({"mse": middle}, PREDICTED, truth)
    assert said.startswith("the model cannot be told from always saying 2: Error is ")
    assert end in said
    assert task.concerns({"mse": good}, PREDICTED, truth) == []
    assert Two().concerns({"mse": middle}, PREDICTED, truth) == []
