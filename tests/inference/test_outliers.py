"""The outlier score against numpy, and what is said of it."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.stats import norm
from torch import nn

from darklens.inference.outliers import (
    LEVELS,
    OutlierScore,
    image_statistics,
    normal_scores,
    outlier_note,
)
from darklens.models.heads import last_linear

RNG = np.random.default_rng(2)


def by_numpy(features, statistics, held_out, number):
    """Scores of the held-out images, by the definition: principal components, what they leave, statistics."""
    mean = features.mean(0)
    _, vectors = np.linalg.eigh(np.cov((features - mean).T))
    axes = vectors[:, ::-1][:, :number]
    floor = 1e-4 * ((features - mean) ** 2).sum(1).mean() + 1e-12

    def described(f, s):
        away = f - mean
        along = away @ axes
        left = np.maximum((away**2).sum(1) - (along**2).sum(1), 0)
        return np.column_stack([along, np.log(left + floor), s])

    def distance(rows, held):
        covariance = np.cov(rows.T)
        covariance = 0.98 * covariance + np.diag(0.02 * np.diag(covariance) + 1e-9)
        away = held - rows.mean(0)
        return np.sqrt(np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariance), away))

    both = np.column_stack(
        [
            distance(described(features, statistics), described(*held_out)),
            distance(normal(statistics, statistics), normal(held_out[1], statistics)),
        ]
    )
    largest = (both / np.quantile(both, 0.99, axis=0)).max(1)
    return largest / np.quantile(largest, 0.99)


def normal(values, known):
    """Values (N, S) at the quantiles of known ones (M, S), as deviates of a normal distribution."""
    levels = [0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995, 0.999]
    deviates, columns = norm.ppf(levels), []
    for x, quantiles in zip(values.T, np.quantile(known, levels, axis=0).T, strict=True):
        low, high = (
            np.polyfit(quantiles[[0, 2]], deviates[[0, 2]], 1),
            np.polyfit(quantiles[[-3, -1]], deviates[[-3, -1]], 1),
        )
        inside = np.interp(x, quantiles, deviates)
        beyond = np.where(x < quantiles[0], np.polyval(low, x), np.polyval(high, x))
        columns.append(np.where((x < quantiles[0]) | (x > quantiles[-1]), beyond, inside))
    return np.column_stack(columns)


@pytest.mark.parametrize(("images", "features", "number"), [(70, 12, 7), (400, 6, 6), (19, 5, 1), (800, 80, 64)])
def test_score_is_the_distance_over_that_of_99_percent(images, features, number):
    mixing = RNG.normal(0, 1, (features, features))
    data = [(RNG.normal(0, 1, (n, features)) @ mixing + 3, RNG.normal(-2, 1.5, (n, 2))) for n in (images, 60)]
    tensors = [tuple(map(torch.from_numpy, part)) for part in data]
    score = OutlierScore.fit(*tensors[0], tensors[1])
    assert score.components.shape == (number, features)
    assert_allclose(score(*tensors[1]), by_numpy(*data[0], data[1], number), rtol=1e-6)
    names = "feature_mean components floor mean precision quantiles statistics_mean statistics_precision thresholds"
    assert list(score.tensors()) == names.split()


def test_statistics_of_a_long_tail_on_one_side_are_watched_on_the_other():
    """A tail above widens the distance for what lies below as well, unless the distribution is made normal."""
    rng = np.random.default_rng(5)
    features = torch.from_numpy(rng.normal(0, 1, (4000, 40)))
    statistics = torch.from_numpy(np.column_stack([rng.exponential(3, 4000) ** 2, rng.normal(0, 1, 4000)]))
    score = OutlierScore.fit(features[:2000], statistics[:2000], (features[2000:], statistics[2000:]))
    below = torch.tensor([[-8.0, 0.0]])
    first, second = (score.distances(torch.zeros(1, 40), below) / score.thresholds)[0]
    assert first < 0.5
    assert second > 1.5
    assert score(torch.zeros(1, 40), below) == second
    assert 0.005 < float((score(features[2000:], statistics[2000:]) > 1).double().mean()) <= 0.01


@pytest.mark.parametrize("value", [0.0, -3.0, 250.0])
def test_a_statistic_that_never_varied_is_left_out(value):
    quantiles = torch.full((1, len(LEVELS)), value, dtype=torch.float64)
    assert_allclose(normal_scores(torch.tensor([[value], [value + 1e-7], [value + 9]]), quantiles), 0)


def test_a_statistic_that_varied_by_rounding_is_left_out():
    quantiles = torch.linspace(2.5, 2.500001, len(LEVELS), dtype=torch.float64)[None]
    assert_allclose(normal_scores(torch.tensor([[2.5], [2.6]]), quantiles), 0)


@pytest.mark.parametrize("images", [1, 30])
def test_images_that_are_all_alike_give_numbers(images):
    features, statistics = torch.ones(images, 8).double(), torch.full((images, 5), 0.25).double()
    score = OutlierScore.fit(features, statistics, (features, statistics))
    assert_allclose(score(features, statistics), 0, atol=1e-6)
    other = torch.from_numpy(RNG.normal(0, 1, (20, 8))), torch.from_numpy(RNG.normal(0, 1, (20, 5)))
    assert (score(*other) > 1).all()


def test_half_of_the_values_equal():
    known = np.concatenate([np.zeros(500), np.linspace(0, 5, 501)])[:, None]
    quantiles = torch.from_numpy(np.quantile(known, LEVELS, axis=0).T.copy())
    found = normal_scores(torch.tensor([[0.0], [1.0], [2.0], [4.9]]), quantiles)
    assert found.isfinite().all()
    assert_allclose(found[1:3, 0], norm.ppf([0.6, 0.7]), atol=0.01)
    # Below the equal values, a step of the distribution's width is many deviates, and not thousands.
    assert -1000 < normal_scores(torch.tensor([[-5.0]]), quantiles) < -20


def test_score_of_former_versions_is_the_first_distance_alone():
    features, statistics = (torch.from_numpy(RNG.normal(0, 1, (300, n))) for n in (6, 4))
    score = OutlierScore.fit(features, statistics, (features[:50], statistics[:50]))
    names = ("feature_mean", "components", "floor", "mean", "precision")
    former = OutlierScore.from_tensors(
        {name: score.tensors()[name] for name in names} | {"threshold": torch.tensor(2.5)}
    )
    former.check(6, 4)
    assert_allclose(former(features, statistics), score.distances(features, statistics)[:, 0] / 2.5)


def test_score_of_single_precision_is_read():
    """Those of models of version 0.1, of more features than components."""
    features, statistics = (torch.from_numpy(RNG.normal(0, 1, (300, n))) for n in (40, 2))
    score = OutlierScore.fit(features, statistics, (features[:50], statistics[:50]))
    single = OutlierScore.from_tensors({name: tensor.float() for name, tensor in score.tensors().items()})
    assert {tensor.dtype for tensor in single.tensors().values()} == {torch.float64}
    assert_allclose(single(features.float(), statistics.float()), score(features, statistics), rtol=1e-4)


def test_features_that_never_varied_are_no_danger():
    """A network without a linear layer has one feature, which is 0 for every image."""
    statistics = torch.from_numpy(RNG.normal(0, 1, (50, 3)))
    score = OutlierScore.fit(torch.zeros(50, 1), statistics, (torch.zeros(50, 1), statistics))
    assert_allclose(score(torch.zeros(50, 1), statistics).quantile(0.99), 1.0)
    assert (score(torch.full((2, 1), 5.0), statistics[:2]) > 10).all()


def test_statistics_of_an_image_on_paper():
    image = torch.tensor([[[[1.0, 2.0], [4.0, 8.0]]]])
    rough = (1 + 4) / 2 + (3 + 6) / 2
    scatter = np.std([1, 2, 4, 8], ddof=1)
    expected = [3.75, np.log(scatter + 1e-6), 1.0, 8.0, np.log(rough + 1e-6)]
    assert_allclose(image_statistics(image), [expected], rtol=1e-6)
    flat = image_statistics(torch.cat([torch.full((1, 1, 2, 2), -3.0), image], dim=1).double())
    assert_allclose(flat[0, ::2], [-3.0, np.log(1e-6), -3.0, -3.0, np.log(1e-6)], rtol=1e-5)
    assert_allclose(flat[0, 1::2], expected, rtol=1e-6)


def test_last_linear_layer():
    network = nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.ReLU(), nn.Linear(3, 2)), nn.BatchNorm1d(2))
    assert last_linear(network) is network[1][1]
    assert last_linear(nn.Sequential(nn.Conv2d(1, 2, 3))) is None


def test_images_above_one_are_counted():
    scores = np.concatenate([np.full(1200, 1.5), [1.0, 0.3]])
    note = outlier_note(scores)
    assert note.startswith(
        "1,200 of 1,202 images are unlike those that the model was trained on (outlier_score > 1): do"
    )
    assert outlier_note(np.array([1.0, 0.2])) is None
    assert outlier_note(np.zeros(0)) is None
    assert outlier_note(None) is None
    assert outlier_note(np.array([0.1, 1.01])).startswith("1 of 2 images are unlike")


def test_tensors_that_do_not_fit_are_named():
    features, statistics = torch.from_numpy(RNG.normal(0, 1, (60, 9))), torch.from_numpy(RNG.normal(0, 1, (60, 5)))
    score = OutlierScore.fit(features, statistics, (features, statistics))
    score.check(9, 5)  # six components, what they leave, five statistics
    expected = {
        "feature_mean": (9,),
        "components": (6, 9),
        "floor": (),
        "mean": (12,),
        "precision": (12, 12),
        "quantiles": (5, 17),
        "statistics_mean": (5,),
        "statistics_precision": (5, 5),
        "thresholds": (2,),
    }
    assert {name: tuple(tensor.shape) for name, tensor in score.tensors().items()} == expected
    for name, shape in expected.items():
        damaged = OutlierScore(**score.tensors() | {name: torch.zeros(*shape, 1)})
        with pytest.raises(ValueError, match=rf"^{name} is of shape .*; expected "):
            damaged.check(9, 5)
    with pytest.raises(ValueError, match=r"components is of shape \(\); expected \(0, 9\)"):
        OutlierScore(**score.tensors() | {"components": torch.zeros(())}).check(9, 5)
    with pytest.raises(ValueError, match=r"feature_mean is of shape \(9,\); expected \(8,\)"):
        score.check(8, 5)
    with pytest.raises(ValueError, match=r"mean is of shape \(12,\); expected \(13,\)"):
        score.check(9, 6)
