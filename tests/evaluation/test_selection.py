"""Completeness in bins of the catalogue, against counting lens by lens."""

import itertools

import numpy as np
import polars as pl
from numpy.testing import assert_allclose

from darklens.evaluation.finding import recall_statistic
from darklens.evaluation.selection import completeness_by_column
from darklens.tasks.find import Find


def search():
    """240 lenses whose probability rises with the Einstein radius, and 300 others."""
    rng = np.random.default_rng(0)
    theta = rng.uniform(0.5, 2.5, 540)
    lens = np.arange(540) < 240
    probability = np.where(lens, theta / 2.5 + rng.normal(0, 0.1, 540), rng.uniform(0, 0.7, 540)).clip(0.001, 0.999)
    catalog = pl.DataFrame({"theta_E": np.where(lens, theta, np.nan), "galaxy_magnitude_g": theta, "other": theta})
    return probability, lens.astype(int), catalog


def test_bins_hold_each_lens_once_and_fractions_are_counted():
    probability, lens, catalog = search()
    first, second = completeness_by_column(probability, lens, catalog)
    assert (first["column"], second["column"]) == ("theta_E", "galaxy_magnitude_g")
    assert sum(first["lenses"]) == 240
    theta, edges = catalog["theta_E"].to_numpy(), first["edges"]
    tenth = sorted(probability[lens == 0])[-10]
    for number, (low, high) in enumerate(itertools.pairwise(edges)):
        last = number == len(edges) - 2
        own = [i for i in range(240) if low <= theta[i] and (theta[i] < high or last)]
        assert len(own) == first["lenses"][number]
        assert_allclose(first["found"]["probability"]["value"][number], np.mean([probability[i] > 0.5 for i in own]))
        assert_allclose(first["found"]["tenth"]["value"][number], np.mean([probability[i] > tenth for i in own]))
    value = first["found"]["probability"]["value"]
    assert value[0] < 0.1
    assert value[-1] > 0.9, "a network that finds only what is easy is seen to do so"


def test_mean_over_bins_is_the_recall_before_the_tenth_false_positive():
    probability, lens, catalog = search()
    found = completeness_by_column(probability, lens, catalog)[0]
    mean = np.average(found["found"]["tenth"]["value"], weights=found["lenses"])
    assert_allclose(mean, recall_statistic(probability, lens.astype(float), before=10)(np.ones((1, 540)))[0])


def test_intervals_are_those_of_wilson():
    probability, lens, catalog = search()
    found = completeness_by_column(probability, lens, catalog)[0]
    n, p, z = np.array(found["lenses"]), np.array(found["found"]["tenth"]["value"]), 1.959964
    middle, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert_allclose(found["found"]["tenth"]["low"], (middle - half) / (1 + z**2 / n), atol=1e-6)
    assert_allclose(found["found"]["tenth"]["high"], (middle + half) / (1 + z**2 / n), atol=1e-6)


def test_what_is_unknown_too_few_or_constant_has_no_bins():
    probability, lens, catalog = search()
    assert completeness_by_column(probability, lens, catalog.select("other")) == []
    assert completeness_by_column(probability, lens, pl.DataFrame({"theta_E": np.full(540, 1.0)})) == []
    rows = [*range(30), *range(240, 249)]
    assert completeness_by_column(probability[rows], lens[rows], catalog[rows]) == []
    rows = [*range(40), *range(240, 249)]
    found = completeness_by_column(probability[rows], lens[rows], catalog[rows])[0]
    assert list(found["found"]) == ["probability"], "nine negatives have no tenth"


def test_evaluation_of_a_search_holds_them_and_draws_a_chart_of_each():
    probability, lens, catalog = search()
    task = Find(class_names=["nonlens", "lens"], share=0.4)
    predicted = np.stack([1 - probability, probability], axis=1)
    details = task.details(predicted, lens) | task.catalog_details(predicted, lens, catalog)
    panels = task.panels(details | {"figures": {"ece": {"value": 0.1}}}, predicted, lens)
    titles = [panel.axes[0].get_xlabel() for panel in panels[-2:]]
    assert titles == ["Einstein radius (″)", "magnitude of the galaxy, g"]
