"""What the leaderboard says, of rows that were written by hand."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
from test_run_page import TRUTH, predictions, run

from darklens.errors import UntrustedCodeError
from darklens.evaluation.bootstrap import intervals_over_seeds, paired_differences
from darklens.report.leaderboard import Leaderboard, markdown, rank_runs, seed_folder, write_leaderboard
from darklens.report.page import write_report
from darklens.tasks.classify import Classify
from darklens.tasks.regress import Regress

TASK = Classify(class_names=["cdm", "axion"])
CURVE = {"fpr": [0.0, 0.2, 1.0], "tpr": [0.0, 0.7, 1.0]}


def figure(value, width=0.01):
    return {"value": value, "low": value - width, "high": value + width, "n": 1500}


def row(name, auc, **changes):
    figures = {"macro_auc": figure(auc), "accuracy": figure(0.5), "auc_cdm": figure(0.25), "nll": figure(123.456)}
    return {
        "recipe": f"mine/{name}", "name": name, "description": f"About {name}.", "source": "a paper", "figures": figures,
        "titles": {"macro_auc": "Macro AUC", "accuracy": "Accuracy", "auc_cdm": "AUC cdm", "nll": "Log loss"},
        "warnings": [], "evaluation": {"roc": {"macro": CURVE}}, "n": 1500, "parameters": 2_249_999, "seconds": 98.7,
        "images_seen": 123456, "training_images_per_second": 68.4, "inference_images_per_second": 1000.6,
        "peak_memory_mib": 1900, "seconds_to_goal": 55.4, "precision": "32-true", "threads": 3, "seeds": 1,
    } | changes  # fmt: skip


SETTINGS = {
    "preset": "model-x", "data": None, "train_images": 40000, "test_images": 1500, "budget": "2 epochs", "seed": 7,
    "pretrained": False, "machine": "a machine",
}  # fmt: skip
RANKING = {"key": "macro_auc", "title": "Macro AUC", "unit": "", "better": "higher", "perfect": 1}
WEAK = {"warnings": ["the model cannot be told from guessing: so it is; try more images"], "seconds_to_goal": None}
ROWS = [row("best", 0.98), row("weak", 0.51, **WEAK)]
del ROWS[0]["warnings"]  # as boards of an earlier version are
DIFFERENCES = [
    {"first": "mine/best", "second": "mine/weak", "value": 0.47, "low": 0.4, "high": 0.5, "p": 0.001, "p_holm": 0.02}
]
BOARD = Leaderboard(TASK, ROWS, DIFFERENCES, RANKING, SETTINGS, {"mine/broken": "it broke"})


def test_board_as_text():
    assert markdown(BOARD).splitlines() == [
        "| recipe | Accuracy | Macro AUC | parameters | images seen | trained in | training images/s | time to AUC 0.95 | "
        "inference images/s | memory |",
        "|" + " --- |" * 10,
        "| `best` | 0.5000 [0.4900, 0.5100] | 0.9800 [0.9700, 0.9900] | 2.2M | 123,456 | 99 s | 68 | 55 s | 1001 "
        "| 1.9 GiB |",
        "| `weak` (see below) | 0.5000 [0.4900, 0.5100] | 0.5100 [0.5000, 0.5200] | 2.2M | 123,456 | 99 s | 68 | – "
        "| 1001 | 1.9 GiB |",
        "",
        "`model-x`, 40,000 training and 1,500 test images, 2 epochs a recipe, seed 7, all from random weights; a machine, "
        "threads: 3. In brackets: 95% bootstrap intervals, which hold the choice of the test images alone.",
        "`weak`: the model cannot be told from guessing: so it is.",
        "Left out: `mine/broken`: it broke",
    ]
    assert markdown(BOARD).endswith("it broke\n")


def test_calibration_errors_stand_beside_their_range_if_calibrated(tmp_path):
    ece = {"value": 0.0095, "n": 1500, "if_calibrated": {"low": 0.004, "high": 0.009, "p": 0.01}}
    titles = ROWS[1]["titles"] | {"ece": "ECE"}
    rows = [each | {"figures": each["figures"] | {"ece": ece}, "titles": titles} for each in ROWS]
    note = (
        "; “if calibrated”: the central 95% of what an exactly calibrated model of the same probabilities would show on"
    )
    board = dataclasses.replace(BOARD, rows=rows)
    assert "| 0.9800 [0.9700, 0.9900] | 0.0095 (0.0040 to 0.0090 if calibrated) | 2.2M |" in markdown(board)
    held = "95% bootstrap intervals, which hold the choice of the test images alone"
    assert f"In brackets: {held}{note} as many images.\n" in markdown(board)
    page = write_leaderboard(board, tmp_path).read_text("utf-8")
    assert "<td>0.0095<br><small>0.0040 – 0.0090 if calibrated</small></td>" in page
    assert f"Small: {held}{note} as many images." in page
    assert "if calibrated" not in write_leaderboard(BOARD, tmp_path).read_text("utf-8")


def test_board_of_stored_data_and_pretrained_weights():
    settings = {key: value for key, value in SETTINGS.items() if key != "train_images"}
    board = dataclasses.replace(BOARD, settings=settings | {"data": "mine", "pretrained": True}, failed={})
    assert (
        "`mine`, 1,500 test images, 2 epochs a recipe, seed 7, weights from ImageNet where a recipe asks for them; "
        in markdown(board)
    )
    assert "Left out" not in markdown(board)


def test_board_of_a_task_without_a_goal():
    figures = {"rmse": figure(0.4), "r2": figure(0.3)}
    rows = [row("one", 0.5, figures=figures, titles={"rmse": "RMSE", "r2": "R²"}, seconds_to_goal=None)]
    board = dataclasses.replace(BOARD, task=Regress("m"), rows=rows, differences=[], failed={})
    head, _, line, *_ = markdown(board).splitlines()
    assert head == (
        "| recipe | RMSE | R² | parameters | images seen | trained in | training images/s | inference images/s | memory |"
    )
    assert line.count("|") == head.count("|")


def test_trivial_prediction_stands_below_the_table(tmp_path):
    figures = {"rmse": figure(0.4), "mae": figure(0.3)}
    titles = {"rmse": "RMSE", "mae": "Mean absolute error"}
    rows = [row("one", 0.5, figures=figures, titles=titles, seconds_to_goal=None)]
    trivial = {"name": "always saying the mean", "figures": {"rmse": figure(0.577), "mae": figure(0.5)}}
    ranking = {"key": "rmse", "title": "RMSE", "unit": "", "better": "lower", "perfect": 0}
    board = Leaderboard(Regress("m"), rows, [], ranking, SETTINGS, {}, trivial)
    said = "Always saying the mean: RMSE 0.5770 [0.5670, 0.5870], mean absolute error 0.5000 [0.4900, 0.5100]."
    page = write_leaderboard(board, tmp_path).read_text("utf-8")
    assert f"<p>{said}</p>" in page
    lines = (tmp_path / "leaderboard.md").read_text("utf-8").splitlines()
    assert lines[3:6] == ["", said, ""]
    assert json.loads((tmp_path / "leaderboard.json").read_text("utf-8"))["trivial"] == trivial


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("board")
    return write_leaderboard(BOARD, out)


def test_board_is_written_as_page_text_and_json(written):
    out = written.parent
    assert sorted(path.name for path in out.iterdir()) == ["leaderboard.html", "leaderboard.json", "leaderboard.md"]
    assert (out / "leaderboard.md").read_text("utf-8") == markdown(BOARD)
    text = (out / "leaderboard.json").read_text("utf-8")
    assert text.startswith('{\n "settings": {\n')
    assert text.endswith("}\n")
    assert json.loads(text) == {
        "settings": SETTINGS, "ranking": RANKING, "rows": ROWS, "differences": DIFFERENCES,
        "failed": {"mine/broken": "it broke"}, "trivial": None,
    }  # fmt: skip


def test_page_has_a_column_for_headlines_and_for_what_is_particular(written):
    page = written.read_text("utf-8")
    heads = page[page.index("<tr><th></th>") : page.index("</tr>")]
    titles = [part.partition("</th>")[0] for part in heads.split("<th>")[1:]]
    assert titles == [
        "", "recipe", "Accuracy", "Macro AUC", "AUC cdm", "parameters", "images<br>seen", "trained<br>in",
        "training<br>images/s", "time to<br>AUC 0.95", "inference<br>images/s", "peak<br>memory",
    ]  # fmt: skip
    assert "<td>0.9800<br><small>0.9700 – 0.9900</small></td>" in page
    assert "<h1>Leaderboard on model-x</h1>" in page
    assert "Left out: mine/broken (it broke)." in page
    assert page.count("<svg") == 2, "ROC curves, and skill against cost"
    assert '<td class="real" title="p &lt; 0.001 of this pair alone">+0.4700<br><small>p 0.020</small></td>' in page
    assert "p is corrected for the number of pairs by Holm's method, and shaded where it is below 0.05." in page
    assert "-0.4700" in page
    assert "darklens.report" not in page
    assert "{" not in page[page.index("<body") : page.index("<svg")]


def test_difference_that_the_number_of_pairs_explains_is_not_called_one(tmp_path):
    board = dataclasses.replace(BOARD, differences=[DIFFERENCES[0] | {"p": 0.02, "p_holm": 0.051}])
    page = write_leaderboard(board, tmp_path).read_text("utf-8")
    assert '<td title="p 0.020 of this pair alone">+0.4700<br><small>p 0.051</small></td>' in page
    assert 'class="real"' not in page


def test_page_of_one_row_compares_nothing(tmp_path):
    board = dataclasses.replace(BOARD, rows=ROWS[:1], differences=[], failed={}, settings=SETTINGS | {"data": "mine"})
    page = write_leaderboard(board, tmp_path).read_text("utf-8")
    assert "Which differences are real" not in page
    assert "<h1>Leaderboard on mine</h1>" in page


METRICS = {"macro_auc": {"title": "Macro AUC", "unit": "", "better": "higher", "perfect": 1}, "ece": {"title": "ECE"}}


def trained(folder, name, auc, log="", better="higher"):
    """A run whose macro AUC is written by hand, and its predictions beside it."""
    described = METRICS | {"macro_auc": METRICS["macro_auc"] | {"better": better}}
    out = run(folder, name, skill=auc, metrics=described)
    path = out / "evaluations" / "test" / "evaluation.json"
    content = json.loads(path.read_text())
    content["figures"]["macro_auc"]["value"] = auc
    path.write_text(json.dumps(content))
    record = json.loads((out / "run.json").read_text())
    record["training"] |= {
        "images_per_second": 68.5, "peak_memory_mib": 1900, "precision": "32-true", "threads": 3,
    }  # fmt: skip
    (out / "run.json").write_text(json.dumps(record))
    if log:
        (out / "logs" / "csv-0" / "metrics.csv").write_text(log)
    return out


def test_rows_say_what_is_on_record(tmp_path):
    log = "epoch,seconds,validation/loss,validation/auc\n0,10,1,0.94\n1,20.06,1,0.95\n2,30,1,0.9\n3,40,1,0.97\n"
    runs = [trained(tmp_path, "low", 0.6), trained(tmp_path, "high", 0.9, log)]
    board = rank_runs(runs, SETTINGS, {"mine/broken": "it broke"})
    assert (board.settings, board.failed) == (SETTINGS, {"mine/broken": "it broke"})
    assert board.task == TASK
    assert board.ranking == {"key": "macro_auc", "title": "Macro AUC", "unit": "", "better": "higher", "perfect": 1}
    high, low = board.rows
    evaluation = json.loads((runs[1] / "evaluations" / "test" / "evaluation.json").read_text())
    left_out = ("folder", "figures", "mistakes", "examples")
    assert high == {
        "recipe": "mine/high", "name": "high", "description": "A small network.", "source": "a paper",
        "figures": evaluation["figures"] | {"ece": {"value": 150.26, "n": 1234}}, "warnings": ["it is weak"], "n": 60,
        "parameters": 2_250_000, "seconds": 80.0,
        "titles": {"accuracy": "accuracy", "macro_auc": "Macro AUC", "ece": "ECE", "auc_cdm": "auc cdm",
                   "auc_axion": "auc axion"},
        "evaluation": {key: value for key, value in evaluation.items() if key not in left_out},
        "images_seen": 20000, "training_images_per_second": 68.5, "inference_images_per_second": 512.4,
        "peak_memory_mib": 1900, "seconds_to_goal": 20.1, "precision": "32-true", "threads": 3, "seeds": 1,
        "runs": high["runs"],
    }  # fmt: skip
    (of_run,) = high["runs"]
    assert (of_run.pop("run"), of_run.pop("seed")) == ("high", 5)
    assert of_run == {key: high[key] for key in of_run}
    assert (low["name"], low["seconds_to_goal"]) == ("low", None)
    (difference,) = board.differences
    assert (difference["first"], difference["second"]) == ("mine/low", "mine/high")
    assert difference["value"] < 0


def test_lower_is_first_where_it_is_better(tmp_path):
    runs = [trained(tmp_path, name, auc, better="lower") for name, auc in (("b", 0.7), ("c", 0.8), ("a", 0.6))]
    assert [row["name"] for row in rank_runs(runs, SETTINGS, {}).rows] == ["a", "b", "c"]


def test_goal_is_not_reached_by_epochs_without_a_time_or_a_metric(tmp_path):
    log = "epoch,seconds,validation/loss,validation/auc\n0,,1,0.99\n1,20,1,\n2,30.25,1,0.96\n"
    board = rank_runs([trained(tmp_path, "one", 0.6, log)], SETTINGS, {})
    assert board.rows[0]["seconds_to_goal"] == 30.2
    assert board.differences == []


def test_own_task_of_a_run_is_run_only_if_trusted(tmp_path):
    """Its code is in the model folder; it may run if the user has named the same file."""
    out = trained(tmp_path, "one", 0.6)
    code = "from darklens.tasks.classify import Classify\n\nclass Mine(Classify):\n    pass\n"
    (out / "model" / "own.py").write_text(code)
    digest = "sha256:" + hashlib.sha256(code.encode()).hexdigest()
    path = out / "model" / "config.json"
    content = json.loads(path.read_text())
    content["task"]["name"] = "own.py:Mine"
    path.write_text(json.dumps(content | {"code": {"own.py": digest}}))
    with pytest.raises(UntrustedCodeError):
        rank_runs([out], SETTINGS, {})
    for given in ({"own": [digest]}, {"trust_code": True}):
        assert type(rank_runs([out], SETTINGS, {}, **given).task).__name__ == "Mine"
    with pytest.raises(UntrustedCodeError):
        write_report([out], tmp_path / "page.html")


def several(folder, name, skills):
    """Runs of one recipe, with the seeds from 7; each takes longer than the one before."""
    runs = []
    for number, skill in enumerate(skills):
        out = trained(folder, seed_folder(name, number), skill)
        record = json.loads((out / "run.json").read_text())
        record["recipe"]["name"] = f"mine/{name}"
        record["seed"] = 7 + number
        record["training"] |= {
            "seconds": 80.0 + 10 * number,
            "images": 20_000 + number,
            "peak_memory_mib": 1900 + number,
        }
        (out / "run.json").write_text(json.dumps(record))
        evaluation = json.loads((out / "evaluations" / "test" / "evaluation.json").read_text())
        evaluation |= {"coverage": 0.95, "warnings": ["it is weak: so it is; try more"] if number == 1 else []}
        (out / "evaluations" / "test" / "evaluation.json").write_text(json.dumps(evaluation))
        runs.append(out)
    return runs


def metrics_of(skill):
    return TASK.metrics(predictions(skill), TRUTH)


def ranking_of(skill):
    return next(metric for metric in metrics_of(skill) if metric.key == "macro_auc")


@pytest.fixture
def of_seeds(tmp_path):
    """A board of a recipe with three seeds, and one with a single seed."""
    runs = [*several(tmp_path, "demo", (0.3, 0.6, 0.9)), *several(tmp_path, "plain", (0.1,))]
    return rank_runs(runs[::-1], SETTINGS, {}), runs


def test_row_is_the_mean_over_seeds(of_seeds):
    board, runs = of_seeds
    demo, plain = board.rows
    assert [(row["name"], row["recipe"], row["seeds"]) for row in board.rows] == [
        ("demo", "mine/demo", 3), ("plain", "mine/plain", 1),
    ]  # fmt: skip
    found = intervals_over_seeds([metrics_of(skill) for skill in (0.3, 0.6, 0.9)], 60)
    assert demo["figures"] == {
        key: found[key].record() for key in ("accuracy", "macro_auc", "ece", "auc_cdm", "auc_axion")
    }
    auc = [ranking_of(skill).statistic(np.ones((1, 60)))[0] for skill in (0.3, 0.6, 0.9)]
    assert demo["figures"]["macro_auc"]["value"] == pytest.approx(np.mean(auc))
    assert demo["figures"]["macro_auc"]["scatter"] == pytest.approx(np.std(auc, ddof=1))
    assert "if_calibrated" not in demo["figures"]["ece"]
    assert (demo["seconds"], demo["images_seen"], demo["parameters"]) == (90.0, 20_001, 2_250_000)
    assert (demo["peak_memory_mib"], demo["seconds_to_goal"]) == (1902, None)
    assert demo["warnings"] == ["with seed 8, it is weak: so it is; try more"]
    assert [(each["run"], each["seed"], each["seconds"]) for each in demo["runs"]] == [
        ("demo", 7, 80.0), ("demo-seed1", 8, 90.0), ("demo-seed2", 9, 100.0),
    ]  # fmt: skip
    for each, out in zip(demo["runs"], runs, strict=False):
        stored = json.loads((out / "evaluations" / "test" / "evaluation.json").read_text())
        assert each["figures"]["macro_auc"] == stored["figures"]["macro_auc"]
    assert plain["figures"]["macro_auc"]["value"] == 0.1, "as the evaluation has it"


def test_differences_of_recipes_hold_the_scatter_of_their_trainings(of_seeds):
    (found,) = of_seeds[0].differences
    each = {
        "mine/demo": [ranking_of(skill) for skill in (0.3, 0.6, 0.9)],
        "mine/plain": ranking_of(0.1),
    }
    (expected,) = paired_differences(each, 60)
    assert {found["first"], found["second"]} == set(each)
    sign = 1 if found["first"] == "mine/demo" else -1
    assert sign * found["value"] == pytest.approx(expected.value)
    (alone,) = paired_differences({"a": ranking_of(0.6), "b": ranking_of(0.1)}, 60)
    assert found["high"] - found["low"] > 1.2 * (alone.high - alone.low)


def test_time_to_the_goal_is_the_mean_if_all_seeds_reached_it(tmp_path):
    runs = several(tmp_path, "demo", (0.3, 0.6))
    for out, seconds in zip(runs, (20, 31), strict=True):
        log = f"epoch,seconds,validation/loss,validation/auc\n0,{seconds},1,0.96\n"
        (out / "logs" / "csv-0" / "metrics.csv").write_text(log)
    assert rank_runs(runs, SETTINGS, {}).rows[0]["seconds_to_goal"] == 25.5


def test_recipe_is_ranked_by_the_seeds_that_are_done(tmp_path):
    (row,) = rank_runs(several(tmp_path, "demo", (0.3, 0.6, 0.9))[2:], SETTINGS, {}).rows
    assert (row["name"], row["seeds"], [each["seed"] for each in row["runs"]]) == ("demo", 1, [9])


def test_board_of_several_seeds_says_what_its_intervals_hold(of_seeds, tmp_path):
    board, _ = of_seeds
    page = write_leaderboard(board, tmp_path).read_text("utf-8")
    text = (tmp_path / "leaderboard.md").read_text("utf-8")
    head, _, demo, plain, *rest = text.splitlines()
    assert head.startswith("| recipe | seeds | ")
    assert demo.startswith("| `demo` (see below) | 3 | ")
    assert plain.startswith("| `plain` | 1 | ")
    assert head.count("|") == demo.count("|") == plain.count("|")
    held = (
        "95% intervals of the mean over seeds, which hold the choice of the test images (bootstrap) and the scatter of the "
        "trainings (Student's t), of recipes with one seed the choice of the test images alone; "
        "±: the standard deviation over seeds"
    )
    assert "2 epochs a recipe, 3 seeds (7 to 9), all from random weights" in rest[1]
    assert f"In brackets: {held}; other columns are means over seeds" in rest[1]
    assert "`demo`: with seed 8, it is weak: so it is." in text
    assert "2 epochs each, 3 seeds (7 to 9); all" in page
    assert f"Small: {held}".replace("'", "&#39;") in page
    assert "<th>recipe</th><th>seeds</th>" in page
    assert "Curves are those of each recipe's first seed." in page
    assert "independently for each recipe" in page
    ece = board.rows[0]["figures"]["ece"]
    assert f"{ece['value']:.4f}<br><small>± {ece['scatter']:.4f}</small>" in page
    kept = json.loads((tmp_path / "leaderboard.json").read_text("utf-8"))["rows"][0]
    assert (kept["seeds"], len(kept["runs"])) == (3, 3)
    assert len({each["figures"]["macro_auc"]["value"] for each in kept["runs"]}) == 3
