"""Read FITS cutouts: one or many bands in the HDUs of a file, with WCS, zero point, noise map and PSF.

Pixels are read by fitsio, which is several times faster than astropy; headers are interpreted by astropy, and the pixel
scale comes from the WCS alone.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from darklens.data.bands import by_wavelength
from darklens.data.bounds import TILE_RATIO, check_expansion, check_image, check_whole, is_gzip, named_errors
from darklens.data.readers.files import COUNTED_FILES, ImageFiles
from darklens.data.readers.fits_checks import check_before_opening
from darklens.data.sizes import OneSize
from darklens.errors import DataError
from darklens.progress import progress_bar

NOT_IMAGES = ("PSF", "RMS", "MASK", "VAR", "VARIANCE", "WHT", "WEIGHT", "FLAG", "ERR", "SEG")
IMAGE_SUFFIXES = ("_BGSUB", "_FLUX", "_SCI", "_IMAGE")
ZERO_POINT_KEYS = ("MAGZERO", "MAGZPT", "PHOTZP", "ZP", "MAG_ZP")
SAME_SCALE = 0.005
"""Pixel scales that differ by less than this fraction are one: at 200 pixels a side that is half a pixel at the edge. A
larger value hides another resolution; a smaller one refuses projections that differ over the sky."""
SAME_ZERO_POINT = 1e-4
"""Zero points that differ by less, magnitudes, are one: 0.01% in flux. Rounding in headers is smaller."""
NO_DATA = 1e10
"""Values of a noise map above this mark pixels without data. In three Euclid Q1 cutouts such pixels have 1e16 and more, and
all others at most 151. A smaller limit masks noisy pixels, a larger one takes pixels without data for measured ones."""


@dataclass
class FitsCutout:
    """One object in one or several bands of equal size.

    Parameters
    ----------
    path
        The file.
    images
        Pixels (C, H, W), float32, in the file's unit.
    bands
        Names of the bands, in the order of the channels.
    pixel_scale
        Side of a pixel, arcsec; None without a WCS.
    zero_points
        AB magnitude of one unit of flux, for each band; None if unknown.
    rms
        Standard deviation of the noise, (C, H, W), in the unit of the pixels; None unless every band has a noise map.
    mask
        Whether a pixel has no data, (C, H, W); None without ``rms``.
    psf
        Kernel of the point-spread function by band.
    wcs
        The first band's coordinates, an `astropy.wcs.WCS`.
    position
        Right ascension and declination of the centre of the image, degrees.
    """

    path: Path
    images: np.ndarray
    bands: list[str]
    pixel_scale: float | None = None
    zero_points: list[float | None] = field(default_factory=list)
    rms: np.ndarray | None = None
    mask: np.ndarray | None = None
    psf: dict[str, np.ndarray] = field(default_factory=dict)
    wcs: Any = None
    position: tuple[float, float] | None = None


@dataclass(frozen=True)
class BandHdu:
    """Where the pixels of a band are in a file.

    Parameters
    ----------
    name
        Of the band.
    hdu
        Number of the HDU, counted from 0.
    plane
        Index on the first axis of a cube; None if the HDU holds one plane.
    shape
        (H, W) of the plane.
    """

    name: str
    hdu: int
    plane: int | None
    shape: tuple[int, int]


def read_fits_cutout(path: Path) -> FitsCutout:
    """Read all bands, noise maps, PSFs and coordinates of a FITS cutout, and return them.

    Raises
    ------
    DataError
        If it has no image or is damaged.
    """
    import fitsio
    from astropy.io.fits import Header
    from astropy.wcs import WCS

    with _open(path) as file:
        bands = find_bands(file, path)
        blanks = {number: _blank(_cards(file, number)) for number in {band.hdu for band in bands}}
        planes = [_plane(file, band, path, blanks[band.hdu]) for band in bands]
        images = np.stack(planes).astype(np.float32)
        by_name = {file[i].get_extname().upper(): i for i in range(len(file))}
        rms = [_sibling(file, by_name, band, "RMS", path) for band in bands]
        psf = {b.name: kernel for b in bands if (kernel := _sibling(file, by_name, b, "PSF", path)) is not None}
        with _quiet():
            headers = [Header.fromstring(str(fitsio.read_header(str(path), ext=band.hdu)), sep="\n") for band in bands]
    if any(r is not None and r.shape != images.shape[1:] for r in rms):
        raise DataError(f"{path}: a noise map is not of the size {images.shape[1:]} of its band")
    cutout = FitsCutout(path, images, [band.name for band in bands], psf=psf)
    if all(r is not None for r in rms):
        cutout.rms = np.stack([r for r in rms if r is not None]).astype(np.float32)
        cutout.mask = ~np.isfinite(cutout.rms) | (cutout.rms > NO_DATA) | ~np.isfinite(images)
    with named_errors(path, "its header is damaged"), _quiet():
        cutout.zero_points = [zero_point(header) for header in headers]
        if "CTYPE1" in headers[0]:
            cutout.wcs = wcs = WCS(headers[0], naxis=2)
            scale = pixel_scale(wcs)
            cutout.pixel_scale = scale if 0 < scale < math.inf else None
            y, x = ((n - 1) / 2 for n in images.shape[1:])
            ra, dec = wcs.pixel_to_world_values(x, y)
            cutout.position = (float(ra), float(dec))
    return cutout


def pixel_scale(wcs: Any) -> float:
    """Return the side of a pixel in arcsec, the root of its area, from any mixture of CD, PC and CDELT in the header."""
    from astropy.wcs.utils import proj_plane_pixel_scales

    return float(math.sqrt(np.prod(proj_plane_pixel_scales(wcs.celestial)))) * 3600


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


def find_bands(file: Any, path: Path) -> list[BandHdu]:
    """Return the image HDUs of an open file that are bands, in their order, if they have the size of the first.

    Raises
    ------
    DataError
        If there are none, or they are too large in all.
    """
    found: list[BandHdu] = []
    for number in range(len(file)):
        hdu = file[number]
        if hdu.get_exttype() not in ("IMAGE_HDU",):
            continue
        info = hdu.get_info()
        shape = tuple(int(n) for n in info.get("dims", ()))
        if 0 in shape:
            continue
        name = hdu.get_extname() or ("IMAGE" if not found else f"IMAGE{number}")
        if any(part in NOT_IMAGES for part in name.upper().split("_")):
            continue
        for suffix in IMAGE_SUFFIXES:
            name = name.removesuffix(suffix)
        if len(shape) == 2:
            found.append(BandHdu(name, number, None, (shape[0], shape[1])))
        elif len(shape) == 3 and shape[0] <= 32:
            found += [BandHdu(f"{name}{i}", number, i, (shape[1], shape[2])) for i in range(shape[0])]
    if not found:
        names = [file[i].get_extname() or f"HDU {i}" for i in range(len(file))]
        raise DataError(f"{path}: no image HDU; it has {', '.join(names) or 'none'}")
    bands = [band for band in found if band.shape == found[0].shape]
    check_image(path, len(bands) * math.prod(found[0].shape) * 4)
    return bands


@dataclass(frozen=True)
class _Headers:
    """What the headers of a file say of its bands, and the pixel scale of the first, arcsec.

    ``blanks`` are the values, of bands of integers, that mark pixels without data.
    """

    bands: dict[str, BandHdu]
    zero_points: dict[str, float | None]
    blanks: dict[str, float | None]
    scale: float | None


class FitsFiles(ImageFiles):
    """FITS cutouts, one object in each file: bands by name, fluxes on the scale of the first file's zero points.

    Headers of up to `COUNTED_FILES` files are read when they are opened. Bands that not all of them have are left out, and
    ``notes`` say so. A band is multiplied by 10^(0.4 (zero point of the first file - its own)), where both are known.

    Parameters
    ----------
    paths
        The N files.
    bands
        Names of the bands to read; None takes those that all files have, in the order of the first.
    size
        Size to which images are cropped or padded.

    Raises
    ------
    DataError
        If the first file cannot be read, no band is common to all, or pixel scales differ.
    """

    def __init__(self, paths: Sequence[Path], bands: Sequence[str] | None = None, size: OneSize = OneSize()):
        self.paths, self.notes = list(paths), list[str]()
        first = _headers(self.paths[0])
        self._scanned = scanned = {self.paths[0]: first}
        looked_at = self.paths[:COUNTED_FILES]
        with progress_bar(f"reading the headers of {len(looked_at):,} files") as advance:
            for number, path in enumerate(looked_at[1:], 2):
                with suppress(DataError):  # a damaged file is named when it is read, or left out by who asks for that
                    scanned[path] = _headers(path)
                advance(number, len(looked_at))
        if bands is not None and (missing := [b for b in bands if b not in first.bands]):
            raise DataError(f"{self.paths[0]}: no band {', '.join(missing)}; there are {', '.join(first.bands)}")
        self.bands = list(bands) if bands is not None else self._common(scanned)
        self._check_scales(scanned)
        self.zero_points = {band: first.zero_points[band] for band in self.bands}
        self._note_zero_points(scanned)
        shape = (len(self.bands), *first.bands[self.bands[0]].shape)
        super().__init__(paths, shape, np.dtype(np.float32), size=size)

    def _common(self, scanned: Mapping[Path, _Headers]) -> list[str]:
        """Bands of all files, in the order of the first; notes on the others."""
        counts = Counter(band for headers in scanned.values() for band in headers.bands)
        common = [band for band in scanned[self.paths[0]].bands if counts[band] == len(scanned)]
        if not common:
            odd = min(scanned, key=lambda path: len(set(scanned[path].bands) & set(scanned[self.paths[0]].bands)))
            raise DataError(
                f"no band is common to all {len(scanned):,} files: {self.paths[0]} has "
                f"{', '.join(scanned[self.paths[0]].bands)}, {odd.name} has {', '.join(scanned[odd].bands)}"
            )
        for band in by_wavelength([band for band in counts if band not in common]):
            self.notes.append(
                f"band {band} left out: {len(scanned) - counts[band]:,} of {len(scanned):,} files lack it"
            )
        return common

    def _check_scales(self, scanned: Mapping[Path, _Headers]) -> None:
        first = scanned[self.paths[0]].scale
        for path, headers in scanned.items():
            if first and headers.scale and abs(headers.scale / first - 1) > SAME_SCALE:
                raise DataError(
                    f"{path}: a pixel is {headers.scale:.4g}″, in {self.paths[0].name} {first:.4g}″; keep images of one "
                    "pixel scale in a folder"
                )

    def _note_zero_points(self, scanned: Mapping[Path, _Headers]) -> None:
        """Say how far zero points differ, and how many are not known."""
        for band in self.bands:
            reference = self.zero_points[band]
            found = [headers.zero_points.get(band) for headers in scanned.values()]
            known = [value for value in found if value is not None]
            if reference is not None and max(known) - min(known) > SAME_ZERO_POINT:
                self.notes.append(
                    f"zero points of {band} from {min(known):.2f} to {max(known):.2f}: fluxes are brought to that of "
                    f"{self.paths[0].name}, {reference:.2f}"
                )
            if known and len(known) < len(found):
                unknown = len(found) - len(known)
                self.notes.append(
                    f"zero point of {band} unknown in {unknown:,} of {len(found):,} files: left as they are"
                )

    def shape_of(self, path: Path) -> tuple[int, ...]:
        """Return the shape (C, H, W) of the bands in a file, from its headers."""
        found = self._scanned.get(path) or _headers(path)
        return (len(self.bands), *next(iter(found.bands.values())).shape)

    def read(self, path: Path) -> np.ndarray:
        """Return the bands (C, H, W) of a file, found by their names, on the flux scale of the first file."""
        # Files of one survey may differ in which HDUs they have, and in their order.
        found = self._scanned.get(path)
        with _open(path, checked=found is not None) as file:
            if found is None:
                found = _read_headers(file, path)
            if missing := [name for name in self.bands if name not in found.bands]:
                raise DataError(
                    f"{path}: no band {', '.join(missing)}, which {self.paths[0].name} has; it has {', '.join(found.bands)}"
                )
            planes = [_plane(file, found.bands[name], path, found.blanks[name]) for name in self.bands]
        return np.stack([plane * self._factor(name, found) for name, plane in zip(self.bands, planes, strict=True)])

    def _factor(self, band: str, found: _Headers) -> np.float32:
        """What a band is multiplied by."""
        own, reference = found.zero_points[band], self.zero_points[band]
        if own is None or reference is None or abs(own - reference) <= SAME_ZERO_POINT:
            return np.float32(1)
        return np.float32(10 ** (0.4 * (reference - own)))


def _headers(path: Path) -> _Headers:
    with _open(path) as file:
        return _read_headers(file, path)


def _read_headers(file: Any, path: Path) -> _Headers:
    bands = {band.name: band for band in find_bands(file, path)}
    cards = {number: _cards(file, number) for number in {band.hdu for band in bands.values()}}
    first = cards[next(iter(bands.values())).hdu]
    zero_points = {name: zero_point(cards[band.hdu]) for name, band in bands.items()}
    blanks = {name: _blank(cards[band.hdu]) for name, band in bands.items()}
    return _Headers(bands, zero_points, blanks, _scale(first))


def _cards(file: Any, number: int) -> dict[str, Any]:
    """The header of an HDU as a mapping, of the last card of each name; much faster than astropy's."""
    return {card["name"]: card.get("value") for card in file[number].read_header_list()}


def _scale(cards: Mapping[str, Any]) -> float | None:
    """Side of a pixel, arcsec, from the matrix of a linear WCS in degrees; None if the header has none."""
    if "CTYPE1" not in cards:
        return None
    try:
        if "CD1_1" in cards:
            matrix = [[float(cards.get(f"CD{i}_{j}", 0)) for j in (1, 2)] for i in (1, 2)]
        else:
            steps = [float(cards[f"CDELT{i}"]) for i in (1, 2)]
            matrix = [[steps[i - 1] * float(cards.get(f"PC{i}_{j}", i == j)) for j in (1, 2)] for i in (1, 2)]
    except (KeyError, TypeError, ValueError):
        return None
    scale = 3600 * math.sqrt(math.prod(math.hypot(matrix[0][axis], matrix[1][axis]) for axis in (0, 1)))
    return scale if 0 < scale < math.inf else None


class BandFiles(ImageFiles):
    """Objects with a file for each band. Other bands are resampled to the pixels of the first; their flux is kept.

    Parameters
    ----------
    objects
        The files of each of N objects, in the order of the bands; each file holds one image.
    """

    def __init__(self, objects: Sequence[Sequence[Path]]):
        self.objects = [list(paths) for paths in objects]
        first = _single(self.objects[0][0])
        super().__init__([o[0] for o in objects], (len(objects[0]), *first.shape), np.dtype(np.float32))
        self._index = {paths[0]: paths for paths in self.objects}

    def read(self, path: Path) -> np.ndarray:
        """Return the bands (C, H, W) of an object, named by the file of its first band."""
        return np.stack([_match(_single(p), self.image_shape[1:]) for p in self._index[path]])


def _match(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if image.shape == shape:
        return image
    import torch

    tensor = torch.from_numpy(image.astype(np.float32))[None, None]
    resized = torch.nn.functional.interpolate(tensor, size=list(shape), mode="bilinear", align_corners=False)[0, 0]
    return resized.numpy() * (image.size / resized.numel())


def _single(path: Path) -> np.ndarray:
    with _open(path) as file:
        band = find_bands(file, path)[0]
        return _plane(file, band, path, _blank(_cards(file, band.hdu)))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without astropy's warnings on cards that break the standard: each file of a survey would print them."""
    from astropy.utils.exceptions import AstropyWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        yield


@contextmanager
def _open(path: Path, *, checked: bool = False) -> Iterator[Any]:
    """Open a file after the checks of `check_before_opening`, unless they were made when its headers were read."""
    import fitsio

    with named_errors(path, "not a readable FITS file"):
        if not checked:
            check_before_opening(path)
        with fitsio.FITS(str(path)) as file:
            yield file


def _blank(cards: Mapping[str, Any]) -> float | None:
    """The value of pixels without data, as they are read: BLANK, of images of integers (FITS 4.0, section 4.4.2.5)."""
    blank = cards.get("BLANK", cards.get("ZBLANK"))
    if isinstance(blank, bool) or not isinstance(blank, int) or not isinstance(cards.get("BITPIX"), int):
        return None
    if cards.get("ZBITPIX", cards["BITPIX"]) < 0:
        return None
    return float(blank * cards.get("BSCALE", 1) + cards.get("BZERO", 0))


def _plane(file: Any, band: BandHdu, path: Path, blank: float | None = None) -> np.ndarray:
    """The pixels of a band, those without data nan."""
    try:
        pixels = _pixels(file, band.hdu, path)
    except OSError as error:
        raise DataError(
            f"{path}: HDU {band.hdu} ({band.name}) is damaged or cut off; copy it again, or leave it out"
        ) from error
    pixels = pixels if band.plane is None else pixels[band.plane]
    return pixels if blank is None else np.where(pixels == blank, np.float32(np.nan), pixels.astype(np.float32))


def _pixels(file: Any, number: int, path: Path) -> np.ndarray:
    """The pixels of an HDU in this machine's byte order, if the file can hold as many as its header promises."""
    info = file[number].get_info()
    if not all(info.get("dims", (0,))):
        raise ValueError(f"HDU {number} is no image")
    promised, size = math.prod(info["dims"]) * abs(info["img_type"]) // 8, path.stat().st_size
    if info["is_compressed_image"]:
        check_expansion(path, promised, size, ratio=TILE_RATIO)
    elif is_gzip(path):
        check_expansion(path, promised, size)
    else:
        check_whole(path, info["data_start"] + promised, size)
    pixels = file[number].read()
    return np.asarray(pixels, dtype=pixels.dtype.newbyteorder("="))


def _sibling(file: Any, by_name: dict[str, int], band: BandHdu, what: str, path: Path) -> np.ndarray | None:
    """The noise map or PSF of a band, named ``<BAND>_RMS`` or ``<BAND>_PSF``."""
    number = by_name.get(f"{band.name}_{what}".upper())
    return None if number is None else _pixels(file, number, path).astype(np.float32)
