"""The page of a comparison of pre-trainings: what labels are worth to each, as HTML, Markdown, JSON and a table."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from darklens.evaluation.bootstrap import Floats, Interval, Metric, figure_text, intervals_over_seeds
from darklens.plots.few_labels import curves_against_labels
from darklens.progress import progress_bar
from darklens.report.page import environment, svg, write_page
from darklens.tasks.base import Task

PROBE, FINETUNED = "probe", "finetuned"
TITLES = {PROBE: "Linear probe of frozen features", FINETUNED: "Fine-tuned"}
KEYS = ("macro_auc", "auc", "accuracy")
"""Metrics that are shown, where a task has them; the first one is that of differences."""


@dataclass(frozen=True)
class Cell:
    """Predictions of the test images by one encoder that learned from one draw of labelled images.

    Attributes
    ----------
    encoder
        Its name among those that are compared.
    how
        ``probe`` or ``finetuned``.
    labels
        Labelled images of each class; None for all that there are.
    draw
        Number of the draw, which all encoders share.
    predicted
        (N, K), as the task predicts.
    seconds
        What it took.
    """

    encoder: str
    how: str
    labels: int | None
    draw: int
    predicted: np.ndarray
    seconds: float


def compare(
    cells: Sequence[Cell], baselines: Mapping[str, str], task: Task, truth: np.ndarray, *, seed: int = 0
) -> list[dict[str, Any]]:
    """Return a row for each way of learning, number of labels and encoder, the best encoder first.

    Parameters
    ----------
    cells
        All predictions, of the same test images.
    baselines
        For each encoder, that with random weights which it is compared with; for such a one, itself.
    task
        That was learned.
    truth
        Label numbers (N,) of the test images.
    seed
        Of the bootstrap.

    Returns
    -------
    list
        ``figures`` are means over the draws, with intervals that hold the choice of the test images and the scatter of the
        draws. ``to_random`` and ``to_best`` are differences of the first metric to the baseline, and to the best other
        encoder that was pre-trained: both learned from the same images, so that the difference is taken draw by draw and
        resample by resample. None where there is nothing to compare with. Which other one is best is seen on the test
        images, so a difference to it is a little too small.
    """
    groups: dict[tuple[str, int | None], dict[str, dict[int, Cell]]] = {}
    for cell in cells:
        groups.setdefault((cell.how, cell.labels), {}).setdefault(cell.encoder, {})[cell.draw] = cell
    rows = []
    with progress_bar("comparing the encoders") as advance:
        for number, ((how, labels), encoders) in enumerate(groups.items(), 1):
            rows += _group(how, labels, encoders, baselines, task, truth, seed=seed)
            advance(number, len(groups))
    most = max((row["labels"] or 0 for row in rows), default=0)
    return sorted(rows, key=lambda row: ([PROBE, FINETUNED].index(row["how"]), row["labels"] or most + 1))


def _group(
    how: str,
    labels: int | None,
    encoders: Mapping[str, Mapping[int, Cell]],
    baselines: Mapping[str, str],
    task: Task,
    truth: np.ndarray,
    *,
    seed: int,
) -> list[dict[str, Any]]:
    """Rows of all encoders that learned in one way from one number of labels, the best first."""
    measured = {
        name: {draw: _metrics(task, cell.predicted, truth) for draw, cell in draws.items()}
        for name, draws in encoders.items()
    }
    first = next(iter(next(iter(next(iter(measured.values())).values()))))
    rows: list[dict[str, Any]] = []
    for name, draws in measured.items():
        found = intervals_over_seeds([list(metrics.values()) for metrics in draws.values()], len(truth), seed=seed)
        rows.append({
            "how": how, "labels": labels, "encoder": name, "draws": len(draws),
            "figures": {key: interval.record() for key, interval in found.items()},
            "titles": {metric.key: metric.title for metric in next(iter(draws.values())).values()},
            "seconds": float(np.mean([cell.seconds for cell in encoders[name].values()])),
        })  # fmt: skip
    rows.sort(key=lambda row: -row["figures"][first]["value"])
    for row in rows:
        name = row["encoder"]
        others = [each["encoder"] for each in rows if each["encoder"] not in (name, baselines[each["encoder"]])]
        for key, other in (("to_random", baselines[name]), ("to_best", next(iter(others), None))):
            row[key] = None
            if other in measured and other != name:
                minus = _difference(measured[name], measured[other], first, len(truth), seed)
                row[key] = None if minus is None else {"other": other} | minus.record()
    return rows


def _metrics(task: Task, predicted: np.ndarray, truth: np.ndarray) -> dict[str, Metric]:
    """The metrics that are shown, by key, whose values of resamples are remembered: several differences need them."""
    there = {metric.key: metric for metric in task.metrics(predicted, truth)}
    chosen = [there[key] for key in KEYS if key in there]
    return {metric.key: dataclasses.replace(metric, statistic=_remembered(metric)) for metric in chosen}


def _remembered(metric: Metric) -> Any:
    """A metric's statistic that computes its values for the same weights once."""
    known: dict[bytes, Floats] = {}

    def statistic(weights: Floats) -> Floats:
        key = blake2b(weights.tobytes()).digest()
        if key not in known:
            known[key] = metric.statistic(weights)
        return known[key]

    return statistic


def _difference(
    one: Mapping[int, Mapping[str, Metric]], other: Mapping[int, Mapping[str, Metric]], key: str, n: int, seed: int
) -> Interval | None:
    """The mean over draws that both have of one's metric minus the other's; None without such draws."""

    def minus(a: Metric, b: Metric) -> Metric:
        return Metric(key, a.title, lambda weights: a.statistic(weights) - b.statistic(weights), better="neither")

    shared = sorted(set(one) & set(other))
    pairs = [[minus(one[draw][key], other[draw][key])] for draw in shared]
    return intervals_over_seeds(pairs, n, seed=seed)[key] if pairs else None


def write_board(
    cells: Sequence[Cell],
    encoders: Sequence[tuple[str, str, str]],
    settings: Mapping[str, Any],
    out: Path,
    *,
    task: Task,
    truth: np.ndarray,
    failed: Mapping[str, str],
) -> tuple[Path, pl.DataFrame]:
    """Write ``pretraining.html``, ``.md`` and ``.json`` into a folder; return the page, and the same as a table.

    Parameters
    ----------
    cells
        All predictions.
    encoders
        Of each encoder: its name in ``cells``, its name for readers, and the first of that with random weights.
    settings
        Of the benchmark; ``pool`` is the number of images that labels were drawn from.
    out
        The folder.
    task
        That was learned.
    truth
        Label numbers (N,) of the test images.
    failed
        What could not be trained, and why.
    """
    called = {name: title for name, title, _ in encoders}
    rows = compare(cells, {name: base for name, _, base in encoders}, task, truth, seed=int(settings["seed"]))
    content = {"settings": dict(settings), "n": len(truth), "rows": rows, "encoders": called, "failed": dict(failed)}
    (out / "pretraining.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    (out / "pretraining.md").write_text(markdown(rows, settings, len(truth), failed), "utf-8")
    everything = settings["pool"] / len(task.output_names)
    page = (
        environment()
        .get_template("pretraining_board.html")
        .render(
            css=(resources.files("darklens.report") / "templates" / "report.css").read_text("utf-8"),
            rows=rows,
            settings=settings,
            said=said_of(settings, rows, len(truth)),
            charts=[svg(figure) for figure in _charts(rows, list(called), everything)],
            ways={how: [row for row in rows if row["how"] == how] for how in TITLES},
            titles=TITLES,
            called=called,
            difference=difference_text,
            failed=failed,
        )
    )
    return write_page(page, out / "pretraining.html"), table(rows)


def _charts(rows: Sequence[Mapping[str, Any]], names: Sequence[str], everything: float) -> list[Any]:
    """A chart for each way of learning and metric; all labels are drawn at their mean number for a class."""
    charts = []
    for how in TITLES:
        of_way = [row for row in rows if row["how"] == how]
        for key, title in of_way[0]["titles"].items() if of_way else ():
            curves = {
                name: [
                    {"labels": row["labels"] or everything} | row["figures"][key]
                    for row in of_way
                    if row["encoder"] == name
                ]
                for name in names
            }
            there = {name: sorted(points, key=lambda p: p["labels"]) for name, points in curves.items() if points}
            charts.append(curves_against_labels(there, metric=title, title=TITLES[how]))
    return charts


def difference_text(difference: Mapping[str, Any] | None) -> str:
    """Return a difference with its interval, as text."""
    if difference is None:
        return "–"
    ends = f" [{difference['low']:+.3f}, {difference['high']:+.3f}]" if "low" in difference else ""
    return f"{difference['value']:+.3f}{ends}"


def table(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Return the rows of `compare` with a column for each number."""
    flat = []
    for row in rows:
        each: dict[str, Any] = {"how": row["how"], "labels_per_class": str(row["labels"] or "all")}
        each |= {"encoder": row["encoder"], "draws": row["draws"]}
        numbers = row["figures"] | {"difference_to_random": row["to_random"], "difference_to_best": row["to_best"]}
        for name, figure in numbers.items():
            for end, column in (("value", name), ("low", f"{name}_low"), ("high", f"{name}_high")):
                each[column] = None if figure is None else figure.get(end)
        each["best_other"] = None if row["to_best"] is None else row["to_best"]["other"]
        flat.append(each | {"seconds": row["seconds"]})
    return pl.DataFrame(flat, infer_schema_length=None)


def markdown(rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], n: int, failed: Mapping[str, str]) -> str:
    """Return the comparison as a table for each way of learning, and what it was measured on.

    Parameters
    ----------
    rows
        Of `compare`.
    settings
        Of the benchmark.
    n
        Number of test images.
    failed
        What could not be trained, and why.
    """
    lines = []
    for how, title in TITLES.items():
        of_way = [row for row in rows if row["how"] == how]
        if not of_way:
            continue
        head = ["labels a class", "encoder", *of_way[0]["titles"].values(), "to random weights", "to the best other"]
        lines += [f"**{title}**", "", f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
        for row in of_way:
            figures = [figure_text(row["figures"][key]) for key in row["titles"]]
            differences = [difference_text(row["to_random"]), difference_text(row["to_best"])]
            lines.append(f"| {row['labels'] or 'all'} | `{row['encoder']}` | {' | '.join([*figures, *differences])} |")
        lines.append("")
    lines.append(said_of(settings, rows, n))
    lines += [f"Left out: `{name}`: {reason}" for name, reason in failed.items()]
    return "\n".join(lines) + "\n"


def said_of(settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], n: int) -> str:
    """Return on what a comparison was measured, in sentences."""
    several = settings["draws"] > 1
    first = next(iter(rows[0]["titles"].values())) if rows else "the first metric"
    held = "the choice of the test images" + (" and the scatter of the draws (Student's t)" if several else " alone")
    return (
        f"`{settings['data'] or settings['preset']}`, {settings['pool']:,} images to pre-train on and to draw labels from, "
        f"{n:,} test images; pre-training {settings['budget']}, once each with seed {settings['seed']}; fine-tuning "
        f"{settings['finetuning_budget']} with `{settings['finetuning']}`, a fifth of the labelled images choosing epochs; "
        f"{settings['draws']} {'draws' if several else 'draw'} of the labelled images; {settings['machine']}. In brackets: "
        f"95% intervals, which hold {held}. Differences are of {first}, paired by draw and test image; the best other is "
        "the best pre-trained encoder beside, as seen on the test images."
    )
