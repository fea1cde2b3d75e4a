"""Decide from the headers of objects to which bands, pixels, size and fluxes all of them are brought."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from darklens.commands import command
from darklens.data.bands import find_bands, matching
from darklens.data.bounds import named_errors
from darklens.data.readers.fits_headers import SAME_SCALE, BandImage
from darklens.data.readers.fits_scan import Object
from darklens.data.resampling import Axis, about_centre
from darklens.data.sizes import OneSize
from darklens.errors import DataError

SAME_ZERO_POINT = 1e-4
"""Zero points that differ by less, magnitudes, are one: 0.01% in flux. Rounding in headers is smaller."""


@dataclass(frozen=True)
class Plan:
    """To what objects are brought.

    Parameters
    ----------
    first
        The first object that has the bands, by its first file.
    bands
        Names of the bands that are read; the pixels of the first one are those of all.
    zero_points
        AB magnitude of one unit of flux by band; None if unknown.
    pixel_scale
        Side of a pixel, arcsec; None if unknown.
    unit
        Of all pixels; None if one does not say, or they differ.
    has_noise
        Whether every band of every object has a noise map.
    has_psf
        Whether any band has a PSF.
    size
        To which images are cropped or padded.
    """

    first: Path
    bands: list[str]
    zero_points: dict[str, float | None]
    pixel_scale: float | None
    unit: str | None
    has_noise: bool
    has_psf: bool
    size: OneSize

    def shape(self, found: Object) -> tuple[int, int]:
        """Return the shape (H, W) of an object on the pixels of all."""
        rows, columns = self._axes(found[self.bands[0]])
        return rows.count, columns.count

    def is_kept(self, image: BandImage, reference: BandImage) -> bool:
        """Return whether the pixels of a band are left as they are; ``reference`` is its object's first band."""
        return self._has_common_scale(reference) and on_same_pixels(image, reference)

    def axes(self, image: BandImage, reference: BandImage, path: Path) -> tuple[Axis, Axis]:
        """Return the pixels to which an object is brought, in those of one of its bands.

        Parameters
        ----------
        image
            The band.
        reference
            The object's first band.
        path
            The object, for errors.

        Returns
        -------
        tuple of Axis
            Rows and columns.

        Raises
        ------
        DataError
            If one is turned against the other, or a WCS is damaged.
        """
        rows, columns = self._axes(reference)
        if on_same_pixels(image, reference):
            return rows, columns
        if both_known(image, reference):
            assert image.sky is not None
            assert reference.sky is not None
            with named_errors(path, "its WCS is damaged"):
                found = reference.sky.axes_in(image.sky, reference.shape, rows, columns)
            if found is None:
                raise DataError(
                    f"{image.plane.path}: band {image.name} is turned against {reference.name}; bring the bands of an "
                    "object to one orientation"
                )
            return found
        stretched = [
            Axis(axis.count, (axis.first + 0.5) * own / all_ - 0.5, axis.step * own / all_)
            for axis, own, all_ in zip((rows, columns), image.shape, reference.shape, strict=True)
        ]
        return stretched[0], stretched[1]

    def factor(self, image: BandImage) -> np.float32:
        """Return what a band is multiplied by."""
        own, reference = image.zero_point, self.zero_points[image.name]
        if own is None or reference is None or abs(own - reference) <= SAME_ZERO_POINT:
            return np.float32(1)
        return np.float32(10 ** (0.4 * (reference - own)))

    def _has_common_scale(self, image: BandImage) -> bool:
        """Whether a band has the pixel scale of all; one that is unknown is taken for it."""
        if image.scale is None or self.pixel_scale is None:
            return True
        return is_same_scale(image.scale, self.pixel_scale)

    def _axes(self, image: BandImage) -> tuple[Axis, Axis]:
        """The pixels to which an object is brought, in those of its first band."""
        step = 1.0
        if not self._has_common_scale(image):
            assert image.scale is not None
            assert self.pixel_scale is not None
            step = self.pixel_scale / image.scale
        return about_centre(image.shape[0], step), about_centre(image.shape[1], step)


def make_plan(scanned: Mapping[Path, Object], *, bands: Sequence[str] | None, size: OneSize) -> Plan:
    """Decide to what objects are brought: the bands that all have, the pixel scale and size of most, one flux scale.

    Parameters
    ----------
    scanned
        Bands of the objects that were looked at, by their first file.
    bands
        Names of the bands to read, in this order; None takes those that all objects have.
    size
        Size to which images are cropped or padded, if the user chose one.

    Returns
    -------
    Plan
        The fluxes of a band are those of the first object that has the bands, or else of the first with a zero point.

    Raises
    ------
    DataError
        If no object has the bands, or no band is common to all.
    """
    first, names = _common(scanned) if bands is None else _chosen(bands, scanned)
    found = list(scanned.values())
    units = {of[band].unit for of in found for band in names if band in of}
    plan = Plan(
        first,
        names,
        zero_points={band: zero_point_of(band, first, scanned)[1] for band in names},
        pixel_scale=_common_scale([of[names[0]].scale for of in found if names[0] in of]),
        unit=next(iter(units)) if len(units) == 1 else None,
        has_noise=all(has_noise(of, names) for of in found),
        has_psf=any(band.psf is not None for of in found for band in of.values()),
        size=size,
    )
    counts = counted_shapes(plan, scanned)
    if size.side is not None or len(counts) == 1:
        return plan
    _, side = max((count, max(shape)) for shape, count in counts.items())
    return replace(plan, size=OneSize(side, side))


def zero_point_of(band: str, first: Path, scanned: Mapping[Path, Object]) -> tuple[Path, float | None]:
    """Return the file to whose fluxes of a band those of all are brought, and its zero point, AB magnitudes.

    Parameters
    ----------
    band
        Name of the band.
    first
        The first object that has all bands, by its first file.
    scanned
        Bands of the objects that were looked at, by their first file.

    Returns
    -------
    tuple of Path and float
        Those of the first object if it has a zero point, or else of the first one that has; None if none has.
    """
    for path in (first, *scanned):
        if band in scanned[path] and (zero_point := scanned[path][band].zero_point) is not None:
            return path, zero_point
    return first, None


def counted_shapes(plan: Plan, scanned: Mapping[Path, Object]) -> Counter[tuple[int, int]]:
    """Return how many objects have which shape (H, W), on the pixels of all."""
    return Counter(plan.shape(found) for found in scanned.values() if plan.bands[0] in found)


def has_noise(found: Object, bands: Sequence[str]) -> bool:
    """Return whether an object has the bands, and a noise map of each."""
    return all(band in found and found[band].noise is not None for band in bands)


def is_same_scale(scale: float, other: float) -> bool:
    """Return whether two pixel scales are one."""
    return abs(scale / other - 1) <= SAME_SCALE


def both_known(image: BandImage, other: BandImage) -> bool:
    """Return whether the pixel scales of two bands are known."""
    return image.scale is not None and other.scale is not None


def on_same_pixels(image: BandImage, other: BandImage) -> bool:
    """Return whether the pixels of two bands are the same by their headers; without a WCS those of one size are."""
    return image.shape == other.shape and (image.sky == other.sky or not both_known(image, other))


def _chosen(bands: Sequence[str], scanned: Mapping[Path, Object]) -> tuple[Path, list[str]]:
    """The first object that has all bands that are asked for, and their names."""
    for path, found in scanned.items():
        if (places := matching(bands, list(found))) is not None:
            return path, [list(found)[place] for place in places]
    first = next(iter(scanned))
    if all(name.isdigit() for name in bands):  # of the bands that are there if none is asked for
        first, common = _common(scanned)
        return first, [common[place] for place in find_bands(bands, common, first)]
    known = list(dict.fromkeys(band for found in scanned.values() for band in found))
    names = [known[place] for place in find_bands(bands, known, first)]
    raise DataError(f"{first}: no object has all of the bands {', '.join(names)}; ask for fewer")


def _common(scanned: Mapping[Path, Object]) -> tuple[Path, list[str]]:
    """The first object, and those of its bands that all objects have, in its order."""
    first = next(iter(scanned))
    counts = Counter(band for found in scanned.values() for band in found)
    common = [band for band in scanned[first] if counts[band] == len(scanned)]
    if not common:
        odd = min(scanned, key=lambda path: len(set(scanned[path]) & set(scanned[first])))
        raise DataError(
            f"no band is common to all {len(scanned):,} files: {first} has {', '.join(scanned[first])}, {odd.name} has "
            f"{', '.join(scanned[odd])}; read those of other bands apart, such as by {command('look', first)} and "
            f"{command('look', odd)}"
        )
    return first, common


def _common_scale(scales: Sequence[float | None]) -> float | None:
    """The pixel scale of most objects; None if none is known."""
    known = [scale for scale in scales if scale is not None]
    if not known:
        return None
    logs = np.log(known)
    reach = np.searchsorted(np.sort(logs), [logs - SAME_SCALE, logs + SAME_SCALE])
    return known[int(np.argmax(reach[1] - reach[0]))]
