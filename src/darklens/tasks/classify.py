"""Tell classes apart, such as kinds of dark matter, from one image."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from darklens.errors import DataError, RecipeError, UserCodeError
from darklens.evaluation.calibration import Calibration
from darklens.tasks.base import Gallery, Goal, Needs, Task, learned
from darklens.usercode import is_reference, load_function

if TYPE_CHECKING:
    import numpy as np
    import torchmetrics
    from torch import Tensor

    from darklens.data.dataset import Cutouts
    from darklens.evaluation.bootstrap import Interval, Metric

LOSSES = ("cross-entropy", "focal")
EXAMPLES, MISTAKES = 4, 12
"""Images of each class, and mistakes, that a report shows: as many as fill its rows."""
FULL_SETS = 0.95
"""Prediction sets that hold more than this fraction of the classes in the mean are said to exclude nothing."""
SEVERAL, UNDECIDED = 10, 0.05
"""Images from which on a model is said to be undecided, and how far above guessing its highest probability then is."""
TRY = (
    "try more training images or epochs, a learning rate three times lower or higher, or pretrained weights where the "
    "recipe has them"
)


@dataclass(frozen=True)
class LossPhase:
    """A phase of the loss of a classification.

    Parameters
    ----------
    name
        cross-entropy, focal (Lin et al. 2017), which weighs hard images more, or your own as my_loss.py:function, of
        logits (N, C) and label numbers (N,).
    label_smoothing
        Fraction of the probability that is spread over all classes.
    from_epoch
        The first epoch of this phase; epochs count from 1.
    """

    name: str = "cross-entropy"
    label_smoothing: float = 0.0
    from_epoch: int = 1

    def __post_init__(self) -> None:
        if self.name not in LOSSES and not is_reference(self.name):
            known = ", ".join(LOSSES)
            raise RecipeError(f"no loss {self.name!r}; there are {known}, and your own as my_loss.py:function")
        if self.label_smoothing and is_reference(self.name):
            raise RecipeError(f"label_smoothing is for {', '.join(LOSSES)}; {self.name} would not see it")

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of logits (N, C) and label numbers (N,)."""
        from torch.nn.functional import cross_entropy

        if is_reference(self.name):
            own = load_function(self.name)(logits, labels)
            if not hasattr(own, "mean"):
                raise UserCodeError(f"{self.name} returns a {type(own).__name__}; expected a tensor of losses")
            mean: Tensor = own.mean()
            return mean
        each = cross_entropy(logits, labels, label_smoothing=self.label_smoothing, reduction="none")
        if self.name == "focal":
            of_truth = logits.softmax(-1).gather(1, labels[:, None])[:, 0]
            each = each * (1 - of_truth).square()
        return each.mean()


@dataclass(frozen=True)
class Classify(Task):
    """Tell classes apart.

    Parameters
    ----------
    losses
        Phases of the loss, in order: each has a name, label_smoothing and from_epoch.
    class_names
        The classes, in the order of the outputs.
    """

    losses: list[LossPhase] = field(default_factory=lambda: [LossPhase()])
    class_names: list[str] = learned(factory=list)

    ranking: ClassVar[str] = "macro_auc"
    headlines: ClassVar[Sequence[str]] = ("accuracy", "macro_auc", "micro_auc", "ece")
    validation_curve: ClassVar[tuple[str, str]] = ("auc", "macro AUC")
    goal: ClassVar[Goal] = Goal("auc", 0.95, "AUC 0.95")
    mistakes_title: ClassVar[str] = "Most confident mistakes"

    def __post_init__(self) -> None:
        starts = [phase.from_epoch for phase in self.losses]
        if not starts or starts[0] != 1 or starts != sorted(set(starts)):
            raise RecipeError(f"phases of the loss begin at epoch 1 and go on in order; got {starts}")

    @property
    def needs(self) -> Needs:
        """Labels."""
        return Needs(("label",))

    def for_data(self, cutouts: Cutouts) -> Self:
        """Return the task with its class names: those of the dataset, or all that occur."""
        found = set(cutouts.catalog["label"].drop_nulls()) - {""} if "label" in cutouts.catalog.columns else set()
        names = list(cutouts.info.classes) or sorted(found)
        task = dataclasses.replace(self, class_names=names)
        labels = task.targets(cutouts)
        present = [name for i, name in enumerate(names) if (labels == i).any()]
        if len(present) < 2:
            raise DataError(f"{cutouts.where}: a classification needs at least two classes; there is {present}")
        return task

    def targets(self, cutouts: Cutouts) -> np.ndarray:
        """Return label numbers (N,): whole, but for nan where an image has no label."""
        return cutouts.labels(self.class_names)

    @property
    def output_names(self) -> Sequence[str]:
        """Class names."""
        return self.class_names

    @property
    def classes(self) -> Sequence[str]:
        """Class names."""
        return self.class_names

    def predictions(self, output: Tensor) -> Tensor:
        """Return probabilities (N, C) of logits (N, C)."""
        return output.softmax(-1)

    def loss(self, output: Tensor, targets: Tensor, epoch: int) -> Tensor:
        """Return the loss of the phase that an epoch is in."""
        phase = [phase for phase in self.losses if phase.from_epoch <= epoch][-1]
        return phase(output, targets)

    def validation_loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(output, targets)

    def validation_metrics(self) -> dict[str, torchmetrics.Metric]:
        """Return accuracy and macro AUC."""
        from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC

        number = len(self.class_names)
        return {
            "accuracy": MulticlassAccuracy(number, average="micro"),
            "auc": MulticlassAUROC(number, average="macro"),
        }

    def concern_of_training(self, measured: Mapping[str, float], images: int) -> str | None:
        """Return a warning of a model that cannot be told from guessing."""
        auc = measured.get("auc")
        if auc is None or not is_near_chance(auc, images, len(self.class_names)):
            return None
        return (
            f"the model cannot be told from guessing: its macro AUC on {images:,} validation images is {auc:.3f}; {TRY}"
        )

    def calibrate(self, output: Tensor, targets: Tensor) -> Calibration:
        """Return the temperature of logits (N, C), and the nonconformity scores of prediction sets."""
        from darklens.evaluation.calibration import fit_calibration

        return fit_calibration(output, targets)

    def calibrated(self, output: Tensor, calibration: Calibration) -> Tensor:
        """Return probabilities (N, C) of logits (N, C) divided by the temperature."""
        return self.predictions(output.double() / calibration.temperature)

    def averaged(self, predictions: Tensor, calibration: Calibration) -> Tensor:
        """Return the mean of probabilities (M, N, C), its logarithm divided by the ensemble's own temperature."""
        return self.calibrated(self.uncalibrated(predictions.mean(0)), calibration)

    def uncalibrated(self, predictions: Tensor) -> Tensor:
        """Return the logarithm of probabilities."""
        return predictions.clamp_min(1e-12).log()

    def prediction_sets(self, predicted: np.ndarray, calibration: Calibration, coverage: float) -> np.ndarray | None:
        """Return which classes belong to the prediction set of each image, if the model is calibrated for them."""
        from darklens.evaluation.calibration import prediction_sets

        return prediction_sets(predicted, calibration.scores, coverage) if calibration.scores else None

    def columns(self, predicted: np.ndarray, sets: np.ndarray | None) -> dict[str, Any]:
        """Return ``predicted``, ``p_<class>`` and ``set``, the classes of the prediction set with ``|`` between."""
        import polars as pl

        names = pl.Series([self.class_names[i] for i in predicted.argmax(1)], dtype=pl.String)
        columns: dict[str, Any] = {"predicted": names}
        columns |= {f"p_{name}": predicted[:, i] for i, name in enumerate(self.class_names)}
        if sets is not None:
            members = ["|".join(n for n, inside in zip(self.class_names, row, strict=True) if inside) for row in sets]
            columns["set"] = pl.Series(members, dtype=pl.String)
        return columns

    def truth_columns(self, truth: np.ndarray) -> dict[str, Any]:
        """Return the class names of label numbers (N,)."""
        return {"true": self._names(truth)}

    def _names(self, labels: np.ndarray) -> list[str]:
        return [self.class_names[i] for i in labels]

    def captions(self, predicted: np.ndarray) -> list[str]:
        """Return the class that is predicted, with its probability."""
        return [f"{self.class_names[int(p.argmax())]} ({p.max():.2f})" for p in predicted]

    def explained_outputs(self, predicted: np.ndarray) -> list[int]:
        """Return the number of the class that is predicted."""
        outputs: list[int] = predicted.argmax(1).tolist()
        return outputs

    def notes(self, predicted: np.ndarray) -> list[str]:
        """Return a warning where no class stands out in any of several images."""
        if len(predicted) < SEVERAL:
            return []
        highest, guess = float(predicted.max()), 1 / predicted.shape[1]
        if highest > guess + UNDECIDED:
            return []
        return [
            f"no class stands out in any image: the highest probability is {highest:.3f}, and guessing gives {guess:.3f}; "
            "the model may have learned nothing (darklens evaluate tells)"
        ]

    def metrics(self, predicted: np.ndarray, truth: np.ndarray, sets: np.ndarray | None = None) -> list[Metric]:
        """Return accuracy, AUCs, calibration error, log loss and, of prediction sets, coverage and size."""
        from darklens.evaluation.classification import classification_metrics

        return classification_metrics(predicted, truth, self.class_names, sets)

    def concerns(self, figures: Mapping[str, Interval], predicted: np.ndarray, truth: np.ndarray) -> list[str]:
        """Return warnings of a model that cannot be told from guessing, and of prediction sets that exclude nothing.

        It cannot be told from guessing where the 95% interval of its macro AUC holds 0.5.
        """
        return [*self._guessing(figures, predicted, truth), *self._full_sets(figures)]

    def _guessing(self, figures: Mapping[str, Interval], predicted: np.ndarray, truth: np.ndarray) -> list[str]:
        import numpy as np

        if len(set(truth.tolist())) == 1:
            return [
                f"all images are {self.class_names[int(truth[0])]}: how well classes are told apart cannot be measured"
            ]
        auc, accuracy = figures["macro_auc"], figures["accuracy"]
        called = np.bincount(predicted.argmax(1), minlength=len(self.class_names))
        always = f"; it calls every image {self.class_names[int(called.argmax())]}" if (called > 0).sum() == 1 else ""
        share = np.bincount(truth).max() / len(truth)
        if auc.low <= 0.5:
            return [
                f"the model cannot be told from guessing: its macro AUC of {auc.value:.3f} ({auc.low:.3f} to "
                f"{auc.high:.3f}) on {auc.n:,} images is not above 0.5, and its accuracy is {accuracy.value:.3f} where "
                f"always saying the most frequent class gives {share:.3f}{always}; {TRY}"
            ]
        if accuracy.low <= share:
            return [
                f"the accuracy of {accuracy.value:.3f} ({accuracy.low:.3f} to {accuracy.high:.3f}) is not above the "
                f"{share:.3f} of always saying the most frequent class{always}; {TRY}"
            ]
        return []

    def _full_sets(self, figures: Mapping[str, Interval]) -> list[str]:
        size = figures.get("set_size")
        if size is None or size.value < FULL_SETS * len(self.class_names):
            return []
        return [
            f"prediction sets hold {size.value:.2f} of {len(self.class_names)} classes in the mean: they exclude nothing; "
            "a lower --coverage makes them smaller, a better model too"
        ]

    def gallery(self, predicted: np.ndarray, truth: np.ndarray) -> Gallery:
        """Return the first images of each class, and the mistakes of the highest probability."""
        import numpy as np

        wrong = predicted.argmax(1) != truth
        confidence = np.where(wrong, predicted.max(1), -1)
        worst = np.argsort(-confidence)[:MISTAKES]
        worst = worst[confidence[worst] > 0]
        examples = [np.flatnonzero(truth == i)[:EXAMPLES].tolist() for i in range(len(self.class_names))]
        firsts = [rows[0] for rows in examples if rows]
        return Gallery(
            examples=[row for rows in examples for row in rows],
            captions=[self.class_names[i] for i, rows in enumerate(examples) for _ in rows],
            mistakes=worst.tolist(),
            truths=self._names(truth[worst]),
            called=[self.class_names[int(predicted[row].argmax())] for row in worst],
            confidence=[round(float(predicted[row].max()), 4) for row in worst],
            explained=firsts,
            explained_captions=self._names(truth[firsts]),
            explained_outputs=[int(truth[row]) for row in firsts],
        )

    def details(self, predicted: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
        """Return class names, confusion matrix, ROC curves and reliability."""
        from darklens.evaluation.classification import confusion_matrix, reliability, roc_curves

        curves = roc_curves(predicted, truth, self.class_names)
        found = reliability(predicted.max(1), predicted.argmax(1) == truth)
        return {
            "classes": list(self.class_names),
            "confusion": confusion_matrix(predicted.argmax(1), truth, len(self.class_names)).tolist(),
            "roc": {name: _thinned(*curve) for name, curve in curves.items()},
            "reliability": {name: values.tolist() for name, values in found.items()},
        }

    def panels(
        self, evaluation: Mapping[str, Any], predicted: np.ndarray | None, truth: np.ndarray | None
    ) -> list[Any]:
        """Draw ROC curves, confusion matrix and calibration."""
        from darklens.plots import charts

        classes, figures = evaluation["classes"], evaluation["figures"]
        return [
            charts.roc(evaluation["roc"], figures, classes),
            charts.confusion(evaluation["confusion"], classes),
            charts.calibration(evaluation["reliability"], figures["ece"]),
        ]

    def comparison_panels(self, evaluations: Mapping[str, Mapping[str, Any]]) -> list[Any]:
        """Draw the macro-averaged ROC curves of models in one chart."""
        from darklens.plots import charts

        return [
            charts.roc_of_many(
                {name: each["roc"]["macro"] for name, each in evaluations.items() if "macro" in each["roc"]}
            )
        ]

    def purpose(self) -> str:
        """Return what a model is for."""
        return f"To tell {', '.join(self.class_names)} in images like those above, to compare networks with"


def is_near_chance(auc: float, images: int, classes: int) -> bool:
    """Return whether a macro AUC is within two standard errors of 0.5.

    The standard error is that of one class against the rest without any skill (Mann & Whitney 1947).

    Parameters
    ----------
    auc
        The macro AUC.
    images
        Number of images, as many of each class.
    classes
        Number of classes.

    Returns
    -------
    bool
        Whether guessing would do as well.
    """
    positive = max(1.0, images / classes)
    negative = max(1.0, images - positive)
    error = math.sqrt((positive + negative + 1) / (12 * positive * negative))
    return auc < 0.5 + 2 * error


def _thinned(false: np.ndarray, true: np.ndarray, points: int = 400) -> dict[str, list[float]]:
    """A curve of fewer points, dense where it is steep: as many as a chart can show."""
    import numpy as np

    length = np.concatenate([[0], np.cumsum(np.hypot(np.diff(false), np.diff(true)))])
    keep = np.unique(np.searchsorted(length, np.linspace(0, length[-1], points)).clip(0, len(false) - 1))
    return {"fpr": np.round(false[keep], 5).tolist(), "tpr": np.round(true[keep], 5).tolist()}
