"""The leaderboard of a benchmark: HTML to look at, Markdown to paste, JSON to compute with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from darklens.evaluation.bootstrap import Interval
from darklens.report import plots
from darklens.report.page import environment, svg, write_page

COLUMNS = ("accuracy", "macro_auc", "micro_auc", "ece")


def write_leaderboard(
    rows: Sequence[Mapping[str, Any]],
    differences: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    failed: Mapping[str, str],
    out: Path,
) -> Path:
    """Write ``leaderboard.html``, ``.md`` and ``.json`` into ``out``; ``rows`` are ranked, the best first."""
    content = {"settings": settings, "rows": list(rows), "differences": list(differences), "failed": dict(failed)}
    (out / "leaderboard.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    (out / "leaderboard.md").write_text(markdown(rows, settings, failed), "utf-8")
    classes = [key.removeprefix("auc_") for key in rows[0]["figures"] if key.startswith("auc_")]
    page = (
        environment()
        .get_template("leaderboard.html")
        .render(
            css=(resources.files("darklens.report") / "templates" / "report.css").read_text("utf-8"),
            rows=rows,
            settings=settings,
            failed=failed,
            columns=[*COLUMNS, *(f"auc_{name}" for name in classes)],
            roc=svg(plots.roc_of_many({f"{i}  {r['name']}": r["roc"]["macro"] for i, r in enumerate(rows, 1)})),
            cost=svg(plots.skill_against_cost(rows)),
            pairs=_pairs(rows, differences),
        )
    )
    return write_page(page, out / "leaderboard.html")


def markdown(rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], failed: Mapping[str, str]) -> str:
    """A table, with 95% intervals, and what it was measured on."""
    lines = [
        "| recipe | accuracy | macro AUC | ECE | parameters | images seen | trained in | training images/s | "
        "time to AUC 0.95 | inference images/s | memory |",
        "|" + " --- |" * 11,
    ]
    for row in rows:
        figures = [str(Interval(**row["figures"][key])) for key in ("accuracy", "macro_auc", "ece")]
        weak = " (see below)" if row.get("warnings") else ""
        goal = "–" if row["seconds_to_goal"] is None else f"{row['seconds_to_goal']:.0f} s"
        lines.append(
            f"| `{row['name']}`{weak} | {' | '.join(figures)} | {row['parameters'] / 1e6:.1f}M | "
            f"{row['images_seen']:,} | {row['seconds']:.0f} s | {row['training_images_per_second']:.0f} | {goal} | "
            f"{row['inference_images_per_second']:.0f} | {row['peak_memory_mib'] / 1024:.1f} GiB |"
        )
    start = (
        "weights from ImageNet where a recipe asks for them" if settings["pretrained"] else "all from random weights"
    )
    lines += [
        "",
        f"`{settings['preset']}`, {settings['train_images']:,} training and {rows[0]['n']:,} test images, "
        f"{settings['budget']} a recipe, seed {settings['seed']}, {start}; {settings['machine']}, "
        f"threads: {rows[0]['threads']}. In brackets: 95% bootstrap intervals.",
    ]
    for row in rows:
        lines += [f"`{row['name']}`: {warning.partition('; try')[0]}." for warning in row.get("warnings", [])]
    lines += [f"Left out: `{name}`: {reason}" for name, reason in failed.items()]
    return "\n".join(lines) + "\n"


def _pairs(
    rows: Sequence[Mapping[str, Any]], differences: Sequence[Mapping[str, Any]]
) -> list[list[Mapping[str, Any] | None]]:
    """For each pair of ranks (row above column), their difference with the better one first; None on the diagonal."""
    known: dict[tuple[str, str], dict[str, Any]] = {}
    for d in differences:
        known[d["first"], d["second"]] = dict(d)
        known[d["second"], d["first"]] = dict(d) | {"value": -d["value"], "low": -d["high"], "high": -d["low"]}
    names = [row["recipe"] for row in rows]
    return [[known.get((a, b)) for b in names] for a in names]
