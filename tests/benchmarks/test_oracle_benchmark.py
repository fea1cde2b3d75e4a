"""The bound of benchmarks/oracle.py: its AUC in closed form, and signals that other smooth lenses cannot mimic."""

import numpy as np
import pytest
from scipy.stats import norm

from darklens.simulation import Simulator
from darklens.simulation.columns import from_frame, select


@pytest.fixture(scope="module")
def cdm():
    simulator = Simulator("fair-hst", seed=5, compile=True)
    columns = from_frame(simulator.catalog(64))
    return simulator, select(columns, np.flatnonzero(np.asarray(columns["label"]) == "cdm")[:1])


@pytest.mark.parametrize("distance", [0.5, 2.0])
def test_an_oracle_with_equal_distances_has_the_auc_of_two_normal_distributions(benchmark_module, distance):
    value, low, high = benchmark_module("oracle").bound(np.full(30, distance), np.random.default_rng(1))
    assert value == pytest.approx(norm.cdf(distance / 2**0.5), abs=1e-12)
    assert low <= value <= high


def test_other_smooth_lenses_mimic_a_part_of_the_substructure(benchmark_module, cdm):
    simulator, rows = cdm
    oracle = benchmark_module("oracle")
    oracle.ITERATIONS = 4
    found = oracle.distances(simulator, rows)
    truth = oracle.expected(simulator, rows)
    unfitted = oracle.smooth(simulator, rows, np.stack([rows[name] for name in oracle.FREE], 1))
    sigma = simulator.noise_sigma(rows, truth)
    assert (found < 0.7 * ((truth - unfitted) / sigma).flatten(1).norm(dim=1).numpy()).all()
    assert (found > 1).all()
