import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lenstronomy.LensModel.lens_model import LensModel
from numpy.testing import assert_allclose
from reference import LineMass

from darklens.physics import (
    epl_deflection,
    line_mass_deflection,
    point_mass_deflection,
    shear_deflection,
    sie_deflection,
    sis_deflection,
    truncated_nfw_deflection,
    vortex_point_masses,
)


def t(value):
    return torch.tensor(value, dtype=torch.float64)


def lenstronomy(name, grid, **kwargs):
    return LensModel([name]).alpha(grid[0].numpy().ravel(), grid[1].numpy().ravel(), [kwargs])


def close(actual, expected, rtol):
    for a, e in zip(actual, expected, strict=True):
        assert_allclose(a.numpy().ravel(), e, rtol=rtol, atol=rtol)


ELLIPTICITIES = [(0.0, 0.0), (0.1, 0.0), (-0.2, 0.15), (0.0, -0.3)]


@pytest.mark.parametrize(("e1", "e2"), ELLIPTICITIES)
def test_sie_agrees_with_lenstronomy(e1, e2, grid):
    expected = lenstronomy("SIE", grid, theta_E=1.3, e1=e1, e2=e2, center_x=0.1, center_y=-0.05)
    close(sie_deflection(*grid, x0=t(0.1), y0=t(-0.05), theta_E=t(1.3), e1=t(e1), e2=t(e2)), expected, 1e-8)


@pytest.mark.parametrize("gamma", [1.7, 2.0, 2.3])
@pytest.mark.parametrize(("e1", "e2"), ELLIPTICITIES)
def test_epl_agrees_with_lenstronomy(gamma, e1, e2, grid):
    expected = lenstronomy("EPL", grid, theta_E=1.3, gamma=gamma, e1=e1, e2=e2, center_x=0.1, center_y=0)
    close(
        epl_deflection(*grid, x0=t(0.1), y0=t(0.0), theta_E=t(1.3), gamma=t(gamma), e1=t(e1), e2=t(e2)), expected, 1e-8
    )


def test_point_mass_and_sis_and_shear_agree_with_lenstronomy(grid):
    expected = lenstronomy("POINT_MASS", grid, theta_E=0.3, center_x=0.2, center_y=-0.4)
    close(point_mass_deflection(*grid, t(0.2), t(-0.4), t(0.3)), expected, 1e-12)
    expected = lenstronomy("SIS", grid, theta_E=0.3, center_x=0.2, center_y=-0.4)
    close(sis_deflection(*grid, t(0.2), t(-0.4), t(0.3)), expected, 1e-12)
    expected = lenstronomy("SHEAR", grid, gamma1=0.05, gamma2=-0.02)
    close(shear_deflection(*grid, t(0.05), t(-0.02)), expected, 1e-12)


@pytest.mark.parametrize("half_length", [0.03, 0.5, 3.0])
def test_line_mass_is_the_integral_of_lenstronomys_point_masses(half_length, grid):
    kwargs = {"theta_E": 0.22, "half_length": half_length, "phi": 0.7, "center_x": 0.1, "center_y": -0.2}
    expected = LineMass().derivatives(grid[0].numpy().ravel(), grid[1].numpy().ravel(), **kwargs)
    actual = line_mass_deflection(*grid, x0=t(0.1), y0=t(-0.2), half_length=t(half_length), phi=t(0.7), theta_E=t(0.22))
    close(actual, expected, 1e-9)


@pytest.mark.parametrize(("phi", "nearest", "rtol"), [(0.0, 1e-7, 1e-6), (0.4, 1e-4, 2e-3)])
def test_line_mass_in_single_precision_is_that_of_double_near_its_ends(phi, nearest, rtol):
    """Of a turned line the distance to an end is itself rounded, by 1e-7″."""
    line = {"x0": 0.1, "y0": -0.2, "half_length": 1.0, "phi": phi, "theta_E": 0.22} | (
        {} if phi else {"x0": 0.0, "y0": 0.0}
    )
    single = {name: torch.tensor(value, dtype=torch.float32) for name, value in line.items()}
    distance, angle = torch.meshgrid(t([nearest, 1e-3, 0.1, 3.0]), t([0.0, 0.9, 2.8, -1.3]), indexing="ij")
    for end in (1, -1):
        x = (line["x0"] + end * np.cos(phi) + distance * torch.cos(angle)).float()
        y = (line["y0"] + end * np.sin(phi) + distance * torch.sin(angle)).float()
        found = line_mass_deflection(x, y, **single)
        double = {name: value.double() for name, value in single.items()}
        expected = line_mass_deflection(x.double(), y.double(), **double)
        z = np.exp(-1j * float(single["phi"])) * (
            x.double() - float(single["x0"]) + 1j * (y.double() - float(single["y0"]))
        )
        log = np.log((z.numpy() + 1) / (z.numpy() - 1)) * float(single["theta_E"]) ** 2 / 2
        by_formula = np.conj(log) * np.exp(1j * float(single["phi"]))
        assert_allclose(expected[0] + 1j * expected[1], by_formula, rtol=1e-8)
        assert_allclose(found[0].double() + 1j * found[1], by_formula, rtol=rtol)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_line_mass_and_its_gradients_are_finite_everywhere(dtype):
    """On the ends, beside them and on the line."""
    x = torch.tensor([1.0, -1.0, 1 + 1e-7, 0.5, 0.0, 1.0, 1.0], dtype=dtype, requires_grad=True)
    y = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 1e-8, 1e-4], dtype=dtype, requires_grad=True)
    line = {"x0": 0.0, "y0": 0.0, "half_length": 1.0, "phi": 0.0, "theta_E": 0.3}
    alpha = line_mass_deflection(x, y, **{name: torch.tensor(v, dtype=dtype) for name, v in line.items()})
    # log(2 / 1e-4) of a point 1e-4″ beside the end, and log(3) of one in the middle between centre and end.
    assert_allclose(alpha[0].detach()[[3, 6]], 0.045 * np.log([3, 2e4]), rtol=1e-6)
    for values in (*alpha, *torch.autograd.grad(sum(alpha).sum(), (x, y))):
        assert torch.isfinite(values).all()


def test_line_mass_jumps_across_the_line_by_its_surface_density():
    line = {"x0": t(0.0), "y0": t(0.0), "half_length": t(1.0), "phi": t(0.0), "theta_E": t(0.3)}
    above, below = (line_mass_deflection(t(0.1), t(y), **line)[1] for y in (1e-9, -1e-9))
    # Across a sheet the deflection jumps by 2π times the mass per length, which is θ_E² / 2L here.
    assert_allclose(above - below, 2 * np.pi * 0.3**2 / 2, rtol=1e-6)


def test_point_masses_of_a_vortex_are_evenly_spaced_with_its_ends():
    x, y, theta_E = vortex_point_masses(
        t([0.1, -2.0]), t([-0.2, 0.5]), t([0.6, 1.5]), t([0.0, np.pi / 2]), t([0.3, 0.8]), 4
    )
    assert_allclose(x, [[-0.5, -0.1, 0.3, 0.7], [-2.0] * 4], rtol=1e-12)
    assert_allclose(y, [[-0.2] * 4, [-1.0, 0.0, 1.0, 2.0]], rtol=1e-12, atol=1e-15)
    assert_allclose(theta_E, [[0.15] * 4, [0.4] * 4], rtol=1e-12)
    single = vortex_point_masses(t([0.1]), t([-0.2]), t([0.6]), t([0.7]), t([0.3]), 1)
    assert [values.tolist() for values in single] == [[[0.1]], [[-0.2]], [[0.3]]]
    elsewhere = vortex_point_masses(*(torch.ones(2, device="meta") for _ in range(5)), 3)
    assert {(values.device.type, values.shape) for values in elsewhere} == {("meta", (2, 3))}


def test_vortex_of_many_point_masses_tends_to_the_line(grid):
    line = {"x0": t([0.1]), "y0": t([-0.2]), "half_length": t([1.0]), "phi": t([0.3]), "theta_E": t([0.22])}
    x0, y0, theta = vortex_point_masses(**line, count=200_001)
    assert_allclose(theta.square().sum(), 0.22**2, rtol=1e-12)
    x, y = t([0.4, -1.5]), t([0.9, 0.3])
    summed = [a.sum(-1) for a in point_mass_deflection(x[:, None], y[:, None], x0, y0, theta)]
    expected = line_mass_deflection(x, y, **line)
    for a, e in zip(summed, expected, strict=True):
        assert_allclose(a, e, atol=2e-6)


PROFILES = {
    "sie": lambda x, y: sie_deflection(x, y, x0=t(0.1), y0=t(0.0), theta_E=t(1.2), e1=t(0.1), e2=t(-0.1)),
    "epl": lambda x, y: epl_deflection(x, y, x0=t(0.1), y0=t(0.0), theta_E=t(1.2), gamma=t(2.2), e1=t(0.1), e2=t(-0.1)),
    "point mass": lambda x, y: point_mass_deflection(x, y, t(0.1), t(0.0), t(0.3)),
    "sis": lambda x, y: sis_deflection(x, y, t(0.1), t(0.0), t(0.3)),
    "tnfw": lambda x, y: truncated_nfw_deflection(
        x, y, x0=t(0.1), y0=t(0.0), Rs=t(0.2), alpha_Rs=t(0.1), r_trunc=t(0.6)
    ),
    "line": lambda x, y: line_mass_deflection(
        x, y, x0=t(0.1), y0=t(0.0), half_length=t(0.5), phi=t(0.4), theta_E=t(0.3)
    ),
    "shear": lambda x, y: shear_deflection(x, y, t(0.05), t(-0.03)),
}


@pytest.mark.parametrize("name", PROFILES)
def test_deflection_is_curl_free_and_mass_positive(name, grid):
    x, y = (c.clone().requires_grad_() for c in grid)
    ax, ay = PROFILES[name](x, y)
    axx, axy = torch.autograd.grad(ax.sum(), (x, y), create_graph=True)
    ayx, ayy = torch.autograd.grad(ay.sum(), (x, y))
    assert_allclose(axy.detach(), ayx, atol=1e-9)
    assert ((axx + ayy) / 2 > -1e-9).all()


@pytest.mark.parametrize("name", PROFILES)
def test_float32_agrees_with_float64(name, grid):
    double = PROFILES[name](*grid)
    torch.set_default_dtype(torch.float32)
    single = PROFILES[name](*(c.float() for c in grid))
    for s, d in zip(single, double, strict=True):
        assert_allclose(s, d, atol=2e-5)


@settings(max_examples=25, deadline=None)
@given(e1=st.floats(-0.4, 0.4), e2=st.floats(-0.4, 0.4), angle=st.floats(0, 6.28))
def test_sie_turns_with_its_axes(e1, e2, angle):
    """Rotating lens and position rotates the deflection."""
    x, y = t([0.7, -1.1]), t([0.4, 0.9])
    c, s = np.cos(angle), np.sin(angle)
    ax, ay = sie_deflection(x, y, x0=t(0.0), y0=t(0.0), theta_E=t(1.0), e1=t(e1), e2=t(e2))
    c2, s2 = np.cos(2 * angle), np.sin(2 * angle)
    turned = sie_deflection(
        c * x - s * y,
        s * x + c * y,
        x0=t(0.0),
        y0=t(0.0),
        theta_E=t(1.0),
        e1=t(c2 * e1 - s2 * e2),
        e2=t(s2 * e1 + c2 * e2),
    )
    assert_allclose(turned[0], c * ax - s * ay, atol=1e-9)
    assert_allclose(turned[1], s * ax + c * ay, atol=1e-9)


@pytest.mark.parametrize(
    ("deflection", "parameters"),
    [
        (sie_deflection, {"x0": 0.1, "y0": 0.0, "theta_E": 1.2, "e1": 0.1, "e2": -0.1}),
        (sie_deflection, {"x0": 0.1, "y0": 0.0, "theta_E": 1.2, "e1": 0.0, "e2": 0.0}),
        (epl_deflection, {"x0": 0.1, "y0": 0.0, "theta_E": 1.2, "gamma": 2.2, "e1": 0.0, "e2": 0.0}),
        (truncated_nfw_deflection, {"x0": 0.1, "y0": 0.0, "Rs": 0.2, "alpha_Rs": 0.1, "r_trunc": 0.6}),
        (line_mass_deflection, {"x0": 0.1, "y0": 0.0, "half_length": 0.5, "phi": 0.4, "theta_E": 0.3}),
        (line_mass_deflection, {"x0": 0.5, "y0": 0.0, "half_length": 0.5, "phi": 0.0, "theta_E": 0.3}),
    ],
)
def test_parameters_have_gradients(deflection, parameters):
    x, y = t([0.5, 1.4]), t([0.3, -0.7])
    values = [t(v).requires_grad_() for v in parameters.values()]
    assert torch.autograd.gradcheck(lambda *v: deflection(x, y, **dict(zip(parameters, v, strict=True))), values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("modulus", [0.0, 1e-12, 1e-9, 1e-7, 1e-5, 3e-4, 1e-3])
def test_ellipsoid_near_the_circle_has_the_deflection_and_the_derivatives_of_its_limit(modulus, dtype):
    """By the potential -θ_E r / 3 · Re(conj(e) z²) / r² that an ellipticity e adds to the isothermal sphere's θ_E r."""
    x, y = (torch.tensor(v, dtype=dtype) for v in ([0.5, -1.4, 0.0], [0.3, 0.7, -1.0]))
    e = [torch.tensor(modulus * part, dtype=dtype, requires_grad=True) for part in (0.6, -0.8)]

    def by_potential(e1, e2):
        at = [t(v.tolist()).requires_grad_() for v in (x, y)]
        r = torch.hypot(*at)
        added = (e1 * (at[0] ** 2 - at[1] ** 2) + 2 * e2 * at[0] * at[1]) / r / 3
        return torch.stack(torch.autograd.grad((1.2 * (r - added)).sum(), at))

    parameters = {name: torch.tensor(v, dtype=dtype) for name, v in (("x0", 0.0), ("y0", 0.0), ("theta_E", 1.2))}
    alpha = torch.stack(sie_deflection(x, y, **parameters, e1=e[0], e2=e[1]))
    eps = torch.finfo(dtype).eps
    assert_allclose(alpha.detach(), by_potential(*(part.item() for part in e)), atol=4 * (modulus**2 + eps))
    unit = [by_potential(1.0, 0.0) - by_potential(0.0, 0.0), by_potential(0.0, 1.0) - by_potential(0.0, 0.0)]
    for i in range(2):
        for k in range(len(x)):
            found = torch.autograd.grad(alpha[i, k], e, retain_graph=True)
            expected = [float(each[i, k]) for each in unit]
            assert_allclose([float(v) for v in found], expected, atol=4 * modulus + 40 * eps**0.5)
