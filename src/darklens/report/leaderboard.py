"""The leaderboard of a benchmark: HTML to look at, Markdown to paste, JSON to compute with."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from darklens.evaluation.bootstrap import IF_CALIBRATED, figure_text
from darklens.inference.carried import carries_only
from darklens.plots import charts
from darklens.report.page import count_text, differences, environment, read_run, svg, titles, write_page
from darklens.tasks.base import Task


@dataclass(frozen=True)
class Leaderboard:
    """Runs on the same images, ranked.

    Attributes
    ----------
    task
        That all of them have learned.
    rows
        What is said of each run, the best first.
    differences
        Paired differences of the metric that ranks.
    ranking
        Key, title, direction and perfect value of that metric.
    settings
        Of the benchmark.
    failed
        Recipes that could not be trained, and why.
    """

    task: Task
    rows: list[dict[str, Any]]
    differences: list[dict[str, Any]]
    ranking: dict[str, Any]
    settings: Mapping[str, Any]
    failed: Mapping[str, str]


def rank_runs(
    runs: Sequence[Path],
    settings: Mapping[str, Any],
    failed: Mapping[str, str],
    *,
    own: Collection[str] = (),
    trust_code: bool = False,
) -> Leaderboard:
    """Read trained and evaluated runs, and rank them by the metric that their task names.

    Parameters
    ----------
    runs
        Run folders, all of one task, with an evaluation ``test`` on the same images.
    settings
        Of the benchmark.
    failed
        Recipes that could not be trained, and why.
    own
        The SHA-256 of files of code that the user has named, which may run.
    trust_code
        Whether the code of a user's own task, which the runs carry, may run.

    Returns
    -------
    Leaderboard
        The best first.
    """
    records = [read_run(run, "test", trust_code=trust_code or carries_only(run / "model", own)) for run in runs]
    task, evaluation = records[0].task, records[0].evaluation
    described = evaluation["metrics"][task.ranking]
    ranking = {"key": task.ranking, **described}
    sign = -1 if described["better"] == "higher" else 1
    rows = [_row(record) for record in records]
    names = {record.name: record.run["recipe"]["name"] for record in records}
    paired = [each | {k: names[each[k]] for k in ("first", "second")} for each in differences(records)]
    ranked = sorted(rows, key=lambda row: sign * row["figures"][task.ranking]["value"])
    return Leaderboard(task, ranked, paired, ranking, settings, failed)


def _row(record: Any) -> dict[str, Any]:
    """What the leaderboard says of a run."""
    evaluation, training, recipe = record.evaluation, record.run["training"], record.run["recipe"]
    return {
        "recipe": recipe["name"],
        "name": record.name,
        "description": recipe["description"],
        "source": recipe["source"],
        "figures": evaluation["figures"],
        "titles": titles(evaluation),
        "warnings": evaluation.get("warnings", []),
        "evaluation": {k: evaluation[k] for k in evaluation if k not in ("folder", "figures", "mistakes", "examples")},
        "n": evaluation["n"],
        "parameters": training["parameters"],
        "seconds": training["seconds"],
        "images_seen": training["images"],
        "training_images_per_second": training["images_per_second"],
        "inference_images_per_second": evaluation["images_per_second"],
        "peak_memory_mib": training["peak_memory_mib"],
        "seconds_to_goal": _seconds_to_goal(record.task, record.epochs),
        "precision": training["precision"],
        "threads": training["threads"],
    }


def _seconds_to_goal(task: Task, epochs: Sequence[Mapping[str, float]]) -> float | None:
    """Seconds of training after which the validation images first reached the task's goal; None if never, or no goal.

    Of an ensemble, which is only there at its end, there are none.
    """
    goal = task.goal
    if goal is None:
        return None
    key = f"validation/{goal.key}"
    reached = [each["seconds"] for each in epochs if "seconds" in each and each.get(key, -math.inf) >= goal.value]
    return round(min(reached), 1) if reached else None


def write_leaderboard(board: Leaderboard, out: Path) -> Path:
    """Write ``leaderboard.html``, ``.md`` and ``.json`` into ``out``; return the page."""
    content = {"settings": board.settings, "ranking": board.ranking, "rows": board.rows}
    content |= {"differences": board.differences, "failed": dict(board.failed)}
    (out / "leaderboard.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    (out / "leaderboard.md").write_text(markdown(board), "utf-8")
    rows = board.rows
    evaluations = {f"{i}  {row['name']}": row["evaluation"] for i, row in enumerate(rows, 1)}
    cost = charts.skill_against_cost(
        rows, board.ranking["key"], title=board.ranking["title"], perfect=board.ranking["perfect"]
    )
    page = (
        environment()
        .get_template("leaderboard.html")
        .render(
            css=(resources.files("darklens.report") / "templates" / "report.css").read_text("utf-8"),
            rows=rows,
            settings=board.settings,
            failed=board.failed,
            columns=_columns(board),
            goal=board.task.goal,
            ranking=board.ranking,
            plots=[svg(figure) for figure in (*board.task.comparison_panels(evaluations), cost)],
            pairs=_pairs(rows, board.differences),
        )
    )
    return write_page(page, out / "leaderboard.html")


def _columns(board: Leaderboard) -> list[str]:
    """Keys of the metrics that have a column: the headlines, then what is particular to these data (AUCs of classes)."""
    found = board.rows[0]["figures"]
    particular = [key for key in found if key.startswith("auc_")]
    return [*(key for key in board.task.headlines if key in found), *particular]


def markdown(board: Leaderboard) -> str:
    """Return the ranking as a table, with 95% intervals, and what it was measured on."""
    task, rows, settings = board.task, board.rows, board.settings
    keys = [key for key in task.headlines if key in rows[0]["figures"]]
    goal = [f"time to {task.goal.title}"] if task.goal else []
    head = ["recipe", *(rows[0]["titles"][key] for key in keys), "parameters", "images seen", "trained in"]
    head += ["training images/s", *goal, "inference images/s", "memory"]
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for row in rows:
        figures = [figure_text(row["figures"][key]) for key in keys]
        weak = " (see below)" if row.get("warnings") else ""
        reached = "–" if row["seconds_to_goal"] is None else f"{row['seconds_to_goal']:.0f} s"
        cells = [f"`{row['name']}`{weak}", *figures, count_text(row["parameters"]), f"{row['images_seen']:,}"]
        cells += [f"{row['seconds']:.0f} s", f"{row['training_images_per_second']:.0f}", *([reached] if goal else [])]
        cells += [f"{row['inference_images_per_second']:.0f}", f"{row['peak_memory_mib'] / 1024:.1f} GiB"]
        lines.append(f"| {' | '.join(cells)} |")
    start = (
        "weights from ImageNet where a recipe asks for them" if settings["pretrained"] else "all from random weights"
    )
    calibrated = f"; {IF_CALIBRATED}" if any("if_calibrated" in rows[0]["figures"][key] for key in keys) else ""
    images = f"{settings['train_images']:,} training and " if settings.get("train_images") else ""
    lines += [
        "",
        f"`{settings['data'] or settings['preset']}`, {images}{rows[0]['n']:,} test images, "
        f"{settings['budget']} a recipe, seed {settings['seed']}, {start}; {settings['machine']}, "
        f"threads: {rows[0]['threads']}. In brackets: 95% bootstrap intervals{calibrated}.",
    ]
    for row in rows:
        lines += [f"`{row['name']}`: {warning.partition('; try')[0]}." for warning in row.get("warnings", [])]
    lines += [f"Left out: `{name}`: {reason}" for name, reason in board.failed.items()]
    return "\n".join(lines) + "\n"


def _pairs(
    rows: Sequence[Mapping[str, Any]], differences: Sequence[Mapping[str, Any]]
) -> list[list[Mapping[str, Any] | None]]:
    """For each pair of ranks (row minus column), their difference; None on the diagonal."""
    known: dict[tuple[str, str], dict[str, Any]] = {}
    for d in differences:
        known[d["first"], d["second"]] = dict(d)
        known[d["second"], d["first"]] = dict(d) | {"value": -d["value"], "low": -d["high"], "high": -d["low"]}
    names = [row["recipe"] for row in rows]
    return [[known.get((a, b)) for b in names] for a in names]
