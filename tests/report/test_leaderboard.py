"""Ranking, differences and what a table says."""

import json
import shutil

import numpy as np
import pytest

from darklens.report.leaderboard import _pairs, rank_runs, write_leaderboard
from darklens.report.page import differences, read_run
from darklens.tasks.classify import Classify
from darklens.workflows.evaluate import evaluate_run
from darklens.workflows.options import EvaluationOptions

BARE = shutil.ignore_patterns("evaluations")
SETTINGS = {"preset": "p", "data": None, "budget": "1 epochs", "seed": 0, "pretrained": False, "machine": "m"}


def test_pairs_are_row_minus_column_with_the_interval_turned_as_well():
    rows = [{"recipe": "good"}, {"recipe": "poor"}, {"recipe": "bad"}]
    found = _pairs(rows, [{"first": "poor", "second": "good", "value": -0.3, "low": -0.4, "high": -0.1, "p": 0.01}])
    assert found[0][1] == {"first": "poor", "second": "good", "value": 0.3, "low": 0.1, "high": 0.4, "p": 0.01}
    assert found[1][0]["value"] == -0.3
    assert (found[1][0]["low"], found[1][0]["high"]) == (-0.4, -0.1)
    assert found[0][0] is None
    assert found[2][1] is None


@pytest.fixture(scope="module")
def three(run, mass_run, test_set, tmp_path_factory):
    """Three evaluated runs of known skill: their predictions are written over by made-up ones."""
    place = tmp_path_factory.mktemp("ranked")
    runs = [shutil.copytree(run, place / name, ignore=BARE) for name in ("middle", "best", "worst")]
    for each, skill in zip(runs, (1.0, 3.0, 0.2), strict=True):
        record = evaluate_run(each, test_set, EvaluationOptions("test"))
        folder = each / "evaluations" / "test"
        with np.load(folder / "arrays.npz") as arrays:
            truth = arrays["truth"]
        logits = np.random.default_rng(int(10 * skill)).normal(0, 1, (96, 3)) + skill * np.eye(3)[truth]
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        np.savez(folder / "arrays.npz", predicted=p, truth=truth)
        from dataclasses import asdict

        from darklens.evaluation.bootstrap import intervals

        figures = intervals(Classify(class_names=["no_sub", "cdm", "axion"]).metrics(p, truth), 96)
        record["figures"] = {key: asdict(value) for key, value in figures.items()}
        (folder / "evaluation.json").write_text(json.dumps(record))
        trained = json.loads((each / "run.json").read_text())
        trained["recipe"]["name"] = f"mine/{each.name}"
        (each / "run.json").write_text(json.dumps(trained))
    return runs


def test_runs_are_ranked_by_the_metric_of_their_task(three, tmp_path):
    board = rank_runs(three, SETTINGS, {"mine/broken": "it broke"})
    assert [row["name"] for row in board.rows] == ["best", "middle", "worst"]
    assert board.ranking == {"key": "macro_auc", "title": "Macro AUC", "unit": "", "better": "higher", "perfect": 1}
    auc = {row["recipe"]: row["figures"]["macro_auc"]["value"] for row in board.rows}
    for d in board.differences:
        assert d["value"] == pytest.approx(auc[d["first"]] - auc[d["second"]], abs=1e-12)
    page = write_leaderboard(board, tmp_path).read_text()
    assert (
        page.index("<strong>best</strong>")
        < page.index("<strong>middle</strong>")
        < page.index("<strong>worst</strong>")
    )
    text = (tmp_path / "leaderboard.md").read_text()
    assert text.index("`best`") < text.index("`middle`") < text.index("`worst`")
    assert "Left out: `mine/broken`: it broke" in text
    assert "| Macro AUC |" in text


def test_lower_is_better_where_the_task_says_so(mass_run, test_set, tmp_path):
    runs = [shutil.copytree(mass_run, tmp_path / name, ignore=BARE) for name in ("far", "near")]
    for each, error in zip(runs, (0.9, 0.1), strict=True):
        record = evaluate_run(each, test_set, EvaluationOptions("test"))
        path = each / "evaluations" / "test" / "evaluation.json"
        record["figures"]["rmse"]["value"] = error
        path.write_text(json.dumps(record))
    board = rank_runs(runs, SETTINGS, {})
    assert [row["name"] for row in board.rows] == ["near", "far"]
    assert board.ranking["better"] == "lower"
    text = write_leaderboard(board, tmp_path).with_suffix(".md").read_text()
    assert "| recipe | RMSE | Mean absolute error | R² | Bias | parameters |" in text
    assert "time to" not in text, "a regression has no goal"
    with np.load(runs[0] / "evaluations" / "test" / "arrays.npz") as arrays:
        truth = arrays["truth"][:, 0]
    (center,) = json.loads((runs[0] / "model" / "config.json").read_text())["task"]["center"]
    values = {key: found["value"] for key, found in board.trivial["figures"].items()}
    assert board.trivial["name"] == "always saying the mean"
    assert set(values) == {"rmse", "mae", "r2", "bias"}
    assert values["rmse"] == pytest.approx(np.sqrt(np.mean((truth - center) ** 2)))
    assert f"Always saying the mean: RMSE {values['rmse']:.4f} [" in text


def test_seconds_to_the_goal_are_those_of_the_first_epoch_that_reached_it(three):
    log = three[0] / "logs" / "csv-0" / "metrics.csv"
    log.write_text(
        "epoch,seconds,validation/loss,validation/auc\n0,10,1.0,0.90\n1,20,0.9,0.951\n2,30,0.8,0.94\n3,40,0.7,0.97\n"
    )
    board = rank_runs(three, SETTINGS, {})
    assert {row["name"]: row["seconds_to_goal"] for row in board.rows} == {"middle": 20, "best": None, "worst": None}


def test_differences_need_the_same_images(three, test_set, tmp_path):
    records = [read_run(run) for run in three]
    assert len(differences(records)) == 3
    other = shutil.copytree(three[0], tmp_path / "other")
    folder = other / "evaluations" / "test"
    with np.load(folder / "arrays.npz") as arrays:
        np.savez(folder / "arrays.npz", predicted=arrays["predicted"], truth=arrays["truth"][::-1])
    assert len(differences([records[1], read_run(other)])) == 0
