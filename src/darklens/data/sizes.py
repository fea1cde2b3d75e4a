"""Images of one size: crop or pad about the centre, and say which sizes there are where they differ."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from darklens.data.dataset import Images
from darklens.errors import DataError

LARGEST = 16_384
"""Pixels a side that images can be brought to: 1 GiB in float32. A choice, not tuned; without it a mistyped number would
take all memory."""


@dataclass(frozen=True)
class OneSize:
    """Crop or pad images to one number of pixels a side: the options ``--crop`` and ``--pad``.

    Parameters
    ----------
    crop
        Side to which larger images are cropped, pixels; None refuses larger ones if ``pad`` is given.
    pad
        Side to which smaller images are padded, pixels; None refuses smaller ones if ``crop`` is given. Equal to ``crop``
        if both are given.

    Raises
    ------
    DataError
        If a side is below 1 or above `LARGEST`, or the two differ.
    """

    crop: int | None = None
    pad: int | None = None

    def __post_init__(self) -> None:
        for name in ("crop", "pad"):
            if (side := getattr(self, name)) is not None and not 1 <= side <= LARGEST:
                raise DataError(f"--{name} takes a number of pixels, 1 to {LARGEST}; got {side}")
        if self.crop is not None and self.pad is not None and self.crop != self.pad:
            raise DataError(
                f"--crop {self.crop} and --pad {self.pad} are two sizes; to crop the larger images and pad the smaller, "
                "give both the same number"
            )

    @property
    def side(self) -> int | None:
        """Return the side that images have afterwards, pixels; None if they are left as they are."""
        return self.crop if self.crop is not None else self.pad

    def __call__(self, images: np.ndarray, name: str, *, level: float | None = None) -> np.ndarray:
        """Return images (…, H, W) cropped or padded to this size.

        Parameters
        ----------
        images
            Images (…, H, W).
        name
            The file or dataset they come from, for errors.
        level
            Value of a border; None takes the median of each image's own edge.

        Returns
        -------
        np.ndarray
            (…, side, side) of the same type; the images themselves if no size is given.

        Raises
        ------
        DataError
            If they are larger and there is no ``crop``, or smaller and there is no ``pad``.
        """
        if self.side is None:
            return images
        height, width = images.shape[-2:]
        for wrong, given, other in (
            (max(height, width) > self.side, self.crop, "crop"),
            (min(height, width) < self.side, self.pad, "pad"),
        ):
            if wrong and given is None:
                have = "pad" if other == "crop" else "crop"
                raise DataError(
                    f"{name}: {height}×{width} pixels; --{have} {self.side} needs --{other} {self.side} beside it"
                )
        return crop_or_pad(images, self.side, level=level)


def central_window(height: int, width: int, side: int) -> tuple[slice, slice]:
    """Return the rows and columns of the central ``side`` × ``side`` pixels of an image; an axis that is shorter is whole.

    Parameters
    ----------
    height, width
        Of the image, pixels.
    side
        Of the window, pixels. Where an odd number of pixels is cut, one more is cut at the end of the axis.

    Returns
    -------
    tuple of slice
        Rows and columns.
    """
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    return slice(top, min(height, top + side)), slice(left, min(width, left + side))


def crop_or_pad(images: np.ndarray, side: int, *, level: float | None = None) -> np.ndarray:
    """Return the central pixels of images; where there are fewer, a border is added.

    Parameters
    ----------
    images
        (…, H, W).
    side
        Number of pixels on each side.
    level
        Value of the border; None takes the median of each image's own edge.

    Returns
    -------
    np.ndarray
        (…, side, side) of the same type.
    """
    rows, columns = central_window(images.shape[-2], images.shape[-1], side)
    images = images[..., rows, columns]
    height, width = images.shape[-2:]
    if (height, width) == (side, side):
        return images
    border = np.asarray(level, images.dtype) if level is not None else _edge_level(images)
    out = np.broadcast_to(border, (*images.shape[:-2], side, side)).copy()
    y, x = (side - height) // 2, (side - width) // 2
    out[..., y : y + height, x : x + width] = images
    return out


def _edge_level(images: np.ndarray) -> np.ndarray:
    """The median of the edge of each image (…, H, W), as (…, 1, 1)."""
    edge = np.concatenate([images[..., 0, :], images[..., -1, :], images[..., :, 0], images[..., :, -1]], axis=-1)
    with warnings.catch_warnings():  # an edge without data stays without
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmedian(edge, axis=-1)[..., None, None].astype(images.dtype))


@dataclass(frozen=True)
class Resized:
    """Images that are cropped or padded to one size when they are read.

    Parameters
    ----------
    images
        Images (N, C, H, W) of another size.
    size
        The size that they are brought to.
    name
        The file or dataset they come from, for errors.
    level
        Value of the border that is added; None takes the median of each image's own edge.
    """

    images: Images
    size: OneSize
    name: str
    level: float | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape (N, C, side, side)."""
        side = self.size.side
        return self.images.shape if side is None else (*self.images.shape[:-2], side, side)

    @property
    def dtype(self) -> np.dtype:
        """Return the type of the pixels, which cropping and padding keep."""
        return self.images.dtype

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.size(self.images[rows], self.name, level=self.level)


def sizes_message(shapes: Mapping[tuple[int, ...], Sequence[str]]) -> str:
    """Return which sizes images have, how many of each, and how to bring them to one.

    Parameters
    ----------
    shapes
        For each shape (C, H, W) the names of the images that have it.
    """
    most_first = sorted(shapes.items(), key=lambda item: -len(item[1]))
    listed = ", ".join(f"{'×'.join(map(str, s))} ({len(names):,}, such as {names[0]})" for s, names in most_first[:6])
    more = f" and {len(shapes) - 6} other sizes" if len(shapes) > 6 else ""
    if len({shape[0] for shape in shapes}) > 1:
        return (
            f"images differ in their bands: bands×height×width are {listed}{more}; keep those of one kind in a folder"
        )
    least, largest = min(min(s[1:]) for s in shapes), max(max(s[1:]) for s in shapes)
    return (
        f"images of {len(shapes)} sizes: bands×height×width are {listed}{more}; bring them to one with --crop {least} or "
        f"--pad {largest} (both with the same number to choose another)"
    )
