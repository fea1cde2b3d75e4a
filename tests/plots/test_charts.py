import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
from looks import box, frame, legend, limits, lines, size, texts
from matplotlib.colors import to_hex

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
    figure = calibration(found, {"value": 0.05, "if_calibrated": {"low": 0.02, "high": 0.1, "p": 0.3}})
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


BLUE, RED, GREEN, GOLD, VIOLET, SLATE = "#3b6fb6", "#d1495b", "#2e9e78", "#b8860b", "#7a5195", "#5f6b76"
INK, QUIET, PALE, WHITE = "#1d2530", "#8a94a0", "#d6dbe0", "#ffffff"
NONE = ("None", 0)
"""No marker, and no size of one."""


@pytest.fixture(autouse=True)
def figures_are_closed():
    yield
    plt.close("all")


def test_look_of_learning_curves():
    epochs = [
        {"epoch": i, "train/loss_epoch": 3.0 - i, "validation/loss": 4.0 - i, "validation/auc": 0.5 + 0.1 * i}
        for i in range(3)
    ]
    figure = learning_curves(epochs, 2, metric=("auc", "macro AUC"))
    left, right = figure.axes
    assert size(figure) == [4.6, 3.7]
    assert lines(left) == [
        ("training loss", QUIET, "-", 1.5, "o", 3.5),
        ("validation loss", BLUE, "-", 1.5, "o", 3.5),
        ("", QUIET, ":", 1.0, *NONE),
    ]
    assert lines(right) == [("macro AUC", RED, "-", 1.5, "s", 3.5)]
    assert (frame(left), right.get_ylabel()) == (("Learning curves", "epoch", "loss"), "macro AUC")
    assert right.spines["right"].get_visible()
    assert not any(line.get_visible() for line in right.get_ygridlines())
    assert all(line.get_visible() for line in left.get_ygridlines())
    entries = ["training loss", "validation loss", "macro AUC"]
    assert legend(figure)["entries"] == entries
    assert (legend(figure)["columns"], legend(figure)["sizes"][0]) == (3, 8.0)
    assert (figure.legends[0].columnspacing, figure.legends[0].handlelength) == (1.2, 1.6)
    figure.canvas.draw()
    assert figure.legends[0].get_window_extent().y1 < left.xaxis.label.get_window_extent().y0, "below the axes"
    assert all(float(tick).is_integer() for tick in left.get_xticks()), "epochs are whole numbers"


def test_learning_curves_draw_what_was_logged():
    """Without a metric there is one axis, without a best epoch no line, and a value that is missing has no point."""
    epochs = [{"epoch": 0, "validation/loss": 4.0}, {"epoch": 1, "train/loss_epoch": 2.0}]
    figure = learning_curves(epochs, None)
    (axis,) = figure.axes
    assert [line.get_xydata().tolist() for line in axis.lines] == [[[2, 2.0]], [[1, 4.0]]]


def test_look_of_roc_curves():
    """A class without a curve keeps its colour, so that the others have theirs."""
    curves = {name: {"fpr": [0, 0.1, 1], "tpr": [0, 0.7, 1]} for name in ("a", "c", "macro")}
    values = {"value": 0.91234, "low": 0.8, "high": 0.95}
    figure = roc(curves, dict.fromkeys(("auc_a", "auc_c", "macro_auc"), values), ["a", "b", "c"])
    axis = figure.axes[0]
    entries = [f"{name}  0.9123 [0.8000, 0.9500]" for name in ("a", "c", "macro")]
    assert size(figure) == [4.6, 3.7]
    assert lines(axis) == [
        (entries[0], BLUE, "-", 1.6, *NONE),
        (entries[1], GREEN, "-", 1.6, *NONE),
        (entries[2], INK, "--", 1.6, *NONE),
        ("", PALE, "-", 1.0, *NONE),
    ]
    assert axis.lines[-1].get_xydata().tolist() == [[0, 0], [1, 1]]
    assert axis.lines[-1].get_zorder() == 0, "chance is below the curves"
    assert frame(axis) == ("ROC, one class against the rest", "false positive rate", "true positive rate")
    assert limits(axis) == [-0.01, 1, 0, 1.01]
    found = {"entries": entries, "sizes": [8.0], "title": "AUC with 95% interval", "place": 4, "columns": 1}
    assert legend(axis) == found
    assert figure.get_layout_engine() is not None


def test_look_of_a_confusion_matrix():
    figure = confusion([[5600, 4400], [1, 4]], ["x", "y"])
    axis = figure.axes[0]
    assert size(figure) == [4.6, 3.7]
    middle = ("center", "center")
    # White letters on shares above 0.55.
    assert texts(axis) == [
        ("5,600", 0, -0.06, 11, WHITE, *middle), ("56.0%", 0, 0.2, 7.5, WHITE, *middle),
        ("4,400", 1, -0.06, 11, INK, *middle), ("44.0%", 1, 0.2, 7.5, INK, *middle),
        ("1", 0, 0.94, 11, INK, *middle), ("20.0%", 0, 1.2, 7.5, INK, *middle),
        ("4", 1, 0.94, 11, WHITE, *middle), ("80.0%", 1, 1.2, 7.5, WHITE, *middle),
    ]  # fmt: skip
    assert frame(axis) == ("Confusion", "predicted", "true")
    assert (axis.images[0].get_cmap().name, axis.images[0].get_clim()) == ("Blues", (0, 1))
    for one in (axis.xaxis, axis.yaxis):
        assert [label.get_text() for label in one.get_ticklabels()] == ["x", "y"]
        assert {to_hex(label.get_color()) for label in one.get_ticklabels()} == {INK}
        assert {tick.tick1line.get_markersize() for tick in one.get_major_ticks()} == {0}
        assert not any(line.get_visible() for line in one.get_gridlines())
    assert not any(spine.get_visible() for spine in axis.spines.values())
    empty = confusion([[0, 0], [3, 1]], ["x", "y"])
    assert [text.get_text() for text in empty.axes[0].texts][1::2] == ["0.0%", "0.0%", "75.0%", "25.0%"]


def test_look_of_a_calibration():
    """Bars of the error of a share, and bins from ten images on."""
    found = {"confidence": [0.55, 0.75, 0.9, 0.95], "accuracy": [0.5, 0.9, 0.8, 0.8], "number": [40, 9, 10, 100]}
    figure = calibration(found, {"value": 0.05, "if_calibrated": {"low": 0.02, "high": 0.1, "p": 0.3}})
    top, bottom = figure.axes
    assert size(figure) == [4.6, 3.7]
    assert lines(top) == [("", PALE, "-", 1.0, *NONE), ("", BLUE, "-", 1.4, "o", 4.0)]
    assert top.lines[0].get_xydata().tolist() == [[0, 0], [1, 1]]
    np.testing.assert_array_equal(top.containers[0].lines[0].get_xdata(), [0.55, 0.9, 0.95])
    spread = [high - low for (_, low), (_, high) in top.containers[0].lines[2][0].get_segments()]
    np.testing.assert_allclose(spread, [2 * (0.25 / 40) ** 0.5, 2 * 0.016**0.5, 2 * 0.04], rtol=1e-9)
    assert texts(top) == [
        ("ECE 0.0500 (0.0200 to 0.1000 if calibrated)", 0.97, 0.06, 8.5, "#000000", "right", "baseline")
    ]
    assert top.texts[0].get_transform() == top.transAxes
    assert (frame(top), frame(bottom)) == (
        ("Calibration", "", "fraction correct"),
        ("", "probability of the called class", "images"),
    )
    assert limits(top) == [0.5, 1.02, 0, 1.03]
    assert limits(bottom)[:2] == [0.5, 1.02]
    assert [(round(bar.get_width(), 4), to_hex(bar.get_facecolor())) for bar in bottom.patches] == [(0.03, QUIET)] * 3
    assert box(top)[3] / box(bottom)[3] == pytest.approx(3.2, rel=1e-3)
    assert figure.get_layout_engine() is not None
    none = calibration({"confidence": [0.6], "accuracy": [1.0], "number": [3]}, {"value": 0})
    assert none.axes[0].texts[0].get_text() == "ECE 0.0000"
    assert limits(none.axes[1])[:2] == [0.45, 1.02], "without a bin it begins at a half"


def test_skill_of_a_metric_without_an_interval_is_a_dot_alone():
    rows = [{"parameters": 1000, "figures": {"ece": {"value": 0.02, "n": 5}}}]
    axis = skill_against_cost(rows, "ece", title="ECE", perfect=0).axes[0]
    (bar,) = axis.containers[0].lines[2][0].get_segments()
    assert bar[:, 1].tolist() == pytest.approx([0.02, 0.02])


def test_look_of_true_against_predicted():
    true = np.linspace(0, 10, 60)
    figure = true_against_predicted(true, true**2 / 5 - 3, "m")
    axis = figure.axes[0]
    dots, band = axis.collections
    assert size(figure) == [4.6, 4.6]
    assert lines(axis) == [("", QUIET, "-", 1.0, *NONE), ("median", RED, "-", 1.8, *NONE)]
    assert axis.lines[0].get_xydata().tolist() == [[-3, -3], [17, 17]], "from the least to the most of both"
    assert frame(axis) == ("True against predicted", "true m", "predicted m")
    assert legend(axis) == {"entries": ["central 68%", "median"], "sizes": [9.0], "title": "", "place": 2, "columns": 1}
    assert (dots.get_sizes().tolist(), dots.get_alpha(), list(dots.get_linewidths())) == ([5], 1.0, [0])
    assert to_hex(dots.get_facecolors()[0]) == BLUE
    assert (band.get_alpha(), to_hex(band.get_facecolor()[0]), list(band.get_linewidth())) == (0.18, RED, [0])
    assert axis.get_aspect() == 1
    assert figure.get_layout_engine() is not None


def test_bins_of_true_against_predicted_hold_a_tenth_each():
    """Of 60 values six in each bin: their median, and the quantiles of 16, 50 and 84% between their neighbours."""
    true = np.arange(60.0)
    axis = true_against_predicted(true, 2 * true + 1, "m").axes[0]
    middle = np.arange(10) * 6 + 2.5
    np.testing.assert_allclose(axis.lines[1].get_xydata(), np.column_stack([middle, 2 * middle + 1]))
    vertices = axis.collections[1].get_paths()[0].vertices
    band = {x: sorted({float(y) for x2, y in vertices if x2 == x}) for x in middle}
    for x in middle:
        np.testing.assert_allclose(band[x], [2 * (x - 2.5 + 0.8) + 1, 2 * (x - 2.5 + 4.2) + 1])


def test_bins_of_few_values_are_not_drawn():
    """Forty values have four in a bin."""
    true = np.arange(40.0)
    axis = true_against_predicted(true, true, "m").axes[0]
    assert len(axis.lines) == 1
    assert axis.get_legend() is None
    many = true_against_predicted(np.arange(1000.0), np.arange(1000.0), "m")
    assert many.axes[0].collections[0].get_alpha() == pytest.approx(0.38)
    assert len(true_against_predicted(np.arange(50.0), np.arange(50.0), "m").axes[0].lines[1].get_xdata()) == 10


def test_look_of_many_roc_curves():
    """The line changes when the colours are used up."""
    figure = roc_of_many({f"{i}": {"fpr": [0, 0.1, 1], "tpr": [0, 0.2, 1]} for i in range(25)})
    axis = figure.axes[0]
    colours = [BLUE, RED, GREEN, GOLD, VIOLET, SLATE]
    styles = [style for style in ("-", "--", ":", "-.") for _ in colours] + ["-"]
    expected = zip(itertools.cycle(colours), styles, strict=False)
    assert lines(axis) == [(str(i), colour, style, 1.5, *NONE) for i, (colour, style) in enumerate(expected)]
    assert size(figure) == [6.4, 4.6]
    assert frame(axis) == ("ROC, mean over the classes", "false positive rate", "true positive rate")
    assert limits(axis) == [0.001, 1, 0, 1.01]
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "linear")
    entries = [str(i) for i in range(25)]
    assert legend(axis) == {"entries": entries, "sizes": [8.0], "title": "best first", "place": 6, "columns": 1}
    assert axis.get_legend().get_bbox_to_anchor()._bbox.bounds[:2] == (1.01, 0.5)
    assert figure.get_layout_engine() is not None


def ranked(key="k"):
    """Two rows of a leaderboard, whose intervals are lopsided."""
    values = ((1000, 0.9, 0.88, 0.91), (90_000, 0.8, 0.77, 0.81))
    return [{"parameters": p, "figures": {key: {"value": v, "low": low, "high": high}}} for p, v, low, high in values]


def test_look_of_skill_against_size():
    figure = skill_against_cost(ranked(), "k", title="T", perfect=1)
    axis = figure.axes[0]
    assert size(figure) == [6.4, 4.6]
    assert lines(axis) == [("", BLUE, "None", 1.5, "o", 11.0), ("", RED, "None", 1.5, "o", 11.0)]
    middle = ("center", "center_baseline")
    assert texts(axis) == [("1", 1000, 0.1, 7, WHITE, *middle), ("2", 90_000, 0.2, 7, WHITE, *middle)]
    assert frame(axis) == ("Skill against size", "parameters", "1 − T")
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    dots = [container.lines[0] for container in axis.containers]
    assert [dot.get_markeredgecolor() for dot in dots] == ["white", "white"]
    order = [*(dot.get_zorder() for dot in dots), *(text.get_zorder() for text in axis.texts)]
    assert order[0] > order[3] > order[1], "the first covers the second with its number"
    assert order[2] > order[0]
    spread = [container.lines[2][0].get_segments()[0][:, 1] for container in axis.containers]
    np.testing.assert_allclose(spread, [[0.09, 0.12], [0.19, 0.23]])
    assert figure.get_layout_engine() is not None


def test_skill_that_has_no_best_value_is_drawn_as_it_is():
    figure = skill_against_cost(ranked(), "k", title="T", perfect=None)
    axis = figure.axes[0]
    assert (axis.get_xscale(), axis.get_yscale(), axis.get_ylabel()) == ("log", "linear", "T")
    spread = [container.lines[2][0].get_segments()[0][:, 1] for container in axis.containers]
    np.testing.assert_allclose(spread, [[0.88, 0.91], [0.77, 0.81]])


def test_perfect_skill_and_its_interval_stay_on_a_logarithmic_axis():
    rows = [{"parameters": 7, "figures": {"k": {"value": 1.0, "low": 0.98, "high": 1.0}}}]
    axis = skill_against_cost(rows, "k", title="T", perfect=1).axes[0]
    np.testing.assert_allclose(axis.containers[0].lines[0].get_xydata(), [(7, 1e-5)])
    np.testing.assert_allclose(axis.containers[0].lines[2][0].get_segments()[0][:, 1], [1e-5, 0.02])
    # A value outside of its interval has no bar on that side.
    rows = [{"parameters": 7, "figures": {"k": {"value": 0.9, "low": 0.92, "high": 0.95}}}]
    axis = skill_against_cost(rows, "k", title="T", perfect=None).axes[0]
    np.testing.assert_allclose(axis.containers[0].lines[2][0].get_segments()[0][:, 1], [0.9, 0.95])


def test_logarithmic_axes_span_a_factor_of_four_at_least():
    """And label 1, 2 and 5 of each decade, or each decade alone where there are many."""
    rows = [{"parameters": 10**p, "figures": {"k": {"value": 0.9, "low": 0.89, "high": 0.91}}} for p in (3, 7)]
    axis = skill_against_cost(rows, "k", title="T", perfect=1).axes[0]
    low, high = axis.get_ylim()
    assert high / low == pytest.approx(4)
    assert (low * high) ** 0.5 == pytest.approx((0.09 * 0.11) ** 0.5)
    low, high = axis.get_xlim()
    assert [f"{tick:g}" for tick in axis.get_yticks() if 0.04 < tick < 0.3] == ["0.05", "0.1", "0.2"]
    assert [round(tick) for tick in axis.get_xticks() if low < tick < high] == [1000, 10**4, 10**5, 10**6, 10**7]
    labels = [axis.xaxis.get_major_formatter()(value) for value in (1000, 2_000_000)]
    assert labels == ["1k", "2M"]
    assert axis.yaxis.get_major_formatter()(0.05) == "0.05"
    assert all(one.get_minor_formatter()(0.03) == "" for one in (axis.xaxis, axis.yaxis))
