import numpy as np
import pytest
from astropy.cosmology import FlatLambdaCDM
from numpy.testing import assert_allclose
from scipy import integrate

from darklens.physics.cosmology import Cosmology, comoving_distance, hubble_distance
from darklens.physics.halos import SIGMA_8, growth_factor, halo_mass_function, mass_deviation

MASSES = np.array([1e6, 1e8, 1e10, 1e12])

# Of the package hmf 3.5.2: SMT, EH_NoBAO, sigma_8 0.811, n 0.965, H0 70, Om0 0.3, Ob0 0.05, Tcmb0 2.7255; without its h.
DENSITIES = {
    0.0: [441.09805, 6.5696105, 0.10570705, 0.0017847752],
    0.5: [504.93453, 7.4942092, 0.11845648, 0.0018406163],
    2.0: [682.49586, 9.7195361, 0.13432498, 0.0012253373],
}
DEVIATIONS = [7.9556358, 5.7526044, 3.7967387, 2.1796851]


@pytest.mark.parametrize("redshift", DENSITIES)
def test_mass_function_is_that_of_hmf(redshift):
    assert_allclose(halo_mass_function(MASSES, redshift), DENSITIES[redshift], rtol=3e-3)


def test_variance_is_that_of_hmf_and_normalised_in_spheres_of_8_mpc():
    assert_allclose(mass_deviation(MASSES), DEVIATIONS, rtol=1e-3)
    density = FlatLambdaCDM(H0=70, Om0=0.3).critical_density(0).to_value("Msun/Mpc3") * 0.3
    assert_allclose(mass_deviation(np.array([4 / 3 * np.pi * (8 / 0.7) ** 3 * density])), SIGMA_8, rtol=1e-3)


@pytest.mark.parametrize("redshift", [0.0, 0.7, 4.0])
def test_growth_is_its_integral(redshift):
    model = FlatLambdaCDM(H0=70, Om0=0.3)

    def growth(z):
        return model.efunc(z) * integrate.quad(lambda x: (1 + x) / model.efunc(x) ** 3, z, np.inf)[0]

    assert_allclose(growth_factor(redshift), growth(redshift) / growth(0.0), rtol=1e-6)


def test_growth_of_a_universe_of_matter_alone_is_its_scale_factor():
    assert_allclose(growth_factor(np.array([0.0, 1.0, 3.0]), Cosmology(Om0=1.0)), [1, 0.5, 0.25], rtol=1e-12)


def test_masses_beyond_the_table_are_refused():
    with pytest.raises(ValueError, match=r"masses of halos are from 10000 to 1e\+15 M☉"):
        halo_mass_function(np.array([1e3]), 0.5)


def test_distances_are_those_of_astropy():
    z, model = np.array([0.1, 0.5, 2.0]), FlatLambdaCDM(H0=67, Om0=0.32)
    own = Cosmology(67.0, 0.32)
    volume = model.differential_comoving_volume(z).to_value("Mpc3 / sr")
    assert_allclose(hubble_distance(z, own) * comoving_distance(z, own) ** 2, volume, rtol=1e-10)
