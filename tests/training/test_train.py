"""What a run folder is given, step by step, and what is left of it: the training itself is pretended."""

import dataclasses
from pathlib import Path
from typing import ClassVar

import polars as pl
import pytest

from darklens.errors import DataError, RecipeError
from darklens.training import train as training
from darklens.training.fit import Fitted
from darklens.training.job import Job, read_record, write_record
from darklens.training.recipe import load_recipe
from darklens.training.train import resume, train

RECIPE = load_recipe("substructure/demo")
JOB = Job(RECIPE, "some/data", 3)
TOOK = {
    "seconds": 10.0, "epochs": 2, "steps": 20, "images": 600, "parameters": 100, "images_per_second": 60.0,
    "peak_memory_mib": 500, "best_epoch": 1,
}  # fmt: skip


@dataclasses.dataclass
class Data:
    """What stands for the images."""

    split: pl.DataFrame | None
    job: Job
    description: ClassVar = {"checksum": "sha256:1"}
    notes: ClassVar = ["a note"]
    target: ClassVar = None


class Pretended:
    """What would be done, in order; a fit may be interrupted or fail."""

    def __init__(self):
        self.built, self.checkpoints, self.trusted = [], [], []
        self.failing, self.keeps, self.split = None, False, pl.DataFrame({"id": ["a"], "split": ["train"]})

    def open_job_data(self, job, *, trust_code):
        self.trusted.append(trust_code)
        return Data(self.split, job)

    def build_module(self, recipe, data, start, *, trust_code):
        self.built.append((data.job, start))
        return recipe

    def fit(self, job, data, module, out, *, checkpoint, started):
        self.checkpoints.append(checkpoint)
        if self.keeps:
            (out / "checkpoints").mkdir(parents=True)
            (out / "checkpoints" / "last.ckpt").write_text("")
        if self.failing:
            raise self.failing
        return Fitted(None, 12.4, 30, 3.0, 1, {})

    def finish(self, job, data, module, out, fitted):
        (out / "model").mkdir()
        (out / "model" / "config.json").write_text(job.recipe.task["name"])
        write_record(out, read_record(out) | {"training": TOOK, "data_description": {"source": job.data}})


@pytest.fixture
def pretended(monkeypatch):
    made = Pretended()
    for name in ("open_job_data", "build_module", "fit", "finish"):
        monkeypatch.setattr(training, name, getattr(made, name))
    return made


def test_run_has_its_record_and_split_and_says_what_it_took(pretended, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(JOB, out, trust_code=True) == out
    assert read_record(out)["seed"] == 3
    assert read_record(out)["notes"] == ["a note"]
    assert pl.read_parquet(out / "split.parquet").rows() == [("a", "train")]
    assert pretended.checkpoints == [None]
    assert pretended.built == [(JOB, None)]
    assert pretended.trusted == [True]
    assert capsys.readouterr().out == f"trained in 12 s → {out}\n"
    with pytest.raises(DataError, match="run: exists already, and nothing is overwritten"):
        train(JOB, out)
    assert (out / "model").exists()


def test_images_simulated_as_it_goes_have_no_split(pretended, tmp_path):
    pretended.split = None
    train(dataclasses.replace(JOB, start="a-model"), tmp_path / "run")
    assert not (tmp_path / "run" / "split.parquet").exists()
    assert pretended.built[0][1] == "a-model"
    assert pretended.trusted == [False]


@pytest.mark.parametrize("keeps", [True, False])
def test_only_a_run_with_a_checkpoint_is_left(pretended, tmp_path, keeps):
    pretended.failing, pretended.keeps = KeyboardInterrupt(), keeps
    with pytest.raises(KeyboardInterrupt):
        train(JOB, tmp_path / "run")
    assert (tmp_path / "run" / "run.json").exists() is keeps
    assert (tmp_path / "run").exists() is keeps


def test_run_goes_on_from_its_checkpoint_and_is_left_when_finished(pretended, tmp_path, capsys):
    out = tmp_path / "run"
    pretended.failing, pretended.keeps = KeyboardInterrupt(), True
    with pytest.raises(KeyboardInterrupt):
        train(JOB, out)
    pretended.failing, pretended.keeps = None, False
    (out / "split.parquet").unlink()
    with pytest.raises(
        RecipeError, match="was started with another recipe, data or seed; --resume takes the same command"
    ):
        resume(out, dataclasses.replace(JOB, seed=4))
    assert resume(out, JOB, trust_code=True) == out
    assert pretended.checkpoints == [None, out / "checkpoints" / "last.ckpt"]
    assert pretended.trusted == [False, True]
    assert not (out / "split.parquet").exists(), "what was recorded is not recorded again"
    capsys.readouterr()
    assert resume(out) == out
    assert capsys.readouterr().out == f"{out}: already finished\n"
    assert len(pretended.checkpoints) == 2


def test_run_without_a_checkpoint_begins_anew(pretended, tmp_path):
    train(JOB, tmp_path / "run")
    (tmp_path / "run" / "model" / "config.json").unlink()
    (tmp_path / "run" / "model").rmdir()
    resume(tmp_path / "run")
    assert pretended.checkpoints == [None, None]


def test_helpers_write_nothing(pretended, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "is_helper_process", lambda: True)
    monkeypatch.setattr(pretended, "fit", lambda *_, **__: None)
    monkeypatch.setattr(training, "fit", pretended.fit)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "theirs").write_text("")
    assert train(JOB, tmp_path / "run") == tmp_path / "run"
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["theirs"]


@pytest.fixture
def written(tmp_path):
    def write(text):
        (tmp_path / "mine.yaml").write_text(text)
        return load_recipe(str(tmp_path / "mine.yaml"))

    return write


def test_members_are_trained_one_by_one_and_gathered(pretended, written, tmp_path, monkeypatch):
    gathered = []
    monkeypatch.setattr(
        training, "make_ensemble", lambda runs, out, own, trust_code: gathered.append((runs, out, own, trust_code))
    )
    recipe = written(
        "task: classify\nmembers: [substructure/demo, {recipe: substructure/demo, trainer: {epochs: 3}}]\n"
    )
    job, out = dataclasses.replace(JOB, recipe=recipe), tmp_path / "run"
    assert train(job, out, trust_code=True) == out
    first, second = recipe.parts()
    assert [made for made, _ in pretended.built] == [
        dataclasses.replace(job, recipe=first, member=0), dataclasses.replace(job, recipe=second, member=1),
    ]  # fmt: skip
    runs = [out / "members" / "0-demo", out / "members" / "1-demo"]
    assert gathered == [(runs, out, set(), True)]
    assert read_record(out)["recipe"]["name"] == "mine"
    assert [read_record(run)["member"] for run in runs] == [0, 1]
    resume(out, job)
    assert len(pretended.built) == 2, "members that are done are left as they are"
    assert len(gathered) == 2


def test_ensemble_that_fails_is_left_if_a_member_has_a_checkpoint(pretended, written, tmp_path):
    recipe = written("task: classify\nmembers: [substructure/demo, substructure/demo]\n")
    job = dataclasses.replace(JOB, recipe=recipe)
    pretended.failing = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        train(job, tmp_path / "gone")
    assert not (tmp_path / "gone").exists()
    pretended.keeps = True
    with pytest.raises(KeyboardInterrupt):
        train(job, tmp_path / "kept")
    assert (tmp_path / "kept" / "members" / "0-demo" / "checkpoints" / "last.ckpt").exists()


def test_stages_follow_each_other(pretended, written, tmp_path):
    """Each starts from the one before, on data of its own if it names some; the model is that of the last."""
    recipe = written(
        "task: classify\n"
        "stages: [{recipe: mass/demo, data: other/data}, {recipe: substructure/demo, trainer: {epochs: 3}}]\n"
    )
    job, out = dataclasses.replace(JOB, recipe=recipe, start="a-model", unlabelled="more"), tmp_path / "run"
    assert train(job, out) == out
    first, second = recipe.parts()
    runs = [out / "stages" / "0-regress", out / "stages" / "1-classify"]
    assert [made for made, _ in pretended.built] == [
        dataclasses.replace(job, recipe=first, data="other/data", unlabelled=None),
        dataclasses.replace(job, recipe=second, start=str(runs[0]), unlabelled=None),
    ]  # fmt: skip
    assert [start for _, start in pretended.built] == ["a-model", str(runs[0])]
    assert (out / "model" / "config.json").read_text() == "classify"
    assert pl.read_parquet(out / "split.parquet").rows() == [("a", "train")]
    record = read_record(out)
    assert record["data_description"] == {"source": "some/data"}
    assert (record["training"]["seconds"], record["training"]["epochs"], record["training"]["best_epoch"]) == (
        20,
        4,
        None,
    )
    assert record["recipe"]["name"] == "mine"
    assert resume(out, job) == out
    assert len(pretended.built) == 2


def test_stage_that_was_interrupted_goes_on(pretended, written, tmp_path):
    recipe = written("task: classify\nstages: [mass/demo, substructure/demo]\n")
    job, out = dataclasses.replace(JOB, recipe=recipe), tmp_path / "run"
    pretended.failing, pretended.keeps = KeyboardInterrupt(), True
    with pytest.raises(KeyboardInterrupt):
        train(job, out)
    pretended.failing, pretended.keeps = None, False
    resume(out)
    assert pretended.checkpoints == [None, out / "stages" / "0-regress" / "checkpoints" / "last.ckpt", None]
    assert (out / "model" / "config.json").read_text() == "classify"


def test_misspelt_options_leave_nothing(pretended, tmp_path):
    job = dataclasses.replace(JOB, recipe=dataclasses.replace(RECIPE, network={"name": "compact", "widhts": []}))
    with pytest.raises(RecipeError, match=r"did you mean network\.widths"):
        train(job, tmp_path / "run")
    assert not Path(tmp_path / "run").exists()
    assert pretended.built == []
