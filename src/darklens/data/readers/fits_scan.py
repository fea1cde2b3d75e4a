"""Read what the headers of objects in FITS files say of their bands, with noise maps and PSFs in files of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from darklens.data.bands import counterparts
from darklens.data.readers.companions import Companions
from darklens.data.readers.files import COUNTED_FILES
from darklens.data.readers.fits_hdus import read_hdus
from darklens.data.readers.fits_headers import (
    NOT_IMAGES,
    BandImage,
    InTurns,
    Plane,
    band_of,
    is_named,
    plane_of,
    read_bands,
)
from darklens.data.readers.fits_pixels import open_fits, read_plane
from darklens.data.readers.words import NoiseKind, is_psf, noise_kind, words
from darklens.errors import DataError
from darklens.progress import progress_bar

EMPTY = 0.1
"""Fraction of pixels that are exactly 0 from which an image has no noise. In eight files of HOLISMOKES, models of the arcs
have 0.35 to 0.45, and the images that hold them none. A larger one takes faint models for bands."""

Object = dict[str, BandImage]
"""The bands of an object by name."""


class Headers:
    """The headers of objects in FITS files: several bands in a file, or a file for each band.

    Parameters
    ----------
    objects
        The files of each of N objects.
    names
        The band that each file of an object holds; None reads all bands of its files.
    companions
        Noise maps and PSFs in files of their own.
    known
        Bands of files of one band whose headers were read already; they are not read again.

    Attributes
    ----------
    notes
        What was guessed of images without names.
    """

    def __init__(
        self,
        objects: Sequence[Sequence[Path]],
        names: Sequence[str] | None,
        *,
        companions: Companions,
        known: Mapping[Path, BandImage],
    ):
        self.objects, self.names, self.companions, self.known = objects, names, companions, known
        self.notes: list[str] = []
        self._in_turns = self._find_turns()

    def _find_turns(self) -> InTurns | None:
        """What every second image holds, where images without names and what belongs to them are in turns."""
        if self.names is not None:
            return None
        found, paths = set(), [files[0] for files in self.objects]
        for path in dict.fromkeys((paths[0], paths[len(paths) // 2], paths[-1])):
            with suppress(DataError):
                found.add(_kind_in_turns(path))
        kinds = found - {"undecided"}
        if len(kinds) != 1:
            return None
        kind = kinds.pop()
        if kind is None or kind == "undecided":
            return None
        if kind == "model":
            said = "free of noise (a tenth of its pixels at least are 0): left out, as a model of what is in the image"
        else:
            said = f"without a negative value: read as noise maps ({kind})"
        self.notes.append(f"images without names, every second one {said}")
        return kind

    def scan(self) -> dict[Path, Object]:
        """Return the bands of the first `COUNTED_FILES` objects that can be read, by their first file.

        Raises
        ------
        DataError
            If none of them can be read.
        """
        scanned: dict[Path, Object] = {}
        refused: DataError | None = None
        looked_at = self.objects[:COUNTED_FILES]
        with progress_bar(f"reading the headers of {len(looked_at):,} objects") as advance:
            for number, files in enumerate(looked_at, 1):
                try:
                    scanned[files[0]] = self.of(files)
                except DataError as error:  # it is named again when it is read, or left out by who asks for that
                    refused = refused or error
                advance(number, len(looked_at))
        if not scanned and refused is not None:
            raise refused
        return scanned

    def of(self, files: Sequence[Path]) -> Object:
        """Return what the headers of an object's files say of its bands."""
        found: Object = {}
        for number, path in enumerate(files):
            if path in self.known:
                images = [self.known[path]]
            else:
                images = read_bands(read_hdus(path), path, in_turns=self._in_turns)
            bands = [[image.name for image in images]]
            if self.names is not None:  # files beside may call the band as its header does, or as the names of files do
                images = [replace(images[0], name=self.names[number])]
                bands = [bands[0][:1], [self.names[number]]]
            if (beside := self.companions.of(path)) is not None:
                noise = _planes_beside(beside.noise, images, bands, noise=beside.kind)
                psf = _planes_beside(beside.psf, images, bands)
                images = [
                    replace(image, noise=own_noise or image.noise, psf=own_psf or image.psf)
                    for image, own_noise, own_psf in zip(images, noise, psf, strict=True)
                ]
            found |= {image.name: image for image in images}
        return found


def _kind_in_turns(path: Path) -> InTurns | Literal["undecided"] | None:
    """What every second image of a file without names holds; None if they are bands, undecided if nothing tells."""
    bands = read_bands(read_hdus(path), path)
    if any(is_named(band) for band in bands):
        return "undecided"
    if len(bands) % 2:
        return None
    with open_fits(path) as file:
        planes = [read_plane(file, band.plane) for band in bands]
    negative = [bool((plane < 0).any()) for plane in planes]
    zero = [float((plane == 0).mean()) >= EMPTY for plane in planes]
    if all(zero[1::2]) and not any(zero[::2]):
        return "model"
    if any(negative[1::2]) or any(zero):
        return None
    if not all(negative[::2]):
        return "undecided"  # bright images, or noise maps: other files may tell
    # The scatter of neighbours' differences, 1.4826 times their median absolute value, is that of noise times root 2.
    scatter = 1.4826 * float(np.nanmedian(np.abs(np.diff(planes[0].astype(np.float64))))) / np.sqrt(2)
    level = float(np.nanmedian(planes[1]))
    with np.errstate(divide="ignore"):
        is_variance = abs(np.log(np.sqrt(level) / scatter)) < abs(np.log(level / scatter))
    return "variance" if is_variance else "deviation"


def _planes_beside(
    path: Path | None, images: Sequence[BandImage], bands: Sequence[Sequence[str]], *, noise: NoiseKind | None = None
) -> list[Plane | None]:
    """The noise map or PSF of each image in a file of its own: by the names of bands, or in their order without names.

    ``bands`` are the names of the images' bands, in one or several forms. Words in the names of HDUs decide before those of
    the file, which ``noise`` says. A single PSF without a name is that of all images.
    """
    nothing: list[Plane | None] = [None] * len(images)
    if path is None:
        return nothing
    hdus = read_hdus(path)
    if not any(hdu.is_image and hdu.shape for hdu in hdus):
        raise DataError(f"{path}: no image in it")
    found = [hdu for hdu in hdus if hdu.is_image and len(hdu.shape) in (2, 3)]
    wanted = (noise is not None, noise is None)
    said = [hdu for hdu in found if (noise_kind(hdu.name) is not None, is_psf(hdu.name)) == wanted]
    found = said or [hdu for hdu in found if not NOT_IMAGES & set(words(hdu.name))]
    kinds = [noise_kind(hdu.name) or noise or "deviation" for hdu in found]
    planes = [plane_of(hdu, path, kind=kind) for hdu, kind in zip(found, kinds, strict=True)]
    if any(is_named(image) for image in images):
        for form in bands:
            names = [band_of(hdu, hdus[0].cards, form) or "" for hdu in found]
            places = counterparts(form, names)
            if any(place is not None for place in places):
                return [None if place is None else planes[place] for place in places]
        if any(names):
            return nothing
    if len(found) == 1 and len(found[0].shape) == 3:
        planes = [plane_of(found[0], path, kind=kinds[0], number=number) for number in range(found[0].shape[0])]
    if noise is None and len(planes) == 1:
        planes *= len(images)
    return planes if len(planes) == len(images) else nothing
