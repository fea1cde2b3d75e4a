import contextlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from conftest import TINY, train_here
from sklearn.metrics import roc_auc_score

from darklens.data.options import DataOptions
from darklens.errors import DarklensError, DataError, ModelError, RecipeError
from darklens.evaluation.bootstrap import paired_differences
from darklens.models.registry import build_network
from darklens.paths import only_one
from darklens.tasks.classify import Classify
from darklens.training.job import recorded_job
from darklens.training.recipe import load_recipe
from darklens.usercode import load_function
from darklens.workflows import benchmark as benchmarks
from darklens.workflows.benchmark import (
    Budget,
    benchmark,
    known_overrides,
    parse_budget,
    planned,
    run_passing_on_errors,
)
from darklens.workflows.evaluate import evaluate_run
from darklens.workflows.options import BenchmarkOptions, EvaluationOptions

FEW = BenchmarkOptions("model-3-noisy", train_images=192, test_images=96)
SMALL = {k: v for k, v in TINY.items() if k not in ("trainer.epochs", "preprocessing.crop")} | {
    "preprocessing.crop": 64
}


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """A leaderboard of two recipes, begun with one of them."""
    out = tmp_path_factory.mktemp("board") / "out"
    said = []
    plain = out.parent / "plain.yaml"
    plain.write_text("extends: substructure/demo\naugmentation: none\n")
    recipes = ["substructure/demo", str(plain)]
    benchmark(recipes[:1], Budget(2, "epochs"), out, choices=FEW, overrides=SMALL, say=said.append)
    first = json.loads((out / "leaderboard.json").read_text())
    stamp = (out / "runs" / "demo" / "model" / "model.safetensors").stat().st_mtime_ns
    (out / "runs" / "plain").mkdir()  # what a kill leaves at worst: a folder without a record
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmarks, "run_passing_on_errors", train_here)
        benchmark(recipes, Budget(2, "epochs"), out, choices=FEW, overrides=SMALL, say=said.append)
    return out, first, stamp, said


def test_leaderboard_goes_on_where_it_was_and_ranks(board):
    out, first, stamp, _ = board
    assert [row["recipe"] for row in first["rows"]] == ["substructure/demo"]
    assert (out / "runs" / "demo" / "model" / "model.safetensors").stat().st_mtime_ns == stamp, "not trained again"
    content = json.loads((out / "leaderboard.json").read_text())
    aucs = [row["figures"]["macro_auc"]["value"] for row in content["rows"]]
    assert len(aucs) == 2
    assert aucs == sorted(aucs, reverse=True)
    row = content["rows"][0]
    assert row["n"] == 96
    assert row["peak_memory_mib"] > 100
    assert row["images_seen"] == 2 * (173 // 32) * 32
    assert [{d["first"], d["second"]} for d in content["differences"]] == [{"substructure/demo", "plain"}]
    text = (out / "leaderboard.md").read_text()
    weak = [row for row in content["rows"] if row["warnings"]]
    assert weak, "after two epochs on 192 images a network guesses"
    for row in weak:
        assert f"| `{row['name']}` (see below) |" in text
        for warning in row["warnings"]:
            assert f"`{row['name']}`: {warning.partition('; try')[0]}." in text
    assert "2 epochs a recipe" in text
    page = (out / "leaderboard.html").read_text()
    assert page.count("<svg") == 2
    assert weak[0]["warnings"][0].partition(":")[0] in page
    for name in ("src=", "<link", "@import"):
        assert f'{name}"http' not in page, "nothing to fetch"


def test_other_settings_are_refused_and_nothing_is_lost(board):
    out, *_ = board
    with pytest.raises(DataError, match="was begun with seed 0, not 1"):
        benchmark(["substructure/demo"], Budget(2, "epochs"), out, choices=replace(FEW, seed=1), overrides=SMALL)
    assert (out / "leaderboard.json").is_file()


def test_more_seeds_train_on_the_same_images(board, tmp_path, monkeypatch):
    """A benchmark may grow: what is trained is kept, and the rest differs in all but its images."""
    out, *_ = board
    copy = shutil.copytree(out, tmp_path / "copy")
    settings = json.loads((copy / "benchmark.json").read_text())
    del settings["seeds"]  # as before there were several
    (copy / "benchmark.json").write_text(json.dumps(settings))
    monkeypatch.setattr(benchmarks, "run_passing_on_errors", train_here)
    said = []

    def run(seeds):
        choices = replace(FEW, seeds=seeds)
        benchmark(["substructure/demo"], Budget(2, "epochs"), copy, choices=choices, overrides=SMALL, say=said.append)

    run(2)
    assert said == ["[1/2] substructure/demo, seed 0", "[2/2] substructure/demo, seed 1"]
    first, second = (copy / "runs" / name for name in ("demo", "demo-seed1"))
    weights = [(each / "model" / "model.safetensors") for each in (first, second)]
    assert weights[0].stat().st_mtime_ns == (out / "runs" / "demo" / "model" / "model.safetensors").stat().st_mtime_ns
    assert weights[0].read_bytes() != weights[1].read_bytes()
    splits = [pl.read_parquet(each / "split.parquet") for each in (first, second)]
    assert splits[0].equals(splits[1])
    job = recorded_job(second)
    assert (job.seed, job.split_seed, job.member) == (1, 0, 0)
    content = json.loads((copy / "leaderboard.json").read_text())
    assert content["settings"]["seeds"] == 2
    rows = {row["name"]: row for row in content["rows"]}
    assert {name: row["seeds"] for name, row in rows.items()} == {"demo": 2, "plain": 1}
    each = [run["figures"]["macro_auc"]["value"] for run in rows["demo"]["runs"]]
    assert rows["demo"]["figures"]["macro_auc"]["value"] == pytest.approx(np.mean(each))
    assert set(rows["demo"]["figures"]) == set(rows["plain"]["figures"]), "those of prediction sets too"
    assert [{d["first"], d["second"]} for d in content["differences"]] == [{"substructure/demo", "plain"}]
    assert "2 seeds (0 to 1)" in (copy / "leaderboard.md").read_text()
    with pytest.raises(DataError, match="was begun with seeds 2, not 1"):
        run(1)


def test_recipe_may_not_be_called_like_another_seed(tmp_path):
    mine = tmp_path / "demo-seed2.yaml"
    mine.write_text("extends: substructure/demo\n")
    with pytest.raises(RecipeError, match="demo-seed2 is what demo is called with another seed; rename that recipe"):
        benchmark(
            ["substructure/demo", str(mine)], Budget(1, "epochs"), tmp_path / "x", choices=BenchmarkOptions(seeds=3)
        )
    assert not (tmp_path / "x").exists()
    with pytest.raises(DarklensError, match="--seeds must be at least 1; got 0"):
        BenchmarkOptions(seeds=0)


def test_recipe_that_fails_with_one_seed_is_ranked_by_the_others(board, tmp_path, monkeypatch):
    out, *_ = board
    copy = shutil.copytree(out, tmp_path / "copy")
    monkeypatch.setattr(benchmarks, "run_passing_on_errors", lambda line: (1, "darklens: no memory is left"))
    choices = replace(FEW, seeds=2)
    benchmark(["substructure/demo"], Budget(2, "epochs"), copy, choices=choices, overrides=SMALL, say=lambda _: None)
    content = json.loads((copy / "leaderboard.json").read_text())
    assert {row["name"]: row["seeds"] for row in content["rows"]} == {"demo": 1, "plain": 1}
    assert content["failed"] == {"substructure/demo, seed 1": "no memory is left"}


def test_recipe_whose_own_code_fails_in_its_evaluation_is_named(board, tmp_path, monkeypatch):
    out, *_ = board
    copy = shutil.copytree(out, tmp_path / "copy")
    (tmp_path / "own.py").write_text("def loss(line):\n    return line.mean\n")
    failing = load_function(f"{tmp_path}/own.py:loss")
    monkeypatch.setattr(benchmarks, "train_recipe", lambda *given: failing([]))
    with pytest.raises(DataError, match=r"substructure/demo: own\.py, line 2, in loss: ended with AttributeError"):
        benchmark(["substructure/demo"], Budget(2, "epochs"), copy, choices=FEW, overrides=SMALL, say=lambda _: None)


def test_recipe_whose_weights_cannot_be_had_is_left_out_and_named(board, tmp_path, monkeypatch):
    out, *_ = board
    copy = shutil.copytree(out, tmp_path / "copy")
    recipes = ["substructure/demo", "substructure/resnet18"]
    said = []
    monkeypatch.setattr(benchmarks, "run_passing_on_errors", train_here)
    overrides = SMALL | {"network.weights": "nowhere.pth"}
    settings = json.loads((copy / "benchmark.json").read_text()) | {"overrides": overrides}
    (copy / "benchmark.json").write_text(json.dumps(settings))
    benchmark(recipes, Budget(2, "epochs"), copy, choices=FEW, overrides=overrides, say=said.append)
    content = json.loads((copy / "leaderboard.json").read_text())
    assert {row["recipe"] for row in content["rows"]} == {"substructure/demo", "plain"}
    assert "nowhere.pth" in content["failed"]["substructure/resnet18"]
    assert "substructure/resnet18" in content["failed"]
    assert not (copy / "runs" / "resnet18").exists()


def test_recipes_are_ranked_on_the_test_split_of_a_users_own_images(dataset, tmp_path, monkeypatch):
    """A tenth of the images, of which no run has seen any."""
    monkeypatch.setattr(benchmarks, "run_passing_on_errors", train_here)
    choices = BenchmarkOptions(data=str(dataset))
    out = tmp_path / "board"
    benchmark(["substructure/demo"], Budget(1, "epochs"), out, choices=choices, overrides=SMALL, say=lambda _: None)
    catalog = pl.read_parquet(out / "data" / "all" / "catalog.parquet")
    test = catalog.filter(pl.col("split") == "test")
    assert len(test) == 18, "a tenth of each class"
    rows = json.loads((out / "leaderboard.json").read_text())["rows"]
    assert [(row["recipe"], row["n"]) for row in rows] == [("substructure/demo", 18)]
    table = pl.read_parquet(out / "runs" / "demo" / "evaluations" / "test" / "predictions.parquet")
    assert table["id"].to_list() == test["id"].to_list()
    assert table["true"].to_list() == test["label"].to_list()
    trained = pl.read_parquet(out / "runs" / "demo" / "split.parquet").filter(pl.col("split") != "test")
    assert not set(trained["id"]) & set(test["id"])


def test_recipes_that_would_share_a_folder_are_refused(board, tmp_path):
    out, *_ = board
    mine = tmp_path / "demo.yaml"
    mine.write_text("extends: substructure/demo\n")

    def run(*recipes):
        benchmark(recipes, Budget(2, "epochs"), out, choices=FEW, overrides=SMALL)

    with pytest.raises(RecipeError, match="two recipes are called demo; rename one"):
        run("substructure/demo", str(mine))
    with pytest.raises(DataError, match=r"demo: is a run of substructure/demo; rename .*demo\.yaml"):
        run(str(mine))
    other = tmp_path / "plain.yaml"
    other.write_text("extends: substructure/demo\naugmentation: flips\n")
    with pytest.raises(DataError, match=r"plain: is a run of another recipe of this name; rename .*plain\.yaml"):
        run(str(other))
    assert {row["name"] for row in json.loads((out / "leaderboard.json").read_text())["rows"]} == {"demo", "plain"}


def test_leaderboard_ranks_by_its_own_evaluations(board, test_set):
    out, *_ = board
    before = {row["name"]: row["figures"] for row in json.loads((out / "leaderboard.json").read_text())["rows"]}
    evaluate_run(out / "runs" / "demo", test_set, EvaluationOptions("later"))
    benchmark(["substructure/demo"], Budget(2, "epochs"), out, choices=FEW, overrides=SMALL, say=lambda _: None)
    assert {row["name"]: row["figures"] for row in json.loads((out / "leaderboard.json").read_text())["rows"]} == before


def test_overrides_go_to_those_recipes_whose_network_knows_them():
    overrides = {"network.pretrained": False, "network.widths": [8, 8], "trainer.epochs": 1}
    assert known_overrides("substructure/demo", overrides) == {"network.widths": [8, 8], "trainer.epochs": 1}
    assert known_overrides("substructure/resnet18", overrides) == {"network.pretrained": False, "trainer.epochs": 1}
    with pytest.raises(RecipeError, match=r"--network\.growth: no network of these recipes has such an option"):
        benchmark(["substructure/demo"], Budget(1, "epochs"), Path("x"), overrides={"network.growth": 3})


def test_network_without_pretrained_weights_takes_that_for_granted():
    network = build_network("compact", 1, 3, {"pretrained": False, "widths": [8], "blocks": [1]})
    assert network(torch.zeros(2, 1, 16, 16)).shape == (2, 3)
    with pytest.raises(ModelError, match=r"network compact: unknown key network\.pretrained"):
        build_network("compact", 1, 3, {"pretrained": True})


@pytest.mark.parametrize("text", ["10min", "5 epochs", "1epoch", "200000images"])
def test_budgets(text):
    assert str(parse_budget(text)).split()[1] in ("min", "epochs", "images")


@pytest.mark.parametrize("text", ["10", "min", "-5epochs", "0min", "3 weeks"])
def test_bad_budgets_are_refused(text):
    with pytest.raises(RecipeError, match="--budget is a number of epochs"):
        parse_budget(text)


def test_process_that_shares_a_benchmark_waits_for_its_images(tmp_path, monkeypatch):
    """Another one holds them; it ends while this one sleeps."""
    plan = benchmarks.Plan(["substructure/demo"], {}, Budget(1, "epochs"), FEW, DataOptions(), tmp_path, False)
    other, made, said = contextlib.ExitStack(), [], []
    other.enter_context(only_one(tmp_path / "data", "making images"))

    def sleep(seconds):
        assert said == ["waiting for the images, which another process makes"]
        assert not made
        other.close()

    monkeypatch.setattr(benchmarks, "sleep", sleep)
    monkeypatch.setattr(benchmarks, "simulate_dataset", lambda *_, out, **more: made.append(out.name))
    benchmarks.shared_images(plan, said.append)
    assert made == ["train", "test"]


def test_ranking_takes_a_small_part_of_the_time(tmp_path, monkeypatch):
    """It takes 50 s here, trainings none: only the first run and the last are ranked."""
    clock, ranked = [0.0], []

    def rank(runs, *given, **more):
        clock[0] += 50
        ranked.append(len(runs))

    monkeypatch.setattr(benchmarks, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(benchmarks, "rank_runs", rank)
    monkeypatch.setattr(benchmarks, "write_leaderboard", lambda board, out: None)
    monkeypatch.setattr(benchmarks, "run_passing_on_errors", train_here)
    for name in "abc":
        (tmp_path / f"{name}.yaml").write_text("extends: substructure/demo\n")
    recipes = [str(tmp_path / f"{name}.yaml") for name in "abc"]
    benchmark(recipes, Budget(1, "epochs"), tmp_path / "board", choices=FEW, overrides=SMALL, say=lambda _: None)
    assert ranked == [1, 3]


def test_budget_of_images_is_used_in_whole_batches():
    recipe = load_recipe("substructure/demo", TINY)
    assert planned(recipe, Budget(3, "epochs"), 174) == {"trainer.epochs": 3}
    assert planned(recipe, Budget(0.2, "min"), 174) == {
        "trainer.epochs": 10, "trainer.minutes": 0.2, "trainer.patience": None,
    }  # fmt: skip
    for images in (32, 100, 480, 1000, 200_000):
        for available in (40, 174, 13_824, 10**6):
            plan = planned(recipe, Budget(images, "images"), available)
            epochs, each = plan["trainer.epochs"], plan["trainer.epoch_images"]
            assert each <= available
            assert each % 32 == 0
            assert epochs * each == pytest.approx(images, rel=0.03, abs=40)
    assert planned(recipe, Budget(480, "images"), 10**6)["trainer.epochs"] == 5, "not ten, of 15 batches"
    for budget in (Budget(15, "images"), Budget(0.5, "epochs")):
        with pytest.raises(RecipeError, match="ends before there is anything to validate"):
            planned(recipe, budget, 174)


@pytest.mark.parametrize("unit", ["images", "epochs"])
def test_members_share_a_budget(unit):
    members = [{"recipe": "substructure/demo"}, {"recipe": "substructure/demo"}, {"recipe": "substructure/demo"}]
    recipe = load_recipe("substructure/demo", TINY | {"members": members})
    plan = planned(recipe, Budget({"images": 9600, "epochs": 10}[unit], unit), 960)
    assert 3 * plan["trainer.epochs"] * plan["trainer.epoch_images"] == 9600
    with pytest.raises(RecipeError, match=r"one batch of 32 images \(each part has 13\)"):
        planned(recipe, Budget(40, "images"), 960)


def test_differences_are_those_of_scikit_learn_and_know_chance_from_skill():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    onehot = np.eye(3)[labels]

    def probabilities(skill):
        p = np.exp(skill * onehot + rng.normal(0, 1, (400, 3)))
        return p / p.sum(1, keepdims=True)

    models = {"good": probabilities(2.0), "same": probabilities(2.0), "poor": probabilities(0.5)}
    metrics = {name: next(m for m in Classify(class_names=["a", "b", "c"]).metrics(p, labels) if m.key == "macro_auc")
               for name, p in models.items()}  # fmt: skip
    found = {(d.first, d.second): d for d in paired_differences(metrics, 400)}
    auc = {name: roc_auc_score(labels, p, multi_class="ovr", average="macro") for name, p in models.items()}
    for (first, second), difference in found.items():
        assert difference.value == pytest.approx(auc[first] - auc[second], abs=1e-12)
        assert difference.low < difference.value < difference.high
    assert found["good", "poor"].p == 1e-3
    assert found["good", "same"].p > 0.05


def test_what_a_training_says_is_passed_on_and_its_error_kept(capsys):
    code = "import sys; print('learning …\\n\\ndarklens: no such recipe', file=sys.stderr); sys.exit(2)"
    assert run_passing_on_errors([sys.executable, "-c", code]) == (2, "darklens: no such recipe")
    assert capsys.readouterr().err == "learning …\n\n"


def test_images_are_those_of_the_task_unless_a_preset_is_named(tmp_path, monkeypatch):
    """A benchmark of lens finders has lenses and all else, others dark matter."""
    seen = []

    def stop(preset, *arguments, **options):
        seen.append(preset.name)
        raise DataError("seen")

    monkeypatch.setattr(benchmarks, "simulate_dataset", stop)
    for recipe, preset in (("finding/demo", None), ("substructure/demo", None), ("finding/demo", "bologna-space")):
        with pytest.raises(DataError, match="seen"):
            benchmark(
                [recipe], Budget(1, "epochs"), tmp_path / str(len(seen)), choices=BenchmarkOptions(preset),
                say=lambda line: None,
            )  # fmt: skip
    assert seen == ["finding-hsc", "model-1", "bologna-space"]
    settings = json.loads((tmp_path / "0" / "benchmark.json").read_text())
    assert settings["preset"] == "finding-hsc"
