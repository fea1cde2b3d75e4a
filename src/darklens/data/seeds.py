"""Derive the random generators of splits, batch orders and calibration subsets from the one seed that a user gives."""

from __future__ import annotations

from typing import Literal

import numpy as np

Purpose = Literal["split", "batch order", "unlabelled order", "calibration"]
STREAMS: dict[Purpose, int] = {"split": 7, "batch order": 11, "unlabelled order": 13, "calibration": 17}
"""A number for each purpose, so that the split and the order of batches are independent under one seed. The choice of the
validation images that calibrate a model is independent of both: it must not depend on where the split put a row. The
numbers have no meaning beyond being different and not 0: `numpy.random.SeedSequence` pads with zeros, so ``[seed, 0]``
would be the stream of ``default_rng(seed)``. They may not change: splits are made again from the seed when a run is
resumed, and an ensemble of old runs is calibrated again."""


def make_generator(seed: int, purpose: Purpose, *keys: int) -> np.random.Generator:
    """Return the random generator of a purpose.

    Parameters
    ----------
    seed
        The user's seed, 0 or above.
    purpose
        What the numbers are for, a key of `STREAMS`.
    *keys
        Further numbers that choose a stream, such as the number of a pass over the dataset; 0 or above.

    Returns
    -------
    numpy.random.Generator
        The same for the same arguments, and independent of that for any others. A last key 0 equals no key.
    """
    return np.random.default_rng(np.random.SeedSequence([seed, STREAMS[purpose], *keys]))
