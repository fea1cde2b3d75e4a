"""Validators without labels, against SciPy and brute force, and what each of them rewards."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from sklearn.metrics import mutual_info_score

from darklens.adaptation.validators import information, mean_entropy, neighbourhood_density


@pytest.fixture
def predictions():
    return np.random.default_rng(1).dirichlet([0.4, 0.7, 1.0], 30)


def test_entropy_and_information_are_those_of_scipy(predictions):
    found = torch.tensor(predictions)
    assert mean_entropy(found).item() == pytest.approx(entropy(predictions, axis=1).mean())
    expected = entropy(predictions.mean(0)) - entropy(predictions, axis=1).mean()
    assert information(found).item() == pytest.approx(expected)


def test_information_of_certain_predictions_is_that_of_labels():
    labels = np.array([0, 0, 1, 2, 2, 2])
    certain = torch.eye(3, dtype=torch.float64)[torch.tensor(labels)]
    assert information(certain).item() == pytest.approx(mutual_info_score(labels, labels))


def test_density_is_the_entropy_over_neighbours(predictions):
    rows = predictions / np.linalg.norm(predictions, axis=1, keepdims=True)
    expected = []
    for i, row in enumerate(rows):
        similar = np.array([row @ other / 0.05 for j, other in enumerate(rows) if j != i])
        weights = np.exp(similar - similar.max())
        expected.append(entropy(weights))
    assert neighbourhood_density(torch.tensor(predictions)).item() == pytest.approx(np.mean(expected))


def test_collapse_is_rewarded_by_all_but_information():
    """Constant predictions have the lowest entropy and the largest density, and no information: it is the default."""
    collapsed = torch.tensor([[1.0, 0.0]] * 40)
    told_apart = torch.tensor([[0.98, 0.02]] * 20 + [[0.02, 0.98]] * 20)
    assert mean_entropy(collapsed) < mean_entropy(told_apart)
    assert neighbourhood_density(collapsed) > neighbourhood_density(told_apart)
    assert information(collapsed).item() == 0 < information(told_apart).item()
    assert neighbourhood_density(collapsed).item() == pytest.approx(np.log(39), rel=1e-5)
