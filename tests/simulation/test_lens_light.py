"""The deflector's own light in presets of substructure."""

import numpy as np
import pytest
import torch

from darklens.errors import DataError, PresetError
from darklens.simulation import Simulator, load_preset
from darklens.simulation.columns import from_frame
from darklens.simulation.library import resolve_preset
from darklens.simulation.scene import lens_light


def changed(**parts):
    content = resolve_preset("substructure-hst")
    for key, value in parts.items():
        content[key] = content[key] | value if isinstance(value, dict) else value
    return load_preset(content | {"name": "light"})


def test_its_shape_is_that_of_the_mass_with_scatter():
    rows = Simulator(changed(lens_light={"shape_scatter": 0.0})).catalog(64)
    assert rows["lens_light_e1"].to_numpy() == pytest.approx(rows["e1"].to_numpy())
    rows = Simulator("substructure-hst").catalog(640)
    for name in ("e1", "e2"):
        assert (rows[f"lens_light_{name}"] - rows[name]).std() == pytest.approx(0.04, rel=0.1)


def test_it_is_in_the_image_and_in_the_one_without_substructure():
    simulator = Simulator("substructure-hst", seed=2)
    rows = simulator.catalog(6)
    bright = simulator.render(rows, noise=False, dtype=torch.float64)[:, 0]
    faint = simulator.render(rows.with_columns(lens_light_magnitude=60.0), noise=False, dtype=torch.float64)[:, 0]
    flux = 10 ** (0.4 * (25.94 - rows["lens_light_magnitude"].to_numpy()))
    # The frame of 4.8″ holds most of it, and never more.
    share = (bright - faint).sum((1, 2)).numpy() / flux
    assert (share < 1.002).all()
    assert (share > 0.6).all()
    middle = (bright - faint).flatten(1).argmax(1)
    assert torch.hypot(middle // 96 - 47.5, middle % 96 - 47.5).max() < 4
    smooth = simulator.without_substructure(rows)
    plain = rows["label"].to_numpy() == "no_sub"
    assert (smooth - bright)[torch.from_numpy(plain)].abs().max() < 1e-9 * bright.max()


def test_about_its_centre_it_is_close_to_the_profile():
    fine = changed(supersampling=16)
    coarse = changed()
    rows = Simulator(coarse, seed=3).catalog(12)
    columns = from_frame(rows)
    found = []
    for preset in (coarse, fine):
        simulator = Simulator(preset, seed=3)
        x, y = simulator.renderer._grid(torch.float64)
        light = lens_light(preset, columns, x, y)
        found.append(light.view(12, 96, preset.supersampling, 96, preset.supersampling).mean((2, 4)))
    assert ((found[0] - found[1]).abs().amax((1, 2)) / found[1].amax((1, 2))).max() < 1e-2


def test_images_are_differentiable_by_its_columns():
    simulator = Simulator("substructure-hst", seed=2)
    rows = from_frame(simulator.catalog(3))
    magnitude = torch.tensor(rows["lens_light_magnitude"], requires_grad=True)
    image = simulator.render(rows | {"lens_light_magnitude": magnitude}, noise=False, dtype=torch.float64)
    (slope,) = torch.autograd.grad(image[0].sum(), magnitude)
    step = np.array([1e-4, 0, 0])
    up, down = (
        simulator.render(
            rows | {"lens_light_magnitude": rows["lens_light_magnitude"] + sign * step},
            noise=False,
            dtype=torch.float64,
        )[0].sum()
        for sign in (1, -1)
    )
    assert float(slope[0]) == pytest.approx(float((up - down) / 2e-4), rel=1e-5)
    assert slope[1:].abs().max() == 0


def test_what_is_missing_is_named():
    simulator = Simulator("substructure-hst", seed=2)
    with pytest.raises(DataError, match="lens_light_R_sersic"):
        simulator.render(simulator.catalog(3).drop("lens_light_R_sersic"))
    content = resolve_preset("fair-hst") | {"lens_light": {"magnitude": 20}, "name": "light"}
    with pytest.raises(PresetError, match="lens_light: R_sersic must be given"):
        load_preset(content)


def test_other_presets_are_as_before():
    assert "lens_light_magnitude" not in Simulator("fair-hst").catalog(3).columns
