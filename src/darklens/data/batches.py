"""Make the batches that a network is trained on, from a dataset on disk or simulated during training.

Which images a step sees follows from seed and epoch alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from darklens.data.catalog_inputs import CatalogEncoder
from darklens.data.checks import check_finite, constant_images
from darklens.data.dataset import Cutouts, Images, read_window
from darklens.data.seeds import make_generator
from darklens.data.sizes import central_window
from darklens.data.synthesis import simulated_info
from darklens.errors import DataError
from darklens.physics.smoothfit import sky_level
from darklens.simulation import BLOCK, Simulator
from darklens.simulation.columns import to_frame

Batch = dict[str, Tensor]
"""``image`` (N, C, H, W), ``target`` (N,) or (N, outputs), and the ``row`` (N,) of each in its dataset. Simulated images,
which are never seen twice, have no ``row``. Images with noise maps may have ``noise`` (N, C), that of their sky. Where
columns of the catalogue are inputs, ``catalog`` (N, F) holds them, standardised."""


class CutoutDataset(Dataset[Batch]):
    """Images and targets of a dataset, read a batch at a time.

    Parameters
    ----------
    cutouts
        The dataset, N images.
    targets
        Label numbers (N,), values (N, K), or images (N, C, H, W), which are read when they are asked for.
    crop
        Side in pixels of the central square that is read; None reads all.
    mask
        Set pixels that are nan or infinite to 0 instead of refusing them.
    refuse_constant
        Refuse images in which every band holds one value only, which a stretch to 0..1 cannot scale and
        masking by brightness not mask.
    noise
        Add the noise of the sky to batches, if there are noise maps; they are read once.
    catalog
        Inputs (N, F) from the catalogue, float32, that batches carry; None without.
    """

    def __init__(
        self,
        cutouts: Cutouts,
        targets: Images,
        crop: int | None = None,
        *,
        mask: bool = False,
        refuse_constant: bool = False,
        noise: bool = False,
        catalog: np.ndarray | None = None,
    ):
        self.images = cutouts.images
        self.catalog = catalog
        self._maps = cutouts.noise if noise else None
        self._sky = torch.zeros(len(cutouts), cutouts.images.shape[1])
        self._is_known = np.zeros(len(cutouts), dtype=bool)
        self.ids = cutouts.ids
        self.source = cutouts.where
        self.targets = targets
        self.mask, self.refuse_constant = mask, refuse_constant
        height, width = self.images.shape[-2:]
        cropped = crop is not None and crop < max(height, width)
        self._window = central_window(height, width, crop) if crop is not None and cropped else None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: Any) -> Batch:
        rows = np.asarray(rows)
        images = self._read(rows)
        ids = [self.ids[row] for row in rows]
        if self.refuse_constant and (constant := constant_images(images)).any():
            first = ids[int(np.flatnonzero(constant)[0])]
            raise DataError(
                f"{self.source}: image {first} is constant: there is nothing to scale in it, nor a bright part to find; "
                "leave it out"
            )
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, which is checked next
            images = images.astype(np.float32)
        batch = {
            "image": torch.from_numpy(check_finite(images, ids, self.source, mask=self.mask)),
            "target": torch.from_numpy(np.ascontiguousarray(self.targets[rows])),
            "row": torch.from_numpy(rows),
        }
        if self.catalog is not None:
            batch["catalog"] = torch.from_numpy(self.catalog[rows])
        return batch if self._maps is None else batch | {"noise": self._sky_of(self._maps, rows)}

    def _sky_of(self, maps: Images, rows: np.ndarray) -> Tensor:
        """The noise of the sky (n, C) of some images."""
        if len(new := rows[~self._is_known[rows]]):
            self._sky[new] = sky_level(torch.from_numpy(maps[new]))
            self._is_known[new] = True
        return self._sky[rows]

    def _read(self, rows: np.ndarray) -> np.ndarray:
        return self.images[rows] if self._window is None else read_window(self.images, rows, self._window)


class SimulatedDataset(Dataset[Batch]):
    """Images that are simulated during training, a batch at a time; asked for by their numbers.

    Parameters
    ----------
    simulator
        Makes the images.
    targets
        From images with their truths to what is to be predicted, (N,) or (N, K); nan where it is not known: such images
        are left out.
    columns
        Truths that ``targets`` reads.
    encoder
        Makes of truths the inputs that batches carry as ``catalog``; None without.
    """

    def __init__(
        self,
        simulator: Simulator,
        targets: Callable[[Cutouts], np.ndarray],
        columns: Sequence[str],
        encoder: CatalogEncoder | None = None,
    ):
        self.simulator, self.targets, self.encoder = simulator, targets, encoder
        self.columns = list(dict.fromkeys(["id", *columns, *(encoder.names if encoder is not None else ())]))
        self._info = simulated_info(simulator.preset, simulator.seed)

    def __getitem__(self, numbers: Any) -> Batch:
        numbers = np.asarray(numbers)
        blocks = numbers // BLOCK
        made = [
            self.simulator.block(int(block), chosen=numbers[blocks == block] % BLOCK) for block in dict.fromkeys(blocks)
        ]
        images = torch.cat([images for images, _ in made])
        truths = pl.concat(
            [to_frame({name: rows[name] for name in self.columns}) for _, rows in made], how="vertical_relaxed"
        )
        targets = self.targets(Cutouts(np.broadcast_to(np.float32(0), images.shape), truths, self._info))
        batch = {"image": images}
        if self.encoder is not None:
            batch["catalog"] = torch.from_numpy(self.encoder.encode(truths, self._info.source))
        if targets.dtype.kind != "f":
            return batch | {"target": torch.from_numpy(targets)}
        values = torch.from_numpy(targets.astype(np.float32))
        known = torch.isfinite(values.flatten(1)).all(1)
        return {name: tensor[known] for name, tensor in (batch | {"target": values}).items()}


class Batches(Sampler[list[int]]):
    """Row numbers of the images of each batch, shuffled anew in every epoch and divided among processes.

    They follow from seed and epoch alone. Shuffled batches are all of full size; what is left over is dropped.

    Parameters
    ----------
    size
        Number of images N in the dataset.
    batch_size
        Images in a batch of one process.
    seed
        Seed of the order, 0 or above.
    shuffle
        Draw a random order for each pass over the dataset; otherwise rows come in order, and the last batch is short.
    rank, world_size
        Number of this process, counted from 0, and of all processes.
    epoch_size
        Images in an epoch, at most N; None takes all. A shorter epoch goes on where the last one stopped, so that every
        image has its turn.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        *,
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
        """Choose the epoch whose batches come next; Lightning calls this at the start of each."""
        self.epoch = epoch

    def __len__(self) -> int:
        if not self.shuffle:
            return -(-len(range(self.rank, self.size, self.world_size)) // self.batch_size)
        return max(1, self.epoch_size // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[int]]:
        if not self.shuffle:
            yield from self._batches_of_pass(np.arange(self.size), range(len(self)))
            return
        per_pass = max(1, self.size // (self.batch_size * self.world_size))
        number, end = self.epoch * len(self), (self.epoch + 1) * len(self)
        while number < end:
            passes, first = divmod(number, per_pass)
            last = min(per_pass, first + end - number)
            order = make_generator(self.seed, "batch order", passes).permutation(self.size)
            yield from self._batches_of_pass(order, range(first, last))
            number += last - first

    def _batches_of_pass(self, order: np.ndarray, batches: range) -> Iterator[list[int]]:
        """Some of the batches of a pass over the dataset in the given order."""
        own_rows = order[self.rank :: self.world_size]
        for i in batches:
            # Sorted rows read faster from disk; their order in a batch means nothing.
            yield np.sort(own_rows[i * self.batch_size : (i + 1) * self.batch_size]).tolist()


class FreshImages(Sampler[list[int]]):
    """Numbers of the simulated images of each batch: none comes twice, in any epoch or process.

    A step of all processes together is a run of numbers, and each process has a run of these: what a step sees does not
    depend on how many processes share it.

    Parameters
    ----------
    epoch_size
        Images of all processes in an epoch; what is less than a step is left out.
    batch_size
        Images in a batch of one process.
    rank, world_size
        Number of this process, counted from 0, and of all processes.
    """

    def __init__(self, epoch_size: int, batch_size: int, rank: int = 0, *, world_size: int = 1):
        self.epoch_size, self.batch_size = epoch_size, batch_size
        self.rank, self.world_size = rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next; Lightning calls this at the start of each."""
        self.epoch = epoch

    def __len__(self) -> int:
        return max(1, self.epoch_size // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.epoch * len(self), (self.epoch + 1) * len(self)):
            first = (step * self.world_size + self.rank) * self.batch_size
            yield list(range(first, first + self.batch_size))


def batch_loader(dataset: Dataset[Batch], batches: Sampler[list[int]], workers: int = 0) -> DataLoader[Batch]:
    """Return a loader of whole batches.

    Parameters
    ----------
    dataset
        Returns a batch for the list of numbers that a sampler gives.
    batches
        Sampler of such lists.
    workers
        Processes that read ahead; 0 reads in this process.

    Returns
    -------
    DataLoader
        Yields batches, in pinned memory where there is a GPU.
    """
    return DataLoader(
        dataset,
        sampler=batches,
        batch_size=None,  # the dataset returns whole batches already
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context="spawn" if workers else None,
    )
