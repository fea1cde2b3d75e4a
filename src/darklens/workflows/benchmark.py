"""Train and evaluate recipes on the same images, splits, seeds and budget, and rank them."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

from darklens.commands import command
from darklens.data.importing import import_data
from darklens.data.layouts import open_with
from darklens.data.options import DataOptions
from darklens.data.synthesis import simulate_dataset
from darklens.errors import DarklensError, DataError, InUseError, RecipeError
from darklens.inference.carried import carries_only
from darklens.inference.shipped import model_folder
from darklens.models.registry import network_options
from darklens.paths import only_one
from darklens.progress import progress_bar
from darklens.report.leaderboard import rank_runs, seed_folder, write_leaderboard
from darklens.schema import read_json
from darklens.simulation import load_preset
from darklens.simulation.pairs import paired_telescope
from darklens.training.build import check_networks
from darklens.training.job import Job, learns_alike, machine, open_job_data, recorded_job
from darklens.training.recipe import Recipe, load_recipe, own_code, short_name
from darklens.usercode import named_failures
from darklens.workflows.evaluate import evaluate_run
from darklens.workflows.options import BenchmarkOptions, EvaluationOptions

EPOCHS = 10
"""Epochs into which a budget of minutes or images is cut, or more if all images are fewer than an epoch's, or fewer if they
come out even."""
EVALUATION = "evaluations/test/evaluation.json"
"""Where a run keeps its figures on the test images."""
RANKING_PAUSE = 10
"""The leaderboard is not written again before so many times the time that it took: ranking many recipes of several seeds
takes longer than a short training."""
WAIT = 2.0
"""Seconds between two looks at whether another process has made the images."""
OPTIONS_OF = {
    "adaptation": ("target_data", "encoders"),
    "pretraining": ("labels", "draws", "finetuning", "finetuning_budget"),
}
"""Choices that have a meaning to one kind of benchmark alone."""
SPLIT = {"train": 0.8, "validation": 0.1, "test": 0.1}
"""Of a user's own images that have no test split."""


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


def planned(recipe: Recipe, budget: Budget, images: int) -> dict[str, Any]:
    """Return the overrides that make a recipe use a budget, which its members or stages share.

    Parameters
    ----------
    recipe
        What is trained.
    budget
        What it may use.
    images
        Training images that there are; of no account to a budget of minutes.

    Returns
    -------
    dict
        Values by dotted key.

    Raises
    ------
    RecipeError
        If it ends before the first epoch, the least that can be validated.
    """
    if budget.unit == "min":
        return {"trainer.epochs": EPOCHS, "trainer.minutes": budget.amount, "trainer.patience": None}
    parts = recipe.parts()
    if budget.unit == "epochs" and len(parts) == 1:
        if budget.amount < 1:
            raise _too_little(recipe, budget, "1 epoch")
        return {"trainer.epochs": int(budget.amount)}
    batch = max(part.trainer.batch_size for part in parts)
    for_each = budget.amount * (images if budget.unit == "epochs" else 1) / len(parts)
    batches, all_of_them = round(for_each / batch), max(1, images // batch)
    if not batches:
        raise _too_little(recipe, budget, f"one batch of {batch} images (each part has {for_each:.0f})")
    least = -(-batches // all_of_them)
    numbers = range(max(least, min(batches, EPOCHS // 2)), max(least, min(batches, EPOCHS)) + 1)
    epochs = min(numbers, key=lambda number: (batches % number, -number))
    return {"trainer.epochs": epochs, "trainer.epoch_images": batches // epochs * batch, "trainer.patience": None}


def known_overrides(name: str, overrides: dict[str, Any], *, trust_code: bool = False) -> dict[str, Any]:
    """Return those overrides that a recipe's network, or that of a member, has a use for; all that are not the network's.

    A benchmark hands the same overrides to all its recipes, whose networks have different options.
    """
    shared = {key: value for key, value in overrides.items() if not key.startswith("network.")}
    recipe = load_recipe(name, shared, trust_code=trust_code)
    named = overrides.get("network.name")
    networks = [named] if named else [part.network["name"] for part in recipe.parts()]
    known = {"network.name", *(f"network.{option}" for each in networks for option in network_options(each))}
    return {key: value for key, value in overrides.items() if key in shared or key in known}


def _too_little(recipe: Recipe, budget: Budget, least: str) -> RecipeError:
    return RecipeError(f"a budget of {budget} ends before there is anything to validate: {least}")


def benchmark(
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
    """Write ``out/leaderboard.html``, ``.md`` and ``.json``, of all recipes done in ``out`` by this or another call.

    Every recipe is trained in a process of its own, so that its peak memory is its own. One that fails is left out of the
    leaderboard and named; the others go on. With several seeds, all recipes are trained with the first, in
    ``out/runs/NAME``, then with the next, in ``out/runs/NAME-seed1``, and so on. Once the images are there, several calls
    may share ``out`` at a time if each has recipes of its own.

    Parameters
    ----------
    recipes
        Names, or YAML files, of one task.
    budget
        What each recipe may use.
    out
        The folder to make, or to go on with.
    choices
        Images, seed and start of the training.
    options
        How a user's own images are read.
    overrides
        Values for all recipes whose network knows them, by dotted key.
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
        If ``out`` was begun with other settings, more seeds included, or no recipe could be trained.
    RecipeError
        If two recipes have the same short name, and so the same folder, or one has that of another seed, their tasks
        differ, or no recipe's network knows an override.
    """
    task = load_recipe(recipes[0], trust_code=trust_code).make_task()
    if choices.preset is None:
        choices = dataclasses.replace(choices, preset=task.benchmark_preset)
    if choices.data is None and task.needs.pairs:
        choices = dataclasses.replace(choices, pairs=choices.pairs or "2")
    elif choices.pairs is not None:
        raise RecipeError("--pairs is for recipes that learn from simulated image pairs; leave it out")
    plan = Plan(recipes, dict(overrides or {}), budget, choices, options, out, trust_code)
    fitting = plan.checked_overrides()
    plan.check_one_task(fitting)
    settings = {"budget": str(budget), "overrides": plan.overrides, **dataclasses.asdict(choices)}
    for kind, names in OPTIONS_OF.items():
        for name in names:
            if settings.pop(name) is not None:
                raise RecipeError(f"--{name} is for darklens benchmark {kind}")
    if choices.data is not None:
        settings |= {"train_images": None, "test_images": None}
    begin_or_go_on(out, settings | json.loads(json.dumps(options.given(), default=str)))
    folders = shared_images(plan, say)
    failed: dict[str, str] = {}
    own: set[str] = set()
    pause_until = 0.0
    trainings = [(name, number) for number in range(choices.seeds) for name in recipes]
    for place, (name, number) in enumerate(trainings, 1):
        run = out / "runs" / seed_folder(short_name(name), number)
        called = name if choices.seeds == 1 else f"{name}, seed {choices.seed + number}"
        say(f"[{place}/{len(trainings)}] {called}")
        if without := sorted(set(plan.overrides) - set(fitting[name])):
            say(f"  its network has no {', '.join(key.removeprefix('network.') for key in without)}: left as it is")
        new = not is_evaluated(run)
        try:
            with named_failures():
                train_recipe(plan, name, number, run, folders["train"], fitting[name])
                own |= own_code(load_recipe(name, fitting[name], trust_code=trust_code))
                trust = trust_code or carries_only(model_folder(run), own)
                if new:
                    with progress_bar("evaluating") as advance:
                        chosen = EvaluationOptions("test")
                        evaluate_run(run, folders["test"], chosen, trust_code=trust, progress=advance)
        except DarklensError as error:
            failed[called] = str(error)
            say(f"  left out: {error}")
        done = [
            path.parents[2] for path in sorted((out / "runs").glob(f"*/{EVALUATION}")) if is_evaluated(path.parents[2])
        ]
        if done and (place == len(trainings) or (new and perf_counter() >= pause_until)):
            began = perf_counter()
            board = rank_runs(done, settings | {"machine": machine()}, failed, own=own, trust_code=trust_code)
            write_leaderboard(board, out)
            pause_until = perf_counter() + RANKING_PAUSE * (perf_counter() - began)
    if len(failed) == len(trainings):
        raise DataError("no recipe could be trained: " + "; ".join(f"{k}: {v}" for k, v in failed.items()))
    return out / "leaderboard.html"


@dataclass(frozen=True)
class Plan:
    """What a benchmark was asked for.

    Attributes
    ----------
    recipes
        Names, or YAML files.
    overrides
        Values for all recipes, by dotted key.
    budget
        What each recipe may use.
    choices
        Images, seed and start of the training.
    options
        How a user's own images are read.
    out
        The folder.
    trust_code
        Whether code may run that recipes or a preset in YAML name.
    """

    recipes: Sequence[str]
    overrides: dict[str, Any]
    budget: Budget
    choices: BenchmarkOptions
    options: DataOptions
    out: Path
    trust_code: bool

    def checked_overrides(self) -> dict[str, dict[str, Any]]:
        """The overrides that each recipe has a use for; refused if they make no sense for any."""
        short = [short_name(name) for name in self.recipes]
        if twice := sorted({name for name in short if short.count(name) > 1}):
            raise RecipeError(f"two recipes are called {', '.join(twice)}; rename one")
        of_seeds = {seed_folder(name, number): name for name in short for number in range(1, self.choices.seeds)}
        if taken := sorted(set(short) & set(of_seeds)):
            raise RecipeError(
                f"{taken[0]} is what {of_seeds[taken[0]]} is called with another seed; rename that recipe"
            )
        fitting = {name: known_overrides(name, self.overrides, trust_code=self.trust_code) for name in self.recipes}
        if useless := set(self.overrides) - {key for each in fitting.values() for key in each}:
            raise RecipeError(f"--{min(useless)}: no network of these recipes has such an option")
        for name in self.recipes:
            check_networks(load_recipe(name, fitting[name], trust_code=self.trust_code))
        return fitting

    def check_one_task(self, fitting: Mapping[str, Mapping[str, Any]]) -> None:
        """Refuse recipes of tasks that are ranked by other metrics; ``fitting`` are the overrides of each."""
        loaded = [load_recipe(name, fitting[name], trust_code=self.trust_code) for name in self.recipes]
        for recipe in loaded:
            if recipe.make_task().ranking != loaded[0].make_task().ranking:
                raise RecipeError(
                    f"{recipe.name} and {loaded[0].name} are of different tasks, which are not ranked together"
                )


def is_evaluated(run: Path) -> bool:
    """Return whether a run has an evaluation with what a leaderboard needs; version 0.1 kept no predictions."""
    return (run / EVALUATION).is_file() and (run / EVALUATION).with_name("arrays.npz").is_file()


def begin_or_go_on(out: Path, settings: dict[str, Any]) -> None:
    """Begin a benchmark, or refuse to go on with another than was begun; there may be more seeds.

    Parameters
    ----------
    out
        The folder, to be made or gone on with.
    settings
        What makes the benchmark, ``seeds`` among them, in JSON's types.

    Raises
    ------
    DataError
        If it was begun with others, or holds something else.
    """
    path = out / "benchmark.json"
    if path.is_file():
        before = {"seeds": 1} | read_json(path, DataError)
        more = before["seeds"] in range(1, settings["seeds"])
        for name, value in settings.items():
            if before.get(name) != value and not (name == "seeds" and more):
                raise DataError(f"{out}: was begun with {name} {before.get(name)}, not {value}; choose another --out")
        if more:
            _write_settings(path, before | {"seeds": settings["seeds"]})
        return
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out}: exists already and holds no benchmark; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    _write_settings(path, settings)


def _write_settings(path: Path, settings: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(settings, indent=1) + "\n", "utf-8")


def shared_images(plan: Plan, say: Callable[[str], None]) -> dict[str, Path]:
    """Return folders of ``train`` and ``test`` images, made by one process; others that share them wait for it.

    Of a user's own images both are one folder, whose test images are those that its column ``split`` names.
    """
    waited = False
    while True:
        try:
            with only_one(plan.out / "data", "making images"):
                return _images(plan, say)
        except InUseError:
            if not waited:
                say("waiting for the images, which another process makes")
            waited = True
            sleep(WAIT)


def _images(plan: Plan, say: Callable[[str], None]) -> dict[str, Path]:
    """Folders of training and test images: simulated, or the user's own, of which the test split is kept apart."""
    folders, choices = {}, plan.choices
    if choices.data is not None:
        return _own_images(plan, choices.data, say)
    assert choices.preset is not None
    preset = load_preset(choices.preset, trust_code=plan.trust_code)
    target = None if choices.pairs is None else paired_telescope(preset, choices.pairs, trust_code=plan.trust_code)
    counts = {"train": choices.train_images, "test": choices.test_images}
    for number, (name, count) in enumerate(counts.items()):
        folder = folders[name] = plan.out / "data" / name
        if not folder.exists():
            with progress_bar(f"simulating {name} images") as progress:
                simulate_dataset(
                    preset, count, 2 * choices.seed + number, out=folder, target=target, progress=progress
                )  # fmt: skip
            say(f"{count:,} {name} images of {preset.name} → {folder}")
    return folders


def _own_images(plan: Plan, data: str, say: Callable[[str], None]) -> dict[str, Path]:
    """A dataset folder of the user's own images, with a test split."""
    folder = plan.out / "data" / "all"
    if not folder.exists():
        cutouts = open_with(data, plan.options)
        split = "split" in cutouts.catalog.columns and "test" in cutouts.catalog["split"].to_list()
        with progress_bar("importing") as progress:
            import_data(
                cutouts, folder, mask=plan.options.mask, fractions=None if split else SPLIT, seed=plan.choices.seed,
                progress=progress,
            )  # fmt: skip
        apart = "as their test split says" if split else "a tenth of them kept apart for the test"
        say(f"{len(cutouts):,} images of {data}, {apart} → {folder}")
    return {"train": folder, "test": folder}


def train_recipe(plan: Plan, name: str, number: int, run: Path, data: Path, overrides: Mapping[str, Any]) -> None:
    """Train a recipe on its budget in a process of its own, which goes on where it stopped; one that is done is left.

    Parameters
    ----------
    plan
        Of the benchmark.
    name
        Of the recipe.
    number
        By how much its seed is above the first, whose split all share.
    run
        Its run folder.
    data
        The training images.
    overrides
        Values of the recipe, by dotted key.

    Raises
    ------
    RecipeError
        If it cannot be trained, or the run is that of another recipe.
    """
    changes = dict(overrides)
    recipe = load_recipe(name, changes, trust_code=plan.trust_code)
    if not plan.choices.pretrained and any(part.network.get("pretrained") for part in recipe.parts()):
        changes["network.pretrained"] = False
        recipe = load_recipe(name, changes, trust_code=plan.trust_code)
    if (run / "model" / "config.json").is_file():
        trained = recorded_job(run, trust_code=plan.trust_code).recipe
        if trained.name != recipe.name:
            raise RecipeError(f"{run}: is a run of {trained.name}; rename {name}")
        if not learns_alike(trained, recipe):
            raise RecipeError(f"{run}: is a run of another recipe of this name; rename {name}")
        return
    # A clock keeps a budget of minutes, whatever the number of images: they are not opened to be counted then.
    by_clock = plan.budget.unit == "min"
    images = 0 if by_clock else open_job_data(Job(recipe, str(data), plan.choices.seed)).train_images
    changes |= planned(recipe, plan.budget, images)
    values = {key.replace(".", "__"): "null" if value is None else value for key, value in changes.items()}
    values |= {"resume": True, "trust_code": plan.trust_code or None}
    first = plan.choices.seed
    values |= {"seed": first + number, "split_seed": first if number else None}
    line = shlex.split(command("train", name, data=data, out=run, **values))
    status, last = run_passing_on_errors([sys.executable, "-m", *line])
    if status:
        raise RecipeError((last or f"ended with status {status}").removeprefix("darklens: "))


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
