"""Prepare images for the network: crop, stretch, scale, fit a lens model, resize, repeat channels.

The settings are stored with the trained model, so that prediction prepares images as the training did.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from darklens.data.options import PreprocessingOptions
from darklens.data.sizes import central_window
from darklens.errors import DataError
from darklens.physics.coordinates import bin_pixels
from darklens.physics.isophotes import fit_isophotes, isophote_images
from darklens.physics.smoothfit import (
    SmoothPrior,
    fit_smooth_lens,
    in_larger_frame,
    learn_prior,
    residual,
    sky_noise,
    smooth_image,
)
from darklens.progress import progress_bar

PRIOR_IMAGES = 256
"""Training images from which the distribution of lenses is learned. Measured on the preset model-1: from 32 to 512 images
the median error of the Einstein radius (0.016″ to 0.018″) and the scatter of what the fit leaves (1.235) stay the same, and
the time grows from 2 s to 40 s. With fewer the distribution may be too narrow for a more varied survey; not measured."""
FIT_PIXELS = 40
"""Pixels a side that images have at least after binning for the fit. Measured on the preset model-1 (150 pixels): what
the fit leaves scatters by 1.448 at 20, 1.250 at 30, 1.236 at 40, 1.233 at 60 and without binning, in units of the noise,
and the time of 128 fits is 0.2, 0.4, 0.9, 2.6 and 139 s. A smaller number is less accurate, a larger one slower."""

NOISE_SOFTENING = 3.0
"""Brightness in units of the noise at which the stretch ``noise`` turns from linear to logarithmic. A choice, not tuned."""

_SQUARABLE = 1e18
"""Numbers below it have a square in float32."""


@dataclass(frozen=True)
class Preprocessing(PreprocessingOptions):
    """Crop, stretch and scale images, and add what a lens model leaves of them.

    Parameters
    ----------
    crop, stretch, resize, repeat_channels, lens_model, lens_fine, lens_fine_blur, lens_light
        As in `PreprocessingOptions`.
    lens_band
        The channel that the lens is fitted to; None fits it to the sum of all.
    softening
        Brightness at which ``asinh`` turns from linear to logarithmic, in the images' unit; None takes the standard
        deviation of the noise, fitted to training images by `fit`.
    center, scale
        Subtracted and divided by after the stretch; fitted to training images by `fit`.
    lens_prior
        The distribution of smooth lenses, and the blur they are seen through; learned from training images by `fit`.
    """

    lens_band: int | None = None
    softening: float | None = None
    center: float = 0.0
    scale: float = 1.0
    lens_prior: dict[str, Any] | None = None

    def fit(self, images: Tensor, noise: Tensor | None = None) -> Preprocessing:
        """Return these settings with all that follows from training images: softening, center, scale and the lens prior.

        Parameters
        ----------
        images
            Training images (N, C, H, W), as they come from the detector.
        noise
            Standard deviation of the sky's noise (N, C), nan where unknown; None estimates it from the images.

        Returns
        -------
        Preprocessing
            Settings that can be applied to images.

        Raises
        ------
        DataError
            If a lens model is asked for that does not fit the number of channels.
        """
        cropped = self._crop(images.float())
        if self.lens_model:
            self._check_channels(images.shape[-3])
            pixels, binned = _to_fit(
                self._in_noise(cropped[:PRIOR_IMAGES], None if noise is None else noise[:PRIOR_IMAGES])
            )
            with progress_bar("learning the distribution of lenses") as advance:
                prior = learn_prior(pixels, binned=binned, progress=advance)
            return replace(self, lens_model=False).fit(images, noise)._with_lens(prior)
        if self.stretch == "minmax":
            return self
        softening = self.softening
        if self.stretch == "asinh" and softening is None:
            # The median absolute deviation of pixels, most of which are sky, from their median; times 1.4826 it is the
            # standard deviation of a normal distribution.
            softening = 1.4826 * float((cropped - cropped.median()).abs().median()) or 1.0
        stretched = replace(self, softening=softening)._stretch(cropped, noise)
        return replace(self, softening=softening, center=float(stretched.mean()), scale=float(stretched.std()) or 1.0)

    def __call__(self, images: Tensor, lenses: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """Return images prepared for the network.

        Parameters
        ----------
        images
            (N, C, H, W), as they come from the detector.
        lenses
            Lens parameters (N, P) of these images as `lenses` returns them; None fits them if they are needed.
        noise
            Standard deviation of the sky's noise (N, C), nan where unknown; None estimates it from the images.

        Returns
        -------
        Tensor
            Float32 of the shape that `output_shape` gives.
        """
        cropped = self._crop(images.float())
        stretched = (self._stretch(cropped, noise) - self.center) / self.scale
        if self.lens_model:
            if lenses is None:
                lenses = self._lenses(self._in_noise(cropped, noise))
            stretched = torch.cat([stretched, *self._lens_channels(cropped, lenses, noise)], dim=1)
            if self.lens_fine > 1:
                larger = stretched.repeat_interleave(self.lens_fine, -1).repeat_interleave(self.lens_fine, -2)
                return torch.cat([larger, self._fine_lens(cropped, lenses, noise)], dim=1)
        if self.lens_light:
            stretched = torch.cat([stretched, _beside_isophotes(cropped, noise)], dim=1)
        if self.resize is not None and stretched.shape[-1] != self.resize:
            stretched = interpolate(
                stretched, size=(self.resize, self.resize), mode="bilinear", align_corners=False, antialias=True
            )
        repeated = self.repeat_channels > 1 and stretched.shape[1] == 1
        return stretched.expand(-1, self.repeat_channels, -1, -1) if repeated else stretched

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Return the shape (C, H, W) that the network gets from images of a shape (…, C, H, W).

        Raises
        ------
        DataError
            If the settings do not fit the number of channels.
        """
        channels, height, width = shape[-3:]
        height, width = (min(n, self.crop or n) for n in (height, width))
        if self.resize is not None:
            height = width = self.resize
        if self.lens_model or self.lens_light or self.repeat_channels > 1:
            self._check_channels(channels)
        if self.lens_fine > 1:
            if (
                not self.lens_model
                or self.lens_light
                or self.stretch != "none"
                or self.resize is not None
                or channels > 1
            ):
                raise DataError(
                    "preprocessing.lens_fine is for images of one band, with lens_model true, stretch none, and neither "
                    "resize nor lens_light"
                )
            return channels + 3, height * self.lens_fine, width * self.lens_fine
        added = 2 * self.lens_model + channels * self.lens_light
        return max(channels, self.repeat_channels) + added, height, width

    def _check_channels(self, channels: int) -> None:
        if self.lens_model and self.repeat_channels > 1:
            raise DataError("lens_model adds two channels of its own; repeat_channels has no use beside it")
        if self.lens_light and self.repeat_channels > 1:
            raise DataError("lens_light adds a channel for each band; repeat_channels has no use beside it")
        if self.repeat_channels > 1 and channels not in (1, self.repeat_channels):
            raise DataError(
                f"this recipe's network takes {self.repeat_channels} channels (repeat_channels): one that is repeated, or "
                f"as many bands; these images have {channels}. --preprocessing.repeat_channels 1 takes them as they are"
            )
        if self.lens_band is not None and not 0 <= self.lens_band < channels:
            raise DataError(f"lens_band {self.lens_band}: these images have {channels} channels, counted from 0")

    def _with_lens(self, prior: SmoothPrior) -> Preprocessing:
        table = {
            "mean": prior.mean.tolist(),
            "precision": prior.precision.tolist(),
            "blur": prior.blur,
            "fine": prior.fine,
        }
        return replace(self, lens_model=True, lens_prior=table)

    def lenses(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the parameters of the smooth lenses that fit images best.

        Parameters
        ----------
        images
            (N, C, H, W), as they come from the detector.
        noise
            Standard deviation of the sky's noise (N, C), nan where unknown; None estimates it from the images.

        Returns
        -------
        Tensor
            (N, P), those of `darklens.physics.smoothfit.PARAMETERS`, in that order.
        """
        return self._lenses(self._in_noise(self._crop(images.float()), noise))

    @property
    def _prior(self) -> SmoothPrior:
        assert self.lens_prior is not None, "preprocessing that was not fitted"
        table = self.lens_prior
        # Models of version 0.1 know nothing of means over pixels.
        fine = bool(table.get("fine", False))
        return SmoothPrior(torch.tensor(table["mean"]), torch.tensor(table["precision"]), table["blur"], fine)

    @torch.no_grad()
    def _lenses(self, scaled: Tensor) -> Tensor:
        pixels, binned = _to_fit(scaled)
        with torch.autocast(scaled.device.type, enabled=False):
            found = fit_smooth_lens(pixels, self._prior, binned=binned).parameters
        side, start = _fitted_part(whole := scaled.shape[-1])
        return found if side == whole else in_larger_frame(found, side, whole, start)

    @torch.no_grad()
    def _fine_lens(self, images: Tensor, lenses: Tensor, noise: Tensor | None) -> Tensor:
        """The fit on finer pixels, (N, 1, H × lens_fine, W × lens_fine), as images are after center and scale."""
        with torch.autocast(images.device.type, enabled=False):
            side, _ = _fitted_part(whole := images.shape[-1])
            prior, ratio = self._prior, self.lens_fine_blur or 1 / self.lens_fine
            blur = prior.blur * side / whole * ratio
            model = smooth_image(lenses, whole * self.lens_fine, blur, prior.fine)
            in_images = model * self._noise_level(images, noise)
            return ((in_images - self.center) / self.scale)[:, None]

    @torch.no_grad()
    def _lens_channels(self, images: Tensor, lenses: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the fit of a smooth lens leaves of images, in units of the noise, and the square root of the fit."""
        scaled = self._in_noise(images, noise)
        with torch.autocast(images.device.type, enabled=False):
            side, _ = _fitted_part(whole := images.shape[-1])
            prior = self._prior
            model = smooth_image(lenses, whole, prior.blur * side / whole, prior.fine)
            residuals = residual(scaled, model)
        # Both about as large as the image itself after scaling: noise has a standard deviation of 0.5, and a model of
        # 81 times the noise is 3. A choice, not tuned; the limit of 30 keeps bad pixels from dominating the batch norm.
        return residuals[:, None].clamp(-30, 30) / 2, model[:, None].clamp_min(0).sqrt() / 3

    def _crop(self, images: Tensor) -> Tensor:
        if self.crop is None:
            return images
        rows, columns = central_window(images.shape[-2], images.shape[-1], self.crop)
        return images[..., rows, columns]

    def _in_noise(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """The band of images (N, C, H, W) that the lens is fitted to, in units of its sky noise, (N, H, W)."""
        return self._lens_light(images) / self._noise_level(images, noise)

    def _lens_light(self, images: Tensor) -> Tensor:
        """The band of images (N, C, H, W) that the lens is fitted to, or their sum, (N, H, W)."""
        return images.sum(1) if self.lens_band is None else images[:, self.lens_band]

    def _noise_level(self, images: Tensor, noise: Tensor | None) -> Tensor:
        """Standard deviation (N, 1, 1) of the sky's noise in that band, estimated where it is not known."""
        estimate = sky_noise(self._lens_light(images))
        if noise is None:
            return estimate
        known = noise.square().sum(1).sqrt() if self.lens_band is None else noise[:, self.lens_band]
        known = known.to(estimate)[:, None, None]
        return torch.where(known > 0, known, estimate)  # nan is not above 0

    def _stretch(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        if self.stretch == "sqrt":
            return torch.sign(images) * images.abs().sqrt()
        if self.stretch == "asinh":
            return asinh(images / (self.softening or 1.0))
        if self.stretch == "noise":
            return asinh(_in_band_noise(images, noise) / NOISE_SOFTENING)
        if self.stretch == "minmax":
            low, high = images.amin((-3, -2, -1), keepdim=True), images.amax((-3, -2, -1), keepdim=True)
            # Constant images are refused when they are read; here they must only not become nan.
            return (images - low) / (high - low).clamp_min(torch.finfo(images.dtype).tiny)
        return images


def asinh(values: Tensor) -> Tensor:
    """Return the inverse hyperbolic sine, six times as fast on a CPU as PyTorch's own, to float32 rounding.

    Parameters
    ----------
    values
        Any shape, floating.
    """
    size = values.abs()
    if values.requires_grad or values.device.type != "cpu" or not (size.numel() and bool(size.max() < _SQUARABLE)):
        return torch.asinh(values)
    square = size * size
    # asinh(x) = log1p(x + x² / (1 + sqrt(1 + x²))), x ≥ 0: nothing cancels.
    square.div_((square + 1).sqrt_().add_(1)).add_(size)
    return square.log1p_().copysign_(values)


def _in_band_noise(images: Tensor, noise: Tensor | None) -> Tensor:
    """Images (N, C, H, W), each band in units of the noise of its sky, which is estimated where (N, C) is not known."""
    estimate = sky_noise(images.flatten(0, 1)).reshape(*images.shape[:2], 1, 1)
    if noise is not None:
        known = noise.to(estimate)[..., None, None]
        estimate = torch.where(known > 0, known, estimate)  # nan is not above 0
    return images / estimate


@torch.no_grad()
def _beside_isophotes(images: Tensor, noise: Tensor | None) -> Tensor:
    """What isophotes leave of images (N, C, H, W), in units of the noise, with the stretch ``noise``."""
    with torch.autocast(images.device.type, enabled=False):
        scaled = _in_band_noise(images, noise)
        model = isophote_images(fit_isophotes(scaled), images.shape[-1])
        return asinh((scaled - model) / NOISE_SOFTENING)


def _to_fit(scaled: Tensor) -> tuple[Tensor, int]:
    """Images (N, H, W) on no more pixels than a fit needs, and how many make one of these."""
    factor = max(1, scaled.shape[-1] // FIT_PIXELS)
    side, start = _fitted_part(scaled.shape[-1])
    return bin_pixels(scaled[:, start : start + side, start : start + side], factor), factor**2


def _fitted_part(whole: int) -> tuple[int, int]:
    """Side of the central part of an image that can be binned for the fit, and its first row and column."""
    side = whole // (factor := max(1, whole // FIT_PIXELS)) * factor
    return side, (whole - side) // 2
