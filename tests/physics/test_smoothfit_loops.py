"""Fits on a CPU: their functions against NumPy and the same formulas on whole batches, and what they must not depend on."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from darklens.physics import smoothfit, smoothfit_loops
from darklens.physics.coordinates import bin_pixels, pixel_coordinates
from darklens.physics.psf import convolve_separable
from darklens.physics.smoothfit import PARAMETERS, broad_prior, fit_smooth_lens, model_and_jacobian, smooth_image

MEAN = np.array([0.6, 0.12, -0.05, 0.02, -0.01, 0.04, -0.03, 0.06, -0.1, -2.0, 0.2, -0.1, 0.15, 2.5, 0.3], np.float32)


def lenses(count, seed=0):
    width = np.array([0.05, 0.05, 0.05, 0.02, 0.02, 0.03, 0.03, 0.1, 0.1, 0.2, 0.1, 0.1, 0.1, 0.2, 0.3])
    return (MEAN + width * np.random.default_rng(seed).normal(size=(count, 15))).astype(np.float32)


def images_of(parameters, pixels, blur=0.0):
    clean = smooth_image(torch.from_numpy(parameters), pixels, blur)
    rng = torch.Generator().manual_seed(1)
    return clean + torch.sqrt(1 + 0.15 * clean.clamp_min(0)) * torch.randn(clean.shape, generator=rng)


def test_elementary_functions_are_those_of_numpy():
    t = np.concatenate([-np.logspace(2, -8, 300), [0], np.logspace(-8, 2, 300)]).astype(np.float32)
    assert_allclose([smoothfit_loops.arctan(each) for each in t], np.arctan(t.astype(float)), rtol=4e-7)
    t = np.concatenate([-np.logspace(-8, np.log10(0.998), 300), np.logspace(-8, np.log10(0.998), 300)]).astype(
        np.float32
    )
    assert_allclose([smoothfit_loops.arctanh(each) for each in t], np.arctanh(t.astype(float)), rtol=4e-7)
    t = np.linspace(-87, 88, 4001).astype(np.float32)
    out, bits = np.empty_like(t), np.empty(len(t), np.int32)
    smoothfit_loops.exp(t, bits, out)
    assert_allclose(out, np.exp(t.astype(float)), rtol=4e-7)
    positive = np.concatenate([np.logspace(-37, 38, 4001), np.linspace(0.5, 2, 4001)]).astype(np.float32)
    out, bits = np.empty_like(positive), np.empty(len(positive), np.int32)
    smoothfit_loops.log(positive, bits, out)
    assert_allclose(out, np.log(positive.astype(float)), rtol=2e-7, atol=1e-7)


def test_exponentials_beyond_float32_end_at_its_limits():
    t = np.array([-500, -87, 88, 500], np.float32)
    out = np.empty_like(t)
    smoothfit_loops.exp(t, np.empty(4, np.int32), out)
    assert_allclose(out, np.exp([-87.0, -87, 88, 88]), rtol=1e-5)


def image_and_slopes(p, pixels, tolerance=0.0):
    """Light, derivatives and numbers of rays along an axis, by the loops."""
    axis = pixel_coordinates(pixels, 2 / pixels)[0][0].numpy().copy()
    room, lens = smoothfit_loops.make_room(pixels), smoothfit_loops.ellipsoid(p[0], p[1], p[2])
    sampling = tuple(np.float32(each) for each in (tolerance, 0.15, 1))
    smoothfit_loops.image_of(p, lens, axis, sampling, room)
    slopes = []
    for i in range(pixels):
        smoothfit_loops.row_of_slopes(p, lens, axis, i, room)
        slopes.append(room.slopes.copy())
    return room.light.copy(), np.stack(slopes, 1), room.rays.copy()


@pytest.mark.parametrize("ellipticity", [(0.12, -0.05), (-0.3, 0.5), (0.02, 0.01), (0.004, 0.003), (0.0, 0.0)])
def test_model_and_derivatives_are_those_of_the_batch(ellipticity):
    p = MEAN.copy()
    p[1:3] = ellipticity
    x, y = pixel_coordinates(24, 2 / 24, dtype=torch.float64)
    model, jacobian = model_and_jacobian(torch.from_numpy(p)[None].double(), x, y)
    light, found, rays = image_and_slopes(p, 24)
    assert rays.max() == 1
    expected = (model[0] - p[14]).numpy()
    assert_allclose(light, expected, rtol=0, atol=1e-5 * expected.max())
    assert smoothfit_loops.is_round(p) == (np.hypot(*ellipticity) < 0.01)
    for k, name in enumerate(PARAMETERS):
        expected = jacobian[0, k].numpy()
        # There, differences of a step of 1e-3.
        tolerance = 1e-2 if name in ("e1", "e2") else 1e-4
        assert_allclose(found[k], expected, rtol=0, atol=tolerance * abs(expected).max(), err_msg=name)


def test_derivatives_by_the_ellipticity_are_exact():
    p = torch.from_numpy(MEAN)[None].double()
    x, y = pixel_coordinates(24, 2 / 24, dtype=torch.float64)
    _, found, _ = image_and_slopes(MEAN, 24)
    for k in (1, 2):
        step = 1e-6 * torch.nn.functional.one_hot(torch.tensor(k), 15).double()
        expected = (model_and_jacobian(p + step, x, y)[0] - model_and_jacobian(p - step, x, y)[0])[0].numpy() / 2e-6
        assert_allclose(found[k], expected, rtol=0, atol=1e-4 * abs(expected).max())


@pytest.mark.parametrize("tolerance", [0.1, 0.01])
@pytest.mark.parametrize("ellipticity", [(0.12, -0.05), (0.004, 0.003)])
def test_rough_pixels_are_means_over_rays(tolerance, ellipticity):
    """A source of which a pixel at the centre says little, against the mean over 24 × 24 rays in each pixel."""
    p = MEAN.copy()
    p[1:3] = ellipticity
    p[9], p[13] = -3.2, 4.0
    x, y = pixel_coordinates(24 * 24, 2 / (24 * 24), dtype=torch.float64)
    model, jacobian = (bin_pixels(each, 24)[0] for each in model_and_jacobian(torch.from_numpy(p)[None].double(), x, y))
    light, slopes, rays = image_and_slopes(p, 24, tolerance)
    noise = np.sqrt(1 + 0.15 * light)
    centres, *_ = image_and_slopes(p, 24)
    expected = model.numpy() - p[14]
    assert abs((centres - expected) / noise).max() > 2
    assert abs((light - expected) / noise).max() < 0.5
    assert np.sqrt(np.mean(((light - expected) / noise) ** 2)) < max(tolerance, 0.04), "by 6 × 6 rays at most"
    assert rays[abs((centres - expected) / noise) > 2 * tolerance].min() > 1
    assert rays.max() == smoothfit_loops.MOST
    assert (rays == 1).sum() > 24 * 24 // 4, "the sky needs no more than one ray"
    for k, name in enumerate(PARAMETERS):
        truth = jacobian[k].numpy()
        rms = np.sqrt(np.mean((slopes[k] - truth) ** 2) / np.mean(truth**2))
        assert rms < 0.1, name


@pytest.mark.parametrize("pixels", [2, 5, 24])
def test_blur_is_that_of_the_batch(pixels):
    image = np.random.default_rng(0).normal(size=(pixels, pixels)).astype(np.float32)
    taps = smoothfit._taps(1.5 * 2 / pixels, pixels)
    assert len(taps) == 13
    out, rows = np.empty_like(image), np.empty_like(image)
    smoothfit_loops.blur(image, np.array(taps, np.float32), rows, out)
    expected = convolve_separable(torch.from_numpy(image)[None], taps)[0]
    assert_allclose(out, expected, atol=1e-6)
    smoothfit_loops.blur(image, np.empty(0, np.float32), rows, out)
    assert_array_equal(out, image)
    smoothfit_loops.blur(image, np.array(taps, np.float32), rows, image)
    assert_allclose(image, expected, atol=1e-6)


def test_systems_are_solved_or_left():
    rng = np.random.default_rng(0)
    root, right, out = rng.normal(size=(6, 9)), rng.normal(size=6), np.full(6, np.nan)
    smoothfit_loops.solve(root @ root.T, right, out)
    assert_allclose(out, np.linalg.solve(root @ root.T, right), rtol=1e-9)
    for wrong in (np.zeros((6, 6)), -np.eye(6), np.full((6, 6), np.nan), np.diag([np.inf] * 6)):
        out[:] = np.nan
        smoothfit_loops.solve(wrong, right, out)
        assert_array_equal(out, np.zeros(6))


@pytest.mark.parametrize(("blur", "binned", "fine"), [(0.0, 1, False), (0.05, 4, False), (0.05, 1, True)])
def test_fits_are_those_of_the_batch(blur, binned, fine, monkeypatch):
    images = images_of(lenses(24), 40, blur)
    prior = broad_prior()._replace(blur=blur, fine=fine)
    loops = fit_smooth_lens(images, prior, binned)
    monkeypatch.setattr(smoothfit, "_refine", smoothfit._refine_together)
    batch = fit_smooth_lens(images, prior, binned)
    same = (loops.cost / batch.cost - 1).abs() < 1e-3
    assert same.sum() >= 23, "one may end in another minimum"
    errors = torch.linalg.inv(batch.curvature.double()).diagonal(dim1=1, dim2=2).sqrt()
    # The batch has 4 × 4 rays in each pixel.
    assert float(((loops.parameters - batch.parameters) / errors)[same].abs().max()) < (1 if fine else 0.1)
    scale = batch.curvature.diagonal(dim1=1, dim2=2).sqrt()
    difference = (loops.curvature - batch.curvature) / (scale[:, :, None] * scale[:, None])
    assert float(difference[same].abs().max()) < (0.3 if fine else 0.02)


def test_first_guesses_are_those_of_the_batch(monkeypatch):
    images = images_of(lenses(24), 20)
    loops = smoothfit._first_guess(images, broad_prior())
    tried = []

    def by_batch(images, guess, shifts, best, least):
        x, y = pixel_coordinates(20, 0.1)
        tried.append(shifts.shape)
        for s in range(shifts.shape[1]):
            one = guess.clone()
            one[:, 7:9] = shifts[:, s]
            shape = smoothfit._trace(one, x, y).light.double()
            scale = ((images * shape).sum((1, 2)) / shape.square().sum((1, 2))).clamp_min(1e-3)
            cost = (images - scale[:, None, None] * shape).square().sum((1, 2))
            one[:, 13] += scale.log()
            better = cost < least
            best[better], least[better] = one[better], cost[better].float()

    monkeypatch.setattr(smoothfit, "_try_on_cpu", by_batch)
    batch = smoothfit._first_guess(images, broad_prior())
    assert tried == [(24, 7, 2)] * 3
    assert int(((loops - batch).abs().amax(1) < 1e-4).sum()) >= 23


def test_a_fit_depends_on_its_own_image_alone(monkeypatch):
    images = images_of(lenses(7), 24)
    whole = fit_smooth_lens(images, broad_prior())
    for chosen in ([3], [6, 0]):
        for found, expected in zip(fit_smooth_lens(images[chosen], broad_prior()), whole, strict=True):
            assert torch.equal(found, expected[chosen])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for found, expected in zip(fit_smooth_lens(images, broad_prior()), whole, strict=True):
        assert torch.equal(found, expected)


def test_an_image_that_is_no_number_does_not_spoil_others():
    images = images_of(lenses(3), 24)
    whole = fit_smooth_lens(images, broad_prior())
    images[1, 3, 4] = torch.nan
    fit = fit_smooth_lens(images, broad_prior())
    assert torch.equal(fit.parameters[[0, 2]], whole.parameters[[0, 2]])
    assert torch.isinf(fit.cost[1])


def test_images_that_are_no_squares_are_refused():
    for shape in ((2, 24, 20), (2, 20, 24), (24, 24), (2, 1, 24, 24), (2, 1, 1)):
        with pytest.raises(ValueError, match="expected"):
            fit_smooth_lens(torch.zeros(shape), broad_prior())


def test_fits_end_when_no_step_promises_more(monkeypatch):
    images = images_of(lenses(16), 40)
    whole = fit_smooth_lens(images, broad_prior())
    monkeypatch.setattr(smoothfit, "FINE_STEPS", 60)
    longer = fit_smooth_lens(images, broad_prior())
    assert float((whole.cost - longer.cost).abs().max()) < 0.1
    monkeypatch.setattr(smoothfit, "FINE_STEPS", 1)
    shorter = fit_smooth_lens(images, broad_prior())
    assert float((shorter.cost - whole.cost).max()) > 1


def test_prior_learns_whether_pixels_are_means():
    """Images of small sources, seen through the centres of pixels and as means over them."""
    parameters = lenses(64)
    parameters[:, 9:11] += np.array([-0.8, 0.6])
    parameters[:, 13] += 1
    rng = torch.Generator().manual_seed(1)
    for fine in (False, True):
        clean = smooth_image(torch.from_numpy(parameters), 40, 0.05, fine)
        noise = torch.sqrt(1 + 0.15 * clean.clamp_min(0)) * torch.randn(clean.shape, generator=rng)
        assert smoothfit.learn_prior(clean + noise, rounds=6).fine is fine


def test_images_of_means_are_those_of_many_rays():
    parameters = torch.from_numpy(lenses(4))
    whole = bin_pixels(smooth_image(parameters, 40 * 16) - parameters[:, 14, None, None], 16)
    expected = smoothfit._blurred(whole, 0.05) + parameters[:, 14, None, None]
    noise = torch.sqrt(1 + 0.15 * expected.clamp_min(0))
    assert float(((smooth_image(parameters, 40, 0.05, fine=True) - expected) / noise).abs().max()) < 0.1
    batch = smooth_image(parameters.clone().requires_grad_(), 40, 0.05, fine=True).detach()
    assert float(((batch - expected) / noise).abs().max()) < 0.2
