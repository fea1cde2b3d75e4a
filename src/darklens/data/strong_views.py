"""Augment batches strongly, by what differs between exposures of one sky: seeing, noise, background, masks, pointing."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn.functional import conv2d, pad


def blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Convolve each image with a Gaussian of its own; borders are continued by their nearest pixel.

    Parameters
    ----------
    images
        (N, C, H, W).
    sigma
        Standard deviations (N,), pixels; 0 leaves an image as it is.

    Returns
    -------
    Tensor
        (N, C, H, W). The kernel is cut off at three times the largest sigma.
    """
    count, channels = images.shape[:2]
    radius = max(1, int(torch.ceil(3 * sigma.max())))
    x = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    width = sigma.to(images).clamp_min(1e-3)  # of so small a width, only the central pixel is not 0
    kernel = torch.exp(-x.square() / (2 * width[:, None].square()))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    flat = pad(images, (radius,) * 4, mode="replicate").reshape(1, count * channels, *_padded(images, radius))
    flat = conv2d(flat, kernel[:, None, None, :], groups=count * channels)
    flat = conv2d(flat, kernel[:, None, :, None], groups=count * channels)
    return flat.reshape(images.shape)


def _padded(images: Tensor, radius: int) -> tuple[int, int]:
    return images.shape[-2] + 2 * radius, images.shape[-1] + 2 * radius


def shifted(images: Tensor, offsets: Tensor) -> Tensor:
    """Move each image by whole pixels; what comes in is the nearest pixel of the border.

    Parameters
    ----------
    images
        (N, C, H, W).
    offsets
        Whole pixels down and right, (N, 2).

    Returns
    -------
    Tensor
        (N, C, H, W).
    """
    count, _, height, width = images.shape
    offsets = offsets.to(images.device)
    rows = (torch.arange(height, device=images.device) - offsets[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) - offsets[:, 1:]).clamp(0, width - 1)
    number = torch.arange(count, device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[number, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def masked(images: Tensor, corners: Tensor, sides: Tensor) -> Tensor:
    """Fill a square of each image with the median of each band, as a mask of a star or a dead detector would.

    Parameters
    ----------
    images
        (N, C, H, W).
    corners
        Row and column of the first pixel, (N, 2).
    sides
        Pixels, (N,); 0 masks nothing.

    Returns
    -------
    Tensor
        (N, C, H, W).
    """
    height, width = images.shape[-2:]
    corners, sides = corners.to(images.device), sides.to(images.device)
    row, column = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    inside_rows = (row >= corners[:, :1]) & (row < corners[:, :1] + sides[:, None])
    inside_columns = (column >= corners[:, 1:]) & (column < corners[:, 1:] + sides[:, None])
    inside = (inside_rows[:, :, None] & inside_columns[:, None, :])[:, None]
    level = images.flatten(2).median(2).values[:, :, None, None]
    return torch.where(inside, level, images)


def strong_view(
    images: Tensor,
    generator: Generator,
    *,
    blur: float,
    noise: float,
    background: float,
    patch: float,
    shift: int,
) -> Tensor:
    """Return a strongly augmented view of each image: shifted, blurred, masked, with noise and another background.

    Parameters
    ----------
    images
        Preprocessed, (N, C, H, W), on any device.
    generator
        Source of the random numbers, on the CPU whatever the device of the images.
    blur
        Largest standard deviation of the Gaussian, pixels.
    noise, background
        Largest noise and largest change of the level, as fractions of the standard deviation of each image's pixels.
    patch
        Largest side of the mask, as a fraction of the image's side.
    shift
        Largest shift in each direction, pixels.

    Returns
    -------
    Tensor
        (N, C, H, W), the same type and device. Each strength is drawn uniformly from 0 to its largest value.
    """
    count, _, height, width = images.shape

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    scatter = images.flatten(2).std(2)[:, :, None, None]
    offsets = torch.round((2 * uniform(count, 2) - 1) * shift).long()
    sigma, level = blur * uniform(count), (2 * uniform(count) - 1) * background
    strength, field = noise * uniform(count), torch.randn(images.shape, generator=generator)
    sides = torch.round(uniform(count) * patch * min(height, width)).long()
    corners = (uniform(count, 2) * (torch.tensor([height, width]) - sides[:, None] + 1)).long()
    view = shifted(images, offsets)
    if blur:
        view = blurred(view, sigma)
    view = masked(view, corners, sides)
    beside = field * strength[:, None, None, None] + level[:, None, None, None]
    return view + beside.to(images) * scatter
