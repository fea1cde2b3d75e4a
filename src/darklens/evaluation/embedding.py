"""How many directions embeddings use, which says without labels whether they have collapsed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric as TorchMetric

from darklens.evaluation.bootstrap import Floats, Metric


def effective_rank(values: Floats) -> float:
    """Return the effective rank of a covariance matrix: the exponential of the entropy of its standard deviations.

    Parameters
    ----------
    values
        Eigenvalues (K,) of the covariance; those below 0 by rounding count as 0.

    Returns
    -------
    float
        From 1, for embeddings along a line, to K, for those that scatter equally along all axes; 0 if all are the same.

    Source: Roy & Vetterli (2007); of embeddings, Garrido et al. (2023, arXiv:2210.02885), there without centring.
    """
    scatter = np.sqrt(np.clip(values, 0, None))
    if not scatter.sum() > 0:
        return 0.0
    p = scatter / scatter.sum()
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()))


def embedding_metrics(embeddings: Floats) -> list[Metric]:
    """Return the metrics of embeddings (N, K) that need no labels: their effective rank."""

    def statistic(weights: Floats) -> Floats:
        found = []
        for each in weights:
            share = each / each.sum()
            away = embeddings - share @ embeddings
            found.append(effective_rank(np.linalg.eigvalsh((away * share[:, None]).T @ away)))
        return np.array(found)

    return [Metric("effective_rank", "Effective rank of the embeddings", statistic)]


class EffectiveRank(TorchMetric):
    """The effective rank of embeddings (N, K), gathered batch by batch.

    Parameters
    ----------
    size
        K.
    """

    full_state_update = False
    number: Tensor
    total: Tensor
    products: Tensor

    def __init__(self, size: int):
        super().__init__()
        self.add_state("number", torch.zeros(1, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("products", torch.zeros(size, size, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, embeddings: Tensor, targets: Tensor) -> None:
        """Take up embeddings (N, K); targets are not looked at."""
        values = embeddings.double()
        self.number += len(values)
        self.total += values.sum(0)
        self.products += values.T @ values

    def compute(self) -> Tensor:
        """Return the effective rank of all that were taken up."""
        mean = self.total / self.number
        covariance = self.products / self.number - mean[:, None] * mean
        return torch.tensor(effective_rank(torch.linalg.eigvalsh(covariance.cpu()).numpy()), dtype=torch.float32)
