"""Measure what pre-trained encoders are worth: classification by few and many labels, against random weights."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import polars as pl
import torch

from darklens.data.dataset import Cutouts
from darklens.data.layouts import open_data
from darklens.data.options import DataOptions
from darklens.data.splits import split_rows
from darklens.errors import DarklensError, DataError, RecipeError
from darklens.evaluation.few_labels import draw_labelled, linear_probe
from darklens.inference.model import BATCH, load_model
from darklens.inference.predictions import predict_cutouts
from darklens.models.encoders import encoder_features, network_of_encoder
from darklens.progress import progress_bar
from darklens.report.pretraining_board import FINETUNED, PROBE, Cell, write_board
from darklens.tasks.base import Task, known_targets
from darklens.training.build import build_module
from darklens.training.job import Job, machine, open_job_data, read_record
from darklens.training.recipe import Recipe, load_recipe, overridden, recipe_from, short_name
from darklens.training.train import resume, train
from darklens.usercode import named_failures
from darklens.workflows.benchmark import (
    OPTIONS_OF,
    Budget,
    Plan,
    begin_or_go_on,
    parse_budget,
    planned,
    shared_images,
    train_recipe,
)
from darklens.workflows.finetune import with_fitting_batch
from darklens.workflows.options import BenchmarkOptions
from darklens.workflows.tables import write_table

LABELS, DRAWS, FINETUNING = "10,30,100,300,1000,all", 5, "substructure/mae-finetuned"
"""Labelled images of each class, draws of them, and the recipe of the fine-tuning, unless they are given."""
PARTS = {"train": 0.8, "validation": 0.2}
"""What labelled images are used for in a fine-tuning. The best epoch is chosen by labels, too, so these are counted."""


@dataclass(frozen=True)
class Arm:
    """An encoder that is fine-tuned.

    Attributes
    ----------
    name
        Of the pre-training recipe, or ``random`` for random weights.
    folder
        Name of its folders.
    recipe
        The fine-tuning.
    start
        The pre-trained run; None for random weights.
    baseline
        ``folder`` of the arm with random weights of the same network.
    """

    name: str
    folder: str
    recipe: Recipe
    start: Path | None
    baseline: str


@dataclass(frozen=True)
class _Images:
    """Images that labels are drawn from, and those that everything is tested on."""

    folder: Path
    pool: Cutouts
    pool_labels: np.ndarray
    test: Cutouts
    test_labels: np.ndarray
    task: Task


def benchmark_pretraining(
    recipes: Sequence[str],
    budget: Budget,
    out: Path,
    *,
    choices: BenchmarkOptions = BenchmarkOptions(),
    options: DataOptions = DataOptions(),
    overrides: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = print,
    trust_code: bool = False,
) -> Path:
    """Write ``out/pretraining.html``, ``.md``, ``.csv`` and ``.json``; go on where a call stopped.

    Each recipe is pre-trained once, on all training images without labels, in ``out/runs/NAME``. Its encoder, and the same
    network with random weights, then learn from a few labelled images of each class: as a linear probe on frozen features,
    and fine-tuned whole. All learn from the same draws of labelled images. A recipe that fails is named and left out.

    Parameters
    ----------
    recipes
        Names of recipes that pre-train.
    budget
        What each pre-training may use.
    out
        The folder to make, or to go on with.
    choices
        Images, seed, numbers of labels, draws, and the fine-tuning with its budget.
    options
        How a user's own images are read.
    overrides
        Values for all pre-training recipes whose network knows them, by dotted key.
    say
        What is called with a line on each step.
    trust_code
        Whether code may run that recipes or a preset in YAML name.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    DataError
        If ``out`` was begun with other settings, there are too few labelled images, or nothing could be pre-trained.
    RecipeError
        If a recipe does not pre-train, the fine-tuning is no classification, or a choice has no meaning here.
    """
    numbers = parse_labels(choices.labels or LABELS)
    draws, finetuning = choices.draws or DRAWS, choices.finetuning or FINETUNING
    later = budget if choices.finetuning_budget is None else parse_budget(choices.finetuning_budget)
    head = _checked_finetuning(finetuning, trust_code)
    choices = dataclasses.replace(choices, preset=choices.preset or head.make_task().benchmark_preset)
    plan = Plan(recipes, dict(overrides or {}), budget, choices, options, out, trust_code)
    fitting = plan.checked_overrides()
    arms = _arms(plan, head, fitting)
    settings = _settings(plan, numbers, draws, finetuning, later)
    begin_or_go_on(out, settings)
    images = _open(shared_images(plan, say), head.make_task())
    least = int(np.bincount(images.pool_labels).min())
    if too_many := [number for number in numbers if number is not None and number > least]:
        raise DataError(
            f"--labels {too_many[0]}: the training images have {least:,} labelled ones of the rarest class; leave "
            f"{', '.join(map(str, too_many))} out, or bring more images"
        )
    failed = _pretrain(plan, fitting, arms, images.folder, say)
    arms = [arm for arm in arms if arm.folder not in failed]
    if all(arm.start is None for arm in arms):
        raise DataError("nothing could be pre-trained: " + "; ".join(f"{k}: {v}" for k, v in failed.items()))
    cells, missing = _measure(plan, arms, images, (numbers, draws, later), say)
    trainings = {arm.folder: read_record(arm.start)["training"] for arm in arms if arm.start is not None}
    page, table = write_board(
        cells,
        [(arm.folder, arm.name, arm.baseline) for arm in arms],
        settings | {"machine": machine(), "pool": len(images.pool), "trainings": trainings},
        out,
        task=images.task,
        truth=images.test_labels,
        failed=failed | missing,
    )
    write_table(table, out / "pretraining.csv")
    return page


def parse_labels(text: str) -> list[int | None]:
    """Return numbers of labelled images of each class, in ascending order, of text with commas between; None is all.

    Raises
    ------
    RecipeError
        If one is no whole number of at least 2, or comes twice.
    """
    found: list[int | None] = []
    for part in text.split(","):
        word = part.strip()
        if word != "all" and not (word.isdecimal() and int(word) >= 2):
            raise RecipeError(
                f"--labels takes numbers of labelled images of each class, at least 2 (one learns, one validates), and "
                f"all, such as {LABELS}; got {word!r}"
            )
        found.append(None if word == "all" else int(word))
    if len(set(found)) < len(found):
        raise RecipeError(f"--labels names a number twice: {text}")
    return sorted(found, key=lambda number: (number is None, number or 0))


def _checked_finetuning(name: str, trust_code: bool) -> Recipe:
    """The recipe of the fine-tuning, refused if its task has no classes."""
    recipe = load_recipe(name, trust_code=trust_code)
    task = recipe.make_task()
    if recipe.members or recipe.stages or recipe.adaptation or task.pretrains or "label" not in task.needs.columns:
        raise RecipeError(f"--finetuning {name}: is no recipe of one network that learns labels of classes")
    return recipe


def _settings(plan: Plan, numbers: Sequence[int | None], draws: int, finetuning: str, later: Budget) -> dict[str, Any]:
    """What makes the benchmark, in JSON's types."""
    choices = dataclasses.asdict(plan.choices)
    for name in OPTIONS_OF["adaptation"]:
        if choices.pop(name) is not None:
            raise RecipeError(f"--{name} is for darklens benchmark adaptation")
    if choices["seeds"] != 1 or choices["pairs"] is not None:
        raise RecipeError("--seeds and --pairs are for other benchmarks; --draws says how often labels are drawn")
    if plan.choices.data is not None:
        choices |= {"train_images": None, "test_images": None, "preset": None}
    choices |= {"labels": [number or "all" for number in numbers], "draws": draws, "finetuning": finetuning}
    choices |= {"budget": str(plan.budget), "finetuning_budget": str(later), "overrides": plan.overrides}
    settings: dict[str, Any] = json.loads(json.dumps(choices | plan.options.given(), default=str))
    return settings


def _arms(plan: Plan, head: Recipe, fitting: Mapping[str, Mapping[str, Any]]) -> list[Arm]:
    """Pre-trained encoders, and each of their networks with random weights."""
    found: list[Arm] = []
    random: dict[str, Arm] = {}
    for name in plan.recipes:
        recipe = load_recipe(name, fitting[name], trust_code=plan.trust_code)
        if not recipe.make_task().pretrains:
            raise RecipeError(f"{name}: does not pre-train; there are the recipes pretraining/…")
        network = network_of_encoder(recipe.network, head.network)
        if "pretrained" in network:  # of the encoder that was pre-trained nothing else is left
            network["pretrained"] = False
        tuned = dataclasses.replace(
            head, network=network, preprocessing=recipe.preprocessing, augmentation=recipe.augmentation
        )
        key = json.dumps([network, dataclasses.asdict(recipe.preprocessing), recipe.augmentation], sort_keys=True)
        if key not in random:
            same = sum(arm.recipe.network["name"] == network["name"] for arm in random.values())
            folder = f"random-{network['name']}" + (f"-{same + 1}" if same else "")
            random[key] = Arm(f"random weights, {network['name']}", folder, tuned, None, folder)
        found.append(Arm(name, short_name(name), tuned, plan.out / "runs" / short_name(name), random[key].folder))
    return [*random.values(), *found]


def _open(folders: Mapping[str, Path], task: Task) -> _Images:
    """Images with labels: those to draw from, and those to test on, which a column ``split`` names in a shared folder."""
    opened = {name: open_data(str(folder)) for name, folder in folders.items()}
    task = task.for_data(opened["train"])
    if folders["train"] == folders["test"]:
        tested = (opened["train"].catalog["split"] == "test").fill_null(False).to_numpy()
        opened = {name: found.subset(np.flatnonzero(tested == (name == "test"))) for name, found in opened.items()}
    pool, pool_labels = known_targets(task, opened["train"])
    test, test_labels = known_targets(task, opened["test"])
    return _Images(folders["train"], pool, pool_labels.astype(np.int64), test, test_labels.astype(np.int64), task)


def _pretrain(
    plan: Plan, fitting: Mapping[str, dict[str, Any]], arms: Sequence[Arm], folder: Path, say: Callable[[str], None]
) -> dict[str, str]:
    """Pre-train what is not yet; return what failed and why."""
    failed: dict[str, str] = {}
    pretrained = [arm for arm in arms if arm.start is not None]
    for place, arm in enumerate(pretrained, 1):
        assert arm.start is not None
        say(f"[{place}/{len(pretrained)}] pre-training {arm.name}")
        try:
            with named_failures():
                train_recipe(plan, arm.name, 0, arm.start, folder, fitting[arm.name])
        except DarklensError as error:
            failed[arm.folder] = str(error)
            say(f"  left out: {error}")
    return failed


def _measure(
    plan: Plan,
    arms: Sequence[Arm],
    images: _Images,
    asked: tuple[Sequence[int | None], int, Budget],
    say: Callable[[str], None],
) -> tuple[list[Cell], dict[str, str]]:
    """Predictions of all cells, those that are done read from their files; and which could not be made, and why."""
    numbers, draws, budget = asked
    cells: list[Cell] = []
    failed: dict[str, str] = {}
    wanted = [
        (d, number, arm, how) for d in range(draws) for number in numbers for arm in arms for how in (PROBE, FINETUNED)
    ]
    for place, (draw, number, arm, how) in enumerate(wanted, 1):
        file = plan.out / "cells" / arm.folder / f"{how}-{number or 'all'}-{draw}.npz"
        named = f"{arm.folder}, {number or 'all'} labelled images a class, draw {draw + 1}, {how}"
        if not file.is_file():
            say(f"[{place}/{len(wanted)}] {named}")
            rows = draw_labelled(images.pool_labels, number, draw, plan.choices.seed)
            began = perf_counter()
            try:
                with named_failures():
                    if how == PROBE:
                        predicted = _probe(plan, arm, images, rows)
                    else:
                        predicted = _finetune(plan, arm, images, rows, draw=draw, budget=budget, name=file.stem)
            except DarklensError as error:
                failed[named] = str(error)
                say(f"  left out: {error}")
                continue
            _save(file, predicted=predicted, seconds=perf_counter() - began)
        with np.load(file) as stored:
            cells.append(Cell(arm.folder, how, number, draw, stored["predicted"], float(stored["seconds"])))
    return cells, failed


def _save(file: Path, **arrays: Any) -> None:
    """Write arrays at once, or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(file.name + ".tmp")
    with temporary.open("wb") as stream:
        np.savez(stream, **arrays)
    temporary.replace(file)


def _probe(plan: Plan, arm: Arm, images: _Images, rows: np.ndarray) -> np.ndarray:
    """Probabilities (M, classes) of the test images by a linear probe of an encoder's features."""
    file = plan.out / "features" / f"{arm.folder}.npz"
    if not file.is_file():
        start = None if arm.start is None else str(arm.start)
        recipe = with_fitting_batch(arm.recipe, 1)  # nothing is trained, and no number of images is too small
        data = open_job_data(Job(recipe, str(images.folder), plan.choices.seed), trust_code=plan.trust_code)
        module = build_module(recipe, data, start, trust_code=plan.trust_code).eval()
        with torch.inference_mode():
            pool, test = (_features(module, cutouts) for cutouts in (images.pool, images.test))
        _save(file, pool=pool, test=test)
    with np.load(file) as stored:
        return linear_probe(
            stored["pool"][rows].astype(np.float64), images.pool_labels[rows], stored["test"].astype(np.float64),
            len(images.task.output_names),
        )  # fmt: skip


def _features(module: Any, cutouts: Cutouts) -> np.ndarray:
    """Features (N, F), float32, of images by the encoder of a Lightning module."""
    found = []
    with progress_bar("features") as advance:
        for start in range(0, len(cutouts), BATCH):
            rows = np.arange(start, min(start + BATCH, len(cutouts)))
            batch = torch.from_numpy(np.asarray(cutouts.images[rows], dtype=np.float32))
            found.append(encoder_features(module.network, module.preprocessing(batch)).float())
            advance(int(rows[-1]) + 1, len(cutouts))
    return torch.cat(found).numpy()


def _finetune(
    plan: Plan, arm: Arm, images: _Images, rows: np.ndarray, *, draw: int, budget: Budget, name: str
) -> np.ndarray:
    """Probabilities (M, classes) of the test images by a network that was fine-tuned on some labelled ones.

    A run that was interrupted goes on; its folder is removed when it is done.
    """
    working = plan.out / "working" / f"{arm.folder}-{name}"
    data, run = working / "images", working / "run"
    training = _link_labelled(images, rows, data, plan.choices.seed + draw)
    recipe = with_fitting_batch(arm.recipe, training)
    changes = planned(recipe, budget, training)
    recipe = recipe_from(overridden(dataclasses.asdict(recipe), changes), recipe.name)
    start = None if arm.start is None else str(arm.start)
    job = Job(recipe, str(data), plan.choices.seed + draw, start=start)
    begun = (run / "run.json").is_file()
    resume(run, job, trust_code=plan.trust_code) if begun else train(job, run, trust_code=plan.trust_code)
    model = load_model(run, trust_code=plan.trust_code)
    with progress_bar("predicting") as advance:
        predicted = predict_cutouts(model, images.test, progress=advance).prediction.array
    shutil.rmtree(working)
    return predicted


def _link_labelled(images: _Images, rows: np.ndarray, out: Path, seed: int) -> int:
    """Make a dataset of links to all images, of which some rows train and validate; return how many train.

    Other rows belong to no split, and have no label.
    """
    chosen = images.pool.catalog[rows]
    parts = dict(zip(chosen["id"].to_list(), split_rows(chosen, PARTS, seed).tolist(), strict=True))
    catalog = pl.read_parquet(images.folder / "catalog.parquet")
    named = pl.Series("split", [parts.get(each) for each in catalog["id"].to_list()], dtype=pl.String)
    if not (out / "catalog.parquet").is_file():
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        for file in sorted(images.folder.iterdir()):
            if file.is_file() and file.name != "catalog.parquet":
                (out / file.name).symlink_to(file.resolve())
        write_table(
            catalog.with_columns(named, label=pl.when(named.is_not_null()).then(pl.col("label"))),
            out / "catalog.parquet",
        )
    return sum(part == "train" for part in parts.values())
