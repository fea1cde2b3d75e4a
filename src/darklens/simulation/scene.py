"""Deflection and surface brightness of the lenses in a catalogue's rows, without telescope and noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

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
from darklens.physics.lensing import Deflect
from darklens.simulation.columns import Columns, as_tensor, columns_of
from darklens.simulation.presets import Preset
from darklens.simulation.profiles import STRENGTHS, Substructure, column_names, deflection_function, gather, own_profile
from darklens.simulation.redshifts import deflection_scale, redshifts_of
from darklens.usercode import is_reference

Light = Callable[[Tensor, Tensor], Tensor]

CPU_ELEMENTS, DEVICE_ELEMENTS = 2**22, 2**26
"""Elements of the largest intermediate tensor in the eager sum over deflectors; images are split for it.

Too many exceed the memory: a tensor of 2**22 elements in float32 takes 16 MiB, for each thread of a CPU, one of 2**26 takes
256 MiB, and several live at once. 2**26 hold the largest class of a block of the built-in presets without a split."""

LINE = ("x", "y", "half_length", "phi", "theta_E")
"""Parameters of a line vortex, by their names in the catalogue after ``vortex_``."""


def main_columns(preset: Preset, columns: Columns) -> list[str]:
    """Return the names of the columns that main deflector, shear and source are rendered from.

    Parameters
    ----------
    preset
        Gives the profiles.
    columns
        Those that there are: ``source_amp`` takes the place of a magnitude.

    Returns
    -------
    Names, of which some may be missing in ``columns``.
    """
    source = preset.source
    names = ["theta_E", "e1", "e2", "lens_x", "lens_y", "gamma1", "gamma2"]
    names += ["gamma"] if preset.deflector.profile == "epl" else []
    shape = ["R_sersic", "n_sersic", "e1", "e2"] if source.profile == "sersic" else ["phi", "pixel_scale", "image"]
    brightness = "amp" if source.magnitude is None or "source_amp" in columns else "magnitude"
    return names + [f"source_{name}" for name in ("x", "y", brightness, *shape)]


def substructure_columns(preset: Preset, label: str) -> list[str]:
    """Return the names of the columns that the deflectors of a class, ``label``, are rendered from."""
    matter = preset.classes[label]
    names = [] if matter.line is None else [f"vortex_{name}" for name in LINE]
    if matter.add is not None:
        names += ["subhalo_profile", "subhalo_x", "subhalo_y"]
    elif matter.point_profile is not None:
        names += [f"subhalo_{name}" for name in column_names(deflection_function(matter.point_profile)).values()]
    if matter.line_of_sight is not None:
        names += [f"los_{name}" for name in column_names(deflection_function("tnfw")).values()]
    own = matter.add is not None or is_reference(matter.point_profile or "")
    rescaled = own and preset.redshifts_vary and preset.z_source_convention is not None
    return names + (["z_lens", "z_source"] if rescaled else [])


def main_deflection(preset: Preset, columns: Columns, like: torch.dtype | Tensor, *, shear: bool = True) -> Deflect:
    """Return the deflection of the main deflector.

    Parameters
    ----------
    preset
        Gives the profile.
    columns
        Columns of N images.
    like
        A dtype, or a tensor that gives dtype and device.
    shear
        Whether the external shear is added.

    Returns
    -------
    A function of positions (1 or N, …) in arcsec that returns the two components of the deflection (N, …).
    """
    names = {"x0": "lens_x", "y0": "lens_y", "theta_E": "theta_E", "e1": "e1", "e2": "e2"}
    if preset.deflector.profile == "epl":
        names["gamma"] = "gamma"
    profile = epl_deflection if preset.deflector.profile == "epl" else sie_deflection
    main = dict(zip(names, columns_of(columns, list(names.values()), like), strict=True))
    external = columns_of(columns, ["gamma1", "gamma2"], like) if shear else []

    def deflect(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        shape = (-1,) + (1,) * (x.ndim - 1)
        alpha = profile(x, y, **{name: value.view(shape) for name, value in main.items()})
        if not external:
            return alpha
        beta = shear_deflection(x, y, *(value.view(shape) for value in external))
        return alpha[0] + beta[0], alpha[1] + beta[1]

    return deflect


def substructure(preset: Preset, label: str, columns: Columns, like: torch.dtype | Tensor) -> list[Substructure]:
    """Return the deflectors that a class adds, those of one profile after those of another.

    Parameters
    ----------
    preset
        Defines the class.
    label
        Name of the class.
    columns
        Columns of N images of this class.
    like
        A dtype, or a tensor that gives dtype and device.

    Returns
    -------
    The deflectors of all images, padded to an equal number; none for a class that adds nothing.

    Raises
    ------
    PresetError
        If the images name different profiles, or parameters of the profile are missing.
    """
    matter = preset.classes[label]
    example = like if isinstance(like, Tensor) else torch.empty(0, dtype=like)
    parts = []
    if matter.line is not None:
        line = {name: as_tensor(columns[f"vortex_{name}"])[:, None].unbind() for name in LINE}
        parts.append(gather("line", line, example))
    profile = matter.point_profile
    added = {k.removeprefix("subhalo_"): v for k, v in columns.items() if k.startswith("subhalo_")}
    profiles = added.pop("profile", [])
    if matter.add is not None:
        if len(set(profiles)) > 1:
            raise PresetError(f"class {label}: one profile for all its images; got {', '.join(sorted(set(profiles)))}")
        profile = own_profile(matter.add, str(profiles[0]))
    if profile is not None:
        found = gather(profile, added, example)
        # Parameters in the catalogue hold the rescaling, but for those whose meaning is not known.
        if profile not in STRENGTHS and preset.z_source_convention is not None:
            factor = as_tensor(deflection_scale(preset, redshifts_of(preset, columns))).to(example)
            found = replace(found, weights=found.weights * factor.view(-1, 1))
        parts.append(found)
    if matter.line_of_sight is not None:
        halos = {k.removeprefix("los_"): v for k, v in columns.items() if k.startswith("los_")}
        parts.append(gather("tnfw", halos, example))
    return parts


def substructure_deflection(preset: Preset, label: str, columns: Columns, like: torch.dtype | Tensor) -> Deflect | None:
    """Return the summed deflection of the deflectors that a class adds, computed in bounded memory.

    Parameters
    ----------
    preset
        Defines the class.
    label
        Name of the class.
    columns
        Columns of N images of this class.
    like
        A dtype, or a tensor that gives dtype and device.

    Returns
    -------
    A function of positions (1 or N, …) in arcsec that returns the two components of the deflection (N, …), or None for a
    class that adds nothing.
    """
    parts = [deflection_of(part) for part in substructure(preset, label, columns, like)]
    return summed(parts) if parts else None


def summed(parts: Sequence[Deflect]) -> Deflect:
    """Return the sum of deflections, one at least, as a function of positions."""
    return lambda x, y: total([part(x, y) for part in parts])


def total(fields: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return the sum of the two components of deflections, one at least."""
    ax, ay = fields[0]
    for bx, by in fields[1:]:
        ax, ay = ax + bx, ay + by
    return ax, ay


def deflection_of(parts: Substructure) -> Deflect:
    """Return the summed deflection of the deflectors of N images, in bounded memory, as a function of positions."""
    most = most_elements(parts.weights)

    def deflect(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        images, deflectors = parts.weights.shape
        step = max(1, most // max(1, deflectors * x[0].numel()))
        sums = []
        for i in range(0, images, step):
            these = slice(i, i + step)
            sliced = {name: p[these] for name, p in parts.parameters.items()}
            at = (x, y) if len(x) == 1 else (x[these], y[these])
            sums.append(summed_deflection(parts.deflection, *at, parameters=sliced, weights=parts.weights[these]))
        return torch.cat([s[0] for s in sums]), torch.cat([s[1] for s in sums])

    return deflect


def most_elements(like: Tensor) -> int:
    """Return the number of elements of the largest intermediate tensor on the device of a tensor."""
    return CPU_ELEMENTS if like.device.type == "cpu" else DEVICE_ELEMENTS


def single_deflections(
    deflection: Callable[..., tuple[Tensor, Tensor]],
    x: Tensor,
    y: Tensor,
    *,
    parameters: Mapping[str, Tensor],
    weights: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the deflection by each of several deflectors at positions of its own.

    Parameters
    ----------
    deflection
        Function of positions and of the named parameters, like `point_mass_deflection`.
    x, y
        Positions (M or 1, 1, w) and (M or 1, h, 1), arcsec.
    parameters
        Parameters (M,) of the deflectors.
    weights
        Factor on each deflection, (M,); 0 for one that is not there, as in `summed_deflection`.

    Returns
    -------
    Deflection in x and y, arcsec, (M, h, w).
    """
    ax, ay = deflection(x, y, **{name: p[:, None, None] for name, p in parameters.items()})
    w = weights[:, None, None]
    return _weighted(ax, w), _weighted(ay, w)


def summed_deflection(
    deflection: Callable[..., tuple[Tensor, Tensor]],
    x: Tensor,
    y: Tensor,
    *,
    parameters: Mapping[str, Tensor],
    weights: Tensor,
) -> tuple[Tensor, Tensor]:
    """Sum the deflection by several deflectors.

    Parameters
    ----------
    deflection
        Function of positions and of the named parameters, like `point_mass_deflection`.
    x, y
        Positions (1 or N, …), arcsec.
    parameters
        Parameters (N, K) of the K deflectors of each image.
    weights
        Factor on each deflection, (N, K); 0 where an image has fewer than K deflectors. What the deflection is there,
        infinite or not a number included, does not count.

    Returns
    -------
    Deflection in x and y, arcsec, (N, …).
    """
    shape = (len(weights),) + (1,) * (x.ndim - 1) + (weights.shape[1],)
    ax, ay = deflection(x[..., None], y[..., None], **{name: p.view(shape) for name, p in parameters.items()})
    w = weights.view(shape)
    return _weighted(ax, w).sum(-1), _weighted(ay, w).sum(-1)


def _weighted(deflection: Tensor, weights: Tensor) -> Tensor:
    """A deflection times its weights, and zero where a weight is, whatever the deflection is there."""
    return torch.where(weights != 0, weights * deflection, 0.0)


def source_amplitude(preset: Preset, columns: Columns, like: torch.dtype | Tensor) -> Tensor:
    """Return the surface brightness of Sérsic sources at their half-light radius.

    Parameters
    ----------
    preset
        Gives the zero point of magnitudes.
    columns
        Columns of N images, with ``source_amp`` or ``source_magnitude``.
    like
        A dtype, or a tensor that gives dtype and device.

    Returns
    -------
    Surface brightness in e-/s per arcsec², (N,).
    """
    if "source_amp" in columns:
        return columns_of(columns, ["source_amp"], like)[0]
    magnitude, radius, index = columns_of(columns, ["source_magnitude", "source_R_sersic", "source_n_sersic"], like)
    assert preset.instrument.zero_point is not None
    flux = counts_per_second(magnitude, preset.instrument.zero_point)
    return flux / sersic_total_flux(torch.ones_like(radius), radius, index)


def sersic_parameters(preset: Preset, columns: Columns, like: torch.dtype | Tensor) -> dict[str, Tensor]:
    """Return the arguments of `sersic_light` after the position.

    Parameters
    ----------
    preset
        Gives the zero point of magnitudes.
    columns
        Columns of N images.
    like
        A dtype, or a tensor that gives dtype and device.

    Returns
    -------
    Tensors (N,) by the name of the argument.
    """
    names = {"x0": "x", "y0": "y", "R_sersic": "R_sersic", "n_sersic": "n_sersic", "e1": "e1", "e2": "e2"}
    values = columns_of(columns, [f"source_{name}" for name in names.values()], like)
    return dict(zip(names, values, strict=True)) | {"amp": source_amplitude(preset, columns, like)}


LENS_LIGHT = tuple(f"lens_light_{name}" for name in ("magnitude", "R_sersic", "n_sersic", "e1", "e2"))
"""Columns of the deflector's own light, whose centre is that of the deflector."""

MIDDLE, RAYS = 4, 8
"""Sub-pixels on each side of a deflector's centre in which its light is sampled at several places, and their number along
either side. With both, the central pixel of a profile of index 4 is right to 0.3%; without, it is off by up to 20%."""


def lens_light(preset: Preset, columns: Columns, x: Tensor, y: Tensor) -> Tensor:
    """Return the surface brightness of the deflectors.

    Parameters
    ----------
    preset
        Gives the zero point of magnitudes, the width of sub-pixels, and whether sampling is adaptive: then light about the
        centres is the mean of many places in each sub-pixel.
    columns
        Columns of N images.
    x, y
        Centres of sub-pixels, (1, n, n), arcsec.

    Returns
    -------
    Tensor
        Surface brightness per arcsec², (N, n, n).
    """
    names = ["lens_x", "lens_y", *LENS_LIGHT]
    x0, y0, magnitude, R, n, e1, e2 = (each.view(-1, 1, 1) for each in columns_of(columns, names, x))
    assert preset.instrument.zero_point is not None
    flux = counts_per_second(magnitude, preset.instrument.zero_point)
    shape = {"x0": x0, "y0": y0, "R_sersic": R, "n_sersic": n, "e1": e1, "e2": e2}
    shape["amp"] = flux / sersic_total_flux(torch.ones_like(R), R, n)
    found = sersic_light(x, y, **shape)
    if not preset.adaptive:
        return found
    side, width = x.shape[-1], preset.instrument.pixel_scale / preset.supersampling
    steps = torch.arange(-MIDDLE, MIDDLE + 1, device=x.device)
    rows, cols = (
        ((centre.detach() / width + (side - 1) / 2).round().long() + turned).clamp(0, side - 1)
        for centre, turned in ((y0, steps[:, None]), (x0, steps[None, :]))
    )
    within = ((torch.arange(RAYS, device=x.device, dtype=x.dtype) + 0.5) / RAYS - 0.5) * width
    corner = -(side - 1) / 2 * width
    ray_x = (corner + cols * width)[..., None, None] + within
    ray_y = (corner + rows * width)[..., None, None] + within[:, None]
    fine = {name: each[..., None, None] for name, each in shape.items()}
    means = sersic_light(ray_x, ray_y, **fine).mean((-2, -1))
    images = torch.arange(len(found), device=x.device)[:, None, None]
    return found.index_put((images, rows, cols), means)


def lensed_light(
    preset: Preset, label: str | None, columns: Columns, x: Tensor, y: Tensor, *, galaxies: Tensor | None
) -> Tensor:
    """Return the lensed surface brightness at positions in the image.

    Parameters
    ----------
    preset
        Gives main deflector and source.
    label
        Class whose deflectors are added; None adds none.
    columns
        Columns of N images.
    x, y
        Positions (1, H, W), arcsec.
    galaxies
        Images (G, h, w) that serve as sources; None for Sérsic sources.

    Returns
    -------
    Surface brightness per arcsec², (N, H, W).
    """
    ax, ay = main_deflection(preset, columns, x)(x, y)
    added = None if label is None else substructure_deflection(preset, label, columns, x)
    if added is not None:
        bx, by = added(x, y)
        ax, ay = ax + bx, ay + by
    return source_light(preset, columns, x, galaxies=galaxies)(x - ax, y - ay)


def source_light(preset: Preset, columns: Columns, like: torch.dtype | Tensor, *, galaxies: Tensor | None) -> Light:
    """Return the surface brightness of the source.

    Parameters
    ----------
    preset
        Gives the profile of the source and the zero point of magnitudes.
    columns
        Columns of N images.
    like
        A dtype, or a tensor that gives dtype and device.
    galaxies
        Images (G, h, w) that serve as sources, on the device of ``like``; None for Sérsic sources.

    Returns
    -------
    A function of source-plane positions (N, H, W) in arcsec that returns the surface brightness per arcsec², (N, H, W).
    """
    if preset.source.profile == "sersic":
        parameters = {k: p.view(-1, 1, 1) for k, p in sersic_parameters(preset, columns, like).items()}
        return lambda x, y: sersic_light(x, y, **parameters)
    assert galaxies is not None
    names = ["source_x", "source_y", "source_phi", "source_pixel_scale", "source_image"]
    x0, y0, phi, scale, which = (c.view(-1, 1, 1) for c in columns_of(columns, names, like))
    images = galaxies[(which.flatten() * len(galaxies)).long().clamp_max(len(galaxies) - 1)].to(x0)
    if "source_amp" in columns:
        amp = columns_of(columns, ["source_amp"], like)[0].view(-1, 1, 1)
    else:
        assert preset.instrument.zero_point is not None
        flux = counts_per_second(columns_of(columns, ["source_magnitude"], like)[0], preset.instrument.zero_point)
        amp = flux.view(-1, 1, 1) / (images.sum((-2, -1), keepdim=True) * scale.square())
    return lambda x, y: pixelated_light(x, y, x0=x0, y0=y0, image=images, amp=amp, phi=phi, pixel_scale=scale)
