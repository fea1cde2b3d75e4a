"""Find the noise maps and PSFs that lie in files of their own beside an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from darklens.data.identifiers import file_kind, identifier
from darklens.data.readers.words import AUXILIARY, NoiseKind, noise_kind, words

OF_IMAGES = {"image", "img", "sci", "map"}
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


def is_auxiliary(path: Path) -> bool:
    """Return whether a file's name says that it holds noise, weights, a PSF or a mask, and no object of its own."""
    return bool(AUXILIARY & set(words(identifier(path))))


def without_auxiliary(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the files that hold objects, and those that do not; all of them and none if no object would be left."""
    objects = [path for path in paths if not is_auxiliary(path)]
    return (objects, [path for path in paths if is_auxiliary(path)]) if objects else (list(paths), [])


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


def find_companions(images: Sequence[Path], others: Sequence[Path]) -> Companions:
    """Return which noise maps and PSFs belong to which images: those of the same folder and the same name.

    ``J0123_g_rms.fits`` belongs to ``J0123_g.fits``, ``noise_map.fits`` to ``image.fits``. The noise map is taken for its
    standard deviation, unless its name says ``var`` or ``ivar``.

    Parameters
    ----------
    images
        Files of images.
    others
        Files that `is_auxiliary` tells from them.
    """
    by_name: dict[tuple[Path, tuple[str, ...]], list[Path]] = {}
    for path in others:
        by_name.setdefault(_key(path), []).append(path)
    found = {}
    for image in images:
        noise = psf = None
        kind: NoiseKind = "deviation"
        for path in sorted(by_name.get(_key(image), ())):
            said = noise_kind(identifier(path))
            if said is not None and noise is None:
                noise, kind = path, said
            elif "psf" in words(identifier(path)) and psf is None:
                psf = path
        if noise is not None or psf is not None:
            found[image] = Companion(noise, psf, kind)
    return Companions(found)


def _key(path: Path) -> tuple[Path, tuple[str, ...]]:
    return path.parent, tuple(word for word in words(identifier(path)) if word not in AUXILIARY | OF_IMAGES)
