"""Group files that hold one band each into objects, by the names of files and folders alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darklens.data.bands import by_wavelength, is_band, short_name
from darklens.data.identifiers import identifier
from darklens.data.readers.fits_headers import BandImage
from darklens.data.splits import SPLIT_NAMES
from darklens.errors import DataError


@dataclass(frozen=True)
class BandGroups:
    """Objects with a file for each band.

    Parameters
    ----------
    bands
        Those that all objects have, VIS first, then by wavelength.
    objects
        The files of each object in the order of the bands, by its identifier.
    folders
        Names of the folders around each object that do not name a band, by its identifier.
    notes
        What was left out.
    headers
        What was read of the headers of files, by file.
    """

    bands: list[str]
    objects: dict[str, list[Path]]
    folders: dict[str, tuple[str, ...]]
    notes: list[str] = field(default_factory=list)
    headers: dict[Path, BandImage] = field(default_factory=dict)

    def splits(self) -> list[str | None]:
        """Return the split of each object, as a folder around it says; None without."""
        return [
            next((SPLIT_NAMES[f.lower()] for f in found if f.lower() in SPLIT_NAMES), None) for found in self._around()
        ]

    def labels(self) -> list[str] | None:
        """Return the class of each object, the first folder around it that is no split; None unless there are several."""
        plain = [tuple(f for f in found if f.lower() not in SPLIT_NAMES) for found in self._around()]
        labels = [found[0] for found in plain if found]
        return labels if len(labels) == len(plain) and len(set(labels)) > 1 else None

    def _around(self) -> Iterator[tuple[str, ...]]:
        return (self.folders[name] for name in self.objects)


def group_bands(root: Path, paths: Sequence[Path], classes: Sequence[str]) -> BandGroups | None:
    """Return files as objects with several bands, or None if their names do not say that they are.

    Tried in this order: a number of at least three digits behind the band (``imageSDSS_R-100002``), or, if two names of a
    band would be one (``x_g_001`` and ``y_g_001``), behind the object and the band; the band at the end of a name
    (``J0123_g``), the band as a folder (``g/J0123``).

    Parameters
    ----------
    root
        The folder.
    paths
        Files in it, at any depth.
    classes
        Words that name classes, and never bands.

    Returns
    -------
    BandGroups or None
        The objects, with the bands that all of them have.

    Raises
    ------
    DataError
        If no band is common to all objects.
    """
    for scheme in (_numbered, _between, _suffixed, _in_folders):
        if (found := _grouped(root, paths, scheme)) is None:
            continue
        bands = Counter(band for files in found.values() for band in files)
        if sum(is_band(band) for band in bands) * 2 <= len(bands):  # ``cosmos_100`` and ``egs_100`` are two objects
            continue
        if scheme is _numbered and len({short_name(band) for band in bands}) < len(bands):
            continue
        if not set(bands) & set(classes) and is_mostly_several(found):
            return common_bands(root, found, bands)
    return None


Named = tuple[str, str]
"""Band, and name of the object in its folder."""


def _numbered(folders: Sequence[str], name: str) -> Named | None:
    match = re.fullmatch(r"(?:image)?(.+?)[-_]?(\d{3,})", name)
    return (match[1], match[2]) if match else None


def _between(folders: Sequence[str], name: str) -> Named | None:
    match = re.fullmatch(r"(.+)[-_.]((?:nir_|NIR_)?[A-Za-z0-9']+?)[-_]?(\d{3,})", name)
    return (match[2], f"{match[1]}_{match[3]}") if match and is_band(match[2]) else None


def _suffixed(folders: Sequence[str], name: str) -> Named | None:
    match = re.fullmatch(r"(.+?)[-_.]((?:nir_|NIR_)?[A-Za-z0-9']+)", name)
    return (match[2], match[1]) if match and is_band(match[2]) else None


def _in_folders(folders: Sequence[str], name: str) -> Named | None:
    found = [folder for folder in folders if is_band(folder)]
    return (found[0], name) if len(found) == 1 else None


def _grouped(
    root: Path, paths: Sequence[Path], scheme: Callable[[Sequence[str], str], Named | None]
) -> dict[tuple[tuple[str, ...], str], dict[str, Path]] | None:
    """Files of each object by band; the object is known by its folders, without those that go with bands, and its name."""
    parsed: list[tuple[tuple[str, ...], Named, Path]] = []
    for path in paths:
        folders = path.relative_to(root).parts[:-1]
        if (named := scheme(folders, identifier(path))) is None:
            return None
        parsed.append((folders, named, path))
    if len({band for _, (band, _), _ in parsed}) < 2:
        return None
    of_bands = _folders_of_bands([(folders, band) for folders, (band, _), _ in parsed])
    objects: dict[tuple[tuple[str, ...], str], dict[str, Path]] = {}
    for folders, (band, name), path in parsed:
        kept = tuple(folder for depth, folder in enumerate(folders) if (depth, folder) not in of_bands)
        files = objects.setdefault((kept, name), {})
        if band in files:
            raise DataError(f"{path}: object {name} has band {band} in {files[band].name} too")
        files[band] = path
    return objects


def _folders_of_bands(found: Sequence[tuple[tuple[str, ...], str]]) -> set[tuple[int, str]]:
    """Folders, by depth and name, that hold one band each, where those beside them hold others."""
    held: dict[tuple[int, str], set[str]] = {}
    for folders, band in found:
        for depth, folder in enumerate(folders):
            held.setdefault((depth, folder), set()).add(band)
    of_bands = set()
    for depth in {depth for depth, _ in held}:
        here = {place: bands for place, bands in held.items() if place[0] == depth}
        if all(len(bands) == 1 for bands in here.values()) and len(set(map(frozenset, here.values()))) > 1:
            of_bands |= set(here)
    return of_bands


def is_mostly_several(objects: Mapping[Any, Mapping[str, Path]]) -> bool:
    """Return whether more than half of the objects have several bands."""
    return sum(len(files) > 1 for files in objects.values()) * 2 > len(objects)


def common_bands(
    root: Path, objects: Mapping[tuple[tuple[str, ...], str], dict[str, Path]], bands: Counter[str]
) -> BandGroups:
    """Return objects with the bands that all of them have, and notes on the others.

    Parameters
    ----------
    root
        The folder, for errors.
    objects
        The file of each band of an object, by the folders around it and its name.
    bands
        How many objects have each band.

    Returns
    -------
    BandGroups
        The objects.

    Raises
    ------
    DataError
        If no band is common to all objects.
    """
    common = by_wavelength([band for band, count in bands.items() if count == len(objects)])
    if not common:
        (folders, name), files = min(objects.items(), key=lambda pair: len(pair[1]))
        raise DataError(
            f"{root}: no band is common to all {len(objects):,} objects: {'/'.join((*folders, name))} has "
            f"{', '.join(files)}, of {', '.join(bands)}"
        )
    notes = [
        f"band {band} left out: {len(objects) - bands[band]:,} of {len(objects):,} objects lack it"
        for band in by_wavelength([band for band in bands if band not in common])
    ]
    names = {key: "/".join((*key[0], key[1])) for key in objects}
    files_of = {names[key]: [files[band] for band in common] for key, files in objects.items()}
    return BandGroups(common, files_of, {names[key]: key[0] for key in objects}, notes)
