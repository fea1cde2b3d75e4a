"""Losses of domain adaptation as functions of outputs and features, one for each equation of the papers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax


class _ReversedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradient, None


def reverse_gradient(x: Tensor, strength: float) -> Tensor:
    """Return a tensor unchanged, whose gradient is multiplied by ``-strength`` (Ganin et al. 2016, eq. 17)."""
    reversed_: Tensor = _ReversedGradient.apply(x, strength)
    return reversed_


def domain_loss(source: Tensor, target: Tensor, weights: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Return the binary cross-entropy of a discriminator's logits, source 1 and target 0, the domains weighing alike.

    Parameters
    ----------
    source, target
        Logits (N,) or (N, 1) of images of each domain.
    weights
        Of the images of each domain, (N,), relative to the others of that domain; None weighs all alike.
    """
    found = []
    for number, (logits, value) in enumerate(((source, 1.0), (target, 0.0))):
        each = binary_cross_entropy_with_logits(logits, torch.full_like(logits, value), reduction="none").flatten()
        found.append(each.mean() if weights is None else (each * weights[number]).sum() / weights[number].sum())
    return (found[0] + found[1]) / 2


def conditioned(features: Tensor, probabilities: Tensor) -> Tensor:
    """Return the outer products of features (N, F) and predictions (N, K), flattened to (N, K × F).

    A discriminator that reads them compares domains within each class. No gradient passes through predictions, as in the
    authors' code (Long et al. 2018, the multilinear map of section 3.2).
    """
    return (probabilities.detach()[:, :, None] * features[:, None]).flatten(1)


def certainty_weights(probabilities: Tensor) -> Tensor:
    """Return 1 + exp(-entropy) of predictions (N, K), (N,), without gradient: sure ones count for more.

    Source: Long et al. (2018), entropy conditioning.
    """
    return 1 + torch.exp(-torch.special.entr(probabilities.detach()).sum(1))


def interpolated_logits(joint: Tensor, alone: Tensor, share: Tensor) -> Tensor:
    """Return logits of the source between those of a joint and of a separate pass (Berthelot et al. 2022, section 3.2).

    Parameters
    ----------
    joint, alone
        Logits (N, K) of the source images, passed through the network with target images and without them.
    share
        Weight of ``joint``, drawn uniformly from 0 to 1 for each logit, (N, K).
    """
    return share * joint + (1 - share) * alone


def aligned(probabilities: Tensor, source_mean: Tensor, target_mean: Tensor) -> Tensor:
    """Return probabilities scaled to the source's mean prediction and normalised (Berthelot et al. 2022, section 3.3).

    Parameters
    ----------
    probabilities
        Of target images, (N, K).
    source_mean, target_mean
        Mean predictions (K,) of both domains.
    """
    scaled = probabilities * (source_mean / target_mean.clamp_min(1e-6))
    return scaled / scaled.sum(1, keepdim=True).clamp_min(1e-12)


def relative_threshold(source: Tensor, tau: float) -> Tensor:
    """Return ``tau`` times the mean of the largest probability of weakly augmented source images (N, K), one number."""
    return tau * source.amax(1).mean()


def pseudo_label_loss(logits: Tensor, labels: Tensor, threshold: Tensor | float) -> Tensor:
    """Return the mean cross-entropy of strong views with soft pseudo-labels; those below a confidence count as 0.

    Parameters
    ----------
    logits
        Of strong views, (N, K).
    labels
        Probabilities (N, K) of weak views, through which no gradient passes.
    threshold
        Least of the largest probability of a label that counts.

    Returns
    -------
    Tensor
        One number, over all N images (Berthelot et al. 2022, eq. 2).
    """
    labels = labels.detach()
    counted = (labels.amax(1) >= threshold).to(logits.dtype)
    return -(labels * log_softmax(logits, 1)).sum(1).mul(counted).mean()


def consistency_loss(student: Tensor, teacher: Tensor, threshold: float) -> Tensor:
    """Return the mean squared difference of probabilities where the teacher is confident (French et al. 2018, section 3.2).

    Parameters
    ----------
    student, teacher
        Probabilities (N, K) of the same images; no gradient passes through the teacher's.
    threshold
        Least of the teacher's largest probability of an image that counts; others count as 0.
    """
    teacher = teacher.detach()
    counted = (teacher.amax(1) > threshold).to(student.dtype)
    return ((student - teacher).square().mean(1) * counted).mean()


def class_balance_loss(student: Tensor, teacher: Tensor, threshold: float) -> Tensor:
    """Return the binary cross-entropy of the mean prediction with equal classes (French et al. 2018, section 3.4).

    Parameters
    ----------
    student, teacher
        Probabilities (N, K) of the same images.
    threshold
        As of `consistency_loss`: the loss is scaled by the fraction of images of which the teacher is confident.

    Returns
    -------
    Tensor
        One number, summed over classes.
    """
    confident = (teacher.detach().amax(1) > threshold).to(student.dtype).mean()
    mean = student.mean(0).clamp(1e-6, 1 - 1e-6)
    share = 1 / len(mean)
    return -(share * mean.log() + (1 - share) * (1 - mean).log()).sum() * confident


def sinkhorn_divergence(x: Tensor, y: Tensor, epsilon: float, iterations: int = 100) -> Tensor:
    """Return the debiased entropic transport cost between two sets of points (Feydy et al. 2019, eq. 3).

    Parameters
    ----------
    x, y
        Points (N, F) and (M, F), each set of total weight 1. The cost is half the squared distance.
    epsilon
        Entropic regularisation, in units of the cost; towards 0 the divergence is the cost of optimal transport.
    iterations
        Of Sinkhorn's algorithm.

    Returns
    -------
    Tensor
        One number, at least 0; its gradient is that of the converged cost.
    """
    between, within_x, within_y = (entropic_cost(a, b, epsilon, iterations) for a, b in ((x, y), (x, x), (y, y)))
    return between - (within_x + within_y) / 2


def entropic_cost(x: Tensor, y: Tensor, epsilon: float, iterations: int = 100) -> Tensor:
    """Return the cost of transport between two sets of points with entropic regularisation.

    Parameters
    ----------
    x, y
        Points (N, F) and (M, F), each set of total weight 1. The cost is half the squared distance.
    epsilon
        Regularisation, in units of the cost.
    iterations
        Of Sinkhorn's algorithm, in logarithms; epsilon falls to its value over the first of them.

    Returns
    -------
    Tensor
        min ⟨P, C⟩ + epsilon KL(P | a ⊗ b); gradients by the envelope theorem, with the plan held fixed.
    """
    cost = (x[:, None] - y[None]).square().sum(-1) / 2
    with torch.no_grad():
        n, m = cost.shape
        log_a, log_b = cost.new_full((n,), 1 / n).log(), cost.new_full((m,), 1 / m).log()
        f, g = torch.zeros_like(log_a), torch.zeros_like(log_b)
        scale = max(float(cost.max()), epsilon)
        for i in range(iterations):
            # From the size of the whole set to epsilon in the first half: fewer iterations are needed for the rest.
            eps = max(epsilon, scale * (epsilon / scale) ** (2 * i / iterations))
            f = -eps * torch.logsumexp(log_b + (g - cost) / eps, 1)
            g = -eps * torch.logsumexp(log_a[:, None] + (f[:, None] - cost) / eps, 0)
        ratio = (f[:, None] + g[None] - cost) / epsilon
        plan = (log_a[:, None] + log_b[None] + ratio).exp()
        divergence = (plan * ratio).sum() - plan.sum() + 1
    return (plan * cost).sum() + epsilon * divergence
