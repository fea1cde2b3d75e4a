"""Recipes: a network, a loss, an optimiser, a schedule, preprocessing and augmentation, under one name. No PyTorch here.

A recipe is a YAML file; every value can be overridden on the command line. Adding a system whose parts exist is adding
a file to ``darklens/recipes``.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_type_hints

import yaml

from darklens.errors import RecipeError
from darklens.paths import read_yaml
from darklens.usercode import check_trusted, is_reference

RECIPES = resources.files("darklens.recipes")


@dataclass(frozen=True)
class NetworkConfig:
    """The network.

    Parameters
    ----------
    name
        compact, timm, or your own as my_network.py:Class.
    architecture
        timm's name of the backbone.
    pretrained
        Start from timm's ImageNet weights, fetched once.
    weights
        A local file of such weights instead.
    dropout
        Dropout before the last layer.
    head
        linear, normalized or hidden, in place of timm's own.
    arguments
        More arguments of timm's model.
    widths
        Channels of each stage (compact, equivariant).
    blocks
        Residual blocks (compact) or layers (cbam-densenet) of each stage.
    growth
        Channels that a layer adds (cbam-densenet).
    group
        C4, D4, C8 or D8 (equivariant).
    """

    name: str = "compact"
    architecture: str | None = None
    pretrained: bool | None = None
    weights: str | None = None
    dropout: float | None = None
    head: Literal["linear", "normalized", "hidden"] | None = None
    arguments: dict[str, Any] | None = None
    widths: list[int] | None = None
    blocks: list[int] | None = None
    growth: int | None = None
    group: str | None = None

    def options(self) -> dict[str, Any]:
        """Arguments of the network that are set."""
        return {
            f.name: v for f in dataclasses.fields(self) if f.name != "name" and (v := getattr(self, f.name)) is not None
        }


@dataclass(frozen=True)
class PreprocessingConfig:
    """From detector to network.

    Parameters
    ----------
    crop
        Side of the central square that is kept, pixels.
    stretch
        How brightness is scaled.
    resize
        Side to which the image is interpolated, pixels.
    repeat_channels
        Repeat one channel for weights that ask for three.
    lens_model
        Fit a smooth lens to every image, and let the network see what it leaves.
    lens_band
        Of images of several bands, the one that the lens is fitted to: its name, its number from 0, or sum.
    """

    crop: int | None = None
    stretch: Literal["none", "sqrt", "asinh", "minmax"] = "sqrt"
    resize: int | None = None
    repeat_channels: int = 1
    lens_model: bool = False
    lens_band: str | None = None


@dataclass(frozen=True)
class LossConfig:
    """A phase of the loss of a classification.

    Parameters
    ----------
    name
        cross-entropy, or focal (Lin et al. 2017), which weighs hard images more.
    label_smoothing
        Share of the probability that is spread over all classes.
    from_epoch
        The first epoch of this phase; epochs count from 1.
    """

    name: Literal["cross-entropy", "focal"] = "cross-entropy"
    label_smoothing: float = 0.0
    from_epoch: int = 1


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser.

    Parameters
    ----------
    name
        Which one; Muon (Jordan et al. 2024) orthogonalises the steps of weight matrices and leaves the rest to AdamW.
    lr
        Peak learning rate.
    weight_decay
        Decay of weights; biases and norms are spared by AdamW.
    """

    name: Literal["Adam", "AdamW", "SGD", "Muon"] = "AdamW"
    lr: float = 1e-3
    weight_decay: float = 0.0


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over time.

    Parameters
    ----------
    name
        cosine (after a linear warm-up), step, or constant.
    warmup
        Fraction of all steps over which the rate rises.
    step_epochs
        Epochs between steps.
    step_factor
        Factor of each step.
    """

    name: Literal["cosine", "step", "constant"] = "cosine"
    warmup: float = 0.1
    step_epochs: int = 8
    step_factor: float = 0.1


@dataclass(frozen=True)
class TrainerConfig:
    """How long, and on what.

    Parameters
    ----------
    epochs
        How often the training images are gone through, or --trainer.epoch_images of them.
    batch_size
        Images in a step, over all devices.
    precision
        Lightning's precision; auto takes bfloat16 where the hardware computes in it.
    max_minutes
        Stop after this long.
    patience
        Stop after this many epochs without a better validation result.
    ema
        Decay of an exponential moving average of the weights, which is then what is evaluated.
    gradient_clip
        Largest norm of a gradient.
    unfreezing
        sections: train the head first, then unfreeze section after section, each for epochs in proportion to its size.
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
    max_minutes: float | None = None
    patience: int | None = None
    ema: float | None = None
    gradient_clip: float | None = None
    unfreezing: Literal["none", "sections"] = "none"
    keep_every: int | None = None
    epoch_images: int | None = None
    workers: int = 0
    devices: str = "auto"
    nodes: int = 1
    accelerator: str = "auto"
    strategy: str = "auto"
    compile: bool = False


@dataclass(frozen=True)
class Recipe:
    """A training recipe.

    Parameters
    ----------
    name
        Where it is in the library.
    task
        classify or regress.
    description
        What it is.
    source
        The published system that it follows.
    differs
        How it differs from its source.
    target
        The catalogue column to regress; a mass is taken in log10.
    network
        The network.
    preprocessing
        From detector to network.
    augmentation
        Random symmetries of the square.
    loss
        Phases of the loss of a classification, in order.
    optimizer
        The optimiser.
    schedule
        The learning rate over time.
    trainer
        How long, and on what.
    members
        Recipes that are trained one by one and then averaged; the rest of this recipe is then only theirs to inherit.
    """

    name: str
    task: Literal["classify", "regress"]
    description: str = ""
    source: str = ""
    differs: str = ""
    target: str | None = None
    network: NetworkConfig = field(default_factory=NetworkConfig)
    preprocessing: PreprocessingConfig = field(default_factory=PreprocessingConfig)
    augmentation: Literal["dihedral", "flips", "none"] = "dihedral"
    loss: list[LossConfig] = field(default_factory=lambda: [LossConfig()])
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    members: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.task == "regress" and not self.target:
            raise RecipeError(f"recipe {self.name}: a regression needs a target, the catalogue column to learn")
        for name in ("epochs", "batch_size", "epoch_images"):
            if (number := getattr(self.trainer, name)) is not None and number < 1:
                raise RecipeError(f"recipe {self.name}: trainer.{name} must be at least 1")
        starts = [phase.from_epoch for phase in self.loss]
        if not starts or starts[0] != 1 or starts != sorted(set(starts)):
            raise RecipeError(
                f"recipe {self.name}: phases of the loss begin at epoch 1 and go on in order; got {starts}"
            )
        if self.optimizer.lr <= 0:
            raise RecipeError(f"recipe {self.name}: optimizer.lr must be above zero; got {self.optimizer.lr}")


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


def load_recipe(name: str, overrides: Mapping[str, Any] | None = None, *, trust_code: bool = False) -> Recipe:
    """Return a recipe by name or from a user's YAML file, with dotted overrides such as ``{"trainer.epochs": 5}``.

    A file may say ``extends: substructure/darklens`` and then only what it changes. A network of one's own that it names
    is looked for in its folder.

    Parameters
    ----------
    name
        A name of `recipe_names`, or a YAML file.
    overrides
        Values that take the place of the recipe's, by dotted key.
    trust_code
        Whether code that a YAML file names may run. Code that ``overrides`` name may.

    Raises
    ------
    RecipeError
        If it does not exist, a key is misspelt, or a value is not of its type.
    UntrustedCodeError
        If a YAML file names code and ``trust_code`` is not set.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        own = read_yaml(path, RecipeError, "extends: substructure/darklens")
        content = _builtin(str(own.pop("extends"))) if "extends" in own else {}
        content["name"] = path.stem
        own = _flat(own)
        if is_reference(own.get("network.name")) and "network.name" not in (overrides or {}):
            own["network.name"] = str(path.parent / own["network.name"])
            check_trusted(own["network.name"], name, trust_code)
        overrides = own | dict(overrides or {})
    else:
        content = {"name": name} | _builtin(name)
    overrides = dict(overrides or {})
    network = content.get("network") or {}
    if overrides.get("network.name", network.get("name")) != network.get("name"):
        content["network"] = {}  # the options of one network mean nothing to another
    for key, value in overrides.items():
        _set(content, key.split("."), value)
    if content.get("members"):
        _gather(content, trust_code)
    return recipe_from(content, name)


def check_recipe_trusted(recipe: Recipe, named_in: str, trust_code: bool) -> None:
    """Refuse a recipe that was read from a run's or a model's record and names code, unless the user trusts it.

    Raises
    ------
    UntrustedCodeError
        If it names code, itself or in a member, and ``trust_code`` is not set.
    """
    for name in (recipe.network.name, *(member["network"]["name"] for member in recipe.members)):
        if is_reference(name):
            check_trusted(name, named_in, trust_code)


def changes(recipe: Recipe) -> dict[str, Any]:
    """Return the values in which a recipe differs from the library's of the same name, by dotted key."""
    network = {"network.name": recipe.network.name}
    if network["network.name"] == load_recipe(recipe.name).network.name:
        network = {}
    own, library = (_flat(dataclasses.asdict(r)) for r in (recipe, load_recipe(recipe.name, network)))
    return network | {k: v for k, v in own.items() if v != library[k] and k not in ("members", "loss")}


_OF_THE_WHOLE = ("name", "task", "description", "source", "differs", "members")


def _gather(content: dict[str, Any], trust_code: bool) -> None:
    """Members by name become whole recipes, which inherit what else the ensemble's recipe says."""
    inherited = _flat({key: value for key, value in content.items() if key not in _OF_THE_WHOLE})
    members = [load_recipe(str(member), inherited, trust_code=trust_code) for member in content["members"]]
    if odd := [m.name for m in members if m.task != content.get("task") or m.members]:
        raise RecipeError(f"recipe {content['name']}: {odd[0]} cannot be a member: another task, or an ensemble itself")
    content["members"] = [dataclasses.asdict(member) for member in members]


def _flat(content: Mapping[str, Any]) -> dict[str, Any]:
    """Its values by dotted key, as overrides are."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= {f"{key}.{inner}": v for inner, v in value.items()} if isinstance(value, dict) else {str(key): value}
    return flat


def recipe_from(content: Mapping[str, Any], where: str) -> Recipe:
    """A recipe from its content; ``where`` names it in errors."""
    from jsonargparse import ArgumentError, ArgumentParser, Namespace

    # Members are whole recipes already; and the parser changes what it is given.
    members = content.get("members", [])
    content = copy.deepcopy({key: value for key, value in content.items() if key != "members"})
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Recipe, "recipe")
    try:
        parsed = parser.parse_object(Namespace({"recipe": _unknown_refused(Recipe, content, where)}))
    except ArgumentError as error:
        raise RecipeError(f"recipe {where}: {_readable(str(error))}") from error
    recipe: Recipe = parser.instantiate_classes(parsed).recipe
    return dataclasses.replace(recipe, members=list(members))


def _unknown_refused(kind: type, content: Mapping[str, Any], where: str, prefix: str = "") -> dict[str, Any]:
    """The content, if all its keys are those of the dataclass and of the dataclasses inside."""
    hints = get_type_hints(kind)
    for key, value in content.items():
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, 1)
            hint = f"; did you mean {prefix}{near[0]}?" if near else f"; it takes {', '.join(hints)}"
            raise RecipeError(f"recipe {where}: unknown key {prefix}{key}{hint}")
        if dataclasses.is_dataclass(hints[key]) and isinstance(value, Mapping):
            _unknown_refused(hints[key], value, where, f"{prefix}{key}.")
    return dict(content)


def _readable(message: str) -> str:
    """The parser's message without the prefix that only this module knows."""
    lines = [line.strip() for line in message.replace("recipe.", "").splitlines() if line.strip()]
    return " ".join(lines)


def _builtin(name: str) -> dict[str, Any]:
    if name not in recipe_names():
        same = [full for full in recipe_names() if short_name(full) == name]
        near = same or difflib.get_close_matches(name, recipe_names(), 1)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise RecipeError(f"no recipe {name!r}.{hint} There are {', '.join(recipe_names())}; your own is a .yaml file")
    content: dict[str, Any] = yaml.safe_load((RECIPES / f"{name}.yaml").read_text("utf-8"))
    return content


def _set(content: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        inner = content.get(key) or {}
        if not isinstance(inner, Mapping):
            raise RecipeError(f"recipe {content.get('name', '')}: {key} holds keys and values; got {inner!r}")
        content[key] = content = dict(inner)
    content[keys[-1]] = value
