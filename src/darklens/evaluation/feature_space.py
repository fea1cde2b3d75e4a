"""Distances between features of images: nearest neighbours, isolated images, clusters, and maps in two dimensions."""

from __future__ import annotations

from typing import Literal

import numpy as np

from darklens.evaluation.bootstrap import Floats

MapKind = Literal["tsne", "pca"]

COMPONENTS = 64
"""Principal components of standardised features in which distances are measured; fewer features keep all."""
CLUSTER_COMPONENTS = 10
"""Leading components in which HDBSCAN looks for clusters: in many dimensions all points are about equally far apart."""
REFERENCES = 10_000
"""Images, a random choice of more, among which isolation is measured and clusters are found: time grows as their square."""
MAPPED = 4_000
"""Images up to which a map is by t-SNE, which takes about a minute for so many on one core."""
PERPLEXITY = 30.0
"""Of t-SNE, scikit-learn's default: about the number of neighbours that a point is drawn near to."""


class FeatureSpace:
    """Features of images, each brought to mean 0 and variance 1, along their principal components.

    Distances are Euclidean, in units of the root mean square distance between two of the images.

    Parameters
    ----------
    features
        (N, F), finite, of at least two images that differ.
    seed
        Of the choice of `REFERENCES`, of clusters and of maps.

    Raises
    ------
    ValueError
        If all images have the same features.
    """

    def __init__(self, features: Floats, seed: int = 0):
        from sklearn.decomposition import PCA
        from sklearn.preprocessing import StandardScaler

        self._seed = seed
        self._scaler = StandardScaler()
        scaled = self._scaler.fit_transform(features.astype(np.float64))
        if not scaled.var(axis=0).sum() > 1e-12:
            raise ValueError("all images have the same features")
        self._components = PCA(min(COMPONENTS, *features.shape), random_state=seed)
        places = self._components.fit_transform(scaled)
        self._unit = float(np.sqrt(2 * places.var(axis=0).sum()))
        self.places: Floats = places / self._unit
        rng = np.random.default_rng(seed)
        self._references = np.sort(rng.permutation(len(places))[:REFERENCES])

    @property
    def share_mapped(self) -> float:
        """Return the share of the scatter of features that the first two principal components hold."""
        scatter = self.places.var(axis=0)
        return float(scatter[:2].sum() / scatter.sum())

    def project(self, features: Floats) -> Floats:
        """Return the places (M, P) of the features (M, F) of other images."""
        scaled = self._scaler.transform(features.astype(np.float64))
        found: Floats = self._components.transform(scaled) / self._unit
        return found

    def isolation(self, neighbours: int) -> Floats:
        """Return the distance (N,) of each image to its k-th nearest neighbour, of at most N - 1."""
        return self._distance_to(self.places, neighbours, own=self._references)

    def isolation_of(self, features: Floats, neighbours: int) -> Floats:
        """Return the distance (M,) of other images, by their features (M, F), to their k-th nearest one here."""
        return self._distance_to(self.project(features), neighbours, own=np.zeros(0, dtype=int))

    def nearest(self, features: Floats, number: int) -> tuple[np.ndarray, Floats]:
        """Return the nearest images of others.

        Parameters
        ----------
        features
            Of the others, (M, F).
        number
            How many to return, K, at most N.

        Returns
        -------
        tuple
            Row numbers (M, K), the nearest first, and distances (M, K).
        """
        from sklearn.neighbors import NearestNeighbors

        search = NearestNeighbors(n_neighbors=min(number, len(self.places))).fit(self.places)
        distances, rows = search.kneighbors(self.project(features))
        return rows, distances

    def clusters(self, number: int | None = None) -> np.ndarray:
        """Return the number (N,) of each image's cluster, 0 for the largest; -1 for images in none.

        Parameters
        ----------
        number
            Of clusters, by k-means, each image in one of them; by default as many as HDBSCAN (Campello et al. 2013) finds
            among regions that are denser than what lies between, at least a hundredth of the images and five each.
        """
        from sklearn.cluster import HDBSCAN, KMeans

        if number is not None:
            return _by_size(KMeans(number, n_init=4, random_state=self._seed).fit_predict(self.places))
        some = self.places[self._references, :CLUSTER_COMPONENTS]
        least = max(5, len(some) // 100)
        found = (
            HDBSCAN(min_cluster_size=least, copy=True).fit_predict(some) if len(some) > least else -np.ones(len(some))
        )
        labels = found.astype(int)
        if len(some) < len(self.places):
            labels = self._as_nearest_reference(labels)
        return _by_size(labels)

    def map(self, kind: MapKind) -> Floats:
        """Return places (N, 2) on a map: by t-SNE (van der Maaten & Hinton 2008), or the first two principal components."""
        from sklearn.manifold import TSNE

        first = np.zeros((len(self.places), 2))
        first[:, : min(2, self.places.shape[1])] = self.places[:, :2]
        if kind == "pca" or len(first) < 4:
            return first
        perplexity = min(PERPLEXITY, (len(first) - 1) / 3)
        start = 1e-4 * first / max(float(first[:, 0].std()), 1e-12)  # as scikit-learn begins
        found: Floats = TSNE(perplexity=perplexity, init=start, random_state=self._seed).fit_transform(self.places)
        return found.astype(np.float64)

    def _distance_to(self, places: Floats, neighbours: int, own: np.ndarray) -> Floats:
        """The distance of places to the k-th reference; rows ``own`` are references, and no neighbours of themselves."""
        from sklearn.neighbors import NearestNeighbors

        references = self.places[self._references]
        k = min(neighbours, len(references) - (1 if len(own) else 0))
        search = NearestNeighbors(n_neighbors=min(k + 1, len(references))).fit(references)
        distances, _ = search.kneighbors(places)
        found: Floats = distances[:, k - 1].copy()
        found[own] = distances[own, k] if len(own) else found[own]
        return found

    def _as_nearest_reference(self, labels: np.ndarray) -> np.ndarray:
        from sklearn.neighbors import NearestNeighbors

        some = self.places[:, :CLUSTER_COMPONENTS]
        rows = NearestNeighbors(n_neighbors=1).fit(some[self._references]).kneighbors(some, return_distance=False)
        found: np.ndarray = labels[rows[:, 0]]
        return found


def _by_size(labels: np.ndarray) -> np.ndarray:
    """Labels (N,) numbered again, the largest cluster first; -1 stays."""
    numbers, counts = np.unique(labels[labels >= 0], return_counts=True)
    order = numbers[np.argsort(-counts, kind="stable")]
    found = np.full(len(labels), -1)
    for new, old in enumerate(order):
        found[labels == old] = new
    return found
