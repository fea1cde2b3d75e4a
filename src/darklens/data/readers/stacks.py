"""Read images that are stored in one array: ``.npy`` stacks and HDF5 files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from darklens.data.bounds import named_errors
from darklens.data.mapped import MappedImages
from darklens.data.readers.files import BANDS_LAST, Channels, channels_note, is_channels_last
from darklens.data.readers.hdf5_checks import check_stored, check_text
from darklens.data.splits import SPLIT_NAMES
from darklens.data.unpickle import load_npy
from darklens.errors import DataError


def open_npy_stack(path: Path, channels: Channels | None = None) -> tuple[MappedImages, list[str]]:
    """Open a ``.npy`` of one image or many, and return it as (N, C, H, W) with notes on what was guessed.

    A three-dimensional array is one image if its first axis has at most four planes (C, H, W) or its last three or four
    (H, W, C), or if ``channels`` is given; else a stack of images of one band, (N, H, W).

    Parameters
    ----------
    path
        The file.
    channels
        Which axis has the bands of an image, first or last; None guesses (see `is_channels_last`).

    Returns
    -------
    tuple of MappedImages and list of str
        Images (N, C, H, W), memory-mapped, and notes.

    Raises
    ------
    DataError
        If it holds no numbers, or has another number of axes.
    """
    array = load_npy(path, mmap=True)
    if array.dtype == object or not array.size:
        raise DataError(f"{path}: an array of shape {array.shape} and type {array.dtype}, not of images")
    last = array.ndim in (3, 4) and is_channels_last(array.shape[-3:], channels)
    notes = [channels_note(array.shape, path.name)] if last else []
    seen = _as_stack(np.moveaxis(array, -1, -3) if last else array, path, last or channels is not None)
    return MappedImages(path, seen.shape, last=last), notes


def _as_stack(array: np.ndarray, path: Path, has_bands: bool) -> np.ndarray:
    if array.ndim == 4:
        return array
    if array.ndim == 3:
        return array[None] if has_bands or array.shape[0] <= max(BANDS_LAST) else array[:, None]
    if array.ndim == 2:
        return array[None, None]
    raise DataError(f"{path}: an array of shape {array.shape} is no image (H, W) and no stack (N, C, H, W)")


def hdf5_splits(path: Path) -> dict[str, str]:
    """Return the datasets of images in groups that are named for splits (``train/images``), by their names in the file.

    Empty unless there are at least two, of images of one shape. The values are the names of the splits.
    """
    import h5py

    found: dict[str, tuple[str, tuple[int, ...]]] = {}

    def visit(name: str, node: Any) -> None:
        split = SPLIT_NAMES.get(name.partition("/")[0].lower())
        if split and isinstance(node, h5py.Dataset) and node.ndim in (3, 4) and node.dtype.kind in "fiu" and node.size:
            found[name] = (split, node.shape[1:])

    with named_errors(path, "not a readable HDF5 file"), h5py.File(path, "r") as file:
        file.visititems(visit)
    splits = [split for split, _ in found.values()]
    if len(splits) < 2 or len(set(splits)) < len(splits) or len({shape for _, shape in found.values()}) > 1:
        return {}
    return {name: split for name, (split, _) in found.items()}


def _steps(home: str, group: str) -> int | None:
    """How many groups lie between two, if one of them is in the other; None if neither is."""
    here, there = (text.split("/") if text else [] for text in (home, group))
    shared = min(len(here), len(there))
    return None if here[:shared] != there[:shared] else abs(len(here) - len(there))


class Hdf5Stack:
    """Images in a dataset of an HDF5 file. Each process opens the file for itself; rows are read in ascending order.

    ``notes`` are sentences on what was guessed.

    Parameters
    ----------
    path
        The file.
    name
        The dataset in it; None takes the largest of three or four axes, of equals the first.
    channels
        Which axis has the bands of an image, first or last; None guesses (see `is_channels_last`).

    Raises
    ------
    DataError
        If it is no readable HDF5 file, has no such dataset, or promises more than it stores.
    """

    def __init__(self, path: Path, name: str | None = None, channels: Channels | None = None):
        self.path = path
        with self._open() as file:
            self.name = name or self._largest(file)
            check_stored(file[self.name], self.path)
            shape, dtype = file[self.name].shape, file[self.name].dtype
        self.planar = len(shape) == 3
        self.last = not self.planar and is_channels_last(shape[-3:], channels)
        self.notes = [channels_note(shape, path.name)] if self.last else []
        shape = (shape[0], shape[-1], *shape[1:-1]) if self.last else shape
        self.shape = (shape[0], 1, *shape[1:]) if self.planar else tuple(shape)
        self.dtype = dtype
        self._file: Any = None

    @contextmanager
    def _open(self) -> Iterator[Any]:
        import h5py

        with named_errors(self.path, "not a readable HDF5 file"), h5py.File(self.path, "r") as file:
            yield file

    def _largest(self, file: Any) -> str:
        import h5py

        found: dict[str, int] = {}
        file.visititems(
            lambda name, node: (
                found.update({name: node.size})
                if isinstance(node, h5py.Dataset) and node.ndim in (3, 4) and node.dtype.kind in "fiu" and node.size
                else None
            )
        )
        if not found:
            raise DataError(f"{self.path}: no dataset of images, (N, H, W) or (N, C, H, W)")
        return max(found, key=lambda name: found[name])

    def columns(self) -> dict[str, np.ndarray]:
        """Return the one-dimensional datasets with a value for each image, (N,), such as labels and truths, by name.

        They are looked for in the group of the images and in the groups around and within it, never in others: the labels
        of ``valid/`` are not those of ``train/``. Of equal names the nearest to the images is taken.
        """
        import h5py

        columns: dict[str, np.ndarray] = {}
        nearest: dict[str, int] = {}
        home = self.name.strip("/").rpartition("/")[0]

        def visit(name: str, node: Any) -> None:
            if not isinstance(node, h5py.Dataset) or node.ndim != 1 or len(node) != self.shape[0]:
                return
            group, _, column = name.rpartition("/")
            steps = _steps(home, group)
            if steps is None or steps >= nearest.get(column, steps + 1):
                return
            text = h5py.check_string_dtype(node.dtype) is not None
            if text or node.dtype.kind in "biuf":
                check_stored(node, self.path)
                if text:
                    check_text(self.path)
                columns[column] = node.asstr()[...] if text else node[...]
                nearest[column] = steps

        with self._open() as file:
            file.visititems(visit)
        return columns

    def __getitem__(self, rows: Any) -> np.ndarray:
        import h5py

        wanted = np.atleast_1d(np.arange(self.shape[0])[rows])
        unique, inverse = np.unique(wanted, return_inverse=True)
        with named_errors(self.path, "not a readable HDF5 file"):
            if self._file is None:
                self._file = h5py.File(self.path, "r")
            images = self._file[self.name][unique][inverse]
        if self.last:
            return np.moveaxis(images, -1, 1)
        return images[:, None] if self.planar else images

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}
