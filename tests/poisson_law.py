"""Whether numbers are Poisson numbers: mean, variance and histogram against scipy's law."""

import numpy as np
from scipy import stats


def assert_poisson(drawn: np.ndarray, mean: float) -> None:
    n = len(drawn)
    law = stats.poisson(mean)
    assert abs(drawn.mean() - mean) < 5 * np.sqrt(mean / n)
    spread = np.sqrt((1 / mean + 2) / n)  # of a sample variance, relative
    assert abs(drawn.var() / mean - 1) < 5 * spread
    edges = np.unique(law.ppf(np.linspace(0.001, 0.999, 30)))
    observed = np.histogram(drawn, np.concatenate([[-0.5], edges + 0.5, [np.inf]]))[0]
    expected = n * np.diff(np.concatenate([[0], law.cdf(edges), [1]]))
    keep = expected > 10
    chi2 = ((observed - expected) ** 2 / expected)[keep].sum()
    assert stats.chi2.sf(chi2, keep.sum()) > 1e-4
