"""Checks of paths that users give, before any work is done, and their YAML files. Light: verbs start with it."""

import os
from pathlib import Path
from typing import Any

import yaml

from darklens.errors import DarklensError, DataError


def check_absent(path: Path) -> None:
    """Refuse to write over anything; an empty folder gives way.

    Raises
    ------
    DataError
        If there is a file, or a folder with something in it.
    """
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()
    if path.exists():
        raise DataError(f"{path}: exists already, and nothing is overwritten; remove it or choose another --out")


def is_helper_process() -> bool:
    """Whether this process was started by another to train with it: then the run folder is there already."""
    return int(os.environ.get("LOCAL_RANK", "0")) > 0


def check_present(path: Path) -> None:
    """Refuse a path where there is nothing.

    Raises
    ------
    DataError
        If there is no such file or folder, or it is an empty folder.
    """
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder")
    if path.is_dir() and not any(path.iterdir()):
        raise DataError(f"{path}: the folder is empty")


def read_yaml(path: Path, error: type[DarklensError], example: str) -> dict[str, Any]:
    """Keys and values of a user's YAML file; if there are none, ``error`` with an ``example`` of what would be right."""
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except OSError as reason:
        raise error(f"{path}: cannot be read: {reason.strerror}") from reason
    except (yaml.YAMLError, UnicodeDecodeError) as reason:
        raise error(f"{path}: not valid YAML: {reason}") from reason
    if not isinstance(content, dict):
        raise error(f"{path}: expected keys and values, like '{example}'")
    return content
