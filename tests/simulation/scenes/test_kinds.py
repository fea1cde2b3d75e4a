"""Kinds of objects: what each is made of, and kinds of one's own."""

import numpy as np
import pytest

from darklens.errors import PresetError
from darklens.simulation import load_preset
from darklens.simulation.priors import Constant
from darklens.simulation.scenes.kinds import KINDS, find_kind
from darklens.simulation.scenes.objects import LIGHT, MASS, SHAPE
from darklens.simulation.scenes.sky import Sky

IMAGES = 24


@pytest.fixture(scope="module")
def sky():
    return Sky(load_preset("finding-hsc"))


def drawn(sky, name, seed=0, **options):
    return KINDS[name](sky.afresh(), np.random.default_rng(seed), IMAGES, **options).columns()


def flat(columns, name):
    return np.concatenate(columns[name])


@pytest.mark.parametrize("name", KINDS)
def test_columns_are_whole_finite_and_follow_the_seed(sky, name):
    found, again, other = drawn(sky, name), drawn(sky, name), drawn(sky, name, seed=1)
    for column, values in found.items():
        assert len(values) == IMAGES, column
        joined = np.concatenate(values) if isinstance(values, list) else values
        assert np.isfinite(joined).all(), column
        same = np.concatenate(again[column]) if isinstance(values, list) else again[column]
        assert np.array_equal(joined, same), column
    assert len(flat(found, "light_x")) != len(flat(other, "light_x")) or not np.array_equal(
        flat(found, "light_x"), flat(other, "light_x")
    )
    names = {*LIGHT, "magnitude_g", "magnitude_r", "magnitude_i"}
    assert {column.removeprefix("light_") for column in found if column.startswith("light_")} == names
    ellipticity = np.hypot(flat(found, "light_e1"), flat(found, "light_e2"))
    assert ellipticity.max() < 1
    assert flat(found, "light_R_sersic").min() > 0


def test_lenses_deflect_and_look_alikes_do_not(sky):
    for name in KINDS:
        found = drawn(sky, name)
        assert all(column in found for column in MASS) == name.startswith("lens"), name
        assert ("source_x" in found) == name.startswith("lens"), name
        if not name.startswith("lens"):
            assert not flat(found, "light_lensed").any(), name


def test_the_mass_of_a_lens_follows_its_light(sky):
    rounds = [drawn(sky, "lens", seed, shape_scatter=Constant(0.0)) for seed in range(3)]
    for found in rounds:
        light = np.stack([found["galaxy_e1"], found["galaxy_e2"]])
        mass = np.stack([found["e1"], found["e2"]])
        flattened = np.hypot(*light) > 0.7 / 1.3
        assert mass[:, ~flattened] == pytest.approx(light[:, ~flattened])
        assert np.hypot(*mass).max() < 0.7 / 1.3 + 1e-9
    scattered = drawn(sky, "lens")
    assert np.std(scattered["e1"] - scattered["galaxy_e1"]) == pytest.approx(0.04, rel=0.5)
    assert np.array_equal(scattered["lens_x"], scattered["galaxy_x"])


def test_sources_of_lenses_are_within_the_einstein_radius_and_behind(sky):
    found = drawn(sky, "lens")
    beta = np.hypot(found["source_x"] - found["lens_x"], found["source_y"] - found["lens_y"])
    assert (beta < found["theta_E"]).all()
    assert (found["z_source"] > found["z_lens"]).all()
    assert np.array_equal(found["z_source"], found["source_z"])


def test_clumps_are_lensed_with_their_source_and_have_its_colour(sky):
    found = drawn(sky, "lens", clumps=Constant(40.0), clump_flux=Constant(0.01))
    for i in range(IMAGES):
        clumps = found["light_lensed"][i] == 1
        assert clumps.sum() > 10
        away = np.hypot(found["light_x"][i] - found["source_x"][i], found["light_y"][i] - found["source_y"][i])[clumps]
        assert away.max() < 5 * found["source_R_sersic"][i]
        fainter = found["light_magnitude_g"][i][clumps] - found["source_magnitude_g"][i]
        assert fainter == pytest.approx(5.0)
    none = drawn(sky, "lens", clumps=Constant(0.0))
    assert not flat(none, "light_lensed").any()


def test_a_lensed_quasar_has_a_colour_and_the_brightness_of_its_images(sky):
    found = drawn(sky, "lensed_quasar", host_excess=Constant(1.0))
    counts = [len(x) for x in found["point_x"]]
    assert set(counts) <= {1, 2, 3, 4, 5}
    assert np.mean(np.array(counts) >= 2) > 0.9
    colours = [found["point_magnitude_g"][i] - found["point_magnitude_i"][i] for i in range(IMAGES)]
    assert all(np.ptp(each) < 1e-9 for each in colours)
    for i in range(IMAGES):
        total = -2.5 * np.log10((10 ** (-0.4 * found["point_magnitude_i"][i])).sum())
        magnified = found["source_magnitude_i"][i] - 1 - total  # -2.5 log of the quasar's magnification
        assert 10 ** (0.4 * magnified) > 1


def test_members_of_a_lensing_group_deflect_where_they_shine(sky):
    found = drawn(sky, "lensing_group", members=Constant(5.0))
    for i in range(IMAGES):
        for x in found["perturber_x"][i]:
            assert x in found["light_x"][i]
    assert flat(found, "perturber_theta_E").max() < found["theta_E"].max()


def test_a_spiral_has_arms_a_red_bulge_and_a_blue_disc(sky):
    found = drawn(sky, "spiral", arm_amplitude=Constant(0.8), bulge=Constant(0.2))
    discs = [np.flatnonzero(amplitude > 0) for amplitude in found["light_arm_amplitude"]]
    assert all(len(disc) == 1 for disc in discs)
    for i, (disc,) in enumerate(discs):
        bulge = found["galaxy_magnitude_g"][i] - found["galaxy_magnitude_i"][i]
        assert found["light_magnitude_g"][i][disc] - found["light_magnitude_i"][i][disc] < bulge
        share = 10 ** (-0.4 * (found["galaxy_magnitude_i"][i] - found["light_magnitude_i"][i][disc]))
        assert share == pytest.approx(0.2 / 0.8)
    assert set(flat(found, "light_arm_number")) - {0.0} <= {2.0, 3.0, 4.0}


def test_an_edge_on_disc_is_thin_and_a_ring_is_a_ring(sky):
    thin = drawn(sky, "edge_on", axis_ratio=Constant(0.15))
    e = [np.hypot(thin["light_e1"][i], thin["light_e2"][i]).max() for i in range(IMAGES)]
    assert np.array(e).min() >= (1 - 0.15) / (1 + 0.15) - 1e-9
    rings = drawn(sky, "ring", radius=Constant(1.3), width=Constant(0.2))
    for i in range(IMAGES):
        (which,) = np.flatnonzero(rings["light_ring_width"][i] > 0)
        assert rings["light_R_sersic"][i][which] == 1.3
        assert rings["light_ring_width"][i][which] == pytest.approx(0.26)


def test_pairs_are_as_far_apart_as_is_said(sky):
    found = drawn(sky, "quasar_pair", separation=Constant(2.0), magnitude=Constant(20.0), excess=Constant(0.7))
    for i in range(IMAGES):
        assert np.hypot(*(np.diff(found[f"point_{axis}"][i])[0] for axis in "xy")) == pytest.approx(2.0)
        assert found["point_magnitude_i"][i] == pytest.approx([20.0, 20.7])
    close = drawn(sky, "chance_pair", distance=Constant(1.2))
    for i in range(IMAGES):
        away = np.hypot(close["light_x"][i] - close["galaxy_x"][i], close["light_y"][i] - close["galaxy_y"][i])
        assert np.isclose(away, 1.2).any()


def test_a_star_has_two_thin_spikes_across_each_other(sky):
    found = drawn(sky, "star", spikes=Constant(0.1))
    for i in range(IMAGES):
        thin = np.flatnonzero(np.hypot(found["light_e1"][i], found["light_e2"][i]) > 0.9)
        first, second = (np.array([found[f"light_{e}"][i][k] for e in ("e1", "e2")]) for k in thin)
        assert first == pytest.approx(-second)
        flux = (10 ** (-0.4 * found["light_magnitude_i"][i][thin])).sum()
        assert flux == pytest.approx(0.1 * 10 ** (-0.4 * found["point_magnitude_i"][i][0]))


def test_options_and_kinds_that_there_are_not_are_named():
    with pytest.raises(PresetError, match=r"classes\.a\.objects: no 'lense'; there are lens, "):
        find_kind("lense", {}, "classes.a")
    with pytest.raises(PresetError, match=r"classes\.a\.options: galaxy has no 'clumps'; it takes offset"):
        find_kind("galaxy", {"clumps": Constant(1.0)}, "classes.a")


def test_shapes_have_their_columns():
    assert set(SHAPE) < set(LIGHT)
