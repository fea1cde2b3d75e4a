"""Tasks by name: a user's own, and descriptions of the present form and of version 0.1."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from darklens.errors import ModelError, RecipeError, UserCodeError
from darklens.tasks.base import learned, options_of
from darklens.tasks.classify import Classify, LossPhase
from darklens.tasks.find import Find
from darklens.tasks.registry import (
    check_storable,
    current_model,
    current_task,
    make_task,
    task_class,
    task_content,
    task_title,
)
from darklens.tasks.regress import Regress

OWN = """
from dataclasses import dataclass, field
from darklens.tasks.base import learned
from darklens.tasks.regress import Regress

@dataclass(frozen=True)
class Squared(Regress):
    power: float = 2.0
    seen: list[float] = learned(factory=list)
    count: int = learned(default=7)

class NoDataclass(Regress.__mro__[1]):
    pass

@dataclass
class NoTask:
    target: str = ""

def function():
    pass
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path / "own.py"


def test_tasks_by_name(own):
    assert task_class("classify") is Classify
    assert task_class("regress") is Regress
    assert task_class("find") is Find
    found = task_class(f"{own}:Squared")
    assert found.__name__ == "Squared"
    assert issubclass(found, Regress)
    for name in ("NoTask", "function"):
        with pytest.raises(
            RecipeError, match=rf"own\.py:{name}: is no task: expected a dataclass that is derived from"
        ):
            task_class(f"{own}:{name}")
    with pytest.raises(
        RecipeError,
        match="'regres'; there are classify, find, regress, superresolve, pretrain, and your own as my_task",
    ):
        task_class("regres")


def test_options_of_an_own_task_and_what_it_learns(own):
    kind = task_class(f"{own}:Squared")
    assert options_of(kind) == ["target", "error", "power"]
    assert options_of(Classify) == ["losses"]
    made = make_task({"name": f"{own}:Squared", "target": "m", "power": 3.5}, "recipe mine")
    assert (made.target, made.power, made.seen, made.count, made.center) == ("m", 3.5, [], 7, [0.0])
    content = {"name": f"{own}:Squared", "target": "m", "seen": [1.5], "count": 9, "scale": [2.0]}
    made = make_task(content, "model here", learned=True)
    assert (made.seen, made.count, made.scale) == ([1.5], 9, [2.0])
    for key in ("seen", "count", "scale"):
        with pytest.raises(RecipeError, match=f"recipe mine: unknown key task.{key}"):
            make_task({"name": f"{own}:Squared", "target": "m", key: content[key]}, "recipe mine")
    again = make_task(task_content(made, f"{own}:Squared"), "model here", learned=True)
    assert again == made


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"name": "regress", "target": 3}, "model here: task.target is 3; expected str"),
        ({"name": "regress", "targt": "m"}, "model here: unknown key task.targt; did you mean task.target?"),
        ({"name": "regress", "target": ""}, "model here: a regression needs a target, the catalogue column to learn"),
        ({}, "model here: task is 'None'; there are classify, find, regress"),
    ],
)
def test_errors_name_the_file_once_and_are_of_the_kind_that_is_asked_for(content, message):
    with pytest.raises(ModelError, match="^" + re.escape(message)) as caught:
        make_task(content, "model here", error=ModelError)
    assert str(caught.value).count("model here") == 1


def test_title_leaves_out_the_file():
    assert task_title({"name": "classify"}) == "classify"
    assert task_title({"name": "folder:1/my_task.py:Squared"}) == "Squared"


def test_older_recipes_keep_what_stood_beside_the_task():
    assert current_task({"name": "regress", "error": "mae"}, "m", None) == {
        "name": "regress", "error": "mae", "target": "m"
    }  # fmt: skip
    assert current_task("classify", None, []) == {"name": "classify"}
    given = {"name": "classify"}
    assert current_task(given, None, [{"name": "focal"}]) == {"name": "classify", "losses": [{"name": "focal"}]}
    assert given == {"name": "classify"}, "what is given stays as it was"


def test_older_models_have_their_outputs_as_a_task():
    old = {"task": "classify", "classes": ["a", "b"], "outputs": ["x"], "pixels": 64}
    assert current_model(old) == {
        "task": {"name": "classify", "class_names": ["a", "b"]}, "classes": ["a", "b"], "outputs": ["a", "b"], "pixels": 64,
    }  # fmt: skip
    assert old["task"] == "classify", "what is given stays as it was"
    one = {"task": "regress", "outputs": ["m"], "output_center": [1.5], "output_scale": [0.3]}
    assert current_model(one) == one | {"task": {"name": "regress", "target": "m", "center": [1.5], "scale": [0.3]}}
    for outputs in (["m", "n"], None, "m"):
        found = current_model({"task": "regress", "outputs": outputs})
        assert found == {"task": {"name": "regress"}, "outputs": outputs}
    assert current_model({"task": "classify", "classes": None})["task"] == {"name": "classify", "class_names": []}


@dataclass(frozen=True)
class Kept(Regress):
    shifts: Any = learned(None)
    names: list[str] = field(default_factory=lambda: ["mass"])

    @property
    def output_names(self):
        return self.names


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shifts": {1: 5.0}}, r"Kept.shifts is \{1: 5.0\}, and would be \{'1': 5.0\} when the model is loaded"),
        ({"shifts": np.ones(2)}, "Kept.shifts cannot be kept with a model: .*ndarray"),
        ({"shifts": Path("x")}, "Kept.shifts cannot be kept with a model: .*Path"),
        ({"names": ["a", "b", "a"]}, "output_names of Kept: a is there twice"),
        ({"names": ["id", "mass"]}, "output_names of Kept: id is there twice, or a column of every table"),
    ],
)
def test_a_task_that_its_model_could_not_hold_is_refused(changes, message, monkeypatch):
    monkeypatch.setattr("darklens.tasks.registry.task_class", lambda name: Kept)
    with pytest.raises(UserCodeError, match=message):
        check_storable(Kept("mass", **changes), "own.py:Kept")


def test_a_task_that_its_model_holds_is_kept(monkeypatch):
    monkeypatch.setattr("darklens.tasks.registry.task_class", lambda name: Kept)
    check_storable(Kept("mass", shifts={"1": [5.0, float("nan")]}), "own.py:Kept")
    monkeypatch.undo()
    check_storable(Classify([LossPhase(), LossPhase("focal", from_epoch=3)], ["a", "b"]), "classify")
