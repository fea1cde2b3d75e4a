"""Bounds on what a file can hold, checked before memory is taken for what its header promises.

A header can promise anything. An uncompressed file holds no more than its size; a compressed one no more than its
compression can expand.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from darklens.errors import DarklensError, DataError

DEFLATE = 1032
"""Bytes that one byte of deflate (PNG, gzip, HDF5, FITS) becomes at most: a run of 258 in two bits."""
TILES = 8192
"""The same of the tile compressions of FITS and of other filters of HDF5. PLIO's runs of 4095 pixels in two bytes are the
longest; Rice has 256. A larger value lets a small damaged file take more memory."""
IMAGE_BYTES = 2**31
"""One decompressed image, or the part of a stack that is decompressed at once, is at most this: 23 000 pixels square in
float32. Without it a file of some megabytes could take all memory."""
TABLE_BYTES = 2**31
"""A catalogue in memory is at most this or `DEFLATE` times its file, whichever is less (but 64 MiB always)."""


def check_whole(path: Path, promised: int, held: int) -> None:
    """Refuse a file of ``held`` bytes, uncompressed, whose header promises more. Raises DataError."""
    if held < promised:
        raise DataError(f"{path}: truncated: {held} bytes where its header promises {promised}; copy it again")


def check_expansion(path: Path, promised: int, held: int, fold: int = DEFLATE) -> None:
    """Refuse compressed data of ``held`` bytes whose header promises more than ``fold`` times that. Raises DataError."""
    if promised > held * fold:
        raise DataError(
            f"{path}: damaged: its header promises {promised:,} bytes, and {held:,} compressed bytes hold no more than "
            f"{held * fold:,}; copy it again"
        )


def check_image(path: Path, promised: int) -> None:
    """Refuse an image that would be decompressed to more than `IMAGE_BYTES`. Raises DataError."""
    if promised > IMAGE_BYTES:
        raise DataError(
            f"{path}: an image of {promised:,} bytes; cutouts of up to {IMAGE_BYTES:,} bytes are read, so cut it"
        )


def is_gzip(path: Path) -> bool:
    """Whether a file begins as gzip does."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def check_gzip(path: Path) -> None:
    """Refuse a gzip file that decompresses to more than `IMAGE_BYTES`, or is damaged. Raises DataError."""
    if path.stat().st_size * DEFLATE <= IMAGE_BYTES:
        return
    decompressor = zlib.decompressobj(wbits=31)
    size = 0
    with path.open("rb") as file, naming(path, "not a readable gzip file"):
        while (block := decompressor.unconsumed_tail or file.read(2**20)) and not decompressor.eof:
            size += len(decompressor.decompress(block, 2**24))
            check_image(path, size)


@contextmanager
def naming(path: Path, what: str, kind: type[DarklensError] = DataError) -> Iterator[None]:
    """Turn whatever a library raises while it decodes a file into a ``kind`` that says the file, ``what`` and the reason.

    Decoders raise nearly anything on damaged files. A lack of memory is left as it is: sizes are checked before.
    """
    try:
        yield
    except (DarklensError, MemoryError):
        raise
    except BaseException as error:
        # Each library in Rust has a class of its own for panics, and it is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise kind(f"{path}: {what}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """Return the last line of an error's message, printable, or the name of its kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1][:200] if lines else type(error).__name__
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
