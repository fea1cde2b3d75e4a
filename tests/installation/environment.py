"""Virtual environments that hold darklens as a user would install it, and the commands that must work in them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HIDDEN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")
"""Variables of the caller that would let an environment see what is not in it, or slow it down."""


class CheckError(Exception):
    """A command failed that must work after an installation."""


@dataclass(frozen=True)
class Step:
    """A command, and what proves that it worked.

    Parameters
    ----------
    command
        A program of the environment, with its arguments.
    says
        Text that its output must hold.
    makes
        Pattern of a path that must exist afterwards, relative to the folder of the environment.
    cwd
        Where it runs, if not in the folder of the environment.
    """

    command: Sequence[str]
    says: str = ""
    makes: str = ""
    cwd: Path | None = None


@dataclass(frozen=True)
class Environment:
    """A virtual environment ``folder/venv``, whose commands run in ``folder`` and see nothing of the caller's."""

    name: str
    folder: Path

    @property
    def programs(self) -> Path:
        return self.folder / "venv" / "bin"

    @property
    def packages(self) -> Path:
        return next((self.folder / "venv" / "lib").glob("python*/site-packages"))

    def make(self, like: Environment | None = None) -> None:
        """Make the environment: empty, or with links to all packages of another.

        The packages of another are compiled to bytecode already, which takes longer than most commands. Nothing may run
        in the other meanwhile.
        """
        self.folder.mkdir()
        run_command(self.name, [find_uv(), "venv", "--quiet", "--python", sys.executable, str(self.folder / "venv")])
        if like is not None:
            known = shutil.ignore_patterns("_virtualenv*")
            shutil.copytree(like.packages, self.packages, copy_function=os.link, dirs_exist_ok=True, ignore=known)

    def install(self, requirement: str, constraints: Path) -> None:
        """Install a requirement with the versions of a constraints file, and darklens anew if it is there."""
        options = ["--python", str(self.programs / "python"), "--reinstall-package", "darklens"]
        install = [find_uv(), "pip", "install", "--quiet", requirement, "--constraint", str(constraints)]
        run_command(self.name, [*install, *options])

    def run(self, step: Step) -> None:
        """Run a step.

        Raises
        ------
        CheckError
            If its exit status is not 0, or its output has a traceback or lacks what the step must say, or the file that
            it must make is not there.
        """
        program, *arguments = step.command
        environment = {k: v for k, v in os.environ.items() if k not in HIDDEN} | {
            "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONNOUSERSITE": "1",
            "OMP_NUM_THREADS": "1",  # two environments are checked at a time
            "WANDB_MODE": "offline",
            "HF_HUB_OFFLINE": "1",
        }
        command = [str(self.programs / program), *arguments]
        output = run_command(self.name, command, step.cwd or self.folder, environment)
        if "Traceback" in output or step.says not in output:
            wrong = "printed a traceback" if "Traceback" in output else f"did not print {step.says!r}"
            raise CheckError(failure(self.name, command, wrong, output))
        if step.makes and not any(self.folder.glob(step.makes)):
            raise CheckError(failure(self.name, command, f"did not make {step.makes}", output))


def run_command(
    name: str, command: Sequence[str], cwd: Path | None = None, environment: dict[str, str] | None = None
) -> str:
    """Run a command of the environment ``name``, print its seconds, and return what it printed.

    Raises
    ------
    CheckError
        If its exit status is not 0.
    """
    started = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(f"{name:8}{time.perf_counter() - started:6.1f} s  {shown(command)}", flush=True)
    if done.returncode:
        raise CheckError(failure(name, command, f"ended with exit status {done.returncode}", done.stdout))
    return done.stdout


def failure(name: str, command: Sequence[str], wrong: str, output: str) -> str:
    """Return the message of a failed command: the environment, what was wrong, and the end of its output."""
    return f"{name}: {shown(command)}: {wrong}; it printed:\n{output[-3000:]}"


def shown(command: Sequence[str]) -> str:
    """Return a command as one short line: its program without the folder, and no code."""
    arguments = ["-c", "..."] if "-c" in command else command[1:]
    line = " ".join([Path(command[0]).name, *map(shlex.quote, arguments)])
    return line if len(line) <= 110 else f"{line[:107]}..."


def find_uv() -> str:
    """Return the path of uv: beside this Python, or else the first on the PATH."""
    found = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        raise CheckError("uv is not installed; make setup installs it")
    return found
