import numpy as np
import pytest
from lenstronomy.SimulationAPI.observation_api import SingleBand
from numpy.testing import assert_allclose

from darklens.simulation import load_preset
from darklens.simulation.instruments import Instrument


@pytest.mark.parametrize("exposures", [1, 4])
def test_background_is_that_of_lenstronomy(exposures):
    numbers = {"pixel_scale": 0.101, "read_noise": 4.2, "sky_brightness": 22.3}
    band = {"exposure_time": 66.0, "num_exposures": exposures, "magnitude_zero_point": 25.72, "seeing": 0.16}
    instrument = Instrument("vis", psf_fwhm=0.16, zero_point=25.72, exposures=exposures, **numbers)
    expected = SingleBand(**numbers, **band).background_noise
    assert_allclose(instrument.background(66.0), expected, rtol=1e-12)
    assert_allclose(instrument.background(np.array([66.0, 66.0])), [expected, expected], rtol=1e-12)


def test_background_of_euclid_is_that_of_its_four_exposures():
    """Four read-outs of 4.2 e- and 2264 s of sky of 22.3 mag/arcsec² in 0.101″ pixels, in e-/s."""
    variance = 4 * 4.2**2 + 10 ** ((25.72 - 22.3) / 2.5) * 0.101**2 * 2264
    assert_allclose(load_preset("model-2").instrument.background(566.0), np.sqrt(variance) / 2264, rtol=1e-12)


def test_background_that_is_given_does_not_depend_on_the_exposure():
    instrument = Instrument("plain", 0.05, psf_fwhm=0.1, background_rms=0.013)
    assert instrument.background(7.0) == 0.013
    assert_allclose(instrument.background(np.array([1.0, 500.0])), [0.013, 0.013], rtol=0)
