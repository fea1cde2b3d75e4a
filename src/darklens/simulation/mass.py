"""Give every class the same mass inside the image: subtract that of the substructure from the main deflector.

By Gauss's theorem the flux of the deflection through the image's edge is twice the convergence integrated inside, for any
mass distribution; so one computation is exact for all profiles.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from darklens.errors import PresetError
from darklens.simulation.columns import Columns, select
from darklens.simulation.presets import Preset
from darklens.simulation.priors import Floats
from darklens.simulation.scene import Deflect, main_deflection, substructure_deflection

POINTS_PER_SIDE = 256
"""Points of the midpoint rule along each side of the image. Its error for an isothermal sphere is below 1e-4; for a
mass closer to the edge than the spacing of the points it is larger."""


def conserve_mass(preset: Preset, columns: Columns) -> Floats:
    """Return Einstein radii (N,) in arcsec that keep the mass inside the image at what ``theta_E`` alone would give.

    Raises
    ------
    PresetError
        If the substructure outweighs the main deflector.
    """
    theta_E: Floats = columns["theta_E"].copy()
    labels = np.asarray(columns["label"])
    for label in preset.labels:
        chosen = np.flatnonzero(labels == label)
        group = select(columns, chosen)
        substructure = substructure_deflection(preset, label, group, torch.float64)
        if substructure is None:
            continue
        main = edge_flux(preset, main_deflection(preset, group, torch.float64, shear=False))
        fraction = edge_flux(preset, substructure) / main
        if fraction.max() >= 1:
            raise PresetError(f"preset {preset.name}: the substructure of {label} outweighs the main deflector")
        # The deflection of a power law goes as theta_E to the gamma - 1.
        slope = group["gamma"] - 1 if "gamma" in group else 1.0
        theta_E[chosen] *= (1 - fraction) ** (1 / slope)
    return theta_E


def edge_flux(preset: Preset, deflect: Deflect) -> Floats:
    """Return the flux of a deflection out of the image's square, (N,) arcsec²: twice the convergence integrated inside."""
    half = preset.half_width
    t = (torch.arange(POINTS_PER_SIDE, dtype=torch.float64) + 0.5) / POINTS_PER_SIDE * 2 * half - half
    edge = torch.full_like(t, half)
    sides: list[tuple[Tensor, Tensor, int, int]] = [
        (edge, t, 0, 1),
        (-edge, t, 0, -1),
        (t, edge, 1, 1),
        (t, -edge, 1, -1),
    ]
    flux = sum(sign * deflect(x[None], y[None])[axis].mean(-1) for x, y, axis, sign in sides)
    assert isinstance(flux, Tensor)
    return (flux * 2 * half).numpy()
