"""Options of reading images, as one value from the command line to the reader. Imports no PyTorch, so help is fast."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Stretch = Literal["none", "sqrt", "asinh", "noise", "minmax"]


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
    bands
        Bands to read, in this order, with commas between: by name (g finds DES_G), or by number from 0 without names.
    pixel_scale
        Arcsec, for images that do not say their own, or say it wrong.
    mask
        Set pixels that are nan or infinite to 0 instead of refusing the image.
    """

    layout: str | None = None
    catalog: Path | None = None
    channels: Literal["first", "last"] | None = None
    crop: int | None = None
    pad: int | None = None
    bands: str | None = None
    pixel_scale: float | None = None
    mask: bool = False

    @property
    def band_names(self) -> list[str] | None:
        """Return the bands to read, one by one; None for all."""
        return None if self.bands is None else [name.strip() for name in self.bands.split(",")]

    def chosen(self, bands: Sequence[str]) -> str | None:
        """Return the bands of opened images, with commas between, if the user chose them; None otherwise."""
        return None if self.bands is None else ",".join(bands)

    def given(self) -> dict[str, Any]:
        """Return the options that differ from their defaults, by name, as keyword arguments."""
        pairs = ((field, getattr(self, field.name)) for field in dataclasses.fields(self))
        return {field.name: value for field, value in pairs if value != field.default}


@dataclass(frozen=True)
class InputOptions:
    """What a network takes beside images.

    Parameters
    ----------
    columns
        Columns of the catalogue, a list or names with commas between; all takes every one but identifiers, labels, names
        of files and positions. By default there are none.
    """

    columns: list[str] | str | None = None


@dataclass(frozen=True)
class PreprocessingOptions:
    """Choices in what happens to an image between detector and network.

    Parameters
    ----------
    crop
        Side of the central square that is kept, pixels; all is kept if there is none.
    stretch
        How brightness is scaled: minmax scales each image to 0..1, as the published systems do; sqrt, the root of the
        absolute value with the sign of the value, makes the noise of counts even; asinh is linear for noise and
        logarithmic for signal; noise is asinh of each band of each image in units of three times the noise of its own
        sky, whatever the unit and the depth; none keeps values.
    resize
        Side to which the image is then interpolated, pixels.
    repeat_channels
        Repeat one channel so many times, for weights that ask for three; images with as many channels are left as they
        are.
    lens_model
        Fit a smooth lens to every image, which must be square, and add two channels: what the fit leaves, in units of the
        noise, and the fit.
    lens_fine
        Above 1, render the fitted lens on pixels so many times finer as well, for super-resolution of images of one band:
        it is a further channel, in the unit of the images, and the pixels of all others are repeated to its size.
    lens_fine_blur
        Width of the point-spread function of the finer image over that of the images; by default 1 / lens_fine.
    lens_band
        Of images of several bands, the one that the lens is fitted to: its name, its number from 0, or sum.
    lens_light
        Fit elliptical isophotes to the galaxy at the centre of every image, and add a channel for each band: what they
        leave, where lensed arcs are seen, stretched as noise does.
    """

    crop: int | None = None
    stretch: Stretch = "sqrt"
    resize: int | None = None
    repeat_channels: int = 1
    lens_model: bool = False
    lens_fine: int = 1
    lens_fine_blur: float | None = None
    lens_band: int | str | None = None
    lens_light: bool = False

    @property
    def uses_noise(self) -> bool:
        """Whether the noise of the sky counts in what is done with images."""
        return self.lens_model or self.lens_light or self.stretch == "noise"
