"""Read from FITS headers what each image in a file is: its band, place on the sky, zero point, noise map and PSF."""

from __future__ import annotations

import math
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from darklens.data.bounds import check_image, check_whole, is_gzip
from darklens.data.resampling import Axis
from darklens.errors import DamagedFileError, DataError

NoiseKind = Literal["deviation", "variance", "inverse variance"]
InTurns = NoiseKind | Literal["model"]
NOISE_WORDS: dict[str, NoiseKind] = {
    "RMS": "deviation", "ERR": "deviation", "ERROR": "deviation", "SIGMA": "deviation", "NOISE": "deviation",
    "VAR": "variance", "VARIANCE": "variance", "IVAR": "inverse variance", "INVVAR": "inverse variance",
}  # fmt: skip
"""Last words of the names of noise maps, and what they hold."""
NOT_IMAGES = {*NOISE_WORDS, "PSF", "MASK", "WHT", "WEIGHT", "FLAG", "SEG", "DQ", "CTX", "CON"}
IMAGE_SUFFIXES = ("_BGSUB", "_FLUX", "_SCI", "_IMAGE")
UNNAMED = ("", "SCI", "IMAGE", "PRIMARY", "DATA", "COMPRESSED_IMAGE")
"""Names of HDUs that do not tell the band; a card does, if there is one (`FILTER_KEYS`)."""
FILTER_KEYS = ("FILTER", "BAND", "FILTER1", "FILTER2")
ZERO_POINT_KEYS = ("MAGZERO", "MAGZPT", "PHOTZP", "ZP", "MAG_ZP")
SKY_KEYS = re.compile(r"CTYPE[12]|CUNIT[12]|CRVAL[12]|CRPIX[12]|CDELT[12]|CROTA[12]|CD[12]_[12]|PC[12]_[12]|LONPOLE|LATPOLE"
                      r"|PV[12]_\d+|RADESYS|EQUINOX|[AB]P?_\d_\d|[AB]P?_ORDER")  # fmt: skip
SAME_SCALE = 0.005
"""Pixel scales that differ by less than this fraction are one: at 200 pixels a side that is half a pixel at the edge. A
larger value hides another resolution; a smaller one resamples for projections that differ over the sky."""
WIDEST_PIXEL = 60.0
"""Pixels wider than this, arcsec, are no pixels of a telescope that sees lenses: such headers have a WCS of no meaning."""
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
        if "CD1_1" in cards:
            return np.array([[float(cards.get(f"CD{i}_{j}", 0)) for j in (1, 2)] for i in (1, 2)])
        steps = [float(cards[f"CDELT{i}"]) for i in (1, 2)]
        turn = math.radians(float(cards.get("CROTA2", 0)))
        turned = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
        if "PC1_1" in cards or "PC1_2" in cards:
            turned = [[float(cards.get(f"PC{i}_{j}", i == j)) for j in (1, 2)] for i in (1, 2)]
        # CROTA2 turns after the steps are applied, which have their own signs on each axis.
        columns_first = "PC1_1" not in cards and "PC1_2" not in cards
        return np.array(turned) * (steps if columns_first else np.array(steps)[:, None])

    def position(self, shape: tuple[int, int]) -> tuple[float, float] | None:
        """Return right ascension and declination (ICRS, degrees) of the centre of an image (H, W); None if unknown."""
        cards = dict(self.cards)
        if self.scale is None or (cards.get("CRVAL1", 0), cards.get("CRVAL2", 0)) == (0, 0):
            return None
        y, x = ((n - 1) / 2 for n in shape)
        simple = (cards["CTYPE1"], cards.get("CTYPE2")) == ("RA---TAN", "DEC--TAN") and cards.get("LONPOLE", 180) == 180
        if simple and cards.get("RADESYS", "ICRS") in ("ICRS", "FK5") and cards.get("EQUINOX", 2000) == 2000:
            return self._gnomonic(x, y)
        with quiet():
            sky = self.wcs().pixel_to_world(x, y).icrs
        return float(sky.ra.deg), float(sky.dec.deg)

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
    """

    path: Path
    hdu: int
    number: int | None = None
    kind: NoiseKind = "deviation"


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
    blank
        Of integers, the value that marks pixels without data.
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
    blank: float | None = None
    sky: Sky | None = None
    noise: Plane | None = None
    psf: Plane | None = None
    named: bool = True
    unit: str | None = None

    @property
    def scale(self) -> float | None:
        """Return the side of a pixel, arcsec; None if unknown."""
        return self.sky.scale if self.sky is not None else None


def read_bands(file: Any, path: Path, *, in_turns: InTurns | None = None) -> list[BandImage]:
    """Return the bands of an open FITS file: its images of the first one's size, noise maps and PSFs apart.

    Parameters
    ----------
    file
        A `fitsio.FITS`.
    path
        The file, for errors.
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
    _check_end(file, path)
    names = [file[number].get_extname() for number in range(len(file))]
    found: list[BandImage] = []
    primary: dict[str, Any] | None = None
    for number, extension in enumerate(names):
        if file[number].get_exttype() != "IMAGE_HDU" or NOT_IMAGES & set(extension.upper().split("_")):
            continue
        shape = tuple(int(n) for n in file[number].get_info().get("dims", ()))
        if 0 in shape or not (len(shape) == 2 or (len(shape) == 3 and shape[0] <= 32)):
            continue
        cards = read_cards(file, number)
        if primary is None:
            primary = cards if number == 0 else read_cards(file, 0)
        name = _band_name(extension, cards, primary, number, {band.name for band in found})
        plane = Plane(path, number, None if len(shape) == 2 else 0)
        sky = _sky(cards)
        if found and sky == found[-1].sky:  # one for all: there may be very many files
            sky = found[-1].sky
        band = BandImage(
            name, plane, (shape[-2], shape[-1]), zero_point(cards), _blank(cards), sky,
            named=extension.upper() not in UNNAMED or name == _filter(cards, primary),
            unit=_unit(cards),
        )  # fmt: skip
        found += [band] if len(shape) == 2 else _planes_of(band, shape[0])
    if not found:
        raise DataError(
            f"{path}: no image HDU; it has {', '.join(n or f'HDU {i}' for i, n in enumerate(names)) or 'none'}"
        )
    bands = [band for band in found if band.shape == found[0].shape]
    check_image(path, len(bands) * math.prod(found[0].shape) * 4)
    if in_turns is not None:
        pairs = zip(bands[::2], bands[1::2], strict=False)
        named = [(replace(band, name=f"IMAGE{n}"), other.plane) for n, (band, other) in enumerate(pairs, 1)]
        if in_turns == "model":
            return [band for band, _ in named]
        return [replace(band, noise=replace(plane, kind=in_turns)) for band, plane in named]
    by_name = {name.upper(): number for number, name in enumerate(names) if names.count(name) == 1}
    return [_with_companions(band, path, by_name, alone=len(bands) == 1) for band in bands]


def _check_end(file: Any, path: Path) -> None:
    """Refuse a file that ends within an HDU: those behind it are missing, and with them bands."""
    if is_gzip(path) or not len(file):
        return
    end, size = file[len(file) - 1].get_info()["data_end"], path.stat().st_size
    check_whole(path, end, size)
    if size > end:
        with path.open("rb") as bytes_:
            bytes_.seek(end)
            if bytes_.read(8) == b"XTENSION":
                raise DamagedFileError(
                    f"{path}: truncated: it ends within the header of HDU {len(file)}; copy it again"
                )


def _planes_of(band: BandImage, count: int) -> list[BandImage]:
    """The planes of a cube as bands."""
    planes = (replace(band.plane, number=i) for i in range(count))
    return [replace(band, name=f"{band.name}{i}", plane=plane, named=False) for i, plane in enumerate(planes)]


def _with_companions(band: BandImage, path: Path, by_name: Mapping[str, int], *, alone: bool) -> BandImage:
    """A band with its noise map and PSF, ``<BAND>_RMS`` and ``<BAND>_PSF``, or without the band where there is one only."""
    stem = band.name if band.plane.number is None else band.name.removesuffix(str(band.plane.number))
    prefixes = [f"{stem.upper()}_", *([""] if alone else [])]
    noise = next((
        Plane(path, by_name[prefix + word], band.plane.number, kind)
        for prefix in prefixes for word, kind in NOISE_WORDS.items() if prefix + word in by_name
    ), None)  # fmt: skip
    psf = next((Plane(path, by_name[f"{prefix}PSF"]) for prefix in prefixes if f"{prefix}PSF" in by_name), None)
    return replace(band, noise=noise, psf=psf)


def _band_name(
    extension: str, cards: Mapping[str, Any], primary: Mapping[str, Any], number: int, taken: set[str]
) -> str:
    name = extension
    if extension.upper() in UNNAMED and (said := _filter(cards, primary)) is not None and said not in taken:
        return said
    for suffix in IMAGE_SUFFIXES:
        name = name.removesuffix(suffix)
    if name and name not in taken:
        return name
    return f"{name or 'IMAGE'}{number if taken else ''}"


def _filter(cards: Mapping[str, Any], primary: Mapping[str, Any]) -> str | None:
    """The filter that a header names, without the ``.00000`` of Pan-STARRS and the CLEAR of Hubble's second wheel."""
    for source in (cards, primary):
        for key in FILTER_KEYS:
            value = source.get(key)
            if isinstance(value, str) and value.strip() and not value.upper().startswith(("CLEAR", "N/A", "NONE")):
                return re.sub(r"\.0+$", "", value.strip())
    return None


def read_cards(file: Any, number: int) -> dict[str, Any]:
    """Return the header of an HDU as a mapping, of the last card of each name; much faster than astropy's."""
    return {card["name"]: card.get("value") for card in file[number].read_header_list()}


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
    return Sky(
        tuple((sys.intern(key), value) for key, value in cards.items() if SKY_KEYS.fullmatch(key) and value is not None)
    )


def zero_point(header: Any) -> float | None:
    """Return the AB zero point of a header, named (`ZERO_POINT_KEYS`) or from HST's PHOTFLAM and PHOTPLAM; None without.

    HST's is the formula of the ACS Data Handbook, chapter 5: -2.5 log10 PHOTFLAM - 5 log10 PHOTPLAM - 2.408.
    """
    for key in ZERO_POINT_KEYS:
        if isinstance(header.get(key), int | float):
            return float(header[key])
    if "PHOTFLAM" in header and "PHOTPLAM" in header and header["PHOTFLAM"] > 0:
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
