"""Crop, stretch, scale, resize and repeat, against closed forms and other libraries."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from scipy.stats import median_abs_deviation

from darklens.data import preprocessing
from darklens.data.preprocessing import Preprocessing, asinh
from darklens.errors import DataError
from darklens.physics.isophotes import fit_isophotes, isophote_images
from darklens.physics.smoothfit import SmoothPrior, broad_prior, in_larger_frame, sky_noise, smooth_image
from darklens.simulation import Simulator

RNG = np.random.default_rng(4)
IMAGES = RNG.normal(-2, 3, (6, 2, 9, 13)).astype(np.float32)
"""Signed, not square, and with a sky that is not 0."""


def apply(images, **settings):
    return Preprocessing(**settings)(torch.from_numpy(images)).numpy()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"stretch": "none"}, lambda x: x),
        ({"stretch": "sqrt"}, lambda x: np.copysign(np.sqrt(np.abs(x)), x)),
        ({"stretch": "asinh", "softening": 2.5}, lambda x: np.arcsinh(x / 2.5)),
        ({"stretch": "asinh"}, np.arcsinh),
        ({"stretch": "sqrt", "center": -0.7, "scale": 3.5}, lambda x: (np.copysign(np.sqrt(np.abs(x)), x) + 0.7) / 3.5),
    ],
    ids=["none", "sqrt", "asinh", "asinh of 1", "sqrt and scale"],
)
def test_stretches_are_their_closed_forms(settings, expected):
    assert_allclose(apply(IMAGES, **settings), expected(IMAGES), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("largest", [1e-30, 1e-3, 1.0, 1e6, 1e17, 3e38, np.inf, np.nan])
def test_fast_asinh_is_numpys_for_all_numbers(largest):
    random = np.random.default_rng(5)
    values = random.normal(size=(7, 50)) * 10 ** random.uniform(-30, 3, (7, 50))
    values[:, :3] = (0.0, -0.0, largest)
    values = values.astype("float32")
    for given in (values, values[:, ::-3]):
        found = asinh(torch.from_numpy(given.copy())).numpy()
        assert_allclose(found, np.arcsinh(given.astype("float64")), rtol=3e-7)
        assert_array_equal(np.signbit(found), np.signbit(given))
    assert asinh(torch.zeros(0, 3)).shape == (0, 3)


def test_fast_asinh_has_derivatives():
    values = torch.tensor([-3.0, 0.0, 0.5, 200.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(asinh, [values])


def test_minmax_scales_each_image_over_all_its_bands():
    low, high = IMAGES.min((1, 2, 3), keepdims=True), IMAGES.max((1, 2, 3), keepdims=True)
    assert_allclose(apply(IMAGES, stretch="minmax"), (IMAGES - low) / (high - low), rtol=1e-5, atol=1e-6)
    assert (
        apply(np.full((1, 1, 3, 3), -4, dtype=np.float32), stretch="minmax").tolist() == np.zeros((1, 1, 3, 3)).tolist()
    )
    fitted = Preprocessing(stretch="minmax").fit(torch.from_numpy(IMAGES))
    assert fitted == Preprocessing(stretch="minmax")


def test_center_and_scale_are_mean_and_deviation_of_the_stretched_training_images():
    fitted = Preprocessing(stretch="sqrt", crop=5).fit(torch.from_numpy(IMAGES))
    stretched = np.copysign(np.sqrt(np.abs(IMAGES[:, :, 2:7, 4:9])), IMAGES[:, :, 2:7, 4:9]).astype(np.float64)
    assert fitted.center == pytest.approx(stretched.mean(), rel=1e-5)
    assert fitted.scale == pytest.approx(stretched.std(ddof=1), rel=1e-5)
    assert fitted.center < -0.5


def test_softening_is_the_noise_of_the_sky_unless_it_is_given():
    images = RNG.normal(12, 0.8, (20, 1, 16, 16)).astype(np.float32)
    images[:, :, 7:9, 7:9] += 500
    fitted = Preprocessing(stretch="asinh").fit(torch.from_numpy(images))
    assert fitted.softening == pytest.approx(median_abs_deviation(images, axis=None, scale="normal"), rel=1e-3)
    assert fitted.softening == pytest.approx(0.8, rel=0.05)
    stretched = np.arcsinh(images / fitted.softening).astype(np.float64)
    assert (fitted.center, fitted.scale) == pytest.approx((stretched.mean(), stretched.std(ddof=1)), rel=1e-4)
    given = Preprocessing(stretch="asinh", softening=3.0).fit(torch.from_numpy(images))
    assert given.softening == 3.0
    assert given.center == pytest.approx(np.arcsinh(images.astype(np.float64) / 3).mean(), rel=1e-5)


def test_constant_training_images_leave_a_scale_of_one():
    constant = torch.full((3, 1, 4, 4), -4.0)
    fitted = Preprocessing(stretch="sqrt").fit(constant)
    assert (fitted.center, fitted.scale) == (-2, 1)
    assert Preprocessing(stretch="asinh").fit(constant).softening == 1


@pytest.mark.parametrize(
    ("crop", "rows", "columns"),
    [
        (4, slice(2, 6), slice(4, 8)),
        (9, slice(0, 9), slice(2, 11)),
        (11, slice(0, 9), slice(1, 12)),
        (20, slice(0, 9), slice(0, 13)),
    ],
)
def test_crop_keeps_the_centre(crop, rows, columns):
    settings = Preprocessing(stretch="none", crop=crop)
    assert_array_equal(settings(torch.from_numpy(IMAGES)), IMAGES[:, :, rows, columns])
    assert settings.output_shape(IMAGES.shape) == IMAGES[0, :, rows, columns].shape


@pytest.mark.parametrize("side", [6, 20])
def test_resizing_is_that_of_pillow(side):
    images = RNG.normal(0, 1, (2, 1, 12, 12)).astype(np.float32)
    resized = apply(images, stretch="none", resize=side)
    for image, expected in zip(resized[:, 0], images[:, 0], strict=True):
        assert_allclose(image, Image.fromarray(expected).resize((side, side), Image.Resampling.BILINEAR), atol=1e-5)
    assert_array_equal(apply(images, stretch="none", resize=12), images)


def test_one_channel_is_repeated_and_as_many_are_left():
    assert_array_equal(apply(IMAGES[:, :1], stretch="none", repeat_channels=3), np.repeat(IMAGES[:, :1], 3, axis=1))
    assert_array_equal(apply(IMAGES, stretch="none", repeat_channels=2), IMAGES)


@pytest.mark.parametrize(
    ("settings", "shape", "expected"),
    [
        ({}, (2, 9, 13), (2, 9, 13)),
        ({"crop": 8}, (7, 2, 9, 13), (2, 8, 8)),
        ({"crop": 8, "resize": 5}, (2, 9, 13), (2, 5, 5)),
        ({"repeat_channels": 3}, (1, 9, 13), (3, 9, 13)),
        ({"repeat_channels": 3}, (3, 9, 13), (3, 9, 13)),
        ({"lens_model": True}, (2, 16, 16), (4, 16, 16)),
        ({"lens_model": True, "lens_band": 1, "crop": 12}, (2, 16, 16), (4, 12, 12)),
    ],
)
def test_shape_of_the_networks_input(settings, shape, expected):
    assert Preprocessing(**settings).output_shape(shape) == expected


@pytest.mark.parametrize(
    ("settings", "channels", "message"),
    [
        ({"repeat_channels": 3}, 2, r"takes 3 channels .*these images have 2\. --preprocessing\.repeat_channels 1"),
        ({"lens_model": True, "repeat_channels": 3}, 1, "lens_model adds two channels of its own"),
        ({"lens_model": True, "lens_band": 2}, 2, "lens_band 2: these images have 2 channels, counted from 0"),
        ({"lens_model": True, "lens_band": -1}, 2, "lens_band -1"),
    ],
)
def test_settings_that_do_not_fit_the_channels_are_refused(settings, channels, message):
    with pytest.raises(DataError, match=message):
        Preprocessing(**settings).output_shape((channels, 16, 16))


def test_lens_channels_are_what_the_fit_leaves_and_the_fit():
    images, _ = Simulator("model-3-noisy", seed=8).block(0)
    images = images[:8]
    prior = broad_prior()
    table = {"mean": prior.mean.tolist(), "precision": prior.precision.tolist(), "blur": 0.03}
    settings = Preprocessing(lens_model=True, stretch="none", lens_prior=table, center=0.5, scale=0.2)
    found = settings.lenses(images)
    prepared = settings(images, found)
    assert prepared.shape == (8, 3, 64, 64)
    assert torch.equal(prepared, settings(images))
    assert_allclose(prepared[:, 0], (images[:, 0] - 0.5) / 0.2, rtol=1e-5, atol=1e-5)
    # Half of the residual over the noise of sky and photons, and a third of the root of the model.
    left, model = 2 * prepared[:, 1], (3 * prepared[:, 2]) ** 2
    assert float(left.abs().max()) < 30
    again, positive = left * torch.sqrt(1 + 0.15 * model) + model, model > 0
    assert float(positive.float().mean()) > 0.3
    assert_allclose(again[positive], (images[:, 0] / sky_noise(images[:, 0]))[positive], atol=2e-3)
    assert np.corrcoef(model.flatten(), images.flatten())[0, 1] > 0.9
    # Lenses that are given are those that are used.
    other = settings(images, found.flip(0))
    assert torch.equal(other[:, 0], prepared[:, 0])
    assert_allclose(other[:, 2], prepared[:, 2].flip(0), rtol=1e-4, atol=1e-4)
    images[2, 0, 3, 40], images[3, 0, 3, 40] = 1e6, -1e6
    struck = settings(images, found)[:, 1]
    assert (float(struck[2, 3, 40]), float(struck[3, 3, 40])) == (15, -15)


@pytest.mark.parametrize("band", [None, 1])
def test_prior_is_learned_from_the_cropped_band_in_units_of_its_noise(band, monkeypatch):
    """From 82 pixels of 84, binned by two to 41; and from the first images only."""
    asked = {}

    def learn(images, binned, progress):
        asked.update(images=images.numpy(), binned=binned)
        progress(1, 2)
        return SmoothPrior(torch.tensor([1.0, 2.0]), torch.tensor([[3.0, 0.5], [0.5, 4.0]]), 0.25)

    monkeypatch.setattr(preprocessing, "learn_prior", learn)
    monkeypatch.setattr(preprocessing, "PRIOR_IMAGES", 2)
    images = RNG.normal(3, 2, (3, 2, 84, 84)).astype(np.float32)
    settings = Preprocessing(crop=82, stretch="sqrt", lens_model=True, lens_band=band)
    fitted = settings.fit(torch.from_numpy(images))
    assert fitted.lens_prior == {"mean": [1, 2], "precision": [[3, 0.5], [0.5, 4]], "blur": 0.25, "fine": False}
    assert (fitted.lens_model, fitted.lens_band, fitted.crop) == (True, band, 82)
    plain = Preprocessing(crop=82, stretch="sqrt").fit(torch.from_numpy(images))
    assert (fitted.center, fitted.scale) == (plain.center, plain.scale)
    cropped = images[:2, :, 1:83, 1:83]
    chosen = cropped.sum(1) if band is None else cropped[:, band]
    rows = np.concatenate([chosen[:, :8], chosen[:, -8:]], axis=1)
    noise = np.abs(np.diff(rows, axis=2)).mean((1, 2)) * np.sqrt(np.pi) / 2
    binned = (chosen / noise[:, None, None]).reshape(2, 41, 2, 41, 2).mean((2, 4))
    assert asked["binned"] == 4
    assert_allclose(asked["images"], binned, rtol=1e-4, atol=1e-5)


def test_lens_model_of_images_that_it_does_not_fit_is_refused_before_it_is_learned():
    with pytest.raises(DataError, match="lens_band 2: these images have 2 channels"):
        Preprocessing(lens_model=True, lens_band=2).fit(torch.zeros(1, 2, 8, 8))


@pytest.mark.parametrize("pixels", [80, 81, 83, 100, 101])
def test_lens_of_any_number_of_pixels_is_fitted_at_its_place(pixels):
    """What the fit leaves of smooth lenses is their noise, whether or not pixels can be binned evenly."""
    rng = torch.Generator().manual_seed(3)
    parameters = broad_prior().mean.repeat(6, 1)
    width = torch.tensor([0.1, 0.1, 0.1, 0.03, 0.03, 0.03, 0.03, 0.1, 0.1, 0.2, 0.2, 0.1, 0.1, 0.3, 0.2])
    parameters = parameters + width * torch.randn(parameters.shape, generator=rng)
    parameters[:, -2] = 3.5
    sharp = smooth_image(parameters, pixels, 0.8 * 2 / pixels)
    images = (sharp + torch.randn(sharp.shape, generator=rng))[:, None]
    prior = broad_prior()
    table = {"mean": prior.mean.tolist(), "precision": prior.precision.tolist(), "blur": 0.8 * 2 / (pixels // 2 * 2)}
    prepared = Preprocessing(lens_model=True, lens_prior=table, lens_band=0)
    found = prepared.lenses(images)
    model = smooth_image(found, pixels, 0.8 * 2 / pixels) * sky_noise(images[:, 0])
    assert 0.9 < float(((images[:, 0] - model) ** 2).mean((1, 2)).median()) < 1.3, "3.4 to 4.6 with a corner left out"
    assert_allclose(found[:, 0], parameters[:, 0], atol=0.02)


def test_lens_in_a_larger_frame_is_the_same_lens():
    parameters = broad_prior().mean.repeat(2, 1)
    parameters[:, [1, 3, 4, 5, 6, 7, 8]] = torch.tensor([[0.1, 0.05, -0.1, 0.08, -0.05, 0.1, -0.2]])
    parameters[1, 0] = 0.4
    part = smooth_image(parameters, 90)
    whole = smooth_image(in_larger_frame(parameters, 90, 101, 3), 101)
    torch.testing.assert_close(whole[:, 3:93, 3:93], part, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(("band", "expected"), [(None, [5.0, 13.0]), (1, [4.0, 12.0])])
def test_noise_that_is_known_takes_the_place_of_the_estimate(band, expected):
    """What is left of a lens is in units of the noise that is given; nan is estimated."""
    torch.manual_seed(2)
    images = torch.randn(2, 2, 40, 40)
    noise = torch.tensor([[3.0, 4.0], [5.0, 12.0]])
    prior = Preprocessing(lens_model=True, lens_band=band).fit(images).lens_prior
    settings = Preprocessing(lens_model=True, lens_band=band, lens_prior=prior)
    summed = images.sum(1) if band is None else images[:, band]
    np.testing.assert_allclose(
        settings._in_noise(images, noise), summed / torch.tensor(expected)[:, None, None], rtol=1e-6
    )
    unknown = torch.full((2, 2), torch.nan)
    assert torch.equal(settings(images, noise=unknown), settings(images))
    lenses = settings.lenses(images, noise)
    assert torch.equal(settings(images, noise=noise), settings(images, lenses, noise))
    assert not torch.equal(settings(images, noise=noise), settings(images))


@pytest.mark.parametrize("band", [0, 2])
def test_each_band_of_an_image_may_be_fitted(band):
    assert Preprocessing(lens_model=True, lens_band=band).output_shape((4, 3, 16, 12)) == (5, 16, 12)
    with pytest.raises(DataError, match=r"takes 2 channels \(repeat_channels\).*these images have 3"):
        Preprocessing(repeat_channels=2).output_shape((4, 3, 16, 12))


def galaxy(noise: float) -> np.ndarray:
    """A round galaxy with an arc beside it, and noise: (32, 32)."""
    y, x = np.mgrid[:32, :32] - 15.5
    arc = 20 * np.exp(-0.5 * (np.hypot(x, y) - 8) ** 2) * (x > 4)
    return 300 * np.exp(-np.hypot(x, y) / 2) + arc + RNG.normal(0, noise, (32, 32))


def test_stretch_noise_takes_each_band_of_each_image_in_units_of_its_own_noise():
    images = np.stack([[galaxy(2.0), galaxy(0.5)], [galaxy(1.0), np.zeros((32, 32))]]).astype(np.float32)
    found = apply(images, stretch="noise")
    noise = sky_noise(torch.from_numpy(images).flatten(0, 1)).reshape(2, 2, 1, 1).numpy()
    assert_allclose(found, np.arcsinh(images / noise / 3), rtol=1e-5)
    for factors in ((1e-9, 1e4), (1e-19, 1e-25), (1e30, 1e-30)):
        scaled = images * np.array(factors, np.float32)[None, :, None, None]
        assert_allclose(apply(scaled, stretch="noise"), found, rtol=1e-3, atol=1e-6)
    known = torch.tensor([[4.0, torch.nan], [0.0, 5.0]])
    by_map = Preprocessing(stretch="noise")(torch.from_numpy(images), noise=known).numpy()
    assert_allclose(by_map[0, 0], np.arcsinh(images[0, 0] / 4 / 3), rtol=1e-5)
    assert_allclose(by_map[0, 1], found[0, 1])
    assert_allclose(by_map[1], found[1])


def test_lens_light_adds_what_isophotes_leave_of_each_band():
    images = torch.from_numpy(np.stack([[galaxy(1.0), galaxy(2.0)], [galaxy(1.5), galaxy(0.5)]]).astype(np.float32))
    settings = Preprocessing(stretch="noise", lens_light=True, center=0.2, scale=0.7)
    found = settings(images)
    assert found.shape == (2, *settings.output_shape(images.shape)) == (2, 4, 32, 32)
    scaled = images / sky_noise(images.flatten(0, 1)).reshape(2, 2, 1, 1)
    left = torch.asinh((scaled - isophote_images(fit_isophotes(scaled), 32)) / 3)
    assert_allclose(found[:, 2:], left, rtol=1e-4, atol=1e-4)
    assert_allclose(found[:, :2], (torch.asinh(scaled / 3) - 0.2) / 0.7, rtol=1e-4, atol=1e-4)
    y, x = np.mgrid[:32, :32] - 15.5
    arc = (np.abs(np.hypot(x, y) - 8) < 1) & (x > 5)
    assert found[:, 2:, arc].median() > 3 * found[:, 2:, (np.hypot(x, y) > 5) & ~arc].std()


def test_lens_light_sees_the_cropped_square_and_refuses_repeated_channels():
    images = torch.from_numpy(np.pad(galaxy(1.0), 4, constant_values=90).astype(np.float32))[None, None]
    cropped = Preprocessing(stretch="noise", lens_light=True, crop=32)(images)
    assert_allclose(cropped, Preprocessing(stretch="noise", lens_light=True)(images[..., 4:-4, 4:-4]))
    with pytest.raises(DataError, match="repeat_channels has no use beside it"):
        Preprocessing(lens_light=True, repeat_channels=3).output_shape((1, 32, 32))


@pytest.mark.parametrize(
    ("settings", "uses"),
    [({}, False), ({"stretch": "noise"}, True), ({"lens_light": True}, True), ({"lens_model": True}, True)],
)
def test_noise_is_read_where_it_counts(settings, uses):
    assert Preprocessing(**settings).uses_noise is uses
