"""Interpret the pickle of an array of images and numbers, without running any code in it.

A pickle is a program. The one interpreted here may build lists, tuples, numbers, text, bytes and numpy arrays of plain
numbers; whatever else it asks for is refused by name. What it builds can be no larger than the pickle itself.
"""

from __future__ import annotations

import codecs
import io
import pickletools
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np

from darklens.data import pickled_arrays
from darklens.data.pickled_arrays import FUNCTIONS, PickledArray, PickledDtype, Symbol
from darklens.errors import UnsafePickleError

MAX_OPERATIONS = 4_000_000
"""Operations that a pickle may have: more than an image of 1000 × 1000 pixels takes if each is pickled alone. A larger
limit lets a damaged file take up to 200 bytes of memory for each; a smaller one refuses large images of single numbers."""
MAX_DEPTH = 16
"""Levels of lists in lists; a pair of image and mass has two, an image as lists of numbers three. Beyond it a pickle is
refused, before Python's limit of recursion (1000) ends in an error without the file's name."""

OPERATIONS = {operation.code: operation for operation in pickletools.opcodes}
VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
PUTS = ("PUT", "BINPUT", "LONG_BINPUT")
GETS = ("GET", "BINGET", "LONG_BINGET")
IGNORED = ("PROTO", "FRAME")
MARK = object()


def load_pickle(payload: bytes) -> np.ndarray:
    """Return the array that a pickle holds: object arrays as such, a list or tuple as an object array of its items.

    Raises
    ------
    UnsafePickleError
        If the pickle asks for anything but arrays and plain values.
    ValueError, TypeError, IndexError, KeyError
        If it is damaged, or what it builds would be larger than itself.
    """
    value = _Finisher(len(payload)).finish(_Machine(payload).run())
    if isinstance(value, np.ndarray):
        return value
    return _object_array(value if isinstance(value, list | tuple) else [value])


class _Machine:
    """The stack machine that a pickle is written for, with the operations that arrays of numbers need."""

    def __init__(self, payload: bytes):
        self.payload = payload
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.encoded = 0

    def run(self) -> Any:
        """Return what is on top of the stack when the pickle stops."""
        for count, (name, argument) in enumerate(_operations(self.payload)):
            if count > MAX_OPERATIONS:
                raise ValueError(f"more than {MAX_OPERATIONS:,} operations")
            if name == "STOP":
                break
            self._step(name, argument)
        return self.stack.pop()

    def _step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in VALUES:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in PUTS:
            self.memo[argument] = stack[-1]
        elif name in GETS:
            stack.append(self.memo[argument])
        elif name in TUPLES:
            stack[-TUPLES[name] :] = [tuple(self._top(TUPLES[name]))]
        elif name not in IGNORED:
            operation = getattr(self, f"_{name.lower()}", None)
            if operation is None:
                _refuse(name)
            operation(argument)

    def _top(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError("the stack is too short")
        return self.stack[-count:]

    def _since_mark(self) -> list[Any]:
        """Take the values since the last mark, and the mark."""
        values = []
        while (value := self.stack.pop()) is not MARK:
            values.append(value)
        return values[::-1]

    def _mark(self, _: None) -> None:
        self.stack.append(MARK)

    def _pop(self, _: None) -> None:
        self.stack.pop()

    def _pop_mark(self, _: None) -> None:
        self._since_mark()

    def _dup(self, _: None) -> None:
        self.stack.append(self.stack[-1])

    def _tuple(self, _: None) -> None:
        self.stack.append(tuple(self._since_mark()))

    def _list(self, _: None) -> None:
        self.stack.append(self._since_mark())

    def _empty_list(self, _: None) -> None:
        self.stack.append([])

    def _append(self, _: None) -> None:
        self._extend([self.stack.pop()])

    def _appends(self, _: None) -> None:
        self._extend(self._since_mark())

    def _extend(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise TypeError("values appended to something that is no list")
        self.stack[-1].extend(values)

    def _global(self, argument: str) -> None:
        self._push_symbol(*argument.split(" ", 1))

    def _stack_global(self, _: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError("a name that is no text")
        self._push_symbol(module, name)

    def _push_symbol(self, module: str, name: str) -> None:
        symbol = Symbol(module, name)
        if symbol not in FUNCTIONS:
            raise UnsafePickleError(f"asks for {symbol}, which an image has no use for")
        self.stack.append(symbol)

    def _reduce(self, _: None) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Symbol) or not isinstance(arguments, tuple):
            raise TypeError("a call of something that is no function")
        maker = FUNCTIONS[function]
        if maker is None:
            raise UnsafePickleError(f"asks for a call of {function}, which an image has no use for")
        result = maker(arguments)
        if isinstance(result, bytes):
            self.encoded += len(result)
            if self.encoded > len(self.payload):
                raise ValueError("more bytes than it holds")
        self.stack.append(result)

    def _build(self, _: None) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, PickledDtype):
            pickled_arrays.set_dtype(target, state)
        elif isinstance(target, PickledArray):
            pickled_arrays.set_array(target, state)
        else:
            raise UnsafePickleError("asks to change an object that is no array, which an image has no use for")

    def _persid(self, _: Any) -> NoReturn:
        raise UnsafePickleError("asks for an object stored elsewhere")

    _binpersid = _next_buffer = _persid


class _Finisher:
    """Turn what the machine built into arrays, no more than ``size`` values and bytes of them.

    The machine's lists may hold one object many times, or themselves: counted as often as it is held, nothing can grow
    beyond what the pickle has bytes for.
    """

    def __init__(self, size: int):
        self.left = size

    def finish(self, value: Any, depth: int = 0) -> Any:
        """Return the value with all arrays in it as numpy's."""
        self._count(1)
        if depth > MAX_DEPTH:
            raise ValueError("lists in lists too deep")
        if isinstance(value, PickledArray):
            return self._array(value, depth)
        if isinstance(value, str | bytes | bytearray):
            self._count(len(value))
        elif isinstance(value, list | tuple) and not isinstance(value, Symbol):
            return [self.finish(item, depth + 1) for item in value]
        elif value is not None and not isinstance(value, int | float):
            raise TypeError("a function in the place of a value")
        return value

    def _array(self, array: PickledArray, depth: int) -> np.ndarray:
        if array.dtype is None or array.data is None:
            raise ValueError("an array without data")
        if isinstance(array.data, list):
            items = [self.finish(item, depth + 1) for item in array.data]
            return _object_array(items).reshape(array.shape, order=array.order)
        self._count(len(array.data))
        return pickled_arrays.numeric_array(array)

    def _count(self, number: int) -> None:
        self.left -= number
        if self.left < 0:
            raise ValueError("more values than it has bytes for")


def _object_array(items: list[Any] | tuple[Any, ...]) -> np.ndarray:
    array = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):
        array[i] = item
    return array


def _operations(payload: bytes) -> Iterator[tuple[str, Any]]:
    """Names and arguments of a pickle's operations. As `pickletools.genops`, which admits ASCII alone in STRING."""
    file = io.BytesIO(payload)
    while code := file.read(1):
        operation = OPERATIONS.get(code.decode("latin-1"))
        if operation is None:
            raise ValueError(f"unknown operation {code!r}")
        if operation.name == "STRING":
            yield "STRING", _quoted(file.readline())
        else:
            yield operation.name, operation.arg.reader(file) if operation.arg else None
    raise ValueError("the pickle does not stop")


def _quoted(line: bytes) -> str:
    """The text of Python 2's quoted and escaped strings, a character a byte."""
    text = line.rstrip(b"\n")
    if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in (b"'", b'"'):
        raise ValueError("a string without quotes")
    return codecs.escape_decode(text[1:-1])[0].decode("latin-1")


def _refuse(name: str) -> NoReturn:
    raise UnsafePickleError(f"asks for {name.lower().replace('_', ' ')}, which an image has no use for")
