"""Mutation score of a package: small changes are made to its code, one at a time, and its tests have to notice each.

    python tests/mutation.py evaluation                  # all mutants
    python tests/mutation.py training --sample 200       # a random sample, and the interval of the score

Uses mutmut, in a copy of the repository. Texts that are only shown (messages, titles, help) are mutated as well; a
survivor is a defect of the tests, or a change that nobody can notice (the list is printed for reading).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

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
paths_to_mutate = ["src/darklens/{package}"]
tests_dir = ["tests/{package}"]
also_copy = ["src", "tests", "docs", "benchmarks", "README.md"]
process_isolation = "{isolation}"
do_not_mutate = ["src/darklens/simulation/__init__.py"]
"""
"""Its lazy imports run when ``conftest.py`` is imported, where mutmut's trial with a failing mutant ends pytest itself."""


def mutants_of(place: Path, package: str) -> dict[str, int | None]:
    """Names of the mutants and their exit codes so far."""
    found: dict[str, int | None] = {}
    for meta in sorted((place / "mutants" / "src" / "darklens" / package).rglob("*.meta")):
        found |= json.loads(meta.read_text("utf-8"))["exit_code_by_key"]
    return found


def run(place: Path, names: list[str], seconds: float | None = None) -> None:
    command = [str(Path(sys.executable).parent / "mutmut"), "run", "--max-children", "1", *names]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    try:
        subprocess.run(command, cwd=place, env=environment, check=False, timeout=seconds, stdout=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        print(f"ended after {seconds:.0f} s: the score is of those that were tried")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", choices=PACKAGES)
    parser.add_argument("--sample", type=int, help="how many mutants are tried; by default all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--seconds", type=float, help="end after so long")
    parser.add_argument("--isolation", default="fork", choices=("fork", "forkserver"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "copy"
        ignored = shutil.ignore_patterns(".git", ".venv", "runs", "_build", "__pycache__", ".*_cache", "mutants")
        shutil.copytree(ROOT, place, ignore=ignored)
        with (place / "pyproject.toml").open("a", encoding="utf-8") as file:
            file.write(SETTINGS.format(package=options.package, isolation=options.isolation))
        names: list[str] = []
        if options.sample is not None:
            run(place, ["darklens.no_such_mutant"])  # makes the mutants and tries none
            every = sorted(mutants_of(place, options.package))
            names = random.Random(options.seed).sample(every, min(options.sample, len(every)))
        run(place, names, options.seconds)
        codes = mutants_of(place, options.package)
        tried = {name: code for name, code in codes.items() if code is not None and (not names or name in names)}
        survived = sorted(name for name, code in tried.items() if code in (0, 33))  # 33: no test runs that line
        score = 1 - len(survived) / max(1, len(tried))
        error = 1.96 * math.sqrt(score * (1 - score) / max(1, len(tried)))
        for name in survived:
            print(f"survived: {name}")
        # An endless loop, which is noticed, or a deadlock of a library's threads after a fork, which is not the mutant's:
        # with --isolation forkserver the latter are rarer.
        for name in sorted(name for name, code in tried.items() if code in (-24, 24, 36, 152, 255)):
            print(f"ended after its time, counted as killed: {name}")
        print(f"{options.package}: {len(tried) - len(survived)} of {len(tried)} mutants killed ({len(codes):,} in all): "
              f"{score:.1%} ± {error:.1%}")  # fmt: skip


if __name__ == "__main__":
    main()
