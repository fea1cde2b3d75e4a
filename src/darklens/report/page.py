"""The page: one self-contained HTML file for one run or several, with nothing to fetch."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from darklens.commands import command
from darklens.errors import DataError
from darklens.progress import progress_bar
from darklens.report import plots
from darklens.report.pictures import draw_attribution, draw_image
from darklens.report.style import style
from darklens.training.history import epoch_history

HEADLINES = {
    "classify": ["accuracy", "macro_auc", "micro_auc", "ece"],
    "regress": ["rmse", "mae", "r2", "bias"],
}
NAMES = {
    "accuracy": "Accuracy", "macro_auc": "Macro AUC", "micro_auc": "Micro AUC", "ece": "ECE",
    "log_loss": "Log loss", "mse": "MSE", "rmse": "RMSE", "mae": "Mean absolute error", "r2": "R²", "bias": "Bias",
    "scatter": "Scatter", "coverage": "Coverage of prediction sets", "set_size": "Classes in a prediction set",
    "outlier_auc": "AUC of unlike images", "outliers_flagged": "Unlike images flagged",
    "test_images_flagged": "Test images flagged",
}  # fmt: skip


@dataclass(frozen=True)
class RunRecord:
    """The record, the model's configuration and the evaluations of a run folder."""

    path: Path
    run: dict[str, Any]
    config: dict[str, Any]
    evaluations: list[dict[str, Any]]
    epochs: list[dict[str, float]]


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Write the page of one run, or of several with a table that compares them.

    Raises
    ------
    DataError
        If a run is not trained, or has no evaluation to report.
    """
    records = [read_run(run) for run in runs]
    sections: list[dict[str, Any]] = []
    with progress_bar("drawing the report") as advance:
        for record in records:
            sections.append(_section(record))
            advance(len(sections), len(records))
    css = (resources.files("darklens.report") / "templates" / "report.css").read_text("utf-8")
    page = (
        environment()
        .get_template("report.html")
        .render(
            title=sections[0]["name"] if len(sections) == 1 else f"{len(sections)} runs compared",
            css=css,
            sections=sections,
            comparison=_comparison(sections) if len(sections) > 1 else None,
            version=records[0].run["versions"]["darklens"],
        )
    )
    return write_page(page, out)


def environment() -> Any:
    """Templates of pages, with filters for figures and their names."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("darklens.report", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters["figure"] = _figure_text
    made.filters["named"] = lambda key: NAMES.get(key, f"AUC {key.removeprefix('auc_')}")
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


def read_run(path: Path) -> RunRecord:
    """A trained and evaluated run."""
    try:
        run = json.loads((path / "run.json").read_text("utf-8"))
        config = json.loads((path / "model" / "config.json").read_text("utf-8"))
    except OSError as error:
        raise DataError(f"{path}: not a trained run ({Path(error.filename).name} is missing)") from error
    found = sorted(path.glob("evaluations/*/evaluation.json"), key=lambda p: p.stat().st_mtime)
    if not found:
        raise DataError(f"{path}: nothing to report yet; evaluate the run first (darklens evaluate)")
    evaluations = [json.loads(p.read_text("utf-8")) | {"folder": p.parent} for p in found]
    return RunRecord(path, run, config, evaluations, epoch_history(path))


def _section(record: RunRecord) -> dict[str, Any]:
    evaluation = record.evaluations[-1]
    task = record.config["task"]
    training = record.run["training"]
    drawn = {}
    if record.epochs:  # an ensemble has none of its own
        drawn["curves"] = plots.learning_curves(record.epochs, training["best_epoch"])
    if task == "classify":
        classes = evaluation["classes"]
        drawn["roc"] = plots.roc(evaluation["roc"], evaluation["figures"], classes)
        drawn["confusion"] = plots.confusion(evaluation["confusion"], classes)
        drawn["calibration"] = plots.calibration(evaluation["reliability"], evaluation["figures"]["ece"])
    else:
        table = pl.read_parquet(evaluation["folder"] / "predictions.parquet")
        output = evaluation["output"]
        drawn["scatter"] = plots.true_against_predicted(table["true"].to_numpy(), table[output].to_numpy(), output)
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
        "name": record.path.name,
        "task": task,
        "run": record.run,
        "config": record.config,
        "training": training,
        "evaluation": evaluation,
        "warnings": evaluation.get("warnings", []),
        "headlines": [(key, evaluation["figures"][key]) for key in HEADLINES[task]],
        "plots": {name: svg(figure) for name, figure in drawn.items()},
        "examples": examples,
        "mistakes": mistakes,
        "reproduce": _reproduce(record, evaluation),
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


def _comparison(sections: list[dict[str, Any]]) -> dict[str, Any]:
    keys = list(dict.fromkeys(key for s in sections for key in s["evaluation"]["figures"]))
    tests = [s["evaluation"] for s in sections]
    sets = {(t["data"]["checksum"] or t["data"]["source"], t["n"]) for t in tests}
    return {"keys": keys, "same_set": len(sets) == 1}


def _reproduce(record: RunRecord, evaluation: dict[str, Any]) -> list[str]:
    """Commands that make the run and the page again, as far as they are on record."""
    evaluated = evaluation.get("command")  # evaluations of version 0.1 have none
    commands = (record.run["command"], evaluated, command("report", record.path, out="report.html"))
    return [line for line in commands if line]


def _figure_text(figure: dict[str, Any]) -> str:
    digits = 4 if abs(figure["value"]) < 100 else 1
    return f"{figure['value']:.{digits}f}"


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
