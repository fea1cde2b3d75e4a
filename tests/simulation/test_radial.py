"""Deflection from tables along the radius, against the deflectors themselves."""

from functools import partial

import numpy as np
import pytest
import torch

from darklens.physics import point_mass_deflection
from darklens.simulation.compiled import deflection_of_each
from darklens.simulation.profiles import Substructure, gather
from darklens.simulation.radial import RadialTables, add_whole
from darklens.simulation.scene import single_deflections

EACH = partial(deflection_of_each, compile=False)


def halos(count, dtype):
    rng = np.random.default_rng(5)
    radii = rng.uniform(0.02, 0.5, count)
    columns = {"x": [rng.uniform(-3, 3, count)], "y": [rng.uniform(-3, 3, count)], "Rs": [radii]}
    columns |= {"alpha_Rs": [rng.uniform(0.001, 0.01, count)], "r_trunc": [radii * rng.uniform(2, 10, count)]}
    return gather("tnfw", columns, torch.zeros(0, dtype=dtype)).flat()[0]


@pytest.mark.parametrize(("dtype", "off"), [(torch.float64, 3e-7), (torch.float32, 5e-7)])
def test_tables_hold_the_deflection_at_all_radii(dtype, off):
    added = halos(30, dtype)
    near = torch.logspace(-3, 0.9, 60, dtype=dtype)
    x = added.parameters["x0"][:, None] + torch.cat([-near.flip(0), near])
    y = added.parameters["y0"][:, None] + torch.cat([near / 3, -near])
    wanted = single_deflections(
        added.deflection, x[:, None, :], y[:, :, None], parameters=added.parameters, weights=added.weights
    )
    assert wanted[0].abs().max() > 0.005
    for found, own in zip(RadialTables(added, EACH, 12.0).deflection(x, y), wanted, strict=True):
        assert (found - own).abs().max() < off


def test_power_law_in_closed_form_and_the_same_positions_for_all():
    theta = torch.tensor([0.1, 0.3], dtype=torch.float64)
    masses = Substructure(
        point_mass_deflection,
        {"x0": torch.tensor([0.0, 1.0]).double(), "y0": torch.tensor([0.5, 0.0]).double(), "theta_E": theta},
        torch.tensor([1.0, -2.0]).double(),
    )
    x, y = torch.linspace(-2, 2, 9).double()[None], torch.tensor([[-1.3, 0.1, 0.2]]).double()
    ax, ay = RadialTables(masses, EACH, 4.0).deflection(x, y)
    for m, (x0, y0, strength) in enumerate([(0.0, 0.5, 0.01), (1.0, 0.0, -2 * 0.09)]):
        dx, dy = x - x0, y.T - y0
        scale = strength / (dx**2 + dy**2)
        torch.testing.assert_close(ax[m], scale * dx, rtol=1e-4, atol=0)
        torch.testing.assert_close(ay[m], (scale * dy), rtol=1e-4, atol=0)


def test_deflection_vanishes_at_the_centre():
    added = halos(4, torch.float32)
    centre = [added.parameters[name][:, None] for name in ("x0", "y0")]
    for field in RadialTables(added, EACH, 9.0).deflection(*centre):
        assert not field.any()


def test_fields_are_added_to_those_of_their_images():
    rng = np.random.default_rng(1)
    owners, fields = np.array([2, 0, 2, 2]), rng.normal(size=(4, 3, 5))
    total = rng.normal(size=(3, 3, 5))
    wanted = total.copy()
    np.add.at(wanted, owners, fields)
    add_whole(total, owners, fields)
    np.testing.assert_allclose(total, wanted, rtol=1e-14)
