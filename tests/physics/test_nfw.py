import numpy as np
import pytest
import torch
from lenstronomy.LensModel.lens_model import LensModel
from numpy.testing import assert_allclose

from darklens.physics import truncated_nfw_deflection, truncated_nfw_mass, truncated_nfw_scale_deflection


def t(value):
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize(("Rs", "r_trunc"), [(0.1, 0.3), (1.0, 1.0), (0.02, 0.4), (3.0, 9.0)])
def test_truncated_nfw_agrees_with_lenstronomy(Rs, r_trunc, grid):
    kwargs = {"Rs": Rs, "alpha_Rs": 0.05, "r_trunc": r_trunc, "center_x": 0.2, "center_y": 0.1}
    expected = LensModel(["TNFW"]).alpha(grid[0].numpy().ravel(), grid[1].numpy().ravel(), [kwargs])
    actual = truncated_nfw_deflection(*grid, x0=t(0.2), y0=t(0.1), Rs=t(Rs), alpha_Rs=t(0.05), r_trunc=t(r_trunc))
    for a, e in zip(actual, expected, strict=True):
        assert_allclose(a.numpy().ravel(), e, rtol=1e-10, atol=1e-10)


def test_truncated_nfw_is_smooth_where_its_branches_meet():
    radius = torch.linspace(0.99, 1.01, 20001, dtype=torch.float64, requires_grad=True)
    alpha, _ = truncated_nfw_deflection(
        radius, t(0.0), x0=t(0.0), y0=t(0.0), Rs=t(1.0), alpha_Rs=t(1.0), r_trunc=t(5.0)
    )
    (slope,) = torch.autograd.grad(alpha.sum(), radius)
    assert torch.isfinite(slope).all()
    assert torch.diff(slope).abs().max() < 1e-5


def test_truncated_nfw_mass_is_the_deflection_far_away():
    Rs, alpha_Rs, r_trunc, sigma_crit = t(0.1), t(0.05), t(0.5), 1e11
    mass = truncated_nfw_mass(Rs, alpha_Rs, r_trunc, sigma_crit)
    far = t(1e5)
    alpha, _ = truncated_nfw_deflection(far, t(0.0), x0=t(0.0), y0=t(0.0), Rs=Rs, alpha_Rs=alpha_Rs, r_trunc=r_trunc)
    assert_allclose(alpha * far * np.pi * sigma_crit, mass, rtol=1e-5)
    assert_allclose(truncated_nfw_scale_deflection(mass, Rs, r_trunc, sigma_crit), alpha_Rs, rtol=1e-12)
