"""Sources that are images of galaxies, against lenstronomy's rays and SciPy's interpolation."""

import numpy as np
import polars as pl
import pytest
import yaml
from lenstronomy.LensModel.lens_model import LensModel
from scipy.ndimage import map_coordinates

from darklens.errors import PresetError
from darklens.simulation import Simulator, load_preset
from darklens.simulation.columns import from_frame
from darklens.simulation.scenes import pictures
from darklens.simulation.scenes.pictures import half_light_radius
from darklens.simulation.scenes.rendering import light


def galaxies():
    """Three galaxies of different shapes and sides that are not even."""
    y, x = np.indices((31, 41)) - np.array([15, 20])[:, None, None]
    return np.stack([np.exp(-np.hypot(x / a, y / b)) * (1 + 0.5 * np.sin(x)) for a, b in ((4, 2), (3, 3), (2, 4))])


@pytest.fixture
def made(tmp_path):
    """A function that writes galaxies and a preset of lenses of them, and loads it."""

    def preset(stack=None, **changes):
        np.save(tmp_path / "galaxies.npy", galaxies() if stack is None else stack)
        own = {"turns": 2, "objects": "lens", "source_images": "galaxies.npy"} | changes
        content = {"extends": "finding-hsc", "classes": {"lens": own}}
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
        return load_preset(tmp_path / "own.yaml")

    return preset


def of_sources(simulator, rows):
    """Flux of the sources alone in sub-pixels, and the columns."""
    columns = from_frame(rows)
    own = simulator.renderer._pictures
    return (light(simulator.preset, columns, pictures=own) - light(simulator.preset, columns)).numpy(), columns


@pytest.mark.parametrize("kind", ["lens", "lensing_group"])
def test_sources_are_seen_where_lenstronomy_has_them(made, kind):
    simulator = Simulator(made(objects=kind, turns=20))
    preset, stack = simulator.preset, galaxies()
    rows = simulator.catalog(64).filter(object="lens")[:3]
    found, columns = of_sources(simulator, rows)
    side = preset.pixels * preset.supersampling * pictures.RAYS
    axis = (np.arange(side) - (side - 1) / 2) * preset.pixel_scale / preset.supersampling / pictures.RAYS
    x, y = np.meshgrid(axis, axis)
    for i in range(3):
        value = {name: columns[name][i] for name in columns}
        centre = {f"center_{a}": value[f"lens_{a}"] for a in "xy"}
        model = [{name: value[name] for name in ("theta_E", "e1", "e2")} | centre]
        model += [{name: value[name] for name in ("gamma1", "gamma2")}]
        beside = value.get("perturber_theta_E")
        for k in range(0 if beside is None else len(beside)):
            place = {f"center_{a}": value[f"perturber_{a}"][k] for a in "xy"}
            model.append({"theta_E": beside[k]} | place)
        u, v = LensModel(["SIE", "SHEAR"] + ["SIS"] * (len(model) - 2)).ray_shooting(x, y, model)
        galaxy = stack[int(value["source_image"] * 3)]
        scale = value["source_R_sersic"] / half_light_radius(galaxy)
        u, v, phi = (u - value["source_x"]) / scale, (v - value["source_y"]) / scale, value["source_phi"]
        places = [np.cos(phi) * v - np.sin(phi) * u + 15, np.cos(phi) * u + np.sin(phi) * v + 20]
        brightness = map_coordinates(galaxy / galaxy.sum(), places, order=1, mode="grid-constant") / scale**2
        n = preset.pixels * preset.supersampling
        expected = brightness.reshape(n, pictures.RAYS, n, pictures.RAYS).mean((1, 3))
        expected *= (preset.pixel_scale / preset.supersampling) ** 2
        for number, (band, own) in enumerate(preset.bands.items()):
            flux = 10 ** (-0.4 * (value[f"source_magnitude_{band}"] - own.zero_point))
            np.testing.assert_allclose(found[i, number], flux * expected, atol=2e-3 * flux * expected.max())


def test_without_deflection_sources_have_their_magnitudes_and_sizes(made):
    simulator = Simulator(made(turns=20))
    rows = simulator.catalog(64).filter(object="lens")[:6].with_columns(
        theta_E=pl.lit(1e-6), gamma1=pl.lit(0.0), gamma2=pl.lit(0.0), source_R_sersic=pl.lit(0.5)
    )  # fmt: skip
    found, columns = of_sources(simulator, rows)
    zero_point = simulator.preset.bands["i"].zero_point
    magnitudes = zero_point - 2.5 * np.log10(found[:, 2].sum((1, 2)))
    np.testing.assert_allclose(magnitudes, columns["source_magnitude_i"], atol=0.01)
    n = found.shape[-1]
    y, x = (np.indices((n, n)) - (n - 1) / 2) * simulator.preset.pixel_scale / 2
    for image, x0, y0 in zip(found[:, 2], columns["source_x"], columns["source_y"], strict=True):
        assert image[np.hypot(x - x0, y - y0) < 0.5].sum() / image.sum() == pytest.approx(0.5, abs=0.06)


def test_half_light_radius_of_an_exponential_disc_is_known():
    y, x = np.indices((201, 201)) - 100
    assert half_light_radius(np.exp(-np.hypot(x, y) / 8)) == pytest.approx(1.678 * 8, rel=0.02)
    assert half_light_radius(np.eye(1)) == 0.5


def test_images_are_made_again_from_their_rows(made):
    simulator = Simulator(made(), seed=4)
    images, _ = simulator.block(0)
    rows = simulator.catalog(64)
    np.testing.assert_array_equal(simulator.render(rows), images)
    lenses = rows.filter(object="lens")
    assert lenses["source_image"].is_between(0, 1).all()
    assert lenses["source_n_sersic"].is_nan().all() or lenses["source_n_sersic"].is_null().all()
    assert lenses["light_lensed"].list.sum().sum() == 0  # no clumps


def test_the_galaxies_are_part_of_the_checksum(made):
    before = made()
    first = before.checksum
    assert [path.name for path in before.files] == ["galaxies.npy"]
    assert made(2 * galaxies()[:, ::-1]).checksum != first


def test_what_is_no_galaxy_is_refused(made):
    with pytest.raises(PresetError, match=r"galaxies\.npy: expected galaxies"):
        Simulator(made(-galaxies()))
    with pytest.raises(PresetError, match="source_images goes with objects lens or lensing_group; got spiral"):
        made(objects="spiral")
