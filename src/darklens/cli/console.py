"""What verbs print: texts, tables, progress, and the last words of an error."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import NoReturn

from darklens.progress import working


def duration(seconds: float) -> str:
    """Seconds in words."""
    for length, unit in ((7200, "h"), (120, "min")):
        if seconds >= length:
            return f"{seconds / (3600 if unit == 'h' else 60):.2g} {unit}"
    return f"{seconds:.0f} s"


def say(text: str | None, next_command: str | None = None) -> None:
    """Print a text, and the next sensible command."""
    if text is not None:
        print(text, flush=True)
    if next_command is not None:
        print(f"next: {next_command}", flush=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    from rich.console import Console
    from rich.table import Table

    made = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False)
    for row in rows:
        made.add_row(*row)
    console = Console()
    with console.capture() as capture:  # printed by itself, it would end the program where the reader goes away
        console.print(made)
    say(capture.get().rstrip("\n"))


def loading() -> AbstractContextManager[None]:
    """Show that libraries are being imported, which takes seconds with PyTorch and Lightning."""
    return working("loading PyTorch")


def fail(message: str, status: int = 2) -> NoReturn:
    """End with a message on standard error."""
    print(f"darklens: {message}", file=sys.stderr)
    raise SystemExit(status)
