"""The target of a domain adaptation: images without labels, brought to size and bands of the source."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.utils.data import Dataset

from darklens.adaptation.module import TargetImages
from darklens.data.batches import Batch
from darklens.data.checks import check_finite
from darklens.data.dataset import Cutouts, DatasetInfo
from darklens.data.layouts import open_with
from darklens.data.options import DataOptions
from darklens.data.readers.catalogs import read_catalog
from darklens.data.seeds import SEEDS, make_generator, simulation_seed
from darklens.data.splits import ensure_split
from darklens.data.synthesis import simulated_info
from darklens.errors import DataError, ModelError
from darklens.inference.adapt import Adaptation, adaptation
from darklens.inference.config import ModelConfig
from darklens.progress import progress_bar, working
from darklens.simulation import BLOCK, Simulator, load_preset
from darklens.tasks.base import Task

VALIDATION_IMAGES = 1024
"""Target images on which validators look, at most: the standard error of a mean entropy is then a thirtieth of its scatter.
More take longer after each epoch."""
SAMPLE_IMAGES = 1024
"""Target images to which the score of unlike images is fitted, at most."""


@dataclass
class TargetData:
    """Images of the target, and what a model remembers of them.

    Attributes
    ----------
    stream
        Training images, fetched a batch at a time.
    images
        What the module needs of them.
    sample
        Images (n, C, H, W) to which the score of unlike images is fitted.
    split
        Columns ``id`` and ``split``; None of images that are simulated as it goes.
    description
        What a model remembers of them.
    notes
        How they were brought to the source, and what was ignored.
    """

    stream: AdaptedImages | SimulatedTarget
    images: TargetImages
    sample: Tensor
    split: pl.DataFrame | None
    description: dict[str, Any]
    notes: list[str]


class AdaptedImages(Dataset[Batch]):
    """Images of a dataset brought to size and bands of the source, fetched a batch at a time.

    Parameters
    ----------
    cutouts
        The images, N.
    adapt
        What is done to them.
    mask
        Set pixels that are nan or infinite to 0 instead of refusing the image.
    """

    fresh = False

    def __init__(self, cutouts: Cutouts, adapt: Adaptation, mask: bool = False):
        self.cutouts, self.adapt, self.mask = cutouts, adapt, mask
        self.ids = cutouts.ids

    def __len__(self) -> int:
        return len(self.cutouts)

    def __getitem__(self, rows: Any) -> Batch:
        rows = np.asarray(rows)
        images = np.asarray(self.cutouts.images[rows], dtype=np.float32)
        images = check_finite(images, [self.ids[row] for row in rows], self.cutouts.where, mask=self.mask)
        return {"image": self.adapt(images)}


class SimulatedTarget(Dataset[Batch]):
    """Images of a preset that are simulated as it goes, without their truths; asked for by their numbers.

    Parameters
    ----------
    simulator
        Makes the images.
    adapt
        What is done to them.
    """

    fresh = True

    def __init__(self, simulator: Simulator, adapt: Adaptation):
        self.simulator, self.adapt = simulator, adapt

    def __len__(self) -> int:
        return SEEDS

    def __getitem__(self, numbers: Any) -> Batch:
        numbers = np.asarray(numbers)
        blocks = numbers // BLOCK
        made = [
            self.simulator.block(int(block), chosen=numbers[blocks == block] % BLOCK)[0]
            for block in dict.fromkeys(blocks)
        ]
        return {"image": self.adapt(torch.cat(made).numpy())}


@dataclass(frozen=True)
class Source:
    """What a target is brought to, and compared with.

    Attributes
    ----------
    data
        ``preset:NAME`` or a path.
    shape
        Of its images, (C, H, W).
    info
        Bands, pixel scale, unit and zero points.
    typical_peak
        Median over images of the 99.5th percentile of their pixels.
    checksum
        Of its images, or of the preset; None if unknown.
    """

    data: str
    shape: tuple[int, int, int]
    info: DatasetInfo
    typical_peak: float
    checksum: str | None


def open_target(
    target: str,
    source: Source,
    batch_size: int,
    *,
    seeds: tuple[int, int],
    options: DataOptions,
    task: Task,
    labels: str | None = None,
    trust_code: bool = False,
) -> TargetData:
    """Open the target of an adaptation.

    Of images with a column ``split``, training images are adapted to and validation images chosen by; test images stay
    unseen. Of others, a tenth serves for validation.

    Parameters
    ----------
    target
        ``preset:NAME``, or a path in any layout.
    source
        What the images are brought to.
    batch_size
        Images of a step.
    seeds
        Of simulated training images, and of split and simulated validation images.
    options
        How a path is read.
    task
        What is learned; columns of the target that it reads are ignored.
    labels
        A table with identifiers and labels of a few images of the target, which are learned.
    trust_code
        Whether code that a preset in YAML names may run.

    Raises
    ------
    DataError
        If it is the source, cannot be brought to it, or has too few images, or labels are of none of its images.
    """
    if target.startswith("preset:"):
        if labels is not None:
            raise DataError(
                f"--labels {labels}: images of a preset, which are simulated as it goes, have no identifiers"
            )
        return _simulated(target, source, seeds, trust_code)
    if not source.data.startswith("preset:") and Path(target).resolve() == Path(source.data).resolve():
        raise _same(target)
    cutouts = open_with(target, dataclasses.replace(options, layout=None, catalog=None))
    if source.checksum is not None and cutouts.info.checksum == source.checksum:
        raise _same(target)
    adapt = _adaptation(source, cutouts.info, tuple(cutouts.images.shape[1:]), target)
    notes = [f"target: {note}" for note in (*_reading_notes(cutouts), *adapt.notes)]
    if found := [name for name in task.needs.columns if name in cutouts.catalog.columns]:
        notes.append(
            f"target: its {' and '.join(found)} is not used; nothing is learned or chosen by labels of the target"
        )
    # Stratified by nothing: a split that followed labels would know them.
    kept = [name for name in ("id", "split") if name in cutouts.catalog.columns]
    catalog = ensure_split(cutouts.catalog.select(kept), seeds[1])
    split = catalog["split"].to_numpy()
    train, validation = (np.flatnonzero(split == name) for name in ("train", "validation"))
    if len(train) < batch_size:
        raise DataError(
            f"{target}: {len(train)} training images of the target are fewer than a batch of {batch_size}; choose a "
            "smaller --trainer.batch_size, or a target of more images"
        )
    stream, held = (AdaptedImages(cutouts.subset(rows), adapt, options.mask) for rows in (train, validation))
    rng = make_generator(seeds[1], "calibration")
    chosen = [
        np.sort(rng.permutation(len(each))[:n]) for each, n in ((held, VALIDATION_IMAGES), (stream, SAMPLE_IMAGES))
    ]
    with working("reading a sample of the target"):
        images, sample = held[chosen[0]]["image"], stream[chosen[1]]["image"]
    description: dict[str, Any] = {
        "source": cutouts.info.source if cutouts.info.source.startswith("preset:") else Path(cutouts.info.source).name,
        "layout": cutouts.info.layout,
        "seed": cutouts.info.seed,
        "checksum": cutouts.info.checksum,
        "train_images": len(train),
        "validation_images": len(validation),
        "test_images": int((split == "test").sum()),
    }
    images_of_target = TargetImages(stream, images)
    if labels is not None:
        few = _labelled(Path(labels), cutouts, split, task)
        images_of_target.labelled = AdaptedImages(few.cutouts, adapt, options.mask)[range(len(few.targets))]["image"]
        images_of_target.labels = torch.from_numpy(few.targets)
        description["labelled"] = list(few.cutouts.ids)
        notes.append(f"target: the labels of {len(few.targets):,} of its images are learned, as --labels says")
    kept_split = catalog.select(pl.col("id").cast(pl.String), "split")
    return TargetData(stream, images_of_target, sample, kept_split, description, notes)


@dataclass(frozen=True)
class _Labelled:
    """Images of the target whose labels are given, and their targets, as the task computes with them."""

    cutouts: Cutouts
    targets: np.ndarray


def _labelled(path: Path, cutouts: Cutouts, split: np.ndarray, task: Task) -> _Labelled:
    """The images of the target that a table labels; refused if one is unknown, has no label, or is kept for the test."""
    known, _ = read_catalog(path, cutouts.catalog["id"])
    places = {number: place for place, number in enumerate(cutouts.ids)}
    names = known["id"].to_list()
    if unknown := [name for name in names if name not in places]:
        raise DataError(
            f"--labels {path}: {len(unknown):,} of {len(names):,} identifiers are of no image of the target, "
            f"{unknown[0]!r} among them"
        )
    rows = np.array([places[name] for name in names], dtype=np.int64)
    if (tested := split[rows] == "test").any():
        raise DataError(
            f"--labels {path}: {int(tested.sum()):,} images are marked for the test in the target, "
            f"{names[tested.argmax()]!r} among them; learning their labels would spoil it: leave them out"
        )
    columns = [name for name in task.needs.columns if name in known.columns]
    if missing := [name for name in task.needs.columns if name not in columns]:
        raise DataError(f"--labels {path}: no column {missing[0]!r}, which the task learns")
    few = cutouts.subset(rows)
    few = dataclasses.replace(few, catalog=few.catalog.drop(columns, strict=False).hstack(known.select(columns)))
    targets = np.asarray(task.targets(few))
    if not len(rows) or not np.isfinite(targets).all():
        raise DataError(
            f"--labels {path}: {'no rows' if not len(rows) else 'a row has no label'}; leave out what is unknown"
        )
    return _Labelled(few, targets.astype(np.float32) if targets.dtype.kind == "f" else targets)


def _simulated(target: str, source: Source, seeds: tuple[int, int], trust_code: bool) -> TargetData:
    """Target images that are simulated as it goes, with seeds of training and of validation."""
    preset = load_preset(target.removeprefix("preset:"), trust_code=trust_code)
    if target == source.data or preset.checksum == source.checksum:
        raise _same(target)
    numbers = simulation_seed(seeds[0] % SEEDS, "training"), simulation_seed(seeds[1] % SEEDS, "validation")
    info = simulated_info(preset, numbers[0])
    adapt = _adaptation(source, info, preset.shape, target)
    stream = SimulatedTarget(Simulator(preset, numbers[0], compile=True), adapt)
    held = SimulatedTarget(Simulator(preset, numbers[1]), adapt)
    parts = {"validation": (held, VALIDATION_IMAGES // 2), "sample": (stream, SAMPLE_IMAGES // 2)}
    made: dict[str, Tensor] = {}
    for name, (dataset, count) in parts.items():
        blocks = []
        with progress_bar(f"simulating {name} images of the target") as advance:
            for number in range(count // BLOCK):
                blocks.append(dataset[range(number * BLOCK, (number + 1) * BLOCK)]["image"])
                advance(number + 1, count // BLOCK)
        made[name] = torch.cat(blocks)
    description = {
        "source": f"preset:{preset.name}",
        "layout": "simulated as it goes",
        "seed": seeds[0],
        "checksum": preset.checksum,
        "validation_images": len(made["validation"]),
        "test_images": 0,
    }
    notes = [f"target: {note}" for note in adapt.notes]
    images = TargetImages(stream, made["validation"])
    return TargetData(stream, images, made["sample"], None, description, notes)


def _adaptation(source: Source, info: DatasetInfo, shape: tuple[int, ...], target: str) -> Adaptation:
    """What brings target images to the source, as it brings images to a trained model."""
    like = ModelConfig(
        task={},
        network={},
        preprocessing={},
        channels=source.shape[0],
        pixels=source.shape[1],
        bands=source.info.bands,
        pixel_scale=source.info.pixel_scale,
        unit=source.info.unit,
        zero_points=source.info.zero_points,
        data={"typical_peak": source.typical_peak},
    )
    try:
        made = adaptation(like, info, shape)
    except ModelError as error:
        raise DataError(
            f"{target}: cannot be brought to the source: {str(error).replace('the model', 'the source')}"
        ) from error
    said = [note.replace("the model's", "the source's").replace("the model", "the source") for note in made.notes]
    return dataclasses.replace(made, notes=said)


def _reading_notes(cutouts: Cutouts) -> list[str]:
    return [] if cutouts.info.layout == "dataset" else list(cutouts.info.notes)


def _same(target: str) -> DataError:
    return DataError(f"{target}: is the source itself, so that there is nothing to adapt to; name another target")
