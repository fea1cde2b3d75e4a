"""Make cutouts of another telescope fit a model: choose bands, resample pixels, crop or pad, and say what was done."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from darklens.data.bands import matching
from darklens.data.dataset import DatasetInfo
from darklens.data.readers.fits_headers import SAME_SCALE
from darklens.data.resampling import about_centre, resample, resample_noise
from darklens.data.sizes import central_window, crop_or_pad
from darklens.errors import ModelError
from darklens.inference.model import ModelConfig
from darklens.physics.smoothfit import sky_level, sky_noise

MOST_PIXELS = 8192
"""Side of the largest image that a cutout is resampled to; a wrong pixel scale would ask for any size."""


class Adapted(NamedTuple):
    """Hold images (N, C, H, W) that fit a model, float32, and the noise of their sky (N, C); None if they tell it."""

    images: Tensor
    noise: Tensor | None


LIKE_OURS = ("VIS", "i", "r", "F814W", "z")
"""Bands that a model of one band is given where none has the name of its own, the first that is there: near VIS, of which
most of the models are. A choice, not tuned."""
SAME_FLUX = 1e-4
"""Fluxes that differ by less than this fraction are one; rounding of zero points in headers is smaller."""


@dataclass(frozen=True)
class Adaptation:
    """What has to be done to cutouts before a model sees them.

    ``bands`` are channel numbers, ``zoom`` is the cutouts' pixel scale over the model's, ``pixels`` the side in the end,
    ``brightness`` the 99.5th percentile that each image is scaled to where units differ, ``factors`` what each band is
    multiplied by where zero points do.
    """

    bands: list[int]
    zoom: float
    pixels: int
    brightness: float | None
    notes: list[str]
    factors: list[float] | None = None

    def __call__(self, images: np.ndarray) -> Tensor:
        """Return adapted images (N, C, pixels, pixels), float32; flux is kept in resampling."""
        return self.with_noise(images).images

    def with_noise(self, images: np.ndarray, noise: np.ndarray | None = None) -> Adapted:
        """Adapt images, and say how noisy they are.

        Parameters
        ----------
        images
            (N, C, H, W).
        noise
            Noise maps (N, C, H, W) of these images, infinite where there is no data; None if unknown.

        Returns
        -------
        Adapted
            Images (N, bands, pixels, pixels), and the noise of their sky where it cannot be told from them.
        """
        chosen = np.asarray(images[:, self.bands], dtype=np.float32)
        maps = None if noise is None else noise[:, self.bands]
        if self.factors is not None:
            scale = np.array(self.factors, dtype=np.float32)[:, None, None]
            chosen, maps = chosen * scale, None if maps is None else maps * scale
        sky = None
        if self.zoom != 1:
            axes = [about_centre(side, 1 / self.zoom).central(self.pixels) for side in chosen.shape[-2:]]
            if maps is None:
                # Resampled noise is correlated, and neighbours differ by less than it is on scales of several pixels.
                # It is estimated in what the model sees, so that it does not depend on how large the image is.
                height, width = chosen.shape[-2:]
                rows, columns = central_window(height, width, max(2, math.ceil(self.pixels / self.zoom)))
                seen = torch.from_numpy(np.ascontiguousarray(chosen[..., rows, columns]))
                sky = sky_noise(seen.flatten(0, 1)).reshape(chosen.shape[:2]) / self.zoom
            else:
                maps = resample_noise(maps, *axes)
            chosen = resample(chosen, *axes)
        batch = torch.from_numpy(crop_or_pad(chosen, self.pixels))
        if maps is not None:
            sky = sky_level(torch.from_numpy(crop_or_pad(maps, self.pixels, level=np.inf)))
        if self.brightness is not None:
            factor = self._brightness_factor(batch)
            batch = batch * factor[:, None, None, None]
            sky = None if sky is None else sky * factor[:, None]
        return Adapted(batch, sky)

    def _brightness_factor(self, batch: Tensor) -> Tensor:
        """What each image (N,) of a batch (N, C, H, W) is multiplied by to be as bright as the training images."""
        peak = torch.quantile(batch.flatten(1), 0.995, dim=1).clamp_min(1e-30)
        assert self.brightness is not None
        return self.brightness / peak

    def flux_factors(self, images: np.ndarray) -> Tensor:
        """Return what each band of images (N, C, H, W) is multiplied by, (N, C), for predicted images to be divided by."""
        chosen = np.asarray(images[:, self.bands], dtype=np.float32)
        scale = torch.tensor(self.factors or [1.0] * len(self.bands))
        if self.brightness is None:
            return scale.expand(len(images), -1)
        batch = torch.from_numpy(crop_or_pad(chosen * scale.numpy()[:, None, None], self.pixels))
        return scale * self._brightness_factor(batch)[:, None]

    def check_keeps_pixels(self, where: str, shape: Sequence[int]) -> None:
        """Refuse cutouts (…, H, W) whose pixels are not the model's, of a model that predicts images.

        Raises
        ------
        ModelError
            If they would have to be resampled, or padded: what is predicted would be of other pixels.
        """
        if self.zoom != 1:
            raise ModelError(
                f"{where}: the pixel scale is {self.zoom:.4g} times that of the model's training images; its answer would "
                "be of another sharpness. Train it on such pairs, or say the right scale with --pixel_scale"
            )
        if min(shape[-2:]) < self.pixels:
            raise ModelError(
                f"{where}: images of {shape[-2]}×{shape[-1]} pixels are smaller than the model's "
                f"{self.pixels}×{self.pixels}"
            )


def adaptation(config: ModelConfig, info: DatasetInfo, shape: Sequence[int], band: str | None = None) -> Adaptation:
    """Return what has to be done to cutouts before a model sees them.

    Parameters
    ----------
    config
        Of the model.
    info
        What the cutouts are: bands, pixel scale (arcsec), unit.
    shape
        Of the cutouts, (…, C, H, W).
    band
        Names or numbers of the bands to use, with commas between.

    Returns
    -------
    Adaptation
        To be applied to arrays of cutouts.

    Raises
    ------
    ModelError
        If the model needs more channels than the cutouts have, or a named band is not there.
    """
    channels, height, width = shape[-3:]
    notes: list[str] = []
    bands = _choose_bands(config, info.bands, channels, band, notes)
    zoom = 1.0
    if config.pixel_scale and info.pixel_scale:
        ratio = info.pixel_scale / config.pixel_scale
        if not 1 <= ratio * max(height, width) <= MOST_PIXELS:
            raise ModelError(
                f"{info.source}: a pixel scale of {info.pixel_scale:g}″ beside the model's {config.pixel_scale:g}″ makes "
                f"{ratio * max(height, width):.3g} pixels of {max(height, width)}; say the right one with --pixel_scale"
            )
        if abs(ratio - 1) > SAME_SCALE:
            zoom = ratio
            notes.append(f"resampled from {info.pixel_scale:.4g}″ to the model's {config.pixel_scale:.4g}″ per pixel")
    elif config.pixel_scale:
        notes.append(
            f"pixel scale unknown; taken to be the model's {config.pixel_scale:g}″ (--pixel_scale says another)"
        )
    sides = {round(height * zoom), round(width * zoom)}
    if max(sides) > config.pixels:
        notes.append(f"cropped to the central {config.pixels} of {'×'.join(map(str, sorted(sides)))} pixels")
    if min(sides) < config.pixels:
        notes.append(f"padded from {min(sides)} to the model's {config.pixels} pixels with each image's border level")
    factors = _flux_factors(config, info, bands, notes)
    brightness = None
    if factors is None and not _same_flux(config, info) and config.data.get("typical_peak"):
        brightness = float(config.data["typical_peak"])
        notes.append(
            f"brightness in {info.unit or 'an unknown unit'}, the model's is {config.unit or 'unknown'}"
            f"{' of another zero point' if info.unit and config.unit == info.unit else ''}: each image was multiplied so "
            f"that its 99.5th percentile is {brightness:.4g}, the median of the training images; its own brightness is lost"
        )
    return Adaptation(bands, zoom, config.pixels, brightness, notes, factors)


def _flux_factors(config: ModelConfig, info: DatasetInfo, bands: Sequence[int], notes: list[str]) -> list[float] | None:
    """What each band is multiplied by to have the model's zero point; None if one of the two is unknown."""
    if not config.zero_points or not info.zero_points:
        return None
    factors = []
    for wanted, channel in zip(config.zero_points, bands, strict=True):
        own = info.zero_points[channel]
        if wanted is None or own is None:
            return None
        factors.append(10 ** (0.4 * (wanted - own)))
    if any(abs(factor - 1) > SAME_FLUX for factor in factors):
        said = ", ".join(f"{info.zero_points[channel]:.2f}" for channel in bands)
        theirs = ", ".join(f"{wanted:.2f}" for wanted in config.zero_points if wanted is not None)
        notes.append(f"fluxes brought from zero points {said} to the model's {theirs}")
        return factors
    return [1.0] * len(factors)


def _same_flux(config: ModelConfig, info: DatasetInfo) -> bool:
    """Whether brightness means the same to the model, where zero points do not tell.

    Units have to be equal, and of real images neither side's zero point may be known: a count of another exposure is
    another flux.
    """
    known = any(zero_point is not None for zero_point in info.zero_points)
    if config.zero_points is None:  # before zero points were recorded, nor were units of FITS files
        return (config.unit == info.unit and (info.preset is not None or not known)) or (config.unit is None and known)
    return config.unit == info.unit and not known and all(zero_point is None for zero_point in config.zero_points)


def _choose_bands(
    config: ModelConfig, names: Sequence[str], channels: int, band: str | None, notes: list[str]
) -> list[int]:
    if band is not None:
        chosen = [_band_number(name.strip(), names, channels) for name in band.split(",")]
        if config.channels > 1 and len(chosen) == len(config.bands) == config.channels:
            notes.append(_pairs(config.bands, chosen, names))
    elif config.bands and names and (found := matching(config.bands, names)) is not None:
        chosen = found
        if chosen == list(range(channels)) and list(config.bands) == list(names):
            return chosen
    elif channels == config.channels == 1:
        if config.bands and names:
            notes.append(f"band {names[0]}, which the model does not know: its own is {config.bands[0]}")
        return [0]
    elif channels == config.channels and config.bands and names:
        raise ModelError(
            f"the model knows bands {', '.join(config.bands)}, these are {', '.join(names)}; --bands says which is which"
        )
    elif channels == config.channels:
        if channels > 1 and (known := ", ".join(config.bands or names)):
            notes.append(f"bands taken in their order, as only one side has names for them: {known}")
        return list(range(channels))
    elif config.channels == 1:
        found = next((place for like in LIKE_OURS if (place := matching([like], names)) is not None), [0])
        if config.bands and names:
            notes.append(f"no band {config.bands[0]}, which the model knows; --bands chooses another than the next")
        chosen = found
    else:
        chosen = []
    if len(chosen) != config.channels:
        given = f"{len(chosen)} were chosen" if band is not None else "choose with --bands"
        raise ModelError(f"the model needs {config.channels} bands, these cutouts have {channels}; {given}")
    if chosen != list(range(channels)):
        notes.append(f"band {', '.join(names[i] if names else str(i) for i in chosen)} of {channels}")
    return chosen


def _pairs(own: Sequence[str], chosen: Sequence[int], names: Sequence[str]) -> str:
    """What the bands of a model are taken from, and whether the names of the cutouts' bands say otherwise."""
    taken = ", ".join(f"{mine} is {names[i] if names else i}" for mine, i in zip(own, chosen, strict=True))
    by_name = matching(own, names) if names else None
    if by_name is None or by_name == list(chosen):
        return f"bands of the model, as --bands says: {taken}"
    right = ", ".join(names[i] for i in by_name)
    return f"--bands contradicts the names of the bands: {taken}; without it, they would be {right}"


def _band_number(name: str, names: Sequence[str], channels: int) -> int:
    """The channel of a band by its name, or of bands without names by its number, from 0."""
    if name in names:
        return list(names).index(name)
    if names:
        raise ModelError(f"no band {name} in these cutouts; there are {', '.join(names)}")
    if name.isascii() and name.isdigit() and int(name) < channels:
        return int(name)
    raise ModelError(
        f"no band {name} in these cutouts: their bands have no names; say a number from 0 to {channels - 1}"
    )
