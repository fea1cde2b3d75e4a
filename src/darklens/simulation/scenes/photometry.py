"""Magnitudes of galaxies in a survey's bands, from spectra through filter curves."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np

from darklens.errors import PresetError
from darklens.simulation.priors import Floats

SPECTRA = ("E", "Sbc", "Scd", "Im")
"""Spectra of galaxies, from red to blue (Coleman, Wu & Weedman 1980, ApJS 43, 393, extended by Bolzonella, Miralles & Pelló
2000, A&A 363, 476): ellipticals, early and late spirals, irregulars. They do not evolve, and hold no absorption by
intergalactic gas, which matters in blue bands above a redshift of 2.5."""

OWN_FILTERS = ("acs-F814W", "wfc3-F160W")
"""Filters beside those of speclite."""

REST_FILTER = "sdss2010-r"
"""Filter of absolute magnitudes, at redshift 0."""

STEP = 5e-4
"""In the logarithm of the wavelength, at which spectra and filters are sampled: 2 to 5 Å in the optical."""

SHIFT = 10
"""Steps from a redshift at which magnitudes are tabulated to the next. They are exact to 0.003 mag
(`test_photometry.py`)."""

HC_OVER_K = 1.438777e8
"""Second radiation constant, Å K."""

HIGHEST = 6.0
"""Redshift up to which magnitudes are tabulated."""

DATA = resources.files("darklens.simulation.scenes") / "spectra.npz"


class Curve(NamedTuple):
    """A function of wavelength: ``wavelength`` in Å, ascending, and ``value``, each (n,)."""

    wavelength: Floats
    value: Floats


def load_spectrum(name: str) -> Curve:
    """Return a spectrum: flux density per wavelength in any unit.

    Parameters
    ----------
    name
        One of `SPECTRA`; ``blackbody:5000`` for a temperature in K; ``power_law:-1.5`` for a power of the wavelength; or a
        text file with two columns, wavelength in Å and flux density.

    Raises
    ------
    PresetError
        If there is none of this name, or the file is not readable.
    """
    if name in SPECTRA:
        return _shipped(name)
    kind, _, number = name.partition(":")
    if kind in ("blackbody", "power_law") and _is_number(number):
        wavelength = np.geomspace(91, 25_000, 2000)
        if kind == "power_law":
            return Curve(wavelength, (wavelength / 5000) ** float(number))
        return Curve(wavelength, (wavelength / 5000) ** -5 / np.expm1(HC_OVER_K / (wavelength * float(number))))
    if Path(name).suffix:
        return _from_file(name, "spectrum")
    raise PresetError(
        f"no spectrum {name!r}; there are {', '.join(SPECTRA)}, or a text file of wavelength (Å) and flux"
    )


def load_filter(name: str) -> Curve:
    """Return the response of a filter, detector and atmosphere included, to photons.

    Parameters
    ----------
    name
        A name of speclite (``hsc2017-g``, ``lsst2023-r``, ``panstarrs-i``, ``Euclid-VIS``), one of `OWN_FILTERS`, or a text
        file with two columns, wavelength in Å and response.

    Raises
    ------
    PresetError
        If there is none of this name, or the file is not readable.
    """
    if name in OWN_FILTERS:
        return _shipped(name)
    if Path(name).suffix:
        return _from_file(name, "filter")
    from speclite import filters

    try:
        found = filters.load_filter(name)
    except ValueError as error:
        groups = [f"{group}-*" for group in filters.filter_group_names]
        known = [*OWN_FILTERS, *_names_of_speclite()]
        close = difflib.get_close_matches(name, known, 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise PresetError(
            f"no filter {name!r}.{hint} There are {', '.join([*OWN_FILTERS, *groups])}, or a text file of wavelength (Å) "
            "and response"
        ) from error
    return Curve(np.asarray(found.wavelength, dtype=np.float64), np.asarray(found.response, dtype=np.float64))


def ab_magnitudes(spectrum: Curve, response: Curve, count: int) -> Floats:
    """Return the AB magnitudes of a spectrum at redshifts from 0 on, but for the distance modulus.

    Parameters
    ----------
    spectrum
        Rest-frame luminosity per wavelength, in any unit: magnitudes have one constant in common.
    response
        Response of a filter to photons.
    count
        Number of redshifts, each above the one before by a factor ``exp(SHIFT * STEP)`` in 1 + z.

    Returns
    -------
    Floats
        Magnitudes (count,). The difference to the first is the K correction, and that of two filters a colour.

    Raises
    ------
    ValueError
        If the spectrum does not cover the filter at a redshift.
    """
    low, high = response.wavelength[[0, -1]]
    inside = low * np.exp(STEP * np.arange(int(math.log(high / low) / STEP) + 1))
    shifts = SHIFT * (count - 1)
    rest = low * np.exp(STEP * np.arange(-shifts, len(inside)))
    if rest[0] < spectrum.wavelength[0] or rest[-1] > spectrum.wavelength[-1]:
        raise ValueError(
            f"the spectrum, from {spectrum.wavelength[0]:.0f} to {spectrum.wavelength[-1]:.0f} Å, does not cover "
            f"{rest[0]:.0f} to {rest[-1]:.0f} Å"
        )
    weight = np.interp(inside, *response) * inside**2  # photons, in steps of the logarithm
    # In the logarithm a redshift is a shift: a row for each, from the highest to that of 0.
    rows = np.lib.stride_tricks.sliding_window_view(np.interp(rest, *spectrum), len(inside))[::SHIFT]
    flux = (rows @ weight)[::-1] * np.exp(-STEP * SHIFT * np.arange(count))
    of_ab = weight @ inside**-2.0  # the same flux density per frequency everywhere
    return -2.5 * np.log10(flux / of_ab)


class Photometry:
    """Magnitudes of galaxies of some spectra in some bands.

    Parameters
    ----------
    filters
        Name of the filter of each band (see `load_filter`).
    spectra
        Names of spectra, by which galaxies are numbered: a galaxy of 0.5 is half-way from the first to the second.
    highest
        Redshift up to which magnitudes are needed.

    Raises
    ------
    PresetError
        If a filter or spectrum cannot be had, or a spectrum does not cover a filter at some redshift.
    """

    def __init__(self, filters: Mapping[str, str], spectra: Sequence[str] = SPECTRA, highest: float = HIGHEST):
        self.bands = list(filters)
        self._count = int(math.log1p(highest) / (STEP * SHIFT)) + 2
        tables = [[_table(spectrum, filters[band], self._count) for band in self.bands] for spectrum in spectra]
        self._table = np.array(tables).reshape(len(spectra), len(self.bands), self._count)

    def corrections(self, spectrum: Floats, z: Floats) -> Floats:
        """Return what is added to absolute magnitude and distance modulus of galaxies to get apparent magnitudes.

        Parameters
        ----------
        spectrum
            Number of each galaxy's spectrum, with fractions between neighbours, (N,).
        z
            Redshifts, (N,).

        Returns
        -------
        Floats
            Magnitudes (N, bands), relative to the absolute magnitude in `REST_FILTER`. Differences of columns are colours.
        """
        at = np.log1p(z) / (STEP * SHIFT)
        low = np.minimum(at.astype(int), self._count - 2)
        share = (at - low)[:, None]
        first = np.clip(spectrum.astype(int), 0, len(self._table) - 1)
        second = np.minimum(first + 1, len(self._table) - 1)
        mixed = (spectrum - first)[:, None]
        found: list[Floats] = [
            self._table[which, :, low] * (1 - share) + self._table[which, :, low + 1] * share
            for which in (first, second)
        ]
        return found[0] * (1 - mixed) + found[1] * mixed

    def colours_from(self, band: str, spectrum: Floats, z: Floats) -> Floats:
        """Return magnitudes in all bands minus that in one of them, (N, bands).

        Parameters
        ----------
        band
            The one.
        spectrum, z
            As in `corrections`.

        Returns
        -------
        Floats
            Differences (N, bands).
        """
        found = self.corrections(spectrum, z)
        return found - found[:, [self.bands.index(band)]]

    def bluest(self, band: str, other: str) -> float:
        """Return the lowest difference of magnitudes in two bands of any spectrum at any redshift."""
        difference = self._table[:, self.bands.index(band)] - self._table[:, self.bands.index(other)]
        return float(difference.min())


@lru_cache(maxsize=256)
def _table(spectrum: str, response: str, count: int) -> Floats:
    """Magnitudes at redshifts from 0 on, relative to the absolute one in `REST_FILTER`."""
    curve = load_spectrum(spectrum)
    try:
        rest = ab_magnitudes(curve, load_filter(REST_FILTER), 1)
        found: Floats = ab_magnitudes(curve, load_filter(response), count) - rest
    except ValueError as error:
        raise PresetError(f"spectrum {spectrum} through filter {response}: {error}") from error
    if not np.isfinite(found).all():
        z = math.expm1(STEP * SHIFT * int(np.flatnonzero(~np.isfinite(found))[0]))
        raise PresetError(f"spectrum {spectrum} through filter {response}: no light at redshift {z:.2f}")
    return found


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


@lru_cache(maxsize=1)
def _names_of_speclite() -> list[str]:
    import speclite

    folder = Path(speclite.__file__).parent / "data" / "filters"
    return sorted(path.stem for path in folder.glob("*.ecsv"))


@lru_cache(maxsize=16)
def _shipped(name: str) -> Curve:
    with resources.as_file(DATA) as path, np.load(path, allow_pickle=False) as arrays:
        return Curve(*arrays[name].astype(np.float64))


def _from_file(name: str, what: str) -> Curve:
    try:
        table = np.loadtxt(name, ndmin=2)
    except (OSError, ValueError) as error:
        raise PresetError(f"{what} {name}: {error}") from error
    if table.shape[0] < 2 or table.shape[1] < 2 or not np.isfinite(table).all() or not (np.diff(table[:, 0]) > 0).all():
        raise PresetError(f"{what} {name}: expected two columns, wavelength in Å, ascending, and value")
    if (table[:, 1] < 0).any() or not table[:, 1].any():
        raise PresetError(f"{what} {name}: values must be zero or more, and not all zero")
    return Curve(table[:, 0], table[:, 1])
