"""The library of presets as YAML: the built-in ones, and a user's own that extend them. Needs no PyTorch.

A user's own preset is a YAML file in the same format as the built-in ones (``extends`` takes over all that it does
not say), or a Python function that adds deflectors (see `darklens.usercode`).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from darklens.errors import PresetError
from darklens.paths import read_yaml
from darklens.simulation.priors import DISTRIBUTIONS
from darklens.usercode import is_reference

BUILTIN = resources.files("darklens.simulation") / "presets"


def list_presets() -> dict[str, str]:
    """Names of the built-in presets, with a line on each."""
    return {name: " ".join(_builtin(name)["description"].split()) for name in builtin_names()}


def builtin_names() -> list[str]:
    """Names of the built-in presets."""
    return sorted(f.name.removesuffix(".yaml") for f in BUILTIN.iterdir() if f.name.endswith(".yaml"))


def resolve_preset(source: str | Path) -> dict[str, Any]:
    """Return the whole content of a preset by name, from a YAML file, or from a function ``file.py:name``.

    Parameters
    ----------
    source
        What is meant. A name or file may be followed by those of its classes that are wanted, as ``model-1:axion`` or
        ``model-1:no_sub,axion``.

    Raises
    ------
    PresetError
        If it does not exist, is not readable, or has no such class.
    """
    text = str(source)
    whole, _, chosen = text.rpartition(":")
    if chosen and (whole in builtin_names() or whole.endswith((".yaml", ".yml"))):
        return _of_classes(resolve_preset(whole), chosen.split(","))
    if text in builtin_names():
        return {"name": text} | _resolve(_builtin(text), text, None)
    if is_reference(text):
        function = text.rpartition(":")[2]
        content = {"extends": "fair-hst", "classes": {function: {"add": text}}}
        return {"name": function} | _resolve(content, text, Path.cwd()) | {"description": f"fair-hst with {function}"}
    path = Path(text)
    if path.suffix in (".yaml", ".yml"):
        own = read_yaml(path, PresetError, "extends: fair-hst")
        described = (
            {} if "description" in own else {"description": f"{own.get('extends')} with the changes of {path.name}"}
        )
        return {"name": path.stem} | _resolve(own, text, path.parent) | described
    hint = difflib.get_close_matches(text, builtin_names(), 1)
    raise PresetError(
        f"no preset {text!r}.{f' Did you mean {hint[0]!r}?' if hint else ''} There are {', '.join(builtin_names())}; "
        "your own is a .yaml file or a function my_models.py:name"
    )


def _of_classes(content: dict[str, Any], chosen: list[str]) -> dict[str, Any]:
    """The content of a preset with some of its classes, in the preset's order."""
    classes, name = content.get("classes") or {}, content["name"]
    if unknown := [each for each in chosen if each not in classes]:
        raise PresetError(f"preset {name}: no class {unknown[0]!r}; there are {', '.join(classes)}")
    kept = {key: value for key, value in classes.items() if key in chosen}
    only = ",".join(kept)
    described = f"{content.get('description', '')} Of its classes: {', '.join(kept)}.".strip()
    return content | {"name": f"{name}:{only}", "description": described, "classes": kept}


def _builtin(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((BUILTIN / f"{name}.yaml").read_text("utf-8"))
    return content


def _resolve(content: dict[str, Any], name: str, folder: Path | None, depth: int = 0) -> dict[str, Any]:
    """Follow ``extends`` and make paths of the user's functions and files absolute."""
    if depth > 8:
        raise PresetError(f"{name}: 'extends' goes round in a circle")
    if folder is not None:
        content = _absolute(content, folder)
    if (parent := content.get("extends")) is None:
        return content
    own = {key: value for key, value in content.items() if key != "extends"}
    if parent in builtin_names():
        base, base_folder = _builtin(parent), None
    else:
        path = Path(str(parent)) if folder is None else folder / str(parent)
        base, base_folder = read_yaml(path, PresetError, "extends: fair-hst"), path.parent
    return _merge(_resolve(base, str(parent), base_folder, depth + 1), own)


def _merge(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in own.items():
        both = isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        # A prior is replaced as a whole: {normal: …} does not add to {uniform: …}.
        merged[key] = _merge(base[key], value) if both and not _is_prior(value) else value
    return merged


def _is_prior(value: Mapping[str, Any]) -> bool:
    return len(value) == 1 and next(iter(value)) in DISTRIBUTIONS


def _absolute(value: Any, folder: Path, key: str = "") -> Any:
    if isinstance(value, Mapping):
        return {k: _absolute(v, folder, str(k)) for k, v in value.items()}
    if isinstance(value, str) and (
        key in ("images", "psf_file", "table", "source_images")
        or (key in ("add", "profile", "objects") and is_reference(value))
        or (key == "filter" and Path(value).suffix)
    ):
        return str((folder / value).resolve())
    return value
