"""Find the noise maps and PSFs that lie in files of their own beside an image."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from darklens.data.bands import is_band
from darklens.data.identifiers import file_kind, identifier
from darklens.data.readers.words import AUXILIARY, NoiseKind, is_psf, noise_kind, words

OF_IMAGES = {"image", "images", "img", "sci", "map", "maps"}
"""Words that an image and its noise map need not share."""


@dataclass(frozen=True)
class Companion:
    """The files of the noise map and the PSF of an image, None without, and what the noise map holds."""

    noise: Path | None = None
    psf: Path | None = None
    kind: NoiseKind = "deviation"


@dataclass(frozen=True)
class Companions:
    """Noise maps and PSFs in files of their own, by the file of their image."""

    by_image: Mapping[Path, Companion] = field(default_factory=dict)

    def of(self, path: Path) -> Companion | None:
        """Return what belongs to an image; None if there is nothing."""
        return self.by_image.get(path)

    def files(self) -> list[Path]:
        """Return all files of noise maps and PSFs."""
        return [path for each in self.by_image.values() for path in (each.noise, each.psf) if path is not None]


def is_auxiliary(path: Path, root: Path | None = None) -> bool:
    """Return whether the name of a file says that it holds noise, weights, a PSF or a mask, and no object of its own.

    So may the names of the folders that are below ``root``.
    """
    return bool(AUXILIARY & set(words(identifier(path)))) or any(map(is_auxiliary_folder, _folders(path, root)))


def is_auxiliary_folder(name: str) -> bool:
    """Return whether a folder holds what belongs to images: ``psf``, ``noise_maps``, ``rms_g``, but not ``high_noise``."""
    said = words(name)
    return bool(AUXILIARY & set(said)) and all(word in AUXILIARY | OF_IMAGES or is_band(word) for word in said)


def without_auxiliary(paths: Sequence[Path], root: Path | None = None) -> tuple[list[Path], list[Path]]:
    """Return the files that hold objects, and those that do not; all of them and none if no object would be left."""
    auxiliary = {path for path in paths if is_auxiliary(path, root)}
    objects = [path for path in paths if path not in auxiliary]
    return (objects, [path for path in paths if path in auxiliary]) if objects else (list(paths), [])


@lru_cache(maxsize=4)
def auxiliary_in(folder: Path, changed: int) -> tuple[Path, ...]:
    """Return the FITS files in a folder that `is_auxiliary` tells from images; it is listed again when it has changed.

    Parameters
    ----------
    folder
        The folder.
    changed
        When it last changed, nanoseconds (``st_mtime_ns``): files that are opened one by one list it once.
    """
    return tuple(path for path in sorted(folder.iterdir()) if file_kind(path) == "fits" and is_auxiliary(path))


def find_companions(images: Sequence[Path], others: Sequence[Path], root: Path) -> Companions:
    """Find which noise maps and PSFs belong to which images: those of the same folder and the same name.

    ``J0123_g_rms.fits`` belongs to ``J0123_g.fits``, ``noise_map.fits`` to ``image.fits``; ``noise/J0123.fits`` and
    ``images/J0123.fits`` are in one place. In a folder around those of the images, ``psf/J0123.fits`` belongs to
    ``lens/J0123.fits``, if there is no second image of that name. The noise map is taken for its standard deviation, unless
    its name or its folder's says ``var`` or ``ivar``.

    Parameters
    ----------
    images
        Files of images.
    others
        Files that `is_auxiliary` tells from them.
    root
        The folder of all.

    Returns
    -------
    Companions
        Without the images that have none.
    """
    beside: dict[_Key, list[Path]] = {}
    around: dict[_Key, list[Path]] = {}
    for path in sorted(others):
        beside.setdefault(_key(path, root), []).append(path)
        if any(map(is_auxiliary_folder, _folders(path, root))):
            around.setdefault(_key(path, root), []).append(path)
    keys = [_key(image, root) for image in images]
    alike = Counter(keys)
    below = Counter(key for place, name in keys for key in _around(place, name))
    found = {}
    for image, (place, name) in zip(images, keys, strict=True):
        own = beside.get((place, name), [])
        if alike[place, name] > 1:  # names that differ in case or separators
            own = [path for path in own if _plain(path) == _plain(image)]
        own = own + [path for key in _around(place, name) if below[key] == 1 for path in around.get(key, ())]
        noise = psf = None
        kind: NoiseKind = "deviation"
        for path in own:
            name_says, folders = identifier(path), " ".join(filter(is_auxiliary_folder, _folders(path, root)))
            holds_psf = is_psf(name_says) or (noise_kind(name_says) is None and is_psf(folders))
            said = noise_kind(name_says) or (None if holds_psf else noise_kind(folders))
            if said is not None and noise is None:
                noise, kind = path, said
            elif said is None and holds_psf and psf is None:
                psf = path
        if noise is not None or psf is not None:
            found[image] = Companion(noise, psf, kind)
    return Companions(found)


_Key = tuple[tuple[str, ...], tuple[str, ...]]
"""Folders and words of a name, without what says that they are of noise maps, PSFs or images."""


def _key(path: Path, root: Path) -> _Key:
    folders = [
        "_".join(_without(words(name))) if is_auxiliary_folder(name) or not _without(words(name)) else name
        for name in _folders(path, root)
    ]
    return tuple(filter(None, folders)), tuple(_without(words(identifier(path))))


def _around(place: tuple[str, ...], name: tuple[str, ...]) -> list[_Key]:
    """Keys of one name in the folders around a place, the innermost first."""
    return [(place[:depth], name) for depth in reversed(range(len(place)))]


def _plain(path: Path) -> str:
    """The name of a file as it is, without the words that an image and what belongs to it need not share."""
    parts, plain = re.split(r"([-_. ]+)", identifier(path)), ""
    for number in range(0, len(parts), 2):
        if parts[number] and _without([parts[number].lower()]):
            plain += (parts[number - 1] if plain else "") + parts[number]
    return plain


def _without(said: Sequence[str]) -> list[str]:
    return [word for word in said if word not in AUXILIARY | OF_IMAGES]


def _folders(path: Path, root: Path | None) -> tuple[str, ...]:
    """The folders between a file and a folder around it."""
    return () if root is None else path.relative_to(root).parts[:-1]
