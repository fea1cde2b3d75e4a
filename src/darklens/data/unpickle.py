"""Read ``.npy`` files of strangers, pickled object arrays included, without running anything in them.

DeepLense stores axion images as pickled pairs ``[image, axion_mass]``. A pickle is a program; the one here may build
numpy arrays, numbers, text, lists, tuples and dicts, and nothing else.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from darklens.errors import DataError, UnsafePickleError

ALLOWED = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy._core.multiarray", "scalar"),
    ("_codecs", "encode"),  # how old pickles carry the bytes of an array
}


class ArrayUnpickler(pickle.Unpickler):
    """An unpickler that admits numpy arrays and plain values."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ALLOWED:
            return super().find_class(module, name)
        raise UnsafePickleError(f"asks for {module}.{name}, which an image has no use for")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise UnsafePickleError("asks for an object stored elsewhere")


def read_header(path: Path) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, dtype and offset of the data of a ``.npy`` file; DataError if it is none, or is shorter than it says."""
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            offset = file.tell()
            size = file.seek(0, io.SEEK_END)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path}: not a .npy file ({error}); was it cut off, or renamed?") from error
    expected = offset + int(np.prod(shape)) * dtype.itemsize
    if not dtype.hasobject and size < expected:
        raise DataError(f"{path}: truncated: {size} bytes where its header promises {expected}; copy it again")
    return shape, dtype, offset


def load_npy(path: Path, mmap: bool = False) -> np.ndarray:
    """A ``.npy`` array; object arrays through `ArrayUnpickler`.

    Raises
    ------
    DataError
        If it is not a whole ``.npy`` file.
    UnsafePickleError
        If its pickle asks for anything but arrays and plain values.
    """
    _, dtype, offset = read_header(path)
    if not dtype.hasobject:
        return np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    with path.open("rb") as file:
        file.seek(offset)
        try:
            return np.asarray(ArrayUnpickler(file, encoding="latin1").load(), dtype=object)
        except UnsafePickleError as error:
            raise UnsafePickleError(f"{path}: refused: its pickle {error}") from error
        except Exception as error:  # a damaged pickle can raise nearly anything
            raise DataError(f"{path}: its pickled array is damaged or cut off ({type(error).__name__})") from error


def split_pair(array: np.ndarray, path: Path) -> tuple[np.ndarray, float | None]:
    """Image and mass of a DeepLense file: a plain image, or a pickled ``[image, mass]``."""
    if array.dtype != object:
        return array, None
    parts = list(array.reshape(-1)) if array.ndim else [array.item()]
    images = [np.asarray(part) for part in parts]
    if len(parts) == 2 and images[0].ndim >= 2 and images[1].size == 1 and images[0].dtype != object:
        return images[0], float(images[1].reshape(()))
    raise DataError(f"{path}: an object array of {len(parts)} parts; expected [image, mass]")
