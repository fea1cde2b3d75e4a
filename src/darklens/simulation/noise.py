"""Noise of simulated images: expectation, standard deviation, and random numbers that depend on preset, seed and image."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from darklens.physics import correlate_noise, correlated_variance, gaussian_noise
from darklens.simulation.draw import DEVICE_NOISE, NOISE, seed_sequence
from darklens.simulation.presets import Preset

NEWTON_STEPS = 8
"""Steps from the mean of a clipped Gaussian back to that of the Gaussian. They converge from above, to rounding after six;
more only cost time."""
ONE_BY_ONE = {"cpu"}
"""Devices on which images get their noise one after the other, from a generator each: on a CPU the faster way. On another
device that would wait for the host at each image. The two ways draw different numbers of the same distribution."""


def expected_image(preset: Preset, flux: Tensor, times: Tensor) -> Tensor:
    """Return the expectation of images with noise.

    Where noise is applied twice, negative numbers of the Gaussian become zero before the Poisson draw: in the sky, the
    expectation is above the photons.

    Parameters
    ----------
    preset
        Gives the noise model and the instrument.
    flux
        e-/s, (N, H, W).
    times
        Exposure times, seconds, (N,), on the CPU.

    Returns
    -------
    Images in `Preset.unit`, (N, H, W).
    """
    if preset.noise == "deeplense-twice":
        counts = flux * times.to(flux)[:, None, None]
        return _clipped_mean(counts, _gaussian_sigma(preset, counts, times))
    return flux * 2 if preset.noise == "deeplense-doubled" else flux


def noise_sigma(preset: Preset, expected: Tensor, times: Tensor) -> Tensor:
    """Return the standard deviation of the noise in each pixel of expected images.

    For presets without noise it is that of their instrument.

    Parameters
    ----------
    preset
        Gives the noise model and the instrument.
    expected
        Expected images in `Preset.unit`, (N, H, W), as `expected_image` returns them.
    times
        Exposure times, seconds, (N,), on the CPU.

    Returns
    -------
    Standard deviation in `Preset.unit`, (N, H, W).
    """
    if preset.noise == "deeplense-twice":  # the variance of the clipped Gaussian and that of a Poisson draw of it
        counts = _counts_of(preset, expected, times)
        return (_clipped_variance(counts, _gaussian_sigma(preset, counts, times)) + expected).sqrt()
    background = _background(preset, times).to(expected)[:, None, None]
    times = times.to(expected)[:, None, None]
    factor = 2.0 if preset.noise == "deeplense-doubled" else 1.0
    flux = expected / factor
    variance = flux / (times * preset.instrument.exposures) + background.square()
    if preset.instrument.noise_correlation:
        variance = correlated_variance(variance, preset.instrument.noise_correlation)
    return factor * variance.sqrt()


def add_noise(preset: Preset, seed: int, flux: Tensor, *, times: Tensor, ids: np.ndarray) -> Tensor:
    """Return images with noise.

    The noise of an image depends on preset, seed and its number, not on the other images. On a CPU it consists of other
    numbers than on another device (see `ONE_BY_ONE`).

    Parameters
    ----------
    preset
        Gives the noise model and the instrument.
    seed
        Seed of the simulation.
    flux
        e-/s, (N, H, W).
    times
        Exposure times, seconds, (N,), on the CPU.
    ids
        Numbers of the images, (N,).

    Returns
    -------
    Images in `Preset.unit`, (N, H, W).
    """
    if preset.noise == "deeplense-doubled":
        return expected_image(preset, flux, times)
    noisy = _independent(preset, seed, flux, times, ids)
    if fwhm := preset.instrument.noise_correlation:
        return flux + correlate_noise(noisy - flux, fwhm)
    return noisy


def _independent(preset: Preset, seed: int, flux: Tensor, times: Tensor, ids: np.ndarray) -> Tensor:
    """Images with noise that is independent from pixel to pixel."""
    # Photons in units of counts, and the Gaussian: of the background, or of all noise where a Poisson follows it. Published
    # images with noise applied twice are counts of one exposure, those that are stacked being averaged.
    twice = preset.noise == "deeplense-twice"
    totals = times.to(flux) * (1 if twice else preset.instrument.exposures)
    counts = flux * totals[:, None, None]
    sigma = _gaussian_sigma(preset, counts, times) if twice else _background(preset, times).to(flux)[:, None, None]
    if flux.device.type not in ONE_BY_ONE:
        from darklens.physics.counters import batched_gaussian_noise, batched_poisson

        seeds = _device_seeds(preset, seed, ids).to(flux.device)
        gaussian = batched_gaussian_noise(counts, sigma, seeds)
        if twice:
            return batched_poisson(counts + gaussian, seeds)
        return batched_poisson(counts, seeds) / totals[:, None, None] + gaussian
    # Each image has a stream of its own, from which what is drawn first comes first.
    normal, own = torch.empty_like(flux), np.empty(len(ids), np.uint64)
    for i, number in enumerate(ids):
        generator = np.random.default_rng(seed_sequence(preset, seed, NOISE, int(number)))
        if not twice:
            own[i] = generator.integers(2**62)
        normal[i] = gaussian_noise(normal[i], 1.0, generator)
        if twice:
            own[i] = generator.integers(2**62)
    gaussian = sigma * normal
    if twice:  # quirk 4 of the published Model I: a Poisson draw on top of a Gaussian that stands for one
        return _photons(counts + gaussian, own)
    return _photons(counts, own) / totals[:, None, None] + gaussian


def _photons(mean: Tensor, seeds: np.ndarray) -> Tensor:
    """Poisson numbers of means (N, H, W), with a seed for each image, (N,)."""
    from darklens.physics.poisson_tables import poisson_rows

    return torch.from_numpy(poisson_rows(mean.detach().flatten(1).numpy(), seeds)).view(mean.shape)


def _gaussian_sigma(preset: Preset, counts: Tensor, times: Tensor) -> Tensor:
    """Standard deviation of the Gaussian noise that a Poisson draw follows, (N, H, W) counts of one exposure."""
    background = _background(preset, times).to(counts) * times.to(counts)
    return (counts.abs() / preset.instrument.exposures + background.square()[:, None, None]).sqrt().clamp_min(1e-20)


def _clipped_mean(mean: Tensor, sigma: Tensor) -> Tensor:
    """Mean of a Gaussian number whose negative values become zero."""
    a = mean / sigma
    return mean * torch.special.ndtr(a) + sigma * _density(a)


def _clipped_variance(mean: Tensor, sigma: Tensor) -> Tensor:
    """Variance of a Gaussian number whose negative values become zero."""
    a = mean / sigma
    above, below, density = torch.special.ndtr(a), torch.special.ndtr(-a), _density(a)
    # ⟨x²⟩ - ⟨x⟩², with the terms that cancel each other for large a taken together
    return sigma.square() * (above + a.square() * above * below - a * density * (above - below) - density.square())


def _density(a: Tensor) -> Tensor:
    return torch.exp(-a.square() / 2) / math.sqrt(2 * math.pi)


def _counts_of(preset: Preset, expected: Tensor, times: Tensor) -> Tensor:
    """Counts whose noise, applied twice, has this expectation: the inverse of `expected_image`, by Newton's method."""
    counts = expected
    for _ in range(NEWTON_STEPS):
        sigma = _gaussian_sigma(preset, counts, times)
        a = counts / sigma
        slope = torch.special.ndtr(a) + _density(a) / (2 * preset.instrument.exposures * sigma)
        counts = (counts - (_clipped_mean(counts, sigma) - expected) / slope).clamp_min(0)
    return counts


def _background(preset: Preset, times: Tensor) -> Tensor:
    # Rounded to float32 whatever the dtype of the images, as in all data simulated so far.
    return preset.instrument.background(times.double()).float()


def _device_seeds(preset: Preset, seed: int, ids: np.ndarray) -> Tensor:
    """Return a seed for each image, (N,), without a loop over them."""
    from darklens.physics.counters import split_mix

    (state,) = seed_sequence(preset, seed, DEVICE_NOISE).generate_state(1, np.uint64).view(np.int64)
    return split_mix(torch.tensor(int(state)), torch.tensor(np.asarray(ids, dtype=np.int64)))
