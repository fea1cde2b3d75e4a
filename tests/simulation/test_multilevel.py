"""The sum of smooth deflectors on a grid, against all deflectors at all places."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from darklens.physics import pixel_coordinates
from darklens.simulation import Simulator, load_preset
from darklens.simulation.columns import from_frame, select
from darklens.simulation.multilevel import sum_on_grid
from darklens.simulation.profiles import gather
from darklens.simulation.scene import deflection_of, substructure


def halos(counts, half_width, seed=0, dtype=torch.float64):
    """Halos of several images, some of them outside the field and one right in a corner."""
    rng = np.random.default_rng(seed)
    columns = {name: [] for name in ("x", "y", "Rs", "alpha_Rs", "r_trunc")}
    for count in counts:
        columns["x"].append(rng.uniform(-1.3, 1.3, count) * half_width)
        columns["y"].append(rng.uniform(-1.3, 1.1, count) * half_width)
        columns["Rs"].append(rng.uniform(0.05, 0.5, count))
        columns["alpha_Rs"].append(rng.uniform(0.001, 0.01, count))
        columns["r_trunc"].append(columns["Rs"][-1] * rng.uniform(2, 10, count))
    if counts[0]:
        columns["x"][0][0], columns["y"][0][0] = half_width, -half_width
    return gather("tnfw", columns, torch.zeros(0, dtype=dtype))


@pytest.fixture(params=[False, True], ids=["by PyTorch", "by loops"])
def compile(request):
    """Both ways of adding up; the deflection itself is not compiled."""
    request.getfixturevalue("not_compiled")
    return request.param


def off_by(added, side, scale, compile):
    """Largest difference from the sum of all, of all images, in arcsec."""
    x, y = (each[None] for each in pixel_coordinates(side, scale, dtype=added.weights.dtype))
    wanted = deflection_of(added)(x, y)
    assert wanted[0].abs().max() > 0.01
    found = sum_on_grid(added, side, scale, compile=compile)
    return max(float((a - b).abs().max()) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("side", [128, 97, 33, 32, 31, 5])
def test_sum_is_that_of_all_deflectors_at_all_places(side, compile):
    assert off_by(halos([40, 3, 0, 17], 2.56), side, 5.12 / side, compile) < 3e-6


def test_subhalos_of_a_preset_in_single_precision(compile):
    preset = load_preset("fair-hst")
    simulator = Simulator(preset, 3)
    rows = from_frame(simulator.catalog(18))
    rows = select(rows, np.flatnonzero(np.asarray(rows["label"]) == "cdm"))
    (added,) = substructure(preset, "cdm", rows, torch.float32)
    assert (added.weights == 0).any(), "images differ in the number of their subhalos"
    assert off_by(added, 128, 0.04, compile) < 4e-6


def test_uneven_weights(compile):
    added = halos([12, 9], 2.24)
    added = replace(added, weights=added.weights * torch.tensor([[2.0], [-0.5]], dtype=torch.float64))
    assert off_by(added, 64, 0.07, compile) < 3e-6


def test_deflectors_are_added_in_parts_where_memory_is_short(monkeypatch, compile):
    added = halos([7, 5], 2.56)
    whole = sum_on_grid(added, 64, 0.08, compile=compile)
    monkeypatch.setattr("darklens.simulation.multilevel.most_elements", lambda like: 5000)
    for a, b in zip(sum_on_grid(added, 64, 0.08, compile=compile), whole, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14)


def test_images_without_deflectors(compile):
    ax, ay = sum_on_grid(halos([0, 0], 1.6), 40, 0.08, compile=compile)
    assert ax.shape == ay.shape == (2, 40, 40)
    assert not ax.any()
    assert not ay.any()
