"""Install darklens as a user would, with the core alone and with each extra alone, and try what each is for.

    make install-check            # about four minutes on two cores, once the packages are in uv's cache

A source distribution and a wheel are built into a temporary folder, and installed there with the versions of
requirements.lock (what it does not hold, as the packages of the extra bench, comes in its newest version). Nothing is run
in the checkout. Two environments are tried at a time, and all are removed at the end.
"""

from __future__ import annotations

import re
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from environment import CheckError, Environment, Step, find_uv, run_command
from steps import core_steps, extra_steps, import_step

ROOT = Path(__file__).resolve().parents[2]


_SAFELY: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
"""Nothing outside of the folder is written; Python has the option from 3.11.4 on."""


def main() -> None:
    """Check the core and every extra; end with exit status 1 if a command failed."""
    with tempfile.TemporaryDirectory(prefix="darklens-install-") as folder:
        try:
            errors, checked = check_all(ROOT, Path(folder))
        except CheckError as error:
            errors, checked = [str(error)], 1
    for message in errors:
        print(f"\n{message}", file=sys.stderr)
    print(f"environments: {checked - len(errors)} passed, {len(errors)} failed", flush=True)
    raise SystemExit(1 if errors else 0)


def check_all(root: Path, folder: Path) -> tuple[list[str], int]:
    """Check the core and every extra of a checkout in a temporary folder.

    Returns
    -------
    The message of each environment in which a command failed, and the number of environments.

    Raises
    ------
    CheckError
        If the core cannot be built, installed or imported, or an extra has no proof.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    wheel, sources = build(root, folder)
    plans = {extra: extra_steps(extra, sources) for extra in project["optional-dependencies"]}
    constraints = folder / "constraints.txt"
    constraints.write_text(pinned((root / "requirements.lock").read_text("utf-8")), "utf-8")
    core = Environment("core", folder / "environment-core")
    core.make()
    core.install(f"darklens @ {wheel.as_uri()}", constraints)
    core.run(import_step())
    extras = {extra: Environment(extra, folder / f"environment-{extra}") for extra in plans}
    for environment in extras.values():
        environment.make(like=core)
    with ThreadPoolExecutor(max_workers=2) as pool:
        jobs = [pool.submit(run_all, core, core_steps(project["version"]))]
        for extra, environment in extras.items():
            requirement = f"darklens[{extra}] @ {wheel.as_uri()}"
            jobs.append(pool.submit(install_and_run, environment, requirement, constraints, plans[extra]))
    return [str(error) for job in jobs if (error := job.exception()) is not None], len(jobs)


def install_and_run(environment: Environment, requirement: str, constraints: Path, steps: Sequence[Step]) -> None:
    """Install a requirement into an environment, then run steps there."""
    environment.install(requirement, constraints)
    run_all(environment, steps)


def run_all(environment: Environment, steps: Sequence[Step]) -> None:
    """Run steps one after the other; the first that fails ends it."""
    for step in steps:
        environment.run(step)


def build(root: Path, folder: Path) -> tuple[Path, Path]:
    """Build both distributions of a checkout, and return the wheel and the unpacked source distribution.

    Raises
    ------
    CheckError
        If the wheel lacks a file of the package.
    """
    run_command("build", [find_uv(), "build", "--quiet", "--out-dir", str(folder / "dist"), str(root)])
    (archive,), (wheel,) = (list((folder / "dist").glob(pattern)) for pattern in ("*.tar.gz", "*.whl"))
    with tarfile.open(archive) as file:
        file.extractall(folder, **_SAFELY)
    package = root / "src"
    files = {str(p.relative_to(package)) for p in package.rglob("*") if p.is_file() and p.parent.name != "__pycache__"}
    if absent := files - set(zipfile.ZipFile(wheel).namelist()):
        raise CheckError(f"{wheel.name} lacks {len(absent)} files of src, such as {min(absent)}")
    return wheel, folder / archive.name.removesuffix(".tar.gz")


def pinned(lock: str) -> str:
    """Return the requirements of a lock file with their versions and without their hashes, one a line."""
    return "".join(f"{line}\n" for line in re.findall(r"^([\w.-]+==[^\\\n]*?) *\\?$", lock, re.MULTILINE))


if __name__ == "__main__":
    main()
