"""Finer images are corrected by the image as the closed form of the normal distribution says."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from darklens.models.consistency import BLUR_REACH, ImageConsistency
from darklens.models.registry import build_network
from darklens.physics.degrading import REACH, Response, degrade, inner

SIDE = 7
MEAN, SCALE = 0.4, 2.0
FINE_MEAN, FINE_SCALE = 0.1, 0.5


def response() -> Response:
    """A point-spread function that is not symmetric, for fluxes on pixels twice as large."""
    side = (2 * REACH + 1) * 2
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    weights = np.exp(-((x - 0.3) ** 2 + 1.3 * y**2) / 4)
    weights = torch.from_numpy(4 * weights / weights.sum())[None]
    return Response(weights, torch.tensor([0.01]).double(), torch.tensor([0.02]).double())


def correction(steps: int, noise: float = 1.0) -> ImageConsistency:
    found, (weights, sky, shot) = ImageConsistency(2, steps), response()
    found.learn(Response(weights, sky * noise, shot * noise), image=(MEAN, SCALE), target=(FINE_MEAN, FINE_SCALE))
    return found


def scene(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """An answer, its spread, and an image, in the network's units."""
    generator = torch.Generator().manual_seed(seed)
    fine = torch.rand(1, 1, 2 * SIDE, 2 * SIDE, generator=generator)
    spread = 0.05 + 0.3 * torch.rand(1, 1, 2 * SIDE, 2 * SIDE, generator=generator)
    return fine, spread, torch.rand(1, 1, SIDE, SIDE, generator=generator)


def matrix(function, size: int) -> np.ndarray:
    """The matrix of a linear function of images of a side."""
    units = torch.eye(size**2, dtype=torch.float64).reshape(size**2, 1, size, size)
    return function(units).flatten(1).T.numpy()


def test_answer_is_the_mean_given_the_image():
    """Against numpy's solution of x + C Aᵀ (A C Aᵀ + N)⁻¹ (y - A x) in the units of the images."""
    found = correction(40)
    fine, spread, seen = scene()
    answer = found(fine, spread, seen).detach().numpy().ravel() * FINE_SCALE + FINE_MEAN
    x, y = (fine.double().numpy().ravel() * FINE_SCALE + FINE_MEAN, inner(seen).double().numpy().ravel() * SCALE + MEAN)
    gather = matrix(lambda units: degrade(units, response().weights, 2), 2 * SIDE)
    kernel = found.blur.detach().double()
    blur = matrix(lambda units: torch.nn.functional.conv2d(units, kernel, padding=BLUR_REACH), 2 * SIDE)
    believed = blur @ np.diag((spread.double().numpy().ravel() * FINE_SCALE) ** 2) @ blur.T
    noise = np.diag(0.01 + 0.02 * np.maximum(gather @ x, 0))
    gain = believed @ gather.T @ np.linalg.inv(gather @ believed @ gather.T + noise)
    assert_allclose(answer, x + gain @ (y - gather @ x), atol=2e-4)
    assert np.abs(answer - x).max() > 0.02


@pytest.mark.parametrize("noise", [1.0, 1e-3])
def test_no_step_takes_the_answer_away_from_the_image(noise):
    """Of weighted residuals: conjugate gradients lower what bounds them."""
    fine, spread, seen = scene()

    def misfit(steps: int) -> float:
        found = correction(steps, noise)
        light = [found._gathered(each) + found.offset for each in (found(fine, spread, seen), fine)]
        sky, shot = found.noise.square()
        return float(
            ((inner(seen) - light[0]).square() / (sky + shot * (light[1] + found.dark).clamp_min(0))).mean().detach()
        )

    before = misfit(0)
    assert all(misfit(steps) < before for steps in (1, 2, 4, 8))
    assert misfit(8) < 0.999 * before


def test_eight_steps_are_enough():
    fine, spread, seen = scene()
    torch.testing.assert_close(correction(8)(fine, spread, seen), correction(40)(fine, spread, seen), atol=0.01, rtol=0)


def test_answer_that_agrees_with_the_image_and_one_of_no_spread_stay():
    found = correction(8)
    fine, spread, seen = scene()
    agreeing = seen.clone()
    inner(agreeing).copy_(found._gathered(fine) + found.offset)
    torch.testing.assert_close(found(fine, spread, agreeing), fine)
    torch.testing.assert_close(found(fine, torch.zeros_like(spread), seen), fine)
    unlearned = ImageConsistency(2, 8)
    torch.testing.assert_close(unlearned(fine, spread, seen), fine)


def test_gradients_reach_answer_spread_and_blur():
    found = correction(6)
    fine, spread, seen = scene()
    fine.requires_grad_()
    spread.requires_grad_()
    found(fine, spread, seen).square().sum().backward()
    for tensor in (fine, spread, found.blur):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()
        assert tensor.grad.abs().max() > 0


def test_lens_network_corrects_its_lens_where_light_is():
    """The image has light that the lens has not: the answer has more light there, and as much as before elsewhere."""
    network = build_network("lens-residual", 4, 1, {"width": 8, "blocks": 1}).eval()
    network.learn_response(response(), image=(MEAN, SCALE), target=(FINE_MEAN, FINE_SCALE))
    lens = torch.zeros(1, 1, 40, 40)
    seen = torch.full((1, 1, 20, 20), (4 * FINE_MEAN - MEAN) / SCALE)
    seen[..., 10, 10] += 1
    larger = seen.repeat_interleave(2, -1).repeat_interleave(2, -2)
    with torch.no_grad():
        answer = network(torch.cat([larger, torch.zeros(1, 2, 40, 40), lens], dim=1))[0, 0]
    assert answer[20:22, 20:22].mean() > 1e-3
    assert answer[:10].abs().max() < 1e-6


@pytest.mark.parametrize("steps", [0, 3])
def test_steps_are_an_option(steps):
    network = build_network("lens-residual", 4, 1, {"width": 8, "blocks": 1, "consistency_steps": steps})
    assert network.consistency.steps == steps
