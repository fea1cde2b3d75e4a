"""Splits: stratified, seeded, and never across a stored test set."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from darklens.data.splits import ensure_split, sample_rows, split_rows
from darklens.errors import DataError

FRACTIONS = {"train": 0.8, "validation": 0.1, "test": 0.1}


def test_split_is_stratified():
    catalog = pl.DataFrame({"id": range(300), "label": ["a"] * 200 + ["b"] * 100})
    split = split_rows(catalog, FRACTIONS, seed=1)
    assert [(split[:200] == name).sum() for name in FRACTIONS] == [160, 20, 20]
    assert [(split[200:] == name).sum() for name in FRACTIONS] == [80, 10, 10]


def test_split_without_classes_shares_out_all_rows_together():
    catalog = pl.DataFrame({"id": range(20), "label": ["a"] * 15 + ["b"] * 5, "side": ["x"] * 10 + ["y"] * 10})
    halves = {"train": 0.5, "test": 0.5}
    both = split_rows(catalog, halves, 3, stratify="side")
    assert [(both[:10] == "train").sum(), (both[10:] == "train").sum()] == [5, 5]
    alone = split_rows(catalog, halves, 3, stratify=None)
    assert (alone == "train").sum() == 10
    np.testing.assert_array_equal(alone, split_rows(catalog.drop("label"), halves, 3))
    assert (alone[:10] == "train").sum() != 5, "a seed at which the halves are not even"


@pytest.mark.parametrize(("seed", "test"), [(4, [1, 2, 9]), (5, [6, 7, 8])])
def test_split_follows_from_the_seed_as_it_does_in_stored_runs(seed, test):
    """The rows are the last three of ``default_rng(SeedSequence([seed, 7])).permutation(10)``."""
    split = split_rows(pl.DataFrame({"id": range(10)}), {"train": 0.7, "test": 0.3}, seed)
    assert np.flatnonzero(split == "test").tolist() == test


@pytest.mark.parametrize(
    "fractions",
    [
        {"train": 0.8, "test": 0.1},
        {"train": 0.8, "test": 0.3},
        {"train": 1.2, "test": -0.2},
        {"train": 1.0, "test": 0.0},
    ],
)
def test_fractions_that_cannot_be_are_refused(fractions):
    with pytest.raises(DataError, match="must be above 0 and sum to 1; got"):
        split_rows(pl.DataFrame({"id": range(100)}), fractions, 0)


def test_splits_that_would_be_empty_are_refused():
    catalog = pl.DataFrame({"id": range(2), "label": ["a"] * 2})
    with pytest.raises(DataError, match=r"2 images are too few to split into .*: validation would be empty"):
        split_rows(catalog, FRACTIONS, 0)


def test_a_catalogue_without_split_gets_a_tenth_for_validation():
    catalog = pl.DataFrame({"id": range(60), "label": ["a", "b", "b"] * 20})
    one, same, other = (ensure_split(catalog, seed) for seed in (1, 1, 2))
    assert one.columns == ["id", "label", "split"]
    counts = one.group_by("label", "split").len().sort("label", "split")["len"].to_list()
    assert counts == [18, 2, 36, 4]
    assert one.equals(same)
    assert not one.equals(other)


def test_test_rows_of_a_stored_split_are_never_trained_on():
    catalog = pl.DataFrame({"id": range(60), "label": ["a", "b"] * 30, "split": ["train"] * 40 + ["test"] * 20})
    split, other = (ensure_split(catalog, seed)["split"].to_list() for seed in (0, 1))
    assert split[40:] == other[40:] == ["test"] * 20
    assert split[:40].count("validation") == other[:40].count("validation") == 4
    assert split[:40].count("train") == 36
    assert split != other


def test_a_stored_split_with_validation_rows_is_kept():
    catalog = pl.DataFrame({"id": range(5), "split": ["train", "validation", None, "test", "train"]})
    assert ensure_split(catalog, seed=0).equals(catalog)
    with pytest.raises(DataError, match="column 'split' names no row 'train'"):
        ensure_split(catalog.filter(pl.col("split") == "test"), seed=0)


def test_small_class_has_a_row_in_each_split():
    catalog = pl.DataFrame({"id": range(44), "label": ["common"] * 40 + ["rare"] * 4})
    split = split_rows(catalog, FRACTIONS, 0)
    assert [(split[40:] == name).sum() for name in FRACTIONS] == [2, 1, 1]
    assert [(split[:40] == name).sum() for name in FRACTIONS] == [32, 4, 4]
    halves = split_rows(catalog[40:42], {"train": 0.9, "validation": 0.1}, 0)
    assert sorted(halves) == ["train", "validation"]


def test_splits_are_known_by_their_usual_names_and_kept():
    names = ["train", "val", "Valid ", "TEST", "training", "dev", None]
    kept = ensure_split(pl.DataFrame({"id": range(7), "split": names}), 0)["split"].to_list()
    assert kept == ["train", "validation", "validation", "test", "train", "validation", None]
    with pytest.raises(DataError, match="column 'split' says 'fold2'; expected train, validation or test"):
        ensure_split(pl.DataFrame({"id": range(3), "split": ["train", "fold2", "val"]}), 0)


@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=6), fraction=st.floats(0.01, 1), seed=st.integers(0, 2**32)
)
def test_sample_has_the_fraction_of_each_label_to_less_than_one_row(sizes, fraction, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    count = max(1, int(fraction * len(labels)))
    rows = sample_rows(labels, count, np.random.default_rng(seed))
    assert len(np.unique(rows)) == count == len(rows)
    assert (np.diff(rows) > 0).all()
    drawn = np.bincount(labels[rows], minlength=len(sizes))
    assert (np.abs(drawn - np.array(sizes) * count / len(labels)) < 1).all()


def test_sample_of_class_folders_is_even_where_the_first_rows_are_not():
    """3,200 rows of each of three classes, in their order: of the first 8,192 only 1,792 are of the last one."""
    labels = np.repeat([2, 0, 1], 3200)
    rows = sample_rows(labels, 8192, np.random.default_rng(0))
    assert sorted(np.bincount(labels[rows]).tolist()) == [2730, 2731, 2731]


def test_all_rows_have_the_same_chance_to_be_sampled():
    """4,000 samples of 5 of 13 rows: each row is drawn 1,538 times, with a standard deviation of 31."""
    labels = np.array([0] * 7 + [3] + [1] * 5)
    rng = np.random.default_rng(2)
    drawn = np.bincount(np.concatenate([sample_rows(labels, 5, rng) for _ in range(4000)]), minlength=13)
    assert np.abs(drawn - 4000 * 5 / 13).max() < 4 * 31


def test_sample_depends_on_the_generator_and_holds_all_rows_where_they_are_few():
    labels = np.arange(50) % 3
    first, again, other = (sample_rows(labels, 20, np.random.default_rng(seed)).tolist() for seed in (5, 5, 6))
    assert first == again != other
    assert sample_rows(labels, 50, np.random.default_rng(5)).tolist() == list(range(50))
    assert sample_rows(labels, 80, np.random.default_rng(5)).tolist() == list(range(50))
