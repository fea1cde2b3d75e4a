"""Derive the random generators of splits, batch orders and calibration subsets from the one seed that a user gives, and
the seeds of simulated images, which are never the same for training, validation and testing."""

from __future__ import annotations

from typing import Literal

import numpy as np

from darklens.errors import DataError

SimulatedFor = Literal["dataset", "training", "validation", "test"]
SIMULATED_FOR: dict[SimulatedFor, int] = {"dataset": 0, "training": 1, "validation": 2, "test": 3}
"""What images are simulated for: a dataset folder, or as it goes. Seeds of each lie in a range of their own of `SEEDS`
numbers, so that no seeds that a user may give lead to images that serve two purposes. The numbers may not change: runs
that are resumed simulate the images that they began with."""
SEEDS = 2**30
"""Seeds that a user may give are below this. Four ranges of it fill the 32 bits that `numpy.random.SeedSequence` takes as
one number."""
Purpose = Literal["split", "batch order", "unlabelled order", "calibration", "painting"]
STREAMS: dict[Purpose, int] = {"split": 7, "batch order": 11, "unlabelled order": 13, "calibration": 17, "painting": 19}
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


def simulation_seed(seed: int, purpose: SimulatedFor) -> int:
    """Return the seed of images that are simulated for a purpose, which no other seed and purpose have.

    Parameters
    ----------
    seed
        The user's seed, from 0 to `SEEDS` - 1.
    purpose
        What the images are for, a key of `SIMULATED_FOR`.

    Raises
    ------
    DataError
        If the user's seed is out of range.
    """
    if not 0 <= seed < SEEDS:
        raise DataError(f"--seed must be from 0 to {SEEDS - 1}; got {seed}")
    return SIMULATED_FOR[purpose] * SEEDS + seed
