"""Pairs of columns that tell the label together and not alone; none is named where columns are honest."""

from itertools import combinations

import numpy as np
import polars as pl
import pytest

from darklens.data import leaks as leaking
from darklens.data.catalog_inputs import fit_encoder
from darklens.data.interactions import coded, interacting_pairs
from darklens.data.leaks import find_leaks


def found_in(catalog, labels, seed=0):
    return find_leaks(fit_encoder(catalog, "all", "here").encoder, catalog, labels, "here", seed)


def exclusive_or(rows, columns, seed):
    """Two columns of 0 and 1 whose exclusive or is the label, among columns of noise."""
    rng = np.random.default_rng(seed)
    a, labels = rng.integers(0, 2, rows), rng.integers(0, 2, rows)
    noise = {f"c{i}": rng.normal(size=rows) for i in range(columns - 2)}
    return pl.DataFrame({"c": rng.normal(size=rows), "a": a, **noise, "b": a ^ labels}), labels


def brute_error(a, b, labels):
    """The squared error where a row is foretold by the mean of the others in its cell, and one of the mean of all."""
    total = 0.0
    for label in np.unique(labels):
        one = (labels == label).astype(float)
        for row in range(len(labels)):
            others = [i for i in range(len(labels)) if (a[i], b[i]) == (a[row], b[row]) and i != row]
            told = (one[others].sum() + one.mean()) / (len(others) + 1)
            total += (one[row] - told) ** 2
    return total


def test_pairs_are_in_the_order_of_a_brute_force_count():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, 72)
    columns = [rng.normal(size=72) + 0.5 * (labels == i) for i in range(4)]
    columns[1][::5] = np.nan
    columns.append(np.eye(3)[rng.integers(0, 3, 72)])
    codes = [coded(column, 3) for column in columns]
    errors = {pair: brute_error(codes[pair[0]], codes[pair[1]], labels) for pair in combinations(range(5), 2)}
    assert interacting_pairs(columns, labels, 10) == sorted(errors, key=errors.get)
    assert interacting_pairs(columns, labels, 2) == sorted(errors, key=errors.get)[:2]


def test_codes_are_quantiles_with_missing_values_apart():
    values = np.array([5.0, 1, 2, np.nan, 3, 4, 6, np.nan])
    assert coded(values, 3).tolist() == [2, 0, 0, 3, 1, 1, 2, 3]
    assert coded(np.full(4, np.nan), 3).tolist() == [0] * 4
    assert coded(np.ones(4), 3).tolist() == [0] * 4
    assert len(set(coded(np.array([[0, 1], [1, 0], [0, 1], [0, 0]]), 3).tolist())) == 3


@pytest.mark.parametrize(("rows", "columns"), [(2000, 30), (300, 8)])
def test_two_columns_whose_exclusive_or_is_the_label_are_found_among_others(rows, columns, monkeypatch):
    catalog, labels = exclusive_or(rows, columns, rows + columns)
    found = found_in(catalog, labels)
    assert (found.named, found.whole_leaks, list(found.pairs)) == ({}, True, ["a and b"])
    assert found.pairs["a and b"] == found.whole == 1
    assert found.message().endswith("; a and b as a pair 1.000")
    monkeypatch.setattr(leaking, "interacting_pairs", lambda *given: [])
    assert found_in(catalog, labels).whole < leaking.LEAK, "trees of all columns miss them"


def test_a_step_anywhere_in_two_columns_of_numbers_is_found():
    rng = np.random.default_rng(5)
    catalog = pl.DataFrame({f"c{i}": rng.random(500) for i in range(6)})
    labels = ((catalog["c1"] > 0.35).to_numpy() ^ (catalog["c4"] > 0.6).to_numpy()).astype(int)
    assert list(found_in(catalog, labels).pairs) == ["c1 and c4"]


def test_honest_columns_give_no_false_alarm_at_few_rows():
    for seed in range(20):
        rows, rng = (14, 24, 60)[seed % 3], np.random.default_rng(seed)
        catalog = pl.DataFrame({f"c{i}": rng.normal(size=rows) for i in range(2)} | {"k": rng.choice(["E", "S"], rows)})
        found = found_in(catalog, rng.permutation(np.arange(rows) % 2), seed)
        assert found.message() is None
        assert not found.pairs
