"""How well a network may do on a target, from its predictions there alone: no labels."""

from __future__ import annotations

import torch
from torch import Tensor

TEMPERATURE = 0.05
"""Of soft neighbourhood density, as in its paper."""


def mean_entropy(probabilities: Tensor) -> Tensor:
    """Return the mean entropy of predictions (N, K), in nats; low where predictions are confident, right or wrong."""
    return _entropy(probabilities).mean()


def information(probabilities: Tensor) -> Tensor:
    """Return the mutual information of images and predicted classes, from predictions (N, K), in nats.

    It is the entropy of the mean prediction less the mean entropy: large where predictions are confident and differ, 0
    where all images are predicted alike (Bridle et al. 1991; Krause et al. 2010).
    """
    return _entropy(probabilities.mean(0)) - mean_entropy(probabilities)


def neighbourhood_density(probabilities: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Return the soft neighbourhood density of predictions (N, K): how many neighbours each one has (Saito et al. 2021).

    Parameters
    ----------
    probabilities
        Of N target images, N at least 3.
    temperature
        Of the soft-max over cosine similarities.

    Returns
    -------
    Tensor
        Mean entropy, in nats, of the soft-max over similarities to the other images; log(N - 1) if all are alike.
    """
    directions = torch.nn.functional.normalize(probabilities, dim=1)
    similar = directions @ directions.T / temperature
    similar.fill_diagonal_(-torch.inf)
    return _entropy(similar.softmax(1)).mean()


def _entropy(probabilities: Tensor) -> Tensor:
    """Entropy (...) of probabilities (..., K)."""
    return torch.special.entr(probabilities).sum(-1)
