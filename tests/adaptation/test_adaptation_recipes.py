"""Recipes that adapt: what was published, the encoder of another recipe, and those of the page."""

import re
from pathlib import Path

import pytest

from darklens.adaptation.options import METHODS, make_method
from darklens.errors import RecipeError
from darklens.training.job import Job, training_command
from darklens.training.recipe import changes, load_recipe, recipe_names

PAGE = Path(__file__).parents[2] / "docs" / "adaptation.md"


def test_each_method_has_a_recipe_that_the_page_describes():
    there = {name.partition("/")[2] for name in recipe_names() if name.startswith("adaptation/")}
    assert there == {*METHODS, "target-supervised"}
    page = PAGE.read_text("utf-8")
    assert all(f"| `adaptation/{name}` |" in page for name in there)
    for name in METHODS:
        method = load_recipe(f"adaptation/{name}").parts()[-1].method
        assert type(method) is METHODS[name]


@pytest.mark.parametrize(("name", "lr"), [("adda", 1e-5), ("self-ensembling", 1e-3), ("adamatch", 1e-3)])
def test_published_lengths_and_rates_for_a_small_network(name, lr):
    source, target = load_recipe(f"adaptation/{name}").parts()
    assert (source.trainer.epochs, source.optimizer.name, source.optimizer.lr) == (7, "AdamW", 1e-3)
    assert (source.optimizer.weight_decay, source.schedule.name) == (1e-5, "cosine")
    assert (source.adaptation, source.preprocessing.stretch) == ({}, "noise")
    assert source.network == load_recipe("adaptation/source-only").network
    assert (target.trainer.epochs, target.optimizer.lr, target.adaptation["method"]) == (5, lr, name)


def test_published_options_of_methods():
    adda, adamatch = make_method({"method": "adda"}, "x"), make_method({"method": "adamatch"}, "x")
    assert (adda.discriminator, adda.discriminator_lr, adamatch.tau) == ([128, 128], 1e-4, 0.9)


def test_encoder_of_another_recipe_keeps_length_and_second_stage():
    recipe = load_recipe("adaptation/adamatch", {"encoder": "finding/darklens", "network.dropout": 0.1})
    other = load_recipe("finding/darklens")
    source, target = recipe.parts()
    assert source.network == other.network | {"dropout": 0.1} == target.network
    assert (source.preprocessing, source.augmentation) == (other.preprocessing, other.augmentation)
    assert (source.optimizer, source.trainer.epochs) == (other.optimizer, 7)
    assert (target.optimizer.name, target.optimizer.lr, target.trainer.epochs) == ("AdamW", 1e-3, 5)
    single = load_recipe("adaptation/dann", {"encoder": "finding/ecnn"})
    assert load_recipe("adaptation/dann", changes(single)) == single


def test_a_command_is_said_only_if_it_trains_the_same_recipe(tmp_path):
    """finding/demo has the network of adaptation/dann without its dropout, which no option takes away."""
    said = [
        training_command(Job(load_recipe("adaptation/dann", {"encoder": name}), "data"), tmp_path)
        for name in ("finding/demo", "finding/ecnn")
    ]
    assert said[0] is None
    assert "--network.name ecnn" in said[1]


def test_encoders_of_other_recipes_are_of_one_network():
    with pytest.raises(RecipeError, match="is made of others; name a recipe of one network"):
        load_recipe("adaptation/dann", {"encoder": "adaptation/adda"})


def test_recipe_of_the_page_is_one(tmp_path):
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    (tmp_path / "survey.yaml").write_text(text)
    first, second = load_recipe(str(tmp_path / "survey.yaml")).parts()
    assert (first.adaptation, first.trainer.epochs, first.network["name"]) == ({}, 4, "compact")
    assert (second.method.tau, second.optimizer.lr, second.trainer.epochs) == (0.8, 3e-4, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"tau": 1}, "adaptation.method is needed; there are source-only, adabn"),
        ({"method": "adda", "discriminator_lr": -1}, "adaptation.discriminator_lr must be at least 0"),
        ({"method": "adamatch", "align_decay": 1}, "adaptation.align_decay must be below 1"),
        ({"method": "adamatch", "strong": {"patch": 1.5}}, "adaptation.strong.patch is a fraction of the side"),
        ({"method": "adamatch", "strong": {"blurr": 1}}, "did you mean adaptation.strong.blur"),
        ({"method": "dann", "select": "labels"}, "adaptation.select is 'labels'; expected source, entropy"),
        ({"method": "sidda", "blur": 0}, "adaptation.blur must be above 0"),
        ({"method": "darklens", "superposed": 1.5}, "adaptation.superposed is at most 1; got 1.5"),
        ({"method": "darklens", "average_decay": 1}, "adaptation.average_decay must be below 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(content, message):
    with pytest.raises(RecipeError, match=message):
        make_method(content, "recipe x")
