"""Checks of paths that users give, before any work is done; folders in use; YAML files. Light: verbs start with it."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from darklens.errors import DarklensError, DataError, InUseError

LOCK, OWNER = ".lock", ".owner"
"""Files in a folder that a process holds for itself: the lock, and who has it."""


def check_absent(path: Path) -> None:
    """Refuse to write over anything, or where nothing can be written; an empty folder is no hindrance.

    Raises
    ------
    DataError
        If there is a file, or a folder with something in it, or nothing can be made there.
    """
    if path.exists() and not is_vacant(path):
        raise DataError(f"{path}: exists already, and nothing is overwritten; remove it or choose another --out")
    check_writable(path)


def is_vacant(path: Path) -> bool:
    """Return whether a path is a folder that holds nothing but perhaps the lock of an earlier attempt."""
    return path.is_dir() and {inside.name for inside in path.iterdir()} <= {LOCK, OWNER}


def check_writable(path: Path) -> None:
    """Refuse a path where no file or folder can be made.

    Raises
    ------
    DataError
        If the nearest folder that exists cannot be written to, or is no folder.
    """
    above = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    above = above.parent if above.is_file() and above == path.absolute() else above
    if not above.is_dir():
        raise DataError(f"{path}: cannot be written: {above} is a file, not a folder")
    if not os.access(above, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise DataError(f"{path}: cannot be written: no permission to write in {above}")


def is_helper_process() -> bool:
    """Return whether this process was started by another to train with it: then the run folder is there already."""
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


@contextmanager
def only_one(folder: Path, doing: str) -> Iterator[None]:
    """Hold a folder for this process alone, making it if need be; on file systems without locks, in good faith.

    Parameters
    ----------
    folder
        What to hold. The lock is released when the process ends, however it ends.
    doing
        What it is held for, such as ``training``: for the message to whoever comes second.

    Raises
    ------
    InUseError
        If another process holds it; it says which, and since when.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock, owner = FileLock(folder / LOCK), folder / OWNER
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InUseError(f"{folder}: {_who(owner, doing)}; wait for it, end it, or choose another --out") from error
    except (NotImplementedError, OSError):
        pass
    try:
        content = {"process": os.getpid(), "machine": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        with suppress(OSError):
            owner.write_text(json.dumps(content), "utf-8")
        yield
    finally:
        with suppress(OSError):
            owner.unlink(missing_ok=True)
        lock.release()


def _who(owner: Path, doing: str) -> str:
    with suppress(OSError, ValueError, KeyError, TypeError):
        has = json.loads(owner.read_text("utf-8"))
        where = "" if has["machine"] == socket.gethostname() else f" on {has['machine']}"
        return f"another process is {doing} here ({has['process']}{where}, since {has['since']})"
    return f"another process is {doing} here"


class _OnceEach(yaml.SafeLoader):
    """Read YAML whose keys are there once each; YAML itself takes the last of several without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [key for key in dict.fromkeys(keys) if keys.count(key) > 1 and key != "<<"]:
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"key {twice[0]!r} is there twice (in what begins in line {line}); leave one")
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path, error: type[DarklensError], example: str) -> dict[str, Any]:
    """Return keys and values of a user's YAML file.

    Parameters
    ----------
    path
        The file.
    error
        What is raised if it holds none.
    example
        What would be right, for the message.
    """
    try:
        content = yaml.load(path.read_text("utf-8"), _OnceEach)  # a SafeLoader
    except OSError as reason:
        raise error(f"{path}: cannot be read: {reason.strerror}") from reason
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as reason:
        raise error(f"{path}: not valid YAML: {reason}") from reason
    if not isinstance(content, dict):
        raise error(f"{path}: expected keys and values, like '{example}'")
    return content
