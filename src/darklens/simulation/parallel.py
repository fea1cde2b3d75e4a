"""Make numbered things in order, several at a time: on threads of one core each, or in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import wait
from typing import Any, TypeVar

import torch

Made = TypeVar("Made")


def in_order(
    make: Callable[[int], Made], numbers: Iterable[int], workers: int, *, processes: bool = False
) -> Iterator[Made]:
    """Yield what is made of numbers, in their order, never more than two for each worker ahead of the reader.

    Parameters
    ----------
    make
        Makes one of them.
    numbers
        Of what.
    workers
        How many are made at a time, each on one core.
    processes
        Whether workers are processes, to which ``make`` is sent, in place of threads. A process takes seconds to start,
        imports the main module of the program, which must have its work under ``if __name__ == "__main__"``, and ends with
        this one, even if that is killed.

    Yields
    ------
    Made
        One after the other.
    """
    rest = iter(numbers)
    ahead = 2 * workers
    with _processes(make, workers) if processes else _threads(workers) as pool:
        call: Callable[[int], Any] = _call if processes else make
        # On threads the first alone, so that kernels are compiled once.
        with _uninterrupted():
            waiting = [pool.submit(call, number) for number in islice(rest, ahead if processes else 1)]
        try:
            while waiting:
                yield waiting.pop(0).result()
                waiting += [pool.submit(call, number) for number in islice(rest, ahead - len(waiting))]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _threads(workers: int) -> Iterator[Executor]:
    """A pool of threads; the number of PyTorch's, which each sets to one for itself, is restored afterwards."""
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)


@contextmanager
def _processes(make: Callable[[int], Any], workers: int) -> Iterator[Executor]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(make,)) as pool:
        yield pool


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Block the signal of Ctrl-C, also for processes that are started meanwhile: they end when the program does."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_make: Callable[[int], Any]


def _begin(make: Callable[[int], Any]) -> None:
    """Prepare a process: one thread, and ended with the program."""
    global _make
    _make = make
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _call(number: int) -> Any:
    return _make(number)
