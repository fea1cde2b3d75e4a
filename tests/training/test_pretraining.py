"""Pre-training on a small dataset: labels are not read, runs resume to the byte, and encoders go into other networks."""

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from darklens.data.dataset import DatasetInfo, DatasetWriter
from darklens.errors import DataError, ModelError, RecipeError
from darklens.inference.model import load_model
from darklens.models.encoders import encoder_weights, load_encoder
from darklens.models.registry import build_network
from darklens.report.page import write_report
from darklens.tasks.supervised import SupervisedModule
from darklens.training import fit as fitting
from darklens.training.build import build_module
from darklens.training.job import Job, open_job_data, read_record
from darklens.training.recipe import load_recipe
from darklens.training.train import resume, train
from darklens.workflows.evaluate import evaluate_run
from darklens.workflows.finetune import finetuning_recipe

COUNT, SIDE = 48, 16
SHORT = {"trainer.epochs": 3, "trainer.batch_size": 8, "trainer.precision": "32-true", "preprocessing.crop": None}
ENCODER = {"network.width": 16, "network.depth": 1, "network.heads": 2, "network.patch": 4}
SIZE = {key.removeprefix("network."): value for key, value in ENCODER.items()}
METHODS = ["mae", "vicreg", "simclr", "contrastive-pairs", "dino"]


def recipe_of(method, **changes):
    if method == "mae":
        options = SHORT | ENCODER | {"network.decoder_width": 16}
    else:
        of_network = {"network.name": "compact", "network.widths": [4, 8], "network.blocks": [0, 0]}
        options = SHORT | of_network | {"task.method": method, "task.embedding": 6, "task.shift": 2}
    return load_recipe("pretraining/mae", options | changes)


def write_images(out, labels=None, constant=None, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    r = np.hypot(x + rng.normal(0, 2, (COUNT, 1, 1)), y)
    images = (20 * np.exp(-r / 3) + rng.normal(0, 0.5, r.shape)).astype(np.float32)[:, None]
    if constant is not None:
        images[constant] = 1.5
    columns = {"id": [f"{seed}o{i}" if seed else f"o{i}" for i in range(COUNT)]} | (
        {} if labels is None else {"label": labels}
    )
    with DatasetWriter(out, images.shape, images.dtype, fingerprint={}) as writer:
        writer.write(0, images)
        classes = [] if labels is None else sorted(set(labels))
        return str(writer.finish(pl.DataFrame(columns), DatasetInfo("rings", classes, pixel_scale=0.1)))


LABELS = ["a", "b", "b"] * (COUNT // 3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("data") / "train", LABELS)


@pytest.fixture(scope="module")
def pretrained(data, tmp_path_factory):
    return train(Job(recipe_of("mae"), data), tmp_path_factory.mktemp("runs") / "mae")


def weights(run):
    return load_file(run / "model" / "model.safetensors")


@pytest.mark.parametrize("method", METHODS)
def test_interrupted_pretraining_resumes_to_the_byte(method, data, tmp_path, monkeypatch):
    job = Job(recipe_of(method), data)
    ends, killing = [], [False]

    class Watch(fitting.EpochLines):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 2 and killing[0]:
                raise RuntimeError("killed")

        def on_train_end(self, trainer, pl_module):
            ends.append({name: tensor.clone() for name, tensor in pl_module.state_dict().items()})

    monkeypatch.setattr(fitting, "EpochLines", Watch)
    whole = train(job, tmp_path / "whole")
    killing[0] = True
    with pytest.raises(RuntimeError, match="killed"):
        train(job, tmp_path / "run")
    killing[0] = False
    resume(tmp_path / "run", job)
    name = "model/model.safetensors"
    assert (whole / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
    before, after = ends[0], ends[-1]
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        assert torch.equal(tensor, after[key]), key
    if method == "dino":
        assert read_record(whole)["training"]["best_epoch"] == 3, "the last, as losses cannot be compared"
        for key, tensor in weights(whole).items():
            assert torch.equal(tensor, before[f"network.{key}"]), key


@pytest.mark.parametrize("method", ["mae", "vicreg"])
def test_labels_are_never_read(method, tmp_path):
    shuffled = list(np.random.default_rng(1).permutation(LABELS))
    found = []
    for name, labels in (("with", LABELS), ("shuffled", shuffled), ("without", None)):
        run = train(Job(recipe_of(method), write_images(tmp_path / f"d-{name}", labels)), tmp_path / name)
        found.append((run / "model" / "model.safetensors").read_bytes())
    assert found[0] == found[1] == found[2]


def test_rebuilding_model_says_how_well_it_rebuilds(pretrained, data, tmp_path):
    with pytest.raises(DataError, match="train"):  # the images of the training
        evaluate_run(pretrained, data)
    others = write_images(tmp_path / "others", seed=1)
    record = evaluate_run(pretrained, others)
    array = np.load(pretrained / "evaluations" / "others" / "arrays.npz")["predicted"]
    rebuilt = np.load(pretrained / "evaluations" / "others" / "reconstructions.npy")
    assert rebuilt.shape == (len(record["rebuilt"]), 3, SIDE, SIDE)
    assert "What it rebuilds" in write_report([pretrained], tmp_path / "report.html").read_text("utf-8")
    figures = {key: figure["value"] for key, figure in record["figures"].items()}
    assert figures == pytest.approx(
        {"reconstruction": array[:, 0].mean() / array[:, 1].mean(), "reconstruction_error": array[:, 0].mean()}
    )
    assert bool(record["warnings"]) is (record["figures"]["reconstruction"]["high"] >= 1)
    table = pl.read_parquet(pretrained / "evaluations" / "others" / "predictions.parquet")
    assert {"reconstruction_error", "constant_error", "outlier_score"} <= set(table.columns)


def test_other_recipe_takes_the_encoder_and_freezes_it(pretrained, data):
    options = SHORT | ENCODER | {"network.hidden": [8], "trainer.frozen": 1}
    job = Job(load_recipe("substructure/mae-finetuned", options), data, start=str(pretrained))
    opened = open_job_data(job)
    module = build_module(job.recipe, opened, job.start)
    given = encoder_weights(load_model(pretrained).network)
    for name, tensor in encoder_weights(module.network).items():
        assert torch.equal(tensor, given[name]), name
    assert opened.description["also"][0]["train_images"] == 43
    assert module.options.frozen == 1


def test_super_resolution_takes_the_encoder(pretrained):
    """That of the masked autoencoder gives the tokens which are made finer; the decoder stays as it was."""
    network, trained = build_network("mae-upconv", 1, 1, SIZE | {"scale": 2}), load_model(pretrained).network
    before = network.decoder[1].weight.clone()
    images = torch.randn(2, 1, SIDE, SIDE)
    assert not torch.equal(network.encoder.tokens(images), trained.encoder.tokens(images))
    with torch.no_grad():
        load_encoder(network, trained, "mae")
    assert torch.equal(network.encoder.tokens(images), trained.encoder.tokens(images))
    assert torch.equal(network.decoder[1].weight, before)
    with pytest.raises(ModelError, match="does not fit this recipe's network, MAEUpconv"):
        load_encoder(build_network("mae-upconv", 1, 1, SIZE | {"depth": 2}), trained, "mae")


def test_recipes_of_one_encoder_have_its_sizes():
    """So that --start needs no options."""
    recipes = [
        load_recipe(name) for name in ("pretraining/mae", "substructure/mae-finetuned", "superresolution/mae-upconv")
    ]
    sizes = [{key: each.network[key] for key in SIZE} for each in recipes]
    assert sizes[0] == sizes[1] == sizes[2]


@pytest.mark.parametrize(("frozen", "still"), [(1, [True, False]), (0.5, [True, False]), (0, [False, False])])
def test_encoder_is_as_it_was_until_it_is_thawed(pretrained, data, tmp_path, frozen, still, monkeypatch):
    given = encoder_weights(load_model(pretrained).network)
    same = []

    class Compared(SupervisedModule):
        def on_train_epoch_end(self):
            same.append(all(torch.equal(t, given[name]) for name, t in encoder_weights(self.network).items()))

    monkeypatch.setattr("darklens.tasks.supervised.SupervisedModule", Compared)
    options = SHORT | ENCODER | {"network.hidden": [8], "trainer.frozen": frozen, "trainer.epochs": 2}
    recipe = load_recipe("substructure/mae-finetuned", options)
    run = train(Job(recipe, data, start=str(pretrained)), tmp_path / "run")
    assert same == still
    assert read_record(run)["notes"] == []


def test_nothing_is_frozen_that_is_random(data):
    job = Job(load_recipe("substructure/mae-finetuned", SHORT | ENCODER), data)
    opened = open_job_data(job)
    assert build_module(job.recipe, opened).options.frozen == 0
    assert opened.notes[-1].startswith("trainer.frozen: the network begins with random weights")


def test_encoder_of_another_size_is_named(pretrained, data):
    options = SHORT | ENCODER | {"network.depth": 2}
    job = Job(load_recipe("substructure/mae-finetuned", options), data, start=str(pretrained))
    with pytest.raises(ModelError, match=r"mae: its encoder, of MaskedAutoencoder, does not fit .* is missing in it"):
        build_module(job.recipe, open_job_data(job), job.start)


def test_pretraining_goes_on_with_all_weights(pretrained, data):
    job = Job(recipe_of("mae"), data, start=str(pretrained))
    network = build_module(job.recipe, open_job_data(job), job.start).network
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, weights(pretrained)[name]), name
    assert finetuning_recipe(str(pretrained), {}).task["name"] == "pretrain"


def test_finetuning_freezes_nothing(data, pretrained, tmp_path):
    options = SHORT | ENCODER | {"network.hidden": [8], "trainer.frozen": 0.5}
    recipe = load_recipe("substructure/mae-finetuned", options)
    run = train(Job(recipe, data, start=str(pretrained)), tmp_path / "run")
    assert finetuning_recipe(str(run), {}).trainer.frozen == 0


def test_constant_image_is_refused_by_informative_masking_alone(tmp_path):
    data = write_images(tmp_path / "data", constant=5)
    with pytest.raises(DataError, match="image o5 is constant: there is nothing to scale in it, nor a bright part"):
        train(Job(recipe_of("mae"), data), tmp_path / "run")
    train(Job(recipe_of("mae", **{"network.masking": "random", "trainer.epochs": 1}), data), tmp_path / "run")


def test_method_and_network_have_to_fit(data):
    for recipe, says in (
        (
            load_recipe("pretraining/mae", SHORT | {"network.name": "compact"}),
            "mae takes --network.name masked-autoencoder",
        ),
        (
            load_recipe("pretraining/mae", SHORT | {"task.method": "vicreg"}),
            "it is for the task pretrain with method mae",
        ),
    ):
        with pytest.raises((RecipeError, ModelError), match=says):
            build_module(recipe, open_job_data(Job(recipe, data)))


def test_two_methods_on_one_encoder(data, tmp_path):
    """Of the same network with a head of its own for the embedding."""
    named = {"network.name": "patch-transformer", "network.hidden": [8], **ENCODER}
    changed = SHORT | named | {"task.method": "vicreg", "trainer.epochs": 1}
    recipe = load_recipe("pretraining/mae", changed)
    run = train(Job(recipe, data), tmp_path / "run")
    network = build_network("patch-transformer", 1, 3, {k.removeprefix("network."): v for k, v in ENCODER.items()})
    assert set(encoder_weights(network)) == set(encoder_weights(load_model(run).network))
