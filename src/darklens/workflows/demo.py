"""The demo: from nothing to a trained classifier, predictions on real images, and a page worth showing."""

from __future__ import annotations

import time
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
from darklens.training.recipe import load_recipe
from darklens.training.train import train
from darklens.workflows.evaluate import evaluate_run
from darklens.workflows.options import EvaluationOptions
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


def run_demo(out: Path, seed: int = 0) -> Path:
    """Make the run, ``real-….csv`` and ``report.html`` in ``out``, from images kept in ``<out>-data``.

    Training and test images are of different seeds; the test images serve once, at the end.
    """
    console = Console(soft_wrap=True)
    started = time.perf_counter()

    def progress_message(what: str) -> None:
        console.print(f"[{time.perf_counter() - started:5.0f} s] {what}", highlight=False, markup=False)

    data = out.with_name(out.name + "-data")
    preset = load_preset(PRESET)
    folders = {}
    for name, count, offset in (("train", TRAIN_IMAGES, 0), ("test", TEST_IMAGES, 1)):
        folder = folders[name] = data / f"{name}-{count}-seed{2 * seed + offset}"
        if not folder.exists():
            with progress_bar(f"simulating {name} images") as progress:
                simulate_dataset(preset, count, 2 * seed + offset, out=folder, progress=progress)
        progress_message(f"{count:,} {name} images of {PRESET} → {folder}")
    recipe = load_recipe(RECIPE, {"trainer.epochs": EPOCHS})
    train(Job(recipe, str(folders["train"]), seed), out)
    progress_message("trained")
    with progress_bar("evaluating") as advance:
        record = evaluate_run(out, folders["test"], EvaluationOptions("test"), progress=advance)
    for key in task_class(recipe.task["name"]).headlines:
        figure = figure_text(record["figures"][key])
        progress_message(f"{record['metrics'][key]['title']} {figure} on {record['n']:,} test images")
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
