"""What happens to an image between the detector and the network: crop, stretch, scale, lens model, size, channels.

It is stored with the trained model, so whoever predicts never has to know it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from darklens.errors import DataError
from darklens.physics.coordinates import bin_pixels
from darklens.physics.smoothfit import SmoothPrior, fit_smooth_lens, learn_prior, residual, sky_noise, smooth_image
from darklens.progress import progress_bar

LENSES = 256
"""Training images from which the distribution of lenses is learned."""
LENS_PIXELS = 40
"""Pixels across that are enough to fit a smooth lens."""

Stretch = Literal["none", "sqrt", "asinh", "minmax"]


@dataclass(frozen=True)
class Preprocessing:
    """Crop, stretch and scale images.

    Attributes
    ----------
    crop
        Side of the central square that is kept, pixels; None keeps all.
    stretch
        ``minmax`` scales each image to 0..1, as the published systems do; ``sqrt`` makes the noise of counts even;
        ``asinh`` is linear for noise and logarithmic for signal (``softening`` is where it bends, fitted to the noise
        if None); ``none`` keeps values.
    resize
        Side in pixels to which the image is then interpolated; None keeps it.
    repeat_channels
        Repeat one channel this many times, for pretrained weights that ask for colour. Images that have as many channels
        already are left as they are.
    lens_model
        Fit a smooth lens to every image, and add two channels: what the fit leaves, in units of the noise, and the fit.
    lens_band
        The channel that the lens is fitted to; None fits it to the sum of all.
    center, scale
        Subtracted and divided by after the stretch; fitted to training images by `fit`.
    lens_prior
        The distribution of smooth lenses, and the blur they are seen through; learned from training images by `fit`.
    """

    crop: int | None = None
    stretch: Stretch = "sqrt"
    resize: int | None = None
    repeat_channels: int = 1
    lens_model: bool = False
    lens_band: int | None = None
    softening: float | None = None
    center: float = 0.0
    scale: float = 1.0
    lens_prior: dict[str, Any] | None = None

    def fit(self, images: Tensor) -> Preprocessing:
        """The same with all that training images (N, C, H, W) decide: softening, center and scale, and the lens prior."""
        cropped = self._crop(images.float())
        if self.lens_model:
            self._check_channels(images.shape[-3])
            pixels, binned = _to_fit(self._in_noise(cropped[:LENSES]))
            with progress_bar("learning the distribution of lenses") as advance:
                prior = learn_prior(pixels, binned=binned, progress=advance)
            return replace(self, lens_model=False).fit(images)._with_lens(prior)
        if self.stretch == "minmax":
            return self
        softening = self.softening
        if self.stretch == "asinh" and softening is None:
            # The median absolute deviation of pixels, most of which are sky, from their median.
            softening = 1.4826 * float((cropped - cropped.median()).abs().median()) or 1.0
        stretched = replace(self, softening=softening)._stretch(cropped)
        return replace(self, softening=softening, center=float(stretched.mean()), scale=float(stretched.std()) or 1.0)

    def __call__(self, images: Tensor, lenses: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) as the network wants them, float32; ``lenses`` (N, P) is what `lenses` found in them."""
        cropped = self._crop(images.float())
        stretched = (self._stretch(cropped) - self.center) / self.scale
        if self.lens_model:
            stretched = torch.cat([stretched, *self._lens_channels(cropped, lenses)], dim=1)
        if self.resize is not None and stretched.shape[-1] != self.resize:
            stretched = interpolate(
                stretched, size=(self.resize, self.resize), mode="bilinear", align_corners=False, antialias=True
            )
        repeated = self.repeat_channels > 1 and stretched.shape[1] == 1
        return stretched.expand(-1, self.repeat_channels, -1, -1) if repeated else stretched

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Shape (C, H, W) that the network gets from images (…, C, H, W)."""
        channels, height, width = shape[-3:]
        height, width = (min(n, self.crop or n) for n in (height, width))
        if self.resize is not None:
            height = width = self.resize
        if self.lens_model or self.repeat_channels > 1:
            self._check_channels(channels)
        return channels + 2 if self.lens_model else max(channels, self.repeat_channels), height, width

    def _check_channels(self, channels: int) -> None:
        if self.lens_model and self.repeat_channels > 1:
            raise DataError("lens_model adds two channels of its own; repeat_channels has no use beside it")
        if self.repeat_channels > 1 and channels not in (1, self.repeat_channels):
            raise DataError(
                f"this recipe's network takes {self.repeat_channels} channels (repeat_channels): one that is repeated, or "
                f"as many bands; these images have {channels}. --preprocessing.repeat_channels 1 takes them as they are"
            )
        if self.lens_band is not None and not 0 <= self.lens_band < channels:
            raise DataError(f"lens_band {self.lens_band}: these images have {channels} channels, counted from 0")

    def _with_lens(self, prior: SmoothPrior) -> Preprocessing:
        table = {"mean": prior.mean.tolist(), "precision": prior.precision.tolist(), "blur": prior.blur}
        return replace(self, lens_model=True, lens_prior=table)

    def lenses(self, images: Tensor) -> Tensor:
        """Parameters (N, P) of the smooth lenses that fit images (N, C, H, W) best."""
        return self._lenses(self._in_noise(self._crop(images.float())))

    @property
    def _prior(self) -> SmoothPrior:
        assert self.lens_prior is not None, "preprocessing that was not fitted"
        table = self.lens_prior
        return SmoothPrior(torch.tensor(table["mean"]), torch.tensor(table["precision"]), table["blur"])

    @torch.no_grad()
    def _lenses(self, scaled: Tensor) -> Tensor:
        pixels, binned = _to_fit(scaled)
        with torch.autocast(scaled.device.type, enabled=False):
            return fit_smooth_lens(pixels, self._prior, binned=binned).parameters

    @torch.no_grad()
    def _lens_channels(self, images: Tensor, lenses: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the fit of a smooth lens leaves of images, in units of the noise, and the square root of the fit."""
        scaled = self._in_noise(images)
        if lenses is None:
            lenses = self._lenses(scaled)
        with torch.autocast(images.device.type, enabled=False):
            model = smooth_image(lenses, images.shape[-1], self._prior.blur)
            left = residual(scaled, model)
        # Both about as large as the image itself after scaling.
        return left[:, None].clamp(-30, 30) / 2, model[:, None].clamp_min(0).sqrt() / 3

    def _crop(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if self.crop is None or self.crop >= min(height, width):
            return images
        top, left = (height - self.crop) // 2, (width - self.crop) // 2
        return images[..., top : top + self.crop, left : left + self.crop]

    def _in_noise(self, images: Tensor) -> Tensor:
        """The band of images (N, C, H, W) that the lens is fitted to, in units of its sky noise, (N, H, W)."""
        band = images.sum(1) if self.lens_band is None else images[:, self.lens_band]
        return band / sky_noise(band)

    def _stretch(self, images: Tensor) -> Tensor:
        if self.stretch == "sqrt":
            return torch.sign(images) * images.abs().sqrt()
        if self.stretch == "asinh":
            return torch.asinh(images / (self.softening or 1.0))
        if self.stretch == "minmax":
            low, high = images.amin((-3, -2, -1), keepdim=True), images.amax((-3, -2, -1), keepdim=True)
            # Constant images are refused when they are read; here they must only not become nan.
            return (images - low) / (high - low).clamp_min(torch.finfo(images.dtype).tiny)
        return images


def _to_fit(scaled: Tensor) -> tuple[Tensor, int]:
    """Images (N, H, W) on no more pixels than a fit needs, and how many make one of these."""
    factor = max(1, scaled.shape[-1] // LENS_PIXELS)
    side = scaled.shape[-1] // factor * factor
    return bin_pixels(scaled[:, :side, :side], factor), factor**2
