"""Metrics of predicted images: those of vision, and what they miss: flux, scales, positions, and the images looked at."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from darklens.evaluation.bootstrap import Floats, Metric, Statistic
from darklens.physics.degrading import Response, degrade, inner, variance

CHUNK = 64
"""Images that are compared at a time."""
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the five scales of the multi-scale SSIM (Wang, Simoncelli & Bovik 2003), the finest first."""
WINDOW = 11
"""Side of the Gaussian window of SSIM, pixels; its standard deviation is 1.5."""
APERTURE = 0.4
"""Radius of the aperture for the whole lens, as a fraction of the image's side."""
PEAK_APERTURE = 1.5
"""Radius of the aperture about the brightest pixel, in pixels of the images that are made finer."""
PEAK_SEARCH = 2
"""Distance from the true peak within which that of a prediction is looked for, in the same pixels."""
EDGES = (0.0, 0.5, 1.0)
"""Spatial frequencies between which power is compared, as fractions of the highest that the images have (Nyquist); the last
range, above, is what only the finer pixels show."""
FREQUENCIES = 16
"""Ranges of spatial frequency of the curve of power, up to the highest of the finer pixels."""
LEAST_ERROR = 1e-20
"""Mean squared error, in units of the squared data range, below which PSNR is given as 200 dB."""


def image_metrics(predicted: np.ndarray, truth: np.ndarray, *, data_range: float, factor: int) -> list[Metric]:
    """Return the metrics of predicted images against true ones.

    Parameters
    ----------
    predicted, truth
        (N, C, H, W), in the same unit.
    data_range
        Span of pixel values for which PSNR and SSIM are given.
    factor
        Fine pixels along the side of a pixel of the images that were made finer.

    Returns
    -------
    list of Metric
        Each is the mean over images, or the scatter, or a ratio of sums; computed when its statistic is first called.
    """
    a, b = torch.from_numpy(np.asarray(predicted)), torch.from_numpy(np.asarray(truth))
    error = _each(a, b, lambda x, y: (x - y).square().mean((1, 2, 3)))
    over = f"data range {data_range:.4g}"
    whole = _each(a, b, lambda x, y: _flux_error(x, y, _disc(x.shape[-1], APERTURE * x.shape[-1])))
    peak = _each(a, b, lambda x, y: _flux_error(x, y, _about_peak(y, PEAK_APERTURE * factor)))
    metrics = [
        Metric("psnr", "PSNR", _mean(lambda: psnr(error(), data_range)), unit="dB"),
        Metric("ssim", f"SSIM ({over})", _mean(_each(a, b, lambda x, y: ssim(x, y, data_range))), perfect=1),
        Metric(
            "ms_ssim", f"multi-scale SSIM ({over}, {scales(b.shape[-1])} scales)",
            _mean(_each(a, b, lambda x, y: multiscale_ssim(x, y, data_range))), perfect=1,
        ),
        Metric("mse", "MSE", _mean(error), better="lower", perfect=0),
        Metric("flux_bias", "Bias of the flux", _mean(whole), better="neither", perfect=0),
        Metric("flux_scatter", "Scatter of the flux", _scatter(whole), better="lower", perfect=0),
        Metric("peak_flux_bias", "Bias of the flux at the peak", _mean(peak), better="neither", perfect=0),
        Metric("peak_flux_scatter", "Scatter of the flux at the peak", _scatter(peak), better="lower", perfect=0),
        Metric(
            "astrometry", "Offset of the peak", _mean(_each(a, b, lambda x, y: peak_offset(x, y, factor))),
            unit="pixels of the images", better="lower", perfect=0,
        ),
    ]  # fmt: skip
    power = [_each(each, each, lambda x, _: power_by_scale(x, factor)) for each in (a, b)]
    for number, name in enumerate(("coarse", "fine", "new")):
        metrics.append(
            Metric(
                f"power_{name}", f"Power at {name} scales over the truth's", _power_ratio(power[0], power[1], number),
                better="neither", perfect=1,
            )
        )  # fmt: skip
    return metrics


def degraded_metric(
    predicted: np.ndarray, truth: np.ndarray, images: np.ndarray, response: Response, factor: int
) -> Metric:
    """Return χ² per pixel of predictions that are degraded to the pixels of the images that were looked at.

    Parameters
    ----------
    predicted, truth
        (N, C, H × factor, W × factor).
    images
        (N, C, H, W).
    response
        How pixels gather light, and their noise; the variance is that of the degraded truth.
    factor
        Fine pixels along the side of a pixel.

    Returns
    -------
    Metric
        The mean over images; the degraded truths of the training images have 1.
    """
    a, b, seen = (torch.from_numpy(np.asarray(each)) for each in (predicted, truth, images))

    @cache
    def compute() -> Floats:
        parts = [
            chi_square(x, y, response, factor, truth=t)
            for x, t, y in zip(*(torch.split(each, CHUNK) for each in (a, b, seen)), strict=True)
        ]
        return torch.cat(parts).numpy()

    return Metric("chi2", "χ² per pixel after degrading", _mean(compute), better="neither", perfect=1)


def chi_square(fine: Tensor, images: Tensor, response: Response, factor: int, *, truth: Tensor | None = None) -> Tensor:
    """Return χ² per pixel (N,) of fine images that are degraded to the pixels of others.

    Parameters
    ----------
    fine
        (N, C, H × factor, W × factor).
    images
        (N, C, H, W).
    response
        How pixels gather light, and their noise.
    factor
        Fine pixels along the side of a pixel.
    truth
        Fine images whose light gives the variance; by default ``fine``.

    Returns
    -------
    torch.Tensor
        (N,), double precision.
    """
    model = degrade(fine.double(), response.weights, factor)
    light = model if truth is None else degrade(truth.double(), response.weights, factor)
    return ((inner(images.double()) - model).square() / variance(response, light)).mean((1, 2, 3))


def coverage_metrics(
    low: np.ndarray, high: np.ndarray, spread: np.ndarray, truth: np.ndarray, share: float
) -> list[Metric]:
    """Return how often the truth of a pixel lies within its samples, and how wide these are.

    Parameters
    ----------
    low, high
        Lowest and highest sample of each pixel, (N, C, H, W).
    spread
        Standard deviation of the samples of each pixel, (N, C, H, W).
    truth
        (N, C, H, W).
    share
        Fraction of pixels whose truth lies between the two if samples are drawn as the truth is.

    Returns
    -------
    list of Metric
        ``coverage`` of pixels, and ``spread``, the mean standard deviation.
    """
    inside = ((low <= truth) & (truth <= high)).mean((1, 2, 3), dtype=np.float64)
    wide = spread.mean((1, 2, 3), dtype=np.float64)
    return [
        Metric("coverage", "Pixels within their samples", _mean(lambda: inside), better="neither", perfect=share),
        Metric("spread", "Spread of the samples", _mean(lambda: wide), better="neither"),
    ]


def psnr(error: Floats, data_range: float) -> Floats:
    """Return the peak signal-to-noise ratio (N,), dB, of mean squared errors (N,)."""
    return -10 * np.log10(np.maximum(error / data_range**2, LEAST_ERROR))


def ssim(predicted: Tensor, truth: Tensor, data_range: float) -> Tensor:
    """Return the structural similarity (N,) of images (N, C, H, W) (Wang et al. 2004), with a Gaussian window.

    It is the mean over places where the whole window lies in the image, as in scikit-image.

    Parameters
    ----------
    predicted, truth
        (N, C, H, W), in the same unit.
    data_range
        Span of pixel values.

    Returns
    -------
    torch.Tensor
        (N,), 1 for equal images.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure as measure

    a, b, border = predicted.double(), truth.double(), WINDOW // 2
    _, found = measure(a, b, data_range=data_range, reduction="none", return_full_image=True)
    whole: Tensor = found[..., border:-border, border:-border].mean((1, 2, 3))
    return whole


def scales(side: int) -> int:
    """Return how many of the five scales of the multi-scale SSIM images of a side have, each at least a window wide."""
    fitting = [n for n in range(1, 6) if side // 2 ** (n - 1) >= WINDOW and side // max(1, (n - 1) ** 2) >= WINDOW]
    return max(fitting, default=1)


def multiscale_ssim(predicted: Tensor, truth: Tensor, data_range: float) -> Tensor:
    """Return the multi-scale structural similarity (N,) of images (N, C, H, W).

    Of small images, it has fewer scales (`scales`), whose weights are scaled to sum to 1.

    Parameters
    ----------
    predicted, truth
        (N, C, H, W), in the same unit.
    data_range
        Span of pixel values.

    Returns
    -------
    torch.Tensor
        (N,), 1 for equal images.
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as measure

    weights = SCALE_WEIGHTS[: scales(truth.shape[-1])]
    betas = tuple(each / sum(weights) for each in weights)
    a, b = predicted.double(), truth.double()
    found = measure(a, b, data_range=data_range, betas=betas, normalize="relu", reduction="none")
    return found.reshape(-1)


def peak_offset(predicted: Tensor, truth: Tensor, factor: int) -> Tensor:
    """Return how far the brightest point of predictions is from that of the truth (N,), in pixels of the coarser images.

    The prediction's is looked for within `PEAK_SEARCH` pixels of the true one; parabolas through neighbours say where it is
    within its pixel.

    Parameters
    ----------
    predicted, truth
        (N, C, H, W), bands summed.
    factor
        Fine pixels along the side of a coarser one.

    Returns
    -------
    torch.Tensor
        (N,), at most `PEAK_SEARCH` and a pixel.
    """
    a, b = (
        torch.nn.functional.pad(each.sum(1).double(), (1, 1, 1, 1), mode="replicate") for each in (predicted, truth)
    )
    edge = torch.full_like(b, -torch.inf)
    edge[:, 1:-1, 1:-1] = b[:, 1:-1, 1:-1]
    here = _place(edge)
    near = _distance(b.shape[-2:], here) <= PEAK_SEARCH * factor
    near[:, [0, -1]] = False
    near[:, :, [0, -1]] = False
    there = _place(torch.where(near, a, -torch.inf))
    gap = (there + _within_pixel(a, there)) - (here + _within_pixel(b, here))
    return gap.square().sum(1).sqrt() / factor


def power_by_scale(images: Tensor, factor: int) -> Tensor:
    """Return the power of images (N, C, H, W) at coarse, fine and new scales (`EDGES`), (N, 3), in a Hann window."""
    power, frequency = _power(images)
    limits = torch.tensor([*EDGES, torch.inf], dtype=torch.float64) * 0.5 / factor
    ranges = [(frequency > low) & (frequency <= high) for low, high in itertools.pairwise(limits)]
    return torch.stack([(power * each).sum((1, 2, 3)) for each in ranges], dim=1)


def power_curve(images: Tensor) -> Tensor:
    """Return the summed power of images (N, C, H, W) in `FREQUENCIES` ranges of equal width up to Nyquist, (N, …)."""
    power, frequency = _power(images)
    places = (frequency / 0.5 * FREQUENCIES).clamp_max(2 * FREQUENCIES).long()
    curve = power.new_zeros(len(images), 2 * FREQUENCIES + 1)
    curve.index_add_(1, places.flatten(), power.sum(1).flatten(1))
    return curve[:, :FREQUENCIES]


def _power(images: Tensor) -> tuple[Tensor, Tensor]:
    """Power (N, C, H, W/2 + 1) of windowed images, and spatial frequencies in cycles a pixel."""
    height, width = images.shape[-2:]
    window = torch.hann_window(height, dtype=torch.float64)[:, None] * torch.hann_window(width, dtype=torch.float64)
    power = torch.fft.rfft2(images.double() * window).abs().square()
    power[..., 1 : (width + 1) // 2] *= 2  # what the half that is left out has as well
    y, x = torch.fft.fftfreq(height).double(), torch.fft.rfftfreq(width).double()
    return power, torch.hypot(y[:, None], x[None, :])


def _flux_error(predicted: Tensor, truth: Tensor, aperture: Tensor) -> Tensor:
    """Relative error (N,) of the flux in an aperture (…, H, W) of ones and zeros, all bands together."""
    found, true = ((each.double().sum(1) * aperture).sum((1, 2)) for each in (predicted, truth))
    return (found - true) / torch.where(true.abs() > 0, true, torch.nan)


def _disc(side: int, radius: float) -> Tensor:
    center = torch.tensor([[(side - 1) / 2, (side - 1) / 2]], dtype=torch.float64)
    return (_distance((side, side), center) <= radius).double()


def _about_peak(truth: Tensor, radius: float) -> Tensor:
    """Apertures (N, H, W) about the brightest pixels of images (N, C, H, W)."""
    return (_distance(truth.shape[-2:], _place(truth.double().sum(1))) <= radius).double()


def _place(images: Tensor) -> Tensor:
    """Row and column (N, 2) of the brightest pixels of images (N, H, W)."""
    found = images.flatten(1).argmax(1)
    width = images.shape[-1]
    return torch.stack([found // width, found % width], dim=1).double()


def _distance(shape: tuple[int, int] | torch.Size, places: Tensor) -> Tensor:
    """Distances (N, H, W) of pixels from places (N, 2)."""
    y, x = (torch.arange(n, dtype=torch.float64) for n in shape)
    return torch.hypot(y[None, :, None] - places[:, :1, None], x[None, None, :] - places[:, 1:, None])


def _within_pixel(images: Tensor, places: Tensor) -> Tensor:
    """How far (N, 2) the tops of parabolas through a pixel and its neighbours are from its centre, half a pixel at most."""
    rows, (y, x) = torch.arange(len(images)), places.long().unbind(1)
    shifts = []
    for dy, dx in ((1, 0), (0, 1)):
        before, here, after = images[rows, y - dy, x - dx], images[rows, y, x], images[rows, y + dy, x + dx]
        bend = before - 2 * here + after
        shifts.append(torch.where(bend < 0, 0.5 * (before - after) / torch.where(bend < 0, bend, -1.0), 0.0))
    return torch.stack(shifts, dim=1).clamp(-0.5, 0.5)


def _each(predicted: Tensor, truth: Tensor, compute: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], Floats]:
    """A function that computes what is wanted of each pair of images when it is first called, and keeps it."""

    @cache
    def found() -> Floats:
        pairs = zip(torch.split(predicted, CHUNK), torch.split(truth, CHUNK), strict=True)
        return torch.cat([compute(a, b).double() for a, b in pairs]).numpy()

    return found


def _mean(values: Callable[[], Floats]) -> Statistic:
    """The weighted mean over the images that have a value."""

    def statistic(weights: Floats) -> Floats:
        known = np.isfinite(found := values())
        return weights[:, known] @ found[known] / weights[:, known].sum(1)

    return statistic


def _scatter(values: Callable[[], Floats]) -> Statistic:
    """The weighted standard deviation over the images that have a value."""

    def statistic(weights: Floats) -> Floats:
        known = np.isfinite(found := values())
        weight = weights[:, known] / weights[:, known].sum(1, keepdims=True)
        mean = weight @ found[known]
        return np.sqrt(np.maximum(weight @ found[known] ** 2 - mean**2, 0))

    return statistic


def _power_ratio(predicted: Callable[[], Floats], truth: Callable[[], Floats], number: int) -> Statistic:
    """The ratio of sums over images, each scaled by the whole power of its truth."""

    def statistic(weights: Floats) -> Floats:
        whole = np.maximum(truth().sum(1), 1e-300)
        found, true = (each()[:, number] / whole for each in (predicted, truth))
        return (weights @ found) / np.maximum(weights @ true, 1e-300)

    return statistic
