"""The limit of Model I on a few images and a coarse grid."""

import numpy as np
import pytest
import torch

from darklens.simulation import Simulator, load_preset

TINY = {"SOURCES": 5, "ANGLES": 6, "MASSES": 6, "REFINED": 4, "MODES": 2, "DRAWS": 16}


@pytest.fixture(scope="module")
def limit(benchmark_module):
    module = benchmark_module("limit")
    for name, value in TINY.items():
        setattr(module, name, value)
    return module


@pytest.fixture(scope="module")
def block():
    return Simulator(load_preset("model-1"), 77).block(0)


def model(limit, block, kind, **changes):
    """The first image of a class, with changes to its row of truths."""
    images, rows = block
    i = list(rows["label"]).index(kind)
    row = {name: values[i] for name, values in rows.items()}
    row = {key: float(v) if np.issubdtype(type(v), np.floating) else v for key, v in row.items()} | changes
    edge = (images.shape[-1] - limit.CROP) // 2
    picture = images[i, 0, edge : edge + limit.CROP, edge : edge + limit.CROP]
    return limit.ModelI(picture, row, float(np.nanmax(np.asarray(rows["vortex_theta_E"], dtype=float))))


@pytest.mark.parametrize(("label", "sign"), [("axion", 1), ("no_sub", -1)])
def test_classes_are_told_apart_without_their_truths(limit, block, label, sign):
    """Other values of all that is free, and the other label, change nothing."""
    odds = limit.log_odds(model(limit, block, label), torch.Generator().manual_seed(0))
    assert sign * odds > 1
    other = {"source_x": 0.3, "source_y": -0.2, "vortex_phi": 1.0, "log10_axion_mass": -23.0, "label": "axion"}
    lying = model(limit, block, label, **other)
    assert limit.log_odds(lying, torch.Generator().manual_seed(0)) == odds


def test_grids_cover_the_prior(limit):
    sources = limit.source_grid()
    assert sources.shape == (25, 2)
    assert (sources.amin(0).tolist(), sources.amax(0).tolist()) == ([-0.35, -0.35], [0.35, 0.35])
    grid = limit.vortex_grid(torch.tensor([0.1, -0.2], dtype=torch.float64))
    assert grid.shape == (36, 4)
    assert np.unique(grid[:, :2], axis=0).tolist() == [[0.1, -0.2]]
    assert len(np.unique(grid[:, 2:], axis=0)) == 36
    assert ((grid[:, 3] > -24) & (grid[:, 3] < -22)).all()


def test_source_is_found_from_the_grid(limit, block):
    found, information = limit.modes(image := model(limit, block, "no_sub"), limit.source_grid())
    truth = [float(image.t["source_x"]), float(image.t["source_y"])]
    error = torch.linalg.inv(information[0]).diagonal().sqrt()
    assert ((found[0] - torch.tensor(truth)).abs() < 5 * error).all()
    assert (error < 0.01).all()
