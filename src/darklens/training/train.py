"""Train a recipe: a run folder with its record, logs, checkpoints and, in the end, the model."""

from __future__ import annotations

import dataclasses
import shutil
import time
from contextlib import nullcontext
from pathlib import Path

from darklens.errors import DataError, RecipeError
from darklens.paths import check_absent, is_helper_process, is_vacant, only_one
from darklens.tasks.registry import task_title
from darklens.training.build import build_module, check_networks
from darklens.training.ensemble import make_ensemble, summed_training
from darklens.training.finish import finish
from darklens.training.fit import console, fit
from darklens.training.job import (
    Job,
    check_same_images,
    new_record,
    open_job_data,
    read_job,
    read_record,
    same_job,
    write_record,
)
from darklens.training.recipe import own_code, short_name

TARGET_SPLIT = "target_split.parquet"
"""File of a run with identifiers and split of the images that it adapted to."""


def train(job: Job, out: Path, *, trust_code: bool = False) -> Path:
    """Train in a new folder; returns it.

    Parameters
    ----------
    job
        What to train on what. Code that its recipe names is run: whoever made the recipe has answered for it.
    out
        The run folder to make.
    trust_code
        Whether code may run that a preset in YAML, or the model that the training starts from, names.

    Raises
    ------
    DarklensError
        If the folder exists or is in use, or data, recipe or weights are not usable; nothing is left behind then.
    """
    child = is_helper_process()
    if not child:
        check_absent(out)
    with nullcontext() if child else only_one(out, "training"):
        if not child and not is_vacant(out):  # another process was faster
            raise DataError(f"{out}: exists already, and nothing is overwritten; choose another --out")
        try:
            check_networks(job.recipe)
            if job.recipe.members:
                return _train_members(job, out, trust_code)
            if job.recipe.stages:
                return _train_stages(job, out, trust_code)
            return _train(job, out, trust_code)
        except BaseException:
            if not child and not any((*out.glob("checkpoints/last.ckpt"), *out.glob("*/*/checkpoints/last.ckpt"))):
                shutil.rmtree(out, ignore_errors=True)
            raise


def resume(out: Path, asked: Job | None = None, *, trust_code: bool = False) -> Path:
    """Continue a run that was interrupted, from its last finished epoch; a finished one is left as it is.

    Parameters
    ----------
    out
        The run folder.
    asked
        The job that is meant. Code that its recipe names is run.
    trust_code
        Whether code may run that a preset in YAML, or the run's own record, names.

    Raises
    ------
    RecipeError
        If ``asked`` is given and is not the job of the run.
    InUseError
        If another process trains in the folder.
    """
    job = read_job(out, trust_code=trust_code or asked is not None)
    if asked is not None and not same_job(asked, job):
        raise RecipeError(
            f"{out}: was started with another recipe, data or seed; --resume takes the same command again"
        )
    if (out / "model" / "config.json").is_file() and "training" in read_record(out):
        console.print(f"{out}: already finished")
        return out
    with nullcontext() if is_helper_process() else only_one(out, "training"):
        if job.recipe.members:
            return _train_members(job, out, trust_code)
        if job.recipe.stages:
            return _train_stages(job, out, trust_code)
        return _train(job, out, trust_code)


def _train(job: Job, out: Path, trust_code: bool) -> Path:
    """Open the data, build the module, fit it, calibrate and save it; a run that was begun continues."""
    started = time.perf_counter()
    method = job.recipe.method
    if method is not None and method.needs_start and job.start is None:
        raise RecipeError(
            f"recipe {job.recipe.name}: {job.recipe.adaptation['method']} begins with a network that has learned the "
            "source; make the recipe of two stages, the first without adaptation, as adaptation/adda is"
        )
    data = open_job_data(job, trust_code=trust_code)
    begun = (out / "run.json").is_file()
    if begun:
        check_same_images(data, out)
    module = build_module(job.recipe, data, job.start, trust_code=trust_code)
    checkpoint = out / "checkpoints" / "last.ckpt"
    if not begun and not is_helper_process():
        write_record(out, new_record(job, out) | {"data_description": data.description, "notes": data.notes})
        if data.split is not None:
            data.split.write_parquet(out / "split.parquet")
        if data.target is not None and data.target.split is not None:
            data.target.split.write_parquet(out / TARGET_SPLIT)
    fitted = fit(
        job, data, module, out, checkpoint=checkpoint if begun and checkpoint.exists() else None, started=started
    )
    if fitted is not None:
        finish(job, data, module, out, fitted)
        console.print(f"trained in {fitted.seconds:.0f} s → {out}")
    return out


def _train_members(job: Job, out: Path, trust_code: bool) -> Path:
    """Train the members of an ensemble one by one, those that are done left as they are, and average them."""
    child = is_helper_process()
    if not child and not (out / "run.json").exists():
        write_record(out, new_record(job, out))
    runs = []
    for number, recipe in enumerate(job.recipe.parts()):
        part = dataclasses.replace(job, recipe=recipe, member=number)
        runs.append(_train_part(part, out / "members" / f"{number}-{short_name(recipe.name)}", trust_code))
    if not child:
        make_ensemble(runs, out, own=own_code(job.recipe), trust_code=trust_code)
    return out


def _train_stages(job: Job, out: Path, trust_code: bool) -> Path:
    """Train stage after stage, each from the weights of the one before; the model is that of the last."""
    child = is_helper_process()
    if not child and not (out / "run.json").exists():
        write_record(out, new_record(job, out))
    start = job.start
    for number, (recipe, stage) in enumerate(zip(job.recipe.parts(), job.recipe.stages, strict=True)):
        # Only those stages get the unlabelled images that have a use for them.
        unlabelled = job.unlabelled if recipe.takes_unlabelled else None
        data = stage.get("data", job.data)
        labels = job.labels if recipe.adaptation else None
        part = dataclasses.replace(job, recipe=recipe, data=data, start=start, unlabelled=unlabelled, labels=labels)
        run = _train_part(part, out / "stages" / f"{number}-{task_title(recipe.task)}", trust_code)
        start = str(run)
    if not child:
        last = read_record(run)
        shutil.copytree(run / "model", out / "model", dirs_exist_ok=True)
        if (run / "split.parquet").is_file():
            shutil.copy(run / "split.parquet", out / "split.parquet")
        if (run / TARGET_SPLIT).is_file():
            shutil.copy(run / TARGET_SPLIT, out / TARGET_SPLIT)
        summed = summed_training([read_record(path)["training"] for path in sorted((out / "stages").iterdir())])
        write_record(out, read_record(out) | {"training": summed, "data_description": last["data_description"]})
    return out


def _train_part(part: Job, run: Path, trust_code: bool) -> Path:
    """Train a member or stage, or continue where it stopped."""
    if (run / "run.json").is_file():
        return resume(run, part, trust_code=trust_code)
    return train(part, run, trust_code=trust_code)
