"""Places in sub-pixels: where rays are cast, what smooth fields are there, and how light is shared with neighbours."""

from __future__ import annotations

import math
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from darklens.simulation import loops
from darklens.simulation.loops import REACH, in_lanes

RAYS = 3
"""Rays along each side, at the nodes of Gauss and Legendre's rule."""
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
        rule: Rule,
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

    def deposit(self, light: Tensor, total: Tensor) -> None:
        """Add light at the places to sub-pixels.

        Parameters
        ----------
        light
            (N, K, Q, Q).
        total
            Changed: sub-pixels with a border of `REACH`, or without one where all light stays in its own, and `LANES` more
            numbers, which loops need, (N, ·).
        """
        shares = self._rule.shares
        if self._compiled:
            shares_in_lanes, there = self._rule.shares_in_lanes, self._there.numpy()
            loops.deposit(self._parts, there, shares_in_lanes, light=light.numpy(), total=total.numpy())
            return
        numbers, light = (
            self.cells if shares.shape[1] == 1 else self._around.flatten(1),
            light * self._there[..., None, None],
        )
        total.scatter_add_(1, numbers, self._both(shares, light).flatten(1))

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
            return along_both(matrices[0], values)
        return matrices[self._row] @ values @ matrices[self._column].mT


def bordered(field: Tensor) -> Tensor:
    """Return a field (N, n, n), with its outermost values repeated `REACH` times beyond its edges, flat, (N, ·)."""
    return pad(field[:, None], (REACH,) * 4, mode="replicate")[:, 0].flatten(1)


def lagrange(at: Tensor) -> Tensor:
    """Return at offsets (…) the polynomials that are 1 at one of seven sub-pixels and 0 at the others, (…, 7)."""
    values = [
        math.prod(((at - j) / (k - j) for j in NEIGHBOURS if j != k), start=torch.ones_like(at)) for k in NEIGHBOURS
    ]
    return torch.stack(values, -1)


class Rule:
    """Nodes and weights for parts of sub-pixels.

    Parameters
    ----------
    depth
        How often sub-pixels are cut in two along each axis.
    pieces
        How many pieces, with nodes of their own, each part has along an axis.
    psf_sigma
        As of `shares_of`.
    dtype, device
        Of nodes and weights.

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
        nodes, weights = gauss()
        centres = (torch.arange(pieces * parts, dtype=torch.float64) + 0.5) / (pieces * parts) - 0.5
        offsets = (centres[:, None] + nodes / (pieces * parts)).view(parts, -1)
        shares = torch.tensor(shares_of(tuple(offsets.flatten().tolist()), psf_sigma), dtype=torch.float64)
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
def rule_of(depth: int, pieces: int, psf_sigma: float | None, dtype: torch.dtype, device: torch.device) -> Rule:
    """Return the rule of these arguments, which are those of `Rule`.

    Parameters
    ----------
    depth, pieces, psf_sigma, dtype, device
        As there.

    Returns
    -------
    Rule
        The same one each time.
    """
    return Rule(depth, pieces, psf_sigma, dtype, device)


@lru_cache
def gauss() -> tuple[Tensor, Tensor]:
    """Return Gauss and Legendre's nodes and weights from -1/2 to 1/2, each (RAYS,), float64."""
    nodes, weights = np.polynomial.legendre.leggauss(RAYS)
    return torch.from_numpy(nodes / 2), torch.from_numpy(weights / 2)


@lru_cache
def means_of_halves() -> Tensor:
    """Return what gives the means of a polynomial over either half from its values at the nodes, (2, RAYS), float64."""
    nodes = gauss()[0].numpy()
    rows: list[list[float]] = [[], []]
    for node in nodes:
        others = nodes[nodes != node]
        integral = (np.polynomial.Polynomial.fromroots(others) / np.prod(node - others)).integ()
        rows[0].append(2 * (integral(0) - integral(-0.5)))
        rows[1].append(2 * (integral(0.5) - integral(0)))
    return torch.tensor(rows, dtype=torch.float64)


@lru_cache
def shares_of(at: tuple[float, ...], psf_sigma: float | None) -> list[list[float]]:
    """Return the shares of seven sub-pixels in light at each of some offsets from the middle one.

    A convolution of the shares with a Gaussian is as near as can be, by least squares, to that of the light, averaged
    over the width of a sub-pixel: what adding up whole sub-pixels to a pixel leaves out, as they are squares and not
    points. Without a Gaussian, all light stays in its sub-pixel; light that is known at the centre alone is shared as the
    integral of a polynomial is.

    Parameters
    ----------
    at
        Offsets, in sub-pixels.
    psf_sigma
        Standard deviation of the Gaussian, in sub-pixels; None for no sharing.
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


def along_both(matrix: Tensor, values: Tensor) -> Tensor:
    """Return values (…, P, P) with a matrix (Q, P) applied along both of their last axes, (…, Q, Q)."""
    flat = values.flatten(-2) @ torch.kron(matrix, matrix).mT
    return flat.view(*values.shape[:-2], len(matrix), len(matrix))
