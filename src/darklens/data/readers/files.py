"""Images that lie one in a file, read when they are asked for: ``.npy`` and PNG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from darklens.data.bounds import check_expansion, check_image, naming
from darklens.data.sizes import OneSize, sizes_message
from darklens.data.unpickle import load_npy, read_header, split_pair
from darklens.errors import DataError
from darklens.progress import progress_bar

LOOKED_AT = 20_000
"""Files whose sizes are counted when a folder has several: all of most folders, in a few seconds."""
COLOURS = (3, 4)
"""Numbers in the last place of an image's shape that are taken for bands: more are as likely columns of pixels."""


def is_channels_last(shape: Sequence[int], said: Literal["first", "last"] | None = None) -> bool:
    """Return whether an image of this shape (three numbers) has its bands in the last place.

    Without the user's word it is guessed: three or four in the last place, and more than that in the first.
    """
    return said == "last" if said is not None else shape[-1] in COLOURS and shape[0] > max(COLOURS)


def channels_note(shape: Sequence[int], name: str) -> str:
    """Return a sentence on an image or stack whose last place was taken for its bands."""
    return f"{name}: the shape {tuple(shape)} is read as {shape[-1]} bands in the last place; --channels first if it is not"


def as_channels(image: np.ndarray, path: Path, said: Literal["first", "last"] | None = None) -> np.ndarray:
    """Return an image (H, W), (C, H, W) or (H, W, C) as (C, H, W).

    Raises
    ------
    DataError
        If it has another number of axes, or no pixels.
    """
    if image.ndim not in (2, 3) or not image.size:
        raise DataError(f"{path}: an array of shape {image.shape}; expected one image, (H, W) or (C, H, W)")
    if image.ndim == 2:
        return image[None]
    return np.moveaxis(image, -1, 0) if is_channels_last(image.shape, said) else image


class ImageFiles:
    """Images of equal shape, one a file; subclasses say how a file is read.

    Parameters
    ----------
    paths
        The files.
    image_shape
        (C, H, W) of the first.
    dtype
        Of all.
    size
        Images of differing size are brought to this one.
    """

    def __init__(self, paths: Sequence[Path], image_shape: tuple[int, ...], dtype: np.dtype, size: OneSize = OneSize()):
        self.paths = list(paths)
        self.size = size
        self.image_shape = image_shape if size.side is None else (image_shape[0], size.side, size.side)
        self.dtype = dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.paths), *self.image_shape)

    def __getitem__(self, rows: Any) -> np.ndarray:
        wanted = np.atleast_1d(np.arange(len(self.paths))[rows])
        out = np.empty((len(wanted), *self.image_shape), self.dtype)
        for i, row in enumerate(wanted):
            image = self.size(self.read(self.paths[row]), str(self.paths[row]))
            if image.shape != self.image_shape:
                raise DataError(f"{self.paths[row]}: {self._sizes(image.shape)}")
            out[i] = image
        return out

    def read(self, path: Path) -> np.ndarray:
        """One image (C, H, W)."""
        raise NotImplementedError

    def shape_of(self, path: Path) -> tuple[int, ...]:
        """Shape (C, H, W) of an image, by its header alone where the format has one."""
        return self.read(path).shape

    def _sizes(self, odd: tuple[int, ...]) -> str:
        """Which sizes there are, how many of each, and what to do."""
        shapes = count_shapes(self.paths[:LOOKED_AT], self.shape_of)
        return sizes_message(shapes) if len(shapes) > 1 else f"shape {odd}; the others have {self.image_shape}"


def count_shapes(
    paths: Sequence[Path], shape_of: Callable[[Path], tuple[int, ...]]
) -> dict[tuple[int, ...], list[str]]:
    """Return the names of the files of each shape; files that cannot be read are left out."""
    shapes: dict[tuple[int, ...], list[str]] = {}
    for path in paths:
        try:
            shapes.setdefault(tuple(shape_of(path)), []).append(path.name)
        except DataError:
            continue
    return shapes


class NpyFiles(ImageFiles):
    """``.npy`` files: plain images, or pickled pairs of image and mass. All headers are checked at once.

    ``notes`` say what was guessed, ``masses`` has one value or None a file.
    """

    def __init__(
        self, paths: Sequence[Path], size: OneSize = OneSize(), channels: Literal["first", "last"] | None = None
    ):
        self.channels = channels
        first, mass = split_pair(load_npy(paths[0]), paths[0])
        if first.dtype.kind not in "fiub":
            raise DataError(f"{paths[0]}: holds {first.dtype}, not numbers")
        self.has_masses = mass is not None
        self.notes: list[str] = []
        if first.ndim == 3 and is_channels_last(first.shape, channels):
            self.notes.append(channels_note(first.shape, paths[0].name))
        self.masses: list[float | None] = []
        self._shapes: dict[Path, tuple[int, ...]] = {}
        shape = as_channels(first, paths[0], channels).shape
        super().__init__(paths, shape, np.dtype(np.result_type(first.dtype, np.float32)), size)
        with progress_bar(f"reading the headers of {len(paths):,} files") as advance:
            for number, path in enumerate(paths, 1):
                self._inspect(path)
                advance(number, len(paths))
        if size.side is None and len(set(self._shapes.values())) > 1:
            raise DataError(f"{paths[0].parent}: {self._sizes(shape)}")

    def _inspect(self, path: Path) -> None:
        """Keep shape and mass of a file."""
        shape, dtype, _ = read_header(path)
        mass = None
        if dtype.hasobject:
            image, mass = split_pair(load_npy(path), path)
            shape, self.has_masses = image.shape, True
        self.masses.append(mass)
        if len(shape) == 3 and is_channels_last(shape, self.channels):
            shape = (shape[-1], *shape[:-1])
        self._shapes[path] = tuple(shape) if len(shape) != 2 else (1, *shape)

    def read(self, path: Path) -> np.ndarray:
        return as_channels(split_pair(load_npy(path), path)[0], path, self.channels)

    def shape_of(self, path: Path) -> tuple[int, ...]:
        return self._shapes[path]


class PngFiles(ImageFiles):
    """PNG images: grey as one band, colour as three. Whatever is not PNG is refused, whatever its name."""

    def __init__(self, paths: Sequence[Path], size: OneSize = OneSize()):
        first = self.read(paths[0])
        # Files of one folder may have 1, 8 or 16 bits.
        super().__init__(paths, first.shape, np.dtype(np.uint16), size)

    def read(self, path: Path) -> np.ndarray:
        from PIL import Image

        with naming(path, "not a readable PNG"), Image.open(path, formats=["PNG"]) as image:
            # The size is known before the pixels are decompressed: at least a bit, at most four bytes each.
            check_expansion(path, image.width * image.height // 8, path.stat().st_size)
            check_image(path, image.width * image.height * 4)
            pixels = np.asarray(image.convert("RGB") if image.mode in ("P", "RGBA") else image)
        return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
