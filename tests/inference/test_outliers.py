"""The outlier score against numpy, and what is said of it."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from darklens.inference.outliers import OutlierScore, image_statistics, last_linear, outlier_note

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

    rows = described(features, statistics)
    covariance = np.cov(rows.T)
    covariance = 0.98 * covariance + np.diag(0.02 * np.diag(covariance) + 1e-9)
    away = described(*held_out) - rows.mean(0)
    distance = np.sqrt(np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariance), away))
    return distance / np.quantile(distance, 0.99)


@pytest.mark.parametrize(("images", "features", "number"), [(70, 12, 7), (400, 6, 6), (9, 5, 1), (800, 80, 64)])
def test_score_is_the_distance_over_that_of_99_percent(images, features, number):
    mixing = RNG.normal(0, 1, (features, features))
    data = [(RNG.normal(0, 1, (n, features)) @ mixing + 3, RNG.normal(-2, 1.5, (n, 2))) for n in (images, 60)]
    tensors = [tuple(map(torch.from_numpy, part)) for part in data]
    score = OutlierScore.fit(*tensors[0], tensors[1])
    assert score.components.shape == (number, features)
    assert_allclose(score(*tensors[1]), by_numpy(*data[0], data[1], number), rtol=1e-6)
    assert set(score.tensors()) == {"feature_mean", "components", "floor", "mean", "precision", "threshold"}


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
        "threshold": (),
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
