"""What the leaderboard says, of rows that were written by hand."""

import dataclasses
import json

import pytest

from darklens.report.leaderboard import Leaderboard, markdown, write_leaderboard
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
        "peak_memory_mib": 1900, "seconds_to_goal": 55.4, "precision": "32-true", "threads": 3,
    } | changes  # fmt: skip


SETTINGS = {
    "preset": "model-x", "data": None, "train_images": 40000, "test_images": 1500, "budget": "2 epochs", "seed": 7,
    "pretrained": False, "machine": "a machine",
}  # fmt: skip
RANKING = {"key": "macro_auc", "title": "Macro AUC", "unit": "", "better": "higher", "perfect": 1}
WEAK = {"warnings": ["the model cannot be told from guessing: so it is; try more images"], "seconds_to_goal": None}
ROWS = [row("best", 0.98), row("weak", 0.51, **WEAK)]
DIFFERENCES = [{"first": "mine/best", "second": "mine/weak", "value": 0.47, "low": 0.4, "high": 0.5, "p": 0.001}]
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
        "threads: 3. In brackets: 95% bootstrap intervals.",
        "`weak`: the model cannot be told from guessing: so it is.",
        "Left out: `mine/broken`: it broke",
    ]
    assert markdown(BOARD).endswith("it broke\n")


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
        "failed": {"mine/broken": "it broke"},
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
    assert "+0.4700<br><small>p &lt; 0.001" in page or "+0.4700<br><small>p < 0.001" in page
    assert "-0.4700" in page
    assert "darklens.report" not in page
    assert "{" not in page[page.index("<body") : page.index("<svg")]


def test_page_of_one_row_compares_nothing(tmp_path):
    board = dataclasses.replace(BOARD, rows=ROWS[:1], differences=[], failed={}, settings=SETTINGS | {"data": "mine"})
    page = write_leaderboard(board, tmp_path).read_text("utf-8")
    assert "Which differences are real" not in page
    assert "<h1>Leaderboard on mine</h1>" in page
