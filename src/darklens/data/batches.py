"""Batches for training: from disk, or simulated as it goes. Which images a step sees follows from seed and epoch alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from darklens.data.checks import check_finite, constant_images
from darklens.data.dataset import Cutouts, Images
from darklens.data.synthesis import simulated_info
from darklens.errors import DataError
from darklens.simulation import BLOCK, Simulator
from darklens.simulation.columns import to_frame

Batch = dict[str, Tensor]
"""``image`` (N, C, H, W), ``target``, and the ``row`` of each in its dataset if images come again."""


class CutoutDataset(Dataset[Batch]):
    """Images and targets of a dataset, fetched a batch at a time.

    ``targets`` is (N,) of label numbers, (N, K) of values, or images (N, C, H, W), which are read when they are asked
    for; ``crop`` reads the central square only.
    """

    def __init__(
        self,
        cutouts: Cutouts,
        targets: Images,
        crop: int | None = None,
        mask: bool = False,
        refuse_constant: bool = False,
    ):
        self.images = cutouts.images
        self.ids = cutouts.ids
        self.source = cutouts.info.source
        self.targets = targets
        self.mask, self.refuse_constant = mask, refuse_constant
        height, width = self.images.shape[-2:]
        side = crop if crop is not None and crop < min(height, width) else None
        self._window = None if side is None else ((height - side) // 2, (width - side) // 2, side)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: Any) -> Batch:
        rows = np.asarray(rows)
        images = self._read(rows)
        ids = [self.ids[row] for row in rows]
        if self.refuse_constant and (constant := constant_images(images)).any():
            first = ids[int(np.flatnonzero(constant)[0])]
            raise DataError(f"{self.source}: image {first} is constant: there is nothing to scale in it; leave it out")
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, which is checked next
            images = images.astype(np.float32)
        return {
            "image": torch.from_numpy(check_finite(images, ids, self.source, self.mask)),
            "target": torch.from_numpy(np.ascontiguousarray(self.targets[rows])),
            "row": torch.from_numpy(rows),
        }

    def _read(self, rows: np.ndarray) -> np.ndarray:
        if self._window is None:
            return self.images[rows]
        top, left, side = self._window
        window = (slice(None), slice(top, top + side), slice(left, left + side))
        if isinstance(self.images, np.ndarray):  # of a memory map, only the crop is read
            return self.images[(rows, *window)]
        return self.images[rows][(slice(None), *window)]


class SimulatedDataset(Dataset[Batch]):
    """Images simulated when they are asked for: image *i* of the preset and seed, targets from its truths.

    Parameters
    ----------
    simulator
        Makes the images.
    targets
        From images with their truths to what is to be predicted, (N,) or (N, K); nan where it is not known: such images
        are left out.
    columns
        Truths that ``targets`` reads.
    """

    def __init__(self, simulator: Simulator, targets: Callable[[Cutouts], np.ndarray], columns: Sequence[str]):
        self.simulator, self.targets = simulator, targets
        self.columns = ["id", *columns]
        self._info = simulated_info(simulator.preset, simulator.seed)

    def __getitem__(self, blocks: Any) -> Batch:
        made = [self.simulator.block(int(number)) for number in blocks]
        images = torch.cat([images for images, _ in made])
        truths = pl.concat(
            [to_frame({name: rows[name] for name in self.columns}) for _, rows in made], how="vertical_relaxed"
        )
        targets = self.targets(Cutouts(np.broadcast_to(np.float32(0), images.shape), truths, self._info))
        if targets.dtype.kind != "f":
            return {"image": images, "target": torch.from_numpy(targets)}
        values = torch.from_numpy(targets.astype(np.float32))
        known = torch.isfinite(values.flatten(1)).all(1)
        return {"image": images[known], "target": values[known]}


class Batches(Sampler[list[int]]):
    """Row numbers of each batch, shuffled anew in every epoch, and shared out over processes.

    Row numbers follow from ``seed`` and epoch alone. Incomplete batches are dropped when shuffling. ``epoch_size`` rows
    make an epoch, by default all: shorter ones go on where the last stopped, so that every row has its turn.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        shuffle: bool,
        rank: int = 0,
        world_size: int = 1,
        epoch_size: int | None = None,
    ):
        self.size, self.batch_size, self.seed, self.shuffle = size, batch_size, seed, shuffle
        self.epoch_size = min(epoch_size or size, size)
        self.rank, self.world_size = rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        if not self.shuffle:
            return -(-len(range(self.rank, self.size, self.world_size)) // self.batch_size)
        return max(1, self.epoch_size // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[int]]:
        if not self.shuffle:
            yield from self._of_pass(np.arange(self.size), range(len(self)))
            return
        per_pass = max(1, self.size // (self.batch_size * self.world_size))
        number, end = self.epoch * len(self), (self.epoch + 1) * len(self)
        while number < end:
            gone, first = divmod(number, per_pass)
            last = min(per_pass, first + end - number)
            order = np.random.default_rng(np.random.SeedSequence([self.seed, 11, gone])).permutation(self.size)
            yield from self._of_pass(order, range(first, last))
            number += last - first

    def _of_pass(self, order: np.ndarray, batches: range) -> Iterator[list[int]]:
        mine = order[self.rank :: self.world_size]
        for i in batches:
            # Sorted rows read faster from disk; their order in a batch means nothing.
            yield np.sort(mine[i * self.batch_size : (i + 1) * self.batch_size]).tolist()


class FreshBlocks(Sampler[list[int]]):
    """Numbers of simulated blocks: never the same twice, whatever epoch or process."""

    def __init__(self, blocks_per_epoch: int, blocks_per_batch: int, rank: int = 0, world_size: int = 1):
        self.blocks_per_epoch, self.blocks_per_batch = blocks_per_epoch, blocks_per_batch
        self.rank, self.world_size = rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return max(1, self.blocks_per_epoch // (self.blocks_per_batch * self.world_size))

    def __iter__(self) -> Iterator[list[int]]:
        step = self.blocks_per_batch * self.world_size
        first = self.epoch * len(self) * step + self.rank * self.blocks_per_batch
        for i in range(len(self)):
            yield list(range(first + i * step, first + i * step + self.blocks_per_batch))


def batch_loader(dataset: Dataset[Batch], batches: Sampler[list[int]], workers: int = 0) -> DataLoader[Batch]:
    """A loader whose every item is a whole batch."""
    # The batches are made whole by the dataset; pinning helps the copy to a GPU and nothing else.
    return DataLoader(
        dataset,
        sampler=batches,
        batch_size=None,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context="spawn" if workers else None,
    )


def blocks_of(images: int) -> int:
    """Blocks that hold this many images."""
    return max(1, images // BLOCK)
