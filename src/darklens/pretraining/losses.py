"""Losses of embeddings of two views of the same images; no labels are needed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss, normalize, relu

VARIANCE, INVARIANCE, COVARIANCE = 25.0, 25.0, 1.0
"""Weights of the terms of VICReg, those of its authors (section 4.2)."""


def vicreg(one: Tensor, other: Tensor) -> Tensor:
    """Return the loss of variance, invariance and covariance.

    Parameters
    ----------
    one, other
        Embeddings (N, K) of two views, N at least 2.

    Returns
    -------
    Tensor
        One number: the squared distance of the views, and for each view how far the scatter of each number is below 1,
        and the squared covariances between numbers.

    Source: Bardes, Ponce & LeCun (2022, arXiv:2105.04906), eqs. 1 to 6.
    """
    total = INVARIANCE * mse_loss(one, other)
    for view in (one, other):
        away = view - view.mean(0)
        scatter = (away.square().sum(0) / (len(view) - 1) + 1e-4).sqrt()
        covariance = away.T @ away / (len(view) - 1)
        beside = covariance.square().sum() - covariance.diagonal().square().sum()
        total = total + VARIANCE / 2 * relu(1 - scatter).mean() + COVARIANCE * beside / view.shape[1]
    return total


def simclr(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """Return the normalised cross entropy of finding an image's other view among all views of a batch.

    Parameters
    ----------
    one, other
        Embeddings (N, K) of two views.
    temperature
        Cosines are divided by it; lower values look at the nearest views alone.

    Returns
    -------
    Tensor
        One number, the mean over the 2 N views.

    Source: Chen et al. (2020, arXiv:2002.05709), eq. 1.
    """
    number = len(one)
    both = normalize(torch.cat([one, other]), dim=1)
    logits = both @ both.T / temperature
    logits = logits.masked_fill(torch.eye(2 * number, dtype=torch.bool, device=one.device), -torch.inf)
    places = torch.arange(2 * number, device=one.device)
    return cross_entropy(logits, (places + number) % (2 * number))


def contrastive_pairs(one: Tensor, other: Tensor, margin: float) -> Tensor:
    """Return the squared distance of positive pairs and the squared hinge of negative ones.

    A positive pair are two views of an image; a negative one, the first view of an image and the other view of another.

    Parameters
    ----------
    one, other
        Embeddings (N, K) of two views, N at least 2; they are brought to length 1.
    margin
        Distance, from 0 to 2, beyond which a negative pair costs nothing.

    Returns
    -------
    Tensor
        One number: the mean over positive pairs and that over negative pairs.

    Source: Hadsell, Chopra & LeCun (2006), eq. 4, without its factor 1/2.
    """
    number = len(one)
    a, b = normalize(one, dim=1), normalize(other, dim=1)
    squared = (2 - 2 * a @ b.T).clamp_min(0)
    same = torch.eye(number, dtype=torch.bool, device=one.device)
    # The derivative of the root is infinite at 0.
    hinge = relu(margin - squared.clamp_min(1e-12).sqrt()).square()
    return squared[same].mean() + hinge[~same].mean()


def distillation(student: Tensor, teacher: Tensor, center: Tensor, *, temperature: float, sharper: float) -> Tensor:
    """Return the cross entropy of what a student says of a view with what its teacher says of the other one.

    Parameters
    ----------
    student, teacher
        Logits (2, N, K) of both views.
    center
        Running mean (K,) of the teacher's logits, which is subtracted from them.
    temperature
        By which the student's logits are divided.
    sharper
        By which the teacher's are, lower than ``temperature``.

    Returns
    -------
    Tensor
        One number, the mean over images and both pairs of views.

    Source: Caron et al. (2021, arXiv:2104.14294), eqs. 2 to 4.
    """
    wanted = ((teacher - center) / sharper).softmax(-1).detach()
    said = (student / temperature).log_softmax(-1)
    return -(wanted.flip(0) * said).sum(-1).mean()
