import re

import pytest

from darklens.errors import RecipeError
from darklens.training.recipe import list_recipes, load_recipe, recipe_from, recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_library_recipe_is_whole_and_survives_its_record(name):
    import dataclasses
    import json

    recipe = load_recipe(name)
    assert recipe.description
    assert recipe.source
    assert recipe_from(json.loads(json.dumps(dataclasses.asdict(recipe))), name) == recipe


def test_published_systems_are_there():
    backbones = {"mobilenetv3-small", "resnet18", "efficientnet-b5"}
    assert {f"{task}/{b}" for task in ("substructure", "mass") for b in backbones} <= set(list_recipes())
    assert load_recipe("substructure/resnet18").preprocessing.repeat_channels == 3
    assert load_recipe("mass/resnet18").augmentation == "flips"


BAD = {
    "trainer.epoch": (3, "unknown key trainer.epoch; did you mean trainer.epochs?"),
    "optimiser": ({}, "unknown key optimiser; did you mean optimizer?"),
    "trainer.epochs": ("many", "\"trainer.epochs\": Expected a <class 'int'>"),
    "augmentation": ("twist", "augmentation"),
    "optimizer.lr": (-1.0, "optimizer.lr must be above zero"),
    "trainer.batch_size": (0, "trainer.batch_size must be at least 1"),
}


@pytest.mark.parametrize(("key", "value", "message"), [(k, *v) for k, v in BAD.items()])
def test_bad_value_is_named(key, value, message):
    with pytest.raises(RecipeError, match=re.escape(message)):
        load_recipe("substructure/demo", {key: value})


def test_unknown_recipe_and_bad_files(tmp_path):
    with pytest.raises(RecipeError, match="Did you mean 'substructure/mobilenetv3-small'"):
        load_recipe("substructure/mobilenetv3")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(str(tmp_path / "none.yaml"))
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(RecipeError, match="not valid YAML"):
        load_recipe(str(tmp_path / "bad.yaml"))
    (tmp_path / "no_target.yaml").write_text("task: regress\n")
    with pytest.raises(RecipeError, match="a regression needs a target"):
        load_recipe(str(tmp_path / "no_target.yaml"))


def test_own_recipe_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("task: classify\nnetwork: {name: compact}\ntrainer: {epochs: 3}\n")
    assert load_recipe(str(tmp_path / "mine.yaml"), {"trainer.batch_size": 32}).trainer.batch_size == 32
