"""Report the progress of work that takes more than a moment: bars on a terminal, a line now and then elsewhere.

Everything goes to standard error, and nothing here touches a random number or a result.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from darklens.paths import is_helper_process

Advance = Callable[[int, int], None]
"""What to call with the number that is done and the total."""

BAR_AFTER = 0.3
"""Seconds before a bar is drawn on a terminal: shorter work would only flicker."""
LINE_AFTER, LINE_EVERY = 2.0, 60.0
"""Seconds before the first line where there is no terminal, and between the lines after it."""


@contextmanager
def progress_bar(what: str) -> Iterator[Advance]:
    """Show that ``what`` is being done, for as long as the block runs; give a function that reports how far it is.

    On a terminal it is a bar; bars of nested blocks and of other threads are stacked. Elsewhere it is a line when the
    block has taken two seconds, and one more a minute with what is done. Processes that only help another are silent.

    Parameters
    ----------
    what
        What is being done, such as ``"simulating"``.

    Yields
    ------
    Function of the number that is done and the total, for any thread; if it is never called, the work has no total.
    """
    work = _Work(what)
    try:
        yield work.advance
    finally:
        work.stop()


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show that ``what`` is being done, for as long as the block runs, where there is nothing to count."""
    with progress_bar(what):
        yield


@contextmanager
def other_display() -> Iterator[None]:
    """Draw no bars while the block runs, because another display, such as Lightning's, has the terminal."""
    _terminal.reserve(True)
    try:
        yield
    finally:
        _terminal.reserve(False)


class _Work:
    """One block of work, and the thread that waits until it is worth a word."""

    def __init__(self, what: str):
        self.what = what
        self._count: tuple[int, int] | None = None
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._task: Any = None
        self._watcher: threading.Thread | None = None
        if sys.stderr is None or is_helper_process() or multiprocessing.parent_process() is not None:
            return
        on_terminal = _is_terminal()
        if on_terminal:
            # Imported here and not in the other thread: two threads that import one package can hinder each other.
            import rich.progress  # noqa: F401
        watch = self._draw if on_terminal else self._write
        self._watcher = threading.Thread(target=watch, name=f"progress of {what}", daemon=True)
        self._watcher.start()

    def advance(self, done: int, total: int) -> None:
        with self._lock:
            self._count = done, total
            if self._task is not None:
                _terminal.update(self._task, done, total)

    def stop(self) -> None:
        self._stopped.set()
        try:
            if self._watcher is not None:
                self._watcher.join()
        finally:
            with self._lock:
                if self._task is not None:
                    _terminal.hide(self._task)
                self._task = None

    def _draw(self) -> None:
        while not self._stopped.wait(BAR_AFTER):
            with self._lock:
                self._task = _terminal.show(self.what, self._count)
            if self._task is not None:
                return

    def _write(self) -> None:
        if self._stopped.wait(LINE_AFTER):
            return
        print(f"{self.what} …", file=sys.stderr, flush=True)
        minutes = 0
        while not self._stopped.wait(LINE_EVERY):
            minutes += 1
            so_far = "" if self._count is None else _count_text(self._count) + ", "
            print(f"{self.what} … {so_far}{minutes} min", file=sys.stderr, flush=True)


class _Terminal:
    """The one display of bars that a terminal can have: there while it holds a bar, and gone without a trace after."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._display: Any = None
        self._reserved = 0

    def reserve(self, more: bool) -> None:
        """Give the terminal to another display, or take it back; what is drawn already is wiped."""
        with self._lock:
            self._reserved += 1 if more else -1
            if self._display is not None:
                self._display.stop() if self._reserved else self._display.start()

    def show(self, what: str, count: tuple[int, int] | None) -> Any:
        """Draw a bar and return its number; None while another display has the terminal."""
        with self._lock:
            if self._reserved:
                return None
            if self._display is None:
                self._display = _make_display()
                self._display.start()
            done, total = count or (0, None)
            return self._display.add_task(what, completed=done, total=total, count=_count_text(count))

    def update(self, task: Any, done: int, total: int) -> None:
        self._display.update(task, completed=done, total=total, count=_count_text((done, total)))

    def hide(self, task: Any) -> None:
        with self._lock:
            self._display.remove_task(task)
            if not self._display.tasks:
                self._display.stop()
                self._display = None


_terminal = _Terminal()


def _make_display() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.text import Text

    class Remaining(TimeRemainingColumn):
        def render(self, task: Task) -> Text:
            return Text() if task.total is None else super().render(task).append(" left")

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[count]}", markup=False),
        TimeElapsedColumn(),
        Remaining(),
    )
    return Progress(
        *columns,
        console=Console(stderr=True, force_terminal=True),
        transient=True,
        # What is printed meanwhile goes above the bars, unless it goes elsewhere.
        redirect_stdout=sys.stdout.isatty(),
    )


def _count_text(count: tuple[int, int] | None) -> str:
    return "" if count is None else "{:,}/{:,}".format(*count)


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
