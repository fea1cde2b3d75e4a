"""Check that a file can hold what its header promises, before memory is allocated for it.

A header can promise anything. An uncompressed file holds no more than its size; a compressed one no more than its
compression can expand.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from darklens.errors import DamagedFileError, DarklensError, DataError

DEFLATE_RATIO = 1032
"""Bytes that one byte of deflate (PNG, gzip, HDF5, FITS) becomes at most: a run of 258 bytes in two bits (RFC 1951, section
3.2.5). A smaller value refuses valid files; a larger one lets a small damaged file take more memory."""
TILE_RATIO = 8192
"""The same of the tile compressions of FITS and of other filters of HDF5. PLIO's runs of 4095 pixels in two bytes are the
longest; Rice has 256. Wrong values harm as those of `DEFLATE_RATIO`."""
IMAGE_BYTES = 2**31
"""One decompressed image, or the part of a stack that is decompressed at once, is at most this: 23 000 pixels square in
float32. A choice, not tuned: a quarter of the memory of a small machine. A larger value lets a file of some megabytes take
all memory; a smaller one refuses large images."""
TABLE_BYTES = 2**31
"""A catalogue in memory is at most this, or `DEFLATE_RATIO` times its file if that is less (but 64 MiB always). A choice:
rows for ten million images with 25 columns of numbers; a smaller value refuses large catalogues."""


def check_whole(path: Path, promised: int, stored: int) -> None:
    """Refuse an uncompressed file that is shorter than its header promises.

    Parameters
    ----------
    path
        The file, for errors.
    promised
        Bytes that its header promises.
    stored
        Bytes that it has.

    Raises
    ------
    DataError
        If it has fewer bytes.
    """
    if stored < promised:
        raise DamagedFileError(f"{path}: truncated: {stored} bytes where its header promises {promised}; copy it again")


def check_expansion(path: Path, promised: int, stored: int, *, ratio: int = DEFLATE_RATIO) -> None:
    """Refuse compressed data whose header promises more than decompression can make of them.

    Parameters
    ----------
    path
        The file, for errors.
    promised
        Bytes that its header promises.
    stored
        Compressed bytes that it has.
    ratio
        Bytes that one compressed byte becomes at most.

    Raises
    ------
    DataError
        If more are promised than ``ratio`` times those stored.
    """
    if promised > stored * ratio:
        raise DataError(
            f"{path}: damaged: its header promises {promised:,} bytes, and {stored:,} compressed bytes hold no more than "
            f"{stored * ratio:,}; copy it again"
        )


def check_image(path: Path, promised: int) -> None:
    """Refuse an image that would be decompressed to more than `IMAGE_BYTES`. Raises DataError."""
    if promised > IMAGE_BYTES:
        raise DataError(
            f"{path}: an image of {promised:,} bytes; cutouts of up to {IMAGE_BYTES:,} bytes are read, so cut it"
        )


def is_gzip(path: Path) -> bool:
    """Return whether a file begins with the signature of gzip. Raises DamagedFileError if it cannot be read."""
    with named_errors(path, "cannot be read"), path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def check_gzip(path: Path) -> None:
    """Refuse a gzip file that decompresses to more than `IMAGE_BYTES`, or is damaged. Raises DataError."""
    if path.stat().st_size * DEFLATE_RATIO <= IMAGE_BYTES:
        return
    decompressor = zlib.decompressobj(wbits=31)
    size = 0
    with path.open("rb") as file, named_errors(path, "not a readable gzip file"):
        while (block := decompressor.unconsumed_tail or file.read(2**20)) and not decompressor.eof:
            size += len(decompressor.decompress(block, 2**24))
            check_image(path, size)


@contextmanager
def named_errors(path: Path, what: str, kind: type[DarklensError] = DamagedFileError) -> Iterator[None]:
    """Turn whatever a library raises while it decodes a file into an error that names the file.

    Decoders raise nearly anything on damaged files. A lack of memory is left as it is: sizes are checked before.

    Parameters
    ----------
    path
        The file.
    what
        What is wrong, such as ``not a readable PNG``; the library's reason follows it in the message.
    kind
        Class of the error.

    Yields
    ------
    None

    Raises
    ------
    DarklensError
        Of the given kind.
    """
    try:
        yield
    except (DarklensError, MemoryError):
        raise
    except BaseException as error:
        # Each library in Rust has a class of its own for panics, and it is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if isinstance(error, OSError) and error.strerror is not None:
            raise kind(f"{path}: cannot be read: {_target(path)}{error.strerror}") from error
        raise kind(f"{path}: {what}: {reason(error)}") from error


def _target(path: Path) -> str:
    """Where a link points to, if there is nothing."""
    return f"a link to {path.readlink()}: " if path.is_symlink() and not path.exists() else ""


def reason(error: BaseException) -> str:
    """Return the last line of an error's message, at most 200 characters and printable, or the name of its class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1][:200] if lines else type(error).__name__
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
