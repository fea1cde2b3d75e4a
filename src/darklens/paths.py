"""Checks of paths that users give, before any work is done. Needs nothing but the standard library."""

import os
from pathlib import Path

from darklens.errors import DataError


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
