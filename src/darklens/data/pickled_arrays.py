"""Build the numpy arrays and scalars that a pickle describes, without calling what the pickle names.

`darklens.data.pickles` interprets the pickle; this module imitates the few numpy functions that pickled images use.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from darklens.errors import UnsafePickleError

MAX_DIMENSIONS = 32
"""Axes that an array may have, numpy's own limit before version 2."""
SIMPLE_DTYPE = re.compile(r"b1|[iu][1248]|f[248]|O8?")


class Symbol(NamedTuple):
    """A function or class that a pickle names; it is never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        text = f"{self.module}.{self.name}"[:80]
        return text.encode("ascii", "backslashreplace").decode("ascii")


@dataclass
class PickledDtype:
    """A dtype under construction.

    Parameters
    ----------
    code
        Kind and bytes, such as ``f8``.
    order
        Byte order, one of ``<``, ``>``, ``|`` and ``=``.
    """

    code: str
    order: str = "="

    def numpy(self) -> np.dtype:
        """Return the dtype as numpy knows it."""
        return np.dtype(self.order + self.code if self.code[0] != "O" else "O")


@dataclass
class PickledArray:
    """An array under construction.

    Parameters
    ----------
    shape
        Its shape.
    dtype
        Type of its items; None until it is known.
    data
        Its bytes, or the list of its items if they are objects; None until they are known.
    order
        ``C`` if the last axis varies fastest in the data, ``F`` if the first does.
    """

    shape: tuple[int, ...] = (0,)
    dtype: np.dtype | None = None
    data: bytes | bytearray | str | list[Any] | None = None
    order: Literal["C", "F"] = "C"


def make_dtype(arguments: Sequence[Any]) -> PickledDtype:
    """Return the dtype that ``numpy.dtype(code, align, copy)`` would; only booleans, integers, floats and objects."""
    code = arguments[0] if arguments else None
    if not isinstance(code, str) or not SIMPLE_DTYPE.fullmatch(code):
        raise UnsafePickleError(f"asks for the dtype {_short(code)}, which an image has no use for")
    return PickledDtype(code)


def make_array(arguments: Sequence[Any]) -> PickledArray:
    """Return the empty array that ``_reconstruct(ndarray, shape, code)`` would; its state follows."""
    if len(arguments) != 3 or arguments[0] != Symbol("numpy", "ndarray"):
        raise UnsafePickleError("asks for an array of a class other than numpy.ndarray, which an image has no use for")
    return PickledArray()


def make_scalar(arguments: Sequence[Any]) -> PickledArray:
    """Return what ``scalar(dtype, bytes)`` would, as an array without dimensions."""
    dtype, data = arguments
    return set_array(PickledArray(), (1, (), dtype, False, data))


def make_from_buffer(arguments: Sequence[Any]) -> PickledArray:
    """Return the array that ``_frombuffer(buffer, dtype, shape, order)`` would."""
    data, dtype, shape, order = arguments
    if order not in ("C", "F"):
        raise ValueError("an array that is in neither C nor Fortran order")
    return set_array(PickledArray(), (1, shape, dtype, order == "F", data))


def encode_text(arguments: Sequence[Any]) -> bytes:
    """Return the bytes that ``_codecs.encode(text, 'latin1')`` would: how old pickles carry the bytes of an array."""
    text, encoding = arguments
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise UnsafePickleError(f"asks for text encoded as {_short(encoding)}, which an image has no use for")
    return text.encode("latin-1")


def set_dtype(dtype: PickledDtype, state: Any) -> None:
    """Set the byte order of a dtype from its pickled state, which may hold nothing else."""
    if not isinstance(state, tuple) or len(state) != 8 or state[0] != 3 or state[2:7] != (None, None, None, -1, -1):
        raise UnsafePickleError("asks for a dtype with fields or a size of its own, which an image has no use for")
    if state[1] not in ("<", ">", "|", "="):
        raise ValueError("a dtype of an unknown byte order")
    dtype.order = state[1]


def set_array(array: PickledArray, state: Any) -> PickledArray:
    """Set shape, dtype and data of an array from its pickled state; the data must be of exactly that size."""
    if not isinstance(state, tuple) or len(state) != 5:
        raise ValueError("an array without a state of five parts")
    _, shape, pickled, fortran, data = state
    if not isinstance(pickled, PickledDtype) or not isinstance(shape, tuple) or len(shape) > MAX_DIMENSIONS:
        raise ValueError("an array without dtype or shape")
    if not all(type(n) is int and 0 <= n < 2**48 for n in shape):
        raise ValueError("an array of an impossible shape")
    dtype = pickled.numpy()
    if not isinstance(data, list if dtype.hasobject else (bytes, bytearray, str)):
        raise ValueError("an array whose data are not of its dtype")
    if len(data) != math.prod(shape) * (1 if dtype.hasobject else dtype.itemsize):
        raise ValueError("an array whose data are not of its size")
    array.shape, array.dtype, array.data, array.order = shape, dtype, data, "F" if fortran else "C"
    return array


def numeric_array(array: PickledArray) -> np.ndarray:
    """Return a finished array of booleans or numbers, in this machine's byte order."""
    data = array.data.encode("latin-1") if isinstance(array.data, str) else array.data
    assert isinstance(data, bytes | bytearray)
    assert array.dtype is not None
    flat = np.frombuffer(data, array.dtype).astype(array.dtype.newbyteorder("="))
    return flat.reshape(array.shape, order=array.order)


Maker = Callable[[Sequence[Any]], Any]
FUNCTIONS: dict[Symbol, Maker | None] = {
    Symbol("numpy", "dtype"): make_dtype,
    Symbol("numpy", "ndarray"): None,  # an argument of _reconstruct only
    Symbol("_codecs", "encode"): encode_text,
}
for core in ("numpy.core", "numpy._core"):  # numpy 1 and 2
    FUNCTIONS[Symbol(f"{core}.multiarray", "_reconstruct")] = make_array
    FUNCTIONS[Symbol(f"{core}.multiarray", "scalar")] = make_scalar
    FUNCTIONS[Symbol(f"{core}.numeric", "_frombuffer")] = make_from_buffer


def _short(value: Any) -> str:
    """A value of a pickle, fit for an error message."""
    return ascii(value[:40]) if isinstance(value, str) else f"of type {type(value).__name__}"
