"""Optimisers and schedules of the learning rate, by the names that recipes call them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from darklens.data.augmentation import Augmentation
from darklens.errors import RecipeError
from darklens.tasks.options import OptimizerOptions, ScheduleOptions
from darklens.usercode import is_reference, load_function


@dataclass(frozen=True)
class LearningOptions:
    """How a network is trained: what every task shares.

    Parameters
    ----------
    optimizer, schedule
        The optimiser, and its learning rate over time.
    augmentation
        Random symmetries of the square.
    seed
        Of augmentation, dropout and whatever else is random in an epoch.
    unfreezing
        Whether sections of the network are unfrozen one after the other.
    frozen
        Epochs in which the head alone is trained; below 1, a fraction of all epochs.
    """

    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    augmentation: Augmentation = "none"
    seed: int = 0
    unfreezing: bool = False
    frozen: float = 0.0


def make_optimizer(options: OptimizerOptions, network: nn.Module) -> torch.optim.Optimizer:
    """Return an optimiser of a network's parameters; weight decay spares biases and norms.

    A user's own optimiser is called with groups of parameters and ``lr``.
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    try:
        return _optimizer(options, groups)
    except TypeError as error:
        raise RecipeError(f"optimizer {options.name} cannot be made of {options.arguments}: {error}") from error


def _optimizer(options: OptimizerOptions, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    arguments = dict(options.arguments)
    if is_reference(options.name):
        made: torch.optim.Optimizer = load_function(options.name)(groups, lr=options.lr, **arguments)
        return made
    if options.name == "Muon":
        from darklens.tasks.muon import Muon

        return Muon(groups, lr=options.lr, **arguments)
    if options.name == "SGD":
        return torch.optim.SGD(groups, lr=options.lr, **{"momentum": 0.9, "nesterov": True} | arguments)
    kind = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}[options.name]
    return kind(groups, lr=options.lr, **{"foreach": True} | arguments)


def learning_rate_factor(options: ScheduleOptions, epochs: int) -> Callable[[float, float], float]:
    """Return the factor on the peak learning rate.

    Parameters
    ----------
    options
        The schedule.
    epochs
        Epochs of the whole training.

    Returns
    -------
    Callable
        From the share of the training, of its steps or its time, that is done when a step begins, and the share that the
        step takes, to a factor from 0 to 1.
    """

    def cosine(done: float, step: float) -> float:
        warmup = max(options.warmup, step)
        if done < warmup:
            return min(1.0, (done + step) / warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (done - warmup) / max(step, 1 - warmup))))

    def stepped(done: float, step: float) -> float:
        # A product of fractions may end just below a whole number.
        if options.step_parts is not None:
            part = min(math.floor(done * options.step_parts + 1e-9), options.step_parts - 1)
            return float(options.step_factor**part)
        epoch = math.floor(done * epochs + 1e-9)
        return float(options.step_factor ** (epoch // options.step_epochs))

    return {"cosine": cosine, "step": stepped, "constant": lambda done, step: 1.0}[options.name]
