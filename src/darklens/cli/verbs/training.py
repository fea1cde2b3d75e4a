"""Verbs that train."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from darklens.cli.console import loading, say, table
from darklens.cli.verbs.results import check_data
from darklens.data.options import DataOptions
from darklens.errors import DarklensError, UserCodeError
from darklens.inference.shipped import model_folder
from darklens.paths import check_absent, check_present, is_helper_process, only_one
from darklens.progress import working
from darklens.workflows.options import BenchmarkOptions

ADAPTATION = "adaptation"
"""Folder of the recipes that a benchmark compares by methods and encoders on a target."""
PRETRAINING = "pretraining"
"""Folder of the recipes that a benchmark compares by what labels are worth after them."""


def train(
    recipe: str,
    data: str,
    out: Path,
    *,
    seed: int = 0,
    split_seed: int | None = None,
    unlabelled: str | None = None,
    labels: Path | None = None,
    start: str | None = None,
    wandb: str | None = None,
    resume: bool = False,
    dry_run: bool = False,
    trust_code: bool = False,
    options: DataOptions = DataOptions(),
    **overrides: Any,
) -> None:
    """Train a recipe on a dataset, on your own folder, or on images simulated as it goes.

    Args:
        recipe: a name (see darklens recipes) or a YAML file.
        data: a folder or file in any layout, or preset:NAME.
        out: the run folder to make.
        seed: of weights, order, augmentation and split.
        split_seed: of the split (of a preset, of the validation images), if it is to be that of another seed.
        unlabelled: a second dataset, for recipes that learn from images without labels as well.
        labels: a table with id and label of a few images of the second dataset, for recipes that adapt to it.
        start: a trained model, by name or run, whose weights it starts from; of a pre-trained one, the encoder's.
        wandb: a Weights & Biases project to log to as well.
        resume: continue a run that was interrupted.
        dry_run: only say how long it takes.
        trust_code: let code run that a recipe or preset in YAML names; read it first.
    """
    from darklens.training.recipe import load_recipe

    continuing = resume and (out / "run.json").is_file()
    with _kept_code(out if continuing else None):
        loaded = load_recipe(recipe, overrides, trust_code=trust_code)
    if not continuing and not is_helper_process():
        _check_new_run(out)
    check_data(data)
    if unlabelled is not None:
        check_data(unlabelled)
    if labels is not None:
        check_present(labels)
    if start is not None:
        model_folder(start)
    with loading():
        from darklens.training.job import Job
        from darklens.training.train import resume as resume_training
        from darklens.training.train import train as start_training
        from darklens.workflows.following import after_adapting, after_training

    few = None if labels is None else str(labels)
    job = Job(loaded, data, seed, options, wandb, unlabelled=unlabelled, split_seed=split_seed, labels=few, start=start)
    if dry_run:
        say(_training_time(job, trust_code))
        return
    if continuing:
        with _kept_code(out):
            resume_training(out, job, trust_code=trust_code)
    else:
        start_training(job, out, trust_code=trust_code)
    if unlabelled is not None and any(part.adaptation for part in loaded.parts()):
        say(after_adapting(out, unlabelled, trust_code))
        return
    say(*after_training(out, data, options, trust_code))


def adapt(
    recipe: str,
    data: str,
    target: str,
    out: Path,
    *,
    labels: Path | None = None,
    seed: int = 0,
    split_seed: int | None = None,
    resume: bool = False,
    dry_run: bool = False,
    trust_code: bool = False,
    options: DataOptions = DataOptions(),
    **overrides: Any,
) -> None:
    """Train on labelled images and adapt to others without labels, such as those of a survey.

    Args:
        recipe: a name (adaptation/adda and so on, see darklens recipes) or a YAML file with a section adaptation.
        data: the labelled source, a folder or file in any layout, or preset:NAME.
        target: the images to adapt to, a folder or file in any layout, or preset:NAME; their labels are not used.
        out: the run folder to make.
        labels: a table with id and label of a few images of the target, which are learned as well.
        seed: of weights, order, augmentation and splits.
        split_seed: of the splits (of a preset, of the validation images), if they are to be those of another seed.
        resume: continue a run that was interrupted.
        dry_run: only say how long it takes.
        trust_code: let code run that a recipe or preset in YAML names; read it first.
    """
    from darklens.training.recipe import load_recipe

    loaded = load_recipe(recipe, overrides, trust_code=trust_code)
    if not any(part.adaptation for part in loaded.parts()):
        raise DarklensError(
            f"recipe {recipe}: has no section adaptation, so nothing would be adapted; darklens train trains it, and "
            "recipes that adapt are in adaptation/ (darklens recipes)"
        )
    train(
        recipe, data, out, seed=seed, split_seed=split_seed, unlabelled=target, labels=labels, resume=resume,
        dry_run=dry_run,        trust_code=trust_code, options=options, **overrides,
    )  # fmt: skip


@contextmanager
def _kept_code(run: Path | None) -> Iterator[None]:
    """Add to an error about the user's own code where a run keeps the code that it was started with."""
    try:
        yield
    except UserCodeError as error:
        if run is None or not (run / "code").is_dir():
            raise
        raise UserCodeError(f"{error}; the run keeps what it was started with in {run / 'code'}") from error


def finetune(
    model: Path,
    data: str,
    out: Path | None = None,
    *,
    seed: int = 0,
    resume: bool = False,
    trust_code: bool = False,
    options: DataOptions = DataOptions(),
    **overrides: Any,
) -> None:
    """Go on training a trained model on other images.

    Args:
        model: the name of a model (see darklens models), a run folder, or a model folder.
        data: a folder or file in any layout, or preset:NAME.
        out: the run folder to make; by default runs/MODEL-finetuned.
        seed: of order, augmentation and split.
        resume: continue a fine-tuning that was interrupted.
        trust_code: let code run that the model or a preset in YAML names; read it first.
    """
    model_folder(model)
    made = out or Path("runs") / f"{model.name}-finetuned"
    if not (resume and (made / "run.json").is_file()):
        _check_new_run(made)
    check_data(data)
    with loading():
        from darklens.workflows.finetune import finetune as start
        from darklens.workflows.following import after_training

    start(str(model), data, made, seed=seed, options=options, overrides=overrides, resume=resume, trust_code=trust_code)
    say(*after_training(made, data, options, trust_code))


def ensemble(runs: list[Path], out: Path, trust_code: bool = False) -> None:
    """Average trained runs, as one run to evaluate, predict with and report.

    Args:
        out: the run folder to make.
        trust_code: let code run that the runs name; read it first.
    """
    check_absent(out)
    for run in runs:
        model_folder(run)
    with loading():
        from darklens.training.ensemble import make_ensemble
        from darklens.training.job import recorded_job
        from darklens.workflows.following import after_training

    with working("making the ensemble"):
        make_ensemble(runs, out, trust_code=trust_code)
    job = recorded_job(out, trust_code=trust_code)
    say(f"{len(runs)} runs → {out}")
    say(*after_training(out, job.data, job.options, trust_code))


def benchmark(
    task: str,
    budget: str,
    out: Path,
    *,
    recipes: str | None = None,
    choices: BenchmarkOptions = BenchmarkOptions(),
    options: DataOptions = DataOptions(),
    trust_code: bool = False,
    **overrides: Any,
) -> None:
    """Train and evaluate recipes on the same images and budget, and rank them; goes on where it stopped.

    Args:
        task: a folder of recipes (substructure, mass, finding, adaptation, pretraining), or any name with --recipes of
            your own.
        budget: what each recipe may use, such as 10min, 5epochs or 200000images.
        out: the folder to make, or to go on with.
        recipes: names, or YAML files of your own, with commas between; by default all of the task.
        trust_code: let code run that recipes or a preset in YAML name; read it first.
    """
    from darklens.simulation.library import resolve_preset
    from darklens.training.recipe import load_recipe, recipe_names

    if choices.data is None and choices.preset is not None:
        resolve_preset(choices.preset)
    elif choices.data is not None:
        check_data(choices.data)
    names = (
        [name if "/" in name or name.endswith((".yaml", ".yml")) else f"{task}/{name}" for name in recipes.split(",")]
        if recipes
        else [name for name in recipe_names() if name.startswith(f"{task}/")]
    )
    if not names:
        folders = sorted({name.partition("/")[0] for name in recipe_names()})
        raise DarklensError(f"no recipes for {task!r}; there are {', '.join(folders)}; darklens recipes lists all")
    for name in names:
        load_recipe(name, trust_code=trust_code)
    if task == ADAPTATION:
        if options.given():
            raise DarklensError(
                f"--{min(options.given())} is not for benchmark adaptation: import the images first (darklens import)"
            )
        if choices.target_data is not None:
            check_data(choices.target_data)
        with loading():
            from darklens.workflows.adaptation_benchmark import benchmark_adaptation
            from darklens.workflows.benchmark import parse_budget
        page = benchmark_adaptation(names, parse_budget(budget), out, choices=choices, overrides=overrides, say=say)
        say(f"→ {page}, and the same as .md and .json")
        return
    with loading():
        from darklens.workflows.benchmark import benchmark as run_benchmark
        from darklens.workflows.benchmark import parse_budget
        from darklens.workflows.pretraining_benchmark import benchmark_pretraining

    compared = benchmark_pretraining if task == PRETRAINING else run_benchmark
    page = compared(
        names, parse_budget(budget), out, choices=choices, options=options, overrides=overrides, say=say,
        trust_code=trust_code,
    )  # fmt: skip
    say(f"→ {page}, and the same as {'.md, .csv' if task == PRETRAINING else '.md'} and .json")


def recipes() -> None:
    """List the recipes."""
    from darklens.training.recipe import list_recipes

    table("Recipes", ["name", "what it is"], list(list_recipes().items()))


def _check_new_run(out: Path) -> None:
    if (out / "run.json").is_file():
        with only_one(out, "training"):  # who has it is said first
            raise DarklensError(f"{out}: holds a run already; --resume goes on with it, another --out starts a new one")
    check_absent(out)


def _training_time(job: Any, trust_code: bool) -> str:
    from darklens.workflows.estimate import training_time

    return training_time(job, trust_code=trust_code)
