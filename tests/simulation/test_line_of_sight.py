"""Halos along the line of sight: their number, masses, redshifts and what they do to images."""

import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from astropy.cosmology import FlatLambdaCDM
from numpy.testing import assert_allclose
from scipy import integrate, stats

from darklens.errors import DataError, PresetError
from darklens.physics import nfw_concentration, nfw_scale_radius, truncated_nfw_mass
from darklens.physics.cosmology import critical_surface_density
from darklens.physics.halos import halo_mass_function
from darklens.physics.line_of_sight import double_cone_width
from darklens.simulation import Simulator, load_preset
from darklens.simulation.columns import select
from darklens.simulation.draw import draw_block
from darklens.simulation.library import resolve_preset
from darklens.simulation.line_of_sight import NEAREST, draw_line_of_sight
from darklens.simulation.mass import mean_outward_deflection
from darklens.simulation.presets import LineOfSight
from darklens.simulation.redshifts import Redshifts
from darklens.simulation.scene import main_deflection, substructure_deflection

COSMO = FlatLambdaCDM(H0=70, Om0=0.3)
HALOS = {"mass": [1e8, 1e10], "concentration_scatter": 0.16}
RANGE = LineOfSight((1e8, 1e10))


def preset_with(**classes):
    content = resolve_preset("fair-hst")
    return load_preset(content | {"name": "sight", "classes": {"no_sub": {}} | classes})


def density(z, z_lens, z_source):
    """Halos of 1e8 to 1e10 M☉ per redshift in the field of fair-hst, with astropy's volumes and distances."""
    distance = COSMO.angular_diameter_distance
    side = 5.12 / 3600 * np.pi / 180
    if z > z_lens:
        beta = distance(z_lens, z) * distance(z_source) / (distance(z) * distance(z_lens, z_source))
        side *= 1 - float(beta)
    function = integrate.quad(lambda m: halo_mass_function(np.exp(np.array(m)), z), np.log(1e8), np.log(1e10))[0]
    return COSMO.differential_comoving_volume(z).value * side**2 * function


def mean_number(z_lens, z_source, upper=None):
    """The integral over redshift up to a limit, in front of the lens and behind it."""
    upper = z_source - NEAREST if upper is None else upper
    parts = [(NEAREST, min(upper, z_lens)), (z_lens, max(upper, z_lens))]
    return sum(integrate.quad(density, a, b, (z_lens, z_source), epsrel=1e-4)[0] for a, b in parts)


def drawn(z_lens, z_source, images=1500, seed=0, halos=RANGE):
    preset = load_preset("fair-hst")
    rng = np.random.default_rng(seed)
    return draw_line_of_sight(preset, halos, rng, Redshifts(z_lens, z_source), images=images)


def flat(column):
    return np.concatenate([values for values in column if values is not None])


@pytest.mark.parametrize(("z_lens", "z_source"), [(0.5, 1.0), (0.3, 2.5)])
def test_number_of_halos_is_a_poisson_one_about_the_integral_of_the_mass_function(z_lens, z_source):
    counts = np.array([len(x) for x in drawn(z_lens, z_source)["los_x"]])
    expected = mean_number(z_lens, z_source)
    assert_allclose(counts.mean(), expected, atol=4 * np.sqrt(expected / len(counts)))
    assert_allclose(counts.var() / counts.mean(), 1, atol=5 * np.sqrt(2 / len(counts)))


def test_number_grows_with_the_redshift_of_the_source():
    """As in Despali et al. (2018) and Şengül et al. (2020): lines of sight are longer, and the cone is wider."""
    numbers = [np.mean([len(x) for x in drawn(0.5, z, images=300)["los_x"]]) for z in (0.8, 1.2, 2.0, 3.0)]
    assert (np.diff(numbers) > 0).all()
    assert numbers[-1] > 1.3 * numbers[0]


def test_redshifts_that_vary_give_each_image_its_own_number():
    z = Redshifts(np.repeat([0.2, 0.8], 600), np.repeat([0.8, 2.5], 600))
    rows = drawn(*z, images=1200)
    counts = np.array([len(x) for x in rows["los_x"]])
    for own, pair in ((counts[:600], (0.2, 0.8)), (counts[600:], (0.8, 2.5))):
        expected = mean_number(*pair)
        assert_allclose(own.mean(), expected, atol=4 * np.sqrt(expected / 600))
    assert max(flat(rows["los_z"][:600])) < 0.8 < max(flat(rows["los_z"][600:])) < 2.5


def test_redshifts_follow_the_volume_of_the_double_cone_and_masses_the_mass_function():
    rows = drawn(0.5, 1.0)
    z = flat(rows["los_z"])
    whole = mean_number(0.5, 1.0)
    for limit in (0.3, 0.5, 0.6, 0.8):
        share = mean_number(0.5, 1.0, limit) / whole
        assert_allclose((z < limit).mean(), share, atol=4 * np.sqrt(share * (1 - share) / len(z)))
    near = np.abs(z - 0.5) < 0.05
    mass = flat(rows["los_M200"])[near]
    grid = np.linspace(np.log(1e8), np.log(1e10), 200)
    cumulative = integrate.cumulative_trapezoid(halo_mass_function(np.exp(grid), 0.5), grid, initial=0)
    law = lambda m: np.interp(np.log(m), grid, cumulative / cumulative[-1])  # noqa: E731
    assert stats.kstest(mass, law).pvalue > 1e-3


def test_amplitude_multiplies_the_number_and_half_width_the_field():
    plain = flat(drawn(0.5, 1.0, images=400)["los_x"])
    twice = flat(drawn(0.5, 1.0, images=400, halos=replace(RANGE, amplitude=2.0))["los_x"])
    narrow = flat(drawn(0.5, 1.0, images=400, halos=replace(RANGE, half_width=1.28))["los_x"])
    assert_allclose([len(twice) / len(plain), len(narrow) / len(plain)], [2, 0.25], rtol=0.1)
    assert np.abs(narrow).max() < 1.28 < np.abs(plain).max() < 2.56


def test_halos_are_those_of_their_redshift_seen_in_the_lens_plane():
    rows = drawn(0.5, 1.0, images=20)
    z, mass, M200, c, Rs, cut, alpha = (
        flat(rows[f"los_{n}"]) for n in ("z", "mass", "M200", "concentration", "Rs", "r_trunc", "alpha_Rs")
    )
    width, behind = double_cone_width(z, 0.5, 1.0), z > 0.5
    assert_allclose(c, nfw_concentration(M200, z), rtol=1e-9)
    assert_allclose(Rs * np.where(behind, width, 1), nfw_scale_radius(M200, c, z), rtol=1e-9)
    assert_allclose(cut, c * Rs, rtol=1e-9)
    sigma_crit = torch.from_numpy(critical_surface_density(z, np.full_like(z, 1.0)))
    own = (torch.from_numpy(v) for v in (Rs * np.where(behind, width, 1), alpha / np.where(behind, 1, width)))
    Rs_own, alpha_own = own
    total = truncated_nfw_mass(Rs_own, alpha_own, torch.from_numpy(c) * Rs_own, sigma_crit)
    assert_allclose(total, mass, rtol=1e-9)
    assert (np.abs(mass / M200 - 1.05) < 0.1).all(), "at r200, a truncated halo has about its M200"


def test_mass_inside_the_ring_is_kept_with_subhalos_and_halos_along_the_line_of_sight():
    subhalos = resolve_preset("fair-hst")["classes"]["cdm"]
    preset = preset_with(both=subhalos | {"line_of_sight": HALOS})
    before, after = draw_block(replace(preset, conserve_mass=False), 2, 0), draw_block(preset, 2, 0)
    chosen = np.flatnonzero(after["label"] == "both")
    before, after = select(before, chosen), select(after, chosen)
    ring = after | {"theta_E": before["theta_E"]}
    whole, main = (
        mean_outward_deflection(main_deflection(preset, rows, torch.float64, shear=False), ring, 512)
        for rows in (before, after)
    )
    added = mean_outward_deflection(substructure_deflection(preset, "both", after, torch.float64), ring, 512)
    assert_allclose(main + added, whole, rtol=1e-4)
    alone = {k: v if not k.startswith("los_") else [x[:0] for x in v] for k, v in after.items()}
    without = mean_outward_deflection(substructure_deflection(preset, "both", alone, torch.float64), ring, 512)
    assert (added > without).all()


@pytest.mark.parametrize("other", ["subhalos", "vortex", None])
def test_classes_with_other_substructure_are_drawn_and_rendered(other):
    shipped = resolve_preset("fair-hst")["classes"]
    beside = {"subhalos": shipped["cdm"], "vortex": shipped["axion"], None: {}}[other]
    simulator = Simulator(preset_with(seen=beside | {"line_of_sight": HALOS}), seed=1)
    rows = simulator.catalog(4)
    images = simulator.render(rows, noise=False)
    weaker = rows.with_columns(pl.col("los_alpha_Rs").list.eval(pl.element() * 0))
    changed = np.abs(np.asarray(simulator.render(weaker, noise=False)) - np.asarray(images)).max((1, 2, 3))
    assert (changed[rows["label"].to_numpy() == "seen"] > 0).all()
    assert (changed[rows["label"].to_numpy() == "no_sub"] == 0).all()
    with pytest.raises(DataError, match="no column los_Rs"):
        simulator.render(rows.drop("los_Rs"))


def test_other_truths_are_drawn_as_without_them():
    shipped = resolve_preset("fair-hst")["classes"]["cdm"]
    plain = preset_with(cdm=shipped)
    more = replace(preset_with(cdm=shipped | {"line_of_sight": HALOS}), resolved=plain.resolved)
    first, second = draw_block(plain, 1, 0), draw_block(more, 1, 0)
    for a, b in zip(first["subhalo_mass"], second["subhalo_mass"], strict=True):
        assert (a is b is None) or np.array_equal(a, b)


@pytest.mark.parametrize(
    ("halos", "message"),
    [
        ({"mass": [1e3, 1e9]}, "line_of_sight.mass is a range of M☉ in 10000 to 1e+15; got 1000, 1e+09"),
        ({"mass": [1e9, 1e8]}, "classes.seen.line_of_sight.mass: the lower bound must be below the upper one"),
        ({"mass": 1e9}, "classes.seen.line_of_sight.mass: expected the lowest and the highest"),
        ({"masses": [1e8, 1e9]}, "unknown key classes.seen.line_of_sight.masses; did you mean 'mass'?"),
        (HALOS | {"amplitude": 0}, "line_of_sight.amplitude must be above zero; got 0.0"),
        (HALOS | {"half_width": -1}, "line_of_sight.half_width must be above zero; got -1.0"),
        (HALOS | {"concentration_scatter": 1}, "line_of_sight.concentration_scatter is in dex, from 0 to 1; got 1.0"),
    ],
)
def test_impossible_halos_are_refused(halos, message):
    with pytest.raises(PresetError, match=re.escape(message)):
        preset_with(seen={"line_of_sight": halos})


def test_halos_do_not_go_with_a_convention_nor_without_matter():
    preset = preset_with(seen={"line_of_sight": HALOS})
    with pytest.raises(PresetError, match="line_of_sight does not go with a z_source_convention"):
        replace(preset, z_source_convention=2.5)
    with pytest.raises(PresetError, match="line_of_sight needs a cosmology with matter"):
        replace(preset, cosmology=preset.cosmology._replace(Om0=0.0, Ob0=0.0))
