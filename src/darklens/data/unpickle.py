"""Read ``.npy`` files of unknown origin, pickled object arrays included, without running any code in them.

DeepLense stores axion images as pickled pairs ``[image, axion_mass]``. A pickle is a program; `darklens.data.pickles`
interprets the few operations that build arrays and numbers, and refuses all others.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from darklens.data.bounds import check_whole, named_errors, reason
from darklens.data.pickles import load_pickle
from darklens.errors import DataError, UnsafePickleError

HEADER_BYTES = 2**14
"""Bytes of a file in which its header is looked for; numpy itself refuses headers of more than 10 000 characters."""
NUMBERS = "biuf"
"""Kinds of dtypes that an image, a label or a mass can have: booleans, integers, floats."""


def read_header(path: Path) -> tuple[tuple[int, ...], np.dtype, int]:
    """Read the header of a ``.npy`` file of numbers or objects, and return shape, dtype and offset of the data in bytes.

    Raises
    ------
    DataError
        If it is no ``.npy`` file, holds neither numbers nor objects, or is shorter than its header says.
    """
    try:
        with path.open("rb") as file:
            start = io.BytesIO(file.read(HEADER_BYTES))
            size = file.seek(0, io.SEEK_END)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        version = np.lib.format.read_magic(start)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(start)
    except Exception as error:  # the header is Python source: its tokenizer and parser raise nearly anything
        raise DataError(f"{path}: not a .npy file ({reason(error)}); was it cut off, or renamed?") from error
    if not dtype.hasobject and dtype.kind not in NUMBERS:
        raise DataError(f"{path}: holds {dtype}, not numbers")
    if any(n < 0 for n in shape):
        raise DataError(f"{path}: damaged: its header promises the shape {shape}; copy it again")
    if not dtype.hasobject:
        check_whole(path, start.tell() + math.prod(shape) * dtype.itemsize, size)
    return shape, dtype, start.tell()


def load_npy(path: Path, mmap: bool = False) -> np.ndarray:
    """Read a ``.npy`` file, and return its array of numbers, or an object array that is built without running its pickle.

    ``mmap`` maps arrays of numbers into memory, read-only, instead of reading them.

    Raises
    ------
    DataError
        If it is not a whole ``.npy`` file.
    UnsafePickleError
        If its pickle asks for anything but arrays and plain values.
    """
    _, dtype, offset = read_header(path)
    if not dtype.hasobject:
        with named_errors(path, "cannot be read"):
            return np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    try:
        return load_pickle(path.read_bytes()[offset:])
    except UnsafePickleError as error:
        raise UnsafePickleError(f"{path}: refused: its pickle {error}") from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise DataError(f"{path}: its pickled array is damaged or cut off ({type(error).__name__})") from error


def split_pair(array: np.ndarray, path: Path) -> tuple[np.ndarray, float | None]:
    """Split the array of a DeepLense file, a plain image or a pair ``[image, mass]``, and return image and mass or None.

    Raises
    ------
    DataError
        If an object array is no such pair.
    """
    if array.dtype != object:
        return array, None
    parts = list(array.reshape(-1)) if array.ndim else [array.item()]
    images = [_numbers(part) for part in parts] if len(parts) == 2 else []
    if images and images[0] is not None and images[1] is not None and images[0].ndim >= 2 and images[1].size == 1:
        return images[0], float(images[1].reshape(()))
    raise DataError(f"{path}: an object array of {len(parts)} parts; expected [image, mass]")


def _numbers(part: Any) -> np.ndarray | None:
    """A part of an object array as an array of numbers, None if it holds anything else."""
    try:
        array = np.asarray(part)
    except ValueError:  # lists of different lengths
        return None
    return array if array.dtype.kind in NUMBERS else None
