import dataclasses
import re

import pytest
import torch
import yaml
from conftest import TINY

from darklens.errors import RecipeError, UntrustedCodeError
from darklens.inference.model import load_model
from darklens.tasks.options import OptimizerOptions
from darklens.training.job import Job
from darklens.training.recipe import RECIPES, list_recipes, load_recipe, recipe_from, recipe_names
from darklens.training.train import train


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


TRANSFORMERS = {
    "cvt": {"network.widths": [8, 8, 16], "network.depths": [1, 1, 1], "network.heads": [1, 2, 2]},
    "crossformer": {"network.widths": [8, 8, 8, 16], "network.depths": [1, 1, 1, 1], "network.heads": [1, 2, 2, 2]},
    "cct": {"network.width": 16, "network.depth": 2, "network.heads": 2},
    "levit": {"network.arguments": {"img_size": 64, "distilled": False}, "preprocessing.resize": 64},
}
"""Networks of the published comparison on DeepLense Model I, smaller than published."""


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_compared_transformers_train_section_by_section_and_load(name, dataset, tmp_path):
    tiny = {key: value for key, value in TINY.items() if not key.startswith("network.")}
    overrides = tiny | TRANSFORMERS[name] | {"trainer.unfreezing": "sections"}
    run = train(Job(load_recipe(f"substructure/{name}", overrides), str(dataset)), tmp_path / "run")
    assert load_model(run).predict(torch.rand(2, 64, 64)).probabilities.shape == (2, 3)


BAD = {
    "trainer.epoch": (3, "unknown key trainer.epoch; did you mean trainer.epochs?"),
    "optimiser": ({}, "unknown key optimiser; did you mean optimizer?"),
    "trainer.epochs": ("many", "trainer.epochs is 'many'; expected int"),
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


def test_recipe_of_the_older_form_that_extends_another_keeps_its_target_and_loss(tmp_path):
    (tmp_path / "mass.yaml").write_text("extends: mass/demo\ntarget: theta_E\n")
    assert load_recipe(str(tmp_path / "mass.yaml")).task == {"name": "regress", "target": "theta_E"}
    (tmp_path / "focal.yaml").write_text("extends: substructure/demo\nloss: [{name: focal}]\n")
    assert load_recipe(str(tmp_path / "focal.yaml")).make_task().losses[0].name == "focal"


def test_null_is_a_value_of_a_networks_option():
    assert load_recipe("substructure/demo", {"network.dropout": None}).network_options["dropout"] is None


def test_own_recipe_says_only_what_it_changes(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: substructure/darklens\ntrainer: {epochs: 3}\naugmentation: flips\n")
    base, recipe = load_recipe("substructure/darklens"), load_recipe(str(mine), {"trainer.ema": 0.5})
    assert (recipe.name, recipe.trainer.epochs, recipe.trainer.ema, recipe.augmentation) == ("mine", 3, 0.5, "flips")
    assert (recipe.network, recipe.trainer.batch_size) == (base.network, base.trainer.batch_size)
    mine.write_text("extends: substructure/darklens-ensemble\ntrainer: {epochs: 3}\n")
    assert {member["trainer"]["epochs"] for member in load_recipe(str(mine)).members} == {3}
    mine.write_text("extends: substructure/darklense\n")
    with pytest.raises(RecipeError, match="Did you mean 'substructure/darklens'"):
        load_recipe(str(mine))
    mine.write_text("trainer: 3\n")
    with pytest.raises(RecipeError, match="trainer holds keys and values; got 3"):
        load_recipe(str(mine), {"trainer.epochs": 4})


def test_options_of_the_command_line_reach_stages_whatever_they_say(tmp_path):
    (tmp_path / "two.yaml").write_text(
        "task: classify\n"
        "trainer: {batch_size: 32}\n"
        "stages:\n"
        "- {task: {name: regress, target: theta_E}, trainer: {epochs: 7}}\n"
        "- {recipe: substructure/demo, trainer: {epochs: 9}, data: mine}\n"
    )
    path = str(tmp_path / "two.yaml")
    first, second = load_recipe(path).parts()
    assert (first.trainer.epochs, second.trainer.epochs) == (7, 9)
    assert (first.trainer.batch_size, second.trainer.batch_size) == (32, 32)
    first, second = load_recipe(path, {"trainer.epochs": 2, "task.target": "source_x"}).parts()
    assert (first.trainer.epochs, second.trainer.epochs) == (2, 2)
    assert first.task == {"name": "regress", "target": "source_x"}
    assert second.task["name"] == "classify"
    assert load_recipe(path, {"trainer.epochs": 2}).stages[1]["data"] == "mine"
    with pytest.raises(RecipeError, match=r"two: unknown key task\.targe; did you mean task\.target\?"):
        load_recipe(path, {"task.targe": "source_x"})
    with pytest.raises(RecipeError, match="each of its stages has a task of its own"):
        load_recipe(path, {"task.name": "regress"})


def test_members_that_a_file_names_keep_their_networks_beside_what_it_extends(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "extends: substructure/darklens\n"
        "trainer: {epochs: 3}\n"
        "members: [substructure/resnet18, {recipe: substructure/demo, augmentation: flips}, {augmentation: none}]\n"
    )
    resnet, demo, own = load_recipe(str(mine), {"trainer.batch_size": 16}).parts()
    assert resnet.network == load_recipe("substructure/resnet18").network
    assert resnet.optimizer == load_recipe("substructure/resnet18").optimizer
    assert demo.network == load_recipe("substructure/demo").network
    assert (demo.augmentation, own.augmentation) == ("flips", "none")
    assert own.network == load_recipe("substructure/darklens").network
    assert {part.trainer.epochs for part in (resnet, demo, own)} == {3}
    assert {part.trainer.batch_size for part in (resnet, demo, own)} == {16}


def test_recipe_extends_a_file_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "base.yaml").write_text("extends: substructure/demo\ntrainer: {epochs: 3, batch_size: 16}\n")
    (tmp_path / "mine.yaml").write_text("extends: parts/base.yaml\ntrainer: {epochs: 5}\n")
    recipe = load_recipe(str(tmp_path / "mine.yaml"))
    assert (recipe.name, recipe.trainer.epochs, recipe.trainer.batch_size) == ("mine", 5, 16)
    assert recipe.network == load_recipe("substructure/demo").network
    (tmp_path / "parts" / "base.yaml").write_text("extends: ../mine.yaml\n")
    with pytest.raises(RecipeError, match="extends itself"):
        load_recipe(str(tmp_path / "mine.yaml"))
    (tmp_path / "parts" / "base.yaml").write_text("extends: substructure/demo\nnetwork: {name: net.py:Net}\n")
    (tmp_path / "parts" / "net.py").write_text("raise SystemError\n")
    with pytest.raises(UntrustedCodeError, match=r"base\.yaml"):
        load_recipe(str(tmp_path / "mine.yaml"))
    located = load_recipe(str(tmp_path / "mine.yaml"), trust_code=True).network["name"]
    assert located == f"{tmp_path}/parts/net.py:Net"


def test_key_within_a_value_names_the_recipe():
    with pytest.raises(RecipeError, match="recipe substructure/demo: name holds keys and values; got 'compact'"):
        load_recipe("substructure/demo", {"network.name.x": 1})


def test_task_option_reaches_the_stage_that_has_it_beside_one_that_inherits_the_whole(tmp_path):
    (tmp_path / "two.yaml").write_text(
        "task: classify\nstages:\n- {task: {name: regress, target: theta_E}}\n- {trainer: {epochs: 4}}\n"
    )
    first, second = load_recipe(str(tmp_path / "two.yaml"), {"task.target": "source_x"}).parts()
    assert first.task == {"name": "regress", "target": "source_x"}
    assert second.task == {"name": "classify"}


def test_recipe_files_are_looked_for_beside_the_one_that_names_them(tmp_path, monkeypatch):
    for place, epochs in (("mine", 3), ("elsewhere", 9)):
        (tmp_path / place).mkdir()
        (tmp_path / place / "one.yaml").write_text(f"extends: substructure/demo\ntrainer: {{epochs: {epochs}}}\n")
    both = tmp_path / "mine" / "both.yaml"
    monkeypatch.chdir(tmp_path / "elsewhere")
    for content in (
        "task: classify\nmembers: [one.yaml, {recipe: one.yaml}]\n",
        "members: [one.yaml, one.yaml]\n",
        "task: classify\nstages: [one.yaml, {recipe: one.yaml}]\n",
    ):
        both.write_text(content)
        recipe = load_recipe(str(both))
        assert [part.trainer.epochs for part in recipe.parts()] == [3, 3]
        assert recipe.task["name"] == "classify"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: substructure/demo\ndata: mine\n", "data is said on the command line"),
        ("task: classify\nmembers: [{data: mine}, {data: other}]\n", "its members learn from the same data"),
        ("extends: substructure/demo\ntrainr: {}\n", "unknown key trainr; did you mean trainer?"),
        ("members: [substructure/demo, mass/demo]\n", "mass/demo cannot be a member: its task is regress"),
    ],
)
def test_what_a_file_cannot_say(text, message, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(RecipeError, match=re.escape(message)):
        load_recipe(str(tmp_path / "mine.yaml"))


def test_empty_part_of_a_file_changes_nothing(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: substructure/demo\ntrainer: {}\nnetwork: {}\n")
    assert load_recipe(str(tmp_path / "mine.yaml")).trainer == load_recipe("substructure/demo").trainer


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trainer.workers", -1), ("trainer.nodes", 0), ("trainer.patience", 0), ("trainer.keep_every", 0),
        ("trainer.ema", 2.0), ("trainer.ema", -0.1), ("trainer.gradient_clip", -1.0), ("trainer.minutes", 0.0),
        ("schedule.warmup", 2.0), ("schedule.step_epochs", 0), ("schedule.step_parts", 1), ("preprocessing.resize", 0),
        ("preprocessing.crop", 0), ("preprocessing.repeat_channels", 0), ("preprocessing.repeat_channels", 65),
    ],
)  # fmt: skip
def test_values_that_cannot_be_are_refused_by_name(key, value):
    with pytest.raises(RecipeError, match=rf"recipe substructure/demo: {re.escape(key)} .*; got {value}"):
        load_recipe("substructure/demo", {key: value})


def test_a_key_that_is_there_twice_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: substructure/demo\ntrainer:\n  epochs: 3\n  batch_size: 8\n  epochs: 30\n")
    with pytest.raises(RecipeError, match=r"mine\.yaml: not valid YAML: key 'epochs' is there twice .* line 3"):
        load_recipe(path)
    path.write_text("extends: substructure/demo\ntrainer: {epochs: 3, batch_size: 8}\noptimizer: {epochs: 1}\n")
    with pytest.raises(RecipeError, match="optimizer"):  # a key may be in several places
        load_recipe(path)


def test_time_is_shared_by_members_and_stages():
    members = {"trainer.minutes": 9, "members": [{"recipe": "substructure/demo"}] * 3}
    whole = load_recipe("substructure/demo", members)
    assert [part.trainer.minutes for part in whole.parts()] == [3, 3, 3]
    stages = [{"trainer": {"minutes": 2}}, {"trainer": {"minutes": 5}}]
    apart = load_recipe("substructure/demo", {"stages": stages})
    assert [part.trainer.minutes for part in apart.parts()] == [2, 5], "each has what it says itself"
    alone = load_recipe("substructure/demo", {"trainer.minutes": 9})
    assert [part.trainer.minutes for part in alone.parts()] == [9]


def test_minutes_of_version_0_1_are_read():
    recipe = load_recipe("substructure/demo", {"trainer.max_minutes": 3})
    content = dataclasses.asdict(recipe)
    content["trainer"]["max_minutes"] = content["trainer"].pop("minutes")
    assert recipe_from(content, "substructure/demo").trainer.minutes == 3


SCRATCH = yaml.safe_load((RECIPES / "from-scratch.yaml").read_text())


def test_recipe_without_its_pretrained_weights_gets_the_settings_for_random_ones(tmp_path):
    usual = load_recipe("substructure/resnet18-unfreezing")
    bare = load_recipe("substructure/resnet18-unfreezing", {"network.pretrained": False})
    assert bare.optimizer == OptimizerOptions(**SCRATCH["optimizer"]) != usual.optimizer
    assert (bare.preprocessing.crop, bare.preprocessing.stretch) == (96, "sqrt")
    assert (bare.trainer.unfreezing, usual.trainer.unfreezing) == ("none", "sections")
    assert bare.trainer.epochs == usual.trainer.epochs
    assert bare.network == usual.network | {"pretrained": False}
    assert bare.differs.startswith(usual.differs)
    assert "random weights" in bare.differs
    own = load_recipe("substructure/resnet18", {"network.pretrained": False, "optimizer.lr": 0.3})
    assert (own.optimizer.lr, own.optimizer.name) == (0.3, "AdamW"), "what is asked for stands"
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: substructure/resnet18\nnetwork: {pretrained: false}\npreprocessing: {crop: 50}\n")
    assert (load_recipe(str(mine)).preprocessing.crop, load_recipe(str(mine)).optimizer.lr) == (50, 1e-3)
    again = load_recipe(str(mine), {"network.pretrained": False, "optimizer.lr": 0.3})
    assert (again.preprocessing.crop, again.optimizer.lr) == (50, 0.3)


def test_settings_for_random_weights_are_only_for_recipes_that_lose_their_weights():
    same = ("substructure/darklens", "substructure/vit", "substructure/physics-informed")
    assert all(load_recipe(name, {"network.pretrained": False}) == with_false(name) for name in same)
    kept = load_recipe("substructure/resnet18", {"network.weights": "w.pth", "network.pretrained": False})
    assert kept.optimizer == load_recipe("substructure/resnet18").optimizer
    assert load_recipe("substructure/resnet18", {"network.pretrained": True}) == load_recipe("substructure/resnet18")


def with_false(name):
    """A recipe as it is, but that it says it has no pretrained weights."""
    recipe = load_recipe(name)
    return dataclasses.replace(recipe, network=recipe.network | {"pretrained": False})


def test_members_without_their_pretrained_weights_get_the_settings_too():
    parts = load_recipe("substructure/densenet161-resnet18-ensemble", {"network.pretrained": False}).parts()
    assert [part.optimizer.name for part in parts] == ["AdamW", "AdamW"]
    assert [part.trainer.unfreezing for part in parts] == ["none", "none"]
    assert all(part.network["pretrained"] is False for part in parts)


def test_recipe_that_a_record_holds_keeps_its_settings():
    """They were trained with; the library's may change."""
    content = dataclasses.asdict(load_recipe("substructure/resnet18", {"network.pretrained": False}))
    content["optimizer"]["lr"] = 0.7
    assert recipe_from(content, "substructure/resnet18").optimizer.lr == 0.7
