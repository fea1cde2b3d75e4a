"""From the content of a preset to checked dataclasses: no key goes unread, no text passes for a number."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from darklens.errors import PresetError
from darklens.physics import Cosmology
from darklens.simulation.instruments import Instrument
from darklens.simulation.library import resolve_preset
from darklens.simulation.presets import DarkMatter, Deflector, LensLight, LineOfSight, Preset, Source, Subhalos, Vortex
from darklens.simulation.priors import Constant, parse_prior
from darklens.simulation.scenes.presets import Band, Population, Rules, SceneClass, ScenePreset
from darklens.usercode import check_trusted, is_reference, references

AnyPreset = Preset | ScenePreset


def load_preset(source: str | Path | Mapping[str, Any], *, trust_code: bool = False) -> AnyPreset:
    """Return a preset by name, from a YAML file, from a function ``file.py:name``, or from its resolved content.

    Parameters
    ----------
    source
        Where the preset is from. A resolved content is what ``dataset.json`` keeps of a simulated dataset. One with
        ``bands`` is a preset of scenes.
    trust_code
        Whether code that a YAML file or a content names may run. A function that ``source`` itself names may.

    Raises
    ------
    PresetError
        If it does not exist, a key is misspelt, or a value is impossible.
    UntrustedCodeError
        If it names code and ``trust_code`` is not set.
    """
    content = _of_any_version(source) if isinstance(source, Mapping) else resolve_preset(source)
    name = str(content.get("name", "preset"))
    preset = (_build_scenes if "bands" in content else _build)(content, name)  # which runs no code
    if not is_reference(str(source)):
        for code in references(content.get("classes")):
            check_trusted(code, f"preset {name}" if isinstance(source, Mapping) else str(source), trust_code)
    return preset


def _of_any_version(content: Mapping[str, Any]) -> dict[str, Any]:
    """A content that a dataset keeps: older ones state a gain, which never had an effect on images in electrons."""
    instrument = content.get("instrument")
    if not isinstance(instrument, Mapping):
        return dict(content)
    return {**content, "instrument": {key: value for key, value in instrument.items() if key != "gain"}}


def _build(content: dict[str, Any], where: str) -> Preset:
    try:
        if "gain" in _mapping(content, "instrument"):
            raise PresetError("instrument.gain: images are in electrons, so that a gain has no effect; leave it out")
        classes = {str(k): _class(v or {}, f"classes.{k}") for k, v in _mapping(content, "classes").items()}
        parts: dict[str, Any] = {
            "instrument": _part(Instrument, _mapping(content, "instrument"), "instrument"),
            "deflector": _part(Deflector, _mapping(content, "deflector"), "deflector"),
            "source": _part(Source, _mapping(content, "source"), "source"),
            "cosmology": _cosmology(content, "cosmology"),
            "convention_cosmology": _cosmology(content, "convention_cosmology"),
            "classes": classes,
        }
        if content.get("lens_light") is not None:
            parts["lens_light"] = _part(LensLight, _mapping(content, "lens_light"), "lens_light")
        return _part(Preset, content | parts | {"resolved": content}, "")
    except (PresetError, TypeError) as error:
        raise PresetError(f"preset {where}: {error}") from error


def _build_scenes(content: dict[str, Any], where: str) -> ScenePreset:
    try:
        bands = {str(k): _named(Band, v, f"bands.{k}") for k, v in _mapping(content, "bands").items()}
        classes = {str(k): _scene_class(v or {}, f"classes.{k}") for k, v in _mapping(content, "classes").items()}
        parts: dict[str, Any] = {"bands": bands, "classes": classes, "cosmology": _cosmology(content, "cosmology")}
        if content.get("rules") is not None:
            parts["rules"] = _part(Rules, _mapping(content, "rules"), "rules")
        if content.get("population") is not None:
            parts["population"] = _part(Population, _mapping(content, "population"), "population")
        return _part(ScenePreset, content | parts | {"resolved": content}, "")
    except (PresetError, TypeError) as error:
        raise PresetError(f"preset {where}: {error}") from error


def _scene_class(content: Any, where: str) -> SceneClass:
    return _named(SceneClass, {"objects": content} if isinstance(content, str) else content, where)


def _named(kind: type, content: Any, where: str) -> Any:
    """A dataclass from a mapping, whose own errors say where they are."""
    try:
        return _part(kind, _mapping({where: content}, where), where)
    except PresetError as error:
        text = str(error)
        raise PresetError(text if where in text else f"{where}: {text}") from error


def _cosmology(content: Mapping[str, Any], key: str) -> Cosmology:
    """Densities and Hubble constant, those of the default where they are not given."""
    parts = {} if content.get(key) is None else _mapping(content, key)
    values = {}
    for name, value in parts.items():
        if name not in Cosmology._fields:
            raise PresetError(f"unknown key {key}.{name}; there are {', '.join(Cosmology._fields)}")
        if value is not None:
            values[name] = _convert("float", value, f"{key}.{name}")
    return Cosmology(**values)


def _class(content: Mapping[str, Any], where: str) -> DarkMatter:
    parts: dict[str, Any] = dict(content)
    for name, kind in (("subhalos", Subhalos), ("vortex", Vortex), ("line_of_sight", LineOfSight)):
        if parts.get(name) is not None:
            parts[name] = _part(kind, _mapping(parts, name, f"{where}.{name}"), f"{where}.{name}")
    return _part(DarkMatter, parts, where)


def _mapping(content: Mapping[str, Any], key: str, where: str = "") -> Mapping[str, Any]:
    value = content.get(key)
    if not isinstance(value, Mapping):
        raise PresetError(
            f"{where or key}: missing, or no keys and values; 'extends: fair-hst' takes it from a built-in preset"
        )
    return value


def _part(kind: type, content: Mapping[str, Any], where: str) -> Any:
    """A dataclass from a mapping: unknown keys are refused, numbers converted, priors parsed."""
    known = {f.name: str(f.type) for f in fields(kind)}
    prefix = f"{where}." if where else ""
    values = {}
    for key, value in content.items():
        if key not in known:
            hint = difflib.get_close_matches(str(key), known, 1)
            raise PresetError(f"unknown key {prefix}{key}{f'; did you mean {hint[0]!r}?' if hint else ''}")
        if value is None:
            continue
        values[key] = _convert(known[key], value, prefix + key)
    if lacking := [f.name for f in fields(kind) if f.name not in values and f.default is f.default_factory is MISSING]:
        raise PresetError(f"{where or 'preset'}: {', '.join(lacking)} must be given")
    return kind(**values)


def _convert(annotation: str, value: Any, where: str) -> Any:
    if annotation == "float | Prior":
        prior = parse_prior(value, where)
        return prior.value if isinstance(prior, Constant) else prior
    if annotation.startswith("Prior"):
        return parse_prior(value, where)
    if annotation.startswith("Mapping[str, float]"):
        return {str(k): _convert("float", v, f"{where}.{k}") for k, v in _mapping({where: value}, where).items()}
    if annotation.startswith("Mapping[str, str]"):
        texts = _mapping({where: value}, where)
        return {str(k): _convert("str", v, f"{where}.{k}") for k, v in texts.items()}
    if annotation.startswith("tuple[float, float]"):
        if not isinstance(value, list) or len(value) != 2:
            raise PresetError(f"{where}: expected the lowest and the highest, like [0.3, 4]; got {value!r}")
        low, high = (_convert("float", each, where) for each in value)
        if not low < high:
            raise PresetError(f"{where}: the lower bound must be below the upper one; got {low}, {high}")
        return low, high
    if annotation.startswith("Mapping[str, Prior]"):
        parts = _mapping({where: value}, where)
        return {str(k): parse_prior(v, f"{where}.{k}") for k, v in parts.items()}
    for name, kind in (("int", int), ("float", float)):
        if annotation.split(" ")[0] == name:
            prior = parse_prior(value, where)
            if not isinstance(prior, Constant) or kind(prior.value) != prior.value:
                raise PresetError(f"{where}: expected {'a whole number' if kind is int else 'a number'}; got {value!r}")
            return kind(prior.value)
    if annotation == "bool" and not isinstance(value, bool):
        raise PresetError(f"{where}: expected true or false; got {value!r}")
    if annotation.split(" ")[0] in ("str", "Noise", "Distances") and not isinstance(value, str):
        raise PresetError(f"{where}: expected text; got {value!r}")
    return value
