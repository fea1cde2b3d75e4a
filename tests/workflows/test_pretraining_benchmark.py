"""The benchmark of pre-trainings: pairing of draws, what an encoder hands on, and that it goes on where it stopped."""

import json

import numpy as np
import polars as pl
import pytest
import torch
from conftest import write_rings

from darklens.data.importing import import_data
from darklens.data.layouts import open_data
from darklens.errors import DataError, RecipeError
from darklens.models.encoders import encoder_features, load_encoder, network_of_encoder
from darklens.models.registry import build_network
from darklens.report.pretraining_board import FINETUNED, PROBE, Cell, compare, markdown, table
from darklens.tasks.classify import Classify
from darklens.training.job import Job
from darklens.training.recipe import load_recipe
from darklens.training.train import train
from darklens.workflows import pretraining_benchmark
from darklens.workflows.benchmark import parse_budget
from darklens.workflows.options import BenchmarkOptions
from darklens.workflows.pretraining_benchmark import benchmark_pretraining, parse_labels

SMALL = {"width": 8, "depth": 1, "heads": 2, "patch": 8}


def test_differences_are_paired_by_draw():
    """Draws scatter by much more than the encoders differ; the difference is the same in each draw."""
    truth = np.arange(300) % 2
    rng = np.random.default_rng(0)

    def predicted(right):
        said = np.where(np.arange(300) < right * 300, truth, 1 - truth)
        return np.column_stack([1 - said, said]).astype(float)

    shares = rng.uniform(0.4, 0.8, 4)
    cells = [Cell("random-a", PROBE, 10, draw, predicted(share), 1.0) for draw, share in enumerate(shares)]
    cells += [Cell("mine", PROBE, 10, draw, predicted(share + 0.1), 1.0) for draw, share in enumerate(shares)]
    cells += [Cell("other", PROBE, 10, draw, predicted(share + 0.05), 1.0) for draw, share in enumerate(shares)]
    task = Classify(class_names=["a", "b"])
    rows = compare(cells, {"random-a": "random-a", "mine": "random-a", "other": "random-a"}, task, truth)
    by_name = {row["encoder"]: row for row in rows}
    assert [row["encoder"] for row in rows] == ["mine", "other", "random-a"]
    mine = by_name["mine"]
    assert mine["to_random"]["value"] == pytest.approx(0.1, abs=0.01)
    assert mine["to_best"]["other"] == "other"
    assert by_name["other"]["to_best"]["other"] == "mine"
    assert by_name["random-a"]["to_random"] is None
    length = {
        name: found["high"] - found["low"]
        for name, found in {"own": mine["figures"]["macro_auc"], "paired": mine["to_random"]}.items()
    }
    assert length["paired"] < 0.1 < 0.3 < length["own"]
    flat = table(rows)
    assert flat["difference_to_random"].to_list()[:2] == [row["to_random"]["value"] for row in rows[:2]]
    settings = {
        "data": None, "preset": "p", "pool": 9, "budget": "1 min", "finetuning_budget": "1 min", "finetuning": "f",
        "seed": 0, "draws": 4, "machine": "m",
    }  # fmt: skip
    assert "| 10 | `mine` | " in markdown(rows, settings, 300, {})


def test_intervals_of_few_draws_end_where_the_metric_does():
    truth = np.arange(60) % 2
    cells = [
        Cell("mine", PROBE, 10, draw, np.eye(2)[truth if draw else 1 - truth].astype(float), 1.0) for draw in (0, 1)
    ]
    figures = compare(cells, {"mine": "mine"}, Classify(class_names=["a", "b"]), truth)[0]["figures"]
    assert (figures["macro_auc"]["low"], figures["macro_auc"]["high"]) == (0, 1)


def test_all_labels_come_last():
    truth = np.arange(40) % 2
    predicted = np.column_stack([1 - truth, truth]).astype(float)
    cells = [Cell("r", how, n, 0, predicted, 1.0) for how in (FINETUNED, PROBE) for n in (None, 30, 4)]
    rows = compare(cells, {"r": "r"}, Classify(class_names=["a", "b"]), truth)
    assert [(row["how"], row["labels"]) for row in rows] == [
        (how, n) for how in (PROBE, FINETUNED) for n in (4, 30, None)
    ]  # fmt: skip


def test_numbers_of_labels():
    assert parse_labels("all, 30,10") == [10, 30, None]
    for text in ("1", "10,x", "-3", ""):
        with pytest.raises(RecipeError, match="--labels takes numbers of labelled images"):
            parse_labels(text)
    with pytest.raises(RecipeError, match="names a number twice"):
        parse_labels("10,10")


@pytest.mark.parametrize("recipe", ["pretraining/mae", "pretraining/vicreg", "pretraining/contrastive-pairs"])
def test_network_of_fine_tuning_has_the_encoder_of_the_pretraining(recipe):
    pretrained, head = load_recipe(recipe).network, load_recipe("substructure/mae-finetuned").network
    network = network_of_encoder(pretrained, head)
    options = {key: value for key, value in network.items() if key != "name"}
    beside = {key: value for key, value in pretrained.items() if key != "name"}
    torch.manual_seed(0)
    trained = build_network(pretrained["name"], 1, load_recipe(recipe).make_task().outputs, beside)
    torch.manual_seed(1)
    tuned = build_network(network["name"], 1, 3, options).eval()
    images = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        before = encoder_features(tuned, images)
        load_encoder(tuned, trained, "trained")
        after = encoder_features(tuned, images)
        np.testing.assert_allclose(after, encoder_features(trained.eval(), images), atol=1e-5)
    assert not torch.allclose(before, after, atol=1e-2)
    assert after.shape == (2, 128)


def test_features_of_a_network_without_a_separate_head_are_what_its_last_layer_reads():
    network = build_network("compact", 1, 3, {"widths": [4, 8], "blocks": [0, 1]}).eval()
    images = torch.randn(2, 1, 16, 16)
    with torch.no_grad():
        features = encoder_features(network, images)
        np.testing.assert_allclose(network.head[-1](features), network(images), atol=1e-6)


@pytest.fixture
def rings(tmp_path):
    """80 images of two classes, of which 20 are for the test."""
    raw = write_rings(tmp_path / "raw", 80, 1, bands=("i",))
    split = {"train": 0.6, "validation": 0.15, "test": 0.25}
    return import_data(open_data(raw), tmp_path / "rings", fractions=split, seed=0)


def test_labels_that_were_not_drawn_are_not_there(rings, tmp_path):
    images = pretraining_benchmark._open({"train": rings, "test": rings}, Classify())
    assert (len(images.pool), len(images.test)) == (60, 20)
    rows = np.array([0, 1, 2, 3, 10, 11, 12, 13, 14, 15])
    training = pretraining_benchmark._link_labelled(images, rows, tmp_path / "linked", 0)
    linked = open_data(tmp_path / "linked")
    named = linked.catalog.filter(pl.col("split").is_not_null())
    assert sorted(named["id"]) == sorted(images.pool.catalog["id"][rows])
    assert named["split"].value_counts(sort=True).rows() == [("train", training), ("validation", 10 - training)]
    assert linked.catalog["label"].null_count() == 70
    assert (np.asarray(linked.images[[5]]) == np.asarray(open_data(rings).images[[5]])).all()


def test_encoders_learn_from_the_same_labels_and_a_killed_benchmark_goes_on(rings, tmp_path, monkeypatch):
    overrides = {f"network.{name}": value for name, value in SMALL.items()}
    overrides |= {"preprocessing.crop": 24, "trainer.batch_size": 16}
    choices = BenchmarkOptions(data=str(rings), labels="4", draws=2, finetuning_budget="1epoch")

    def pretrain(plan, name, number, run, data, changes):
        if not run.exists():
            train(Job(load_recipe(name, changes | {"trainer.epochs": 1}), str(data)), run)

    monkeypatch.setattr(pretraining_benchmark, "train_recipe", pretrain)
    kept, begun = pretraining_benchmark._finetune, []

    def killed(plan, arm, images, rows, **more):
        begun.append((arm.folder, more["draw"], rows.tolist()))
        if len(begun) == 3:
            raise KeyboardInterrupt
        return kept(plan, arm, images, rows, **more)

    def run(budget="1epoch", **changed):
        return benchmark_pretraining(
            ["pretraining/vicreg"], parse_budget(budget), tmp_path / "board", choices=choices, overrides=overrides,
            say=lambda line: None, **changed,
        )  # fmt: skip

    monkeypatch.setattr(pretraining_benchmark, "_finetune", killed)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert not (tmp_path / "board" / "pretraining.html").exists()
    page = run()
    assert [each[:2] for each in begun] == [
        ("random-patch-transformer", 0), ("vicreg", 0), ("random-patch-transformer", 1),
        ("random-patch-transformer", 1), ("vicreg", 1),
    ]  # fmt: skip
    assert begun[0][2] == begun[1][2] != begun[3][2]
    found = json.loads((tmp_path / "board" / "pretraining.json").read_text())
    assert found["failed"] == {}
    assert {(row["how"], row["encoder"], row["draws"]) for row in found["rows"]} == {
        (how, name, 2) for how in (PROBE, FINETUNED) for name in ("vicreg", "random-patch-transformer")
    }
    assert found["n"] == 20
    text = page.read_text()
    assert text.count("<svg") == 4
    assert "<script" not in text
    assert "src=" not in text
    assert len(pl.read_csv(tmp_path / "board" / "pretraining.csv")) == 4
    assert not list((tmp_path / "board" / "working").iterdir())
    monkeypatch.setattr(pretraining_benchmark, "_finetune", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr(pretraining_benchmark, "_probe", lambda *_, **__: pytest.fail("probed again"))
    run()
    assert json.loads((tmp_path / "board" / "pretraining.json").read_text())["rows"] == found["rows"]
    with pytest.raises(DataError, match="was begun with budget 1 epochs, not 2 epochs"):
        run("2epochs")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"labels": "100"}, "--labels 100: the training images have 30 labelled ones of the rarest class"),
        ({"seeds": 2}, "--seeds and --pairs are for other benchmarks; --draws says"),
        ({"encoders": "finding/ecnn"}, "--encoders is for darklens benchmark adaptation"),
        ({"finetuning": "mass/demo"}, "--finetuning mass/demo: is no recipe of one network that learns labels"),
    ],
)
def test_what_makes_no_sense_is_refused_before_work_starts(rings, tmp_path, given, said):
    choices = BenchmarkOptions(data=str(rings), **given)
    with pytest.raises((DataError, RecipeError), match=said):
        benchmark_pretraining(["pretraining/vicreg"], parse_budget("1epoch"), tmp_path / "board", choices=choices)


def test_recipes_that_do_not_pretrain_are_refused(rings, tmp_path):
    choices = BenchmarkOptions(data=str(rings))
    with pytest.raises(RecipeError, match="substructure/demo: does not pre-train"):
        benchmark_pretraining(["substructure/demo"], parse_budget("1epoch"), tmp_path / "board", choices=choices)
