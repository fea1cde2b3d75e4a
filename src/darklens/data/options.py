"""Options of reading images, as one value from the command line to the reader. Imports no PyTorch, so help is fast."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class DataOptions:
    """Options of reading a folder or file of images; by default all is detected.

    Parameters
    ----------
    layout
        The layout of the data, if it is not to be detected (see the docs: data layouts), or a reader of your own as
        my_reader.py:function.
    catalog
        A table to join by id: CSV, Parquet, ECSV, VOTable or FITS.
    channels
        Where the bands of an array are: first (C, H, W) or last (H, W, C), if it is not to be detected.
    crop
        Bring images of differing size to this many pixels a side: larger ones are cropped about their centre.
    pad
        Bring images of differing size to this many pixels a side: smaller ones get a border of their own edge's median.
    mask
        Set pixels that are nan or infinite to 0 instead of refusing the image.
    """

    layout: str | None = None
    catalog: Path | None = None
    channels: Literal["first", "last"] | None = None
    crop: int | None = None
    pad: int | None = None
    mask: bool = False

    def given(self) -> dict[str, Any]:
        """Return the options that differ from their defaults, by name, as keyword arguments."""
        pairs = ((field, getattr(self, field.name)) for field in dataclasses.fields(self))
        return {field.name: value for field, value in pairs if value != field.default}
