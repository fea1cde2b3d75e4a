"""Regression: units, what is refused, and what is shown, against numbers on paper."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch.nn import functional

from darklens.errors import DataError, RecipeError
from darklens.evaluation.bootstrap import Interval
from darklens.evaluation.calibration import Calibration
from darklens.tasks.regress import Regress

TASK = Regress("m", center=[-23.0], scale=[0.5])


def test_own_loss_sees_standardised_targets_and_is_averaged(tmp_path):
    (tmp_path / "own.py").write_text("def loss(output, targets):\n    return output * 100 + targets\n")
    task = Regress("m", f"{tmp_path / 'own.py'}:loss", [-23.0], [0.5])
    found = task.loss(torch.tensor([[0.1], [-0.3]]), torch.tensor([[-22.5], [-25.0]]), 1)
    assert float(found) == pytest.approx(np.mean([10 + 1, -30 - 4]))


def test_validation_loss_is_the_loss():
    output, targets = torch.tensor([[0.1], [-0.3]]), torch.tensor([[-22.5], [-25.0]])
    expected = functional.mse_loss(output, torch.tensor([[1.0], [-4.0]]))
    torch.testing.assert_close(TASK.validation_loss(output, targets), expected)


def test_predictions_are_in_the_targets_unit_and_averaged_as_they_are():
    output = torch.tensor([[1.0], [-2.0]])
    assert TASK.predictions(output).tolist() == [[-22.5], [-24.0]]
    found = TASK.calibrated(output, Calibration(3.0))
    assert found.dtype == torch.float64
    assert found.tolist() == [[-22.5], [-24.0]]
    members = torch.tensor([[[1.0], [5.0]], [[2.0], [-1.0]]])
    assert TASK.averaged(members, Calibration(3.0)).tolist() == [[1.5], [2.0]]
    assert TASK.calibrate(output, output) == Calibration(1.0, [])
    assert TASK.uncalibrated(output) is output
    assert TASK.prediction_sets(output.numpy(), Calibration(), 0.9) is None


def test_validation_metrics_are_mean_errors():
    metrics = TASK.validation_metrics()
    for metric in metrics.values():
        metric.update(torch.tensor([[1.0], [4.0]]), torch.tensor([[1.5], [1.0]]))
    assert {key: float(metric.compute()) for key, metric in metrics.items()} == {"mse": 4.625, "mae": 1.75}


def test_scatter_of_rounding_is_none():
    """Values that differ by less than a millionth of their mean are equal in float32."""
    equal = np.array([[1.0], [1.0 + 1.9e-6]])
    with pytest.raises(DataError, match="every training image has the same m"):
        Regress("m").fit(equal)
    with pytest.raises(DataError, match="every training image has the same m"):
        Regress("m").fit(-equal)
    assert Regress("m").fit(np.array([[-1.0], [-1.0 - 2.1e-6]])).center == [pytest.approx(-1.0, abs=1e-5)]


@pytest.mark.parametrize("values", [{"center": [0.0, 1.0]}, {"scale": []}, {"center": [], "scale": []}])
def test_center_and_scale_are_one_each(values):
    with pytest.raises(RecipeError, match="center and scale have one value each"):
        Regress("m", **values)


def test_names_and_columns():
    predicted = np.array([[-22.1], [-23.456]])
    assert list(TASK.output_names) == ["m"]
    assert list(TASK.needs.columns) == ["m"]
    assert TASK.outputs == 1
    assert list(TASK.classes) == []
    assert {name: list(values) for name, values in TASK.columns(predicted, None).items()} == {"m": [-22.1, -23.456]}
    assert {name: list(values) for name, values in TASK.truth_columns(predicted).items()} == {"true": [-22.1, -23.456]}
    assert TASK.captions(predicted) == ["m = -22.10", "m = -23.46"]
    assert TASK.explained_outputs(predicted) == [0, 0]
    assert TASK.notes(predicted) == []
    assert TASK.concern_of_training({"mae": 3.0}, 90) is None
    assert TASK.details(predicted, predicted) == {}
    assert TASK.comparison_panels({}) == []
    assert TASK.purpose() == "To estimate m in images like those above"


def test_metrics_are_of_the_first_output():
    rng = np.random.default_rng(0)
    truth = rng.normal(-23, 1, (50, 1))
    predicted = truth + rng.normal(0.2, 0.3, (50, 1))
    found = {metric.key: float(metric.statistic(np.ones((1, 50)))[0]) for metric in TASK.metrics(predicted, truth)}
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean((predicted - truth) ** 2)))
    assert found["bias"] == pytest.approx(np.mean(predicted - truth))


@pytest.mark.parametrize(("low", "warned"), [(-0.01, True), (0.0, True), (0.01, False)])
def test_interval_of_explained_variance_that_holds_none_is_a_concern(low, warned):
    found = TASK.concerns({"r2": Interval(0.05, low, 0.1, n=1200)}, np.zeros((3, 1)), np.zeros((3, 1)))
    begins = (
        f"the model is no better than always saying the mean: R² is 0.050 ({low:.3f} to 0.100) on 1,200 images; try"
    )
    assert [sentence.startswith(begins) for sentence in found] == [True] * warned


def test_gallery_runs_through_the_range_of_truths():
    truth = np.random.default_rng(0).permutation(45.0 + np.arange(45))[:, None]
    predicted = truth.copy()
    predicted[7] += 3.126
    predicted[30] -= 5
    gallery = TASK.gallery(predicted, truth)
    shown = [float(truth[row, 0]) for row in gallery.examples]
    assert shown == [45, 49, 53, 57, 61, 65, 69, 73, 77, 81, 85, 89]
    assert gallery.captions == [f"m = {value:.2f}" for value in shown]
    assert list(gallery.mistakes) == [30, 7], "the others are right"
    assert gallery.truths == [f"{truth[30, 0]:.2f}", f"{truth[7, 0]:.2f}"]
    assert gallery.called == [f"{truth[30, 0] - 5:.2f}", f"{truth[7, 0] + 3.13:.2f}"]
    assert list(gallery.confidence) == list(gallery.explained) == []
    errors = np.arange(45.0)[:, None]
    assert list(TASK.gallery(truth + errors, truth).mistakes) == list(range(44, 32, -1)), "the twelve largest"


def test_panel_draws_predicted_against_true():
    truth, predicted = np.array([[1.0], [2.5], [4.0]]), np.array([[1.5], [2.0], [5.0]])
    (figure,) = TASK.panels({}, predicted, truth)
    dots = figure.axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(dots, [[1, 1.5], [2.5, 2], [4, 5]])
    assert figure.axes[0].get_xlabel() == "true m"
    assert TASK.panels({}, None, truth) == []
    assert TASK.panels({}, predicted, None) == []
    plt.close("all")


def test_trivial_prediction_is_the_mean_of_the_training_targets():
    name, predicted = TASK.trivial(np.array([[1.0], [2.0], [6.0]]))
    assert name == "always saying the mean"
    assert predicted.tolist() == [[-23.0]] * 3
