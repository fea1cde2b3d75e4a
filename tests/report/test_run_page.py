"""The page of runs that were written by hand: what is read, compared and shown."""

import base64
import html
import io
import json
import os

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest
from fuzz import make_model
from PIL import Image
from sklearn.metrics import roc_auc_score

from darklens.errors import DataError
from darklens.report import page as pages
from darklens.report.page import differences, read_arrays, read_run, svg, thumbnail, titles, write_page, write_report
from darklens.tasks.classify import Classify
from darklens.tasks.regress import Regress

TASK = Classify(class_names=["cdm", "axion"])
TRUTH = np.random.default_rng(0).integers(0, 2, 60)


def predictions(skill, seed=1):
    score = 1 / (1 + np.exp(-skill * (2 * TRUTH - 1) - np.random.default_rng(seed).normal(0, 1, 60)))
    return np.column_stack([1 - score, score])


def figure(value):
    return {"value": value, "low": value - 0.01, "high": value + 0.02, "n": 1234}


def run(folder, name="run", skill=1.0, config=None, **evaluation):
    """Write a run with an evaluation of made-up predictions of some skill."""
    out = folder / name
    make_model(out / "model", lens=False)
    described = json.loads((out / "model" / "config.json").read_text())
    recipe = {
        "name": f"mine/{name}",
        "description": "A small network.",
        "source": "a paper",
        "network": {"name": "compact"},
    }
    data = {"source": "preset:x", "seed": 3, "train_images": 7000, "validation_images": 800}
    described |= {"recipe": recipe, "data": data} | (config or {})
    (out / "model" / "config.json").write_text(json.dumps(described))
    training = {
        "epochs": 4, "images": 20000, "seconds": 80.0, "precision": "32-true", "best_epoch": 2, "machine": "a machine",
        "parameters": 2_250_000,
    }  # fmt: skip
    record = {
        "recipe": recipe,
        "seed": 5,
        "training": training,
        "command": f"darklens train {name}",
        "git": "0123456789abc",
    }
    (out / "run.json").write_text(
        json.dumps(record | {"versions": {"darklens": "9.8", "torch": "2.7"}, "git": "0123456789abc"})
    )
    log = out / "logs" / "csv-0"
    log.mkdir(parents=True)
    (log / "metrics.csv").write_text(
        "epoch,train/loss_epoch,validation/loss,validation/auc\n0,1,0.8,0.7\n1,0.5,0.6,0.8\n"
    )
    test = out / "evaluations" / "test"
    test.mkdir(parents=True)
    p = predictions(skill)
    details = TASK.details(p, TRUTH)
    content = {
        "figures": {"accuracy": figure(0.75), "macro_auc": figure(0.8), "ece": figure(150.26), "auc_cdm": figure(0.8),
                    "auc_axion": figure(0.7)},
        "metrics": {"accuracy": {"title": "Accuracy"}, "macro_auc": {"title": "Macro AUC"}},
        "n": 60, "rounds": 1000, "seed": 0, "notes": ["cropped"], "images_per_second": 512.4, "warnings": ["it is weak"],
        "data": {"source": "somewhere/test-set", "checksum": "abc"}, "command": "darklens evaluate it",
        "examples": ["an example", "another"], "mistakes": [{"id": "obj7", "true": "cdm", "called": "axion", "p": 0.912}],
    } | details | evaluation  # fmt: skip
    (test / "evaluation.json").write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    np.savez(test / "arrays.npz", predicted=p, truth=TRUTH)
    np.save(test / "pictures.npy", np.arange(3)[:, None, None, None] * np.ones((3, 1, 4, 4)))
    return out


@pytest.fixture
def drawn(monkeypatch):
    """Pictures as text, which is faster: the title of a chart, the first pixel of a thumbnail."""
    monkeypatch.setattr(pages, "svg", lambda chart: f"<svg>{chart.axes[0].get_title()}</svg>")
    monkeypatch.setattr(pages, "thumbnail", lambda *images: "|".join(f"thumb{image.flat[0]:g}" for image in images))
    yield
    plt.close("all")


def text(path):
    return " ".join(html.unescape(path.read_text("utf-8")).split())


def test_page_of_a_run_says_what_is_on_record(tmp_path, drawn):
    out = write_report([run(tmp_path)], tmp_path / "deep" / "page.html")
    assert out == tmp_path / "deep" / "page.html"
    page = text(out)
    for part in (
        "<h1>run</h1>",
        "A small network. Trained on preset:x; evaluated on 60 images of test-set that it had never seen.",
        '<div class="name">Accuracy</div><div class="value">0.7500</div>',
        "<span>95%: 0.7400 – 0.7700</span> <span>n = 1,234</span>",
        '<div class="value">150.3</div>',
        '<p class="warning">it is weak</p>',
        '<img src="thumb0" alt="an example">',
        '<img src="thumb1" alt="another">',
        "<h2>Most confident mistakes</h2>",
        '<img src="thumb2" alt="obj7"><figcaption>true cdm<br>predicted <span class="wrong">axion</span> (91.2%)',
        "<tr><td>auc cdm</td><td>0.8000</td>",
        "Test images were fitted to the model: cropped.",
        "mine/run: compact, 2,250,000 parameters<br><small>a paper</small>",
        "4 epochs, 20,000 images seen in 80 s (250 images/s), 32-true, seed 5; epoch 2 was best",
        "darklens 9.8, torch 2.7; revision 0123456789",
        "<pre>darklens train run darklens evaluate it darklens report",
        f"--out {tmp_path}/deep/page.html</pre>",
        "Made by darklens 9.8.",
    ):
        assert part in page, part
    charts = ["ROC, one class against the rest", "Confusion", "Calibration", "Learning curves"]
    assert [page.index(f"<svg>{title}</svg>") for title in charts] == sorted(
        page.index(f"<svg>{t}</svg>") for t in charts
    )
    headlines = page[page.index('<div class="cards">') : page.index("How well it does")]
    assert headlines.count('class="card"') == 3, "micro AUC was not measured"
    assert "Where it looks" not in page
    assert "side by side" not in page


def test_page_of_an_older_run_leaves_out_what_it_does_not_have(tmp_path, drawn):
    old = run(tmp_path, command=None, metrics=None, warnings=None, notes=[], mistakes=[], examples=[])
    (old / "logs" / "csv-0" / "metrics.csv").unlink()
    record = json.loads((old / "run.json").read_text())
    (old / "run.json").write_text(json.dumps(record | {"command": None}))
    np.save(old / "evaluations/test/pictures.npy", np.zeros((0, 1, 4, 4)))
    (old / "evaluations/test/arrays.npz").unlink()
    table = pl.DataFrame({"cdm": [0.5], "axion": [0.5], "true": ["cdm"]})
    table.write_parquet(old / "evaluations/test/predictions.parquet")
    page = text(write_report([old], tmp_path / "page.html"))
    assert "Learning curves" not in page
    assert '<div class="name">macro auc</div>' in page
    assert '<p class="warning">' not in page
    assert "<pre>darklens report" in page
    assert "the training was started from Python" in page


def test_calibration_error_is_shown_with_its_range_and_that_of_an_earlier_version_alone(tmp_path, drawn):
    figures = {"accuracy": figure(0.75), "macro_auc": figure(0.8), "auc_cdm": figure(0.8), "auc_axion": figure(0.7)}
    ece = {"value": 0.0095, "n": 1234, "if_calibrated": {"low": 0.004, "high": 0.009, "p": 0.01}}
    note = (
        "seed 0; “if calibrated”: the central 95% of what an exactly calibrated model of the same probabilities would"
    )
    new = text(write_report([run(tmp_path, "new", figures=figures | {"ece": ece})], tmp_path / "page.html"))
    assert "<span>95%: 0.0040 – 0.0090 if calibrated</span> <span>n = 1,234</span>" in new
    assert "<tr><td>ece</td><td>0.0095</td><td>0.0040 – 0.0090 if calibrated</td><td>1,234</td></tr>" in new
    assert note in new
    old = text(write_report([run(tmp_path, "old")], tmp_path / "page.html"))
    assert "<tr><td>ece</td><td>150.3</td><td>–</td><td>1,234</td></tr>" in old
    assert note not in old


def test_explanations_are_shown_with_their_maps(tmp_path, drawn):
    out = run(tmp_path, explained=["cdm of it", "axion of it"])
    pair = np.stack([np.full((2, 4, 4), [[[1.0]], [[2.0]]]), np.full((2, 4, 4), [[[5.0]], [[6.0]]])])
    np.save(out / "evaluations/test/explanations.npy", pair)
    page = text(write_report([out], tmp_path / "page.html"))
    assert '<img src="thumb1" alt=""><img src="thumb1|thumb5" alt="what each pixel adds"><figcaption>cdm of it' in page
    assert (
        '<img src="thumb2" alt=""><img src="thumb2|thumb6" alt="what each pixel adds"><figcaption>axion of it' in page
    )


def test_runs_on_the_same_images_are_compared(tmp_path, drawn):
    runs = [run(tmp_path, "one", 2.0), run(tmp_path, "two", 0.3)]
    path = runs[1] / "evaluations" / "test" / "evaluation.json"
    content = json.loads(path.read_text())
    content["figures"]["other"] = figure(0.5)
    path.write_text(json.dumps(content))
    page = text(write_report(runs, tmp_path / "page.html"))
    assert "<h1>2 runs compared</h1>" in page
    assert "2 runs side by side, on the same 60 test images." in page
    heads = page[page.index("<tr><th>run</th>") : page.index("</tr>")]
    assert [part.partition("</th>")[0] for part in heads.split("<th>")[1:]] == [
        "run", "Accuracy", "Macro AUC", "ece", "auc cdm", "auc axion", "other",
    ]  # fmt: skip
    assert "<small>2.2M parameters</small>" in page
    assert "<tr><th>Macro AUC of</th><th>minus that of</th>" in page
    assert "<tr><td>one</td><td>two</td><td>+" in page
    assert '<h2 id="two">two</h2>' in page


def test_differences_are_shown_with_both_p_values(tmp_path, drawn, monkeypatch):
    one = {
        "first": "a",
        "second": "b",
        "title": "T",
        "value": 0.1,
        "low": 0.02,
        "high": 0.2,
        "p": 0.0005,
        "p_holm": 0.0712,
    }
    monkeypatch.setattr(pages, "differences", lambda _: [one])
    page = text(write_report([run(tmp_path, "a"), run(tmp_path, "b")], tmp_path / "page.html"))
    assert "<th>p</th><th>p, corrected</th></tr>" in page
    assert "<td>+0.0200 – +0.2000</td><td>< 0.001</td><td>0.071</td></tr>" in page
    assert "the last column is corrected for the number of pairs by Holm's method." in page


@pytest.mark.parametrize(
    "other", [{"n": 61}, {"data": {"source": "somewhere/test-set", "checksum": "other"}},
              {"data": {"source": "elsewhere", "checksum": None}}]
)  # fmt: skip
def test_runs_on_other_images_are_not_compared(tmp_path, drawn, monkeypatch, other):
    monkeypatch.setattr(Classify, "panels", lambda *_: [])
    runs = [run(tmp_path, "one"), run(tmp_path, "two", **other)]
    page = text(write_report(runs, tmp_path / "page.html"))
    assert "on different test sets: the figures are not comparable" in page
    assert "Which differences are real" not in page


def test_differences_are_of_the_metric_that_ranks(tmp_path):
    records = [read_run(run(tmp_path, name, skill)) for name, skill in (("one", 2.0), ("two", 0.3))]
    (found,) = differences(records)
    aucs = [roc_auc_score(TRUTH, predictions(skill)[:, 1]) for skill in (2.0, 0.3)]
    assert (found["first"], found["second"], found["title"]) == ("one", "two", "Macro AUC")
    assert found["value"] == pytest.approx(aucs[0] - aucs[1])
    assert found["low"] < found["value"] < found["high"]
    assert differences(records[:1]) == []


def test_differences_leave_out_other_truths_tasks_and_evaluations_without_predictions(tmp_path):
    records = [read_run(run(tmp_path, name, skill)) for name, skill in (("a", 2.0), ("b", 1.0), ("c", 0.5), ("d", 0.1))]
    folder = records[1].evaluation["folder"]
    np.savez(folder / "arrays.npz", predicted=predictions(1.0), truth=1 - TRUTH)
    folder = records[2].evaluation["folder"]
    (folder / "arrays.npz").unlink()
    pl.DataFrame({"true": ["cdm"] * 60}).write_parquet(folder / "predictions.parquet")
    assert [(each["first"], each["second"]) for each in differences(records)] == [("a", "d")]
    odd = Regress("m")
    records[3] = pages.RunRecord(**vars(records[3]) | {"task": odd})
    assert differences(records) == []


def test_newest_evaluation_is_read(tmp_path):
    out = run(tmp_path)
    older = out / "evaluations" / "z-older"
    older.mkdir()
    (older / "evaluation.json").write_text('{"n": 3}')
    os.utime(older / "evaluation.json", (1, 1))
    record = read_run(out)
    assert (record.evaluation["n"], record.evaluation["folder"]) == (60, out / "evaluations" / "test")
    os.utime(out / "evaluations" / "test" / "evaluation.json", (0, 0))
    assert read_run(out).evaluation == {"n": 3, "folder": older}
    assert (record.path, record.task, record.run["seed"]) == (out, TASK, 5)
    assert record.config.outputs == ["cdm", "axion"]
    assert [epoch["validation/auc"] for epoch in record.epochs] == [0.7, 0.8]


def test_what_is_no_evaluated_run_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"not a trained run \(run\.json is missing\)"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(DataError, match=r"not a trained run \(config\.json is missing\)"):
        read_run(tmp_path)
    make_model(tmp_path / "model", lens=False)
    with pytest.raises(DataError, match="nothing to report yet; evaluate the run first"):
        read_run(tmp_path)


def test_predictions_of_version_0_1_are_read_from_the_table(tmp_path):
    table = pl.DataFrame({"m": [1.5, -2.0], "true": [1.0, 3.0], "id": ["a", "b"]})
    table.write_parquet(tmp_path / "predictions.parquet")
    predicted, truth = read_arrays(tmp_path, Regress("m"))
    assert (predicted.tolist(), truth.tolist()) == ([[1.5], [-2.0]], [[1.0], [3.0]])
    assert read_arrays(tmp_path, Regress("other")) == (None, None)
    table.with_columns(true=pl.lit("cdm")).write_parquet(tmp_path / "predictions.parquet")
    assert read_arrays(tmp_path, Regress("m")) == (None, None)
    np.savez(tmp_path / "arrays.npz", predicted=np.array([[7.0]]), truth=np.array([8.0]))
    assert [each.tolist() for each in read_arrays(tmp_path, Regress("m"))] == [[[7.0]], [8.0]]


def test_titles_of_metrics():
    evaluation = {"figures": {"macro_auc": 1, "ece": 2}, "metrics": {"ece": {"title": "Calibration error"}}}
    assert titles(evaluation) == {"macro_auc": "macro auc", "ece": "Calibration error"}
    assert titles({"figures": {"macro_auc": 1}}) == {"macro_auc": "macro auc"}


def test_page_is_written_whole_or_not_at_all(tmp_path):
    out = write_page("<p>é</p>", tmp_path / "a" / "b" / "page.html")
    assert out.read_text("utf-8") == "<p>é</p>"
    assert write_page("again", out).read_text() == "again"
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]
    with pytest.raises(DataError, match=r"page\.html/page\.html: cannot be written: (Not a directory|File exists)$"):
        write_page("", out / "page.html")


def chart():
    figure, axis = plt.subplots(figsize=(1, 1))
    axis.plot([0, 1], [1, 0], label="x")
    axis.set_title("A <title>")
    return figure


def test_charts_are_the_same_text_every_time():
    first, second = svg(chart()), svg(chart())
    assert first == second
    assert first.startswith("<svg")
    assert first.rstrip().endswith("</svg>")
    assert "<dc:date>" not in first
    assert "<text" not in first, "letters are paths, for readers without the font"
    assert plt.get_fignums() == []


def decoded(address):
    head, _, data = address.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), dtype=float)


def test_thumbnails_are_pictures():
    image = np.zeros((16, 16))
    image[:5, :5] = 1.0
    image += np.random.default_rng(0).normal(0, 0.01, image.shape)
    picture = decoded(thumbnail(image))
    assert picture.shape == (154, 154, 3)
    bright = picture.mean(2) > picture.mean()
    assert bright.mean() == pytest.approx(25 / 256, abs=0.06)
    map_of = np.zeros((16, 16))
    map_of[12:, 12:] = 1.0
    colours = decoded(thumbnail(image, map_of))
    assert colours.shape == (154, 154, 3)
    assert not np.allclose(colours, picture)
    assert len(np.unique(colours)) > 10, "it is not outside of the picture"
    assert plt.get_fignums() == []


def test_units_stand_beside_the_names_of_metrics():
    metrics = {"off": {"title": "Offset", "unit": "arcsec²"}, "r2": {"title": "R²", "unit": ""}}
    found = titles({"figures": {"off": 1, "r2": 2}, "metrics": metrics})
    assert found == {"off": "Offset (arcsec²)", "r2": "R²"}


def test_small_numbers_are_shown_in_full():
    assert [pages.count_text(number) for number in (354, 99_999, 100_000, 2_685_443)] == [
        "354",
        "99,999",
        "0.1M",
        "2.7M",
    ]
