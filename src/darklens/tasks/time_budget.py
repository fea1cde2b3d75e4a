"""Keep a training to a time: epochs end by the clock, and schedules follow the share of the time that is used."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from statistics import median, median_low
from tempfile import TemporaryFile
from time import perf_counter
from typing import Any, TypeVar

import torch
from lightning.pytorch import Callback, Trainer

from darklens.data.batches import Batch

Value = TypeVar("Value")

VALIDATION_SHARE = 0.2
"""Largest share of the time that validation may take: with less, fast networks would be validated too seldom."""
RECENT_STEPS = 5
"""Steps whose median is the length of the next. The first of a process warm up, and those after it may fit lenses that
later ones find done."""
RECENT_VALIDATIONS = 3
"""Validations whose median is the length of the next: one that another program slowed down says nothing of the others."""

KEPT = 6
"""How many times the weights are written after a validation: checkpoints of the best and of the last epoch, each with
the two moments that Adam has of them. Only the first epoch depends on it; after that the time is measured."""


class TimeBudget(Callback):
    """The time of a training: how much of it is used, and when its epochs end.

    Epochs are equal shares of the time, or fewer and longer if validation would take more than `VALIDATION_SHARE`. An epoch
    has as many steps as fit before its validation, one at least. Of several processes the first one's clock is all
    processes'.

    Parameters
    ----------
    seconds
        All of the time: preparation, steps and validation.
    epochs
        Into how many shares it is divided.
    started
        Of `time.perf_counter`: when it began.
    """

    def __init__(self, seconds: float, epochs: int, started: float):
        self.seconds, self.epochs = seconds, epochs
        self.share = 0.0
        """Share of the time for steps that is used, from 0 to 1."""
        self.step_share = 1e-3
        """That of one step; before the first, a guess."""
        self.is_last_epoch = False
        self._started, self._before = started, 0.0
        self._trainer: Trainer | None = None
        self._steps: deque[float] = deque(maxlen=RECENT_STEPS)
        self._stepping, self._first_validation = 0.0, 0.0
        self._validations_took: deque[float] = deque(maxlen=RECENT_VALIDATIONS)
        self._mark = 0.0  # when the last step, or else the epoch, began
        self._validating: float | None = None  # since when, or when the last time
        self._end = seconds
        self._validations = 1  # still to come, that of this epoch included
        self._pending = 0  # batches that were handed out and not trained on
        self._is_over = False
        self._passes = 0

    def elapsed(self) -> float:
        """Return the seconds used so far, earlier attempts included."""
        return self._before + perf_counter() - self._started

    def batches(self, loader: Any) -> Iterable[Batch]:
        """Return an epoch's batches each time that they are gone through, from passes over a loader without end."""
        return _TimedBatches(self, loader)

    def is_time_left(self) -> bool:
        """Take a look at the clock; return whether another step fits before the epoch's validation."""
        step = self._step()
        fits = self._mark + (self._pending + 0.5) * step <= self._end - self._validation()
        steps_left = max(0.0, self.seconds - self.elapsed() - self._validations * self._validation())
        every = self._stepping + steps_left
        share, of_step = (self._stepping / every, step / every) if every > 0 and step > 0 else (0.0, self.step_share)
        fits, self.share, self.step_share = self._first_process((fits, share, of_step))
        return fits

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._trainer = trainer

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        if self._is_over:
            trainer.should_stop = True

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        now = self.elapsed()
        if self._validating is not None:  # what is kept after a validation takes time as well
            self._validations_took[-1] = now - self._validating
        self._mark = now
        self._end = end = self._first_process(self._end_after(self._mark))
        self.is_last_epoch = end == self.seconds
        self._validations = 1
        while end < self.seconds:
            end = self._end_after(end)
            self._validations += 1

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        now = self.elapsed()
        self._steps.append(now - self._mark)
        self._stepping += now - self._mark
        self._mark = now
        self._pending -= 1

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self._validating = self.elapsed()

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.sanity_checking:
            self._mark = self.elapsed()

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.sanity_checking:
            batches = len(trainer.val_dataloaders)  # type: ignore[arg-type]
            self._first_validation = (self.elapsed() - self._mark) * batches

    def on_sanity_check_end(self, trainer: Trainer, pl_module: Any) -> None:
        if not trainer.is_global_zero:
            return
        began = self.elapsed()
        with TemporaryFile(dir=trainer.default_root_dir) as file:
            torch.save(pl_module.state_dict(), file)
        self._first_validation += KEPT * (self.elapsed() - began)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.sanity_checking:
            return
        now = self.elapsed()
        self._validations_took.append(now - (self._validating or now))
        another = self._validation() + self._step()
        over = self.is_last_epoch or self.seconds - now < another / 2
        if self._first_process(over):
            self._is_over = trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {
            "elapsed": self.elapsed(),
            "stepping": self._stepping,
            "step": self._step(),
            "validations": list(self._validations_took),
            "is_over": self._is_over,
            "passes": self._passes,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before, self._stepping, self._is_over, self._passes = (
            state_dict[key] for key in ("elapsed", "stepping", "is_over", "passes")
        )
        self._steps.append(state_dict["step"])
        # Checkpoints of old knew the last validation alone.
        took = state_dict["validations"] if "validations" in state_dict else [state_dict["validation"]]
        self._validations_took.extend(took)

    def next_pass(self) -> int:
        """Return the number of the next pass over the training images."""
        self._passes += 1
        return self._passes - 1

    def hand_out(self, batch: Batch) -> Batch:
        """Count a batch that will be trained on."""
        self._pending += 1
        return batch

    def _step(self) -> float:
        """Seconds of a step; 0 before the first."""
        return median(self._steps) if self._steps else 0.0

    def _validation(self) -> float:
        """Seconds of a validation and of what is kept after it."""
        return median_low(self._validations_took) if self._validations_took else self._first_validation

    def _end_after(self, now: float) -> float:
        """The end of an epoch that begins now: the next of the shares before which there is time enough."""
        least = max(self._validation() / VALIDATION_SHARE, self._validation() + self._step())
        share = self.seconds / self.epochs
        number = max(math.floor(now / share) + 1, math.ceil((now + least) / share))
        return self.seconds if number >= self.epochs or self.seconds - number * share < least else number * share

    def _first_process(self, value: Value) -> Value:
        """What the first process says."""
        if self._trainer is None or self._trainer.world_size == 1:
            return value
        told: Value = self._trainer.strategy.broadcast(value)
        return told


class _TimedBatches:
    """Batches of a loader, pass after pass, until an epoch's time is up; the next epoch goes on where it stopped."""

    def __init__(self, budget: TimeBudget, loader: Any):
        self.budget, self.loader = budget, loader
        self._endless = self._all()

    def __iter__(self) -> Iterator[Batch]:
        yield self.budget.hand_out(next(self._endless))
        while self.budget.is_time_left():
            yield self.budget.hand_out(next(self._endless))

    def _all(self) -> Iterator[Batch]:
        while True:
            self.loader.sampler.set_epoch(self.budget.next_pass())
            yield from self.loader
