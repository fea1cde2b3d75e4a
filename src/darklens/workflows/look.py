"""Say what a path holds, and draw it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from darklens.data.bands import colour_channels
from darklens.data.checks import constant_images
from darklens.data.dataset import Cutouts
from darklens.data.layouts import open_with
from darklens.data.options import DataOptions
from darklens.errors import DamagedFileError
from darklens.plots.pictures import drawn_images, mosaic, save, single_band
from darklens.workflows.following import after_looking, search_command

SAMPLE = 512
PER_CLASS = 6


@dataclass(frozen=True)
class Findings:
    """What was seen: lines of fact, lines of warning, the next sensible command, and the one that searches for lenses."""

    facts: list[str]
    warnings: list[str]
    next_command: str
    search_command: str | None


def look(path: Path, options: DataOptions = DataOptions(), out: Path | None = None) -> Findings:
    """Examine up to 512 images at a path, and draw a mosaic to ``out``; return what was seen.

    Images that cannot be read are named in the warnings, and left out.

    Parameters
    ----------
    path
        Images in any layout.
    options
        How they are read. Masked pixels are counted all the same.
    out
        The picture to draw.

    Raises
    ------
    DataError
        If the path cannot be opened, or none of the images can be read.
    """
    cutouts = open_with(path, options)
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(len(cutouts))[:SAMPLE])
    read, _, damaged = _readable(cutouts, rows)
    images = read.astype(np.float32)
    unmasked = bool(not np.isfinite(images).all())
    findings = Findings(
        _facts(cutouts),
        [*damaged, *_warnings(images, len(cutouts), options.mask)],
        after_looking(path, cutouts, options, masked=unmasked),
        search_command(path, cutouts, options, masked=unmasked),
    )
    if out is not None:
        pictures, captions = _chosen(cutouts)
        save(mosaic(pictures, captions, columns=PER_CLASS, pixel_scale=cutouts.info.pixel_scale), out)
    return findings


def _readable(cutouts: Cutouts, rows: np.ndarray) -> tuple[np.ndarray, list[int], list[str]]:
    """Images of those rows whose files are whole, their places among the rows, and what is wrong with the others."""
    try:
        return np.asarray(cutouts.images[rows]), list(range(len(rows))), []
    except DamagedFileError:
        pass
    parts, places, reasons = [], [], []
    for place, row in enumerate(rows):
        try:
            parts.append(np.asarray(cutouts.images[[row]]))
            places.append(place)
        except DamagedFileError as error:
            reasons.append(str(error))
    if not parts:
        raise DamagedFileError(reasons[0])
    return np.concatenate(parts), places, list(dict.fromkeys(reasons))


def _facts(cutouts: Cutouts) -> list[str]:
    info = cutouts.info
    n, channels, height, width = cutouts.images.shape
    facts = [f"layout: {info.layout}", f"{n:,} images, {channels}×{height}×{width} {cutouts.images.dtype}"]
    if "label" in cutouts.catalog.columns:
        counts = dict(cutouts.catalog["label"].value_counts().iter_rows())
        facts.append("classes: " + ", ".join(f"{name} {counts.get(name, 0):,}" for name in info.classes or counts))
    if "split" in cutouts.catalog.columns:
        counts = dict(cutouts.catalog["split"].value_counts(sort=True).iter_rows())
        facts.append("splits: " + ", ".join(f"{name} {number:,}" for name, number in counts.items()))
    if info.bands:
        facts.append("bands: " + ", ".join(info.bands) + _drawn(cutouts))
    if info.pixel_scale:
        side = width * info.pixel_scale
        facts.append(f"pixel scale: {info.pixel_scale:.4g}″, so {side:.3g}″ a side")
    if any(z is not None for z in info.zero_points):
        facts.append("AB zero points: " + ", ".join("unknown" if z is None else f"{z:g}" for z in info.zero_points))
    beside = [name for name, of in (("noise maps", cutouts.noise), ("PSFs", cutouts.psf)) if of is not None]
    if beside:
        facts.append(f"with {' and '.join(beside)}")
    numeric = [c for c, t in cutouts.catalog.schema.items() if t.is_numeric() and c != "id"]
    if numeric:
        facts.append("numbers in the catalogue: " + ", ".join(numeric))
    return facts + info.notes


def _warnings(images: np.ndarray, total: int, mask: bool) -> list[str]:
    of = f"of {len(images)} images looked at" + (f" (all are {total:,})" if len(images) < total else "")
    warnings = []
    bad = ~np.isfinite(images)
    if bad.any():
        count = int(bad.reshape(len(images), -1).any(1).sum())
        then = "set to 0" if mask else "--mask sets them to 0"
        warnings.append(f"{count} {of} have pixels that are nan or infinite, {int(bad.sum())} in all; {then}")
    finite = np.where(bad, 0, images)
    if constant := int(constant_images(finite).sum()):
        warnings.append(f"{constant} {of} are constant: there is nothing in them")
    low, high = finite.min((1, 2, 3)), finite.max((1, 2, 3))
    if np.allclose(low, 0, atol=1e-6) and np.allclose(high, 1, atol=1e-6):
        warnings.append("each image is min-max scaled to 0..1: its counts and noise level are lost")
    elif np.allclose(high, 1, atol=1e-6):
        warnings.append("each image is divided by its maximum: its brightness is lost")
    return warnings


def _chosen(cutouts: Cutouts) -> tuple[np.ndarray, list[str]]:
    """Images to draw, (N, H, W) or colours (N, H, W, 3), and their captions."""
    colours = colour_channels(cutouts.info.bands)
    if "label" in cutouts.catalog.columns:
        names = cutouts.info.classes or cutouts.catalog["label"].unique(maintain_order=True).to_list()
        rows = [np.flatnonzero((cutouts.catalog["label"] == name).to_numpy())[:PER_CLASS] for name in names]
        chosen = np.concatenate(rows)
        captions = cutouts.catalog["label"].cast(pl.String)[chosen].to_list()
    elif len(cutouts) == 1 and cutouts.images.shape[1] > 1 and colours is None:
        bands = cutouts.info.bands or [str(i) for i in range(cutouts.images.shape[1])]
        return np.nan_to_num(cutouts.images[[0]][0]), list(bands)
    else:
        chosen = np.arange(min(len(cutouts), 4 * PER_CLASS))
        captions = [cutouts.ids[i] for i in chosen]
    read, places, _ = _readable(cutouts, chosen)
    images, captions = np.nan_to_num(read.astype(np.float32)), [captions[place] for place in places]
    return drawn_images(images, cutouts.info.bands), captions


def _drawn(cutouts: Cutouts) -> str:
    """Which band the pictures show, if not all; of a single image without a label, each is drawn beside the others."""
    bands = cutouts.info.bands
    alone = len(cutouts) == 1 and "label" not in cutouts.catalog.columns
    colours = colour_channels(bands)
    if colours is not None:
        return "" if len(bands) == 3 else f" (drawn as red, green and blue: {', '.join(bands[i] for i in colours)})"
    return "" if len(bands) == 1 or alone else f" (drawn: {bands[single_band(bands)]})"
