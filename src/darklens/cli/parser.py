"""From signatures to a command line."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from darklens.cli.verbs import VERBS
from darklens.data.options import DataOptions

MANY = {"predict": "paths", "explain": "paths", "report": "runs", "ensemble": "runs"}
"""Verbs whose last positions are many paths."""
TRUE, FALSE = "true", "false"


def make_parser() -> Any:
    """Return the parser of all verbs; it knows types and defaults from their signatures and from dataclasses."""
    from jsonargparse import ArgumentParser

    from darklens.training import recipe as recipes_module

    parser = ArgumentParser(prog="darklens", description="Dark matter from strong gravitational lenses.")
    parser.add_argument("--version", action="store_true", help="print the version")
    verbs = parser.add_subcommands(required=False, metavar="VERB")
    for name, verb in VERBS.items():
        sub = ArgumentParser(description=(verb.__doc__ or "").split("\n\n")[0])
        many = MANY.get(name)
        skip: set[str] = {many} if many else set()
        if many == "paths":
            sub.add_argument("run", type=Path, help="a run folder, a model folder, or the name of a model")
            skip.add("run")
        if many:
            sub.add_argument(many, type=Path, nargs="+", help="one or more")
        named = _options(verb) | {"overrides", "options"}
        sub.add_function_arguments(verb, skip=skip | named, as_positional=True)
        for option in sorted(_options(verb) - skip):
            sub.add_argument(f"--{option}", type=get_type_hints(verb)[option], required=True, help=_HELP[option])
        if "options" in _names(verb):
            sub.add_class_arguments(DataOptions)
        if "overrides" in _names(verb):
            sub.add_argument("--target", type=str, help="the catalogue column to regress")
            sub.add_argument("--augmentation", type=str, help="dihedral, flips or none")
            for part in ("network", "preprocessing", "optimizer", "schedule", "trainer"):
                kind = getattr(recipes_module, f"{part.capitalize()}Config")
                sub.add_class_arguments(kind, part)
        verbs.add_subcommand(name, sub, help=(verb.__doc__ or "").splitlines()[0])
    return parser


def plain_arguments(arguments: Sequence[str]) -> list[str]:
    """Return a command line in the one form that the parser knows.

    ``--dry-run`` is ``--dry_run``; a switch is on when it is named (``--mask``), and may have its value behind it
    (``--mask true``).
    """
    verb = next((word for word in arguments if word in VERBS), None)
    switches = _switches(VERBS[verb]) if verb else set()
    plain: list[str] = []
    for word in arguments:
        value = word.lower()
        if plain and plain[-1] in switches and value in (TRUE, FALSE):
            plain[-1] += f"={value}"
            continue
        if plain and plain[-1] in switches:
            plain[-1] += "=true"
        name, equals, rest = word.partition("=")
        plain.append(
            name.replace("-", "_").replace("__", "--", 1) + equals + rest if re.match("--[a-z]", word) else word
        )
    if plain and plain[-1] in switches:
        plain[-1] += "=true"
    return plain


def arguments_of(verb: Callable[..., None], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a verb from the values of its command line: those of `DataOptions` become one."""
    if "options" not in _names(verb):
        return dict(given)
    reading = {field.name for field in dataclasses.fields(DataOptions)}
    chosen = {name: value for name, value in given.items() if name in reading}
    return {k: v for k, v in given.items() if k not in reading} | {"options": DataOptions(**chosen)}


_HELP = {
    "out": "what to make",
    "data": "a folder or file in any layout, or preset:NAME",
    "budget": "what each recipe may use, such as 10min, 5epochs or 200000images",
}


def _names(verb: Callable[..., None]) -> list[str]:
    return list(inspect.signature(verb).parameters)


def _switches(verb: Callable[..., None]) -> set[str]:
    """Options of a verb that are either on or off."""
    hints = get_type_hints(verb)
    switches = {f"--{name}" for name, kind in hints.items() if kind is bool}
    if "options" in hints:
        switches |= {f"--{name}" for name, kind in get_type_hints(DataOptions).items() if kind is bool}
    return switches


def _options(verb: Callable[..., None]) -> set[str]:
    """Parameters without a default that are options all the same, because a position would not explain them."""
    parameters = inspect.signature(verb).parameters
    needed = inspect.Parameter.empty
    return {name for name in ("out", "data", "budget") if name in parameters and parameters[name].default is needed}
