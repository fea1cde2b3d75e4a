"""Light of scenes against lenstronomy, against fine sampling, and against its own magnitudes."""

import numpy as np
import pytest
import torch
from lenstronomy.Data.imaging_data import ImageData
from lenstronomy.Data.psf import PSF
from lenstronomy.ImSim.image_model import ImageModel
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from lenstronomy.Util import kernel_util, simulation_util
from scipy.special import gammainc

from darklens.errors import DataError
from darklens.physics import spiral_arms
from darklens.simulation import Simulator, load_preset
from darklens.simulation.columns import select
from darklens.simulation.scenes import loops
from darklens.simulation.scenes.rendering import Optics, gather, light

BANDS = {
    "g": {"filter": "hsc2017-g", "zero_point": 27, "psf_fwhm": 0.77, "psf_beta": 3.5, "depth": 26.5, "gain": 700},
    "i": {"filter": "hsc2017-i", "zero_point": 26.2, "psf_fwhm": 0.58, "depth": 25.9, "gain": 1000},
}


def preset(classes, **changes):
    content = {
        "name": "scenes", "description": "for tests", "pixels": 48, "pixel_scale": 0.168, "supersampling": 2,
        "detection_band": "i", "bands": BANDS, "rules": {"theta_E": [0.6, 3]}, "classes": classes,
    }  # fmt: skip
    return load_preset(content | changes)


def of_lenstronomy(preset, columns, image, band, factor):
    """One band of one image, all by lenstronomy but the numbers in the catalogue; the factor is that of its rays."""
    bands = list(preset.bands)
    found = gather(columns, bands, len(columns["id"]))
    own = range(*found.starts[image : image + 2])
    sersic = LightModel(["SERSIC_ELLIPSE"])
    groups = {0.0: [], 1.0: []}
    for k in own:
        value = {name: float(values[k]) for name, values in found.values.items()}
        shape = {
            "amp": 1.0, "R_sersic": value["R_sersic"], "n_sersic": value["n_sersic"], "e1": value["e1"], "e2": value["e2"],
            "center_x": value["x"], "center_y": value["y"],
        }  # fmt: skip
        flux = 10 ** (-0.4 * (found.magnitudes[k, bands.index(band)] - preset.bands[band].zero_point))
        groups[value["lensed"]].append(shape | {"amp": flux / sersic.total_flux([shape])[0]})
    names = ("theta_E", "e1", "e2", "lens_x", "lens_y", "gamma1", "gamma2")
    theta_E, e1, e2, x, y, gamma1, gamma2 = (
        float(columns[name][image]) if name in columns else np.nan for name in names
    )
    mass, lenses = [], []
    if np.isfinite(theta_E):
        mass = ["SIE", "SHEAR"]
        lenses = [
            {"theta_E": theta_E, "e1": e1, "e2": e2, "center_x": x, "center_y": y}, {"gamma1": gamma1, "gamma2": gamma2},
        ]  # fmt: skip
        for k in range(len(columns["perturber_x"][image]) if "perturber_x" in columns else 0):
            mass.append("SIS")
            place = {f"center_{axis}": columns[f"perturber_{axis}"][image][k] for axis in "xy"}
            lenses.append({"theta_E": columns["perturber_theta_E"][image][k]} | place)
    own = preset.bands[band]
    scale = preset.pixel_scale
    fwhm = float(columns[f"psf_fwhm_{band}"][image])
    size = factor * (Optics(preset).kernels(band, columns, 2).shape[-1] // 2) + 1
    kernel = (
        kernel_util.kernel_gaussian(size, scale / factor, fwhm)
        if own.psf_beta is None
        else kernel_util.kernel_moffat(size, scale / factor, fwhm, own.psf_beta)
    )
    data = ImageData(**simulation_util.data_configure_simple(preset.pixels * factor, scale / factor))
    model = ImageModel(
        data,
        PSF(psf_type="PIXEL", kernel_point_source=kernel / kernel.sum()),
        lens_model_class=LensModel(mass),
        source_model_class=LightModel(["SERSIC_ELLIPSE"] * len(groups[1.0])),
        lens_light_model_class=LightModel(["SERSIC_ELLIPSE"] * len(groups[0.0])),
    )
    fine = model.image(lenses, groups[1.0], groups[0.0])
    return fine.reshape(preset.pixels, factor, preset.pixels, factor).sum((1, 3))


@pytest.mark.parametrize("objects", ["lens", "lensing_group", "galaxy", "chance_pair", "group"])
def test_noise_free_bands_are_those_of_lenstronomy(objects):
    simulator = Simulator(preset({objects: {"objects": objects}}), seed=3)
    columns = select(simulator.renderer.draw(3, 0), np.arange(4))
    ours = simulator.renderer.expected(columns, divide=False).double()
    for image in range(4):
        for i, band in enumerate("gi"):
            theirs = torch.from_numpy(of_lenstronomy(simulator.preset, columns, image, band, 2))
            assert (ours[image, i] - theirs).abs().max() < 1e-6 * theirs.max(), (objects, image, band)


def test_divided_sub_pixels_come_close_to_fine_sampling():
    simulator = Simulator(preset({"lens": {"objects": "lens"}}), seed=3)
    columns = select(simulator.renderer.draw(4, 0), np.arange(6))
    columns["galaxy_n_sersic"] = np.full(6, 2.5)  # sharper ones are not converged in lenstronomy even so
    divided, plain = (simulator.renderer.expected(columns, divide=each).double() for each in (True, False))
    off = []
    for image in range(6):
        fine = torch.from_numpy(of_lenstronomy(simulator.preset, columns, image, "i", 20))
        off.append([float((each[image, 1] - fine).abs().max() / fine.max()) for each in (divided, plain)])
    ours, without = np.array(off).T
    assert ours.max() < 2.5e-3
    assert np.median(ours) < 0.3 * np.median(without)


def one_galaxy(n, R, *, x=0.0, y=0.0, e1=0.0, e2=0.0, magnitude=20.0):
    """Columns of one scene of one galaxy."""
    columns = {"id": np.array([0]), "object": np.array(["galaxy"]), "label": np.array(["nonlens"])}
    values = {"x": x, "y": y, "R_sersic": R, "n_sersic": n, "e1": e1, "e2": e2}
    values |= {"magnitude_g": magnitude + 1, "magnitude_i": magnitude}
    columns |= {f"galaxy_{name}": np.array([value]) for name, value in values.items()}
    for band in "gi":
        columns |= {
            f"psf_{name}_{band}": np.array([value]) for name, value in (("fwhm", 0.6), ("e1", 0.0), ("e2", 0.0))
        }
    return columns


@pytest.mark.parametrize(("n", "R"), [(0.5, 0.02), (0.5, 0.3), (1.0, 0.1), (2.5, 0.4), (4.0, 0.5), (6.0, 0.7)])
def test_light_within_a_circle_is_that_of_the_profile(n, R):
    scenes = preset({"galaxy": {"objects": "galaxy"}}, pixels=64)
    found = light(scenes, one_galaxy(n, R, x=0.031, y=-0.057))[0, 1].double()
    side = found.shape[-1]
    places = (np.arange(side) - (side - 1) / 2) * 0.084
    # The share of each sub-pixel in the circle, from parts of it.
    parts = (places[:, None] + (np.arange(16) - 7.5) / 16 * 0.084).ravel()
    inside = np.hypot(parts[None] - 0.031, parts[:, None] + 0.057) < 1
    share = inside.reshape(side, 16, side, 16).mean((1, 3))
    b = 1.9992 * n - 0.3271
    wanted = 10 ** (-0.4 * (20 - 26.2)) * gammainc(2 * n, b * (1 / R) ** (1 / n))
    assert (found.numpy() * share).sum() == pytest.approx(wanted, rel=5e-3)


def test_the_flux_of_components_is_that_of_their_magnitudes_in_every_band():
    scenes = preset({"galaxy": {"objects": "galaxy"}}, pixels=64)
    columns = one_galaxy(1.0, 0.3, x=0.4, y=-0.2, e1=0.2, e2=-0.1)
    columns["point_x"], columns["point_y"] = [np.array([1.07])], [np.array([-2.03])]
    columns |= {"point_magnitude_g": [np.array([21.0])], "point_magnitude_i": [np.array([22.0])]}
    image = Simulator(scenes).renderer.expected(columns)[0].sum((1, 2))
    ab = {
        "g": 10 ** (-0.4 * (21 - 27)) + 10 ** (-0.4 * (21 - 27)),
        "i": 10 ** (-0.4 * (20 - 26.2)) + 10 ** (-0.4 * (22 - 26.2)),
    }
    assert image.numpy() == pytest.approx(np.array([ab["g"], ab["i"]]), rel=2e-3)


@pytest.mark.parametrize("psf", [{"psf_beta": 3.5}, {}, {"psf_fwhm": 0.3}])
def test_points_are_where_a_tiny_galaxy_is(psf):
    bands = {
        name: {key: value for key, value in band.items() if key != "psf_beta"} | psf for name, band in BANDS.items()
    }
    scenes = preset({"galaxy": {"objects": "galaxy"}}, bands=bands, supersampling=4)
    fwhm = psf.get("psf_fwhm", 0.6)
    tiny = one_galaxy(0.5, 0.002, x=0.513, y=-1.27)
    point = {k: v for k, v in tiny.items() if not k.startswith("galaxy_")}
    point |= {"point_x": [np.array([0.513])], "point_y": [np.array([-1.27])]}
    point |= {"point_magnitude_g": [np.array([21.0])], "point_magnitude_i": [np.array([20.0])]}
    for columns in (tiny, point):
        columns |= {f"psf_fwhm_{band}": np.array([fwhm]) for band in "gi"}
    renderer = Simulator(scenes).renderer
    ours, theirs = (renderer.expected(columns)[0, 1].double() for columns in (point, tiny))
    # The tiny galaxy is spread over its sub-pixel, which is where it differs.
    assert (ours - theirs).abs().max() < 0.06 * theirs.max()
    grid = torch.arange(48) * 0.168 - 23.5 * 0.168
    centre = [(ours.sum(axis) * grid).sum() / ours.sum() for axis in (0, 1)]
    assert [float(c) for c in centre] == pytest.approx([0.513, -1.27], abs=2e-3)


def test_arms_change_no_flux_and_turn_with_their_phase():
    scenes = preset({"galaxy": {"objects": "galaxy"}}, pixels=64)
    base = one_galaxy(1.0, 0.8)
    disc = {f"light_{name}": [np.array([value])] for name, value in (
        ("x", 0.0), ("y", 0.0), ("R_sersic", 0.6), ("n_sersic", 1.0), ("e1", 0.0), ("e2", 0.0), ("magnitude_g", 20.0),
        ("magnitude_i", 19.0), ("arm_amplitude", 0.9), ("arm_number", 2.0), ("arm_pitch", 0.4), ("arm_phase", 0.3),
        ("ring_width", 0.0), ("lensed", 0.0),
    )}  # fmt: skip
    columns = {k: v for k, v in base.items() if not k.startswith("galaxy_")} | disc
    arms = light(scenes, columns)[0, 0]
    plain = light(scenes, columns | {"light_arm_amplitude": [np.array([0.0])]})[0, 0]
    assert float(arms.sum() / plain.sum()) == pytest.approx(1, abs=2e-3)
    assert float((arms - plain).abs().max() / plain.max()) > 0.1
    # Two arms look the same after half a turn, and with a phase of π after a quarter.
    assert torch.allclose(arms, arms.flip(0, 1), rtol=1e-3, atol=1e-5 * float(arms.max()))
    turned = light(scenes, columns | {"light_arm_phase": [np.array([0.3 + np.pi])]})[0, 0]
    assert torch.allclose(turned, torch.rot90(arms), rtol=1e-2, atol=1e-4 * float(arms.max()))
    torch_arms = spiral_arms(
        *(torch.tensor(v, dtype=torch.float64) for v in (0.5, -0.4)),
        **{k: torch.tensor(v, dtype=torch.float64) for k, v in {
            "x0": 0.0, "y0": 0.0, "R_sersic": 0.6, "e1": 0.0, "e2": 0.0, "amplitude": 0.9, "number": 2.0, "pitch": 0.4,
            "phase": 0.3,
        }.items()},
    )  # fmt: skip
    fine = preset({"galaxy": {"objects": "galaxy"}}, pixels=64, supersampling=3)
    ratio = (
        light(fine, columns, divide=False)
        / light(fine, columns | {"light_arm_amplitude": [np.array([0.0])]}, divide=False)
    )[0, 0]
    axis = (np.arange(192) - 95.5) * 0.056
    column, row = np.abs(axis - 0.5).argmin(), np.abs(axis + 0.4).argmin()
    assert float(ratio[row, column]) == pytest.approx(float(torch_arms), abs=0.05)


def test_a_ring_has_its_radius_and_its_flux():
    scenes = preset({"galaxy": {"objects": "galaxy"}}, pixels=64)
    columns = {k: v for k, v in one_galaxy(1.0, 1.0).items() if not k.startswith("galaxy_")}
    columns |= {f"light_{name}": [np.array([value])] for name, value in (
        ("x", 0.2), ("y", 0.0), ("R_sersic", 1.5), ("n_sersic", 1.0), ("e1", 0.0), ("e2", 0.0), ("magnitude_g", 20.0),
        ("magnitude_i", 19.0), ("arm_amplitude", 0.0), ("arm_number", 0.0), ("arm_pitch", 0.0), ("arm_phase", 0.0),
        ("ring_width", 0.2), ("lensed", 0.0),
    )}  # fmt: skip
    found = light(scenes, columns)[0, 0].double()
    assert float(found.sum()) == pytest.approx(10 ** (-0.4 * (20 - 27)), rel=1e-3)
    axis = (torch.arange(128) - 63.5) * 0.084
    r = torch.hypot(axis[None] - 0.2, axis[:, None])
    assert float((found * r).sum() / found.sum()) == pytest.approx(1.5 + 0.2**2 / 1.5, rel=1e-2)


def test_a_source_without_a_deflector_is_an_error():
    scenes = preset({"galaxy": {"objects": "galaxy"}})
    columns = one_galaxy(1.0, 0.3)
    columns |= {
        name.replace("galaxy", "source"): values for name, values in columns.items() if name.startswith("galaxy")
    }
    with pytest.raises(DataError, match="image 0 has a source, and no theta_E"):
        light(scenes, columns)


def test_faint_sources_are_cut_where_nothing_is_lost():
    assert np.exp(-loops.FAINTEST) < 2e-8
