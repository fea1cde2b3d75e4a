"""Verbs that show and check darklens itself."""

from __future__ import annotations

from pathlib import Path

from darklens.cli.console import loading, say
from darklens.paths import check_absent


def demo(out: Path = Path("runs/demo"), seed: int = 0) -> None:
    """Simulate, train, evaluate, predict and report: all of darklens in ten minutes on two cores.

    Args:
        out: the run folder to make.
        seed: of everything.
    """
    check_absent(out)
    with loading():
        from darklens.workflows.demo import run_demo

    run_demo(out, seed)


def doctor() -> None:
    """Print versions, devices, threads and disk, to paste into an issue; and what is known to be bad."""
    from darklens.workflows.doctor import diagnose

    with loading():
        facts, problems = diagnose()
    say("\n".join(f"{name:13} {value}" for name, value in facts.items()))
    for problem in problems:
        say(f"! {problem}")
    say("no known problems" if not problems else None)
