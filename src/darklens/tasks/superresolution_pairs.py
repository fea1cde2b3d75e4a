"""Pairs of an image and a finer one: their factor, whether they show the same scene, and the ratio of their fluxes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from darklens.data.dataset import Cutouts
from darklens.errors import DataError
from darklens.physics.degrading import correlation

MOST = 16
"""Largest factor between the sides of targets and images."""
SNAP = 0.05
"""A ratio of fluxes per pixel this near, as a fraction, to that of fluxes or of surface brightnesses is taken to be it."""
CHUNK = 256
"""Pairs that are compared at a time."""


def factor_of(cutouts: Cutouts) -> int:
    """Return the number of fine pixels along the side of a pixel.

    Raises
    ------
    DataError
        If there are no targets, of other bands than the images, or the number is not whole and the same on both axes.
    """
    if cutouts.targets is None:
        raise DataError(
            f"{cutouts.where}: super-resolution needs an image to predict for each (targets.npy, or HR/ and LR/); darklens "
            "simulate PRESET --pairs 2 makes such pairs"
        )
    (channels, height, width), target = cutouts.images.shape[1:], cutouts.targets.shape[1:]
    if len(target) != 3 or target[0] != channels:
        raise DataError(
            f"{cutouts.where}: images have {channels} bands and targets {target[0]}; they must be the "
            "same (--bands chooses)"
        )
    factors = {target[1] / height, target[2] / width}
    factor = max(factors)
    if len(factors) > 1 or factor != int(factor) or not 2 <= factor <= MOST:
        raise DataError(
            f"{cutouts.where}: targets of {target[1]}×{target[2]} pixels are no whole multiple, from 2 to {MOST}, of "
            f"images of {height}×{width}"
        )
    return int(factor)


def check_pairs(cutouts: Cutouts, rows: np.ndarray, least: float) -> tuple[float, float]:
    """Return the lowest and the highest pixel of the targets, of pairs that show the same scenes.

    Parameters
    ----------
    cutouts
        Images and their targets.
    rows
        Those that are looked at, (n,).
    least
        Correlation of image and target, summed to the same pixels, below which a pair is refused.

    Returns
    -------
    tuple of float
        Lowest and highest pixel, in the targets' unit.

    Raises
    ------
    DataError
        If a target has pixels that are no numbers, or pairs do not show the same scenes.
    """
    assert cutouts.targets is not None
    own, next_ones, low, high = [], [], np.inf, -np.inf
    for start in range(0, len(rows), CHUNK):
        these = rows[start : start + CHUNK]
        images, targets = (
            torch.from_numpy(np.asarray(each[these], dtype=np.float32)) for each in (cutouts.images, cutouts.targets)
        )
        if not torch.isfinite(targets).all():
            bad = these[np.flatnonzero(~torch.isfinite(targets.flatten(1)).all(1).numpy())[0]]
            raise DataError(f"{cutouts.where}: the target of image {cutouts.ids[bad]} has pixels that are no numbers")
        images = torch.nan_to_num(images, 0.0, 0.0, 0.0)  # those are refused, or masked, when they are read
        own.append(correlation(images, targets).numpy())
        next_ones.append(correlation(images, targets.roll(1, 0)).numpy())
        low, high = min(low, float(targets.min())), max(high, float(targets.max()))
    found, others = np.concatenate(own), np.concatenate(next_ones)
    if (odd := np.flatnonzero(found < least)).size:
        raise DataError(
            f"{cutouts.where}: {len(odd):,} of {len(rows):,} pairs do not show the same scene, "
            f"{cutouts.ids[rows[odd[0]]]} among them: image and target correlate by {found[odd[0]]:.2f}, less than "
            f"{least:g}. Bring the right targets, leave such pairs out, or lower "
            "--task.least_correlation for images of little but noise"
        )
    if len(found) > 2 and np.median(found) <= np.median(others):
        raise DataError(
            f"{cutouts.where}: images correlate no more with their own targets (median {np.median(found):.2f}) than "
            f"with the next image's ({np.median(others):.2f}): targets seem to be in another order"
        )
    return low, high


def flux_ratio(images: Tensor, targets: Tensor, factor: int) -> float:
    """Return the ratio of a target's flux per pixel to an image's, rounded to that of fluxes or of surface brightnesses.

    Parameters
    ----------
    images
        (N, C, H, W).
    targets
        (N, C, H × factor, W × factor).
    factor
        Fine pixels along the side of a pixel.

    Returns
    -------
    float
        1 / factor² or 1 if the ratio is within `SNAP` of it; 1 if the images' mean is 0.
    """
    mean = float(images.double().mean())
    ratio = float(targets.double().mean()) / mean if mean != 0 else 1.0
    return next((plain for plain in (1.0, factor**-2.0) if abs(ratio / plain - 1) < SNAP), ratio)
