"""Noise of simulated images: expectation, standard deviation, and random numbers that depend on preset, seed and image."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from darklens.physics import gaussian_noise, poisson
from darklens.simulation.draw import DEVICE_NOISE, NOISE, seed_sequence
from darklens.simulation.presets import Preset

ONE_BY_ONE = {"cpu"}
"""Devices on which images get their noise one after the other, from a generator each: on a CPU the faster way. On another
device that would wait for the host at each image. The two ways draw different numbers of the same distribution."""


def expected_image(preset: Preset, flux: Tensor, times: Tensor) -> Tensor:
    """Return the expectation of images with noise.

    Parameters
    ----------
    preset
        Gives the noise model.
    flux
        e-/s, (N, H, W).
    times
        Exposure times, seconds, (N,), on any device.

    Returns
    -------
    Images in `Preset.unit`, (N, H, W).
    """
    if preset.noise == "deeplense-twice":
        return flux * times.to(flux)[:, None, None]
    return flux * 2 if preset.noise == "deeplense-doubled" else flux


def noise_sigma(preset: Preset, expected: Tensor, times: Tensor) -> Tensor:
    """Return the standard deviation of the noise in each pixel of expected images.

    For presets without noise it is that of their instrument.

    Parameters
    ----------
    preset
        Gives the noise model and the instrument.
    expected
        Images without noise in `Preset.unit`, (N, H, W).
    times
        Exposure times, seconds, (N,), on the CPU.

    Returns
    -------
    Standard deviation in `Preset.unit`, (N, H, W).
    """
    background = _background(preset, times).to(expected)[:, None, None]
    times = times.to(expected)[:, None, None]
    if preset.noise == "deeplense-twice":  # a Gaussian and a Poisson draw, each with the variance of the counts
        return (2 * expected + (background * times).square()).sqrt()
    factor = 2.0 if preset.noise == "deeplense-doubled" else 1.0
    flux = expected / factor
    return factor * (flux / (times * preset.instrument.exposures) + background.square()).sqrt()


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
    background = _background(preset, times).to(flux)
    times = times.to(flux)
    totals = times * preset.instrument.exposures
    # Photons in units of counts, and the Gaussian: of the background, or of all noise where a Poisson follows it.
    counts = flux * totals[:, None, None]
    twice = preset.noise == "deeplense-twice"
    sigma = (counts.abs() + (background * times).square()[:, None, None]).sqrt() if twice else background[:, None, None]
    if flux.device.type not in ONE_BY_ONE:
        from darklens.physics.counters import batched_gaussian_noise, batched_poisson

        seeds = _device_seeds(preset, seed, ids).to(flux.device)
        gaussian = batched_gaussian_noise(counts, sigma, seeds)
        if twice:
            return batched_poisson(counts + gaussian, seeds)
        return batched_poisson(counts, seeds) / totals[:, None, None] + gaussian
    noisy, generator = torch.empty_like(flux), torch.Generator()
    for i, number in enumerate(ids):
        state = seed_sequence(preset, seed, NOISE, int(number)).generate_state(1, np.uint64)
        generator.manual_seed(int(state[0]))
        if twice:  # quirk 4 of the published Model I: a Poisson draw on top of a Gaussian that stands for one
            noisy[i] = poisson(counts[i] + gaussian_noise(counts[i], sigma[i], generator), generator)
        else:
            photons = poisson(counts[i], generator) / totals[i]
            noisy[i] = photons + gaussian_noise(photons, sigma[i], generator)
    return noisy


def _background(preset: Preset, times: Tensor) -> Tensor:
    # Rounded to float32 whatever the dtype of the images, as in all data simulated so far.
    return torch.from_numpy(preset.instrument.background(times.double().numpy())).float()


def _device_seeds(preset: Preset, seed: int, ids: np.ndarray) -> Tensor:
    """Return a seed for each image, (N,), without a loop over them."""
    from darklens.physics.counters import split_mix

    (state,) = seed_sequence(preset, seed, DEVICE_NOISE).generate_state(1, np.uint64).view(np.int64)
    return split_mix(torch.tensor(int(state)), torch.tensor(np.asarray(ids, dtype=np.int64)))
