"""Ensembles: trained runs whose predictions are averaged, as one run with one model."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from darklens.errors import DarklensError, ModelError
from darklens.inference.carried import carries_only
from darklens.inference.model import Ensemble, TrainedModel, load_model, read_config, save_model
from darklens.inference.shipped import model_folder
from darklens.training.card import model_card
from darklens.training.finish import calibrated
from darklens.training.job import Job, new_record, open_job_data, read_record, recorded_job, write_record
from darklens.training.recipe import Recipe, recipe_from
from darklens.training.training_data import TrainingData

MUST_AGREE = ("classes", "outputs", "channels", "pixels", "pixel_scale", "unit", "zero_points")
"""What members of an ensemble must have in common, so that they predict the same of the same images."""


def make_ensemble(runs: Sequence[Path], out: Path, *, own: Collection[str] = (), trust_code: bool = False) -> Path:
    """Gather trained runs into one whose model averages theirs, in a new folder or in that of an ensemble being trained.

    Parameters
    ----------
    runs
        Trained runs, at least two.
    out
        The run folder to make.
    own
        The SHA-256 of files of code that the user has named, which may run.
    trust_code
        Whether the code of networks of their users' own, which the runs carry, may run.

    Raises
    ------
    ModelError
        If there are fewer than two, or they differ in classes, channels, size, pixel scale, unit or what the task asks for.

    Notes
    -----
    It is calibrated on the validation images if all members share them: the same data and split.
    """
    folders = [model_folder(run) for run in runs]
    configs = [read_config(folder) for folder in folders]
    if len(runs) < 2:
        raise ModelError("an ensemble takes at least two runs")
    for run, config in zip(runs[1:], configs[1:], strict=True):
        if config.task["name"] != configs[0].task["name"]:
            raise ModelError(
                f"{run} and {runs[0]} cannot be averaged: their tasks differ ({config.task['name']} and "
                f"{configs[0].task['name']})"
            )
        for name in MUST_AGREE:
            value, wanted = getattr(config, name), getattr(configs[0], name)
            unrecorded = name == "zero_points" and None in (value, wanted)  # by earlier versions
            if value != wanted and not unrecorded:
                raise ModelError(
                    f"{run} and {runs[0]} cannot be averaged: their {name.replace('_', ' ')} differ ({value} and {wanted})"
                )
        if config.members:
            raise ModelError(f"{run}: is an ensemble itself; give its members")
    records, jobs = [read_record(run) for run in runs], [recorded_job(run, trust_code=trust_code) for run in runs]
    members = [load_model(folder, trust_code=trust_code or carries_only(folder, own)) for folder in folders]
    begun = (out / "run.json").is_file()
    recipe = recorded_job(out, trust_code=trust_code).recipe if begun else _recipe_of(records)
    first = members[0].task
    for run, member in zip(runs[1:], members[1:], strict=True):
        for name in first.must_agree:
            if (value := getattr(member.task, name)) != (wanted := getattr(first, name)):
                what = name.replace("_", " ")
                raise ModelError(
                    f"{run} and {runs[0]} cannot be averaged: {what} of their tasks differ ({value} and {wanted})"
                )
    names = [f"members/{number}" for number in range(len(runs))]
    config = dataclasses.replace(
        configs[0],
        network={"name": "ensemble"},
        preprocessing={},
        recipe=dataclasses.asdict(recipe),
        calibration={},
        catalog=[],
        data=configs[0].data | {"also": [config.data for config in configs[1:]]},
        members=names,
    )
    record = read_record(out) if begun else new_record(dataclasses.replace(jobs[0], recipe=recipe, member=0), out)
    record["training"] = summed_training([r["training"] for r in records])
    record["data_description"] = config.data
    model: TrainedModel = Ensemble(config, members)
    data = _shared_data(jobs, trust_code)
    if data is not None:
        model = calibrated(model, data)
    for name, folder in zip(names, folders, strict=True):
        shutil.copytree(folder, out / "model" / name, dirs_exist_ok=True)
    save_model(out / "model", model, model_card(config, model.task, record))
    write_record(out, record)
    return out


def _shared_data(jobs: list[Job], trust_code: bool) -> TrainingData | None:
    """The data of all members, if it is the same and still there."""
    alike = [dataclasses.replace(job, seed=job.images_seed, split_seed=None, member=0) for job in jobs]
    first = alike[0]
    if any(dataclasses.replace(job, recipe=first.recipe, start=first.start) != first for job in alike):
        return None
    try:
        return open_job_data(first, trust_code=trust_code)
    except DarklensError:
        return None


def _recipe_of(records: list[dict[str, Any]]) -> Recipe:
    recipes = [recipe_from(record["recipe"], record["recipe"]["name"]) for record in records]
    names = ", ".join(dict.fromkeys(recipe.name for recipe in recipes))
    return Recipe(
        name="ensemble",
        task=dict(recipes[0].task),
        description=f"The mean of {len(recipes)} models: {names}.",
        source="darklens",
        members=[dataclasses.asdict(recipe) for recipe in recipes],
    )


def summed_training(trainings: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the trainings of several runs took together, in the form of one."""
    total = {name: sum(t[name] for t in trainings) for name in ("seconds", "epochs", "steps", "images", "parameters")}
    rate = total["images"] / sum(t["images"] / t["images_per_second"] for t in trainings)
    most = max(t["peak_memory_mib"] for t in trainings)
    return trainings[0] | total | {"best_epoch": None, "images_per_second": round(rate, 1), "peak_memory_mib": most}
