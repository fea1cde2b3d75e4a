"""Check a FITS file before cfitsio opens it."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

from darklens.data.bounds import check_gzip, is_gzip
from darklens.errors import DataError

CARD, BLOCK = 80, 2880
PIECE = 1024 * BLOCK
"""Bytes that are searched together, 2.9 MB: a multiple of blocks, so that no card is cut. A choice, not tuned; it bounds
the memory that a search takes."""
SIDE = b"ZNAXIS"
WHOLE_SIDE = re.compile(rb"ZNAXIS\d+ *= *[1-9]\d* *(/.*)?", re.IGNORECASE)


def check_before_opening(path: Path) -> None:
    """Refuse files that are neither FITS nor gzip, and compressed images with a side that is no whole number above 0.

    cfitsio would unpack other archives too, and it divides by the sides of compressed images: by 0 ends the process.

    Raises
    ------
    DataError
        If so, or if a gzip file becomes too large.
    """
    if is_gzip(path):
        check_gzip(path)
    else:
        with path.open("rb") as file:
            if file.read(6) != b"SIMPLE":
                raise DataError(f"{path}: not a readable FITS file: it does not begin with SIMPLE")
    if any(b"ZIMAGE" in piece for piece in _pieces(path)):
        _check_tiles(path)


def _check_tiles(path: Path) -> None:
    for piece in _pieces(path):
        upper, start = piece.upper(), -1  # cfitsio reads names in any case; many times faster than a regular expression
        while (start := upper.find(SIDE, start + 1)) >= 0:
            card = piece[start : start + CARD]
            numbered = upper[start + len(SIDE) : start + len(SIDE) + 1].isdigit()
            if start % CARD == 0 and numbered and not WHOLE_SIDE.fullmatch(card):
                shown = card[:30].decode("ascii", "backslashreplace").rstrip()
                raise DataError(f"{path}: damaged: its header says {shown!r}; expected a whole number above 0")


def _pieces(path: Path) -> Iterator[bytes]:
    with gzip.open(path) if is_gzip(path) else path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece
