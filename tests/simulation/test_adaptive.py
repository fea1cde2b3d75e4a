"""Presets with adaptive sampling are those of very many rays, whatever deflector, dark matter, source and PSF they have."""

from dataclasses import replace

import numpy as np
import pytest
import reference
import torch
from numpy.testing import assert_allclose

from darklens.simulation import Simulator, load_preset
from darklens.simulation.library import resolve_preset

VERY_MANY = 24
INNER = (..., slice(4, -4), slice(4, -4))
"""Pixels so far from the edge that it does not matter how large the ray is that repeats beyond it."""


def preset_of(name, **changes):
    content = resolve_preset(name) | {"name": "small", "pixels": 40, "conserve_mass": False}
    for key, value in changes.items():
        content[key] = content[key] | value if isinstance(value, dict) and key != "classes" else value
    return load_preset(content)


HALOS = {"profile": "tnfw", "total_mass": 3e9, "mass": {"power_law": [-1.9, 1e8, 1e10]}, "truncation": 5}
POINTS = {"profile": "point_mass", "count": 3, "mass": 1e9}
VORTEX = {"profile": "line", "mass": 3e10, "half_length": 0.8}
CASES = {
    "alone": ("fair-hst", {"classes": {"a": {}}}),
    "halos": ("fair-hst", {"classes": {"a": {"subhalos": HALOS}}}),
    "points": ("fair-hst", {"classes": {"a": {"subhalos": POINTS}}}),
    "vortex": ("fair-euclid", {"classes": {"a": {"vortex": VORTEX}}}),
    "halos and vortex": ("fair-hst", {"classes": {"a": {"subhalos": HALOS, "vortex": VORTEX}}}),
    "power law": ("fair-hst", {"classes": {"a": {}}, "deflector": {"profile": "epl", "gamma": 2.1}}),
}


def errors(preset, count=4, seed=1):
    """Largest difference from very many rays in σ of the noise, of each image: with adaptive sampling, and without."""
    simulator = Simulator(preset, seed)
    rows = simulator.catalog(count)
    uniform = {"adaptive": False}
    truth = Simulator(replace(preset, supersampling=VERY_MANY, **uniform), seed).render(
        rows, noise=False, dtype=torch.float64
    )
    sigma = simulator.noise_sigma(rows, truth[:, 0])
    found = []
    for each in (preset, replace(preset, **uniform)):
        images = Simulator(each, seed).render(rows, noise=False)
        found.append(((images - truth)[:, 0] / sigma)[INNER].abs().flatten(1).amax(1))
    return found


@pytest.mark.parametrize("case", CASES)
def test_images_are_those_of_very_many_rays(case):
    name, changes = CASES[case]
    adaptive, uniform = errors(preset_of(name, **changes), count=2 if "halos" in case else 4)
    assert adaptive.max() < 0.3
    assert adaptive.median() < 0.05
    assert uniform.median() > 10 * adaptive.median()


HIDDEN = {
    "theta_E": 0.81341757, "e1": 0.01030615, "e2": -0.13675652, "lens_x": -0.02770125, "lens_y": 0.01407826,
    "gamma1": 0.04455832, "gamma2": 0.00541623, "source_x": 0.05153278, "source_y": 0.2109518,
    "source_magnitude": 21.02817660, "source_R_sersic": 0.13305483, "source_n_sersic": 0.78267469,
    "source_e1": 0.09982233, "source_e2": -0.04731659, "exposure_time": 5400.0, "vortex_x": -0.06064761,
    "vortex_y": 0.04634271, "vortex_half_length": 0.13971287, "vortex_phi": 0.40055095, "vortex_theta_E": 0.2883028,
}  # fmt: skip
"""A vortex of fair-hst in whose kink lies an image of the source so small that no sample shows it."""


def test_light_that_no_sample_shows_is_found_in_kinks_of_the_deflection(monkeypatch):
    preset = load_preset("fair-hst")
    row = {"id": np.array([14]), "label": np.array(["axion"])} | {k: np.array([v]) for k, v in HIDDEN.items()}
    fine = Simulator(replace(preset, supersampling=VERY_MANY, adaptive=False), 4)
    truth = fine.render(row, noise=False)[:, 0]
    sigma = fine.noise_sigma(row, truth)

    def worst():
        found = Simulator(preset, 4).render(row, noise=False)[:, 0]
        return float(((found - truth) / sigma)[INNER].abs().max())

    assert worst() < 0.3
    monkeypatch.setattr("darklens.simulation.quadrature.KINKS", 0)
    assert worst() > 3


def test_psf_in_a_file_is_applied_to_the_means_of_pixels(tmp_path):
    psf = np.exp(-(np.hypot(*np.mgrid[-4:5, -4:5]) ** 2) / 3)
    np.save(tmp_path / "psf.npy", psf)
    preset = preset_of("fair-hst", classes={"a": {}}, instrument={"psf_file": str(tmp_path / "psf.npy")})
    adaptive, uniform = errors(preset)
    assert adaptive.max() < 0.1
    assert uniform.max() > 1


def test_galaxies_as_sources(tmp_path):
    """Their interpolation has kinks at every pixel of the galaxy's image."""
    y, x = np.mgrid[-20:21, -20:21]
    np.save(tmp_path / "galaxies.npy", np.exp(-np.hypot(x, 2 * y) / 3)[None])
    source = {"profile": "image", "images": str(tmp_path / "galaxies.npy"), "pixel_scale": 0.03, "magnitude": 22}
    content = resolve_preset("fair-hst") | {"name": "real", "pixels": 40, "conserve_mass": False, "classes": {"a": {}}}
    content["source"] = source | {"x": 0.1, "y": 0.05}
    adaptive, uniform = errors(load_preset(content))
    assert adaptive.max() < 0.5
    assert adaptive.median() < uniform.median() / 5


def test_an_image_does_not_depend_on_those_beside_it():
    simulator = Simulator(preset_of("fair-hst"), 1)
    rows = simulator.catalog(9)
    together = simulator.render(rows, noise=False, dtype=torch.float64)
    for i in (0, 4, 8):
        alone = simulator.render(rows[i : i + 1], noise=False, dtype=torch.float64)[0]
        assert_allclose(alone, together[i], atol=1e-9 * together[i].max())


def test_lenstronomy_with_very_many_rays_agrees():
    preset = preset_of("fair-hst", classes={"a": {}})
    simulator = Simulator(preset, 2)
    rows = simulator.catalog(3)
    images = simulator.render(rows, noise=False, dtype=torch.float64)[:, 0]
    sigma = simulator.noise_sigma(rows, images)
    fine = replace(preset, supersampling=VERY_MANY, adaptive=False)
    for image, noise, row in zip(images, sigma, rows.to_dicts(), strict=True):
        expected = torch.from_numpy(reference.render(fine, row))
        assert ((image - expected) / noise)[INNER].abs().max() < 0.1
