"""Pictures of images: mosaics and previews, with a scale bar, north up and x to the right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from darklens.report.style import INK, QUIET, style

CMAP = "magma"


def mosaic(
    images: np.ndarray, captions: Sequence[str], columns: int = 6, pixel_scale: float | None = None, side: float = 1.5
) -> Any:
    """Images (N, H, W) in a grid, each stretched by itself, with a caption below."""
    rows = -(-len(images) // columns)
    with style() as plt:
        figure, axes = plt.subplots(
            rows,
            min(columns, len(images)),
            figsize=(side * min(columns, len(images)), (side + 0.22) * rows),
            squeeze=False,
        )
        for axis in axes.flat:
            axis.set_axis_off()
        for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
            axis = axes.flat[i]
            draw_image(axis, image, pixel_scale if i == 0 else None)
            axis.set_title(_short(caption), fontsize=7.5, color=INK, pad=3, fontweight="normal")
        figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=1 - 0.22 / (rows * (side + 0.22)), wspace=0.05)
        return figure


def draw_image(axis: Any, image: np.ndarray, pixel_scale: float | None = None) -> None:
    """One image with an arcsinh stretch, and a bar of one arcsecond if the pixel scale is given."""
    axis.imshow(stretch(image), origin="lower", cmap=CMAP, interpolation="nearest", vmin=0, vmax=1)
    axis.set_axis_off()
    if pixel_scale:
        length, margin = 1 / pixel_scale, 0.07 * image.shape[1]
        axis.plot([margin, margin + length], [margin, margin], color="white", linewidth=1.5, solid_capstyle="butt")
        axis.text(margin + length / 2, margin * 1.35, "1″", color="white", fontsize=7, ha="center", va="bottom")


def stretch(image: np.ndarray) -> np.ndarray:
    """Brightness from 0 to 1: linear about the sky, logarithmic in the bright parts."""
    low, high = np.quantile(image, [0.02, 0.997])
    scaled = (image - low) / (high - low if high > low else 1.0)
    return np.arcsinh(5 * scaled.clip(0, 1.2)) / np.arcsinh(5)


def preset_preview(
    images: Sequence[np.ndarray],
    residuals: Sequence[np.ndarray],
    labels: Sequence[str],
    pixel_scale: float,
) -> Any:
    """For each class a row of images, and beneath it what its substructure adds to the same lenses, in σ of the noise."""
    columns = len(images[0])
    shown = [i for i, residual in enumerate(residuals) if np.abs(residual).max() > 0]
    heights = [h for i in range(len(labels)) for h in ([1.0, 1.0] if i in shown else [1.0])]
    with style() as plt:
        figure, axes = plt.subplots(
            len(heights), columns, figsize=(1.75 * columns + 1.9, 1.56 * len(heights)), squeeze=False
        )
        row = 0
        limit = min((float(np.quantile(np.abs(residuals[i]), 0.998)) for i in shown), default=1.0)
        for i, label in enumerate(labels):
            for j, image in enumerate(images[i]):
                draw_image(axes[row, j], image, pixel_scale if i == j == 0 else None)
            _name(axes[row, 0], label, INK)
            row += 1
            if i not in shown:
                continue
            for j, residual in enumerate(residuals[i]):
                drawn = axes[row, j].imshow(residual, origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit)
                axes[row, j].set_axis_off()
            _name(axes[row, 0], "less the\nsame lens\nwithout", QUIET)
            row += 1
        figure.subplots_adjust(left=0.13, right=0.9, bottom=0.02, top=0.98, wspace=0.04, hspace=0.04)
        if shown:
            bar = figure.colorbar(drawn, cax=figure.add_axes((0.915, 0.3, 0.015, 0.4)))
            bar.set_label("σ of the noise in a pixel")
            bar.outline.set_visible(False)
        return figure


def _name(axis: Any, text: str, colour: str) -> None:
    axis.text(-0.06, 0.5, text, transform=axis.transAxes, ha="right", va="center", fontsize=9, color=colour)


def _short(text: str, length: int = 22) -> str:
    return text if len(text) <= length else "…" + text[-length + 1 :]


def save(figure: Any, path: Path) -> None:
    """Write a figure in the format of the file's name, and free it."""
    import matplotlib.pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140, bbox_inches="tight", pad_inches=0.08)
    plt.close(figure)


def explanation(
    images: Sequence[np.ndarray], maps: Sequence[np.ndarray], captions: Sequence[str], pixel_scale: float | None = None
) -> Any:
    """Pairs of an image and what its pixels add to the answer: red for, blue against."""
    pairs = min(3, len(images))
    rows = -(-len(images) // pairs)
    with style() as plt:
        figure, axes = plt.subplots(rows, 2 * pairs, figsize=(3.4 * pairs, 1.98 * rows), squeeze=False)
        for axis in axes.flat:
            axis.set_axis_off()
        for i, (image, found, caption) in enumerate(zip(images, maps, captions, strict=True)):
            left, right = axes.flat[2 * i], axes.flat[2 * i + 1]
            draw_image(left, image, pixel_scale if i == 0 else None)
            left.set_title(caption, fontsize=8, loc="left", color=INK, fontweight="normal")
            draw_attribution(right, image, found)
        figure.subplots_adjust(
            left=0.01, right=0.99, bottom=0.01, top=1 - 0.24 / (1.98 * rows), wspace=0.04, hspace=0.16
        )
        return figure


def draw_attribution(axis: Any, image: np.ndarray, found: np.ndarray) -> None:
    """What pixels add to the answer, smoothed over one pixel, with the image's brightness as contours."""
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(found, 1.0)
    limit = float(np.quantile(np.abs(smooth), 0.995)) or 1.0
    axis.imshow(smooth, origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit)
    axis.contour(gaussian_filter(stretch(image), 1.0), levels=[0.35, 0.7], colors=INK, linewidths=0.5, alpha=0.45)
    axis.set_axis_off()
