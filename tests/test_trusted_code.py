"""Code that a file names runs only if the user says so: a test for each file that can name code."""

import dataclasses
import json
import shutil

import numpy as np
import polars as pl
import pytest
import yaml
from conftest import TINY

import darklens
from darklens.cli import main
from darklens.data.dataset import read_dataset
from darklens.data.synthesis import simulate_dataset
from darklens.errors import ModelError, PresetError, RecipeError, UntrustedCodeError
from darklens.simulation import Simulator, load_preset
from darklens.training.build import check_networks
from darklens.training.ensemble import make_ensemble
from darklens.training.job import Job, read_job
from darklens.training.recipe import load_recipe
from darklens.training.train import resume, train
from darklens.usercode import code_checksum
from darklens.workflows.benchmark import Budget, benchmark
from darklens.workflows.evaluate import evaluate_run
from darklens.workflows.finetune import finetuning_recipe
from darklens.workflows.options import BenchmarkOptions

NET = """
from pathlib import Path
from torch import nn
Path({evidence!r}).write_text("ran")

class Net(nn.Module):
    def __init__(self, channels, outputs):
        super().__init__()
        self.layers = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(64 * channels, outputs))
    def forward(self, x):
        return self.layers(x)
"""
HALO = """
from pathlib import Path
import numpy as np
Path({evidence!r}).write_text("ran")

def cored(x, y, x0, y0, theta_E):
    dx, dy = x - x0, y - y0
    r = (dx**2 + dy**2 + 0.01).sqrt()
    return theta_E * dx / r, theta_E * dy / r

def mine(rng, lens):
    return {{"profile": cored, "x": rng.uniform(-1, 1, 2), "y": rng.uniform(-1, 1, 2), "theta_E": np.full(2, 0.01)}}
"""
FEW = BenchmarkOptions("model-3-noisy", train_images=192, test_images=96)
SHORT = {k: v for k, v in TINY.items() if not k.startswith("network.")} | {"trainer.epochs": 1}


@pytest.fixture
def evidence(tmp_path):
    return tmp_path / "ran"


@pytest.fixture
def net(tmp_path, evidence):
    path = tmp_path / "code" / "my_network.py"
    path.parent.mkdir()
    path.write_text(NET.format(evidence=str(evidence)))
    return path


@pytest.fixture
def halo(tmp_path, evidence):
    path = tmp_path / "halos" / "my_models.py"
    path.parent.mkdir()
    path.write_text(HALO.format(evidence=str(evidence)))
    return path


@pytest.fixture
def own_run(net, dataset, tmp_path, evidence):
    """A run of a network of one's own, named as on the command line; its file is gone afterwards."""
    recipe = load_recipe("substructure/demo", SHORT | {"network.name": f"{net}:Net"})
    run = train(Job(recipe, str(dataset)), tmp_path / "run")
    evidence.unlink()
    net.unlink()
    return run


def refused(function, *arguments, **options):
    with pytest.raises(UntrustedCodeError, match=r"would run \w+ of .*\.py \(sha256:.*--trust_code true") as raised:
        function(*arguments, **options)
    return str(raised.value)


def test_model_carries_its_network_and_works_where_it_is_moved(own_run, test_set, tmp_path, evidence):
    moved = shutil.copytree(own_run / "model", tmp_path / "elsewhere" / "model")
    shutil.rmtree(own_run)
    config = json.loads((moved / "config.json").read_text())
    assert config["network"]["name"] == config["recipe"]["network"]["name"] == "my_network.py:Net"
    assert config["code"]["my_network.py"].startswith("sha256:")
    assert str(tmp_path) not in json.dumps(config), "no absolute path in a model"
    message = refused(darklens.load, moved)
    assert str(moved / "my_network.py") in message
    assert not evidence.exists()
    model = darklens.load(moved, trust_code=True)
    assert evidence.read_text() == "ran"
    assert model.predict(read_dataset(test_set).images[:4]).probabilities.shape == (4, 3)


def test_code_that_was_changed_is_refused_though_trusted(own_run, evidence):
    with (own_run / "model" / "my_network.py").open("a") as file:
        file.write("# changed\n")
    with pytest.raises(ModelError, match=r"my_network\.py: is not the file that the model was saved with"):
        darklens.load(own_run, trust_code=True)
    (own_run / "model" / "my_network.py").unlink()
    with pytest.raises(ModelError, match=r"needs the file .*my_network\.py, which is missing"):
        darklens.load(own_run, trust_code=True)
    assert not evidence.exists()


def test_every_verb_that_loads_a_model_asks(own_run, test_set, tmp_path, evidence, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [
        f"evaluate run --data {test_set}",
        f"predict run {test_set} --out p.csv",
        f"explain run {test_set}",
        f"finetune run --data {test_set} --out tuned",
        "ensemble run run --out both",
    ]
    for line in lines:
        with pytest.raises(SystemExit) as stop:
            main(line.split())
        assert stop.value.code == 2
        assert "nothing was run" in capsys.readouterr().err
    assert not evidence.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["code", "run"], "nothing is left behind"
    main([*lines[1].split(), "--trust_code", "true"])
    assert evidence.exists()
    assert len(pl.read_csv("p.csv")) == 96
    main([*lines[3].split(), "--trust_code"])
    darklens.load("tuned", trust_code=True)
    assert (tmp_path / "tuned" / "model" / "my_network.py").is_file()
    evaluate_run(own_run, test_set, trust_code=True)


def test_model_config_that_hides_code_elsewhere_runs_nothing(run, net, tmp_path, evidence):
    """Wherever config.json names code: the network, the recipe's network, its members."""
    for place in ("network", "recipe", "members"):
        folder = shutil.copytree(run / "model", tmp_path / place)
        config = json.loads((folder / "config.json").read_text())
        named = {"name": f"{net}:Net"}
        if place == "network":
            config["network"] = named
        elif place == "recipe":
            config["recipe"]["network"] = named
        else:
            config["recipe"]["members"] = [config["recipe"] | {"network": named}]
        (folder / "config.json").write_text(json.dumps(config))
        if place == "network":
            refused(darklens.load, folder)
            refused(finetuning_recipe, str(folder), {})
        elif place == "recipe":
            darklens.load(folder)
            refused(finetuning_recipe, str(folder), {})
        else:
            assert finetuning_recipe(str(folder), {}).members == [], "a model that is no ensemble has none"
    assert not evidence.exists()


def test_run_json_is_not_trusted(net, halo, dataset, tmp_path, evidence):
    recipe = load_recipe("substructure/demo", TINY)
    own = dataclasses.replace(recipe, network={"name": f"{net}:Net"})
    jobs = {
        "recipe": Job(own, str(dataset)),
        "members": Job(dataclasses.replace(recipe, members=[dataclasses.asdict(own)]), str(dataset)),
        "data": Job(recipe, f"preset:{halo}:mine"),
        "start": Job(recipe, str(dataset), start="evil"),
    }
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / "config.json").write_text(
        json.dumps(
            {
                "task": "classify",
                "network": {"name": f"{net}:Net"},
                "preprocessing": {},
                "channels": 1,
                "pixels": 64,
                "classes": ["a", "b"],
            }
        )
    )
    (evil / "model.safetensors").write_bytes(b"")
    for name, job in jobs.items():
        content = dataclasses.asdict(job) | ({"start": str(evil)} if job.start else {})
        out = tmp_path / name
        out.mkdir()
        (out / "run.json").write_text(json.dumps(content, default=str))
        refused(resume, out)
    refused(make_ensemble, [_with_model(tmp_path / "recipe"), _with_model(tmp_path / "data")], tmp_path / "both")
    assert not evidence.exists()


def _with_model(run):
    (run / "model").mkdir()
    (run / "model" / "model.safetensors").write_bytes(b"")
    content = {
        "task": "classify",
        "network": {"name": "compact"},
        "preprocessing": {},
        "channels": 1,
        "pixels": 64,
        "classes": ["a", "b"],
    }
    (run / "model" / "config.json").write_text(json.dumps(content))
    return run


def test_resuming_with_the_same_command_needs_no_more_trust(net, dataset, tmp_path):
    job = Job(load_recipe("substructure/demo", SHORT | {"network.name": f"{net}:Net"}), str(dataset))
    run = train(job, tmp_path / "run")
    shutil.rmtree(run / "model")
    resume(run, job)
    assert (run / "model" / "my_network.py").is_file()


def test_recipe_in_yaml_asks_and_finds_its_code_beside_it(net, dataset, tmp_path, evidence, monkeypatch, capsys):
    own = net.parent / "recipe.yaml"
    own.write_text("extends: substructure/demo\nnetwork: {name: my_network.py:Net}\n")
    monkeypatch.chdir(tmp_path)
    assert "recipe.yaml: would run Net of" in refused(load_recipe, "code/recipe.yaml")
    both = tmp_path / "both.yaml"
    both.write_text(f"task: classify\nmembers: [{own}, substructure/demo]\n")
    refused(load_recipe, str(both))
    line = f"train code/recipe.yaml --data {dataset} --out run --trainer.epochs 1 --trainer.batch_size 32"
    with pytest.raises(SystemExit):
        main(line.split())
    assert not evidence.exists()
    assert not (tmp_path / "run").exists()
    capsys.readouterr()
    main([*line.split(), "--trust_code", "true"])
    assert evidence.exists()
    assert load_recipe("code/recipe.yaml", trust_code=True).network["name"] == "code/my_network.py:Net"
    # A word that looks like code in a description is none.
    own.write_text("extends: substructure/demo\ndescription: my_network.py:Net\n")
    assert load_recipe(str(own)).network["name"] == "compact"


@pytest.mark.parametrize("matter", [{"add": "my_models.py:mine"}, {"subhalos": {"profile": "my_models.py:cored"}}])
def test_preset_in_yaml_and_dataset_json_ask(halo, matter, tmp_path, evidence, monkeypatch, capsys):
    if "subhalos" in matter:
        matter["subhalos"] |= {"mean_count": 2, "parameters": {"theta_E": 0.01}}
    content = {"extends": "model-3-noisy", "classes": {"mine": matter}}
    (halo.parent / "mine.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "more.yaml").write_text("extends: halos/mine.yaml\npixels: 32\n")
    monkeypatch.chdir(tmp_path)
    for name in ("halos/mine.yaml", "more.yaml"):
        assert f"{name}: would run" in refused(load_preset, name)
        refused(Simulator, name)
    verbs = [
        "simulate more.yaml --count 64 --out x",
        "preview more.yaml",
        "train substructure/demo --data preset:more.yaml --out x",
    ]
    for line in verbs:
        with pytest.raises(SystemExit):
            main(line.split())
        assert "nothing was run" in capsys.readouterr().err
    assert not evidence.exists()
    preset = load_preset("more.yaml", trust_code=True)
    folder = simulate_dataset(preset, 64, 0, out=tmp_path / "set")
    assert evidence.exists()
    stored = read_dataset(folder)
    evidence.unlink()
    refused(Simulator, stored.info.preset)
    assert not evidence.exists()
    again = Simulator(stored.info.preset, trust_code=True).render(stored.catalog, noise=False)
    assert again.shape == (64, 1, 32, 32)


def test_function_named_on_the_command_line_is_run(halo, evidence):
    assert Simulator(f"{halo}:mine").preset.labels[-1] == "mine"
    Simulator(f"{halo}:mine").catalog(4)
    assert evidence.exists()


def test_catalogue_that_names_code_runs_no_other_file(halo, tmp_path, evidence):
    """A column of a stranger's catalogue tells the function's name alone; the file is that of the trusted preset."""
    simulator = Simulator(f"{halo}:mine")
    rows = simulator.catalog(8)
    assert set(rows["subhalo_profile"].drop_nulls()) == {"my_models.py:cored"}, "no path of this machine"
    expected = simulator.render(rows, noise=False)
    evil = tmp_path / "evil" / "my_models.py"
    evil.parent.mkdir()
    evil.write_text(HALO.format(evidence=str(tmp_path / "evil" / "ran")))
    foreign = rows.with_columns(pl.lit(f"{evil}:cored").alias("subhalo_profile"))
    assert np.array_equal(simulator.render(foreign, noise=False), expected)
    with pytest.raises(PresetError, match=r"other\.py:cored is not of my_models\.py"):
        simulator.render(rows.with_columns(pl.lit("other.py:cored").alias("subhalo_profile")))
    assert not (tmp_path / "evil" / "ran").exists()


def test_benchmark_of_a_network_named_on_the_command_line_is_evaluated(net, tmp_path):
    """What the user named may run, in the model that was just trained with it too."""
    settings = SHORT | {"network.name": f"{net}:Net"}
    benchmark(["substructure/demo"], Budget(1, "epochs"), tmp_path / "board", choices=FEW, overrides=settings)
    rows = json.loads((tmp_path / "board" / "leaderboard.json").read_text())["rows"]
    assert [row["parameters"] for row in rows] == [195]


def test_member_that_was_exchanged_in_an_unfinished_ensemble_runs_nothing(net, dataset, tmp_path, evidence):
    recipe = load_recipe("substructure/demo", SHORT)
    both = dataclasses.replace(recipe, name="both", members=[dataclasses.asdict(recipe)] * 2)
    job = Job(both, str(dataset))
    run = train(job, tmp_path / "both")
    shutil.rmtree(run / "model")
    folder = run / "members" / "0-demo" / "model"
    (folder / "evil.py").write_text(net.read_text())
    config = json.loads((folder / "config.json").read_text())
    config |= {"network": {"name": "evil.py:Net"}, "code": {"evil.py": code_checksum(folder / "evil.py")}}
    (folder / "config.json").write_text(json.dumps(config))
    refused(resume, run, job)
    assert not evidence.exists()


def test_ensemble_of_own_networks_is_trained_without_more_trust(net, dataset, tmp_path):
    recipe = load_recipe("substructure/demo", SHORT | {"network.name": f"{net}:Net"})
    both = dataclasses.replace(recipe, name="both", members=[dataclasses.asdict(recipe)] * 2)
    run = train(Job(both, str(dataset)), tmp_path / "both")
    refused(darklens.load, run)
    assert len(darklens.load(run, trust_code=True).members) == 2


def test_members_hidden_in_a_recipe_are_not_trained_when_fine_tuning(run, net, dataset, tmp_path, evidence):
    folder = shutil.copytree(run / "model", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["recipe"]["members"] = [config["recipe"] | {"network": {"name": f"{net}:Net"}}] * 2
    (folder / "config.json").write_text(json.dumps(config))
    for overrides in ({}, {"network.name": "compact"}):
        assert finetuning_recipe(str(folder), overrides).members == []
    assert not evidence.exists()


def test_naming_another_network_drops_the_options_of_the_former(net):
    recipe = load_recipe("substructure/demo", {"network.name": f"{net}:Net"})
    assert recipe.network_options == {}
    assert load_recipe("substructure/demo", {"network.name": "equivariant", "network.group": "C4"}).network_options == {
        "group": "C4"
    }
    with pytest.raises(RecipeError, match=r"unknown key network\.nam; it takes widths, blocks, dropout"):
        check_networks(load_recipe("substructure/demo", {"network.nam": "x"}))


def test_what_is_run_is_named(own_run, caplog):
    darklens.load(own_run, trust_code=True)
    assert any("running Net of" in r.message and "my_network.py" in r.message for r in caplog.records)


def test_read_job_knows_runs_of_version_0_1(run, tmp_path):
    """Their options lay beside the rest of run.json."""
    copy = shutil.copytree(run, tmp_path / "run")
    content = json.loads((copy / "run.json").read_text())
    options = content.pop("options")
    assert options["mask"] is False
    (copy / "run.json").write_text(json.dumps(content | {"layout": "dataset", "catalog": "c.csv", "mask": True}))
    job = read_job(copy)
    assert (job.options.layout, str(job.options.catalog), job.options.mask) == ("dataset", "c.csv", True)
