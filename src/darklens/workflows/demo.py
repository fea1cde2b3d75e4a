"""The demos: from nothing to a trained classifier or lens finder, predictions, and pages worth showing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path

import polars as pl
from rich.console import Console

from darklens.data.options import DataOptions
from darklens.data.synthesis import simulate_dataset
from darklens.evaluation.bootstrap import figure_text
from darklens.progress import progress_bar
from darklens.report.page import write_report
from darklens.simulation import load_preset
from darklens.tasks.registry import task_class
from darklens.training.job import Job
from darklens.training.recipe import Recipe, load_recipe
from darklens.training.train import train
from darklens.workflows.evaluate import evaluate_run
from darklens.workflows.find import find_lenses
from darklens.workflows.options import EvaluationOptions, SearchOptions
from darklens.workflows.predict import predict_paths

PRESET = "model-1"
RECIPE, EPOCHS = "substructure/darklens", 2
TRAIN_IMAGES, TEST_IMAGES = 30_720, 3_072
REAL = {"deeplense": ("substructure-model-3-noisy", 0.08), "euclid": ("substructure-fair-euclid", None)}
"""Bundled images, the trained model that is nearest to them, and their pixel scale where they do not say it: that the
DeepLense samples are Model III's, a fit of their one free parameter shows."""
LIMITS = (
    "an outlier score above 1 marks images unlike those that a model was trained on: then the line shows that reading and "
    "predicting work, and nothing about the lens"
)


FINDING_PRESET = "finding-hsc"
FINDING_RECIPE, FINDING_EPOCHS = "finding/darklens", 5
FINDING_TRAIN_IMAGES, FINDING_TEST_IMAGES, SURVEY_IMAGES = 6_000, 2_000, 2_000
PREVIEWED = 60
"""Candidates on the page of the demo."""


def run_finding_demo(out: Path, seed: int = 0) -> Path:
    """Make the run of a lens finder, ``candidates.csv``, ``candidates.html`` and ``report.html`` in ``out``.

    Training, test and searched images are of different seeds, and are kept in ``<out>-data``. Of the searched ones half are
    lenses, as of the others: the probabilities that rank them are for that fraction.
    """
    progress_message = _progress_messages()
    data = out.with_name(out.name + "-data")
    counts = {
        "train": (FINDING_TRAIN_IMAGES, 3 * seed),
        "test": (FINDING_TEST_IMAGES, 3 * seed + 1),
        "survey": (SURVEY_IMAGES, 3 * seed + 2),
    }
    folders = _simulated(FINDING_PRESET, counts, data, progress_message)
    recipe = load_recipe(FINDING_RECIPE, {"trainer.epochs": FINDING_EPOCHS})
    _trained(recipe, folders, seed, out, progress_message)
    labels = pl.read_parquet(folders["survey"] / "catalog.parquet")["label"]
    lenses = int((labels == "lens").sum()) / len(labels)
    search = SearchOptions(prior=round(lenses, 3), mosaic=out / "candidates.html", top=PREVIEWED, known_lenses="false")
    with progress_bar("searching") as advance:
        found = find_lenses(out, [folders["survey"]], out / "candidates.csv", search=search, progress=advance)
    table = pl.read_csv(out / "candidates.csv")
    true = int((table["label"] == "lens").sum())
    progress_message(
        f"the first {found.first} of {found.images:,} images, of which {lenses:.0%} are lenses: {found.expected:.3g} "
        f"lenses are expected, and {true} are there → {search.mosaic}"
    )
    page = write_report([out], out / "report.html")
    progress_message(f"done → {page} (the images stay in {data})")
    return page


def run_demo(out: Path, seed: int = 0) -> Path:
    """Make the run, ``real-….csv`` and ``report.html`` in ``out``, from images kept in ``<out>-data``.

    Training and test images are of different seeds; the test images serve once, at the end.
    """
    progress_message = _progress_messages()
    data = out.with_name(out.name + "-data")
    counts = {"train": (TRAIN_IMAGES, 2 * seed), "test": (TEST_IMAGES, 2 * seed + 1)}
    folders = _simulated(PRESET, counts, data, progress_message)
    _trained(load_recipe(RECIPE, {"trainer.epochs": EPOCHS}), folders, seed, out, progress_message)
    with resources.as_file(resources.files("darklens") / "examples") as examples:
        for name, (model, scale) in REAL.items():
            table = out / f"real-{name}.csv"
            with progress_bar(f"predicting {name}") as advance:
                predict_paths(
                    Path(model), [examples / name], table, options=DataOptions(mask=True, pixel_scale=scale),
                    progress=advance,
                )  # fmt: skip
            for row in pl.read_csv(table).iter_rows(named=True):
                called = f"{row['predicted']} ({row['p_' + row['predicted']]:.2f})"
                progress_message(
                    f"{name} {row['id']}: {called}, outlier score {row['outlier_score']:.1f}, says {model}"
                )
    progress_message(LIMITS)
    page = write_report([out], out / "report.html")
    progress_message(f"done → {page} (the images stay in {data})")
    return page


def _progress_messages() -> Callable[[str], None]:
    """A function that prints a message with the seconds since this call."""
    console = Console(soft_wrap=True)
    started = time.perf_counter()

    def progress_message(what: str) -> None:
        console.print(f"[{time.perf_counter() - started:5.0f} s] {what}", highlight=False, markup=False)

    return progress_message


def _simulated(
    name: str, counts: Mapping[str, tuple[int, int]], data: Path, progress_message: Callable[[str], None]
) -> dict[str, Path]:
    """Folders of simulated images, of a number and a seed each; those that are there already stay."""
    preset = load_preset(name)
    folders = {}
    for part, (count, seed) in counts.items():
        folder = folders[part] = data / f"{part}-{count}-seed{seed}"
        if not folder.exists():
            with progress_bar(f"simulating {part} images") as progress:
                simulate_dataset(preset, count, seed, out=folder, progress=progress)
        progress_message(f"{count:,} {part} images of {name} → {folder}")
    return folders


def _trained(
    recipe: Recipe, folders: Mapping[str, Path], seed: int, out: Path, progress_message: Callable[[str], None]
) -> None:
    """Train and evaluate a run, and say how good it is."""
    train(Job(recipe, str(folders["train"]), seed), out)
    progress_message("trained")
    with progress_bar("evaluating") as advance:
        record = evaluate_run(out, folders["test"], EvaluationOptions("test"), progress=advance)
    for key in task_class(recipe.task["name"]).headlines:
        if key not in record["figures"]:  # of too few images
            continue
        figure = figure_text(record["figures"][key])
        progress_message(f"{record['metrics'][key]['title']} {figure} on {record['n']:,} test images")
