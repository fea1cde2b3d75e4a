"""What a user may choose in evaluating, predicting and ranking, as values that travel whole. No PyTorch at import."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from darklens.errors import DarklensError
from darklens.inference.precision import Precision

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

    def check_prior(self, prior: float | None) -> None:
        """Refuse a prior that is no fraction between 0 and 1. Raises DarklensError."""
        if prior is not None and not 0 < prior < 1:
            raise DarklensError(f"--prior is the fraction of lenses, above 0 and below 1; got {prior:g}")


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
    prior
        Of a lens finder: the fraction of lenses among all objects that probabilities and figures are for, by Bayes'
        theorem; by default that of the model.
    """

    name: str | None = None
    seed: int = 0
    symmetries: bool = False
    coverage: float = 0.95
    outliers: Path | None = None
    count: int = TEST_IMAGES
    metrics: str | None = None
    prior: float | None = None

    def __post_init__(self) -> None:
        self.check_coverage(self.coverage)
        self.check_prior(self.prior)
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
    precision
        Of the network: float32, or bfloat16, up to twice as fast where the processor computes in it, for differences of
        up to a few hundredths in probabilities.
    coverage
        With which probability a prediction set holds the truth.
    sort
        A column to sort by, the highest first, and images unlike the training images after all others.
    prior
        Of a lens finder: the fraction of lenses among all objects that probabilities are for, by Bayes' theorem; by default
        that of the model.
    """

    skip: bool = False
    symmetries: bool = False
    precision: Precision = "float32"
    coverage: float = 0.95
    sort: str | None = None
    prior: float | None = None

    def __post_init__(self) -> None:
        self.check_coverage(self.coverage)
        self.check_prior(self.prior)


@dataclass(frozen=True)
class SearchOptions(Options):
    """Choices in a search for lenses.

    Parameters
    ----------
    prior
        The fraction of lenses among all objects that are searched, for which probabilities are, by Bayes' theorem; by
        default that of the model.
    top
        Keep so many in the table, the most probable ones; by default all. The page shows as many, by default 200.
    mosaic
        A page to draw of the most probable ones, .html, which needs nothing else to be looked at.
    known_lenses
        A table of known lenses of your own, with ra and dec in degrees, beside those of the package lenscat if it is
        installed; false marks none.
    skip
        Leave out images that cannot be used, and list them.
    symmetries
        Average over the eight symmetries of the square.
    precision
        Of the network: float32, or bfloat16, up to twice as fast where the processor computes in it, for differences of
        up to a few hundredths in probabilities.
    """

    prior: float | None = None
    top: int | None = None
    mosaic: Path | None = None
    known_lenses: str | None = None
    skip: bool = False
    symmetries: bool = False
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        self.check_prior(self.prior)
        if self.top is not None and self.top < 1:
            raise DarklensError(f"--top must be at least 1; got {self.top}")
        if self.mosaic is not None and self.mosaic.suffix != ".html":
            raise DarklensError(f"--mosaic is a page to draw and ends in .html; got {self.mosaic}")


@dataclass(frozen=True)
class EmbeddingOptions(Options):
    """Choices in an embedding of images.

    Parameters
    ----------
    like
        A cutout, or the identifier of one of the images, whose nearest neighbours are listed.
    page
        A page to draw, .html, with a map of the images, clusters and outliers, which needs nothing else to be looked at.
    map
        How the map is made: tsne, which takes pca for more than 4,000 images, or pca.
    clusters
        Number of clusters, by k-means; by default HDBSCAN finds as many as stand out.
    neighbours
        How many nearest neighbours tell how isolated an image is, and a class, and are listed.
    count
        Number of images of a preset, a total over the classes.
    seed
        Of maps, clusters, folds and the bootstrap.
    skip
        Leave out images that cannot be used, and list them.
    """

    like: str | None = None
    page: Path | None = None
    map: Literal["tsne", "pca"] = "tsne"
    clusters: int | None = None
    neighbours: int = 10
    count: int = 1024
    seed: int = 0
    skip: bool = False

    def __post_init__(self) -> None:
        if self.page is not None and self.page.suffix != ".html":
            raise DarklensError(f"--page is a page to draw and ends in .html; got {self.page}")
        least = {"clusters": 2, "neighbours": 1, "count": 2, "seed": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise DarklensError(f"--{name} must be at least {low}; got {value}")


@dataclass(frozen=True)
class BenchmarkOptions(Options):
    """Choices in a benchmark.

    Parameters
    ----------
    preset
        The images, by a name (see darklens presets) or a YAML file; by default model-1, finding-hsc to find lenses, and
        fair-hst for super-resolution.
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
    target_data
        Of the benchmark adaptation: the images to adapt to, a folder with labelled images marked for the test, or
        preset:NAME; by default preset:finding-hsc.
    encoders
        Of the benchmark adaptation: recipes whose networks are adapted, with commas between; by default each recipe
        that adapts keeps its own.
    pairs
        For super-resolution: targets of the preset's images are by a telescope so many times sharper (2 to 8, by default
        2), or by the instrument of another preset.
    labels
        Of the benchmark pretraining: numbers of labelled images of each class to learn from, with commas between, and all;
        by default 10,30,100,300,1000,all.
    draws
        Of the benchmark pretraining: how often labelled images are drawn; by default 5.
    finetuning
        Of the benchmark pretraining: the recipe that encoders are fine-tuned with, whose task says what labels are for; by
        default substructure/mae-finetuned.
    finetuning_budget
        Of the benchmark pretraining: what each fine-tuning may use, such as 1min; by default as much as the pre-training.
    """

    preset: str | None = None
    data: str | None = None
    train_images: int = 29952
    test_images: int = TEST_IMAGES
    seed: int = 0
    pretrained: bool = True
    seeds: int = 1
    target_data: str | None = None
    encoders: str | None = None
    pairs: str | None = None
    labels: str | None = None
    draws: int | None = None
    finetuning: str | None = None
    finetuning_budget: str | None = None

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise DarklensError(f"--seeds must be at least 1; got {self.seeds}")
        if self.draws is not None and self.draws < 1:
            raise DarklensError(f"--draws must be at least 1; got {self.draws}")


@dataclass(frozen=True)
class PaintOptions(Options):
    """What is painted over how many galaxies.

    Parameters
    ----------
    count
        Images to make, lenses and others together; without it, as many as there are hosts.
    share
        Of lenses among the images, above 0 and below 1.
    both
        Show each painted galaxy once more without the source; otherwise no galaxy is in two images.
    redshift
        Column of the catalogue with the hosts' redshifts; without it, one is looked for.
    zero_points
        AB magnitude of 1 in the images' unit, one for all bands or one a band with commas between, for images that do not
        say it.
    psf
        A .npy or FITS image of the point-spread function on the images' pixels, for all bands; without it, that of the
        cutouts is taken, or else the preset's seeing.
    known_lenses
        A table of known lenses, with ra and dec in degrees, beside those of the package lenscat if it is installed.
    split
        Fractions of training, validation and test, with commas between.
    """

    count: int | None = None
    share: float = 0.5
    both: bool = False
    redshift: str | None = None
    zero_points: str | None = None
    psf: Path | None = None
    known_lenses: Path | None = None
    split: str = "0.8,0.1,0.1"

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise DarklensError(f"--share must be above 0 and below 1; got {self.share}")
        if self.count is not None and self.count < 2:
            raise DarklensError(f"--count must be at least 2; got {self.count}")
        if self.both and self.share != 0.5:
            raise DarklensError("--both makes as many lenses as others; leave --share out")
        split_fractions(self.split)

    @property
    def fractions(self) -> dict[str, float]:
        """Return the fraction of each part of the split."""
        return split_fractions(self.split)


def split_fractions(text: str) -> dict[str, float]:
    """Return the fractions of training, validation and test images, of three numbers with commas between.

    Raises
    ------
    DarklensError
        If it is no such text.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 3:
        raise DarklensError(f"--split takes three numbers, such as 0.8,0.1,0.1; got {text!r}")
    return dict(zip(("train", "validation", "test"), numbers, strict=True))
