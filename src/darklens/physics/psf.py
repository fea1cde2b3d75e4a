"""Point-spread functions: Gaussian (as matrices) and pixelated (by FFT)."""

import math

import torch
from torch import Tensor

SIGMA_PER_FWHM = 1 / (2 * math.sqrt(2 * math.log(2)))


def gaussian_psf_matrix(
    pixels: int,
    fwhm: float,
    truncation: float,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Matrix (pixels, pixels) that convolves a column of pixels with a truncated Gaussian.

    ``fwhm`` is in pixels and ``truncation`` in standard deviations. Beyond the edge the outermost pixel repeats, and
    the kernel has radius ``int(truncation * sigma + 0.5)``, as in ``scipy.ndimage.gaussian_filter`` (and so in
    lenstronomy). Two small matrix products convolve a whole batch faster than any other way on a CPU.
    """
    sigma = fwhm * SIGMA_PER_FWHM
    radius = int(truncation * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / sigma).square())
    rows = torch.arange(pixels)
    columns = (rows[:, None] + offsets.long()[None, :]).clamp(0, pixels - 1)
    matrix = torch.zeros(pixels, pixels, dtype=torch.float64)
    matrix.scatter_add_(1, columns, (weights / weights.sum()).expand(pixels, -1))
    return matrix.to(device=device, dtype=dtype)


def convolve_separable(image: Tensor, matrix: Tensor) -> Tensor:
    """Convolve the last two axes with the kernel that ``matrix`` stands for along each."""
    return matrix @ image @ matrix.mT


def pixelated_psf(kernel: Tensor) -> Tensor:
    """The kernel, normalised to sum 1. Raises ValueError for even sides, negative sums or non-finite values."""
    if kernel.ndim != 2 or not (kernel.shape[0] % 2 and kernel.shape[1] % 2):
        raise ValueError(f"a PSF needs two odd sides, so that it has a central pixel; got {tuple(kernel.shape)}")
    total = kernel.sum()
    if not torch.isfinite(total) or total <= 0:
        raise ValueError("a PSF must be finite and sum to more than zero")
    return kernel / total


def convolve(image: Tensor, kernel: Tensor) -> Tensor:
    """Convolve the last two axes with ``kernel`` by FFT; beyond the edge the image is dark, its size is kept."""
    size = [n + k - 1 for n, k in zip(image.shape[-2:], kernel.shape[-2:], strict=True)]
    product = torch.fft.rfft2(image, s=size) * torch.fft.rfft2(kernel, s=size)
    full = torch.fft.irfft2(product, s=size)
    top, left = (kernel.shape[-2] - 1) // 2, (kernel.shape[-1] - 1) // 2
    return full[..., top : top + image.shape[-2], left : left + image.shape[-1]]
