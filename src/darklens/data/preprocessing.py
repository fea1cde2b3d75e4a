"""What happens to an image between the detector and the network: crop, stretch, scale, size, channels.

It is stored with the trained model, so whoever predicts never has to know it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from darklens.errors import DataError

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
        Repeat one channel this many times, for pretrained weights that ask for colour.
    center, scale
        Subtracted and divided by after the stretch; fitted to training images by `fit`.
    """

    crop: int | None = None
    stretch: Stretch = "sqrt"
    resize: int | None = None
    repeat_channels: int = 1
    softening: float | None = None
    center: float = 0.0
    scale: float = 1.0

    def fit(self, images: Tensor) -> Preprocessing:
        """The same with softening, center and scale fitted to training images (N, C, H, W); ``minmax`` needs none."""
        if self.stretch == "minmax":
            return self
        cropped = self._crop(images.float())
        softening = self.softening
        if self.stretch == "asinh" and softening is None:
            # The median absolute deviation of pixels, most of which are sky, from their median.
            softening = 1.4826 * float((cropped - cropped.median()).abs().median()) or 1.0
        stretched = replace(self, softening=softening)._stretch(cropped)
        return replace(self, softening=softening, center=float(stretched.mean()), scale=float(stretched.std()) or 1.0)

    def __call__(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) as the network wants them, float32."""
        stretched = (self._stretch(self._crop(images.float())) - self.center) / self.scale
        if self.resize is not None and stretched.shape[-1] != self.resize:
            stretched = interpolate(
                stretched, size=(self.resize, self.resize), mode="bilinear", align_corners=False, antialias=True
            )
        return stretched.expand(-1, self.repeat_channels, -1, -1) if self.repeat_channels > 1 else stretched

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Shape (C, H, W) that the network gets from images (…, C, H, W)."""
        channels, height, width = shape[-3:]
        height, width = (min(n, self.crop or n) for n in (height, width))
        if self.resize is not None:
            height = width = self.resize
        if self.repeat_channels > 1 and channels > 1:
            raise DataError(f"repeat_channels is for images of one channel; these have {channels}")
        return channels * self.repeat_channels, height, width

    def _crop(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if self.crop is None or self.crop >= min(height, width):
            return images
        top, left = (height - self.crop) // 2, (width - self.crop) // 2
        return images[..., top : top + self.crop, left : left + self.crop]

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
