"""Run tests under one mutant after the other, in a process that `tests/mutation.py` starts in the folder of the mutants.

    python tests/mutation_worker.py DESCRIPTOR SCRATCH TEST [TEST ...]

Collects the tests once and then takes requests (mutant, names of tests) from the pipe with that file descriptor. While it
works on a request it sends the name of each test before it begins, and in the end `KILLED` or `SURVIVED`. Nothing is
forked: after a fork, tests can wait forever for a thread that a library had started before.
"""

from __future__ import annotations

import copy
import os
import pkgutil
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Generator
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from mutmut.mutation import trampoline

KILLED, SURVIVED = "killed", "survived"
ACTIVE = "MUTANT_UNDER_TEST"
"""Environment variable with the active mutant, as mutmut's code reads it."""

MEASURING = "stats"
"""In place of a mutant: each call of a function is recorded."""


class Worker:
    """Plugin of pytest that takes requests instead of running each test once.

    Parameters
    ----------
    connection
        Where requests come from and answers go.
    scratch
        Folder of the tests' temporary files, emptied before each mutant.
    measures
        Run all tests without a mutant and send what `measure` returns; there are no requests.
    """

    def __init__(self, connection: Connection, scratch: Path, measures: bool):
        self.connection, self.scratch, self.measures = connection, scratch, measures
        self.collected = self.failed = False
        self.calls: set[str] = set()
        self.calls_by_fixture: dict[str, set[str]] = defaultdict(set)
        if measures:
            trampoline.record_trampoline_hit = lambda name, caller=None: self.calls.add(name)
            trampoline._mutant_under_test = MEASURING

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed |= report.failed

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
        """Record what a fixture calls: all tests that use it reach these functions, not only the first of them."""
        outer, self.calls = self.calls, set()
        try:
            return (yield)
        finally:
            self.calls_by_fixture[fixturedef.argname] |= self.calls
            self.calls |= outer

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.collected = not session.testsfailed
        if not self.collected:
            return True
        self.session, self.items = session, {item.nodeid: item for item in session.items}
        if self.measures:
            self.connection.send(self.measure())
            return True
        self.state = State()
        while (request := self.connection.recv()) is not None:
            self.connection.send(self.outcome(*request))
        return True

    def measure(self) -> tuple[dict[str, set[str]], dict[str, float], list[str]]:
        """Run all tests without a mutant.

        Returns
        -------
        Names of the functions that each test reaches, seconds that it takes with those fixtures that it is the first to
        use, and names of the tests that fail. Functions that are called at import are reached by all tests.
        """
        at_import = self.calls
        reached: dict[str, set[str]] = {}
        seconds: dict[str, float] = {}
        failed = []
        for item, following in pairs(list(self.items.values())):
            clear_caches()
            self.calls, self.failed, start = set(), False, time.perf_counter()
            item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
            seconds[item.nodeid] = time.perf_counter() - start
            fixtures = (self.calls_by_fixture[name] for name in getattr(item, "fixturenames", ()))
            reached[item.nodeid] = at_import.union(self.calls, *fixtures)
            if self.failed:
                failed.append(item.nodeid)
        return reached, seconds, failed

    def outcome(self, mutant: str, tests: list[str]) -> str:
        """Run tests until one fails."""
        self.state.restore()
        for path in self.scratch.glob("*"):
            shutil.rmtree(path, ignore_errors=True)
        trampoline.set_mutant_under_test(mutant)
        self.failed = False
        for item, following in pairs([self.items[name] for name in tests if name in self.items]):
            self.connection.send(item.nodeid)
            item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
            if self.failed:
                break
        with suppress(Exception):
            self.session._setupstate.teardown_exact(None)  # fixtures that the next test would have used
        return KILLED if self.failed else SURVIVED


class State:
    """State of the process at this moment: module-level containers of the package, environment and working folder."""

    def __init__(self) -> None:
        self.containers = [
            (value, copy.copy(value))
            for module in own_modules()
            for name, value in vars(module).items()
            if isinstance(value, dict | list | set) and not name.startswith(("__", "mutants_"))
        ]
        self.environment, self.folder = dict(os.environ), Path.cwd()

    def restore(self) -> None:
        """Restore it, and forget cached results and compiled kernels."""
        clear_caches()
        if "torch._dynamo" in sys.modules:
            sys.modules["torch._dynamo"].reset()
        for container, content in self.containers:
            container.clear()
            container.extend(content) if isinstance(container, list) else container.update(content)
        os.environ.clear()
        os.environ.update(self.environment)
        os.chdir(self.folder)


def clear_caches() -> None:
    """Clear the caches of functions and methods (`functools.cache`) in all modules of the package."""
    for module in own_modules():
        for value in list(vars(module).values()):
            for function in (value, *(vars(value).values() if isinstance(value, type) else ())):
                if hasattr(function, "cache_clear"):
                    function.cache_clear()


def own_modules() -> list[ModuleType]:
    return [module for name, module in sys.modules.items() if name.split(".")[0] == "darklens"]


def import_package() -> None:
    """Import all modules of the package, so that none is first imported while a mutant is active."""
    for module in pkgutil.walk_packages(import_module("darklens").__path__, "darklens."):
        if not module.name.endswith("__main__"):
            import_module(module.name)


def pairs(items: list[pytest.Item]) -> list[tuple[pytest.Item, pytest.Item | None]]:
    """Each test and the one that follows, for which fixtures are kept."""
    return list(zip(items, [*items[1:], None], strict=True))


def main(descriptor: str, scratch: str, *tests: str) -> None:
    os.set_inheritable(int(descriptor), False)
    connection = Connection(int(descriptor))
    mutant = os.environ.get(ACTIVE)
    if mutant == MEASURING:
        del os.environ[ACTIVE]  # processes that the tests start are not measured
    worker = Worker(connection, Path(scratch), measures=mutant == MEASURING)
    if mutant in (None, MEASURING):
        import_package()
    pytest.main(["--rootdir=.", f"--basetemp={scratch}", *tests], plugins=[worker])
    if mutant not in (None, MEASURING) and not worker.collected:
        connection.send(KILLED)  # the mutant acts at import, and the tests cannot be collected


if __name__ == "__main__":
    main(*sys.argv[1:])
