"""The benchmark of adaptations: its table, its page, and that it goes on where it stopped."""

import json

import numpy as np
import pytest
from conftest import TINY, train_here, write_rings

from darklens.data.importing import import_data
from darklens.data.layouts import open_data
from darklens.errors import DataError
from darklens.evaluation.bootstrap import Metric, mean_statistic
from darklens.inference.model import load_model
from darklens.report.adaptation_board import Adapted, compare, markdown
from darklens.workflows import adaptation_benchmark
from darklens.workflows.adaptation_benchmark import benchmark_adaptation
from darklens.workflows.benchmark import parse_budget
from darklens.workflows.options import BenchmarkOptions


def result(method, values, encoder="ecnn"):
    metric = Metric("auc", "AUC", mean_statistic(np.asarray(values, dtype=float)))
    return Adapted(method, encoder, [[metric]], [{"seconds": 3.0}])


def test_rows_compare_within_an_encoder():
    rng = np.random.default_rng(0)
    base = rng.normal(0.5, 0.05, 300)
    results = [result("source-only", base), result("dann", base + 0.3), result("target-supervised", base + 0.4)]
    results.append(result("dann", base - 0.1, encoder="other"))
    rows = compare(results, 300)
    assert [(row["encoder"], row["method"]) for row in rows] == [
        ("ecnn", "target-supervised"), ("ecnn", "dann"), ("ecnn", "source-only"), ("other", "dann"),
    ]  # fmt: skip
    assert rows[1]["difference"]["value"] == pytest.approx(0.3)
    assert rows[1]["gap"]["value"] == pytest.approx(0.75)
    assert rows[0]["gap"] is None
    assert rows[2]["difference"] is None
    assert rows[3]["difference"] is None
    settings = {"source": "s", "target": "t", "budget": "1 epochs", "seed": 0, "machine": "m"}
    table = markdown(rows, settings, 300, {"adda with ecnn": "why"})
    assert "| `ecnn` | `dann` | " in table
    assert "| +0.300 [+0.300, +0.300] | 0.75 [0.75, 0.75] | 3 s |" in table
    assert "Left out: `adda with ecnn`: why" in table


def test_recipes_keep_their_own_encoder_unless_others_are_named(tmp_path):
    plan = adaptation_benchmark._Plan([], [None], parse_budget("2epochs"), BenchmarkOptions(), {}, tmp_path, print)
    assert plan.label("adaptation/adda", None) == "compact"
    assert plan.label("adaptation/adda", "finding/resnet34") == "resnet34"
    assert plan.changes(None) == {}


def test_methods_are_trained_evaluated_and_compared(tmp_path, monkeypatch):
    source = write_rings(tmp_path / "source", 48, 1, bands=("i",))
    raw = write_rings(tmp_path / "raw", 60, 2, bands=("g", "i"))
    import_data(open_data(raw), tmp_path / "target", fractions={"train": 0.5, "validation": 0.2, "test": 0.3}, seed=0)
    small = {key: value for key, value in TINY.items() if key not in ("preprocessing.crop", "trainer.epochs")}
    choices = BenchmarkOptions(data=str(source), target_data=str(tmp_path / "target"), encoders="finding/demo")
    monkeypatch.setattr(adaptation_benchmark, "run_passing_on_errors", train_here)
    names = ["adaptation/source-only", "adaptation/adamatch", "adaptation/target-supervised"]
    said = []

    def run():
        return benchmark_adaptation(
            names, parse_budget("2epochs"), tmp_path / "board", choices=choices,
            overrides=small | {"trainer.batch_size": 16}, say=said.append,
        )  # fmt: skip

    page = run()
    text = page.read_text()
    found = json.loads((tmp_path / "board" / "adaptation.json").read_text())
    assert {row["method"] for row in found["rows"]} == {"source-only", "adamatch", "target-supervised"}
    assert found["failed"] == {}
    ceiling = load_model(tmp_path / "board" / "runs" / "target-supervised-demo")
    assert ceiling.config.bands == ["i"], "it sees no more than the others"
    assert found["n"] == 18
    assert "0.879" in text
    assert text.count("<svg") == 1
    monkeypatch.setattr(adaptation_benchmark, "run_passing_on_errors", lambda line: pytest.fail("trained again"))
    monkeypatch.setattr(adaptation_benchmark, "evaluate_run", lambda *_, **__: pytest.fail("evaluated again"))
    run()
    assert json.loads((tmp_path / "board" / "adaptation.json").read_text())["rows"] == found["rows"]
    with pytest.raises(DataError, match="was begun with budget 2 epochs, not 3 epochs"):
        benchmark_adaptation(names, parse_budget("3epochs"), tmp_path / "board", choices=choices)
