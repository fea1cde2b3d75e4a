"""The record of a run: what was trained on what, by which versions, on which machine."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from darklens.data.dataset import versions
from darklens.errors import DataError, RecipeError
from darklens.schema import from_keys, known_keys, read_json
from darklens.training.recipe import Recipe, recipe_from
from darklens.training.sources import Source, open_source


@dataclasses.dataclass(frozen=True)
class Job:
    """What to train on what: everything that a run records and a resumed run reads back.

    ``start`` is a trained model, by name or folder, whose weights the training starts from. ``member`` numbers those of
    an ensemble, which differ in weights and in the order or the choice of training images, not in the split.
    """

    recipe: Recipe
    data: str
    seed: int = 0
    layout: str | None = None
    catalog: str | None = None
    mask: bool = False
    wandb: str | None = None
    start: str | None = None
    member: int = 0


def read_job(out: Path) -> Job:
    """The job that a run folder records."""
    record = read_record(out)
    fields = known_keys(Job, record) | {"recipe": recipe_from(record["recipe"], record["recipe"]["name"])}
    return from_keys(Job, fields, str(out / "run.json"), DataError)


def open_job_source(job: Job) -> Source:
    """The data of a job, opened."""
    return open_source(job.data, job.recipe, job.seed, job.layout, job.catalog, job.mask, job.member)


def read_record(out: Path) -> dict[str, Any]:
    """Return the record of a run (`run.json`). Raises DataError if there is none, or it is damaged."""
    if not (out / "run.json").is_file():
        raise DataError(f"{out}: no run here (no run.json)")
    record = read_json(out / "run.json", DataError)
    if not isinstance(record.get("recipe"), dict) or not isinstance(record["recipe"].get("name"), str):
        raise DataError(f"{out / 'run.json'}: no recipe with a name in it; expected the record of a run")
    return record


def peak_memory() -> int:
    """The most memory that was in use, MiB: of the GPU if there is one, else of this process."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20)
    # Linux keeps the peak of getrusage from the process that started this one; that of its memory map is its own.
    status = Path("/proc/self/status")
    if status.is_file() and (found := re.search(r"VmHWM:\s*(\d+) kB", status.read_text())):
        return round(int(found[1]) / 2**10)
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)


def new_record(job: Job) -> dict[str, Any]:
    """What a run folder says of itself before it is trained."""
    return {
        **dataclasses.asdict(job),
        "recipe": dataclasses.asdict(job.recipe),
        "command": " ".join(["darklens", *sys.argv[1:]]),
        "versions": versions(),
        "git": _git_revision(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def write_record(out: Path, content: dict[str, Any]) -> None:
    """Write ``run.json`` at once, or not at all."""
    temporary = out / "run.json.tmp"
    temporary.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    temporary.replace(out / "run.json")


@contextmanager
def only_one(out: Path) -> Iterator[None]:
    """Train in a run folder alone; on file systems that know no locks, in good faith.

    Raises
    ------
    RecipeError
        If another process trains there.
    """
    lock = FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RecipeError(f"{out}: another process is training here; wait for it, or end it") from error
    except (NotImplementedError, OSError):
        pass
    try:
        yield
    finally:
        lock.release()


def _git_revision() -> str | None:
    try:
        here = Path(__file__).parent
        found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        return found.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def machine() -> str:
    """The machine in a few words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores"
