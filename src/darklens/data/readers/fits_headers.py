"""Read from FITS headers what each image in a file is: its band, place on the sky, zero point, noise map and PSF."""

from __future__ import annotations

import math
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from darklens.data.bands import counterparts, is_band
from darklens.data.bounds import check_image
from darklens.data.readers.fits_hdus import FILTER_KEYS, SKY_KEYS, ZERO_POINT_KEYS, Hdu
from darklens.data.readers.words import AUXILIARY, NOISE, NoiseKind, words
from darklens.data.resampling import Axis
from darklens.errors import DataError

InTurns = NoiseKind | Literal["model"]
NOT_IMAGES = {
    *AUXILIARY, "dq", "ctx", "con", "area", "wmap", "poisson", "rnoise", "flat", "model", "models", "chi", "chi2", "resid",
    "residual", "residuals",
}  # fmt: skip
"""Words in the names of HDUs that are no bands."""
IMAGE_SUFFIXES = ("_BGSUB", "_FLUX", "_SCI", "_IMAGE")
UNNAMED = ("", "SCI", "IMAGE", "PRIMARY", "DATA", "COMPRESSED_IMAGE")
"""Names of HDUs that do not tell the band; a card does, if there is one (`FILTER_KEYS`)."""
NO_ZERO_POINT = 90.0
"""Zero points of this and more, and of exactly 0, stand for one that is not known: -99 is common."""
SAME_SCALE = 0.005
"""Pixel scales that differ by less than this fraction are one: at 200 pixels a side that is half a pixel at the edge. A
larger value hides another resolution; a smaller one resamples for projections that differ over the sky."""
DEGREES = {
    "": 1.0,
    "deg": 1.0,
    "degree": 1.0,
    "degrees": 1.0,
    "arcmin": 1 / 60,
    "arcsec": 1 / 3600,
    "rad": 180 / math.pi,
}
"""Degrees in the units of a WCS."""
WIDEST_PIXEL = 60.0
"""Pixels wider than this, arcsec, are no pixels of a telescope that sees lenses: such headers have a WCS of no meaning."""
PLAIN_CARDS = {
    "CTYPE", "CUNIT", "CRVAL", "CRPIX", "CDELT", "CROTA", "CD", "PC", "LONPOLE", "LATPOLE",
    "RADESYS", "RADECSYS", "EQUINOX", "EPOCH",
}  # fmt: skip
"""Cards, without their numbers, of a projection without distortion."""
SAME_PLACE = 0.2
"""Pixels by which bands may be turned against each other at the edge before they are refused. A choice, not tuned."""


@dataclass(frozen=True)
class Sky:
    """Where the pixels of an image lie on the sky, as its header says.

    Parameters
    ----------
    cards
        The cards of its WCS, by name.
    """

    cards: tuple[tuple[str, Any], ...]

    @cached_property
    def scale(self) -> float | None:
        """Return the side of a pixel, arcsec, the root of its area; None if the header does not say, or not sensibly."""
        try:
            matrix = self._matrix()
        except (KeyError, TypeError, ValueError):
            return None
        scale = 3600 * math.sqrt(math.prod(math.hypot(*matrix[:, axis]) for axis in (0, 1)))
        return scale if 0 < scale <= WIDEST_PIXEL else None

    def _matrix(self) -> np.ndarray:
        """Degrees a pixel, (2, 2), of the linear part of the WCS."""
        cards = dict(self.cards)
        units = np.array([[DEGREES[str(cards.get(f"CUNIT{i}", "deg")).strip().lower()]] for i in (1, 2)])
        if any(key.startswith("CD") and "_" in key for key in cards):
            return np.array([[float(cards.get(f"CD{i}_{j}", 0)) for j in (1, 2)] for i in (1, 2)]) * units
        steps = [float(cards[f"CDELT{i}"]) for i in (1, 2)]
        turn = math.radians(float(cards.get("CROTA2", 0)))
        turned = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
        if any(key.startswith("PC") for key in cards):
            turned = [[float(cards.get(f"PC{i}_{j}", i == j)) for j in (1, 2)] for i in (1, 2)]
            return np.array(turned) * np.array(steps)[:, None] * units
        # CROTA2 turns after the steps are applied, which have their own signs on each axis.
        return np.array(turned) * steps * units

    def position(self, shape: tuple[int, int]) -> tuple[float, float] | None:
        """Return right ascension and declination (ICRS, degrees) of the centre of an image (H, W); None if unknown."""
        cards = dict(self.cards)
        if self.scale is None or (cards.get("CRVAL1", 0), cards.get("CRVAL2", 0)) == (0, 0):
            return None
        y, x = ((n - 1) / 2 for n in shape)
        if self._is_gnomonic():
            return self._gnomonic(x, y)
        with quiet():
            sky = self.wcs().pixel_to_world(x, y).icrs
        return float(sky.ra.deg), float(sky.dec.deg)

    def _is_gnomonic(self) -> bool:
        """Whether it is a gnomonic projection without distortion, in ICRS or in FK5 of J2000, 0.03″ from it at most."""
        cards = dict(self.cards)
        kinds = {re.sub(r"\d.*", "", key) for key in cards}
        return (
            (cards["CTYPE1"], cards.get("CTYPE2")) == ("RA---TAN", "DEC--TAN")
            and kinds <= PLAIN_CARDS
            and len(kinds & {"CD", "PC", "CROTA"}) <= 1
            and all(str(cards.get(f"CUNIT{i}", "deg")).strip().lower() == "deg" for i in (1, 2))
            and cards.get("LONPOLE", 180) == 180
            and abs(cards.get("CRVAL2", 0)) < 90
            and {cards[key] for key in ("RADESYS", "RADECSYS") if key in cards} <= {"ICRS", "FK5"}
            and {cards[key] for key in ("EQUINOX", "EPOCH") if key in cards} <= {2000}
        )

    def _gnomonic(self, x: float, y: float) -> tuple[float, float]:
        """The inverse of a gnomonic projection (Calabretta & Greisen 2002, section 5.1.3), without astropy's overhead."""
        cards = dict(self.cards)
        offset = [x + 1 - float(cards.get("CRPIX1", 0)), y + 1 - float(cards.get("CRPIX2", 0))]
        east, north = np.radians(self._matrix() @ offset)
        ra, dec = math.radians(float(cards["CRVAL1"])), math.radians(float(cards["CRVAL2"]))
        along = math.cos(dec) - north * math.sin(dec)
        right = ra + math.atan2(east, along)
        up = math.atan2(math.sin(dec) + north * math.cos(dec), math.hypot(east, along))
        return math.degrees(right) % 360, math.degrees(up)

    def wcs(self) -> Any:
        """Return its `astropy.wcs.WCS`."""
        from astropy.io.fits import Header
        from astropy.wcs import WCS

        with quiet():
            return WCS(Header(dict(self.cards)), naxis=2)

    def axes_in(self, other: Sky, shape: tuple[int, int], rows: Axis, columns: Axis) -> tuple[Axis, Axis] | None:
        """Return new pixels of this image as pixels of another image of the same sky.

        Parameters
        ----------
        other
            Where the pixels of the other image lie.
        shape
            (H, W) of this image.
        rows, columns
            The new pixels, in those of this image.

        Returns
        -------
        Rows and columns in pixels of the other image, or None if one is turned against the other by more than `SAME_PLACE`
        at the edge.
        """
        y, x = ((n - 1) / 2 for n in shape)
        here, there = self.wcs(), other.wcs()
        with quiet():
            seen = here.pixel_to_world([x, x + 1, x], [y, y, y + 1])
            across, up = (np.asarray(values, dtype=float) for values in there.world_to_pixel(seen))
        turned = max(abs(across[2] - across[0]) * y, abs(up[1] - up[0]) * x)
        if not np.isfinite(turned) or turned > SAME_PLACE:
            return None
        by_row, by_column = up[2] - up[0], across[1] - across[0]
        return (
            Axis(rows.count, up[0] + by_row * (rows.first - y), by_row * rows.step),
            Axis(columns.count, across[0] + by_column * (columns.first - x), by_column * columns.step),
        )


@dataclass(frozen=True)
class Plane:
    """Where pixels are in a file.

    Parameters
    ----------
    path
        The file.
    hdu
        Number of the HDU, counted from 0.
    number
        Index on the first axis of a cube; None if the HDU holds one plane.
    kind
        Of a noise map, what it holds.
    blank
        Of integers, the value that marks pixels without data.
    """

    path: Path
    hdu: int
    number: int | None = None
    kind: NoiseKind = "deviation"
    blank: float | None = None


@dataclass(frozen=True)
class BandImage:
    """One band of an object, as the headers of its file describe it.

    Parameters
    ----------
    name
        Of the band.
    plane
        Where its pixels are.
    shape
        (H, W).
    zero_point
        AB magnitude of one unit of flux; None if unknown.
    sky
        Where its pixels lie on the sky; None without a WCS.
    noise, psf
        Where its noise map and its PSF are; None without.
    named
        Whether the header names the band.
    unit
        Of the pixels, as BUNIT says; None without.
    """

    name: str
    plane: Plane
    shape: tuple[int, int]
    zero_point: float | None = None
    sky: Sky | None = None
    noise: Plane | None = None
    psf: Plane | None = None
    named: bool = True
    unit: str | None = None

    @property
    def scale(self) -> float | None:
        """Return the side of a pixel, arcsec; None if unknown."""
        return self.sky.scale if self.sky is not None else None


def read_bands(hdus: Sequence[Hdu], path: Path, *, in_turns: InTurns | None = None) -> list[BandImage]:
    """Return the bands of a FITS file: its images of the first one's size, noise maps and PSFs apart.

    Parameters
    ----------
    hdus
        Its headers.
    path
        The file.
    in_turns
        What every second image holds: the noise of the one before it, or a model, which is left out; None if it is a band.

    Returns
    -------
    list of BandImage
        In the order of the file.

    Raises
    ------
    DataError
        If there are none, or they are too large in all.
    """
    names, primary = [hdu.name for hdu in hdus], hdus[0].cards
    found: list[BandImage] = []
    for hdu in hdus:
        number, extension, shape, cards = hdu.number, hdu.name, hdu.shape, hdu.cards
        if not hdu.is_image or NOT_IMAGES & set(words(extension)):
            continue
        if 0 in shape or not (len(shape) == 2 or (len(shape) == 3 and shape[0] <= 32)):
            continue
        sky = _sky(cards)
        if found and sky == found[-1].sky:  # one for all: there may be very many files
            sky = found[-1].sky
        taken = {band.name for band in found}
        name = _band_name(extension, cards, primary, number, taken)
        plane = Plane(path, number, None if len(shape) == 2 else 0, blank=_blank(cards))
        band = BandImage(
            name, plane, (shape[-2], shape[-1]), zero_point({**primary, **cards}), sky,
            named=extension.upper() not in UNNAMED or name == _filter(cards, primary),
            unit=_unit({**primary, **cards}),
        )  # fmt: skip
        found += [band] if len(shape) == 2 else _planes_of(band, shape[0], taken)
    if not found:
        raise DataError(
            f"{path}: no image HDU; it has {', '.join(n or f'HDU {i}' for i, n in enumerate(names)) or 'none'}"
        )
    bands = [band for band in found if band.shape == found[0].shape or _shows_same_field(band, found[0])]
    check_image(path, len(bands) * math.prod(found[0].shape) * 4)
    if in_turns is not None and not any(is_named(band) for band in bands):
        pairs = zip(bands[::2], bands[1::2], strict=False)
        named = [(replace(band, name=f"IMAGE{n}"), other.plane) for n, (band, other) in enumerate(pairs, 1)]
        if in_turns == "model":
            return [band for band, _ in named]
        return [replace(band, noise=replace(plane, kind=in_turns)) for band, plane in named]
    if not any(NOT_IMAGES & set(words(name)) for name in names):
        return bands
    return [_with_companions(band, hdus) for band in bands]


def is_named(band: BandImage) -> bool:
    """Return whether a band is told from others by its header, or as a plane of a cube."""
    return band.named or band.plane.number is not None


def _shows_same_field(band: BandImage, first: BandImage) -> bool:
    """Whether an image of another size is about as wide on the sky as the first: a band, and no stamp of a PSF."""
    if band.scale is None or first.scale is None:
        return False
    return all(
        0.75 < own * band.scale / (n * first.scale) < 4 / 3 for own, n in zip(band.shape, first.shape, strict=True)
    )


def _planes_of(band: BandImage, count: int, taken: set[str]) -> list[BandImage]:
    """The planes of a cube as bands."""
    planes = [replace(band.plane, number=i) for i in range(count)]
    stem = band.name if not taken & {f"{band.name}{i}" for i in range(count)} else f"{band.name}_{band.plane.hdu}_"
    return [replace(band, name=f"{stem}{i}", plane=plane, named=False) for i, plane in enumerate(planes)]


def _with_companions(band: BandImage, hdus: Sequence[Hdu]) -> BandImage:
    """A band with its noise map and PSF: ``<BAND>_RMS`` and ``<BAND>_PSF``, or ``ERR`` and ``PSF`` beside ``SCI``.

    Of several HDUs of one name the first goes with the first band of its name, and so on. A single ``PSF`` is that of all.
    """
    names = [hdu.name for hdu in hdus]
    plain = ["_".join(words(name)) for name in names]
    extension = names[band.plane.hdu]
    stem = "_".join(words(_stem(extension)))
    prefixes = [f"{stem}_"] if stem else []
    if extension.upper() in UNNAMED or sum(not NOT_IMAGES & set(words(name)) for name in names if name) == 1:
        prefixes.append("")
    alike = [number for number, name in enumerate(names) if name == extension]

    def beside(word: str) -> Hdu | None:
        for prefix in prefixes:
            found = [hdu for hdu, name in zip(hdus, plain, strict=True) if name == prefix + word]
            if len(found) == len(alike):
                return found[alike.index(band.plane.hdu)]
            if len(found) == 1 and extension == "":  # the primary HDU has no name, as others may
                return found[0]
        return None

    noise = next(
        (
            plane_of(hdu, band.plane.path, kind=kind, number=band.plane.number)
            for word, kind in NOISE.items()
            if (hdu := beside(word)) is not None
        ),
        None,
    )
    psf = beside("psf")
    if psf is None and plain.count("psf") == 1:
        shared = hdus[plain.index("psf")]
        said = band_of(shared, hdus[0].cards, [band.name])
        psf = shared if said is None or counterparts([band.name], [said])[0] is not None else None
    return replace(
        band, noise=noise, psf=None if psf is None else plane_of(psf, band.plane.path, number=band.plane.number)
    )


def plane_of(hdu: Hdu, path: Path, *, kind: NoiseKind = "deviation", number: int | None = None) -> Plane | None:
    """Return where the pixels of a noise map or PSF are.

    Parameters
    ----------
    hdu
        Its HDU: an image (h, w), or a cube of several.
    path
        The file.
    kind
        Of a noise map, what it holds.
    number
        Of several planes, the one to read; None reads the only one.

    Returns
    -------
    Plane or None
        None if it is no image, or does not have the plane.
    """
    blank = _blank(hdu.cards)
    if not hdu.is_image or len(hdu.shape) not in (2, 3):
        return None
    if len(hdu.shape) == 2:
        return Plane(path, hdu.number, None, kind, blank)
    if hdu.shape[0] == 1:
        number = 0
    return Plane(path, hdu.number, number, kind, blank) if number is not None and number < hdu.shape[0] else None


def band_of(hdu: Hdu, primary: Mapping[str, Any], bands: Sequence[str]) -> str | None:
    """Return the band that the header of a noise map or PSF names.

    Parameters
    ----------
    hdu
        Its HDU.
    primary
        Cards of the primary HDU.
    bands
        Those of the image. ``STAMP_PSF`` names a band only if the image has a band ``STAMP``.

    Returns
    -------
    str or None
        None if it names none.
    """
    parts = [part for part in re.split(r"[-_. ]+", hdu.name) if part and part.lower() not in NOT_IMAGES]
    stem = _stem("_".join(parts))
    said = [name for name in (None if stem.upper() in UNNAMED else stem, _filter(hdu.cards, primary)) if name]
    known = [name for name in said if any(place is not None for place in counterparts(bands, [name]))]
    return next(iter([*known, *(name for name in said if name != stem or is_band(name))]), None)


def _stem(extension: str) -> str:
    """The name of an HDU without what says that it is an image."""
    for suffix in IMAGE_SUFFIXES:
        extension = extension.removesuffix(suffix)
    return extension


def _band_name(
    extension: str, cards: Mapping[str, Any], primary: Mapping[str, Any], number: int, taken: set[str]
) -> str:
    if extension.upper() in UNNAMED and (said := _filter(cards, primary)) is not None and said not in taken:
        return said
    name = _stem(extension)
    if name and name not in taken:
        return name
    numbered = f"{name or 'IMAGE'}{number if taken else ''}"
    return numbered if numbered not in taken else f"{name or 'IMAGE'}_{number}"


def _filter(cards: Mapping[str, Any], primary: Mapping[str, Any]) -> str | None:
    """The filter that a header names, without the ``.00000`` of Pan-STARRS and the CLEAR of Hubble's second wheel."""
    for source in (cards, primary):
        for key in FILTER_KEYS:
            value = source.get(key)
            if isinstance(value, str) and value.strip() and not value.upper().startswith(("CLEAR", "N/A", "NONE")):
                return re.sub(r"\.0+$", "", value.strip())
    return None


def _unit(cards: Mapping[str, Any]) -> str | None:
    """The unit of the pixels, electrons a second and counts by the names that darklens has for them."""
    text = cards.get("BUNIT")
    if not isinstance(text, str) or not text.strip():
        return None
    plain = re.sub(r"[\s.*]", "", text.lower())
    if re.fullmatch(r"(e-?|electrons?)(/s(ec)?|s\*?\*?\^?-1)", plain):
        return "e-/s"
    return "counts" if plain in ("count", "counts", "ct", "cts") else text.strip()


def _sky(cards: Mapping[str, Any]) -> Sky | None:
    if "CTYPE1" not in cards:
        return None
    return Sky(tuple((sys.intern(key), value) for key, value in cards.items() if _is_of_sky(key) and value is not None))


@cache
def _is_of_sky(key: str) -> bool:
    return SKY_KEYS.fullmatch(key) is not None


def zero_point(header: Any) -> float | None:
    """Return the AB zero point of a header, named (`ZERO_POINT_KEYS`) or from HST's PHOTFLAM and PHOTPLAM; None without.

    HST's is the formula of the ACS Data Handbook, chapter 5: -2.5 log10 PHOTFLAM - 5 log10 PHOTPLAM - 2.408.
    """
    for key in ZERO_POINT_KEYS:
        value = header.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < abs(value) < NO_ZERO_POINT:
            return float(value)
    if all(isinstance(header.get(key), int | float) and header[key] > 0 for key in ("PHOTFLAM", "PHOTPLAM")):
        return float(-2.5 * math.log10(header["PHOTFLAM"]) - 5 * math.log10(header["PHOTPLAM"]) - 2.408)
    return None


def _blank(cards: Mapping[str, Any]) -> float | None:
    """The value of pixels without data, as they are read: BLANK, of images of integers (FITS 4.0, section 4.4.2.5)."""
    blank = cards.get("BLANK", cards.get("ZBLANK"))
    if isinstance(blank, bool) or not isinstance(blank, int) or not isinstance(cards.get("BITPIX"), int):
        return None
    if cards.get("ZBITPIX", cards["BITPIX"]) < 0:
        return None
    return float(blank * cards.get("BSCALE", 1) + cards.get("BZERO", 0))


@contextmanager
def quiet() -> Iterator[None]:
    """Silence astropy's warnings on cards that break the standard: each file of a survey would print them."""
    from astropy.utils.exceptions import AstropyWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        yield
