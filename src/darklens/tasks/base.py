"""What a task is: everything that depends on what is learned, behind one interface. No PyTorch at import.

Training, evaluation, prediction and report are written once, for all tasks: they ask the task, and never which task it is.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from darklens.errors import ModelError, UserCodeError
from darklens.evaluation.calibration import Calibration

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    import torchmetrics
    from lightning.pytorch import LightningModule
    from torch import Tensor, nn

    from darklens.data.dataset import Cutouts
    from darklens.data.preprocessing import Preprocessing
    from darklens.evaluation.bootstrap import Interval, Metric
    from darklens.tasks.optimization import LearningOptions


def known_targets(task: Task, cutouts: Cutouts) -> tuple[Cutouts, np.ndarray]:
    """Return the images whose targets are known, and these.

    Parameters
    ----------
    task
        Whose targets.
    cutouts
        N images.

    Returns
    -------
    n of the images, and whole numbers (n,) or floating ones (n, …).

    Raises
    ------
    UserCodeError
        If the task does not return a target for each image, or none that are numbers.
    """
    import numpy as np

    targets = _checked(task, cutouts)
    known = np.flatnonzero(np.isfinite(targets).reshape(len(targets), -1).all(1))
    if len(known) == len(cutouts) and (targets.ndim > 1 or targets.dtype.kind != "f"):
        return cutouts, targets
    cutouts = cutouts.subset(known)
    targets = _checked(task, cutouts)
    if targets.dtype.kind == "f" and targets.ndim == 1:
        raise UserCodeError(
            f"targets of {type(task).__name__} are fractions ({len(targets)},), with each of which every output would be "
            "compared; return them as (N, 1)"
        )
    return cutouts, targets


def _checked(task: Task, cutouts: Cutouts) -> np.ndarray:
    import numpy as np

    targets = np.asarray(task.targets(cutouts))
    if targets.ndim == 0 or len(targets) != len(cutouts) or targets.dtype.kind not in "biuf":
        raise UserCodeError(
            f"targets of {type(task).__name__} have shape {targets.shape} and type {targets.dtype}; "
            f"expected a number, or several, for each of {len(cutouts)} images"
        )
    return targets


def learned(default: Any = dataclasses.MISSING, factory: Any = dataclasses.MISSING) -> Any:
    """Return a dataclass field for what a task learns from training data, which is no option of a recipe."""
    return field(default=default, default_factory=factory, metadata={"learned": True})


def options_of(task: type[Task]) -> list[str]:
    """Return the names of the options that a recipe may give to a task."""
    return [each.name for each in dataclasses.fields(task) if not each.metadata.get("learned")]


@dataclass(frozen=True)
class Needs:
    """What a task needs of data.

    Parameters
    ----------
    columns
        Catalogue columns that `Task.targets` reads.
    pairs
        Whether every image comes with an image to predict (``targets.npy``).
    unlabelled
        Whether training batches carry images of a second, unlabelled dataset as ``batch["unlabelled"]``.
    stratify
        Column whose values a random split keeps in proportion; None splits all rows alike.
    """

    columns: Sequence[str] = ()
    pairs: bool = False
    unlabelled: bool = False
    stratify: str | None = "label"


@dataclass(frozen=True)
class Goal:
    """A value of a validation metric whose time of training a leaderboard gives.

    Parameters
    ----------
    key
        The metric, one of `Task.validation_metrics`.
    value
        What it has to reach.
    title
        What a reader calls it, such as AUC 0.95.
    """

    key: str
    value: float
    title: str


@dataclass(frozen=True)
class Gallery:
    """Test images that a report shows.

    Parameters
    ----------
    examples, captions
        Row numbers of typical images, and a caption for each.
    mistakes
        Row numbers of the worst predictions, the worst first.
    truths, called
        For each mistake, what it is and what it was taken for.
    confidence
        For each mistake, the probability of what it was taken for; empty where there are none.
    explained, explained_captions
        Row numbers of images of which is drawn what each pixel adds to the output, and a caption for each.
    explained_outputs
        For each of these, the number of the output.
    rebuilt, rebuilt_captions
        Row numbers of images whose reconstructions are drawn, of a model that rebuilds images, and a caption for each.
    """

    examples: Sequence[int] = ()
    captions: Sequence[str] = ()
    mistakes: Sequence[int] = ()
    truths: Sequence[str] = ()
    called: Sequence[str] = ()
    confidence: Sequence[float] = ()
    explained: Sequence[int] = ()
    explained_captions: Sequence[str] = ()
    explained_outputs: Sequence[int] = ()
    rebuilt: Sequence[int] = ()
    rebuilt_captions: Sequence[str] = ()


@dataclass(frozen=True)
class Task(ABC):
    """One kind of learning. Subclasses are frozen dataclasses; their fields are what a recipe may say under ``task:``.

    What is learned from training data (class names, the mean of the targets) is kept in fields made by `learned`, and
    stored with the model. Arrays of predictions are (N, K): N images, K = `outputs`.

    Attributes
    ----------
    ranking
        Key of the metric by which models are ranked.
    headlines
        Keys of the metrics that a report shows first and a leaderboard in its columns.
    validation_curve
        Key and title of the validation metric that is drawn beside the loss.
    goal
        The validation metric and value whose time is measured.
    must_agree
        Attributes of the task that members of an ensemble must share, for their predictions to be averaged.
    mistakes_title
        What a report calls its worst predictions.
    predicts
        ``columns`` of a table, or ``images``: arrays (N, C, H, W). Such predictions are turned back where a model averages
        over symmetries.
    benchmark_preset
        What a benchmark simulates unless it is told what.
    pretrains
        Whether other tasks that start from its models take the encoder alone.
    """

    ranking: ClassVar[str]
    headlines: ClassVar[Sequence[str]] = ()
    validation_curve: ClassVar[tuple[str, str] | None] = None
    goal: ClassVar[Goal | None] = None
    must_agree: ClassVar[Sequence[str]] = ()
    mistakes_title: ClassVar[str] = "Largest errors"
    predicts: ClassVar[Literal["columns", "images"]] = "columns"
    benchmark_preset: ClassVar[str] = "model-1"
    pretrains: ClassVar[bool] = False

    # What it needs of data.

    @property
    def needs(self) -> Needs:
        """What it needs of data."""
        return Needs()

    def for_data(self, cutouts: Cutouts) -> Self:
        """Return the task with what the catalogue says before targets can be read, such as class names.

        Raises
        ------
        DataError
            If the task cannot be learned from these data.
        """
        return self

    @abstractmethod
    def targets(self, cutouts: Cutouts) -> np.ndarray:
        """Return what is to be predicted: whole numbers (N,), or float64 (N, K) with nan where it is not known.

        Whole numbers of which some are not known are float64 (N,) with nan, and whole when only known ones are asked for.

        Of a task that needs pairs, training reads the images to predict batch by batch instead, and this serves the test.

        Raises
        ------
        DataError
            If the catalogue does not have it.
        """

    def fit(self, targets: np.ndarray) -> Self:
        """Return the task with what it learns from the targets of the training images, such as their mean.

        Raises
        ------
        DataError
            If there is nothing to learn from them.
        """
        return self

    def fit_pairs(self, images: np.ndarray, targets: np.ndarray) -> Self:
        """Return a task that needs pairs with what it learns from training images and targets; by default, from the latter.

        Parameters
        ----------
        images
            A sample of the training images, (n, C, H, W).
        targets
            What is to be predicted of them, (n, C, H', W').

        Raises
        ------
        DataError
            If there is nothing to learn from them.
        """
        return self.fit(targets)

    def check_split(self, targets: np.ndarray, where: str) -> None:
        """Refuse a part of the images whose targets (N,) or (N, K) teach or measure nothing; by default, none is.

        Raises
        ------
        DataError
            If so; ``where`` names the part.
        """
        return

    # What it predicts.

    @property
    @abstractmethod
    def output_names(self) -> Sequence[str]:
        """Names of what is predicted, one for each output of the network."""

    @property
    def outputs(self) -> int:
        """Number of outputs of the network."""
        return len(self.output_names)

    @property
    def finer_by(self) -> int:
        """Factor by which predicted images have finer pixels than those that they are predicted from; 1 if they do not."""
        return 1

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes whose probabilities are predicted; empty if it is something else."""
        return ()

    def predictions(self, output: Tensor) -> Tensor:
        """Return predictions (N, K), such as probabilities, of the network's output (N, K)."""
        return output

    # How it is learned.

    @abstractmethod
    def loss(self, output: Tensor, targets: Tensor, epoch: int) -> Tensor:
        """Return the loss of a training batch.

        Parameters
        ----------
        output
            Of the network, (N, K), float32.
        targets
            As `targets` gives them, values in float32.
        epoch
            The present epoch; epochs count from 1.

        Returns
        -------
        Tensor
            One number.
        """

    def validation_loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a validation batch, the same in all epochs: the epoch in which it is lowest is kept."""
        return self.loss(output, targets, 1)

    def validation_metrics(self) -> dict[str, torchmetrics.Metric]:
        """Return metrics of predictions and targets that are logged after each epoch."""
        return {}

    def module(self, network: nn.Module, preprocessing: Preprocessing, options: LearningOptions) -> LightningModule:
        """Return the Lightning module that learns the task.

        A task with several networks or optimisers returns one of its own, a subclass of
        `darklens.tasks.supervised.SupervisedModule` whose ``network`` is what is kept.

        Parameters
        ----------
        network
            From images (N, C, H, W) to outputs (N, K).
        preprocessing
            Fitted to training images.
        options
            Optimiser, schedule, augmentation and seed.

        Returns
        -------
        LightningModule
            It logs ``validation/loss``.
        """
        from darklens.tasks.supervised import SupervisedModule

        return SupervisedModule(self, network, preprocessing, options)

    def concern_of_training(self, measured: Mapping[str, float], images: int) -> str | None:
        """Return what is wrong with a training, judged by its validation metrics over so many images; None if nothing."""
        return None

    # What becomes of the network's output in a trained model.

    def calibrate(self, output: Tensor, targets: Tensor) -> Calibration:
        """Return what validation images teach of a trained network's output (N, K)."""
        return Calibration()

    def calibrated(self, output: Tensor, calibration: Calibration) -> Tensor:
        """Return calibrated predictions (N, K), float64, of a trained network's output (N, K)."""
        return self.predictions(output.double())

    def averaged(self, predictions: Tensor, calibration: Calibration) -> Tensor:
        """Return the predictions (N, K) of an ensemble from those of its members (M, N, K)."""
        return predictions.mean(0)

    def uncalibrated(self, predictions: Tensor) -> Tensor:
        """Return what `calibrate` learns from where there is no network's output: of the mean of an ensemble (N, K)."""
        return predictions

    def prediction_sets(self, predicted: np.ndarray, calibration: Calibration, coverage: float) -> np.ndarray | None:
        """Return which outputs belong to the prediction set of each image, (N, K) of bool; None if there are no sets.

        Parameters
        ----------
        predicted
            Predictions (N, K).
        calibration
            Of the model.
        coverage
            The probability with which a set is to hold the truth.

        Returns
        -------
        numpy.ndarray or None
            Sets of the stated coverage.
        """
        return None

    # A search for what is rare.

    @property
    def sought(self) -> str | None:
        """Name of the output by whose probability a search ranks images; None if the task searches for nothing."""
        return None

    @property
    def stated_prior(self) -> float | None:
        """Fraction of what is sought among all objects that probabilities are for; None if the task states none."""
        return None

    @property
    def prior_text(self) -> str | None:
        """Sentence on the fraction that probabilities are for; None if the task states none."""
        return None

    def with_prior(self, prior: float) -> Self:
        """Return the task with probabilities for another fraction of what is sought, by Bayes' theorem.

        Parameters
        ----------
        prior
            Fraction of what is sought among all objects, above 0 and below 1.

        Raises
        ------
        ModelError
            If the task states no such fraction.
        """
        raise ModelError(
            f"--prior is for models of the task find, whose probabilities are for a stated fraction of lenses; this is a "
            f"model of {type(self).__name__}"
        )

    # What is said of its predictions.

    def columns(self, predicted: np.ndarray, sets: np.ndarray | None) -> dict[str, Any]:
        """Return the columns of a table of predictions (N, K) and prediction sets (N, K); none of predicted images."""
        if self.predicts == "images":
            return {}
        return {name: predicted[:, i] for i, name in enumerate(self.output_names)}

    def truth_columns(self, truth: np.ndarray) -> dict[str, Any]:
        """Return truths, as `targets` gives them, as columns of a table: ``true``, or ``true_NAME`` of several outputs."""
        if self.predicts == "images":
            return {}
        columns = truth.reshape(len(truth), -1).T
        if len(columns) == 1:
            return {"true": columns[0]}
        names = self.output_names if len(columns) == len(self.output_names) else range(len(columns))
        return {f"true_{name}": values for name, values in zip(names, columns, strict=True)}

    def captions(self, predicted: np.ndarray) -> list[str]:
        """Return a few words on each prediction (N, K)."""
        return [", ".join(f"{n} = {v:.2f}" for n, v in zip(self.output_names, row, strict=True)) for row in predicted]

    def explained_outputs(self, predicted: np.ndarray) -> list[int]:
        """Return the number of the output that is explained of each prediction (N, K)."""
        return [0] * len(predicted)

    def notes(self, predicted: np.ndarray) -> list[str]:
        """Return what a user should know of predictions (N, K) without truths."""
        return []

    def training_counts(self, images: int) -> dict[str, int]:
        """Return how many of some training images have each label, by label; empty if the task does not know."""
        return {}

    # How good they are.

    @abstractmethod
    def metrics(self, predicted: np.ndarray, truth: np.ndarray, sets: np.ndarray | None = None) -> list[Metric]:
        """Return the metrics of predictions.

        Parameters
        ----------
        predicted
            Predictions (N, K).
        truth
            As `targets` gives it.
        sets
            Prediction sets (N, K) of bool.

        Returns
        -------
        list
            One of them has the key `ranking`.
        """

    def trivial(self, truth: np.ndarray) -> tuple[str, np.ndarray] | None:
        """Return the best that can be said without looking at an image, which a leaderboard shows beside the recipes.

        Parameters
        ----------
        truth
            As `targets` gives it, of the test images.

        Returns
        -------
        tuple or None
            What it is, such as always saying the mean, and predictions (N, K) by what was learned from training targets;
            None if there are none.
        """
        return None

    def with_images(self, images: np.ndarray) -> Self:
        """Return the task with the test images (N, C, H, W), for metrics that look at them; by default, none does."""
        return self

    def baselines(self, truth: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """Return methods without training that a leaderboard ranks beside the recipes, by name, and predictions of each.

        Parameters
        ----------
        truth
            As `targets` gives it, of the test images.
        """
        return []

    def concerns(self, figures: Mapping[str, Interval], predicted: np.ndarray, truth: np.ndarray) -> list[str]:
        """Return what is wrong with a result, in sentences for whoever reads it.

        By default, a warning of a model that is not better than `trivial`: whose interval of the ranking metric holds the
        metric of those predictions.

        Parameters
        ----------
        figures
            Metrics with their intervals.
        predicted
            Predictions (N, K).
        truth
            As `targets` gives it.

        Returns
        -------
        list
            Empty if nothing is wrong.
        """
        import numpy as np

        if (trivial := self.trivial(truth)) is None:
            return []
        name, constant = trivial
        metric = next(each for each in self.metrics(constant, truth) if each.key == self.ranking)
        figure, reached = figures[self.ranking], float(metric.statistic(np.ones((1, len(truth))))[0])
        better = figure.low > reached if metric.better == "higher" else figure.high < reached
        if better or metric.better == "neither" or np.isnan(reached):
            return []
        return [
            f"the model cannot be told from {name}: {metric.title} is {figure.value:.3g} ({figure.low:.3g} to "
            f"{figure.high:.3g}) on {figure.n:,} images, and {reached:.3g} without looking at them"
        ]

    def gallery(self, predicted: np.ndarray, truth: np.ndarray) -> Gallery:
        """Return which test images a report shows."""
        return Gallery()

    def details(self, predicted: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
        """Return what `panels` draw, in JSON's types or NumPy's; it is kept with the evaluation, under names of its own."""
        return {}

    def catalog_details(self, predicted: np.ndarray, truth: np.ndarray, catalog: pl.DataFrame) -> dict[str, Any]:
        """Return more of what `panels` draw, such as how good predictions are for parts of the test images.

        Parameters
        ----------
        predicted
            Predictions (N, K).
        truth
            As `targets` gives it.
        catalog
            The catalogue of the test images, N rows in the same order; it may lack any column but those of `needs`.

        Returns
        -------
        dict
            As of `details`, with which it shares the names.
        """
        return {}

    def panels(
        self, evaluation: Mapping[str, Any], predicted: np.ndarray | None, truth: np.ndarray | None
    ) -> list[Any]:
        """Return the figures (of matplotlib) of a report.

        Parameters
        ----------
        evaluation
            The content of ``evaluation.json``: ``figures``, and what `details` gave.
        predicted, truth
            Predictions (N, K) and truths; None of evaluations that an earlier darklens made.

        Returns
        -------
        list
            Figures, in the order of the page.
        """
        return []

    def comparison_panels(self, evaluations: Mapping[str, Mapping[str, Any]]) -> list[Any]:
        """Return the figures (of matplotlib) that compare models, from the evaluation of each by name, the best first."""
        return []

    def comparison_pictures(self, predicted: Mapping[str, np.ndarray], truth: np.ndarray) -> list[Any]:
        """Return figures (of matplotlib) that show test images as models predict them, by name, the best first.

        Parameters
        ----------
        predicted
            Predictions (N, C, H, W) of each model that predicts images.
        truth
            As `targets` gives it.
        """
        return []

    # What it is for.

    def purpose(self) -> str:
        """Return what a model is for, as a sentence that begins with To."""
        return f"To estimate {', '.join(self.output_names)}"

    def limits(self) -> str:
        """Return what a model is not for, as sentences."""
        return (
            "It does not find lenses: every image is taken to be one. Simulated sources are smooth, and simulated "
            "deflectors give no light, unlike real ones."
        )
