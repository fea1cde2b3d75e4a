"""Magnitudes of spectra through filters, against speclite."""

import astropy.units as u
import numpy as np
import pytest
from speclite import filters

from darklens.errors import PresetError
from darklens.simulation.scenes.photometry import SPECTRA, Photometry, ab_magnitudes, load_filter, load_spectrum

BANDS = {"g": "hsc2017-g", "i": "hsc2017-i", "y": "panstarrs-y", "V": "Euclid-VIS"}
REDSHIFTS = np.array([0.0, 0.1, 0.5, 0.53711, 1.0, 2.0, 3.333, 5.0])


def of_speclite(name: str, spectrum: str, z: float) -> float:
    curve = load_spectrum(spectrum)
    flux = curve.value / (1 + z) * 1e-17 * u.erg / u.s / u.cm**2 / u.AA
    return float(filters.load_filter(name).get_ab_magnitude(flux, curve.wavelength * (1 + z) * u.AA))


@pytest.mark.parametrize("number", range(len(SPECTRA)))
def test_magnitudes_and_colours_are_those_of_speclite(number):
    table = Photometry(BANDS)
    which = np.full(len(REDSHIFTS), float(number))
    corrections, colours = table.corrections(which, REDSHIFTS), table.colours_from("i", which, REDSHIFTS)
    rest = of_speclite("sdss2010-r", SPECTRA[number], 0)
    for i, z in enumerate(REDSHIFTS):
        theirs = np.array([of_speclite(name, SPECTRA[number], z) for name in BANDS.values()])
        assert corrections[i] == pytest.approx(theirs - rest, abs=3e-3)
        assert colours[i] == pytest.approx(theirs - theirs[1], abs=3e-3)


def test_a_galaxy_between_two_spectra_is_between_their_magnitudes():
    table, z = Photometry(BANDS), np.full(3, 0.4)
    first, middle, second = table.corrections(np.array([1.0, 1.25, 2.0]), z)
    assert middle == pytest.approx(0.75 * first + 0.25 * second)
    assert np.abs(first - second).max() > 0.1


def test_the_bluest_colour_is_below_all():
    table = Photometry(BANDS)
    rng = np.random.default_rng(0)
    found = table.corrections(rng.uniform(0, 3, 2000), rng.uniform(0, 6, 2000))
    assert table.bluest("g", "i") <= (found[:, 0] - found[:, 1]).min() < table.bluest("g", "i") + 0.1


def test_a_black_body_is_as_planck_has_it():
    curve = load_spectrum("blackbody:5778")
    # Wien: λ T = 2.898e7 Å K.
    assert curve.wavelength[curve.value.argmax()] == pytest.approx(2.898e7 / 5778, rel=2e-3)
    ratio = np.interp(10_000, *curve) / np.interp(5000, *curve)
    hot, cold = (np.expm1(1.4388e8 / (length * 5778)) for length in (5000, 10_000))
    assert ratio == pytest.approx((5000 / 10_000) ** 5 * hot / cold, rel=1e-3)


def test_a_power_law_of_minus_two_has_no_colour():
    table = Photometry(BANDS, ["power_law:-2"])
    assert np.ptp(table.corrections(np.zeros(3), np.array([0.0, 1.0, 4.0])), axis=1) == pytest.approx(0, abs=1e-3)


def test_own_files_serve_as_filter_and_spectrum(tmp_path):
    curve, spectrum = load_filter("hsc2017-i"), load_spectrum("Sbc")
    np.savetxt(tmp_path / "i.dat", np.stack(curve, axis=1))
    np.savetxt(tmp_path / "Sbc.sed", np.stack(spectrum, axis=1))
    own = Photometry({"i": str(tmp_path / "i.dat")}, [str(tmp_path / "Sbc.sed")])
    shipped = Photometry({"i": "hsc2017-i"}, ["Sbc"])
    z = np.array([0.3, 1.7])
    assert own.corrections(np.zeros(2), z) == pytest.approx(shipped.corrections(np.zeros(2), z))


def test_f814w_is_between_r_and_z():
    curve = load_filter("acs-F814W")
    middle = np.average(curve.wavelength, weights=np.gradient(curve.wavelength) * curve.value)
    assert middle == pytest.approx(8060, abs=60)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda folder: load_filter("hsc2017-k"), "no filter 'hsc2017-k'. Did you mean 'hsc2017-"),
        (lambda folder: load_spectrum("Sa"), "no spectrum 'Sa'; there are E, Sbc, Scd, Im"),
        (lambda folder: load_filter(str(folder / "none.dat")), "filter .*none.dat: "),
        (lambda folder: load_filter(str(folder / "down.dat")), "ascending"),
        (lambda folder: load_filter(str(folder / "dark.dat")), "not all zero"),
        (lambda folder: load_filter(str(folder / "one.dat")), "two columns"),
        (lambda folder: Photometry({"far": str(folder / "far.dat")}), "spectrum E through filter .*does not cover"),
    ],
)
def test_what_cannot_be_had_is_said(tmp_path, call, text):
    (tmp_path / "down.dat").write_text("5000 1\n4000 1\n")
    (tmp_path / "dark.dat").write_text("4000 0\n5000 0\n")
    (tmp_path / "one.dat").write_text("4000\n5000\n")
    (tmp_path / "far.dat").write_text("40000 1\n50000 1\n")
    with pytest.raises(PresetError, match=text):
        call(tmp_path)


def test_a_filter_outside_of_the_spectrum_is_not_extrapolated():
    with pytest.raises(ValueError, match="does not cover"):
        ab_magnitudes(load_spectrum("E"), load_filter("twomass-Ks"), 1)
