"""Verbs that show and check darklens itself."""

from __future__ import annotations

from pathlib import Path

from darklens.cli.console import loading, say
from darklens.errors import DarklensError
from darklens.paths import check_absent

DEMOS = ("substructure", "finding")


def demo(out: Path | None = None, seed: int = 0, task: str = "substructure") -> None:
    """Simulate, train, evaluate, predict and report: all of darklens in ten minutes on two cores.

    Args:
        out: the run folder to make; by default runs/demo, or runs/demo-finding.
        seed: of everything.
        task: substructure, a classifier of dark matter; or finding, a lens finder and its candidates.
    """
    if task not in DEMOS:
        raise DarklensError(f"--task is {' or '.join(DEMOS)}; got {task!r}")
    made = out or demo_folder(task)
    check_absent(made)
    with loading():
        from darklens.workflows.demo import run_demo, run_finding_demo

    (run_demo if task == DEMOS[0] else run_finding_demo)(made, seed)


def demo_folder(task: str = DEMOS[0]) -> Path:
    """Return the run folder of a demo for which none is named."""
    return Path("runs") / ("demo" if task == DEMOS[0] else f"demo-{task}")


def doctor() -> None:
    """Print versions, devices, threads and disk, to paste into an issue; and what is known to be bad."""
    from darklens.workflows.doctor import diagnose

    with loading():
        facts, problems = diagnose()
    say("\n".join(f"{name:13} {value}" for name, value in facts.items()))
    for problem in problems:
        say(f"! {problem}")
    say("no known problems" if not problems else None)
