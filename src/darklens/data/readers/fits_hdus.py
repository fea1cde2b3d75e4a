"""Read the headers of a FITS file from its own bytes (FITS 4.0, sections 3 and 4): names, sizes and known cards.

cfitsio reads them as well, several times slower: the headers of all files of a folder are read before any pixel. It opens
no file of which they were not read before, as it would unpack other archives, and ends the process on some damaged ones.
"""

from __future__ import annotations

import gzip
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from darklens.data.bounds import check_gzip, is_gzip, named_errors
from darklens.errors import DamagedFileError, DataError

CARD, BLOCK = 80, 2880
FILTER_KEYS = ("FILTER", "BAND", "FILTER1", "FILTER2")
ZERO_POINT_KEYS = ("MAGZERO", "MAGZPT", "PHOTZP", "ZP", "MAG_ZP")
SKY_KEYS = re.compile(r"CTYPE[12]|CUNIT[12]|CRVAL[12]|CRPIX[12]|CDELT[12]|CROTA[12]|CD[12]_[12]|PC[12]_[12]|LONPOLE|LATPOLE"
                      r"|PV[12]_\d+|RADESYS|RADECSYS|EQUINOX|EPOCH|[AB]P?_\d_\d|[AB]P?_ORDER")  # fmt: skip
TILES = re.compile(r"ZNAXIS\d+|ZTILE\d+")
STRUCTURE = re.compile(rf"SIMPLE|XTENSION|Z?BITPIX|Z?NAXIS\d*|PCOUNT|GCOUNT|GROUPS|ZIMAGE|{TILES.pattern}")
_OTHERS = "EXTNAME|HDUNAME|PHOTFLAM|PHOTPLAM|BUNIT|OBJECT|Z?BLANK|BSCALE|BZERO"
KNOWN_CARDS = re.compile(
    rf"{SKY_KEYS.pattern}|{'|'.join((*FILTER_KEYS, *ZERO_POINT_KEYS))}|{STRUCTURE.pattern}|{_OTHERS}"
)
"""Names of the cards that are read."""
QUOTED = re.compile(r" *'((?:[^']|'')*)'")
MOST_AXES = 999
"""Axes of an image at most (FITS 4.0, section 4.4.1.1)."""


@dataclass(frozen=True)
class Hdu:
    """An HDU, as its header describes it.

    Parameters
    ----------
    number
        Counted from 0.
    name
        EXTNAME, or HDUNAME; empty without.
    is_image
        Whether it is an image, compressed in tiles or not.
    shape
        Of the image, the slowest axis first; empty without pixels.
    cards
        The cards that darklens knows (`KNOWN_CARDS`): values by name, of the last card of each name, but
        of the first EXTNAME and HDUNAME.
    """

    number: int
    name: str
    is_image: bool
    shape: tuple[int, ...]
    cards: Mapping[str, Any]


def read_hdus(path: Path) -> list[Hdu]:
    """Read the headers of a FITS file, which may be compressed by gzip.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    list of Hdu
        In the order of the file; what follows the last of them and is no HDU is left out.

    Raises
    ------
    DataError
        If it is not a FITS file, ends before its last HDU does, has a header that is not in ASCII, contradicts itself on
        the size of its data, or has a compressed image with a side of 0, by which cfitsio divides.
    """
    gzipped = is_gzip(path)
    if gzipped:
        check_gzip(path)
    with named_errors(path, "not a readable FITS file"), gzip.open(path) if gzipped else path.open("rb") as file:
        hdus: list[Hdu] = []
        size, end = file.seek(0, 2), file.seek(0)
        while (text := _header(file, path, len(hdus))) is not None:
            hdu = _hdu(len(hdus), _cards(text, path), path)
            end += len(text) + _data_bytes(hdu.cards, path)
            if end > size:
                raise DamagedFileError(
                    f"{path}: truncated: {size} bytes where its header promises {end}; copy it again"
                )
            file.seek(end)
            hdus.append(hdu)
    return hdus


def _header(file: BinaryIO | gzip.GzipFile, path: Path, number: int) -> str | None:
    """The header that begins here, whole blocks; None if there is none."""
    begins = b"XTENSION" if number else b"SIMPLE"
    blocks = block = file.read(BLOCK)
    if not block.startswith(begins):
        if number == 0:
            raise DataError(f"{path}: not a readable FITS file: it does not begin with SIMPLE")
        return None
    while not _has_end(block):
        block = file.read(BLOCK)
        if len(block) < BLOCK:
            raise DamagedFileError(f"{path}: truncated: it ends within the header of HDU {number}; copy it again")
        blocks += block
    return blocks.decode("ascii")


def _has_end(block: bytes) -> bool:
    start = -1
    while (start := block.find(b"END     ", start + 1)) >= 0:
        if start % CARD == 0:
            return True
    return False


def _cards(text: str, path: Path) -> dict[str, Any]:
    """The known cards of a header, if those of its structure do not contradict each other."""
    found: dict[str, Any] = {}
    for start in range(0, len(text), CARD):
        name, value = _card(text[start : start + CARD])
        if name is None:
            continue
        if name == "END":
            break
        if value is None or name in found or name.startswith("Z"):
            _check_structure(name, value, found.get(name, value), path)
            if value is None or name in ("EXTNAME", "HDUNAME"):
                found.setdefault(name, value)
                continue
        found[name] = value
    return found


def _check_structure(name: str, value: Any, other: Any, path: Path) -> None:
    """Refuse what cfitsio might understand otherwise, and sides of compressed images that it would divide by."""
    if TILES.fullmatch(name) and (not _is_whole(value) or value < 1):
        raise DamagedFileError(f"{path}: damaged: its header says {name} = {value!r}; expected a whole number above 0")
    if value != other and STRUCTURE.fullmatch(name):
        raise DamagedFileError(f"{path}: damaged: its header says both {name} = {other!r} and {value!r}; copy it again")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@lru_cache(maxsize=16384)
def _card(card: str) -> tuple[str | None, str | bool | int | float | None]:
    """The name of a card in capitals if it is known, or END, and its value; no name if it is not known.

    Most cards of a survey are the same in all files, and are taken apart once.
    """
    name = card[:8].rstrip().upper()
    if name != "END" and not KNOWN_CARDS.fullmatch(name):
        return None, None
    return name, _value(card[10:]) if card[8:10] == "= " else None


def _value(text: str) -> str | bool | int | float | None:
    """The value of a card: text in quotes, T or F, or a number; None if it has none."""
    if quoted := QUOTED.match(text):
        return quoted[1].replace("''", "'").rstrip()
    plain = text.partition("/")[0].strip()
    if plain in ("T", "F"):
        return plain == "T"
    for kind in (float,) if "." in plain else (int, float):
        try:
            return kind(plain.upper().replace("D", "E"))
        except ValueError:
            continue
    return plain or None


def _hdu(number: int, cards: Mapping[str, Any], path: Path) -> Hdu:
    name = next((cards[key] for key in ("EXTNAME", "HDUNAME") if str(cards.get(key) or "").strip()), "")
    compressed = cards.get("ZIMAGE") is True
    is_image = number == 0 or compressed or str(cards.get("XTENSION", "")).strip() in ("IMAGE", "IUEIMAGE")
    return Hdu(
        number, str(name).strip(), is_image, tuple(reversed(_axes(cards, path, "Z" if compressed else ""))), cards
    )


def _axes(cards: Mapping[str, Any], path: Path, prefix: str = "") -> list[int]:
    """The lengths of the axes, the fastest first."""
    count = cards.get(f"{prefix}NAXIS", 0)
    if not isinstance(count, int) or not 0 <= count <= MOST_AXES:
        raise DamagedFileError(f"{path}: damaged: its header says {prefix}NAXIS = {count!r}; expected 0 to {MOST_AXES}")
    axes = [cards.get(f"{prefix}NAXIS{number}") for number in range(1, count + 1)]
    for number, axis in enumerate(axes, 1):
        if axis is None or not _is_whole(axis) or axis < 0:
            name = f"{prefix}NAXIS{number}"
            raise DamagedFileError(f"{path}: damaged: its header says {name} = {axis!r}; expected a whole number")
    return [int(axis) for axis in axes if axis is not None]


def _data_bytes(cards: Mapping[str, Any], path: Path) -> int:
    """The bytes of the data after a header, in whole blocks (FITS 4.0, sections 4.4.1 and 6.1)."""
    axes = _axes(cards, path)
    if axes and axes[0] == 0 and cards.get("GROUPS") is True:
        axes = axes[1:]
    numbers = [cards.get(key, missing) for key, missing in (("BITPIX", None), ("PCOUNT", 0), ("GCOUNT", 1))]
    if not all(_is_whole(number) for number in numbers) or min(numbers[1:]) < 0:
        raise DamagedFileError(f"{path}: its header is damaged: BITPIX, PCOUNT or GCOUNT is no whole number")
    bits, parameters, groups = (int(number) for number in numbers)
    values = groups * (parameters + math.prod(axes)) if axes else 0
    return math.ceil(abs(bits) // 8 * values / BLOCK) * BLOCK
