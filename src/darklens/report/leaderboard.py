"""The leaderboard of a benchmark: HTML to look at, Markdown to paste, JSON to compute with."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from darklens.evaluation.bootstrap import IF_CALIBRATED, figure_text, intervals, intervals_over_seeds
from darklens.evaluation.calibration import Calibration
from darklens.inference.carried import carries_only
from darklens.plots import charts
from darklens.report.page import (
    RunRecord,
    count_text,
    differences,
    environment,
    read_arrays,
    read_run,
    svg,
    titles,
    write_page,
)
from darklens.tasks.base import Task

MEANS = ("parameters", "seconds", "images_seen", "training_images_per_second", "inference_images_per_second")
"""What a row gives as the mean over its seeds."""


@dataclass(frozen=True)
class Leaderboard:
    """Recipes on the same images, ranked.

    Attributes
    ----------
    task
        That all of them have learned.
    rows
        What is said of each recipe, the best first, and under ``runs`` of each of its trainings.
    differences
        Paired differences of the metric that ranks.
    ranking
        Key, title, direction and perfect value of that metric.
    settings
        Of the benchmark.
    failed
        Recipes that could not be trained, and why.
    trivial
        ``name`` and ``figures`` of the task's trivial prediction; None if it has none.
    baselines
        ``name`` and ``figures`` of each method without training that stands below the recipes.
    pictures
        Figures of matplotlib with test images as the recipes predict them.
    """

    task: Task
    rows: list[dict[str, Any]]
    differences: list[dict[str, Any]]
    ranking: dict[str, Any]
    settings: Mapping[str, Any]
    failed: Mapping[str, str]
    trivial: dict[str, Any] | None = None
    baselines: Sequence[dict[str, Any]] = ()
    pictures: Sequence[Any] = ()


def rank_runs(
    runs: Sequence[Path],
    settings: Mapping[str, Any],
    failed: Mapping[str, str],
    *,
    own: Collection[str] = (),
    trust_code: bool = False,
) -> Leaderboard:
    """Read trained and evaluated runs, and rank their recipes by the metric that their task names.

    Parameters
    ----------
    runs
        Run folders, all of one task, with an evaluation ``test`` on the same images. Those of a recipe that is trained
        with several seeds are called as `seed_folder` says.
    settings
        Of the benchmark; ``seed`` is the first.
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
    recipes: dict[str, list[RunRecord]] = {}
    for record in sorted(records, key=_seed):
        number = _seed(record) - settings["seed"]
        recipes.setdefault(record.name.removesuffix(seed_folder("", number)), []).append(record)
    rows = [_row(name, trainings) for name, trainings in recipes.items()]
    trained = [record for trainings in recipes.values() for record in trainings]
    paired = differences(trained, [record.run["recipe"]["name"] for record in trained], baselines=True)
    ranked = sorted(rows, key=lambda row: sign * row["figures"][task.ranking]["value"])
    pictures = _pictures({row["name"]: recipes[row["name"]][0] for row in ranked}) if task.predicts == "images" else ()
    return Leaderboard(
        task, ranked, paired, ranking, settings, failed, _trivial(records[0]), _baselines(records[0]), pictures
    )  # fmt: skip


def _pictures(records: Mapping[str, RunRecord]) -> Sequence[Any]:
    """Figures of test images as the first training of each recipe predicts them."""
    arrays = {name: read_arrays(record.evaluation["folder"], record.task) for name, record in records.items()}
    truth = next(iter(arrays.values()))[1]
    if truth is None:
        return ()
    predicted = {name: found for name, (found, _) in arrays.items() if found is not None}
    return next(iter(records.values())).task.comparison_pictures(predicted, truth)


def _baselines(record: RunRecord) -> list[dict[str, Any]]:
    """The headlines of methods without training, on a run's test images."""
    _, truth = read_arrays(record.evaluation["folder"], record.task)
    return [] if truth is None else [_said_of(record, each, truth) for each in record.task.baselines(truth)]


def _said_of(record: RunRecord, method: tuple[str, Any], truth: Any) -> dict[str, Any]:
    """Name and headlines of a method, by its predictions of a run's test images."""
    name, predicted = method
    metrics = [metric for metric in record.task.metrics(predicted, truth) if metric.key in record.task.headlines]
    found = intervals(metrics, len(truth), record.evaluation["seed"])
    return {"name": name, "figures": {key: interval.record() for key, interval in found.items()}}


def _trivial(record: RunRecord) -> dict[str, Any] | None:
    """The headlines of the trivial prediction of a run's task, on its test images."""
    _, truth = read_arrays(record.evaluation["folder"], record.task)
    if truth is None or (said := record.task.trivial(truth)) is None:
        return None
    return _said_of(record, said, truth)


def seed_folder(name: str, number: int) -> str:
    """Return the name of the run folder of a recipe, trained with a seed that is so much above the first."""
    return f"{name}-seed{number}" if number else name


def _seed(record: RunRecord) -> int:
    return int(record.run.get("seed", 0))


def _row(name: str, trainings: Sequence[RunRecord]) -> dict[str, Any]:
    """What the leaderboard says of a recipe: of its trainings, the mean, or the first where there is none."""
    first, runs = trainings[0], [_of_run(record) for record in trainings]
    evaluation, recipe = first.evaluation, first.run["recipe"]
    to_goal = [run["seconds_to_goal"] for run in runs]
    return {
        "recipe": recipe["name"],
        "name": name,
        "description": recipe["description"],
        "source": recipe["source"],
        "seeds": len(runs),
        "figures": evaluation["figures"] if len(runs) == 1 else _figures(trainings),
        "titles": titles(evaluation),
        "warnings": _warnings(runs),
        "evaluation": {k: evaluation[k] for k in evaluation if k not in ("folder", "figures", "mistakes", "examples")},
        "n": evaluation["n"],
        **{key: _mean([run[key] for run in runs]) for key in MEANS},
        "peak_memory_mib": max(run["peak_memory_mib"] for run in runs),
        "seconds_to_goal": None if None in to_goal else _mean(to_goal),
        "precision": first.run["training"]["precision"],
        "threads": first.run["training"]["threads"],
        "runs": runs,
    }


def _of_run(record: RunRecord) -> dict[str, Any]:
    """What the leaderboard keeps of one training."""
    evaluation, training = record.evaluation, record.run["training"]
    return {
        "run": record.name,
        "seed": _seed(record),
        "figures": evaluation["figures"],
        "warnings": evaluation.get("warnings", []),
        "parameters": training["parameters"],
        "seconds": training["seconds"],
        "images_seen": training["images"],
        "training_images_per_second": training["images_per_second"],
        "inference_images_per_second": evaluation["images_per_second"],
        "peak_memory_mib": training["peak_memory_mib"],
        "seconds_to_goal": _seconds_to_goal(record.task, record.epochs),
    }


def _mean(values: Sequence[float]) -> float:
    """The mean, of whole numbers a whole number."""
    if len(values) == 1:
        return values[0]
    mean = statistics.fmean(values)
    return round(mean) if all(isinstance(value, int) for value in values) else round(mean, 2)


def _figures(trainings: Sequence[RunRecord]) -> dict[str, dict[str, Any]]:
    """Figures over several trainings of a recipe, computed again from their predictions."""
    metrics = []
    for record in trainings:
        predicted, truth = read_arrays(record.evaluation["folder"], record.task)
        assert predicted is not None  # a benchmark ranks only what version 0.1 did not evaluate
        assert truth is not None
        calibration = Calibration(**record.config.calibration)
        sets = record.task.prediction_sets(predicted, calibration, record.evaluation["coverage"])
        metrics.append(record.task.metrics(predicted, truth, sets))
    evaluation = trainings[0].evaluation
    found = intervals_over_seeds(metrics, evaluation["n"], seed=evaluation["seed"])
    return {key: found[key].record() for key in evaluation["figures"] if key in found}


def _warnings(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is wrong with each training; of several, with the seed."""
    if len(runs) == 1:
        return list(runs[0]["warnings"])
    return [f"with seed {run['seed']}, {warning}" for run in runs for warning in run["warnings"]]


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
    content: dict[str, Any] = {"settings": board.settings, "ranking": board.ranking, "rows": board.rows}
    content |= {"differences": board.differences, "failed": dict(board.failed), "trivial": board.trivial}
    content |= {"baselines": list(board.baselines)} if board.baselines else {}
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
            titles={key: title for row in reversed(rows) for key, title in row["titles"].items()},
            goal=board.task.goal,
            most=_most(rows),
            seeds=_seeds_text(board),
            intervals=_intervals_text(board),
            trivial=_trivial_text(board),
            baselines=board.baselines,
            ranking=board.ranking,
            # The first of the pictures is a mosaic, which needs the whole width.
            plots=[svg(each) for each in (*board.task.comparison_panels(evaluations), *board.pictures[1:], cost)],
            pictures=[svg(figure) for figure in board.pictures[:1]],
            compared=[*rows, *board.baselines],
            pairs=_pairs([*rows, *board.baselines], board.differences),
        )
    )
    return write_page(page, out / "leaderboard.html")


def _columns(board: Leaderboard) -> list[str]:
    """Keys of the metrics that have a column: the headlines, then what is particular to these data (AUCs of classes)."""
    found = board.rows[0]["figures"]
    particular = [key for key in found if key.startswith("auc_")]
    anywhere = {key for row in board.rows for key in row["figures"]}
    return [*(key for key in board.task.headlines if key in anywhere), *particular]


def markdown(board: Leaderboard) -> str:
    """Return the ranking as a table, with 95% intervals, and what it was measured on."""
    task, rows, settings = board.task, board.rows, board.settings
    keys = [key for key in task.headlines if any(key in row["figures"] for row in rows)]
    titled = {key: title for row in reversed(rows) for key, title in row["titles"].items()}
    goal = [f"time to {task.goal.title}"] if task.goal else []
    several = _most(rows) > 1
    head = ["recipe", *(["seeds"] if several else []), *(titled[key] for key in keys)]
    head += ["parameters", "images seen", "trained in"]
    head += ["training images/s", *goal, "inference images/s", "memory"]
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for row in rows:
        figures = [figure_text(row["figures"][key]) if key in row["figures"] else "–" for key in keys]
        weak = " (see below)" if row.get("warnings") else ""
        reached = "–" if row["seconds_to_goal"] is None else f"{row['seconds_to_goal']:.0f} s"
        cells = [f"`{row['name']}`{weak}", *([str(row["seeds"])] if several else []), *figures]
        cells += [count_text(row["parameters"]), f"{row['images_seen']:,}"]
        cells += [f"{row['seconds']:.0f} s", f"{row['training_images_per_second']:.0f}", *([reached] if goal else [])]
        cells += [f"{row['inference_images_per_second']:.0f}", f"{row['peak_memory_mib'] / 1024:.1f} GiB"]
        lines.append(f"| {' | '.join(cells)} |")
    for method in board.baselines:
        figures = [figure_text(method["figures"][key]) if key in method["figures"] else "–" for key in keys]
        empty = ["–"] * (len(head) - 1 - several - len(keys))
        lines.append(f"| {' | '.join([method['name'], *(['–'] if several else []), *figures, *empty])} |")
    start = (
        "weights from ImageNet where a recipe asks for them" if settings["pretrained"] else "all from random weights"
    )
    images = f"{settings['train_images']:,} training and " if settings.get("train_images") else ""
    lines += ["", trivial] if (trivial := _trivial_text(board)) else []
    lines += [
        "",
        f"`{settings['data'] or settings['preset']}`, {images}{rows[0]['n']:,} test images, "
        f"{settings['budget']} a recipe, {_seeds_text(board)}, {start}; {settings['machine']}, "
        f"threads: {rows[0]['threads']}. In brackets: {_intervals_text(board)}.",
    ]
    for row in rows:
        lines += [f"`{row['name']}`: {warning.partition('; try')[0]}." for warning in row.get("warnings", [])]
    lines += [f"Left out: `{name}`: {reason}" for name, reason in board.failed.items()]
    return "\n".join(lines) + "\n"


def _most(rows: Sequence[Mapping[str, Any]]) -> int:
    """The most seeds that a recipe was trained with."""
    return max(row["seeds"] for row in rows)


def _seeds_text(board: Leaderboard) -> str:
    first, most = board.settings["seed"], _most(board.rows)
    return f"seed {first}" if most == 1 else f"{most} seeds ({first} to {first + most - 1})"


def _trivial_text(board: Leaderboard) -> str:
    """The figures of the trivial prediction, in a sentence; empty if there is none."""
    if board.trivial is None or board.baselines:
        return ""
    name, figures, called = board.trivial["name"], board.trivial["figures"], board.rows[0]["titles"]
    said = [
        f"{_inside_a_sentence(called[key])} {figure_text(figures[key])}"
        for key in board.task.headlines
        if key in figures
    ]
    return f"{name[0].upper()}{name[1:]}: {', '.join(said)}."


def _inside_a_sentence(title: str) -> str:
    return title[0].lower() + title[1:] if title[1:2].islower() else title


def _intervals_text(board: Leaderboard) -> str:
    """What is said below a table: what its intervals hold, what stands in their place, and what the other columns are."""
    rows, keys = board.rows, _columns(board)
    figures = [row["figures"][key] for row in rows for key in keys if key in row["figures"]]
    several = _most(rows) > 1
    held = "the choice of the test images"
    text = f"95% bootstrap intervals, which hold {held} alone"
    if several:
        text = f"95% intervals of the mean over seeds, which hold {held} (bootstrap)"
        text += " and the scatter of the trainings (Student's t)"
        if any(row["seeds"] == 1 for row in rows):
            text += f", of recipes with one seed {held} alone"
        if any("scatter" in figure and "low" not in figure for figure in figures):
            text += "; ±: the standard deviation over seeds"
    if any("if_calibrated" in figure for figure in figures):
        text += f"; {IF_CALIBRATED}"
    if several:
        text += "; other columns are means over seeds, of memory the most"
        if board.task.goal is not None:
            text += ", of the time to a goal if all seeds reached it"
    return text


def _pairs(
    rows: Sequence[Mapping[str, Any]], differences: Sequence[Mapping[str, Any]]
) -> list[list[Mapping[str, Any] | None]]:
    """For each pair of ranks (row minus column), their difference; None on the diagonal."""
    known: dict[tuple[str, str], dict[str, Any]] = {}
    for d in differences:
        known[d["first"], d["second"]] = dict(d)
        known[d["second"], d["first"]] = dict(d) | {"value": -d["value"], "low": -d["high"], "high": -d["low"]}
    names = [row["recipe"] if "recipe" in row else row["name"] for row in rows]
    return [[known.get((a, b)) for b in names] for a in names]
