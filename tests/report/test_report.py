import html
import json
import re
import shutil

import numpy as np
import polars as pl
import pytest
from conftest import EXAMPLES

from darklens.errors import DataError
from darklens.report.page import write_report
from darklens.workflows.evaluate import evaluate_run
from darklens.workflows.look import look


@pytest.fixture(scope="module")
def evaluated(run, mass_run, test_set):
    evaluate_run(run, test_set)
    evaluate_run(mass_run, test_set)
    return run, mass_run


def test_evaluation_is_kept_beside_the_run(evaluated):
    folder = evaluated[0] / "evaluations" / "test"
    record = json.loads((folder / "evaluation.json").read_text())
    assert record["n"] == 96
    assert {"accuracy", "macro_auc", "micro_auc", "ece", "auc_cdm"} <= set(record["figures"])
    assert np.sum(record["confusion"]) == 96
    table = pl.read_parquet(folder / "predictions.parquet")
    right = (table["predicted"] == table["true"]).mean()
    assert record["figures"]["accuracy"]["value"] == pytest.approx(right)
    mass = json.loads((evaluated[1] / "evaluations" / "test" / "evaluation.json").read_text())
    assert mass["n"] == 32, "only vortices have an axion mass"


def test_training_images_are_refused(run, dataset):
    with pytest.raises(DataError, match="these are the images the model was trained on"):
        evaluate_run(run, dataset)


def test_unknown_label_is_refused(run, tmp_path):
    for name in ("cdm", "wdm"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "a.npy", np.random.default_rng(0).random((64, 64)))
    with pytest.raises(DataError, match="label 'wdm'; expected one of no_sub, cdm, axion"):
        evaluate_run(run, tmp_path)


def test_runs_of_one_name_are_told_apart_and_the_page_says_how_it_was_made(evaluated, tmp_path):
    runs = [shutil.copytree(evaluated[0], tmp_path / place / "fit") for place in ("may", "june")]
    page = write_report(runs, tmp_path / "my page.html", trust_code=True).read_text()
    assert re.findall(r"<h2 id=[^>]*>(.*?)</h2>", page) == ["may/fit", "june/fit"]
    again = html.unescape(page)
    assert f"darklens report {runs[0]} {runs[1]} --out '{tmp_path / 'my page.html'}' --trust_code true" in again
    assert "<tr><td>may/fit</td><td>june/fit</td><td>+0.0000</td>" in page


@pytest.mark.parametrize("which", [[0], [1], [0, 1]])
def test_page_is_whole_and_asks_nothing_of_the_network(evaluated, tmp_path, which):
    page = write_report([evaluated[i] for i in which], tmp_path / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page)
    assert not re.findall(r"@import|url\((?!#|data:)", page)
    loaded = {address for address in re.findall(r"https?://[\w./-]+", page) if "w3.org" not in address}
    assert not {
        a
        for a in loaded
        if not a.startswith(("http://purl.org", "http://creativecommons.org", "https://matplotlib.org"))
    }
    assert "darklens evaluate" in page
    assert "95%" in page
    assert page.count("<svg") == {(0,): 4, (1,): 2, (0, 1): 6}[tuple(which)]
    assert "{{" not in page


def test_run_without_evaluation_says_what_to_do(run, tmp_path):
    with pytest.raises(DataError, match="not a trained run"):
        write_report([tmp_path], tmp_path / "r.html")


def test_look_says_what_is_there(class_folders, tmp_path):
    findings = look(class_folders, out=tmp_path / "look.png")
    assert "12 images, 1×16×16 float64" in findings.facts
    assert "classes: no_sub 4, cdm 4, axion 4" in findings.facts
    assert (tmp_path / "look.png").stat().st_size > 5000
    assert any("min-max scaled" in w for w in look(EXAMPLES / "deeplense").warnings)
    euclid = look(EXAMPLES / "euclid")
    assert "pixel scale: 0.1″, so 10″ a side" in euclid.facts
    image = np.zeros((64, 64))
    np.save(tmp_path / "flat.npy", image)
    image[0, 0] = np.nan
    np.save(tmp_path / "bad.npy", image)
    assert any("are constant" in w for w in look(tmp_path / "flat.npy").warnings)
    assert any("nan or infinite" in w for w in look(tmp_path / "bad.npy").warnings)
