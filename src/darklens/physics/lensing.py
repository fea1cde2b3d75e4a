"""Convergence, shear, magnification and potential of any deflection, by its derivatives and its integral."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Deflect = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Deflection in x and y (arcsec, of any shape) at positions in x and y (arcsec)."""

NODES = 64
"""Nodes of the integral of `lensing_potential`, which is then exact to 1e-8 of its value for halos with cusps."""


class LensingMaps(NamedTuple):
    """Hold convergence, shear and magnification at each position."""

    convergence: Tensor
    """Surface density in units of the critical one; zero at point and line masses, where it is infinite."""
    shear1: Tensor
    shear2: Tensor
    """Components of the shear: stretched along x where the first is positive, along the diagonal where the second is."""
    magnification: Tensor
    """Ratio of solid angles, negative where images are mirrored."""


def lensing_maps(deflect: Deflect, x: Tensor, y: Tensor) -> LensingMaps:
    """Return convergence, shear and magnification.

    Parameters
    ----------
    deflect
        The deflection by all deflectors. At each position it depends on that position alone.
    x, y
        Positions, arcsec, of one shape.

    Returns
    -------
    Maps of the shape that ``deflect`` returns.

    Source: Schneider, Kochanek & Wambsganss (2006), part 1, eqs. 50 to 56.
    """
    ones, zeros = torch.ones_like(x), torch.zeros_like(x)
    xx, yx = torch.func.jvp(deflect, (x, y), (ones, zeros))[1]
    xy, yy = torch.func.jvp(deflect, (x, y), (zeros, ones))[1]
    return LensingMaps((xx + yy) / 2, (xx - yy) / 2, (xy + yx) / 2, 1 / ((1 - xx) * (1 - yy) - xy * yx))


def lensing_potential(deflect: Deflect, x: Tensor, y: Tensor, x0: Tensor | float, y0: Tensor | float) -> Tensor:
    """Return the deflection potential, of which the deflection is the gradient, less its value at a centre.

    Parameters
    ----------
    deflect
        The deflection by one deflector, as `sie_deflection` or `truncated_nfw_deflection`, or by an external shear. That of
        several is the sum of theirs, each from its own centre. Not for point masses: at them, the potential is infinite.
    x, y
        Positions, arcsec, of one shape.
    x0, y0
        Centre of the deflector, arcsec.

    Returns
    -------
    Potential in arcsec², of the shape that ``deflect`` returns.
    """
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    dx, dy = x - x0, y - y0
    total = torch.zeros_like(x)
    # Along the way from the centre, at squares of evenly spread places, so that cusps are smooth.
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        ax, ay = deflect(x0 + node**2 * dx, y0 + node**2 * dy)
        total = total + 2 * node * weight * (ax * dx + ay * dy)
    return total
