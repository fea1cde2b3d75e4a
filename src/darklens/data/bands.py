"""Names of bands: what two surveys call the same, and the order of wavelengths."""

from __future__ import annotations

import re
from collections.abc import Sequence

from darklens.errors import DataError

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
    `ORDER`), of which the longest is red. Of more than three they are g, r and i, or else the longest, the shortest and
    that in the middle.
    """
    names = [short_name(band) for band in bands]
    if sorted(names) == ["b", "g", "r"]:
        return [names.index(colour) for colour in "rgb"]
    known = all(name == "vis" or name.removeprefix("nir_") in ORDER for name in names)
    if len(names) < 3 or len(set(names)) != len(names) or not known:
        return None
    if len(names) > 3 and {"g", "r", "i"} <= set(names):
        return [names.index(letter) for letter in "irg"]
    ordered = by_wavelength(bands)
    return [list(bands).index(band) for band in (ordered[-1], ordered[len(ordered) // 2], ordered[0])]


def matching(wanted: Sequence[str], given: Sequence[str]) -> list[int] | None:
    """Return the place of each wanted band among those that are given, by name or by `short_name`; None if one is missing.

    A short name that two given bands share matches neither.
    """
    found = counterparts(wanted, given)
    places = [place for place in found if place is not None]
    return places if len(places) == len(found) else None


def counterparts(wanted: Sequence[str], given: Sequence[str]) -> list[int | None]:
    """Return the place of each band among those that are given, by name or by `short_name`, None without; none twice."""
    exact = [list(given).index(name) if name in given else None for name in wanted]
    short, sought = [short_name(name) for name in given], [short_name(name) for name in wanted]
    alike = [
        short.index(name) if sought.count(name) == short.count(name) == 1 and place is None else None
        for name, place in zip(sought, exact, strict=True)
    ]
    places = [by_name if by_name is not None else by_short for by_name, by_short in zip(exact, alike, strict=True)]
    return [place if places.count(place) == 1 else None for place in places]


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


def find_bands(wanted: Sequence[str], given: Sequence[str], where: object) -> list[int]:
    """Return the place of each band that a user asks for, as `chosen` does, or refuse them with what there is.

    Parameters
    ----------
    wanted
        Names, or numbers from 0.
    given
        Names of the bands that there are; their numbers from 0 if they have no names.
    where
        What has them, for errors.

    Returns
    -------
    list of int
        As many as are wanted.

    Raises
    ------
    DataError
        If a band is not there, or is asked for twice.
    """
    nameless = list(given) == [str(number) for number in range(len(given))]
    alone = [given.index(name) if name in given else None if nameless else _only(name, given) for name in wanted]
    if missing := [name for name, place in zip(wanted, alone, strict=True) if place is None]:
        there = (
            f"they have no names; say numbers from 0 to {len(given) - 1}"
            if nameless
            else f"there are {', '.join(given)}"
        )
        raise DataError(f"{where}: no band {', '.join(missing)}; {there}")
    if (places := chosen(wanted, given)) is not None:
        return places
    if twice := [name for name, place in zip(wanted, alone, strict=True) if alone.count(place) > 1]:
        raise DataError(f"{where}: band {twice[0]} is asked for twice")
    raise DataError(f"{where}: bands {', '.join(wanted)}: give names or numbers, not both")


def _only(name: str, given: Sequence[str]) -> int | None:
    places = chosen([name], given)
    return places[0] if places is not None else None
