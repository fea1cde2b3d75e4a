"""From catalogue rows to the light that reaches the detector, without noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from darklens.errors import PresetError
from darklens.physics import (
    counts_per_second,
    epl_deflection,
    pixelated_light,
    sersic_light,
    sersic_total_flux,
    shear_deflection,
    sie_deflection,
)
from darklens.simulation.presets import Preset
from darklens.simulation.profiles import Substructure, gather, own_profile

Rows = Mapping[str, Any]
Deflect = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Light = Callable[[Tensor, Tensor], Tensor]

EAGER_ELEMENTS = 2**22
"""Elements of the largest intermediate tensor when the sum over deflectors is not compiled: bounds memory."""


def select(rows: Rows, chosen: np.ndarray) -> dict[str, Any]:
    """Some rows of columns that are arrays or lists."""
    return {k: v[chosen] if isinstance(v, np.ndarray) else [v[i] for i in chosen] for k, v in rows.items()}


def main_deflection(preset: Preset, rows: Rows, like: torch.dtype | Tensor, shear: bool = True) -> Deflect:
    """Deflection of the main deflector, with the external shear or without, for images (N, …)."""
    names = ["lens_x", "lens_y", "theta_E", "e1", "e2"]
    x0, y0, theta_E, e1, e2 = columns_of(rows, names, like)
    gamma1, gamma2 = columns_of(rows, ["gamma1", "gamma2"], like) if shear else (None, None)
    gamma = columns_of(rows, ["gamma"], like)[0] if preset.deflector.profile == "epl" else None

    def deflect(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        shape = (-1,) + (1,) * (x.ndim - 1)
        main = [value.view(shape) for value in (x0, y0, theta_E, e1, e2)]
        if gamma is None:
            alpha = sie_deflection(x, y, main[0], main[1], main[2], main[3], main[4])
        else:
            alpha = epl_deflection(x, y, main[0], main[1], main[2], gamma.view(shape), main[3], main[4])
        if gamma1 is None or gamma2 is None:
            return alpha
        beta = shear_deflection(x, y, gamma1.view(shape), gamma2.view(shape))
        return alpha[0] + beta[0], alpha[1] + beta[1]

    return deflect


def substructure(preset: Preset, label: str, rows: Rows, like: torch.dtype | Tensor) -> Substructure | None:
    """The deflectors that a class adds to images (N, …), or None."""
    matter = preset.classes[label]
    example = like if isinstance(like, Tensor) else torch.empty(0, dtype=like)
    if matter.vortex is not None and matter.vortex.profile == "line":
        names = ("x", "y", "half_length", "phi", "theta_E")
        line = {name: [np.atleast_1d(v) for v in rows[f"vortex_{name}"]] for name in names}
        return gather("line", line, example)
    if matter.subhalos is None and matter.vortex is None and matter.add is None:
        return None
    columns: dict[str, Any] = {k.removeprefix("subhalo_"): v for k, v in rows.items() if k.startswith("subhalo_")}
    profiles = columns.pop("profile", [])
    if matter.add is not None:
        if len(set(profiles)) > 1:
            raise PresetError(f"class {label}: one profile for all its images; got {', '.join(sorted(set(profiles)))}")
        profile = own_profile(matter.add, str(profiles[0]))
    else:
        profile = "point_mass" if matter.subhalos is None else matter.subhalos.profile
    return gather(profile, columns, example)


def substructure_deflection(preset: Preset, label: str, rows: Rows, like: torch.dtype | Tensor) -> Deflect | None:
    """Summed deflection of what a class adds, in bounded memory."""
    parts = substructure(preset, label, rows, like)
    if parts is None:
        return None

    def deflect(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        images, deflectors = parts.weights.shape
        step = max(1, EAGER_ELEMENTS // max(1, deflectors * x[0].numel()))
        sums = []
        for i in range(0, images, step):
            sliced = [p[i : i + step] for p in parts.parameters]
            sums.append(summed_deflection(parts.deflection, x, y, sliced, parts.weights[i : i + step]))
        return torch.cat([s[0] for s in sums]), torch.cat([s[1] for s in sums])

    return deflect


def summed_deflection(
    deflection: Callable[..., tuple[Tensor, Tensor]], x: Tensor, y: Tensor, parameters: list[Tensor], weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Deflection at ``x, y`` (1 or N, …) by deflectors with parameters and weights (N, K), summed over the last axis."""
    shape = (len(weights),) + (1,) * (x.ndim - 1) + (weights.shape[1],)
    ax, ay = deflection(x[..., None], y[..., None], *(p.view(shape) for p in parameters))
    w = weights.view(shape)
    return (w * ax).sum(-1), (w * ay).sum(-1)


def source_amplitude(preset: Preset, rows: Rows, like: torch.dtype | Tensor) -> Tensor:
    """Surface brightness at the half-light radius of Sérsic sources, (N,): given, or from the magnitude."""
    if "source_amp" in rows:
        return columns_of(rows, ["source_amp"], like)[0]
    magnitude, radius, index = columns_of(rows, ["source_magnitude", "source_R_sersic", "source_n_sersic"], like)
    assert preset.instrument.zero_point is not None
    flux = counts_per_second(magnitude, preset.instrument.zero_point)
    return flux / sersic_total_flux(torch.ones_like(radius), radius, index)


def sersic_parameters(preset: Preset, rows: Rows, like: torch.dtype | Tensor) -> list[Tensor]:
    """Arguments of `sersic_light` after the position, each (N,)."""
    x0, y0, R, n, e1, e2 = columns_of(
        rows, [f"source_{k}" for k in ("x", "y", "R_sersic", "n_sersic", "e1", "e2")], like
    )
    return [x0, y0, source_amplitude(preset, rows, like), R, n, e1, e2]


def source_light(preset: Preset, rows: Rows, like: torch.dtype | Tensor, galaxies: Tensor | None) -> Light:
    """Surface brightness of the source, per arcsec², as a function of source-plane positions (N, H, W)."""
    if preset.source.profile == "sersic":
        parameters = sersic_parameters(preset, rows, like)
        return lambda x, y: sersic_light(x, y, *(p.view(-1, 1, 1) for p in parameters))
    assert galaxies is not None
    names = ["source_x", "source_y", "source_phi", "source_pixel_scale", "source_image"]
    x0, y0, phi, scale, which = (c.view(-1, 1, 1) for c in columns_of(rows, names, like))
    images = galaxies.to(x0)[(which.flatten() * len(galaxies)).long()]
    if "source_amp" in rows:
        amp = columns_of(rows, ["source_amp"], like)[0].view(-1, 1, 1)
    else:
        assert preset.instrument.zero_point is not None
        flux = counts_per_second(columns_of(rows, ["source_magnitude"], like)[0], preset.instrument.zero_point)
        amp = flux.view(-1, 1, 1) / (images.sum((-2, -1), keepdim=True) * scale.square())
    return lambda x, y: pixelated_light(x, y, x0, y0, images, amp, phi, scale)


def columns_of(rows: Rows, names: list[str], like: torch.dtype | Tensor) -> list[Tensor]:
    """Numeric columns as tensors (N,), of a dtype, or of the dtype and device of a tensor."""
    dtype, device = (like.dtype, like.device) if isinstance(like, Tensor) else (like, torch.device("cpu"))
    return [torch.tensor(np.asarray(rows[n], dtype=np.float64), dtype=dtype, device=device) for n in names]
