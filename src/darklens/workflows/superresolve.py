"""Make cutouts finer with a trained model: FITS files with their coordinates, or arrays, and a page of before and after."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from darklens.data.dataset import Cutouts
from darklens.data.finer_wcs import finer_wcs, first_band, kept_from
from darklens.data.layouts import open_with
from darklens.data.options import DataOptions
from darklens.data.sizes import crop_or_pad
from darklens.errors import DataError, ModelError
from darklens.inference.model import BATCH, TrainedModel, load_model
from darklens.inference.predictions import Predicted, Progress, predict_cutouts, prediction_table
from darklens.paths import check_absent
from darklens.plots.pictures import drawn_images
from darklens.report.page import environment, thumbnail, write_page
from darklens.workflows.predict import Gathered

SHOWN = 48
"""Images on the page, the first ones."""
PAGE, TABLE = "index.html", "images.csv"


@dataclass
class Finer:
    """What was written: number of images, notes, and images that were left out and why."""

    images: int = 0
    notes: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def superresolve_paths(
    run: Path,
    paths: Sequence[Path],
    out: Path,
    *,
    skip: bool = False,
    options: DataOptions = DataOptions(),
    trust_code: bool = False,
    line: str = "",
    progress: Progress | None = None,
) -> Finer:
    """Write finer images of cutouts into a folder, whole or not at all, a batch at a time; return what was done.

    Of FITS files, a file each of the same name, with the finer world coordinates, the zero point and the unit; of other
    paths, one array ``.npy`` (N, C, H, W) each. Beside them ``images.csv`` and a page, ``index.html``, of before and after.

    Parameters
    ----------
    run
        A run folder or model folder, or the name of a shipped model.
    paths
        Images in any layout.
    out
        The folder to make.
    skip
        Leave out images that cannot be used, and list them.
    options
        How the paths are read.
    trust_code
        Whether code that the model names may run.
    line
        The command, for the page.
    progress
        Called with the images done and their number.

    Returns
    -------
    Finer
        Number of images, notes, and what was left out.

    Raises
    ------
    ModelError
        If the model does not make images finer, or the pixel scale or size of cutouts is not the model's.
    DataError
        If the folder exists, an image cannot be used, or its coordinates cannot be brought to finer pixels.
    """
    check_absent(out)
    model = load_model(run, trust_code=trust_code)
    if model.task.finer_by < 2:
        raise ModelError(f"{run}: its task does not make images finer; train one of the recipes superresolution/…")
    partial = out.with_name(f"{out.name}.partial")
    if partial.exists():
        raise DataError(f"{partial}: is left from a call that was interrupted, or another writes it; remove it")
    partial.mkdir(parents=True)
    try:
        written = _write_all(model, paths, partial, skip=skip, options=options, progress=progress)
        _page(written, model, partial / PAGE, line)
        pl.concat(written.tables, how="diagonal_relaxed").write_csv(partial / TABLE)
        partial.replace(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return Finer(written.images, [*written.gathered.sentences(), *_said_of_units(model)], written.gathered.skipped)


@dataclass
class _Written:
    """What has been written so far: names in use, rows of the table, and pictures for the page."""

    gathered: Gathered = field(default_factory=Gathered)
    images: int = 0
    names: set[str] = field(default_factory=lambda: {PAGE, TABLE})
    tables: list[pl.DataFrame] = field(default_factory=list)
    pictures: list[dict[str, str]] = field(default_factory=list)

    def name(self, wanted: str, suffix: str) -> str:
        """A name that no file has yet."""
        plain = re.sub(r"[^\w.+-]+", "_", wanted).strip(".") or "image"
        name, number = f"{plain}{suffix}", 1
        while name in self.names:
            number += 1
            name = f"{plain}-{number}{suffix}"
        self.names.add(name)
        return name


def _write_all(
    model: TrainedModel,
    paths: Sequence[Path],
    out: Path,
    *,
    skip: bool,
    options: DataOptions,
    progress: Progress | None,
) -> _Written:
    """Read, predict and write a batch after the other."""
    written, opened = _Written(), [(path, open_with(path, options)) for path in paths]
    total, done = sum(len(cutouts) for _, cutouts in opened), 0
    for path, cutouts in opened:
        stack = None
        reading = [] if cutouts.info.layout == "dataset" else cutouts.info.notes
        for start in range(0, len(cutouts), BATCH):
            part = cutouts.subset(np.arange(start, min(start + BATCH, len(cutouts))))
            band = options.chosen(cutouts.info.bands)
            predicted = predict_cutouts(model, part, band=band, mask=options.mask, skip=skip)
            files = [_file_of(part, int(row)) for row in predicted.rows]
            names = []
            for number, file in enumerate(files):
                if file is None:
                    if stack is None:
                        stack = _Stack(out, written.name(Path(path).stem, ".npy"), len(cutouts))
                    stack.write(predicted.prediction.array[number])
                    names.append(stack.name)
                else:
                    names.append(written.name(file.name.partition(".fit")[0], ".fits"))
                    _write_fits(model, part, predicted, number, file, out / names[-1])
            _note(written, path, [*reading, *predicted.notes], part, predicted, names, model)
            done += len(part)
            if progress:
                progress(done, total)
        if stack is not None:
            stack.close()
    if not written.images:
        raise DataError(f"{', '.join(map(str, paths))}: no image could be used")
    return written


def _note(
    written: _Written, path: Path, notes: Sequence[str], part: Cutouts, predicted: Predicted, names: list[str],
    model: TrainedModel,
) -> None:  # fmt: skip
    """Keep what is said of a batch, its rows of the table, and pictures of its first images."""
    known = written.gathered.notes
    written.gathered.note(path, [note for note in notes if path not in known.get(note, [])])
    written.gathered.skipped |= predicted.skipped
    if predicted.prediction.outlier_score is not None:
        written.gathered.scores.append(predicted.prediction.outlier_score)
    table = prediction_table(predicted, part, model.task).with_columns(pl.Series("file", names, dtype=pl.String))
    written.tables.append(table.drop([name for name, kind in table.schema.items() if kind.is_nested()]))
    written.images += len(names)
    bands = model.config.channels
    for number in range(min(len(names), SHOWN - len(written.pictures))):
        row = int(predicted.rows[number])
        before = crop_or_pad(
            np.asarray(part.images[[row]], dtype=np.float32)[:, predicted.adapt.bands], model.config.pixels
        )
        after = predicted.prediction.array[number : number + 1, :bands].astype(np.float32)
        sides = [thumbnail(drawn_images(np.nan_to_num(each), model.config.bands)[0]) for each in (before, after)]
        written.pictures.append({"id": part.ids[row], "before": sides[0], "after": sides[1]})


class _Stack:
    """An array file that grows an image at a time; images that were left out leave no gap."""

    def __init__(self, out: Path, name: str, count: int):
        self.path, self.name, self.count, self.done = out / name, name, count, 0
        self.array: np.ndarray | None = None

    def write(self, image: np.ndarray) -> None:
        if self.array is None:
            shape = (self.count, *image.shape)
            self.array = np.lib.format.open_memmap(self.path, mode="w+", dtype=np.float32, shape=shape)
        self.array[self.done] = image
        self.done += 1

    def close(self) -> None:
        if self.done < self.count and self.array is not None:
            kept = np.array(self.array[: self.done])
            self.array = None
            np.save(self.path, kept)


def _file_of(part: Cutouts, row: int) -> Path | None:
    """The FITS file of an image; None if it is from another kind of file."""
    if "path" not in part.catalog.columns:
        return None
    path = Path(str(part.catalog["path"][row]))
    return path if re.search(r"\.(fits?|fts|fz)(\.gz|\.fz)?$", path.name.lower()) and path.is_file() else None


def _write_fits(model: TrainedModel, part: Cutouts, predicted: Predicted, number: int, file: Path, path: Path) -> None:
    """A FITS file with the finer image, and further HDUs of what else is predicted, such as its spread."""
    from astropy.io import fits
    from astropy.wcs import WCS

    config, factor = model.config, model.task.finer_by
    channels = [part.bands[band] for band in predicted.adapt.bands]
    zero_points = [part.info.zero_points[band] if part.info.zero_points else None for band in predicted.adapt.bands]
    band = first_band(file, channels[0])
    header = fits.Header()
    try:
        shape = part.images.shape[-2:]
        first = kept_from(band, (shape[0], shape[1]), config.pixels, part.info.pixel_scale)
        if band.sky is not None:
            wcs: WCS = finer_wcs(band.sky.wcs(), factor, first)
            header.update(wcs.to_header(relax=True))
    except DataError as error:
        raise DataError(f"{file}: {error}") from error
    if (scale := band.scale or part.info.pixel_scale) is not None:
        header["PIXSCALE"] = (scale / factor, "arcsec a pixel")
    if (unit := band.unit or part.info.unit) is not None:
        header["BUNIT"] = unit
    for place, (name, zero_point) in enumerate(zip(channels, zero_points, strict=True)):
        plane = "" if len(channels) == 1 else str(place + 1)
        header[f"FILTER{plane}"] = name
        if zero_point is not None:
            header[f"MAGZERO{plane}"] = (zero_point, "AB magnitude of one unit in a pixel")
    header["SRFACTOR"] = (factor, "fine pixels along the side of a pixel")
    header["HISTORY"] = f"made finer by darklens, recipe {config.recipe.get('name', 'unknown')}: a prediction, no data"
    array = predicted.prediction.array[number].astype(np.float32)
    count = len(channels)
    hdus: list[Any] = []
    for place in range(0, len(array), count):
        plane = array[place] if count == 1 else array[place : place + count]
        made = fits.ImageHDU(plane, header) if hdus else fits.PrimaryHDU(plane, header)
        if hdus:
            made.header["EXTNAME"] = str(model.task.output_names[place]).partition("_")[0].upper()
        hdus.append(made)
    fits.HDUList(hdus).writeto(path)


def _said_of_units(model: TrainedModel) -> list[str]:
    """What the pixels of the answer are."""
    ratio, factor = getattr(model.task, "flux_ratio", None), model.task.finer_by
    if ratio is None:
        return []
    kind = "flux per pixel" if abs(ratio * factor**2 - 1) < 0.01 else "surface brightness" if ratio == 1 else None
    if kind is None:
        return [f"a constant image of 1 becomes one of {ratio:.4g}, as the training pairs had it"]
    return [f"pixels hold {kind}, as those of the training targets: a constant image of 1 becomes one of {ratio:.4g}"]


def _page(written: _Written, model: TrainedModel, path: Path, line: str) -> None:
    css = (resources.files("darklens.report") / "templates" / "report.css").read_text("utf-8")
    page = (
        environment()
        .get_template("finer.html")
        .render(
            css=css, pictures=written.pictures, images=written.images, factor=model.task.finer_by,
            recipe=model.config.recipe.get("name", "unknown"),
            notes=[*written.gathered.sentences(), *_said_of_units(model)],
            skipped=written.gathered.skipped, line=line,
        )
    )  # fmt: skip
    write_page(page, path)
