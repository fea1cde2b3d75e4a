"""Integrate surface brightness over sub-pixels: one ray where it is smooth, hundreds where it is not.

Lensed sources have cusps and, where dark matter is, kinks. They lie in a few hundred of the sub-pixels of an image;
elsewhere a polynomial through neighbouring samples is as good as any number of rays. So each image has the same number of
rays to spend. They go to the sub-pixels whose mean is least certain, then to the least certain quarters of these, and on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from darklens.physics import convolve_separable

Rays = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Surface brightness in some sub-pixels of each image: of their numbers (N, K), row by row, and of offsets (N, K, Q) from
their centres along x and along y, in sub-pixels: (N, K, Q, Q), first along y, then along x."""

LEVELS = (1024, 256, 256, 64)
"""Sub-pixels of each image that get `RAYS` × `RAYS` rays; then how many of them, and of their quarters, are cut in four,
each quarter with as many rays. Measured by ``benchmarks/convergence.py``; with fewer in the third place kinks of vortices
are missed, and more in any do not lower the errors, which are then those of the grid."""
RAYS = 3
"""Rays along each side, at the nodes of Gauss and Legendre's rule."""
REACH = 3
"""Sub-pixels on each side that polynomials go through, and that light is shared with."""
NEIGHBOURS = range(-REACH, REACH + 1)
WIDEST = 3.0
"""Standard deviation of a PSF, in sub-pixels, from which on light is shared as if it were this: the equations for a wider
one are singular in float64."""


def resolve(samples: Tensor, rays: Rays, *, psf_sigma: float | None, levels: Sequence[int] = LEVELS) -> Tensor:
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
    levels
        As in `LEVELS`, two numbers at least.

    Returns
    -------
    Tensor
        (N, n, n), in the unit of ``samples``.
    """
    images, n, _ = samples.shape
    means = convolve_separable(samples, _shares((0.0,), psf_sigma)[0])
    edge = 0 if psf_sigma is None else REACH
    deposited = samples.new_zeros(images, n + 2 * edge, n + 2 * edge)

    def rule(depth: int, pieces: int) -> _Rule:
        return _rule(depth, pieces, psf_sigma, samples.dtype, samples.device)

    cells = roughness(samples).flatten(1).topk(min(levels[0], n * n), sorted=False).indices
    column, row = cells % n, torch.div(cells, n, rounding_mode="floor")
    light = rule(0, 1).rays(rays, cells, column, row)
    # What the polynomials through the samples, whose integrals the means are, do not hold.
    beyond = light - _both(lagrange(rule(0, 1).offsets[0]), near(samples, cells))
    _add(deposited, cells, rule(0, 1).shared(beyond, column, row), n)
    error = rule(0, 1).means(beyond).abs()
    for depth, count in enumerate(levels[1:]):
        chosen = error.topk(min(count, error.shape[1]), sorted=False).indices
        column, row, light = column.gather(1, chosen), row.gather(1, chosen), _rows(light, chosen)
        cells = (row >> depth) * n + (column >> depth)
        coarse, fine = rule(depth, 1), rule(depth, 2)
        finer = fine.rays(rays, cells, column, row)
        _add(deposited, cells, fine.shared(finer, column, row) - coarse.shared(light, column, row), n)
        if depth + 2 == len(levels):
            break
        expected = _both(_quarters().to(samples), light).flatten(1)
        light = finer.view(*chosen.shape, 2, RAYS, 2, RAYS).transpose(-3, -2).flatten(1, 3)
        error = (coarse.means(light) - expected).abs()
        half = torch.arange(2, device=row.device)
        column = (2 * column[..., None, None] + half).expand(*column.shape, 2, 2).flatten(1)
        row = (2 * row[..., None, None] + half[:, None]).expand(*row.shape, 2, 2).flatten(1)
    return means + deposited[:, edge : edge + n, edge : edge + n]


def roughness(samples: Tensor) -> Tensor:
    """Return the moduli of the fourth differences along both axes, summed, (N, n, n)."""
    padded = pad(samples[:, None], (2,) * 4, mode="replicate")[:, 0]
    n = samples.shape[-1]
    total = torch.zeros_like(samples)
    for axis, other in ((-1, -2), (-2, -1)):
        p = [padded.narrow(other, 2, n).narrow(axis, i, n) for i in range(5)]
        total = total + (p[0] + p[4] - 4 * (p[1] + p[3]) + 6 * p[2]).abs()
    return total


def near(field: Tensor, cells: Tensor) -> Tensor:
    """Return the values of a field (N or 1, n, n) around sub-pixels (N, K): (N, K, 7, 7)."""
    n, side = field.shape[-1], 2 * REACH + 1
    padded = pad(field[:, None], (REACH,) * 4, mode="replicate")[:, 0].flatten(1)
    places = _around(cells, n, REACH).flatten(1)
    return padded.expand(len(cells), -1).gather(1, places).view(*cells.shape, side, side)


def lagrange(at: Tensor) -> Tensor:
    """Return at offsets (…) the polynomials that are 1 at one of seven sub-pixels and 0 at the others, (…, 7)."""
    values = [
        math.prod(((at - j) / (k - j) for j in NEIGHBOURS if j != k), start=torch.ones_like(at)) for k in NEIGHBOURS
    ]
    return torch.stack(values, -1)


class _Rule:
    """Nodes and weights for parts of sub-pixels, which are cut ``depth`` times along each axis; each in so many pieces.

    Parts are counted along each axis of the image, with (N, K) of them chosen.
    """

    def __init__(self, depth: int, pieces: int, psf_sigma: float | None, dtype: torch.dtype, device: torch.device):
        self.depth, parts = depth, 2**depth
        self._last = parts - 1
        nodes, weights = _gauss()
        centres = (torch.arange(pieces * parts, dtype=torch.float64) + 0.5) / (pieces * parts) - 0.5
        offsets = (centres[:, None] + nodes / (pieces * parts)).view(parts, -1)
        shares = torch.tensor(_shares(tuple(offsets.flatten().tolist()), psf_sigma), dtype=torch.float64)
        shares = shares.view(*offsets.shape, -1).mT * weights.repeat(pieces) / (pieces * parts)
        self.offsets, self._shares = offsets.to(device, dtype), shares.to(device, dtype)
        self._weights = (weights.repeat(pieces) / pieces).to(device, dtype)

    def rays(self, rays: Rays, cells: Tensor, column: Tensor, row: Tensor) -> Tensor:
        """Light at the nodes, (N, K, Q, Q), of parts of the sub-pixels ``cells``."""
        return rays(cells, self.offsets[column & self._last], self.offsets[row & self._last])

    def means(self, light: Tensor) -> Tensor:
        """Means over the parts, (N, K), of light at the nodes."""
        return (light * self._weights * self._weights[:, None]).sum((-2, -1))

    def shared(self, light: Tensor, column: Tensor, row: Tensor) -> Tensor:
        """Light at the nodes as shares of neighbouring sub-pixels, (N, K, 7, 7)."""
        if self.depth == 0:
            return _both(self._shares[0], light)
        return self._shares[row & self._last] @ light @ self._shares[column & self._last].mT


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


def _both(matrix: Tensor, values: Tensor) -> Tensor:
    """Apply a matrix (Q, P) along the last two axes of values (…, P, P)."""
    return ((values @ matrix.T).mT @ matrix.T).mT


def _around(cells: Tensor, n: int, reach: int) -> Tensor:
    """The numbers of sub-pixels (N, K) and their neighbours on a grid with a border of ``reach``, (N, K, side, side)."""
    steps = torch.arange(2 * reach + 1, device=cells.device)
    corner = torch.div(cells, n, rounding_mode="floor") * (n + 2 * reach) + cells % n
    return corner[..., None, None] + steps[:, None] * (n + 2 * reach) + steps


def _add(deposited: Tensor, cells: Tensor, added: Tensor, n: int) -> None:
    """Add values (N, K, side, side) around sub-pixels (N, K)."""
    places = _around(cells, n, added.shape[-1] // 2)
    deposited.flatten(1).scatter_add_(1, places.flatten(1), added.flatten(1))


def _rows(values: Tensor, which: Tensor) -> Tensor:
    """Of values (N, K, …), those of some places (N, k): (N, k, …)."""
    index = which.view(*which.shape, *(1,) * (values.ndim - 2)).expand(*which.shape, *values.shape[2:])
    return values.gather(1, index)
