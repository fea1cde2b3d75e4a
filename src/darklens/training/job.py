"""The record of a run: what was trained on what, by which versions, on which machine."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import polars as pl
import torch

from darklens.commands import command, given_command
from darklens.data.catalog_inputs import ALL, CatalogEncoder, read_encoder
from darklens.data.dataset import versions
from darklens.data.options import DataOptions
from darklens.errors import DataError, ModelError, RecipeError
from darklens.inference.config import read_config
from darklens.inference.shipped import model_folder
from darklens.schema import from_keys, known_keys, read_json
from darklens.tasks.registry import task_content
from darklens.training.recipe import (
    Recipe,
    TrainerConfig,
    changes,
    check_recipe_trusted,
    code_of,
    load_recipe,
    recipe_from,
    recipe_names,
)
from darklens.training.training_data import TrainingData, open_training_data
from darklens.usercode import check_trusted, code_checksum, is_reference, split_reference

CODE = "code"
"""Folder of a run with copies of the user's own code that its recipe names."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What to train on what: everything that a run records and a resumed run reads back.

    Attributes
    ----------
    recipe, data, seed
        What is trained, on what; a path or ``preset:NAME``.
    split_seed
        Seed of the split, or of the validation images of a preset; by default ``seed``. Runs that differ in ``seed`` alone
        then learn from the same images.
    options
        How the data is read.
    wandb
        A Weights & Biases project to log to as well.
    start
        A trained model, by name or folder, whose weights the training starts from.
    member
        Number among those of an ensemble, which differ in weights and in the order or the choice of training images, not
        in the split.
    unlabelled
        A second dataset without labels, for tasks that have a use for it, or the target of an adaptation.
    labels
        A table with ``id`` and labels of a few images of the target.
    own_seeds
        Whether images that are simulated as it goes have seeds that no dataset folder has; of runs of version 0.1, which
        go on with the images that they began with, they have not.
    """

    recipe: Recipe
    data: str
    seed: int = 0
    options: DataOptions = DataOptions()
    wandb: str | None = None
    start: str | None = None
    member: int = 0
    unlabelled: str | None = None
    own_seeds: bool = True
    split_seed: int | None = None
    labels: str | None = None

    @property
    def images_seed(self) -> int:
        """Seed of the split, or of the validation images of a preset."""
        return self.seed if self.split_seed is None else self.split_seed


def read_job(out: Path, *, trust_code: bool = False) -> Job:
    """Return the job that a run folder records, to be done again.

    Raises
    ------
    DataError
        If there is no run.
    UntrustedCodeError
        If its recipe or data name code, and ``trust_code`` is not set.
    """
    job = recorded_job(out, trust_code=trust_code)
    check_recipe_trusted(job.recipe, str(out / "run.json"), trust_code)
    _check_code(job.recipe, out)
    return job


def same_job(one: Job, other: Job) -> bool:
    """Return whether two jobs train alike: what is not said has its default, and a stage may have moved with its run."""
    return _normal(one) == _normal(other)


def _normal(job: Job) -> tuple[Any, ...]:
    """What makes a difference to a training."""
    start = job.start
    if start is not None and Path(start).parent.name == "stages":
        start = Path(start).name
    rest = dataclasses.replace(
        job, recipe=_with_defaults(job.recipe), start=start, own_seeds=True, split_seed=job.images_seed
    )
    data = [stage.get("data") for stage in job.recipe.stages]
    return rest, [_with_defaults(part) for part in job.recipe.parts()], data, len(job.recipe.members)


def _with_defaults(recipe: Recipe) -> Recipe:
    """A recipe without its parts, and with all options of its task."""
    task = task_content(recipe.make_task(), recipe.task["name"])
    return dataclasses.replace(recipe, task=task, members=[], stages=[])


def learns_alike(one: Recipe, other: Recipe) -> bool:
    """Return whether two recipes differ in nothing but their texts and how long they train."""

    def compared(recipe: Recipe) -> list[Recipe]:
        parts = (_with_defaults(part) for part in (recipe, *recipe.parts()))
        plain = TrainerConfig()
        return [dataclasses.replace(p, name="", description="", source="", differs="", trainer=plain) for p in parts]

    return compared(one) == compared(other)


def check_same_images(data: TrainingData, out: Path) -> None:
    """Refuse to go on with other images, or another split of them, than those that a run began with.

    Raises
    ------
    DataError
        If the checksum of a dataset, a preset or a file that it names, the identifiers or the split differ from the run's
        record.
    """
    before = read_record(out).get("data_description", {})
    if before.get("checksum") not in (None, data.description.get("checksum")):
        raise DataError(f"{out}: the images are not those that the run began with; bring them back, or train anew")
    if before.get("catalog_checksum") not in (None, data.description.get("catalog_checksum")):
        raise DataError(
            f"{out}: columns of the catalogue are not those that the run began with; bring them back, or train anew"
        )
    target, now = before.get("target") or {}, data.description.get("target") or {}
    if target.get("checksum") not in (None, now.get("checksum")):
        raise DataError(
            f"{out}: the target's images are not those that the run began with; bring them back, or train anew"
        )
    simulated = (before.get("simulated") or {}).get("checksum")  # earlier versions kept none
    if simulated not in (None, (data.description.get("simulated") or {}).get("checksum")):
        raise DataError(
            f"{out}: the preset, or a file that it names, was changed since the run began; bring it back, or train anew"
        )
    if data.split is not None and (out / "split.parquet").is_file():
        began = pl.read_parquet(out / "split.parquet").select("id", "split")
        if not began.equals(data.split.select("id", "split")):
            raise DataError(
                f"{out}: the images, or their split, are not those that the run began with; bring them back, or train anew"
            )


def _check_code(recipe: Recipe, out: Path) -> None:
    """Refuse code that has changed since the run began: what it computes would be neither the old nor the new."""
    recorded = read_record(out).get("code", {})  # version 0.1 kept none
    for path in _files_of(recipe):
        if path.name in recorded and code_checksum(path) != recorded[path.name]:
            raise RecipeError(
                f"{path}: was changed since the run began; bring back what is kept in {out / CODE}, or train anew"
            )


def _files_of(recipe: Recipe) -> list[Path]:
    """The files of code that a recipe names. Raises RecipeError if two of them have one name."""
    files = sorted({split_reference(reference)[0] for reference in code_of(recipe)})
    names = [path.name for path in files]
    if twice := [name for name in names if names.count(name) > 1]:
        raise RecipeError(f"two files of code are called {twice[0]}; rename one")
    return files


def recorded_job(out: Path, *, trust_code: bool = False) -> Job:
    """Return the job that a run folder records, whose recipe is not to be built again: it may name any code.

    Raises
    ------
    DataError
        If there is no run.
    UntrustedCodeError
        If its data are a preset or a layout that names code, and ``trust_code`` is not set.
    """
    record = read_record(out)
    recipe = recipe_from(record["recipe"], record["recipe"]["name"])
    if is_reference(preset := str(record.get("data")).removeprefix("preset:")):
        check_trusted(preset, str(out / "run.json"), trust_code)
    options = _recorded_options(record, out)
    if options.layout is not None and is_reference(options.layout):
        check_trusted(options.layout, str(out / "run.json"), trust_code)
    own_seeds = record.get("own_seeds", False)  # version 0.1 kept nothing of it
    fields = known_keys(Job, record) | {"recipe": recipe, "options": options, "own_seeds": own_seeds}
    return from_keys(Job, fields, str(out / "run.json"), DataError)


def _recorded_options(record: dict[str, Any], out: Path) -> DataOptions:
    """The options of a record; runs of version 0.1 keep them beside the rest."""
    found = record.get("options") or {name: record[name] for name in ("layout", "catalog", "mask") if name in record}
    if not isinstance(found, dict):
        raise DataError(f"{out / 'run.json'}: options hold a {type(found).__name__}; expected keys and values")
    catalog = {"catalog": Path(found["catalog"])} if isinstance(found.get("catalog"), str) else {}
    return from_keys(DataOptions, found | catalog, f"{out / 'run.json'}: options", DataError)


def open_job_data(job: Job, *, trust_code: bool = False) -> TrainingData:
    """Return the opened data of a job; ``trust_code`` lets a preset in YAML run the code that it names."""
    return open_training_data(
        job.data,
        job.recipe,
        job.seed,
        options=job.options,
        unlabelled=job.unlabelled,
        member=job.member,
        own_seeds=job.own_seeds,
        split_seed=job.images_seed,
        encoder=_encoder_of_start(job),
        labels=job.labels,
        trust_code=trust_code,
    )


def _encoder_of_start(job: Job) -> CatalogEncoder | None:
    """The encoder of the model that a training starts from, which its weights belong to; None without.

    Raises
    ------
    RecipeError
        If the recipe names other columns.
    """
    if job.start is None or job.recipe.inputs.columns is None:
        return None
    folder = model_folder(job.start)
    encoder = read_encoder(read_config(folder).catalog, str(folder), ModelError)
    if encoder is None:
        return None
    asked = job.recipe.inputs.columns
    names = [name.strip() for name in asked.split(",")] if isinstance(asked, str) else list(asked)
    if names not in ([ALL], encoder.names):
        raise RecipeError(
            f"recipe {job.recipe.name}: inputs.columns are {', '.join(names)}; those of {job.start}, from whose weights "
            f"the training starts, are {', '.join(encoder.names)}"
        )
    return encoder


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


def new_record(job: Job, out: Path) -> dict[str, Any]:
    """Return the record of a run in ``out`` before it is trained; code that its recipe names is copied beside it."""
    made_of_others = job.recipe.members or job.recipe.stages  # each keeps its own
    files = [] if made_of_others else _files_of(job.recipe)
    for path in files:
        (out / CODE).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, out / CODE / path.name)
    return {
        **json.loads(json.dumps(dataclasses.asdict(job), default=str)),
        "command": given_command.get() or training_command(job, out),
        "versions": versions(),
        "code": {path.name: code_checksum(out / CODE / path.name) for path in files},
        "git": _git_revision(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def write_record(out: Path, content: dict[str, Any]) -> None:
    """Write ``run.json`` at once, or not at all."""
    temporary = out / "run.json.tmp"
    temporary.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    temporary.replace(out / "run.json")


def training_command(job: Job, out: Path) -> str | None:
    """Return the command line that trains what Python started, or None where the recipe is not the library's own."""
    if job.recipe.name not in recipe_names() or job.start is not None:
        return None
    given = changes(job.recipe)
    # Stages may differ by themselves, and an option that the library's recipe has and this one lacks cannot be said.
    if load_recipe(job.recipe.name, given) != job.recipe:
        return None
    changed = given.items()
    options = {key.replace(".", "__"): "null" if value is None else value for key, value in changed}
    shared = {
        "data": job.data,
        "out": out,
        "seed": job.seed,
        "split_seed": job.split_seed,
        **job.options.given(),
        "wandb": job.wandb,
        "unlabelled": job.unlabelled,
        "labels": job.labels,
    }
    return command("train", job.recipe.name, **shared, **options)


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
