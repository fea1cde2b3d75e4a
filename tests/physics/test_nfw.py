import mpmath
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


def enclosed_mass(u, tau):
    """The mass in a cylinder by eq. A.11 of Baltz, Marshall & Oguri, with 60 digits, in units of 4π ρ0 Rs³."""
    with mpmath.workdps(60):
        u, tau = mpmath.mpf(u), mpmath.mpf(tau)
        f = mpmath.acosh(1 / u) / mpmath.sqrt(1 - u**2) if u < 1 else mpmath.acos(1 / u) / mpmath.sqrt(u**2 - 1)
        root = mpmath.sqrt(tau**2 + u**2)
        log = mpmath.log(u / (tau + root)) * (tau**2 - 1) / tau
        terms = (tau**2 + 2 * u**2 - 1) * f + tau * mpmath.pi + (tau**2 - 1) * mpmath.log(tau)
        return float(tau**2 / (tau**2 + 1) ** 2 * (terms + root * (log - mpmath.pi)))


@pytest.mark.parametrize("tau", [0.1, 1.0, 5.0, 40.0])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 3e-6), (torch.float64, 1e-13)])
def test_truncated_nfw_is_exact_from_its_cusp_to_far_away(tau, dtype, rtol):
    """Also where the terms of the published formula cancel, and on both sides of the places where branches meet."""
    u = torch.cat([torch.logspace(-8, 3, 44), torch.tensor([0.955, 0.965, 1.03, 1.045, 1.99, 2.01])]).to(dtype)
    one, zero = torch.ones((), dtype=dtype), torch.zeros((), dtype=dtype)
    alpha, across = truncated_nfw_deflection(u, zero, x0=zero, y0=zero, Rs=one, alpha_Rs=one, r_trunc=one * tau)
    expected = [enclosed_mass(float(value), float(one * tau)) / (1 - np.log(2)) / float(value) for value in u]
    assert_allclose(alpha.double(), expected, rtol=rtol)
    assert (across == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_truncated_nfw_has_gradients_at_its_centre(dtype):
    centre = torch.zeros(2, dtype=dtype, requires_grad=True)
    halo = {"Rs": 0.1, "alpha_Rs": 0.05, "r_trunc": 0.5}
    alpha = truncated_nfw_deflection(
        *centre, **{name: torch.tensor(v, dtype=dtype) for name, v in ({"x0": 0.0, "y0": 0.0} | halo).items()}
    )
    assert [a.item() for a in alpha] == [0, 0]
    (gradient,) = torch.autograd.grad(sum(alpha), centre)
    assert torch.isfinite(gradient).all()
