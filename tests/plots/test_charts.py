import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest

from darklens.plots.charts import (
    calibration,
    confusion,
    learning_curves,
    roc,
    roc_of_many,
    skill_against_cost,
    true_against_predicted,
)


def assert_labels_are_apart(figure):
    """No tick label of an axis covers its neighbour or comes within four pixels of it."""
    figure.canvas.draw()
    for axis in figure.axes:
        for one in (axis.xaxis, axis.yaxis):
            low, high = sorted(one.get_view_interval())
            ticks = [*one.get_major_ticks(), *one.get_minor_ticks()]
            shown = [t.label1 for t in ticks if t.label1.get_text() and low <= t.get_loc() <= high]
            assert shown or not one.get_visible()
            for a, b in itertools.combinations([label.get_window_extent().padded(2) for label in shown], 2):
                assert not a.overlaps(b)


def skill(*parameters):
    figures = {"macro_auc": {"value": 0.93, "low": 0.92, "high": 0.94}}
    return skill_against_cost(
        [{"parameters": p, "figures": figures} for p in parameters], "macro_auc", title="macro AUC", perfect=1
    )


@pytest.mark.parametrize("parameters", [(2891, 3291), (2_200_000,), (700_000, 2_200_000, 37_700_000)])
def test_labels_of_skill_against_size_do_not_overlap(parameters):
    figure = skill(*parameters)
    assert_labels_are_apart(figure)
    labels = [t.get_text() for t in figure.axes[0].get_xticklabels()]
    assert {2891: "2k", 2_200_000: "2M", 700_000: "1M"}[parameters[0]] in labels
    plt.close(figure)


def test_labels_of_masses_do_not_overlap():
    true = np.linspace(-23.95, -22.16, 40)
    figure = true_against_predicted(true, np.full(40, -22.88), "log10_axion_mass")
    assert_labels_are_apart(figure)
    plt.close(figure)


def test_rounding_does_not_look_like_learning():
    """An AUC that changes by 1e-8 is a flat line on an axis of plain numbers, not a slope beside an offset."""
    auc = [0.4259259, 0.4259259 + 1e-8]
    epochs = [
        {"epoch": i, "train/loss_epoch": 1.1 + 1e-4 * i, "validation/loss": 1.1, "validation/auc": value}
        for i, value in enumerate(auc)
    ]
    figure = learning_curves(epochs, 2, metric=("auc", "macro AUC"))
    figure.canvas.draw()
    loss, right = figure.axes
    for axis, value in ((loss, 1.1), (right, auc[0])):
        low, high = axis.get_ylim()
        assert high - low == pytest.approx(0.01)
        assert low < value < high
        assert axis.yaxis.get_offset_text().get_text() == ""
    plt.close(figure)
    epochs = [{"epoch": 0, "validation/auc": 0.5}, {"epoch": 1, "validation/auc": 0.9}]
    learnt = learning_curves(epochs, 2, metric=("auc", "macro AUC"))
    low, high = learnt.axes[1].get_ylim()
    assert high - low == pytest.approx(0.44), "a real change keeps the axis that fits it"
    plt.close(learnt)


def test_roc_has_false_positives_across_and_true_ones_up():
    curves = {"cdm": {"fpr": [0, 0.1, 1], "tpr": [0, 0.7, 1]}, "macro": {"fpr": [0, 0.2, 1], "tpr": [0, 0.6, 1]}}
    figures = {name: {"value": 0.8, "low": 0.7, "high": 0.9} for name in ("auc_cdm", "macro_auc")}
    figure = roc(curves, figures, ["cdm", "axion"])
    axis = figure.axes[0]
    drawn = {line.get_label().split()[0]: line.get_xydata() for line in axis.lines[:2]}
    np.testing.assert_array_equal(drawn["cdm"], [(0, 0), (0.1, 0.7), (1, 1)])
    np.testing.assert_array_equal(drawn["macro"], [(0, 0), (0.2, 0.6), (1, 1)])
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("false positive rate", "true positive rate")
    assert "cdm  0.8000 [0.7000, 0.9000]" in [text.get_text() for text in axis.get_legend().get_texts()]
    plt.close(figure)


def test_roc_of_many_keeps_each_curve_with_its_name():
    figure = roc_of_many(
        {"1  a": {"fpr": [0, 0.1, 1], "tpr": [0, 0.9, 1]}, "2  b": {"fpr": [0, 0.5, 1], "tpr": [0, 0.6, 1]}}
    )
    drawn = {line.get_label(): line.get_xydata()[1].tolist() for line in figure.axes[0].lines}
    assert drawn == {"1  a": [0.1, 0.9], "2  b": [0.5, 0.6]}
    plt.close(figure)


def test_confusion_has_the_truth_down_and_the_prediction_across():
    figure = confusion([[8, 2], [1, 4]], ["a", "b"])
    axis = figure.axes[0]
    np.testing.assert_allclose(axis.images[0].get_array(), [[0.8, 0.2], [0.2, 0.8]])
    numbers = {text.get_text(): text.get_position() for text in axis.texts}
    assert numbers["2"][0] == 1
    assert numbers["2"][1] < 0.5
    assert numbers["1"][0] == 0
    assert numbers["1"][1] > 0.5
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted", "true")
    plt.close(figure)


def test_calibration_has_confidence_across_and_accuracy_up():
    found = {"confidence": [0.55, 0.75, 0.95], "accuracy": [0.5, 0.9, 0.8], "number": [40, 5, 100]}
    figure = calibration(found, {"value": 0.05, "low": 0.02, "high": 0.1})
    points = figure.axes[0].containers[0].lines[0].get_xydata()
    np.testing.assert_allclose(points, [(0.55, 0.5), (0.95, 0.8)], err_msg="a bin of five images is not drawn")
    bars = [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in figure.axes[1].patches]
    np.testing.assert_allclose(bars, [(0.55, 40), (0.95, 100)])
    plt.close(figure)


def test_true_values_are_across_and_predicted_ones_up():
    true, predicted = np.linspace(0, 10, 60), np.linspace(3, 5, 60)
    figure = true_against_predicted(true, predicted, "m")
    np.testing.assert_allclose(figure.axes[0].collections[0].get_offsets(), np.column_stack([true, predicted]))
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("true m", "predicted m")
    plt.close(figure)


def test_skill_draws_what_is_missing_to_perfection_with_its_interval():
    figure = skill(1000, 2000)
    ((x, y),) = figure.axes[0].containers[0].lines[0].get_xydata()
    assert (x, y) == (1000, pytest.approx(0.07))
    spread = figure.axes[0].containers[0].lines[2][0].get_segments()[0]
    np.testing.assert_allclose(sorted(spread[:, 1]), [0.06, 0.08])
    plt.close(figure)
    rows = [{"parameters": 5, "figures": {"rmse": {"value": 0.3, "low": 0.2, "high": 0.5}}}]
    lower = skill_against_cost(rows, "rmse", title="RMSE", perfect=0)
    ((_, y),) = lower.axes[0].containers[0].lines[0].get_xydata()
    assert y == pytest.approx(0.3)
    assert lower.axes[0].get_ylabel() == "RMSE"
    plt.close(lower)


def test_learning_curves_keep_losses_and_metric_apart():
    epochs = [
        {"epoch": i, "train/loss_epoch": 3.0 - i, "validation/loss": 4.0 - i, "validation/auc": 0.5 + 0.1 * i}
        for i in range(3)
    ]
    figure = learning_curves(epochs, 2, metric=("auc", "macro AUC"))
    left, right = figure.axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in [*left.lines, *right.lines]}
    assert drawn["training loss"] == [[1, 3.0], [2, 2.0], [3, 1.0]]
    assert drawn["validation loss"] == [[1, 4.0], [2, 3.0], [3, 2.0]]
    np.testing.assert_allclose(drawn["macro AUC"], [[1, 0.5], [2, 0.6], [3, 0.7]])
    assert left.lines[-1].get_xdata() == [2, 2], "the best epoch"
    plt.close(figure)
