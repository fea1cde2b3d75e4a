"""Turn any layout into a dataset folder, with every pixel checked on the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import polars as pl

from darklens.data.checks import check_finite
from darklens.data.dataset import Cutouts, DatasetWriter
from darklens.data.splits import split_rows

Progress = Callable[[int, int], None]
CHUNK = 256


def import_data(
    cutouts: Cutouts,
    out: Path,
    mask: bool = False,
    fractions: Mapping[str, float] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Write a dataset folder; nothing is left behind if a pixel or file is bad.

    Parameters
    ----------
    mask
        Set pixels that are nan or infinite to 0 instead of refusing them.
    fractions
        Add a stratified split, such as ``{"train": 0.8, "validation": 0.1, "test": 0.1}``.
    """
    catalog = cutouts.catalog.with_columns(pl.col("id").cast(pl.String))
    if fractions is not None:
        split = split_rows(catalog, fractions, seed).tolist()
        catalog = catalog.with_columns(pl.Series("split", split, dtype=pl.String))
    dtype = cutouts.images.dtype if cutouts.images.dtype.kind in "iu" else np.dtype(np.float32)
    source = cutouts.info.source
    writer = DatasetWriter(out, tuple(cutouts.images.shape), dtype, {"source": source, "mask": mask})
    try:
        for start in range(0, len(cutouts), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(cutouts)))
            with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, which is checked next
                images = cutouts.images[rows].astype(dtype)
            writer.write(start, check_finite(images, cutouts.ids[start : start + CHUNK], source, mask))
            if progress:
                progress(int(rows[-1]) + 1, len(cutouts))
        targets = None if cutouts.targets is None else np.asarray(cutouts.targets[np.arange(len(cutouts))], np.float32)
        info = dataclasses.replace(cutouts.info, layout="dataset", seed=seed if fractions else cutouts.info.seed)
        return writer.finish(catalog, info, targets)
    except BaseException:
        writer.discard()
        raise
