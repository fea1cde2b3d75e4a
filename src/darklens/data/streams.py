"""Batches of labelled images with images of a second, unlabelled dataset beside them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from darklens.data.batches import Batch
from darklens.data.checks import check_finite
from darklens.data.dataset import Cutouts
from darklens.data.seeds import make_generator


class UnlabelledImages(Dataset[Batch]):
    """Images of a dataset without targets, fetched a batch at a time.

    Parameters
    ----------
    cutouts
        The dataset.
    mask
        Set pixels that are nan or infinite to 0 instead of refusing the image.

    Attributes
    ----------
    fresh
        Whether no image comes twice, as of simulated ones.
    """

    fresh = False

    def __init__(self, cutouts: Cutouts, mask: bool = False):
        self.cutouts, self.mask = cutouts, mask
        self.ids = cutouts.ids

    def __len__(self) -> int:
        return len(self.cutouts)

    def __getitem__(self, rows: Any) -> Batch:
        rows = np.asarray(rows)
        ids = [self.ids[row] for row in rows]
        images = np.asarray(self.cutouts.images[rows], dtype=np.float32)
        return {"image": torch.from_numpy(check_finite(images, ids, self.cutouts.where, mask=self.mask))}


class TwoStreams(Dataset[Batch]):
    """Batches of one dataset with the images of another as ``unlabelled``; asked for by a pair of lists of rows.

    Parameters
    ----------
    labelled, unlabelled
        The two datasets.
    """

    def __init__(self, labelled: Dataset[Batch], unlabelled: Dataset[Batch]):
        self.labelled, self.unlabelled = labelled, unlabelled

    def __getitem__(self, pair: Any) -> Batch:
        rows, others = pair
        return self.labelled[rows] | {"unlabelled": self.unlabelled[others]["image"]}


class TwoStreamBatches(Sampler[tuple[list[int], list[int]]]):
    """Row numbers of each batch in two datasets; the second is gone through as often as the first needs it.

    Which rows of the second a step sees follows from seed and the number of the step alone, whatever the first one does.

    Parameters
    ----------
    labelled
        Batches of the first dataset.
    size
        Images of the second; None of one that never ends, whose numbers then come in order.
    batch_size
        Images of the second in a batch, of one process; at most ``size``.
    seed
        Of their order.
    rank, world_size
        Number of this process, and of all of them.
    """

    def __init__(
        self,
        labelled: Any,
        size: int | None,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.labelled, self.size, self.batch_size, self.seed = labelled, size, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Take note of the epoch; Lightning calls it at the start of each."""
        self.epoch = epoch
        self.labelled.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.labelled)

    def __iter__(self) -> Iterator[tuple[list[int], list[int]]]:
        first = self.epoch * len(self)
        if self.size is None:
            for step, rows in enumerate(self.labelled, first):
                begin = (step * self.world_size + self.rank) * self.batch_size
                yield rows, list(range(begin, begin + self.batch_size))
            return
        per_pass = max(1, self.size // (self.batch_size * self.world_size))
        for step, rows in enumerate(self.labelled, first):
            number, within = divmod(step, per_pass)
            rng = make_generator(self.seed, "unlabelled order", number)
            mine = rng.permutation(self.size)[self.rank :: self.world_size]
            yield rows, np.sort(mine[within * self.batch_size : (within + 1) * self.batch_size]).tolist()
