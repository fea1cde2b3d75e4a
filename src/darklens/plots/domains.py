"""Charts of features of a source and a target, before and after adaptation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from darklens.plots.style import colour, style


def principal_components(features: np.ndarray, count: int = 2) -> np.ndarray:
    """Return the coordinates (N, count) of features (N, F) along the directions in which they scatter most."""
    centred = features - features.mean(0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    # The sign of a direction means nothing: its largest component is made positive.
    signs = np.sign(directions[np.arange(len(directions)), np.abs(directions).argmax(1)])
    found: np.ndarray = (centred @ (directions * signs[:, None]).T)[:, :count]
    return found


def feature_maps(panels: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> Any:
    """Draw the principal components of features of both domains, a panel for each model.

    Parameters
    ----------
    panels
        For each model's name: ``source`` and ``target``, features (N, F), and ``source_labels`` and ``target_labels``,
        label numbers (N,).
    names
        Of the labels.

    Returns
    -------
    matplotlib.figure.Figure
        The chart; components are those of the model's own features of both domains together.
    """
    with style() as plt:
        columns = min(3, len(panels))
        rows = -(-len(panels) // columns)
        size = (3.1 * columns, 2.9 * rows + 0.4)
        figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
        for axis, (title, panel) in zip(axes.flat, panels.items(), strict=False):
            source = len(panel["source"])
            places = principal_components(np.concatenate([panel["source"], panel["target"]]))
            for number, (domain, some) in enumerate((("source", places[:source]), ("target", places[source:]))):
                for label, name in enumerate(names):
                    of_label = some[np.asarray(panel[f"{domain}_labels"]) == label]
                    face = colour(number) if label else "none"
                    axis.scatter(
                        of_label[:, 0], of_label[:, 1], s=9, linewidth=0.6, alpha=0.7, facecolor=face,
                        edgecolor=colour(number), label=f"{domain}, {name}",
                    )  # fmt: skip
            axis.set(title=title, xticks=[], yticks=[])
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
        return figure
