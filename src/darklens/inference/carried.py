"""Files of a user's own code, which travel inside the model folder and are run only if the user trusts them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

from darklens.errors import ModelError
from darklens.inference.config import ModelConfig, read_config
from darklens.usercode import check_trusted, code_checksum, references, split_reference, with_references


def copy_code(config: ModelConfig, folder: Path) -> ModelConfig:
    """Copy the user's own code that a model names into its folder; return the configuration that names it there.

    The configuration keeps the SHA-256 of each file under ``code``. What darklens has itself needs no copy.

    Raises
    ------
    ModelError
        If two files of different content have one name.
    """
    if config.members:  # each carries its own
        return config
    code: dict[str, str] = {}
    paths = [split_reference(reference)[0] for reference in _named(config)]
    for path in paths:
        digest = code_checksum(path)
        if code.setdefault(path.name, digest) != digest:
            raise ModelError(f"{path}: another file of code is called {path.name} as well; rename one")
    for path in paths:
        if path.resolve() != (folder / path.name).resolve():
            (folder / path.name).write_bytes(path.read_bytes())
    parts = {part: _moved(getattr(config, part), Path()) for part in ("network", "task", "recipe")}
    return dataclasses.replace(config, code=code, **parts)


def carries_only(folder: Path, own: Collection[str]) -> bool:
    """Return whether a model names code, and all of it is among files that the user has named, by their SHA-256.

    A training that the user started with code of their own may so load the model that it made.
    """
    config = read_config(folder)
    files = {folder / split_reference(reference)[0].name for reference in _named(config)}
    if config.members or not files or not config.code:
        return False
    return all(path.is_file() and code_checksum(path) in own for path in files)


def trusted_config(config: ModelConfig, folder: Path, trust_code: bool, *, training: bool = False) -> ModelConfig:
    """Return a model's configuration with the user's own code named by its place in the model's folder.

    Parameters
    ----------
    config
        What ``config.json`` of the folder says.
    folder
        The model's folder.
    trust_code
        Whether the user has said that code may run which ``config.json`` names.
    training
        Whether its recipe is to be trained as well, which may name a loss or an optimiser.

    Returns
    -------
    ModelConfig
        The same for a model that names no code.

    Raises
    ------
    UntrustedCodeError
        If it names code, and ``trust_code`` is not set.
    ModelError
        If a file is missing, or is not the one that the model was saved with.
    """
    if not config.code:  # models of version 0.1 do not carry their code: it is looked for where it was
        for reference in _named(config, training):
            _check(*split_reference(reference), config, folder, trust_code)
        return config
    for reference in _named(config, training):
        path, name = split_reference(reference)
        _check(folder / path.name, name, config, folder, trust_code)
    parts = {part: _moved(getattr(config, part), folder) for part in ("network", "task", "recipe")}
    return dataclasses.replace(config, **parts)


def _check(path: Path, name: str, config: ModelConfig, folder: Path, trust_code: bool) -> None:
    if not path.is_file():
        raise ModelError(f"{folder}: its {name} needs the file {path}, which is missing; bring it back")
    check_trusted(f"{path}:{name}", str(folder / "config.json"), trust_code)
    if config.code and code_checksum(path) != config.code.get(path.name):
        raise ModelError(
            f"{path}: is not the file that the model was saved with (its SHA-256 is not that of config.json): it was "
            "changed since, or the copy is damaged; bring the original back, or train again"
        )


def _named(config: ModelConfig, training: bool = True) -> list[str]:
    """Every ``file.py:name`` that a model needs: for its network and task, and for training it further."""
    parts = [config.network, config.task]
    parts += [config.recipe.get(part, {}) for part in ("network", "task", "optimizer") if training]
    return sorted({reference for part in parts for reference in references(part)})


def _moved(content: Any, folder: Path) -> Any:
    """The same keys and values with code that they name in a folder."""

    def moved(reference: str) -> str:
        path, name = split_reference(reference)
        return f"{folder / path.name}:{name}"

    return with_references(content, moved)
