"""Galaxies that are measured, and sources behind them, against their truths."""

import numpy as np
import pytest
import torch

from darklens.errors import PresetError
from darklens.simulation import Simulator, load_preset
from darklens.simulation.columns import select
from darklens.simulation.scenes.painting import Hosts, Painter, adapted, sky_noise_of
from darklens.simulation.scenes.sky import Galaxies

BANDS = {
    "g": {"filter": "hsc2017-g", "zero_point": 27, "psf_fwhm": 0.77, "psf_beta": 3.5, "depth": 26.5, "gain": 700},
    "i": {"filter": "hsc2017-i", "zero_point": 26.2, "psf_fwhm": 0.58, "depth": 25.9, "gain": 1000},
}
CONTENT = {
    "name": "hosts", "description": "for tests", "pixels": 48, "pixel_scale": 0.168, "supersampling": 2,
    "detection_band": "i", "bands": BANDS, "rules": {"theta_E": [0.6, 3]},
    "classes": {"galaxy": {"objects": "galaxy"}, "lens": {"objects": "lens"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def simulator():
    return Simulator(load_preset(CONTENT), seed=3)


@pytest.fixture(scope="module")
def painter(simulator):
    return Painter(simulator.preset)


@pytest.fixture(scope="module")
def galaxies(simulator):
    """Images of early-type galaxies, and the columns of their truths."""
    columns = simulator.renderer.draw(3, 0)
    columns = select(columns, np.flatnonzero(columns["object"] == "galaxy"))
    return simulator.renderer.images(columns, 3, noise=True).double(), columns


def rng(seed=0):
    return np.random.default_rng(seed)


def test_galaxies_are_measured_as_they_are(painter, galaxies):
    images, columns = galaxies
    kernels = painter.kernels(columns, {})
    found = painter.measure(images, sky_noise_of(images).expand_as(images), kernels)
    bright = found.snr > 100
    assert bright.sum() > 15
    for i, band in enumerate("gi"):
        off = (found.magnitudes[:, i] - columns[f"galaxy_magnitude_{band}"])[bright]
        assert abs(np.median(off)) < 0.06, band
        assert np.quantile(np.abs(off), 0.8) < 0.25, band
    assert np.median(np.abs(np.log(found.R_sersic / columns["galaxy_R_sersic"]))[bright]) < 0.15
    assert np.median(np.abs(found.x - columns["galaxy_x"])[bright]) < 0.01
    assert np.median(np.abs(found.y - columns["galaxy_y"])[bright]) < 0.01
    for name in ("e1", "e2"):
        assert np.median(np.abs(getattr(found, name) - columns[f"galaxy_{name}"])[bright]) < 0.02


def test_a_galaxy_beside_the_centre_is_found_there(painter, simulator, galaxies):
    columns = select(galaxies[1], np.arange(4))
    columns |= {"galaxy_x": np.full(4, 0.7), "galaxy_y": np.full(4, -0.5), "galaxy_magnitude_i": np.full(4, 18.5)}
    images = simulator.renderer.images(columns, 3, noise=True).double()
    found = painter.measure(images, sky_noise_of(images).expand_as(images), painter.kernels(columns, {}))
    assert np.abs(found.x - 0.7).max() < 0.02
    assert np.abs(found.y + 0.5).max() < 0.02


def test_why_galaxies_are_no_hosts(painter):
    good = {
        "magnitudes": [22.0, 19.0],
        "R_sersic": 1.0,
        "n_sersic": 4.0,
        "e1": 0.0,
        "e2": 0.0,
        "x": 0.0,
        "y": 0.0,
        "snr": 90,
    }
    changes = [{}, {"snr": 19}, {"R_sersic": 0.14}, {"magnitudes": [19.0, 24.1]}, {"snr": np.nan}]
    hosts = Hosts(*(np.array([(good | change)[name] for change in changes], float) for name in Hosts._fields))
    reasons = painter.unfit(hosts)
    assert reasons[0] == ""
    assert reasons[1] == reasons[4] == "no galaxy at the centre"
    assert reasons[2] == "a point, as a star is"
    assert reasons[3].startswith("fainter")


def test_arcs_are_the_scene_without_its_galaxy(painter, simulator):
    columns = simulator.renderer.draw(5, 0)
    columns = select(columns, np.flatnonzero(columns["object"] == "lens")[:6])
    whole = simulator.renderer.expected(columns)
    behind = [np.asarray(flags) == 1 for flags in columns["light_lensed"]]
    lensed, rest = dict(columns), {name: of for name, of in columns.items() if not name.startswith("source_")}
    for name in (name for name in columns if name.startswith("light_")):
        lensed[name] = [np.asarray(values)[mine] for values, mine in zip(columns[name], behind, strict=True)]
        rest[name] = [np.asarray(values)[~mine] for values, mine in zip(columns[name], behind, strict=True)]
    arcs, others = painter.arcs(lensed, {}), simulator.renderer.expected(rest)
    assert (arcs.amax((1, 2, 3)) > 0.05).all()
    torch.testing.assert_close(arcs + others, whole, rtol=1e-4, atol=1e-5 * float(whole.max()))


def test_own_kernels_take_the_place_of_the_seeing(painter, simulator):
    columns = simulator.renderer.draw(5, 0)
    columns = select(columns, np.flatnonzero(columns["object"] == "lens")[:3])
    point = {"g": torch.ones(1, 1, 1, dtype=torch.float64)}
    sharp, seen = painter.arcs(columns, point), painter.arcs(columns, {})
    assert torch.equal(sharp[:, 1], seen[:, 1])
    assert (sharp[:, 0].amax((1, 2)) > 1.3 * seen[:, 0].amax((1, 2))).all()
    torch.testing.assert_close(sharp[:, 0].sum((1, 2)), seen[:, 0].sum((1, 2)), rtol=0.03, atol=0)


def test_photons_of_arcs_follow_poisson(painter):
    arcs = torch.full((2, 2, 48, 48), 3.0)
    noise = painter.photon_noise(arcs, [rng(1), rng(2)])
    assert noise[:, 0].var() == pytest.approx(3 / 700, rel=0.06)
    assert noise[:, 1].var() == pytest.approx(3 / 1000, rel=0.06)
    assert abs(noise.mean()) < 0.003
    assert not torch.allclose(noise[0], noise[1])


def early(painter, sigma_v, z, count=300):
    return painter.sky.early_types(rng(4), np.full(count, sigma_v), np.full(count, z))


def test_luminosity_gives_the_velocity_dispersion_back(painter):
    galaxies = early(painter, 230.0, 0.4, 3000)
    found = painter.sky.velocity_dispersions(rng(), galaxies.magnitudes[:, 1], galaxies.z)
    assert np.median(found) == pytest.approx(230, rel=0.03)
    assert np.std(np.log10(found)) == pytest.approx(0.07, rel=0.2)
    farther = painter.sky.velocity_dispersions(rng(), galaxies.magnitudes[:, 1], galaxies.z + 0.2)
    assert np.median(farther) > 1.1 * np.median(found)


@pytest.mark.parametrize("z", [0.2, 0.5])
def test_redshifts_are_drawn_by_magnitudes_and_colours(painter, z):
    found = painter.sky.redshifts_of(rng(), early(painter, 230.0, z).magnitudes)
    assert np.median(found) == pytest.approx(z, abs=0.1)
    assert len(np.unique(found)) > 30
    alone = painter.sky.redshifts_of(rng(), np.array([[np.nan, 19.5]]))
    assert 0 < alone[0] < 1.5


def test_sources_behind_a_galaxy_are_seen_by_the_rules(painter):
    sky, rules = painter.sky, painter.preset.rules
    massive, light = early(painter, 260.0, 0.3, 40), early(painter, 90.0, 0.3, 40)
    both = Galaxies(*(np.concatenate(pair) for pair in zip(massive, light, strict=True)))
    sigma_v = np.repeat([260.0, 90.0], 40)
    which, drawn = sky.behind(rng(), both, sigma_v)
    assert (which < 40).all(), "nothing is seen behind so light a galaxy"
    assert len(which) > 35
    assert (np.diff(which) > 0).all()
    np.testing.assert_array_equal(drawn.deflector.R_sersic, both.R_sersic[which])
    expected = sky.einstein_radius(sigma_v[which], drawn.deflector.z, drawn.source.z)
    np.testing.assert_allclose(drawn.theta_E, expected, rtol=1e-9)
    assert (drawn.theta_E > rules.theta_E[0]).all()
    assert (drawn.arc_snr > rules.arc_snr).all()
    assert (drawn.source.z > drawn.deflector.z).all()
    assert (np.hypot(drawn.source_x, drawn.source_y) <= drawn.theta_E).all()
    none, empty = sky.behind(rng(), light, np.full(40, 60.0))
    assert len(none) == 0
    assert empty.theta_E.shape == (0,)


def test_preset_on_the_pixels_of_a_survey():
    preset = load_preset("finding-euclid")
    own = adapted(preset, list(preset.bands)[:2], 50, 0.1)
    assert (own.pixels, own.pixel_scale, list(own.bands)) == (50, 0.1, list(preset.bands)[:2])
    assert all(band.pixel_scale is None for band in own.bands.values())
    with pytest.raises(PresetError, match=f"says by its band {preset.detection_band} what is seen"):
        adapted(preset, [name for name in preset.bands if name != preset.detection_band], 50, 0.1)


def test_a_table_of_lenses_is_refused_before_anything_is_measured(tmp_path):
    table = tmp_path / "lenses.csv"
    table.write_text("theta_E\n1\n")
    preset = load_preset(CONTENT | {"population": {"table": str(table)}})
    with pytest.raises(PresetError, match=r"takes lenses from .*lenses\.csv, .* leave out its population"):
        adapted(preset, ["g", "i"], 48, 0.168)


def test_noise_of_the_sky_is_that_of_the_edges():
    images = torch.randn(2, 3, 60, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    images *= torch.tensor([1.0, 4.0, 0.5]).double()[:, None, None]
    images[:, :, 25:35, 25:35] += 500
    images[0, 0] = 3.0
    found = sky_noise_of(images)
    assert found.shape == (2, 3, 1, 1)
    np.testing.assert_allclose(found[1, :, 0, 0], [1, 4, 0.5], rtol=0.06)
    assert float(found[0, 0]) == pytest.approx(0.003)
