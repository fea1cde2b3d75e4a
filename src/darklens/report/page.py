"""The page: one self-contained HTML file for one run or several, with nothing to fetch."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from darklens.commands import command
from darklens.errors import DataError
from darklens.evaluation.bootstrap import (
    IF_CALIBRATED,
    Metric,
    current_figures,
    paired_differences,
    range_text,
    value_text,
)
from darklens.inference.config import ModelConfig, read_config
from darklens.inference.model import load_task
from darklens.plots import charts
from darklens.plots.pictures import draw_attribution, draw_image
from darklens.plots.reconstructions import rebuilt_images
from darklens.plots.style import style
from darklens.progress import progress_bar
from darklens.schema import read_json
from darklens.tasks.base import Task
from darklens.training.history import epoch_history


@dataclass(frozen=True)
class RunRecord:
    """A trained and evaluated run.

    Attributes
    ----------
    path
        Its folder.
    run
        The record of its training.
    config
        The description of its model.
    task
        What it has learned to do.
    evaluation
        The newest evaluation, with its ``folder``.
    epochs
        Logged values of each epoch.
    name
        What a page calls it.
    """

    path: Path
    run: dict[str, Any]
    config: ModelConfig
    task: Task
    evaluation: dict[str, Any]
    epochs: list[dict[str, float]]
    name: str


def write_report(runs: Sequence[Path], out: Path, *, name: str | None = None, trust_code: bool = False) -> Path:
    """Write the page of one run, or of several with a table that compares them.

    Parameters
    ----------
    runs
        Trained and evaluated runs.
    out
        The page.
    name
        Of the evaluation that is reported of each run; by default its newest.
    trust_code
        Whether the code of a user's own task, which a run carries, may run.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    DataError
        If a run is not trained, or has no evaluation to report.
    UntrustedCodeError
        If a run's task is a user's own, and ``trust_code`` is not set.
    """
    records = _named([read_run(run, name, trust_code=trust_code) for run in runs])
    line = command("report", *runs, out=out, name=name, trust_code=trust_code or None)
    sections: list[dict[str, Any]] = []
    with progress_bar("drawing the report") as advance:
        for record in records:
            sections.append(_section(record, line))
            advance(len(sections), len(records))
    css = (resources.files("darklens.report") / "templates" / "report.css").read_text("utf-8")
    page = (
        environment()
        .get_template("report.html")
        .render(
            title=sections[0]["name"] if len(sections) == 1 else f"{len(sections)} runs compared",
            css=css,
            sections=sections,
            comparison=_comparison(records) if len(sections) > 1 else None,
            version=records[0].run["versions"]["darklens"],
        )
    )
    return write_page(page, out)


def environment() -> Any:
    """Return the templates of pages, with a filter for figures."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("darklens.report", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters["figure"] = _figure_text
    made.globals["if_calibrated"] = IF_CALIBRATED
    made.filters["p_value"] = _p_text
    made.filters["range"] = range_text
    made.filters["count"] = count_text
    return made


def write_page(page: str, out: Path) -> Path:
    """Write a page whole or not at all."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = out.with_name(out.name + ".tmp")
        temporary.write_text(page, "utf-8")
        temporary.replace(out)
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror or error}") from error
    return out


def read_run(path: Path, name: str | None = None, *, trust_code: bool = False) -> RunRecord:
    """Read a trained and evaluated run.

    Parameters
    ----------
    path
        The run folder.
    name
        Of the evaluation; by default the newest.
    trust_code
        Whether the code of a user's own task, which the run carries, may run.

    Returns
    -------
    RunRecord
        What is on record.

    Raises
    ------
    DataError
        If it is not trained, or not evaluated.
    UntrustedCodeError
        If its task is a user's own, and ``trust_code`` is not set.
    """
    for part in ("run.json", "model/config.json"):
        if not (path / part).is_file():
            raise DataError(f"{path}: not a trained run ({Path(part).name} is missing)")
    found = sorted(path.glob("evaluations/*/evaluation.json"), key=lambda p: p.stat().st_mtime)
    if not found:
        raise DataError(f"{path}: nothing to report yet; evaluate the run first (darklens evaluate)")
    if name is not None:
        names = [file.parent.name for file in found]
        found = [file for file in found if file.parent.name == name]
        if not found:
            raise DataError(f"{path}: no evaluation {name}; there are {', '.join(names)}")
    config = read_config(path / "model")
    task = load_task(path / "model", config, trust_code=trust_code)
    evaluation = read_json(found[-1], DataError) | {"folder": found[-1].parent}
    if task.predicts == "images" and (images := _test_images(found[-1].parent)) is not None:
        task = task.with_images(images)
    if (prior := evaluation.get("options", {}).get("prior")) is not None:
        task = task.with_prior(prior)
    if "figures" in evaluation:
        evaluation["figures"] = current_figures(evaluation["figures"])
    run = read_json(path / "run.json", DataError)
    return RunRecord(path, run, config, task, evaluation, epoch_history(path), path.resolve().name)


def titles(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """Return what a reader calls each metric of an evaluation; version 0.1 did not keep it."""
    described = evaluation.get("metrics", {})
    plain = {key: key.replace("_", " ") for key in evaluation["figures"]}
    return plain | {key: _title(text) for key, text in described.items()}


def _title(described: Mapping[str, Any]) -> str:
    return f"{described['title']} ({described['unit']})" if described.get("unit") else str(described["title"])


def read_arrays(folder: Path, task: Task) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return predictions (N, K) and truths of an evaluation; None if they were not kept."""
    if (folder / "arrays.npz").is_file():
        with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
            return arrays["predicted"], arrays["truth"]
    table = pl.read_parquet(folder / "predictions.parquet")  # of version 0.1
    names = list(task.output_names)
    if set(names) <= set(table.columns) and table["true"].dtype.is_numeric():
        return table.select(names).to_numpy(), table["true"].to_numpy()[:, None]
    return None, None


def _test_images(folder: Path) -> np.ndarray | None:
    """The images (N, C, H, W) that were evaluated, where they were kept."""
    if not (folder / "arrays.npz").is_file():
        return None
    with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
        return arrays.get("images")


def _named(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Records with names that tell them apart: of folders of one name, with those around them."""
    names = [record.path.resolve().parts for record in records]
    length = 1
    while length < max(map(len, names)) and len({name[-length:] for name in names}) < len(set(names)):
        length += 1
    pairs = zip(records, names, strict=True)
    return [dataclasses.replace(record, name="/".join(name[-length:])) for record, name in pairs]


def _section(record: RunRecord, line: str) -> dict[str, Any]:
    evaluation, task = record.evaluation, record.task
    training = record.run["training"]
    drawn = list(task.panels(evaluation, *read_arrays(evaluation["folder"], task)))
    if record.epochs:  # an ensemble has none of its own
        curve = task.validation_curve
        drawn.append(charts.learning_curves(record.epochs, training["best_epoch"], metric=curve))
    pictures = np.load(evaluation["folder"] / "pictures.npy", allow_pickle=False)
    examples = [
        {"caption": caption, "src": thumbnail(image)}
        for image, caption in zip(pictures, evaluation["examples"], strict=False)
    ]
    mistakes = [
        mistake | {"src": thumbnail(image)}
        for image, mistake in zip(pictures[len(examples) :], evaluation["mistakes"], strict=True)
    ]
    return {
        "explanations": _explanations(evaluation),
        "reconstructions": _reconstructions(evaluation),
        "name": record.name,
        "run": record.run,
        "config": record.config,
        "training": training,
        "evaluation": evaluation,
        "titles": titles(evaluation),
        "warnings": evaluation.get("warnings", []),
        "headlines": [(key, evaluation["figures"][key]) for key in task.headlines if key in evaluation["figures"]],
        "plots": [svg(figure) for figure in drawn],
        "examples": examples,
        "mistakes": mistakes,
        "mistakes_title": task.mistakes_title,
        "reproduce": [text for text in (record.run["command"], evaluation.get("command"), line) if text],
    }


def _explanations(evaluation: dict[str, Any]) -> list[dict[str, str]]:
    """An image of each class, and what its pixels add to the answer."""
    if "explained" not in evaluation:
        return []
    pairs = np.load(evaluation["folder"] / "explanations.npy", allow_pickle=False).swapaxes(0, 1)
    return [
        {"label": label, "image": thumbnail(image), "map": thumbnail(image, found)}
        for label, (image, found) in zip(evaluation["explained"], pairs, strict=True)
    ]


def _reconstructions(evaluation: dict[str, Any]) -> str | None:
    """Images that a masked autoencoder rebuilt, as SVG text; None of other models."""
    if not evaluation.get("rebuilt"):
        return None
    parts = np.load(evaluation["folder"] / "reconstructions.npy", allow_pickle=False)
    return svg(rebuilt_images(parts, evaluation["rebuilt"]))


def _comparison(records: Sequence[RunRecord]) -> dict[str, Any]:
    """The metrics of several runs, and the paired differences of those that were evaluated on the same images."""
    tests = [record.evaluation for record in records]
    sets = {_images_of(test) for test in tests}
    named: dict[str, str] = {}
    for test in tests:
        for key, title in titles(test).items():
            # Evaluations of searches for different priors have different titles.
            if title not in named.setdefault(key, title).split("; "):
                named[key] += f"; {title}"
    comparison = {"keys": list(named), "titles": named, "same_set": len(sets) == 1, "differences": []}
    return comparison | {"differences": differences(records) if len(sets) == 1 else []}


def _images_of(evaluation: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells the images of one evaluation from those of another."""
    data = evaluation["data"]
    if data["checksum"] is not None:
        return data["checksum"], evaluation["n"]
    return data["source"], data.get("seed"), data.get("preset"), evaluation["n"]


def differences(
    records: Sequence[RunRecord], names: Sequence[str] | None = None, *, baselines: bool = False
) -> list[dict[str, Any]]:
    """Return the paired difference of each two runs, or recipes, in the metric that ranks them.

    Runs are left out that were evaluated on other images, or by a version that did not keep predictions.

    Parameters
    ----------
    records
        Trained and evaluated runs.
    names
        For each, what it is called; by default its own name. Runs of one name are trainings of one recipe, whose mean is
        compared.
    baselines
        Whether methods without training that the task knows are compared as well.

    Returns
    -------
    list
        For each pair of names, the fields of `darklens.evaluation.bootstrap.Difference` and the ``title`` of the metric.
    """
    metrics: dict[str, list[Metric]] = {}
    truths: list[np.ndarray] = []
    for record, name in zip(records, names or [each.name for each in records], strict=True):
        predicted, truth = read_arrays(record.evaluation["folder"], record.task)
        if predicted is None or truth is None or (truths and not np.array_equal(truths[0], truth)):
            continue
        if record.task.ranking != records[0].task.ranking:
            continue
        if _images_of(record.evaluation) != _images_of(records[0].evaluation):
            continue
        found = record.task.metrics(predicted, truth)
        metrics.setdefault(name, []).append(next(metric for metric in found if metric.key == record.task.ranking))
        truths.append(truth)
    if baselines and truths:
        task = records[0].task
        for name, predicted in task.baselines(truths[0]):
            metrics[name] = [next(each for each in task.metrics(predicted, truths[0]) if each.key == task.ranking)]
    if len(metrics) < 2:
        return []
    title = next(iter(metrics.values()))[0].title
    return [dataclasses.asdict(each) | {"title": title} for each in paired_differences(metrics, len(truths[0]))]


def count_text(number: int) -> str:
    """Return a large number in millions, a small one in full."""
    return f"{number / 1e6:.1f}M" if number >= 1e5 else f"{number:,}"


def _figure_text(figure: dict[str, Any]) -> str:
    return value_text(figure) if abs(figure["value"]) < 100 else f"{figure['value']:.1f}"


def _p_text(p: float) -> str:
    return "< 0.001" if p <= 0.001 else f"{p:.3f}"


def svg(figure: Any) -> str:
    """A figure as SVG text for the page, without what would make each run's file differ."""
    import matplotlib
    import matplotlib.pyplot as plt

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "darklens", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def thumbnail(image: np.ndarray, attribution: np.ndarray | None = None) -> str:
    """An image, or what its pixels add to an answer, as a PNG in a data address."""
    with style() as plt:
        figure = plt.figure(figsize=(1.4, 1.4), dpi=110)
        if attribution is None:
            draw_image(figure.add_axes((0, 0, 1, 1)), image)
        else:
            draw_attribution(figure.add_axes((0, 0, 1, 1)), image, attribution)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        plt.close(figure)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
