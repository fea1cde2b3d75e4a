"""Images that lie in one array: ``.npy`` stacks and HDF5 files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from darklens.data.bounds import naming
from darklens.data.readers.hdf5_checks import check_stored, check_text
from darklens.data.unpickle import load_npy
from darklens.errors import DataError


def open_npy_stack(path: Path) -> np.ndarray:
    """A ``.npy`` of one image or many as (N, C, H, W), memory-mapped.

    A three-dimensional array is a stack of single-band images, unless its first axis has at most four planes.
    """
    array = load_npy(path, mmap=True)
    if array.dtype == object or not array.size:
        raise DataError(f"{path}: an array of shape {array.shape} and type {array.dtype}, not of images")
    return _as_stack(array, path)


def _as_stack(array: np.ndarray, path: Path) -> np.ndarray:
    if array.ndim == 4:
        return array
    if array.ndim == 3:
        return array[None] if array.shape[0] <= 4 else array[:, None]
    if array.ndim == 2:
        return array[None, None]
    raise DataError(f"{path}: an array of shape {array.shape} is no image (H, W) and no stack (N, C, H, W)")


class Hdf5Stack:
    """A stack in an HDF5 file, opened anew in each process; rows are read in order, as HDF5 asks."""

    def __init__(self, path: Path, name: str | None = None):
        self.path = path
        with self._open() as file:
            self.name = name or self._largest(file)
            check_stored(file[self.name], self.path)
            shape, dtype = file[self.name].shape, file[self.name].dtype
        self.planar = len(shape) == 3
        self.shape = (shape[0], 1, *shape[1:]) if self.planar else tuple(shape)
        self.dtype = dtype
        self._file: Any = None

    @contextmanager
    def _open(self) -> Iterator[Any]:
        import h5py

        with naming(self.path, "not a readable HDF5 file"), h5py.File(self.path, "r") as file:
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
        """One-dimensional datasets with a value for each image: labels, ids, truths."""
        import h5py

        columns: dict[str, np.ndarray] = {}

        def visit(name: str, node: Any) -> None:
            if not isinstance(node, h5py.Dataset) or node.ndim != 1 or len(node) != self.shape[0]:
                return
            text = h5py.check_string_dtype(node.dtype) is not None
            if text or node.dtype.kind in "biuf":
                check_stored(node, self.path)
                if text:
                    check_text(self.path)
                columns[name.rpartition("/")[2]] = node.asstr()[...] if text else node[...]

        with self._open() as file:
            file.visititems(visit)
        return columns

    def __getitem__(self, rows: Any) -> np.ndarray:
        import h5py

        wanted = np.atleast_1d(np.arange(self.shape[0])[rows])
        unique, inverse = np.unique(wanted, return_inverse=True)
        with naming(self.path, "not a readable HDF5 file"):
            if self._file is None:
                self._file = h5py.File(self.path, "r")
            images = self._file[self.name][unique][inverse]
        return images[:, None] if self.planar else images

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}
