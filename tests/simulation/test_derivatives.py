"""Derivatives of whole images by the parameters of their scenes, against finite differences."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from darklens.simulation import Simulator, from_frame, load_preset
from darklens.simulation.columns import select
from darklens.simulation.library import resolve_preset

SMALL = {"name": "small", "pixels": 28, "conserve_mass": False}
HALOS = {"profile": "tnfw", "count": 4, "mass": {"log_uniform": [1e9, 1e10]}, "truncation": 5}
POINTS = {"profile": "point_mass", "count": 2, "mass": 1e9, "radius": 0.5}
LINE = {"profile": "line", "mass": 3e10, "half_length": 0.6, "x": 0.1}
CLASSES = {"none": {}, "halos": {"subhalos": HALOS}, "points": {"subhalos": POINTS}, "line": {"vortex": LINE}}
MAIN = ("theta_E", "e1", "e2", "lens_x", "lens_y", "gamma1", "gamma2")
SOURCE = ("source_x", "source_y", "source_magnitude", "source_R_sersic", "source_n_sersic", "source_e1", "source_e2")
ADDED = {
    "none": (),
    "halos": ("subhalo_x", "subhalo_y", "subhalo_Rs", "subhalo_alpha_Rs", "subhalo_r_trunc"),
    "points": ("subhalo_x", "subhalo_y", "subhalo_theta_E"),
    "line": ("vortex_x", "vortex_y", "vortex_half_length", "vortex_phi", "vortex_theta_E"),
}
STEP = 1e-6


def derivatives(preset, rows, name):
    """Of a weighted sum of an image's pixels by a parameter, (K,): by automatic and by finite differences."""
    simulator = Simulator(preset, 1)
    weights = torch.from_numpy(np.random.default_rng(5).normal(size=(preset.pixels, preset.pixels)))
    listed = isinstance(rows[name], list)
    value = torch.from_numpy(np.atleast_1d(np.asarray(rows[name][0] if listed else rows[name], dtype=np.float64)))

    def total(at):
        images = simulator.render(rows | {name: [at] if listed else at}, noise=False, dtype=torch.float64)
        return (images[0, 0] * weights).sum()

    value.requires_grad_()
    (found,) = torch.autograd.grad(total(value), value)
    with torch.no_grad():
        steps = STEP * torch.eye(len(value), dtype=torch.float64)
        expected = torch.stack([(total(value + step) - total(value - step)) / (2 * STEP) for step in steps])
    return found, expected


def agree(preset, rows, name, rtol):
    found, expected = derivatives(preset, rows, name)
    assert expected.abs().max() > 0, name
    off = (found - expected).abs().max() / expected.abs().max()
    assert off < rtol, f"{name}: {found}, expected {expected}"


def row_of(preset, label):
    rows = from_frame(Simulator(preset, 1).catalog(8))
    return select(rows, np.flatnonzero(np.asarray(rows["label"]) == label)[:1])


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("label", CLASSES)
def test_images_are_differentiable_by_all_that_is_in_the_scene(label, adaptive):
    preset = replace(load_preset(resolve_preset("fair-hst") | SMALL | {"classes": CLASSES}), adaptive=adaptive)
    row = row_of(preset, label)
    # Finite differences see which sub-pixels are cut change, by as little as it matters, and rays cross the vortex.
    rtol = (0.05 if label == "line" else 1e-3) if adaptive else 1e-5
    for name in (*MAIN, *SOURCE, *ADDED[label]):
        agree(preset, row, name, rtol)


def test_images_of_power_laws_galaxies_and_a_psf_in_a_file(tmp_path):
    y, x = np.mgrid[-20:21, -20:21]
    np.save(tmp_path / "galaxies.npy", np.exp(-(np.hypot(x, 2 * y) ** 2) / 90)[None])
    np.save(tmp_path / "psf.npy", np.exp(-(np.hypot(*np.mgrid[-4:5, -3:4]) ** 2) / 3))
    content = resolve_preset("fair-hst") | SMALL | {"classes": {"a": {}}, "adaptive": False}
    content["source"] = {"profile": "image", "images": str(tmp_path / "galaxies.npy"), "pixel_scale": 0.02, "x": 0.1}
    content["source"] |= {"magnitude": 22}
    content["deflector"] |= {"profile": "epl", "gamma": 2.1}
    content["instrument"] |= {"psf_file": str(tmp_path / "psf.npy")}
    preset = load_preset(content)
    row = row_of(preset, "a")
    for name in (*MAIN, "gamma", "source_x", "source_y", "source_magnitude", "source_phi", "source_pixel_scale"):
        agree(preset, row, name, 1e-3)  # bilinear interpolation has kinks


def test_counts_that_are_clipped_by_the_published_noise_are_differentiable_too():
    preset = replace(load_preset("model-1"), pixels=20)
    row = row_of(preset, "no_sub") | {"source_x": np.array([0.7])}
    for name in ("theta_E", "source_amp", "exposure_time"):
        agree(preset, row, name, 1e-5)


def test_noise_has_no_derivative():
    simulator = Simulator("fair-hst", 1)
    rows = from_frame(simulator.catalog(1))
    with pytest.raises(ValueError, match="noise has no derivative"):
        simulator.render(rows | {"theta_E": torch.tensor([1.2], requires_grad=True)})
    noisy = simulator.render(rows | {"theta_E": torch.tensor(rows["theta_E"])}, dtype=torch.float64)
    torch.testing.assert_close(noisy, simulator.render(rows, dtype=torch.float64), rtol=0, atol=0)
