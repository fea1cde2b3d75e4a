"""Losses of two views against loops, closed forms and limits."""

import numpy as np
import pytest
import torch

from darklens.pretraining.losses import contrastive_pairs, distillation, simclr, vicreg


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)


def test_vicreg_is_the_sum_of_its_terms(pair):
    a, b = (each.numpy() for each in pair)
    expected = 25 * ((a - b) ** 2).mean()
    for z in (a, b):
        expected += 25 / 2 * np.maximum(0, 1 - np.sqrt(z.var(0, ddof=1) + 1e-4)).mean()
        covariance = np.cov(z.T)
        expected += (covariance[~np.eye(4, dtype=bool)] ** 2).sum() / 4
    assert float(vicreg(*pair)) == pytest.approx(expected)


def test_vicreg_of_equal_uncorrelated_wide_embeddings_is_zero_and_of_collapsed_ones_is_not():
    wide = 2 * torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert float(vicreg(wide, wide)) == pytest.approx(0, abs=1e-6)
    assert float(vicreg(0 * wide, 0 * wide)) == pytest.approx(25 * (1 - 1e-2), rel=1e-5)


def test_simclr_is_the_cross_entropy_of_the_other_view(pair):
    both = np.concatenate([each.numpy() for each in pair])
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    cosines = np.exp(both @ both.T / 0.3)
    losses = [-np.log(cosines[i, (i + 6) % 12] / (cosines[i].sum() - cosines[i, i])) for i in range(12)]
    assert float(simclr(*pair, 0.3)) == pytest.approx(np.mean(losses))


def test_simclr_of_equal_embeddings_is_that_of_guessing():
    assert float(simclr(torch.ones(5, 3), torch.ones(5, 3), 0.1)) == pytest.approx(np.log(9))


def test_contrastive_pairs_is_squared_distance_and_squared_hinge(pair):
    a, b = (each.numpy() / np.linalg.norm(each.numpy(), axis=1, keepdims=True) for each in pair)
    distance = np.linalg.norm(a[:, None] - b[None], axis=2)
    same = np.eye(6, dtype=bool)
    expected = (distance[same] ** 2).mean() + (np.maximum(0, 1.2 - distance[~same]) ** 2).mean()
    assert float(contrastive_pairs(*pair, 1.2)) == pytest.approx(expected)


def test_contrastive_pairs_of_images_beyond_the_margin_cost_nothing_and_collapse_has_a_gradient():
    far = torch.eye(3)
    assert float(contrastive_pairs(far, far, 1.4)) == pytest.approx(0, abs=1e-6)
    same = torch.ones(3, 2, requires_grad=True)
    contrastive_pairs(same, torch.ones(3, 2), 1.0).backward()
    assert same.grad.isfinite().all()


def test_distillation_is_the_cross_entropy_with_the_teacher_of_the_other_view():
    torch.manual_seed(1)
    student, teacher, center = torch.randn(2, 3, 5), torch.randn(2, 3, 5), torch.randn(5)
    found = distillation(student, teacher, center, temperature=0.5, sharper=0.2)
    total = 0.0
    for view in range(2):
        for n in range(3):
            wanted = np.exp((teacher[1 - view, n] - center).numpy() / 0.2)
            said = np.exp(student[view, n].numpy() / 0.5)
            total += -(wanted / wanted.sum() * np.log(said / said.sum())).sum() / 6
    assert float(found) == pytest.approx(total, rel=1e-5)
