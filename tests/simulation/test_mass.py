import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from darklens.errors import PresetError
from darklens.simulation import Simulator, load_preset
from darklens.simulation.columns import from_frame, select
from darklens.simulation.library import resolve_preset
from darklens.simulation.mass import edge_flux
from darklens.simulation.scene import main_deflection, substructure_deflection


@pytest.mark.parametrize("name", ["fair-hst", "fair-euclid"])
def test_fair_classes_hold_the_same_mass_inside_the_image(name):
    """The mass of main deflector and substructure is what the drawn Einstein radius alone would give, in every image."""
    preset = load_preset(name)
    rows = from_frame(Simulator(preset, seed=3).catalog(60))
    bare = load_preset(dict(preset.resolved) | {"name": name, "conserve_mass": False})
    drawn = from_frame(Simulator(bare, seed=3).catalog(60))
    for label in preset.labels:
        chosen = np.flatnonzero(rows["label"] == label)
        group, before = select(rows, chosen), select(drawn, chosen)
        flux = edge_flux(preset, main_deflection(preset, group, torch.float64, shear=False))
        added = substructure_deflection(preset, label, group, torch.float64)
        if added is not None:
            assert (group["theta_E"] < before["theta_E"]).all()
            flux = flux + edge_flux(preset, added)
        expected = edge_flux(preset, main_deflection(preset, before, torch.float64, shear=False))
        assert_allclose(flux, expected, rtol=1e-9)


def test_edge_flux_is_twice_the_convergence_inside():
    """Against the convergence of an isothermal sphere, integrated over the square in closed form."""
    preset = load_preset("fair-hst")
    rows = from_frame(Simulator(preset).catalog(1))
    rows |= {k: np.zeros(1) for k in ("e1", "e2", "lens_x", "lens_y")} | {"theta_E": np.array([1.3])}
    flux = edge_flux(preset, main_deflection(preset, rows, torch.float64, shear=False))
    assert_allclose(flux, 8 * 1.3 * preset.half_width * np.arcsinh(1), rtol=1e-4)


def test_substructure_that_outweighs_the_deflector_is_refused():
    content = resolve_preset("fair-hst")
    content["classes"]["axion"]["vortex"]["mass"] = 1e14
    with pytest.raises(PresetError, match="the substructure of axion outweighs"):
        Simulator(content).catalog(6)
