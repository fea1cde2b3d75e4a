"""Every preset and profile, in float64 and without noise, agrees with lenstronomy to 1e-6 of the image's peak."""

from dataclasses import replace

import numpy as np
import pytest
import reference
import torch
from astropy.cosmology import FlatLambdaCDM
from lenstronomy.LensModel.lens_model import LensModel
from scipy import stats

from darklens.simulation import Simulator, list_presets, load_preset
from darklens.simulation.library import resolve_preset
from darklens.simulation.presets import Preset

TOLERANCE = 1e-6


def assert_agrees(preset: Preset, count: int, seed: int = 5) -> None:
    """With the same rays: lenstronomy has as many in every pixel (`test_adaptive` compares with very many)."""
    preset = replace(preset, adaptive=False)
    simulator = Simulator(preset, seed)
    rows = simulator.catalog(count, start=seed * 64)
    images = simulator.render(rows, noise=False, dtype=torch.float64)[:, 0].numpy()
    for image, row in zip(images, rows.to_dicts(), strict=True):
        expected = reference.render(preset, row)
        if preset.noise == "deeplense-twice":
            counts = expected * row["exposure_time"]
            sigma = np.sqrt(counts + (preset.instrument.background_rms * row["exposure_time"]) ** 2)
            expected = counts * stats.norm.cdf(counts / sigma) + sigma * stats.norm.pdf(counts / sigma)
        if preset.noise == "deeplense-doubled":
            expected = expected * 2
        assert np.abs(image - expected).max() < TOLERANCE * expected.max(), (preset.name, row["id"])


@pytest.mark.parametrize("name", [name for name in list_presets() if "bands" not in resolve_preset(name)])
def test_preset_agrees(name):
    assert_agrees(load_preset(name), count=6)


def changed(name: str, **parts):
    content = resolve_preset("fair-hst")
    for key, value in parts.items():
        content[key] = content[key] | value if isinstance(value, dict) else value
    return load_preset(content | {"name": name})


def test_power_law_deflector_agrees():
    assert_agrees(changed("epl", deflector={"profile": "epl", "gamma": {"uniform": [1.8, 2.3]}}), count=3)


def test_isothermal_subhalos_agree():
    subhalos = {"profile": "sis", "mean_count": 10, "mass": {"power_law": [-1.9, 1e7, 1e9]}}
    preset = changed("sis", classes={"no_sub": {}, "cdm": {"subhalos": subhalos}, "axion": {}})
    assert_agrees(preset, count=3)


@pytest.mark.parametrize("profile", ["tnfw", "sis"])
def test_subhalos_and_a_vortex_in_one_class_agree(profile):
    subhalos = {"profile": profile, "mean_count": 5, "mass": {"power_law": [-1.9, 1e8, 1e10]}}
    vortex = {"profile": "line", "mass": 1e10, "half_length": 0.7, "x": {"normal": [0, 0.1]}}
    assert_agrees(changed("both", classes={"both": {"subhalos": subhalos, "vortex": vortex}}), count=3)


@pytest.mark.parametrize("supersampling", [1, 3])
def test_supersampling_agrees(supersampling):
    assert_agrees(changed("fine", supersampling=supersampling), count=3)


def test_real_galaxies_and_a_pixelated_psf_agree(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "galaxies.npy", rng.random((3, 40, 40)))
    np.save(tmp_path / "psf.npy", rng.random((9, 9)))
    source = {"profile": "image", "images": str(tmp_path / "galaxies.npy"), "pixel_scale": {"uniform": [0.01, 0.03]}}
    preset = changed("real", source=source, instrument={"psf_file": str(tmp_path / "psf.npy")})
    assert_agrees(preset, count=3)


def test_rescaling_of_published_models_is_what_lenstronomy_does():
    """Model II's quirk: reduced angles for a source at 2.5, seen at 1.0."""
    row = Simulator("model-2").catalog(1).to_dicts()[0]
    names, kwargs = ["SIE", "SHEAR"], [{"theta_E": 1.2814905676, "e1": 0.1, "e2": 0}, {"gamma1": 0.05, "gamma2": 0}]
    cosmology = FlatLambdaCDM(H0=69.7, Om0=0.2814, Ob0=0.0464)
    published = LensModel(
        names, z_lens=0.5, z_source=1.0, z_source_convention=2.5, cosmo=cosmology, lens_redshift_list=[0.5, 0.5]
    )
    model, own = reference.lens_model(load_preset("model-2"), row)
    x, y = np.array([0.7, -0.4]), np.array([0.2, 1.1])
    np.testing.assert_allclose(model.alpha(x, y, own), published.alpha(x, y, kwargs), rtol=1e-8)
