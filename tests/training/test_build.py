"""From a recipe and images to a module: which channels, options, weights and seeds it gets."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
import timm
import torch
from fuzz import make_model
from safetensors.torch import load_file

from darklens.errors import ModelError, RecipeError
from darklens.inference.model import load_model, save_model
from darklens.tasks.classify import Classify
from darklens.training.build import build_module, check_networks
from darklens.training.recipe import load_recipe

OPTIONS = {
    "network.widths": [4, 8],
    "network.blocks": [0, 1],
    "preprocessing.crop": 14,
    "preprocessing.stretch": "none",
}


def recipe(**overrides):
    return load_recipe(
        "substructure/demo", OPTIONS | {key.replace("__", "."): value for key, value in overrides.items()}
    )


def data(channels=1, seed=3, classes=("cdm", "axion"), bands=()):
    images = torch.randn(40, channels, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 + 5
    return SimpleNamespace(
        sample=images,
        sample_noise=None,
        encoder=None,
        shape=(channels, 16, 16),
        task=Classify(class_names=list(classes)),
        seed=seed,
        bands=list(bands),
        description={},
        notes=[],
    )


LEVIT = {"network.arguments": {"img_size": 64, "distilled": False}, "preprocessing.resize": 64}


def test_network_that_is_made_for_one_size_refuses_others_before_training():
    made = build_module(load_recipe("substructure/levit", LEVIT), data())
    assert made.network(torch.zeros(2, 1, 64, 64)).shape == (2, 2)
    assert made.network.training
    with pytest.raises(
        ModelError,
        match=r"recipe substructure/levit: its network cannot take images of 1 channels and 48×48 pixels .*img_size in",
    ):
        build_module(load_recipe("substructure/levit", LEVIT | {"preprocessing.resize": 48}), data())
    small = {"network.widths": [8] * 4, "network.depths": [1] * 4, "network.heads": [1] * 4}
    with pytest.raises(ModelError, match="network crossformer takes images of at least 32 pixels a side; got 16×16"):
        build_module(load_recipe("substructure/crossformer", small), data())


def test_module_is_made_of_the_recipe_and_fitted_to_the_sample():
    given = data()
    made = build_module(recipe(augmentation="flips", optimizer__lr=0.25, schedule__name="step"), given)
    inner = given.sample[:, :, 1:15, 1:15]
    assert made.preprocessing.center == pytest.approx(float(inner.mean()), abs=1e-4)
    assert made.preprocessing.scale == pytest.approx(float(inner.std()), rel=1e-3)
    assert made.task == given.task
    options = made.options
    assert (options.augmentation, options.optimizer.lr, options.schedule.name, options.seed, options.unfreezing) == (
        "flips", 0.25, "step", 3, False,
    )  # fmt: skip
    assert made.network(torch.zeros(2, 1, 14, 14)).shape == (2, 2)
    assert made.network.state_dict()["stem.0.weight"].is_contiguous(memory_format=torch.channels_last)


OWN = """
from torch import nn

def plain(in_channels, outputs):
    return nn.Sequential(nn.Conv2d(in_channels, outputs, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())

def learned(in_channels, outputs, pretrained: bool = True):
    return plain(in_channels, outputs)
"""
NOTE = "trainer.unfreezing: the network begins with random weights, so all are trained from the start"


@pytest.mark.parametrize(
    ("network", "unfrozen"),
    [
        ({"name": "compact"}, False),
        ({"name": "timm", "architecture": "resnet10t"}, False),
        ({"name": "timm", "architecture": "resnet10t", "pretrained": False, "weights": None}, False),
        ({"name": "timm", "architecture": "resnet10t", "weights": "w.pth"}, True),
        ({"name": "own.py:plain"}, True),
        ({"name": "own.py:plain", "pretrained": False}, True),
        ({"name": "own.py:learned"}, True),
        ({"name": "own.py:learned", "pretrained": False}, False),
    ],
)
def test_sections_are_unfrozen_only_of_weights_that_were_learned(network, unfrozen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    torch.save(timm.create_model("resnet10t", in_chans=1).state_dict(), "w.pth")
    for asked in (False, True):
        chosen = recipe(trainer__unfreezing="sections" if asked else "none")
        given = data()
        made = build_module(dataclasses.replace(chosen, network=network), given)
        assert made.options.unfreezing is (asked and unfrozen)
        assert given.notes == ([NOTE] if asked and not unfrozen else [])


def test_sections_of_a_model_to_start_from_are_unfrozen(tmp_path):
    given = data()
    made = build_module(recipe(trainer__unfreezing="sections"), given, str(make_model(tmp_path / "model", lens=False)))
    assert (made.options.unfreezing, given.notes) == (True, [])


def test_weights_follow_from_the_seed():
    first, again, other = (build_module(recipe(), data(seed=seed)).network.state_dict() for seed in (3, 3, 4))
    assert torch.equal(first["stem.0.weight"], again["stem.0.weight"])
    assert not torch.equal(first["stem.0.weight"], other["stem.0.weight"])


@pytest.mark.parametrize(
    ("channels", "bands", "chosen", "band"),
    [
        (1, [], None, 0), (1, [], "sum", 0), (3, ["g", "r", "i"], None, None), (3, ["g", "r", "i"], "sum", None),
        (3, ["g", "r", "i"], "r", 1), (3, [], 2, 2), (3, [], "2", 2),
    ],
)  # fmt: skip
def test_band_of_the_lens(channels, bands, chosen, band):
    made = build_module(recipe(preprocessing__lens_band=chosen), data(channels, bands=bands))
    assert made.preprocessing.lens_band == band


@pytest.mark.parametrize(
    ("bands", "chosen", "message"),
    [
        (["g", "r", "i"], "z", "--preprocessing.lens_band z: the images have bands g, r, i; or say sum"),
        ([], 3, "--preprocessing.lens_band 3: the images have bands 0, 1, 2; or say sum"),
        (["g", "r", "i"], 1, "--preprocessing.lens_band 1: the images have bands g, r, i"),
    ],
)
def test_band_that_is_not_there_is_refused(bands, chosen, message):
    with pytest.raises(RecipeError, match=message):
        build_module(recipe(preprocessing__lens_band=chosen), data(3, bands=bands))


def test_options_of_networks_are_checked_with_the_name_of_the_recipe():
    check_networks(recipe())
    misspelt = dataclasses.replace(recipe(), network={"name": "compact", "widhts": [4, 8]})
    message = r"recipe substructure/demo: unknown key network\.widhts; did you mean network\.widths\?"
    with pytest.raises(RecipeError, match=message):
        check_networks(misspelt)
    with pytest.raises(RecipeError, match=message):
        build_module(misspelt, data())
    part = dataclasses.asdict(misspelt)
    with pytest.raises(RecipeError, match=message):
        check_networks(dataclasses.replace(recipe(), members=[dataclasses.asdict(recipe()), part]))


def test_compilation_is_asked_for(monkeypatch):
    seen = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, *_, **__: seen.append(type(self).__name__))
    build_module(recipe(), data())
    assert seen == []
    build_module(recipe(trainer__compile=True), data())
    assert seen == ["CompactResNet"]


def test_start_gives_all_weights_that_fit(tmp_path):
    folder = make_model(tmp_path / "model", lens=False)
    given = load_file(folder / "model.safetensors")
    own = build_module(recipe(), data(), str(folder)).network.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in given.items())
    begun = data()
    build_module(recipe(), begun, str(folder))
    assert begun.description["also"] == [load_model(folder).config.data]
    other = build_module(recipe(), data(classes=("a", "b", "c")), str(folder)).network.state_dict()
    fresh = build_module(recipe(), data(classes=("a", "b", "c"))).network.state_dict()
    new = {name for name, tensor in given.items() if tensor.shape != other[name].shape}
    assert len(new) == 2
    assert all(torch.equal(other[name], (fresh if name in new else given)[name]) for name in given)


def test_start_of_another_network_is_refused(tmp_path):
    folder = make_model(tmp_path / "model", lens=False)
    with pytest.raises(
        ModelError, match=r"model: its weights do not fit this recipe's network \(stem\.0\.weight is of"
    ):
        build_module(recipe(network__widths=[6, 8]), data(), str(folder))
    with pytest.raises(ModelError, match=r"network \(stem\.0\.weight is of another shape, or missing"):
        build_module(recipe(), data(channels=3, classes=("a", "b", "c")), str(folder))
    with pytest.raises(ModelError, match=r"network \(stem\.0\.weight is of another shape, or missing"):
        build_module(recipe(), data(channels=3), str(folder))  # only the first layer differs


def test_start_from_an_ensemble_is_refused(tmp_path):
    folder = make_model(tmp_path / "pair", lens=False)
    for number in ("0", "1"):
        save_model(folder / number, load_model(make_model(tmp_path / number, lens=False)), "")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"members": ["0", "1"]}))
    with pytest.raises(ModelError, match="pair: an ensemble cannot be trained further; start from one of its members"):
        build_module(recipe(), data(), str(folder))
