"""Images in a ``.npy`` file that are mapped into memory: each process maps the file for itself, and no pixel is copied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from darklens.data.unpickle import load_npy


class MappedImages:
    """The array of a ``.npy`` file as images (N, C, H, W).

    When it is sent to another process (workers of a loader, where processes are spawned), the file's name is sent, not the
    pixels.

    Parameters
    ----------
    path
        The file.
    shape
        (N, C, H, W), in which the array is seen after its axes are moved; None for that of the array.
    last
        Whether the bands are on the last axis of the file's array.

    Raises
    ------
    DataError
        If it is not a whole ``.npy`` file.
    """

    def __init__(self, path: Path, shape: tuple[int, ...] | None = None, *, last: bool = False):
        self.path, self.last = path, last
        array = load_npy(path, mmap=True)
        array = np.moveaxis(array, -1, -3) if last else array
        self.array = array if shape is None else array.reshape(shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape (N, C, H, W)."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        """Return the type of the pixels."""
        return self.array.dtype

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return np.asarray(self.array[rows])

    def window(self, rows: Any, window: tuple[slice, slice]) -> np.ndarray:
        """Return a part (rows and columns of pixels) of some images (n, C, h, w); the rest is not read."""
        return np.asarray(self.array[(rows, slice(None), *window)])

    def __reduce__(self) -> tuple[Any, ...]:
        return _mapped, (self.path, self.shape, self.last)


def _mapped(path: Path, shape: tuple[int, ...], last: bool) -> MappedImages:
    return MappedImages(path, shape, last=last)
