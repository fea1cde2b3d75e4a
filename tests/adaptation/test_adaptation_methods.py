"""Every method of adaptation: trained, killed and resumed, and what becomes of the model."""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest
import torch
from conftest import TINY, write_rings

from darklens.adaptation import module
from darklens.adaptation.adabn import AdaBNModule
from darklens.adaptation.module import TargetImages
from darklens.adaptation.options import METHODS
from darklens.cli import main
from darklens.cli.parser import options_help
from darklens.data.layouts import open_data
from darklens.errors import DataError, RecipeError, TrainingError
from darklens.inference.model import load_model
from darklens.tasks.classify import Classify
from darklens.training import fit as fitting
from darklens.training import target_data, training_data
from darklens.training.build import build_module
from darklens.training.history import epoch_history
from darklens.training.job import Job, open_job_data, read_record
from darklens.training.recipe import load_recipe
from darklens.training.train import resume, train
from darklens.workflows.evaluate import evaluate_run

SMALL = {key: value for key, value in TINY.items() if key != "preprocessing.crop"} | {
    "encoder": "finding/demo",
    "trainer.batch_size": 16,
    "network.dropout": 0.2,
}


@pytest.fixture(scope="module")
def domains(tmp_path_factory):
    folder = tmp_path_factory.mktemp("domains")
    source = write_rings(folder / "source", 64, 1, bands=("i",))
    target = write_rings(folder / "target", 48, 2, bands=("g", "i"), side=28)
    return str(source), str(target)


def recipe_of(method, **changes):
    return load_recipe(
        f"adaptation/{method}", SMALL | {key.replace("__", "."): value for key, value in changes.items()}
    )


def last_checkpoint(run):
    stages = run / "stages"
    part = sorted(stages.iterdir())[-1] if stages.is_dir() else run
    return torch.load(part / "checkpoints" / "last.ckpt", weights_only=True)


def assert_same(one, other, where=""):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for place, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}[{place}]")
    else:
        assert one == other, where


@pytest.mark.parametrize("method", METHODS)
def test_killed_and_resumed_run_ends_as_one_that_was_not(method, domains, tmp_path, monkeypatch):
    source, target = domains
    job = Job(recipe_of(method), source, unlabelled=target)
    whole = train(job, tmp_path / "whole")
    total = sum(part.trainer.epochs for part in job.recipe.parts())
    begun = []

    class Kill(fitting.EpochLines):
        def on_train_epoch_start(self, trainer, pl_module):
            begun.append(trainer.current_epoch)
            if len(begun) == total:
                raise RuntimeError("killed")

    monkeypatch.setattr(fitting, "EpochLines", Kill)
    with pytest.raises(RuntimeError, match="killed"):
        train(job, tmp_path / "run")
    resume(tmp_path / "run", job)
    assert len(begun) == total + 1
    one, other = last_checkpoint(whole), last_checkpoint(tmp_path / "run")
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "adaptation"):
        assert_same(one[part], other[part], part)
    files = [run / "model" / "model.safetensors" for run in (whole, tmp_path / "run")]
    assert files[0].read_bytes() == files[1].read_bytes()
    trained = load_model(whole)
    assert trained.config.data["target"]["source"] == "rings"
    assert "- **Adapted to**: rings, " in (whole / "model" / "README.md").read_text()
    assert set(pl.read_parquet(whole / "target_split.parquet")["split"]) == {"train", "validation"}


@pytest.fixture(scope="module")
def adversarial(domains, tmp_path_factory):
    source, target = domains
    out = tmp_path_factory.mktemp("adversarial") / "run"
    return train(Job(recipe_of("adda", optimizer__lr=1e-3), source, unlabelled=target), out)


def test_classifier_and_source_encoder_stay_and_the_target_encoder_moves(adversarial):
    state = last_checkpoint(adversarial)["state_dict"]
    before = {name.removeprefix("source."): tensor for name, tensor in state.items() if name.startswith("source.")}
    learned = load_model(adversarial / "stages" / "0-find").network.state_dict()
    assert_same(before, learned)
    for name, tensor in before.items():
        same = torch.equal(tensor, state[f"network.{name}"])
        assert same == name.startswith("head."), name


def test_what_was_done_to_the_target_is_said_once(adversarial):
    notes = read_record(adversarial / "stages" / "1-find")["notes"]
    said = [note for note in notes if note.startswith("target: ")]
    assert said == [
        "target: band i of 2",
        "target: cropped to the central 24 of 28 pixels",
        "target: its label is not used; nothing is learned or chosen by labels of the target",
    ]


def test_validators_are_logged_and_choose_the_epoch(adversarial):
    stage = adversarial / "stages" / "1-find"
    history = epoch_history(stage)
    logged = {key for epoch in history for key in epoch}
    assert {f"validation/target_{name}" for name in ("entropy", "information", "density", "largest_class")} <= logged
    assert [epoch["validation/selection"] for epoch in history] == [
        -e["validation/target_information"] for e in history
    ]
    best = min(history, key=lambda epoch: epoch["validation/selection"])["epoch"]
    assert read_record(stage)["training"]["best_epoch"] == best + 1


def test_labels_of_the_target_change_nothing(domains, tmp_path):
    """Reversed labels, and none at all, lead to the same weights."""
    source, _target = domains
    made = []
    for change in ("as they are", "reversed", "none"):
        folder = write_rings(tmp_path / change, 48, 2, bands=("g", "i"), side=28)
        catalog = pl.read_parquet(folder / "catalog.parquet")
        if change == "reversed":
            catalog = catalog.with_columns(pl.col("label").replace({"lens": "nonlens", "nonlens": "lens"}))
        if change == "none":
            catalog = catalog.drop("label")
        catalog.write_parquet(folder / "catalog.parquet")
        recipe = recipe_of("dann", trainer__epochs=1)
        made.append(train(Job(recipe, source, unlabelled=str(folder)), tmp_path / f"run {change}"))
    contents = {(run / "model" / "model.safetensors").read_bytes() for run in made}
    assert len(contents) == 1


def test_adabn_has_the_statistics_of_the_target(domains):
    source, target = domains
    job = Job(recipe_of("adabn"), source, unlabelled=target)
    data = open_job_data(job)
    made = build_module(job.recipe, data)
    assert isinstance(made, AdaBNModule)
    assert isinstance(made.target, TargetImages)
    made.method = dataclasses.replace(made.method, statistics_images=30)
    made._trainer = type("Trainer", (), {"sanity_checking": False})()
    made.on_validation_epoch_start()
    images = data.target.stream[list(range(30))]["image"]
    seen = []
    norm = made.network.stem[1]
    hook = norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        made.network.eval()(made.preprocessing(images))
    hook.remove()
    np.testing.assert_allclose(norm.running_mean, seen[0].mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.running_var, seen[0].var((0, 2, 3)), rtol=1e-4, atol=1e-5)


def test_source_is_degraded_and_laid_over_the_target(domains):
    source, target = domains
    recipe = recipe_of(
        "darklens", augmentation="none", adaptation__superposed=0, adaptation__seeing=1.5, adaptation__match_noise=False
    )
    data = open_job_data(Job(recipe, source, unlabelled=target))
    made = build_module(recipe, data)
    made.on_fit_start()
    assert made.notes == ["source images are blurred by a Gaussian of 1.50 pixels"]
    batch = next(iter(data.train_loader(0, 1)))
    prepared = made.prepared(batch)
    found, targets = made.source_views(batch)
    assert found.shape == prepared.shape
    assert found.diff(dim=-1).abs().mean() < 0.9 * prepared.diff(dim=-1).abs().mean()
    torch.testing.assert_close(made.prepared(batch), prepared)
    made.method = dataclasses.replace(made.method, match_seeing=False)
    made.on_fit_start()
    torch.testing.assert_close(made.source_views(batch)[0], prepared)
    made.method = dataclasses.replace(made.method, superposed=0.5, faintest=1)
    mixed, same = made.source_views(batch)
    torch.testing.assert_close(same, targets)
    half = len(prepared) // 2
    torch.testing.assert_close(mixed[half:], prepared[half:])
    sums = batch["image"][:half] + batch["unlabelled"][:half]
    torch.testing.assert_close(mixed[:half], made.preprocessing(sums))
    made.augmented = lambda batch: (batch["image"], batch["target"])
    made.method = dataclasses.replace(made.method, superposed=1, faintest=0.3)
    added = made.source_views(batch)[0] - batch["image"]
    factors = (added * batch["unlabelled"]).sum((1, 2, 3)) / batch["unlabelled"].square().sum((1, 2, 3))
    torch.testing.assert_close(added, factors[:, None, None, None] * batch["unlabelled"], rtol=1e-3, atol=1e-3)
    assert 0.3 <= factors.min() < 0.5 < factors.max() <= 1


def test_superposed_images_need_two_classes(domains):
    source, target = domains
    recipe = recipe_of("darklens")
    made = build_module(recipe, open_job_data(Job(recipe, source, unlabelled=target)))
    task = Classify(class_names=["a", "b", "c"])
    with pytest.raises(RecipeError, match=r"for two classes, .* there are 3: say --adaptation.superposed 0"):
        recipe.method.module(task, made.network, made.preprocessing, options=made.options)


def test_collapse_stops_the_training(domains, monkeypatch):
    monkeypatch.setattr(module, "LEAST_IMAGES", 5)
    source, target = domains
    recipe = recipe_of("dann")
    made = build_module(recipe, open_job_data(Job(recipe, source, unlabelled=target)))
    with torch.no_grad():
        layer = [each for each in made.network.modules() if isinstance(each, torch.nn.Linear)][-1]
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([9.0, -9.0]))
    made._trainer = type("Trainer", (), {"sanity_checking": False, "current_epoch": 0})()
    made._notice_collapse(made._validators())
    made._trainer.current_epoch = 1
    with pytest.raises(TrainingError, match="collapse: in epochs 1 and 2 one class is predicted for all 5 validation"):
        made._notice_collapse(made._validators())
    made.method, made._collapsed = dataclasses.replace(made.method, on_collapse="note"), 0
    for _ in range(3):
        made._notice_collapse(made._validators())
    assert len(made.notes) == 1


def test_what_cannot_be_adapted_is_refused(domains, tmp_path):
    source, target = domains
    few = write_rings(tmp_path / "few", 12, 3, bands=("i",))
    for wrong, message in (
        (source, "source: is the source itself"),
        (str(few), "few: 1[01] training images of the target are fewer than a batch of 16"),
    ):
        with pytest.raises(DataError, match=message):
            train(Job(recipe_of("dann"), source, unlabelled=wrong), tmp_path / "run")
    with pytest.raises(DataError, match="source: cannot be brought to the source: the source needs 2 bands"):
        train(Job(recipe_of("dann"), target, unlabelled=source), tmp_path / "run")
    with pytest.raises(RecipeError, match="adapts to a second dataset"):
        train(Job(recipe_of("dann"), source), tmp_path / "run")
    alone = dataclasses.replace(recipe_of("dann"), adaptation={"method": "adda"})
    with pytest.raises(RecipeError, match="adda begins with a network that has learned the source"):
        train(Job(alone, source, unlabelled=target), tmp_path / "run")
    with pytest.raises(RecipeError, match=r"trainer\.unfreezing sections cannot be used with adaptation.method dann"):
        recipe_of("dann", trainer__unfreezing="sections")
    with pytest.raises(RecipeError, match="did you mean adamatch"):
        recipe_of("dann", adaptation__method="adamatsh")
    with pytest.raises(RecipeError, match=r"adaptation\.tau"):
        recipe_of("dann", adaptation__tau=1)


def test_copy_of_the_source_is_no_target(domains, tmp_path):
    source, _ = domains
    copy = write_rings(tmp_path / "copy", 64, 1, bands=("i",))
    with pytest.raises(DataError, match="copy: is the source itself"):
        train(Job(recipe_of("dann"), source, unlabelled=str(copy)), tmp_path / "run")


@pytest.mark.usefixtures("not_compiled")
def test_simulated_source_and_target(monkeypatch):
    for place, name in (
        (target_data, "VALIDATION_IMAGES"), (target_data, "SAMPLE_IMAGES"),
        (training_data, "VALIDATION_IMAGES"), (training_data, "STATISTICS_IMAGES"),
    ):  # fmt: skip
        monkeypatch.setattr(place, name, 128)
    recipe = recipe_of(
        "dann", encoder="finding/demo", trainer__epochs=1, trainer__epoch_images=64, trainer__batch_size=64
    )
    job = Job(recipe, "preset:finding-deeplense", unlabelled="preset:finding-hsc")
    data = open_job_data(job)
    batch = next(iter(data.train_loader(0, 1)))
    assert batch["image"].shape == batch["unlabelled"].shape == (64, 1, 64, 64)
    assert data.target.description["source"] == "preset:finding-hsc"
    assert "target: band i of 3" in data.notes
    with pytest.raises(DataError, match="is the source itself"):
        open_job_data(dataclasses.replace(job, unlabelled="preset:finding-deeplense"))


def test_stage_options_reach_the_stage_that_adapts():
    recipe = recipe_of("adamatch", adaptation__tau=0.7, adaptation__strong__blur=2)
    assert [part.adaptation for part in recipe.parts()] == [
        {},
        {"method": "adamatch", "tau": 0.7, "strong": {"blur": 2}},
    ]
    assert (recipe.parts()[1].method.tau, recipe.parts()[1].method.strong.blur) == (0.7, 2)
    assert json.dumps(recipe.adaptation) == json.dumps(recipe.parts()[1].adaptation)
    with pytest.raises(RecipeError, match=r"adaptation\.tau: none of its stages has an adaptation"):
        load_recipe("substructure/demo", {"stages": [{"trainer": {"epochs": 1}}], "adaptation.tau": 0.5})


def test_few_labels_of_the_target_are_learned_and_left_out_of_the_test(domains, tmp_path):
    source, target = domains
    table = tmp_path / "few.csv"
    table.write_text("id,label\n" + "".join(f"o2-{i},{'lens' if i % 2 else 'nonlens'}\n" for i in (3, 8, 11)))
    job = Job(recipe_of("source-only", trainer__epochs=1), source, unlabelled=target, labels=str(table))
    data = open_job_data(job)
    assert data.target.images.labels.tolist() == [1, 0, 1]
    rows = [open_data(target).ids.index(name) for name in ("o2-3", "o2-8", "o2-11")]
    np.testing.assert_allclose(
        data.target.images.labelled[:, 0], open_data(target).images[rows][:, 1, 2:26, 2:26], rtol=1e-6
    )
    run = train(job, tmp_path / "run")
    assert load_model(run).config.data["target"]["labelled"] == ["o2-3", "o2-8", "o2-11"]
    assert evaluate_run(run, target)["n"] == 45
    without = train(dataclasses.replace(job, labels=None), tmp_path / "without")
    models = [(each / "model" / "model.safetensors").read_bytes() for each in (run, without)]
    assert models[0] != models[1]
    for text, message in (
        ("id,label\nnone,lens\n", "1 of 1 identifiers are of no image of the target, 'none'"),
        ("id,label\no2-1,\no2-2,lens\n", "a row has no label"),
        ("id,colour\no2-1,1\n", "no column 'label', which the task learns"),
    ):
        table.write_text(text)
        with pytest.raises(DataError, match=message):
            open_job_data(job)
    with pytest.raises(RecipeError, match="are of a target, and this recipe adapts to none"):
        open_job_data(Job(recipe_of("target-supervised"), source, labels=str(table)))


def test_command_line_adapts_and_says_what_comes_next(domains, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source, target = domains
    options = [f"--{key}={value}" for key, value in (SMALL | {"trainer.epochs": 1}).items() if key != "network.dropout"]
    line = ["adapt", "adaptation/dann", "--data", source, "--target", target, "--adaptation.weight", "0.5"]
    main([*line, "--out", "run", *options])
    assert f"darklens predict run {target} --out predictions.csv" in capsys.readouterr().out
    recipe = read_record(tmp_path / "run")["recipe"]
    assert recipe["adaptation"] == {"method": "dann", "weight": 0.5}
    assert recipe["network"]["name"] == "compact"
    main(["finetune", "run", "--data", source, "--out", "tuned", "--trainer.epochs", "1"])
    assert "target" not in load_model("tuned").config.data
    with pytest.raises(SystemExit):
        main(["adapt", "finding/demo", "--data", source, "--target", target, "--out", "other"])
    assert "has no section adaptation, so nothing would be adapted" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*line[:-2], "--adaptation.wieght", "1", "--out", "other"])
    assert "did you mean adaptation.weight" in capsys.readouterr().err


def test_help_describes_the_options_of_the_method():
    text = options_help(["adapt", "adaptation/adamatch", "--help"])
    assert "Options of adaptation adamatch:" in text
    assert "--adaptation.tau float (now 0.9)  Confidence threshold" in text
    assert "--adaptation.select" in text
    assert "mutual information of target images" in text
