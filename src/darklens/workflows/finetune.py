"""Go on training a trained model on other images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darklens.data.layouts import open_with
from darklens.data.options import DataOptions
from darklens.data.splits import ensure_split
from darklens.errors import ModelError
from darklens.inference.carried import trusted_config
from darklens.inference.config import read_config
from darklens.inference.shipped import model_folder
from darklens.tasks.options import OptimizerOptions
from darklens.training.job import Job
from darklens.training.recipe import Recipe, overridden, recipe_from
from darklens.training.train import resume as resume_training
from darklens.training.train import train

EPOCHS, SLOWER = 5, 0.2
"""Epochs, and the factor on the learning rate, unless they are given."""


def finetune(
    start: str,
    data: str,
    out: Path,
    *,
    seed: int = 0,
    options: DataOptions = DataOptions(),
    overrides: Mapping[str, Any] | None = None,
    resume: bool = False,
    trust_code: bool = False,
) -> Path:
    """Train a model's own recipe further, from its weights, on other images; return the run.

    Parameters
    ----------
    start
        The name of a shipped model, a run folder, or a model folder.
    data
        A path in any layout, or ``preset:NAME``.
    out
        The run folder to make.
    seed
        Of order, augmentation and split.
    options
        How a path is read.
    overrides
        Values of the recipe, by dotted key.
    resume
        Continue a fine-tuning that was interrupted, if there is one in ``out``.
    trust_code
        Whether code may run that the model, or a preset in YAML, names.
    """
    recipe = finetuning_recipe(start, overrides or {}, trust_code=trust_code)
    if not data.startswith("preset:"):
        training = int((ensure_split(open_with(data, options).catalog, seed)["split"] == "train").sum())
        recipe = with_fitting_batch(recipe, training)
    job = Job(recipe, data, seed, options, start=str(start))
    if resume and (out / "run.json").is_file():
        return resume_training(out, job, trust_code=trust_code)
    return train(job, out, trust_code=trust_code)


def with_fitting_batch(recipe: Recipe, images: int) -> Recipe:
    """Return the recipe with batches that are no larger than the number of training images, a power of two if smaller."""
    batch = min(recipe.trainer.batch_size, 1 << (max(1, images).bit_length() - 1))
    return dataclasses.replace(recipe, trainer=dataclasses.replace(recipe.trainer, batch_size=batch))


def finetuning_recipe(start: str, overrides: Mapping[str, Any], *, trust_code: bool = False) -> Recipe:
    """Return the recipe that a model was trained with, made gentle: few epochs, a low learning rate, nothing frozen.

    Raises
    ------
    ModelError
        If the model is an ensemble.
    UntrustedCodeError
        If it names code, and ``trust_code`` is not set.
    """
    folder = model_folder(start)
    config = read_config(folder)
    if config.members:
        raise ModelError(f"{start}: an ensemble cannot be trained further; start from one of its members")
    content = dict(trusted_config(config, folder, trust_code, training=True).recipe)
    for part in ("optimizer", "trainer", "network"):
        if not isinstance(content.get(part), dict):
            raise ModelError(f"{folder / 'config.json'}: its recipe has no {part}; it cannot be trained further")
    content["optimizer"] = content["optimizer"] | {"lr": content["optimizer"].get("lr", OptimizerOptions.lr) * SLOWER}
    content["trainer"] = content["trainer"] | {"epochs": EPOCHS, "unfreezing": "none", "frozen": 0.0, "minutes": None}
    random = {name: value for name, value in content["network"].items() if name not in ("pretrained", "weights")}
    content |= {"network": random, "members": [], "stages": [], "adaptation": {}}
    return recipe_from(overridden(content, overrides), f"of {start}")
