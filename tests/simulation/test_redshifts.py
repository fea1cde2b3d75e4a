"""Each image has redshifts of its own, and all that follows from masses and distances is at these."""

import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from astropy import constants, units
from astropy.cosmology import FlatLambdaCDM
from lenstronomy.Cosmo.lens_cosmo import LensCosmo
from numpy.testing import assert_allclose
from scipy import stats

from darklens.errors import DataError, PresetError
from darklens.physics import (
    critical_surface_density,
    deflection_rescaling,
    nfw_concentration,
    nfw_mass_before_truncation,
    nfw_scale_radius,
    truncated_nfw_mass,
)
from darklens.simulation import Simulator, from_frame, load_preset
from darklens.simulation.columns import to_frame
from darklens.simulation.draw import draw_block
from darklens.simulation.library import resolve_preset
from darklens.simulation.mass import mean_outward_deflection
from darklens.simulation.priors import Constant, TruncatedNormal, Uniform
from darklens.simulation.redshifts import LEAST_SEPARATION, LOWEST_REDSHIFT, draw_redshifts, redshifts_of
from darklens.simulation.scene import main_deflection, substructure_deflection

COSMO = FlatLambdaCDM(H0=70, Om0=0.3, Ob0=0.05)
VARYING = {"z_lens": {"uniform": [0.2, 0.8]}, "z_source": {"truncated_normal": [1.5, 0.5, 0.6, 3.0]}}
MASSES = {"log_uniform": [1e8, 1e10]}


def varying(base="fair-hst", **changes):
    return load_preset(resolve_preset(base) | VARYING | {"name": "varying"} | changes, trust_code=True)


def theta_E(mass, z_lens, z_source):
    """Einstein radius of one mass in arcsec, with astropy's distances and constants."""
    near, far = COSMO.angular_diameter_distance(z_lens), COSMO.angular_diameter_distance(z_source)
    ratio = COSMO.angular_diameter_distance(z_lens, z_source) / (near * far)
    angle = np.sqrt((4 * constants.G * mass * units.Msun / constants.c**2 * ratio).to_value("")) * units.rad
    return angle.to_value("arcsec")


def test_catalogue_has_the_redshifts_only_where_they_vary():
    rows = Simulator(varying(), seed=1).catalog(640)
    assert rows["z_lens"].n_unique() == rows["z_source"].n_unique() == 640
    assert "z_lens" not in Simulator("fair-hst").catalog(1).columns
    one = Simulator(varying(z_lens=0.5), seed=1).catalog(64)
    assert set(one["z_lens"]) == {0.5}
    assert one["z_source"].n_unique() == 64
    # Behind all lenses, sources and their lenses are drawn from the priors as they are.
    behind = rows.filter(pl.col("z_source") > 0.9)
    assert stats.kstest(behind["z_lens"], stats.uniform(0.2, 0.6).cdf).pvalue > 1e-3
    law = stats.truncnorm((0.9 - 1.5) / 0.5, (3.0 - 1.5) / 0.5, 1.5, 0.5)
    assert stats.kstest(behind["z_source"], law.cdf).pvalue > 1e-3


def test_numbers_draw_what_they_drew():
    """Redshifts take no random numbers where they do not vary, whatever a number is written as."""
    own = load_preset("fair-hst")
    fixed = load_preset(resolve_preset("fair-hst") | {"z_source": "1.0"})
    assert (fixed.z_source, fixed.redshifts_vary) == (1.0, False)
    drawn = to_frame(draw_block(replace(fixed, resolved=own.resolved), 3, 1))
    assert drawn.equals(to_frame(draw_block(own, 3, 1)))


@pytest.mark.parametrize("profile", ["sis", "point_mass"])
def test_einstein_radius_of_each_subhalo_is_that_of_astropy_at_the_redshifts_of_its_image(profile):
    subhalos = {"profile": profile, "count": 3, "mass": MASSES}
    block = draw_block(varying(classes={"a": {"subhalos": subhalos}, "b": {}}, conserve_mass=False), 5, 2)
    for i in range(0, 64, 2):
        z = float(block["z_lens"][i]), float(block["z_source"][i])
        for mass, radius in zip(block["subhalo_mass"][i], block["subhalo_theta_E"][i], strict=True):
            assert_allclose(radius, theta_E(mass, *z), rtol=1e-9)
            # lenstronomy's constants of nature are rounded to four digits.
            assert_allclose(LensCosmo(*z, cosmo=COSMO).mass_in_theta_E(radius), mass, rtol=1e-3)


def test_main_deflector_and_vortex_of_a_mass_have_the_einstein_radius_of_their_image():
    content = resolve_preset("fair-hst")
    deflector = {k: v for k, v in content["deflector"].items() if k != "theta_E"} | {"mass": 5e11}
    classes = {"axion": {"vortex": content["classes"]["axion"]["vortex"]}}
    block = draw_block(varying(deflector=deflector, conserve_mass=False, classes=classes), 5, 2)
    z = block["z_lens"], block["z_source"]
    assert_allclose(block["theta_E"], theta_E(5e11, *z), rtol=1e-9)
    assert_allclose(block["vortex_theta_E"], theta_E(3e10, *z), rtol=1e-9)


def test_published_luminosity_distances_are_those_of_each_image():
    block = draw_block(varying("model-1"), 5, 2)
    near, far = (COSMO.luminosity_distance(block[name]) for name in ("z_lens", "z_source"))
    angle = np.sqrt((4 * constants.G * 1e12 * units.Msun / constants.c**2 * (far - near) / (far * near)).to_value(""))
    assert_allclose(block["theta_E"], angle * 206265, rtol=1e-9)


def test_truncated_halos_follow_from_mass_and_redshifts_of_their_image():
    """One image at a time, with numbers in the place of arrays."""
    classes = {"cdm": resolve_preset("fair-hst")["classes"]["cdm"] | {}}
    del classes["cdm"]["subhalos"]["concentration_scatter"]
    block = draw_block(varying(conserve_mass=False, classes=classes), 5, 2)
    for i in range(0, 64, 7):
        z_lens, z_source = float(block["z_lens"][i]), float(block["z_source"][i])
        mass, Rs, r_trunc, alpha_Rs, M200, concentration = (
            torch.tensor(block[f"subhalo_{n}"][i])
            for n in ("mass", "Rs", "r_trunc", "alpha_Rs", "M200", "concentration")
        )
        assert_allclose(
            truncated_nfw_mass(Rs, alpha_Rs, r_trunc, critical_surface_density(z_lens, z_source)), mass, rtol=1e-9
        )
        whole, c = nfw_mass_before_truncation(mass, r_trunc / Rs, lambda m, z=z_lens: nfw_concentration(m, z))
        assert_allclose(M200, whole, rtol=1e-9)
        assert_allclose(concentration, c, rtol=1e-9)
        assert_allclose(Rs, nfw_scale_radius(whole, c, z_lens), rtol=1e-9)
        # Of lenstronomy the same halo before truncation; its constants of nature are rounded to four digits.
        theirs = LensCosmo(z_lens, z_source, cosmo=COSMO).nfw_physical2angle(float(whole[0]), float(c[0]))
        assert_allclose((float(Rs[0]), float(alpha_Rs[0])), theirs, rtol=1e-3)


def test_mass_inside_the_ring_is_kept_at_redshifts_that_vary():
    preset = varying()
    free = replace(preset, conserve_mass=False)
    before, after = draw_block(free, 2, 0), draw_block(preset, 2, 0)
    chosen = np.flatnonzero(after["label"] == "cdm")
    keep = lambda rows: {k: v[chosen] if isinstance(v, np.ndarray) else [v[i] for i in chosen] for k, v in rows.items()}  # noqa: E731
    before, after = keep(before), keep(after)
    ring = after | {"theta_E": before["theta_E"]}
    main = mean_outward_deflection(main_deflection(preset, after, torch.float64, shear=False), ring, 512)
    added = mean_outward_deflection(substructure_deflection(preset, "cdm", after, torch.float64), ring, 512)
    whole = mean_outward_deflection(main_deflection(preset, before, torch.float64, shear=False), ring, 512)
    assert_allclose(main + added, whole, rtol=1e-4)
    assert np.ptp(added / whole) > 0.01


CONVENTION = {"z_source_convention": 2.5, "convention_cosmology": {"H0": 69.7, "Om0": 0.2814, "Ob0": 0.0464}}


def test_convention_rescales_by_the_redshifts_of_each_image():
    cosmology = FlatLambdaCDM(H0=69.7, Om0=0.2814, Ob0=0.0464)
    spheres = {"profile": "sis", "count": 3, "mass": MASSES}
    plain = varying(conserve_mass=False, classes={"a": {}, "b": {"subhalos": spheres}})
    rescaled = replace(varying(conserve_mass=False, classes={"a": {}, "b": {"subhalos": spheres}}, **CONVENTION),
                       resolved=plain.resolved)  # fmt: skip
    before, after = draw_block(plain, 2, 0), draw_block(rescaled, 2, 0)
    expected = np.array([
        LensCosmo(z, z_s, cosmo=cosmology).beta_double_source_plane(z, z_s, 2.5)
        for z, z_s in zip(after["z_lens"], after["z_source"], strict=True)
    ])  # fmt: skip
    assert_allclose(after["theta_E"], before["theta_E"] * expected, rtol=1e-9)
    assert_allclose(after["gamma1"], before["gamma1"] * expected, rtol=1e-9)
    for i in range(1, 64, 2):
        assert_allclose(after["subhalo_theta_E"][i], before["subhalo_theta_E"][i] * expected[i], rtol=1e-9)


OWN = """
def bump(x, y, x0, y0, theta_E):
    dx, dy = x - x0, y - y0
    r = (dx**2 + dy**2 + 0.01).sqrt()
    return theta_E * dx / r, theta_E * dy / r

def draw(rng, lens):
    return {"profile": bump, "x": [0.5], "y": [1.0], "theta_E": [0.1 * lens["z_lens"] / lens["z_source"]]}
"""


def test_rows_are_rendered_at_their_own_redshifts(tmp_path):
    """Deflections of a user's own are rescaled when rows are rendered, from the redshifts in the catalogue."""
    (tmp_path / "own.py").write_text(OWN)
    preset = varying(conserve_mass=False, classes={"own": {"add": f"{tmp_path}/own.py:draw"}}, **CONVENTION)
    simulator = Simulator(preset, seed=2)
    frame = simulator.catalog(4)
    rows = from_frame(frame)
    assert_allclose([v[0] for v in rows["subhalo_theta_E"]], 0.1 * rows["z_lens"] / rows["z_source"], rtol=1e-12)
    x, y = torch.tensor([[1.5]]).double(), torch.tensor([[1.0]]).double()
    alpha, _ = substructure_deflection(preset, "own", rows, torch.float64)(x, y)
    scale = [deflection_rescaling(*z, 2.5, preset.convention_cosmology) for z in frame["z_lens", "z_source"].rows()]
    plain = [v[0] / np.sqrt(1.01) for v in rows["subhalo_theta_E"]]
    assert_allclose(alpha[:, 0], np.array(scale) * plain, rtol=1e-9)
    images = simulator.render(frame, noise=False)
    alone = torch.cat([simulator.render(frame[i], noise=False) for i in range(4)])
    assert_allclose(images, alone, rtol=1e-5)
    moved = simulator.render(frame.with_columns(z_source=pl.col("z_source") + 0.5), noise=False)
    assert np.abs(moved - images).max() > 1e-3 * images.max()
    with pytest.raises(DataError, match="no column z_source"):
        simulator.render(frame.drop("z_source"))
    with pytest.raises(DataError, match="image 0: z_source must be above z_lens, and both above zero: z_lens=5"):
        simulator.render(frame.with_columns(z_lens=pl.lit(5.0)))


def test_rendered_rows_of_a_dark_matter_are_those_of_their_blocks():
    simulator = Simulator(varying(), seed=4)
    rows = simulator.catalog(6)
    assert set(rows["label"]) == {"no_sub", "cdm", "axion"}
    assert simulator.render(rows).shape == (6, 1, 64, 64)


def test_lenses_in_front_of_their_source_alone_are_drawn():
    """What is drawn is the two priors, given that the source lies far enough behind."""
    preset = varying(z_lens={"uniform": [0.0, 1.0]}, z_source={"uniform": [0.0, 1.0]})
    z = draw_redshifts(preset, np.random.default_rng(0), 20_000)
    assert z.lens.min() >= LOWEST_REDSHIFT
    assert (z.source - z.lens).min() >= LEAST_SEPARATION
    low, width = LOWEST_REDSHIFT, 1 - LEAST_SEPARATION - LOWEST_REDSHIFT
    # The density of the lens's redshift falls as the interval that is left behind it.
    assert stats.kstest(z.lens, lambda x: 1 - ((low + width - x) / width) ** 2).pvalue > 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"z_lens": Uniform(1.0, 1.5)}, "z_source must be above z_lens by 0.05, and z_lens at least 0.01: of what the"),
        (
            {"z_lens": Uniform(-0.5, 0.5)},
            "z_lens must be above zero; its lowest value is -0.5; a truncated_normal has bounds",
        ),
        ({"z_lens": Uniform(0.2, 0.4), "z_source_convention": 0.1}, "z_source must be above z_lens by 0.05"),
        ({"z_source": TruncatedNormal(1, 1, 0.1, 0.52)}, "z_source must be above z_lens by 0.05"),
    ],
)
def test_impossible_redshifts_are_refused(changes, message):
    with pytest.raises(PresetError, match=re.escape(message)):
        replace(load_preset("fair-hst"), **changes)
    assert Constant(0.5).lowest == 0.5


def test_redshifts_of_rows_are_those_of_the_preset_where_they_do_not_vary():
    assert redshifts_of(load_preset("fair-hst"), {}) == (0.5, 1.0)
