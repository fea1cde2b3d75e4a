"""Distances, isolation, clusters and maps of features, against brute force and known arrangements."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist

from darklens.evaluation import feature_space
from darklens.evaluation.feature_space import FeatureSpace


def features_of(count=60, size=7, seed=0):
    """Correlated features of different scales, one of them constant."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(count, size)) @ rng.normal(size=(size, size)) * 10.0 ** np.arange(-3, size - 3) + 5
    found[:, 2] = 4.0
    return found


def distances_of(features, others=None):
    """By brute force, in units of the root mean square distance between two images."""
    scale = features.std(0)
    scale[scale == 0] = 1
    unit = np.sqrt(2 * (features.std(0) > 0).sum())
    return cdist((features if others is None else others) / scale, features / scale) / unit


def test_isolation_is_the_distance_to_the_kth_neighbour():
    features = features_of()
    expected = np.sort(distances_of(features), axis=1)[:, 4]  # itself is the first
    np.testing.assert_allclose(FeatureSpace(features).isolation(4), expected, rtol=1e-9)


def test_unit_is_the_root_mean_square_distance():
    space = FeatureSpace(features_of(200))
    n = 200
    assert np.square(pdist(space.places)).mean() == pytest.approx(n / (n - 1))


def test_nearest_and_isolation_of_other_images():
    features, others = features_of(), features_of(5, seed=3)
    brute = distances_of(features, others)
    space = FeatureSpace(features)
    rows, distances = space.nearest(others, 3)
    np.testing.assert_array_equal(rows, np.argsort(brute, axis=1)[:, :3])
    np.testing.assert_allclose(distances, np.sort(brute, axis=1)[:, :3], rtol=1e-9)
    np.testing.assert_allclose(space.isolation_of(others, 3), distances[:, 2])


def test_of_many_images_isolation_is_among_a_choice_of_them(monkeypatch):
    monkeypatch.setattr(feature_space, "REFERENCES", 20)
    features = features_of()
    space = FeatureSpace(features, seed=2)
    chosen = space._references
    assert len(chosen) == 20
    brute = distances_of(features)
    expected = [np.sort(brute[row, chosen[chosen != row]])[1] for row in range(len(features))]
    np.testing.assert_allclose(space.isolation(2), expected, rtol=1e-9)


def test_clusters_are_found_numbered_by_size_and_what_is_far_from_all_is_in_none():
    rng = np.random.default_rng(1)
    sizes = [30, 70, 20]
    centres = np.array([[0, 0], [9, 0], [0, 9]])
    features = np.concatenate([rng.normal(centre, 0.3, (size, 2)) for centre, size in zip(centres, sizes, strict=True)])
    features = np.concatenate([features, [[40, 40]]])
    expected = [1] * 30 + [0] * 70 + [2] * 20
    assert FeatureSpace(features).clusters()[:-1].tolist() == expected
    assert FeatureSpace(features).clusters()[-1] == -1
    assert FeatureSpace(features[:-1]).clusters(3).tolist() == expected


def test_images_beyond_the_choice_are_in_the_cluster_of_their_nearest(monkeypatch):
    monkeypatch.setattr(feature_space, "REFERENCES", 60)
    rng = np.random.default_rng(1)
    far = np.arange(120) % 3 == 0
    features = rng.normal(0, 0.3, (120, 3)) + 9 * far[:, None]
    np.testing.assert_array_equal(FeatureSpace(features).clusters(), np.where(far, 1, 0))


@pytest.mark.parametrize("kind", ["tsne", "pca"])
def test_map_keeps_far_groups_apart_and_is_the_same_again(kind):
    rng = np.random.default_rng(0)
    group = np.arange(40) % 2
    features = rng.normal(size=(40, 5)) + 12 * group[:, None]
    places = FeatureSpace(features).map(kind)
    assert places.shape == (40, 2)
    np.testing.assert_array_equal(places, FeatureSpace(features).map(kind))
    away = cdist(places, places)
    np.fill_diagonal(away, np.inf)
    np.testing.assert_array_equal(group[away.argmin(1)], group)


def test_map_of_one_feature_or_three_images_has_two_axes():
    for features in (np.arange(12.0)[:, None], np.eye(3)):
        assert np.isfinite(FeatureSpace(features).map("tsne")).all()
        assert FeatureSpace(features).map("tsne").shape == (len(features), 2)


def test_share_on_the_map_is_that_of_the_two_largest_eigenvalues():
    features = features_of()
    values = np.linalg.eigvalsh(np.corrcoef(np.delete(features, 2, axis=1).T))
    assert FeatureSpace(features).share_mapped == pytest.approx(values[-2:].sum() / values.sum())


def test_features_that_are_all_the_same_are_refused():
    with pytest.raises(ValueError, match="all images have the same features"):
        FeatureSpace(np.full((9, 4), 3.0))
