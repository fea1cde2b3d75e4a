"""What detectors and pipelines do to images: trails, cosmic rays, bleeding, edges, missing bands."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from darklens.simulation.priors import Floats

SATURATED = 1000
"""Brightness of pixels in which light bled, in standard deviations of the background."""


def add_artefacts(image: np.ndarray, names: Sequence[str], sigma: Floats, rng: Generator) -> np.ndarray:
    """Return an image with what happened to it.

    Parameters
    ----------
    image
        Image (bands, H, W), with noise.
    names
        Names of `darklens.simulation.scenes.presets.ARTEFACTS`, each of which happens.
    sigma
        Standard deviation of the background in each band, (bands,).
    rng
        Random numbers.

    Returns
    -------
    numpy.ndarray
        Image (bands, H, W).
    """
    out = image.copy()
    for name in names:
        FUNCTIONS[name](out, sigma, rng)
    return out


def without_data(image: np.ndarray, names: Sequence[str], sigma: Floats) -> np.ndarray:
    """Return where an image of `add_artefacts` holds no data: True at edges, in missing bands and where light bled.

    Parameters
    ----------
    image
        Image (bands, H, W), float32, as it was returned.
    names, sigma
        As they were given.

    Returns
    -------
    np.ndarray
        bool (bands, H, W).
    """
    found = np.zeros(image.shape, dtype=bool)
    if "edge" in names or "missing_band" in names:  # noise leaves no pixel at exactly 0
        found |= image == 0
    if "bleeding" in names:
        found |= image == (sigma * SATURATED).astype(image.dtype)[:, None, None]
    return found


def _satellite(image: np.ndarray, sigma: Floats, rng: Generator) -> None:
    """Add the trail of a satellite to one band: a straight line 1 to 2 pixels wide, 5 to 50σ bright."""
    bands, height, width = image.shape
    band = int(rng.integers(bands))
    angle, distance = rng.uniform(0, math.pi), rng.uniform(-0.4, 0.4) * min(height, width)
    y, x = np.mgrid[:height, :width]
    across = (x - (width - 1) / 2) * math.sin(angle) - (y - (height - 1) / 2) * math.cos(angle) - distance
    image[band] += (
        sigma[band]
        * math.exp(rng.uniform(math.log(5), math.log(50)))
        * np.exp(-((across / rng.uniform(0.8, 2)) ** 2) / 2)
    )


def _cosmic_rays(image: np.ndarray, sigma: Floats, rng: Generator) -> None:
    """Add one to four short tracks of bright pixels, each in one band."""
    bands, height, width = image.shape
    for _ in range(int(rng.integers(1, 5))):
        band = int(rng.integers(bands))
        x, y, angle = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0, 2 * math.pi)
        steps = np.arange(int(rng.integers(1, 10)))
        columns = (x + steps * math.cos(angle)).astype(int)
        rows = (y + steps * math.sin(angle)).astype(int)
        inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        image[band, rows[inside], columns[inside]] += sigma[band] * math.exp(rng.uniform(math.log(20), math.log(300)))


def _bleeding(image: np.ndarray, sigma: Floats, rng: Generator) -> None:
    """Saturate one to three columns of all bands over half of their length or more."""
    _, height, width = image.shape
    first = int(rng.integers(width))
    columns = slice(first, first + int(rng.integers(1, 4)))
    length = int(rng.uniform(0.5, 1.0) * height)
    start = int(rng.integers(height - length + 1))
    image[:, start : start + length, columns] = (sigma * SATURATED)[:, None, None]


def _edge(image: np.ndarray, sigma: Floats, rng: Generator) -> None:
    """Set a strip along one side, up to a third of the image, to zero in all bands: outside of the survey."""
    side = int(rng.uniform(0.05, 0.33) * image.shape[-1])
    turned = np.rot90(image, int(rng.integers(4)), axes=(1, 2))
    turned[:, :, :side] = 0.0


def _missing_band(image: np.ndarray, sigma: Floats, rng: Generator) -> None:
    """Set one band to zero."""
    image[int(rng.integers(len(image)))] = 0.0


FUNCTIONS = {
    "satellite": _satellite, "cosmic_rays": _cosmic_rays, "bleeding": _bleeding, "edge": _edge,
    "missing_band": _missing_band,
}  # fmt: skip
