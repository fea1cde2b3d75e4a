"""Recipes: a network, a loss, an optimiser, a schedule, preprocessing and augmentation, under one name. No PyTorch here.

A recipe is a YAML file; every value can be overridden on the command line. Adding a system whose parts exist is adding
a file to ``darklens/recipes``.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from darklens.adaptation.options import Method, make_method
from darklens.data.options import InputOptions, PreprocessingOptions
from darklens.errors import RecipeError
from darklens.paths import read_yaml
from darklens.schema import typed_arguments, unknown_key
from darklens.tasks.base import Task, options_of
from darklens.tasks.options import OptimizerOptions, ScheduleOptions
from darklens.tasks.registry import current_task, make_task
from darklens.usercode import check_trusted, code_checksum, is_reference, references, split_reference, with_references

SCRATCH_DIFFERS = (
    "Begins with random weights, with crop, stretch, optimiser and schedule as in recipes/from-scratch.yaml."
)
RECIPES = resources.files("darklens.recipes")


@dataclass(frozen=True)
class TrainerConfig:
    """How long, and on what.

    Parameters
    ----------
    epochs
        How often the training images are gone through, or --trainer.epoch_images of them.
    batch_size
        Images in a step, over all devices, whose number divides it.
    precision
        Lightning's precision; auto takes bfloat16 where the hardware computes in it.
    minutes
        Train for this long, validation included: the learning rate follows the clock, and epochs are equal shares of the
        time. Members and stages share it. By default, epochs are gone through whatever it takes.
    patience
        Stop after this many epochs without a better validation result.
    ema
        Decay of an exponential moving average of the weights, which is then what is evaluated.
    gradient_clip
        Largest norm of a gradient.
    unfreezing
        sections: train the head first, then unfreeze section after section, each for epochs in proportion to its size.
        A network that begins with random weights is all trained from the start.
    frozen
        Epochs in which the head alone is trained, and the encoder that --start brings stays as it is; below 1, a fraction
        of all epochs.
    keep_every
        Keep a checkpoint every so many epochs, beside the best and the last.
    epoch_images
        Images in an epoch: by default all that there are, or 30,720 when they are simulated as it goes.
    workers
        Processes that load or simulate images.
    devices
        Number of devices, or auto.
    nodes
        Number of machines.
    accelerator
        cpu, gpu, or auto.
    strategy
        Lightning's strategy, such as ddp.
    compile
        Compile the network with torch.compile.
    """

    epochs: int = 10
    batch_size: int = 128
    precision: str = "auto"
    minutes: float | None = None
    patience: int | None = None
    ema: float | None = None
    gradient_clip: float | None = None
    unfreezing: Literal["none", "sections"] = "none"
    frozen: float = 0.0
    keep_every: int | None = None
    epoch_images: int | None = None
    workers: int = 0
    devices: str = "auto"
    nodes: int = 1
    accelerator: str = "auto"
    strategy: str = "auto"
    compile: bool = False

    def __post_init__(self) -> None:
        least = {
            "epochs": 1,
            "batch_size": 1,
            "epoch_images": 1,
            "patience": 1,
            "keep_every": 1,
            "workers": 0,
            "nodes": 1,
        }
        for name, low in least.items():
            if (number := getattr(self, name)) is not None and number < low:
                raise RecipeError(f"trainer.{name} must be at least {low}; got {number}")
        for name in ("minutes", "gradient_clip"):
            if (number := getattr(self, name)) is not None and not number > 0:
                raise RecipeError(f"trainer.{name} must be above zero; got {number}")
        if not self.frozen >= 0 or self.frozen >= self.epochs or (self.frozen > 1 and self.frozen % 1):
            raise RecipeError(
                f"trainer.frozen is a whole number of epochs below {self.epochs}, or a fraction of them below 1; got "
                f"{self.frozen}"
            )
        if self.frozen and self.unfreezing != "none":
            raise RecipeError("trainer.frozen and trainer.unfreezing both say when sections are trained; choose one")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise RecipeError(f"trainer.ema must be from 0 to below 1; got {self.ema}")


@dataclass(frozen=True)
class Recipe:
    """A training recipe.

    Parameters
    ----------
    name
        Where it is in the library.
    task
        What is learned: ``name`` (classify, find, regress, superresolve, pretrain, or your own as my_task.py:Class) and
        the options of that task.
    description
        What it is.
    source
        The published system that it follows.
    differs
        How it differs from its source.
    network
        ``name`` (compact, equivariant, ecnn, cmu-deeplens, cbam-densenet, cvt, crossformer, cct, timm, metadata,
        attention-fusion, srcnn, edsr, rrdb, mae-upconv, nafnet, flow, lens-residual, patch-transformer,
        masked-autoencoder, equivariant-transformer, or your own as my_network.py:Class) and the options of that network.
    preprocessing
        From detector to network.
    inputs
        What the network takes beside images.
    allow_leaks
        Whether columns of the catalogue may be inputs though they tell the label without an image.
    augmentation
        Random symmetries of the square.
    adaptation
        How the network is adapted to images without labels, if it is: ``method`` (source-only, adabn, dann, adda,
        self-ensembling, adamatch, sidda) and the options of that method.
    optimizer
        The optimiser.
    schedule
        The learning rate over time.
    trainer
        How long, and on what.
    members
        Recipes that are trained one by one and then averaged; the rest of this recipe is then only theirs to inherit.
    stages
        Recipes that are trained one after the other, each from the weights of the one before; each may name its own
        ``data``.
    """

    name: str
    task: dict[str, Any]
    description: str = ""
    source: str = ""
    differs: str = ""
    network: dict[str, Any] = field(default_factory=lambda: {"name": "compact"})
    preprocessing: PreprocessingOptions = field(default_factory=PreprocessingOptions)
    inputs: InputOptions = field(default_factory=InputOptions)
    allow_leaks: bool = False
    augmentation: Literal["dihedral", "flips", "none"] = "dihedral"
    adaptation: dict[str, Any] = field(default_factory=dict)
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    members: list[dict[str, Any]] = field(default_factory=list)
    stages: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for part in ("task", "network"):
            if not isinstance(getattr(self, part).get("name"), str):
                raise RecipeError(f"{part}.name is {getattr(self, part).get('name')!r}; expected a name")
        for name in ("crop", "resize"):
            if (side := getattr(self.preprocessing, name)) is not None and side < 1:
                raise RecipeError(f"preprocessing.{name} must be at least 1 pixel; got {side}")
        if not 1 <= self.preprocessing.repeat_channels <= 64:
            raise RecipeError(
                f"preprocessing.repeat_channels is from 1 to 64; got {self.preprocessing.repeat_channels}"
            )
        if self.members and self.stages:
            raise RecipeError("a recipe has members or stages, not both")
        if (method := self.method) is not None:
            self._check_adaptation(method)

    def _check_adaptation(self, method: Method) -> None:
        """Refuse what an adaptation cannot be trained with."""
        unusable = {
            "trainer.unfreezing sections": self.trainer.unfreezing != "none",
            "trainer.compile": self.trainer.compile,
            "inputs.columns": self.inputs.columns is not None,
            "trainer.gradient_clip": method.steps_itself and self.trainer.gradient_clip is not None,
        }
        for name, used in unusable.items():
            if used and not self.stages:
                raise RecipeError(f"{name} cannot be used with adaptation.method {self.adaptation['method']}")

    @property
    def method(self) -> Method | None:
        """The method of adaptation with its options; None without."""
        return make_method(self.adaptation, f"recipe {self.name}")

    @property
    def takes_unlabelled(self) -> bool:
        """Whether it learns from a second dataset, of images without labels."""
        return bool(self.adaptation) or self.make_task().needs.unlabelled

    @property
    def network_options(self) -> dict[str, Any]:
        """Arguments of the network."""
        return {key: value for key, value in self.network.items() if key != "name"}

    def make_task(self) -> Task:
        """Return the task, before it has seen data; the code of a user's own is run."""
        return make_task(self.task, f"recipe {self.name}")

    def parts(self) -> list[Recipe]:
        """Return the recipes that are trained: its members or its stages, which share its time, or itself."""
        parts = [recipe_from(part, part["name"]) for part in (*self.members, *self.stages)]
        if self.trainer.minutes is not None:
            share = self.trainer.minutes / max(1, len(parts))
            parts = [dataclasses.replace(p, trainer=dataclasses.replace(p.trainer, minutes=share)) for p in parts]
        return parts or [self]


def list_recipes() -> dict[str, str]:
    """Names of the library's recipes, with a line on each."""
    return {name: " ".join(_builtin(name).get("description", "").split()) for name in recipe_names()}


def recipe_names() -> list[str]:
    """Names of the library's recipes: ``substructure/resnet18`` and so on."""
    return sorted(
        f"{folder.name}/{file.name.removesuffix('.yaml')}"
        for folder in RECIPES.iterdir()
        if folder.is_dir() and not folder.name.startswith("_")
        for file in folder.iterdir()
        if file.name.endswith(".yaml")
    )


def short_name(name: str) -> str:
    """A recipe's name without its folder, nor the suffix of a user's own file."""
    return Path(name).name.removesuffix(".yaml").removesuffix(".yml")


def load_recipe(
    name: str,
    overrides: Mapping[str, Any] | None = None,
    *,
    trust_code: bool = False,
    _inside: tuple[str, ...] = (),
) -> Recipe:
    """Return a recipe by name or from a user's YAML file, with dotted overrides such as ``{"trainer.epochs": 5}``.

    A file may say ``extends: substructure/darklens``, or ``extends: mine.yaml``, and then only what it changes. Code of
    one's own that it names, and files that it extends, are looked for in its folder.

    Parameters
    ----------
    name
        A name of `recipe_names`, or a YAML file.
    overrides
        Values that take the place of the recipe's, and of its members' and stages', by dotted key. ``encoder`` names a
        recipe whose network, preprocessing, augmentation, optimiser and schedule take their place.
    trust_code
        Whether code that a YAML file names may run. Code that ``overrides`` name may.

    Raises
    ------
    RecipeError
        If it does not exist, a key is misspelt, or a value is not of its type.
    UntrustedCodeError
        If a YAML file names code and ``trust_code`` is not set.
    """
    given = _current_overrides(overrides or {})
    encoder = given.pop("encoder", None)
    read = _read(name, trust_code, given)
    if encoder is not None:
        parts = _encoder(str(encoder), trust_code)
        read = _Read(read.content | parts, read.passed_on | _flat(parts))
    kinds = [kind for kind in ("members", "stages") if read.content.get(kind) or given.get(kind)]
    # What is asked of a task is asked of the parts that have such a task.
    of_tasks = {key for key in given if kinds and key.startswith("task.") and key != "task.name"}
    of_tasks |= {key for key in given if "stages" in kinds and key.startswith("adaptation.")}
    given_here = {key: value for key, value in given.items() if key not in of_tasks}
    content = overridden(read.content, from_scratch(read.content, given_here) | given_here)
    for kind in kinds:
        if content.get(kind):
            if name in _inside:
                raise RecipeError(f"recipe {name}: is one of its own {kind}")
            _gather(content, kind, read.passed_on, given, trust_code, (*_inside, name))
    recipe = recipe_from(content, name)
    recipe.make_task()
    return recipe


def _encoder(name: str, trust_code: bool) -> dict[str, Any]:
    """The parts of a recipe that make it an encoder for others: all but task, length and adaptation."""
    recipe = load_recipe(name, trust_code=trust_code)
    if recipe.members or recipe.stages:
        raise RecipeError(f"--encoder {name}: is made of others; name a recipe of one network")
    content = dataclasses.asdict(recipe)
    return {part: content[part] for part in ("network", "preprocessing", "augmentation", "optimizer", "schedule")}


@dataclass(frozen=True)
class _Read:
    """A recipe's content, and what of it, by dotted key, the recipes inherit that it names as members or stages."""

    content: dict[str, Any]
    passed_on: dict[str, Any]


def _read(name: str, trust_code: bool, changed: Collection[str], extending: tuple[Path, ...] = ()) -> _Read:
    """Read a recipe of the library or a file, on what it extends.

    Parameters
    ----------
    name
        A name of the library, or a YAML file.
    trust_code
        Whether a file may name code.
    changed
        Keys whose values come from elsewhere: code that they name is not run.
    extending
        The files that extend this one.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        content = {"name": name} | _builtin(name)
        return _Read(content, _flat(_current(content)))
    if path.resolve() in extending:
        raise RecipeError(f"recipe {name}: extends itself")
    content = read_yaml(path, RecipeError, "extends: substructure/darklens")
    base = str(content.pop("extends")) if "extends" in content else None
    if "data" in content:
        raise RecipeError(f"recipe {name}: data is said on the command line (--data), or in one of the stages")
    content = _current(content)
    content |= {kind: _beside(content[kind], path.parent) for kind in ("members", "stages") if kind in content}
    own = _flat(content | {part: _located(content[part], path.parent) for part in CODE if part in content})
    named = [value for key, value in own.items() if key.partition(".")[0] in CODE and key not in changed]
    for reference in sorted(set(references(named))):
        check_trusted(reference.removeprefix("preset:"), name, trust_code)
    if base is None:
        return _Read(overridden({"name": path.stem}, own), own)
    if base.endswith((".yaml", ".yml")):
        base = str(path.parent / base)
    below = _read(base, trust_code, {*changed, *own}, (*extending, path.resolve()))
    # Recipes that a file names itself inherit what that file says, not the networks of what it extends.
    passed_on = own if {"members", "stages"} & set(own) else below.passed_on | own
    return _Read(overridden(below.content | {"name": path.stem}, from_scratch(below.content, own) | own), passed_on)


def from_scratch(content: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings for random weights, by dotted key, if overrides take a recipe's pretrained weights away.

    Parameters
    ----------
    content
        Of the recipe.
    overrides
        What is said otherwise, by dotted key.

    Returns
    -------
    dict
        Empty if the recipe has no pretrained weights, or keeps them, or gets others.
    """
    network = content.get("network")
    had = isinstance(network, Mapping) and network.get("pretrained") is True
    if not had or overrides.get("network.pretrained") is not False or overrides.get("network.weights") is not None:
        return {}
    settings: dict[str, Any] = yaml.safe_load((RECIPES / "from-scratch.yaml").read_text("utf-8"))
    return {"differs": f"{content.get('differs', '')} {SCRATCH_DIFFERS}".strip()} | _flat(settings)


def check_recipe_trusted(recipe: Recipe, named_in: str, trust_code: bool) -> None:
    """Refuse a recipe that was read from a run's or a model's record and names code, unless the user trusts it.

    Parameters
    ----------
    recipe
        What was read.
    named_in
        The file that it was read from, for the message.
    trust_code
        Whether the user has said that such code may run.

    Raises
    ------
    UntrustedCodeError
        If it names code, itself or in a member or stage, and ``trust_code`` is not set.
    """
    for reference in code_of(recipe):
        check_trusted(reference, named_in, trust_code)


def code_of(recipe: Recipe) -> list[str]:
    """Return every ``file.py:name`` of a user's own code that a recipe names: networks, tasks, losses, optimisers."""
    content = dataclasses.asdict(recipe)
    return sorted({found for part in CODE for found in references(content[part])})


def own_code(recipe: Recipe) -> set[str]:
    """Return the SHA-256 of each file of code that a recipe names, which whoever loaded it has answered for."""
    return {code_checksum(split_reference(name)[0]) for name in code_of(recipe)}


def changes(recipe: Recipe) -> dict[str, Any]:
    """Return the values in which a recipe differs from the library's of the same name, by dotted key."""
    library = load_recipe(recipe.name)
    names = {f"{part}.name": getattr(recipe, part)["name"] for part in ("network", "task")}
    renamed = {key: name for key, name in names.items() if name != getattr(library, key.partition(".")[0])["name"]}
    bare = library.network.get("pretrained") is True and recipe.network.get("pretrained") is False
    begun = renamed | ({"network.pretrained": False} if bare and not recipe.network.get("weights") else {})
    own, base = (_flat(dataclasses.asdict(r)) for r in (recipe, load_recipe(recipe.name, begun)))
    return begun | {k: v for k, v in own.items() if v != base.get(k) and k not in _OF_THE_WHOLE}


CODE = ("network", "task", "optimizer", "members", "stages")
"""Parts of a recipe that may name code of the user's own."""
_OF_THE_WHOLE = ("name", "description", "source", "differs", "members", "stages")
_LEGACY = (
    "architecture",
    "pretrained",
    "weights",
    "dropout",
    "head",
    "arguments",
    "widths",
    "blocks",
    "growth",
    "group",
)
"""Options of the networks of version 0.1, all of which its records name, null where a network does not have them."""


def _current(content: Mapping[str, Any]) -> dict[str, Any]:
    """Content in the present form: version 0.1 had ``target`` and ``loss`` beside the task's name, and ``max_minutes``."""
    content = dict(content)
    target, losses = content.pop("target", None), content.pop("loss", None)
    if isinstance(content.get("task"), str | Mapping):
        content["task"] = current_task(content["task"], target, losses)
    elif beside := {k: v for k, v in (("target", target), ("losses", losses)) if v is not None}:
        content["task"] = beside  # of a file that extends another, which names the task
    trainer = content.get("trainer")
    if isinstance(trainer, Mapping) and "max_minutes" in trainer:
        content["trainer"] = {"minutes" if key == "max_minutes" else key: value for key, value in trainer.items()}
    network = content.get("network")
    if isinstance(network, Mapping):
        nulls = [network.get(key, "") is None for key in ("architecture", "widths")]
        older = all(nulls) or (any(nulls) and not is_reference(str(network.get("name"))))
        content["network"] = {k: v for k, v in network.items() if not (older and v is None and k in _LEGACY)}
    return content


_MOVED = {"target": "task.target", "loss": "task.losses", "task": "task.name", "network": "network.name"}


def _current_overrides(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides in the present form."""
    return {_MOVED.get(k, k) if isinstance(v, str | list) else k: v for k, v in overrides.items()}


def overridden(content: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a recipe with values that take the place of its own, by dotted key."""
    content, overrides = _current(content), _current_overrides(overrides)
    for part in ("network", "task"):
        named = content[part].get("name") if isinstance(content.get(part), Mapping) else None
        if overrides.get(f"{part}.name", named) != named:
            content[part] = {}  # the options of one network or task mean nothing to another
    adapted = content.get("adaptation")
    if isinstance(adapted, Mapping) and overrides.get("adaptation.method", adapted.get("method")) != adapted.get(
        "method"
    ):
        content["adaptation"] = {}  # nor do those of a method
    optimizer = content.get("optimizer")
    if isinstance(optimizer, Mapping) and overrides.get("optimizer.name", optimizer.get("name")) != optimizer.get(
        "name"
    ):
        content["optimizer"] = {key: value for key, value in optimizer.items() if key != "arguments"}  # nor do these
    for key, value in overrides.items():
        _set(content, key.split("."), value)
    return content


def _gather(
    content: dict[str, Any],
    kind: str,
    passed_on: Mapping[str, Any],
    asked: Mapping[str, Any],
    trust_code: bool,
    inside: tuple[str, ...],
) -> None:
    """Make members or stages whole recipes.

    Each is the name of a recipe, or keys and values: those of ``recipe``, or else of the whole, with what they change.

    Parameters
    ----------
    content
        Of the whole recipe; its list is replaced.
    kind
        members or stages.
    passed_on
        What those that are named inherit, by dotted key, unless they say otherwise.
    asked
        What the user asks of all of them, whatever they say.
    trust_code
        Whether files that they name may name code.
    inside
        The recipes that this one is part of.
    """
    where = f"recipe {content['name']}"
    if not isinstance(content[kind], list):
        raise RecipeError(f"{where}: {kind} is a list of recipes; got {content[kind]!r}")
    if kind == "stages" and "task.name" in asked:
        raise RecipeError(f"{where}: each of its stages has a task of its own; task.name cannot be given for all")
    whole = {key: value for key, value in content.items() if key not in ("members", "stages")}
    of_tasks = {key: value for key, value in asked.items() if key.startswith("task.") and key != "task.name"}
    inherited = {key: value for key, value in passed_on.items() if key.partition(".")[0] not in _OF_THE_WHOLE}
    if kind == "stages":  # each has a task of its own
        inherited = {key: value for key, value in inherited.items() if not key.startswith("task.")}
    inherited.pop("task.name", None)
    of_methods = {key: value for key, value in asked.items() if key.startswith("adaptation.") and kind == "stages"}
    asked = {key: value for key, value in asked.items() if key.partition(".")[0] not in (*_OF_THE_WHOLE, "task")}
    asked = {key: value for key, value in asked.items() if key not in of_methods}
    made: list[dict[str, Any]] = []
    known: set[str] = set()
    for part in content[kind]:
        own = _current(part) if isinstance(part, Mapping) else {"recipe": str(part)}
        if kind == "members" and "data" in own:
            raise RecipeError(f"{where}: its members learn from the same data; only stages have data of their own")
        data = {"data": str(own.pop("data"))} if "data" in own else {}
        name, given = own.pop("recipe", None), _flat(own) | asked
        if name is None:
            recipe = recipe_from(overridden(whole, given), content["name"])
        else:
            recipe = load_recipe(str(name), inherited | given, trust_code=trust_code, _inside=inside)
        options = options_of(type(recipe.make_task()))
        fitting = {key: value for key, value in of_tasks.items() if key.split(".")[1] in options}
        fitting |= of_methods if recipe.adaptation else {}
        recipe = recipe_from(overridden(dataclasses.asdict(recipe), fitting), recipe.name)
        known |= set(options)
        if recipe.members or recipe.stages:
            raise RecipeError(f"{where}: {recipe.name} is made of others itself, and cannot be one of its {kind}")
        if kind == "members" and recipe.task["name"] != _name_of(whole.get("task"), made, recipe):
            raise RecipeError(f"{where}: {recipe.name} cannot be a member: its task is {recipe.task['name']}")
        made.append(dataclasses.asdict(recipe) | data)
    if unknown := {key.split(".")[1] for key in of_tasks} - known:
        raise RecipeError(f"{where}: {unknown_key(min(unknown), sorted(known), 'task.')}")
    if of_methods and not any(part["adaptation"] for part in made):
        raise RecipeError(f"{where}: {min(of_methods)}: none of its stages has an adaptation")
    if kind == "stages":  # what comes out is the last
        content |= {part: made[-1][part] for part in ("task", "network", "preprocessing", "adaptation")}
    content.setdefault("task", made[0]["task"])
    content[kind] = made


def _name_of(task: Any, made: list[dict[str, Any]], recipe: Recipe) -> str:
    """The name of the task of an ensemble: what it says itself, or else that of its first member."""
    if isinstance(task, Mapping) and "name" in task:
        return str(task["name"])
    return str(made[0]["task"]["name"] if made else recipe.task["name"])


def _beside(parts: Any, folder: Path) -> Any:
    """Members or stages, with recipe files that they name looked for in a folder."""

    def located(part: Any) -> Any:
        if isinstance(part, str) and part.endswith((".yaml", ".yml")):
            return str(folder / part)
        return part | {"recipe": located(part["recipe"])} if isinstance(part, dict) and "recipe" in part else part

    return [located(part) for part in parts] if isinstance(parts, list) else parts


def _flat(content: Mapping[str, Any]) -> dict[str, Any]:
    """Its values by dotted key, as overrides are; nothing of a part without keys."""
    flat: dict[str, Any] = {}
    parts = {each.name for each in dataclasses.fields(Recipe)}
    for key, value in content.items():
        if isinstance(value, dict) and (value or key in parts):
            flat |= {f"{key}.{inner}": v for inner, v in value.items()}
        else:
            flat[str(key)] = value
    return flat


def recipe_from(content: Mapping[str, Any], where: str) -> Recipe:
    """Return a recipe from its content, without running code that it names; ``where`` names it in errors.

    Raises
    ------
    RecipeError
        If a key is unknown, or a value is not of its type.
    """
    content = {key: value for key, value in _current(content).items() if key != "data"}
    if isinstance(content.get("network"), Mapping):
        content["network"] = {"name": "compact"} | dict(content["network"])
    named = f"recipe {where}"
    try:
        recipe = Recipe(**typed_arguments(Recipe, content, where=named, prefix="", error=RecipeError))
    except RecipeError as error:
        raise RecipeError(f"{named}: {str(error).removeprefix(f'{named}: ')}") from error
    if not is_reference(recipe.task["name"]):
        recipe.make_task()
    return recipe


def _builtin(name: str) -> dict[str, Any]:
    if name not in recipe_names():
        same = [full for full in recipe_names() if short_name(full) == name]
        near = same or difflib.get_close_matches(name, recipe_names(), 1)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise RecipeError(f"no recipe {name!r}.{hint} There are {', '.join(recipe_names())}; your own is a .yaml file")
    content: dict[str, Any] = yaml.safe_load((RECIPES / f"{name}.yaml").read_text("utf-8"))
    return content


def _located(content: Any, folder: Path) -> Any:
    """The same keys and values with code that they name looked for in a folder."""

    def located(reference: str) -> str:
        preset = "preset:" if reference.startswith("preset:") else ""
        return preset + os.path.normpath(folder / reference.removeprefix(preset))

    return with_references(content, located)


def _set(content: dict[str, Any], keys: list[str], value: Any) -> None:
    part = content
    for key in keys[:-1]:
        inner = part.get(key) or {}
        if not isinstance(inner, Mapping):
            raise RecipeError(f"recipe {content.get('name', '')}: {key} holds keys and values; got {inner!r}")
        part[key] = part = dict(inner)
    part[keys[-1]] = value
