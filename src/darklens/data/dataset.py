"""The dataset: images, a catalogue with a row an image, and a word on what they are.

On disk it is a folder that any tool can read: ``images.npy`` (N, C, H, W), ``catalog.parquet`` and ``dataset.json``
(``targets.npy`` beside them for super-resolution). It is written under another name and moved into place whole.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from darklens.errors import DataError
from darklens.paths import LOCK, OWNER, check_absent, only_one
from darklens.schema import from_keys, known_keys, read_versioned

FORMAT = 1


class Images(Protocol):
    """Images that can be fetched by row numbers, as float or integer arrays (n, C, H, W)."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __getitem__(self, rows: Any, /) -> np.ndarray: ...


@dataclass(frozen=True)
class DatasetInfo:
    """What a dataset is: the content of ``dataset.json``.

    ``pixel_scale`` is in arcsec, ``zero_points`` in AB magnitudes of one unit of ``unit``, a value for each band.
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
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    checksum: str | None = None
    format: int = FORMAT


@dataclass
class Cutouts:
    """A dataset, wherever its images come from: they are read when they are asked for.

    ``path`` is where it lies, for errors, if that is not the source that ``info`` names.
    """

    images: Images
    catalog: pl.DataFrame
    info: DatasetInfo
    targets: Images | None = None
    path: Path | None = None

    def __post_init__(self) -> None:
        if len(self.catalog) != self.images.shape[0]:
            raise DataError(f"{self.where}: {self.images.shape[0]} images but {len(self.catalog)} catalogue rows")

    def __len__(self) -> int:
        return len(self.catalog)

    @property
    def where(self) -> str:
        """What errors name: the path, or else the source."""
        return self.info.source if self.path is None else str(self.path)

    @property
    def ids(self) -> list[str]:
        """Identifiers as text, in the order of the images."""
        return self.catalog["id"].cast(pl.String).to_list()

    def labels(self, classes: Sequence[str]) -> np.ndarray:
        """Label numbers (N,) after a list of classes.

        Raises
        ------
        DataError
            If there are no labels, or one is not among ``classes`` (DeepLense's two sets of names are one).
        """
        if "label" not in self.catalog.columns:
            raise DataError(
                f"{self.where}: the catalogue has no column 'label'; give a folder for each class, or a catalogue"
            )
        numbers = {name: i for i, name in enumerate(classes)}
        numbers |= {alias: i for name, i in numbers.items() for alias in SYNONYMS.get(name, ()) if alias not in numbers}
        names = self.catalog["label"].cast(pl.String).to_list()
        for row, name in enumerate(names):
            if name not in numbers:
                raise DataError(
                    f"{self.where}: row {row} (id {self.catalog['id'][row]}) has label {name!r}; "
                    f"expected one of {', '.join(classes)}"
                )
        return np.array([numbers[name] for name in names], dtype=np.int64)

    def values(self, column: str) -> np.ndarray:
        """A numeric column as float64 (N,), nan where it has no value."""
        if column not in self.catalog.columns:
            numeric = [c for c, t in self.catalog.schema.items() if t.is_numeric()]
            raise DataError(f"{self.where}: no column {column!r}; numbers are in {', '.join(numeric) or 'none'}")
        if not self.catalog.schema[column].is_numeric():
            raise DataError(f"{self.where}: column {column!r} does not hold numbers")
        return self.catalog[column].cast(pl.Float64).to_numpy()

    def subset(self, rows: np.ndarray) -> Cutouts:
        """Some of the images, still read when asked for."""
        targets = None if self.targets is None else ImageSubset(self.targets, rows)
        return Cutouts(ImageSubset(self.images, rows), self.catalog[rows], self.info, targets, self.path)


SYNONYMS = {
    "no_sub": ("no",), "no": ("no_sub",),
    "cdm": ("sphere", "sub"), "sphere": ("cdm", "sub"),
    "axion": ("vort", "vortex"), "vort": ("axion", "vortex"),
}  # fmt: skip


@dataclass(frozen=True)
class ImageSubset:
    """A selection of rows of other images."""

    images: Images
    rows: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.images.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        return self.images.dtype

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.images[self.rows[rows]]


@dataclass(frozen=True)
class ConcatenatedImages:
    """The images of several shards, one after the other."""

    parts: Sequence[Images]

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(p.shape[0] for p in self.parts), *self.parts[0].shape[1:])

    @property
    def dtype(self) -> np.dtype:
        return np.result_type(*(p.dtype for p in self.parts))

    def __getitem__(self, rows: Any) -> np.ndarray:
        wanted = np.atleast_1d(np.arange(self.shape[0])[rows])
        out = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        start = 0
        for part in self.parts:
            here = (wanted >= start) & (wanted < start + part.shape[0])
            if here.any():
                out[here] = part[wanted[here] - start]
            start += part.shape[0]
        return out


def read_dataset(path: Path) -> Cutouts:
    """A dataset folder, or a folder of such folders (shards); images are memory-mapped.

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
    if info.bands and len(info.bands) != images.shape[1]:
        raise DataError(f"{path / 'dataset.json'}: names {len(info.bands)} bands; images.npy has {images.shape[1]}")
    return Cutouts(images, catalog, info, targets, path)


def _read_images(path: Path) -> np.ndarray:
    from darklens.data.unpickle import load_npy

    images = load_npy(path, mmap=True)
    if images.dtype == object or images.ndim != 4 or 0 in images.shape[1:]:
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
    try:
        catalog = pl.concat([shard.catalog for shard in shards], how="diagonal_relaxed")
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: the catalogues of the shards do not fit each other: {error}") from error
    info = dataclasses.replace(shards[0].info, source=str(path), checksum=None)
    return Cutouts(ConcatenatedImages([shard.images for shard in shards]), catalog, info)


class DatasetWriter:
    """Write a dataset folder a batch at a time, and go on where an interrupted run stopped.

    Everything goes to ``<path>.partial``, which one process holds for itself; `finish` moves it into place. A partial
    folder of another ``fingerprint`` is refused rather than mixed.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype, fingerprint: dict[str, Any]):
        check_absent(path)
        self.path, self.shape = path, shape
        self.partial = path.with_name(path.name + ".partial")
        self._fingerprint = fingerprint | {"shape": list(shape), "dtype": np.dtype(dtype).str}
        self._held = ExitStack()
        self._held.enter_context(only_one(self.partial, "writing images"))
        self.done = self._resume()
        images = self.partial / "images.npy"
        try:
            if self.done == 0:
                with images.open("wb") as file:
                    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, header)
                    _allocate(file.fileno(), file.tell() + int(np.prod(shape)) * np.dtype(dtype).itemsize)
            self.images = np.load(images, mmap_mode="r+")
        except OSError as error:
            self.discard()
            raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error

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

    def write(self, start: int, images: np.ndarray) -> None:
        """Put images at row ``start``; `checkpoint` makes them count."""
        self.images[start : start + len(images)] = images

    def checkpoint(self, done: int) -> None:
        """All rows below ``done`` are written: a resumed run starts there."""
        self.images.flush()
        self._progress(done)
        self.done = done

    def finish(self, catalog: pl.DataFrame, info: DatasetInfo, targets: np.ndarray | None = None) -> Path:
        """Write catalogue and description, and move the folder into place."""
        self.images.flush()
        del self.images
        try:
            catalog.write_parquet(self.partial / "catalog.parquet")
            if targets is not None:
                np.save(self.partial / "targets.npy", targets)
            info = dataclasses.replace(info, checksum=checksum(self.partial / "images.npy"), versions=versions())
            _write_text(self.partial / "dataset.json", json.dumps(dataclasses.asdict(info), indent=2) + "\n")
            check_absent(self.path)
            for name in ("progress.json", LOCK, OWNER):
                (self.partial / name).unlink(missing_ok=True)
            shutil.rmtree(self.path, ignore_errors=True)  # an empty folder gives way
            self.partial.rename(self.path)
            self._held.close()
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written: {error.strerror or error}") from error
        return self.path

    def discard(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self.partial, ignore_errors=True)
        self._held.close()


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Versions that a figure may depend on."""
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
