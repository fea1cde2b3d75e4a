"""What a run learns from: a dataset on disk or in the wild, or a preset simulated as it goes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from darklens.data.batches import Batch, Batches, CutoutDataset, FreshImages, SimulatedDataset, batch_loader
from darklens.data.catalog_inputs import CatalogEncoder, check_ids, check_joined, fit_encoder
from darklens.data.dataset import Cutouts, DatasetInfo
from darklens.data.layouts import open_with
from darklens.data.leaks import check_leaks, find_leaks
from darklens.data.options import DataOptions
from darklens.data.seeds import SEEDS, simulation_seed
from darklens.data.seen import FORMER_VALIDATION, SIMULATED
from darklens.data.sizes import OneSize, Resized
from darklens.data.splits import ensure_split
from darklens.data.streams import TwoStreamBatches, TwoStreams, UnlabelledImages
from darklens.data.synthesis import simulated_info
from darklens.errors import DataError, RecipeError
from darklens.inference.model import BATCH
from darklens.models.registry import refuses_constant
from darklens.progress import progress_bar, working
from darklens.simulation import BLOCK, AnyPreset, Simulator, load_preset
from darklens.tasks.base import Task, known_targets
from darklens.tasks.registry import check_storable
from darklens.training.recipe import Recipe
from darklens.training.target_data import Source, TargetData, open_target

VALIDATION_IMAGES = 24 * BLOCK
STATISTICS_IMAGES = 1024
CATALOG_ROWS = 32 * BLOCK
"""Rows of a preset to which inputs are fitted and which are checked for leaks; drawn, not rendered."""
SIMULATED_EPOCH = 30_720
MEMBER_STRIDE = 1009


@dataclass
class TrainingData:
    """Training and validation images of a run, and what a model must remember of them.

    Attributes
    ----------
    train, validation
        Datasets of batches.
    train_images
        Images of an epoch.
    sample
        Training images (n, C, H, W) to which the preprocessing is fitted.
    task
        What is learned, with what it has learned from catalogue and training targets.
    shape
        Of an image, (C, H, W).
    bands, pixel_scale, unit
        Of the images; pixel scale in arcsec.
    zero_points
        AB magnitude of one ``unit`` in each band; None where unknown.
    description
        What a model remembers of its data.
    split
        Columns ``id`` and ``split``; None of images that are simulated as it goes.
    recipe, seed
        What is trained, and the seed of order and weights.
    notes
        What a user should know of the data, and of how they are trained on; said when the training begins, and recorded.
    unlabelled
        A second dataset, whose images stand beside those of each training batch.
    sample_noise
        Noise of the sky (n, C) of ``sample``, by noise maps; None without.
    encoder
        Makes inputs of the columns of the catalogue that the network takes beside images; None without.
    sample_catalog
        These inputs (n, F) of ``sample``; None without.
    validation_rows
        Returns the catalogue's rows of the validation images, as they are.
    target
        Of an adaptation: the target, whose images are also ``unlabelled``.
    """

    train: Any
    validation: Any
    train_images: int
    sample: Tensor
    task: Task
    shape: tuple[int, int, int]
    bands: list[str]
    pixel_scale: float | None
    unit: str | None
    description: dict[str, Any]
    split: pl.DataFrame | None
    recipe: Recipe
    seed: int
    notes: list[str] = field(default_factory=list)
    unlabelled: Any = None
    sample_noise: Tensor | None = None
    zero_points: list[float | None] = field(default_factory=list)
    encoder: CatalogEncoder | None = None
    sample_catalog: Tensor | None = None
    validation_rows: Callable[[], pl.DataFrame] | None = None
    target: TargetData | None = None

    def train_loader(self, rank: int, world_size: int) -> DataLoader[Batch]:
        """Return the training batches of one of Lightning's processes.

        Parameters
        ----------
        rank, world_size
            Number of the process, counted from 0, and of all processes, which share the images of each step equally.

        Raises
        ------
        RecipeError
            If the recipe's batch size cannot be divided among them.
        """
        per_process = images_per_process(self.recipe, world_size)
        batches: Any
        if isinstance(self.train, SimulatedDataset):
            batches = FreshImages(self.train_images, per_process, rank, world_size=world_size)
        else:
            epoch = self.recipe.trainer.epoch_images
            batches = Batches(
                self.train_images,
                per_process,
                self.seed,
                shuffle=True,
                rank=rank,
                world_size=world_size,
                epoch_size=epoch,
            )
        if self.unlabelled is None:
            return batch_loader(self.train, batches, self.recipe.trainer.workers)
        size = min(per_process, len(self.unlabelled) // world_size)
        both = TwoStreamBatches(
            batches,
            None if self.unlabelled.fresh else len(self.unlabelled),
            size,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
        )
        return batch_loader(TwoStreams(self.train, self.unlabelled), both, self.recipe.trainer.workers)  # type: ignore[arg-type]

    def validation_loader(self, rank: int, world_size: int) -> DataLoader[Batch]:
        """Return the validation batches of one of Lightning's processes, in order."""
        batches = Batches(len(self.validation), BATCH, self.seed, shuffle=False, rank=rank, world_size=world_size)
        return batch_loader(self.validation, batches)


def images_per_process(recipe: Recipe, processes: int) -> int:
    """Return how many images of a step each of several processes has.

    Parameters
    ----------
    recipe
        Gives the images in a step of all processes.
    processes
        Number of processes: devices on all machines.

    Raises
    ------
    RecipeError
        If their number does not divide the batch size.
    """
    size = recipe.trainer.batch_size
    if size % processes:
        raise RecipeError(
            f"recipe {recipe.name}: trainer.batch_size: {size} images in a step cannot be divided equally among "
            f"{processes} processes; choose a multiple of {processes}, or other --trainer.devices"
        )
    return size // processes


def open_training_data(
    data: str,
    recipe: Recipe,
    seed: int,
    *,
    options: DataOptions = DataOptions(),
    unlabelled: str | None = None,
    member: int = 0,
    own_seeds: bool = True,
    split_seed: int | None = None,
    encoder: CatalogEncoder | None = None,
    labels: str | None = None,
    trust_code: bool = False,
) -> TrainingData:
    """Open the training and validation images that ``--data`` names.

    Parameters
    ----------
    data
        ``preset:NAME``, or a path in any layout.
    recipe
        What is to be trained on them.
    seed
        Of order, weights and simulated training images, and of the sample to which the preprocessing is fitted.
    options
        How a path is read.
    unlabelled
        A second dataset, a path in any layout, for tasks that learn from images without labels as well; of a recipe with an
        adaptation, its target, which may be ``preset:NAME`` as well.
    member
        Order, weights and simulated training images follow from ``seed`` and from this number.
    own_seeds
        Whether simulated images have seeds that no dataset folder has; of runs of version 0.1 they have not.
    split_seed
        Splits and simulated validation images follow from it alone; by default ``seed``.
    encoder
        Of the model that the training starts from, whose columns and scales are kept; by default it is fitted.
    labels
        A table with identifiers and labels of a few images of the target.
    trust_code
        Whether code that a preset in YAML names may run.

    Raises
    ------
    DataError, PresetError, RecipeError
        If it cannot be opened, or does not hold what the recipe's task needs.
    """
    split_seed = seed if split_seed is None else split_seed
    if data.startswith("preset:"):
        preset = load_preset(data.removeprefix("preset:"), trust_code=trust_code)
        of_member = seed + MEMBER_STRIDE * member
        if own_seeds:
            seeds = simulation_seed(of_member % SEEDS, "training"), simulation_seed(split_seed, "validation")
        else:
            seeds = of_member, split_seed + FORMER_VALIDATION
        opened = _simulated(preset, recipe, of_member, seeds, encoder)
    else:
        opened = _stored(open_with(data, options), recipe, seed, split_seed, mask=options.mask, encoder=encoder)
    if recipe.adaptation:
        seeds = (seed + MEMBER_STRIDE * member, split_seed)
        target = _target(opened, data, unlabelled, options=options, seeds=seeds, labels=labels, trust_code=trust_code)
        opened.description["target"] = target.description
        opened.notes.extend(target.notes)
        own_seed = seed + MEMBER_STRIDE * member
        return dataclasses.replace(opened, seed=own_seed, unlabelled=target.stream, target=target)
    if labels is not None:
        raise RecipeError(f"--labels {labels}: are of a target, and this recipe adapts to none")
    second = _second_stream(opened, unlabelled, options)
    return dataclasses.replace(opened, seed=seed + MEMBER_STRIDE * member, unlabelled=second)


def _target(
    opened: TrainingData,
    data: str,
    target: str | None,
    *,
    options: DataOptions,
    seeds: tuple[int, int],
    labels: str | None,
    trust_code: bool,
) -> TargetData:
    """The target of an adaptation, brought to size and bands of the training images."""
    if target is None:
        raise RecipeError(
            f"recipe {opened.recipe.name}: adapts to a second dataset, of images without labels: --target PATH of "
            "darklens adapt, or --unlabelled PATH"
        )
    if opened.task.needs.pairs or opened.task.needs.unlabelled:
        raise RecipeError(f"recipe {opened.recipe.name}: its task cannot be adapted to a target")
    simulated = opened.description.get("simulated") or {}
    info = DatasetInfo(
        opened.description["source"],
        [],
        opened.bands,
        pixel_scale=opened.pixel_scale,
        unit=opened.unit,
        zero_points=opened.zero_points,
    )
    source = Source(
        data,
        opened.shape,
        info,
        typical_peak=opened.description["typical_peak"],
        checksum=opened.description.get("checksum") or simulated.get("checksum"),
    )
    return open_target(
        target,
        source,
        opened.recipe.trainer.batch_size,
        seeds=seeds,
        options=options,
        task=opened.task,
        labels=labels,
        trust_code=trust_code,
    )


def _second_stream(data: TrainingData, unlabelled: str | None, options: DataOptions) -> UnlabelledImages | None:
    """The unlabelled images that the task needs, of the same shape as the labelled ones."""
    if not data.task.needs.unlabelled:
        if unlabelled is not None:
            raise RecipeError(f"--unlabelled {unlabelled}: this recipe's task has no use for a second dataset")
        return None
    if unlabelled is None:
        raise RecipeError("this recipe's task needs a second dataset, of images without labels: --unlabelled PATH")
    cutouts = open_with(unlabelled, dataclasses.replace(options, layout=None, catalog=None))
    if tuple(cutouts.images.shape[1:]) != data.shape:
        found, expected = ("×".join(map(str, shape)) for shape in (cutouts.images.shape[1:], data.shape))
        raise DataError(f"{unlabelled}: images of {found}; the labelled ones have {expected} (bands×height×width)")
    return UnlabelledImages(cutouts, options.mask)


def _stored(
    cutouts: Cutouts, recipe: Recipe, seed: int, split_seed: int, *, mask: bool, encoder: CatalogEncoder | None
) -> TrainingData:
    notes = list(cutouts.overruled if cutouts.info.layout == "dataset" else cutouts.info.notes)
    cutouts = _square(cutouts, notes)
    if recipe.inputs.columns is not None:
        check_ids(cutouts.catalog, cutouts.where)
        check_joined(cutouts.without_row, cutouts.without_image, cutouts.where)
    task = recipe.make_task()
    cutouts.check_columns(task.needs.columns)
    task = task.for_data(cutouts)
    if task.needs.pairs and cutouts.targets is None:
        raise DataError(f"{cutouts.where}: the task needs an image to predict for each (targets.npy, or HR/ and LR/)")
    targets: Any = cutouts.targets
    if not task.needs.pairs:
        given = len(cutouts)
        cutouts, targets = known_targets(task, cutouts)
        targets = _computed(targets)
        if len(cutouts) < given:
            what = " or ".join(task.needs.columns) or "target"
            notes.append(f"{given - len(cutouts):,} of {given:,} images have no {what} and are left out")
    catalog = ensure_split(cutouts.catalog, split_seed, stratify=task.needs.stratify)
    split = catalog["split"].to_numpy()
    train, validation = (np.flatnonzero(split == name) for name in ("train", "validation"))
    if not task.needs.pairs:
        for name, rows in (("training", train), ("validation", validation)):
            task.check_split(targets[rows], f"{cutouts.where}: {name}")
    inputs = _catalog_inputs(recipe, catalog[train], targets, train, cutouts.where, encoder)
    notes += inputs.notes
    if inputs.encoder is not None:
        notes += inputs.encoder.notes(catalog[validation], f"{cutouts.where}: validation")
    refuse = recipe.preprocessing.stretch == "minmax" or refuses_constant(
        recipe.network["name"], recipe.network_options
    )
    crop = recipe.preprocessing.crop
    if task.needs.pairs and crop is not None:
        raise RecipeError("preprocessing.crop is not for image pairs, whose sizes go together")
    parts = []
    for rows in (train, validation):
        subset = cutouts.subset(rows)
        wanted: Any = subset.targets if task.needs.pairs else targets[rows]
        noise = recipe.preprocessing.uses_noise
        beside = None if inputs.encoder is None else inputs.encoder.encode(subset.catalog, cutouts.where)
        parts.append(
            CutoutDataset(subset, wanted, crop, mask=mask, refuse_constant=refuse, noise=noise, catalog=beside)
        )
    if len(train) < recipe.trainer.batch_size:
        raise DataError(
            f"{cutouts.where}: {len(train)} training images are fewer than a batch of {recipe.trainer.batch_size}; "
            "choose a smaller --trainer.batch_size"
        )
    chosen = np.sort(np.random.default_rng(seed).permutation(len(train))[:STATISTICS_IMAGES])
    with working("reading a sample of the training images"):
        first = parts[0][chosen]
    info = cutouts.info
    return TrainingData(
        parts[0],
        parts[1],
        train_images=len(train),
        sample=first["image"],
        sample_noise=first.get("noise"),
        encoder=inputs.encoder,
        sample_catalog=first.get("catalog"),
        validation_rows=lambda: catalog[validation],
        task=_fitted(
            recipe,
            task,
            np.asarray(targets[train[chosen] if task.needs.pairs else train]),
            cutouts.where,
            first["image"].numpy() if task.needs.pairs else None,
        ),
        shape=tuple(cutouts.images.shape[1:]),  # type: ignore[arg-type]
        bands=info.bands,
        pixel_scale=info.pixel_scale,
        zero_points=info.zero_points,
        unit=info.unit,
        description={
            "source": info.source if info.source.startswith("preset:") else Path(info.source).name,
            "layout": info.layout,
            "seed": info.seed,
            "simulated": None if info.preset is None else {"preset": info.preset["name"], "seeds": [info.seed]},
            "train_images": len(train),
            "validation_images": len(validation),
            "test_images": int((split == "test").sum()),
            "checksum": info.checksum,
            "typical_peak": _typical_peak(first["image"]),
        }
        | ({} if inputs.encoder is None else {"catalog_checksum": _checksum(inputs.encoder, catalog, cutouts.where)}),
        split=catalog.select(pl.col("id").cast(pl.String), "split"),
        recipe=recipe,
        seed=seed,
        notes=notes + _channel_notes(cutouts, recipe),
    )


@dataclass(frozen=True)
class _CatalogInputs:
    """An encoder of the columns that are inputs, None without, and what to say of them."""

    encoder: CatalogEncoder | None
    notes: list[str]


def _catalog_inputs(
    recipe: Recipe,
    training_rows: pl.DataFrame,
    targets: Any,
    train: np.ndarray,
    where: str,
    encoder: CatalogEncoder | None,
) -> _CatalogInputs:
    """The encoder of a recipe's columns, fitted to training rows unless it is given; refused if these tell the label."""
    columns = recipe.inputs.columns
    if columns is None:
        return _CatalogInputs(None, [])
    notes: list[str] = []
    if encoder is None:
        fitted = fit_encoder(training_rows, columns, where)
        encoder, notes = fitted.encoder, fitted.notes
    else:
        notes += encoder.notes(training_rows, where)
    labels = None if targets is None else np.asarray(targets[train])
    if labels is None or labels.ndim > 1 or labels.dtype.kind not in "iub":
        return _CatalogInputs(
            encoder, [*notes, "columns are not checked for what they tell: the targets are no labels"]
        )
    with working("checking what the catalogue tells without an image"):
        leaks = find_leaks(encoder, training_rows, labels, where)
    return _CatalogInputs(encoder, notes + check_leaks(leaks, where, allowed=recipe.allow_leaks))


def _checksum(encoder: CatalogEncoder, catalog: pl.DataFrame, where: str) -> str:
    """The SHA-256 of the encoder and of the inputs from all rows: a resumed run has to see the same."""
    described = json.dumps(encoder.content()).encode()
    return "sha256:" + hashlib.sha256(described + encoder.encode(catalog, where).tobytes()).hexdigest()


def _square(cutouts: Cutouts, notes: list[str]) -> Cutouts:
    """The central square of images that have none, which is what a trained model sees of them too."""
    height, width = cutouts.images.shape[-2:]
    if height == width:
        return cutouts
    side = min(height, width)
    notes.append(f"images of {height}×{width} pixels are cropped to the central {side}×{side}")
    square = OneSize(crop=side)
    noise = None if cutouts.noise is None else Resized(cutouts.noise, square, cutouts.where)
    return dataclasses.replace(cutouts, images=Resized(cutouts.images, square, cutouts.where), noise=noise)


def _channel_notes(cutouts: Cutouts, recipe: Recipe) -> list[str]:
    """What is done with images of several bands, where a recipe is made for one."""
    channels, chosen = cutouts.images.shape[1], recipe.preprocessing
    notes = []
    if chosen.repeat_channels > 1 and channels == chosen.repeat_channels:
        notes.append(f"the images have {channels} bands, which the network sees as they are; nothing is repeated")
    if chosen.lens_model and channels > 1 and chosen.lens_band is None:
        notes.append(
            f"the smooth lens is fitted to the sum of the {channels} bands; --preprocessing.lens_band chooses one"
        )
    return notes


def _computed(targets: np.ndarray) -> np.ndarray:
    """Targets as they are computed with: values in float32, label numbers as they are."""
    return targets.astype(np.float32) if targets.dtype.kind == "f" else targets


def _fitted(recipe: Recipe, task: Task, targets: np.ndarray, where: str, images: np.ndarray | None = None) -> Task:
    """The task fitted to training targets, and images of pairs, with the data named in what it refuses."""
    try:
        fitted = task.fit(targets) if images is None else task.fit_pairs(images, targets)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    check_storable(fitted, recipe.task["name"])
    return fitted


def _typical_peak(images: Tensor) -> float:
    """Median over images of the 99.5th percentile of their pixels: what the network takes for bright."""
    peaks = torch.stack([torch.quantile(image.flatten(), 0.995) for image in images])
    return float(peaks.median())


def _simulated(
    preset: AnyPreset, recipe: Recipe, seed: int, seeds: tuple[int, int], encoder: CatalogEncoder | None
) -> TrainingData:
    """Training images, which never repeat, of the first of two seeds, and validation images of the second."""
    if recipe.trainer.batch_size % BLOCK:
        raise RecipeError(
            f"recipe {recipe.name}: trainer.batch_size: simulated images come in blocks of {BLOCK}; "
            f"{recipe.trainer.batch_size} is no multiple"
        )
    epoch_images = recipe.trainer.epoch_images or SIMULATED_EPOCH
    train, validation = Simulator(preset, seeds[0], compile=True), Simulator(preset, seeds[1])
    info = simulated_info(preset, seed)
    task = recipe.make_task()
    described = Cutouts(_no_images(preset), train.catalog(BLOCK), info)
    described.check_columns(task.needs.columns)
    task = task.for_data(described)
    inputs = _CatalogInputs(None, [])
    if recipe.inputs.columns is not None:
        rows = dataclasses.replace(
            described, catalog=train.catalog(CATALOG_ROWS), images=_no_images(preset, CATALOG_ROWS)
        )
        rows, known = known_targets(task, rows)
        inputs = _catalog_inputs(recipe, rows.catalog, known, np.arange(len(rows)), f"preset:{preset.name}", encoder)
    made = SimulatedDataset(train, task.targets, task.needs.columns, inputs.encoder)
    sample = _simulate(made, STATISTICS_IMAGES // 2 // BLOCK, "simulating a sample of the training images")
    held_out = _simulate(
        SimulatedDataset(validation, task.targets, task.needs.columns, inputs.encoder),
        VALIDATION_IMAGES // BLOCK,
        "simulating the validation images",
    )
    return TrainingData(
        made,
        Held(held_out),
        train_images=epoch_images,
        sample=sample["image"],
        task=_fitted(recipe, task, sample["target"].numpy(), f"preset:{preset.name}"),
        shape=preset.shape,
        bands=info.bands,
        pixel_scale=info.pixel_scale,
        zero_points=info.zero_points,
        unit=info.unit,
        description={
            "source": f"preset:{preset.name}",
            "layout": SIMULATED,
            "seed": seed,
            "simulated": {"preset": preset.name, "seeds": list(seeds), "checksum": preset.checksum},
            "train_images": epoch_images * recipe.trainer.epochs,
            "validation_images": len(held_out["image"]),
            "typical_peak": _typical_peak(sample["image"]),
        },
        split=None,
        recipe=recipe,
        seed=seed,
        notes=inputs.notes,
        encoder=inputs.encoder,
        sample_catalog=sample.get("catalog"),
        validation_rows=partial(_rows_of, validation, task, info),
    )


def _rows_of(simulator: Simulator, task: Task, info: DatasetInfo) -> pl.DataFrame:
    """Truths of the validation images whose target is known."""
    images = _no_images(simulator.preset, VALIDATION_IMAGES)
    return known_targets(task, Cutouts(images, simulator.catalog(VALIDATION_IMAGES), info))[0].catalog


def _no_images(preset: AnyPreset, count: int = BLOCK) -> np.ndarray:
    """Images that take no memory, for a catalogue."""
    return np.broadcast_to(np.float32(0), (count, *preset.shape))


def _simulate(dataset: SimulatedDataset, blocks: int, what: str) -> Batch:
    """Images and targets of the first blocks of a simulated dataset, with a progress bar."""
    parts: list[Batch] = []
    with progress_bar(what) as advance:
        for number in range(blocks):
            parts.append(dataset[range(number * BLOCK, (number + 1) * BLOCK)])
            advance(number + 1, blocks)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


class Held(torch.utils.data.Dataset[Batch]):
    """Batches from tensors in memory."""

    def __init__(self, tensors: Batch):
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors["image"])

    @property
    def targets(self) -> np.ndarray:
        """Label numbers (N,) or values (N, K)."""
        return self.tensors["target"].numpy()

    def __getitem__(self, rows: Any) -> Batch:
        numbers = torch.as_tensor(list(rows))
        return {name: tensor[numbers] for name, tensor in self.tensors.items()} | {"row": numbers}
