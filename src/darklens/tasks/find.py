"""Find lenses: tell one rare class from all else, with probabilities for a stated prior."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from darklens.errors import DataError, RecipeError
from darklens.evaluation.calibration import Calibration
from darklens.tasks.base import Gallery, learned
from darklens.tasks.classify import MISTAKES, TRY, Classify

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from torch import Tensor

    from darklens.data.dataset import Cutouts
    from darklens.evaluation.bootstrap import Interval, Metric


@dataclass(frozen=True)
class Find(Classify):
    """Tell lenses from all else, as in a survey where they are rare.

    Parameters
    ----------
    losses
        Phases of the loss, in order: each has a name, label_smoothing and from_epoch.
    positive
        The label of what is sought.
    prior
        Fraction of lenses among the objects that are searched. Probabilities are calibrated for it: of 100 objects with a
        probability of 0.5, about 50 are lenses. null takes the fraction among the training images.
    balance
        Weigh the training images so that lenses and all else count alike, however few lenses there are. Probabilities are
        not changed by it: the loss sees them as they would be if both were as many (Menon et al. 2021).
    class_names
        The label of all else, and ``positive``.
    share
        Fraction of lenses among the training images.
    """

    positive: str = "lens"
    prior: float | None = 0.01
    balance: bool = False
    share: float = learned(0.5)

    ranking: ClassVar[str] = "tpr10"
    must_agree: ClassVar[Sequence[str]] = ("positive", "stated_prior")
    headlines: ClassVar[Sequence[str]] = (
        "tpr0", "tpr10", "recall_fpr_0.01", "recall_fpr_0.001", "purity", "completeness", "candidates_per_lens", "ece",
        "auc", "average_precision",
    )  # fmt: skip
    benchmark_preset: ClassVar[str] = "finding-hsc"
    mistakes_title: ClassVar[str] = "Others with the highest probabilities, and lenses with the lowest"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prior is not None and not 0 < self.prior < 1:
            raise RecipeError(f"prior is {self.prior:g}; expected the fraction of lenses, above 0 and below 1, or null")

    def for_data(self, cutouts: Cutouts) -> Self:
        """Return the task with the two labels of the data.

        Raises
        ------
        DataError
            If there are other than two labels, or ``positive`` is none of them.
        """
        found = super().for_data(cutouts)
        if self.positive not in found.class_names or len(found.class_names) != 2:
            raise DataError(
                f"{cutouts.where}: has the labels {', '.join(found.class_names)}; a search needs two, {self.positive!r} "
                "and one for all else (--task.positive names the label of lenses; recipes of the task classify take more)"
            )
        other = next(name for name in found.class_names if name != self.positive)
        return dataclasses.replace(found, class_names=[other, self.positive])

    def fit(self, targets: np.ndarray) -> Self:
        """Return the task with the fraction of lenses among the training images.

        Raises
        ------
        DataError
            If all of them are lenses, or none is.
        """
        share = float((targets == 1).mean())
        if not 0 < share < 1:
            raise DataError(f"{'no' if share == 0 else 'every'} training image is a {self.positive}; both are needed")
        return dataclasses.replace(self, share=round(share, 8))

    def training_counts(self, images: int) -> dict[str, int]:
        """Return how many of the training images are lenses, and how many are not."""
        lenses = round(self.share * images)
        return {self.class_names[1]: lenses, self.class_names[0]: images - lenses}

    def check_split(self, targets: np.ndarray, where: str) -> None:
        """Refuse training or validation images of which all are lenses, or none is.

        Raises
        ------
        DataError
            If so.
        """
        lenses = int((targets == 1).sum())
        if lenses in (0, len(targets)):
            raise DataError(
                f"{where}: {'none' if not lenses else 'each'} of {len(targets):,} images is a {self.positive}; both are "
                "needed, so mark others in the column split, or leave it out"
            )

    @property
    def sought(self) -> str:
        """Name of the output that is the probability of a lens."""
        return self.positive

    def with_prior(self, prior: float) -> Self:
        """Return the task with probabilities for another prior.

        Parameters
        ----------
        prior
            Fraction of lenses among the objects that are searched, above 0 and below 1.

        Raises
        ------
        RecipeError
            If it is no such fraction.
        """
        return dataclasses.replace(self, prior=prior)

    @property
    def stated_prior(self) -> float:
        """Fraction of lenses that probabilities are calibrated for."""
        return self.share if self.prior is None else self.prior

    @property
    def prior_text(self) -> str:
        """Sentence on the fraction of lenses that probabilities are for."""
        return f"probabilities are for objects of which a fraction of {self.stated_prior:g} are lenses"

    def loss(self, output: Tensor, targets: Tensor, epoch: int) -> Tensor:
        """Return the loss of the phase that an epoch is in, of both labels alike with ``balance``."""
        import torch

        if not self.balance:
            return super().loss(output, targets, epoch)
        if_as_many = output - output.new_tensor([0.0, _log_odds(self.share)])
        parts = []
        for label, share in ((0, 1 - self.share), (1, self.share)):
            rows = targets == label
            if rows.any():
                parts.append(super().loss(if_as_many[rows], targets[rows], epoch) * (rows.float().mean() / (2 * share)))
        return torch.stack(parts).sum()

    def calibrated(self, output: Tensor, calibration: Calibration) -> Tensor:
        """Return probabilities (N, 2) of logits (N, 2), divided by the temperature and shifted to the prior."""
        import torch

        odds = _log_odds(self.stated_prior) - _log_odds(self.share)
        return self.predictions(
            output.double() / calibration.temperature + torch.tensor([0.0, odds], dtype=torch.float64)
        )

    def averaged(self, predictions: Tensor, calibration: Calibration) -> Tensor:
        """Return the mean of probabilities (M, N, 2) for the fraction among the training images, shifted to the prior.

        Means at a small prior would follow the one member of the highest probability.
        """
        return self.calibrated(self.uncalibrated(predictions).exp().mean(0).log(), calibration)

    def uncalibrated(self, predictions: Tensor) -> Tensor:
        """Return the logarithm of probabilities for the fraction of lenses among the training images."""
        import torch

        odds = _log_odds(self.share) - _log_odds(self.stated_prior)
        shifted = predictions.double().clamp_min(1e-30).log() + torch.tensor([0.0, odds], dtype=torch.float64)
        return shifted.log_softmax(-1)

    def prediction_sets(self, predicted: np.ndarray, calibration: Calibration, coverage: float) -> np.ndarray | None:
        """Return which labels belong to the prediction set of each image, as often right as among the training images."""
        from darklens.evaluation.finding import shift_prior

        among_training = predicted.copy()
        among_training[:, 1] = shift_prior(predicted[:, 1], self.stated_prior, self.share)
        among_training[:, 0] = 1 - among_training[:, 1]
        return super().prediction_sets(among_training, calibration, coverage)

    def captions(self, predicted: np.ndarray) -> list[str]:
        """Return the probability of a lens."""
        return [f"{self.positive} {p:.2g}" for p in predicted[:, 1]]

    def explained_outputs(self, predicted: np.ndarray) -> list[int]:
        """Return 1: what speaks for a lens is explained, whatever is predicted."""
        return [1] * len(predicted)

    def notes(self, predicted: np.ndarray) -> list[str]:
        """Return for which prior the probabilities are."""
        total = f"they add up to {float(predicted[:, 1].sum()):.3g} lenses among {len(predicted):,}"
        return [f"{self.prior_text} (--prior states another); {total}"]

    def metrics(self, predicted: np.ndarray, truth: np.ndarray, sets: np.ndarray | None = None) -> list[Metric]:
        """Return recall before false positives, purity and completeness at the prior, calibration error, AUC."""
        from darklens.evaluation.finding import finding_metrics

        return finding_metrics(predicted[:, 1], truth, self.stated_prior)

    def concerns(self, figures: Mapping[str, Interval], predicted: np.ndarray, truth: np.ndarray) -> list[str]:
        """Return warnings of a model that cannot be told from guessing, and of too few images to measure what matters."""
        import numpy as np

        from darklens.evaluation.finding import purity_at

        lenses, others = int(truth.sum()), int(len(truth) - truth.sum())
        if not lenses or not others:
            return [f"all images are {self.class_names[int(truth[0])]}: how well lenses are found cannot be measured"]
        auc = figures["auc"]
        if auc.low <= 0.5:
            return [
                f"the model cannot be told from guessing: its AUC of {auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f}) on "
                f"{lenses:,} lenses and {others:,} others is not above 0.5; {TRY}"
            ]
        found, false = (int(((predicted[:, 1] > 0.5) & (truth == label)).sum()) for label in (1, 0))
        if found and not false:
            # Of no event among n, a 95% upper bound of the rate is 3 / n.
            recall, rate = found / lenses, min(1.0, 3 / others)
            least = float(purity_at(self.stated_prior, np.asarray(recall), np.asarray(rate)))
            return [
                f"none of {others:,} negatives has a probability above 0.5: purity is measured as 1, and can be as low as "
                f"{least:.2g} (95%) where {self.stated_prior:g} of all objects are lenses; test on more negatives"
            ]
        if others * self.stated_prior < 1:
            return [
                f"{others:,} negatives say little of a search among {1 / self.stated_prior:,.0f} objects for each lens: "
                f"one false positive here stands for {(1 - self.stated_prior) / self.stated_prior / others:.2g} there"
            ]
        return []

    def gallery(self, predicted: np.ndarray, truth: np.ndarray) -> Gallery:
        """Return the first images of both labels, the negatives that rank highest and the lenses that rank lowest."""
        import numpy as np

        order = np.argsort(-predicted[:, 1], kind="stable")
        highest, lowest = order[truth[order] == 0], order[::-1][truth[order[::-1]] == 1]
        worst = np.concatenate([highest[: MISTAKES // 2], lowest[: MISTAKES // 2]])
        return dataclasses.replace(
            super().gallery(predicted, truth),
            mistakes=worst.tolist(),
            truths=self._names(truth[worst]),
            called=[self.positive] * len(worst),
            confidence=[round(float(p), 4) for p in predicted[worst, 1]],
        )

    def details(self, predicted: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
        """Return labels, prior, numbers of both, confusion matrix, ROC curve, and reliability for the images' fraction."""
        import numpy as np

        from darklens.evaluation.classification import confusion_matrix, reliability, roc_curve
        from darklens.evaluation.finding import shift_prior

        share = float(truth.mean())
        lens = shift_prior(predicted[:, 1], self.stated_prior, share) if 0 < share < 1 else predicted[:, 1]
        curve = roc_curve(predicted[:, 1], truth.astype(float)) if 0 < share < 1 else (np.zeros(1), np.zeros(1))
        found = reliability(np.maximum(lens, 1 - lens), (lens > 0.5) == truth)
        return {
            "classes": list(self.class_names),
            "prior": self.stated_prior,
            "lenses": int(truth.sum()),
            "others": int(len(truth) - truth.sum()),
            "confusion": confusion_matrix(predicted.argmax(1), truth, 2).tolist(),
            "search": {"fpr": curve[0].tolist(), "tpr": curve[1].tolist()},
            "reliability": {name: values.tolist() for name, values in found.items()},
        }

    def catalog_details(self, predicted: np.ndarray, truth: np.ndarray, catalog: pl.DataFrame) -> dict[str, Any]:
        """Return the completeness in bins of Einstein radius, signal-to-noise and magnitudes, as far as they are known."""
        from darklens.evaluation.selection import completeness_by_column

        return {"completeness_by": completeness_by_column(predicted[:, 1], truth, catalog)}

    def panels(
        self, evaluation: Mapping[str, Any], predicted: np.ndarray | None, truth: np.ndarray | None
    ) -> list[Any]:
        """Draw the ROC curve on a logarithmic axis, purity against completeness, confusion matrix and calibration."""
        from darklens.plots import charts, search

        others, prior, curve = evaluation["others"], evaluation["prior"], evaluation["search"]
        return [
            search.logarithmic_roc({"": curve}, others),
            search.purity_against_completeness({"": curve}, prior),
            charts.confusion(evaluation["confusion"], evaluation["classes"]),
            charts.calibration(evaluation["reliability"], evaluation["figures"]["ece"]),
            *(search.completeness(each) for each in evaluation.get("completeness_by", [])),
        ]

    def comparison_panels(self, evaluations: Mapping[str, Mapping[str, Any]]) -> list[Any]:
        """Draw the ROC curves of models on a logarithmic axis, in one chart."""
        from darklens.plots import search

        others = max(each["others"] for each in evaluations.values())
        return [search.logarithmic_roc({name: each["search"] for name, each in evaluations.items()}, others)]

    def purpose(self) -> str:
        """Return what a model is for."""
        what = "To rank images like those above by the probability of a lens, before people look at them"
        return f"{what}; {self.prior_text}"

    def limits(self) -> str:
        """Return what a model is not for."""
        return (
            "Purity and completeness hold for the look-alikes that it was trained on, in the numbers that they have there, "
            "and for the stated prior; a survey has others. People have to look at what it ranks high."
        )


def _log_odds(probability: float) -> float:
    return math.log(probability) - math.log1p(-probability)
