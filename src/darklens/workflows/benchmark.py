"""Train and evaluate recipes on the same images, splits, seeds and budget, and rank them."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from darklens.commands import command
from darklens.data.synthesis import simulate_dataset
from darklens.errors import DarklensError, DataError, RecipeError
from darklens.evaluation.comparison import macro_auc_differences
from darklens.inference.carried import carries_only
from darklens.inference.shipped import model_folder
from darklens.models.registry import network_options
from darklens.progress import progress_bar
from darklens.report.leaderboard import write_leaderboard
from darklens.schema import read_json
from darklens.simulation import Preset, load_preset
from darklens.training.history import epoch_history
from darklens.training.job import Job, machine, read_record
from darklens.training.recipe import Recipe, load_recipe, own_code, short_name
from darklens.workflows.estimate import training_rate
from darklens.workflows.evaluate import evaluate_run

EPOCHS = 10
"""Epochs into which a budget of minutes or images is cut, unless validation would take too much of it."""
GOAL = 0.95
"""The macro AUC whose time is measured."""
EVALUATION = "evaluations/test/evaluation.json"
"""Where a run keeps its figures on the test images."""
SPARE, VALIDATING = 0.9, 0.2
"""Shares of a budget of minutes that is planned for, and of that which validation may take."""


@dataclass(frozen=True)
class Budget:
    """What each recipe may use: a number of ``epochs``, ``min`` or ``images``."""

    amount: float
    unit: str

    def __str__(self) -> str:
        return f"{self.amount:g} {self.unit}"


def parse_budget(text: str) -> Budget:
    """A budget such as ``10min``, ``5epochs`` or ``200000images``.

    Raises
    ------
    RecipeError
        If the text is not a valid budget.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(min|epochs?|images)", text.strip())
    if not found or float(found[1]) <= 0:
        raise RecipeError(
            f"--budget is a number of epochs, minutes or images, such as 5epochs, 10min, 200000images; got {text!r}"
        )
    unit = "epochs" if found[2].startswith("epoch") else found[2]
    return Budget(float(found[1]), unit)


def planned(recipe: Recipe, budget: Budget, data: Path, seed: int) -> dict[str, Any]:
    """The overrides that make a recipe use a budget: epochs, and the images of each.

    Raises
    ------
    RecipeError
        If it ends before the first epoch, the least that can be validated.
    """
    if budget.unit == "epochs":
        if budget.amount < 1:
            raise _too_little(recipe, budget, "1 epoch")
        return {"trainer.epochs": int(budget.amount)}
    images, epochs = budget.amount, EPOCHS
    if budget.unit == "min":
        rate = training_rate(Job(recipe, str(data), seed))
        seconds = SPARE * 60 * budget.amount - rate.preparation
        epochs = max(1, min(EPOCHS, int(VALIDATING * seconds / rate.validation)))
        images = rate.images(seconds - epochs * rate.validation)
    batch = max([recipe.trainer.batch_size, *(member["trainer"]["batch_size"] for member in recipe.members)])
    batches = int(images / batch)
    if not batches:
        raise _too_little(recipe, budget, f"one batch of {batch} images (it manages {images:.0f})")
    epochs = min(epochs, batches)
    per_epoch = batches // epochs * batch
    return {"trainer.epochs": epochs, "trainer.epoch_images": per_epoch, "trainer.patience": None}


def known_overrides(name: str, overrides: dict[str, Any], *, trust_code: bool = False) -> dict[str, Any]:
    """Return those overrides that a recipe's network, or that of a member, has a use for; all that are not the network's.

    A benchmark hands the same overrides to all its recipes, whose networks have different options.
    """
    shared = {key: value for key, value in overrides.items() if not key.startswith("network.")}
    recipe = load_recipe(name, shared, trust_code=trust_code)
    network = overrides.get("network.name", recipe.network.name)
    networks = [network, *(member["network"]["name"] for member in recipe.members)]
    known = {"network.name", *(f"network.{option}" for each in networks for option in network_options(each))}
    return {key: value for key, value in overrides.items() if key in shared or key in known}


def _too_little(recipe: Recipe, budget: Budget, least: str) -> RecipeError:
    return RecipeError(f"a budget of {budget} ends before there is anything to validate: {least}")


def benchmark(
    recipes: Sequence[str],
    preset: str,
    budget: Budget,
    out: Path,
    train_images: int,
    test_images: int,
    seed: int = 0,
    pretrained: bool = True,
    overrides: dict[str, Any] | None = None,
    say: Callable[[str], None] = print,
    *,
    trust_code: bool = False,
) -> Path:
    """Write ``out/leaderboard.html``, ``.md`` and ``.json``, of all recipes done in ``out`` by this or another call.

    Parameters
    ----------
    recipes
        Names, or YAML files.
    preset
        The images, by a preset's name or YAML file.
    budget
        What each recipe may use.
    out
        The folder to make, or to go on with.
    train_images, test_images
        Numbers of images, totals over the classes.
    seed
        Of images, weights and order.
    pretrained
        Whether recipes that ask for pretrained weights get them.
    overrides
        Values for all recipes whose network knows them, by dotted key.
    say
        What is called with a line on each step.
    trust_code
        Whether code may run that recipes or a preset in YAML name.

    Every recipe is trained in a process of its own, so that its peak memory is its own. One that fails is left out of the
    leaderboard and named; the others go on. Once the images are there, several calls may share ``out`` at a time if each
    has recipes of its own.

    Raises
    ------
    DataError
        If ``out`` was begun with other settings, or no recipe could be trained.
    RecipeError
        If two recipes have the same short name, and so the same folder, or no recipe's network knows an override.
    """
    overrides = overrides or {}
    short = [short_name(name) for name in recipes]
    if twice := sorted({name for name in short if short.count(name) > 1}):
        raise RecipeError(f"two recipes are called {', '.join(twice)}; rename one")
    fitting = {name: known_overrides(name, overrides, trust_code=trust_code) for name in recipes}
    if useless := set(overrides) - {key for each in fitting.values() for key in each}:
        raise RecipeError(f"--{min(useless)}: no network of these recipes has such an option")
    settings = {"preset": preset, "budget": str(budget), "train_images": train_images, "test_images": test_images,
                "seed": seed, "pretrained": pretrained, "overrides": overrides}  # fmt: skip
    _same_as_before(out, settings)
    folders = _images(out, load_preset(preset, trust_code=trust_code), train_images, test_images, seed, say)
    failed: dict[str, str] = {}
    for number, name in enumerate(recipes, 1):
        run = out / "runs" / short_name(name)
        new = not (run / EVALUATION).is_file()
        say(f"[{number}/{len(recipes)}] {name}")
        if without := sorted(set(overrides) - set(fitting[name])):
            say(f"  its network has no {', '.join(key.removeprefix('network.') for key in without)}: left as it is")
        try:
            _train(name, run, folders["train"], budget, seed, pretrained, fitting[name], out / "plans", trust_code)
            if new:
                own = own_code(load_recipe(name, fitting[name], trust_code=trust_code))
                trust = trust_code or carries_only(model_folder(run), own)
                with progress_bar("evaluating") as advance:
                    evaluate_run(run, folders["test"], name="test", trust_code=trust, progress=advance)
        except DarklensError as error:
            failed[name] = str(error)
            say(f"  left out: {error}")
        done = [path.parents[2] for path in sorted((out / "runs").glob(f"*/{EVALUATION}"))]
        if done and (new or number == len(recipes)):
            write_leaderboard(_ranked(done), _differences(done), settings | {"machine": machine()}, failed, out)
    if len(failed) == len(recipes):
        raise DataError("no recipe could be trained: " + "; ".join(f"{k}: {v}" for k, v in failed.items()))
    return out / "leaderboard.html"


def _same_as_before(out: Path, settings: dict[str, Any]) -> None:
    path = out / "benchmark.json"
    if path.is_file():
        before = read_json(path, DataError)
        for name, value in settings.items():
            if before.get(name) != value:
                raise DataError(f"{out}: was begun with {name} {before.get(name)}, not {value}; choose another --out")
        return
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out}: exists already and holds no benchmark; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings, indent=1) + "\n", "utf-8")


def _images(out: Path, preset: Preset, train: int, test: int, seed: int, say: Callable[[str], None]) -> dict[str, Path]:
    folders = {}
    for number, (name, count) in enumerate({"train": train, "test": test}.items()):
        folder = folders[name] = out / "data" / name
        if not folder.exists():
            with progress_bar(f"simulating {name} images") as progress:
                simulate_dataset(preset, count, 2 * seed + number, out=folder, progress=progress)
            say(f"{count:,} {name} images of {preset.name} → {folder}")
    return folders


def _train(
    name: str,
    run: Path,
    data: Path,
    budget: Budget,
    seed: int,
    pretrained: bool,
    overrides: dict[str, Any],
    plans: Path,
    trust_code: bool,
) -> None:
    changes = dict(overrides)
    recipe = load_recipe(name, changes, trust_code=trust_code)
    if (run / "model" / "config.json").is_file():
        if (trained := read_record(run)["recipe"]["name"]) != recipe.name:
            raise RecipeError(f"{run}: is a run of {trained}; rename {name}")
        return
    whole = [recipe.network.pretrained, *(member["network"]["pretrained"] for member in recipe.members)]
    if not pretrained and any(whole):
        changes["network.pretrained"] = False
        recipe = load_recipe(name, changes, trust_code=trust_code)
    # A plan is measured once, so that a benchmark that goes on does what it began.
    plan = plans / f"{short_name(name)}.json"
    if not plan.is_file():
        content = json.dumps(planned(recipe, budget, data, seed), indent=1)
        plans.mkdir(exist_ok=True)
        plan.write_text(content + "\n", "utf-8")
    planned_values = read_json(plan, RecipeError)
    if not _is_plan(planned_values):  # it may be a stranger's
        raise RecipeError(f"{plan}: a plan says how long to train and nothing else; remove it")
    changes |= planned_values
    values = {key.replace(".", "__"): "null" if value is None else value for key, value in changes.items()}
    values |= {"resume": True, "trust_code": trust_code or None}
    line = shlex.split(command("train", name, data=data, out=run, seed=seed, **values))
    status, last = run_passing_on_errors([sys.executable, "-m", *line])
    if status:
        raise RecipeError((last or f"ended with status {status}").removeprefix("darklens: "))


def _is_plan(values: dict[str, Any]) -> bool:
    """Whether these are values that `planned` gives: numbers, of three options."""
    known = {"trainer.epochs", "trainer.epoch_images", "trainer.patience"}
    return set(values) <= known and all(value is None or type(value) is int for value in values.values())


def run_passing_on_errors(command: Sequence[str]) -> tuple[int, str]:
    """Run a command and pass on what it writes to standard error, but for its own error; return status and last line."""
    last = ""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            last = line.strip() or last
            if not line.startswith("darklens: "):
                print(line, end="", file=sys.stderr, flush=True)
    return process.returncode, last


def _ranked(runs: Sequence[Path]) -> list[dict[str, Any]]:
    """What the leaderboard says of each run, the best macro AUC first."""
    rows = []
    for run in runs:
        record = read_record(run)
        evaluation = json.loads((run / EVALUATION).read_text("utf-8"))
        training = record["training"]
        rows.append(
            {
                "recipe": record["recipe"]["name"],
                "name": run.name,
                "description": record["recipe"]["description"],
                "source": record["recipe"]["source"],
                "figures": evaluation["figures"],
                "warnings": evaluation.get("warnings", []),
                "roc": evaluation["roc"],
                "n": evaluation["n"],
                "parameters": training["parameters"],
                "seconds": training["seconds"],
                "images_seen": training["images"],
                "training_images_per_second": training["images_per_second"],
                "inference_images_per_second": evaluation["images_per_second"],
                "peak_memory_mib": training["peak_memory_mib"],
                "seconds_to_goal": _seconds_to_goal(run),
                "precision": training["precision"],
                "threads": training["threads"],
            }
        )
    return sorted(rows, key=lambda row: -row["figures"]["macro_auc"]["value"])


def _seconds_to_goal(run: Path) -> float | None:
    """Seconds of training after which the validation images' macro AUC first reached the goal; None if never.

    Of an ensemble, which is only there at its end, there are none.
    """
    reached = [e["seconds"] for e in epoch_history(run) if e["validation/auc"] >= GOAL and "seconds" in e]
    return round(min(reached), 1) if reached else None


def _differences(runs: Sequence[Path]) -> list[dict[str, Any]]:
    tables = {
        read_record(run)["recipe"]["name"]: pl.read_parquet((run / EVALUATION).with_name("predictions.parquet"))
        for run in runs
    }
    first = next(iter(tables.values()))
    columns = [f"p_{label}" for label in json.loads((runs[0] / EVALUATION).read_text("utf-8"))["classes"]]
    labels = np.array([columns.index(f"p_{label}") for label in first["true"]])
    probabilities = {name: table.select(columns).to_numpy() for name, table in tables.items()}
    return [dataclasses.asdict(difference) for difference in macro_auc_differences(probabilities, labels)]
