"""Fit a smooth lens, an isothermal deflector with shear before a Sérsic source, to many images at once.

The residual of such a fit holds what substructure does to the image. Positions are in units of half the image's side, so
no pixel scale is needed, and brightness in units of the sky noise, so no gain or zero point is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from darklens.physics.coordinates import bin_pixels, pixel_coordinates
from darklens.physics.deflectors import kormann_deflection
from darklens.physics.psf import SIGMA_PER_FWHM, convolve_separable, gaussian_psf_taps

PARAMETERS = (
    "theta_E", "e1", "e2", "lens_x", "lens_y", "gamma1", "gamma2", "source_x", "source_y",
    "log_R", "log_n", "source_e1", "source_e2", "log_amp", "sky",
)  # fmt: skip
"""The parameters that are fitted, in this order. ``log_R`` and ``log_n`` are natural logarithms of half-light radius and
Sérsic index, ``log_amp`` that of the brightness at the half-light radius."""

# Mean, standard deviation and bounds of each parameter before any image is seen, for a lens that fills its cutout. A lens
# far from the mean is fitted in more steps or not at all, one outside of the bounds not at all.
_MEAN = (0.55, 0, 0, 0, 0, 0, 0, 0, 0, -2.1, 0, 0, 0, 2.5, 0)
_WIDTH = (0.25, 0.15, 0.15, 0.05, 0.05, 0.06, 0.06, 0.15, 0.15, 0.6, 0.5, 0.2, 0.2, 2.0, 1.0)
_LOW = (0.05, -0.6, -0.6, -0.5, -0.5, -0.4, -0.4, -1, -1, -5, -1.2, -0.6, -0.6, -6, -20)
_HIGH = (1.2, 0.6, 0.6, 0.5, 0.5, 0.4, 0.4, 1, 1, 0.5, 1.8, 0.6, 0.6, 9, 20)
_SHARED = (0.03, 0.02, 0.02, 0.01, 0.01, 0.01, 0.01, 0, 0, 0.05, 0.05, 0.02, 0.02, 0, 0)
"""A parameter whose standard deviation over images is below this is held at its mean: substructure shifts the fitted
value by as much, so a free one would absorb what the residual should show. Too large a value makes real variation appear
as residual. Zero: always free."""
_SHOT = 0.15
"""Variance of a pixel's shot noise over its brightness, both in units of the sky noise. It only weighs bright pixels
against faint ones: a wrong value costs precision, and gives the residual of bright pixels a standard deviation that is
not 1."""
_RADII = (0.88, 1.0, 1.12)
"""Factors on the first guess of the Einstein radius that are tried. Too few, and more fits end in a false minimum."""
_OFFSETS = [(0.0, 0.0), *((0.07 * math.cos(k * math.pi / 3), 0.07 * math.sin(k * math.pi / 3)) for k in range(6))]
"""Offsets from the first guess of the source's position that are tried: none, and a hexagon about it."""
_BLUR_ROUNDS, _BLUR_IMAGES = (1, 5), 96
"""Rounds of learning in which the blur is estimated, and the number of images for it. More of either only takes longer;
with fewer images the estimate scatters."""
_ELLIPTICITIES = ((0.0, 0.0), (0.15, 0.0), (-0.15, 0.0), (0.0, 0.15), (0.0, -0.15))
"""What is added to the first guess of the deflector's ellipticity. Shear can stand for it and it for shear: from a round
deflector alone, 5.5% of the fits to smooth lenses of `fair-hst` end elsewhere, from these five 0.3%
(`benchmarks/fits.py`)."""
COARSE_STEPS, FINE_STEPS, LEARNING_STEPS = 20, 20, 3
"""Steps of a fit on binned images, on all pixels, and of each round of learning, at most. With 10 and 7, 30%
of the fits to smooth lenses of `fair-hst` end too early (`benchmarks/fits.py`)."""
_BLURS = (0.0, 0.4, 0.55, 0.7, 0.85, 1.0, 1.25, 1.5)
"""Standard deviations of the point-spread function that are tried, in pixels. A wider one is taken for the widest."""
_SHARP = 0.25
"""Standard deviation in pixels below which the point-spread function is left out: its neighbouring weights are 3e-4."""
_FAINTEST = 0.003
"""Least sky noise, as a fraction of the peak. Images without noise need one; too large a value hides faint residuals."""
RAYS = 4
"""Rays along each axis of a pixel over which light is averaged where a whole batch is fitted at once. Its square counts in
time. With 2, fits to `fair-hst` are a fifth farther from the truth; with 1, 2.5 times as far (`benchmarks/fits.py`)."""
TOLERANCE = 0.1
"""Error of a pixel's light in units of its noise above which a CPU sends more rays through it."""
_MAX_COST_QUANTILE = 0.7
"""Fraction of the images that the prior is learned from, those with the best fits. The others, with fits that failed or
with the strongest substructure, would widen the prior."""


class SmoothPrior(NamedTuple):
    """Hold a normal distribution of lenses, ``mean`` (P,) and ``precision`` (P, P), and the blur of the telescope.

    ``blur`` is the standard deviation of a Gaussian point-spread function, in units of half the image's side. ``fine`` says
    whether the light of a pixel is its mean over the pixel, as a detector has it, or that at its centre.
    """

    mean: Tensor
    precision: Tensor
    blur: float = 0.0
    fine: bool = False


class SmoothFit(NamedTuple):
    """Hold the best parameters (N, P), their ``curvature`` (N, P, P), which is the inverse covariance, and cost (N,)."""

    parameters: Tensor
    curvature: Tensor
    cost: Tensor


def broad_prior() -> SmoothPrior:
    """Return the prior of a lens that fills a cutout, before any image is seen."""
    return SmoothPrior(torch.tensor(_MEAN), torch.diag(torch.tensor(_WIDTH) ** -2))


def sky_noise(images: Tensor) -> Tensor:
    """Estimate the standard deviation of the noise in images (N, H, W) from differences of neighbours; (N, 1, 1).

    Neighbours are those along the rows at the top and at the bottom, a tenth of the side each, where a lens that fills
    the image has little light.
    """
    rows = _outer_rows(images)
    noise = rows.diff(dim=-1).abs().mean((1, 2)) * (math.sqrt(math.pi) / 2)
    least = (_FAINTEST * images.abs().amax((1, 2))).clamp_min(torch.finfo(images.dtype).tiny)
    return torch.maximum(noise, least)[:, None, None]


def sky_level(noise: Tensor) -> Tensor:
    """Return the standard deviation of the sky's noise by noise maps (…, H, W), infinite where there is no data; (…).

    It is the median over the rows that `sky_noise` looks at; nan where these have no data.
    """
    rows = _outer_rows(noise)
    return torch.where(rows.isfinite(), rows, torch.nan).flatten(-2).nanmedian(-1).values


def _outer_rows(images: Tensor) -> Tensor:
    """Rows of images (…, H, W) at the top and at the bottom, a tenth of the side each, two at least."""
    border = max(2, images.shape[-1] // 10)
    return torch.cat([images[..., :border, :], images[..., -border:, :]], dim=-2)


def in_larger_frame(parameters: Tensor, side: int, whole: int, start: int) -> Tensor:
    """Return the parameters of lenses that were fitted to a part of an image in the units of the whole image.

    Parameters
    ----------
    parameters
        (N, P), in units of half the part's side, from its centre.
    side, whole
        Side of the part and of the image, pixels.
    start
        First row and column of the part.

    Returns
    -------
    Parameters (N, P) in units of half the image's side, from its centre.
    """
    factor, offset = side / whole, (2 * start + side - whole) / side
    columns = dict(zip(PARAMETERS, parameters.unbind(1), strict=True))
    gamma1, gamma2 = columns["gamma1"], columns["gamma2"]
    # The shear, which is about the centre, deflects all rays alike when the centre moves: as if the source moved.
    columns["source_x"] = columns["source_x"] + offset * (1 - gamma1 - gamma2)
    columns["source_y"] = columns["source_y"] + offset * (1 - gamma2 + gamma1)
    columns |= {name: columns[name] + offset for name in ("lens_x", "lens_y")}
    columns |= {name: factor * columns[name] for name in ("theta_E", "lens_x", "lens_y", "source_x", "source_y")}
    columns["log_R"] = columns["log_R"] + math.log(factor)
    return torch.stack(list(columns.values()), 1)


def smooth_image(parameters: Tensor, pixels: int, blur: float = 0.0, fine: bool = False) -> Tensor:
    """Render smooth lenses.

    Parameters
    ----------
    parameters
        (N, P), in the order of `PARAMETERS`.
    pixels
        Side of the images.
    blur
        Standard deviation of a Gaussian point-spread function, in units of half the image's side.
    fine
        Whether the light of a pixel is its mean over the pixel, or that at its centre.

    Returns
    -------
    Images (N, pixels, pixels) in units of the sky noise.
    """
    if parameters.device.type == "cpu" and not parameters.requires_grad:
        return _image_on_cpu(parameters, pixels, blur, fine)
    rays = RAYS if fine else 1
    x, y = pixel_coordinates(rays * pixels, 2 / (rays * pixels), device=parameters.device)
    light = bin_pixels(_trace(parameters, x, y).light, rays)
    return _blurred(light, blur) + _columns(parameters)[-1]


def _image_on_cpu(parameters: Tensor, pixels: int, blur: float, fine: bool) -> Tensor:
    from darklens.physics import smoothfit_loops

    of, axis, out = _plain(parameters), _axis(pixels), np.empty((len(parameters), pixels, pixels), np.float32)
    taps, sampling = np.array(_taps(blur, pixels), np.float32), _sampling(fine, 1)

    def render(these: slice) -> None:
        room = smoothfit_loops.make_room(pixels)
        smoothfit_loops.render(of[these], axis, taps, sampling, room, out[these])

    _in_threads(render, len(of))
    return torch.from_numpy(out).to(parameters.dtype)


def _sampling(fine: bool, binned: int) -> tuple[np.float32, np.float32, np.float32]:
    return np.float32(TOLERANCE if fine else 0), np.float32(_SHOT), np.float32(binned)


def _blurred(images: Tensor, blur: float) -> Tensor:
    taps = _taps(blur, images.shape[-1])
    return convolve_separable(images, taps) if taps else images


def _taps(blur: float, side: int) -> Sequence[float]:
    """Weights of a blur along each axis of images of so many pixels; none if it is too narrow to matter."""
    pixels = blur * side / 2
    return gaussian_psf_taps(pixels / SIGMA_PER_FWHM, truncation=4) if pixels >= _SHARP else ()


def residual(images: Tensor, model: Tensor) -> Tensor:
    """Return images minus a model, both in units of the sky noise, divided by the noise of each pixel."""
    return (images - model) * torch.rsqrt(1 + _SHOT * model.clamp_min(0))


def fit_smooth_lens(images: Tensor, prior: SmoothPrior, binned: int = 1) -> SmoothFit:
    """Fit the most probable smooth lens to each image, by Levenberg and Marquardt's method on all images at once.

    Parameters
    ----------
    images
        (N, H, H) in units of their sky noise (see `sky_noise`); of half precision they are fitted in single precision.
    prior
        The distribution that lenses come from.
    binned
        Number of detector pixels that each pixel is the mean of, which divides the variance of its noise.

    Returns
    -------
    Parameters, curvature and cost. A fit may end in another minimum; its cost tells.

    Raises
    ------
    ValueError
        If the images are not (N, H, H), or smaller than 2×2.
    """
    if images.ndim != 3 or images.shape[-1] != images.shape[-2] or images.shape[-1] < 2:
        raise ValueError(f"images have shape {tuple(images.shape)}; expected (N, H, H) of 2×2 pixels at least")
    images = _at_least_single(images)
    if not len(images):
        count = len(PARAMETERS)
        return SmoothFit(images.new_zeros(0, count), images.new_zeros(0, count, count), images.new_zeros(0))
    if len(images) == 1 and images.device.type != "cpu":
        # PyTorch sums a batch of one in another order, and a fit between two minima may then end in the other one.
        both = fit_smooth_lens(images.expand(2, -1, -1).contiguous(), prior, binned)
        return SmoothFit(*(of[:1] for of in both))
    prior = prior._replace(mean=prior.mean.to(images), precision=prior.precision.to(images))
    even = images.shape[-1] // 2 * 2
    coarse = bin_pixels(images[:, :even, :even], 2)
    return _refine(images, prior, _best_start(coarse, prior, 4 * binned), binned, FINE_STEPS)


def _at_least_single(images: Tensor) -> Tensor:
    """Images in single precision, unless they are in double."""
    return images if images.dtype == torch.float64 else images.float()


def _best_start(images: Tensor, prior: SmoothPrior, binned: int) -> Tensor:
    """The parameters of the best of several fits to coarse images, one from each of `_ELLIPTICITIES` that is likely."""
    prior, guess = prior._replace(fine=False), _first_guess(images, prior)
    width = torch.linalg.inv(prior.precision)[1, 1].sqrt()
    best = _refine(images, prior, guess, binned, COARSE_STEPS)
    for e1, e2 in _ELLIPTICITIES[1:] if width > _SHARED[1] else ():
        start = guess.clone()
        start[:, 1] += e1
        start[:, 2] += e2
        found = _refine(images, prior, start, binned, COARSE_STEPS)
        better = found.cost < best.cost
        best = SmoothFit(
            torch.where(better[:, None], found.parameters, best.parameters), best.curvature,
            torch.where(better, found.cost, best.cost),
        )  # fmt: skip
    return best.parameters


def _refine(images: Tensor, prior: SmoothPrior, start: Tensor, binned: int, steps: int) -> SmoothFit:
    """Fits from where others are; on a CPU image by image, compiled."""
    return (_refine_on_cpu if images.device.type == "cpu" else _refine_together)(images, prior, start, binned, steps)


def _refine_on_cpu(images: Tensor, prior: SmoothPrior, start: Tensor, binned: int, steps: int) -> SmoothFit:
    from darklens.physics import smoothfit_loops

    of, axis = _plain(images), _axis(images.shape[-1])
    mean, precision = (each.double().numpy() for each in prior[:2])
    low, high, taps = np.array(_LOW, float), np.array(_HIGH, float), np.array(_taps(prior.blur, len(axis)), np.float32)
    problem = smoothfit_loops.Problem(mean, precision, low, high, taps, _sampling(prior.fine, binned))
    size = len(PARAMETERS)
    found = smoothfit_loops.Fits(_plain(start).copy(), np.empty((len(of), size, size)), np.empty(len(of)))

    def refine(these: slice) -> None:
        room, fits = smoothfit_loops.make_room(len(axis)), smoothfit_loops.Fits(*(each[these] for each in found))
        smoothfit_loops.refine(of[these], axis, problem, steps, fits, room)

    _in_threads(refine, len(of))
    return SmoothFit(*(torch.from_numpy(each).to(images.dtype) for each in found))


def _plain(values: Tensor) -> np.ndarray:
    """Numbers as contiguous float32."""
    return np.ascontiguousarray(values.detach().numpy(), np.float32)


def _axis(pixels: int) -> np.ndarray:
    """Positions of the pixels along an axis, in units of half the image's side."""
    return pixel_coordinates(pixels, 2 / pixels)[0][0].numpy().copy()


def _in_threads(work: Callable[[slice], None], images: int) -> None:
    """Work on parts of the images, one for each of PyTorch's threads."""
    parts = min(images, torch.get_num_threads())
    if parts < 2:
        work(slice(0, images))
        return
    bounds = np.linspace(0, images, parts + 1).astype(int)
    with ThreadPoolExecutor(parts) as pool:
        list(pool.map(work, (slice(a, b) for a, b in itertools.pairwise(bounds))))


def _refine_together(images: Tensor, prior: SmoothPrior, start: Tensor, binned: int, steps: int) -> SmoothFit:
    rays = RAYS if prior.fine else 1
    side = rays * images.shape[-1]
    x, y = pixel_coordinates(side, 2 / side, device=images.device)
    low, high = (torch.tensor(v, device=images.device) for v in (_LOW, _HIGH))
    parameters = trial = start
    cost = torch.full_like(trial[:, 0], math.inf)
    curvature, gradient = torch.zeros(*trial.shape, trial.shape[1]).to(trial), torch.zeros_like(trial)
    damping = torch.full_like(cost, 1e-2)
    for _ in range(steps):
        model, jacobian = (bin_pixels(each, rays) for each in model_and_jacobian(trial, x, y))
        # The gradient is exact: what is left, blurred once more, meets the slopes of the sharp image. The curvature is
        # that of the sharp image, a little too high, which only makes steps shorter.
        sky = trial[:, -1, None, None]
        model = _blurred(model - sky, prior.blur) + sky
        root_weight = torch.rsqrt((1 + _SHOT * model.clamp_min(0)) / binned)
        gap = ((images - model) * root_weight).flatten(1)
        pushed = _blurred(gap.reshape(images.shape) * root_weight, prior.blur).flatten(1)
        slopes = (jacobian * root_weight[:, None]).flatten(2)
        away = prior.mean - trial
        pull = away @ prior.precision
        trial_cost = gap.square().sum(1) + (pull * away).sum(1)
        better = trial_cost < cost
        parameters = torch.where(better[:, None], trial, parameters)
        gradient = torch.where(better[:, None], (jacobian.flatten(2) @ pushed[..., None])[..., 0] + pull, gradient)
        curvature = torch.where(better[:, None, None], slopes @ slopes.mT + prior.precision, curvature)
        cost = torch.where(better, trial_cost, cost)
        damping = torch.where(better, damping / 5, damping * 6).clamp(1e-6, 1e6)
        damped = curvature + torch.diag_embed(curvature.diagonal(dim1=1, dim2=2) * damping[:, None])
        step = torch.linalg.solve_ex(damped, gradient[..., None])[0][..., 0].nan_to_num()
        trial = (parameters + step).clamp(low, high)
    return SmoothFit(parameters, curvature, cost)


def learn_prior(
    images: Tensor, rounds: int = 12, binned: int = 1, progress: Callable[[int, int], None] | None = None
) -> SmoothPrior:
    """Learn the distribution of smooth lenses that images come from, by expectation maximisation from a broad one.

    Parameters that all images share, as in the published data, are held at their mean, so that what substructure does to
    them is left to the residual.

    Parameters
    ----------
    images
        (N, H, H) in units of their sky noise (see `sky_noise`), one at least.
    rounds
        Rounds of fitting all images and estimating the distribution anew.
    binned
        Number of detector pixels that each pixel is the mean of.
    progress
        Called with the rounds done and their total.

    Returns
    -------
    The learned prior, with the blur of the images, and whether their pixels are means over the light in them.

    Raises
    ------
    ValueError
        If there are no images, or they are not (N, H, H).
    """
    if not len(images):
        raise ValueError("there are no images to learn a prior of smooth lenses from")
    images, prior = _at_least_single(images), broad_prior()
    fit = fit_smooth_lens(images, prior, binned=binned)
    for number in range(rounds):
        good = fit.cost <= fit.cost.quantile(_MAX_COST_QUANTILE)
        chosen = fit.parameters[good]
        mean = chosen.mean(0)
        spread = (chosen - mean).mT @ (chosen - mean) / len(chosen)
        covariance = spread + torch.linalg.inv(fit.curvature[good]).mean(0)
        precision = torch.linalg.inv(covariance + 1e-8 * torch.eye(len(mean)).to(mean))
        prior = prior._replace(mean=mean, precision=precision)
        if number in _BLUR_ROUNDS:
            prior = _with_optics(images[good], prior, chosen, binned)
        fit = _refine(images, prior, fit.parameters, binned, LEARNING_STEPS)
        if progress is not None:
            progress(number + 1, rounds)
    return _hold_shared(prior)


def _hold_shared(prior: SmoothPrior) -> SmoothPrior:
    """Return the prior with parameters that hardly scatter held at their mean."""
    covariance = torch.linalg.inv(prior.precision)
    shared = covariance.diagonal().sqrt() < torch.tensor(_SHARED).to(covariance)
    covariance[shared] = 0
    covariance[:, shared] = 0
    return prior._replace(precision=torch.linalg.inv(covariance + torch.diag(1e-8 * shared)))


def _with_optics(images: Tensor, prior: SmoothPrior, start: Tensor, binned: int) -> SmoothPrior:
    """Return the prior with the blur, and the light of pixels as means or at their centres, that fit the images best."""
    images, start = images[:_BLUR_IMAGES], start[:_BLUR_IMAGES]
    tried = [_estimate_blur(images, prior._replace(fine=fine), start, binned) for fine in (False, True)]
    return min(tried, key=lambda found: found[1])[0]


def _estimate_blur(images: Tensor, prior: SmoothPrior, start: Tensor, binned: int) -> tuple[SmoothPrior, float]:
    """Return the prior with the blur that fits the images best, and the median cost at the best of `_BLURS`.

    The blur is that of a parabola through the best of `_BLURS` and those beside. The search starts from the one nearest to
    the prior's and goes on to a neighbour for as long as that is better.
    """
    pixel = 2 / images.shape[-1]

    @cache
    def cost(number: int) -> float:
        tried = prior._replace(blur=_BLURS[number] * pixel)
        return float(_refine(images, tried, start, binned, FINE_STEPS).cost.median())

    best = min(range(len(_BLURS)), key=lambda number: abs(_BLURS[number] * pixel - prior.blur))
    while (better := min(range(max(0, best - 1), min(len(_BLURS), best + 2)), key=cost)) != best:
        best = better
    if best in (0, len(_BLURS) - 1):
        return prior._replace(blur=_BLURS[best] * pixel), cost(best)
    b, c = _BLURS[best - 1 : best + 2], [cost(number) for number in range(best - 1, best + 2)]
    slopes = (c[1] - c[0]) / (b[1] - b[0]), (c[2] - c[1]) / (b[2] - b[1])
    bend = (slopes[1] - slopes[0]) / (b[2] - b[0])
    return prior._replace(blur=((b[0] + b[1]) / 2 - slopes[0] / (2 * bend)) * pixel), c[1]


def _first_guess(images: Tensor, prior: SmoothPrior) -> Tensor:
    """Return the best of a small grid of ring sizes and source positions about those of the brightest pixels."""
    x, y = pixel_coordinates(images.shape[-1], 2 / images.shape[-1], device=images.device)
    light = torch.nn.functional.avg_pool2d(images[:, None], 3, 1, 1)[:, 0].clamp_min(0)
    peak = light.amax((1, 2), keepdim=True).clamp_min(1e-20)
    bright = (light / peak).square()
    width = torch.linalg.inv(prior.precision)[0, 0].sqrt()
    radius = _weighted(torch.hypot(x, y), bright).clamp(prior.mean[0] - 2 * width, prior.mean[0] + 2 * width)
    best, least = prior.mean.expand(len(images), -1).clone(), torch.full_like(radius, math.inf)
    best[:, 13] = torch.log(peak[:, 0, 0] / 2)
    for factor in _RADII if width > _SHARED[0] else (1.0,):
        guess = best.clone()
        guess[:, 0] = radius * factor
        guess[:, 7:9] = prior.mean[7:9]
        lens = _trace(guess, x, y)
        center = guess[:, 7:9] + torch.stack([_weighted(v, bright.square()) for v in (lens.u, lens.v)], dim=1)
        if images.device.type == "cpu":
            shifts = (center[:, None] + torch.tensor(_OFFSETS).to(center)).clamp(-0.5, 0.5)
            _try_on_cpu(images, guess, shifts, best, least)
            continue
        for dx, dy in _OFFSETS:
            guess[:, 7] = (center[:, 0] + dx).clamp(-0.5, 0.5)
            guess[:, 8] = (center[:, 1] + dy).clamp(-0.5, 0.5)
            shape = _trace(guess, x, y).light
            scale = ((images * shape).sum((1, 2)) / shape.square().sum((1, 2)).clamp_min(1e-20)).clamp_min(1e-3)
            cost = (images - scale[:, None, None] * shape).square().sum((1, 2))
            found = guess.clone()
            found[:, 13] += scale.log()
            better = cost < least
            best, least = torch.where(better[:, None], found, best), torch.minimum(cost, least)
    return best


def _try_on_cpu(images: Tensor, guess: Tensor, shifts: Tensor, best: Tensor, least: Tensor) -> None:
    """Take a guess with the source at one of its ``shifts`` (N, S, 2) where it is better than the best so far."""
    from darklens.physics import smoothfit_loops

    of, axis, start, tried = _plain(images), _axis(images.shape[-1]), _plain(guess), _plain(shifts)
    found, left = _plain(best).copy(), least.double().numpy()

    def work(these: slice) -> None:
        smoothfit_loops.best_start(of[these], axis, start[these], tried[these], found[these], left[these])

    _in_threads(work, len(of))
    best.copy_(torch.from_numpy(found))
    least.copy_(torch.from_numpy(left))


def _weighted(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum((1, 2)) / weights.sum((1, 2)).clamp_min(1e-20)


class _Traced(NamedTuple):
    """Rays (N, H, W) traced to the source: deflection, position from the source's centre, radius and brightness there."""

    ax: Tensor
    ay: Tensor
    u: Tensor
    v: Tensor
    radius2: Tensor
    power: Tensor
    light: Tensor


def _columns(parameters: Tensor) -> list[Tensor]:
    return [column[:, None, None] for column in parameters.unbind(1)]


def _elliptical_radius2(u: Tensor, v: Tensor, e1: Tensor, e2: Tensor) -> Tensor:
    """Squared radius q u'² + v'²/q along the axes of an ellipse, without its angle."""
    modulus2 = e1 * e1 + e2 * e2
    cross = e1 * (u * u - v * v) + 2 * e2 * u * v
    return (((1 + modulus2) * (u * u + v * v) - 2 * cross) / (1 - modulus2)).clamp_min(1e-6)


def _trace(parameters: Tensor, x: Tensor, y: Tensor) -> _Traced:
    theta_E, e1, e2, x0, y0, gamma1, gamma2, sx, sy, log_R, log_n, s1, s2, log_amp, _ = _columns(parameters)
    ax, ay = kormann_deflection(x, y, x0=x0, y0=y0, theta_E=theta_E, e1=e1, e2=e2)
    u = x - ax - gamma1 * x - gamma2 * y - sx
    v = y - ay - gamma2 * x + gamma1 * y - sy
    radius2 = _elliptical_radius2(u, v, s1, s2)
    power = torch.exp((0.5 * torch.log(radius2) - log_R) / log_n.exp())
    return _Traced(ax, ay, u, v, radius2, power, torch.exp(log_amp - _b(log_n) * (power - 1)))


def _b(log_n: Tensor) -> Tensor:
    return 1.9992 * log_n.exp() - 0.3271


def model_and_jacobian(parameters: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return images of smooth lenses without blur, and their derivatives by the parameters.

    Parameters
    ----------
    parameters
        (N, P), in the order of `PARAMETERS`.
    x, y
        Positions (H, W), in units of half the image's side.

    Returns
    -------
    Images (N, H, W) in units of the sky noise, and derivatives (N, P, H, W).
    """
    theta_E, e1, e2, x0, y0, _, _, _, _, log_R, log_n, s1, s2, _, sky = _columns(parameters)
    ax, ay, u, v, radius2, power, light = _trace(parameters, x, y)
    b, n = _b(log_n), log_n.exp()
    fall = -light * b / n * power  # by the logarithm of the radius
    # By the position in the source plane, through the squared radius.
    modulus2 = s1 * s1 + s2 * s2
    slope = fall / (radius2 * (1 - modulus2))
    du = slope * ((1 + modulus2) * u - 2 * (s1 * u + s2 * v))
    dv = slope * ((1 + modulus2) * v - 2 * (s2 * u - s1 * v))
    # The tidal field of an isothermal deflector is tangential, of strength 2κ = θ_E / elliptical radius.
    lx, ly = x - x0, y - y0
    tidal = theta_E * torch.rsqrt(_elliptical_radius2(lx, ly, e1, e2)) * (dv * lx - du * ly)
    tidal = tidal / (lx * lx + ly * ly).clamp_min(1e-6)
    # In float32 a smaller step loses the difference to rounding; this one is off by under 5e-3 of the largest derivative.
    h = 1e-3
    e1x, e1y = kormann_deflection(x, y, x0=x0, y0=y0, theta_E=theta_E, e1=e1 + h, e2=e2)
    e2x, e2y = kormann_deflection(x, y, x0=x0, y0=y0, theta_E=theta_E, e1=e1, e2=e2 + h)
    derivatives = {
        "theta_E": -(du * ax + dv * ay) / theta_E,
        "e1": -(du * (e1x - ax) + dv * (e1y - ay)) / h,
        "e2": -(du * (e2x - ax) + dv * (e2y - ay)) / h,
        "lens_x": -tidal * ly,
        "lens_y": tidal * lx,
        "gamma1": dv * y - du * x,
        "gamma2": -(du * y + dv * x),
        "source_x": -du,
        "source_y": -dv,
        "log_R": -fall,
        "log_n": light * -1.9992 * n * (power - 1) - fall * (0.5 * torch.log(radius2) - log_R),
        "source_e1": slope * (s1 * (u * u + v * v + radius2) - (u * u - v * v)),
        "source_e2": slope * (s2 * (u * u + v * v + radius2) - 2 * u * v),
        "log_amp": light,
        "sky": torch.ones_like(light),
    }
    return light + sky, torch.stack([derivatives[name] for name in PARAMETERS], dim=1)
