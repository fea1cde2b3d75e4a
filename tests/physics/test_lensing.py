"""Maps of lensing against lenstronomy's closed forms."""

import numpy as np
import pytest
import torch
from lenstronomy.LensModel.lens_model import LensModel
from numpy.testing import assert_allclose

from darklens.physics import (
    epl_deflection,
    lensing_maps,
    lensing_potential,
    line_mass_deflection,
    shear_deflection,
    sie_deflection,
    sis_deflection,
    truncated_nfw_deflection,
)


def t(**values):
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


SIE = {"theta_E": 1.3, "e1": 0.15, "e2": -0.1}
EPL = {"theta_E": 1.1, "gamma": 2.2, "e1": -0.1, "e2": 0.2}
HALO = {"Rs": 0.3, "alpha_Rs": 0.05}
CASES = {
    "SIE": (lambda x, y: sie_deflection(x, y, **t(x0=0.1, y0=-0.2, **SIE)), SIE),
    "EPL": (lambda x, y: epl_deflection(x, y, **t(x0=0.1, y0=-0.2, **EPL)), EPL),
    "SIS": (lambda x, y: sis_deflection(x, y, **t(x0=0.1, y0=-0.2, theta_E=0.4)), {"theta_E": 0.4}),
    "TNFW": (
        lambda x, y: truncated_nfw_deflection(x, y, **t(x0=0.1, y0=-0.2, r_trunc=1.5, **HALO)),
        HALO | {"r_trunc": 1.5},
    ),
    "SHEAR": (lambda x, y: shear_deflection(x, y, **t(gamma1=0.05, gamma2=-0.03)), {"gamma1": 0.05, "gamma2": -0.03}),
}
RNG = np.random.default_rng(2)
X, Y = RNG.uniform(-2, 2, (2, 3, 40))


def of_lenstronomy(names):
    centre = {"center_x": 0.1, "center_y": -0.2}
    kwargs = [CASES[n][1] | ({"ra_0": 0.0, "dec_0": 0.0} if n == "SHEAR" else centre) for n in names]
    # Its SIE takes second derivatives of a slightly softened one by differences; its power law of slope 2 is exact.
    kwargs = [k | {"gamma": 2.0} if n == "SIE" else k for n, k in zip(names, kwargs, strict=True)]
    return LensModel(["EPL" if n == "SIE" else n for n in names]), kwargs


@pytest.mark.parametrize("names", [("SIE",), ("EPL",), ("SIS",), ("TNFW",), ("SHEAR",), ("SIE", "SHEAR", "TNFW")])
def test_maps_are_those_of_lenstronomy(names):
    def deflect(x, y):
        parts = [CASES[name][0](x, y) for name in names]
        return sum(p[0] for p in parts), sum(p[1] for p in parts)

    model, kwargs = of_lenstronomy(names)
    maps = lensing_maps(deflect, torch.from_numpy(X), torch.from_numpy(Y))
    assert_allclose(maps.convergence, model.kappa(X, Y, kwargs), rtol=1e-6, atol=1e-9)
    gamma1, gamma2 = model.gamma(X, Y, kwargs)
    assert_allclose(maps.shear1, gamma1, rtol=1e-6, atol=1e-9)
    assert_allclose(maps.shear2, gamma2, rtol=1e-6, atol=1e-9)
    assert_allclose(1 / maps.magnification, 1 / model.magnification(X, Y, kwargs), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["SIE", "EPL", "SIS", "TNFW", "SHEAR"])
def test_potential_is_that_of_lenstronomy(name):
    model, kwargs = of_lenstronomy([name])
    x0, y0 = (0.0, 0.0) if name == "SHEAR" else (0.1, -0.2)
    found = lensing_potential(CASES[name][0], torch.from_numpy(X), torch.from_numpy(Y), x0, y0)
    near = 1e-7 if name == "TNFW" else 0.0
    expected = model.potential(X, Y, kwargs) - model.potential(x0 + near, y0, kwargs)
    assert_allclose(found, expected, rtol=1e-5, atol=2e-7)
    assert np.ptp(expected) > 0.01


def test_the_gradient_of_the_potential_of_a_line_is_its_deflection():
    line = t(x0=0.3, y0=0.1, half_length=0.5, phi=0.7, theta_E=0.4)

    def deflect(x, y):
        return line_mass_deflection(x, y, **line)

    x, y = torch.tensor([1.1, -0.9], dtype=torch.float64), torch.tensor([-0.8, 0.6], dtype=torch.float64)
    ax, ay = deflect(x, y)
    step = 1e-4
    slopes = [
        (lensing_potential(deflect, x + i, y + j, 0.3, 0.1) - lensing_potential(deflect, x - i, y - j, 0.3, 0.1))
        / (2 * step)
        for i, j in ((step, 0), (0, step))
    ]
    assert_allclose(slopes[0], ax, rtol=1e-5)
    assert_allclose(slopes[1], ay, rtol=1e-5)
