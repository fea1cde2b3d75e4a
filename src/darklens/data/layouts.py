"""Detect the layout of images on disk, among those that DeepLense and surveys use, and open them as one `Cutouts`.

Each layout is a function that returns the opened images, or None if the path does not have that layout. `open_data` tries
them in order, or calls the one that the user names.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from darklens.data.bands import find_bands
from darklens.data.dataset import ConcatenatedImages, Cutouts, DatasetInfo, Images, read_dataset
from darklens.data.identifiers import counted_from_one, file_kind, identifier
from darklens.data.options import DataOptions
from darklens.data.readers.band_groups import group_bands
from darklens.data.readers.catalogs import join_catalog, names_beside, read_catalog, unmatched
from darklens.data.readers.companions import (
    Companions,
    auxiliary_in,
    find_companions,
    is_auxiliary,
    is_auxiliary_folder,
    without_auxiliary,
)
from darklens.data.readers.files import BANDS_LAST, NpyFiles, PictureFiles, is_channels_last
from darklens.data.readers.fits import FitsObjects, NoiseMaps
from darklens.data.readers.fits_headers import SAME_SCALE
from darklens.data.readers.header_groups import group_by_headers
from darklens.data.readers.stacks import Hdf5Stack, hdf5_splits, open_npy_stack
from darklens.data.readers.tables import read_csv
from darklens.data.sizes import OneSize, Resized
from darklens.data.splits import SPLIT_NAMES, named_splits
from darklens.data.unpickle import load_npy, read_header
from darklens.errors import DataError
from darklens.paths import check_present
from darklens.usercode import is_reference, load_function

CLASS_NAMES = [
    "no_sub", "cdm", "axion", "no", "sphere", "vort", "vortex", "sub",
    "nonlenses", "nonlens", "nolenses", "nolens", "lenses", "lens",
]  # fmt: skip
"""Names of classes that are recognised, in the order of the label numbers that they get."""
HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")
TRUTH_COLUMNS = {
    "z_lens", "z_source", "mag_source", "ein_area", "n_crit", "n_pix_source", "source_flux", "lens_flux",
    "n_source_im", "mag_eff", "sb_contrast", "color_diff", "halo_mass", "star_mass", "mag_lens", "n_sources",
}  # fmt: skip
"""Columns of the Bologna challenge that are truths of the simulation: no observer knows them, and they reveal the label."""

LOOKED_INTO = 10
"""Folders inside one without a layout that are tried, to name those that can be read. A choice, not tuned."""

Opener = Callable[[Path, DataOptions], Cutouts | None]


def open_data(
    path: str | Path,
    layout: str | None = None,
    catalog: str | Path | None = None,
    *,
    channels: Literal["first", "last"] | None = None,
    crop: int | None = None,
    pad: int | None = None,
    bands: str | None = None,
    pixel_scale: float | None = None,
) -> Cutouts:
    """Open the images at a path, whatever their layout, and return them; pixels are read when they are indexed.

    Parameters
    ----------
    path
        A folder or file.
    layout
        A name of `LAYOUTS` or `ALIASES` instead of detection, or a reader of your own, ``my_reader.py:function``.
    catalog
        A table to join by id; without it a single table beside the images is taken.
    channels
        Where the bands of arrays are, (C, H, W) or (H, W, C), instead of detection.
    crop, pad
        Bring images to this many pixels a side: crop larger ones, pad smaller ones (see `darklens.data.sizes.OneSize`).
    bands
        Names of the bands to read, with commas between, or numbers from 0 where bands have no names; None reads all.
    pixel_scale
        Side of a pixel, arcsec, in place of what the images say; None leaves it.

    Returns
    -------
    Cutouts
        Images (N, C, H, W), their catalogue, and a description with notes on what was guessed.

    Raises
    ------
    DataError
        If there is nothing, no layout is recognised, or a file is damaged.
    """
    where = Path(path)
    check_present(where)
    own = is_reference(layout)
    if layout is not None and not own and layout not in (*LAYOUTS, *ALIASES):
        known = ", ".join([*LAYOUTS, *ALIASES])
        raise DataError(f"no layout {layout!r}; there are {known}, and your own as my_reader.py:function")
    options = DataOptions(layout, Path(catalog) if catalog else None, channels, crop, pad, bands, pixel_scale)
    OneSize(crop, pad)  # refuses two sizes
    if pixel_scale is not None and not 0 < pixel_scale < math.inf:
        raise DataError(f"--pixel_scale is in arcsec, above 0; got {pixel_scale}")
    openers: Mapping[str, Opener] = LAYOUTS
    if layout is not None:
        openers = {layout: load_function(layout) if own else LAYOUTS[ALIASES.get(layout, layout)]}
    for opener in openers.values():
        if (found := opener(where, options)) is not None:
            found = _with_positions(_with_catalog(found, where, options.catalog))
            if "split" in found.catalog.columns:
                found = replace(found, catalog=found.catalog.with_columns(named_splits(found.catalog["split"])))
            if pixel_scale is not None:
                found = _with_pixel_scale(found, pixel_scale)
            if options.band_names is not None and (own or not isinstance(found.images, FitsObjects)):
                found = found.with_bands(options.band_names)
            return _resized(found, crop, pad)
    if layout is not None:
        raise DataError(f"{where}: does not have the layout {layout!r}")
    sample = ", ".join(sorted(p.name for p in where.iterdir())[:5]) if where.is_dir() else where.name
    known = f"known are {', '.join(LAYOUTS)} — see 'data layouts' in the docs"
    raise DataError(f"{where}: no layout recognised ({sample}); {_readable_inside(where) or known}")


def open_with(path: str | Path, options: DataOptions) -> Cutouts:
    """Open the images at a path with the given options, and return them; see `open_data`. Pixels are not masked yet."""
    chosen = options.given()
    chosen.pop("mask", None)
    return open_data(path, **chosen)


def _with_pixel_scale(found: Cutouts, pixel_scale: float) -> Cutouts:
    """The images with the pixel scale that the user says, and a note if they say another."""
    own, said = found.info.pixel_scale, []
    if own is not None and abs(pixel_scale / own - 1) > SAME_SCALE:
        said = [f"pixel scale {pixel_scale:.4g}″ as --pixel_scale says; the images themselves say {own:.4g}″"]
    info = replace(found.info, pixel_scale=pixel_scale, notes=[*found.info.notes, *said])
    return replace(found, info=info, overruled=said)


def _readable_inside(where: Path) -> str | None:
    """The folders in a folder that are datasets of their own, with their layouts, as part of a sentence; None without."""
    if not where.is_dir():
        return None
    folders = _folders(where)
    layouts = {folder.name: _layout_of(folder) for folder in folders[:LOOKED_INTO]}
    found = [f"{name} ({layout})" for name, layout in layouts.items() if layout is not None]
    if not found:
        return None
    others = f" (of {len(folders):,} folders, the first {LOOKED_INTO} were tried)" if len(folders) > LOOKED_INTO else ""
    first = next(name for name, layout in layouts.items() if layout is not None)
    return f"it holds datasets of their own: {', '.join(found)}{others}; name one, such as {where / first}"


def _layout_of(path: Path) -> str | None:
    """The layout of a path; None if it has none, or cannot be read."""
    for opener in LAYOUTS.values():
        try:
            found = opener(path, DataOptions())
        except DataError:
            return None
        if found is not None:
            return found.info.layout
    return None


def _resized(found: Cutouts, crop: int | None, pad: int | None) -> Cutouts:
    """The images cropped or padded as the user asks; those of single files are so already."""
    size = OneSize(crop, pad)
    if size.side is None or found.images.shape[-2:] == (size.side, size.side):
        return found
    if found.targets is not None:
        raise DataError(f"{found.where}: --crop and --pad are not for image pairs, whose sizes go together")
    noise = None if found.noise is None else Resized(found.noise, size, found.where, level=np.inf)
    return replace(found, images=Resized(found.images, size, found.where), noise=noise)


def _with_catalog(found: Cutouts, where: Path, catalog: Path | None) -> Cutouts:
    beside = [p for p in where.iterdir() if p.suffix in (".csv", ".parquet", ".ecsv")] if where.is_dir() else []
    if catalog is None and found.info.layout in ("fits", "files", "bands") and len(beside) == 1:
        catalog = beside[0]
    if catalog is None:
        return found
    ids = found.catalog["id"].cast(pl.String)
    table, mapping = read_catalog(catalog, ids)
    notes = list(found.info.notes)
    if found.info.layout in NUMBERED and counted_from_one(ids, table["id"]):
        table = table.with_columns((pl.col("id").cast(pl.Float64).cast(pl.Int64) - 1).cast(pl.String))
        notes.append(f"{catalog.name}: numbers the images from 1, so its row {len(ids)} is that of the last image")
    joined, matches = join_catalog(found.catalog, table, str(catalog))
    alone = unmatched(ids, table["id"])
    notes.append(f"{catalog.name}: {matches}")
    notes += [f"{catalog.name}: {theirs} read as {ours}" for theirs, ours in mapping.items()]
    if truths := sorted(TRUTH_COLUMNS & set(table.columns)):
        notes.append(f"columns no observer knows, which tell the label: {', '.join(truths)}; do not train on them")
    beside_ours = names_beside(found.catalog, table)
    notes += [
        f"{catalog.name}: {name} read as {new}, as images have their own"
        for name, new in beside_ours.items()
        if name != "label" and new in joined.columns
    ]
    classes = found.info.classes
    if "label" in joined.columns:
        joined = joined.with_columns(_labels(joined["label"]))
        if (other := beside_ours.get("label")) in joined.columns:
            theirs = next((name for name, ours in mapping.items() if ours == "label"), "label")
            joined = joined.with_columns(_labels(joined[other]))
            joined = _one_label(joined, other, where, f"{theirs} of {catalog.name}")
        classes = classes or order_classes(set(joined["label"].drop_nulls()))
    return replace(
        found, catalog=joined, info=replace(found.info, notes=notes, classes=classes), without_row=alone.images,
        without_image=alone.rows,
    )  # fmt: skip


def _with_positions(found: Cutouts) -> Cutouts:
    """Right ascension and declination of objects in FITS files from their WCS, where no catalogue gives them."""
    if not isinstance(found.images, FitsObjects):
        return found
    have = [found.catalog.schema[name].is_numeric() for name in ("ra", "dec") if name in found.catalog.columns]
    if have and (len(have) < 2 or not all(have) or not found.catalog["ra"].has_nulls()):
        return found
    positions = [found.images.position_of(path) for path in found.images.paths]
    if not any(positions):
        return found
    ra, dec = zip(*(position or (None, None) for position in positions), strict=True)
    columns = pl.Series("ra", ra, dtype=pl.Float64), pl.Series("dec", dec, dtype=pl.Float64)
    if have:  # objects without a row in the catalogue
        columns = tuple(pl.coalesce(pl.col(of.name), of).alias(of.name) for of in columns)  # type: ignore[assignment]
    return replace(found, catalog=found.catalog.with_columns(columns))


def _one_label(frame: pl.DataFrame, other: str, where: Path, column: str) -> pl.DataFrame:
    """The rows with the labels of images, or of the catalogue where they have none; refused if these differ."""
    ours, theirs = (pl.col(name).cast(pl.Float64, strict=False) for name in ("label", other))
    differ = frame.filter((pl.col("label") != pl.col(other)) & (ours == theirs).not_().fill_null(value=True))
    if len(differ):
        row = differ.row(0, named=True)
        raise DataError(
            f"{where}: of {len(differ):,} images the label differs from the column {column}: {row['id']} is "
            f"{row['label']} here and {row[other]} there. Rename that column to keep these labels; to use it, "
            "take the images out of the class folders"
        )
    return frame.with_columns(pl.coalesce("label", other).alias("label")).drop(other)


def _labels(column: pl.Series) -> pl.Series:
    """Labels as text without spaces around it; nan and empty text become null."""
    text = (column.fill_nan(None) if column.dtype.is_float() else column).cast(pl.String)
    return text.str.strip_chars().replace("", None)


def order_classes(names: set[str]) -> list[str]:
    """Return class names in the order of `CLASS_NAMES`, and unknown ones after them in alphabetical order."""
    return sorted(names, key=lambda n: (CLASS_NAMES.index(n) if n in CLASS_NAMES else len(CLASS_NAMES), n))


def _dataset(path: Path, options: DataOptions) -> Cutouts | None:
    whole = (path / "dataset.json").is_file()
    if path.is_dir() and (whole or any(path.glob("*/dataset.json"))):
        return read_dataset(path)
    return None


def _super_resolution(path: Path, options: DataOptions) -> Cutouts | None:
    if not ((path / "HR").is_dir() and (path / "LR").is_dir()):
        return None
    low, high = _files(path / "LR", ".npy"), _files(path / "HR", ".npy")
    if [p.name for p in low] != [p.name for p in high]:
        odd = sorted({p.name for p in low} ^ {p.name for p in high})
        raise DataError(f"{path}: HR and LR do not hold the same names; {odd[0]} is in one only ({len(odd)} such)")
    images, targets = NpyFiles(low), NpyFiles(high)
    catalog = pl.DataFrame({"id": [identifier(p) for p in low]})
    return Cutouts(images, catalog, DatasetInfo(str(path), layout="super-resolution"), targets)


def _class_folders(path: Path, options: DataOptions) -> Cutouts | None:
    """``no_sub/ cdm/ axion/``, or the same under ``train/ val/ test/``, or ``train_lenses/ test_nonlenses/ …``."""
    if not path.is_dir():
        return None
    groups: list[tuple[Path, str, str | None]] = []
    for folder in _folders_of_images(path):
        split, _, name = folder.name.lower().partition("_")
        if split in SPLIT_NAMES and name in ("lenses", "nonlenses"):
            groups.append((folder, name, SPLIT_NAMES[split]))
        elif folder.name.lower() in SPLIT_NAMES:
            inner = [p for p in _folders_of_images(folder) if _has_images(p)]
            groups += [(p, p.name, SPLIT_NAMES[folder.name.lower()]) for p in inner]
        elif _has_images(folder):
            groups.append((folder, folder.name, None))
    known = [g for g in groups if g[1] in CLASS_NAMES]
    if not groups or not (known or len({g[1] for g in groups}) > 1):
        return None
    if len(groups) == 1 or _is_band_folders([g[0] for g in groups]):
        return None
    paths: list[Path] = []
    labels: list[str] = []
    splits: list[str | None] = []
    others = _files_elsewhere(path, {folder for folder, _, _ in groups})
    for folder, label, split_name in groups:
        files, beside = without_auxiliary(_files(folder))
        others += beside
        paths += files
        labels += [label] * len(files)
        splits += [split_name] * len(files)
    _check_one_kind(path, paths)
    is_fits = file_kind(paths[0]) == "fits"
    if is_fits and options.layout is None and group_bands(path, paths, CLASS_NAMES) is not None:
        return None  # files of single bands, which the layout of bands reads, with the labels
    companions, notes = _beside(paths, others, path)
    columns = {"id": [identifier(p, path) for p in paths], "label": labels}
    if any(splits):
        columns["split"] = splits  # type: ignore[assignment]
    layout = "lens-finding" if "nonlenses" in labels else "splits" if any(splits) else "classes"
    classes = order_classes(set(labels))
    opened = _file_images(paths, pl.DataFrame(columns), path, layout, classes, options, companions)
    opened.info.notes.extend(notes)
    return opened


def _object_folders(path: Path, options: DataOptions) -> Cutouts | None:
    """A folder for each object, with its image in a file of that name, beside its noise map and PSF."""
    folders = _folders_of_images(path) if path.is_dir() else []
    images = [[p for p in _files(folder) if identifier(p) == "image"] for folder in folders]
    if not folders or any(len(found) != 1 for found in images):
        return None
    paths = [found[0] for found in images]
    others = [p for p in _files_elsewhere(path) if p not in set(paths)]
    companions, notes = _beside(paths, others, path)
    catalog = pl.DataFrame({"id": [p.name for p in folders]})
    opened = _file_images(paths, catalog, path, "objects", [], options, companions)
    opened.info.notes.extend(notes)
    return opened


def _beside(images: Sequence[Path], others: Sequence[Path], root: Path) -> tuple[Companions, list[str]]:
    """The noise maps and PSFs among the other files beside images, and notes on what they are and what is left out."""
    companions = Companions()
    if file_kind(images[0]) == "fits":
        companions = find_companions(images, [path for path in others if file_kind(path) == "fits"], root)
    used, notes = companions.files(), _named_beside(companions)
    folders, unused = {path.parent for path in images}, set(others) - set(used)
    if left := sorted({path.name if path.parent in folders else path.relative_to(root).as_posix() for path in unused}):
        shown = ", ".join(left[:4]) + (" and others" if len(left) > 4 else "")
        notes.append(f"{len(unused):,} files beside the images left out: {shown}")
    return companions, notes


def _named_beside(companions: Companions) -> list[str]:
    """A note on noise maps and PSFs in files of their own, if there are any."""
    used = companions.files()
    named = sorted({path.name for path in used})
    shown = ", ".join(named[:4]) + (" and others" if len(named) > 4 else "")
    return [f"{len(used):,} noise maps and PSFs beside the images: {shown}"] if used else []


def _halo_mass(path: Path, options: DataOptions) -> Cutouts | None:
    folder = path / "lens_data" if (path / "lens_data").is_dir() else path
    files = _files(folder, ".npy") if folder.is_dir() else []
    if not files or (folder == path and not read_header(files[0])[1].hasobject):
        return None
    opened = _file_images(files, pl.DataFrame({"id": [identifier(p) for p in files]}), path, "halo-mass", [], options)
    splits: dict[str, str] = {}
    for table in sorted(path.glob("*.csv")):
        if name := next((SPLIT_NAMES[s] for s in SPLIT_NAMES if s in table.stem.lower()), None):
            listed = read_csv(table, header=False)
            splits |= {identifier(Path(v)): name for column in listed for v in column if v and Path(v).suffix == ".npy"}
    if splits:
        ids = opened.catalog["id"].to_list()
        opened.catalog = opened.catalog.with_columns(pl.Series("split", [splits.get(i) for i in ids]))
    return opened


def _labelled_stack(path: Path, options: DataOptions) -> Cutouts | None:
    """A folder with one array of all images and one of their labels."""
    files = sorted(path.glob("*.npy")) if path.is_dir() else []
    shapes = {p: read_header(p)[0] for p in files}
    stacks = [p for p, shape in shapes.items() if len(shape) == 4 or (len(shape) == 3 and not _is_one_image(shape))]
    if len(stacks) != 1 or len(files) > 2:
        return None
    images, notes = open_npy_stack(stacks[0], options.channels)
    columns: dict[str, list[str]] = {"id": [str(i) for i in range(len(images))]}
    classes: list[str] = []
    for other in files:
        if other not in stacks:
            labels = load_npy(other).reshape(-1)
            if len(labels) != len(images):
                raise DataError(f"{other}: {len(labels)} labels for the {len(images)} images of {stacks[0].name}")
            if labels.dtype == object or not np.isfinite(labels).all():
                raise DataError(f"{other}: labels of type {labels.dtype}, or nan; expected a whole number an image")
            columns["label"] = [str(v.item()) if v == int(v) else str(v) for v in labels.astype(np.float64)]
            columns["label"] = [v.removesuffix(".0") for v in columns["label"]]
            classes = order_classes(set(columns["label"]))
    return Cutouts(images, pl.DataFrame(columns), DatasetInfo(str(path), classes, layout="stack", notes=notes))


def _is_one_image(shape: Sequence[int]) -> bool:
    return shape[0] <= max(BANDS_LAST) or is_channels_last(shape)


def _bands(path: Path, options: DataOptions) -> Cutouts | None:
    """A FITS file for each band of an object, grouped by the names of files and folders; around them folders of classes."""
    files = [p for p in sorted(path.rglob("*")) if file_kind(p) == "fits" and _is_listed(p)] if path.is_dir() else []
    files, others = without_auxiliary(files, path)
    try:
        groups = (group_bands(path, files, CLASS_NAMES) or group_by_headers(path, files)) if len(files) > 1 else None
    except DataError as error:
        raise DataError(f"{error}; {inside}" if (inside := _readable_inside(path)) else str(error)) from error
    if groups is None or (len(groups.objects) < 2 and len(groups.bands) > 8):
        return None
    companions, notes = _beside(files, others, path)
    names = options.band_names
    if names is not None:
        names = [groups.bands[place] for place in find_bands(names, groups.bands, path)]
    images = FitsObjects(
        list(groups.objects.values()), groups.bands, bands=names, size=OneSize(options.crop, options.pad),
        companions=companions, known=groups.headers,
    )  # fmt: skip
    columns: dict[str, list[str] | list[str | None]] = {"id": list(groups.objects)}
    if labels := groups.labels():
        columns["label"] = labels
    if any(splits := groups.splits()):
        columns["split"] = splits
    classes = order_classes(set(labels or []))
    return _fits_cutouts(images, pl.DataFrame(columns), path, "bands", classes, [*notes, *groups.notes])


def _fits_cutouts(
    images: FitsObjects, catalog: pl.DataFrame, where: Path, layout: str, classes: list[str], notes: Sequence[str]
) -> Cutouts:
    """Objects in FITS files with all that their headers say."""
    plan = images.plan
    info = DatasetInfo(
        str(where), classes, plan.bands, plan.pixel_scale, list(plan.zero_points.values()), plan.unit, layout,
        notes=[*notes, *images.notes],
    )  # fmt: skip
    noise = NoiseMaps(images) if plan.has_noise else None
    return Cutouts(images, catalog, info, noise=noise, psf=images.psf_of_row if plan.has_psf else None)


def _hdf5(path: Path, options: DataOptions) -> Cutouts | None:
    if path.suffix not in HDF5_SUFFIXES:
        return None
    splits = hdf5_splits(path)
    stacks = [Hdf5Stack(path, name, options.channels) for name in splits or [None]]
    tables = [_hdf5_table(stack, split) for stack, split in zip(stacks, splits.values() or [None], strict=True)]
    catalog = pl.concat(tables, how="diagonal_relaxed")
    classes: list[str] = []
    if "label" in catalog.columns:
        catalog = catalog.with_columns(_labels(catalog["label"]))
        classes = order_classes(set(catalog["label"].drop_nulls()))
    notes = [note for stack in stacks for note in (f"dataset {stack.name}", *stack.notes)]
    images: Images = ConcatenatedImages(stacks) if splits else stacks[0]
    return Cutouts(images, catalog, DatasetInfo(str(path), classes, layout="hdf5", notes=notes))


def _hdf5_table(stack: Hdf5Stack, split: str | None) -> pl.DataFrame:
    """A row for each image of a stack, with its split where the file has several."""
    columns = {name: pl.Series(name, values) for name, values in stack.columns().items()}
    if "id" not in columns:
        columns["id"] = pl.Series("id", [str(i) for i in range(stack.shape[0])])
    if split is not None:
        prefixed = f"{stack.name.partition('/')[0]}/" + columns["id"].cast(pl.String)
        columns |= {"id": prefixed.alias("id"), "split": pl.Series("split", [split] * stack.shape[0])}
    return pl.DataFrame(list(columns.values()))


def _flat_files(path: Path, options: DataOptions) -> Cutouts | None:
    """A folder of files without labels, unless the files are named for classes (as DeepLense's samples are).

    If it has no files, they are in its only folder that is not one of noise maps, PSFs or masks.
    """
    if not path.is_dir():
        return None
    folder = path
    if not _files(path):
        inside = [p for p in _folders(path) if _has_images(p)]
        images = [p for p in inside if not is_auxiliary_folder(p.name)]
        if len(images) != 1 or len(inside) == 1:
            return None
        folder = images[0]
    files, others = without_auxiliary(_files(folder))
    others += _files_elsewhere(path, {folder})
    _check_one_kind(path, files)
    catalog = pl.DataFrame({"id": [identifier(p) for p in files]})
    classes: list[str] = []
    if all(identifier(p) in CLASS_NAMES for p in files):
        catalog = catalog.with_columns(pl.col("id").alias("label"))
        classes = order_classes(set(catalog["label"]))
    companions, notes = _beside(files, others, path)
    layout = "fits" if file_kind(files[0]) == "fits" else "files"
    opened = _file_images(files, catalog, path, layout, classes, options, companions)
    opened.info.notes.extend(notes)
    return opened


def _check_one_kind(path: Path, files: Sequence[Path]) -> None:
    kinds = sorted({kind for file in files if (kind := file_kind(file))})
    if len(kinds) > 1 and kinds != ["jpeg", "png"]:
        inside = _readable_inside(path)
        raise DataError(
            f"{path}: mixes {', '.join(kinds)} files; one kind to a dataset{f'; {inside}' if inside else ''}"
        )


def _single_file(path: Path, options: DataOptions) -> Cutouts | None:
    if not path.is_file() or file_kind(path) is None:
        return None
    if file_kind(path) == "npy" and not read_header(path)[1].hasobject:
        stack, notes = open_npy_stack(path, options.channels)
        ids = [path.stem] if len(stack) == 1 else [f"{path.stem}:{i}" for i in range(len(stack))]
        return Cutouts(stack, pl.DataFrame({"id": ids}), DatasetInfo(str(path), layout="array", notes=notes))
    catalog = pl.DataFrame({"id": [identifier(path)]})
    companions, notes = Companions(), list[str]()
    if file_kind(path) == "fits" and not is_auxiliary(path):
        companions = find_companions([path], auxiliary_in(path.parent, path.parent.stat().st_mtime_ns), path.parent)
        notes = _named_beside(companions)
    opened = _file_images([path], catalog, path, "file", [], options, companions)
    opened.info.notes.extend(notes)
    return opened


def _file_images(
    paths: list[Path],
    catalog: pl.DataFrame,
    where: Path,
    layout: str,
    classes: list[str],
    options: DataOptions,
    companions: Companions = Companions(),
) -> Cutouts:
    if (twice := catalog["id"].is_duplicated()).any():
        first, second = (paths[row] for row in np.flatnonzero(twice.to_numpy())[:2])
        raise DataError(
            f"{where}: {first.name} and {second.name} would both be {identifier(first)}; rename or remove one"
        )
    size = OneSize(options.crop, options.pad)
    kind = file_kind(paths[0])
    catalog = catalog.with_columns(pl.Series("path", [str(p) for p in paths]))
    info = DatasetInfo(str(where), classes, layout=layout)
    images: Images
    if kind == "npy":
        images = npy = NpyFiles(paths, size, options.channels)
        info.notes.extend(npy.notes)
        if npy.has_masses:
            axion = all((m or -1) < 1 for m in npy.masses)
            name = "axion_mass" if axion else "mass"
            masses = pl.Series(name, npy.masses, dtype=pl.Float64)
            catalog = catalog.with_columns(masses, masses.log10().alias(f"log10_{name}"))
            info.notes.append(f"pickled pairs [image, mass] read safely; column log10_{name}")
    elif kind == "fits":
        objects = FitsObjects([[p] for p in paths], bands=options.band_names, size=size, companions=companions)
        return _fits_cutouts(objects, catalog, where, layout, classes, info.notes)
    else:
        images = pictures = PictureFiles(paths, size)
        info = DatasetInfo(str(where), classes, pictures.bands, layout=layout, notes=[*info.notes, *pictures.notes])
    return Cutouts(images, catalog, info)


def _folders(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")]


def _folders_of_images(folder: Path) -> list[Path]:
    """The folders in a folder that are not those of noise maps, PSFs or masks."""
    return [path for path in _folders(folder) if not is_auxiliary_folder(path.name)]


def _files_elsewhere(root: Path, read: Collection[Path] = ()) -> list[Path]:
    """The files of images below a folder, at any depth, but for those right in folders that are read."""
    found = []
    for name, folders, files in os.walk(root):
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        if (folder := Path(name)) not in read:
            found += [folder / file for file in sorted(files) if not file.startswith(".") and file_kind(folder / file)]
    return found


def _files(folder: Path, suffix: str | None = None) -> list[Path]:
    found = (p for p in folder.iterdir() if _is_listed(p) and not p.name.startswith("."))
    return sorted(p for p in found if (p.suffix == suffix if suffix else file_kind(p) is not None))


def _has_images(folder: Path) -> bool:
    return any(file_kind(p) is not None for p in folder.iterdir() if _is_listed(p))


def _is_listed(path: Path) -> bool:
    """Whether a path is a file, or a link to one that is not there, which is named as a file that cannot be read."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def _is_band_folders(folders: Sequence[Path]) -> bool:
    """Folders that hold the same objects in several bands rather than several classes."""
    if any(folder.name in CLASS_NAMES for folder in folders):
        return False
    numbers = [{re.sub(r".*?(\d{3,})\.\w+$", r"\1", p.name) for p in _files(folder)} for folder in folders]
    return len(numbers) > 1 and all(n == numbers[0] for n in numbers) and file_kind(_files(folders[0])[0]) == "fits"


LAYOUTS: dict[str, Opener] = {
    "dataset": _dataset,
    "super-resolution": _super_resolution,
    "objects": _object_folders,
    "classes": _class_folders,
    "bands": _bands,
    "halo-mass": _halo_mass,
    "stack": _labelled_stack,
    "hdf5": _hdf5,
    "files": _flat_files,
    "file": _single_file,
}
"""Functions that open a layout, by its name, in the order in which they are tried."""
NUMBERED = ("stack", "hdf5")
"""Layouts whose images have no names: they are numbered from 0."""
ALIASES = {"splits": "classes", "lens-finding": "classes", "fits": "files", "array": "file"}
"""Names that `open_data` gives to variants of a layout, and that it takes as well."""
