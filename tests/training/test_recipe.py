"""Recipes made of files, overrides, members and stages, and the code of one's own that they name."""

import dataclasses
import hashlib
import re

import pytest

from darklens.errors import RecipeError, UntrustedCodeError
from darklens.tasks.classify import Classify, LossPhase
from darklens.training.recipe import (
    Recipe,
    TrainerConfig,
    changes,
    check_recipe_trusted,
    code_of,
    list_recipes,
    load_recipe,
    overridden,
    own_code,
    recipe_from,
    recipe_names,
    short_name,
)


@pytest.fixture
def written(tmp_path):
    """Write a recipe file, and return its name."""

    def write(text, name="mine.yaml"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def test_recipe_of_the_library_is_what_its_file_says():
    found = load_recipe("substructure/demo")
    assert found.name == "substructure/demo"
    assert found.task == {"name": "classify"}
    assert found.network == {"name": "compact", "widths": [32, 64, 128, 256], "blocks": [0, 1, 2, 2]}
    assert found.network_options == {"widths": [32, 64, 128, 256], "blocks": [0, 1, 2, 2]}
    assert (found.preprocessing.crop, found.preprocessing.stretch, found.augmentation) == (80, "sqrt", "dihedral")
    assert (found.optimizer.name, found.optimizer.lr, found.optimizer.weight_decay) == ("Muon", 5e-3, 0.02)
    assert (found.schedule.name, found.schedule.warmup) == ("cosine", 0.1)
    assert found.trainer == TrainerConfig(epochs=5, batch_size=128, ema=0.98)
    assert found.make_task() == Classify()
    assert found.parts() == [found]


def test_names_and_lines_on_them():
    names = recipe_names()
    assert names == sorted(names)
    assert {"mass/demo", "substructure/demo", "substructure/vit"} <= set(names)
    assert not any(name.startswith("_") or name.endswith(".yaml") for name in names)
    described = list_recipes()
    assert list(described) == names
    assert described["substructure/demo"] == (
        "A compact residual network that is told how far each pixel is from the centre."
    )
    assert all("\n" not in line and "  " not in line for line in described.values())
    assert [short_name(name) for name in ("substructure/demo", "a/b/mine.yaml", "mine.yml", "x")] == [
        "demo", "mine", "mine", "x",
    ]  # fmt: skip


def test_name_without_its_folder_is_told_all_that_have_it():
    with pytest.raises(
        RecipeError,
        match=r"no recipe 'demo'\. Did you mean 'finding/demo' or 'mass/demo' or 'substructure/demo'\? There are",
    ):
        load_recipe("demo")
    with pytest.raises(
        RecipeError,
        match=r"no recipe 'zzzz'\. There are adaptation/adabn, adaptation/adamatch, .*; your own is a \.yaml file",
    ):
        load_recipe("zzzz")


def test_overrides_take_the_place_of_single_values():
    found = load_recipe(
        "substructure/demo", {"trainer.epochs": 7, "network.widths": [4, 8, 8, 8], "augmentation": "none"}
    )
    base = load_recipe("substructure/demo")
    assert found == dataclasses.replace(
        base,
        trainer=dataclasses.replace(base.trainer, epochs=7),
        network=base.network | {"widths": [4, 8, 8, 8]},
        augmentation="none",
    )


def test_another_optimizer_begins_without_arguments(tmp_path):
    (tmp_path / "parent.yaml").write_text(
        "extends: substructure/demo\noptimizer: {name: SGD, lr: 0.3, arguments: {momentum: 0.5}}\n"
    )
    (tmp_path / "child.yaml").write_text("extends: parent.yaml\noptimizer: {name: Adam}\n")
    parent, child = (load_recipe(str(tmp_path / f"{name}.yaml")).optimizer for name in ("parent", "child"))
    assert (parent.arguments, child.name, child.lr, child.arguments) == ({"momentum": 0.5}, "Adam", 0.3, {})
    given = load_recipe(str(tmp_path / "parent.yaml"), {"optimizer.name": "SGD", "optimizer.lr": 0.1}).optimizer
    assert given.arguments == {"momentum": 0.5}, "the same optimiser"


def test_another_network_or_task_begins_without_options():
    found = load_recipe("substructure/demo", {"network.name": "timm", "network.architecture": "resnet18"})
    assert found.network == {"name": "timm", "architecture": "resnet18"}
    assert load_recipe("substructure/demo", {"network": "timm"}).network == {"name": "timm"}
    assert load_recipe("substructure/demo", {"network.name": "compact"}).network["blocks"] == [0, 1, 2, 2]
    assert load_recipe("mass/demo", {"task.name": "classify"}).task == {"name": "classify"}
    assert load_recipe("mass/demo", {"task.error": "mae"}).task == {
        "name": "regress", "target": "log10_axion_mass", "error": "mae",
    }  # fmt: skip


def test_overrides_of_the_older_form():
    found = load_recipe("mass/demo", {"target": "theta_E"})
    assert found.task == {"name": "regress", "target": "theta_E"}
    found = load_recipe("substructure/demo", {"loss": [{"name": "focal"}], "task": "classify"})
    assert found.task == {"name": "classify", "losses": [{"name": "focal"}]}


def test_content_that_is_given_stays_as_it_was():
    content = {"name": "x", "task": {"name": "classify"}, "trainer": {"epochs": 3}}
    found = overridden(content, {"trainer.epochs": 5, "trainer.ema": 0.5, "preprocessing.crop": 8})
    assert found == {
        "name": "x", "task": {"name": "classify"}, "trainer": {"epochs": 5, "ema": 0.5}, "preprocessing": {"crop": 8},
    }  # fmt: skip
    assert content == {"name": "x", "task": {"name": "classify"}, "trainer": {"epochs": 3}}
    with pytest.raises(RecipeError, match="recipe x: trainer holds keys and values; got 3"):
        overridden({"name": "x", "task": "classify", "trainer": 3}, {"trainer.epochs": 5})


def test_recipes_of_version_0_1():
    legacy = dict.fromkeys(
        ["architecture", "pretrained", "weights", "dropout", "head", "arguments", "widths", "blocks"]
    )
    content = {"name": "x", "task": "regress", "target": "m", "loss": [{"name": "focal"}], "data": "here"}
    content["network"] = legacy | {"growth": None, "group": None, "widths": [3]}
    found = recipe_from(content, "x")
    assert found.task == {"name": "regress", "target": "m"}
    assert found.network == {"name": "compact", "widths": [3]}
    own = recipe_from(
        {"name": "x", "task": "classify", "network": {"name": "net.py:Net", "head": None, "mine": None}}, "x"
    )
    assert own.network == {"name": "net.py:Net", "head": None, "mine": None}
    network = {"name": "timm", "architecture": None, "head": None, "mine": None}
    named = recipe_from({"name": "x", "task": "classify", "network": network}, "x")
    assert named.network == {"name": "timm", "mine": None}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"network": {"name": 3}}, "recipe where: network.name is 3; expected a name"),
        ({"task": {"losses": []}}, "recipe where: task.name is None; expected a name"),
        ({"trainer": {"epochs": 0}}, "recipe where: trainer.epochs must be at least 1"),
        ({"trainer": {"batch_size": -3}}, "recipe where: trainer.batch_size must be at least 1"),
        ({"trainer": {"epoch_images": 0}}, "recipe where: trainer.epoch_images must be at least 1"),
        ({"members": [{}], "stages": [{}]}, "recipe where: a recipe has members or stages, not both"),
        ({"schedule": {"name": "line"}}, "recipe where: schedule.name is 'line'; expected cosine, step, constant"),
    ],
)
def test_content_that_makes_no_sense_is_refused(content, message):
    with pytest.raises(RecipeError, match="^" + re.escape(message)) as caught:
        recipe_from({"name": "x", "task": "classify"} | content, "where")
    assert str(caught.value).count("recipe where") == 1


def test_smallest_values_are_accepted():
    found = recipe_from({"name": "x", "task": "classify", "trainer": dict.fromkeys(["epochs", "batch_size"], 1)}, "x")
    assert (found.trainer.epochs, found.trainer.batch_size, found.trainer.epoch_images) == (1, 1, None)
    assert recipe_from({"name": "x", "task": "classify", "trainer": {"epoch_images": 1}}, "x").trainer.epoch_images == 1


def test_own_file_extends_another_and_overrides_come_last(written):
    name = written("extends: substructure/demo\ntrainer: {epochs: 3, ema: null}\nnetwork: {blocks: [1, 1, 1, 1]}\n")
    found = load_recipe(name, {"trainer.epochs": 9})
    assert found.name == "mine"
    assert found.network == {"name": "compact", "widths": [32, 64, 128, 256], "blocks": [1, 1, 1, 1]}
    assert (found.trainer.epochs, found.trainer.ema, found.trainer.batch_size) == (9, None, 128)
    assert load_recipe(written("extends: substructure/demo\n", "other.yml")).name == "other"
    with pytest.raises(
        RecipeError, match=r"recipe .*mine\.yaml: unknown key trainer\.epoch; did you mean trainer.epochs"
    ):
        load_recipe(written("extends: substructure/demo\ntrainer: {epoch: 3}\n"))


CODE = "class Net:\n    pass\n"


def test_code_of_a_file_is_beside_it_and_runs_only_if_trusted(written, tmp_path):
    (tmp_path / "net.py").write_text(CODE)
    name = written("task: classify\nnetwork: {name: 'net.py:Net', width: 3}\n")
    with pytest.raises(UntrustedCodeError, match=r"mine\.yaml: would run Net of .*net\.py"):
        load_recipe(name)
    found = load_recipe(name, trust_code=True)
    assert found.network == {"name": f"{tmp_path}/net.py:Net", "width": 3}
    assert code_of(found) == [f"{tmp_path}/net.py:Net"]
    assert own_code(found) == {"sha256:" + hashlib.sha256(CODE.encode()).hexdigest()}
    check_recipe_trusted(found, "run.json", True)
    with pytest.raises(UntrustedCodeError, match=r"^run\.json: would run Net"):
        check_recipe_trusted(found, "run.json", False)
    check_recipe_trusted(load_recipe("substructure/demo"), "run.json", False)
    plain = written("task: classify\nnetwork: {name: 'net.py:Net'}\n", "plain.yaml")
    assert load_recipe(plain, {"network.name": "compact"}).network == {"name": "compact"}, "nothing else is asked for"
    given = load_recipe("substructure/demo", {"network.name": f"{tmp_path}/net.py:Net"})
    assert given.network == {"name": f"{tmp_path}/net.py:Net"}, "who says it has answered for it"


def test_code_of_members_losses_and_optimisers_is_known(written, tmp_path):
    for file in ("net", "loss", "opt"):
        (tmp_path / f"{file}.py").write_text(CODE)
    name = written(
        "task: {name: classify, losses: [{name: 'loss.py:Net'}]}\n"
        "optimizer: {name: 'opt.py:Net'}\n"
        "members: [{network: {name: 'net.py:Net'}}, {recipe: substructure/demo}]\n"
    )
    with pytest.raises(UntrustedCodeError):
        load_recipe(name)
    found = load_recipe(name, trust_code=True)
    assert code_of(found) == [f"{tmp_path}/{file}.py:Net" for file in ("loss", "net", "opt")]
    assert [part.network["name"] for part in found.parts()] == [f"{tmp_path}/net.py:Net", "compact"]


def test_members_inherit_what_the_whole_says(written):
    name = written(
        "task: classify\n"
        "description: Two.\n"
        "trainer: {epochs: 3}\n"
        "members: [{trainer: {ema: 0.5}}, {recipe: substructure/vit, optimizer: {lr: 0.25}}, substructure/resnet18]\n"
    )
    whole = load_recipe(name)
    first, second, third = whole.parts()
    assert (first.name, first.network, first.trainer.epochs, first.trainer.ema) == ("mine", whole.network, 3, 0.5)
    assert (second.name, second.optimizer.lr, second.trainer.epochs) == ("substructure/vit", 0.25, 3)
    assert (third.name, third.network.get("architecture"), third.trainer.epochs) == (
        "substructure/resnet18",
        "resnet18",
        3,
    )
    assert second.description == load_recipe("substructure/vit").description
    assert not any(part.members or part.stages for part in whole.parts())
    longer = load_recipe(name, {"trainer.epochs": 8})
    assert [part.trainer.epochs for part in longer.parts()] == [8, 8, 8]


def test_losses_of_the_whole_are_those_of_its_members(written):
    name = written("task: {name: classify, losses: [{name: focal}]}\nmembers: [substructure/demo, {}]\n")
    assert [part.make_task().losses for part in load_recipe(name).parts()] == [[LossPhase("focal")]] * 2


def test_stages_have_tasks_of_their_own_and_the_last_is_what_comes_out(written):
    name = written(
        "task: classify\n"
        "trainer: {epochs: 4}\n"
        "stages:\n"
        "  - {recipe: mass/demo, data: other}\n"
        "  - {recipe: substructure/demo, network: {widths: [4, 4, 4, 4]}, preprocessing: {crop: 32}}\n"
    )
    found = load_recipe(name)
    first, second = found.parts()
    assert first.task == {"name": "regress", "target": "log10_axion_mass"}
    assert [stage.get("data") for stage in found.stages] == ["other", None]
    assert (first.trainer.epochs, second.trainer.epochs) == (4, 4)
    assert (found.task, found.network, found.preprocessing) == (second.task, second.network, second.preprocessing)
    assert found.network["widths"] == [4, 4, 4, 4]
    assert found.preprocessing.crop == 32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: classify\nmembers: 3\n", "recipe mine: members is a list of recipes; got 3"),
        ("task: classify\nmembers: [mass/demo]\n", "recipe mine: mass/demo cannot be a member: its task is regress"),
        (
            "task: classify\nstages: [substructure/darklens-ensemble]\n",
            "recipe mine: substructure/darklens-ensemble is made of others itself, and cannot be one of its stages",
        ),
        ("task: classify\nmembers: [{recipe: substructure/demo, optimizr: {lr: 1}}]\n", "unknown key optimizr"),
    ],
)
def test_members_that_make_no_sense_are_refused(written, text, message):
    with pytest.raises(RecipeError, match=re.escape(message)):
        load_recipe(written(text))


def test_recipe_that_is_its_own_member_is_refused(written, tmp_path):
    name = str(tmp_path / "mine.yaml")
    written(f"task: classify\nmembers: ['{name}']\n")
    with pytest.raises(RecipeError, match=r"recipe .*mine\.yaml: is one of its own members"):
        load_recipe(name)


def test_changes_are_what_the_library_says_otherwise():
    assert changes(load_recipe("substructure/demo")) == {}
    found = changes(load_recipe("substructure/demo", {"trainer.epochs": 7, "preprocessing.crop": None}))
    assert found == {"trainer.epochs": 7, "preprocessing.crop": None}
    other = {"network.name": "timm", "network.architecture": "resnet18"}
    assert changes(load_recipe("substructure/demo", other)) == other
    task = {"task.name": "regress", "task.target": "m"}
    assert changes(Recipe(**(vars(load_recipe("mass/demo")) | {"task": {"name": "regress", "target": "m"}}))) == {
        "task.target": "m"
    }
    assert "task.name" not in changes(load_recipe("mass/demo", task))
    assert changes(load_recipe("substructure/darklens-ensemble")) == {}
