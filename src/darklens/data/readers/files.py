"""Read images that are stored one in a file, ``.npy``, PNG and JPEG, when they are indexed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from darklens.data.bounds import check_expansion, check_image, named_errors
from darklens.data.sizes import OneSize, sizes_message
from darklens.data.unpickle import load_npy, read_header, split_pair
from darklens.errors import DamagedFileError, DataError
from darklens.progress import progress_bar

COUNTED_FILES = 20_000
"""Files whose sizes are counted for the error message of a folder with several sizes. Measured: 10 s for
as many FITS or PNG files. A larger number makes the message slow, a smaller one makes it incomplete."""
BANDS_LAST = (3, 4)
"""Lengths of an image's last axis that are taken for bands. A guess, which `channels_note` reports: more of them would take
narrow images for bands, fewer would take colour images for stacks of narrow ones."""
COLOURS = ("R", "G", "B")
"""Names of the bands of colour images, which have no filters and no units."""
OPAQUE = {"P": "RGB", "PA": "RGB", "RGBA": "RGB", "LA": "L", "CMYK": "RGB", "YCbCr": "RGB"}
"""Modes of PIL that are converted to another: palettes, transparency, and colours of print and video."""

Channels = Literal["first", "last"]


def is_channels_last(shape: Sequence[int], channels: Channels | None = None) -> bool:
    """Return whether an image of a shape (three numbers) has its bands on the last axis.

    ``channels`` is the user's choice. Without it the answer is a guess: yes if the last axis has length three or four, and
    the first is longer than four.
    """
    return channels == "last" if channels is not None else shape[-1] in BANDS_LAST and shape[0] > max(BANDS_LAST)


def channels_note(shape: Sequence[int], name: str) -> str:
    """Return a note on an image or stack whose last axis was taken for its bands, and how to choose otherwise."""
    return f"{name}: the shape {tuple(shape)} is read as {shape[-1]} bands in the last place; --channels first if it is not"


def as_channels(image: np.ndarray, path: Path, channels: Channels | None = None) -> np.ndarray:
    """Bring an image to the axes (C, H, W), and return it.

    Parameters
    ----------
    image
        (H, W), (C, H, W) or (H, W, C).
    path
        The file it comes from, for errors.
    channels
        Which axis has the bands, first or last; None guesses (see `is_channels_last`).

    Returns
    -------
    np.ndarray
        (C, H, W), a view of the image.

    Raises
    ------
    DataError
        If it has another number of axes, or no pixels.
    """
    if image.ndim not in (2, 3) or not image.size:
        raise DataError(f"{path}: an array of shape {image.shape}; expected one image, (H, W) or (C, H, W)")
    if image.ndim == 2:
        return image[None]
    return np.moveaxis(image, -1, 0) if is_channels_last(image.shape, channels) else image


class ImageFiles:
    """Images of equal shape, one in each file; subclasses define how a file is read.

    Parameters
    ----------
    paths
        The N files.
    image_shape
        (C, H, W) of the first.
    dtype
        Type of the pixels of all.
    size
        Size to which images are cropped or padded.
    """

    def __init__(
        self, paths: Sequence[Path], image_shape: tuple[int, ...], dtype: np.dtype, *, size: OneSize = OneSize()
    ):
        self.paths = list(paths)
        self.size = size
        self.image_shape = image_shape if size.side is None else (image_shape[0], size.side, size.side)
        self.dtype = dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape (N, C, H, W)."""
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
        """Return the image (C, H, W) of a file."""
        raise NotImplementedError

    def shape_of(self, path: Path) -> tuple[int, ...]:
        """Return the shape (C, H, W) of the image of a file, from its header alone where the format has one."""
        return self.read(path).shape

    def _sizes(self, odd: tuple[int, ...]) -> str:
        """A message on which sizes there are, how many of each, and what to do."""
        shapes = count_shapes(self.paths[:COUNTED_FILES], self.shape_of)
        return sizes_message(shapes) if len(shapes) > 1 else f"shape {odd}; the others have {self.image_shape}"


def count_shapes(
    paths: Sequence[Path], shape_of: Callable[[Path], tuple[int, ...]]
) -> dict[tuple[int, ...], list[str]]:
    """Return the names of the files of each shape; files that cannot be read are left out. ``shape_of`` reads a shape."""
    shapes: dict[tuple[int, ...], list[str]] = {}
    for path in paths:
        try:
            shapes.setdefault(tuple(shape_of(path)), []).append(path.name)
        except DataError:
            continue
    return shapes


class NpyFiles(ImageFiles):
    """``.npy`` files, each a plain image or a pickled pair of image and mass. All headers are checked when they are opened.

    ``notes`` are sentences on what was guessed, ``masses`` has a value for each file, None where it has no mass.

    Parameters
    ----------
    paths
        The N files.
    size
        Size to which images are cropped or padded.
    channels
        Which axis has the bands, first or last; None guesses (see `is_channels_last`).

    Raises
    ------
    DataError
        If a file is damaged or holds no image, or if sizes differ and no ``size`` is given.
    """

    def __init__(self, paths: Sequence[Path], size: OneSize = OneSize(), channels: Channels | None = None):
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
        super().__init__(paths, shape, np.dtype(np.result_type(first.dtype, np.float32)), size=size)
        with progress_bar(f"reading the headers of {len(paths):,} files") as advance:
            for number, path in enumerate(paths, 1):
                self._inspect(path)
                advance(number, len(paths))
        if size.side is None and len(set(self._shapes.values())) > 1:
            raise DataError(f"{paths[0].parent}: {self._sizes(shape)}")

    def _inspect(self, path: Path) -> None:
        """Read the header of a file, and store its shape and mass."""
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
        """Return the image (C, H, W) of a file, without its mass."""
        return as_channels(split_pair(load_npy(path), path)[0], path, self.channels)

    def shape_of(self, path: Path) -> tuple[int, ...]:
        """Return the shape (C, H, W) of the image of a file, which was read when it was opened."""
        return self._shapes[path]


class PictureFiles(ImageFiles):
    """PNG or JPEG images, grey as one band and colour as R, G and B. Other formats are refused, whatever the file's name.

    ``bands`` are the names of the bands, none of grey images; ``notes`` are sentences on what was left out.

    Parameters
    ----------
    paths
        The N files.
    size
        Size to which images are cropped or padded.

    Raises
    ------
    DataError
        If none of the files is a readable PNG or JPEG.
    """

    def __init__(self, paths: Sequence[Path], size: OneSize = OneSize()):
        opened, first, mode = _first_readable(paths)
        # Files of one folder may have 1, 8 or 16 bits.
        super().__init__(paths, first.shape, np.dtype(np.uint16), size=size)
        self.bands = list(COLOURS) if len(first) == len(COLOURS) else []
        kind = _picture_format(opened)
        self.notes = [f"{kind}: brightness may be stretched, and is not calibrated"]
        if mode in OPAQUE and mode.endswith("A"):
            self.notes.append(f"{opened.name}: transparency (alpha) is left out")

    def read(self, path: Path) -> np.ndarray:
        """Return the image of a file, (1, H, W) grey or (3, H, W) colour, without transparency."""
        return _read_picture(path)[0]


def _first_readable(paths: Sequence[Path]) -> tuple[Path, np.ndarray, str]:
    """The first file that can be read, its image and mode; the others are named when they are read."""
    errors = []
    for path in paths:
        try:
            return path, *_read_picture(path)
        except DamagedFileError as error:
            errors.append(error)
    raise errors[0]


def _read_picture(path: Path) -> tuple[np.ndarray, str]:
    """The image (C, H, W) of a PNG or JPEG file, and what PIL calls its mode."""
    from PIL import Image

    kind = _picture_format(path)
    with named_errors(path, f"not a readable {kind}"), Image.open(path, formats=[kind]) as image:
        # The size is known before the pixels are decompressed: of PNG at least a bit, at most four bytes each.
        if kind == "PNG":
            check_expansion(path, image.width * image.height // 8, path.stat().st_size)
        check_image(path, image.width * image.height * 4)
        pixels = np.asarray(image.convert(OPAQUE[image.mode]) if image.mode in OPAQUE else image)
    return (pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)), image.mode


def _picture_format(path: Path) -> str:
    """What PIL calls the format that a file's name promises."""
    return "PNG" if path.suffix.lower() == ".png" else "JPEG"
