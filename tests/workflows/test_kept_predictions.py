"""A killed prediction or search goes on from what it kept, to the same table; and what is kept never serves wrongly."""

import shutil

import numpy as np
import polars as pl
import pytest
import torch
from conftest import write_rings
from numpy.testing import assert_allclose

from darklens.cli.interrupted import kept
from darklens.errors import DataError
from darklens.inference import predictions
from darklens.inference.model import TrainedModel, load_model
from darklens.workflows.find import find_lenses
from darklens.workflows.options import PredictionOptions, SearchOptions
from darklens.workflows.predict import parts_of, predict_paths


class Killed(Exception):
    """In the place of a kill."""


@pytest.fixture(autouse=True)
def short_parts(monkeypatch):
    """A part for each batch of 64."""
    monkeypatch.setattr(predictions, "BATCHES", 1)


@pytest.fixture
def survey(tmp_path):
    """Two datasets, of three parts and of two."""
    return [write_rings(tmp_path / "one", 150, 7), write_rings(tmp_path / "two", 100, 8)]


@pytest.fixture
def seen(monkeypatch):
    """Numbers of the images that a model is given, call by call."""
    counts = []
    predict = TrainedModel.predict

    def counted(self, images, **options):
        counts.append(len(images))
        return predict(self, images, **options)

    monkeypatch.setattr(TrainedModel, "predict", counted)
    return counts


def killed_after(parts):
    """A progress that raises when so many parts are done."""
    calls = []

    def progress(done, of):
        calls.append(done)
        if len(calls) > parts:
            raise Killed

    return progress


def test_a_killed_prediction_goes_on_to_the_same_table(finding_run, survey, seen, tmp_path):
    predict_paths(finding_run, survey, tmp_path / "whole.parquet")
    assert not parts_of(tmp_path / "whole.parquet").exists()
    out = tmp_path / "out" / "table.parquet"
    with pytest.raises(Killed):
        predict_paths(finding_run, survey, out, progress=killed_after(4))
    assert not out.exists()
    assert f"predictions so far are kept in {parts_of(out)}" in kept("predict", {"out": out}, "darklens predict x")
    del seen[:]
    written = predict_paths(finding_run, survey, out)
    assert seen == [36]  # the last part alone
    assert written.images == 250
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert not parts_of(out).exists()
    assert "nothing was written" in kept("predict", {"out": tmp_path / "other.parquet"}, "darklens predict x")


def test_a_killed_search_goes_on_to_the_same_list_and_page(finding_run, survey, seen, tmp_path):
    def search(name):
        return SearchOptions(mosaic=tmp_path / f"{name}.html", top=20)

    find_lenses(finding_run, survey, tmp_path / "whole.csv", search=search("whole"))
    with pytest.raises(Killed):
        find_lenses(finding_run, survey, tmp_path / "list.csv", search=search("list"), progress=killed_after(3))
    del seen[:]
    find_lenses(finding_run, survey, tmp_path / "list.csv", search=search("list"))
    assert seen == [64, 36]
    for end in (".csv", ".html"):
        assert (tmp_path / f"list{end}").read_bytes() == (tmp_path / f"whole{end}").read_bytes()


def test_what_was_skipped_is_kept(finding_run, survey, seen, tmp_path):
    images = np.load(survey[0] / "images.npy")
    images[3, 0, 2, 2] = np.nan
    np.save(survey[0] / "images.npy", images)
    (survey[0] / "checksums.json").unlink(missing_ok=True)
    out, choices = tmp_path / "table.csv", PredictionOptions(skip=True)
    with pytest.raises(Killed):
        predict_paths(finding_run, survey, out, choices=choices, progress=killed_after(2))
    del seen[:]
    written = predict_paths(finding_run, survey, out, choices=choices)
    assert seen == [22, 64, 36]
    assert list(written.skipped) == ["o7-3"]
    assert len(pl.read_csv(out)) == 249


@pytest.mark.parametrize("changed", ["images", "choices", "prior", "damaged", "names"])
def test_what_is_kept_serves_the_same_question_alone(finding_run, survey, seen, tmp_path, changed):
    out = tmp_path / "table.csv"
    with pytest.raises(Killed):
        predict_paths(finding_run, survey[:1], out, progress=killed_after(2))
    choices, paths, expected = PredictionOptions(), survey[:1], [64, 64, 22]
    if changed == "images":
        images = np.load(survey[0] / "images.npy")
        np.save(survey[0] / "images.npy", images[:, :, ::-1])
    elif changed == "choices":
        choices = PredictionOptions(symmetries=True)
    elif changed == "prior":
        choices = PredictionOptions(prior=0.3)
    elif changed == "names":
        paths, expected = survey[1:], [64, 36]
    else:
        (parts_of(out) / "0" / "64.npz").write_bytes(b"PK\x03\x04")
        expected = [64, 22]
    del seen[:]
    predict_paths(finding_run, paths, out, choices=choices)
    assert seen == expected
    shutil.rmtree(parts_of(out), ignore_errors=True)
    predict_paths(finding_run, paths, tmp_path / "whole.csv", choices=choices)
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_an_image_that_cannot_be_used_keeps_what_came_before(finding_run, survey, seen, tmp_path):
    images = np.load(survey[0] / "images.npy")
    broken = images.copy()
    broken[140] = np.inf
    np.save(survey[0] / "images.npy", broken)
    out = tmp_path / "table.csv"
    with pytest.raises(DataError, match="o7-140"):
        predict_paths(finding_run, survey, out)
    assert sorted(path.name for path in (parts_of(out) / "0").glob("*.npz")) == ["0.npz", "64.npz"]


def test_bfloat16_changes_probabilities_a_little(finding_run, survey, tmp_path):
    model = load_model(finding_run)
    images = torch.from_numpy(np.load(survey[0] / "images.npy"))
    exact, low = (model.with_precision(name).predict(images) for name in ("float32", "bfloat16"))
    assert_allclose(exact.array, model.predict(images).array, rtol=0)
    assert 0 < np.abs(low.array - exact.array).max() < 0.02
    assert low.array.dtype == np.float64
    predict_paths(finding_run, survey[:1], tmp_path / "a.parquet", choices=PredictionOptions(precision="bfloat16"))
    assert_allclose(pl.read_parquet(tmp_path / "a.parquet")["p_lens"], low.array[:, 1], rtol=1e-12)
    search = SearchOptions(precision="bfloat16")
    find_lenses(finding_run, survey[:1], tmp_path / "b.parquet", search=search)
    assert_allclose(pl.read_parquet(tmp_path / "b.parquet")["probability"], np.sort(low.array[:, 1])[::-1], rtol=1e-12)
