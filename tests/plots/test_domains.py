"""Charts of features: principal components as scikit-learn finds them, and a panel for each model."""

import numpy as np
from sklearn.decomposition import PCA

from darklens.plots.domains import feature_maps, principal_components


def test_components_are_those_of_scikit_learn():
    features = np.random.default_rng(0).normal(size=(40, 6)) @ np.diag([5, 3, 1, 0.5, 0.2, 0.1])
    expected = PCA(2).fit_transform(features)
    np.testing.assert_allclose(np.abs(principal_components(features)), np.abs(expected), atol=1e-8)


def test_each_model_has_a_panel_with_both_domains():
    rng = np.random.default_rng(1)
    panel = {"source": rng.normal(size=(20, 4)), "target": rng.normal(2, 1, size=(15, 4))}
    panel |= {"source_labels": np.arange(20) % 2, "target_labels": np.arange(15) % 2}
    figure = feature_maps({"source-only": panel, "dann": panel, "adda": panel, "sidda": panel}, ["nonlens", "lens"])
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title() for axis in shown] == ["source-only", "dann", "adda", "sidda"]
    assert sum(len(drawn.get_offsets()) for drawn in shown[1].collections) == 35
