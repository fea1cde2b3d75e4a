"""The share of a gap that is closed: its value, its interval, and what is said where there is no gap."""

import numpy as np
import pytest

from darklens.evaluation.bootstrap import Metric, mean_statistic
from darklens.evaluation.gap import share_of_gap


def metric(values, better="higher"):
    return [Metric("m", "M", mean_statistic(np.asarray(values, dtype=float)), better=better)]


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_share_is_that_of_the_means(rng):
    base, top = rng.normal(0.5, 0.1, 400), rng.normal(0.9, 0.1, 400)
    middle = (base + top) / 2
    found = share_of_gap(metric(middle), metric(base), metric(top), 400)
    assert found.value == pytest.approx(0.5)
    assert (found.low, found.high) == (pytest.approx(0.5), pytest.approx(0.5)), "halfway in each resample"
    assert found.without_gap == 0
    assert share_of_gap(metric(top), metric(base), metric(top), 400).value == pytest.approx(1)
    assert share_of_gap(metric(base), metric(base), metric(top), 400).value == pytest.approx(0)


def test_metrics_that_are_better_when_lower_have_the_same_share(rng):
    base, top, method = (rng.normal(mean, 0.1, 300) for mean in (0.5, 0.9, 0.7))
    higher = share_of_gap(metric(method), metric(base), metric(top), 300)
    lower = share_of_gap(*(metric(-values, "lower") for values in (method, base, top)), 300)
    assert (lower.value, lower.low, lower.high) == (
        pytest.approx(higher.value), pytest.approx(higher.low), pytest.approx(higher.high)
    )  # fmt: skip


def test_interval_is_that_of_a_plain_bootstrap_and_holds_the_truth(rng):
    base, top, method = (rng.normal(mean, 0.3, 200) for mean in (0.5, 0.9, 0.7))
    found = share_of_gap(metric(method), metric(base), metric(top), 200)
    again = []
    for _ in range(2000):
        rows = rng.integers(200, size=200)
        again.append((method[rows].mean() - base[rows].mean()) / (top[rows].mean() - base[rows].mean()))
    np.testing.assert_allclose([found.low, found.high], np.quantile(again, [0.025, 0.975]), atol=0.05)
    assert found.low < 0.5 < found.high


def test_gap_that_is_not_established_has_no_interval(rng):
    same, method = rng.normal(0.5, 0.2, 100), rng.normal(0.6, 0.2, 100)
    above = same + rng.normal(0.005, 0.2, 100)
    found = share_of_gap(metric(method), metric(same), metric(above), 100)
    assert np.isnan(found.low)
    assert found.without_gap > 0.025
    below = share_of_gap(metric(method), metric(same), metric(same - 0.1), 100)
    assert np.isnan(below.value)
    assert below.without_gap == 1


def test_scatter_of_trainings_widens_the_interval(rng):
    base, top = rng.normal(0.5, 0.1, 300), rng.normal(0.9, 0.1, 300)
    one = share_of_gap(metric((base + top) / 2), metric(base), metric(top), 300)
    several = [metric((base + top) / 2 + shift)[0] for shift in (-0.1, 0, 0.1)]
    many = share_of_gap(several, metric(base), metric(top), 300)
    assert many.value == pytest.approx(one.value)
    assert many.high - many.low > 0.2 > one.high - one.low
