"""How unlike the training data an image is."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

COMPONENTS = 64
"""Principal components of the network's features that are looked at."""
USUAL = 0.99
"""Fraction of validation images whose score is below 1."""
LEVELS = (0.001, 0.005, 0.02, 0.05, *(i / 10 for i in range(1, 10)), 0.95, 0.98, 0.995, 0.999)
"""Quantiles of each image statistic that its distribution is described by. Beyond the outermost it goes on as steeply as
between these and the second next ones."""
ROUNDING = 1e-5
"""A statistic whose quantiles differ by less than this, relatively, is taken as one that never varied."""
LEAST_THRESHOLD = 1e-6
"""Distances of what is usual are at least this: of images that are all alike they would be 0."""


def image_statistics(prepared: Tensor) -> Tensor:
    """Mean, scatter, extremes and roughness of each channel of prepared images (N, C, H, W), as (N, 5 C)."""
    x = prepared.float()
    rough = x.diff(dim=-1).abs().mean((2, 3)) + x.diff(dim=-2).abs().mean((2, 3))
    figures = [x.mean((2, 3)), (x.std((2, 3)) + 1e-6).log(), x.amin((2, 3)), x.amax((2, 3)), (rough + 1e-6).log()]
    return torch.cat(figures, dim=1)


def outlier_note(scores: np.ndarray | None) -> str | None:
    """Return a warning of the images whose outlier score (N,) is above 1, and what to do; None if there are none."""
    strange = 0 if scores is None else int((scores > 1).sum())
    if scores is None or not strange:
        return None
    return (
        f"{strange:,} of {len(scores):,} images are unlike those that the model was trained on (outlier_score > 1): do not "
        "rely on its predictions for them. Look at some; then evaluate the model on labelled images of this kind (darklens "
        "evaluate), or train it on them (darklens finetune)"
    )


def normal_scores(values: Tensor, quantiles: Tensor) -> Tensor:
    """Map values to a standard normal distribution by the quantiles of their own.

    Parameters
    ----------
    values
        (N, S), any distribution in each column.
    quantiles
        (S, len(LEVELS)), in ascending order; equal ones are allowed.

    Returns
    -------
    Tensor
        (N, S): linear between quantiles, and beyond the outermost; 0 where quantiles are all equal.
    """
    normal = torch.special.ndtri(torch.tensor(LEVELS, dtype=quantiles.dtype))
    x = values.T.to(quantiles).contiguous()
    right = torch.searchsorted(quantiles, x).clamp(1, len(LEVELS) - 1)
    start, end = quantiles.gather(1, right - 1), quantiles.gather(1, right)
    share = ((x - start) / (end - start).clamp_min(1e-300)).clamp(0, 1)
    inside = normal[right - 1] + share * (normal[right] - normal[right - 1])
    lowest, highest = quantiles[:, :1], quantiles[:, -1:]
    # A tail in which nearly all values were equal must not become a wall.
    least = (0.005 * (highest - lowest)).clamp_min(1e-300)
    below = (lowest - x).clamp_min(0) / (quantiles[:, 2:3] - lowest).maximum(least) * (normal[2] - normal[0])
    above = (x - highest).clamp_min(0) / (highest - quantiles[:, -3:-2]).maximum(least) * (normal[-1] - normal[-3])
    # Equal but for rounding is equal: on another device, or in another precision, it would be something else.
    varied = highest - lowest > ROUNDING * quantiles.abs().amax(1, keepdim=True)
    return torch.where(varied, inside - below + above, 0.0).T


def _mean_and_precision(rows: Tensor) -> tuple[Tensor, Tensor]:
    size = rows.shape[1]
    covariance = torch.cov(rows.T).reshape(size, size) if len(rows) > 1 else rows.new_zeros(size, size)
    # A little of each feature's own variance keeps the inverse from trusting directions that were hardly seen.
    covariance = 0.98 * covariance + torch.diag(0.02 * covariance.diagonal() + 1e-9)
    return rows.mean(0), torch.linalg.inv(covariance)


def _mahalanobis(away: Tensor, precision: Tensor) -> Tensor:
    return ((away @ precision) * away).sum(1).clamp_min(0).sqrt()


@dataclass(frozen=True)
class OutlierScore:
    """The larger of two Mahalanobis distances from the training images, above 1 for what is rare among them.

    The first (Lee et al. 2018) is that of the leading principal components of the network's features, of what they leave,
    and of statistics of the image itself. The second is that of the statistics alone, each brought to a normal
    distribution before: where one has a long tail on one side, the first sees nothing strange on the other.
    """

    feature_mean: Tensor
    components: Tensor
    floor: Tensor
    mean: Tensor
    precision: Tensor
    quantiles: Tensor
    statistics_mean: Tensor
    statistics_precision: Tensor
    thresholds: Tensor

    @staticmethod
    def fit(features: Tensor, statistics: Tensor, held_out: tuple[Tensor, Tensor]) -> OutlierScore:
        """Return the score learned from training images.

        Parameters
        ----------
        features, statistics
            Of training images, (N, F) and (N, S).
        held_out
            The same two of validation images, which set what is usual.

        Returns
        -------
        OutlierScore
            Above 1 for 1% of images like the held-out ones.
        """
        features = features.double()
        feature_mean = features.mean(0)
        number = min(COMPONENTS, features.shape[1], max(1, len(features) // 10))
        _, _, axes = torch.linalg.svd(features - feature_mean, full_matrices=False)
        # What the components leave is looked at only as far as it is more than a trace.
        floor = 1e-4 * (features - feature_mean).square().sum(1).mean() + 1e-12
        distances = OutlierScore(
            feature_mean, axes[:number], floor, torch.zeros(1), torch.zeros(1), torch.zeros(1), torch.zeros(1),
            torch.zeros(1), torch.ones(2),
        )  # fmt: skip
        mean, precision = _mean_and_precision(distances._described(features, statistics))
        levels = torch.tensor(LEVELS, dtype=torch.float64)
        quantiles = statistics.double().quantile(levels, dim=0).T.contiguous()
        statistics_mean, statistics_precision = _mean_and_precision(normal_scores(statistics, quantiles))
        distances = replace(
            distances, mean=mean, precision=precision, quantiles=quantiles, statistics_mean=statistics_mean,
            statistics_precision=statistics_precision,
        )  # fmt: skip
        each = distances.distances(*held_out)
        usual = each.quantile(USUAL, dim=0).clamp_min(LEAST_THRESHOLD)
        # The larger of the two is above its own 99% more often than each.
        return replace(distances, thresholds=usual * (each / usual).amax(1).quantile(USUAL).clamp_min(LEAST_THRESHOLD))

    def __call__(self, features: Tensor, statistics: Tensor) -> Tensor:
        """Scores (N,) of features (N, F) and statistics (N, S)."""
        return (self.distances(features, statistics) / self.thresholds).amax(1)

    def distances(self, features: Tensor, statistics: Tensor) -> Tensor:
        """Both distances (N, 2) of features (N, F) and statistics (N, S), not scaled."""
        everything = self._described(features.double(), statistics) - self.mean
        alone = normal_scores(statistics, self.quantiles) - self.statistics_mean
        both = [_mahalanobis(everything, self.precision), _mahalanobis(alone, self.statistics_precision)]
        return torch.stack(both, dim=1)

    def _described(self, features: Tensor, statistics: Tensor) -> Tensor:
        away = features - self.feature_mean
        along = away @ self.components.T
        left = (away.square().sum(1) - along.square().sum(1)).clamp_min(0)
        return torch.cat([along, (left + self.floor).log()[:, None], statistics.double()], dim=1)

    def tensors(self) -> dict[str, Tensor]:
        """What it consists of."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor]) -> OutlierScore:
        """The reverse of `tensors`, of any precision. Those of former versions have the first distance alone."""
        tensors = {name: tensor.double() for name, tensor in tensors.items()}
        if "threshold" in tensors:
            statistics = len(tensors["mean"]) - len(tensors["components"]) - 1
            tensors |= {
                "quantiles": torch.zeros(statistics, len(LEVELS), dtype=torch.float64),
                "statistics_mean": torch.zeros(statistics, dtype=torch.float64),
                "statistics_precision": torch.zeros(statistics, statistics, dtype=torch.float64),
                "thresholds": tensors.pop("threshold").reshape(1).repeat(2),
            }
        return OutlierScore(**tensors)

    def check(self, features: int, statistics: int) -> None:
        """Raise ValueError if the tensors do not fit each other, and images of so many features and statistics."""
        components = len(self.components) if self.components.ndim else 0
        size = components + 1 + statistics
        expected: dict[str, tuple[int, ...]] = {
            "feature_mean": (features,), "components": (components, features), "floor": (), "mean": (size,),
            "precision": (size, size), "quantiles": (statistics, len(LEVELS)), "statistics_mean": (statistics,),
            "statistics_precision": (statistics, statistics), "thresholds": (2,),
        }  # fmt: skip
        for name, shape in expected.items():
            if (found := tuple(getattr(self, name).shape)) != shape:
                raise ValueError(f"{name} is of shape {found}; expected {shape}")
