"""Tasks by the names that recipes call them. A user's own is ``my_task.py:Class``. No PyTorch at import."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from darklens.errors import DarklensError, RecipeError, UserCodeError
from darklens.schema import typed_arguments, unknown_key
from darklens.tasks.base import Task, options_of
from darklens.usercode import is_reference, load_function

TASKS = {
    "classify": "darklens.tasks.classify:Classify",
    "find": "darklens.tasks.find:Find",
    "regress": "darklens.tasks.regress:Regress",
    "superresolve": "darklens.tasks.superresolve:Superresolve",
    "pretrain": "darklens.tasks.pretrain:Pretrain",
}


def task_class(name: str) -> type[Task]:
    """Return the class of a task by its name; the file of a user's own is run.

    Raises
    ------
    RecipeError
        If there is no such task, or what is named is not a subclass of `Task`.
    """
    if is_reference(name):
        found = load_function(name)
        if not (isinstance(found, type) and issubclass(found, Task) and dataclasses.is_dataclass(found)):
            raise RecipeError(f"{name}: is no task: expected a dataclass that is derived from darklens.tasks.base.Task")
        return found
    if name not in TASKS:
        raise RecipeError(f"task is {name!r}; there are {', '.join(TASKS)}, and your own as my_task.py:Class")
    module, _, attribute = TASKS[name].partition(":")
    kind: type[Task] = getattr(import_module(module), attribute)
    return kind


def make_task(
    content: Mapping[str, Any], where: str, *, learned: bool = False, error: type[DarklensError] = RecipeError
) -> Task:
    """Return the task that keys and values describe, those of a recipe's or a model's ``task``.

    Parameters
    ----------
    content
        Its ``name`` and options. The code of a user's own task is run.
    where
        Names the recipe or model in errors.
    learned
        Whether it may also hold what a task learns from training data.
    error
        What is raised.

    Returns
    -------
    Task
        The task.

    Raises
    ------
    DarklensError
        ``error``, if there is no such task, an option is misspelt, or its value makes no sense.
    """
    try:
        kind = task_class(str(content.get("name")))
    except RecipeError as reason:
        raise error(f"{where}: {reason}") from reason
    options = {key: value for key, value in content.items() if key != "name"}
    known = [field.name for field in dataclasses.fields(kind)] if learned else options_of(kind)
    for key in options:
        if key not in known:
            raise error(f"{where}: {unknown_key(key, known, 'task.')}")
    try:
        return kind(**typed_arguments(kind, options, where=where, prefix="task.", error=error))
    except RecipeError as reason:
        raise error(f"{where}: {str(reason).removeprefix(f'{where}: ')}") from reason


def task_title(content: Mapping[str, Any]) -> str:
    """Return the name of a task without the file of a user's own."""
    return str(content["name"]).rpartition(":")[2]


def task_content(task: Task, name: str) -> dict[str, Any]:
    """Return the keys and values that describe a task, with what it has learned: the reverse of `make_task`."""
    return {"name": name} | dataclasses.asdict(task)


COLUMNS = ("id", "path", "set", "outlier_score", "outlier")
"""Columns of every table of predictions, which no output may be called like."""


def check_storable(task: Task, name: str) -> None:
    """Refuse a task that would be another one, or none, when the model that is trained with it is loaded.

    Parameters
    ----------
    task
        With what it has learned.
    name
        As a recipe calls it.

    Raises
    ------
    UserCodeError
        If a field is not what JSON can hold, names of outputs repeat, or one is that of a column of every table.
    """
    title = type(task).__name__
    kept = {"name": name}
    for field, value in dataclasses.asdict(task).items():
        try:
            kept[field] = json.loads(json.dumps(value))
        except (TypeError, ValueError) as error:
            raise UserCodeError(f"{title}.{field} cannot be kept with a model: {error}") from error
    restored = make_task(kept, title, learned=True)
    for field in kept.keys() - {"name"}:
        before, after = getattr(task, field), getattr(restored, field)
        if repr(before) != repr(after):
            raise UserCodeError(
                f"{title}.{field} is {before!r}, and would be {after!r} when the model is loaded; keep numbers, text, "
                "lists, and mappings with text as keys"
            )
    names = list(task.output_names)
    if wrong := sorted({each for each in names if names.count(each) > 1 or each in COLUMNS}):
        raise UserCodeError(
            f"output_names of {title}: {', '.join(wrong)} is there twice, or a column of every table of predictions"
        )


def current_task(task: str | Mapping[str, Any], target: str | None, losses: Any) -> dict[str, Any]:
    """Return what a recipe says under ``task`` in the present form, from that of version 0.1.

    Parameters
    ----------
    task
        The task's name, or its name and options.
    target, losses
        What version 0.1 had beside it: the column to regress, and the phases of a classification's loss.

    Returns
    -------
    dict
        ``name`` and options.
    """
    content = {"name": task} if isinstance(task, str) else dict(task)
    if target is not None:
        content["target"] = target
    if losses and content["name"] == "classify":  # records of regressions have the loss of a classification as well
        content["losses"] = losses
    return content


def current_model(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description of a model (``config.json``) in the present form, from that of version 0.1."""
    content = dict(content)
    classes, outputs = content.get("classes") or [], content.get("outputs") or []
    if content["task"] == "classify":
        content["task"], content["outputs"] = {"name": "classify", "class_names": classes}, classes
    elif isinstance(outputs, list) and len(outputs) == 1:
        learned = {"center": content.get("output_center"), "scale": content.get("output_scale")}
        content["task"] = {"name": content["task"], "target": outputs[0]} | learned
    else:
        content["task"] = {"name": content["task"]}
    return content
