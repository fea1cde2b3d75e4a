"""Plots of a run: learning curves, ROC, calibration, confusion, true against predicted."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from darklens.evaluation.bootstrap import figure_text
from darklens.plots.style import COLOURS, INK, QUIET, colour, style

SIZE = (4.6, 3.7)
FEWEST = 10
"""Images that a bin of the calibration plot must have to be drawn."""


def learning_curves(
    epochs: Sequence[Mapping[str, float]], best: int | None, *, metric: tuple[str, str] | None = None
) -> Any:
    """Draw training and validation loss over epochs.

    Parameters
    ----------
    epochs
        Logged values of each epoch.
    best
        The epoch whose weights are kept, from 1.
    metric
        Key and title of a validation metric to draw on the right axis.

    Returns
    -------
    matplotlib.figure.Figure
        The chart.
    """
    key, label = metric or ("", "")
    right = f"validation/{key}"
    with style() as plt:
        figure, axis = plt.subplots(figsize=SIZE, layout="constrained")
        for key, name, tint in (
            ("train/loss_epoch", "training loss", QUIET),
            ("validation/loss", "validation loss", colour(0)),
        ):
            points = [(e["epoch"] + 1, e[key]) for e in epochs if key in e]
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", markersize=3.5, color=tint, label=name)
        axis.set(xlabel="epoch", ylabel="loss", title="Learning curves")
        _widen(axis)
        axis.xaxis.get_major_locator().set_params(integer=True)
        points = [(e["epoch"] + 1, e[right]) for e in epochs if right in e]
        if points:
            twin = axis.twinx()
            twin.plot(*zip(*points, strict=True), marker="s", markersize=3.5, color=colour(1), label=label)
            twin.set_ylabel(label)
            _widen(twin)
            twin.grid(False)
            twin.spines["right"].set_visible(True)
        figure.legend(loc="outside lower center", ncols=3, fontsize=8, columnspacing=1.2, handlelength=1.6)
        if best is not None:
            axis.axvline(best, color=QUIET, linestyle=":", linewidth=1)
        return figure


def _widen(axis: Any) -> None:
    """Widen the y axis to a range of at least 0.01: a change that is rounding must not look like one."""
    low, high = axis.get_ylim()
    if high - low < 0.01:
        middle = (low + high) / 2
        axis.set_ylim(middle - 0.005, middle + 0.005)


def roc(curves: Mapping[str, Mapping[str, list[float]]], figures: Mapping[str, Any], classes: Sequence[str]) -> Any:
    """ROC curves of each class and their macro average, with AUC and interval in the legend."""
    with style() as plt:
        figure, axis = plt.subplots(figsize=SIZE, layout="constrained")
        for i, name in enumerate([*classes, "macro"]):
            if name not in curves:
                continue
            auc = figures["macro_auc" if name == "macro" else f"auc_{name}"]
            text = f"{name}  {auc['value']:.4f} [{auc['low']:.4f}, {auc['high']:.4f}]"
            look = {"color": INK, "linestyle": "--"} if name == "macro" else {"color": colour(i)}
            axis.plot(curves[name]["fpr"], curves[name]["tpr"], linewidth=1.6, label=text, **look)
        axis.plot([0, 1], [0, 1], color="#d6dbe0", linewidth=1, zorder=0)
        axis.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC, one class against the rest")
        axis.set(xlim=(-0.01, 1), ylim=(0, 1.01))
        axis.legend(loc="lower right", title="AUC with 95% interval", title_fontsize=8, fontsize=8)
        return figure


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> Any:
    """Confusion matrix: numbers, shaded by the share of the true class."""
    counts = np.asarray(matrix)
    share = counts / counts.sum(1, keepdims=True).clip(1)
    with style() as plt:
        figure, axis = plt.subplots(figsize=SIZE, layout="constrained")
        axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (i, j), count in np.ndenumerate(counts):
            tint = "white" if share[i, j] > 0.55 else INK
            axis.text(j, i - 0.06, f"{count:,}", ha="center", va="center", color=tint, fontsize=11)
            axis.text(j, i + 0.2, f"{share[i, j]:.1%}", ha="center", va="center", color=tint, fontsize=7.5)
        axis.set(xticks=range(len(classes)), yticks=range(len(classes)), xlabel="predicted", ylabel="true")
        axis.set(xticklabels=classes, yticklabels=classes, title="Confusion")
        axis.grid(False)
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0, colors=INK)
        return figure


def calibration(reliability: Mapping[str, list[float]], ece: Mapping[str, Any]) -> Any:
    """How often the called class is right, against how sure the model was, with the number of images below."""
    with style() as plt:
        figure, (top, bottom) = plt.subplots(
            2, 1, figsize=SIZE, sharex=True, layout="constrained", gridspec_kw={"height_ratios": [3.2, 1]}
        )
        # A bin of a few images says nothing; its dot would only draw the eye.
        enough = np.asarray(reliability["number"]) >= FEWEST
        confidence, accuracy, number = (
            np.asarray(reliability[k])[enough] for k in ("confidence", "accuracy", "number")
        )
        error = np.sqrt(accuracy * (1 - accuracy) / number)
        top.plot([0, 1], [0, 1], color="#d6dbe0", linewidth=1)
        top.errorbar(confidence, accuracy, yerr=error, fmt="o-", markersize=4, linewidth=1.4, color=colour(0))
        top.set(ylabel="fraction correct", title="Calibration", ylim=(0, 1.03))
        top.text(0.97, 0.06, f"ECE {figure_text(ece)}", transform=top.transAxes, fontsize=8.5, ha="right")
        bottom.bar(confidence, number, width=0.03, color=QUIET)
        bottom.set(
            xlabel="probability of the called class", ylabel="images", xlim=(min(confidence, default=0.5) - 0.05, 1.02)
        )
        return figure


def true_against_predicted(true: np.ndarray, predicted: np.ndarray, output: str) -> Any:
    """Predicted against true values, with the median and the central 68% in bins of the truth."""
    with style() as plt:
        figure, axis = plt.subplots(figsize=(SIZE[0], SIZE[0]), layout="constrained")
        low, high = float(min(true.min(), predicted.min())), float(max(true.max(), predicted.max()))
        axis.plot([low, high], [low, high], color=QUIET, linewidth=1)
        axis.scatter(true, predicted, s=5, alpha=min(1.0, 300 / len(true) + 0.08), color=colour(0), linewidths=0)
        edges = np.quantile(true, np.linspace(0, 1, 11))
        centres, bands = [], []
        for a, b in itertools.pairwise(edges):
            inside = (true >= a) & (true <= b)
            if inside.sum() >= 5:
                centres.append(float(np.median(true[inside])))
                bands.append(np.quantile(predicted[inside], [0.16, 0.5, 0.84]))
        if bands:
            lower, median, upper = np.array(bands).T
            axis.fill_between(centres, lower, upper, color=colour(1), alpha=0.18, linewidth=0, label="central 68%")
            axis.plot(centres, median, color=colour(1), linewidth=1.8, label="median")
            axis.legend(loc="upper left")
        axis.set(xlabel=f"true {output}", ylabel=f"predicted {output}", title="True against predicted", aspect="equal")
        axis.locator_params(nbins=6)  # more labels than these overlap
        return figure


def roc_of_many(curves: Mapping[str, Mapping[str, list[float]]]) -> Any:
    """Macro-averaged ROC curves of several recipes, the false positive rate on a logarithmic axis."""
    with style() as plt:
        figure, axis = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
        for i, (name, curve) in enumerate(curves.items()):
            look = ["-", "--", ":", "-."][i // len(COLOURS) % 4]
            axis.plot(curve["fpr"], curve["tpr"], linewidth=1.5, linestyle=look, color=colour(i), label=name)
        axis.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC, mean over the classes")
        axis.set(xscale="log", xlim=(1e-3, 1), ylim=(0, 1.01))
        axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, title="best first", title_fontsize=8)
        return figure


def skill_against_cost(rows: Sequence[Mapping[str, Any]], key: str, *, title: str, perfect: float | None) -> Any:
    """Draw a metric against the number of parameters, with 95% intervals where it has them; dots carry the rank.

    Parameters
    ----------
    rows
        Of a leaderboard, the best first: ``parameters`` and ``figures``.
    key, title
        The metric, and what a reader calls it.
    perfect
        Its value of a perfect prediction: then what is missing to it is drawn, and lower left is better.

    Returns
    -------
    matplotlib.figure.Figure
        The chart.
    """
    from matplotlib.ticker import EngFormatter

    with style() as plt:
        figure, axis = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
        for rank, row in enumerate(rows, 1):
            found = row["figures"][key]
            value = found["value"]
            low, high = found.get("low", value), found.get("high", value)
            if perfect is not None:  # never quite 0, which a logarithmic axis does not have
                value, low, high = (max(abs(perfect - each), 1e-5) for each in (value, low, high))
            low, high = sorted((low, high))
            spread = [[max(0.0, value - low)], [max(0.0, high - value)]]
            place, above = row["parameters"], 3 + len(rows) - rank  # the best on top
            dot = {"fmt": "o", "markersize": 11, "markeredgecolor": "white", "color": colour(rank - 1)}
            axis.errorbar([place], [value], yerr=spread, zorder=above, **dot)
            text = {"ha": "center", "va": "center_baseline", "fontsize": 7, "color": "white"}
            axis.text(place, value, str(rank), zorder=above + 0.5, **text)
        label = title if not perfect else f"{perfect:g} − {title}"
        axis.set(xscale="log", xlabel="parameters", ylabel=label, title="Skill against size")
        _label_decades(axis.xaxis, EngFormatter(sep=""))
        if perfect is not None:
            axis.set_yscale("log")
            _label_decades(axis.yaxis, "{x:g}")
        return figure


def _label_decades(axis: Any, form: Any) -> None:
    """Widen a logarithmic axis to a factor of 4 at least, and label 1, 2 and 5 of each decade in plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    spare = max(1.0, 2 / (high / low) ** 0.5)
    axis.set_view_interval(low / spare, high * spare, ignore=True)
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1000 else (1,)))
    axis.set_major_formatter(form)
    axis.set_minor_formatter(NullFormatter())
