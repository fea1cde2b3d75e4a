import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest

from darklens.plots.charts import learning_curves, skill_against_cost, true_against_predicted


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
