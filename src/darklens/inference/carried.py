"""The file of a user's own network, which travels inside the model folder and is run only if the user trusts it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

from darklens.errors import ModelError
from darklens.inference.config import ModelConfig, read_config
from darklens.usercode import check_trusted, code_checksum, is_reference, split_reference


def copy_code(config: ModelConfig, folder: Path) -> ModelConfig:
    """Copy the file of a user's own network into a model folder; return the configuration that names it there.

    The configuration keeps the file's SHA-256 under ``code``. Networks of darklens need no copy.
    """
    name = config.network.get("name")
    if not is_reference(name):
        return config
    path, function = split_reference(str(name))
    content = path.read_bytes()
    (folder / path.name).write_bytes(content)
    own = {"name": f"{path.name}:{function}"}
    recipe = config.recipe | {"network": config.recipe.get("network", {}) | own}
    code = {path.name: code_checksum(folder / path.name)}
    return dataclasses.replace(config, network=config.network | own, recipe=recipe, code=code)


def carries_only(folder: Path, own: Collection[str]) -> bool:
    """Return whether all code that a model folder would run is among files that the user has named, by their SHA-256.

    A training that the user started with a network of their own may so load the model that it made.
    """
    config = read_config(folder)
    if config.members or not is_reference(config.network.get("name")):
        return False
    path = folder / split_reference(str(config.network["name"]))[0].name
    return bool(config.code) and path.is_file() and code_checksum(path) in own


def trusted_network(config: ModelConfig, folder: Path, trust_code: bool) -> dict[str, Any]:
    """Return a model's network, a user's own one with the path of its file in the model's folder.

    Parameters
    ----------
    config
        What ``config.json`` of the folder says.
    folder
        The model's folder.
    trust_code
        Whether the user has said that code may run which ``config.json`` names.

    Raises
    ------
    UntrustedCodeError
        If it names code, and ``trust_code`` is not set.
    ModelError
        If the file is missing, or is not the one that the model was saved with.
    """
    name = config.network.get("name")
    if not is_reference(name):
        return dict(config.network)
    path, function = split_reference(str(name))
    if config.code:  # models of version 0.1 do not carry their code: it is looked for where it was
        path = folder / path.name
    if not path.is_file():
        raise ModelError(f"{folder}: its network {name} needs the file {path}, which is missing; bring it back")
    check_trusted(f"{path}:{function}", str(folder / "config.json"), trust_code)
    if config.code and code_checksum(path) != config.code.get(path.name):
        raise ModelError(
            f"{path}: is not the file that the model was saved with (its SHA-256 is not that of config.json): it was "
            "changed since, or the copy is damaged; bring the original back, or train again"
        )
    return config.network | {"name": f"{path}:{function}"}
