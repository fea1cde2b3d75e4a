"""Pictures of images that a masked autoencoder rebuilt, beside what it saw of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from darklens.plots.style import INK, QUIET, style

HIDDEN = "#c4cad1"
"""Colour of hidden parts, which is none of the map of brightness."""
BOX = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
TITLES = ("image", "what it sees", "rebuilt", "image − rebuilt")


def rebuilt_images(parts: np.ndarray, captions: Sequence[str]) -> Any:
    """Draw a row for each image: all of it, what was shown, what was rebuilt, and what that leaves; return the figure.

    Parameters
    ----------
    parts
        (N, 3, H, W): image, 1 where it was hidden, and the image with what was rebuilt there. All but the last column of a
        row have one scale of brightness.
    captions
        N texts, at the left of the rows.
    """
    side = 1.5
    height = side * len(parts) + 0.3
    with style() as plt:
        figure, axes = plt.subplots(len(parts), 4, figsize=(4 * side + 1.2, height), squeeze=False)
        cmap = plt.get_cmap("magma").copy()
        cmap.set_bad(HIDDEN)
        for row, each, caption in zip(axes, parts, captions, strict=True):
            image, hidden, rebuilt = each
            left = image - rebuilt
            low, high = np.quantile(image, [0.005, 0.998])
            limit = max(float(np.quantile(np.abs(left), 0.998)), 1e-12)
            shown = np.ma.masked_where(hidden > 0.5, image)
            for axis, picture in zip(row, (image, shown, rebuilt), strict=False):
                axis.imshow(picture, origin="lower", cmap=cmap, vmin=low, vmax=high, interpolation="nearest")
            row[3].imshow(left, origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
            row[3].text(
                0.97, 0.03, f"±{limit:.2g}", transform=row[3].transAxes, ha="right", fontsize=7, color=INK, bbox=BOX
            )
            row[0].text(
                -0.06, 0.5, caption, transform=row[0].transAxes, ha="right", va="center", fontsize=7.5, color=QUIET
            )
        for axis, title in zip(axes[0], TITLES, strict=True):
            axis.set_title(title, fontsize=8.5, pad=3, fontweight="normal")
        for axis in axes.flat:
            axis.set_axis_off()
        figure.subplots_adjust(
            left=1.2 / (4 * side + 1.2), right=0.995, bottom=0.01, top=1 - 0.28 / height, wspace=0.04, hspace=0.04
        )
        return figure
