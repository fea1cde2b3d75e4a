"""The record of a run: what is written, read back, trusted and refused."""

import dataclasses
import hashlib
import json
import os
import re
import resource
import shutil
from pathlib import Path

import pytest
import torch
from conftest import TINY

from darklens.commands import given_command
from darklens.data.options import DataOptions
from darklens.errors import DataError, RecipeError, UntrustedCodeError
from darklens.training import job as jobs
from darklens.training.job import (
    Job,
    learns_alike,
    machine,
    new_record,
    open_job_data,
    peak_memory,
    read_job,
    read_record,
    recorded_job,
    same_job,
    training_command,
    write_record,
)
from darklens.training.recipe import load_recipe
from darklens.training.train import resume, train

RECIPE = load_recipe("substructure/demo")
CODE = "class Net:\n    pass\n"


def recorded(out, job):
    out.mkdir(exist_ok=True)
    write_record(out, new_record(job, out))
    return out


def test_job_survives_its_record(tmp_path):
    job = Job(
        RECIPE, "some/data", 7, DataOptions(catalog=Path("a/table.csv"), crop=32, mask=True), wandb="project",
        start="a-model", member=2, unlabelled="more", split_seed=4, labels="few.csv",
    )  # fmt: skip
    assert read_job(recorded(tmp_path / "run", job)) == job
    assert read_job(recorded(tmp_path / "plain", Job(RECIPE, "d"))) == Job(
        RECIPE, "d", 0, DataOptions(), None, None, 0, None
    )


def test_record_says_what_how_and_when(tmp_path):
    found = new_record(Job(RECIPE, "some/data", 7), tmp_path)
    assert found["recipe"]["name"] == "substructure/demo"
    assert (found["data"], found["seed"], found["code"]) == ("some/data", 7, {})
    assert found["command"] == f"darklens train substructure/demo --data some/data --out {tmp_path} --seed 7"
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", found["started"])
    assert found["git"] is None or re.fullmatch("[0-9a-f]{40}", found["git"])
    assert not (tmp_path / "code").exists()
    token = given_command.set("darklens train mine.yaml")
    try:
        assert new_record(Job(RECIPE, "some/data"), tmp_path)["command"] == "darklens train mine.yaml"
    finally:
        given_command.reset(token)


def test_record_is_written_whole(tmp_path):
    write_record(tmp_path, {"b": [1], "a": "é"})
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    assert (tmp_path / "run.json").read_text("utf-8") == '{\n  "b": [\n    1\n  ],\n  "a": "\\u00e9"\n}\n'


def test_revision_is_none_without_git(monkeypatch, tmp_path):
    def missing(*_, **__):
        raise FileNotFoundError("git")

    monkeypatch.setattr(jobs.subprocess, "run", missing)
    assert new_record(Job(RECIPE, "d"), tmp_path)["git"] is None


@pytest.mark.parametrize(
    ("job", "options"),
    [
        (Job(RECIPE, "d"), "--data d --out o --seed 0"),
        (
            Job(load_recipe("substructure/demo", {"trainer.epochs": 3, "trainer.ema": None}), "a b", 4),
            "--data 'a b' --out o --seed 4 --trainer.epochs 3 --trainer.ema null",
        ),
        (
            Job(RECIPE, "d", options=DataOptions(crop=32), wandb="w", unlabelled="u"),
            "--data d --out o --seed 0 --crop 32 --wandb w --unlabelled u",
        ),
        (Job(RECIPE, "d", 2, split_seed=0), "--data d --out o --seed 2 --split_seed 0"),
    ],
)
def test_command_of_what_python_started(job, options):
    assert training_command(job, Path("o")) == f"darklens train substructure/demo {options}"


def test_no_command_makes_what_the_library_does_not_have():
    assert training_command(Job(dataclasses.replace(RECIPE, name="mine"), "d"), Path("o")) is None
    assert training_command(Job(RECIPE, "d", start="a-model"), Path("o")) is None


@pytest.fixture
def own(tmp_path):
    """A recipe whose network is a file of its own."""
    (tmp_path / "net.py").write_text(CODE)
    return load_recipe("substructure/demo", {"network.name": f"{tmp_path}/net.py:Net"})


def test_code_is_kept_beside_the_record_and_must_not_change(own, tmp_path):
    out = recorded(tmp_path / "run", Job(own, "d"))
    assert (out / "code" / "net.py").read_text() == CODE
    assert read_record(out)["code"] == {"net.py": "sha256:" + hashlib.sha256(CODE.encode()).hexdigest()}
    assert read_job(out, trust_code=True).recipe == own
    with pytest.raises(UntrustedCodeError, match=r"run/run\.json: would run Net of"):
        read_job(out)
    assert recorded_job(out).recipe == own, "which is not built again"
    (tmp_path / "net.py").write_text(CODE + "# changed\n")
    with pytest.raises(
        RecipeError, match=r"net\.py: was changed since the run began; bring back what is kept in .*/code"
    ):
        read_job(out, trust_code=True)
    record = read_record(out)
    write_record(out, record | {"code": {}})
    assert read_job(out, trust_code=True).recipe == own
    record.pop("code")
    write_record(out, record)
    assert read_job(out, trust_code=True).recipe == own, "version 0.1 kept no code"


def test_two_files_of_one_name_are_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.py").write_text(CODE)
    recipe = load_recipe(
        "substructure/demo",
        {"network.name": f"{tmp_path}/a/same.py:Net", "task.losses": [{"name": f"{tmp_path}/b/same.py:Net"}]},
    )
    with pytest.raises(RecipeError, match=r"two files of code are called same\.py; rename one"):
        new_record(Job(recipe, "d"), tmp_path)
    both = load_recipe(
        "substructure/demo",
        {"network.name": f"{tmp_path}/a/same.py:Net", "task.losses": [{"name": f"{tmp_path}/a/same.py:Other"}]},
    )
    assert list(new_record(Job(both, "d"), tmp_path)["code"]) == ["same.py"], "one file may have two names in it"


def test_code_of_members_is_kept_by_each(own, tmp_path):
    whole = dataclasses.replace(own, members=[dataclasses.asdict(own)])
    assert new_record(Job(whole, "d"), tmp_path)["code"] == {}
    assert not (tmp_path / "code").exists()


@pytest.mark.parametrize(
    "changes",
    [{"data": "preset:PLACE/net.py:Net"}, {"data": "PLACE/net.py:Net"}, {"options": {"layout": "PLACE/net.py:Net"}}],
)
def test_presets_and_layouts_that_name_code_are_asked_for(changes, tmp_path):
    (tmp_path / "net.py").write_text(CODE)
    out = recorded(tmp_path / "run", Job(RECIPE, "d"))
    text = json.dumps(read_record(out) | changes).replace("PLACE", str(tmp_path))
    (out / "run.json").write_text(text)
    with pytest.raises(UntrustedCodeError, match=r"run/run\.json: would run Net"):
        recorded_job(out)
    with pytest.raises(UntrustedCodeError):
        read_job(out)
    assert recorded_job(out, trust_code=True).recipe == RECIPE


def test_options_of_version_0_1_lie_beside_the_rest(tmp_path):
    out = recorded(tmp_path / "run", Job(RECIPE, "d"))
    record = read_record(out)
    record.pop("options")
    write_record(out, record | {"layout": "folders", "catalog": "t.csv", "mask": True, "of_a_newer_version": 1})
    assert recorded_job(out).options == DataOptions("folders", Path("t.csv"), mask=True)
    write_record(out, record)
    assert recorded_job(out).options == DataOptions()
    write_record(out, record | {"options": ["mask"]})
    with pytest.raises(DataError, match=r"run\.json: options hold a list; expected keys and values"):
        recorded_job(out)
    write_record(out, record | {"options": {"mask": "yes"}})
    with pytest.raises(DataError, match=r"run\.json: options: mask is 'yes'; expected bool"):
        recorded_job(out)


def test_data_of_a_job_are_opened_as_it_says(monkeypatch):
    seen = {}
    monkeypatch.setattr(jobs, "open_training_data", lambda *given, **named: seen.update(named, given=given))
    job = Job(
        RECIPE, "d", 7, DataOptions(mask=True), member=3, unlabelled="u", own_seeds=False, split_seed=2, labels="l"
    )
    open_job_data(job, trust_code=True)
    assert seen == {
        "given": ("d", RECIPE, 7), "options": DataOptions(mask=True), "unlabelled": "u", "member": 3, "trust_code": True,
        "own_seeds": False, "split_seed": 2, "encoder": None, "labels": "l",
    }  # fmt: skip
    open_job_data(Job(RECIPE, "d", 7))
    assert (seen["trust_code"], seen["split_seed"]) == (False, 7)


def test_memory_and_machine_of_a_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert 0.5 * kib / 1024 < peak_memory() <= 1.1 * kib / 1024
    assert machine().endswith(f", {os.cpu_count()} cores")
    assert len(machine()) > len(f", {os.cpu_count()} cores")
    monkeypatch.setattr(jobs.Path, "is_file", lambda self: False)
    assert peak_memory() == round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    assert machine().endswith(" cores")


def test_memory_and_machine_of_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**20 + 2**19 + 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    assert peak_memory() == 4
    assert machine() == "A GPU"


def test_memory_and_machine_are_read_from_linux(monkeypatch):
    texts = {"status": "Name:\tpython\nVmPeak:\t 9000000 kB\nVmHWM:\t    5300 kB\n", "cpuinfo": "processor\t: 0\n"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(jobs.Path, "is_file", lambda self: True)
    monkeypatch.setattr(jobs.Path, "read_text", lambda self: texts[self.name])
    monkeypatch.setattr(jobs.os, "cpu_count", lambda: 6)
    monkeypatch.setattr(jobs.platform, "processor", lambda: "")
    monkeypatch.setattr(jobs.platform, "machine", lambda: "aarch64")
    assert peak_memory() == 5
    assert machine() == "aarch64, 6 cores"
    texts["cpuinfo"] = "processor\t: 0\nmodel name\t: A CPU @ 3: GHz\nmodel name\t: Another\n"
    assert machine() == "A CPU @ 3: GHz, 6 cores"
    texts["status"] = "Name:\tpython\n"
    assert peak_memory() == round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def test_jobs_that_train_alike_are_one_whatever_form_their_record_has(tmp_path):
    """Version 0.1 records the task's name and all its options, and a moved run has stages elsewhere."""
    job = Job(RECIPE, "some/data", 7)
    full = {"name": "classify", "losses": [dataclasses.asdict(phase) for phase in RECIPE.make_task().losses]}
    assert full != RECIPE.task
    assert same_job(job, dataclasses.replace(job, recipe=dataclasses.replace(RECIPE, task=full)))
    focal = full | {"losses": [{"name": "focal"}]}
    assert not same_job(job, dataclasses.replace(job, recipe=dataclasses.replace(RECIPE, task=focal)))
    assert not same_job(job, dataclasses.replace(job, seed=8))
    assert same_job(job, dataclasses.replace(job, split_seed=7)), "what it is by default"
    assert not same_job(job, dataclasses.replace(job, split_seed=0))
    moved = [dataclasses.replace(job, start=f"{place}/stages/0-regress") for place in ("here", "there")]
    assert same_job(*moved)
    assert not same_job(moved[0], dataclasses.replace(job, start="here/stages/1-regress"))
    assert not same_job(*(dataclasses.replace(job, start=f"{place}/runs/a") for place in ("here", "there")))


def test_recipes_of_stages_are_compared_whole(tmp_path):
    (tmp_path / "a.yaml").write_text("stages: [{recipe: mass/demo, data: one}, substructure/demo]\n")
    staged = Job(load_recipe(str(tmp_path / "a.yaml")), "data")
    assert same_job(staged, Job(load_recipe(str(tmp_path / "a.yaml")), "data"))
    for key in ("trainer.epochs", "trainer.batch_size"):
        assert not same_job(staged, Job(load_recipe(str(tmp_path / "a.yaml"), {key: 64}), "data"))
    (tmp_path / "a.yaml").write_text("stages: [{recipe: mass/demo, data: two}, substructure/demo]\n")
    assert not same_job(staged, Job(load_recipe(str(tmp_path / "a.yaml")), "data"))


def test_recipes_that_learn_alike_may_train_longer():
    assert learns_alike(RECIPE, load_recipe("substructure/demo", {"trainer.epochs": 99}))
    for change in ({"network.widths": [8]}, {"optimizer.lr": 0.5}, {"augmentation": "none"}):
        assert not learns_alike(RECIPE, load_recipe("substructure/demo", change)), change


def test_a_run_does_not_go_on_with_other_images(dataset, test_set, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(dataset, data)
    run = train(Job(load_recipe("substructure/demo", TINY | {"trainer.epochs": 1}), str(data)), tmp_path / "run")
    shutil.rmtree(run / "model")
    record = read_record(run)
    assert record["data_description"]["checksum"] == json.loads((data / "dataset.json").read_text())["checksum"]
    shutil.rmtree(data)
    shutil.copytree(test_set, data)
    with pytest.raises(DataError, match="run: the images are not those that the run began with; bring them back"):
        resume(run)
    write_record(run, {key: value for key, value in record.items() if key != "data_description"})
    with pytest.raises(DataError, match="run: the images, or their split, are not those that the run began with"):
        resume(run)
    assert not (run / "model").exists()
    shutil.rmtree(data)
    shutil.copytree(dataset, data)
    assert (resume(run) / "model").is_dir()
