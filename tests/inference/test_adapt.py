"""Cutouts of another telescope made to fit a model: which pixels are kept, and how bright they are."""

import numpy as np
import pytest
import torch

from darklens.data.dataset import DatasetInfo
from darklens.errors import ModelError
from darklens.inference.adapt import adaptation
from darklens.inference.config import ModelConfig

MODEL = ModelConfig(
    {"name": "regress", "target": "m"}, {}, {}, 1, 6, outputs=["m"], pixel_scale=0.1, unit="e-/s",
    data={"typical_peak": 40.0},
)  # fmt: skip


def test_the_centre_is_kept_and_nothing_else():
    images = np.arange(2 * 10 * 9, dtype=np.float32).reshape(2, 1, 10, 9)
    adapt = adaptation(MODEL, DatasetInfo("x", pixel_scale=0.1, unit="e-/s"), images.shape)
    np.testing.assert_array_equal(adapt(images), images[:, :, 2:8, 1:7])


def test_small_cutouts_stand_in_the_middle_of_a_border_of_their_own_level():
    image = np.full((1, 1, 4, 4), 7.0, np.float32)
    image[0, 0, 1, 2] = 50
    adapt = adaptation(MODEL, DatasetInfo("x", pixel_scale=0.1, unit="e-/s"), image.shape)
    expected = np.full((6, 6), 7.0)
    expected[2, 3] = 50
    np.testing.assert_array_equal(adapt(image)[0, 0], expected)


def test_brightness_of_another_unit_is_scaled_to_the_typical_peak():
    rng = np.random.default_rng(0)
    images = (rng.random((3, 1, 6, 6)) * np.array([1.0, 5.0, 0.01]).reshape(3, 1, 1, 1)).astype(np.float32)
    adapt = adaptation(MODEL, DatasetInfo("x", pixel_scale=0.1, unit="nJy"), images.shape)
    out = adapt(images)
    peaks = np.quantile(images.reshape(3, -1), 0.995, axis=1)
    np.testing.assert_allclose(out, images * (40.0 / peaks).reshape(3, 1, 1, 1), rtol=1e-5)
    assert any("its own brightness is lost" in note for note in adapt.notes)
    same = adaptation(MODEL, DatasetInfo("x", pixel_scale=0.1, unit="e-/s"), images.shape)
    np.testing.assert_array_equal(same(images), images)


def test_resampling_keeps_flux_and_place():
    """A blob off the centre stays where it is on the sky when pixels become half as large."""
    y, x = np.mgrid[:12, :12] - 5.5
    images = np.exp(-((x - 2.1) ** 2 + (y + 1.2) ** 2) / 4)[None, None].astype(np.float32)
    model = ModelConfig(MODEL.task, {}, {}, 1, 24, outputs=["m"], pixel_scale=0.1, unit="e-/s")
    adapt = adaptation(model, DatasetInfo("x", pixel_scale=0.2, unit="e-/s"), images.shape)
    out = adapt(images)[0, 0]
    assert out.sum() == pytest.approx(float(images.sum()), rel=1e-3)
    rows, columns = torch.meshgrid(torch.arange(24.0) - 11.5, torch.arange(24.0) - 11.5, indexing="ij")
    centre = [float((out * axis).sum() / out.sum()) / 2 for axis in (columns, rows)]
    assert centre == pytest.approx([2.1, -1.2], abs=0.02)
    assert adapt.zoom == pytest.approx(2)


def adapted(shape, band=None, *, bands=(), scale=0.1, unit="e-/s", model=None):
    kind = {"bands": [], "pixel_scale": 0.1, "unit": "e-/s", "data": {}} | (model or {})
    channels, pixels = kind.pop("channels", 1), kind.pop("pixels", 6)
    config = ModelConfig(MODEL.task, {}, {}, channels, pixels, outputs=["m"], **kind)
    return adaptation(config, DatasetInfo("x", bands=list(bands), pixel_scale=scale, unit=unit), shape, band)


def test_nothing_is_done_to_images_that_fit():
    images = np.random.default_rng(0).normal(0, 1, (2, 3, 6, 6))
    adapt = adapted(images.shape, model={"channels": 3})
    assert (adapt.bands, adapt.zoom, adapt.pixels, adapt.brightness, adapt.notes) == ([0, 1, 2], 1.0, 6, None, [])
    out = adapt(images)
    assert out.dtype == torch.float32
    np.testing.assert_array_equal(out, images.astype(np.float32))


@pytest.mark.parametrize(
    ("bands", "band", "model", "chosen", "note"),
    [
        (["g", "VIS", "i"], None, {}, [1], "band VIS of 3"),
        (["g", "r", "i"], None, {}, [2], "band i of 3"),
        (["u", "g"], None, {}, [0], "band u of 2"),
        ([], None, {}, [0], "band 0 of 3"),
        (["g", "VIS", "i"], None, {"bands": ["i"]}, [2], "band i of 3"),
        (["g", "r", "i"], "i, g", {"channels": 2}, [2, 0], "band i, g of 3"),
        ([], "2", {}, [2], "band 2 of 3"),
        ([], "2,0,1", {"channels": 3}, [2, 0, 1], "band 2, 0, 1 of 3"),
        (["g", "r", "i"], None, {"channels": 2, "bands": ["r", "i"]}, [1, 2], "band r, i of 3"),
    ],
)
def test_bands_are_those_of_the_model_or_as_asked(bands, band, model, chosen, note):
    images = np.arange(3 * 36.0).reshape(1, 3, 6, 6)[:, : len(bands) or 3]
    adapt = adapted(images.shape, band, bands=bands, model=model)
    assert adapt.bands == chosen
    assert adapt.notes == [note]
    np.testing.assert_array_equal(adapt(images), images[:, chosen])


def test_a_band_that_the_model_does_not_know_is_said():
    adapt = adapted((2, 6, 6), bands=["SDSS_U", "SDSS_R"], model={"bands": ["hst-f160w"]})
    assert adapt.bands == [1]
    assert adapt.notes == [
        "no band hst-f160w, which the model knows; --bands chooses another than the next", "band SDSS_R of 2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("bands", "band", "model", "message"),
    [
        (["g", "r", "i"], "i,g", {}, "the model needs 1 bands, these cutouts have 3; 2 were chosen"),
        (["g", "r", "i"], None, {"channels": 2}, "needs 2 bands, these cutouts have 3; choose with --band"),
        (["g", "r", "i"], None, {"channels": 2, "bands": ["r", "z"]}, "choose with --band"),
        (["g", "r", "i"], "z", {}, "no band z in these cutouts; there are g, r, i"),
        (["g", "r", "i"], "1", {}, "no band 1 in these cutouts; there are g, r, i"),
        ([], "3", {}, "no band 3 in these cutouts: their bands have no names; say a number from 0 to 2"),
        ([], "g", {}, "no band g in these cutouts: their bands have no names; say a number from 0 to 2"),
        ([], "²", {}, "no band ² in these cutouts: their bands"),
    ],
)
def test_bands_that_are_not_there_are_refused(bands, band, model, message):
    with pytest.raises(ModelError, match=message):
        adapted((1, 3, 6, 6), band, bands=bands, model=model)


@pytest.mark.parametrize(
    ("scale", "zoom"), [(0.1004, 1.0), (0.0996, 1.0), (0.1006, 1.006), (0.0994, 0.994), (None, 1.0)]
)
def test_scales_that_differ_by_less_than_half_a_percent_are_the_same(scale, zoom):
    adapt = adapted((1, 1, 6, 6), scale=scale)
    assert adapt.zoom == pytest.approx(zoom)
    if scale is None:
        assert adapt.notes == ["pixel scale unknown; taken to be the model's 0.1″ (--pixel_scale says another)"]
    elif zoom == 1:
        assert adapt.notes == []
    else:
        assert adapt.notes == [f"resampled from {scale}″ to the model's 0.1″ per pixel"]


def test_a_model_without_a_pixel_scale_takes_images_as_they_are():
    assert adapted((1, 1, 6, 6), scale=0.3, model={"pixel_scale": None}).notes == []
    assert adapted((1, 1, 6, 6), scale=None, model={"pixel_scale": None}).notes == []


@pytest.mark.parametrize(
    ("shape", "scale", "pixels"), [((1, 6, 8), 102.4, None), ((1, 6, 8), 102.41, "8.19e+03"), ((1, 4, 2), 0.025, None),
                                   ((1, 4, 2), 0.024, "0.96")]
)  # fmt: skip
def test_resampling_is_to_a_side_of_1_to_8192_pixels(shape, scale, pixels):
    if pixels is None:
        assert adapted(shape, scale=scale).zoom == pytest.approx(scale / 0.1)
        return
    with pytest.raises(ModelError, match=rf"x: a pixel scale of {scale}″ beside the model's 0\.1″ makes") as caught:
        adapted(shape, scale=scale)
    assert f"makes {pixels} pixels of {max(shape)}; say the right one with --pixel_scale" in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "scale", "notes"),
    [
        ((1, 8, 6), 0.1, ["cropped to the central 6 of 6×8 pixels"]),
        ((1, 6, 5), 0.1, ["padded from 5 to the model's 6 pixels with each image's border level"]),
        ((1, 9, 9), 0.1, ["cropped to the central 6 of 9 pixels"]),
        ((1, 3, 3), 0.2, ["resampled from 0.2″ to the model's 0.1″ per pixel"]),
        (
            (1, 8, 4), 0.1,
            [
                "cropped to the central 6 of 4×8 pixels",
                "padded from 4 to the model's 6 pixels with each image's border level",
            ],
        ),
    ],
)  # fmt: skip
def test_sizes_are_told(shape, scale, notes):
    assert adapted(shape, scale=scale).notes == notes


@pytest.mark.parametrize(
    ("unit", "model", "brightness", "said"),
    [
        ("nJy", {"data": {"typical_peak": 4}}, 4.0, "brightness in nJy, the model's is e-/s: each image was"),
        (None, {"data": {"typical_peak": 4}}, 4.0, "brightness in an unknown unit, the model's is e-/s: each"),
        ("nJy", {"data": {"typical_peak": 4}, "unit": None}, 4.0, "brightness in nJy, the model's is unknown: each"),
        ("nJy", {"data": {}}, None, None),
        ("nJy", {"data": {"typical_peak": None}}, None, None),
        ("e-/s", {"data": {"typical_peak": 4}}, None, None),
    ],
)
def test_brightness_is_scaled_where_units_differ(unit, model, brightness, said):
    adapt = adapted((1, 6, 6), unit=unit, model=model)
    assert adapt.brightness == brightness
    assert [note.startswith(said) for note in adapt.notes] == ([True] if said else [])
    if said:
        assert "its 99.5th percentile is 4, the median of the training images" in adapt.notes[0]


def test_dark_images_are_not_divided_by_nothing():
    adapt = adapted((1, 6, 6), unit="nJy", model={"data": {"typical_peak": 4.0}})
    assert torch.equal(adapt(np.zeros((1, 1, 6, 6))), torch.zeros(1, 1, 6, 6))


def test_binning_keeps_the_flux_of_each_part():
    """Pixels of half the scale: the flux of a flat image is that of four pixels in one; what is left over is cut."""
    adapt = adapted((1, 12, 8), scale=0.05)
    out = adapt(np.full((1, 1, 12, 8), 2.0))
    assert out.shape == (1, 1, 6, 6)
    np.testing.assert_allclose(out[0, 0, :, 1:5], 8.0, rtol=1e-5)
    small = adapted((1, 12, 6), scale=0.02, model={"pixels": 2})
    np.testing.assert_allclose(small(np.full((1, 1, 12, 6), 2.0)), np.full((1, 1, 2, 2), 50.0), rtol=1e-5)


def test_noise_goes_along_with_images():
    """By a noise map, or, of resampled images, by what neighbours differ before: half of it in pixels half as wide."""
    rng = np.random.default_rng(8)
    images = rng.normal(0, 3, (5, 2, 48, 48)).astype(np.float32)
    model = {"pixels": 48, "channels": 2}
    assert adapted((2, 48, 48), model=model).with_noise(images).noise is None
    maps = np.full(images.shape, 3.0, np.float32)
    maps[:, 1] = 5
    maps[0, 0, 20:] = np.inf
    known = adapted((2, 48, 48), model=model).with_noise(images, maps)
    np.testing.assert_allclose(known.noise, [[3, 5]] * 5, rtol=1e-6)
    model["pixels"] = 96
    estimated = adapted((2, 48, 48), scale=0.2, model=model).with_noise(images)
    np.testing.assert_allclose(estimated.noise, np.full((5, 2), 1.5), rtol=0.15)
    resampled = adapted((2, 48, 48), scale=0.2, model=model).with_noise(images, maps)
    np.testing.assert_allclose(resampled.noise, [[1.5, 2.5]] * 5, rtol=1e-5)
    # Of another unit, images are scaled, and their noise with them.
    scaled = adapted((2, 48, 48), unit="nJy", model=model | {"pixels": 48, "data": {"typical_peak": 4.0}})
    found = scaled.with_noise(images, maps)
    factor = (found.images[:, 0, 5, 5] / torch.from_numpy(images[:, 0, 5, 5]))[:, None]
    np.testing.assert_allclose(found.noise, factor * torch.tensor([[3.0, 5.0]]), rtol=1e-5)
    no_data = adapted((2, 48, 48), model=model | {"pixels": 48}).with_noise(images, np.full_like(maps, np.inf))
    assert no_data.noise.isnan().all()


FLUX = {"pixels": 6, "channels": 2, "bands": ["g", "r"], "data": {"typical_peak": 4.0}}


@pytest.mark.parametrize(
    ("model", "unit", "own", "factors", "brightness"),
    [
        # Two and a half magnitudes are a factor of ten: a brighter zero point makes a unit hold less flux.
        ([25.0, 26.0], "e-/s", [27.5, 26.0], [0.1, 1.0], None),
        ([25.0, 26.0], "counts", [27.5, 26.0], [0.1, 1.0], None),
        ([25.0, 26.0], "e-/s", [25.0, 26.0], [1.0, 1.0], None),
        # One band's is unknown, or one side's: the same unit may be another flux.
        ([25.0, 26.0], "e-/s", [27.5, None], None, 4.0),
        ([25.0, 26.0], "e-/s", [], None, 4.0),
        ([], "e-/s", [25.0, 26.0], None, 4.0),
        ([None, None], "e-/s", [], None, None),
        # A model that does not record its own was trained on simulated images, or on files without a unit.
        (None, "e-/s", [], None, None),
        (None, "e-/s", [25.0, 26.0], None, 4.0),
    ],
)
def test_fluxes_are_brought_to_the_zero_points_of_the_model(model, unit, own, factors, brightness):
    info = DatasetInfo("x", bands=["r", "g"], pixel_scale=0.1, zero_points=own[::-1], unit=unit)
    kind = {"pixel_scale": 0.1, "unit": "e-/s", "zero_points": model} | FLUX
    adapt = adaptation(ModelConfig(MODEL.task, {}, {}, outputs=["m"], **kind), info, (2, 6, 6))
    assert (adapt.factors, adapt.brightness) == (factors if factors is None else pytest.approx(factors), brightness)
    images = np.random.default_rng(3).uniform(1, 2, (3, 2, 6, 6)).astype(np.float32)
    if factors is not None:
        found = adapt.with_noise(images, np.full_like(images, 5))
        np.testing.assert_allclose(found.images, images[:, ::-1] * np.array(factors)[:, None, None], rtol=1e-6)
        np.testing.assert_allclose(found.noise, [[5 * factor for factor in factors]] * 3, rtol=1e-6)
        said = "fluxes brought from zero points 27.50, 26.00 to the model's 25.00, 26.00"
        assert (said in adapt.notes) == (factors != [1.0, 1.0])


def test_simulated_images_and_files_without_a_unit_are_as_their_models_know_them():
    """Of models that record no zero points: those that ship, and those of earlier versions."""
    simulated = DatasetInfo("preset:x", bands=["g", "r"], zero_points=[25.0, 26.0], unit="e-/s", preset={"name": "x"})
    kind = {"unit": "e-/s"} | FLUX
    assert adaptation(ModelConfig(MODEL.task, {}, {}, outputs=["m"], **kind), simulated, (2, 6, 6)).brightness is None
    files = DatasetInfo("x", bands=["g", "r"], zero_points=[25.0, 26.0], unit="counts")
    kind["unit"] = None
    assert adaptation(ModelConfig(MODEL.task, {}, {}, outputs=["m"], **kind), files, (2, 6, 6)).brightness is None


@pytest.mark.parametrize(
    ("names", "band", "note"),
    [
        (
            ["HSC-G", "HSC-R", "HSC-I"], "HSC-I,HSC-R,HSC-G",
            "--bands contradicts the names of the bands: g is HSC-I, r is HSC-R, i is HSC-G; without it, they would be "
            "HSC-G, HSC-R, HSC-I",
        ),
        (["HSC-G", "HSC-R", "HSC-I"], "HSC-G,HSC-R,HSC-I", "as --bands says: g is HSC-G, r is HSC-R, i is HSC-I"),
        (["A", "B", "C"], "C,B,A", "as --bands says: g is C, r is B, i is A"),
        ([], "2,0,1", "as --bands says: g is 2, r is 0, i is 1"),
    ],
)  # fmt: skip
def test_bands_that_are_given_are_said_with_those_of_the_model(names, band, note):
    adapt = adapted((1, 3, 6, 6), bands=names, band=band, model={"channels": 3, "bands": ["g", "r", "i"]})
    assert note in adapt.notes[0]
