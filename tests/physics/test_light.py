import numpy as np
import pytest
import torch
from lenstronomy.LightModel.light_model import LightModel
from numpy.testing import assert_allclose

from darklens.physics import exponential_light, pixelated_light, sersic_light, sersic_total_flux


def t(value):
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("n", [0.7, 1.0, 4.0])
@pytest.mark.parametrize(("e1", "e2"), [(0.0, 0.0), (-0.1, 0.1), (0.3, -0.2)])
def test_sersic_agrees_with_lenstronomy(n, e1, e2, grid):
    kwargs = {"amp": 3.0, "R_sersic": 0.4, "n_sersic": n, "e1": e1, "e2": e2, "center_x": 0.1, "center_y": -0.2}
    model = LightModel(["SERSIC_ELLIPSE"])
    expected = model.surface_brightness(grid[0].numpy().ravel(), grid[1].numpy().ravel(), [kwargs])
    shape = {"x0": t(0.1), "y0": t(-0.2), "amp": t(3.0), "R_sersic": t(0.4), "e1": t(e1), "e2": t(e2)}
    actual = sersic_light(*grid, n_sersic=t(n), **shape)
    assert_allclose(actual.numpy().ravel(), expected, rtol=1e-9)
    if n == 1:
        disc = exponential_light(*grid, **shape)
        assert_allclose(disc, actual, rtol=1e-12)
    flux = sersic_total_flux(t(3.0), t(0.4), t(n))
    assert_allclose(flux, model.total_flux([kwargs])[0], rtol=1e-12)


def test_pixelated_light_agrees_with_lenstronomy(grid):
    image = np.random.default_rng(0).random((31, 31))
    kwargs = {"image": image, "amp": 2.0, "center_x": 0.3, "center_y": -0.1, "phi_G": 0.6, "scale": 0.11}
    expected = LightModel(["INTERPOL"]).surface_brightness(grid[0].numpy().ravel(), grid[1].numpy().ravel(), [kwargs])
    place = {"x0": 0.3, "y0": -0.1, "amp": 2.0, "phi": 0.6, "pixel_scale": 0.11}
    place = {name: t(value).view(1, 1, 1) for name, value in place.items()}
    actual = pixelated_light(grid[0][None], grid[1][None], image=t(image)[None], **place)
    assert_allclose(actual.numpy().ravel(), expected, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("modulus", [0.0, 1e-9, 3e-4])
def test_light_has_derivatives_at_and_near_the_circle(modulus, dtype):
    """The squared radius is r² - 2 Re(conj(e) z²) to first order in the ellipticity e."""
    x, y, e1, e2 = (torch.tensor(v, dtype=dtype) for v in ([0.5, -1.4], [0.3, 0.7], 0.6 * modulus, -0.8 * modulus))
    e1.requires_grad_(), e2.requires_grad_()
    shape = {"x0": 0.1, "y0": -0.2, "amp": 3.0, "R_sersic": 0.4}
    light = exponential_light(x, y, **{name: torch.tensor(v, dtype=dtype) for name, v in shape.items()}, e1=e1, e2=e2)
    u, v = np.array([0.4, -1.5]), np.array([0.5, 0.9])
    r = np.hypot(u, v)
    at_circle = 3 * np.exp(-1.6721 * (r / 0.4 - 1))
    for k in range(2):
        found = [float(d) for d in torch.autograd.grad(light[k], (e1, e2), retain_graph=True)]
        by_radius = at_circle[k] * -1.6721 / 0.4 * -np.array([u[k] ** 2 - v[k] ** 2, 2 * u[k] * v[k]]) / r[k]
        assert_allclose(found, by_radius, rtol=10 * modulus + 1e-5)


def test_parameters_of_round_light_have_gradients():
    x, y = t([0.5, 1.4]), t([0.3, -0.7])
    values = [t(v).requires_grad_() for v in (0.1, -0.2, 3.0, 0.4, 1.7, 0.0, 0.0)]
    names = ("x0", "y0", "amp", "R_sersic", "n_sersic", "e1", "e2")
    assert torch.autograd.gradcheck(lambda *v: sersic_light(x, y, **dict(zip(names, v, strict=True))), values)
