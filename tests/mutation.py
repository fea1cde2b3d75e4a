"""Mutation score of a package: small changes are made to its code, one at a time, and its tests have to notice each.

    python tests/mutation.py evaluation                  # all mutants
    python tests/mutation.py training --sample 200       # a random sample, and the interval of the score

mutmut makes the mutants, in a copy of the repository. A process that has collected the tests (`tests/mutation_worker.py`)
runs those that reach a mutant, fastest first, until one fails. A mutant that survives, exceeds its time or ends that
process is tried again in a process of its own, where it is active from the first import on, and that outcome counts.
Some of those that were killed are repeated in the same way, to show that no mutant is killed by what an earlier one has
left behind. Texts that are only shown (messages, titles, help) are mutated as well.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from multiprocessing import Pipe
from pathlib import Path

from mutation_worker import ACTIVE, KILLED, MEASURING, SURVIVED
from mutmut.mutation.diff_apply import get_diff_for_mutant
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "physics",
    "simulation",
    "data",
    "models",
    "evaluation",
    "plots",
    "tasks",
    "inference",
    "training",
    "report",
)
SETTINGS = """
[tool.mutmut]
source_paths = ["src/darklens/{package}"]
also_copy = ["src", "tests", "docs", "benchmarks", "README.md"]
"""
GENERATE = """
from mutmut.__main__ import copy_also_copy_files, copy_src_dir, create_mutants
copy_src_dir(), copy_also_copy_files(), create_mutants(1)
"""
UNTESTED, TIMED_OUT, CRASHED = "untested", "timed out", "crashed"

START_LIMIT = 300.0
"""Seconds until a process has collected its tests and begins with the first."""

TEST_LIMIT = 45.0
"""Seconds that a test may take beyond `SLOWER` times its time without a mutant; endless loops wait for so long."""

SLOWER = 5.0


class Process:
    """A process that collects tests and runs some of them under a mutant.

    Parameters
    ----------
    place
        Folder in which the mutants were made.
    tests
        Files or folders to collect.
    mutant
        A mutant that is active from the start of the process, or `MEASURING`.
    """

    _numbers = itertools.count()

    def __init__(self, place: Path, tests: list[str], mutant: str | None = None):
        self.connection, theirs = Pipe()
        self.log = place / f"output-{next(self._numbers)}.txt"
        worker = [sys.executable, str(Path(__file__).with_name("mutation_worker.py")), str(theirs.fileno())]
        own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(place / "mutants" / "src")} | (
            {ACTIVE: mutant} if mutant else {}
        )
        with self.log.open("w", encoding="utf-8") as output:
            self.process = subprocess.Popen(
                [*worker, str(self.log.with_suffix(".scratch")), *tests],
                cwd=place / "mutants",
                env=os.environ | own,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        theirs.close()

    def outcome(self, mutant: str, tests: list[str], seconds: dict[str, float]) -> str:
        """Run tests until one fails; the process is of no use after `TIMED_OUT` and `CRASHED`."""
        limit = START_LIMIT
        try:
            self.connection.send((mutant, tests))
            while self.connection.poll(limit):
                message = self.connection.recv()
                if message in (KILLED, SURVIVED):
                    return message
                limit = TEST_LIMIT + SLOWER * seconds[message]
        except (EOFError, OSError):
            return CRASHED
        return TIMED_OUT

    def close(self) -> None:
        """Kill the process with those that it has started, and remove its files."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.connection.close()
        self.log.unlink()
        shutil.rmtree(self.log.with_suffix(".scratch"), ignore_errors=True)


class Trial:
    """Tries mutants of a package, one after the other.

    Parameters
    ----------
    place
        Folder in which the mutants were made.
    package
        Name of the package.

    Raises
    ------
    SystemExit
        If the tests cannot be collected, or one fails without a mutant.
    """

    def __init__(self, place: Path, package: str):
        self.place, self.folder = place, f"tests/{package}"
        self.process: Process | None = None
        with contextlib.closing(Process(place, [self.folder], MEASURING)) as process:
            try:
                reached, self.seconds, failed = process.connection.recv()
            except EOFError:
                sys.exit(f"the tests cannot be collected:\n{process.log.read_text('utf-8')[-4000:]}")
            if failed:
                sys.exit(f"tests fail without a mutant: {', '.join(failed)}\n{process.log.read_text('utf-8')[-4000:]}")
        self.tests_by_function: dict[str, list[str]] = defaultdict(list)
        for test in sorted(reached, key=self.seconds.__getitem__):
            for function in reached[test]:
                self.tests_by_function[function].append(test)
        self.process = Process(place, [self.folder])
        outcome = self.process.outcome("", sorted(self.seconds, key=self.seconds.__getitem__), self.seconds)
        if outcome != SURVIVED:
            log = self.process.log.read_text("utf-8")[-4000:]
            self.close()
            sys.exit(f"{outcome} without a mutant, when the fastest tests run first:\n{log}")

    def outcome(self, mutant: str) -> str:
        """Try a mutant, a second time in a process of its own unless it is killed."""
        if not self.tests(mutant):
            return UNTESTED
        self.process = self.process or Process(self.place, [self.folder])
        outcome = self.process.outcome(mutant, self.tests(mutant), self.seconds)
        if outcome == KILLED:
            return KILLED
        if outcome != SURVIVED:
            self.close()
        return self.outcome_alone(mutant)

    def outcome_alone(self, mutant: str) -> str:
        """Try a mutant in a process of its own, in which it is active from the first import on."""
        tests = self.tests(mutant)
        files = sorted({name.partition("::")[0] for name in tests})
        with contextlib.closing(Process(self.place, files, mutant)) as process:
            return process.outcome(mutant, tests, self.seconds)

    def tests(self, mutant: str) -> list[str]:
        """Names of the tests that reach the function of a mutant, fastest first."""
        return self.tests_by_function[mutant.partition("__mutmut_")[0]]

    def close(self) -> None:
        if self.process is not None:
            self.process.close()
        self.process = None


def copied_repository(place: Path, package: str) -> Path:
    """Copy the repository to a new folder and make the mutants of a package there; returns the folder."""
    ignored = shutil.ignore_patterns(".git", ".venv", "runs", "_build", "__pycache__", ".*_cache", "mutants")
    shutil.copytree(ROOT, place, ignore=ignored)
    with (place / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write(SETTINGS.format(package=package))
    subprocess.run([sys.executable, "-c", GENERATE], cwd=place, check=True, stdout=subprocess.DEVNULL)
    return place


def mutant_files(place: Path) -> dict[str, str]:
    """File of each mutant, by its name, relative to the repository."""
    source = place / "mutants"
    return {
        name: str(meta.relative_to(source).with_suffix(""))
        for meta in sorted(source.rglob("*.meta"))
        for name in json.loads(meta.read_text("utf-8"))["exit_code_by_key"]
    }


def try_mutants(trial: Trial, files: dict[str, str], names: list[str], seconds: float | None) -> dict[str, str]:
    """Try mutants, for no longer than the given time, and print those that no test kills; returns all outcomes."""
    outcomes: dict[str, str] = {}
    end = math.inf if seconds is None else time.monotonic() + seconds
    for name in tqdm(names, unit="mutant"):
        if time.monotonic() > end:
            break
        outcomes[name] = trial.outcome(name)
        if outcomes[name] != KILLED:
            tqdm.write(f"{outcomes[name]}: {name}")
        if outcomes[name] == SURVIVED:
            with contextlib.chdir(trial.place):
                tqdm.write(f"{get_diff_for_mutant(name, path=files[name])}\n")
    return outcomes


def repeat_killed(trial: Trial, outcomes: dict[str, str], number: int, seed: int) -> None:
    """Repeat some of the killed mutants in processes of their own, put those outcomes in place of the former."""
    killed = [name for name, outcome in outcomes.items() if outcome == KILLED]
    chosen = random.Random(seed).sample(killed, min(number, len(killed)))
    for name in tqdm(chosen, unit="repeated"):
        outcomes[name] = trial.outcome_alone(name)
    differing = [name for name in chosen if outcomes[name] != KILLED]
    print(
        f"{len(chosen)} of the killed repeated in processes of their own, {len(differing)} not killed there", *differing
    )


def print_score(outcomes: dict[str, str], number: int) -> None:
    """Print how many mutants had which outcome, and the score with its 95% interval."""
    counts = Counter(outcomes.values())
    tried = max(1, counts.total())
    score = 1 - (counts[SURVIVED] + counts[UNTESTED]) / tried
    error = 1.96 * math.sqrt(score * (1 - score) / tried)
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.most_common()))
    print(f"killed, timed out or crashed: {round(score * tried)} of {tried} mutants ({number:,} in all): "
          f"{score:.1%} ± {error:.1%}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", choices=PACKAGES)
    parser.add_argument("--sample", type=int, help="how many mutants are tried; by default all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--seconds", type=float, help="end after so long")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="try these mutants")
    parser.add_argument("--repeat", type=int, default=20, help="how many of the killed are repeated")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = copied_repository(Path(folder) / "copy", options.package)
        files = mutant_files(place)
        names = options.only or sorted(files)
        if options.sample is not None:
            names = random.Random(options.seed).sample(names, min(options.sample, len(names)))
        with contextlib.closing(Trial(place, options.package)) as trial:
            outcomes = try_mutants(trial, files, names, options.seconds)
            repeat_killed(trial, outcomes, options.repeat, options.seed)
        print_score(outcomes, len(files))


if __name__ == "__main__":
    main()
