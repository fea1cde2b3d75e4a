"""Read objects from FITS files: their bands by name, on one pixel grid and flux scale, with noise maps and PSFs.

Headers say of each object what it is; nothing is taken from the first file for all. What is brought to one scale or left
out is counted and said in ``notes``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from darklens.commands import command
from darklens.data.bands import by_wavelength, chosen, find_bands
from darklens.data.bounds import named_errors
from darklens.data.readers.companions import Companions
from darklens.data.readers.files import COUNTED_FILES, ImageFiles
from darklens.data.readers.fits_hdus import read_hdus
from darklens.data.readers.fits_headers import SAME_SCALE, BandImage, InTurns, Plane, read_bands
from darklens.data.readers.fits_pixels import NO_DATA, open_fits, read_deviation, read_plane
from darklens.data.readers.words import NoiseKind
from darklens.data.resampling import Axis, about_centre, resample, resample_noise, resample_psf
from darklens.data.sizes import OneSize, crop_or_pad
from darklens.errors import DamagedFileError, DataError
from darklens.progress import progress_bar

SAME_ZERO_POINT = 1e-4
"""Zero points that differ by less, magnitudes, are one: 0.01% in flux. Rounding in headers is smaller."""
SAME_PIXEL = 0.05
"""Bands whose pixels lie within this fraction of a pixel of each other are not resampled, which would correlate their
noise for a shift that no fit notices. A choice, not tuned."""

PER_AREA = re.compile(r"(/\s*|\b)(sr|arcsec|arcmin|deg)\b", re.IGNORECASE)
"""In units of brightness for each area of the sky, such as MJy/sr."""
EMPTY = 0.1
"""Fraction of pixels that are exactly 0 from which an image has no noise. In eight files of HOLISMOKES, models of the arcs
have 0.35 to 0.45, and the images that hold them none. A larger one takes faint models for bands."""

Object = dict[str, BandImage]
"""The bands of an object by name."""


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
        images = np.stack([read_plane(file, band.plane, band.blank) for band in bands]).astype(np.float32)
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
    - a band is multiplied by 10^(0.4 (zero point of the first object - its own)), where both are known;
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

    Attributes
    ----------
    bands
        Names of the bands that are read.
    zero_points
        AB magnitude of one unit of flux by band, of the first object and so of all; None if unknown.
    pixel_scale
        Side of a pixel, arcsec; None if unknown.
    unit
        Of all pixels; None if unknown, or if they differ.
    has_noise
        Whether every band of every object has a noise map.
    has_psf
        Whether any has a PSF.
    notes
        What was left out, resampled or guessed, with counts.

    Raises
    ------
    DataError
        If the first object cannot be read, or no band is common to all.
    """

    def __init__(
        self,
        objects: Sequence[Sequence[Path]],
        names: Sequence[str] | None = None,
        *,
        bands: Sequence[str] | None = None,
        size: OneSize = OneSize(),
        companions: Companions = Companions(),
    ):
        self.objects = [list(files) for files in objects]
        self.paths, self.names, self.companions = [files[0] for files in self.objects], names, companions
        self._numbers = {path: number for number, path in enumerate(self.paths)}
        self.notes: list[str] = []
        self._in_turns = self._find_turns()
        self._scanned = scanned = self._scan()
        self._first = next(iter(scanned))
        self.bands = self._chosen(bands, scanned) if bands is not None else self._common(scanned)
        first = scanned[self._first]
        self.zero_points = {band: first[band].zero_point for band in self.bands}
        self._note_zero_points(scanned)
        self.unit = self._common_unit(scanned)
        self.pixel_scale = self._common_scale(scanned)
        self.has_noise = self._all_have_noise(scanned)
        self.has_psf = any(band.psf is not None for found in scanned.values() for band in found.values())
        shapes = {path: self._shape(found) for path, found in scanned.items() if self.bands[0] in found}
        super().__init__(
            self.paths,
            (len(self.bands), *shapes[self._first]),
            np.dtype(np.float32),
            size=self._one_size(size, shapes),
        )

    def _find_turns(self) -> InTurns | None:
        """What every second image holds, where images without names and what belongs to them are in turns."""
        if self.names is not None:
            return None
        found = set()
        for path in dict.fromkeys((self.paths[0], self.paths[len(self.paths) // 2], self.paths[-1])):
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

    def _scan(self) -> dict[Path, Object]:
        """The headers of the first `COUNTED_FILES` objects that can be read; at least one must be."""
        scanned: dict[Path, Object] = {}
        refused: DataError | None = None
        looked_at = self.objects[:COUNTED_FILES]
        with progress_bar(f"reading the headers of {len(looked_at):,} objects") as advance:
            for number, files in enumerate(looked_at, 1):
                try:
                    scanned[files[0]] = self._headers(files)
                except DataError as error:  # it is named again when it is read, or left out by who asks for that
                    refused = refused or error
                advance(number, len(looked_at))
        if not scanned and refused is not None:
            raise refused
        return scanned

    def _headers(self, files: Sequence[Path]) -> Object:
        """What the headers of an object's files say of its bands."""
        found: Object = {}
        for number, path in enumerate(files):
            images = read_bands(read_hdus(path), path, in_turns=self._in_turns)
            if self.names is not None:
                images = [replace(images[0], name=self.names[number])]
            if (beside := self.companions.of(path)) is not None:
                noise = _planes_beside(beside.noise, images, kind=beside.kind)
                psf = _planes_beside(beside.psf, images, shared=True)
                images = [
                    replace(image, noise=noise.get(image.name, image.noise), psf=psf.get(image.name, image.psf))
                    for image in images
                ]
            found |= {image.name: image for image in images}
        return found

    def _chosen(self, bands: Sequence[str], scanned: Mapping[Path, Object]) -> list[str]:
        """The bands that are asked for, if the first object has them; a note on those without."""
        for path, found in scanned.items():
            if (places := chosen(bands, list(found))) is not None:
                self._first, names = path, [list(found)[place] for place in places]
                break
        else:
            known = list(dict.fromkeys(band for found in scanned.values() for band in found))
            names = [known[place] for place in find_bands(bands, known, self._first)]
            raise DataError(f"{self._first}: no object has all of the bands {', '.join(names)}; ask for fewer")
        if lacking := sum(not set(names) <= set(found) for found in scanned.values()):
            self.notes.append(f"{lacking:,} of {len(scanned):,} files lack one of the bands {', '.join(names)}")
        return names

    def _common(self, scanned: Mapping[Path, Object]) -> list[str]:
        """Bands of all objects, in the order of the first; notes on the others."""
        counts = Counter(band for bands in scanned.values() for band in bands)
        common = [band for band in scanned[self._first] if counts[band] == len(scanned)]
        if not common:
            odd = min(scanned, key=lambda path: len(set(scanned[path]) & set(scanned[self._first])))
            raise DataError(
                f"no band is common to all {len(scanned):,} files: {self._first} has "
                f"{', '.join(scanned[self._first])}, {odd.name} has {', '.join(scanned[odd])}; read those of other bands "
                f"apart, such as by {command('look', self._first)} and {command('look', odd)}"
            )
        for band in by_wavelength([band for band in counts if band not in common]):
            self.notes.append(
                f"band {band} left out: {len(scanned) - counts[band]:,} of {len(scanned):,} files lack it"
            )
        return common

    def _note_zero_points(self, scanned: Mapping[Path, Object]) -> None:
        """Say how far zero points differ, and how many are not known."""
        for band in self.bands:
            reference = self.zero_points[band]
            found = [bands[band].zero_point for bands in scanned.values() if band in bands]
            known = [value for value in found if value is not None]
            if reference is not None and max(known) - min(known) > SAME_ZERO_POINT:
                self.notes.append(
                    f"zero points of {band} from {min(known):.2f} to {max(known):.2f}: fluxes are brought to that of "
                    f"{self._first.name}, {reference:.2f}"
                )
            if known and len(known) < len(found):
                unknown = len(found) - len(known)
                self.notes.append(
                    f"zero point of {band} unknown in {unknown:,} of {len(found):,} files: left as they are"
                )

    def _common_unit(self, scanned: Mapping[Path, Object]) -> str | None:
        """The unit of all bands of all objects; None if one does not say, or they differ, which a note says."""
        units = Counter(found[band].unit for found in scanned.values() for band in self.bands if band in found)
        if len(units) > 1:
            said = ", ".join(f"{unit or 'not said'} ({count:,})" for unit, count in units.most_common())
            self.notes.append(f"units of images differ: {said}; left as they are")
        return next(iter(units)) if len(units) == 1 else None

    def _common_scale(self, scanned: Mapping[Path, Object]) -> float | None:
        """The pixel scale of most objects; notes on the others, and on bands with pixels of their own."""
        first = self.bands[0]
        scales = [bands[first].scale for bands in scanned.values() if first in bands]
        known = [scale for scale in scales if scale is not None]
        if not known:
            common = None
        else:
            logs = np.log(known)
            reach = np.searchsorted(np.sort(logs), [logs - SAME_SCALE, logs + SAME_SCALE])
            common = known[int(np.argmax(reach[1] - reach[0]))]
            if others := [scale for scale in known if not _is_same_scale(scale, common)]:
                listed = (
                    f"{min(others):.4g}″" if min(others) == max(others) else f"{min(others):.4g}″ to {max(others):.4g}″"
                )
                self.notes.append(
                    f"{len(others):,} of {len(scales):,} files with pixels of {listed}: resampled to {common:.4g}″, "
                    "which most have"
                )
            if len(known) < len(scales):
                self.notes.append(
                    f"pixel scale unknown in {len(scales) - len(known):,} of {len(scales):,} files: taken for {common:.4g}″"
                )
        for band in self.bands[1:]:
            pairs = [(bands[first], bands[band]) for bands in scanned.values() if {first, band} <= set(bands)]
            moved = [pair for pair in pairs if not _on_same_pixels(*pair)]
            if moved:
                guessed = [pair for pair in moved if not _both_known(*pair)]
                how = ", taken to show the same field, as there is no WCS" if guessed else ""
                count = "" if len(moved) == len(pairs) else f" in {len(moved):,} of {len(pairs):,} objects"
                where = "" if guessed else ", where its WCS differs"
                self.notes.append(f"band {band} resampled to the pixels of {first}{count}{how}{where}")
        return common

    def _all_have_noise(self, scanned: Mapping[Path, Object]) -> bool:
        having = [all(b in bands and bands[b].noise is not None for b in self.bands) for bands in scanned.values()]
        if any(having) and not all(having):
            self.notes.append(
                f"noise maps of {sum(having):,} of {len(having):,} objects: not used, as others lack them"
            )
        return all(having)

    def _one_size(self, size: OneSize, shapes: Mapping[Path, tuple[int, int]]) -> OneSize:
        """The size that is asked for, or that most images have."""
        counts = Counter(shapes.values())
        if size.side is not None or len(counts) == 1:
            return size
        most = sorted(counts, key=lambda shape: (counts[shape], max(shape)))[-1]
        side = max(most)
        cropped = sum(max(shape) > side for shape in shapes.values())
        padded = sum(min(shape) < side for shape in shapes.values())
        self.notes.append(
            f"images of {len(counts)} sizes brought to {side}×{side} pixels: {cropped:,} cropped, {padded:,} padded; "
            "--crop or --pad chooses another"
        )
        return OneSize(side, side)

    def _shape(self, found: Object) -> tuple[int, int]:
        rows, columns = self._axes(found[self.bands[0]])
        return rows.count, columns.count

    def _has_common_scale(self, image: BandImage) -> bool:
        """Whether a band has the pixel scale of all; one that is unknown is taken for it."""
        if image.scale is None or self.pixel_scale is None:
            return True
        return _is_same_scale(image.scale, self.pixel_scale)

    def _axes(self, image: BandImage) -> tuple[Axis, Axis]:
        """The pixels to which an object is brought, in those of its first band."""
        step = 1.0
        if not self._has_common_scale(image):
            assert image.scale is not None
            assert self.pixel_scale is not None
            step = self.pixel_scale / image.scale
        return about_centre(image.shape[0], step), about_centre(image.shape[1], step)

    def shape_of(self, path: Path) -> tuple[int, ...]:
        """Return the shape (C, H, W) of the bands in a file, from its headers."""
        return (len(self.bands), *self._shape(self._found(path)))

    def position_of(self, path: Path) -> tuple[float, float] | None:
        """Return right ascension and declination of the centre of an object, degrees; None if unknown, or not looked at."""
        image = self._scanned.get(path, {}).get(self.bands[0])
        if image is None or image.sky is None:
            return None
        with suppress(Exception):  # what astropy says of a WCS that makes no sense
            return image.sky.position(image.shape)
        return None

    def _found(self, path: Path) -> Object:
        found = self._scanned.get(path) or self._headers(self.objects[self._numbers[path]])
        if missing := [name for name in self.bands if name not in found]:
            raise DataError(
                f"{path}: no band {', '.join(missing)}, which {self._first.name} has; it has {', '.join(found)}"
            )
        return found

    def read(self, path: Path) -> np.ndarray:
        """Return the bands (C, H, W) of an object, named by its first file, on the pixels and the flux scale of all."""

        def of_band(opened: Callable[[Path], Any], image: BandImage) -> np.ndarray:
            pixels = read_plane(opened(image.plane.path), image.plane, image.blank)
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
        """Return the PSF (h, w) of each band of an object that has one, on the pixels of all, with sum 1."""
        found, kernels = self._found(path), {}
        reference = found[self.bands[0]]
        for band in self.bands:
            if (plane := found[band].psf) is not None:
                with open_fits(plane.path) as file:
                    kernel = read_plane(file, plane).astype(np.float64)
                rows, columns = self._axes_of(found[band], reference, path)
                kernel = kernel[:: 1 if rows.step > 0 else -1, :: 1 if columns.step > 0 else -1]
                step = float(np.sqrt(abs(rows.step * columns.step)))
                if kernel.sum() > 0:
                    kernels[band] = resample_psf(kernel, step if abs(step - 1) > SAME_SCALE else 1.0)
        return kernels

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
        reference = found[self.bands[0]]
        as_it_is = self._has_common_scale(reference)
        files: dict[Path, Any] = {}
        with ExitStack() as stack:

            def opened(file: Path) -> Any:
                if file not in files:
                    files[file] = stack.enter_context(open_fits(file))
                return files[file]

            for name in self.bands:
                image = found[name]
                plane = of_band(opened, image)
                if (factor := self._factor(image)) != 1:
                    plane = plane * factor
                if not (as_it_is and _on_same_pixels(image, reference)):
                    rows, columns = self._axes_of(image, reference, path)
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

    def _axes_of(self, image: BandImage, reference: BandImage, path: Path) -> tuple[Axis, Axis]:
        """The pixels to which an object is brought, in those of one of its bands."""
        rows, columns = self._axes(reference)
        if _on_same_pixels(image, reference):
            return rows, columns
        if _both_known(image, reference):
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

    def _factor(self, image: BandImage) -> np.float32:
        """What a band is multiplied by."""
        own, reference = image.zero_point, self.zero_points[image.name]
        if own is None or reference is None or abs(own - reference) <= SAME_ZERO_POINT:
            return np.float32(1)
        return np.float32(10 ** (0.4 * (reference - own)))


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


def _is_same_scale(scale: float, other: float) -> bool:
    return abs(scale / other - 1) <= SAME_SCALE


def _both_known(image: BandImage, other: BandImage) -> bool:
    return image.scale is not None and other.scale is not None


def _on_same_pixels(image: BandImage, other: BandImage) -> bool:
    """Whether the pixels of two bands are the same by their headers; without a WCS those of one size are."""
    return image.shape == other.shape and (image.sky == other.sky or not _both_known(image, other))


def _kind_in_turns(path: Path) -> InTurns | Literal["undecided"] | None:
    """What every second image of a file holds, if none has a name; None if these are bands, by their names or values."""
    bands = read_bands(read_hdus(path), path)
    if len(bands) % 2 or any(band.named or band.plane.number is not None for band in bands):
        return None
    with open_fits(path) as file:
        planes = [read_plane(file, band.plane, band.blank) for band in bands]
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
    path: Path | None, images: Sequence[BandImage], *, kind: NoiseKind = "deviation", shared: bool = False
) -> dict[str, Plane]:
    """The noise map or PSF of each band in a file of its own: by name, or in their order if there are as many.

    If it may be shared, a single one that names no band is that of all.
    """
    if path is None:
        return {}
    hdus = read_hdus(path)
    found = {hdu.number: hdu.shape for hdu in hdus if hdu.is_image and hdu.shape}
    if not found:
        raise DataError(f"{path}: no image in it")
    named = {
        image.name: Plane(path, number, kind=kind)
        for image in images
        for number in found
        if re.fullmatch(rf"{re.escape(image.name.upper())}([-_. ].*)?", hdus[number].name.upper())
    }
    if named:
        return named
    planes = [Plane(path, number, kind=kind) for number, shape in found.items() if len(shape) == 2]
    if len(found) == 1 and not planes:  # a cube
        (number, shape), *_ = found.items()
        planes = [Plane(path, number, i, kind) for i in range(shape[0])]
    if shared and len(planes) == 1:
        planes *= len(images)
    if len(planes) != len(images):
        return {}
    return {image.name: plane for image, plane in zip(images, planes, strict=True)}
