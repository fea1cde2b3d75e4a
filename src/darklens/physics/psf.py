"""Point-spread functions: Gaussian (separable) and pixelated (by FFT)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

SIGMA_PER_FWHM = 1 / (2 * math.sqrt(2 * math.log(2)))


def gaussian_psf_taps(fwhm: float, truncation: float) -> list[float]:
    """Return the weights of a truncated Gaussian along one axis; they sum to 1.

    ``fwhm`` is in pixels and ``truncation`` in standard deviations. The radius is ``int(truncation * sigma + 0.5)``, as
    in ``scipy.ndimage.gaussian_filter`` (and so in lenstronomy).
    """
    sigma = fwhm * SIGMA_PER_FWHM
    radius = int(truncation * sigma + 0.5)
    weights = [math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(-radius, radius + 1)]
    return [weight / sum(weights) for weight in weights]


def convolve_separable(image: Tensor, taps: Sequence[float]) -> Tensor:
    """Convolve the last two axes of images (N, H, W) with the same weights along each.

    Beyond the edge the outermost pixel repeats, as in lenstronomy. For the few taps of a PSF, sums of shifted images are
    faster than any convolution routine on a CPU.
    """
    radius, (height, width) = len(taps) // 2, image.shape[-2:]
    padded = pad(image, (radius,) * 4, mode="replicate")
    rows = taps[0] * padded[..., :width]
    for j in range(1, len(taps)):
        rows = rows.add(padded[..., j : j + width], alpha=taps[j])
    out = taps[0] * rows[..., :height, :]
    for j in range(1, len(taps)):
        out = out.add(rows[..., j : j + height, :], alpha=taps[j])
    return out


def pixel_response(pixels: int, factor: int, taps: Sequence[float]) -> Tensor:
    """Return the share of each sub-pixel in each pixel along one axis.

    ``response @ image @ response.mT`` is `bin_pixels` of `convolve_separable`, and for many taps faster.

    Parameters
    ----------
    pixels
        Side of the image in pixels.
    factor
        Sub-pixels along each side of a pixel.
    taps
        Weights of the convolution, in sub-pixels; an odd number.

    Returns
    -------
    The response, (pixels, pixels * factor), float64.
    """
    count = pixels * factor
    places = torch.arange(count)[:, None] + torch.arange(len(taps)) - len(taps) // 2
    blur = torch.zeros(count, count, dtype=torch.float64)
    weights = torch.tensor(taps, dtype=torch.float64).expand(count, -1)
    blur.scatter_add_(1, places.clamp(0, count - 1), weights)
    return blur.view(pixels, factor, count).mean(1)


def psf_kernel(
    radius: int, fwhm: Tensor, *, beta: float | None = None, e1: Tensor | float = 0.0, e2: Tensor | float = 0.0
) -> Tensor:
    """Return Gaussian or Moffat point-spread functions, sampled at the centres of pixels, each of sum 1.

    Parameters
    ----------
    radius
        Pixels from the centre to the edge of the square that is kept.
    fwhm
        Full width at half maximum of each, in pixels, as the product average of a longer and a shorter one, (…).
    beta
        Exponent of a Moffat function, above 1; without it, the function is Gaussian.
    e1, e2
        Ellipticity components, (…).

    Returns
    -------
    Tensor
        Kernels (…, 2 radius + 1, 2 radius + 1).
    """
    offsets = torch.arange(-radius, radius + 1, dtype=fwhm.dtype, device=fwhm.device)
    e1, e2 = (torch.as_tensor(e, dtype=fwhm.dtype, device=fwhm.device)[..., None, None] for e in (e1, e2))
    dx, dy = offsets[None, :], offsets[:, None]
    u, v = dx - (e1 * dx + e2 * dy), dy - (e2 * dx - e1 * dy)
    square = (u.square() + v.square()) / (1 - e1.square() - e2.square()) / fwhm.square()[..., None, None]
    gaussian = torch.exp(-4 * math.log(2) * square)
    kernel = gaussian if beta is None else (1 + 4 * (2 ** (1 / beta) - 1) * square) ** -beta
    return kernel / kernel.sum((-2, -1), keepdim=True)


def pixelated_psf(kernel: Tensor) -> Tensor:
    """Return the kernel of a PSF, (h, w), normalised to sum 1.

    Raises
    ------
    ValueError
        If a side is even, the sum is not above zero, or a value is not finite.
    """
    if kernel.ndim != 2 or not (kernel.shape[0] % 2 and kernel.shape[1] % 2):
        raise ValueError(f"a PSF needs two odd sides, so that it has a central pixel; got {tuple(kernel.shape)}")
    total = kernel.sum()
    if not torch.isfinite(total) or total <= 0:
        raise ValueError("a PSF must be finite and sum to more than zero")
    return kernel / total


def convolve(image: Tensor, kernel: Tensor) -> Tensor:
    """Convolve images with a kernel by FFT; beyond the edge they are dark.

    Parameters
    ----------
    image
        Images (…, H, W).
    kernel
        Kernel (h, w), or one for each image (…, h, w), centred on its pixel ((h - 1) // 2, (w - 1) // 2).

    Returns
    -------
    Images (…, H, W).
    """
    size = [n + k - 1 for n, k in zip(image.shape[-2:], kernel.shape[-2:], strict=True)]
    product = torch.fft.rfft2(image, s=size) * torch.fft.rfft2(kernel, s=size)
    full = torch.fft.irfft2(product, s=size)
    top, left = (kernel.shape[-2] - 1) // 2, (kernel.shape[-1] - 1) // 2
    return full[..., top : top + image.shape[-2], left : left + image.shape[-1]]
