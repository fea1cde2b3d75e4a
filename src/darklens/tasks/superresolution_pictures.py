"""Pictures of super-resolution: typical and worst images of each method beside their truth, and the power by scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from darklens.evaluation.superresolution import FREQUENCIES
from darklens.plots import superresolution as drawn

SHOWN = 3
"""Typical, and worst, images that are drawn beside their truth."""


def beside_truth_and_power(
    methods: Mapping[str, np.ndarray],
    bicubic: np.ndarray,
    truth: np.ndarray,
    seen: np.ndarray,
    *,
    factor: int,
    noise: float,
) -> list[Any]:
    """Draw typical and worst images of the first method, as all methods make them, and the power of each by scale.

    Parameters
    ----------
    methods
        Predicted images by the name of the method, (N, C, H × factor, W × factor).
    bicubic
        The images interpolated, of that shape.
    truth
        Of that shape.
    seen
        The images, (N, C, H, W), in the unit of the truth.
    factor
        Fine pixels along the side of a pixel.
    noise
        Standard deviation of the sky in the images, in the unit of the truth.

    Returns
    -------
    list
        Two figures.
    """
    error = np.sqrt(((next(iter(methods.values())) - truth) ** 2).mean((1, 2, 3)))
    order = np.argsort(error)
    middle = order[(np.linspace(0.25, 0.75, SHOWN) * (len(order) - 1)).astype(int)]
    rows = list(dict.fromkeys([*middle.tolist(), *order[::-1][:SHOWN].tolist()]))
    labels = ["typical" if row in middle.tolist() else "worst" for row in rows]
    every = {"bicubic": bicubic} | dict(methods)
    shown = {name: each[rows] for name, each in every.items()}
    pictures = drawn.beside_truth(seen[rows], shown, truth[rows], labels=labels, noise=noise)
    ratios = {name: drawn.power_ratio(each[order[::-1]], truth[order[::-1]]) for name, each in every.items()}
    return [pictures, drawn.power_by_frequency(ratios, factor, FREQUENCIES)]
