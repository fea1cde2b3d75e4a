"""Runs gathered into one whose model averages theirs: runs that were written by hand, without a training."""

import dataclasses
import json

import numpy as np
import pytest
from fuzz import make_model

from darklens.errors import ModelError
from darklens.inference.config import read_config
from darklens.inference.model import Ensemble, load_model
from darklens.training import ensemble
from darklens.training.ensemble import make_ensemble, summed_training
from darklens.training.job import Job, new_record, read_record, recorded_job, write_record
from darklens.training.recipe import load_recipe

FIRST = {
    "seconds": 10.0, "epochs": 2, "steps": 20, "images": 600, "parameters": 100, "images_per_second": 60.0,
    "peak_memory_mib": 500, "best_epoch": 1, "precision": "32-true", "machine": "one", "threads": 1,
}  # fmt: skip
SECOND = FIRST | {
    "seconds": 5.5, "epochs": 3, "steps": 7, "images": 300, "parameters": 50, "images_per_second": 15.0,
    "peak_memory_mib": 700, "best_epoch": 3, "machine": "two",
}  # fmt: skip


def test_trainings_are_summed():
    """900 images in 10 + 20 seconds of steps; the most memory; of the rest, what the first had."""
    assert summed_training([FIRST, SECOND]) == FIRST | {
        "seconds": 15.5, "epochs": 5, "steps": 27, "images": 900, "parameters": 150, "images_per_second": 30.0,
        "peak_memory_mib": 700, "best_epoch": None,
    }  # fmt: skip
    assert summed_training([FIRST]) == FIRST | {"best_epoch": None}
    assert FIRST["best_epoch"] == 1, "what is given stays as it was"


def run(folder, training=FIRST, recipe="substructure/demo", data="gone", seed=0, **changes):
    make_model(folder / "model", lens=False)
    config = json.loads((folder / "model" / "config.json").read_text())
    described = {"source": data, "seed": seed, "train_images": 10}
    (folder / "model" / "config.json").write_text(json.dumps(config | {"data": described} | changes))
    options = {"trainer.batch_size": 16, "preprocessing.crop": None}
    record = new_record(Job(load_recipe(recipe, options), data, seed), folder)
    write_record(folder, record | {"training": training, "data_description": described})
    return folder


def test_ensemble_of_two_runs_is_a_run(tmp_path):
    runs = [run(tmp_path / "a"), run(tmp_path / "b", SECOND, "substructure/vit", "other")]
    out = make_ensemble(runs, tmp_path / "both")
    assert out == tmp_path / "both"
    record = read_record(out)
    assert record["training"] == summed_training([FIRST, SECOND])
    assert record["data_description"] == {
        "source": "gone", "seed": 0, "train_images": 10, "also": [{"source": "other", "seed": 0, "train_images": 10}],
    }  # fmt: skip
    job = recorded_job(out)
    assert (job.data, job.member) == ("gone", 0)
    assert (job.recipe.name, job.recipe.source) == ("ensemble", "darklens")
    assert job.recipe.description == "The mean of 2 models: substructure/demo, substructure/vit."
    assert [part.name for part in job.recipe.parts()] == ["substructure/demo", "substructure/vit"]
    assert job.recipe.task == {"name": "classify"}
    config = read_config(out / "model")
    assert config.members == ["members/0", "members/1"]
    assert config.network == {"name": "ensemble"}
    assert config.preprocessing == config.calibration == {}
    assert config.recipe == json.loads(json.dumps(dataclasses.asdict(job.recipe)))
    model = load_model(out)
    assert isinstance(model, Ensemble)
    images = np.random.default_rng(0).normal(10, 1, (3, 16, 16))
    mean = np.mean([load_model(each).predict(images).array for each in runs], axis=0)
    np.testing.assert_allclose(model.predict(images).array, mean, rtol=1e-5)
    assert "# ensemble\n" in (out / "model" / "README.md").read_text("utf-8")
    for number, each in enumerate(runs):
        copied = out / "model" / "members" / str(number) / "config.json"
        assert copied.read_bytes() == (each / "model" / "config.json").read_bytes()


def test_searches_at_other_priors_are_refused(tmp_path):
    """Probabilities for 1% and for half of the objects have no mean."""
    search = {"name": "find", "class_names": ["nonlens", "lens"], "share": 0.3, "prior": 0.01}
    labels = {"outputs": ["nonlens", "lens"], "classes": ["nonlens", "lens"]}
    tasks = [search, search, search | {"share": 0.4}, search | {"prior": 0.5}]
    runs = [run(tmp_path / name, task=task, **labels) for name, task in zip("abcd", tasks, strict=True)]
    with pytest.raises(
        ModelError, match=r"d and .*a cannot be averaged: stated prior of their tasks differ \(0\.5 and 0\.01\)"
    ):
        make_ensemble([runs[0], runs[3]], tmp_path / "out")
    assert len(read_config(make_ensemble(runs[:3], tmp_path / "all") / "model").members) == 3


def test_equal_recipes_are_named_once(tmp_path):
    runs = [run(tmp_path / name) for name in ("a", "b", "c")]
    out = make_ensemble(runs, tmp_path / "all")
    assert recorded_job(out).recipe.description == "The mean of 3 models: substructure/demo."
    assert len(read_config(out / "model").members) == 3


def test_runs_that_share_their_split_share_the_validation_images(monkeypatch):
    opened = []
    monkeypatch.setattr(ensemble, "open_job_data", lambda job, trust_code: opened.append(job) or "data")
    jobs = [Job(load_recipe("substructure/demo"), "d", seed, split_seed=5) for seed in (6, 7)]
    assert ensemble._shared_data([Job(jobs[0].recipe, "d", 5), *jobs], False) == "data"
    assert opened == [Job(jobs[0].recipe, "d", 5)]
    assert ensemble._shared_data([*jobs, Job(jobs[0].recipe, "d", 6)], False) is None


def test_ensemble_that_was_begun_keeps_its_record(tmp_path):
    runs = [run(tmp_path / "a"), run(tmp_path / "b")]
    begun = tmp_path / "begun"
    begun.mkdir()
    recipe = load_recipe("substructure/darklens-ensemble")
    write_record(begun, new_record(Job(recipe, "gone", 5), begun))
    make_ensemble(runs, begun)
    job = recorded_job(begun)
    assert (job.recipe, job.seed) == (recipe, 5)
    assert read_config(begun / "model").recipe["name"] == "substructure/darklens-ensemble"
    assert read_record(begun)["training"] == summed_training([FIRST, FIRST])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pixels": 15}, r"b and .*a cannot be averaged: their pixels differ \(15 and 16\)"),
        ({"channels": 2}, r"their channels differ \(2 and 1\)"),
        ({"pixel_scale": None}, r"their pixel scale differ \(None and 0\.1\)"),
        ({"unit": "nJy"}, r"their unit differ \(nJy and None\)"),
        ({"members": ["0"]}, "b: is an ensemble itself; give its members"),
        (
            {"task": {"name": "regress", "target": "m"}, "outputs": ["m"], "classes": []},
            r"b and .*a cannot be averaged: their tasks differ \(regress and classify\)",
        ),
        (
            {"task": {"name": "classify", "class_names": ["x", "y"]}, "outputs": ["x", "y"], "classes": ["x", "y"]},
            r"their classes differ \(\['x', 'y'\] and \['cdm', 'axion'\]\)",
        ),
    ],
)
def test_runs_that_predict_other_things_are_refused(tmp_path, changes, message):
    runs = [run(tmp_path / "a"), run(tmp_path / "c"), run(tmp_path / "b", **changes)]
    with pytest.raises(ModelError, match=message):
        make_ensemble(runs, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ModelError, match="an ensemble takes at least two runs"):
        make_ensemble(runs[:1], tmp_path / "out")


def images(folder):
    rng = np.random.default_rng(0)
    for name in ("cdm", "axion"):
        (folder / name).mkdir(parents=True)
        for i in range(70):
            np.save(folder / name / f"{i}.npy", rng.normal(10, 1, (16, 16)).astype(np.float32))
    return str(folder)


def test_members_of_the_same_data_and_seed_are_calibrated_together(tmp_path):
    data = images(tmp_path / "data")
    runs = [run(tmp_path / name, data=data, recipe="substructure/demo") for name in ("a", "b")]
    out = make_ensemble(runs, tmp_path / "both")
    assert len(load_model(out).calibration.scores) == 14, "a tenth of the images"
    runs[1] = run(tmp_path / "c", data=data, seed=1)
    assert load_model(make_ensemble(runs, tmp_path / "apart")).calibration.scores == []
