"""Halos beside the lens plane against lenstronomy's multi-plane ray-tracing."""

import numpy as np
import pytest
import torch
from astropy.cosmology import FlatLambdaCDM
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LensModel.Profiles.tnfw import TNFW
from numpy.testing import assert_allclose

from darklens.physics import critical_surface_density, nfw_concentration, nfw_scale_radius, truncated_nfw_share
from darklens.physics.line_of_sight import double_cone_width, effective_halo
from darklens.physics.nfw import truncated_nfw_mass, truncated_nfw_scale_deflection

COSMO = FlatLambdaCDM(H0=70, Om0=0.3)
Z_LENS, Z_SOURCE = 0.5, 1.5
MAIN = {"theta_E": 1.2, "e1": 0.05, "e2": -0.08, "center_x": 0.0, "center_y": 0.0}
PLACE = 1.2 * np.array([np.cos(0.7), np.sin(0.7)])


def distance(a, b):
    return COSMO.angular_diameter_distance(a, b).value


@pytest.mark.parametrize("z", [0.05, 0.3, 0.5, 0.8, 1.4])
def test_width_of_the_double_cone_is_that_of_angular_diameter_distances(z):
    near, far = sorted([z, Z_LENS])
    beta = distance(near, far) * distance(0, Z_SOURCE) / (distance(0, far) * distance(near, Z_SOURCE))
    assert_allclose(double_cone_width(np.array([z]), Z_LENS, Z_SOURCE), 1 - beta, rtol=1e-9)


def halo(z, mass=1e9):
    """A halo of 1e9 M☉, truncated at r200, at its own redshift."""
    concentration = torch.tensor(nfw_concentration(mass, z)).double()
    Rs = nfw_scale_radius(torch.tensor(mass).double(), concentration, z)
    total = mass * truncated_nfw_share(concentration, concentration)
    sigma_crit = critical_surface_density(z, Z_SOURCE)
    alpha_Rs = truncated_nfw_scale_deflection(total, Rs, concentration * Rs, sigma_crit)
    assert_allclose(truncated_nfw_mass(Rs, alpha_Rs, concentration * Rs, sigma_crit), total, rtol=1e-9)
    return {"Rs": float(Rs), "r_trunc": float(concentration * Rs), "alpha_Rs": float(alpha_Rs)}


@pytest.mark.filterwarnings("ignore:Cosmology is provided")
def deviation(z):
    """Root mean square error of the effective deflection within 0.4″ of a halo on the ring, in units of the deflection."""
    own, behind = halo(z), z > Z_LENS
    width = double_cone_width(np.array([z]), Z_LENS, Z_SOURCE)[0]
    offset = np.linspace(-0.4, 0.4, 32)
    x, y = (c.ravel() + p for c, p in zip(np.meshgrid(offset, offset), PLACE, strict=True))
    found = effective_halo(*(np.array(v) for v in own.values()), width=width, behind=np.array(behind))
    effective = TNFW().derivatives(x, y, **found._asdict(), center_x=PLACE[0], center_y=PLACE[1])
    # A halo behind the lens is seen through it, where the angles are larger.
    own |= dict(zip(("center_x", "center_y"), PLACE * (width if behind else 1), strict=True))
    planes = LensModel(
        ["SIE", "TNFW"], z_source=Z_SOURCE, lens_redshift_list=[Z_LENS, z], cosmo=COSMO, multi_plane=True
    )
    # Positions x, y are those in the lens plane: rays that a halo in front of it has already deflected come from others.
    image = x, y
    for _ in range(0 if behind else 60):
        ax, ay = TNFW().derivatives(*image, **own)
        image = x + (1 - width) * ax, y + (1 - width) * ay
    source = planes.ray_shooting(*image, [MAIN, own])
    smooth = LensModel(["SIE"]).alpha(x, y, [MAIN])
    exact = [at - main - where for at, main, where in zip((x, y), smooth, source, strict=True)]
    error = np.square(np.subtract(effective, exact)).mean() / np.square(exact).mean()
    return float(np.sqrt(error))


@pytest.mark.filterwarnings("ignore:Cosmology is provided")
@pytest.mark.parametrize(
    ("z", "most"),
    [(0.1, 0.006), (0.3, 0.003), (0.45, 1e-3), (0.499, 1e-4), (0.501, 0.002), (0.51, 0.015), (0.55, 0.07), (0.7, 0.25)],
)
def test_effective_halo_deflects_as_lenstronomys_planes(z, most):
    """In front of the lens to second order in the halo; behind it, as far as rays are on the cone."""
    assert deviation(z) < most


@pytest.mark.filterwarnings("ignore:Cosmology is provided")
def test_error_falls_with_the_distance_from_the_lens():
    errors = [deviation(z) for z in (0.505, 0.51, 0.52, 0.54)]
    assert_allclose(np.diff(np.log(errors)) / np.log(2), 1, atol=0.1)
