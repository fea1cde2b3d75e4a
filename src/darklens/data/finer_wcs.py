"""The world coordinates of images whose pixels are made finer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from darklens.data.readers.fits_hdus import read_hdus
from darklens.data.readers.fits_headers import SAME_SCALE, BandImage, read_bands
from darklens.data.sizes import central_window
from darklens.errors import DataError


def finer_wcs(wcs: Any, factor: int, first: tuple[int, int] = (0, 0)) -> Any:
    """Return the coordinates of an image after its pixels were cut out and made finer.

    Parameters
    ----------
    wcs
        Of the image, an `astropy.wcs.WCS` of two axes.
    factor
        Fine pixels along the side of a pixel.
    first
        Row and column of the first pixel that is kept.

    Returns
    -------
    astropy.wcs.WCS
        The outer edges of the kept pixels are where they were; distortions of the type SIP are brought to the finer pixels.

    Raises
    ------
    DataError
        If a distortion is kept in a table, which is not brought to other pixels.
    """
    from astropy.wcs import Sip

    if any(getattr(wcs, name) is not None for name in ("cpdis1", "cpdis2", "det2im1", "det2im2")):
        raise DataError("its WCS has a distortion in a table, which cannot be brought to finer pixels")
    finer = wcs.deepcopy()

    def place(pixel: Any) -> np.ndarray:
        corner = np.asarray(pixel, dtype=float) - first[::-1]
        return (corner - 0.5) * factor + 0.5  # pixels are counted from 1 at their centres

    finer.wcs.crpix = place(wcs.wcs.crpix)
    if wcs.wcs.has_cd():
        finer.wcs.cd = wcs.wcs.cd / factor
    else:
        finer.wcs.cdelt = wcs.wcs.cdelt / factor
    if wcs.sip is not None:
        given = [getattr(wcs.sip, name) for name in ("a", "b", "ap", "bp")]
        finer.sip = Sip(*(_rescaled(each, factor) for each in given), place(wcs.sip.crpix))
    finer.pixel_shape = None
    finer.wcs.set()
    return finer


def _rescaled(coefficients: np.ndarray | None, factor: int) -> np.ndarray | None:
    """Coefficients of a polynomial in pixels, of pixels so many times finer."""
    if coefficients is None:
        return None
    powers = np.add.outer(*(np.arange(n) for n in coefficients.shape))
    scaled: np.ndarray = coefficients * float(factor) ** (1 - powers)
    return scaled


def first_band(path: Path, name: str | None) -> BandImage:
    """Return what the header of a FITS file says of a band, or of its first if it has none of the name.

    Raises
    ------
    DataError
        If it has no image or is damaged.
    """
    bands = read_bands(read_hdus(path), path)
    return next((band for band in bands if band.name == name), bands[0])


def kept_from(band: BandImage, shape: tuple[int, int], side: int, pixel_scale: float | None) -> tuple[int, int]:
    """Return row and column of the first pixel of a file that a model of some size was given.

    Parameters
    ----------
    band
        Of the file.
    shape
        Of the images as they were read, (H, W), the central pixels of larger files.
    side
        Of the central square that the model was given, pixels.
    pixel_scale
        Of the images as they were read, arcsec; None if unknown.

    Returns
    -------
    tuple of int
        Row and column, from 0.

    Raises
    ------
    DataError
        If the file was resampled or padded when it was read.
    """
    resampled = band.scale and pixel_scale and abs(band.scale / pixel_scale - 1) > SAME_SCALE
    if resampled or band.shape[0] < shape[0] or band.shape[1] < shape[1]:
        raise DataError(
            f"it has {band.shape[0]}×{band.shape[1]} pixels of {band.scale or 0:.4g}″, and was brought to "
            f"{shape[0]}×{shape[1]} of {pixel_scale or 0:.4g}″ beside the others; give files of other sizes apart"
        )
    if shape[0] != shape[1] and band.shape != shape:
        raise DataError("it was cropped to an image that is not square")
    outer = central_window(*band.shape, shape[0]) if band.shape != shape else (slice(0, None), slice(0, None))
    inner = central_window(*shape, side)
    return outer[0].start + inner[0].start, outer[1].start + inner[1].start
