"""Choose the sub-pixels of each image that get more rays: those where light is least certain, beyond what noise hides."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from darklens.simulation import loops

ROW = 32
"""Numbers in each row of choices of uneven length. The last row of an image is filled up with copies, of which shorter rows
need fewer; a kernel takes longer for many short rows."""


@dataclass(frozen=True)
class Choice:
    """Hold the numbers that were chosen of each image, in rows of equal length.

    Attributes
    ----------
    index
        Numbers among all values of all images, row by row, (R, K).
    owners
        Image of each row, (R,), in ascending order.
    there
        1 for a number that was chosen; 0 for one that fills up a row, (R, K), in the dtype of the values.
    """

    index: Tensor
    owners: Tensor
    there: Tensor

    def of(self, values: Tensor) -> Tensor:
        """Return those of values (R', K', …) that were chosen, (R, K, …)."""
        return values.flatten(0, 1)[self.index]

    def joined(self, other: Choice, *, ragged: bool) -> Choice:
        """Return both choices, of other numbers among the same values, with ``ragged`` as `choose` was told."""
        index, there = (self.index, other.index), (self.there, other.there)
        if not ragged:
            return Choice(torch.cat(index, 1), self.owners, torch.cat(there, 1))
        owners, order = torch.cat([self.owners, other.owners]).sort(stable=True)
        return Choice(torch.cat(index)[order], owners, torch.cat(there)[order])


def choose(values: Tensor, owners: Tensor, above: Tensor, *, most: int, ragged: bool) -> Choice:
    """Return the largest values of each image.

    Parameters
    ----------
    values
        (R, K); where not ``ragged``, one row for each image.
    owners
        Image of each row, (R,), in ascending order.
    above
        Where ``ragged``, values of an image that are chosen are above this, (N,).
    most
        Values of an image that are chosen at most.
    ragged
        Whether each image has as many rows of `ROW` numbers as it needs, on a CPU alone. Otherwise all have one row of the
        same length, as no device has to wait for the numbers then.

    Returns
    -------
    Choice
        Two rows at least.
    """
    if ragged:
        found = loops.choose(values.numpy(), owners.numpy(), above.numpy(), most, ROW)
        index, rows, there = (torch.from_numpy(each) for each in found)
        return Choice(index, rows, there)
    largest = values.detach().topk(min(most, values.shape[1]), sorted=False)
    first = torch.arange(len(values), device=values.device)[:, None] * values.shape[1]
    return Choice(first + largest.indices, owners, torch.ones_like(largest.values))
