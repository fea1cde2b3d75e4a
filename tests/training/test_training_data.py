"""What a run learns from: which images are for training and which for validation."""

import numpy as np
import pytest
import torch
from conftest import TINY

from darklens.errors import DataError
from darklens.simulation import Simulator
from darklens.training.build import build_module
from darklens.training.recipe import load_recipe
from darklens.training.training_data import MEMBER_STRIDE, open_training_data


@pytest.fixture(autouse=True)
def _few_images_without_compilation(monkeypatch):
    monkeypatch.setattr("darklens.simulation.simulator.fused_light", lambda *_, **__: None)
    monkeypatch.setattr("darklens.training.training_data.VALIDATION_IMAGES", 64)
    monkeypatch.setattr("darklens.training.training_data.STATISTICS_IMAGES", 128)


RECIPE = load_recipe("substructure/demo", TINY | {"trainer.batch_size": 64})


def block(seed):
    return Simulator("model-3-noisy", seed).block(0)[0]


def test_simulated_training_and_validation_images_are_of_different_seeds():
    data = open_training_data("preset:model-3-noisy", RECIPE, 5)
    training, held_out = data.train[[0]]["image"], data.validation[range(64)]["image"]
    torch.testing.assert_close(held_out, block(5 + 1_000_003))
    torch.testing.assert_close(data.sample, block(5))
    torch.testing.assert_close(training, block(5))
    assert not torch.allclose(training, held_out)
    other = open_training_data("preset:model-3-noisy", RECIPE, 6)
    assert not torch.allclose(other.train[[0]]["image"], training)


def test_members_learn_from_other_images_and_share_the_validation_images():
    first = open_training_data("preset:model-3-noisy", RECIPE, 5)
    second = open_training_data("preset:model-3-noisy", RECIPE, 5, member=1)
    assert second.seed == 5 + MEMBER_STRIDE
    torch.testing.assert_close(second.validation[range(64)]["image"], first.validation[range(64)]["image"])
    assert not torch.allclose(second.train[[0]]["image"], first.train[[0]]["image"])


def test_labels_are_those_of_the_preset(tmp_path):
    data = open_training_data("preset:model-3-noisy", RECIPE, 5)
    labels = [data.task.class_names[i] for i in data.validation[range(64)]["target"]]
    assert labels == Simulator("model-3-noisy", 5 + 1_000_003).catalog(64)["label"].to_list()
    assert data.task.class_names == ["no_sub", "cdm", "axion"]


def test_values_come_with_their_images_and_unknown_ones_are_left_out():
    recipe = load_recipe("mass/demo", TINY | {"trainer.batch_size": 64})
    data = open_training_data("preset:model-3-noisy", recipe, 5)
    truths = Simulator("model-3-noisy", 5 + 1_000_003).catalog(64)
    known = truths["log10_axion_mass"].is_not_null().to_numpy()
    held_out = data.validation[range(len(data.validation))]
    np.testing.assert_allclose(held_out["target"][:, 0], truths["log10_axion_mass"].drop_nulls(), rtol=1e-6)
    torch.testing.assert_close(held_out["image"], block(5 + 1_000_003)[torch.from_numpy(known)])
    with pytest.raises(DataError, match=r"preset:model-3-noisy: no column 'halo_mass', .*; numbers are in .*theta_E"):
        open_training_data("preset:model-3-noisy", load_recipe("mass/demo", {"task.target": "halo_mass"}), 0)


def test_seed_decides_split_order_and_weights(dataset):
    def opened(seed):
        return open_training_data(str(dataset), load_recipe("substructure/demo", TINY), seed)

    def first_rows(data):
        loader = data.train_loader(0, 1)
        loader.sampler.set_epoch(0)
        return next(iter(loader))["row"].tolist()

    def weight(data):
        return build_module(data.recipe, data).network.state_dict()["stem.0.weight"]

    a, again, b = opened(1), opened(1), opened(2)
    assert a.split.equals(again.split)
    assert not a.split.equals(b.split)
    assert first_rows(a) == first_rows(again)
    assert first_rows(a) != first_rows(b)
    assert torch.equal(weight(a), weight(again))
    assert not torch.equal(weight(a), weight(b))


def test_rows_marked_test_are_in_neither_set(dataset, tmp_path):
    from darklens.data.importing import import_data
    from darklens.data.layouts import open_data

    split = import_data(
        open_data(dataset), tmp_path / "split", fractions={"train": 0.5, "validation": 0.2, "test": 0.3}
    )
    data = open_training_data(str(split), load_recipe("substructure/demo", TINY), 0)
    marked = open_data(split).catalog
    assert sorted(data.train.ids) == sorted(marked.filter(split="train")["id"])
    assert sorted(data.validation.ids) == sorted(marked.filter(split="validation")["id"])
    assert data.description["test_images"] == (marked["split"] == "test").sum()
