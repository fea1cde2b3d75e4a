"""Train a recipe: a run folder with its record, logs, checkpoints and, in the end, the model."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar, Timer, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from rich.console import Console
from torch import Tensor

from darklens.data.dataset import versions
from darklens.data.preprocessing import Preprocessing
from darklens.errors import DataError, RecipeError
from darklens.inference.model import ModelConfig, save_model
from darklens.models.registry import build_network, count_parameters
from darklens.paths import check_absent, is_helper_process
from darklens.tasks.base import ImageTask, Optimization
from darklens.tasks.classify import Classification
from darklens.tasks.regress import Regression
from darklens.training.card import model_card
from darklens.training.recipe import Recipe, recipe_from
from darklens.training.sources import Source, open_source

console = Console(soft_wrap=True)

MONITOR = "validation/loss"
"""What decides which epoch is best, and when to stop."""

# What Lightning says to everyone at every start.
warnings.filterwarnings("ignore", module="lightning")
warnings.filterwarnings("ignore", message=".*treespec.*")
for _name in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(_name).setLevel(logging.WARNING)


@dataclasses.dataclass(frozen=True)
class Job:
    """What to train on what: everything that a run records and a resumed run reads back."""

    recipe: Recipe
    data: str
    seed: int = 0
    layout: str | None = None
    catalog: str | None = None
    mask: bool = False
    wandb: str | None = None


def train(job: Job, out: Path) -> Path:
    """Train in a new folder; returns it.

    Raises
    ------
    DarklensError
        If the folder exists, or data, recipe or weights are not usable; nothing is left behind then.
    """
    child = is_helper_process()
    if not child:
        check_absent(out)
    source = open_source(job.data, job.recipe, job.seed, job.layout, job.catalog, job.mask)
    task = build_task(job.recipe, source)
    if not child:
        out.mkdir(parents=True)
        _record(out, _run_record(job))
        if source.split is not None:
            source.split.write_parquet(out / "split.parquet")
    try:
        return _fit(job, source, task, out, checkpoint=None)
    except BaseException:
        if not child and not (out / "checkpoints" / "last.ckpt").exists():
            shutil.rmtree(out, ignore_errors=True)
        raise


def resume(out: Path, asked: Job | None = None) -> Path:
    """Go on with a run that was interrupted, from its last finished epoch; a finished one is left as it is.

    Raises
    ------
    RecipeError
        If ``asked`` is given and is not the job of the run.
    """
    job = read_job(out)
    if asked is not None and asked != job:
        raise RecipeError(
            f"{out}: was started with another recipe, data or seed; --resume takes the same command again"
        )
    if (out / "model" / "config.json").is_file():
        console.print(f"{out}: already finished")
        return out
    checkpoint = out / "checkpoints" / "last.ckpt"
    source = open_source(job.data, job.recipe, job.seed, job.layout, job.catalog, job.mask)
    return _fit(job, source, build_task(job.recipe, source), out, checkpoint if checkpoint.exists() else None)


def read_job(out: Path) -> Job:
    """The job that a run folder records."""
    try:
        record = json.loads((out / "run.json").read_text("utf-8"))
    except OSError as error:
        raise DataError(f"{out}: no run to resume here (no run.json)") from error
    fields = {f.name: record[f.name] for f in dataclasses.fields(Job) if f.name in record}
    return Job(**fields | {"recipe": recipe_from(record["recipe"], record["recipe"]["name"])})


def build_task(recipe: Recipe, source: Source) -> ImageTask:
    """The Lightning module of a recipe, with preprocessing and target scale fitted to training images."""
    outputs = len(source.classes) if recipe.task == "classify" else 1
    preprocessing = Preprocessing(**dataclasses.asdict(recipe.preprocessing)).fit(source.sample)
    channels, _, _ = preprocessing.output_shape(source.shape)
    seed_everything(source.seed, verbose=False)
    network = build_network(recipe.network.name, channels, outputs, recipe.network.options())
    network = network.to(memory_format=torch.channels_last)
    if recipe.trainer.compile:
        network.compile()
    o, s = recipe.optimizer, recipe.schedule
    optimization = Optimization(o.name, o.lr, o.weight_decay, s.name, s.warmup, s.step_epochs, s.step_factor)
    shared: dict[str, Any] = {"augmentation": recipe.augmentation, "seed": source.seed}
    if recipe.task == "classify":
        return Classification(
            network, preprocessing, optimization, source.classes, label_smoothing=recipe.label_smoothing, **shared
        )
    center, scale = source.target_sample.mean(0), source.target_sample.std(0)
    if not (scale > 0).all():
        raise DataError(f"{source.description['source']}: every training image has the same {recipe.target}")
    return Regression(network, preprocessing, optimization, center.tolist(), scale.tolist(), **shared)


class SourceModule(LightningDataModule):
    """Loaders of a source, shared out over Lightning's processes."""

    def __init__(self, source: Source):
        super().__init__()
        self.source = source

    def train_dataloader(self) -> Any:
        return self.source.train_loader(*self._place())

    def val_dataloader(self) -> Any:
        return self.source.validation_loader(*self._place())

    def _place(self) -> tuple[int, int]:
        assert self.trainer is not None
        return self.trainer.global_rank, self.trainer.world_size


class EpochLines(Callback):
    """A line an epoch, for logs and terminals that do not redraw."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._started = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("validation/")}
        figures = "  ".join(f"{k.removeprefix('validation/')} {v:.4g}" for k, v in sorted(values.items()))
        seconds = time.perf_counter() - self._started
        console.print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {figures}  {seconds:.0f} s")


def _fit(job: Job, source: Source, task: ImageTask, out: Path, checkpoint: Path | None) -> Path:
    recipe = job.recipe
    config = recipe.trainer
    module = SourceModule(source)
    best = ModelCheckpoint(
        out / "checkpoints",
        filename="best",
        monitor=MONITOR,
        save_last=True,
        enable_version_counter=False,
        save_on_train_epoch_end=False,
    )
    callbacks: list[Callback] = [best, EpochLines()]
    if console.is_terminal:
        callbacks.append(RichProgressBar())
    if config.patience is not None:
        callbacks.append(EarlyStopping(MONITOR, patience=config.patience))
    if config.ema is not None:
        callbacks.append(WeightAveraging(avg_fn=moving_average(config.ema), use_buffers=True))
    if config.max_minutes is not None:
        callbacks.append(Timer({"minutes": int(config.max_minutes), "seconds": round(config.max_minutes % 1 * 60)}))
    trainer = Trainer(
        max_epochs=config.epochs,
        precision=resolve_precision(config.precision),  # type: ignore[arg-type]
        accelerator=config.accelerator,
        devices=int(config.devices) if config.devices.isdigit() else config.devices,
        num_nodes=config.nodes,
        strategy=config.strategy,
        gradient_clip_val=config.gradient_clip,
        callbacks=callbacks,
        logger=_loggers(job, out),
        default_root_dir=out,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        enable_progress_bar=console.is_terminal,
        enable_model_summary=False,
    )
    if trainer.is_global_zero:
        console.print(
            f"{recipe.name}: {count_parameters(task.network):,} parameters, {source.train_images:,} training and "
            f"{len(source.validation):,} validation images, {trainer.precision}, {torch.get_num_threads()} threads"
        )
    started = time.perf_counter()
    trainer.fit(task, datamodule=module, ckpt_path=checkpoint, weights_only=True)
    seconds = time.perf_counter() - started
    if trainer.interrupted:
        raise KeyboardInterrupt
    if trainer.is_global_zero:
        _finish(job, source, task, out, Path(best.best_model_path), trainer, seconds)
    return out


def moving_average(decay: float) -> Callable[[Tensor, Tensor, Any], Tensor]:
    """An exponential moving average that forgets faster at first, so that short trainings do not end on old weights."""

    def average(averaged: Tensor, current: Tensor, updates: Any) -> Tensor:
        kept = min(decay, (1 + int(updates)) / (10 + int(updates)))
        # Counters of batches are whole numbers; the newest is right.
        return averaged.lerp(current, 1 - kept) if averaged.is_floating_point() else current

    return average


def _finish(job: Job, source: Source, task: ImageTask, out: Path, best: Path, trainer: Trainer, seconds: float) -> None:
    state = torch.load(best, map_location="cpu", weights_only=True)["state_dict"]
    network = {k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")}
    task.network.load_state_dict(network)
    record = json.loads((out / "run.json").read_text("utf-8"))
    seen = trainer.global_step * job.recipe.trainer.batch_size
    record["training"] = {
        "seconds": round(record.get("training", {}).get("seconds", 0) + seconds, 1),
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "images": seen,
        "parameters": count_parameters(task.network),
        "precision": str(trainer.precision),
        "best_epoch": _best_epoch(best),
        "machine": machine(),
        "devices": trainer.num_devices * trainer.num_nodes,
    }
    record["data_description"] = source.description
    config = _model_config(job.recipe, source, task, record)
    save_model(out / "model", config, task.network, model_card(config, record))
    _record(out, record)
    console.print(f"trained in {seconds:.0f} s → {out}")


def _model_config(recipe: Recipe, source: Source, task: ImageTask, record: dict[str, Any]) -> ModelConfig:
    options = {"name": recipe.network.name} | recipe.network.options()
    # What is loaded later comes from the model's own weights.
    options.pop("weights", None)
    if "pretrained" in options:
        options["pretrained"] = False
    regression = isinstance(task, Regression)
    return ModelConfig(
        task=recipe.task,
        network=options,
        preprocessing=dataclasses.asdict(task.preprocessing),
        channels=source.shape[0],
        pixels=source.shape[1],
        classes=source.classes,
        outputs=[recipe.target] if regression and recipe.target else [],
        output_center=task.center.tolist() if isinstance(task, Regression) else [],
        output_scale=task.scale.tolist() if isinstance(task, Regression) else [],
        bands=source.bands,
        pixel_scale=source.pixel_scale,
        unit=source.unit,
        recipe=dataclasses.asdict(recipe),
        data=source.description,
        measured={},
        versions=record["versions"],
    )


def resolve_precision(precision: str) -> str:
    """Lightning's name of the precision; ``auto`` is bfloat16 where the hardware computes in it, else float32."""
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return "bf16-mixed" if any(check is not None and check() for check in checks) else "32-true"


def machine() -> str:
    """The machine in a few words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores"


def _run_record(job: Job) -> dict[str, Any]:
    return dataclasses.asdict(job) | {
        "recipe": dataclasses.asdict(job.recipe),
        "command": " ".join(["darklens", *sys.argv[1:]]),
        "versions": versions(),
        "git": _git_revision(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _record(out: Path, content: dict[str, Any]) -> None:
    temporary = out / "run.json.tmp"
    temporary.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    temporary.replace(out / "run.json")


def _git_revision() -> str | None:
    try:
        here = Path(__file__).parent
        found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        return found.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _best_epoch(best: Path) -> int:
    return int(torch.load(best, map_location="cpu", weights_only=True)["epoch"]) + 1


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
