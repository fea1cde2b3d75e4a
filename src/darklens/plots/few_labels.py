"""Charts of what is learned from few and from many labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from darklens.plots.style import COLOURS, colour, style

WORTH_A_LABEL = 2.0
"""Least ratio of two neighbouring numbers of which both are written below the axis."""


def curves_against_labels(curves: Mapping[str, Sequence[Mapping[str, float]]], *, metric: str, title: str) -> Any:
    """Draw a metric against the number of labelled images of a class, a curve with a band for each name.

    Parameters
    ----------
    curves
        For each name, points in ascending order: ``labels`` (images of a class), ``value``, and the ends of its interval
        ``low`` and ``high``, if there is one. Names that begin with ``random`` are dashed.
    metric
        What a reader calls the metric.
    title
        Above the chart.

    Returns
    -------
    matplotlib.figure.Figure
        The chart.
    """
    from matplotlib.ticker import FixedLocator, NullLocator

    with style() as plt:
        figure, axis = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
        for number, (name, points) in enumerate(curves.items()):
            places, values = [point["labels"] for point in points], [point["value"] for point in points]
            look = "--" if name.startswith("random") else ["-", "-."][number // len(COLOURS) % 2]
            axis.plot(places, values, color=colour(number), linestyle=look, marker="o", markersize=4, label=name)
            ends = [(point.get("low", point["value"]), point.get("high", point["value"])) for point in points]
            axis.fill_between(places, *zip(*ends, strict=True), color=colour(number), alpha=0.13, linewidth=0)
        axis.set(xscale="log", xlabel="labelled images of a class", ylabel=metric, title=title)
        written: list[float] = []
        for place in sorted({point["labels"] for points in curves.values() for point in points}):
            if not written or place / written[-1] >= WORTH_A_LABEL:
                written.append(place)
        axis.xaxis.set_major_locator(FixedLocator(written))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8)
        return figure
