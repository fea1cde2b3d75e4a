import numpy as np
import pytest
import torch
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from scipy.ndimage import gaussian_filter

from darklens.physics.coordinates import pixel_coordinates
from darklens.physics.smoothfit import (
    PARAMETERS,
    broad_prior,
    fit_smooth_lens,
    learn_prior,
    model_and_jacobian,
    residual,
    sky_noise,
    smooth_image,
)

LENS = {
    "theta_E": 0.6, "e1": 0.12, "e2": -0.05, "lens_x": 0.02, "lens_y": -0.01, "gamma1": 0.04, "gamma2": -0.03,
    "source_x": 0.06, "source_y": -0.1, "log_R": -2.0, "log_n": 0.2, "source_e1": -0.1, "source_e2": 0.15,
    "log_amp": 2.5, "sky": 0.3,
}  # fmt: skip


def parameters(**changes):
    return torch.tensor([[(LENS | changes)[name] for name in PARAMETERS]], dtype=torch.float64)


def population(count, seed=0, shared=False):
    """Lenses scattered about one, and their images with noise of 1."""
    rng = torch.Generator().manual_seed(seed)
    width = torch.tensor([0.05, 0.05, 0.05, 0.02, 0.02, 0.03, 0.03, 0.1, 0.1, 0.2, 0.1, 0.1, 0.1, 0.2, 0.0])
    if shared:
        width[[0, 1, 2, 3, 4, 5, 6, 9, 10, 11, 12]] = 0
    truths = parameters().float() + width * torch.randn(count, len(PARAMETERS), generator=rng)
    images = smooth_image(truths, 40)
    noise = torch.sqrt(1 + 0.15 * images.clamp_min(0)) * torch.randn(images.shape, generator=rng)
    return truths, images + noise


def image_by_lenstronomy(pixels):
    p = LENS
    x, y = (c.flatten().numpy() for c in pixel_coordinates(pixels, 2 / pixels, dtype=torch.float64))
    lens = LensModel(["SIE", "SHEAR"])
    kwargs = [
        {"theta_E": p["theta_E"], "e1": p["e1"], "e2": p["e2"], "center_x": p["lens_x"], "center_y": p["lens_y"]},
        {"gamma1": p["gamma1"], "gamma2": p["gamma2"]},
    ]
    bx, by = lens.ray_shooting(x, y, kwargs)
    source = {
        "amp": np.exp(p["log_amp"]), "R_sersic": np.exp(p["log_R"]), "n_sersic": np.exp(p["log_n"]),
        "e1": p["source_e1"], "e2": p["source_e2"], "center_x": p["source_x"], "center_y": p["source_y"],
    }  # fmt: skip
    light = LightModel(["SERSIC_ELLIPSE"]).surface_brightness(bx, by, [source])
    return light.reshape(pixels, pixels) + p["sky"]


def test_model_is_that_of_lenstronomy():
    x, y = pixel_coordinates(40, 2 / 40, dtype=torch.float64)
    expected = image_by_lenstronomy(40)
    model, _ = model_and_jacobian(parameters(), x, y)
    np.testing.assert_allclose(model[0].numpy(), expected, atol=1e-5 * expected.max())
    np.testing.assert_allclose(smooth_image(parameters(), 40)[0].numpy(), expected, atol=1e-4 * expected.max())


@pytest.mark.parametrize(("pixels", "blur"), [(40, 0.05), (40, 0.021), (64, 0.05)])
def test_blur_is_a_gaussian_in_units_of_half_the_side(pixels, blur):
    """Of 1, 0.42 and 1.6 pixels, by scipy."""
    expected = gaussian_filter(image_by_lenstronomy(pixels), blur * pixels / 2, mode="nearest", truncate=4)
    actual = smooth_image(parameters(), pixels, blur)[0].numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-4 * expected.max())


@pytest.mark.parametrize("sigma", [0.6, 1.1])
def test_prior_learns_the_blur_of_the_images(sigma):
    """Images of lenses that vary, which scipy blurs by some pixels before noise is added.

    Where all images share one source, as much blur as its shape allows is taken for its size instead.
    """
    truths, _ = population(48)
    flux = np.stack([gaussian_filter(image, sigma, mode="nearest") for image in smooth_image(truths, 40).numpy()])
    noise = np.random.default_rng(1).normal(size=flux.shape) * np.sqrt(1 + 0.15 * flux.clip(0))
    prior = learn_prior(torch.from_numpy(flux + noise).float(), rounds=6)
    assert prior.blur == pytest.approx(sigma * 2 / 40, rel=0.1)


def test_derivatives_are_those_of_the_model():
    x, y = pixel_coordinates(24, 2 / 24, dtype=torch.float64)
    _, jacobian = model_and_jacobian(parameters(), x, y)
    for k, name in enumerate(PARAMETERS):
        step = 1e-5
        up, down = (model_and_jacobian(parameters(**{name: LENS[name] + s}), x, y)[0] for s in (step, -step))
        expected = (up - down)[0] / (2 * step)
        # By the ellipticity of the deflector it is a difference itself, of a step of 1e-3.
        tolerance = 5e-3 if name in ("e1", "e2") else 1e-5
        torch.testing.assert_close(jacobian[0, k], expected, rtol=0, atol=tolerance * float(expected.abs().max()))


def test_fit_finds_lenses_within_its_own_errors():
    truths, images = population(64)
    fit = fit_smooth_lens(images, broad_prior())
    errors = torch.linalg.inv(fit.curvature.double()).diagonal(dim1=1, dim2=2).sqrt()
    pulls = ((fit.parameters - truths) / errors)[:, :-1]
    found = pulls.abs().amax(1) < 6
    assert found.float().mean() > 0.9, "one in ten may be caught in another minimum"
    assert 0.7 < float(pulls[found].std()) < 1.4
    left = residual(images, smooth_image(fit.parameters, 40))[found]
    torch.testing.assert_close(left.std(), torch.tensor(1.0), rtol=0, atol=0.03)


def test_prior_learns_what_lenses_share_and_how_they_vary():
    varied = learn_prior(population(128)[1], rounds=8)
    width = torch.linalg.inv(varied.precision.double()).diagonal().sqrt()
    assert 0.03 < width[PARAMETERS.index("theta_E")] < 0.08
    shared = learn_prior(population(128, shared=True)[1], rounds=8)
    width = torch.linalg.inv(shared.precision.double()).diagonal().sqrt()
    for name in ("theta_E", "e1", "gamma1", "log_n"):
        k = PARAMETERS.index(name)
        assert width[k] < 1e-3, f"{name} is one and the same"
        assert abs(float(shared.mean[k]) - LENS[name]) < 0.01
    assert 0.06 < width[PARAMETERS.index("source_x")] < 0.15


def test_substructure_stays_in_the_residual():
    """A point mass on the ring, fitted with what is known of smooth lenses, is seen where it is."""
    prior = learn_prior(population(96, shared=True)[1], rounds=4)
    x, y = pixel_coordinates(40, 2 / 40)
    smooth = parameters().float()
    px, py = 0.6 * np.cos(0.7), 0.6 * np.sin(0.7)
    r2 = (x - px) ** 2 + (y - py) ** 2
    kick = 0.05**2 / r2.clamp_min(1e-4)
    images = model_and_jacobian(smooth, x - kick * (x - px), y - kick * (y - py))[0]
    left = residual(images, smooth_image(fit_smooth_lens(images, prior).parameters, 40))[0].abs()
    strongest = int(left.flatten().argmax())
    distance = float(torch.hypot(x.flatten()[strongest] - px, y.flatten()[strongest] - py))
    assert float(left.max()) > 1
    assert distance < 0.2


def test_sky_noise_is_that_of_a_tenth_of_the_side_at_top_and_bottom():
    """Rows of equal steps up and down: 1 in the first row, 2 in the second, and so on, and 1000 within."""
    step = torch.full((40,), 1000.0)
    step[:4] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    step[-4:] = torch.tensor([5.0, 6.0, 7.0, 8.0])
    image = step[:, None] * torch.tensor([0.0, 1.0]).repeat(20)
    # The mean difference of two normal numbers is 2 / √π of their standard deviation.
    torch.testing.assert_close(
        sky_noise(image[None]), torch.tensor([[[4.5 * np.sqrt(np.pi) / 2]]], dtype=torch.float32)
    )
    # Without noise it is 0.003 of the peak, of either sign.
    flat = torch.tensor([-3.0, 2.0])[:, None, None].expand(2, 9, 9)
    torch.testing.assert_close(sky_noise(flat).flatten(), torch.tensor([0.009, 0.006]))


def test_sky_noise_and_odd_images():
    torch.manual_seed(0)
    images = 3 * torch.randn(4, 50, 50)
    torch.testing.assert_close(sky_noise(images).flatten(), torch.full((4,), 3.0), rtol=0.15, atol=0)
    prior = broad_prior()
    for odd in (torch.zeros(2, 41, 41), torch.full((2, 41, 41), 5.0), 1e4 * torch.randn(2, 41, 41)):
        assert fit_smooth_lens(odd, prior).parameters.isfinite().all()


def test_pixels_that_are_means_of_several_hold_as_much_more_information():
    """The curvature less the prior's goes as the inverse variance of the noise, which four pixels divide by four."""
    image = torch.from_numpy(image_by_lenstronomy(24)).float()[None]
    prior = broad_prior()
    one, four = (fit_smooth_lens(image, prior, binned=number) for number in (1, 4))
    torch.testing.assert_close(one.parameters, four.parameters, rtol=0, atol=0.02)
    data = [(fit.curvature - prior.precision).diagonal(dim1=1, dim2=2) for fit in (one, four)]
    torch.testing.assert_close(data[1], 4 * data[0], rtol=0.1, atol=0)


def test_half_precision_is_fitted_in_single_and_no_images_have_no_fits():
    images = smooth_image(parameters().float(), 24)
    single = fit_smooth_lens(images.half().float(), broad_prior())
    half = fit_smooth_lens(images.half(), broad_prior())
    assert half.parameters.dtype == torch.float32
    torch.testing.assert_close(half.parameters, single.parameters, rtol=0, atol=0)
    none = fit_smooth_lens(images[:0], broad_prior())
    assert [tuple(each.shape) for each in none] == [(0, 15), (0, 15, 15), (0,)]
    with pytest.raises(ValueError, match="there are no images to learn a prior of smooth lenses from"):
        learn_prior(images[:0])
