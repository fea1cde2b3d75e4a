"""How unlike the training data an image is."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor, nn

COMPONENTS = 64
"""Principal components of the network's features that are looked at."""
USUAL = 0.99
"""Share of validation images whose score is below 1."""


def last_linear(network: nn.Module) -> nn.Linear | None:
    """The layer that turns a network's features into its answer."""
    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    return layers[-1] if layers else None


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


@dataclass(frozen=True)
class OutlierScore:
    """Mahalanobis distance from the training images (Lee et al. 2018), above 1 for what is rare among them.

    It looks at the leading principal components of the network's features, at what they leave, and at statistics of the
    image itself.
    """

    feature_mean: Tensor
    components: Tensor
    floor: Tensor
    mean: Tensor
    precision: Tensor
    threshold: Tensor

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
        start = OutlierScore(feature_mean, axes[:number], floor, torch.zeros(1), torch.zeros(1), torch.ones(()))
        rows = start._described(features, statistics)
        mean = rows.mean(0)
        covariance = torch.cov(rows.T)
        # A little of each feature's own variance keeps the inverse from trusting directions that were hardly seen.
        covariance = 0.98 * covariance + torch.diag(0.02 * covariance.diagonal() + 1e-9)
        scored = replace(start, mean=mean, precision=torch.linalg.inv(covariance))
        return replace(scored, threshold=scored(*held_out).quantile(USUAL))

    def __call__(self, features: Tensor, statistics: Tensor) -> Tensor:
        """Scores (N,) of features (N, F) and statistics (N, S)."""
        away = self._described(features.double(), statistics) - self.mean
        distance = ((away @ self.precision) * away).sum(1).clamp_min(0).sqrt()
        return distance / self.threshold

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
        """The reverse of `tensors`, of any precision."""
        return OutlierScore(**{name: tensor.double() for name, tensor in tensors.items()})

    def check(self, features: int, statistics: int) -> None:
        """Raise ValueError if the tensors do not fit each other, and images of so many features and statistics."""
        components = len(self.components) if self.components.ndim else 0
        size = components + 1 + statistics
        expected = {"feature_mean": (features,), "components": (components, features), "floor": (), "threshold": ()}
        for name, shape in (expected | {"mean": (size,), "precision": (size, size)}).items():
            if (found := tuple(getattr(self, name).shape)) != shape:
                raise ValueError(f"{name} is of shape {found}; expected {shape}")
