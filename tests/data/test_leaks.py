"""Columns that tell the label are named; honest ones, and chance, are not."""

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from darklens.data.catalog_inputs import fit_encoder
from darklens.data.leaks import _best_auc, check_leaks, find_leaks
from darklens.errors import DataError
from darklens.simulation import Simulator, load_preset


def leaks(catalog, labels, seed=0):
    return find_leaks(fit_encoder(catalog, "all", "here").encoder, catalog, labels, "here", seed)


def test_auc_agrees_with_scikit_learn_with_ties():
    rng = np.random.default_rng(0)
    labels, score = rng.integers(0, 2, 200), rng.integers(0, 6, 200).astype(float)
    auc, _ = _best_auc(np.stack([-score, score]), labels, 1, [0, 1])
    expected = roc_auc_score(labels, score)
    assert auc == pytest.approx(expected, rel=1e-12)


@pytest.fixture(scope="module")
def truths():
    return Simulator(load_preset("finding-easy"), 3).catalog(192)


def test_truths_of_a_simulation_are_named_and_what_a_survey_measures_passes(truths):
    labels = (truths["label"] == "lens").to_numpy().astype(int)
    columns = ["theta_E", "z_source", "psf_fwhm_i", "depth_i", "galaxy_magnitude_i"]
    encoder = fit_encoder(truths, columns, "here").encoder
    found = find_leaks(encoder, truths, labels, "here")
    assert sorted(found.named) == ["theta_E", "z_source"]
    assert found.missing["theta_E"] == 1
    with pytest.raises(
        DataError, match=r"here: columns .* theta_E \(AUC 1.000, 1.000 by whether it has a value alone\)"
    ):
        check_leaks(found, "here", allowed=False)
    assert "They are used all the same" in check_leaks(found, "here", allowed=True)[0]
    honest = find_leaks(fit_encoder(truths, columns[2:], "here").encoder, truths, labels, "here")
    assert (honest.named, honest.whole_leaks) == ({}, False)
    assert "without an image, tells the label with an AUC of" in check_leaks(honest, "here", allowed=False)[0]


def test_columns_that_tell_the_label_only_together_are_found():
    rng = np.random.default_rng(0)
    labels, mask = rng.integers(0, 2, 600), rng.integers(0, 2, 600)
    catalog = pl.DataFrame({"a": mask + rng.normal(0, 0.05, 600), "b": (mask ^ labels) + rng.normal(0, 0.05, 600)})
    found = leaks(catalog, labels)
    assert (found.named, found.whole_leaks) == ({}, True)
    with pytest.raises(DataError, match=r"AUC 1.000 of all columns together; the best alone are"):
        check_leaks(found, "here", allowed=False)


def test_missing_values_that_tell_the_label_are_named_and_those_at_random_are_not():
    rng = np.random.default_rng(1)
    labels = np.arange(400) % 2
    values = rng.normal(size=400)
    catalog = pl.DataFrame(
        {
            "told": [
                None if label == 0 and i % 3 else v for i, (v, label) in enumerate(zip(values, labels, strict=True))
            ],
            "gaps": [None if gone else v for v, gone in zip(values, rng.random(400) < 0.3, strict=True)],
        }
    )
    assert list(leaks(catalog, labels).named) == ["told"]


def test_few_rows_give_no_false_alarm():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        catalog = pl.DataFrame({f"c{i}": rng.normal(size=14) for i in range(2)} | {"kind": rng.choice(["E", "S"], 14)})
        assert leaks(catalog, rng.permutation(np.arange(14) % 2), seed).message() is None
    told = pl.DataFrame({"c": [float(i % 2) + i / 100 for i in range(30)]})
    assert leaks(told, np.arange(30) % 2).message() is not None
    few = leaks(told[:6], np.arange(6) % 2)
    assert np.isnan(few.whole)
    assert check_leaks(few, "here", allowed=False) == [
        "too few training rows of a label to tell whether the catalogue alone tells it"
    ]
