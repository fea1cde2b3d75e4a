"""Read FITS cutouts: one or many bands in the HDUs of a file, with WCS, zero point, noise map and PSF.

Pixels are read by fitsio, which is several times faster than astropy; headers are interpreted by astropy, and the pixel
scale comes from the WCS alone.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from darklens.data.bounds import TILE_RATIO, check_expansion, check_image, check_whole, is_gzip, named_errors
from darklens.data.readers.files import ImageFiles
from darklens.data.readers.fits_checks import check_before_opening
from darklens.data.sizes import OneSize
from darklens.errors import DataError

NOT_IMAGES = ("PSF", "RMS", "MASK", "VAR", "VARIANCE", "WHT", "WEIGHT", "FLAG", "ERR", "SEG")
IMAGE_SUFFIXES = ("_BGSUB", "_FLUX", "_SCI", "_IMAGE")
ZERO_POINT_KEYS = ("MAGZERO", "MAGZPT", "PHOTZP", "ZP", "MAG_ZP")
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
        images = np.stack([_plane(file, band, path) for band in bands]).astype(np.float32)
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


class FitsFiles(ImageFiles):
    """FITS cutouts, one in each file, that have the same bands.

    Parameters
    ----------
    paths
        The N files.
    bands
        Names of the bands to read; None takes those of the first file.
    size
        Size to which images are cropped or padded.

    Raises
    ------
    DataError
        If the first file cannot be read, or lacks a named band.
    """

    def __init__(self, paths: Sequence[Path], bands: Sequence[str] | None = None, size: OneSize = OneSize()):
        with _open(paths[0]) as file:
            found = {band.name: band for band in find_bands(file, paths[0])}
        if bands is not None and (missing := [b for b in bands if b not in found]):
            raise DataError(f"{paths[0]}: no band {', '.join(missing)}; there are {', '.join(found)}")
        self.bands = list(bands) if bands is not None else list(found)
        shape = (len(self.bands), *found[self.bands[0]].shape)
        super().__init__(paths, shape, np.dtype(np.float32), size=size)

    def shape_of(self, path: Path) -> tuple[int, ...]:
        """Return the shape (C, H, W) of the bands in a file, from its headers."""
        with _open(path) as file:
            found = find_bands(file, path)
        return (len(self.bands), *found[0].shape)

    def read(self, path: Path) -> np.ndarray:
        """Return the bands (C, H, W) of a file, found by their names."""
        with _open(path) as file:
            # By name in each file: files of one survey may differ in which HDUs they have, and in their order.
            found = {band.name: band for band in find_bands(file, path)}
            if missing := [name for name in self.bands if name not in found]:
                raise DataError(
                    f"{path}: no band {', '.join(missing)}, which {self.paths[0].name} has; it has {', '.join(found)}"
                )
            return np.stack([_plane(file, found[name], path) for name in self.bands])


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
        return _plane(file, find_bands(file, path)[0], path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without astropy's warnings on cards that break the standard: each file of a survey would print them."""
    from astropy.utils.exceptions import AstropyWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        yield


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    import fitsio

    with named_errors(path, "not a readable FITS file"):
        check_before_opening(path)
        with fitsio.FITS(str(path)) as file:
            yield file


def _plane(file: Any, band: BandHdu, path: Path) -> np.ndarray:
    try:
        pixels = _pixels(file, band.hdu, path)
    except OSError as error:
        raise DataError(
            f"{path}: HDU {band.hdu} ({band.name}) is damaged or cut off; copy it again, or leave it out"
        ) from error
    return pixels if band.plane is None else pixels[band.plane]


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
