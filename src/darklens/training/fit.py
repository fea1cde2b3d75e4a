"""Run Lightning: what is called back, logged and kept while a task is fitted."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from rich.console import Console
from torch import Tensor

from darklens.adaptation.module import SELECTION
from darklens.errors import DataError, RecipeError, TrainingError
from darklens.models.registry import count_parameters
from darklens.progress import Advance, other_display, progress_bar
from darklens.tasks.precision import resolve_precision
from darklens.tasks.supervised import SupervisedModule
from darklens.tasks.time_budget import TimeBudget
from darklens.training.history import epoch_history
from darklens.training.job import Job
from darklens.training.recipe import TrainerConfig
from darklens.training.training_data import TrainingData, images_per_process

console = Console(soft_wrap=True)

MONITOR = "validation/loss"
"""What decides which epoch is best, and when to stop, unless an adaptation chooses otherwise."""

# What Lightning says to everyone at every start.
warnings.filterwarnings("ignore", module="lightning")
warnings.filterwarnings("ignore", message=".*treespec.*")
for _name in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class TrainingDataModule(LightningDataModule):
    """Loaders of training data, divided among Lightning's processes."""

    def __init__(self, data: TrainingData, time_budget: TimeBudget | None = None):
        super().__init__()
        self.data, self.time_budget = data, time_budget

    def train_dataloader(self) -> Any:
        loader = self.data.train_loader(*self._place())
        return loader if self.time_budget is None else self.time_budget.batches(loader)

    def val_dataloader(self) -> Any:
        return self.data.validation_loader(*self._place())

    def _place(self) -> tuple[int, int]:
        assert self.trainer is not None
        return self.trainer.global_rank, self.trainer.world_size


CHECKED_STEPS = 50
"""Steps after which a loss that is not finite is noticed, at the end of an epoch at the latest. A choice: each look waits
for the GPU."""


class EpochLines(Callback):
    """A line an epoch, for logs and terminals that do not redraw; and what was trained on, in which time.

    Checkpoints keep the count, so that it goes on in a run that is resumed.

    Parameters
    ----------
    started
        Of `time.perf_counter`: when the training began, preparation included.
    batch_size
        Images of a step, for checkpoints of version 0.1, which count steps alone.
    time_budget
        The time of the training, if it has one.

    Attributes
    ----------
    images
        Images of all steps up to the last validation, over all processes.
    advance
        What is told of progress after each step.
    """

    def __init__(self, started: float, batch_size: int, time_budget: TimeBudget | None = None):
        self._started, self._batch_size, self._time_budget = started, batch_size, time_budget
        self.images = 0
        self._timed, self._seconds = 0, 0.0
        self._unvalidated, self._since = 0, 0.0
        self.advance: Advance | None = None

    @property
    def images_per_second(self) -> float:
        """Images a second of the steps between validations; 0 if there was none."""
        return self._timed / self._seconds if self._timed else 0.0

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["trained"] = {"images": self.images, "timed": self._timed, "seconds": self._seconds}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        if trained := checkpoint.get("trained"):
            self.images, self._timed, self._seconds = (trained[name] for name in ("images", "timed", "seconds"))
        else:
            steps = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["completed"]
            self.images = steps * self._batch_size

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if not self._unvalidated:
            self._since = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._unvalidated += len(batch["image"])
        if self.advance is None:
            return
        if self._time_budget is not None:
            self.advance(int(self._time_budget.elapsed()), int(self._time_budget.seconds))
        else:
            self.advance(batches_done(trainer), int(trainer.num_training_batches) * (trainer.max_epochs or 1))

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.sanity_checking:
            return
        self._seconds += time.perf_counter() - self._since
        own = torch.tensor(self._unvalidated, device=pl_module.device)
        images = int(trainer.strategy.reduce(own, reduce_op="sum"))
        self.images += images
        self._timed += images
        self._unvalidated = 0

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("validation/")}
        figures = "  ".join(f"{k.removeprefix('validation/')} {v:.4g}" for k, v in sorted(values.items()))
        seconds = time.perf_counter() - self._started
        for logger in trainer.loggers:
            logger.log_metrics({"seconds": seconds, "epoch": trainer.current_epoch}, trainer.global_step)
        epoch, time_used = f"{trainer.current_epoch + 1}/{trainer.max_epochs}", f"{seconds:.0f}"
        if self._time_budget is not None:  # epochs may be fewer
            epoch = f"{trainer.current_epoch + 1}"
            time_used = f"{self._time_budget.elapsed():.0f} of {self._time_budget.seconds:.0f}"
        console.print(f"epoch {epoch}  validation: {figures}  {time_used} s")


class BestCheckpoint(ModelCheckpoint):
    """Checkpoints of the best and the last epoch, whose files are known by their names: the run folder may be moved."""

    @property
    def state_key(self) -> str:
        """The key of Lightning's own class, under which checkpoints of version 0.1 keep the state."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the last epoch even if it is not the best so far, which Lightning does not."""
        super().on_validation_end(trainer, pl_module)
        if not self._should_skip_saving_checkpoint(trainer):  # nothing was saved in this step
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score and its checkpoint, which is looked for in the present folder.

        Parameters
        ----------
        state_dict
            What `state_dict` returned, wherever the folder was then.

        Raises
        ------
        DataError
            If the checkpoint of the best epoch is missing.
        """

        def here(path: str) -> str:
            return str(Path(self.dirpath or "") / Path(path).name)

        paths = {name: here(state_dict[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
        if not Path(best := paths["best_model_path"]).is_file():
            raise DataError(
                f"{best}: the checkpoint of the best epoch is missing; bring it back, or remove the run and train anew"
            )
        scores = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict | paths | {"dirpath": self.dirpath, "best_k_models": scores})


class FiniteLoss(Callback):
    """End a training whose loss is nan or infinite, before its weights are validated and kept.

    Parameters
    ----------
    job
        What is trained, for the message.
    """

    def __init__(self, job: Job):
        self.job = job
        self._wrong: Tensor | None = None
        self._first = 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        # Counted where it is computed: asking a GPU at each step would stop it.
        if not isinstance(outputs, dict) or "loss" not in outputs:  # of modules that step their optimisers themselves
            return
        wrong = ~torch.isfinite(outputs["loss"].detach())
        self._wrong = wrong if self._wrong is None else self._wrong | wrong
        if (batch_idx + 1) % CHECKED_STEPS == 0:
            self._check(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        if self._wrong is None or not bool(self._wrong):
            return
        kept = f"; the model of epoch {trainer.current_epoch} is kept" if trainer.current_epoch else ""
        recipe = self.job.recipe
        epoch = trainer.current_epoch + 1
        raise TrainingError(
            f"{recipe.name}: the loss is nan or infinite in epoch {epoch}{kept}. Train anew with a lower --optimizer.lr "
            f"(now {recipe.optimizer.lr}), a --trainer.gradient_clip, or --trainer.precision 32"
        )


def fit(
    job: Job, data: TrainingData, module: SupervisedModule, out: Path, *, checkpoint: Path | None, started: float
) -> Fitted | None:
    """Fit a module, from a checkpoint or from the start, and give it the weights of its best epoch.

    Parameters
    ----------
    job
        What is trained on what.
    data
        Its images.
    module
        What is fitted.
    out
        The run folder, for checkpoints and logs.
    checkpoint
        Where to continue from.
    started
        Of `time.perf_counter`: when the training began, preparation included.

    Returns
    -------
    Fitted or None
        How it went; None in processes that only help.

    Raises
    ------
    RecipeError
        If the trainer that the recipe asks for cannot be made, or its processes cannot share a batch equally.
    DataError
        If the checkpoint to continue from, or that of the best epoch, is damaged or missing.
    TrainingError
        If the loss is nan or infinite; checkpoints of the epochs before are kept.
    """
    recipe = job.recipe
    config = recipe.trainer
    monitor = MONITOR if recipe.method is None or recipe.method.select == "source" else SELECTION
    best = BestCheckpoint(
        out / "checkpoints",
        filename="best",
        monitor=None if module.keeps_last else monitor,
        save_last=True,
        enable_version_counter=False,
        save_on_train_epoch_end=False,
    )
    time_budget = None if config.minutes is None else TimeBudget(60 * config.minutes, config.epochs, started)
    module.time_budget = time_budget
    lines = EpochLines(started, config.batch_size, time_budget)
    callbacks: list[Callback] = [best, lines, FiniteLoss(job)]
    if time_budget is not None:
        callbacks.append(time_budget)
    if config.keep_every is not None:
        kept = {"filename": "{epoch}", "save_top_k": -1, "every_n_epochs": config.keep_every}
        callbacks.append(ModelCheckpoint(out / "checkpoints", save_on_train_epoch_end=False, **kept))  # type: ignore[arg-type]
    if console.is_terminal:
        callbacks.append(RichProgressBar())
    if config.patience is not None:
        callbacks.append(EarlyStopping(monitor, patience=config.patience, check_on_train_epoch_end=False))
    if config.ema is not None:
        callbacks.append(WeightAveraging(avg_fn=moving_average(config.ema), use_buffers=True))
    trainer = make_trainer(
        config,
        callbacks=callbacks,
        logger=_loggers(job, out),
        default_root_dir=out,
        enable_progress_bar=console.is_terminal,
        num_sanity_val_steps=0 if time_budget is None else 2,  # which say how long a validation will take
    )
    images_per_process(recipe, trainer.world_size)  # refused before other processes are started
    if recipe.adaptation and trainer.world_size > 1:
        raise RecipeError(f"recipe {recipe.name}: an adaptation is trained on one device; say --trainer.devices 1")
    if trainer.is_global_zero:
        console.print(
            f"{recipe.name}: {count_parameters(module.network):,} parameters, {data.train_images:,} training and "
            f"{len(data.validation):,} validation images, {trainer.precision}, threads: {torch.get_num_threads()}"
        )
        for note in data.notes:
            console.print(f"note: {note}", highlight=False)
    earlier = max((epoch.get("seconds", 0.0) for epoch in epoch_history(out)), default=0.0)
    if checkpoint is not None:
        _check_whole(checkpoint)
    # Of Lightning's bar on standard output and ours on standard error, only one can have a terminal.
    shown: Any = other_display() if console.is_terminal else progress_bar("training")
    with shown as lines.advance:
        try:
            trainer.fit(
                module, datamodule=TrainingDataModule(data, time_budget), ckpt_path=checkpoint, weights_only=True
            )
        except SystemExit:  # Lightning's answer to Ctrl-C
            if not trainer.interrupted:
                raise
    seconds = earlier + time.perf_counter() - started
    if trainer.interrupted:
        raise KeyboardInterrupt
    if not trainer.is_global_zero:
        return None
    if time_budget is not None and time_budget.elapsed() > 1.1 * time_budget.seconds:
        console.print(
            f"note: took {time_budget.elapsed():.0f} s and not {time_budget.seconds:.0f}: preparation, a step and a "
            "validation, the least that there is, take longer",
            highlight=False,
        )
    state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
    network = {k.removeprefix("network."): v for k, v in state["state_dict"].items() if k.startswith("network.")}
    module.network.load_state_dict(network)
    epoch = int(state["epoch"])
    logged = next((each for each in epoch_history(out) if each["epoch"] == epoch), {})
    measured = {k.removeprefix("validation/"): v for k, v in logged.items() if k.startswith("validation/")}
    return Fitted(trainer, seconds, lines.images, lines.images_per_second, epoch + 1, measured)


def make_trainer(config: TrainerConfig, **given: Any) -> Trainer:
    """Return Lightning's trainer as a recipe asks for it.

    Parameters
    ----------
    config
        Of the recipe.
    **given
        Further arguments of Lightning's.

    Raises
    ------
    RecipeError
        If there are no such devices, strategies or precisions.
    """
    try:
        return Trainer(
            max_epochs=config.epochs,
            precision=resolve_precision(config.precision),  # type: ignore[arg-type]
            accelerator=config.accelerator,
            devices=int(config.devices) if config.devices.isdigit() else config.devices,
            num_nodes=config.nodes,
            strategy=config.strategy,
            gradient_clip_val=config.gradient_clip,
            use_distributed_sampler=False,
            log_every_n_steps=10,
            enable_model_summary=False,
            **{"num_sanity_val_steps": 0} | given,
        )
    except (ValueError, MisconfigurationException) as error:
        raise RecipeError(f"the trainer that the recipe asks for cannot be made: {error}") from error


def _check_whole(checkpoint: Path) -> None:
    """Refuse a checkpoint that was cut off, before Lightning stumbles over it."""
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # of PyTorch, the pickle inside, and the file system
        raise DataError(
            f"{checkpoint}: cannot be read as a checkpoint; bring a copy back, or remove the run and train anew"
        ) from error


def batches_done(trainer: Trainer) -> int:
    """Return how many batches were trained on; of several optimisers, each counts its own steps in Lightning."""
    return int(trainer.fit_loop.epoch_loop.batch_progress.total.completed)


@dataclass(frozen=True)
class Fitted:
    """How a fit went.

    Attributes
    ----------
    trainer
        Lightning's.
    seconds
        All of the training, with preparation and validation.
    images
        Images of all steps, over all processes and attempts; one that comes again counts again.
    images_per_second
        Rate of the steps alone.
    best_epoch
        Whose weights the module has; epochs count from 1.
    measured
        Validation loss and metrics of that epoch.
    """

    trainer: Trainer
    seconds: float
    images: int
    images_per_second: float
    best_epoch: int
    measured: dict[str, float]


def moving_average(decay: float) -> Callable[[Tensor, Tensor, Any], Tensor]:
    """An exponential moving average that forgets faster at first, so that short trainings do not end on old weights."""

    def average(averaged: Tensor, current: Tensor, updates: Any) -> Tensor:
        kept = min(decay, (1 + int(updates)) / (10 + int(updates)))
        # Counters of batches are whole numbers; the newest is right.
        return averaged.lerp(current, 1 - kept) if averaged.is_floating_point() else current

    return average


def _loggers(job: Job, out: Path) -> list[Logger]:
    attempt = len(list((out / "logs").glob("csv-*"))) if (out / "logs").is_dir() else 0
    loggers: list[Logger] = [
        CSVLogger(out, name="logs", version=f"csv-{attempt}", flush_logs_every_n_steps=50),
        TensorBoardLogger(out, name="logs", version="tensorboard"),
    ]
    if job.wandb is not None:
        try:
            import wandb  # noqa: F401
        except ImportError as error:
            raise RecipeError("--wandb needs the extra: pip install 'darklens[wandb]'") from error
        from lightning.pytorch.loggers import WandbLogger

        offline = os.environ.get("WANDB_MODE") == "offline"
        loggers.append(WandbLogger(name=out.name, project=job.wandb, save_dir=out, offline=offline))
    return loggers
