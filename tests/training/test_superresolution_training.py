"""Recipes of super-resolution learn, resume to the byte, and are benchmarked beside interpolation."""

import json

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

import darklens.training.fit as fitting
from darklens.data.dataset import DatasetInfo, DatasetWriter
from darklens.errors import DataError, ModelError, RecipeError
from darklens.inference.model import load_model
from darklens.models.perceptual import feature_network
from darklens.physics.coordinates import bin_pixels
from darklens.physics.degrading import bicubic
from darklens.report.page import write_report
from darklens.training.job import Job
from darklens.training.recipe import load_recipe, recipe_names
from darklens.training.train import resume, train
from darklens.workflows.benchmark import benchmark, parse_budget
from darklens.workflows.evaluate import evaluate_run
from darklens.workflows.options import BenchmarkOptions

SHORT = {"trainer.epochs": 1, "trainer.batch_size": 16, "trainer.precision": "32-true"}
SMALL = {
    "srcnn": {"widths": [8, 4]},
    "edsr": {"width": 8, "blocks": 1},
    "esrgan": {"width": 8, "blocks": 1, "growth": 4},
    "mae-upconv": {"width": 16, "depth": 1, "heads": 2},
    "nafnet": {"width": 8, "blocks": 1},
    "flow": {"width": 8, "blocks": 1, "flow_width": 8, "flow_blocks": 1, "samples": 3, "steps": 2},
    "darklens": {"width": 8, "blocks": 1},
}
SIDE = 16


def write_pairs(out, count, seed):
    """Rings with lumps, seen with noise on 16 pixels; targets on 32."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: 2 * SIDE, : 2 * SIDE] - (2 * SIDE - 1) / 2
    radius = np.hypot(x + rng.normal(0, 0.5, (count, 1, 1)), y + rng.normal(0, 0.5, (count, 1, 1)))
    angle = np.arctan2(y, x) * rng.integers(1, 4, (count, 1, 1)) + rng.uniform(0, 6, (count, 1, 1))
    fine = np.exp(-((radius - rng.uniform(7, 10, (count, 1, 1))) ** 2) / 3) * (1.2 + np.cos(angle)) * 5
    fine = fine[:, None].astype(np.float32)
    images = 4 * bin_pixels(torch.from_numpy(fine), 2).numpy() + rng.normal(0, 0.3, (count, 1, SIDE, SIDE))
    writer = DatasetWriter(out, images.shape, np.dtype(np.float32), fingerprint={})
    writer.write(0, images.astype(np.float32))
    catalog = pl.DataFrame({"id": [f"{seed}-{n}" for n in range(count)]})
    return writer.finish(catalog, DatasetInfo(f"rings {seed}", pixel_scale=0.1), fine)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs") / "train", 96, 0)


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs") / "test", 24, 1)


def recipe(name, **options):
    small = {f"network.{key}": value for key, value in SMALL[name].items()}
    if name == "flow":
        small["task.samples"] = 3
    return load_recipe(f"superresolution/{name}", SHORT | small | options)


def test_every_recipe_is_tried_here():
    assert {f"superresolution/{name}" for name in SMALL} == {
        name for name in recipe_names() if name.startswith("superresolution/")
    }


def test_a_network_learns_more_than_interpolation(pairs, others, tmp_path):
    options = {"trainer.epochs": 10, "network.width": 16, "optimizer.lr": 3e-3}
    run = train(Job(recipe("edsr", **options), str(pairs)), tmp_path / "run")
    record = evaluate_run(run, others)
    assert record["warnings"] == []
    arrays = np.load(run / "evaluations" / "test" / "arrays.npz")
    task = load_model(run).task.with_images(arrays["images"])
    truth = {m.key: m.statistic(np.ones((1, 24)))[0] for m in task.metrics(arrays["truth"], arrays["truth"])}
    assert truth["chi2"] == pytest.approx(1, abs=0.15), "of the truth, the images hold the noise of the training images"
    assert record["figures"]["chi2"]["value"] < 4
    interpolated = bicubic(torch.from_numpy(arrays["images"]), 2).numpy() / 4
    errors = [((each - arrays["truth"]) ** 2).mean() for each in (arrays["predicted"], interpolated)]
    assert errors[0] < 0.6 * errors[1]
    page = write_report([run], tmp_path / "report.html").read_text("utf-8")
    assert "Power by scale" in page or "<svg" in page


def test_adversarial_training_resumes_to_the_same_weights(pairs, tmp_path, monkeypatch):
    chosen = recipe("esrgan", **{"trainer.epochs": 2})
    whole = train(Job(chosen, str(pairs)), tmp_path / "whole")
    seen = []

    class Kill(fitting.EpochLines):
        def on_train_epoch_start(self, trainer, pl_module):
            seen.append((type(pl_module).__name__, trainer.current_epoch))
            if seen.count(("AdversarialModule", 1)) == 1 and seen[-1] == ("AdversarialModule", 1):
                raise RuntimeError("killed")

    monkeypatch.setattr(fitting, "EpochLines", Kill)
    with pytest.raises(RuntimeError, match="killed"):
        train(Job(chosen, str(pairs)), tmp_path / "run")
    resume(tmp_path / "run", Job(chosen, str(pairs)))
    assert seen[-1] == ("AdversarialModule", 1)
    weights = [load_file(each / "model" / "model.safetensors") for each in (whole, tmp_path / "run")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    last = [
        torch.load(each / "stages" / "1-superresolve" / "checkpoints" / "last.ckpt", weights_only=True)
        for each in (whole, tmp_path / "run")
    ]
    assert len(last[0]["optimizer_states"]) == 2
    state = [each["state_dict"] for each in last]
    assert any(name.startswith("discriminator.") for name in state[0])
    assert all(torch.equal(state[0][name], state[1][name]) for name in state[0])


def test_samples_are_predicted_with_their_spread(pairs, others, tmp_path):
    run = train(Job(recipe("flow", **{"trainer.epochs": 3}), str(pairs)), tmp_path / "run")
    record = evaluate_run(run, others)
    assert record["metrics"]["coverage"]["perfect"] == 0.5, "the lowest and the highest of three"
    model = load_model(run)
    images = np.load(others / "images.npy")
    found, again = model.predict(images[:4]).array, model.predict(images[2:4]).array
    np.testing.assert_allclose(found[2:], again, atol=1e-5), "an answer depends on its image alone"
    image, spread, low, high = found.transpose(1, 0, 2, 3)
    assert (spread > 0).all()
    assert ((low <= image) & (image <= high)).all()


def test_rendered_lens_is_what_an_untrained_network_answers_and_turns_with_the_image(pairs, tmp_path):
    run = train(Job(recipe("darklens", **{"augmentation": "dihedral"}), str(pairs)), tmp_path / "run")
    model = load_model(run)
    images = torch.from_numpy(np.load(pairs / "images.npy")[:3])
    prepared = model.preprocessing(images)
    assert prepared.shape == (3, 4, 2 * SIDE, 2 * SIDE)
    torch.testing.assert_close(
        prepared[:, 0, ::2, ::2], (images[:, 0] - model.preprocessing.center) / model.preprocessing.scale
    )
    lens = prepared[:, 3:] * model.task.scale + model.task.center
    truth = np.load(pairs / "targets.npy")[:3]
    ratio = bin_pixels(lens, 2).sum() * 4 / truth.sum()
    assert float(ratio) == pytest.approx(1, abs=0.15), "in the unit of the targets"


def test_benchmark_ranks_beside_bicubic_and_lanczos(pairs, tmp_path, monkeypatch):
    recipes = ["superresolution/srcnn", "superresolution/edsr"]
    overrides = {"network.width": 8, "network.blocks": 1, "trainer.batch_size": 16}
    benchmark(
        recipes,
        parse_budget("1epochs"),
        tmp_path / "board",
        choices=BenchmarkOptions(data=str(pairs)),
        overrides=overrides,
    )
    board = json.loads((tmp_path / "board" / "leaderboard.json").read_text())
    assert [each["name"] for each in board["baselines"]] == ["bicubic", "lanczos"]
    compared = {each for gap in board["differences"] for each in (gap["first"], gap["second"])}
    assert compared == {*recipes, "bicubic", "lanczos"}
    page = (tmp_path / "board" / "leaderboard.html").read_text("utf-8")
    assert page.count("without training") == 2
    assert "| lanczos |" in (tmp_path / "board" / "leaderboard.md").read_text("utf-8")
    with pytest.raises(RecipeError, match="--pairs is for"):
        benchmark(["substructure/demo"], parse_budget("1epochs"), tmp_path / "b", choices=BenchmarkOptions(pairs="2"))


def test_what_does_not_go_together_is_refused(pairs, tmp_path):
    with pytest.raises(RecipeError, match=r"say --network.scale 2"):
        train(Job(recipe("edsr", **{"network.scale": 3}), str(pairs)), tmp_path / "run")
    with pytest.raises(RecipeError, match="this one gives one image"):
        train(Job(load_recipe("superresolution/edsr", SHORT | {"task.samples": 9}), str(pairs)), tmp_path / "run")
    with pytest.raises(DataError, match="--pairs 2 makes such pairs"):
        train(Job(load_recipe("superresolution/edsr", {"trainer.batch_size": 64}), "preset:model-3"), tmp_path / "run")
    with pytest.raises(ModelError, match="no such model; say imagenet, a shipped one"):
        feature_network("nothing")
    with pytest.raises(DataError, match="lens_fine is for images of one band"):
        train(Job(recipe("darklens", **{"preprocessing.stretch": "sqrt"}), str(pairs)), tmp_path / "run")
