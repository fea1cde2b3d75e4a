"""Check an HDF5 file before its library reads values from it: sizes, and text over which the library would loop forever."""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path
from typing import Any

from darklens.data.bounds import TILE_RATIO, check_expansion, check_image, check_whole
from darklens.errors import DataError

HEAP = b"GCOL\x01\x00\x00\x00"
"""Begins a collection of the global heap, where text of any length lies: signature, version, three zeros, then its size
(HDF5 File Format Specification 3.0, section III.E)."""
OBJECT = struct.Struct("<HH4xQ")
"""Index, number of references and size of an object in it."""


def check_stored(data: Any, path: Path) -> None:
    """Refuse an HDF5 dataset that promises more than the file stores for it, or whose values lie in other files.

    Raises
    ------
    DataError
        If so; sizes of chunks, which are decompressed at once, are checked too.
    """
    if data.is_virtual or data.external:
        raise DataError(f"{path}: dataset {data.name} keeps its values in other files; copy them into one file")
    promised, stored = data.size * data.dtype.itemsize, data.id.get_storage_size()
    check_whole(path, stored, path.stat().st_size)
    if data.chunks is None:
        check_whole(path, promised, stored)
    else:
        check_expansion(path, promised, stored, ratio=TILE_RATIO)
        check_image(path, math.prod(data.chunks) * data.dtype.itemsize)


def check_text(path: Path) -> None:
    """Refuse a file in whose global heap the free space has no size: libhdf5 would look for its end forever.

    Raises
    ------
    DataError
        If so. The file is searched, not read into memory.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(HEAP)
        while start >= 0:
            if not _ends(content, start):
                raise DataError(f"{path}: damaged: its text, at byte {start}, has no end; copy it again")
            start = content.find(HEAP, start + len(HEAP))


def _ends(content: mmap.mmap, start: int) -> bool:
    at = start + len(HEAP) + 8
    if at > len(content):
        return True
    end = min(start + int.from_bytes(content[at - 8 : at], "little"), len(content))
    while at + OBJECT.size <= end:
        index, _, size = OBJECT.unpack(content[at : at + OBJECT.size])
        if index == 0 and size == 0:
            return False
        # Free space counts its own header; objects are padded to eight bytes.
        at += size if index == 0 else OBJECT.size + (size + 7) // 8 * 8
    return True
