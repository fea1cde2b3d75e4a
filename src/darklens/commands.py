"""Commands of darklens as text that can be copied into a shell."""

from __future__ import annotations

import json
import shlex
from contextvars import ContextVar
from pathlib import Path
from typing import Any

given_command: ContextVar[str | None] = ContextVar("given_command", default=None)
"""The command line that is being run, quoted for a shell; None where darklens is used from Python."""


def command(verb: str, *positions: str | Path, **options: Any) -> str:
    """Return the text of a command line, quoted for a shell.

    Parameters
    ----------
    verb
        What to do, such as ``train``.
    positions
        Arguments without a name, in order.
    options
        Options by name. Those that are None are left out; other values than text and paths are written as JSON. A double
        underscore in a name stands for a dot.
    """
    words = ["darklens", verb, *map(str, positions)]
    for name, value in options.items():
        if value is None:
            continue
        words += [f"--{name.replace('__', '.')}", _text(value)]
    return shlex.join(words)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value) if isinstance(value, Path) else json.dumps(value)
