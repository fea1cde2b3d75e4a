"""Pictures of images: mosaics and previews, with a scale bar, north up and x to the right."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from darklens.data.bands import colour_channels
from darklens.data.readers.files import COLOURS
from darklens.plots.style import INK, QUIET, style

CMAP = "magma"
LINE = 60
"""Characters of small text that fit below a pair of pictures."""


def mosaic(
    images: np.ndarray, captions: Sequence[str], columns: int = 6, pixel_scale: float | None = None, side: float = 1.5
) -> Any:
    """Draw images in a grid, with a caption below each; return the figure.

    Parameters
    ----------
    images
        (N, H, W), each stretched by itself, or colours (N, H, W, 3) from 0 to 1, which are drawn as they are.
    captions
        A text for each image.
    columns
        Images in a row.
    pixel_scale
        Arcsec per pixel, for a bar of one arcsecond in the first image; None draws none.
    side
        Of an image, inches.
    """
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
    """Draw one image with an arcsinh stretch, or colours (H, W, 3), and a bar of one arcsecond for a given pixel scale."""
    drawn = stretch(image) if image.ndim == 2 else image
    axis.imshow(drawn, origin="lower", cmap=CMAP, interpolation="nearest", vmin=0, vmax=1)
    axis.set_axis_off()
    if pixel_scale:
        length, margin = 1 / pixel_scale, 0.07 * image.shape[1]
        axis.plot([margin, margin + length], [margin, margin], color="white", linewidth=1.5, solid_capstyle="butt")
        axis.text(margin + length / 2, margin * 1.35, "1″", color="white", fontsize=7, ha="center", va="bottom")


def colour_pictures(images: np.ndarray) -> np.ndarray:
    """Return pictures in colour of images in three bands, red first, on one scale (Lupton et al. 2004, PASP 116, 133).

    Parameters
    ----------
    images
        Images (N, 3, H, W). Bands are scaled so that their light is white in the median.

    Returns
    -------
    Red, green and blue, from 0 to 1, (N, H, W, 3).
    """
    scaled, noise = _white_in_the_median(images)
    return _lupton(scaled, noise, 25)


def _white_in_the_median(images: np.ndarray) -> tuple[np.ndarray, float]:
    """Images (N, 3, H, W) above the sky, bands scaled to the same median light, and their noise."""
    sky = np.quantile(images, 0.1, axis=(0, 2, 3))[:, None, None]
    light = np.median((images - sky).clip(0).sum((2, 3)), axis=0)
    scaled = (images - sky) / np.where(light > 0, light, 1.0)[:, None, None]
    return scaled, max(1.4826 * float(np.median(np.abs(scaled))), 1e-9)  # of images without noise


def _lupton(scaled: np.ndarray, noise: float, softening: float) -> np.ndarray:
    """Colours (N, H, W, 3) with an asinh stretch that is linear below some times the noise."""
    from astropy.visualization import make_lupton_rgb

    pictures = [make_lupton_rgb(*image, minimum=-noise, stretch=softening * noise, Q=8) for image in scaled]
    return np.stack(pictures).astype(np.float32) / 255


STRETCHES = ("asinh", "faint light", "linear")
"""Stretches that candidates are drawn with: the first shows the most, the second faint arcs, the third cores."""


def stretched_pictures(images: np.ndarray, bands: Sequence[str]) -> dict[str, np.ndarray]:
    """Return pictures of images with each of `STRETCHES`: two asinh ones of different softening, and a linear one.

    Parameters
    ----------
    images
        (N, C, H, W), finite, at least one; those of three colours are on one scale, single bands each on its own.
    bands
        C names, or none where they are not known. As in `drawn_images`, one band is drawn where they make no colours.

    Returns
    -------
    dict
        Colours of 8 bits (N, H, W, 3), with the first row of pixels at the top, for each name of a stretch.
    """
    from matplotlib import colormaps

    colours = colour_channels(bands)
    if colours is None:
        single = images[:, single_band(bands)].astype(np.float64)
        sky, noise = np.median(single, axis=(1, 2), keepdims=True), _scatter(single)
        low, high = (np.quantile(single, level, axis=(1, 2), keepdims=True) for level in (0.02, 0.997))
        above = np.maximum(high - sky, 1e-30)
        soft = np.stack([stretch(image) for image in single])
        faint = np.arcsinh((single - sky + noise).clip(0) / (2 * noise)) / np.arcsinh((above + noise) / (2 * noise))
        plain = (single - low) / np.maximum(high - low, 1e-30)
        found = [colormaps[CMAP](each.clip(0, 1))[..., :3] for each in (soft, faint, plain)]
    elif tuple(bands) == COLOURS and images.min() >= 0 and images.max() <= 255:
        picture = np.moveaxis(images[:, colours], 1, -1) / 255
        brightest = np.maximum(picture.max((1, 2, 3), keepdims=True), 1e-30)
        found = [picture, np.sqrt(picture / brightest), picture / brightest]
    else:
        scaled, noise_level = _white_in_the_median(images[:, colours])
        high = np.maximum(np.quantile(scaled, 0.997, axis=(1, 2, 3), keepdims=True), noise_level)
        linear = np.moveaxis((scaled + noise_level) / (high + noise_level), 1, -1)
        found = [_lupton(scaled, noise_level, 15), _lupton(scaled, noise_level, 6), linear]
    return {name: np.round(255 * each.clip(0, 1)).astype(np.uint8) for name, each in zip(STRETCHES, found, strict=True)}


def _scatter(images: np.ndarray) -> np.ndarray:
    """Scatter of the pixels of images (N, H, W) about their medians, (N, 1, 1), above 0."""
    median = np.median(images, axis=(1, 2), keepdims=True)
    return np.maximum(1.4826 * np.median(np.abs(images - median), axis=(1, 2), keepdims=True), 1e-30)


def single_band(bands: Sequence[str]) -> int:
    """Return the place of the band that is drawn where several make no colours: VIS, or the first."""
    return list(bands).index("VIS") if "VIS" in bands else 0


def drawn_images(images: np.ndarray, bands: Sequence[str]) -> np.ndarray:
    """Return images as they are drawn: in colour where their bands have red, green and blue, else one band of them.

    Parameters
    ----------
    images
        (N, C, H, W), finite.
    bands
        C names, or none where they are not known.

    Returns
    -------
    numpy.ndarray
        Colours from 0 to 1 (N, H, W, 3), or a band (N, H, W) as it is. Pictures of 8 bits keep their colours; bands of a
        survey are scaled together (`colour_pictures`).
    """
    colours = colour_channels(bands)
    if colours is None or not len(images):
        return images[:, single_band(bands)]
    chosen = images[:, colours]
    if tuple(bands) == COLOURS and chosen.min() >= 0 and chosen.max() <= 255:
        return np.moveaxis(chosen, 1, -1) / 255
    return colour_pictures(chosen)


def scene_preview(images: Sequence[np.ndarray], names: Sequence[str], pixel_scale: float) -> Any:
    """Draw a row of images for each class of a preset of scenes; return the figure.

    Parameters
    ----------
    images
        For each class, images (N, H, W) or colours (N, H, W, 3).
    names
        Names of the classes.
    pixel_scale
        Arcsec per pixel, for the bar of one arcsecond.
    """
    columns, rows = max(map(len, images)), len(names)
    with style() as plt:
        figure, axes = plt.subplots(rows, columns, figsize=(1.2 * columns + 1.3, 1.2 * rows), squeeze=False)
        figure.subplots_adjust(
            left=1.3 / (1.2 * columns + 1.3), right=0.995, bottom=0.005, top=0.995, wspace=0.03, hspace=0.03
        )
        for i, (row, name) in enumerate(zip(axes, names, strict=True)):
            for axis in row:
                axis.set_axis_off()
            for j, (axis, image) in enumerate(zip(row, images[i], strict=False)):
                draw_image(axis, image, pixel_scale if i == j == 0 else None)
            _name(row[0], name.replace("_", " "), INK, 9.5)
        return figure


def stretch(image: np.ndarray) -> np.ndarray:
    """Brightness from 0 to 1: linear about the sky, logarithmic in the bright parts."""
    low, high = np.quantile(image, [0.02, 0.997])
    scaled = (image - low) / (high - low if high > low else 1.0)
    return np.arcsinh(5 * scaled.clip(0, 1.2)) / np.arcsinh(5)


def preset_preview(
    images: Sequence[np.ndarray], residuals: Sequence[np.ndarray | None], labels: Sequence[str], pixel_scale: float
) -> Any:
    """Draw a row of images for each class and, below it, a row of their residuals; return the figure.

    Each row of residuals has a colour scale of its own, symmetric about zero, with a colour bar beside it: the residuals
    of a class of weak substructure are visible next to those of a strong one.

    Parameters
    ----------
    images
        For each class, images (N, H, W) with noise.
    residuals
        For each class, what its substructure changes in these images (N, H, W), in σ of the noise in a pixel; None for a
        class without substructure, which gets no second row.
    labels
        Names of the classes.
    pixel_scale
        Arcsec per pixel, for the bar of one arcsecond.
    """
    shown = sum(residual is not None for residual in residuals)
    columns, rows = len(images[0]), len(labels) + shown
    with style() as plt:
        figure, axes = plt.subplots(rows, columns, figsize=(1.6 * columns + 2.45, 1.6 * rows), squeeze=False)
        # Before the colour bars, which are placed beside the rows' final positions.
        figure.subplots_adjust(left=0.17, right=0.88, bottom=0.01, top=0.99, wspace=0.04, hspace=0.05)
        remaining = iter(axes)
        for i, (label, residual) in enumerate(zip(labels, residuals, strict=True)):
            row = next(remaining)
            for j, image in enumerate(images[i]):
                draw_image(row[j], image, pixel_scale if i == j == 0 else None)
            _name(row[0], label, INK, 10.5)
            if residual is not None:
                _draw_residuals(figure, next(remaining), residual)
        return figure


def _draw_residuals(figure: Any, axes: np.ndarray, residuals: np.ndarray) -> None:
    """Draw the residuals (N, H, W) of one class on one colour scale, in σ, with its colour bar at the right."""
    # A few pixels may be far stronger than the rest: they saturate, and the arrows of the bar say so.
    limit = _two_digits(float(np.quantile(np.abs(residuals), 0.998)) or float(np.abs(residuals).max()) or 1.0)
    for axis, residual in zip(axes, residuals, strict=True):
        drawn = axis.imshow(residual, origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit)
        axis.set_axis_off()
    _name(axes[0], "minus the same\nlens without\nsubstructure", QUIET, 8.5)
    box = axes[-1].get_position()
    place = (box.x1 + 0.012, box.y0 + 0.08 * box.height, 0.013, 0.84 * box.height)
    bar = figure.colorbar(drawn, cax=figure.add_axes(place), extend="both", ticks=[-limit, 0, limit])
    bar.ax.set_yticklabels([f"−{limit:g} σ", "0", f"+{limit:g} σ"], color=INK, fontsize=8)
    bar.ax.tick_params(length=0)
    bar.outline.set_visible(False)


def _two_digits(number: float) -> float:
    return float(f"{number:.1e}")


def _name(axis: Any, text: str, colour: str, size: float) -> None:
    axis.text(-0.06, 0.5, text, transform=axis.transAxes, ha="right", va="center", fontsize=size, color=colour)


def _short(text: str, length: int = 18, end: int = 8) -> str:
    """Shorten a text in its middle, keeping ``end`` letters at its end: names of survey cutouts differ at either end."""
    if len(text) <= length:
        return text
    return f"{text[: length - 1 - end]}…{text[-end:]}"


def save(figure: Any, path: Path) -> None:
    """Write a figure in the format of the file's name, and free it."""
    import matplotlib.pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140, bbox_inches="tight", pad_inches=0.08)
    plt.close(figure)


def explanation(
    images: Sequence[np.ndarray],
    maps: Sequence[np.ndarray],
    captions: Sequence[str],
    pixel_scale: float | None = None,
    *,
    note: str | None = None,
) -> Any:
    """Pairs of an image and what its pixels add to the answer: red for, blue against; ``note`` is written below them."""
    pairs = min(3, len(images))
    rows = -(-len(images) // pairs)
    lines = ["red pixels speak for the answer, blue ones against it"]
    lines += [] if note is None else textwrap.wrap(note, LINE * pairs)
    below = 0.2 + 0.13 * (len(lines) - 1)
    height = 1.98 * rows + below
    with style() as plt:
        figure, axes = plt.subplots(rows, 2 * pairs, figsize=(3.4 * pairs, height), squeeze=False)
        for axis in axes.flat:
            axis.set_axis_off()
        for i, (image, found, caption) in enumerate(zip(images, maps, captions, strict=True)):
            left, right = axes.flat[2 * i], axes.flat[2 * i + 1]
            draw_image(left, image, pixel_scale if i == 0 else None)
            left.set_title(_short(caption, 48, end=34), fontsize=8, loc="left", color=INK, fontweight="normal")
            draw_attribution(right, image, found)
        figure.subplots_adjust(
            left=0.01, right=0.99, bottom=below / height, top=1 - 0.24 / height, wspace=0.04, hspace=0.16
        )
        figure.text(0.01, 0.05 / height, "\n".join(lines), fontsize=7.5, color=QUIET, linespacing=1.25)
        return figure


def draw_attribution(axis: Any, image: np.ndarray, found: np.ndarray) -> None:
    """What pixels add to the answer, smoothed over one pixel, with the image's brightness as contours."""
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(found, 1.0)
    limit = float(np.quantile(np.abs(smooth), 0.995)) or 1.0
    axis.imshow(smooth, origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit)
    axis.contour(gaussian_filter(stretch(image), 1.0), levels=[0.35, 0.7], colors=INK, linewidths=0.5, alpha=0.45)
    axis.set_axis_off()
