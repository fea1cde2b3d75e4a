"""Views of an image that differ in what says nothing about its lens: sharpness, noise, place and orientation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import conv2d, pad

from darklens.physics.smoothfit import sky_noise


@dataclass(frozen=True)
class Views:
    """How much views of an image may differ.

    Parameters
    ----------
    shift
        Largest shift along each axis, whole pixels; what comes in from outside is mirrored.
    blur
        Largest standard deviation of a Gaussian by which an image is blurred, pixels.
    noise
        Largest standard deviation of noise that is added, in units of the noise of the sky.
    """

    shift: int = 0
    blur: float = 0.0
    noise: float = 0.0


def observed_again(images: Tensor, views: Views, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return images as another telescope might have seen them: blurred and noisier, each by amounts of its own.

    Parameters
    ----------
    images
        (N, C, H, W), as they come from the detector.
    views
        How much.
    generator
        Source of the random numbers, on the CPU.

    Returns
    -------
    tuple of Tensor
        Images (N, C, H, W), and the standard deviation (N, C) of the noise that was added.
    """
    number, channels = images.shape[:2]
    seen = images.float()
    if views.blur > 0:
        seen = blurred(seen, (views.blur * torch.rand(number, generator=generator)).to(images.device))
    amount = (views.noise * torch.rand(number, 1, generator=generator)).to(images.device)
    sky = sky_noise(images.float().flatten(0, 1)).reshape(number, channels)
    added = amount * sky
    if views.noise > 0:
        noise = torch.randn(images.shape, generator=generator).to(images.device)
        seen = seen + added[..., None, None] * noise
    return seen, added


def blurred(images: Tensor, widths: Tensor) -> Tensor:
    """Return images convolved with Gaussians, whose taps sum to 1; what lies outside is mirrored.

    Parameters
    ----------
    images
        (N, C, H, W).
    widths
        Standard deviation of each image's Gaussian, (N,), pixels; of 0 leaves it as it is.
    """
    number, channels, height, width = images.shape
    radius = min(math.ceil(3 * float(widths.max())), height - 1, width - 1)
    if radius < 1:
        return images
    place = torch.arange(-radius, radius + 1, device=images.device)
    taps = torch.exp(-0.5 * (place / widths.clamp_min(1e-3)[:, None]) ** 2)
    taps = (taps / taps.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    flat = images.reshape(1, number * channels, height, width)
    flat = conv2d(pad(flat, (radius, radius, 0, 0), "reflect"), taps[:, None, None, :], groups=number * channels)
    flat = conv2d(pad(flat, (0, 0, radius, radius), "reflect"), taps[:, None, :, None], groups=number * channels)
    return flat.reshape(images.shape)


def shifted(images: Tensor, largest: int, generator: Generator) -> Tensor:
    """Return each image shifted by whole pixels, at random along each axis; what comes in from outside is mirrored.

    Parameters
    ----------
    images
        (N, C, H, W).
    largest
        Largest shift, pixels.
    generator
        Source of the random numbers, on the CPU.
    """
    if largest < 1:
        return images
    height, width = images.shape[-2:]
    steps = torch.randint(-largest, largest + 1, (len(images), 2), generator=generator).to(images.device)
    rows = _mirrored(torch.arange(height, device=images.device) + steps[:, :1], height)
    columns = _mirrored(torch.arange(width, device=images.device) + steps[:, 1:], width)
    taken = images.gather(2, rows[:, None, :, None].expand_as(images))
    return taken.gather(3, columns[:, None, None, :].expand_as(images))


def _mirrored(places: Tensor, size: int) -> Tensor:
    """Places outside 0 to size − 1 mirrored at the outermost pixels' centres."""
    period = max(2 * (size - 1), 1)
    places = places.remainder(period)
    return torch.minimum(places, period - places)
