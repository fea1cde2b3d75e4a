"""Check the pixels of images: count those that are nan or infinite, and find images that hold one value only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from darklens.errors import DataError


def check_finite(images: np.ndarray, ids: Sequence[str], source: str, *, mask: bool = False) -> np.ndarray:
    """Refuse images with pixels that are nan or infinite, or set such pixels to 0, and return the images.

    Parameters
    ----------
    images
        (N, C, H, W), of any numeric type.
    ids
        Identifier of each image, (N,), for errors.
    source
        File or dataset that they come from, for errors.
    mask
        Set such pixels to 0 instead of refusing them.

    Returns
    -------
    np.ndarray
        (N, C, H, W) of the same type; the array itself if all of its pixels are finite.

    Raises
    ------
    DataError
        If there are such pixels and they are not to be masked; it says how many, and in which image the first is.
    """
    if images.dtype.kind != "f":
        return images
    # A sum is nan or infinite if any pixel is; it is far cheaper than looking at each.
    with np.errstate(invalid="ignore", over="ignore"):
        suspicious = ~np.isfinite(images.reshape(len(images), -1).sum(1, dtype=np.float64))
    if not suspicious.any():
        return images
    bad = ~np.isfinite(images)
    if not bad.any():  # finite float64 pixels whose sum is not
        return images
    if not mask:
        first = int(np.flatnonzero(bad.reshape(len(images), -1).any(1))[0])
        raise DataError(
            f"{source}: image {ids[first]} has {int(bad[first].sum())} pixels that are nan or infinite; "
            "--mask true sets such pixels to 0"
        )
    return np.where(bad, np.zeros((), images.dtype), images)


def noise_of_data(noise: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Return noise maps (N, C, H, W), infinite where the pixels of their images are nan or infinite."""
    finite = np.isfinite(images)
    return noise if finite.all() else np.where(finite, noise, np.float32(np.inf))


def empty_images(images: np.ndarray) -> np.ndarray:
    """Return which images (N, C, H, W) show nothing, (N,) bool: in every band, all finite pixels have one value.

    Images without a finite pixel are among them.
    """
    flat = images.reshape(len(images), images.shape[1], -1)
    with np.errstate(invalid="ignore", over="ignore"):
        whole = images.dtype.kind != "f" or np.isfinite(flat.sum(dtype=np.float64))
    if whole:  # as nearly always
        return constant_images(images)
    bad = ~np.isfinite(flat)
    low, high = np.where(bad, np.inf, flat).min(-1), np.where(bad, -np.inf, flat).max(-1)
    empty: np.ndarray = (low >= high).all(1)
    return empty


def constant_images(images: np.ndarray) -> np.ndarray:
    """Return which images (N, C, H, W) hold one value only in every band, (N,) bool."""
    flat = images.reshape(len(images), images.shape[1], -1)
    return (flat.max(-1) == flat.min(-1)).all(1)
