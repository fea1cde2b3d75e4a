"""Copies of one image are one image: what the benchmark of the outlier score resamples."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from darklens.evaluation.bootstrap import mean_statistic


@pytest.fixture(scope="module")
def outliers(benchmark_module):
    return benchmark_module("outliers")


def test_interval_of_copies_is_that_of_their_originals(outliers):
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, 40)
    single = outliers.over_originals(mean_statistic(values), np.arange(40))
    copied = outliers.over_originals(mean_statistic(np.repeat(values, 12)), np.repeat(np.arange(40), 12) + 7)
    assert (copied.value, copied.low, copied.high) == pytest.approx((single.value, single.low, single.high))
    assert single.high - single.low == pytest.approx(2 * 1.96 * values.std() / 40**0.5, rel=0.15)
    naive = outliers.over_originals(mean_statistic(np.repeat(values, 12)), np.arange(480))
    assert copied.high - copied.low > 3 * (naive.high - naive.low)


def test_few_originals_have_no_interval(outliers):
    rng = np.random.default_rng(1)
    usual, strange = rng.normal(0, 1, 60), rng.normal(1, 1, 48)
    auc = roc_auc_score(np.repeat([0, 1], [60, 48]), np.concatenate([usual, strange]))
    flagged = (strange > 1).mean()
    assert outliers.compared(usual, strange, 60 + np.arange(48) % 2) == (f"{auc:.4f}", f"{flagged:.4f} (2 images)")
    assert outliers.compared(usual, strange, np.full(48, 60))[1].endswith(" (1 image)")
    assert outliers.compared(usual, strange, 60 + np.arange(48) % 4)[1].endswith(" (4 images)")
    found = outliers.compared(usual, strange, 60 + np.arange(48) % 5)
    assert [text.partition(" [")[0] for text in found] == [f"{auc:.4f}", f"{flagged:.4f}"]
    assert all(text.endswith("]") for text in found)


def test_copies_of_real_images_know_their_originals(outliers):
    pixels = np.arange(1.0, 82.0).reshape(1, 1, 9, 9)
    opened = [SimpleNamespace(images=pixels * scale) for scale in (1, 1000)]
    images, originals = outliers.real_images(opened, np.random.default_rng(2), count=7)
    assert originals.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert (images.max((1, 2, 3)) > 100).tolist() == (originals == 1).tolist()
    assert images.shape == (7, 1, 9, 9)
