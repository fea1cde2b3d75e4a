"""What a user may choose in evaluating, predicting and ranking, as values that travel whole. No PyTorch at import."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darklens.errors import DarklensError

TEST_IMAGES = 3072
"""Test images that are simulated of a preset: the interval of a macro AUC of 0.97 is then about 0.01 long."""


class Options:
    """Choices that know which of them differ from their defaults."""

    def given(self) -> dict[str, Any]:
        """Return the options that differ from their defaults, by name: what a command line has to say."""
        pairs = ((each, getattr(self, each.name)) for each in dataclasses.fields(self))  # type: ignore[arg-type]
        return {each.name: value for each, value in pairs if value != each.default}

    def check_coverage(self, coverage: float) -> None:
        """Refuse a coverage that is no probability between 0 and 1. Raises DarklensError."""
        if not 0 < coverage < 1:
            raise DarklensError(f"--coverage must be between 0 and 1; got {coverage}")


@dataclass(frozen=True)
class EvaluationOptions(Options):
    """Choices in an evaluation.

    Parameters
    ----------
    name
        What to call this evaluation; by default as the data.
    seed
        Of the bootstrap.
    symmetries
        Average over the eight symmetries of the square.
    coverage
        What prediction sets promise, which is verified.
    outliers
        Images of another kind, which the model should flag.
    count
        Number of images of a preset, a total over the classes.
    metrics
        More metrics, functions of your own such as my_metrics.py:completeness, with commas between.
    """

    name: str | None = None
    seed: int = 0
    symmetries: bool = False
    coverage: float = 0.95
    outliers: Path | None = None
    count: int = TEST_IMAGES
    metrics: str | None = None

    def __post_init__(self) -> None:
        self.check_coverage(self.coverage)
        if self.count < 1:
            raise DarklensError(f"--count must be at least 1; got {self.count}")


@dataclass(frozen=True)
class PredictionOptions(Options):
    """Choices in a prediction.

    Parameters
    ----------
    skip
        Leave out images that cannot be used, and list them.
    symmetries
        Average over the eight symmetries of the square.
    coverage
        With which probability a prediction set holds the truth.
    sort
        A column to sort by, the highest first, and images unlike the training images after all others.
    """

    skip: bool = False
    symmetries: bool = False
    coverage: float = 0.95
    sort: str | None = None

    def __post_init__(self) -> None:
        self.check_coverage(self.coverage)


@dataclass(frozen=True)
class BenchmarkOptions(Options):
    """Choices in a benchmark.

    Parameters
    ----------
    preset
        The images, by a name (see darklens presets) or a YAML file.
    data
        Your own labelled images instead: a folder or file in any layout. Without a test split, a tenth is kept apart.
    train_images, test_images
        Numbers of images of the preset, totals over the classes.
    seed
        Of images, weights and order.
    pretrained
        Whether recipes that ask for pretrained weights get them; else all start from random ones.
    seeds
        How often each recipe is trained, with other weights, order and augmentation on the same images.
    """

    preset: str = "model-1"
    data: str | None = None
    train_images: int = 29952
    test_images: int = TEST_IMAGES
    seed: int = 0
    pretrained: bool = True
    seeds: int = 1

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise DarklensError(f"--seeds must be at least 1; got {self.seeds}")
