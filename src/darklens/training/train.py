"""Train a recipe: a run folder with its record, logs, checkpoints and, in the end, the model."""

from __future__ import annotations

import dataclasses
import shutil
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import seed_everything
from torch import nn

from darklens.data.preprocessing import Preprocessing
from darklens.errors import DataError, ModelError, RecipeError
from darklens.inference.model import load_model
from darklens.models.registry import build_network
from darklens.paths import check_absent, is_helper_process, is_vacant, only_one
from darklens.tasks.base import ImageTask, Optimization
from darklens.tasks.classify import Classification, LossPhase
from darklens.tasks.regress import Regression
from darklens.training.ensemble import make_ensemble
from darklens.training.finish import finish
from darklens.training.fit import console, fit
from darklens.training.job import Job, new_record, open_job_data, read_job, read_record, write_record
from darklens.training.recipe import Recipe, own_code, recipe_from, short_name
from darklens.training.training_data import TrainingData


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
            if job.recipe.members:
                return _train_members(job, out, trust_code)
            started = time.perf_counter()
            source = open_job_data(job, trust_code=trust_code)
            task = build_task(job.recipe, source, job.start, trust_code=trust_code)
            if not child:
                write_record(out, new_record(job, out))
                if source.split is not None:
                    source.split.write_parquet(out / "split.parquet")
            return _train(job, source, task, out, None, started)
        except BaseException:
            if not child and not any(
                (*out.glob("checkpoints/last.ckpt"), *out.glob("members/*/checkpoints/last.ckpt"))
            ):
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
    if asked is not None and asked != job:
        raise RecipeError(
            f"{out}: was started with another recipe, data or seed; --resume takes the same command again"
        )
    if (out / "model" / "config.json").is_file() and "training" in read_record(out):
        console.print(f"{out}: already finished")
        return out
    with nullcontext() if is_helper_process() else only_one(out, "training"):
        if job.recipe.members:
            return _train_members(job, out, trust_code)
        checkpoint = out / "checkpoints" / "last.ckpt"
        started = time.perf_counter()
        source = open_job_data(job, trust_code=trust_code)
        task = build_task(job.recipe, source, job.start, trust_code=trust_code)
        return _train(job, source, task, out, checkpoint if checkpoint.exists() else None, started)


def _train(job: Job, source: TrainingData, task: ImageTask, out: Path, checkpoint: Path | None, started: float) -> Path:
    fitted = fit(job, source, task, out, checkpoint, started)
    if fitted is not None:
        finish(job, source, task, out, fitted)
        console.print(f"trained in {fitted.seconds:.0f} s → {out}")
    return out


def _train_members(job: Job, out: Path, trust_code: bool) -> Path:
    """Train the members of an ensemble one by one, those that are done left as they are, and average them."""
    child = is_helper_process()
    recipes = [recipe_from(member, member["name"]) for member in job.recipe.members]
    if not child and not (out / "run.json").exists():
        write_record(out, new_record(job, out))
    runs = []
    for number, recipe in enumerate(recipes):
        run = out / "members" / f"{number}-{short_name(recipe.name)}"
        member = dataclasses.replace(job, recipe=recipe, member=number)
        if (run / "run.json").is_file():
            runs.append(resume(run, member, trust_code=trust_code))
        else:
            runs.append(train(member, run, trust_code=trust_code))
    if not child:
        make_ensemble(runs, out, own=own_code(job.recipe), trust_code=trust_code)
    return out


def build_task(
    recipe: Recipe, source: TrainingData, start: str | None = None, *, trust_code: bool = False
) -> ImageTask:
    """Return the Lightning module of a recipe, with preprocessing and target scale fitted to training images.

    Parameters
    ----------
    recipe
        What is to be trained.
    source
        On what.
    start
        A trained model whose weights the network starts from.
    trust_code
        Whether code that ``start`` names may run.
    """
    outputs = len(source.classes) if recipe.task == "classify" else 1
    chosen = dataclasses.asdict(recipe.preprocessing) | {"lens_band": _lens_band(recipe, source)}
    preprocessing = Preprocessing(**chosen).fit(source.sample)
    channels, _, _ = preprocessing.output_shape(source.shape)
    seed_everything(source.seed, verbose=False)
    network = build_network(recipe.network.name, channels, outputs, recipe.network.options())
    if start is not None:
        _start_from(network, start, trust_code)
    network = network.to(memory_format=torch.channels_last)
    if recipe.trainer.compile:
        network.compile()
    o, s = recipe.optimizer, recipe.schedule
    optimization = Optimization(o.name, o.lr, o.weight_decay, s.name, s.warmup, s.step_epochs, s.step_factor)
    shared: dict[str, Any] = {
        "augmentation": recipe.augmentation,
        "seed": source.seed,
        "unfreezing": recipe.trainer.unfreezing == "sections",
    }
    if recipe.task == "classify":
        losses = [LossPhase(**dataclasses.asdict(phase)) for phase in recipe.loss]
        return Classification(network, preprocessing, optimization, source.classes, losses=losses, **shared)
    center, scale = source.target_sample.mean(0), source.target_sample.std(0)
    if not (scale > 0).all():
        raise DataError(f"{source.description['source']}: every training image has the same {recipe.target}")
    return Regression(network, preprocessing, optimization, center.tolist(), scale.tolist(), **shared)


def _lens_band(recipe: Recipe, source: TrainingData) -> int | None:
    """The channel that the lens is fitted to; None for the sum of all."""
    channels, wanted = source.shape[0], recipe.preprocessing.lens_band
    if wanted in (None, "sum"):
        return 0 if channels == 1 else None
    names = source.bands or [str(number) for number in range(channels)]
    if wanted not in names:
        raise RecipeError(f"--preprocessing.lens_band {wanted}: the images have bands {', '.join(names)}; or say sum")
    return names.index(wanted)


def _start_from(network: nn.Module, start: str, trust_code: bool) -> None:
    """Load all weights of a trained model that fit; the last layer is new if the classes are others."""
    trained = load_model(start, trust_code=trust_code)
    if len(trained.members) > 1:
        raise ModelError(f"{start}: an ensemble cannot be trained further; start from one of its members")
    own, given = network.state_dict(), trained.network.state_dict()
    fitting = {name: tensor for name, tensor in given.items() if name in own and own[name].shape == tensor.shape}
    if len(fitting) < len(own) - 2:
        odd = next(name for name in own if name not in fitting)
        raise ModelError(
            f"{start}: its weights do not fit this recipe's network ({odd} is of another shape, or missing)"
        )
    network.load_state_dict(own | fitting)
