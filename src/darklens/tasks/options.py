"""What a recipe may say of optimiser and schedule. No PyTorch here, nor names of it: the command line reads the types."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from darklens.errors import RecipeError
from darklens.usercode import is_reference

OPTIMIZERS = ("Adam", "AdamW", "SGD", "Muon")


@dataclass(frozen=True)
class OptimizerOptions:
    """The optimiser.

    Parameters
    ----------
    name
        Adam, AdamW, SGD, Muon, or your own as my_optimizer.py:Class; Muon (Jordan et al. 2024) orthogonalises the steps of
        weight matrices and leaves the rest to AdamW.
    lr
        Peak learning rate.
    weight_decay
        Decay of weights; biases and norms are spared.
    arguments
        More arguments of the optimiser.
    """

    name: str = "AdamW"
    lr: float = 1e-3
    weight_decay: float = 0.0
    arguments: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in OPTIMIZERS and not is_reference(self.name):
            known = ", ".join(OPTIMIZERS)
            raise RecipeError(f"optimizer.name is {self.name!r}; there are {known}, and your own as my_file.py:Class")
        if self.lr <= 0:
            raise RecipeError(f"optimizer.lr must be above zero; got {self.lr}")


@dataclass(frozen=True)
class ScheduleOptions:
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
    step_parts
        Equal parts of the training, whatever its length in epochs or minutes, between which there are steps; in place of
        step_epochs.
    """

    name: Literal["cosine", "step", "constant"] = "cosine"
    warmup: float = 0.1
    step_epochs: int = 8
    step_factor: float = 0.1
    step_parts: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.warmup <= 1:
            raise RecipeError(f"schedule.warmup is a fraction, from 0 to 1; got {self.warmup}")
        if self.step_epochs < 1:
            raise RecipeError(f"schedule.step_epochs must be at least 1; got {self.step_epochs}")
        if self.step_parts is not None and self.step_parts < 2:
            raise RecipeError(
                f"schedule.step_parts must be at least 2, with a step between them; got {self.step_parts}"
            )
