"""Resample images to other pixels: larger or smaller ones, shifted or mirrored. Flux is kept, and noise goes along.

An image is taken for a parabola in each pixel, which has the pixel's flux and meets its neighbours (the piecewise parabolic
method of Colella & Woodward 1984, equations 1.6 and 1.9, without its limiter), and integrated over the new pixels. So the
flux of a source does not depend on where in its pixel it is, and pixels that are the old ones are left as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

COVERED = 0.5
"""Fraction of a new pixel that pixels with data must cover; it has no data otherwise. A smaller one extrapolates further at
the border, a larger one loses a pixel there more often. A choice, not tuned."""


@dataclass(frozen=True)
class Axis:
    """New pixels on one axis of an image.

    Parameters
    ----------
    count
        Their number.
    first
        Where the centre of the first one is, in old pixels, from the centre of the first old one.
    step
        Their width in old pixels; negative if they run the other way.
    """

    count: int
    first: float
    step: float

    def is_same(self, old: int, tolerance: float = 1e-3) -> bool:
        """Return whether the new pixels are the ``old`` ones, all of them, within a fraction of a pixel."""
        end = self.first + (self.count - 1) * self.step
        return self.count == old and abs(self.first) < tolerance and abs(end - (old - 1)) < tolerance

    def central(self, side: int) -> Axis:
        """Return the central ``side`` pixels, or all if there are fewer, as `darklens.data.sizes.central_window` does."""
        start = max(0, self.count - side) // 2
        return Axis(min(side, self.count), self.first + start * self.step, self.step)


def about_centre(old: int, step: float) -> Axis:
    """Return pixels of another width about the centre of an axis, as many as cover it, rounded; one at least.

    Parameters
    ----------
    old
        Number of old pixels.
    step
        Width of the new ones, in old pixels.
    """
    count = max(1, round(old / step))
    return Axis(count, (old - 1) / 2 - (count - 1) / 2 * step, step)


def resample(images: np.ndarray, rows: Axis, columns: Axis) -> np.ndarray:
    """Resample images; a pixel of the result holds the flux that falls on it.

    Parameters
    ----------
    images
        (…, H, W), flux in each pixel; nan where there is no data.
    rows, columns
        The new pixels.

    Returns
    -------
    np.ndarray
        (…, h, w), float32; nan where pixels with data cover less than `COVERED`, and brought to the whole pixel where they
        do not cover all.
    """
    out, fraction = _applied(images, rows, columns, parabolas=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(fraction < COVERED, np.float32(np.nan), out / fraction).astype(np.float32)


def resample_noise(noise: np.ndarray, rows: Axis, columns: Axis) -> np.ndarray:
    """Resample the standard deviation of independent noise, so that sums over many pixels have the noise that they had.

    Noise of resampled images is correlated. Its standard deviation in a single pixel says too little of it; the result is
    that of independent noise that is as strong on scales of several pixels. Where data cover a part of a new pixel, it is
    that of the flux that is brought to the whole pixel.

    Parameters
    ----------
    noise
        (…, H, W), standard deviation in each pixel; infinite where there is no data.
    rows, columns
        The new pixels.

    Returns
    -------
    np.ndarray
        (…, h, w), float32; infinite where there is no data.
    """
    variance = np.where(np.isfinite(noise), np.square(noise, dtype=np.float64), np.nan)
    summed, fraction = _applied(variance, rows, columns, parabolas=False)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(fraction < COVERED, np.float32(np.inf), np.sqrt(summed) / fraction).astype(np.float32)


def resample_psf(kernel: np.ndarray, step: float) -> np.ndarray:
    """Return a point-spread function (h, w) on pixels that are ``step`` old ones wide, of odd sides and sum 1."""
    axes = []
    for old in kernel.shape:
        count = max(1, int(old / step))
        count -= 1 - count % 2
        axes.append(Axis(count, (old - 1) / 2 - (count - 1) / 2 * step, step))
    out = np.nan_to_num(resample(kernel, *axes))
    return out / out.sum()


def _applied(images: np.ndarray, rows: Axis, columns: Axis, *, parabolas: bool) -> tuple[np.ndarray, np.ndarray]:
    """The sum over the part of each new pixel that pixels with data cover, and its fraction, at most 1."""
    height, width = images.shape[-2:]
    missing = np.isnan(images)
    filled = np.where(missing, 0, images) if missing.any() else images
    out = _product(filled, _weights(height, rows, parabolas), _weights(width, columns, parabolas))
    data = (~missing).astype(np.float32) if missing.any() else np.ones((height, width), np.float32)
    covered = _product(data, _weights(height, rows, False), _weights(width, columns, False))
    return out, (covered / abs(rows.step * columns.step)).clip(max=1)


def _product(images: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Images (…, H, W) times the weights of rows (h, H) and columns (w, W): (…, h, w)."""
    # PyTorch's product is several times as fast as NumPy's here, which starts threads for each image.
    import torch

    kind = torch.float64 if images.dtype == np.float64 else torch.float32
    of, high, wide = (torch.from_numpy(np.ascontiguousarray(array)).to(kind) for array in (images, rows, columns))
    return (high @ (of @ wide.T)).numpy()


def _weights(old: int, axis: Axis, parabolas: bool) -> np.ndarray:
    """The part of the flux of each old pixel that falls on each new one, (count, old)."""
    # Edges of the new pixels, from the lower edge of the first old pixel.
    edges = axis.first + 0.5 + (np.arange(axis.count + 1) - 0.5) * axis.step
    return np.sign(axis.step) * np.diff(_flux_below(edges.clip(0, old), old, parabolas), axis=0)


def _flux_below(edges: np.ndarray, old: int, parabolas: bool) -> np.ndarray:
    """The part of the flux of each old pixel that lies below some places on the axis, (places, old)."""
    pixels = np.minimum(edges.astype(int), old - 1)
    inside = (edges - pixels)[:, None]
    whole = (np.arange(old) < pixels[:, None]).astype(np.float64)
    if not parabolas:
        whole[np.arange(len(edges)), pixels] += inside[:, 0]
        return whole
    at_edges, own = _values_at_edges(old), np.eye(old)
    low, high = at_edges[pixels], at_edges[pixels + 1]
    curved = 6 * (own[pixels] - (low + high) / 2)
    return whole + low * inside + (high - low) * inside**2 / 2 + curved * (inside**2 / 2 - inside**3 / 3)


def _values_at_edges(old: int) -> np.ndarray:
    """Brightness at the edges of pixels by that of the pixels, (old + 1, old); beyond the border the image is mirrored."""
    out = np.zeros((old + 1, old))
    edge = np.arange(old + 1)
    for offset, weight in ((-2, -1 / 12), (-1, 7 / 12), (0, 7 / 12), (1, -1 / 12)):
        pixel = np.abs(edge + offset + 0.5) - 0.5  # -1 is mirrored to 0, -2 to 1
        pixel = old - 0.5 - np.abs(old - 0.5 - pixel)
        np.add.at(out, (edge, pixel.clip(0, old - 1).astype(int)), weight)
    return out
