"""Images that lie one in a file, read when they are asked for: ``.npy`` and PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from darklens.data.bounds import check_expansion, check_image, naming
from darklens.data.unpickle import load_npy, read_header, split_pair
from darklens.errors import DataError


def as_channels(image: np.ndarray, path: Path) -> np.ndarray:
    """Return an image (H, W) or (C, H, W) as (C, H, W). Raises DataError if it is none, or has no pixels."""
    if image.ndim not in (2, 3) or not image.size:
        raise DataError(f"{path}: an array of shape {image.shape}; expected one image, (H, W) or (C, H, W)")
    return image[None] if image.ndim == 2 else image


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
        for path in paths:
            shape, dtype, _ = read_header(path)
            if dtype.hasobject:
                image, mass = split_pair(load_npy(path), path)
                shape, self.has_masses = image.shape, True
            else:
                mass = None
            self.masses.append(mass)
            if (shape if len(shape) == 3 else (1, *shape)) != self.image_shape:
                raise DataError(
                    f"{path}: shape {tuple(shape)}, but {paths[0]} has {self.image_shape[-len(shape) :]}; "
                    "images of one dataset need one shape"
                )

    @staticmethod
    def _inspect(path: Path) -> tuple[np.ndarray, bool]:
        image, mass = split_pair(load_npy(path), path)
        return as_channels(image, path), mass is not None

    def read(self, path: Path) -> np.ndarray:
        return as_channels(split_pair(load_npy(path), path)[0], path)


class PngFiles(ImageFiles):
    """PNG images: grey as one band, colour as three. Whatever is not PNG is refused, whatever its name."""

    def __init__(self, paths: Sequence[Path]):
        first = self.read(paths[0])
        super().__init__(paths, first.shape, first.dtype)

    def read(self, path: Path) -> np.ndarray:
        from PIL import Image

        with naming(path, "not a readable PNG"), Image.open(path, formats=["PNG"]) as image:
            # The size is known before the pixels are decompressed: at least a bit, at most four bytes each.
            check_expansion(path, image.width * image.height // 8, path.stat().st_size)
            check_image(path, image.width * image.height * 4)
            pixels = np.asarray(image.convert("RGB") if image.mode in ("P", "RGBA") else image)
        return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
