"""Evaluate a trained run on a labelled dataset, and keep what a report needs beside the run."""

from __future__ import annotations

import hashlib
import itertools
import json
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from torch import Tensor

from darklens.commands import command
from darklens.data.checks import check_finite
from darklens.data.dataset import Cutouts
from darklens.data.layouts import open_with
from darklens.data.options import DataOptions
from darklens.data.seeds import simulation_seed
from darklens.data.seen import how_seen
from darklens.data.sizes import crop_or_pad
from darklens.data.synthesis import simulate_cutouts
from darklens.errors import DarklensError, DataError, UserCodeError
from darklens.evaluation.bootstrap import ROUNDS, Interval, Metric, intervals
from darklens.evaluation.classification import auc_statistic
from darklens.inference.adapt import Adaptation
from darklens.inference.attribution import attributions
from darklens.inference.model import TrainedModel, load_model
from darklens.inference.predictions import Predicted, Progress, catalog_rows, predict_cutouts, prediction_table
from darklens.inference.reconstruction import reconstructions
from darklens.inference.shipped import shipped_name
from darklens.plots.pictures import drawn_images
from darklens.progress import progress_bar
from darklens.schema import read_json
from darklens.simulation import load_preset
from darklens.tasks.base import Gallery, Task, known_targets
from darklens.training.job import recorded_job
from darklens.usercode import load_function
from darklens.workflows.options import EvaluationOptions

COMPARED = 64
"""Images of one identifier whose pixels are compared with those of training images; one that is the same is enough."""


RESERVED = (
    "data",
    "options",
    "command",
    "name",
    "examples",
    "mistakes",
    "mistakes_title",
    "explained",
    "rebuilt",
    "folder",
)
"""What ``evaluation.json`` says of every evaluation, beside its record of figures."""


@dataclass(frozen=True)
class TestImages:
    """Labelled images that a model has not seen; ``truth`` is as the task's `targets` give it.

    ``task`` is that of the model; of one that predicts images, with the test images (N, C, H, W), ``pixels``, which are
    None for all others.
    """

    __test__ = False  # its name is not that of a test

    cutouts: Cutouts
    truth: np.ndarray
    task: Task
    pixels: np.ndarray | None = None


@dataclass(frozen=True)
class Measured:
    """Predictions of test images and how good they are.

    ``sets`` are prediction sets, ``own`` those of the metrics that the user gave, ``seconds`` the time of predicting.
    """

    predicted: Predicted
    sets: np.ndarray | None
    metrics: list[Metric]
    own: list[Metric]
    figures: dict[str, Interval]
    seconds: float


def evaluate_run(
    run: Path,
    data: Path | str,
    evaluation: EvaluationOptions = EvaluationOptions(),
    *,
    options: DataOptions = DataOptions(),
    trust_code: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate a model and write ``RUN/evaluations/<name>/``; return the content of its ``evaluation.json``.

    The folder holds figures as JSON, predictions as Parquet and arrays, and images for the report. Of a dataset with a
    column ``split``, only rows marked ``test`` count, if there are any.

    Parameters
    ----------
    run
        The run folder, with the model in ``model/``.
    data
        Labelled images at a path, or ``preset:NAME`` for fresh ones.
    evaluation
        How it is evaluated.
    options
        How a path is read.
    trust_code
        Whether code may run that the model or a preset in YAML names.
    progress
        Called with the images done and their number.

    Returns
    -------
    dict
        Figures with their intervals, warnings, and what the report draws.

    Raises
    ------
    DataError
        If the images are those of the training, there are none to evaluate, or another evaluation has the name.
    """
    model = load_model(run, trust_code=trust_code)
    if evaluation.prior is not None:
        model = model.with_prior(evaluation.prior)
    given = {**options.given(), **evaluation.given(), "trust_code": trust_code or None}
    name = evaluation.name or Path(data).resolve().name.removeprefix("preset:").partition(".py:")[0].replace(":", "-")
    out = run / "evaluations" / name
    images = _open(model, run, data, evaluation, options, trust_code=trust_code, progress=progress)
    model.task = images.task
    of = {"data": _described_data(images.cutouts), "options": _plain(given)}
    _check_same(out, of)
    measured = _measure(model, images, evaluation, options, progress=progress)
    record = _record(model, images, measured, evaluation)
    line = command("evaluate", shipped_name(run) or run, data=data, **given)
    record |= of | {"command": line, "name": name}
    _keep(model, images, measured, record, out)
    return record


def _plain(given: dict[str, Any]) -> dict[str, Any]:
    """Options that make a difference to the result, in JSON's types."""
    chosen = {key: value for key, value in given.items() if key not in ("name", "trust_code")}
    return dict(json.loads(json.dumps(chosen, default=str)))


def _options_in(line: str) -> dict[str, str]:
    """Options of an evaluation that an earlier version recorded, as its command line says them."""
    words = shlex.split(line)
    pairs = {word[2:]: value for word, value in itertools.pairwise(words) if word.startswith("--")}
    return {key: value for key, value in pairs.items() if key not in ("data", "name", "trust_code")}


def _described_data(cutouts: Cutouts) -> dict[str, Any]:
    """Which images these are: by checksum, or, of simulated ones, by their preset and seed."""
    info = cutouts.info
    preset = (
        None if info.preset is None else hashlib.sha256(json.dumps(info.preset, sort_keys=True).encode()).hexdigest()
    )
    return {
        "source": info.source, "layout": info.layout, "checksum": info.checksum, "seed": info.seed,
        "preset": preset and f"sha256:{preset}",
    }  # fmt: skip


def _check_same(out: Path, of: dict[str, Any]) -> None:
    """Refuse to take the place of an evaluation of other images or with other options."""
    if not (out / "evaluation.json").is_file():
        return
    before = read_json(out / "evaluation.json", DataError)
    known = before.get("data", {})
    same_data = all(known.get(key, value) == value for key, value in of["data"].items())
    options = before["options"] if "options" in before else _options_in(str(before.get("command")))
    options = {"bands" if key == "band" else key: value for key, value in options.items()}  # as version 0.1 called it
    found, wanted = ({key: str(value) for key, value in each.items()} for each in (options, of["options"]))
    if not same_data or found != wanted:
        raise DataError(f"{out}: there is another evaluation of this name, by {before.get('command')}; give --name")


def _open(
    model: TrainedModel,
    run: Path,
    data: Path | str,
    evaluation: EvaluationOptions,
    options: DataOptions,
    *,
    trust_code: bool,
    progress: Progress | None,
) -> TestImages:
    """Test images whose truth is known."""
    if str(data).startswith("preset:"):
        preset = load_preset(str(data).removeprefix("preset:"), trust_code=trust_code)
        cutouts = simulate_cutouts(preset, evaluation.count, simulation_seed(0, "test"), progress=progress)
        if options.band_names is not None:
            cutouts = cutouts.with_bands(options.band_names)
    else:
        cutouts = _without_learned(_test_rows(open_with(data, options), model, run), model)
        _check_unseen(cutouts, run, trust_code=trust_code)
    cutouts.check_columns(model.task.needs.columns)
    cutouts, truth = known_targets(model.task, cutouts)
    if not len(cutouts):
        raise DataError(f"{data}: no image has a value of {', '.join(model.task.output_names)}")
    if model.task.predicts == "columns":
        return TestImages(cutouts, truth, model.task)
    pixels = np.nan_to_num(np.asarray(cutouts.images[np.arange(len(cutouts))], dtype=np.float32), posinf=0, neginf=0)
    return TestImages(cutouts, truth, model.task.with_images(pixels), pixels)


def _measure(
    model: TrainedModel,
    images: TestImages,
    evaluation: EvaluationOptions,
    options: DataOptions,
    *,
    progress: Progress | None,
) -> Measured:
    """Predict test images and compute the metrics of the task, those of the user, and those of the outlier score."""
    started = time.perf_counter()
    predicted = predict_cutouts(
        model, images.cutouts, band=options.chosen(images.cutouts.info.bands), mask=options.mask,
        symmetries=evaluation.symmetries, progress=progress,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    array = predicted.prediction.array
    if images.pixels is not None and array.shape[2:] != images.truth.shape[2:]:
        found, true = (f"{shape[-2]}×{shape[-1]}" for shape in (array.shape, images.truth.shape))
        raise DataError(f"{images.cutouts.where}: the model makes images of {found} pixels, and targets have {true}")
    sets = model.task.prediction_sets(array, model.calibration, evaluation.coverage)
    metrics = list(model.task.metrics(array, images.truth, sets))
    keys = [metric.key for metric in metrics]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise UserCodeError(f"metrics of {type(model.task).__name__}: two have the key {twice[0]}; give each its own")
    if model.task.ranking not in keys:
        raise UserCodeError(
            f"metrics of {type(model.task).__name__}: it ranks by {model.task.ranking}, which is none of {', '.join(keys)}"
        )
    own = []
    for reference in evaluation.metrics.split(",") if evaluation.metrics else []:
        metric = _own_metric(reference, array, images.truth)
        if metric.key in keys:
            raise UserCodeError(f"{reference}: there is a metric {metric.key} already; give it another key")
        own.append(metric)
        keys.append(metric.key)
    metrics += own
    figures = intervals(metrics, len(array), evaluation.seed)
    if evaluation.outliers is not None:
        told_apart = _outlier_metrics(model, predicted, evaluation.outliers, options.mask)
        metrics += told_apart.metrics
        figures |= intervals(told_apart.metrics, told_apart.images, evaluation.seed)
    return Measured(predicted, sets, metrics, own, figures, seconds)


def _own_metric(reference: str, predicted: np.ndarray, truth: np.ndarray) -> Metric:
    """A user's own metric, a function of predictions and truths."""
    metric = load_function(reference)(predicted, truth)
    if not isinstance(metric, Metric):
        raise UserCodeError(f"{reference}: returns a {type(metric).__name__}; expected a Metric of darklens.evaluation")
    return metric


@dataclass(frozen=True)
class _OutlierMetrics:
    metrics: list[Metric]
    images: int


def _outlier_metrics(model: TrainedModel, predicted: Predicted, outliers: Path, mask: bool) -> _OutlierMetrics:
    """How well the outlier score tells images of another kind from test images, and how many of each it flags."""
    usual = predicted.prediction.outlier_score
    with progress_bar("predicting the outliers") as advance:
        others = open_with(outliers, DataOptions())
        unusual = predict_cutouts(model, others, mask=mask, skip=True, progress=advance).prediction.outlier_score
    if usual is None or unusual is None:
        raise DataError("this model has no score of images unlike its training images; train it again")
    scores = np.concatenate([usual, unusual])
    positive = np.repeat([0.0, 1.0], [len(usual), len(unusual)])
    flagged = (scores > 1).astype(np.float64)
    metrics = [
        Metric("outlier_auc", "AUC of the outlier score", auc_statistic(scores, positive), perfect=1),
        Metric("outliers_flagged", "Outliers flagged", lambda w: (w * positive) @ flagged / (w @ positive), perfect=1),
        Metric(
            "test_images_flagged",
            "Test images flagged",
            lambda w: (w * (1 - positive)) @ flagged / (w @ (1 - positive)),
            better="lower",
            perfect=0,
        ),
    ]
    return _OutlierMetrics(metrics, len(scores))


def _record(
    model: TrainedModel, images: TestImages, measured: Measured, evaluation: EvaluationOptions
) -> dict[str, Any]:
    """The content of ``evaluation.json``."""
    task, array = model.task, measured.predicted.prediction.array
    ranking = next(metric for metric in measured.metrics if metric.key == task.ranking)
    record = {
        "n": len(array),
        "seed": evaluation.seed,
        "rounds": ROUNDS,
        "seconds": round(measured.seconds, 2),
        "images_per_second": round(len(array) / measured.seconds, 1),
        "notes": [*images.cutouts.overruled, *measured.predicted.notes],
        "warnings": [*task.concerns(measured.figures, array, images.truth), *_without_value(measured)],
        "figures": {key: value.record() for key, value in measured.figures.items()},
        "metrics": {metric.key: metric.describe() for metric in measured.metrics},
        "ranking": ranking.key,
        "symmetries": evaluation.symmetries,
        "coverage": evaluation.coverage,
    }
    details = task.details(array, images.truth)
    details = details | task.catalog_details(array, images.truth, images.cutouts.catalog)
    if taken := sorted(set(details) & {*record, *RESERVED}):
        raise UserCodeError(f"details of {type(task).__name__}: {', '.join(taken)} is a name of darklens's own")
    try:
        return record | dict(json.loads(json.dumps(details, default=_plain_numbers)))
    except TypeError as error:
        raise UserCodeError(f"details of {type(task).__name__}: {error}") from error


def _without_value(measured: Measured) -> list[str]:
    """A warning of each metric of the user's that is no number on these images."""
    return [
        f"{metric.title} ({metric.key}) has no value on these images: it is {measured.figures[metric.key].value}"
        for metric in measured.own
        if not np.isfinite(measured.figures[metric.key].value)
    ]


def _plain_numbers(value: object) -> Any:
    """Numbers and arrays of NumPy in JSON's types."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"JSON knows no {type(value).__name__}")


def _keep(model: TrainedModel, images: TestImages, measured: Measured, record: dict[str, Any], out: Path) -> None:
    """Write predictions, arrays, pictures and, last, the record."""
    out.mkdir(parents=True, exist_ok=True)
    array = measured.predicted.prediction.array
    table = prediction_table(measured.predicted, images.cutouts, model.task, sets=measured.sets)
    truths = [pl.Series(name, values) for name, values in model.task.truth_columns(images.truth).items()]
    table.with_columns(truths).write_parquet(out / "predictions.parquet")
    if images.pixels is None:
        np.savez(out / "arrays.npz", predicted=array, truth=images.truth)
    else:  # half the size, and as precise as images are
        np.savez(out / "arrays.npz", predicted=array.astype(np.float32), truth=images.truth, images=images.pixels)
    gallery = model.task.gallery(array, images.truth)
    rows = np.array([*gallery.examples, *gallery.mistakes], dtype=int)
    shown = np.nan_to_num(np.asarray(images.cutouts.images[rows], dtype=np.float32))
    np.save(out / "pictures.npy", drawn_images(shown, images.cutouts.info.bands).astype(np.float32))
    record |= _described(gallery, images.cutouts) | {"mistakes_title": model.task.mistakes_title}
    if gallery.explained:
        _keep_explanations(model, images.cutouts, gallery, measured.predicted.adapt, out)
    if gallery.rebuilt:
        fitting, sky = _fitting(images.cutouts, np.array(gallery.rebuilt), measured.predicted.adapt)
        np.save(out / "reconstructions.npy", reconstructions(model, fitting, noise=sky))
        record["rebuilt"] = list(gallery.rebuilt_captions)
    (out / "evaluation.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def _described(gallery: Gallery, cutouts: Cutouts) -> dict[str, Any]:
    """Captions of the pictures."""
    ids = cutouts.ids
    confidence: list[float | None] = list(gallery.confidence) or [None] * len(gallery.mistakes)
    mistakes = [
        {"id": ids[row], "true": true, "called": called, "p": p}
        for row, true, called, p in zip(gallery.mistakes, gallery.truths, gallery.called, confidence, strict=True)
    ]
    described: dict[str, Any] = {"examples": list(gallery.captions), "mistakes": mistakes}
    return described | ({"explained": list(gallery.explained_captions)} if gallery.explained else {})


def _keep_explanations(model: TrainedModel, cutouts: Cutouts, gallery: Gallery, adapt: Adaptation, out: Path) -> None:
    """What each pixel of some images adds to an output."""
    rows = np.array(gallery.explained)
    images, sky = _fitting(cutouts, rows, adapt)
    catalog = catalog_rows(model, cutouts)
    beside = None if catalog is None else catalog[rows]
    maps = attributions(model, images, list(gallery.explained_outputs), noise=sky, catalog=beside)
    np.save(out / "explanations.npy", np.stack([images[:, 0].numpy(), maps]).astype(np.float32))


def _fitting(cutouts: Cutouts, rows: np.ndarray, adapt: Adaptation) -> tuple[Tensor, Tensor | None]:
    """Images (n, C, H, W) of some rows as they fit the model, and the noise of their sky (n, C) where it is known."""
    read = np.asarray(cutouts.images[rows], dtype=np.float32)
    ids = cutouts.ids
    checked = check_finite(read, [ids[row] for row in rows], cutouts.where, mask=True)
    return adapt.with_noise(checked, None if cutouts.noise is None else cutouts.noise[rows])


def _test_rows(cutouts: Cutouts, model: TrainedModel, run: Path) -> Cutouts:
    """The rows that are marked for the test, or all; refused if the model has seen them."""
    seen = how_seen(model.config.data, cutouts.info)
    if seen == "same seed":
        raise DataError(
            f"{cutouts.where}: simulated images of a preset and a seed ({cutouts.info.seed}) that the model was trained or "
            "validated on; simulate others with another --seed"
        )
    if "split" in cutouts.catalog.columns and "test" in cutouts.catalog["split"].to_list():
        return cutouts.subset(np.flatnonzero((cutouts.catalog["split"] == "test").to_numpy()))
    if seen is not None or _same_folder(cutouts, model, run):
        raise DataError(
            f"{cutouts.where}: these are the images the model was trained on; evaluate on others, or import them "
            "with --split 0.8,0.1,0.1 and train again"
        )
    return cutouts


def _without_learned(cutouts: Cutouts, model: TrainedModel) -> Cutouts:
    """Images without those of the target whose labels an adapted model has learned."""
    target = model.config.data.get("target") or {}
    learned = set(target.get("labelled", ()))
    if not learned or cutouts.info.checksum != target.get("checksum"):
        return cutouts
    return cutouts.subset(
        np.array([row for row, name in enumerate(cutouts.ids) if name not in learned], dtype=np.int64)
    )


def _check_unseen(cutouts: Cutouts, run: Path, *, trust_code: bool) -> None:
    """Refuse images that have both the identifiers and the pixels of training images, in whatever folder or split they lie.

    Images of one identifier are compared by their centres, `COMPARED` of them at most, as long as the training images lie
    where they did.
    """
    if not (run / "split.parquet").is_file() or not (run / "run.json").is_file():
        return
    split = pl.read_parquet(run / "split.parquet")
    used = set(split.filter(pl.col("split") != "test")["id"])
    shared = [row for row, number in enumerate(cutouts.ids) if number in used]
    if not shared:
        return
    try:
        job = recorded_job(run, trust_code=trust_code)
        training = open_with(job.data, job.options)
    except DarklensError:
        return
    places = {number: place for place, number in enumerate(training.ids)}
    compared = [row for row in shared if cutouts.ids[row] in places][:COMPARED]
    alike = [
        row for row in compared if _same_pixels(cutouts.images[[row]], training.images[[places[cutouts.ids[row]]]])
    ]
    if alike:
        raise DataError(
            f"{cutouts.where}: {len(alike):,} of {len(compared):,} images with identifiers of training images are the same "
            f"images, {cutouts.ids[alike[0]]} among them; evaluate on others, or split before training (darklens import "
            "--split)"
        )


def _same_pixels(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two images (1, C, H, W) agree about their centres, where both have pixels, and hold anything at all."""
    if one.shape[1] != other.shape[1]:
        return False
    side = min(*one.shape[2:], *other.shape[2:])
    first, second = (crop_or_pad(image, side).astype(np.float32) for image in (one, other))
    return bool(np.array_equal(first, second, equal_nan=True) and np.nanmin(first) < np.nanmax(first))


def _same_folder(cutouts: Cutouts, model: TrainedModel, run: Path) -> bool:
    """Whether these are the training images by folder and ids, where there is no checksum to tell."""
    trained = model.config.data
    if cutouts.info.checksum is not None and trained.get("checksum") is not None:
        return False
    split = run / "split.parquet"
    same_name = trained.get("source") == Path(cutouts.info.source).name
    return same_name and split.is_file() and set(cutouts.ids) <= set(pl.read_parquet(split)["id"])
