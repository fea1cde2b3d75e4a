"""What Ctrl-C leaves behind, and the command that goes on."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from darklens.cli.verbs.system import demo_folder


def kept(verb: str, given: Mapping[str, Any], again: str) -> str:
    """Return what is kept of an interrupted verb, and how to go on.

    Parameters
    ----------
    verb
        What was interrupted.
    given
        Its arguments by name.
    again
        Its command line.
    """
    if verb in ("train", "adapt", "finetune"):
        run = Path(given.get("out") or f"runs/{Path(given.get('model', '')).name}-finetuned")
        return _training(run, again)
    if verb == "simulate":
        return _simulation(Path(given["out"]), again)
    if verb == "paint" and (hosts := Path(f"{given['out']}.hosts")).is_dir():
        return f"interrupted; measured galaxies are kept in {hosts}, painted images beside it; to go on: {again}"
    if verb in ("predict", "find") and (parts := Path(f"{given['out']}.parts")).is_dir():
        return f"interrupted; predictions so far are kept in {parts}; to go on: {again}"
    if verb == "benchmark":
        return f"interrupted; what is done is kept in {given['out']}; to go on: {again}"
    if verb == "demo" and (run := Path(given.get("out") or demo_folder(given.get("task", "substructure")))).exists():
        return f"interrupted; the images are kept in {run}-data; remove {run}, then start anew: {again}"
    return f"interrupted; nothing was written; to start anew: {again}"


def how_to_resume(arguments: Sequence[str]) -> str:
    """Return how a training is resumed, with the command that began it where the arguments hold its run folder."""
    for word in arguments:
        try:
            began = json.loads((Path(word) / "run.json").read_text("utf-8")).get("command")
        except (OSError, ValueError, AttributeError):
            continue
        if began:
            again = began if "--resume" in began else f"{began} --resume"
            return f"--resume takes the command again that began the run: {again}"
    return "--resume takes the command again that began the run, with its recipe, --data and --out; run.json keeps it"


def _training(run: Path, again: str) -> str:
    parts = next((part for part in ("members", "stages") if (run / part).is_dir()), None)
    checkpoints = [*run.glob(f"{parts}/*/checkpoints/last.ckpt" if parts else "checkpoints/last.ckpt")]
    if not checkpoints:
        return f"interrupted before the first epoch was over: nothing is kept; to start anew: {again}"
    from darklens.training.history import epoch_history

    count = f"1 {parts[:-1]} is" if parts and len(checkpoints) == 1 else f"{len(checkpoints)} {parts} are"
    done = f"{count} begun or done" if parts else _epochs(len(epoch_history(run)))
    resuming = any(word.partition("=")[0] == "--resume" for word in shlex.split(again))
    resume = again if resuming else f"{again} --resume"
    return f"interrupted; {done}, and kept in {run}; to go on: {resume}"


def _epochs(number: int) -> str:
    return "1 epoch is finished" if number == 1 else f"{number} epochs are finished"


def _simulation(out: Path, again: str) -> str:
    partial = out.with_name(out.name + ".partial")
    try:
        content = json.loads((partial / "progress.json").read_text("utf-8"))
        done, total = int(content["done"]), int(content["fingerprint"]["shape"][0])
    except (OSError, ValueError, KeyError, TypeError):
        return f"interrupted; nothing was written; to start anew: {again}"
    return f"interrupted; {done:,} of {total:,} images are kept in {partial}; to go on: {again}"
