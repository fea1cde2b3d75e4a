"""Identifiers of images: how they are made of the names of files, and how those of catalogues are matched with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

IMAGE_SUFFIXES = {
    ".npy": "npy", ".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg",
    ".fits": "fits", ".fit": "fits", ".fits.gz": "fits", ".fits.fz": "fits",
}  # fmt: skip
"""Suffixes of the names of image files, in small letters, and the kind of each."""


def file_kind(path: Path) -> str | None:
    """Return ``npy``, ``png``, ``jpeg`` or ``fits`` by the suffix of a file's name, or None for any other."""
    name = path.name.lower()
    return next((kind for suffix, kind in IMAGE_SUFFIXES.items() if name.endswith(suffix)), None)


def without_suffix(name: str) -> str:
    """Return the name of an image file without the suffix of its format; other dots belong to the name."""
    found = [suffix for suffix in IMAGE_SUFFIXES if name.lower().endswith(suffix)]
    return name[: -max(map(len, found))] if found else name


def identifier(path: Path, root: Path | None = None) -> str:
    """Return the identifier of an image file: its name without suffix, after the folders that are below ``root``."""
    if root is None:
        return without_suffix(path.name)
    return without_suffix(path.relative_to(root).as_posix())


@dataclass(frozen=True)
class Match:
    """How the identifiers of images and of a catalogue correspond.

    Parameters
    ----------
    images, catalog
        A key for each image and for each row; equal keys belong together. Null is equal to nothing.
    count
        Number of images that have a row.
    note
        What had to be done to the identifiers, as a part of a sentence; empty if nothing.
    """

    images: pl.Series
    catalog: pl.Series
    count: int
    note: str = ""


def match_identifiers(images: pl.Series, catalog: pl.Series) -> Match:
    """Return the correspondence that gives most images a row, and of equals the one that changes least.

    Identifiers are compared as they are; without folders and suffixes of files (``cutouts/a.fits`` is ``a``); and, if both
    are whole numbers, by their values (``000001`` is ``1``). A form in which several images or rows would be taken for
    each other matches nothing.

    Parameters
    ----------
    images
        Identifiers of N images, text.
    catalog
        Identifiers of the rows of a table, text.

    Returns
    -------
    Match
        Keys of both; its count is 0 if nothing corresponds.
    """
    best = Match(images, catalog, int(images.is_in(catalog.implode()).sum()))
    for form, note in _FORMS.items():
        ours, theirs = (_changed(each, form) for each in (images, catalog))
        shared = set(ours.drop_nulls()) & set(theirs.drop_nulls())
        repeated = any(each.is_in(list(shared)).sum() > len(shared) for each in (ours, theirs))
        if len(shared) > best.count and not repeated:
            best = Match(ours, theirs, len(shared), note)
    return best


def counted_from_one(images: pl.Series, catalog: pl.Series) -> bool:
    """Return whether a catalogue numbers the images of a stack from 1, where these are numbered from 0.

    Parameters
    ----------
    images
        Identifiers of N images, text.
    catalog
        Identifiers of the rows of a table, text.

    Returns
    -------
    bool
        True if images are 0 to N - 1, and rows are whole numbers from 1 to N with N among them.
    """
    if images.to_list() != [str(i) for i in range(len(images))]:
        return False
    numbers = [_number(text) for text in catalog.drop_nulls()]
    found = {int(number) for number in numbers if number is not None}
    return None not in numbers and len(images) in found and min(found) >= 1 and max(found) == len(images)


def _changed(identifiers: pl.Series, form: Callable[[str], str | None]) -> pl.Series:
    return pl.Series("key", [None if text is None else form(text) for text in identifiers], dtype=pl.String)


def _bare(text: str) -> str:
    return without_suffix(text.replace("\\", "/").rpartition("/")[2])


def _number(text: str) -> str | None:
    bare = _bare(text)
    return str(int(bare)) if bare.isascii() and bare.isdigit() else None


_FORMS = {_bare: "compared without folders and suffixes", _number: "compared as numbers"}
