"""Images that lie one in a file, read when they are asked for: ``.npy`` and PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from darklens.data.unpickle import load_npy, read_header, split_pair
from darklens.errors import DataError
from darklens.progress import progress_bar


def as_channels(image: np.ndarray, path: Path) -> np.ndarray:
    """An image (H, W) or (C, H, W) as (C, H, W)."""
    if image.ndim == 2:
        return image[None]
    if image.ndim != 3:
        raise DataError(f"{path}: an array of shape {image.shape}; expected one image, (H, W) or (C, H, W)")
    return image


class ImageFiles:
    """Images of equal shape, one a file; subclasses say how a file is read."""

    def __init__(self, paths: Sequence[Path], image_shape: tuple[int, ...], dtype: np.dtype):
        self.paths = list(paths)
        self.image_shape = image_shape
        self.dtype = dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.paths), *self.image_shape)

    def __getitem__(self, rows: Any) -> np.ndarray:
        wanted = np.atleast_1d(np.arange(len(self.paths))[rows])
        out = np.empty((len(wanted), *self.image_shape), self.dtype)
        for i, row in enumerate(wanted):
            image = self.read(self.paths[row])
            if image.shape != self.image_shape:
                raise DataError(f"{self.paths[row]}: shape {image.shape}; the first image has {self.image_shape}")
            out[i] = image
        return out

    def read(self, path: Path) -> np.ndarray:
        """One image (C, H, W)."""
        raise NotImplementedError


class NpyFiles(ImageFiles):
    """``.npy`` files: plain images, or pickled pairs of image and mass. All headers are checked at once."""

    def __init__(self, paths: Sequence[Path]):
        first, self.has_masses = self._inspect(paths[0])
        super().__init__(paths, first.shape, np.dtype(np.result_type(first.dtype, np.float32)))
        self.masses: list[float | None] = []
        with progress_bar(f"reading the headers of {len(paths):,} files") as advance:
            for number, path in enumerate(paths, 1):
                self.masses.append(self._check(path))
                advance(number, len(paths))

    def _check(self, path: Path) -> float | None:
        """Refuse a file whose image has another shape than the first; returns the mass beside it, if there is one."""
        shape, dtype, _ = read_header(path)
        mass = None
        if dtype.hasobject:
            image, mass = split_pair(load_npy(path), path)
            shape, self.has_masses = image.shape, True
        if (shape if len(shape) == 3 else (1, *shape)) != self.image_shape:
            raise DataError(
                f"{path}: shape {tuple(shape)}, but {self.paths[0]} has {self.image_shape[-len(shape) :]}; "
                "images of one dataset need one shape"
            )
        return mass

    @staticmethod
    def _inspect(path: Path) -> tuple[np.ndarray, bool]:
        image, mass = split_pair(load_npy(path), path)
        if image.dtype.kind not in "fiub":
            raise DataError(f"{path}: holds {image.dtype}, not numbers")
        return as_channels(image, path), mass is not None

    def read(self, path: Path) -> np.ndarray:
        return as_channels(split_pair(load_npy(path), path)[0], path)


class PngFiles(ImageFiles):
    """PNG images: grey as one band, colour as three."""

    def __init__(self, paths: Sequence[Path]):
        first = self.read(paths[0])
        super().__init__(paths, first.shape, first.dtype)

    def read(self, path: Path) -> np.ndarray:
        from PIL import Image

        try:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB") if image.mode in ("P", "RGBA") else image)
        except (OSError, SyntaxError) as error:
            raise DataError(f"{path}: not a readable PNG: {error}") from error
        return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
