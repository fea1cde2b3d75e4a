import numpy as np
import pytest
import torch
from lenstronomy.Util.param_util import ellipticity2phi_q, phi_q2_ellipticity
from lenstronomy.Util.util import make_grid
from lenstronomy.Util.util import rotate as lenstronomy_rotate
from numpy.testing import assert_allclose

from darklens.physics import axis_ratio_and_angle, bin_pixels, ellipticity, pixel_coordinates
from darklens.physics.coordinates import rotate


def t(value):
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize(("pixels", "supersampling"), [(5, 1), (4, 3)])
def test_grid_is_that_of_lenstronomy(pixels, supersampling):
    x, y = pixel_coordinates(pixels, 0.13, supersampling, dtype=torch.float64)
    expected = make_grid(pixels, 0.13, subgrid_res=supersampling)
    assert_allclose(x.flatten(), expected[0], atol=1e-15)
    assert_allclose(y.flatten(), expected[1], atol=1e-15)
    assert x[0, 0] < x[0, 1]
    assert y[0, 0] < y[1, 0]


@pytest.mark.parametrize(("e1", "e2"), [(0.1, 0.0), (-0.2, 0.15), (0.0, -0.3), (0.05, 0.28)])
def test_axis_ratio_and_angle_are_those_of_lenstronomy(e1, e2):
    phi, q = ellipticity2phi_q(e1, e2)
    assert_allclose(axis_ratio_and_angle(t(e1), t(e2)), (q, phi), rtol=1e-12)
    assert_allclose(ellipticity(t(q), t(phi)), phi_q2_ellipticity(phi, q), rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_circle_has_the_axis_ratio_one_and_finite_derivatives(dtype):
    e = torch.zeros(2, dtype=dtype, requires_grad=True)
    q, phi = axis_ratio_and_angle(*e)
    assert (q.item(), phi.item()) == (1, 0)
    assert torch.isfinite(torch.autograd.grad(q + phi, e)[0]).all()


def test_rotated_axes_are_those_of_lenstronomy():
    x, y = np.array([0.7, -1.1]), np.array([0.4, 0.9])
    assert_allclose(rotate(t(x), t(y), t(0.6)), lenstronomy_rotate(x, y, 0.6), rtol=1e-12)


def test_bin_pixels_is_the_mean_of_subpixels():
    image = torch.arange(16.0).view(4, 4)
    assert_allclose(bin_pixels(image, 2), [[2.5, 4.5], [10.5, 12.5]])
    assert_allclose(bin_pixels(torch.stack([image, -image]), 4), [[[7.5]], [[-7.5]]])
