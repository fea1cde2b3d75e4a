"""From instrument numbers to noise. Random numbers come from the generator that is passed in, and from no other."""

import math

import torch
from torch import Generator, Tensor


def counts_per_second(magnitude: Tensor, zero_point: float) -> Tensor:
    """Flux in e-/s of an AB magnitude, where ``zero_point`` is the magnitude of 1 e-/s."""
    return torch.pow(10, (zero_point - magnitude) / 2.5)


def background_rms(
    read_noise: float,
    exposure_time: float,
    exposures: int,
    sky_brightness: float,
    zero_point: float,
    pixel_scale: float,
) -> float:
    """Standard deviation of read-out and sky in one pixel of a stack of exposures, e-/s.

    Parameters
    ----------
    read_noise
        e- per read-out.
    exposure_time, exposures
        Seconds of one exposure, and how many are stacked.
    sky_brightness
        AB mag/arcsec².
    zero_point
        AB magnitude of 1 e-/s.
    pixel_scale
        arcsec.
    """
    total = exposure_time * exposures
    sky = 10 ** ((zero_point - sky_brightness) / 2.5) * pixel_scale**2 * total
    return math.sqrt(exposures * read_noise**2 + sky) / total


def gaussian_noise(image: Tensor, sigma: Tensor | float, generator: Generator) -> Tensor:
    """Zero-mean Gaussian noise of the shape of ``image`` with standard deviation ``sigma`` (broadcast)."""
    return sigma * torch.randn(image.shape, dtype=image.dtype, device=image.device, generator=generator)


def poisson(mean: Tensor, generator: Generator) -> Tensor:
    """Photon noise: Poisson numbers of any ``mean``, in its dtype; negative means count as 0.

    One generator state gives other numbers on a CPU than on a GPU.
    """
    if mean.device.type != "cpu":
        return torch.poisson(mean.clamp_min(0), generator=generator)
    from darklens.physics.poisson import poisson_numbers

    seed = int(torch.randint(2**62, (1,), generator=generator))
    return torch.from_numpy(poisson_numbers(mean.detach().reshape(-1).numpy(), seed)).reshape(mean.shape)
