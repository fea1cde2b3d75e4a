"""Read the pixels of FITS images, noise maps and PSFs by fitsio, which is several times faster than astropy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from darklens.data.bounds import TILE_RATIO, check_expansion, check_whole, is_gzip, named_errors
from darklens.data.readers.fits_headers import Plane
from darklens.errors import DamagedFileError

NO_DATA = 1e10
"""Values of a noise map above this mark pixels without data. In three Euclid Q1 cutouts such pixels have 1e16 and more, and
all others at most 151. A smaller limit masks noisy pixels, a larger one takes pixels without data for measured ones."""


@cache
def _fits_class() -> type:
    """`fitsio.FITS`, which goes through all HDUs when the first is asked for, made to open that one; cubes are kept."""
    import fitsio
    from fitsio.hdu import ImageHDU

    class Images(fitsio.FITS):  # type: ignore[misc]
        def __init__(self, path: Path):
            self.cubes: dict[int, np.ndarray] = {}
            super().__init__(str(path))

        def __getitem__(self, number: int) -> Any:
            return ImageHDU(self._FITS, number)

    return Images


@contextmanager
def open_fits(path: Path) -> Iterator[Any]:
    """Open a file by fitsio, of which `darklens.data.readers.fits_hdus.read_hdus` has read and checked the headers.

    Raises
    ------
    DataError
        If it is not a readable FITS file.
    """
    with named_errors(path, "not a readable FITS file"), _fits_class()(path) as file:
        yield file


def read_plane(file: Any, plane: Plane) -> np.ndarray:
    """Read the pixels of an image.

    Parameters
    ----------
    file
        Of `open_fits`.
    plane
        Where the pixels are.

    Returns
    -------
    np.ndarray
        (H, W) in this machine's byte order, nan where there is no data.

    Raises
    ------
    DataError
        If the file holds less than its header promises, or is damaged.
    """
    try:
        pixels = file.cubes[plane.hdu] if plane.hdu in file.cubes else _pixels(file, plane)
    except OSError as error:
        name = f" ({file[plane.hdu].get_extname()})".replace(" ()", "")
        raise DamagedFileError(
            f"{plane.path}: HDU {plane.hdu}{name} is damaged or cut off; copy it again, or leave it out"
        ) from error
    if plane.number is not None and pixels.ndim == 3:
        file.cubes[plane.hdu] = pixels
        pixels = pixels[plane.number]
    if plane.blank is None:
        return pixels
    return np.where(pixels == plane.blank, np.float32(np.nan), pixels.astype(np.float32))


def read_deviation(file: Any, plane: Plane) -> np.ndarray:
    """Return the standard deviation (H, W) of the noise from a noise map, float32; infinite where there is no data."""
    values = read_plane(file, plane).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        if plane.kind != "deviation":
            np.sqrt(values, out=values)
        if plane.kind == "inverse variance":
            np.divide(1, values, out=values)
        return np.where((values > 0) & (values < NO_DATA), values, np.float32(np.inf))


def _pixels(file: Any, plane: Plane) -> np.ndarray:
    """The pixels of an HDU, if the file can hold as many as its header promises."""
    hdu, path = file[plane.hdu], plane.path
    shape = hdu.get_dims()
    if not all(shape):
        raise ValueError(f"HDU {plane.hdu} is no image")
    # At least a byte for each pixel: headers were checked to the byte, but cfitsio may understand them otherwise.
    promised, size = math.prod(shape), path.stat().st_size
    if hdu.is_compressed():
        check_expansion(path, promised, size, ratio=TILE_RATIO)
    elif promised > size:
        if not is_gzip(path):
            check_whole(path, promised, size)
        check_expansion(path, promised, size)
    pixels = hdu.read()
    return pixels if pixels.dtype.isnative else pixels.astype(pixels.dtype.newbyteorder("="))
