"""The page of a comparison of adaptations: methods times encoders on one target, HTML, Markdown and JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from darklens.evaluation.bootstrap import Metric, figure_text, intervals_over_seeds, paired_differences
from darklens.evaluation.gap import share_of_gap
from darklens.plots.domains import feature_maps
from darklens.report.page import environment, svg, write_page

BASELINE, CEILING = "source-only", "target-supervised"
KEYS = ("auc", "recall_fpr_0.01", "average_precision", "macro_auc", "accuracy")
"""Metrics that have a column, where a task has them; the first one is that of differences and gaps."""
PUBLISHED = {
    "ADDA": (0.835, 0.797, 0.798, 0.879),
    "self-ensembling": (0.604, 0.445, 0.537, 0.449),
    "AdaMatch": (0.824, 0.800, 0.763, 0.795),
}
"""AUROC on 94 real lenses and 8,000 others of Hyper Suprime-Cam (ML4SCI DeepLense, Google Summer of Code 2022), of
EfficientNet-B2, ResNet-34, DenseNet-121 and the equivariant network. Without adaptation the best is 0.816."""


@dataclass(frozen=True)
class Adapted:
    """The trainings of one method with one encoder.

    Attributes
    ----------
    method, encoder
        Their names.
    metrics
        Of each training (S), those on the target's test images.
    trainings
        The record of each training: seconds, best epoch.
    warnings
        Of the evaluations.
    features
        Of the first training: ``source`` and ``target`` (N, F), with ``source_labels`` and ``target_labels``.
    """

    method: str
    encoder: str
    metrics: Sequence[Sequence[Metric]]
    trainings: Sequence[Mapping[str, Any]]
    warnings: Sequence[str] = ()
    features: Mapping[str, np.ndarray] = field(default_factory=dict)


def compare(results: Sequence[Adapted], n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return a row for each method and encoder, the best first within each encoder.

    Parameters
    ----------
    results
        What was trained, all evaluated on the same images.
    n
        Number of test images.
    seed
        Of the bootstrap.

    Returns
    -------
    list
        Figures with intervals, the paired ``difference`` to the baseline of the same encoder, and the ``gap`` between it
        and the ceiling that is closed; None where there is no baseline or ceiling.
    """
    rows = []
    for each in results:
        keys = columns(each)
        beside = {other.method: other for other in results if other.encoder == each.encoder}
        chosen = [[metric for metric in some if metric.key in keys] for some in each.metrics]
        figures = {key: found.record() for key, found in intervals_over_seeds(chosen, n, seed=seed).items()}
        row: dict[str, Any] = {
            "method": each.method,
            "encoder": each.encoder,
            "seeds": len(each.metrics),
            "figures": {key: figures[key] for key in keys},
            "titles": {key: next(m.title for m in each.metrics[0] if m.key == key) for key in keys},
            "seconds": sum(training["seconds"] for training in each.trainings) / len(each.trainings),
            "warnings": list(each.warnings),
            "difference": None,
            "gap": None,
        }
        ranked = keys[0]
        if each.method != BASELINE and BASELINE in beside:
            pair = {"a": _of(each, ranked), "b": _of(beside[BASELINE], ranked)}
            row["difference"] = dataclasses.asdict(paired_differences(pair, n, seed)[0])
            if each.method != CEILING and CEILING in beside:
                shared = share_of_gap(pair["a"], pair["b"], _of(beside[CEILING], ranked), n, seed=seed)
                row["gap"] = {k: None if math.isnan(v) else v for k, v in dataclasses.asdict(shared).items()}
        rows.append(row)
    first = columns(results[0])[0]
    return sorted(rows, key=lambda row: (row["encoder"], -row["figures"][first]["value"]))


def columns(result: Adapted) -> list[str]:
    """Return the keys of the metrics that have a column."""
    there = {metric.key for metric in result.metrics[0]}
    return [key for key in KEYS if key in there] or [result.metrics[0][0].key]


def _of(result: Adapted, key: str) -> list[Metric]:
    """One metric of each training."""
    return [next(metric for metric in some if metric.key == key) for some in result.metrics]


def write_board(
    results: Sequence[Adapted],
    settings: Mapping[str, Any],
    out: Path,
    *,
    n: int,
    names: Sequence[str],
    failed: Mapping[str, str],
) -> Path:
    """Write ``adaptation.html``, ``.md`` and ``.json`` into a folder; return the page.

    Parameters
    ----------
    results
        What was trained and evaluated.
    settings
        Of the benchmark.
    out
        The folder.
    n
        Number of test images.
    names
        Of the labels.
    failed
        What could not be trained, and why.
    """
    rows = compare(results, n, int(settings["seed"]))
    content = {"settings": dict(settings), "n": n, "rows": rows, "failed": dict(failed), "published": PUBLISHED}
    (out / "adaptation.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    (out / "adaptation.md").write_text(markdown(rows, settings, n, failed), "utf-8")
    maps = {}
    for encoder in dict.fromkeys(each.encoder for each in results):
        panels = {each.method: each.features for each in results if each.encoder == encoder and each.features}
        order = sorted(panels, key=lambda name: name != BASELINE)
        if panels:
            maps[encoder] = svg(feature_maps({name: panels[name] for name in order}, names))
    page = (
        environment()
        .get_template("adaptation.html")
        .render(
            css=(resources.files("darklens.report") / "templates" / "report.css").read_text("utf-8"),
            rows=rows,
            keys=list(rows[0]["figures"]),
            titles=rows[0]["titles"],
            settings=settings,
            n=n,
            texts=[{"difference": _difference(row), "gap": _gap(row)} for row in rows],
            failed=failed,
            maps=maps,
            published=PUBLISHED,
        )
    )
    return write_page(page, out / "adaptation.html")


def _difference(row: Mapping[str, Any]) -> str:
    """The paired difference to the baseline of the same encoder, as text."""
    if (d := row["difference"]) is None:
        return "–"
    return f"{d['value']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]"


def _gap(row: Mapping[str, Any]) -> str:
    """The share of the gap that is closed, as text."""
    if (gap := row["gap"]) is None:
        return "–"
    if gap["value"] is None:
        return "none"
    if gap["low"] is None:
        return f"{gap['value']:.2f} (the gap itself is not established)"
    return f"{gap['value']:.2f} [{gap['low']:.2f}, {gap['high']:.2f}]"


def markdown(rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], n: int, failed: Mapping[str, str]) -> str:
    """Return the comparison as a table with intervals, and what it was measured on.

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
    titles = rows[0]["titles"]
    head = ["encoder", "method", *titles.values(), "difference to source-only", "share of the gap closed", "trained in"]
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for row in rows:
        figures = [figure_text(row["figures"][key]) for key in titles]
        mark = " (see below)" if row["warnings"] else ""
        cells = [f"`{row['encoder']}`", f"`{row['method']}`{mark}", *figures, _difference(row), _gap(row)]
        lines.append(f"| {' | '.join(cells)} | {row['seconds']:.0f} s |")
    lines += ["", said_of(settings, n, rows)]
    lines += [f"`{r['method']}`, `{r['encoder']}`: {w.partition('; try')[0]}." for r in rows for w in r["warnings"]]
    lines += [f"Left out: `{name}`: {reason}" for name, reason in failed.items()]
    return "\n".join(lines) + "\n"


def said_of(settings: Mapping[str, Any], n: int, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return on what a comparison was measured, in sentences."""
    seeds = max(row["seeds"] for row in rows)
    return (
        f"Source `{settings['source']}`, target `{settings['target']}` without labels, {n:,} test images of the target, "
        f"{settings['budget']} a method, {seeds} {'seeds' if seeds > 1 else 'seed'} from {settings['seed']}; "
        f"{settings['machine']}. In brackets: 95% bootstrap intervals; differences are paired, of "
        f"{next(iter(rows[0]['titles'].values()))}; of one seed they hold the choice of the test images alone."
    )
