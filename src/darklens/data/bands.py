"""Names of bands: what two surveys call the same, and the order of wavelengths."""

from __future__ import annotations

import re
from collections.abc import Sequence

ORDER = ("u", "g", "r", "i", "z", "y", "j", "h", "k")
"""Letters of broad bands by wavelength, the shortest first."""
SPACE = re.compile(r"f\d{3,4}[a-z]{1,2}")
"""Filters of Hubble and Webb, such as F814W."""


def short_name(band: str) -> str:
    """Return what is common to the names of a band: its last part in small letters, ``g`` of ``DES_G`` and ``HSC-G``.

    Primes and the s of 2MASS's Ks are left out; ``NIR_Y`` and ``y`` are different filters, and keep different names.
    """
    parts = re.split(r"[-_. ]+", band.strip().lower().replace("'", ""))
    last = parts[-1]
    if "nir" in parts[:-1] or "nisp" in parts[:-1]:
        return f"nir_{last}"
    return "k" if last == "ks" else last


def is_band(text: str) -> bool:
    """Return whether a word can be the name of a band."""
    name = short_name(text)
    return name.removeprefix("nir_") in (*ORDER, "vis") or bool(SPACE.fullmatch(name) or re.fullmatch(r"band\d+", name))


def by_wavelength(bands: Sequence[str]) -> list[str]:
    """Return names of bands in the order of their wavelengths: VIS first, letters, and all others by name."""

    def place(band: str) -> tuple[int, int, str]:
        name = short_name(band)
        letter = name.removeprefix("nir_")
        known = letter in ORDER
        return (0 if name == "vis" else 1 if known else 2, ORDER.index(letter) if known else 0, band)

    return sorted(bands, key=place)


def colour_channels(bands: Sequence[str]) -> list[int] | None:
    """Return the places of three bands that are drawn red, green and blue; None if there is no such choice.

    These are the bands R, G and B by their names, or three of different known wavelengths (VIS, and the letters of
    `ORDER`), of which the longest is red.
    """
    names = [short_name(band) for band in bands]
    if sorted(names) == ["b", "g", "r"]:
        return [names.index(colour) for colour in "rgb"]
    known = all(name == "vis" or name.removeprefix("nir_") in ORDER for name in names)
    if len(names) != 3 or len(set(names)) != 3 or not known:
        return None
    return [list(bands).index(band) for band in reversed(by_wavelength(bands))]


def matching(wanted: Sequence[str], given: Sequence[str]) -> list[int] | None:
    """Return the place of each wanted band among those that are given, by name or by `short_name`; None if one is missing.

    A short name that two given bands share matches neither.
    """
    places = []
    short = [short_name(name) for name in given]
    for name in wanted:
        if name in given:
            places.append(list(given).index(name))
        elif short.count(short_name(name)) == 1:
            places.append(short.index(short_name(name)))
        else:
            return None
    return places if len(set(places)) == len(places) else None


def chosen(wanted: Sequence[str], given: Sequence[str]) -> list[int] | None:
    """Return the place of each band that a user asks for: by its name (`matching`), or else by its number from 0.

    None if one is missing, or asked for twice.
    """
    if (places := matching(wanted, given)) is not None:
        return places
    if all(name.isascii() and name.isdigit() and int(name) < len(given) for name in wanted):
        places = [int(name) for name in wanted]
        return places if len(set(places)) == len(places) else None
    return None
