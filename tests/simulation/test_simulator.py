import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from darklens.errors import DataError, PresetError
from darklens.simulation import BLOCK, Simulator, load_preset
from darklens.simulation.columns import from_frame, select
from darklens.simulation.library import resolve_preset
from darklens.simulation.mass import edge_flux
from darklens.simulation.scene import main_deflection, substructure_deflection


def test_catalog_does_not_depend_on_where_it_starts():
    simulator = Simulator("fair-hst", seed=4)
    whole = simulator.catalog(200)
    assert simulator.catalog(50, start=90).equals(whole[90:140])


def test_blocks_are_the_rendered_catalog():
    simulator = Simulator("model-3-noisy", seed=4)
    images = torch.cat([images for images, _ in simulator.blocks(100, threads=2)])
    assert_array_equal(images, simulator.render(simulator.catalog(100)))


def test_images_do_not_depend_on_threads_or_start():
    simulator = Simulator("model-1", seed=4)
    serial = torch.cat([images for images, _ in simulator.blocks(3 * BLOCK, threads=1)])
    threaded = torch.cat([images for images, _ in simulator.blocks(2 * BLOCK, start=BLOCK, threads=2)])
    assert_array_equal(serial[BLOCK:], threaded)


def test_threads_of_the_caller_are_left_as_they_were():
    before = torch.get_num_threads()
    list(Simulator("model-3").blocks(BLOCK))
    assert torch.get_num_threads() == before


def test_seeds_and_presets_differ():
    images = [Simulator(name, seed).render(Simulator(name, seed).catalog(3)) for name, seed in
              (("model-3-noisy", 1), ("model-3-noisy", 2), ("model-3", 1))]  # fmt: skip
    assert not torch.allclose(images[0], images[1], atol=1e-3)
    assert not torch.allclose(images[0], images[2], atol=1e-3)


def test_classes_are_balanced():
    counts = Simulator("model-1").catalog(300)["label"].value_counts()
    assert sorted(counts["count"].to_list()) == [100, 100, 100]


def test_compiled_kernels_agree_with_eager_ones():
    for name in ("model-1", "fair-hst"):
        eager, compiled = Simulator(name, seed=2), Simulator(name, seed=2, compile=True)
        a, b = (next(iter(s.blocks(BLOCK, noise=False)))[0] for s in (eager, compiled))
        assert (a - b).abs().max() < 3e-4 * a.max(), name


@pytest.mark.parametrize(("name", "value"), [("CXX", "false"), ("PATH", "")])
def test_without_a_working_compiler_images_are_made_all_the_same(name, value, tmp_path):
    code = (
        "from darklens.simulation import Simulator\n"
        "fast, slow = Simulator('model-3', compile=True), Simulator('model-3')\n"
        "a, b = (next(iter(s.blocks(64)))[0] for s in (fast, slow))\n"
        "assert (a == b).all()\n"
    )
    environment = os.environ | {name: value, "XDG_CACHE_HOME": str(tmp_path), "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    environment.pop("TORCHINDUCTOR_CACHE_DIR", None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "simulating without compiled kernels" in done.stderr


def test_published_vortex_has_its_length_and_mass():
    rows = Simulator("model-1").catalog(90).filter(label="axion").to_dicts()
    for row in rows:
        x, y = np.array(row["subhalo_x"]), np.array(row["subhalo_y"])
        assert len(x) == 100
        half = 0.03 * 10 ** (-22 - row["log10_axion_mass"])
        assert_allclose(np.hypot(x[-1], y[-1]), half, rtol=1e-9)
        assert_allclose(np.square(row["subhalo_theta_E"]).sum(), row["vortex_theta_E"] ** 2, rtol=1e-9)
        assert_allclose(row["vortex_theta_E"], 1.2814905676 * 0.03**0.5, rtol=1e-9)


def test_published_subhalos_follow_their_recipe():
    rows = Simulator("model-1", seed=1).catalog(1920).filter(label="cdm")
    radius = np.hypot(*(np.stack(rows[f"subhalo_{c}"].to_list()) for c in "xy"))
    assert radius.shape == (640, 25)
    assert 0.25 <= radius.min() <= radius.max() <= 2.0
    assert_allclose(radius.mean(), 1.125, atol=5 * 0.505 / np.sqrt(radius.size))
    # m^0.1 is uniform between 1e6 and 1e10 M☉.
    power = np.stack(rows["subhalo_mass"].to_list()) ** 0.1
    low, high = 10**0.6, 10.0
    assert_allclose(power.mean(), (low + high) / 2, atol=5 * (high - low) / np.sqrt(12 * power.size))


def test_fair_subhalos_are_a_poisson_number_of_the_right_total_mass():
    rows = Simulator("fair-hst", seed=1).catalog(3840).filter(label="cdm")
    counts = np.array([len(v) for v in rows["subhalo_mass"].to_list()])
    assert_allclose(counts.var() / counts.mean(), 1, atol=5 * np.sqrt(2 / len(counts)))
    total = np.array([sum(v) for v in rows["subhalo_mass"].to_list()])
    assert_allclose(total.mean(), 3e10, atol=5 * total.std() / np.sqrt(len(total)))


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


def test_noise_of_model_1_is_applied_twice():
    simulator = Simulator("model-1", seed=0)
    row = simulator.catalog(1)
    expected = simulator.render(row, noise=False)[0, 0]
    many = row[[0] * 400].with_columns(id=np.arange(400))
    noisy = simulator.render(many)[:, 0]
    bright = expected > 100
    assert bright.sum() > 300
    variance = simulator.noise_sigma(row, expected[None])[0].square()
    pull = (noisy.mean(0) - expected)[bright] / (variance[bright] / 400).sqrt()
    assert pull.abs().max() < 5.5
    ratio = (noisy.var(0) / variance)[bright]
    assert abs(ratio.mean() - 1) < 0.02
    assert torch.equal(noisy, noisy.round())
    assert noisy.min() >= 0


def test_physical_noise_has_the_mean_and_variance_of_the_instrument():
    simulator = Simulator("model-3-noisy", seed=0)
    row = simulator.catalog(1)
    expected = simulator.render(row, noise=False)[0, 0]
    noisy = simulator.render(row[[0] * 600].with_columns(id=np.arange(600)))[:, 0]
    sigma = simulator.noise_sigma(row, expected[None])[0]
    assert ((noisy.mean(0) - expected) / sigma * 600**0.5).abs().max() < 5.5
    ratio = (noisy.var(0) / sigma.square()).flatten()
    assert abs(ratio.mean() - 1) < 5 * (2 / 600 / len(ratio)) ** 0.5
    assert (ratio - 1).abs().max() < 6 * (2 / 600) ** 0.5


def test_doubled_models_are_twice_the_noise_free_image():
    rows = Simulator("model-3", seed=0).catalog(3)
    doubled = Simulator("model-3").render(rows)
    assert_allclose(doubled, 2 * Simulator("model-3-noisy").render(rows, noise=False), rtol=1e-6)


def write(path, text):
    path.write_text(text)
    return str(path)


def test_own_yaml_adds_a_class_with_its_own_deflection(tmp_path):
    write(tmp_path / "models.py", "def cored(x, y, x0, y0, theta_E, r_core):\n"
          "    dx, dy = x - x0, y - y0\n    r = (dx**2 + dy**2 + r_core**2).sqrt()\n"
          "    return theta_E * dx / r, theta_E * dy / r\n")  # fmt: skip
    preset = write(tmp_path / "mine.yaml", "extends: fair-hst\nclasses:\n  sidm:\n    subhalos:\n"
                   "      profile: models.py:cored\n      mean_count: 5\n"
                   "      parameters: {theta_E: 0.05, r_core: {uniform: [0.01, 0.1]}}\n")  # fmt: skip
    simulator = Simulator(preset, seed=1, trust_code=True)
    assert simulator.preset.labels == ["no_sub", "cdm", "axion", "sidm"]
    rows = simulator.catalog(8)
    assert torch.isfinite(simulator.render(rows)).all()
    row = rows.filter(label="sidm")[:1]
    expected = simulator.without_substructure(row)
    assert (simulator.render(row, noise=False, dtype=torch.float64)[:, 0] - expected).abs().max() > 1e-3


def test_own_function_adds_deflectors(tmp_path):
    code = """
import numpy as np

def sidm(rng, lens):
    n = rng.poisson(3)
    return {"profile": "sis", "x": rng.normal(0, 1, n), "y": rng.normal(0, 1, n), "theta_E": np.full(n, 0.05)}
"""
    reference = write(tmp_path / "models.py", code)
    simulator = Simulator(f"{reference}:sidm", seed=1)
    assert "sidm" in simulator.preset.labels
    rows = simulator.catalog(64)
    assert torch.isfinite(simulator.render(rows)).all()
    assert {len(v) for v in rows.filter(label="sidm")["subhalo_x"].to_list()} > {3}


def test_real_galaxies_serve_as_sources(tmp_path):
    np.save(tmp_path / "galaxies.npy", np.random.default_rng(0).random((3, 20, 20)))
    preset = write(tmp_path / "real.yaml", "extends: fair-hst\nsource:\n  profile: image\n  images: galaxies.npy\n"
                   "  pixel_scale: 0.03\n")  # fmt: skip
    images = Simulator(preset).render(Simulator(preset).catalog(6))
    assert torch.isfinite(images).all()
    assert (images.amax((1, 2, 3)) > 0).all()


BAD = {
    "z_source: 0.4": "z_source must be above z_lens",
    "instrument: {exposure_time: -5}": "exposure_time must be above zero",
    "instrument: {pixel_scale: 0}": "pixel_scale must be above zero",
    "pixel: 64": "unknown key pixel; did you mean 'pixels'?",
    "pixels: 64.5": "pixels: expected a whole number",
    "deflector: {theta_E: {uniform: [2, 1]}}": "lower bound must be below",
    "deflector: {theta_E: {unifrm: [1, 2]}}": "expected a number or one of uniform",
    "source: {x: {normal: [0]}}": "normal takes",
    "deflector: {profile: sei}": "no 'sei'; there are sie, epl",
    "source: {amp: 3}": "exactly one of amp, magnitude",
    "noise: twice": "noise: no 'twice'",
    "classes: {cdm: {subhalos: {total_mass: -1}}}": "total_mass must be above zero",
    "classes: {cdm: {add: 'nowhere.py:f'}}": "takes one of subhalos, vortex, add",
    "extends: fair-hts": "fair-hts",
}


@pytest.mark.parametrize(("text", "message"), BAD.items())
def test_impossible_preset_is_refused(text, message, tmp_path):
    path = write(tmp_path / "bad.yaml", text if "extends" in text else f"extends: fair-hst\n{text}\n")
    with pytest.raises(PresetError, match=message.replace("?", r"\?")):
        load_preset(path)


def test_rows_of_another_preset_are_refused():
    rows = Simulator("model-1").catalog(3)
    with pytest.raises(DataError, match="no column"):
        Simulator("model-1").render(rows.drop("theta_E"))
    classes = {"no_sub": {}, "cdm": resolve_preset("model-1")["classes"]["cdm"]}
    simulator = Simulator(resolve_preset("model-1") | {"classes": classes})
    with pytest.raises(DataError, match="'axion' is not a class"):
        simulator.render(rows)


def test_unusable_psf_is_refused(tmp_path):
    np.save(tmp_path / "even.npy", np.ones((4, 4)))
    preset = write(tmp_path / "psf.yaml", "extends: fair-hst\ninstrument: {psf_file: even.npy}\n")
    with pytest.raises(PresetError, match=r"even\.npy: a PSF needs two odd sides"):
        Simulator(preset)
