"""Charts of searches for rare objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from darklens.evaluation.finding import purity_at
from darklens.plots.charts import SIZE
from darklens.plots.style import colour, style

Curves = Mapping[str, Mapping[str, Sequence[float]]]
"""False and true positive rates, ``fpr`` and ``tpr``, by the name of a model; an empty name has no place in a legend."""


def logarithmic_roc(curves: Curves, negatives: int) -> Any:
    """Draw ROC curves with a logarithmic axis of the false-positive rate, down to one of so many negatives."""
    with style() as plt:
        figure, axis = plt.subplots(figsize=SIZE, layout="constrained")
        lowest = 1 / max(negatives, 2)
        for i, (name, curve) in enumerate(curves.items()):
            false, true = (np.asarray(curve[key]) for key in ("fpr", "tpr"))
            axis.step(false.clip(lowest / 2), true, where="post", linewidth=1.6, color=colour(i), label=name or None)
        axis.axvline(lowest, color="#d6dbe0", linewidth=1, zorder=0)
        axis.axvline(min(1.0, 10 * lowest), color="#d6dbe0", linewidth=1, linestyle=":", zorder=0)
        axis.set(
            xscale="log", xlim=(lowest / 2, 1), ylim=(0, 1.01), xlabel="false positive rate", ylabel="recall of lenses"
        )
        axis.set(title=f"Recall against false positives, {negatives:,} negatives")
        if any(curves):
            axis.legend(loc="lower right", fontsize=8)
        return figure


def purity_against_completeness(curves: Curves, prior: float) -> Any:
    """Draw purity against completeness in a population of which a fraction ``prior`` are lenses."""
    with style() as plt:
        figure, axis = plt.subplots(figsize=SIZE, layout="constrained")
        for i, (name, curve) in enumerate(curves.items()):
            false, true = (np.asarray(curve[key]) for key in ("fpr", "tpr"))
            found = true > 0
            purity = purity_at(prior, true[found], false[found])
            axis.plot(true[found], purity, linewidth=1.6, color=colour(i), label=name or None)
        axis.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="completeness", ylabel="purity")
        axis.set(title=f"Purity where {prior:g} of all are lenses")
        if any(curves):
            axis.legend(loc="lower left", fontsize=8)
        return figure


def completeness(binned: Mapping[str, Any]) -> Any:
    """Draw the fraction of lenses that is found in bins of a catalogue column, as `completeness_by_column` gives them."""
    called = {"probability": "probability above 0.5", "tenth": "before the tenth false positive"}
    with style() as plt:
        figure, axis = plt.subplots(figsize=SIZE, layout="constrained")
        for i, (name, found) in enumerate(binned["found"].items()):
            rows = [j for j, value in enumerate(found["value"]) if value is not None]
            middle, value, low, high = (
                np.array([values[j] for j in rows], dtype=float)
                for values in (binned["middles"], found["value"], found["low"], found["high"])
            )
            error = [(value - low).clip(0), (high - value).clip(0)]
            look = {"marker": "os"[i % 2], "markersize": 4, "linewidth": 1.2, "capsize": 2.5, "color": colour(i)}
            axis.errorbar(middle, value, error, label=called[name], **look)
        if binned["edges"][0] > 0 and binned["edges"][-1] > 10 * binned["edges"][0]:
            axis.set_xscale("log")
        axis.set(ylim=(-0.02, 1.02), xlabel=binned["title"], ylabel="fraction of lenses found")
        axis.set(title=f"Completeness, {sum(binned['lenses']):,} lenses")
        axis.legend(loc="best", fontsize=8)
        return figure
