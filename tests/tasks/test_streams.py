"""Tasks beyond one network on labelled images: image pairs, a second unlabelled stream, several networks and optimisers."""

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import polars as pl
import pytest
import torch
from conftest import TINY

from darklens.data.batches import Batches
from darklens.data.dataset import Cutouts, DatasetInfo, DatasetWriter
from darklens.data.streams import TwoStreamBatches, UnlabelledImages
from darklens.errors import DataError, RecipeError
from darklens.evaluation.bootstrap import Metric, mean_statistic
from darklens.inference.model import load_model
from darklens.tasks.base import Needs, Task
from darklens.tasks.classify import Classify
from darklens.tasks.supervised import SupervisedModule
from darklens.training.job import Job, read_record
from darklens.training.recipe import load_recipe
from darklens.training.train import resume, train
from darklens.workflows.evaluate import evaluate_run
from darklens.workflows.predict import predict_paths

HERE = __file__
SHORT = TINY | {"trainer.epochs": 2, "trainer.ema": None, "optimizer.name": "AdamW", "preprocessing.stretch": "none"}


class Convolution(torch.nn.Module):
    """One layer, from an image to an image of twice the side."""

    def __init__(self, in_channels: int, outputs: int):
        super().__init__()
        self.layer = torch.nn.Conv2d(in_channels, outputs, 3, padding=1)

    def forward(self, images):
        return torch.nn.functional.interpolate(self.layer(images), scale_factor=2)


@dataclass(frozen=True)
class Enlarge(Task):
    """Predict an image of twice the side."""

    ranking: ClassVar[str] = "mse"
    predicts: ClassVar[str] = "images"

    @property
    def needs(self):
        return Needs(pairs=True)

    def targets(self, cutouts):
        return np.asarray(cutouts.targets[np.arange(len(cutouts))], dtype=np.float64)

    @property
    def output_names(self) -> Sequence[str]:
        return ("image",)

    def loss(self, output, targets, epoch):
        return torch.nn.functional.mse_loss(output, targets)

    def metrics(self, predicted, truth, sets=None):
        each = ((predicted - truth) ** 2).mean((1, 2, 3))
        return [Metric("mse", "MSE", mean_statistic(each), better="lower", perfect=0)]


class TeacherModule(SupervisedModule):
    """Two networks with an optimiser each: a student, and another that has to agree with it on unlabelled images."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.automatic_optimization = False
        self.second = copy.deepcopy(self.network)
        self.seen: list[torch.Tensor] = []

    def configure_optimizers(self):
        return [torch.optim.SGD(each.parameters(), lr=0.01) for each in (self.network, self.second)]

    def training_step(self, batch):
        images, targets = self.augmented(batch)
        unlabelled = self.preprocessing(batch["unlabelled"])
        SEEN.append(batch["unlabelled"][:, 0, 0, 0].tolist())
        losses = (
            self.task.loss(self.network(images), targets, 1),
            (self.second(unlabelled) - self.network(unlabelled).detach()).square().mean(),
        )
        for optimizer, loss in zip(self.optimizers(), losses, strict=True):
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        self.log("train/loss", losses[0], on_epoch=True, batch_size=len(images))


SEEN: list[list[float]] = []


@dataclass(frozen=True)
class Taught(Classify):
    """A classification with a teacher and a second stream."""

    @property
    def needs(self):
        return Needs(("label",), unlabelled=True)

    def module(self, network, preprocessing, options):
        return TeacherModule(self, network, preprocessing, options)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Sixty-four images whose targets are twice them, each pixel four times."""
    rng = np.random.default_rng(0)
    images = rng.normal(0, 1, (64, 1, 8, 8)).astype(np.float32)
    targets = 2 * images.repeat(2, axis=2).repeat(2, axis=3)
    writer = DatasetWriter(tmp_path_factory.mktemp("pairs") / "set", images.shape, np.dtype(np.float32), fingerprint={})
    writer.write(0, images)
    return writer.finish(pl.DataFrame({"id": [str(i) for i in range(64)]}), DatasetInfo("pairs"), targets)


def test_images_are_predicted_from_pairs_that_are_turned_alike(pairs, tmp_path):
    """The only map from one to the other is to double the value; it is learned only if both are turned alike."""
    options = {"trainer.epochs": 60, "trainer.batch_size": 16, "optimizer.lr": 0.05, "trainer.patience": None}
    options |= {"task.name": f"{HERE}:Enlarge", "network.name": f"{HERE}:Convolution", "augmentation": "dihedral"}
    options |= {
        "preprocessing.crop": None,
        "trainer.ema": None,
        "optimizer.name": "AdamW",
        "preprocessing.stretch": "none",
    }
    recipe = load_recipe("substructure/demo", options | {"optimizer.weight_decay": 0.0})
    run = train(Job(recipe, str(pairs)), tmp_path / "run")
    fresh = np.random.default_rng(1).normal(0, 1, (3, 1, 8, 8)).astype(np.float32)
    model = load_model(run, trust_code=True)
    predicted = model.predict(fresh).values
    np.testing.assert_allclose(predicted, 2 * fresh.repeat(2, axis=2).repeat(2, axis=3), atol=0.05)
    np.save(tmp_path / "fresh.npy", fresh)
    written = predict_paths(run, [tmp_path / "fresh.npy"], tmp_path / "table.csv", trust_code=True)
    np.testing.assert_allclose(np.load(tmp_path / "table.npy"), predicted, atol=1e-5)
    assert any("table.npy: the predicted images" in note for note in written.notes)
    assert pl.read_csv(tmp_path / "table.csv").columns[:2] == ["id", "path"]


def test_predicted_images_are_evaluated(pairs, tmp_path):
    options = {"trainer.epochs": 1, "trainer.batch_size": 16, "preprocessing.crop": None}
    options |= {"task.name": f"{HERE}:Enlarge", "network.name": f"{HERE}:Convolution"}
    run = train(Job(load_recipe("substructure/demo", options), str(pairs)), tmp_path / "run")
    other = np.random.default_rng(2).normal(0, 1, (5, 1, 8, 8)).astype(np.float32)
    writer = DatasetWriter(tmp_path / "test", other.shape, np.dtype(np.float32), fingerprint={})
    writer.write(0, other)
    truth = 2 * other.repeat(2, axis=2).repeat(2, axis=3)
    writer.finish(pl.DataFrame({"id": list("abcde")}), DatasetInfo("others"), truth)
    record = evaluate_run(run, tmp_path / "test", trust_code=True)
    predicted = load_model(run, trust_code=True).predict(other).values
    assert record["figures"]["mse"]["value"] == pytest.approx(((predicted - truth) ** 2).mean(), rel=1e-5)


def test_data_without_pairs_are_refused(dataset, tmp_path):
    recipe = load_recipe("substructure/demo", TINY | {"task.name": f"{HERE}:Enlarge"})
    with pytest.raises(DataError, match="the task needs an image to predict for each"):
        train(Job(recipe, str(dataset)), tmp_path / "run")


@pytest.fixture
def unlabelled(tmp_path):
    """Forty images of the shape of the dataset, each with its number in the first pixel."""
    images = np.random.default_rng(0).normal(10, 1, (40, 64, 64)).astype(np.float32)
    images[:, 0, 0] = np.arange(40)
    np.save(tmp_path / "unlabelled.npy", images)
    return tmp_path / "unlabelled.npy"


def test_two_networks_learn_from_two_streams(dataset, unlabelled, tmp_path, monkeypatch):
    """The module is of this file, which is loaded anew as a user's own: what it saw is told by its own list."""
    recipe = load_recipe("substructure/demo", SHORT | {"task.name": f"{HERE}:Taught"})
    from darklens.usercode import load_function

    seen = load_function(f"{HERE}:TeacherModule").training_step.__globals__["SEEN"]
    job = Job(recipe, str(dataset), unlabelled=str(unlabelled))
    run = train(job, tmp_path / "run")
    assert [len(each) for each in seen] == [32] * 10
    for a, b in itertools.pairwise(seen):
        assert a != b, "every step has other images"
    assert set(np.concatenate(seen)) == set(range(40)), "all have had their turn"
    record = read_record(run)
    assert record["unlabelled"] == str(unlabelled)
    assert record["training"]["steps"] == 10, "batches, not the steps of both optimisers"
    assert list(load_model(run, trust_code=True).classes) == ["no_sub", "cdm", "axion"]
    with pytest.raises(RecipeError, match="another recipe, data or seed"):
        resume(run, Job(recipe, str(dataset)))


def test_second_stream_is_asked_for_and_not_given_in_vain(dataset, unlabelled, tmp_path):
    taught = load_recipe("substructure/demo", SHORT | {"task.name": f"{HERE}:Taught"})
    with pytest.raises(RecipeError, match="a second dataset, of images without labels: --unlabelled PATH"):
        train(Job(taught, str(dataset)), tmp_path / "run")
    plain = load_recipe("substructure/demo", SHORT)
    with pytest.raises(RecipeError, match="has no use for a second dataset"):
        train(Job(plain, str(dataset), unlabelled=str(unlabelled)), tmp_path / "run")
    np.save(tmp_path / "small.npy", np.zeros((5, 32, 32)))
    with pytest.raises(DataError, match="images of 1×32×32; the labelled ones have 1×64×64"):
        train(Job(taught, str(dataset), unlabelled=str(tmp_path / "small.npy")), tmp_path / "run")


def test_unlabelled_rows_follow_from_seed_and_step_alone():
    def rows(epochs, seed=3, **place):
        sampler = TwoStreamBatches(Batches(64, 8, seed, shuffle=True), 10, 4, seed=seed, **place)
        found = []
        for epoch in epochs:
            sampler.set_epoch(epoch)
            found += [others for _, others in sampler]
        return found

    whole = rows([0, 1, 2])
    assert whole[8:] == rows([1, 2]), "a run that is resumed sees what it would have seen"
    assert rows([0], seed=4) != whole[:8]
    assert all(len(set(each)) == 4 for each in whole)
    for first, second in zip(whole[::2], whole[1::2], strict=True):
        assert not set(first) & set(second), "within a pass through ten images none comes twice"
    a, b = (rows([0], rank=rank, world_size=2) for rank in (0, 1))
    assert all(not set(x) & set(y) for x, y in zip(a, b, strict=True))


def test_unlabelled_images_with_bad_pixels_are_named():
    images = np.ones((3, 1, 4, 4), np.float32)
    images[2, 0, 1, 1] = np.nan
    cutouts = Cutouts(images, pl.DataFrame({"id": ["a", "b", "c"]}), DatasetInfo("here"))
    with pytest.raises(DataError, match="here: image c has 1 pixels that are nan"):
        UnlabelledImages(cutouts)[[0, 2]]
    masked = UnlabelledImages(cutouts, mask=True)[[2]]["image"]
    assert masked[0, 0, 1, 1] == 0
    assert masked.sum() == 15
