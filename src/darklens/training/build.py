"""From a recipe and its data to the Lightning module that is to be fitted."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import seed_everything
from torch import nn

from darklens.data.preprocessing import Preprocessing
from darklens.errors import DarklensError, ModelError, RecipeError
from darklens.inference.carried import carries_only
from darklens.inference.model import load_model
from darklens.inference.shipped import model_folder
from darklens.models.encoders import load_encoder
from darklens.models.registry import build_network, has_learned_weights, network_arguments
from darklens.tasks.optimization import LearningOptions
from darklens.training.recipe import Recipe, own_code
from darklens.training.training_data import TrainingData

if TYPE_CHECKING:
    from darklens.tasks.supervised import SupervisedModule


def check_networks(recipe: Recipe) -> None:
    """Check the options of a recipe's network, or of those of its members or stages, against their own signatures.

    Raises
    ------
    RecipeError
        If an option is misspelt or not of its type.
    """
    for part in recipe.parts():
        network_arguments(part.network["name"], part.network_options, f"recipe {part.name}", RecipeError)


def build_module(
    recipe: Recipe, data: TrainingData, start: str | None = None, *, trust_code: bool = False
) -> SupervisedModule:
    """Build the Lightning module of a recipe, its preprocessing fitted to training images.

    Parameters
    ----------
    recipe
        What is to be trained.
    data
        On what. Its notes say so if sections are not unfrozen one after the other because all weights are random.
    start
        A trained model whose weights the network starts from; what it has seen is added to the description of the data.
    trust_code
        Whether code that ``start`` names may run.

    Returns
    -------
    SupervisedModule
        What the recipe's task makes of network, preprocessing and options.

    Raises
    ------
    RecipeError, ModelError
        If an option of the network is misspelt, it cannot take the images, or weights do not fit.
    """
    options = network_arguments(recipe.network["name"], recipe.network_options, f"recipe {recipe.name}", RecipeError)
    chosen = dataclasses.asdict(recipe.preprocessing) | {"lens_band": _lens_band(recipe, data)}
    preprocessing = Preprocessing(**chosen).fit(data.sample, data.sample_noise)
    shape = preprocessing.output_shape(data.shape)
    seed_everything(data.seed, verbose=False)
    features = 0 if data.encoder is None else len(data.encoder.features)
    network = build_network(recipe.network["name"], shape[0], data.task.outputs, options, catalog_features=features)
    _check_takes(network, shape, recipe.name, features)
    if start is not None:
        own = carries_only(model_folder(start), own_code(recipe))
        only_encoder = not data.task.pretrains
        data.description["also"] = [_load_weights_of(network, start, trust_code or own, only_encoder=only_encoder)]
    network = network.to(memory_format=torch.channels_last)
    if recipe.trainer.compile:
        network.compile()
    unfreezing = recipe.trainer.unfreezing == "sections"
    if unfreezing and start is None and not has_learned_weights(recipe.network["name"], options):
        unfreezing = False
        data.notes.append(
            "trainer.unfreezing: the network begins with random weights, so all are trained from the start"
        )
    frozen = recipe.trainer.frozen
    if frozen and start is None and not has_learned_weights(recipe.network["name"], options):
        frozen = 0.0
        data.notes.append(
            "trainer.frozen: the network begins with random weights, so all are trained from the start; --start RUN gives "
            "it those of a pre-trained encoder"
        )
    learning = LearningOptions(
        recipe.optimizer,
        recipe.schedule,
        augmentation=recipe.augmentation,
        seed=data.seed,
        unfreezing=unfreezing,
        frozen=frozen,
    )
    if (method := recipe.method) is not None:
        adapting = method.module(data.task, network, preprocessing, options=learning)
        adapting.target = None if data.target is None else data.target.images
        adapting.source_sample = data.sample
        return adapting
    module: SupervisedModule = data.task.module(network, preprocessing, learning)  # type: ignore[assignment]
    return module


def _check_takes(network: nn.Module, shape: tuple[int, int, int], name: str, features: int) -> None:
    """Raise a ModelError if a network cannot take an image of a shape (C, H, W): many are made for one size."""
    beside = [torch.zeros(1, features)] if features else []
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, *shape), *beside)
    except (DarklensError, MemoryError):
        raise
    except Exception as error:  # of a user's own network, any
        channels, height, width = shape
        raise ModelError(
            f"recipe {name}: its network cannot take images of {channels} channels and {height}×{width} pixels "
            f"{f'with {features} inputs from the catalogue ' if features else ''}"
            f"({type(error).__name__}: {error}). --preprocessing.crop and --preprocessing.resize change their size; "
            "networks that are made for one size have an option for it, such as img_size in --network.arguments"
        ) from error
    network.train()


def _lens_band(recipe: Recipe, data: TrainingData) -> int | None:
    """The channel that the lens is fitted to; None for the sum of all."""
    channels, chosen = data.shape[0], recipe.preprocessing.lens_band
    if chosen in (None, "sum"):
        return 0 if channels == 1 else None
    wanted = str(chosen)
    names = data.bands or [str(number) for number in range(channels)]
    if wanted not in names:
        raise RecipeError(f"--preprocessing.lens_band {wanted}: the images have bands {', '.join(names)}; or say sum")
    return names.index(wanted)


def _load_weights_of(network: nn.Module, start: str, trust_code: bool, *, only_encoder: bool) -> dict[str, Any]:
    """Load all weights of a trained model that fit; the last layer is new if the classes are others.

    Of a model that was pre-trained for other tasks, ``only_encoder`` loads the encoder alone. Returns what that model
    remembers of its data.
    """
    trained = load_model(start, trust_code=trust_code)
    if len(trained.members) > 1:
        raise ModelError(f"{start}: an ensemble cannot be trained further; start from one of its members")
    if only_encoder and trained.task.pretrains:
        load_encoder(network, trained.network, start)
        return trained.config.data
    own, given = network.state_dict(), trained.network.state_dict()
    fitting = {name: tensor for name, tensor in given.items() if name in own and own[name].shape == tensor.shape}
    others = [name for name in own if name not in fitting]
    # Another number of outputs changes the first axis of the last layer's weight and bias, and nothing else.
    if len(others) > 2 or any(name not in given or own[name].shape[1:] != given[name].shape[1:] for name in others):
        odd = others[0]
        raise ModelError(
            f"{start}: its weights do not fit this recipe's network ({odd} is of another shape, or missing)"
        )
    network.load_state_dict(own | fitting)
    return trained.config.data
