"""Figures of images that were made finer: beside their truth, with what is left of it, and their power by scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from darklens.plots.style import QUIET, colour, style

SIDE = 1.05
"""Of a picture, inches."""


def beside_truth(
    images: np.ndarray,
    methods: Mapping[str, np.ndarray],
    truth: np.ndarray,
    *,
    labels: Sequence[str],
    noise: float = 0.0,
) -> Any:
    """Draw images, what each method makes of them, the truth, and the difference of each to the truth.

    Parameters
    ----------
    images
        (N, C, h, w), in the flux per pixel of the truth; of several bands the sum is drawn.
    methods
        Finer images (N, C, H, W) by the name of the method.
    truth
        (N, C, H, W).
    labels
        A word for each row.
    noise
        Standard deviation of the noise, below which the stretch is linear; 0 takes a fiftieth of the brightest pixel.

    Returns
    -------
    A figure of matplotlib, two rows an image, each with one scale of brightness or of differences, which is written there.
    """
    names = list(methods)
    titles = ["image", *names, "truth"]
    with style() as plt:
        height = SIDE * 2 * len(images) + 0.3
        figure, axes = plt.subplots(
            2 * len(images), len(titles), figsize=(SIDE * len(titles) + 0.5, height), squeeze=False
        )
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
            axis.grid(visible=False)
            for side in axis.spines.values():
                side.set_visible(False)
        for row, (line, below) in enumerate(zip(axes[::2], axes[1::2], strict=True)):
            true = truth[row].sum(0)
            soft = max(noise, float(np.abs(true).max()) / 50, 1e-30)
            top = max(float(np.arcsinh(true.max() / soft)), 1e-6)
            shown = [images[row], *(methods[name][row] for name in names), truth[row]]
            gaps = [methods[name][row].sum(0) - true for name in names]
            limit = max(float(np.quantile(np.abs(gaps), 0.998)), 1e-30)
            for axis, picture in zip(line, shown, strict=True):
                drawn = np.arcsinh(picture.sum(0) / soft)
                axis.imshow(drawn, origin="lower", cmap="magma", vmin=-0.3, vmax=top, interpolation="nearest")
            for axis, gap in zip(below[1:-1], gaps, strict=True):
                axis.imshow(gap, origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
            line[0].set_ylabel(labels[row], fontsize=7.5)
            below[0].text(
                0.95, 0.5, f"less the truth,\n±{limit:.2g}", transform=below[0].transAxes, ha="right", va="center",
                fontsize=7, color=QUIET,
            )  # fmt: skip
        for axis, title in zip(axes[0], titles, strict=True):
            axis.set_title(_short(title), fontsize=7, pad=3, fontweight="normal")
        figure.subplots_adjust(left=0.04, right=0.99, bottom=0.01, top=1 - 0.28 / height, wspace=0.04, hspace=0.04)
        return figure


def power_ratio(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the ratio of the summed power of images (N, C, H, W) to the truths' in ranges of spatial frequency."""
    import torch

    from darklens.evaluation.superresolution import power_curve

    found, true = (power_curve(torch.from_numpy(np.asarray(each)[:256])).numpy() for each in (predicted, truth))
    whole = np.maximum(true.sum(1, keepdims=True), 1e-300)
    ratio: np.ndarray = (found / whole).sum(0) / np.maximum((true / whole).sum(0), 1e-300)
    return ratio


def power_by_frequency(ratios: Mapping[str, np.ndarray], factor: int, ranges: int) -> Any:
    """Draw the power of predictions over that of the truth by spatial frequency; return the figure.

    Parameters
    ----------
    ratios
        (``ranges``,) by the name of the method.
    factor
        Fine pixels along the side of a pixel, for a line at the highest frequency that the images have.
    ranges
        Ranges of equal width up to Nyquist of the finer pixels.
    """
    with style() as plt:
        figure, axis = plt.subplots(figsize=(4.6, 3.7), layout="constrained")
        frequency = (np.arange(ranges) + 0.5) / ranges * factor
        for number, (name, ratio) in enumerate(ratios.items()):
            axis.plot(frequency, np.maximum(ratio, 1e-4), color=colour(number), label=name, linewidth=1.4)
        axis.axhline(1, color=QUIET, linewidth=0.8)
        axis.axvline(1, color=QUIET, linewidth=0.8, linestyle=":")
        axis.set(
            xlabel="spatial frequency over the images' highest", ylabel="power over the truth's", yscale="log",
            title="Power by scale",
        )  # fmt: skip
        axis.set_ylim(1e-3, max(10.0, *(float(np.nanmax(each)) * 1.2 for each in ratios.values())))
        axis.legend(fontsize=7)
        return figure


def _short(text: str) -> str:
    return text if len(text) <= 18 else text[:17] + "…"
