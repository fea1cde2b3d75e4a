"""Sum the deflection of many smooth deflectors on a grid, at a tenth of the places that all deflectors have there.

Far from its centre a deflector is so smooth that polynomials through a coarse grid reproduce it. So all deflectors are
summed on a coarse grid, and the sum is interpolated to finer and finer ones; near its centre, each deflector is added as it
is, less what the interpolation has of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor

from darklens.simulation import multilevel_loops
from darklens.simulation.compiled import deflection_of_each
from darklens.simulation.loops import REACH
from darklens.simulation.places import lagrange
from darklens.simulation.profiles import Substructure
from darklens.simulation.radial import RadialTables, add_whole
from darklens.simulation.scene import most_elements

NEAR = 4
"""Coarse spacings around each deflector within which it is computed on the finer grid. The polynomials are then off by 2e-6
arcsec at most for the subhalos of fair-hst, which changes a pixel by less than a hundredth of its noise; with 3 they save a
fifth of the places and are off by 1e-5, with 5 by 5e-7 (``tests/simulation/test_multilevel.py``)."""
SIDE = 2 * (2 * NEAR + 1)
"""Finer places along each side of the square around a deflector."""
IN_CACHE = 2**18
"""Places of the coarsest grid, of all deflectors that are added at once by loops: their deflection stays in the cache."""
FEWEST = 8 * NEAR
"""Places along each side from which on a coarser grid is worth it."""


@dataclass(frozen=True)
class _Grid:
    """Places ``corner + i * spacing`` along either axis; ``count`` of them, an even number."""

    corner: float
    spacing: float
    count: int

    def coarser(self) -> _Grid:
        """A grid of twice the spacing, each of its places amid four of these, with the neighbours that polynomials need."""
        corner = self.corner + (0.5 - 2 * REACH) * self.spacing
        return _Grid(corner, 2 * self.spacing, _even(self.count // 2 + 2 * REACH))


def _even(number: int) -> int:
    return number + number % 2


def sum_on_grid(added: Substructure, pixels: int, pixel_scale: float, *, compile: bool) -> tuple[Tensor, Tensor]:
    """Return the deflection by all deflectors of each image at the places of a grid.

    Parameters
    ----------
    added
        Deflectors of N images, smooth but for their centres.
    pixels, pixel_scale
        Number n of places along each side and their spacing in arcsec, as of `pixel_coordinates`.
    compile
        Whether kernels are compiled, where they can be.

    Returns
    -------
    Deflection in x and y, arcsec, (N, n, n).
    """
    corner = -(pixels - 1) / 2 * pixel_scale
    grids = [_Grid(corner, pixel_scale, _even(pixels))]
    while grids[-1].count >= FEWEST:
        grids.append(grids[-1].coarser())
    like, images = added.weights, len(added.weights)
    sums = [tuple(like.new_zeros(images, grid.count, grid.count) for _ in range(2)) for grid in grids]
    flat, owners = added.flat()
    step = max(1, (IN_CACHE if _looped(like, compile) else most_elements(like)) // grids[-1].count ** 2)
    for i in range(0, len(owners), step):
        _add(flat.slice(i, i + step), owners[i : i + step], grids, sums, compile)
    total = sums[-1]
    for own in sums[-2::-1]:
        if _looped(like, compile):
            for near, rest in zip(own, total, strict=True):
                multilevel_loops.refine(near.numpy(), rest.numpy(), _halves().to(like).numpy())
            total = own
            continue
        matrix = _between(own[0].shape[-1], total[0].shape[-1], like.dtype, like.device)
        total = tuple(near + matrix @ rest @ matrix.mT for near, rest in zip(own, total, strict=True))
    return total[0][:, :pixels, :pixels], total[1][:, :pixels, :pixels]


def _add(
    added: Substructure, owners: Tensor, grids: list[_Grid], sums: list[tuple[Tensor, ...]], compile: bool
) -> None:
    """Add M deflectors to the sums on each grid: all of them to the coarsest one, to the others what it lacks."""
    coarse = grids[-1]
    everywhere = torch.arange(coarse.count, device=owners.device)
    first = [torch.zeros_like(owners)] * 2
    deflect = _deflection(added, grids, compile)
    known = deflect(coarse, everywhere[None], everywhere[None])
    for field, values in zip(sums[-1], known, strict=True):
        if _looped(added.weights, compile):
            add_whole(field.numpy(), owners.numpy(), values.numpy())
        else:
            field.index_add_(0, owners, values)
    centres = [added.parameters[name] for name in ("x0", "y0")]
    finer = torch.arange(SIDE, device=owners.device)
    for grid, fields in zip(grids[-2::-1], sums[-2::-1], strict=True):
        last_part = known[0].shape[-1] - 2 * REACH - SIDE // 2
        parts = []
        for axis, centre in enumerate(centres):
            nearest = ((centre - coarse.corner) / coarse.spacing).round().clamp(0, coarse.count).long()
            # Of the places where the deflector is known, those around it, with the neighbours that polynomials need.
            last = ((grid.count - SIDE) // 2 - first[axis]).clamp_max(last_part)
            part = (nearest - NEAR - REACH - first[axis]).clamp_min(0).minimum(last)
            first[axis] = 2 * (first[axis] + part)
            parts.append(part)
        column, row = (start[:, None] + finer for start in first)
        exact = deflect(grid, column, row)
        if _looped(added.weights, compile):
            starts = tuple(each.numpy() for each in (*first, *parts))
            halves = _halves().to(known[0]).numpy()
            for field, there, rough in zip(fields, exact, known, strict=True):
                multilevel_loops.add_lacking(
                    field.numpy(), owners.numpy(), starts, there.numpy(), rough.numpy(), halves
                )
        else:
            matrices = _parts(known[0].shape[-1], owners.device, centres[0].dtype)
            places = (owners[:, None, None] * grid.count + row[..., None]) * grid.count + column[..., None, :]
            for field, there, rough in zip(fields, exact, known, strict=True):
                lacking = there - matrices[parts[1]] @ rough @ matrices[parts[0]].mT
                field.view(-1).scatter_add_(0, places.flatten(), lacking.flatten())
        coarse, known = grid, exact


def _looped(like: Tensor, compile: bool) -> bool:
    """Whether compiled loops serve."""
    return compile and like.device.type == "cpu"


def _deflection(added: Substructure, grids: list[_Grid], compile: bool) -> Callable[..., tuple[Tensor, Tensor]]:
    """Deflection of M deflectors at columns (M or 1, w) and rows (M or 1, h) of a grid, (M, h, w)."""
    each = partial(deflection_of_each, compile=compile)
    tables = None
    if _looped(added.weights, compile):
        reach = max(max(abs(grid.corner), abs(grid.corner + grid.spacing * (grid.count - 1))) for grid in grids)
        centres = [added.parameters[name].abs().amax() for name in ("x0", "y0")]
        tables = RadialTables(added, each, math.hypot(*(reach + float(centre) for centre in centres)))

    def deflect(grid: _Grid, column: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        x, y = ((grid.corner + grid.spacing * number).to(added.weights) for number in (column, row))
        if tables is not None:
            return tables.deflection(x, y)
        return each(added, x[:, None, :], y[:, :, None])

    return deflect


@lru_cache
def _between(fine: int, coarse: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Polynomials that give the values at places amid coarse ones from those at the latter, (fine, coarse)."""
    matrix = torch.zeros(fine, coarse, dtype=torch.float64)
    halves = _halves()
    for i in range(fine):
        matrix[i, i // 2 : i // 2 + 2 * REACH + 1] = halves[i % 2]
    return matrix.to(device, dtype)


@lru_cache
def _halves() -> Tensor:
    """Polynomials at the two finer places amid coarse ones, (2, 7), float64."""
    return lagrange(torch.tensor([-0.25, 0.25], dtype=torch.float64))


@lru_cache
def _parts(coarse: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Polynomials from all coarse places to those amid each part of them, (parts, SIDE, coarse)."""
    whole = _between(2 * (coarse - 2 * REACH), coarse, dtype, device)
    return torch.stack([whole[start : start + SIDE] for start in range(0, len(whole) - SIDE + 1, 2)])
