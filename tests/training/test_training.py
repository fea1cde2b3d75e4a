import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import timm
import torch
from conftest import TINY
from safetensors.torch import load_file

from darklens.data.dataset import read_dataset
from darklens.data.layouts import open_data
from darklens.data.preprocessing import Preprocessing
from darklens.data.seeds import simulation_seed
from darklens.errors import DataError, InUseError, RecipeError
from darklens.inference.model import load_model
from darklens.paths import only_one
from darklens.simulation import Simulator
from darklens.training import fit as fitting
from darklens.training.build import build_module
from darklens.training.history import epoch_history
from darklens.training.job import Job, open_job_data, read_job, read_record
from darklens.training.recipe import load_recipe
from darklens.training.train import resume, train


def weights(run):
    return load_file(run / "model" / "model.safetensors")


def assert_same_weights(a, b):
    for name, tensor in weights(a).items():
        assert torch.equal(tensor, weights(b)[name]), name


def test_run_records_everything(run, dataset):
    record = json.loads((run / "run.json").read_text())
    assert record["recipe"]["trainer"]["epochs"] == 2
    assert record["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert record["training"]["steps"] == 10
    assert record["training"]["images"] == 320
    split = pl.read_parquet(run / "split.parquet")
    assert dict(split["split"].value_counts().iter_rows()) == {"train": 174, "validation": 18}
    assert (run / "logs" / "csv-0" / "metrics.csv").is_file()
    assert list((run / "logs" / "tensorboard").glob("events*"))
    assert read_job(run).recipe == load_recipe("substructure/demo", TINY)
    assert "no_sub, cdm, axion" in (run / "model" / "README.md").read_text()
    assert str(dataset.parent) not in (run / "model" / "config.json").read_text(), "no absolute path in a model"


def test_same_run_gives_the_same_weights(run, dataset, tmp_path):
    again = train(Job(load_recipe("substructure/demo", TINY), str(dataset)), tmp_path / "again")
    assert_same_weights(run, again)


def test_interrupted_run_resumes_to_the_same_result(dataset, tmp_path, monkeypatch):
    recipe = load_recipe("substructure/demo", TINY | {"trainer.epochs": 3, "network.dropout": 0.2})
    whole = train(Job(recipe, str(dataset)), tmp_path / "whole")
    epochs = []

    class Kill(fitting.EpochLines):
        def on_train_epoch_start(self, trainer, pl_module):
            epochs.append(trainer.current_epoch)
            if trainer.current_epoch == 2 and len(epochs) == 3:
                raise RuntimeError("killed")

    monkeypatch.setattr(fitting, "EpochLines", Kill)
    with pytest.raises(RuntimeError, match="killed"):
        train(Job(recipe, str(dataset)), tmp_path / "run")
    with pytest.raises(RecipeError, match="another recipe, data or seed"):
        resume(tmp_path / "run", Job(recipe, str(dataset), seed=1))
    resume(tmp_path / "run", Job(recipe, str(dataset)))
    assert epochs == [0, 1, 2, 2]
    assert_same_weights(whole, tmp_path / "run")
    history = epoch_history(tmp_path / "run")
    assert [epoch["epoch"] for epoch in history] == [0, 1, 2]
    seconds = [epoch["seconds"] for epoch in history]
    assert seconds == sorted(seconds), "the clock goes on where the interrupted attempt left it"
    assert read_record(tmp_path / "run")["training"]["seconds"] >= round(seconds[-1], 1)
    resume(tmp_path / "run")  # a finished run is left alone


def test_lenses_are_fitted_once_and_a_resumed_run_knows_them(dataset, tmp_path, monkeypatch):
    recipe = load_recipe(
        "substructure/demo", TINY | {"trainer.epochs": 3, "preprocessing.lens_model": True, "preprocessing.crop": 32}
    )
    fitted, epochs = [], []
    fit_lenses = Preprocessing.lenses

    def counted(self, images, noise=None):
        fitted.append(len(images))
        return fit_lenses(self, images, noise)

    class Kill(fitting.EpochLines):
        def on_train_epoch_start(self, trainer, pl_module):
            epochs.append(trainer.current_epoch)
            if epochs == [0, 1, 2, 0, 1]:
                raise RuntimeError("killed")

    monkeypatch.setattr(Preprocessing, "lenses", counted)
    monkeypatch.setattr(fitting, "EpochLines", Kill)
    whole = train(Job(recipe, str(dataset)), tmp_path / "whole")
    assert 160 + 18 <= sum(fitted) <= 174 + 18, "in three epochs, of images for training and validation"
    with pytest.raises(RuntimeError, match="killed"):
        train(Job(recipe, str(dataset)), tmp_path / "run")
    known = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["lenses"]
    assert known.isfinite().all(1).sum() == 160
    resume(tmp_path / "run")
    assert_same_weights(whole, tmp_path / "run")


def test_two_processes_cannot_train_in_one_folder(run, dataset, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(copy / "model")
    with only_one(copy, "training"), pytest.raises(InUseError, match=r"another process is training here \(\d+, since"):
        resume(copy)
    resume(copy)
    assert_same_weights(run, copy)


def test_network_learns_what_can_be_learnt(tmp_path):
    """Two classes of images that differ in brightness are told apart on images not trained on."""
    rng = np.random.default_rng(0)
    for i, name in enumerate(("dark", "bright")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for k in range(80):
            np.save(tmp_path / "data" / name / f"{k}.npy", rng.normal(1 + i, 0.5, (16, 16)))
    recipe = load_recipe(
        "substructure/demo",
        TINY | {"trainer.epochs": 8, "trainer.ema": None, "optimizer.name": "AdamW", "preprocessing.stretch": "none"},
    )
    run = train(Job(recipe, str(tmp_path / "data")), tmp_path / "run")
    fresh = np.concatenate([rng.normal(1 + i, 0.5, (50, 1, 16, 16)) for i in range(2)])
    model = load_model(run)
    truth = np.repeat([model.classes.index("dark"), model.classes.index("bright")], 50)
    right = model.predict(fresh).probabilities.argmax(1) == truth
    assert right.mean() > 0.95


def test_regression_is_in_units_of_its_target(mass_run, test_set):
    model = load_model(mass_run)
    assert model.config.outputs == ["log10_axion_mass"]
    data = read_dataset(test_set)
    values = model.predict(data.images[:]).values
    assert values.shape == (96, 1)
    assert -24.5 < values.mean() < -21.5


@pytest.mark.usefixtures("not_compiled")
def test_training_on_images_simulated_as_it_goes(tmp_path, monkeypatch):
    """Without compiled kernels, here and in the process that makes the images: other tests are about these."""
    monkeypatch.setattr("darklens.training.training_data.VALIDATION_IMAGES", 128)
    monkeypatch.setattr("darklens.training.training_data.STATISTICS_IMAGES", 256)
    options = TINY | {"trainer.batch_size": 64, "trainer.epoch_images": 128, "trainer.workers": 1}
    recipe = load_recipe("mass/demo", options)
    run = train(Job(recipe, "preset:model-3-noisy"), tmp_path / "run")
    assert load_model(run).config.data["source"] == "preset:model-3-noisy"
    seen = Simulator("model-3-noisy", simulation_seed(0, "training")).catalog(256)["log10_axion_mass"]
    known = len(seen.drop_nulls())
    assert read_record(run)["training"]["images"] == known < 256, "images without a vortex have no mass to learn"
    with pytest.raises(RecipeError, match="blocks of 64; 32 is no multiple"):
        train(Job(load_recipe("mass/demo", TINY), "preset:model-3-noisy"), tmp_path / "other")


def test_training_on_a_users_own_folder_and_early_stopping(class_folders, tmp_path):
    options = TINY | {"trainer.batch_size": 4, "trainer.patience": 1, "trainer.epochs": 30}
    options |= {"preprocessing.stretch": "minmax", "optimizer.lr": 1e-9}
    many = tmp_path / "many"
    for i, path in enumerate(p for p in class_folders.rglob("*.npy") for _ in range(3)):
        (many / path.parent.name).mkdir(parents=True, exist_ok=True)
        (many / path.parent.name / f"{i}.npy").write_bytes(path.read_bytes())
    run = train(Job(load_recipe("substructure/demo", options), str(many)), tmp_path / "run")
    assert json.loads((run / "run.json").read_text())["training"]["epochs"] < 30


def test_two_processes_train_together(dataset, tmp_path):
    code = [sys.executable, "-m", "darklens", "train", "substructure/demo", "--data", str(dataset), "--out", "run"]
    options = TINY | {"trainer.devices": "2", "trainer.accelerator": "cpu", "trainer.strategy": "ddp"}
    flags = [f"--{key}={'null' if value is None else value}" for key, value in options.items()]
    done = subprocess.run([*code, *flags], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((tmp_path / "run" / "run.json").read_text())["training"]
    assert record["devices"] == 2
    assert record["steps"] == 10
    assert record["images"] == 10 * 32
    assert len(load_model(tmp_path / "run").classes) == 3


SIMULATED_BY_TWO = """
from pathlib import Path

from conftest import TINY

from darklens.training import training_data
from darklens.training.job import Job
from darklens.training.recipe import load_recipe
from darklens.training.train import train

training_data.VALIDATION_IMAGES, training_data.STATISTICS_IMAGES = 128, 256
options = TINY | {"trainer.devices": "2", "trainer.accelerator": "cpu", "trainer.strategy": "ddp"}
options |= {"trainer.batch_size": 64, "trainer.epoch_images": 128, "trainer.workers": 0}
train(Job(load_recipe("substructure/demo", options), "preset:model-3-noisy"), Path("run"))
"""


def test_two_processes_share_a_batch_of_simulated_images(tmp_path):
    (tmp_path / "two.py").write_text(SIMULATED_BY_TWO)
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "two.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths, "TORCHDYNAMO_DISABLE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((tmp_path / "run" / "run.json").read_text())["training"]
    assert (record["devices"], record["steps"], record["images"]) == (2, 4, 4 * 64)


def test_weights_and_biases_offline(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    job = Job(load_recipe("substructure/demo", TINY | {"trainer.epochs": 1}), str(dataset), wandb="darklens-test")
    run = train(job, tmp_path / "run")
    import wandb

    wandb.finish()
    assert list(run.rglob("*.wandb"))


def test_unusable_data_leaves_no_run(dataset, tmp_path):
    recipe = load_recipe("substructure/demo", TINY)
    data = open_data(dataset)
    one = tmp_path / "one" / "cdm"
    one.mkdir(parents=True)
    (tmp_path / "one" / "axion").mkdir()
    for i in range(40):
        np.save(one / f"{i}.npy", np.asarray(data.images[i, 0]))
    cases = {
        "no column 'label'": dataset.parent / "stack",
        "there is no such file": tmp_path / "nothing",
    }
    (dataset.parent / "stack").mkdir(exist_ok=True)
    np.save(dataset.parent / "stack" / "images.npy", np.asarray(data.images[:40]))
    for message, path in cases.items():
        with pytest.raises(DataError, match=message):
            train(Job(recipe, str(path)), tmp_path / "run")
        assert not (tmp_path / "run").exists()
    with pytest.raises(DataError, match="no column 'log10_mass'"):
        train(Job(load_recipe("mass/demo", TINY | {"target": "log10_mass"}), str(dataset)), tmp_path / "run")
    with pytest.raises(DataError, match="fewer than a batch of 5000"):
        train(
            Job(load_recipe("substructure/demo", TINY | {"trainer.batch_size": 5000}), str(dataset)), tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()
    with pytest.raises(DataError, match="exists already"):
        train(Job(recipe, str(dataset)), dataset)


def test_bad_pixels_stop_a_training_and_leave_no_run(dataset, tmp_path):
    import shutil

    shutil.copytree(dataset, tmp_path / "bad")
    images = np.load(tmp_path / "bad" / "images.npy", mmap_mode="r+")
    images[17, 0, 3, 3] = np.nan
    del images
    job = Job(load_recipe("substructure/demo", TINY), str(tmp_path / "bad"))
    with pytest.raises(DataError, match="image 17 has 1 pixels that are nan or infinite"):
        train(job, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_loss_changes_at_its_epoch(dataset, tmp_path, monkeypatch):
    from darklens.tasks import classify

    seen = []
    original = classify.LossPhase.__call__
    monkeypatch.setattr(
        classify.LossPhase,
        "__call__",
        lambda self, *args: (seen.append(self.label_smoothing), original(self, *args))[1],
    )
    phases = [{"from_epoch": 1}, {"from_epoch": 2, "label_smoothing": 0.1}]
    train(Job(load_recipe("substructure/demo", TINY | {"loss": phases}), str(dataset)), tmp_path / "run")
    assert seen == [0.0] * 5 + [0.1] * 5


def test_sections_thaw_from_the_head_backwards(dataset, tmp_path):
    """The stem starts as it was until its time comes; batch norms of frozen sections keep their statistics."""
    overrides = {"trainer.epochs": 4, "trainer.batch_size": 32, "trainer.precision": "32-true", "trainer.keep_every": 1}
    torch.save(timm.create_model("resnet18", num_classes=0).state_dict(), tmp_path / "learned.pth")
    overrides |= {"network.weights": str(tmp_path / "learned.pth"), "network.head": "hidden"}
    overrides |= {"trainer.unfreezing": "sections"}
    recipe = load_recipe("substructure/resnet18", overrides | {"preprocessing.resize": None, "trainer.ema": None})
    run = train(Job(recipe, str(dataset)), tmp_path / "run")
    kept = [torch.load(run / "checkpoints" / f"epoch={i}.ckpt", weights_only=True)["state_dict"] for i in range(4)]
    stem, head = "network.backbone.conv1.weight", "network.head.0.weight"
    assert torch.equal(kept[0][stem], kept[1][stem])
    assert torch.equal(kept[0]["network.backbone.bn1.running_mean"], kept[1]["network.backbone.bn1.running_mean"])
    assert not torch.equal(kept[0][head], kept[1][head])
    assert not torch.equal(kept[2][stem], kept[3][stem]), "all are thawed in the last epoch"


def test_random_weights_are_all_trained_from_the_first_epoch(dataset, tmp_path, capsys):
    overrides = TINY | {"trainer.unfreezing": "sections", "trainer.ema": None, "trainer.keep_every": 1}
    job = Job(load_recipe("substructure/demo", overrides), str(dataset))
    run = train(job, tmp_path / "run")
    (note,) = read_record(run)["notes"]
    assert "random weights" in note
    assert capsys.readouterr().out.count(note) == 1
    begun = build_module(job.recipe, open_job_data(job)).network.state_dict()["stem.0.weight"]
    first = torch.load(run / "checkpoints" / "epoch=0.ckpt", weights_only=True)["state_dict"]["network.stem.0.weight"]
    assert not torch.equal(begun, first)


def test_time_that_is_too_short_for_a_step_is_said(dataset, tmp_path, capsys):
    recipe = load_recipe("substructure/demo", TINY | {"trainer.minutes": 1e-6})
    run = train(Job(recipe, str(dataset)), tmp_path / "run")
    assert read_record(run)["training"]["steps"] <= 2
    assert (
        "and not 0: preparation, a step and a validation, the least that there is, take longer"
        in capsys.readouterr().out
    )
