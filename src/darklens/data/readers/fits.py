"""Read objects from FITS files: their bands by name, on one pixel grid and flux scale, with noise maps and PSFs.

Headers say of each object what it is; nothing is taken from the first file for all. What is brought to one scale or left
out is counted and said in ``notes``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from darklens.data.bounds import named_errors
from darklens.data.readers.companions import Companions
from darklens.data.readers.files import ImageFiles
from darklens.data.readers.fits_hdus import read_hdus
from darklens.data.readers.fits_headers import SAME_SCALE, BandImage, read_bands
from darklens.data.readers.fits_notes import notes_of
from darklens.data.readers.fits_pixels import NO_DATA, open_fits, read_deviation, read_plane
from darklens.data.readers.fits_plan import make_plan
from darklens.data.readers.fits_scan import Headers, Object
from darklens.data.resampling import Axis, resample, resample_noise, resample_psf
from darklens.data.sizes import OneSize, crop_or_pad
from darklens.errors import DamagedFileError, DataError

SAME_PIXEL = 0.05
"""Bands whose pixels lie within this fraction of a pixel of each other are not resampled, which would correlate their
noise for a shift that no fit notices. A choice, not tuned."""

PER_AREA = re.compile(r"(/\s*|\b)(sr|(arcsec|arcmin|deg)(\^|\*\*)?2?)\b", re.IGNORECASE)
"""In units of brightness for each area of the sky, such as MJy/sr."""


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
        Noise maps as the file has them, (C, H, W), in the unit of the pixels; None unless every band has one.
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


def read_fits_cutout(path: Path | str) -> FitsCutout:
    """Read all bands, noise maps, PSFs and coordinates of a FITS cutout as they are, and return them.

    Raises
    ------
    DataError
        If it has no image or is damaged.
    """
    path = Path(path)
    bands = read_bands(read_hdus(path), path)
    bands = [band for band in bands if band.shape == bands[0].shape]
    with open_fits(path) as file:
        images = np.stack([read_plane(file, band.plane) for band in bands]).astype(np.float32)
        rms = [None if band.noise is None else read_plane(file, band.noise).astype(np.float32) for band in bands]
        psf = {band.name: read_plane(file, band.psf).astype(np.float32) for band in bands if band.psf is not None}
    if any(r is not None and r.shape != images.shape[1:] for r in rms):
        raise DataError(f"{path}: a noise map is not of the size {images.shape[1:]} of its band")
    cutout = FitsCutout(path, images, [band.name for band in bands], psf=psf)
    if all(r is not None for r in rms):
        cutout.rms = np.stack([r for r in rms if r is not None])
        cutout.mask = ~np.isfinite(cutout.rms) | (cutout.rms > NO_DATA) | ~np.isfinite(images)
    cutout.zero_points = [band.zero_point for band in bands]
    if (sky := bands[0].sky) is not None:
        with named_errors(path, "its header is damaged"):
            cutout.pixel_scale = sky.scale
            cutout.wcs, cutout.position = sky.wcs(), sky.position(bands[0].shape)
    return cutout


class FitsObjects(ImageFiles):
    """Objects in FITS files: several bands in a file, or a file for each band.

    Headers of up to `COUNTED_FILES` objects are read when they are opened. Then

    - bands that not all of them have are left out, unless the bands are asked for;
    - objects of another pixel scale than most are resampled to it, and bands of an object to the pixels of its first
      one, by their WCS; without a WCS, bands of another size are taken to show the same field;
    - a band is multiplied by 10^(0.4 (zero point of the first object that has one - its own)), where its own is known;
    - images of several sizes are cropped or padded to the most frequent one, unless ``size`` says which.

    Parameters
    ----------
    objects
        The files of each of N objects.
    names
        The band that each file of an object holds; None reads all bands of its files.
    bands
        Names of the bands to read, in this order; None takes those that all objects have.
    size
        Size to which images are cropped or padded.
    companions
        Noise maps and PSFs in files of their own.
    known
        Bands of files of one band whose headers were read already, by file.

    Attributes
    ----------
    plan
        To which bands, pixels, size and fluxes the objects are brought.
    notes
        What was left out, resampled or guessed, with counts.

    Raises
    ------
    DataError
        If no object can be read, or no band is common to all.
    """

    def __init__(
        self,
        objects: Sequence[Sequence[Path]],
        names: Sequence[str] | None = None,
        *,
        bands: Sequence[str] | None = None,
        size: OneSize = OneSize(),
        companions: Companions = Companions(),
        known: Mapping[Path, BandImage] = MappingProxyType({}),
    ):
        self.objects = [list(files) for files in objects]
        self._headers = Headers(self.objects, names, companions=companions, known=known)
        self._scanned = scanned = self._headers.scan()
        self.plan = plan = make_plan(scanned, bands=bands, size=size)
        self.notes = [*self._headers.notes, *notes_of(plan, scanned, asked=bands is not None, size=size)]
        paths = [files[0] for files in self.objects]
        self._numbers = {path: number for number, path in enumerate(paths)}
        shape = (len(plan.bands), *plan.shape(scanned[plan.first]))
        super().__init__(paths, shape, np.dtype(np.float32), size=plan.size)
        self.notes += self._unusable_psfs()

    def shape_of(self, path: Path) -> tuple[int, ...]:
        """Return the shape (C, H, W) of the bands in a file, from its headers."""
        return (len(self.plan.bands), *self.plan.shape(self._found(path)))

    def position_of(self, path: Path) -> tuple[float, float] | None:
        """Return right ascension and declination of the centre of an object, degrees; None if unknown, or not looked at."""
        image = self._scanned.get(path, {}).get(self.plan.bands[0])
        if image is None or image.sky is None:
            return None
        with suppress(Exception):  # what astropy says of a WCS that makes no sense
            return image.sky.position(image.shape)
        return None

    def _found(self, path: Path) -> Object:
        found = self._scanned.get(path) or self._headers.of(self.objects[self._numbers[path]])
        if missing := [name for name in self.plan.bands if name not in found]:
            raise DataError(
                f"{path}: no band {', '.join(missing)}, which {self.plan.first.name} has; it has {', '.join(found)}"
            )
        return found

    def read(self, path: Path) -> np.ndarray:
        """Return the bands (C, H, W) of an object, named by its first file, on the pixels and the flux scale of all."""

        def of_band(opened: Callable[[Path], Any], image: BandImage) -> np.ndarray:
            pixels = read_plane(opened(image.plane.path), image.plane)
            if pixels.shape != image.shape:  # cfitsio understands the headers otherwise
                raise DamagedFileError(f"{image.plane.path}: its headers contradict themselves; copy it again")
            return pixels

        return self._read(path, of_band, resample)

    def noise(self, path: Path) -> np.ndarray:
        """Return the standard deviation (C, H, W) of the noise of an object, beside what `read` returns.

        It is infinite where there is no data. Resampled noise is what `darklens.data.resampling.resample_noise` says.

        Raises
        ------
        DataError
            If there is no noise map of a band, or it is not of its band's size.
        """

        def of_band(opened: Callable[[Path], Any], image: BandImage) -> np.ndarray:
            if image.noise is None:
                raise DataError(f"{path}: no noise map of band {image.name}")
            noise = read_deviation(opened(image.noise.path), image.noise)
            if noise.shape != image.shape:
                raise DataError(f"{image.noise.path}: a noise map is not of the size {image.shape} of its band")
            return noise

        return self._read(path, of_band, resample_noise)

    def psf(self, path: Path) -> dict[str, np.ndarray]:
        """Return the PSF (h, w) of each band of an object, on the pixels of all, with sum 1.

        Bands without a PSF are left out, and those whose PSF has pixels that are nan or infinite, or no flux.
        """
        found, kernels = self._found(path), {}
        reference = found[self.plan.bands[0]]
        for band in self.plan.bands:
            if (plane := found[band].psf) is not None:
                with open_fits(plane.path) as file:
                    kernel = read_plane(file, plane).astype(np.float64)
                rows, columns = self.plan.axes(found[band], reference, path)
                kernel = kernel[:: 1 if rows.step > 0 else -1, :: 1 if columns.step > 0 else -1]
                step = float(np.sqrt(abs(rows.step * columns.step)))
                if 0 < kernel.sum() < np.inf:
                    kernels[band] = resample_psf(kernel, step if abs(step - 1) > SAME_SCALE else 1.0)
        return kernels

    def _unusable_psfs(self) -> list[str]:
        """A note if the first object that has all bands has a PSF that `psf` leaves out."""
        path = self.plan.first
        having = {band for band in self.plan.bands if self._scanned[path][band].psf is not None}
        with suppress(DataError):  # a damaged file is named when it is read
            if left_out := sorted(having - set(self.psf(path))):
                return [
                    f"PSF of {', '.join(left_out)} in {path.name} is not used: it has pixels that are nan or infinite, or "
                    "no flux; PSFs of other files like it are left out too"
                ]
        return []

    def psf_of_row(self, row: int) -> dict[str, np.ndarray]:
        """Return what `psf` does for the object of a number."""
        return self.psf(self.paths[row])

    def _read(
        self,
        path: Path,
        of_band: Callable[[Callable[[Path], Any], BandImage], np.ndarray],
        resampled: Callable[[np.ndarray, Axis, Axis], np.ndarray],
    ) -> np.ndarray:
        """What is read of each band, brought to the pixels and the flux scale of all."""
        # Files of one survey may differ in which HDUs they have, and in their order.
        found, planes = self._found(path), []
        reference = found[self.plan.bands[0]]
        files: dict[Path, Any] = {}
        with ExitStack() as stack:

            def opened(file: Path) -> Any:
                if file not in files:
                    files[file] = stack.enter_context(open_fits(file))
                return files[file]

            for name in self.plan.bands:
                image = found[name]
                plane = of_band(opened, image)
                if (factor := self.plan.factor(image)) != 1:
                    plane = plane * factor
                if not self.plan.is_kept(image, reference):
                    rows, columns = self.plan.axes(image, reference, path)
                    if not (rows.is_same(image.shape[0], SAME_PIXEL) and columns.is_same(image.shape[1], SAME_PIXEL)):
                        plane = self._resampled(resampled, plane, rows, columns, image, reference)
                planes.append(plane)
        return np.stack(planes)

    def _resampled(
        self,
        resampled: Callable[[np.ndarray, Axis, Axis], np.ndarray],
        plane: np.ndarray,
        rows: Axis,
        columns: Axis,
        image: BandImage,
        reference: BandImage,
    ) -> np.ndarray:
        """A band, or its noise, on other pixels; if its unit is one for each area of the sky, brightness is kept."""
        out = resampled(plane, rows, columns)
        if not np.isfinite(out).any() and np.isfinite(plane).any():
            raise DataError(
                f"{image.plane.path}: band {image.name} shows another part of the sky than {reference.name} in "
                f"{reference.plane.path.name}; they are not of one object"
            )
        if image.unit is not None and PER_AREA.search(image.unit):
            out = out / np.float32(abs(rows.step * columns.step))
        return out


class NoiseMaps:
    """The noise of objects in FITS files, as images.

    Parameters
    ----------
    files
        The objects.
    """

    def __init__(self, files: FitsObjects):
        self.files = files

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape (N, C, H, W)."""
        return self.files.shape

    @property
    def dtype(self) -> np.dtype:
        """Return the type of the pixels."""
        return self.files.dtype

    def __getitem__(self, rows: Any) -> np.ndarray:
        paths, side = self.files.paths, self.files.size.side
        maps = [self.files.noise(paths[row]) for row in np.atleast_1d(np.arange(len(paths))[rows])]
        if side is not None:
            maps = [crop_or_pad(noise, side, level=np.inf) for noise in maps]
        return np.stack(maps) if maps else np.empty((0, *self.shape[1:]), self.dtype)
