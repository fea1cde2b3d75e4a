"""Losses against the papers' equations written in NumPy, and the Sinkhorn divergence against linear programming."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.stats import entropy
from sklearn.metrics import log_loss

from darklens.adaptation.adamatch import frozen_statistics, target_weight
from darklens.adaptation.dann import reversal_strength
from darklens.adaptation.losses import (
    aligned,
    certainty_weights,
    class_balance_loss,
    conditioned,
    consistency_loss,
    domain_loss,
    entropic_cost,
    interpolated_logits,
    pseudo_label_loss,
    relative_threshold,
    reverse_gradient,
    sinkhorn_divergence,
)
from darklens.adaptation.options import Dann
from darklens.adaptation.self_ensembling import move_average


def probabilities(rng, n, k=3):
    return rng.dirichlet(np.ones(k), n)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def test_reversed_gradient_is_that_of_finite_differences(rng):
    x = torch.tensor(rng.normal(size=(4, 3)), requires_grad=True)
    weights = torch.tensor(rng.normal(size=(4, 3)))

    def function(values):
        return (weights * values.sin()).sum()

    value = function(reverse_gradient(x, 0.7))
    value.backward()
    plain = x.detach()
    assert value.item() == function(plain).item()
    step = 1e-6
    for place in np.ndindex(4, 3):
        moved = torch.zeros_like(plain)
        moved[place] = step
        slope = (function(plain + moved) - function(plain - moved)) / (2 * step)
        assert x.grad[place].item() == pytest.approx(-0.7 * slope.item(), abs=1e-8)


def test_reversal_rises_as_published():
    for share in (0.0, 0.2, 1.0):
        assert reversal_strength(Dann(weight=2.0), share) == pytest.approx(2 * (2 / (1 + np.exp(-10 * share)) - 1))


def test_domain_loss_is_the_cross_entropy_with_domains_weighing_alike(rng):
    source, target = rng.normal(size=5), rng.normal(size=9)
    p = 1 / (1 + np.exp(-np.concatenate([source, target])))
    expected = log_loss(np.r_[np.ones(5), np.zeros(9)], p, sample_weight=np.r_[np.full(5, 1 / 5), np.full(9, 1 / 9)])
    assert domain_loss(torch.tensor(source), torch.tensor(target)).item() == pytest.approx(expected)


def test_domain_loss_weighs_images_within_their_domain(rng):
    source, target = rng.normal(size=(5, 1)), rng.normal(size=(9, 1))
    weights = rng.uniform(1, 2, size=5), rng.uniform(1, 2, size=9)
    p = 1 / (1 + np.exp(-np.concatenate([source, target])[:, 0]))
    shares = np.concatenate([each / each.sum() for each in weights])
    expected = log_loss(np.r_[np.ones(5), np.zeros(9)], p, sample_weight=shares)
    pair = torch.tensor(weights[0]), torch.tensor(weights[1])
    assert domain_loss(torch.tensor(source), torch.tensor(target), pair).item() == pytest.approx(expected)


def test_conditioned_features_are_outer_products_that_teach_features_alone(rng):
    features = torch.tensor(rng.normal(size=(4, 5)), requires_grad=True)
    predicted = torch.tensor(probabilities(rng, 4), requires_grad=True)
    found = conditioned(features, predicted)
    for row, f, p in zip(found, features, predicted, strict=True):
        np.testing.assert_allclose(row.detach(), np.outer(p.detach(), f.detach()).ravel())
    found.sum().backward()
    np.testing.assert_allclose(features.grad, np.ones((4, 5)))
    assert predicted.grad is None


def test_certainty_weights_fall_with_entropy(rng):
    predicted = np.concatenate([probabilities(rng, 6), np.eye(3)])
    np.testing.assert_allclose(certainty_weights(torch.tensor(predicted)), 1 + np.exp(-entropy(predicted, axis=1)))


def test_adamatch_is_its_equations(rng):
    """Section 3 of the paper: interpolation, alignment, threshold and the loss of the target, one image at a time."""
    joint, alone, share = (rng.normal(size=(6, 3)) for _ in range(3))
    found = interpolated_logits(*map(torch.tensor, (joint, alone, share)))
    np.testing.assert_allclose(found, [[s * j + (1 - s) * a for s, j, a in zip(*r, strict=True)]
                                       for r in zip(share, joint, alone, strict=True)])  # fmt: skip
    known, weak = probabilities(rng, 6), probabilities(rng, 8)
    strong = 3 * rng.normal(size=(8, 3))
    expected_labels = []
    for p in weak:
        ratio = [p[k] * np.mean(known[:, k]) / np.mean(weak[:, k]) for k in range(3)]
        expected_labels.append([r / sum(ratio) for r in ratio])
    labels = aligned(torch.tensor(weak), torch.tensor(known.mean(0)), torch.tensor(weak.mean(0)))
    np.testing.assert_allclose(labels, expected_labels)
    threshold = relative_threshold(torch.tensor(known), 0.9)
    assert threshold.item() == pytest.approx(0.9 / 6 * sum(max(p) for p in known))
    terms = []
    for label, logits in zip(expected_labels, strong, strict=True):
        log_p = logits - np.log(np.exp(logits).sum())
        terms.append(-(label @ log_p) if max(label) >= threshold.item() else 0.0)
    assert 0 < sum(term == 0 for term in terms) < 8, "both sides of the threshold are tried"
    assert pseudo_label_loss(torch.tensor(strong), labels, threshold).item() == pytest.approx(sum(terms) / 8)


def test_pseudo_labels_pass_no_gradient(rng):
    logits = torch.tensor(rng.normal(size=(4, 3)), requires_grad=True)
    labels = torch.tensor(probabilities(rng, 4), requires_grad=True)
    pseudo_label_loss(logits, labels, 0.1).backward()
    assert labels.grad is None
    assert logits.grad.abs().sum() > 0


def test_weight_of_the_target_rises_over_the_first_half():
    assert [round(target_weight(share), 6) for share in (0, 0.25, 0.5, 0.8, 1)] == [0, 0.5, 1, 1, 1]


def test_frozen_statistics_change_neither_outputs_nor_what_is_kept():
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm2d(2)
    images = 3 + torch.randn(5, 2, 4, 4)
    before = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    with frozen_statistics(norm):
        inside = norm(images)
    assert all(torch.equal(before[name], tensor) for name, tensor in norm.state_dict().items())
    torch.testing.assert_close(inside, norm(images))
    assert not torch.equal(before["running_mean"], norm.running_mean)


def test_self_ensembling_is_its_equations(rng):
    student, teacher = probabilities(rng, 12), probabilities(rng, 12)
    threshold = float(np.median(teacher.max(1)))
    confident = [max(p) > threshold for p in teacher]
    expected = np.mean([c * np.mean((s - t) ** 2) for c, s, t in zip(confident, student, teacher, strict=True)])
    found = consistency_loss(torch.tensor(student), torch.tensor(teacher), threshold)
    assert found.item() == pytest.approx(expected)
    balance = sum(-(np.log(q) / 3 + 2 / 3 * np.log(1 - q)) for q in student.mean(0)) * np.mean(confident)
    found = class_balance_loss(torch.tensor(student), torch.tensor(teacher), threshold)
    assert found.item() == pytest.approx(balance)


def test_teacher_is_the_moving_average():
    torch.manual_seed(1)
    average, current = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    expected = 0.9 * average.weight.detach() + 0.1 * current.weight.detach()
    move_average(average, current, 0.9)
    torch.testing.assert_close(average.weight.detach(), expected)


def optimal_transport(x, y):
    """Cost of optimal transport between two sets of points, by linear programming."""
    n, m = len(x), len(y)
    cost = ((x[:, None] - y[None]) ** 2).sum(-1) / 2
    rows = [np.kron(np.eye(n)[i], np.ones(m)) for i in range(n)]
    columns = [np.kron(np.ones(n), np.eye(m)[j]) for j in range(m)]
    found = linprog(cost.ravel(), A_eq=np.array(rows + columns), b_eq=np.r_[np.full(n, 1 / n), np.full(m, 1 / m)])
    return found.fun


def test_sinkhorn_divergence_becomes_optimal_transport(rng):
    x, y = rng.normal(size=(7, 3)), 0.5 + rng.normal(size=(5, 3))
    exact = optimal_transport(x, y)
    errors = [
        abs(sinkhorn_divergence(torch.tensor(x), torch.tensor(y), epsilon, 1500).item() - exact)
        for epsilon in (0.3, 0.03, 0.003)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.003, "the cost of regularisation is of the order of epsilon"


def test_sinkhorn_divergence_has_the_gradient_of_finite_differences(rng):
    x, y = torch.tensor(rng.normal(size=(5, 2)), requires_grad=True), torch.tensor(1 + rng.normal(size=(4, 2)))
    sinkhorn_divergence(x, y, 0.2, 2000).backward()
    plain, step = x.detach(), 1e-5
    for place in np.ndindex(5, 2):
        moved = torch.zeros_like(plain)
        moved[place] = step
        ends = [sinkhorn_divergence(plain + sign * moved, y, 0.2, 2000).item() for sign in (1, -1)]
        assert x.grad[place].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-5)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), epsilon=st.floats(0.5, 2))
def test_sinkhorn_divergence_is_symmetric_at_least_zero_and_zero_for_equal_sets(seed, epsilon):
    rng = np.random.default_rng(seed)
    x, y = torch.tensor(rng.normal(size=(6, 2))), torch.tensor(rng.normal(size=(4, 2)))
    one, other = sinkhorn_divergence(x, y, epsilon, 600), sinkhorn_divergence(y, x, epsilon, 600)
    assert one.item() == pytest.approx(other.item(), abs=1e-4)
    assert one.item() > -1e-4
    assert sinkhorn_divergence(x, x[torch.randperm(6)], epsilon, 600).item() == pytest.approx(0, abs=1e-4)


def test_entropic_cost_is_what_its_definition_says_of_two_points():
    """One point against one: the plan is fixed, and the cost is that of moving it."""
    x, y = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    assert entropic_cost(x, y, 0.5).item() == pytest.approx(12.5, rel=1e-5)
