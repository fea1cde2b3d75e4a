"""Integrate surface brightness over sub-pixels: one ray where it is smooth, hundreds where it is not.

Lensed sources have cusps and, where dark matter is, kinks. They lie in a few hundred of the sub-pixels of an image;
elsewhere a polynomial through neighbouring samples is as good as any number of rays. So each image has the same number of
rays to spend. They go to the sub-pixels whose mean is least certain, then to the least certain quarters of these, and on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from darklens.physics import convolve_separable
from darklens.simulation import loops
from darklens.simulation.choosing import choose
from darklens.simulation.loops import LANES, REACH, in_lanes

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
RAYS = 3
"""Rays along each side, at the nodes of Gauss and Legendre's rule."""
ROUGH = 2.0
"""Roughness from which a sub-pixel gets rays where the noise is known, in units of the noise in a pixel, as `LEAST`. With
3, one of 300 vortices was off by 0.56 of the noise."""
LEAST = 0.03
"""Error of a sub-pixel's mean from which it is cut; for a quarter it is four times that. Of 192 images of fair-hst
the worst is off by 0.07 of the noise; with 0.1 by 0.08, for a seventh less time, and with 0.2 by 0.33, in no less."""
NEIGHBOURS = range(-REACH, REACH + 1)
WIDEST = 3.0
"""Standard deviation of a PSF, in sub-pixels, from which on light is shared as if it were this: the equations for a wider
one are singular in float64."""


class Places:
    """Places in some sub-pixels of each image: Q × Q in each of K.

    Parameters
    ----------
    cells
        Numbers of the sub-pixels, row by row, (N, K).
    n
        Sub-pixels along each side of an image.
    rule
        Gives the places in each part of a sub-pixel.
    column, row
        Of the parts, counted along each axis of the image, (N, K).
    owners
        Image that each row of sub-pixels is of, (N,); without it, there is one row for each image.
    there
        1 for sub-pixels whose light counts, 0 for others, (N, K), in the dtype of light; without it, that of all counts.
    compiled
        Whether the compiled `darklens.simulation.loops` serve: on a CPU, and without derivatives.
    """

    def __init__(
        self,
        cells: Tensor,
        n: int,
        rule: _Rule,
        *,
        column: Tensor,
        row: Tensor,
        owners: Tensor | None = None,
        there: Tensor | None = None,
        compiled: bool = False,
    ):
        self.cells, self._n, self._rule, self._compiled = cells, n, rule, compiled
        self._there = rule.offsets.new_ones(cells.shape) if there is None else there
        self.owners = torch.arange(len(cells), device=cells.device) if owners is None else owners
        self._column, self._row = column & rule.last, row & rule.last

    def positions(self, corner: float, width: float) -> tuple[Tensor, Tensor]:
        """Return the coordinates x and y of the places, (N, K, Q, Q), in the unit of the arguments.

        Parameters
        ----------
        corner
            Coordinate of the first sub-pixel's centre along either axis.
        width
            Of a sub-pixel.
        """
        offsets = self._rule.offsets
        if self._compiled:
            found = offsets.new_empty(2, *self.cells.shape, offsets.shape[1], offsets.shape[1])
            loops.positions(self._parts, offsets.numpy(), corner, width, found.numpy())
            return found[0], found[1]
        x = (self.cells % self._n)[..., None] + offsets[self._column]
        y = torch.div(self.cells, self._n, rounding_mode="floor")[..., None] + offsets[self._row]
        shape = (*self.cells.shape, offsets.shape[1], offsets.shape[1])
        return (corner + width * x)[..., None, :].expand(shape), (corner + width * y)[..., None].expand(shape)

    def interpolate(self, field: Tensor) -> Tensor:
        """Return a field, of which `bordered` returned the values, by polynomials through neighbours, (N, K, Q, Q)."""
        if self._compiled:
            nodes = self._rule.offsets.shape[1]
            found = field.new_empty(*self.cells.shape, nodes, nodes)
            loops.interpolate(self._parts, self._rule.polynomials_in_lanes, field.numpy(), found.numpy())
            return found
        values = (
            field.expand(len(self.cells), -1)
            .gather(1, self._around.flatten(1))
            .view(*self.cells.shape, len(NEIGHBOURS), len(NEIGHBOURS))
        )
        return self._both(self._rule.polynomials, values)

    def deposit(self, light: Tensor, total: Tensor, sign: int = 1) -> None:
        """Add light at the places to sub-pixels.

        Parameters
        ----------
        light
            (N, K, Q, Q).
        total
            Changed: sub-pixels with a border of `REACH`, or without one where all light stays in its own, and `LANES` more
            numbers, which loops need, (N, ·).
        sign
            1 adds, -1 takes away.
        """
        shares = self._rule.shares
        if self._compiled:
            shares_in_lanes, there = self._rule.shares_in_lanes, self._there.numpy()
            loops.deposit(self._parts, there, shares_in_lanes, light=light.numpy(), sign=sign, total=total.numpy())
            return
        numbers, light = (
            self.cells if shares.shape[1] == 1 else self._around.flatten(1),
            light * self._there[..., None, None],
        )
        total.scatter_add_(1, numbers, sign * self._both(shares, light).flatten(1))

    @property
    def _parts(self) -> tuple[Any, ...]:
        """What all loops take."""
        return self.cells.numpy(), self._n, self._column.numpy(), self._row.numpy(), self.owners.numpy()

    @cached_property
    def _around(self) -> Tensor:
        """The numbers of sub-pixels and their neighbours on a grid with a border, (N, K, 7, 7)."""
        wide = self._n + 2 * REACH
        steps = torch.arange(2 * REACH + 1, device=self.cells.device)
        corner = torch.div(self.cells, self._n, rounding_mode="floor") * wide + self.cells % self._n
        return corner[..., None, None] + steps[:, None] * wide + steps

    def _both(self, matrices: Tensor, values: Tensor) -> Tensor:
        """Apply the matrices (parts, Q, P) of the places' parts along the last two axes of values (N, K, P, P)."""
        if len(matrices) == 1:
            return _along_both(matrices[0], values)
        return matrices[self._row] @ values @ matrices[self._column].mT


Rays = Callable[[Places], Tensor]
"""Surface brightness at places, (N, K, Q, Q), first along y, then along x."""


def bordered(field: Tensor) -> Tensor:
    """Return a field (N, n, n), with its outermost values repeated `REACH` times beyond its edges, flat, (N, ·)."""
    return pad(field[:, None], (REACH,) * 4, mode="replicate")[:, 0].flatten(1)


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
    padded, taps = bordered(samples), _shares((0.0,), psf_sigma)[0]
    if compiled:
        means = torch.empty_like(samples)
        loops.convolve(
            padded.view(images, n + 2 * REACH, -1).numpy(), np.asarray(taps, means.numpy().dtype), means.numpy()
        )
    else:
        means = convolve_separable(samples, taps)
    edge = 0 if psf_sigma is None else REACH
    deposited = samples.new_zeros(images, (n + 2 * edge) ** 2 + LANES)

    def rule(depth: int, pieces: int) -> _Rule:
        return _rule(depth, pieces, psf_sigma, samples.dtype, samples.device)

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
    beyond = light - places.interpolate(padded)
    places.deposit(beyond, deposited)
    error = torch.where(there > 0, rule(0, 1).means(beyond).abs(), -1.0)
    for depth, count in enumerate(levels[1:]):
        chosen = choose(error, chosen.owners, least * 4**depth, most=count, ragged=noise is not None)
        column, row, light, there = chosen.of(column), chosen.of(row), chosen.of(light), chosen.there
        coarse, fine = (places_in(depth, pieces, column, row) for pieces in (1, 2))
        finer = rays(fine)
        fine.deposit(finer, deposited)
        coarse.deposit(light, deposited, -1)
        if depth + 2 == len(levels):
            break
        light, error, there = _in_quarters(finer, light, there, compiled=compiled)
        half = torch.arange(2, device=row.device)
        column = (2 * column[..., None, None] + half).expand(*column.shape, 2, 2).flatten(1)
        row = (2 * row[..., None, None] + half[:, None]).expand(*row.shape, 2, 2).flatten(1)
    whole = deposited[:, :-LANES].view(images, n + 2 * edge, -1)
    return means + whole[:, edge : edge + n, edge : edge + n]


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
    halves = _quarters().to(coarse)
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
            _gauss()[1].to(coarse).numpy(),
            out=(light.numpy(), error.numpy(), which.numpy()),
        )
        return light, error, which
    light = finer.view(*there.shape, 2, RAYS, 2, RAYS).transpose(-3, -2).flatten(1, 3)
    weights = _gauss()[1].to(coarse)
    means = light.flatten(2) @ torch.outer(weights, weights).flatten()
    which = there.repeat_interleave(4, 1)
    error = (means - _along_both(halves, coarse).flatten(1)).abs()
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


def lagrange(at: Tensor) -> Tensor:
    """Return at offsets (…) the polynomials that are 1 at one of seven sub-pixels and 0 at the others, (…, 7)."""
    values = [
        math.prod(((at - j) / (k - j) for j in NEIGHBOURS if j != k), start=torch.ones_like(at)) for k in NEIGHBOURS
    ]
    return torch.stack(values, -1)


class _Rule:
    """Nodes and weights for parts of sub-pixels, which are cut ``depth`` times along each axis; each in so many pieces.

    Attributes
    ----------
    last
        Number of the last part along an axis.
    offsets
        Nodes of each part, in sub-pixels from the centre of the whole, (parts, Q).
    polynomials
        Those through seven neighbours at the nodes, (parts, Q, 7).
    shares
        Weight of each node in each of seven neighbours, or in its own sub-pixel alone, (parts, 7 or 1, Q).
    """

    def __init__(self, depth: int, pieces: int, psf_sigma: float | None, dtype: torch.dtype, device: torch.device):
        self.depth, parts = depth, 2**depth
        self.last = parts - 1
        nodes, weights = _gauss()
        centres = (torch.arange(pieces * parts, dtype=torch.float64) + 0.5) / (pieces * parts) - 0.5
        offsets = (centres[:, None] + nodes / (pieces * parts)).view(parts, -1)
        shares = torch.tensor(_shares(tuple(offsets.flatten().tolist()), psf_sigma), dtype=torch.float64)
        shares = shares.view(*offsets.shape, -1).mT * weights.repeat(pieces) / (pieces * parts)
        self.offsets, self.polynomials, self.shares = (
            each.to(device, dtype).contiguous() for each in (offsets, lagrange(offsets), shares)
        )
        self._weights = (weights.repeat(pieces) / pieces).to(device, dtype)

    @cached_property
    def polynomials_in_lanes(self) -> np.ndarray:
        """Polynomials as loops take them, (parts, 7, LANES)."""
        return in_lanes(self.polynomials.numpy())

    @cached_property
    def shares_in_lanes(self) -> np.ndarray:
        """Shares as loops take them, (parts, Q, LANES)."""
        return in_lanes(self.shares.numpy())

    def means(self, light: Tensor) -> Tensor:
        """Means over the parts, (N, K), of light at the nodes."""
        return light.flatten(2) @ torch.outer(self._weights, self._weights).flatten()


@lru_cache
def _rule(depth: int, pieces: int, psf_sigma: float | None, dtype: torch.dtype, device: torch.device) -> _Rule:
    return _Rule(depth, pieces, psf_sigma, dtype, device)


@lru_cache
def _gauss() -> tuple[Tensor, Tensor]:
    """Nodes and weights from -1/2 to 1/2, each (RAYS,)."""
    nodes, weights = np.polynomial.legendre.leggauss(RAYS)
    return torch.from_numpy(nodes / 2), torch.from_numpy(weights / 2)


@lru_cache
def _quarters() -> Tensor:
    """Means over either half of the polynomial through the nodes, (2, RAYS)."""
    nodes = _gauss()[0].numpy()
    rows: list[list[float]] = [[], []]
    for node in nodes:
        others = nodes[nodes != node]
        integral = (np.polynomial.Polynomial.fromroots(others) / np.prod(node - others)).integ()
        rows[0].append(2 * (integral(0) - integral(-0.5)))
        rows[1].append(2 * (integral(0.5) - integral(0)))
    return torch.tensor(rows, dtype=torch.float64)


@lru_cache
def _shares(at: tuple[float, ...], psf_sigma: float | None) -> list[list[float]]:
    """Shares of seven sub-pixels in light at each of some offsets from the middle one.

    A convolution of the shares with a Gaussian is as near as can be, by least squares, to that of the light, averaged
    over the width of a sub-pixel: what adding up whole sub-pixels to a pixel leaves out, as they are squares and not
    points. Without a Gaussian, all light stays in its sub-pixel; light that is known at the centre alone is shared as the
    integral of a polynomial is.
    """
    if psf_sigma is None and at != (0.0,):
        return [[1.0]] * len(at)
    frequency = np.linspace(-np.pi, np.pi, 2001)
    power = np.exp(-((min(psf_sigma or WIDEST, WIDEST) * frequency) ** 2))
    neighbours = np.array(NEIGHBOURS)
    gram = (np.cos((neighbours[:, None] - neighbours)[..., None] * frequency) * power).mean(-1)
    apart = neighbours[:, None] - np.array(at)
    wanted = (np.cos(apart[..., None] * frequency) * np.sinc(frequency / (2 * np.pi)) * power).mean(-1)
    shares: list[list[float]] = np.linalg.solve(gram, wanted).T.tolist()
    return shares


def _along_both(matrix: Tensor, values: Tensor) -> Tensor:
    """Apply a matrix (Q, P) along the last two axes of values (…, P, P)."""
    flat = values.flatten(-2) @ torch.kron(matrix, matrix).mT
    return flat.view(*values.shape[:-2], len(matrix), len(matrix))
