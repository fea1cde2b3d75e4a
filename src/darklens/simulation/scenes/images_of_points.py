"""Where a singular isothermal ellipsoid with shear shows a point of the source plane, and how bright."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from darklens.physics import shear_deflection, sie_deflection
from darklens.simulation.columns import Columns, columns_of
from darklens.simulation.priors import Floats

RADII, ANGLES = 80, 96
"""Cells in the logarithm of the radius and in angle of the disc in which images are looked for. Two images in one of them
are a pair at a critical curve, which may be lost."""

NEAREST, REACH = 1e-3, 3.0
"""Radii of the disc in Einstein radii. A source within the Einstein radius has its images within about two, and one
nearer to the centre than the first is magnified less than 0.001."""

NEWTON_STEPS = 12
"""From the corner of a cell to rounding take six or fewer steps but at critical curves."""

LONGEST_STEP = 0.1
"""Of Newton's method, as a share of the distance to the deflector's centre."""

STEP = 1e-6
"""Einstein radii between the rays from which derivatives are taken."""

FAINTEST = 1e-3
"""Magnification below which an image is left out: that in the singular centre has none."""

SAME = 1e-4
"""Einstein radii within which two solutions are one."""


def images_of_points(columns: Columns, source_x: Floats, source_y: Floats) -> tuple[np.ndarray, Floats, Floats, Floats]:
    """Return the images of points.

    Parameters
    ----------
    columns
        Columns `darklens.simulation.scenes.objects.MASS` of N lenses.
    source_x, source_y
        A point for each, arcsec, (N,).

    Returns
    -------
    For M images: the number of the lens (M,), the place in arcsec (M,) and (M,), and the magnification without its sign
    (M,).
    """
    names = ("theta_E", "e1", "e2", "lens_x", "lens_y", "gamma1", "gamma2")
    parameters = torch.stack(columns_of(columns, names, torch.float64))
    source = torch.stack([torch.as_tensor(source_x), torch.as_tensor(source_y)])
    lens, start = _cells(parameters, source)
    x, y = start
    mine, theta_E = parameters[:, lens], parameters[0, lens]
    target = source[:, lens]
    step = STEP * theta_E
    for _ in range(NEWTON_STEPS):
        beta, (xx, xy, yx, yy) = _derivatives(mine, x, y, step)
        miss_x, miss_y = beta[0] - target[0], beta[1] - target[1]
        determinant = xx * yy - xy * yx
        dx, dy = (yy * miss_x - xy * miss_y) / determinant, (xx * miss_y - yx * miss_x) / determinant
        # About a cell at once: at a critical curve a step has no bound.
        shorter = (LONGEST_STEP * torch.hypot(x - mine[3], y - mine[4]) / torch.hypot(dx, dy)).clamp_max(1)
        x, y = x - shorter * dx, y - shorter * dy
    beta, (xx, xy, yx, yy) = _derivatives(mine, x, y, step)
    magnification = 1 / (xx * yy - xy * yx).abs()
    found = torch.hypot(beta[0] - target[0], beta[1] - target[1]) < 1e-6 * theta_E
    found &= magnification.isfinite() & (magnification > FAINTEST)
    kept = np.flatnonzero(found.numpy())
    owner, at_x, at_y = lens.numpy()[kept], x.numpy()[kept], y.numpy()[kept]
    near = SAME * theta_E.numpy()[kept]
    # Two triangles may hold one image, where rounding puts it on their border.
    again = (
        (owner[:, None] == owner) & (np.hypot(at_x[:, None] - at_x, at_y[:, None] - at_y) < near[:, None])
        & np.tri(len(kept), k=-1, dtype=bool)
    ).any(1)  # fmt: skip
    return owner[~again], at_x[~again], at_y[~again], magnification.numpy()[kept][~again]


def _source_plane(parameters: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    theta_E, e1, e2, x0, y0, gamma1, gamma2 = parameters
    ax, ay = sie_deflection(x, y, theta_E=theta_E, e1=e1, e2=e2, x0=x0, y0=y0)
    bx, by = shear_deflection(x, y, gamma1, gamma2)
    return x - ax - bx, y - ay - by


def _derivatives(
    parameters: Tensor, x: Tensor, y: Tensor, step: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Source positions of rays, and their derivatives: of x by x and by y, of y by x and by y."""
    right, left = _source_plane(parameters, x + step, y), _source_plane(parameters, x - step, y)
    above, below = _source_plane(parameters, x, y + step), _source_plane(parameters, x, y - step)
    two = 2 * step
    derivatives = (
        (right[0] - left[0]) / two, (above[0] - below[0]) / two, (right[1] - left[1]) / two, (above[1] - below[1]) / two
    )  # fmt: skip
    return _source_plane(parameters, x, y), derivatives


def _cells(parameters: Tensor, source: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Lenses and middles of the triangles whose images in the source plane hold the point."""
    count = parameters.shape[1]
    radius = torch.logspace(math.log10(NEAREST), math.log10(REACH), RADII + 1, dtype=torch.float64)[:, None]
    angle = torch.linspace(0, 2 * math.pi, ANGLES + 1, dtype=torch.float64)
    each = parameters[:, :, None, None]
    x = each[3] + each[0] * (radius * torch.cos(angle)).expand(count, -1, -1)
    y = each[4] + each[0] * (radius * torch.sin(angle)).expand(count, -1, -1)
    bx, by = _source_plane(each, x, y)
    shown = bx - source[0][:, None, None], by - source[1][:, None, None]
    corners = [tuple(part[:, i : i + RADII, j : j + ANGLES] for part in shown) for i in (0, 1) for j in (0, 1)]
    rays = [tuple(part[:, i : i + RADII, j : j + ANGLES] for part in (x, y)) for i in (0, 1) for j in (0, 1)]
    lenses, places = [], []
    for triangle in ((0, 1, 2), (3, 2, 1)):
        p, q, r = (corners[i] for i in triangle)
        sides = torch.stack([u[0] * v[1] - u[1] * v[0] for u, v in ((p, q), (q, r), (r, p))])
        inside = ((sides >= 0).all(0) | (sides <= 0).all(0)).nonzero(as_tuple=True)
        lenses.append(inside[0])
        places.append([torch.stack([rays[i][axis][inside] for i in triangle]).mean(0) for axis in (0, 1)])
    lens = torch.cat(lenses)
    order = torch.argsort(lens, stable=True)
    return lens[order], (torch.cat([p[0] for p in places])[order], torch.cat([p[1] for p in places])[order])
