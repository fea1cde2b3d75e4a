"""Read and write datasets: images, a catalogue with a row for each image, and a description.

On disk it is a folder that any tool can read: ``images.npy`` (N, C, H, W), ``catalog.parquet`` and ``dataset.json``
(``targets.npy`` beside them for super-resolution, ``noise.npy`` for noise maps, ``psf.npy`` for PSFs, and ``mask.npy`` for
pixels of simulated scenes that hold no data, which is written and not read). It is written under another name, and renamed
when it is complete.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from darklens.data.bands import find_bands
from darklens.data.mapped import MappedImages
from darklens.data.psfs import Psf, StoredPsfs, write_psfs
from darklens.errors import DataError
from darklens.paths import LOCK, OWNER, check_absent, only_one
from darklens.schema import from_keys, known_keys, read_versioned

FORMAT = 1
"""Version of ``dataset.json``: higher by one where older versions of darklens could not read it."""


class Images(Protocol):
    """Images that can be fetched by row numbers, as float or integer arrays (n, C, H, W)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape (N, C, H, W)."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """Return the type of the pixels."""
        ...

    def __getitem__(self, rows: Any, /) -> np.ndarray: ...


ROWS = "rows"
"""Folder of an unfinished dataset with the catalogue's rows, a file for each checkpoint."""


@dataclass(frozen=True)
class DatasetInfo:
    """Description of a dataset, the content of ``dataset.json``.

    Parameters
    ----------
    source
        Where the images come from: a path, or ``preset:NAME``.
    classes
        Names of the classes, in the order of the label numbers.
    bands
        Names of the bands, in the order of the channels.
    pixel_scale
        Side of a pixel, arcsec; None if unknown.
    zero_points
        AB magnitude of one ``unit`` of flux, for each band; None if unknown.
    unit
        Unit of the pixels, such as ``counts`` or ``e-/s``; None if unknown.
    layout
        Name of the layout that was found, a key of `darklens.data.layouts.LAYOUTS` or ``ALIASES``.
    seed, noise, preset
        Of a simulated dataset: its seed, whether it has noise, and all values of its preset.
    psf_sizes
        Of point-spread functions in ``psf.npy``: their height and width by band, pixels; None without.
    notes
        Sentences on what was guessed or left out in reading.
    versions, checksum
        Versions of the packages that wrote ``images.npy``, and its SHA-256.
    format
        Version of this description.
    """

    source: str
    classes: list[str] = field(default_factory=list)
    bands: list[str] = field(default_factory=list)
    pixel_scale: float | None = None
    zero_points: list[float | None] = field(default_factory=list)
    unit: str | None = None
    layout: str = "dataset"
    seed: int | None = None
    noise: bool | None = None
    preset: dict[str, Any] | None = None
    psf_sizes: dict[str, list[int]] | None = None
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    checksum: str | None = None
    format: int = FORMAT


@dataclass
class Cutouts:
    """Images, whatever they are stored in, with their catalogue; pixels are read when they are indexed.

    Parameters
    ----------
    images
        Images (N, C, H, W).
    catalog
        A row for each image, with a column ``id``.
    info
        Description of the dataset.
    targets
        Images that super-resolution is to predict, (N, C, H', W'); None otherwise.
    path
        Where the dataset is, for errors; None if that is the source that ``info`` names.
    noise
        Standard deviation of the noise of each pixel, (N, C, H, W), infinite where there is no data; None if unknown.
    psf
        Returns for the number of an image its point-spread functions (h, w) by band; None if they are unknown.
    without_row, without_image
        Where a catalogue was joined: identifiers of images that have no row in it, and of rows that have no image.
    overruled
        Notes on what the user says of the images and they themselves say otherwise, which are among those of ``info`` too.

    Raises
    ------
    DataError
        If images and rows differ in number.
    """

    images: Images
    catalog: pl.DataFrame
    info: DatasetInfo
    targets: Images | None = None
    path: Path | None = None
    noise: Images | None = None
    psf: Psf | None = None
    without_row: Sequence[str] = ()
    without_image: Sequence[str] = ()
    overruled: Sequence[str] = ()

    def __post_init__(self) -> None:
        if len(self.catalog) != self.images.shape[0]:
            raise DataError(f"{self.where}: {self.images.shape[0]} images but {len(self.catalog)} catalogue rows")

    def __len__(self) -> int:
        return len(self.catalog)

    @property
    def where(self) -> str:
        """Return what errors name: the path, or else the source."""
        return self.info.source if self.path is None else str(self.path)

    @property
    def bands(self) -> list[str]:
        """Return the names of the bands, their numbers from 0 where they have none."""
        return self.info.bands or [str(number) for number in range(self.images.shape[1])]

    @property
    def ids(self) -> list[str]:
        """Return the identifiers as text, in the order of the images."""
        return self.catalog["id"].cast(pl.String).to_list()

    def check_columns(self, columns: Sequence[str]) -> None:
        """Refuse a catalogue that lacks a column that a task needs; that of the labels is asked for by `labels`.

        Raises
        ------
        DataError
            If one is missing; the message names those that hold numbers.
        """
        if missing := [column for column in columns if column not in (*self.catalog.columns, "label")]:
            hint = "" if self.where.startswith("preset:") else ". --catalog joins a table of your own"
            raise DataError(
                f"{self.where}: no column {missing[0]!r}, which the task needs; numbers are in {self._numeric()}{hint}"
            )

    def _numeric(self) -> str:
        return ", ".join(name for name, kind in self.catalog.schema.items() if kind.is_numeric()) or "none"

    def labels(self, classes: Sequence[str]) -> np.ndarray:
        """Return the label number of each image, (N,) int64: the place of its class in a list of names.

        Where some images have no label (null, or empty text), numbers are float64, and nan there. The two sets of names
        that DeepLense has for its classes (`SYNONYMS`) are taken for each other.

        Raises
        ------
        DataError
            If there are no labels, or one is not among ``classes``.
        """
        if "label" not in self.catalog.columns:
            raise DataError(
                f"{self.where}: the catalogue has no column 'label'; give a folder for each class, or a catalogue"
            )
        numbers: dict[str | None, float] = {name: i for i, name in enumerate(classes)}
        numbers |= {
            alias: i for i, name in enumerate(classes) for alias in SYNONYMS.get(name, ()) if alias not in numbers
        }
        names = self.catalog["label"].cast(pl.String).to_list()
        missing = {None, ""}.intersection(names)
        numbers |= dict.fromkeys(missing, np.nan)
        for row, name in enumerate(names):
            if name not in numbers:
                raise DataError(
                    f"{self.where}: row {row} (id {self.catalog['id'][row]}) has label {name!r}; "
                    f"expected one of {', '.join(classes)}"
                )
        return np.array([numbers[name] for name in names], dtype=np.float64 if missing else np.int64)

    def values(self, column: str) -> np.ndarray:
        """Return a numeric column as float64 (N,), nan where it has no value.

        Raises
        ------
        DataError
            If there is no such column, or it does not hold numbers.
        """
        if column not in self.catalog.columns:
            raise DataError(f"{self.where}: no column {column!r}; numbers are in {self._numeric()}")
        if not self.catalog.schema[column].is_numeric():
            raise DataError(f"{self.where}: column {column!r} does not hold numbers")
        return self.catalog[column].cast(pl.Float64).to_numpy()

    def subset(self, rows: np.ndarray) -> Cutouts:
        """Return the images of some rows (n,), with their catalogue; pixels are still read when they are indexed."""
        images, targets, noise = (
            None if of is None else ImageSubset(of, rows) for of in (self.images, self.targets, self.noise)
        )
        assert images is not None
        psf = None if self.psf is None else partial(_renumbered, self.psf, rows)
        some = Cutouts(images, self.catalog[rows], self.info, targets, self.path, noise, psf)
        if self.without_row:
            kept = set(some.ids)
            some.without_row = [name for name in self.without_row if name in kept]
        some.without_image, some.overruled = self.without_image, self.overruled
        return some

    def with_bands(self, names: Sequence[str]) -> Cutouts:
        """Return the images with some of their bands, in the given order; by number from 0 where bands have no names.

        Raises
        ------
        DataError
            If one is not there, or comes twice.
        """
        places = find_bands(names, self.bands, self.where)
        found = [self.bands[place] for place in places]
        if found == self.info.bands:
            return self
        zero_points = [self.info.zero_points[place] for place in places] if self.info.zero_points else []
        return dataclasses.replace(
            self,
            images=SelectedBands(self.images, places),
            noise=None if self.noise is None else SelectedBands(self.noise, places),
            info=dataclasses.replace(self.info, bands=found, zero_points=zero_points),
            psf=None if self.psf is None else partial(_of_bands, self.psf, found),
        )


def _renumbered(psf: Psf, rows: np.ndarray, row: int) -> dict[str, np.ndarray]:
    return psf(int(rows[row]))


def _of_bands(psf: Psf, bands: Sequence[str], row: int) -> dict[str, np.ndarray]:
    kernels = psf(row)
    return {band: kernels[band] for band in bands if band in kernels}


def _of_shards(psfs: Sequence[Psf | None], starts: np.ndarray, row: int) -> dict[str, np.ndarray]:
    shard = int(np.searchsorted(starts, row, side="right")) - 1
    psf = psfs[shard]
    return {} if psf is None else psf(row - int(starts[shard]))


def read_window(images: Images, rows: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
    """Return a part of some images; of mapped files, however they are joined and chosen from, only that part is read.

    Parameters
    ----------
    images
        Images (N, C, H, W).
    rows
        Numbers (n,) of the images.
    window
        Rows and columns of pixels, h and w of them.

    Returns
    -------
    np.ndarray
        (n, C, h, w).
    """
    if isinstance(images, MappedImages):
        return images.window(rows, window)
    if isinstance(images, ImageSubset):
        return read_window(images.images, images.rows[rows], window)
    if isinstance(images, SelectedBands):
        return read_window(images.images, rows, window)[:, images.channels]
    if isinstance(images, ConcatenatedImages):
        height, width = (len(range(*part.indices(side))) for part, side in zip(window, images.shape[-2:], strict=True))
        out = np.empty((len(rows), images.shape[1], height, width), images.dtype)
        for part, here, inner in images.parts_of(rows):
            out[here] = read_window(part, inner, window)
        return out
    return images[rows][..., window[0], window[1]]


SYNONYMS = {
    "no_sub": ("no",), "no": ("no_sub",),
    "cdm": ("sphere", "sub"), "sphere": ("cdm", "sub"),
    "axion": ("vort", "vortex"), "vort": ("axion", "vortex"),
}  # fmt: skip
"""Other names of each class of DeepLense, which its releases use for the same."""


@dataclass(frozen=True)
class ImageSubset:
    """Some rows of other images.

    Parameters
    ----------
    images
        Images (N, C, H, W).
    rows
        Numbers (n,) of the rows, in any order.
    """

    images: Images
    rows: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape (N, C, H, W)."""
        return (len(self.rows), *self.images.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """Return the type of the pixels."""
        return self.images.dtype

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.images[self.rows[rows]]


@dataclass(frozen=True)
class SelectedBands:
    """Some bands of other images.

    Parameters
    ----------
    images
        Images (N, C, H, W).
    channels
        Numbers of the bands, in any order.
    """

    images: Images
    channels: Sequence[int]

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape (N, bands, H, W)."""
        return (self.images.shape[0], len(self.channels), *self.images.shape[2:])

    @property
    def dtype(self) -> np.dtype:
        """Return the type of the pixels."""
        return self.images.dtype

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.images[rows][:, self.channels]


@dataclass(frozen=True)
class ConcatenatedImages:
    """The images of several datasets (shards) as one, in their order.

    Parameters
    ----------
    parts
        Images (N_i, C, H, W), equal but for their number.
    """

    parts: Sequence[Images]

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape (N, C, H, W)."""
        return (sum(p.shape[0] for p in self.parts), *self.parts[0].shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """Return the smallest type that holds the pixels of all."""
        return np.result_type(*(p.dtype for p in self.parts))

    def __getitem__(self, rows: Any) -> np.ndarray:
        wanted = np.atleast_1d(np.arange(self.shape[0])[rows])
        out = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        for part, here, inner in self.parts_of(wanted):
            out[here] = part[inner]
        return out

    def parts_of(self, rows: np.ndarray) -> Iterator[tuple[Images, np.ndarray, np.ndarray]]:
        """Yield the parts that hold some of the rows (n,).

        Each comes with which of the rows it holds (n,), of bool, and their numbers within it.
        """
        start = 0
        for part in self.parts:
            here = (rows >= start) & (rows < start + part.shape[0])
            if here.any():
                yield part, here, rows[here] - start
            start += part.shape[0]


def read_dataset(path: Path) -> Cutouts:
    """Open a dataset folder, or a folder of such folders (shards), and return it; images are memory-mapped.

    Raises
    ------
    DataError
        If a part is missing or damaged, or it was written by a newer darklens.
    """
    if not (path / "dataset.json").is_file():
        shards = sorted(p.parent for p in path.glob("*/dataset.json"))
        if not shards:
            raise DataError(f"{path}: no dataset.json here or one folder down")
        return _join([read_dataset(shard) for shard in shards], path)
    from darklens.data.readers.tables import check_names, read_parquet

    info = _read_info(path / "dataset.json")
    for name in ("images.npy", "catalog.parquet"):
        if not (path / name).is_file():
            raise DataError(f"{path}: {name} is missing; the folder is not whole")
    images = _read_images(path / "images.npy")
    catalog = read_parquet(path / "catalog.parquet")
    if "id" not in catalog.columns:
        raise DataError(f"{path / 'catalog.parquet'}: no column 'id'; there are {', '.join(catalog.columns) or 'none'}")
    check_names(catalog, path / "catalog.parquet")
    targets = _read_images(path / "targets.npy") if (path / "targets.npy").is_file() else None
    if targets is not None and len(targets) != len(images):
        raise DataError(f"{path / 'targets.npy'}: {len(targets)} images where images.npy has {len(images)}")
    noise = _read_images(path / "noise.npy") if (path / "noise.npy").is_file() else None
    if noise is not None and noise.shape != images.shape:
        raise DataError(f"{path / 'noise.npy'}: shape {noise.shape} where images.npy has {images.shape}")
    if info.bands and len(info.bands) != images.shape[1]:
        raise DataError(f"{path / 'dataset.json'}: names {len(info.bands)} bands; images.npy has {images.shape[1]}")
    data = Cutouts(images, catalog, info, targets, path, noise)
    if (path / "psf.npy").is_file():
        data.psf = StoredPsfs(path / "psf.npy", len(images), data.bands, info.psf_sizes or {})
    return data


def _read_images(path: Path) -> MappedImages:
    images = MappedImages(path)
    if images.dtype == object or len(images.shape) != 4 or 0 in images.shape[1:]:
        raise DataError(f"{path}: {images.dtype} of shape {images.shape}; expected numbers, (N, C, H, W)")
    return images


def _read_info(path: Path) -> DatasetInfo:
    content = read_versioned(path, FORMAT, DataError)
    return from_keys(DatasetInfo, known_keys(DatasetInfo, content), str(path), DataError)


def _join(shards: list[Cutouts], path: Path) -> Cutouts:
    shapes = {shard.images.shape[1:] for shard in shards}
    classes = {tuple(shard.info.classes) for shard in shards}
    if len(shapes) > 1 or len(classes) > 1:
        raise DataError(f"{path}: shards differ in image shape or classes: {shapes}, {classes}")
    for name in ("pixel_scale", "unit", "bands", "zero_points", "noise"):
        found = {str(getattr(shard.info, name)): shard.path for shard in shards}
        if len(found) > 1:
            said = ", ".join(f"{value} in {folder.name}" for value, folder in found.items() if folder is not None)
            raise DataError(f"{path}: shards differ in {name.replace('_', ' ')}: {said}; use them one by one")
    if len({None if shard.targets is None else shard.targets.shape[1:] for shard in shards}) > 1:
        raise DataError(f"{path}: shards differ in their images to predict: all have targets.npy of one shape, or none")
    sums = [shard.info.checksum for shard in shards if shard.info.checksum is not None]
    if twice := [shard.path for shard in shards if sums.count(shard.info.checksum or "") > 1]:
        names = ", ".join(folder.name for folder in twice if folder is not None)
        raise DataError(f"{path}: shards {names} hold the same images; remove all but one")
    try:
        catalog = pl.concat([shard.catalog for shard in shards], how="diagonal_relaxed")
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: the catalogues of the shards do not fit each other: {error}") from error
    notes = list(dict.fromkeys(note for shard in shards for note in shard.info.notes))
    info = dataclasses.replace(shards[0].info, source=str(path), checksum=None, psf_sizes=None, notes=notes)
    with_targets = [shard.targets for shard in shards if shard.targets is not None]
    if catalog["id"].is_duplicated().any():
        prefixes = [f"{shard.path.name}/" for shard in shards if shard.path is not None for _ in range(len(shard))]
        catalog = catalog.with_columns((pl.Series(prefixes) + catalog["id"].cast(pl.String)).alias("id"))
        note = "identifiers that shards share begin with the shard's name"
        info = dataclasses.replace(info, notes=[*info.notes, note])
    targets = ConcatenatedImages(with_targets) if with_targets else None
    maps = [shard.noise for shard in shards if shard.noise is not None]
    if 0 < len(maps) < len(shards):
        note = f"noise maps of {len(maps)} of {len(shards)} shards: not used, as others lack them"
        info = dataclasses.replace(info, notes=[*info.notes, note])
    noise = ConcatenatedImages(maps) if len(maps) == len(shards) else None
    starts = np.cumsum([0, *(len(shard) for shard in shards[:-1])])
    psfs = [shard.psf for shard in shards]
    psf = partial(_of_shards, psfs, starts) if any(psfs) else None
    return Cutouts(ConcatenatedImages([shard.images for shard in shards]), catalog, info, targets, path, noise, psf)


class DatasetWriter:
    """Write a dataset folder a batch at a time, and continue one that was interrupted.

    Everything goes to ``<path>.partial``, which is locked against other processes; `finish` renames it. ``done`` is the
    number of images that are written already.

    Parameters
    ----------
    path
        The folder to write.
    shape
        (N, C, H, W) of all images.
    dtype
        Type of the pixels.
    fingerprint
        All settings that the images depend on, as JSON can hold them: a partial folder of others is refused, not continued.
    noise
        Whether noise maps are written with the images.
    targets
        (N, C, H', W') of images to predict that are written with them, float32; None without, or if `finish` gets them.
    mask
        Whether a mask is written with the images: True where a pixel holds no data.

    Raises
    ------
    DataError
        If the folder exists, cannot be written, or is being written by another process, or if its partial folder has
        another fingerprint.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, ...],
        dtype: np.dtype,
        *,
        fingerprint: dict[str, Any],
        noise: bool = False,
        targets: tuple[int, ...] | None = None,
        mask: bool = False,
    ):
        check_absent(path)
        self.path, self.shape = path, shape
        self.partial = path.with_name(path.name + ".partial")
        self._fingerprint = fingerprint | {"shape": list(shape), "dtype": np.dtype(dtype).str}
        self._lock = ExitStack()
        self._lock.enter_context(only_one(self.partial, "writing images"))
        self.done = self._resume()
        try:
            self.images = self._array("images.npy", np.dtype(dtype), shape)
            self.noise = self._array("noise.npy", np.dtype(np.float32), shape) if noise else None
            self.targets = None if targets is None else self._array("targets.npy", np.dtype(np.float32), targets)
            self.mask = self._array("mask.npy", np.dtype(bool), shape) if mask else None
        except OSError as error:
            self.discard()
            raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error

    def _array(self, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> np.memmap:
        """An array on disk; it is made anew unless a part of it is written already."""
        path = self.partial / name
        if self.done == 0:
            with path.open("wb") as file:
                header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                _allocate(file.fileno(), file.tell() + int(np.prod(shape)) * dtype.itemsize)
        array: np.memmap = np.load(path, mmap_mode="r+")
        return array

    def _resume(self) -> int:
        state = self.partial / "progress.json"
        if state.is_file():
            content = json.loads(state.read_text())
            if content["fingerprint"] != json.loads(json.dumps(self._fingerprint)):
                raise DataError(
                    f"{self.partial}: left by a run with other settings; remove it, or choose another --out"
                )
            return int(content["done"])
        self._progress(0)
        return 0

    def _progress(self, done: int) -> None:
        state = self.partial / "progress.json"
        content = {"fingerprint": self._fingerprint, "done": done}
        _write_text(state, json.dumps(content))

    def write(
        self,
        start: int,
        images: np.ndarray,
        noise: np.ndarray | None = None,
        targets: np.ndarray | None = None,
        *,
        mask: np.ndarray | None = None,
    ) -> None:
        """Write images (n, C, H, W) from row ``start`` on; an interruption before the next `checkpoint` loses them.

        Parameters
        ----------
        start
            Row of the first one.
        images
            Pixels (n, C, H, W).
        noise
            Their noise maps (n, C, H, W), where the writer has noise maps.
        targets
            Images to predict (n, C, H', W'), where the writer has targets.
        mask
            Where pixels hold no data, (n, C, H, W), bool, where the writer has a mask.
        """
        self.images[start : start + len(images)] = images
        if self.noise is not None and noise is not None:
            self.noise[start : start + len(images)] = noise
        if self.targets is not None and targets is not None:
            self.targets[start : start + len(images)] = targets
        if self.mask is not None and mask is not None:
            self.mask[start : start + len(images)] = mask

    def checkpoint(self, done: int, rows: pl.DataFrame | None = None) -> None:
        """Record that all images below ``done`` are written: an interrupted run is continued there.

        Parameters
        ----------
        done
            Number of images.
        rows
            The catalogue's rows of the images since the last checkpoint, which are kept for `kept_rows`.
        """
        self._flush()
        if rows is not None:
            (self.partial / ROWS).mkdir(exist_ok=True)
            rows.write_parquet(self.partial / ROWS / f"{done:012d}.parquet")
        self._progress(done)
        self.done = done

    def kept_rows(self) -> pl.DataFrame:
        """Return the catalogue's rows of all checkpoints, in order; there must be one checkpoint with rows at least."""
        parts = [pl.read_parquet(path) for path in sorted((self.partial / ROWS).iterdir())]
        return pl.concat(parts, how="diagonal_relaxed")

    def _flush(self) -> None:
        for array in (self.images, self.noise, self.targets, self.mask):
            if array is not None:
                array.flush()

    def finish(
        self,
        catalog: pl.DataFrame,
        info: DatasetInfo,
        targets: np.ndarray | None = None,
        psf: Psf | None = None,
    ) -> Path:
        """Write catalogue and description, rename the folder, and return its path.

        Parameters
        ----------
        catalog
            A row for each image.
        info
            Description; versions, checksum and sizes of PSFs are added.
        targets
            Images (N, C, H', W') that super-resolution is to predict; None writes none.
        psf
            Returns the point-spread functions (h, w) of an image by band; None writes none.

        Returns
        -------
        Path
            The finished folder.

        Raises
        ------
        DataError
            If it exists by now, or cannot be written, or a PSF does not fit.
        """
        self._flush()
        written = ["psf.npy"] if self.targets is not None else ["targets.npy", "psf.npy"]
        del self.images, self.noise, self.targets, self.mask
        try:
            catalog.write_parquet(self.partial / "catalog.parquet")
            for name in written:  # by an attempt that was interrupted
                (self.partial / name).unlink(missing_ok=True)
            if targets is not None:
                np.save(self.partial / "targets.npy", targets)
            sizes = None
            if psf is not None:
                bands = info.bands or [str(number) for number in range(self.shape[1])]
                sizes = write_psfs(self.partial / "psf.npy", psf, self.shape[0], bands)
            info = dataclasses.replace(
                info, checksum=checksum(self.partial / "images.npy"), versions=versions(), psf_sizes=sizes
            )
            _write_text(self.partial / "dataset.json", json.dumps(dataclasses.asdict(info), indent=2) + "\n")
            check_absent(self.path)
            shutil.rmtree(self.partial / ROWS, ignore_errors=True)
            for name in ("progress.json", LOCK, OWNER):
                (self.partial / name).unlink(missing_ok=True)
            shutil.rmtree(self.path, ignore_errors=True)  # an empty folder gives way
            self.partial.rename(self.path)
            self._lock.close()
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written: {error.strerror or error}") from error
        return self.path

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(self, *error: object) -> None:
        """Let go of the partial folder, which stays if it is not finished."""
        self._lock.close()

    def discard(self) -> None:
        """Remove the partial folder."""
        shutil.rmtree(self.partial, ignore_errors=True)
        self._lock.close()


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file, as ``sha256:`` and 64 hexadecimal digits."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of the packages that images and figures may depend on, by name."""
    from importlib.metadata import version

    return {name: version(name) for name in ("darklens", "torch", "numpy", "polars", "astropy")}


def _allocate(descriptor: int, size: int) -> None:
    """Reserve the space of the whole file now: a disk too small is found before the work, not after it."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except AttributeError:  # not on every system
        os.truncate(descriptor, size)


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, "utf-8")
    temporary.replace(path)
