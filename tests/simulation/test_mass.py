from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from darklens.errors import PresetError
from darklens.physics import point_mass_deflection, sis_deflection
from darklens.simulation import Simulator, load_preset
from darklens.simulation.columns import from_frame, select
from darklens.simulation.library import resolve_preset
from darklens.simulation.mass import mean_outward_deflection
from darklens.simulation.scene import main_deflection, substructure_deflection


def fair_hst_with_both():
    content = resolve_preset("fair-hst")
    both = content["classes"]["cdm"] | content["classes"]["axion"]
    return content | {"name": "both", "classes": {"no_sub": {}, "both": both}}


@pytest.mark.parametrize("preset", ["fair-hst", "fair-euclid", fair_hst_with_both()], ids=["hst", "euclid", "both"])
def test_fair_classes_hold_the_same_mass_inside_the_ring(preset):
    """The mass of main deflector and substructure is what the drawn Einstein radius alone would give, in every image."""
    preset = load_preset(preset)
    rows = from_frame(Simulator(preset, seed=3).catalog(60))
    drawn = from_frame(Simulator(replace(preset, conserve_mass=False), seed=3).catalog(60))
    for label in preset.labels:
        chosen = np.flatnonzero(rows["label"] == label)
        group, before = select(rows, chosen), select(drawn, chosen)
        rings = group | {"theta_E": before["theta_E"]}
        mean = mean_outward_deflection(main_deflection(preset, group, torch.float64, shear=False), rings, 4096)
        added = substructure_deflection(preset, label, group, torch.float64)
        if added is not None:
            assert (group["theta_E"] < before["theta_E"]).all()
            mean = mean + mean_outward_deflection(added, rings, 4096)
        expected = mean_outward_deflection(main_deflection(preset, before, torch.float64, shear=False), before, 4096)
        assert_allclose(mean, expected, rtol=2e-4)


def test_mean_outward_deflection_is_the_mass_inside_the_circle():
    """Of point masses inside and outside, and of an isothermal sphere, about a centre that is not the origin."""
    lens = {"lens_x": np.array([0.3]), "lens_y": np.array([-0.2]), "theta_E": np.array([1.3])}

    def masses(x, y):
        return point_mass_deflection(x, y, x0=0.9, y0=0.1, theta_E=torch.tensor(0.4, dtype=torch.float64))

    def outside(x, y):
        return point_mass_deflection(x, y, x0=0.3, y0=1.6, theta_E=torch.tensor(0.4, dtype=torch.float64))

    def sphere(x, y):
        return sis_deflection(x, y, x0=0.3, y0=-0.2, theta_E=torch.tensor(1.1, dtype=torch.float64))

    assert_allclose(mean_outward_deflection(masses, lens), 0.4**2 / 1.3, rtol=1e-7)
    assert_allclose(mean_outward_deflection(outside, lens), 0, atol=1e-6)
    assert_allclose(mean_outward_deflection(sphere, lens), 1.1, rtol=1e-12)


def test_substructure_that_outweighs_the_deflector_is_refused():
    content = resolve_preset("fair-hst")
    content["classes"]["axion"]["vortex"]["mass"] = 1e14
    with pytest.raises(PresetError, match="the substructure of axion outweighs"):
        Simulator(content).catalog(6)
