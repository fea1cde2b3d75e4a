"""What presets refuse, and the values at the edge of what they take."""

import math
import re
from dataclasses import replace

import pytest
from numpy.testing import assert_allclose

from darklens.errors import PresetError
from darklens.simulation import load_preset
from darklens.simulation.instruments import Instrument
from darklens.simulation.presets import DarkMatter, Deflector, Source, Subhalos, Vortex
from darklens.simulation.priors import Constant, LogUniform, Normal, PowerLaw, Uniform
from darklens.simulation.redshifts import deflection_scale, redshifts_of

ONE, ZERO = Constant(1.0), Constant(0.0)
SIGNED = Uniform(-1, 1)
LAW = PowerLaw(-1.9, 1e6, 1e10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Deflector("sis", theta_E=ONE), "deflector.profile: no 'sis'; there are sie, epl"),
        (
            lambda: Deflector(theta_E=ONE, distances="comoving"),
            "deflector.distances: no 'comoving'; there are angular, l",
        ),
        (lambda: Deflector(), "deflector: give exactly one of theta_E, mass"),
        (lambda: Deflector(theta_E=ONE, mass=ONE), "deflector: give exactly one of theta_E, mass"),
        (lambda: Deflector(theta_E=ZERO), "deflector.theta_E must be above zero; its lowest value is 0"),
        (lambda: Deflector(mass=SIGNED), "deflector.mass must be above zero; its lowest value is -1"),
        (lambda: Deflector(theta_E=Normal(1, 0.1)), "deflector.theta_E must be above zero; its lowest value is -inf"),
        (lambda: Source("disc", amp=ONE), "source.profile: no 'disc'; there are sersic, image"),
        (lambda: Source(), "source: give exactly one of amp, magnitude"),
        (lambda: Source(amp=ONE, magnitude=ONE), "source: give exactly one of amp, magnitude"),
        (lambda: Source(amp=ONE, R_sersic=ZERO), "source.R_sersic must be above zero"),
        (lambda: Source(amp=ONE, n_sersic=SIGNED), "source.n_sersic must be above zero"),
        (lambda: Source(amp=ONE, pixel_scale=ZERO), "source.pixel_scale must be above zero"),
        (lambda: Source("image", amp=ONE), "source: profile image and images (a .npy stack of galaxies) go together"),
        (
            lambda: Source(amp=ONE, images="a.npy"),
            "source: profile image and images (a .npy stack of galaxies) go together",
        ),
        (lambda: Subhalos("nfw", count=1, mass=ONE), "subhalos.profile: no 'nfw'; there are point_mass, sis, tnfw"),
        (lambda: Subhalos("sis", count=1), "subhalos: profile sis needs a mass"),
        (
            lambda: Subhalos("sis", count=1, mass=ONE, parameters={"b": ONE}),
            "subhalos.parameters go with a profile of your",
        ),
        (lambda: Subhalos("sis", count=1, mass=ONE, distances="x"), "subhalos.distances: no 'x'"),
        (
            lambda: Subhalos("tnfw", count=1, mass=ONE, distances="luminosity"),
            "subhalos.distances must be angular for profile tnfw, which takes no other",
        ),
        (lambda: Subhalos("sis", mass=ONE), "subhalos: give exactly one of count, mean_count, total_mass"),
        (
            lambda: Subhalos("sis", mass=ONE, count=1, mean_count=1),
            "subhalos: give exactly one of count, mean_count, total",
        ),
        (
            lambda: Subhalos("sis", mass=ONE, count=1, total_mass=1),
            "subhalos: give exactly one of count, mean_count, total",
        ),
        (lambda: Subhalos("sis", mass=ONE, count=0), "subhalos.count must be above zero; got 0"),
        (lambda: Subhalos("sis", mass=ONE, mean_count=0.0), "subhalos.mean_count must be above zero; got 0.0"),
        (lambda: Subhalos("sis", mass=ONE, total_mass=-2.0), "subhalos.total_mass must be above zero; got -2.0"),
        (lambda: Subhalos("sis", mass=ONE, count=1, half_width=0.0), "subhalos.half_width must be above zero; got 0.0"),
        (lambda: Subhalos("sis", mass=ZERO, count=1), "subhalos.mass must be above zero"),
        (lambda: Subhalos("sis", mass=ONE, count=1, radius=SIGNED), "subhalos.radius must be above zero"),
        (lambda: Subhalos("sis", mass=ONE, count=1, truncation=ZERO), "subhalos.truncation must be above zero"),
        (
            lambda: Subhalos("sis", mass=LogUniform(1, 2), total_mass=5),
            "subhalos.total_mass needs a mass with a known mean",
        ),
        (lambda: Vortex("string", ONE, half_length=ONE), "vortex.profile: no 'string'; there are line, point_masses"),
        (lambda: Vortex("line", ONE, half_length=ONE, distances="x"), "vortex.distances: no 'x'"),
        (lambda: Vortex("line", ONE), "vortex: give exactly one of log10_axion_mass, half_length"),
        (lambda: Vortex("line", ONE, ONE, ONE), "vortex: give exactly one of log10_axion_mass, half_length"),
        (lambda: Vortex("line", ZERO, half_length=ONE), "vortex.mass must be above zero"),
        (lambda: Vortex("line", ONE, half_length=ZERO), "vortex.half_length must be above zero"),
        (lambda: Vortex("line", ONE, half_length=ONE, count=0), "vortex.count must be at least 1; got 0"),
        (
            lambda: DarkMatter(vortex=Vortex("point_masses", ONE, half_length=ONE), add="a.py:b"),
            "a class takes one of subhalos, add and a vortex of point masses, beside a line vortex",
        ),
    ],
)
def test_impossible_part_is_refused(make, message):
    with pytest.raises(PresetError, match=f"^{re.escape(message)}"):
        make()


def test_values_at_the_edge_are_taken():
    assert DarkMatter(vortex=Vortex("line", ONE, half_length=ONE), add="a.py:b").point_profile is None
    assert Deflector("epl", mass=Uniform(0, 1), distances="luminosity").gamma == Constant(2.0)
    assert Source("image", amp=ONE, images="a.npy").pixel_scale == Constant(0.01)
    assert Source(magnitude=Normal(22, 1)).R_sersic == Constant(0.25)
    assert Subhalos("tnfw", mass=ONE, count=1, half_width=0.1, radius=Uniform(0, 2)).truncation == Constant(5.0)
    assert Subhalos("sis", mass=ONE, count=1, distances="luminosity").distances == "luminosity"
    assert Subhalos("own.py:f", mean_count=0.5, parameters={"b": ONE}).mass is None
    assert Vortex("line", ONE, log10_axion_mass=Uniform(-24, -22), count=1).half_length is None
    assert DarkMatter().add is None


def test_number_of_subhalos_follows_from_their_total_mass():
    assert Subhalos("sis", mass=Constant(4.0), total_mass=30).poisson_mean == 7.5
    # The mean of x**-1.9 between 1e6 and 1e10: the ratio of its integrals.
    mean = (1e10**0.1 - 1e6**0.1) / 0.1 / ((1e10**-0.9 - 1e6**-0.9) / -0.9)
    assert_allclose(Subhalos("sis", mass=LAW, total_mass=3e10).poisson_mean, 3e10 / mean, rtol=1e-9)
    assert Subhalos("sis", mass=LAW, mean_count=2.5).poisson_mean == 2.5
    assert Subhalos("sis", mass=LAW, count=2).poisson_mean is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise": "loud"}, "noise: no 'loud'; there are physical, deeplense-twice, deeplense-doubled"),
        ({"pixels": 0}, "pixels must be at least 1; got 0"),
        ({"supersampling": 0}, "supersampling must be at least 1; got 0"),
        ({"z_lens": 0.0}, "z_source must be above z_lens, and both above zero: z_lens=0.0, z_source=1.0"),
        ({"z_source": 0.5}, "z_source must be above z_lens, and both above zero: z_lens=0.5, z_source=0.5"),
        ({"z_source_convention": 0.5}, "z_source_convention must be above z_lens; got 0.5"),
        ({"classes": {}}, "classes: at least one is needed"),
        (
            {"instrument": Instrument("dark", 0.1, psf_fwhm=0.1, background_rms=1.0)},
            "source.magnitude needs instrument.zero_point",
        ),
    ],
)
def test_impossible_preset_is_refused(changes, message):
    preset = load_preset("fair-hst")
    assert (preset.z_lens, preset.z_source) == (0.5, 1.0)
    with pytest.raises(PresetError, match=f"^{re.escape(message)}$"):
        replace(preset, **changes)


def test_properties_of_a_preset():
    preset = load_preset("fair-hst")
    changed = replace(preset, pixels=1, supersampling=1)
    assert changed.half_width == preset.instrument.pixel_scale / 2
    assert preset.labels == ["no_sub", "cdm", "axion"]
    assert scale_of(preset) == 1.0
    assert [replace(preset, noise=n).unit for n in ("physical", "deeplense-twice", "deeplense-doubled")] == [
        "e-/s", "counts", "e-/s"
    ]  # fmt: skip
    assert scale_of(replace(preset, z_source_convention=1.0)) == pytest.approx(1)


def scale_of(preset):
    return deflection_scale(preset, redshifts_of(preset, {}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pixel_scale": 0.0}, "pixel_scale must be above zero; got 0.0"),
        ({"psf_truncation": 0.0}, "psf_truncation must be above zero; got 0.0"),
        ({"exposure_time": ZERO}, "exposure_time must be above zero; got Constant(value=0.0)"),
        ({"exposures": 0}, "exposures must be at least 1; got 0"),
        ({"psf_fwhm": -0.1}, "psf_fwhm must be zero or more; got -0.1"),
        ({"read_noise": -1.0}, "read_noise must be zero or more; got -1.0"),
        ({"psf_fwhm": 0.0}, "psf_fwhm must be above zero, or psf_file be given; got 0.0"),
        ({"sky_brightness": None}, "sky_brightness must be given, unless background_rms is; got None"),
        ({"zero_point": None}, "zero_point must be given, unless background_rms is; got None"),
    ],
)
def test_impossible_instrument_is_refused(changes, message):
    numbers = {"pixel_scale": 0.05, "psf_fwhm": 0.1, "sky_brightness": 22.0, "zero_point": 25.0} | changes
    with pytest.raises(PresetError, match=f"^{re.escape('instrument cam: ' + message)}$"):
        Instrument("cam", **numbers)


def test_instruments_at_the_edge_are_taken():
    camera = Instrument("cam", 0.05, psf_file="a.npy", background_rms=0.1, psf_truncation=0.5)
    assert (camera.psf_fwhm, camera.read_noise, camera.exposures) == (0, 0, 1)
    assert camera.background(10.0) == 0.1
    assert math.isclose(Instrument("cam", 0.5, psf_fwhm=0.1, background_rms=0.0).background(3.0), 0)
