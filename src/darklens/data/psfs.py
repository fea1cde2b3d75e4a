"""Write and read the point-spread functions of a dataset folder, ``psf.npy``.

It is an array (N, C, h, w), or (1, C, h, w) where all images have the same ones. Smaller PSFs are in the middle of a border
of zeros; a band of an image without a PSF is nan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from darklens.data.mapped import MappedImages
from darklens.errors import DataError

Psf = Callable[[int], dict[str, np.ndarray]]
"""Returns for the number of an image its point-spread functions (h, w) by band."""


def write_psfs(path: Path, psf: Psf, count: int, bands: Sequence[str]) -> dict[str, list[int]] | None:
    """Write the PSFs of all images, float32, and return the height and width of those of each band.

    Where those of a band differ in size, it is that of the largest. Each PSF is asked for twice: for its size, and to be
    written.

    Parameters
    ----------
    path
        The file to write.
    psf
        Returns the PSFs of an image.
    count
        Number of images.
    bands
        Names of the bands, in the order of the channels.

    Returns
    -------
    dict or None
        None if no image has a PSF; then nothing is written.

    Raises
    ------
    DataError
        If a PSF is of a band that there is not, or has no pixel in its middle.
    """
    sizes: dict[str, list[int]] = {}
    first, alike = psf(0) if count else {}, True
    for row in range(count):
        kernels = psf(row)
        for band, kernel in kernels.items():
            if band not in bands:
                raise DataError(f"image {row} has a PSF of band {band!r}; the bands are {', '.join(bands)}")
            if kernel.ndim != 2 or not all(side % 2 for side in kernel.shape):
                raise DataError(
                    f"image {row}: the PSF of band {band} has the shape {kernel.shape}; its sides must be odd, so that a "
                    "pixel is in its middle (darklens.data.resampling.resample_psf brings it to such)"
                )
            sizes[band] = [max(sides) for sides in zip(sizes.get(band, (1, 1)), kernel.shape, strict=True)]
        alike = alike and kernels.keys() == first.keys() and all(np.array_equal(kernels[b], first[b]) for b in first)
    if not sizes:
        return None
    shape = tuple(max(sides) for sides in zip(*sizes.values(), strict=True))
    written = 1 if alike else count
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(np.float32), shape=(written, len(bands), *shape))
    for row in range(written):
        kernels = psf(row)
        for channel, band in enumerate(bands):
            out[row, channel] = np.nan if band not in kernels else 0
            if band in kernels:
                out[row, channel][_middle(shape, kernels[band].shape)] = kernels[band]
    out.flush()
    return {band: sizes[band] for band in bands if band in sizes}


class StoredPsfs:
    """The PSFs of a dataset folder; its call returns those (h, w) of the image of a number, by band.

    Parameters
    ----------
    path
        ``psf.npy``.
    count
        Number of images.
    bands
        Names of the bands, in the order of the channels.
    sizes
        Height and width of the PSFs of each band, as `write_psfs` returns them; others have the array's.

    Raises
    ------
    DataError
        If the array is not that of so many images and bands, or the sizes are not those of PSFs in it.
    """

    def __init__(self, path: Path, count: int, bands: Sequence[str], sizes: Mapping[str, Sequence[int]]):
        self.bands, self.arrays = list(bands), MappedImages(path)
        shape, kind = self.arrays.shape, self.arrays.dtype.kind
        if kind != "f" or len(shape) != 4 or shape[0] not in (1, count) or shape[1] != len(bands):
            raise DataError(
                f"{path}: {self.arrays.dtype} of shape {shape}; expected floats, ({count} or 1, {len(bands)}, h, w)"
            )
        self._windows = {}
        for band in bands:
            size = tuple(sizes.get(band, shape[2:]))
            if len(size) != 2 or any(n > of or n < 1 or (of - n) % 2 for n, of in zip(size, shape[2:], strict=True)):
                raise DataError(
                    f"{path}: PSFs of band {band} of size {size} are not in the middle of {shape[2:]} pixels"
                )
            self._windows[band] = _middle(shape[2:], size)

    def __call__(self, row: int) -> dict[str, np.ndarray]:
        kernels = self.arrays[0 if self.arrays.shape[0] == 1 else row]
        return {
            band: np.array(kernel[self._windows[band]])
            for band, kernel in zip(self.bands, kernels, strict=True)
            if not np.isnan(kernel).all()
        }


def _middle(shape: Sequence[int], size: Sequence[int]) -> tuple[slice, slice]:
    """The central ``size`` pixels of an array of a shape."""
    rows, columns = (slice((of - n) // 2, (of + n) // 2) for of, n in zip(shape, size, strict=True))
    return rows, columns
