"""Read JSON files of strangers, and make dataclasses of what is in them, with keys and types checked."""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import inspect
import json
import math
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from darklens.errors import DarklensError

T = TypeVar("T")

MAX_DEPTH = 64
"""Levels of lists and keys that a JSON file may have; those of darklens have at most ten."""


def read_json(path: Path, error: type[DarklensError]) -> dict[str, Any]:
    """Return the keys and values of a JSON file; ``error`` if it has none."""
    try:
        content = json.loads(path.read_text("utf-8"))
        json.dumps(content, ensure_ascii=False).encode("utf-8")  # half a surrogate pair can be neither shown nor stored
    except OSError as reason:
        raise error(f"{path}: cannot be read: {reason.strerror or reason}") from reason
    except (ValueError, RecursionError) as reason:
        raise error(f"{path}: not valid JSON: {reason}") from reason
    if not isinstance(content, dict):
        raise error(f"{path}: holds a {type(content).__name__}; expected keys and values")
    if _is_deep(content):
        raise error(f"{path}: has more than {MAX_DEPTH} levels of lists and keys")
    return content


def _is_deep(content: Any) -> bool:
    """Whether lists and dicts lie in each other deeper than anything that walks them should have to go."""
    level = [content]
    for _ in range(MAX_DEPTH):
        inner = [each.values() if isinstance(each, dict) else each for each in level]
        level = [value for values in inner for value in values if isinstance(value, dict | list)]
    return bool(level)


def read_versioned(path: Path, newest: int, error: type[DarklensError]) -> dict[str, Any]:
    """Return the content of a JSON file that has a ``format`` number; ``error`` if that is above ``newest``."""
    content = read_json(path, error)
    number = content.get("format", 0)
    if type(number) is not int:
        raise error(f"{path}: format is {_short(number)}; expected a whole number")
    if number > newest:
        raise error(f"{path}: written by a newer darklens (format {number}, this one reads up to {newest}); upgrade")
    return content


def known_keys(kind: type, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return those keys and values that a dataclass has fields for."""
    names = {field.name for field in dataclasses.fields(kind)}
    return {key: value for key, value in content.items() if key in names}


def from_keys(kind: type[T], content: Mapping[str, Any], where: str, error: type[DarklensError]) -> T:
    """Make a dataclass of keys and values, checked against its fields and their types.

    Parameters
    ----------
    kind
        The dataclass. Its fields may be of JSON's types, lists and dicts of them, unions and literals.
    where
        Names the file, and the key inside it, in errors.
    error
        What is raised.

    Raises
    ------
    DarklensError
        ``error``, if a key is unknown or missing, or a value is not of its type. Floats have to be finite.
    """
    hints = get_type_hints(kind)
    if unknown := [key for key in content if key not in hints]:
        raise error(f"{where}: unknown key {_short(unknown[0])}; known are {', '.join(hints)}")
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    needed = [f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING]
    if missing := [name for name in needed if name not in content]:
        raise error(f"{where}: no key {missing[0]!r}; needed are {', '.join(needed)}")
    for key, value in content.items():
        if not _is_of(value, hints[key]):
            raise error(f"{where}: {key} is {_short(value)}; expected {readable_type(hints[key])}")
    return kind(**content)


def _is_of(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any or isinstance(hint, str):
        return True
    if origin in (Union, types.UnionType):
        return any(_is_of(value, each) for each in inner)
    if origin is Literal:
        return any(type(value) is type(each) and value == each for each in inner)
    if origin in _SEQUENCES:
        return isinstance(value, list | tuple) and all(_is_of(item, inner[0]) for item in value)
    if origin in (dict, collections.abc.Mapping):
        return isinstance(value, dict) and all(_is_of(item, inner[1]) for item in value.values())
    if origin is not None:  # a type that JSON and YAML do not have, such as a function
        return True
    if hint is float:
        return type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)
    if hint is int:
        return type(value) is int and abs(value) < 2**63
    return isinstance(value, hint)


def readable_type(hint: Any) -> str:
    """Return a type as text for a reader, such as ``list[int] or null``."""
    if hint is type(None):
        return "null"
    if isinstance(hint, type) and not get_args(hint):
        return hint.__name__
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(readable_type(each) for each in get_args(hint))
    if get_origin(hint) is Literal:
        return ", ".join(map(str, get_args(hint)))
    return str(hint).replace("typing.", "").replace("collections.abc.", "")


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) < 60 else f"{text[:50]}…"


def typed_arguments(
    function: Callable[..., Any],
    content: Mapping[str, Any],
    *,
    where: str,
    prefix: str,
    error: type[DarklensError],
    skip: Sequence[str] = (),
) -> dict[str, Any]:
    """Return keyword arguments of a function or class from keys and values, checked against its signature.

    Parameters
    ----------
    function
        What they are for; parameters without a type take anything.
    content
        The keys and values. Text is read as a number where one is expected, as YAML does not read 1e-3 as one.
    where
        Names the file in errors.
    prefix
        What keys are called in errors, such as ``network.``.
    error
        What is raised.
    skip
        Parameters that are not given here.

    Returns
    -------
    dict
        The arguments that are given, nested dataclasses made of their keys and values.

    Raises
    ------
    DarklensError
        ``error``, if a key is unknown, with the nearest that is known, or missing, or a value is not of its type.
    """
    parameters = inspect.signature(function).parameters.values()
    names = [p.name for p in parameters if p.name not in skip and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for key in content:
            if key not in names:
                raise error(f"{where}: {unknown_key(str(key), names, prefix)}")
    if missing := [p.name for p in parameters if p.name in names and p.default is p.empty and p.name not in content]:
        raise error(f"{where}: {prefix}{missing[0]} is needed")
    hints = _hints(function)
    return {key: _converted(value, hints.get(key, Any), where, prefix + key, error) for key, value in content.items()}


_SEQUENCES = (list, tuple, collections.abc.Sequence, collections.abc.Iterable)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Types of the parameters; none of those that cannot be resolved, such as names imported for type checkers only."""
    called = function.__init__ if inspect.isclass(function) and not dataclasses.is_dataclass(function) else function
    try:
        return get_type_hints(called)
    except (NameError, TypeError, AttributeError):
        return {}


def _converted(value: Any, hint: Any, where: str, name: str, error: type[DarklensError]) -> Any:
    """A value as its type wants it: dataclasses made of keys and values, numbers of text."""
    origin, inner = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise error(f"{where}: {name} holds keys and values; got {_short(value)}")
        return hint(**typed_arguments(hint, value, where=where, prefix=f"{name}.", error=error))
    if origin in (Union, types.UnionType):
        if any(_is_of(value, each) for each in inner):
            return value
        for each in (each for each in inner if each is not type(None)):
            with suppress(DarklensError):
                return _converted(value, each, where, name, error)
    elif origin is tuple and isinstance(value, list | tuple) and len(inner) == len(value) and Ellipsis not in inner:
        pairs = enumerate(zip(value, inner, strict=True))
        return tuple(_converted(item, each, where, f"{name}[{i}]", error) for i, (item, each) in pairs)
    elif origin in _SEQUENCES and isinstance(value, list | tuple):
        return [_converted(item, inner[0], where, f"{name}[{i}]", error) for i, item in enumerate(value)]
    elif hint in (int, float) and isinstance(value, str):
        with suppress(ValueError):
            if _is_of(number := hint(value), hint):
                return number
    elif hint is Path and isinstance(value, str):
        return Path(value)
    elif hint is float and _is_of(value, float):
        return float(value)
    if _is_of(value, hint):
        return value
    raise error(f"{where}: {name} is {_short(value)}; expected {readable_type(hint)}")


def unknown_key(key: str, known: Sequence[str], prefix: str = "") -> str:
    """Return the message that a key is unknown, with the nearest that is known, or all of them.

    Parameters
    ----------
    key
        The unknown one.
    known
        Those that there are.
    prefix
        What all of them are called in the message, such as ``network.``.

    Returns
    -------
    str
        A part of a sentence.
    """
    near = difflib.get_close_matches(key, known, 1)
    if near:
        return f"unknown key {prefix}{key}; did you mean {prefix}{near[0]}?"
    return f"unknown key {prefix}{key}; it takes {', '.join(known) or 'none'}"
