"""From signatures to a command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

from darklens.cli.verbs import VERBS

MANY = {"predict": "paths", "explain": "paths", "report": "runs", "ensemble": "runs"}
"""Verbs whose last positions are many paths."""


def make_parser() -> Any:
    """The parser of all verbs; it knows types and defaults from their signatures and from the recipe's dataclasses."""
    from jsonargparse import ArgumentParser

    from darklens.training import recipe as recipes_module

    parser = ArgumentParser(prog="darklens", description="Dark matter from strong gravitational lenses.")
    parser.add_argument("--version", action="store_true", help="print the version")
    verbs = parser.add_subcommands(required=False, metavar="VERB")
    for name, verb in VERBS.items():
        sub = ArgumentParser(description=(verb.__doc__ or "").split("\n\n")[0])
        many = MANY.get(name)
        flags = {"resume", "dry_run"}
        skip: set[str] = {many} if many else set()
        if many == "paths":
            sub.add_argument("run", type=Path, help="a run folder, a model folder, or the name of a model")
            skip.add("run")
        if many:
            sub.add_argument(many, type=Path, nargs="+", help="one or more")
        sub.add_function_arguments(verb, skip=skip | flags | {"overrides"} | _options(verb), as_positional=True)
        for option in _options(verb) - flags - skip:
            sub.add_argument(f"--{option}", type=get_type_hints(verb)[option], required=True, help=_HELP[option])
        for flag in sorted(flags & set(_names(verb))):
            sub.add_argument(f"--{flag.replace('_', '-')}", action="store_true", dest=flag, help=_HELP[flag])
        if "overrides" in _names(verb):
            sub.add_argument("--target", type=str, help="the catalogue column to regress")
            sub.add_argument("--augmentation", type=str, help="dihedral, flips or none")
            for part in ("network", "preprocessing", "optimizer", "schedule", "trainer"):
                kind = getattr(recipes_module, f"{part.capitalize()}Config")
                sub.add_class_arguments(kind, part)
        verbs.add_subcommand(name, sub, help=(verb.__doc__ or "").splitlines()[0])
    return parser


_HELP = {
    "out": "what to make",
    "data": "a folder or file in any layout, or preset:NAME",
    "budget": "what each recipe may use, such as 10min, 5epochs or 200000images",
    "resume": "go on with a run that was interrupted",
    "dry_run": "only say how long it takes and how big it gets",
}


def _names(verb: Callable[..., None]) -> list[str]:
    return list(inspect.signature(verb).parameters)


def _options(verb: Callable[..., None]) -> set[str]:
    """Parameters without a default that are options all the same, because a position would not explain them."""
    parameters = inspect.signature(verb).parameters
    needed = inspect.Parameter.empty
    return {name for name in ("out", "data", "budget") if name in parameters and parameters[name].default is needed}
