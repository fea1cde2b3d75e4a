import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from astropy.cosmology import FlatLambdaCDM
from lenstronomy.Cosmo.lens_cosmo import LensCosmo
from lenstronomy.LensModel.Profiles.tnfw import TNFW
from numpy.testing import assert_allclose
from scipy import integrate, stats

from darklens.errors import PresetError
from darklens.physics import nfw_concentration
from darklens.simulation import Simulator, load_preset
from darklens.simulation.draw import draw_block
from darklens.simulation.library import resolve_preset
from darklens.simulation.presets import DarkMatter
from darklens.simulation.redshifts import deflection_scale, redshifts_of
from darklens.simulation.scene import substructure_deflection


def test_catalog_does_not_depend_on_where_it_starts():
    simulator = Simulator("fair-hst", seed=4)
    whole = simulator.catalog(200)
    assert simulator.catalog(50, start=90).equals(whole[90:140])


def test_classes_are_balanced():
    counts = Simulator("model-1").catalog(300)["label"].value_counts()
    assert sorted(counts["count"].to_list()) == [100, 100, 100]


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
    free = resolve_preset("fair-hst") | {"conserve_mass": False}
    rows = Simulator(free, seed=1).catalog(3840).filter(label="cdm")
    counts = np.array([len(v) for v in rows["subhalo_mass"].to_list()])
    assert_allclose(counts.var() / counts.mean(), 1, atol=5 * np.sqrt(2 / len(counts)))
    total = np.array([sum(v) for v in rows["subhalo_mass"].to_list()])
    assert_allclose(total.mean(), 3e10, atol=5 * total.std() / np.sqrt(len(total)))


def flat(column):
    return np.concatenate([values for values in column if values is not None])


def test_other_seeds_blocks_and_presets_draw_other_lenses():
    """A preset of another name and the same content is another data set."""
    preset = load_preset("model-1")
    renamed = load_preset(resolve_preset("model-1") | {"name": "model-1-again"})
    drawn = [draw_block(*key)["source_x"] for key in ((preset, 3, 0), (preset, 4, 0), (preset, 3, 1), (renamed, 3, 0))]
    for i, values in enumerate(drawn):
        for other in drawn[:i]:
            assert not np.isin(values, other).any()
    assert_allclose(draw_block(preset, 3, 1)["source_x"], drawn[2], rtol=0)


def test_published_subhalos_deflect_as_their_mass_with_luminosity_distances():
    """1e12 M☉ have 1.2814905676″ in the published data, and point masses deflect as the square root of their mass."""
    block = draw_block(load_preset("model-1"), 2, 1)
    mass, theta_E = flat(block["subhalo_mass"]), np.concatenate(block["subhalo_theta_E"][1::3])
    theta_E = flat([v for v, m in zip(block["subhalo_theta_E"], block["subhalo_mass"], strict=True) if m is not None])
    assert_allclose(theta_E, 1.2814905676 * np.sqrt(mass / 1e12), rtol=1e-9)


def test_subhalos_at_angular_distances_have_the_einstein_radius_of_lenstronomy():
    content = resolve_preset("fair-hst") | {"conserve_mass": False}
    content["classes"] = {"cdm": {"subhalos": {"profile": "sis", "count": 4, "mass": {"log_uniform": [1e8, 1e10]}}}}
    block = draw_block(load_preset(content), 2, 0)
    lens = LensCosmo(z_lens=0.5, z_source=1.0, cosmo=FlatLambdaCDM(H0=70, Om0=0.3, Ob0=0.05))
    # lenstronomy's constants of nature are rounded to four digits.
    assert_allclose(lens.mass_in_theta_E(flat(block["subhalo_theta_E"])), flat(block["subhalo_mass"]), rtol=1e-3)


def test_truncated_halos_hold_their_mass_by_lenstronomys_deflection_far_away():
    block = draw_block(load_preset(resolve_preset("fair-hst") | {"conserve_mass": False}), 2, 0)
    mass, Rs, r_trunc, alpha_Rs = (flat(block[f"subhalo_{name}"]) for name in ("mass", "Rs", "r_trunc", "alpha_Rs"))
    assert (r_trunc > 2 * Rs).all()
    assert (r_trunc < 10 * Rs).all()
    lens = LensCosmo(z_lens=0.5, z_source=1.0, cosmo=FlatLambdaCDM(H0=70, Om0=0.3, Ob0=0.05))
    far = 1e5
    for m, *halo in zip(mass[:50], Rs, alpha_Rs, r_trunc, strict=False):
        alpha, _ = TNFW().derivatives(far, 0.0, *halo)
        assert_allclose(alpha * far * np.pi * lens.sigma_crit_angle, m, rtol=1e-3)


def published_scale():
    """lenstronomy's ratio of the deflections of a source at 1.0 and at 2.5, in the cosmology of the published data."""
    cosmology = FlatLambdaCDM(H0=69.7, Om0=0.2814, Ob0=0.0464)
    return LensCosmo(z_lens=0.5, z_source=1.0, cosmo=cosmology).beta_double_source_plane(0.5, 1.0, 2.5)


def test_rescaled_masses_deflect_by_the_factor():
    """Deflections of point masses go as the square of their Einstein radius, so each radius has the factor's root."""
    scale = published_scale()
    assert 0.5 < scale < 0.9
    block = draw_block(load_preset("model-2"), 2, 0)
    assert_allclose(block["theta_E"], 1.2814905676 * scale, rtol=1e-9)
    assert_allclose(block["gamma1"], 0.05 * scale, rtol=1e-9)
    pairs = zip(block["subhalo_theta_E"], block["subhalo_mass"], strict=True)
    theta_E = flat([radius for radius, mass in pairs if mass is not None])
    assert_allclose(theta_E, 1.2814905676 * np.sqrt(flat(block["subhalo_mass"]) / 1e12 * scale), rtol=1e-9)
    vortex = block["vortex_theta_E"][~np.isnan(block["vortex_theta_E"])]
    assert_allclose(vortex, 1.2814905676 * np.sqrt(0.03 * scale), rtol=1e-9)


def test_mass_of_a_truncated_halo_is_its_total_and_its_concentration_that_of_the_whole_halo():
    """By integrals over the density, with M200 inside a mean of 200 critical densities."""
    preset = load_preset("fair-hst")
    block = draw_block(preset, 5, 0)
    names = ("mass", "M200", "concentration", "Rs", "r_trunc")
    halos = np.stack([flat([v for v in block[f"subhalo_{name}"] if v is not None]) for name in names], 1)
    cosmology = FlatLambdaCDM(H0=70, Om0=0.3)
    kpc = cosmology.kpc_proper_per_arcmin(0.5).value / 60
    for mass, m200, concentration, scale, cut in halos[:: len(halos) // 8]:
        tau = cut / scale
        whole = integrate.quad(lambda x: x / (1 + x) ** 2, 0, concentration)[0]
        truncated = integrate.quad(lambda x, t=tau: x / (1 + x) ** 2 * t**2 / (t**2 + x**2), 0, np.inf)[0]
        assert_allclose(mass / m200, truncated / whole, rtol=1e-7)
        inside = (
            800 / 3 * np.pi * cosmology.critical_density(0.5).to_value("Msun/kpc3") * (concentration * scale * kpc) ** 3
        )
        assert_allclose(inside, m200, rtol=1e-9)
    mass, m200, concentration, *_ = halos.T
    assert mass.min() > 0.99e8, "the mass function is that of the total mass"
    off = np.log10(concentration / nfw_concentration(m200, 0.5))
    assert abs(off.mean()) < 4 * 0.16 / np.sqrt(len(off))
    assert abs(off.std() / 0.16 - 1) < 4 / np.sqrt(2 * len(off))
    content = resolve_preset("fair-hst")
    del content["classes"]["cdm"]["subhalos"]["concentration_scatter"]
    block = draw_block(load_preset(content | {"conserve_mass": False}), 5, 0)
    m200, concentration = (flat([v for v in block[f"subhalo_{n}"] if v is not None]) for n in ("M200", "concentration"))
    assert_allclose(concentration, nfw_concentration(m200, 0.5), rtol=1e-12)


def test_rescaled_halos_and_power_laws_deflect_by_the_factor():
    """The deflection of a halo goes as alpha_Rs, that of a power law as the Einstein radius to the slope less one."""
    content = resolve_preset("fair-hst") | {"conserve_mass": False}
    content["deflector"] = content["deflector"] | {"profile": "epl", "gamma": {"uniform": [1.7, 2.4]}}
    before, after = (draw_block(preset, 2, 0) for preset in with_and_without_convention(content))
    assert_allclose(flat(after["subhalo_alpha_Rs"]), flat(before["subhalo_alpha_Rs"]) * published_scale(), rtol=1e-9)
    assert_allclose(flat(after["subhalo_Rs"]), flat(before["subhalo_Rs"]), rtol=0)
    assert_allclose((after["theta_E"] / before["theta_E"]) ** (before["gamma"] - 1), published_scale(), rtol=1e-9)


def with_and_without_convention(content):
    """Two presets that draw the same lenses, the second one rescaled."""
    own = {"z_source_convention": 2.5, "convention_cosmology": {"H0": 69.7, "Om0": 0.2814, "Ob0": 0.0464}}
    plain, rescaled = (load_preset(each, trust_code=True) for each in (content, content | own))
    return plain, replace(rescaled, resolved=plain.resolved)


def test_rescaled_isothermal_spheres_deflect_by_the_factor():
    """Their deflection is their Einstein radius, not its square."""
    spheres = {"profile": "sis", "count": 3, "mass": {"log_uniform": [1e7, 1e9]}}
    content = resolve_preset("fair-hst") | {"conserve_mass": False, "classes": {"a": {}, "b": {"subhalos": spheres}}}
    before, after = (draw_block(preset, 2, 0) for preset in with_and_without_convention(content))
    assert_allclose(flat(after["subhalo_theta_E"]), flat(before["subhalo_theta_E"]) * published_scale(), rtol=1e-9)


POPULATIONS = """
def cored(x, y, x0, y0, theta_E, r_core):
    r = ((x - x0)**2 + (y - y0)**2 + r_core**2).sqrt()
    return theta_E * (x - x0) / r, theta_E * (y - y0) / r

def draw(profile, rng, **more):
    return {"profile": profile, "x": rng.normal(0, 1, 3), "y": rng.normal(0, 1, 3), "theta_E": [0.1, 0.2, 0.3]} | more

def own(rng, lens):
    return draw(cored, rng, r_core=[0.1, 0.2, 0.1])

def sis(rng, lens):
    return draw("sis", rng)

def point_mass(rng, lens):
    return draw("point_mass", rng)

def line(rng, lens):
    return draw("line", rng, half_length=[0.5, 0.3, 0.2], phi=[0.1, 1.0, 2.0])
"""


@pytest.mark.parametrize(("name", "power"), [("own", 0), ("sis", 1), ("point_mass", 0.5), ("line", 0.5)])
def test_rescaled_populations_of_ones_own_deflect_by_the_factor(name, power, tmp_path):
    """Whatever their parameters mean; of an own profile they stay."""
    (tmp_path / "p.py").write_text(POPULATIONS)
    content = resolve_preset("fair-hst") | {
        "conserve_mass": False,
        "classes": {"a": {"add": f"{tmp_path}/p.py:{name}"}},
    }
    x, y = torch.tensor([[0.3, -1.1, 2.0]]).double(), torch.tensor([[0.7, 0.2, -1.6]]).double()
    found = []
    for preset in with_and_without_convention(content):
        block = draw_block(preset, 2, 0)
        found.append((block, torch.stack(substructure_deflection(preset, "a", block, torch.float64)(x, y))))
    (before, alpha), (after, rescaled) = found
    assert_allclose(rescaled, alpha * published_scale(), rtol=1e-9)
    radii = [0.1, 0.2, 0.3]
    assert_allclose(before["subhalo_theta_E"][5], radii, rtol=0)
    assert_allclose(after["subhalo_theta_E"][5], np.array(radii) * published_scale() ** power, rtol=1e-9)


def assert_uniform(values, low, high):
    assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-3


def test_angles_are_uniform_over_the_whole_circle():
    blocks = [draw_block(load_preset("model-1"), 7, block) for block in range(10)]
    cdm = [(x, y) for b in blocks for x, y, m in zip(b["subhalo_x"], b["subhalo_y"], b["subhalo_mass"], strict=True)
           if m is not None]  # fmt: skip
    x, y = (np.concatenate(values) for values in zip(*cdm, strict=True))
    assert_uniform(np.arctan2(y, x), -np.pi, np.pi)
    phi = np.concatenate([b["vortex_phi"] for b in blocks])
    assert_uniform(phi[~np.isnan(phi)], 0, 2 * np.pi)


def test_positions_fill_the_square_of_the_image():
    blocks = [draw_block(load_preset(resolve_preset("fair-hst") | {"conserve_mass": False}), 7, b) for b in range(3)]
    for name in ("subhalo_x", "subhalo_y"):
        assert_uniform(np.concatenate([flat(b[name]) for b in blocks]), -2.56, 2.56)


def test_images_of_galaxies_are_turned_and_chosen_evenly(tmp_path):
    np.save(tmp_path / "galaxies.npy", np.ones((3, 20, 20)))
    content = resolve_preset("fair-hst") | {"conserve_mass": False}
    content["source"] = {"profile": "image", "images": str(tmp_path / "galaxies.npy"), "magnitude": 22}
    blocks = [draw_block(load_preset(content), 7, block) for block in range(10)]
    assert_uniform(np.concatenate([b["source_phi"] for b in blocks]), 0, 2 * np.pi)
    assert_uniform(np.concatenate([b["source_image"] for b in blocks]), 0, 1)


def test_stream_of_a_block_is_that_of_stored_datasets():
    """The checksum of the preset's name, the seed, 0 for truths, and the block; Einstein radii are drawn first."""
    preset = load_preset("model-3-noisy")
    expected = np.random.default_rng(np.random.SeedSequence([zlib.crc32(b"model-3-noisy"), 3, 0, 2]))
    drawn = [getattr(preset.deflector, name).sample(expected, 64) for name in ("mass", "e1", "e2", "x", "y", "gamma1")]
    assert_allclose(
        draw_block(preset, 3, 2)["gamma1"], drawn[-1] * deflection_scale(preset, redshifts_of(preset, {})), rtol=0
    )


def own_preset(folder, name="mine", **changes):
    """A preset of a user's own with a PSF from a file, as a YAML file in a folder."""
    folder.mkdir()
    np.save(folder / "psf.npy", np.ones((3, 3)))
    content = {"extends": "fair-hst", "conserve_mass": False, "instrument": {"psf_file": "psf.npy"}} | changes
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return load_preset(folder / f"{name}.yaml")


def test_presets_of_one_name_do_not_share_their_lenses(tmp_path):
    one = own_preset(tmp_path / "a")
    moved = own_preset(tmp_path / "b", description="in another folder")
    other = own_preset(tmp_path / "c", source={"magnitude": 22})
    usurper = own_preset(tmp_path / "d", name="fair-hst")
    first, again, unlike, named = (draw_block(p, 3, 0)["source_x"] for p in (one, moved, other, usurper))
    assert_allclose(first, again, rtol=0)
    assert np.abs(first - unlike).min() > 0
    assert np.abs(draw_block(load_preset("fair-hst"), 3, 0)["source_x"] - named).min() > 0
    assert load_preset("model-1:axion").key == (zlib.crc32(b"model-1:axion"),)


def test_parameters_that_a_population_gives_for_some_images_alone_are_refused(tmp_path):
    (tmp_path / "own.py").write_text(
        "def halo(x, y, x0, y0, theta_E):\n    return theta_E * (x - x0), theta_E * (y - y0)\n\n"
        "def some(rng, lens):\n    many = {'profile': halo, 'x': [0.5, 1], 'y': [1, 2], 'theta_E': [0.25, 0.5]}\n"
        "    return many if rng.uniform() < 0.5 else {'profile': halo, 'x': [], 'y': []}\n\n"
        "def fewer(rng, lens):\n    many = some(rng, lens)\n"
        "    return many if rng.uniform() < 0.5 else {name: [0.5] for name in ('x', 'y')} | {'profile': halo}\n"
    )
    preset = load_preset("model-1")
    for name in ("some", "fewer"):
        own = replace(preset, classes={"own": DarkMatter(add=f"{tmp_path}/own.py:{name}")})
        if name == "some":
            assert {len(x) for x in draw_block(own, 3, 0)["subhalo_theta_E"]} == {0, 2}
        else:
            with pytest.raises(
                PresetError, match=r"own\.py:fewer: theta_E is given for some images and not for others"
            ):
                draw_block(own, 3, 0)
