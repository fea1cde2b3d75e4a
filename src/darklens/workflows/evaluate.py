"""Evaluate a trained run on a labelled dataset, and keep what a report needs beside the run."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from darklens.commands import command
from darklens.data.checks import check_finite
from darklens.data.dataset import Cutouts
from darklens.data.layouts import open_with
from darklens.data.options import DataOptions
from darklens.data.synthesis import simulate_cutouts
from darklens.errors import DataError
from darklens.evaluation.bootstrap import ROUNDS, Interval, intervals
from darklens.evaluation.classification import Classified, auc_figure, evaluate_classification
from darklens.evaluation.concerns import concerns
from darklens.evaluation.regression import Regressed, evaluate_regression
from darklens.inference.adapt import adaptation
from darklens.inference.attribution import attributions
from darklens.inference.model import TrainedModel, load_model
from darklens.inference.predictions import Predicted, Progress, predict_cutouts, prediction_table
from darklens.inference.shipped import shipped_name
from darklens.progress import progress_bar
from darklens.simulation import load_preset
from darklens.workflows.predict import prediction_sets_of

EXAMPLES = 4
MISTAKES = 12
COUNT = 3072
"""Test images that are simulated if the data is a preset."""
TEST_STREAM = 2_000_003
"""Added to the seed of a model's training data, for test images of a preset: neither training images, whose seed it is,
nor validation images, to whose seed 1,000,003 is added."""


def evaluate_run(
    run: Path,
    data: Path | str,
    name: str | None = None,
    options: DataOptions = DataOptions(),
    *,
    band: str | None = None,
    seed: int = 0,
    symmetries: bool = False,
    coverage: float = 0.95,
    outliers: Path | None = None,
    count: int = COUNT,
    trust_code: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate a model and write ``RUN/evaluations/<name>/``; return the content of its ``evaluation.json``.

    The folder holds figures as JSON, predictions as Parquet, and images for the report. Of a dataset with a column
    ``split``, only rows marked ``test`` count, if there are any.

    Parameters
    ----------
    run
        The run folder, with the model in ``model/``.
    data
        Labelled images at a path, or ``preset:NAME`` for fresh ones.
    name
        What to call the evaluation; by default as the data.
    options
        How a path is read.
    band
        Names or numbers of the bands to use, with commas between.
    seed
        Of the bootstrap.
    symmetries
        Average over the eight symmetries of the square.
    coverage
        What prediction sets promise, which is verified.
    outliers
        Images of another kind: how well they are told from the test images is a figure as well.
    count
        Number of images of a preset.
    trust_code
        Whether code may run that the model or a preset in YAML names.
    progress
        Called with the images done and their number.

    Raises
    ------
    DataError
        If the images are those of the training, or there are none to evaluate.
    """
    model = load_model(run, trust_code=trust_code)
    if str(data).startswith("preset:"):
        cutouts = _fresh_images(str(data).removeprefix("preset:"), model, count, trust_code, progress)
    else:
        cutouts = _test_rows(open_with(data, options), model, run)
    truth = _truth(cutouts, model)
    known = np.flatnonzero(np.isfinite(truth))
    if not len(known):
        raise DataError(f"{data}: no image has a value of {model.config.outputs[0]}")
    cutouts, truth = cutouts.subset(known), truth[known]
    started = time.perf_counter()
    predicted = predict_cutouts(model, cutouts, band, options.mask, symmetries=symmetries, progress=progress)
    seconds = time.perf_counter() - started
    result: Classified | Regressed
    sets = None
    if model.config.task == "classify":
        assert predicted.prediction.probabilities is not None
        sets = prediction_sets_of(model, predicted, coverage)
        result = evaluate_classification(predicted.prediction.probabilities, truth, model.classes, seed, sets)
    else:
        assert predicted.prediction.values is not None
        result = evaluate_regression(predicted.prediction.values[:, 0], truth, model.config.outputs[0], seed)
    figures = dict(result.figures)
    if outliers is not None:
        figures |= _outlier_figures(model, predicted, outliers, options.mask, seed)
    said: dict[str, Any] = {
        "name": name,
        **options.given(),
        "band": band,
        "symmetries": symmetries or None,
        "outliers": outliers,
    }
    said |= {"seed": seed or None, "coverage": None if coverage == 0.95 else coverage, "trust_code": trust_code or None}
    said |= {"count": None if count == COUNT else count}
    record = {
        "name": name or Path(data).resolve().name.removeprefix("preset:").partition(".py:")[0],
        "command": command("evaluate", shipped_name(run) or run, data=data, **said),
        "data": {"source": cutouts.info.source, "layout": cutouts.info.layout, "checksum": cutouts.info.checksum},
        "n": len(cutouts),
        "seed": seed,
        "rounds": ROUNDS,
        "seconds": round(seconds, 2),
        "images_per_second": round(len(cutouts) / seconds, 1),
        "notes": predicted.notes,
        "warnings": concerns(result),
        "figures": {key: dataclasses.asdict(value) for key, value in figures.items()},
        "symmetries": symmetries,
        "coverage": coverage,
    } | _details(result)
    out = run / "evaluations" / str(record["name"])
    out.mkdir(parents=True, exist_ok=True)
    table = prediction_table(predicted, cutouts, sets)
    truths = [model.classes[i] for i in truth] if isinstance(result, Classified) else truth
    table.with_columns(pl.Series("true", truths)).write_parquet(out / "predictions.parquet")
    _keep_pictures(out, cutouts, truth, predicted.prediction, record, model)
    (out / "evaluation.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return record


def _outlier_figures(
    model: TrainedModel, predicted: Predicted, outliers: Path, mask: bool, seed: int
) -> dict[str, Interval]:
    """How well ``outlier_score`` tells images of another kind from test images, and how many of each it flags."""
    usual = predicted.prediction.outlier_score
    with progress_bar("predicting the outliers") as advance:
        images = open_with(outliers, DataOptions())
        strange = predict_cutouts(model, images, mask=mask, skip=True, progress=advance).prediction.outlier_score
    if usual is None or strange is None:
        raise DataError("this model cannot say what is unlike its training images; train it again")
    scores = np.concatenate([usual, strange])
    positive = np.repeat([0.0, 1.0], [len(usual), len(strange)])
    flagged = (scores > 1).astype(np.float64)
    return intervals(
        {
            "outlier_auc": auc_figure(scores, positive),
            "outliers_flagged": lambda w: (w * positive) @ flagged / (w @ positive),
            "test_images_flagged": lambda w: (w * (1 - positive)) @ flagged / (w @ (1 - positive)),
        },
        len(scores),
        seed,
    )


def _fresh_images(name: str, model: TrainedModel, count: int, trust_code: bool, progress: Progress | None) -> Cutouts:
    """Simulate test images of a preset, of a seed that no training or validation image of the model is of."""
    preset = load_preset(name, trust_code=trust_code)
    return simulate_cutouts(preset, count, (model.config.data.get("seed") or 0) + TEST_STREAM, progress=progress)


def _test_rows(cutouts: Cutouts, model: TrainedModel, run: Path) -> Cutouts:
    if "split" in cutouts.catalog.columns and "test" in cutouts.catalog["split"].to_list():
        return cutouts.subset(np.flatnonzero((cutouts.catalog["split"] == "test").to_numpy()))
    if _trained_on(cutouts, model, run):
        raise DataError(
            f"{cutouts.info.source}: these are the images the model was trained on; evaluate on others, or import them "
            "with --split 0.8,0.1,0.1 and train again"
        )
    return cutouts


def _trained_on(cutouts: Cutouts, model: TrainedModel, run: Path) -> bool:
    """Whether these are the training images: by checksum, or where there is none by folder and ids."""
    trained = model.config.data
    if cutouts.info.checksum is not None and trained.get("checksum") is not None:
        return bool(cutouts.info.checksum == trained["checksum"])
    split = run / "split.parquet"
    same_folder = trained.get("source") == Path(cutouts.info.source).name
    return same_folder and split.is_file() and set(cutouts.ids) <= set(pl.read_parquet(split)["id"])


def _truth(cutouts: Cutouts, model: TrainedModel) -> np.ndarray:
    if model.config.task == "classify":
        return cutouts.labels(model.classes)
    return cutouts.values(model.config.outputs[0])


def _details(result: Classified | Regressed) -> dict[str, Any]:
    if isinstance(result, Regressed):
        return {"output": result.output}
    return {
        "classes": result.classes,
        "confusion": result.confusion.tolist(),
        "roc": {name: _thin(*curve) for name, curve in result.roc.items()},
        "reliability": {name: values.tolist() for name, values in result.reliability.items()},
    }


def _thin(false: np.ndarray, true: np.ndarray, points: int = 400) -> dict[str, list[float]]:
    """A curve of fewer points, dense where it is steep: every corner matters only to the eye here."""
    length = np.concatenate([[0], np.cumsum(np.hypot(np.diff(false), np.diff(true)))])
    keep = np.unique(np.searchsorted(length, np.linspace(0, length[-1], points)).clip(0, len(false) - 1))
    return {"fpr": np.round(false[keep], 5).tolist(), "tpr": np.round(true[keep], 5).tolist()}


def _keep_pictures(
    out: Path, cutouts: Cutouts, truth: np.ndarray, prediction: Any, record: dict[str, Any], model: TrainedModel
) -> None:
    """First images of each class, and the worst mistakes, as small arrays."""
    if prediction.probabilities is not None:
        wrong = prediction.probabilities.argmax(1) != truth
        sureness = np.where(wrong, prediction.probabilities.max(1), -1)
        examples = [np.flatnonzero(truth == i)[:EXAMPLES] for i in range(len(model.classes))]
        captions = [[model.classes[i]] * len(rows) for i, rows in enumerate(examples)]
    else:
        sureness = np.abs(prediction.values[:, 0] - truth)
        order = np.argsort(truth)
        examples = [order[np.linspace(0, len(order) - 1, EXAMPLES * 3).astype(int)]]
        captions = [[f"{model.config.outputs[0]} = {truth[row]:.2f}" for row in examples[0]]]
    worst = np.argsort(-sureness)[:MISTAKES]
    worst = worst[sureness[worst] > 0]
    record["mistakes"] = [_describe(row, cutouts, truth, prediction, model) for row in worst]
    record["examples"] = [caption for group in captions for caption in group]
    rows = np.concatenate([*examples, worst]).astype(int)
    if prediction.probabilities is not None:
        firsts = [int(group[0]) for group in examples if len(group)]
        record["explained"] = [model.classes[truth[row]] for row in firsts]
        _keep_explanations(out, cutouts, firsts, truth, model)
    np.save(out / "pictures.npy", np.asarray(cutouts.images[rows][:, 0], dtype=np.float32))


def _keep_explanations(out: Path, cutouts: Cutouts, rows: list[int], truth: np.ndarray, model: TrainedModel) -> None:
    """Where the model looks in one image of each class, to find that class."""
    adapt = adaptation(model.config, cutouts.info, cutouts.images.shape)
    read = np.asarray(cutouts.images[np.array(rows)], dtype=np.float32)
    images = adapt(check_finite(read, [cutouts.ids[row] for row in rows], cutouts.info.source, mask=True))
    maps = attributions(model, images, [int(truth[row]) for row in rows])
    np.save(out / "explanations.npy", np.stack([images[:, 0].numpy(), maps]).astype(np.float32))


def _describe(row: int, cutouts: Cutouts, truth: np.ndarray, prediction: Any, model: TrainedModel) -> dict[str, Any]:
    if prediction.probabilities is None:
        value = float(prediction.values[row, 0])
        return {"id": cutouts.ids[row], "true": f"{truth[row]:.2f}", "called": f"{value:.2f}", "p": None}
    p = prediction.probabilities[row]
    return {
        "id": cutouts.ids[row],
        "true": model.classes[truth[row]],
        "called": model.classes[int(p.argmax())],
        "p": round(float(p.max()), 4),
    }
