"""From signatures to a command line."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

import yaml

from darklens.cli.verbs import VERBS
from darklens.errors import DarklensError
from darklens.schema import readable_type

MANY = {
    "predict": "paths",
    "find": "paths",
    "embed": "paths",
    "superresolve": "paths",
    "explain": "paths",
    "report": "runs",
    "ensemble": "runs",
}
"""Verbs whose last positions are many paths."""
TRUE, FALSE = "true", "false"
OPEN = ("--network.", "--task.", "--adaptation.")
"""Options whose names a network, task or method of adaptation defines."""


def make_parser() -> Any:
    """Return the parser of all verbs; it knows types and defaults from their signatures and from dataclasses.

    Options of a recipe's network and task are not among them: see `open_options` and `options_help`.
    """
    ArgumentParser = _parser_class()
    parser = ArgumentParser(prog="darklens", description="Dark matter from strong gravitational lenses.")
    parser.add_argument("--version", action="store_true", help="print the version")
    verbs = parser.add_subcommands(required=False, metavar="VERB")
    for name, verb in VERBS.items():
        described = (verb.__doc__ or "").split("\n\n")[0]
        sub = ArgumentParser(usage=_usage(name, verb), description=described)
        many = MANY.get(name)
        skip: set[str] = {many} if many else set()
        if many == "paths" and "run" in _names(verb):
            sub.add_argument("run", type=Path, help="a run folder, a model folder, or the name of a model")
            skip.add("run")
        if many:
            sub.add_argument(many, type=Path, nargs="+", help="one or more")
        named = _options(verb) | {"overrides", *_dataclasses(verb)}
        sub.add_function_arguments(verb, skip=skip | named, as_positional=True)
        for option in sorted(_options(verb) - skip):
            sub.add_argument(f"--{option}", type=get_type_hints(verb)[option], required=True, help=_HELP[option])
        for kind in _dataclasses(verb).values():
            sub.add_class_arguments(kind)
        if "overrides" in _names(verb):
            sub.add_argument("--augmentation", type=str, help="dihedral, flips or none")
            sub.add_argument("--encoder", type=str, help="a recipe whose network and optimiser are taken")
            sub.add_argument("--allow_leaks", type=bool, help="use columns of the catalogue that tell the label (true)")
            for part, kind in recipe_parts().items():
                sub.add_class_arguments(kind, part)
        verbs.add_subcommand(name, sub, help=(verb.__doc__ or "").splitlines()[0])
        parser.of_verbs[name] = sub
    return parser


def _parser_class() -> Any:
    """The parser of jsonargparse, with errors that name options as a command line does."""
    from jsonargparse import ArgumentParser

    class Parser(ArgumentParser):  # type: ignore[misc]
        def __init__(self, **settings: Any):
            super().__init__(**settings)
            self.of_verbs: dict[str, Any] = {}

        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            missing = re.fullmatch(r"the following arguments are required: (\w+)\.(.+)", message)
            if missing and (verb := self.of_verbs.get(missing[1])) is not None:
                keys = [key.removeprefix(f"{missing[1]}.") for key in missing[2].split(", ")]
                verb.error(f"missing: {', '.join(_as_given(verb, key) for key in keys)}")
            of = getattr(ex, "subcommand_parser", None) or self
            super().error(re.sub(r'Parser key "([\w.]+)"', lambda key: _as_given(of, key[1]), message), ex)
            raise SystemExit(2)  # as that does

    return Parser


def _as_given(parser: Any, key: str) -> str:
    """An argument as it stands in the usage of a verb: an option, or a position in capitals."""
    options = {option for action in parser._actions for option in action.option_strings}
    return f"--{key}" if f"--{key}" in options else key.upper()


def recipe_parts() -> dict[str, Any]:
    """Return the dataclasses of a recipe's parts by name; their fields are options of the command line."""
    from darklens.data.options import InputOptions, PreprocessingOptions
    from darklens.tasks.options import OptimizerOptions, ScheduleOptions
    from darklens.training.recipe import TrainerConfig

    return {
        "preprocessing": PreprocessingOptions,
        "inputs": InputOptions,
        "optimizer": OptimizerOptions,
        "schedule": ScheduleOptions,
        "trainer": TrainerConfig,
    }


def _usage(name: str, verb: Callable[..., None]) -> str:
    """What has to be said, without the options that need not."""
    parameters = inspect.signature(verb).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    options = _options(verb)
    words = [
        f"--{n} {n.upper()}" if n in options else f"{n.upper()} …" if n == MANY.get(name) else n.upper() for n in needed
    ]
    return " ".join(["darklens", name, *words, "[options]"])


def open_options(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Take the options of networks and tasks out of a command line; return the rest, and these by dotted key.

    Their names and types are those of the network's or task's own signature, which is not known before it is imported:
    they are checked when the recipe is built. Values are read as YAML.

    Raises
    ------
    DarklensError
        If an option has no value, or one that is not YAML.
    """
    rest: list[str] = []
    found: dict[str, Any] = {}
    words = iter(arguments)
    for word in words:
        name, equals, text = word.partition("=")
        if not name.startswith(OPEN) and (name != "--target" or "adapt" in arguments):
            rest.append(word)
            continue
        value = text if equals else next(words, None)
        if value is None or (not equals and value.startswith("--")):
            raise DarklensError(f"{name} needs a value")
        try:
            found[name.removeprefix("--")] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise DarklensError(f"{name}: {value!r} is not valid YAML") from error
    return rest, found


def options_help(arguments: Sequence[str]) -> str:
    """Return a description of the options of the network and the task of the recipe that a command line names."""
    from darklens.errors import DarklensError, RecipeError
    from darklens.training.recipe import load_recipe, recipe_names

    rest, found = open_options(arguments)
    wanted = [word for word in rest if word in recipe_names() or word.endswith((".yaml", ".yml"))]
    if not wanted:
        return (
            "\n\nOptions of a recipe's network and task: --network.NAME and --task.NAME; name the recipe before --help."
        )
    from darklens.models.registry import network_arguments

    trust = "--trust_code=true" in rest
    try:
        recipe = load_recipe(wanted[0], found, trust_code=trust)
        for part in recipe.parts():
            network_arguments(part.network["name"], part.network_options, f"recipe {part.name}", RecipeError)
    except DarklensError as error:
        return str(error)
    from darklens.models.registry import network_class, network_options
    from darklens.tasks.base import options_of

    lines = []
    for part in recipe.parts():
        network, task = network_class(part.network["name"]), part.make_task()
        lines += _described("network", part.network, network, network_options(part.network["name"]))
        values = {"name": part.task["name"], **dataclasses.asdict(task)}
        lines += _described("task", values, type(task), options_of(type(task)))
        if (method := part.method) is not None:
            values = {"name": part.adaptation["method"], **dataclasses.asdict(method)}
            lines += _described("adaptation", values, type(method), [each.name for each in dataclasses.fields(method)])
        said = [f"What {part.name} says of the options above, other than their defaults:"]
        said.append(f"  --augmentation {part.augmentation}")
        for name, kind in recipe_parts().items():
            options, defaults = dataclasses.asdict(getattr(part, name)), dataclasses.asdict(kind())
            said += [f"  --{name}.{key} {options[key]}" for key in defaults if options[key] != defaults[key]]
        lines.append("\n".join(said))  # whole, as members may say the same
    return "\n".join(dict.fromkeys(lines))


def _described(part: str, chosen: Mapping[str, Any], made_by: Callable[..., Any], known: Sequence[str]) -> list[str]:
    """Lines on each option of a network or task: name, type, value, and what its docstring says."""
    from docstring_parser import parse

    # What a class takes from those that it extends is described there.
    owners = reversed(inspect.getmro(made_by)) if inspect.isclass(made_by) else [made_by]
    documented = {p.arg_name: p.description or "" for each in owners for p in parse(inspect.getdoc(each) or "").params}
    meanings = {name.strip(): text for names, text in documented.items() for name in names.split(",")}
    parameters = inspect.signature(made_by).parameters
    lines = [f"Options of {part} {chosen['name']}:"]
    for name in known:
        kind, default = parameters[name].annotation, parameters[name].default
        shown = chosen.get(name, None if default is inspect.Parameter.empty else default)
        text = kind if isinstance(kind, str) else readable_type(kind)
        meaning = " ".join(meanings.get(name, "").split())
        lines.append(
            f"  --{part}.{name} {'' if kind is inspect.Parameter.empty else text} (now {shown})  {meaning}".rstrip()
        )
    return lines


def plain_arguments(arguments: Sequence[str]) -> list[str]:
    """Return a command line in the one form that the parser knows.

    ``--dry-run`` is ``--dry_run``, and ``--band`` of version 0.1 is ``--bands``; a switch is on when it is named
    (``--mask``), and may have its value behind it (``--mask true``).
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
        name = "--bands" if name == "--band" else name
        plain.append(
            name.replace("-", "_").replace("__", "--", 1) + equals + rest if re.match("--[a-z]", word) else word
        )
    if plain and plain[-1] in switches:
        plain[-1] += "=true"
    return plain


def arguments_of(verb: Callable[..., None], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a verb from the values of its command line: those of a dataclass become one."""
    arguments = dict(given)
    for name, kind in _dataclasses(verb).items():
        fields = [field.name for field in dataclasses.fields(kind) if field.name in given]
        arguments |= {name: kind(**{field: arguments.pop(field) for field in fields})}
    return arguments


_HELP = {
    "out": "what to make",
    "model": "a run folder, a model folder, or the name of a model",
    "data": "a folder or file in any layout, or preset:NAME",
    "target": "images without labels to adapt to: a folder or file in any layout, or preset:NAME",
    "budget": "what each recipe may use, such as 10min, 5epochs or 200000images",
    "preset": "what is simulated: a name (see darklens presets), a YAML file, or my_models.py:name",
}


def _names(verb: Callable[..., None]) -> list[str]:
    return list(inspect.signature(verb).parameters)


def _switches(verb: Callable[..., None]) -> set[str]:
    """Options of a verb that are either on or off."""
    hints = [get_type_hints(verb), *(get_type_hints(kind) for kind in _dataclasses(verb).values())]
    switches = {f"--{name}" for each in hints for name, kind in each.items() if kind is bool}
    if "overrides" in _names(verb):
        parts = {part: get_type_hints(kind) for part, kind in recipe_parts().items()}
        switches |= {f"--{part}.{name}" for part, each in parts.items() for name, kind in each.items() if kind is bool}
        switches.add("--allow_leaks")
    return switches


def _dataclasses(verb: Callable[..., None]) -> dict[str, Any]:
    """Parameters of a verb that are dataclasses, whose fields are options of the command line."""
    return {name: kind for name, kind in get_type_hints(verb).items() if dataclasses.is_dataclass(kind)}


def _options(verb: Callable[..., None]) -> set[str]:
    """Parameters without a default that are options all the same, because a position would not explain them."""
    parameters = inspect.signature(verb).parameters
    needed = inspect.Parameter.empty
    found = {
        name
        for name in ("out", "data", "budget", "target")
        if name in parameters and parameters[name].default is needed
    }
    # Where it is not what the verb is about.
    return (
        found
        | ({"preset"} if "cutouts" in parameters else set())
        | ({"model"} & set(parameters) if "paths" in parameters else set())
    )
