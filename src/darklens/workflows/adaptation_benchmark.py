"""Adapt encoders to a target by several methods on one budget, and compare what they find there."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from darklens.commands import command
from darklens.data.dataset import Cutouts
from darklens.data.layouts import open_data
from darklens.data.synthesis import simulate_dataset
from darklens.errors import DarklensError, DataError, RecipeError
from darklens.inference.adapt import adaptation
from darklens.inference.model import BATCH, TrainedModel, load_model
from darklens.progress import progress_bar
from darklens.report.adaptation_board import CEILING, Adapted, write_board
from darklens.report.leaderboard import seed_folder
from darklens.report.page import read_arrays, read_run
from darklens.simulation import AnyPreset, ScenePreset, load_preset
from darklens.simulation.shares import with_lens_share
from darklens.tasks.base import known_targets
from darklens.training.job import Job, machine, open_job_data
from darklens.training.recipe import Recipe, load_recipe, short_name
from darklens.usercode import named_failures
from darklens.workflows.benchmark import Budget, begin_or_go_on, is_evaluated, planned, run_passing_on_errors
from darklens.workflows.evaluate import evaluate_run
from darklens.workflows.options import BenchmarkOptions, EvaluationOptions

SOURCE, TARGET = "finding-deeplense", "finding-hsc"
"""Presets of the source and the target where the user names no others."""
SHOWN = 192
"""Images of each domain whose features are drawn."""


@dataclass
class _Plan:
    """What is trained on what."""

    recipes: Sequence[str]
    encoders: Sequence[str | None]
    budget: Budget
    choices: BenchmarkOptions
    overrides: Mapping[str, Any]
    out: Path
    say: Callable[[str], None]
    folders: dict[str, str] = field(default_factory=dict)

    def changes(self, encoder: str | None) -> dict[str, Any]:
        """What is changed in a recipe; without an encoder it keeps its own."""
        return ({} if encoder is None else {"encoder": encoder}) | dict(self.overrides)

    def label(self, name: str, encoder: str | None) -> str:
        """What an encoder is called: by its recipe, or by the network that a recipe has of its own."""
        own = load_recipe(name, self.changes(encoder))
        return short_name(encoder) if encoder else str(own.parts()[0].network["name"])


def benchmark_adaptation(
    recipes: Sequence[str],
    budget: Budget,
    out: Path,
    *,
    choices: BenchmarkOptions = BenchmarkOptions(),
    overrides: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Write ``out/adaptation.html``, ``.md`` and ``.json``, of methods times encoders; go on where a call stopped.

    Each method is trained with each encoder in a process of its own, in ``out/runs/METHOD-ENCODER``, with the next seeds in
    folders beside it. One that fails is named and left out; the others go on. The test images are of the target and are
    never trained on, with or without labels.

    Parameters
    ----------
    recipes
        Names of recipes that adapt, and that of the ceiling, which learns labels of the target.
    budget
        What each may use.
    out
        The folder to make, or to go on with.
    choices
        Source (``preset`` or ``data``), target (``target_data``), encoders, numbers of images, seed and seeds.
    overrides
        Values for all recipes, by dotted key.
    say
        What is called with a line on each step.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    DataError
        If ``out`` was begun with other settings, or nothing could be trained.
    """
    encoders = [name.strip() for name in choices.encoders.split(",")] if choices.encoders else [None]
    plan = _Plan(recipes, encoders, budget, choices, dict(overrides or {}), out, say)
    labels = {(name, encoder): plan.label(name, encoder) for name in recipes for encoder in encoders}
    source = choices.data or f"preset:{choices.preset or SOURCE}"
    target = choices.target_data or f"preset:{TARGET}"
    settings: dict[str, Any] = {"budget": str(budget), "overrides": plan.overrides, "source": source, "target": target}
    settings |= {
        name: getattr(choices, name) for name in ("train_images", "test_images", "seed", "pretrained", "seeds")
    }
    begin_or_go_on(out, settings)
    plan.folders = _images(plan, source, target)
    failed: dict[str, str] = {}
    done: dict[tuple[str, str], list[Path]] = {}
    trainings = [(name, e, number) for number in range(choices.seeds) for e in encoders for name in recipes]
    for place, (name, encoder, number) in enumerate(trainings, 1):
        called = f"{short_name(name)} with {labels[name, encoder]}"
        called += f", seed {choices.seed + number}" if choices.seeds > 1 else ""
        run = out / "runs" / seed_folder(f"{short_name(name)}-{labels[name, encoder]}", number)
        say(f"[{place}/{len(trainings)}] {called}")
        try:
            with named_failures():
                _train(plan, name, encoder, number=number, run=run)
                if not is_evaluated(run):
                    with progress_bar("evaluating") as advance:
                        evaluate_run(run, plan.folders["test"], EvaluationOptions("test"), progress=advance)
            done.setdefault((short_name(name), labels[name, encoder]), []).append(run)
        except DarklensError as error:
            failed[called] = str(error)
            say(f"  left out: {error}")
    if not done:
        raise DataError("nothing could be trained: " + "; ".join(f"{k}: {v}" for k, v in failed.items()))
    with progress_bar("reading the results") as advance:
        results = []
        for (method, encoder), runs in done.items():
            results.append(_read(plan, method, encoder, runs))
            advance(len(results), len(done))
    record = read_run(next(iter(done.values()))[0], "test")
    return write_board(
        results,
        settings | {"machine": machine()},
        out,
        n=record.evaluation["n"],
        names=list(record.task.output_names),
        failed=failed,
    )


def _images(plan: _Plan, source: str, target: str) -> dict[str, str]:
    """Where source, target and test images are: simulated once for all, or the user's own.

    The ceiling learns a target with as many lenses as the source, where that can be simulated: of one lens in a hundred
    images it would learn less than the source has.
    """
    choices, found = plan.choices, {}
    counts = {"source": choices.train_images, "target": choices.train_images, "test": choices.test_images}
    ceiling = any(short_name(recipe) == CEILING for recipe in plan.recipes)
    counts |= {"ceiling": choices.train_images} if ceiling else {}
    for number, (name, count) in enumerate(counts.items()):
        data = source if name == "source" else target
        if not data.startswith("preset:"):
            found[name] = data
            continue
        preset = load_preset(data.removeprefix("preset:"))
        if name == "ceiling":
            as_target, preset = preset, _as_frequent(preset, found["source"])
            if preset is as_target:
                found[name] = found["target"]
                continue
        folder = plan.out / "data" / name
        if not folder.exists():
            with progress_bar(f"simulating {name} images") as progress:
                simulate_dataset(preset, count, 4 * choices.seed + number, out=folder, progress=progress)
            plan.say(f"{count:,} {name} images of {data} → {folder}")
        found[name] = str(folder)
    return found


def _as_frequent(target: AnyPreset, source: str) -> AnyPreset:
    """The target's preset with lenses as frequent as in images of the source, where both know lenses."""
    info, catalog = (opened := open_data(source)).info, opened.catalog
    if not isinstance(target, ScenePreset) or "label" not in catalog or set(info.classes or ()) != set(target.labels):
        return target
    return with_lens_share(target, float((catalog["label"] == "lens").cast(float).mean()))  # type: ignore[arg-type]


def _train(plan: _Plan, name: str, encoder: str | None, *, number: int, run: Path) -> None:
    """Adapt one encoder by one method in a process of its own; one that is done is left."""
    if (run / "model" / "config.json").is_file():
        return
    changes = plan.changes(encoder)
    recipe = load_recipe(name, changes)
    if not plan.choices.pretrained and any(part.network.get("pretrained") for part in recipe.parts()):
        changes["network.pretrained"] = False
        recipe = load_recipe(name, changes)
    adapts = any(part.adaptation for part in recipe.parts())
    if not adapts and short_name(name) != CEILING:
        raise RecipeError(f"{name}: has no section adaptation; only {CEILING} learns labels of the target instead")
    data = plan.folders["source" if adapts else "ceiling"]
    images = 0 if plan.budget.unit == "min" else _train_images(recipe, data, plan.choices.seed)
    changes |= planned(recipe, plan.budget, images)
    values = {key.replace(".", "__"): "null" if value is None else value for key, value in changes.items()}
    first = plan.choices.seed
    values |= {"resume": True, "seed": first + number, "split_seed": first if number else None}
    target = {"target": plan.folders["target"]} if adapts else {"bands": _shared_bands(plan.folders)}
    line = command("adapt" if adapts else "train", name, data=data, **target, out=run, **values)
    status, last = run_passing_on_errors([sys.executable, "-m", *shlex.split(line)])
    if status:
        raise RecipeError((last or f"ended with status {status}").removeprefix("darklens: "))


def _shared_bands(folders: Mapping[str, str]) -> str | None:
    """The source's bands, if the target has others beside them: the ceiling sees no more than what is adapted does."""
    source, target = (open_data(folders[name]).info.bands for name in ("source", "target"))
    if source == target or not source or not set(source) <= set(target):
        return None
    return ",".join(source)


def _train_images(recipe: Recipe, data: str, seed: int) -> int:
    """Training images of a dataset, as a recipe without adaptation sees them."""
    plain = load_recipe(f"adaptation/{CEILING}", {"trainer.batch_size": recipe.trainer.batch_size})
    return open_job_data(Job(plain, data, seed)).train_images


def _read(plan: _Plan, method: str, encoder: str, runs: Sequence[Path]) -> Adapted:
    """What the trainings of one method with one encoder came to."""
    records = [read_run(run, "test") for run in runs]
    metrics = []
    for record in records:
        predicted, truth = read_arrays(record.evaluation["folder"], record.task)
        assert predicted is not None
        assert truth is not None
        metrics.append(record.task.metrics(predicted, truth))
    warnings = [warning for record in records for warning in record.evaluation.get("warnings", [])]
    model = load_model(runs[0])
    features: dict[str, np.ndarray] = {}
    for domain, name in (("source", "source"), ("target", "test")):
        features[domain], features[f"{domain}_labels"] = _features(model, plan.folders[name])
    return Adapted(method, encoder, metrics, [record.run["training"] for record in records], warnings, features)


def _features(model: TrainedModel, data: str) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, F) and labels (n,) of the first images of a dataset, brought to the model."""
    cutouts: Cutouts = open_data(data)
    cutouts, truth = known_targets(model.task, cutouts.subset(np.arange(min(SHOWN, len(cutouts)))))
    adapt = adaptation(model.config, cutouts.info, cutouts.images.shape)
    images = adapt(np.asarray(cutouts.images[np.arange(len(cutouts))], dtype=np.float32))
    found = [model.outputs_and_features(part.to(model.device))[1] for part in torch.split(images, BATCH)]
    return torch.cat(found).double().numpy(), np.asarray(truth).reshape(len(truth), -1)[:, 0]
