"""Go on training a trained model on other images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darklens.data.layouts import open_data
from darklens.data.splits import ensure_split
from darklens.errors import ModelError
from darklens.inference.model import read_config
from darklens.inference.shipped import model_folder
from darklens.paths import check_absent
from darklens.training.job import Job
from darklens.training.recipe import Recipe, recipe_from
from darklens.training.train import train

EPOCHS, SLOWER = 5, 0.2
"""Epochs, and the factor on the learning rate, unless they are given."""


def finetune(
    start: str,
    data: str,
    out: Path,
    seed: int = 0,
    layout: str | None = None,
    catalog: str | None = None,
    mask: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> Path:
    """Train a model's own recipe further, from its weights, on ``data``; returns the run."""
    check_absent(out)
    recipe = finetuning_recipe(start, overrides or {})
    if not data.startswith("preset:"):
        cutouts = open_data(Path(data), layout, Path(catalog) if catalog else None)
        training = int((ensure_split(cutouts.catalog, seed)["split"] == "train").sum())
        fitting = 1 << (max(1, training).bit_length() - 1)
        batch = min(recipe.trainer.batch_size, fitting)
        recipe = dataclasses.replace(recipe, trainer=dataclasses.replace(recipe.trainer, batch_size=batch))
    return train(Job(recipe, data, seed, layout, catalog, mask, start=str(start)), out)


def finetuning_recipe(start: str, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe that a model was trained with, made gentle: few epochs, a low learning rate, nothing frozen."""
    config = read_config(model_folder(start))
    if config.members:
        raise ModelError(f"{start}: an ensemble cannot be trained further; start from one of its members")
    content = dict(config.recipe)
    content["optimizer"] = content["optimizer"] | {"lr": content["optimizer"]["lr"] * SLOWER}
    content["trainer"] = content["trainer"] | {"epochs": EPOCHS, "unfreezing": "none", "max_minutes": None}
    content["network"] = content["network"] | {"pretrained": None, "weights": None}
    for key, value in overrides.items():
        part, _, name = key.partition(".")
        content[part] = content[part] | {name: value} if name else value
    return recipe_from(content, f"of {start}")
