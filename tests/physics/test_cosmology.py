import numpy as np
import pytest
from astropy import constants, units
from astropy.cosmology import FlatLambdaCDM
from lenstronomy.Cosmo.lens_cosmo import LensCosmo
from numpy.testing import assert_allclose

from darklens.physics import (
    cosmology,
    critical_surface_density,
    deflection_rescaling,
    einstein_radius,
    einstein_radius_luminosity_distance,
    kpc_per_arcsec,
    nfw_concentration,
    nfw_scale_radius,
)

COSMO = FlatLambdaCDM(H0=70, Om0=0.3, Ob0=0.05)
LENS = LensCosmo(z_lens=0.5, z_source=1.0, cosmo=COSMO)


@pytest.fixture(autouse=True)
def nothing_is_remembered():
    """Let each test compute its distances anew, not take those that another test has left behind."""
    for function in vars(cosmology).values():
        if hasattr(function, "cache_clear"):
            function.cache_clear()


def test_einstein_radius_agrees_with_lenstronomy():
    # lenstronomy's constants of nature are rounded to four digits.
    assert_allclose(einstein_radius(LENS.mass_in_theta_E(1.3), 0.5, 1.0), 1.3, rtol=3e-4)
    assert_allclose(critical_surface_density(0.5, 1.0), LENS.sigma_crit_angle, rtol=3e-4)


def test_einstein_radius_is_its_definition():
    distances = COSMO.angular_diameter_distance([0.5, 1.0]), COSMO.angular_diameter_distance(0.5, 1.0)
    ratio = distances[1] / (distances[0][0] * distances[0][1])
    expected = np.sqrt(4 * constants.G * 1e12 * units.Msun / constants.c**2 * ratio).to_value("") * units.rad
    assert_allclose(einstein_radius(1e12, 0.5, 1.0), expected.to_value("arcsec"), rtol=1e-10)


def test_published_einstein_radius_is_reproduced():
    assert_allclose(einstein_radius_luminosity_distance(1e12, 0.5, 1.0), 1.2814905676, rtol=1e-9)


def test_rescaling_to_a_source_redshift_agrees_with_lenstronomy():
    expected = LENS.beta_double_source_plane(0.5, 1.0, 2.5)
    assert_allclose(deflection_rescaling(0.5, 1.0, 2.5), expected, rtol=1e-10)


def test_concentration_is_that_of_dutton_and_maccio():
    """Table 3 and eq. 7 at their neighbours of z = 0.5: c200 of 1e12 / h is about 6.5."""
    concentration = nfw_concentration(np.array([1e8, 1e10]), 0.5)
    assert_allclose(np.diff(np.log10(concentration))[0] / 2, -0.088, atol=1e-12)
    assert_allclose(concentration[1] * (0.7 * 1e-2) ** 0.088, 10**0.8146, rtol=2e-3)


def test_scale_radius_is_that_of_the_concentration():
    mass, concentration = np.array([1e8, 1e10]), np.array([12.0, 9.0])
    radius = nfw_scale_radius(mass, concentration, 0.5)
    assert_allclose(kpc_per_arcsec(0.5), COSMO.kpc_proper_per_arcmin(0.5).value / 60, rtol=1e-12)
    density = COSMO.critical_density(0.5).to_value("Msun/kpc3")
    assert_allclose(800 / 3 * np.pi * density * (concentration * radius * kpc_per_arcsec(0.5)) ** 3, mass, rtol=1e-12)


@pytest.mark.parametrize(("z_lens", "z_source"), [(1.0, 0.5), (0.5, 0.5), (0.0, 1.0)])
def test_source_in_front_of_the_deflector_is_refused(z_lens, z_source):
    with pytest.raises(ValueError, match="behind the deflector"):
        einstein_radius(1e12, z_lens, z_source)
