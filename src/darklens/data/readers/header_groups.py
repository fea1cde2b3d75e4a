"""Group files that hold one band each into objects by their headers: the filter, and the object's name or place."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from darklens.data.readers.band_groups import BandGroups, common_bands, is_mostly_several
from darklens.data.readers.fits_hdus import read_hdus
from darklens.data.readers.fits_headers import BandImage, read_bands
from darklens.errors import DataError
from darklens.progress import progress_bar

LOOKED_AT = 20
"""Files of a folder that are read first, to see whether it holds one band a file. A choice, not tuned."""
SAME_OBJECT = 1.0
"""Images whose centres are closer, arcsec, are of one object: more than cutouts of one are apart, less than two lenses."""


@dataclass(frozen=True)
class _Header:
    image: BandImage
    name: str | None
    position: tuple[float, float] | None
    reach: float
    """From the centre to the edge, arcsec."""

    @property
    def path(self) -> Path:
        return self.image.plane.path

    @property
    def band(self) -> str:
        return self.image.name


def group_by_headers(root: Path, paths: Sequence[Path]) -> BandGroups | None:
    """Return files as objects with several bands, or None if their headers do not say that they are.

    Each file must hold one image whose header names its filter; files of one object have the same ``OBJECT`` or, without
    it, the same place on the sky.

    Parameters
    ----------
    root
        The folder.
    paths
        Files in it, at any depth.

    Returns
    -------
    BandGroups or None
        The objects, with the bands that all of them have.

    Raises
    ------
    DataError
        If no band is common to all objects.
    """
    spread = paths[:: max(1, len(paths) // LOOKED_AT)]
    looked_at: dict[Path, _Header] = {}
    for path in spread:
        with suppress(DataError):
            if (header := _read(path)) is None:
                return None
            looked_at[path] = header
    if len({header.band for header in looked_at.values()}) < 2:
        return None
    headers: list[_Header] = []
    damaged: list[Path] = []
    with progress_bar(f"reading the headers of {len(paths):,} files") as advance:
        for number, path in enumerate(paths):
            try:
                header = looked_at.get(path) or _read(path)
            except DataError:
                damaged.append(path)
                continue
            if header is None:
                return None
            headers.append(header)
            advance(number + 1, len(paths))
    found = _by_name(headers) or _by_position(headers)
    if found is None or not is_mostly_several(found):
        return None
    folders = {name: next(iter(files.values())).relative_to(root).parts[:-1] for name, files in found.items()}
    keyed = {(folders[name], name): files for name, files in found.items()}
    groups = common_bands(root, keyed, Counter(band for files in found.values() for band in files))
    groups.headers.update((header.path, header.image) for header in headers)
    if damaged:
        groups.notes.append(f"{len(damaged):,} files such as {damaged[0].name} cannot be read: left out")
    return groups


def _read(path: Path) -> _Header | None:
    """What the header of a file with one image of a named filter says; None for all other files."""
    hdus = read_hdus(path)
    bands = read_bands(hdus, path)
    if len(bands) != 1 or not bands[0].named:
        return None
    (band,) = bands
    name = {**hdus[0].cards, **hdus[band.plane.hdu].cards}.get("OBJECT")
    position = None
    if band.sky is not None:
        with suppress(Exception):  # what astropy says of a WCS that makes no sense
            position = band.sky.position(band.shape)
    reach = max(band.shape) / 2 * band.scale if band.scale is not None else 0.0
    return _Header(band, name.strip() or None if isinstance(name, str) else None, position, reach)


def _by_name(headers: Sequence[_Header]) -> dict[str, dict[str, Path]] | None:
    """Files by object and band; None where an object has no name, a band twice, or images that do not overlap."""
    found: dict[str, dict[str, Path]] = {}
    first: dict[str, _Header] = {}
    for header in headers:
        if header.name is None or header.band in found.setdefault(header.name, {}):
            return None
        other = first.setdefault(header.name, header)
        if header.position is not None and other.position is not None:
            apart = math.dist(_direction(*header.position), _direction(*other.position))
            if math.degrees(apart) * 3600 > max(header.reach, other.reach):
                return None
        found[header.name][header.band] = header.path
    return found


def _by_position(headers: Sequence[_Header]) -> dict[str, dict[str, Path]] | None:
    """Files by place on the sky and band; None where a place is unknown, or has a band twice."""
    cells: dict[tuple[int, ...], list[str]] = {}
    places: dict[str, tuple[float, ...]] = {}
    found: dict[str, dict[str, Path]] = {}
    for header in headers:
        if header.position is None:
            return None
        place = _direction(*header.position)
        size = math.radians(SAME_OBJECT / 3600)
        cell = tuple(math.floor(x / size) for x in place)
        around = (tuple(c + d for c, d in zip(cell, step, strict=True)) for step in product((-1, 0, 1), repeat=3))
        near = [name for key in around for name in cells.get(key, ()) if math.dist(places[name], place) < size]
        name = near[0] if near else f"{header.position[0]:.5f}{header.position[1]:+.5f}"
        if not near:
            cells.setdefault(cell, []).append(name)
            places[name] = place
        if header.band in found.setdefault(name, {}):
            return None
        found[name][header.band] = header.path
    return found


def _direction(ra: float, dec: float) -> tuple[float, float, float]:
    """The unit vector of a place on the sky."""
    ra, dec = math.radians(ra), math.radians(dec)
    return math.cos(dec) * math.cos(ra), math.cos(dec) * math.sin(ra), math.sin(dec)
