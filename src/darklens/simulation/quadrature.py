"""Integrate surface brightness over sub-pixels: one ray where it is smooth, hundreds where it is not.

Lensed sources have cusps and, where dark matter is, kinks. They lie in a few hundred of the sub-pixels of an image;
elsewhere a polynomial through neighbouring samples is as good as any number of rays. So each image has the same number of
rays to spend. They go to the sub-pixels whose mean is least certain, then to the least certain quarters of these, and on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from darklens.physics import convolve_separable
from darklens.simulation import loops
from darklens.simulation.choosing import Choice, choose
from darklens.simulation.loops import LANES, REACH
from darklens.simulation.places import (
    RAYS,
    Places,
    Rule,
    along_both,
    bordered,
    gauss,
    means_of_halves,
    rule_of,
    shares_of,
)

LEVELS = (1536, 256, 256, 64)
"""Sub-pixels of each image that get `RAYS` × `RAYS` rays; then how many of them, and of their quarters, are cut in four,
each quarter with as many rays. Measured by ``benchmarks/convergence.py``: with 1024 first ones, the thin ring of a source
behind the lens had none left for a small image, which was off by 1.2 of the noise; more in the others change nothing."""
LEVELS_OF_KINKS = (1024, 512, 384, 128, 64)
"""The same where the deflection has kinks. Of 900 vortices, 2 are then off by more than half of the noise, the worst by
0.75; with `LEVELS` and no `KINKS` 13, the worst by 9 (``benchmarks/convergence.py fair-hst --quick --images 300``, seeds 4
to 6)."""
MOST = (3072, 1024, 1024, 1024, 512, 256)
"""The same where the noise tells how many are needed: the most that an image may have. Few have them. With 512, 256, 128
and 64 in the end, one of 300 vortices was off by 0.75 of the noise (``benchmarks/convergence.py fair-hst --quick --images
300 --seed 6``), which is off by 0.02 now."""
KINKS = 256
"""Sub-pixels of each image that get rays because the deflection has a kink there, of which each may hide an image of the
source from all samples; 512 find no more of them."""
ROUGH = 2.0
"""Roughness from which a sub-pixel gets rays where the noise is known, in units of the noise in a pixel, as `LEAST`. With
3, one of 300 vortices was off by 0.56 of the noise."""
LEAST = 0.03
"""Error of a sub-pixel's mean from which it is cut; for a quarter it is four times that. Of 192 images of fair-hst
the worst is off by 0.07 of the noise; with 0.1 by 0.08, for a seventh less time, and with 0.2 by 0.33, in no less."""
Rays = Callable[[Places], Tensor]
"""Surface brightness at places, (N, K, Q, Q), first along y, then along x."""


def resolve(
    samples: Tensor,
    rays: Rays,
    *,
    psf_sigma: float | None,
    kinks: Tensor | None = None,
    noise: Tensor | None = None,
    levels: Sequence[int] | None = None,
    compiled: bool = False,
) -> Tensor:
    """Return the mean surface brightness of sub-pixels, as a telescope sees it.

    Parameters
    ----------
    samples
        Surface brightness at the centres of sub-pixels, (N, n, n).
    rays
        Surface brightness elsewhere.
    psf_sigma
        Standard deviation in sub-pixels of a Gaussian PSF that they will be convolved with. Light that lies off the centre
        of its sub-pixel is then shared with the neighbours, so that the convolution is that of the light where it is. With
        None, each value is the mean of its own sub-pixel.
    kinks
        How likely it is that samples miss light between them, by any measure, (N, n, n): the largest `KINKS` of each image
        are looked into as well. None where samples show whatever there is.
    noise
        Standard deviation of the noise in a pixel, in the unit and dtype of ``samples``, (N,): sub-pixels known much better
        get no rays (`ROUGH`, `LEAST`). Only where ``compiled``. Without it, all images have as many rays as ``levels``
        allow, and no threshold spoils derivatives.
    levels
        As in `LEVELS`, two numbers at least; by default that, `LEVELS_OF_KINKS`, or `MOST` with ``noise``.
    compiled
        As of `Places`.

    Returns
    -------
    Tensor
        (N, n, n), in the unit of ``samples``.
    """
    images, n, _ = samples.shape
    levels = levels or (MOST if noise is not None else LEVELS if kinks is None else LEVELS_OF_KINKS)
    rough, least = samples.new_full((2, images), -1.0) if noise is None else _thresholds(noise)
    padded, taps = bordered(samples), shares_of((0.0,), psf_sigma)[0]
    if compiled:
        means = torch.empty_like(samples)
        loops.convolve(
            padded.view(images, n + 2 * REACH, -1).numpy(), np.asarray(taps, means.numpy().dtype), means.numpy()
        )
    else:
        means = convolve_separable(samples, taps)
    edge = 0 if psf_sigma is None else REACH
    deposited = samples.new_zeros(images, (n + 2 * edge) ** 2 + LANES)

    def rule(depth: int, pieces: int) -> Rule:
        return rule_of(depth, pieces, psf_sigma, samples.dtype, samples.device)

    def places_in(depth: int, pieces: int, column: Tensor, row: Tensor) -> Places:
        cells = (row >> depth) * n + (column >> depth)
        own = rule(depth, pieces)
        return Places(cells, n, own, column=column, row=row, owners=chosen.owners, there=there, compiled=compiled)

    every = torch.arange(images, device=samples.device)
    values = roughness(samples, compiled=compiled).flatten(1)
    chosen = choose(values, every, rough, most=levels[0], ragged=noise is not None)
    if kinks is not None:
        left = kinks.flatten().scatter(0, chosen.index.flatten(), -1.0)
        more = choose(left.view(images, -1), every, samples.new_zeros(images), most=KINKS, ragged=noise is not None)
        chosen = chosen.joined(more, ragged=noise is not None)
    cells = chosen.index % (n * n)
    column, row, there = cells % n, torch.div(cells, n, rounding_mode="floor"), chosen.there
    places = places_in(0, 1, column, row)
    light = rays(places)
    # What the polynomials through the samples, whose integrals the means are, do not hold.
    values = light - places.interpolate(padded)
    error = torch.where(there > 0, rule(0, 1).means(values).abs(), -1.0)
    for depth, count in enumerate(levels[1:]):
        chosen = choose(error, chosen.owners, least * 4**depth, most=count, ragged=noise is not None)
        # Light that is about to be known better does not count.
        places.deposit(_without(values, light, chosen, compiled=compiled), deposited)
        column, row, light, there = chosen.of(column), chosen.of(row), chosen.of(light), chosen.there
        places = places_in(depth, 2, column, row)
        values = rays(places)
        if depth + 2 == len(levels):
            break
        light, error, there = _in_quarters(values, light, there, compiled=compiled)
        half = torch.arange(2, device=row.device)
        column = (2 * column[..., None, None] + half).expand(*column.shape, 2, 2).flatten(1)
        row = (2 * row[..., None, None] + half[:, None]).expand(*row.shape, 2, 2).flatten(1)
    places.deposit(values, deposited)
    whole = deposited[:, :-LANES].view(images, n + 2 * edge, -1)
    return means + whole[:, edge : edge + n, edge : edge + n]


def _without(values: Tensor, light: Tensor, chosen: Choice, *, compiled: bool) -> Tensor:
    """Return light without that of the parts that were chosen.

    Parameters
    ----------
    values
        At `RAYS` × `RAYS` places in each whole, or in each quarter of it, (N, K, Q, Q); with ``compiled`` changed in place.
    light
        That of the parts, wholes or quarters, (N, P, RAYS, RAYS).
    chosen
        Numbers among all parts.
    compiled
        As of `Places`.

    Returns
    -------
    Tensor
        (N, K, Q, Q).
    """
    if compiled:
        loops.without(
            values.flatten(0, 1).numpy(), light.flatten(0, 1).numpy(), chosen.index.numpy(), chosen.there.numpy()
        )
        return values
    pieces = values.shape[-1] // RAYS
    parts = values.view(-1, pieces, RAYS, pieces, RAYS).transpose(2, 3).reshape(-1, RAYS, RAYS)
    taken = chosen.of(light) * chosen.there[..., None, None]
    parts = parts.index_add(0, chosen.index.flatten(), -taken.flatten(0, 1))
    return parts.view(-1, pieces, pieces, RAYS, RAYS).transpose(2, 3).reshape(values.shape)


def _in_quarters(finer: Tensor, coarse: Tensor, there: Tensor, *, compiled: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the light in quarters of sub-pixels, how far its means are from what coarser light promised, and which count.

    Parameters
    ----------
    finer
        `RAYS` × `RAYS` rays in each quarter, (N, K, 2 RAYS, 2 RAYS).
    coarse
        As many in each whole, (N, K, RAYS, RAYS).
    there
        Which of the wholes count, (N, K), as of `Places`.
    compiled
        As of `Places`.

    Returns
    -------
    Tensor
        Light (N, 4 K, RAYS, RAYS).
    Tensor
        Differences of means, (N, 4 K), and -1 where light does not count.
    Tensor
        As ``there``, (N, 4 K).
    """
    halves = means_of_halves().to(coarse)
    if compiled:
        light, (error, which) = (
            finer.new_empty(len(finer), 4 * there.shape[1], RAYS, RAYS),
            finer.new_empty(2, len(finer), 4 * there.shape[1]),
        )
        loops.quarters(
            finer.numpy(),
            coarse.numpy(),
            there.numpy(),
            halves.numpy(),
            gauss()[1].to(coarse).numpy(),
            out=(light.numpy(), error.numpy(), which.numpy()),
        )
        return light, error, which
    light = finer.view(*there.shape, 2, RAYS, 2, RAYS).transpose(-3, -2).flatten(1, 3)
    weights = gauss()[1].to(coarse)
    means = light.flatten(2) @ torch.outer(weights, weights).flatten()
    which = there.repeat_interleave(4, 1)
    error = (means - along_both(halves, coarse).flatten(1)).abs()
    return light, torch.where(which > 0, error, -1.0), which


def _thresholds(noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return the roughness and the error of a sub-pixel's mean from which it gets rays."""
    return ROUGH * noise, LEAST * noise


def roughness(samples: Tensor, *, compiled: bool = False) -> Tensor:
    """Return the moduli of the fourth differences along both axes, summed, (N, n, n).

    Parameters
    ----------
    samples
        Any field, (N, n, n).
    compiled
        As of `Places`.
    """
    n = samples.shape[-1]
    if compiled:
        found = torch.empty_like(samples)
        loops.roughness(bordered(samples).view(len(samples), n + 2 * REACH, -1).numpy(), found.numpy())
        return found
    padded = pad(samples[:, None], (2,) * 4, mode="replicate")[:, 0]
    total = torch.zeros_like(samples)
    for axis, other in ((-1, -2), (-2, -1)):
        p = [padded.narrow(other, 2, n).narrow(axis, i, n) for i in range(5)]
        total = total + (p[0] + p[4] - 4 * (p[1] + p[3]) + 6 * p[2]).abs()
    return total
