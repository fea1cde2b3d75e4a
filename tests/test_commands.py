"""Commands as text: quoted for a shell, nothing lost."""

import shlex
from pathlib import Path

from conftest import TINY

from darklens.cli.parser import make_parser, open_options, plain_arguments
from darklens.commands import command
from darklens.data.options import DataOptions
from darklens.training.job import Job, training_command
from darklens.training.recipe import load_recipe


def test_values_survive_the_shell():
    line = command(
        "train",
        "my recipe.yaml",
        data=Path("a'b"),
        network__widths=[8, 8],
        network__pretrained=False,
        mask=True,
        w=None,
    )
    assert shlex.split(line) == [
        "darklens", "train", "my recipe.yaml", "--data", "a'b", "--network.widths", "[8, 8]", "--network.pretrained",
        "false", "--mask", "true",
    ]  # fmt: skip


def test_command_of_a_training_from_python_says_all_that_differs():
    recipe = load_recipe("substructure/resnet18", {"network.pretrained": False, "trainer.epochs": 3})
    job = Job(recipe, "my data", 5, DataOptions(mask=True, crop=64))
    line = training_command(job, Path("runs/x"))
    rest, opened = open_options(plain_arguments(shlex.split(line)[1:]))
    parsed = make_parser().parse_args(rest, defaults=False).train
    assert opened == {"network.pretrained": False}
    assert "optimizer" not in line, "the settings for random weights come by themselves"
    assert (parsed.trainer.epochs, parsed.seed, parsed.mask, parsed.crop, parsed.data) == (3, 5, True, 64, "my data")
    again = load_recipe(parsed.recipe, {"network.pretrained": False, "trainer.epochs": 3})
    assert again == recipe
    job = Job(load_recipe("substructure/demo", TINY), "d")
    assert "--preprocessing.crop null" in training_command(job, Path("o")), "a crop that is taken away"
    own = Job(load_recipe("substructure/demo", {"network.name": "my.py:Net"}), "d")
    assert training_command(own, Path("o")).endswith("--network.name my.py:Net")
    assert training_command(Job(recipe, "d", start="substructure-model-1"), Path("o")) is None
