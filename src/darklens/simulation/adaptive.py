"""Render the surface brightness of presets that ask for adaptive sampling."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from darklens.physics.lensing import Deflect
from darklens.physics.psf import SIGMA_PER_FWHM
from darklens.simulation.columns import Columns, columns_of, select
from darklens.simulation.compiled import deflection_sum, fused_lens
from darklens.simulation.multilevel import sum_on_grid
from darklens.simulation.places import Places, bordered
from darklens.simulation.presets import Preset
from darklens.simulation.profiles import SMOOTH
from darklens.simulation.quadrature import resolve, roughness
from darklens.simulation.scene import Light, main_columns, main_deflection, source_light, substructure, total

Lens = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""Surface brightness (R, H, W) at positions (1 or R, H, W) in arcsec, where dark matter adds a deflection in x and y; the
last argument tells which image each of R is of, where they are not the N images in order."""


def adaptive_light(
    preset: Preset,
    label: str | None,
    columns: Columns,
    *,
    grid: tuple[Tensor, Tensor],
    galaxies: Tensor | None,
    compile: bool,
) -> Tensor:
    """Return the lensed surface brightness of sub-pixels, as the preset's PSF sees it.

    Parameters
    ----------
    preset
        Gives main deflector, source, PSF and the size of a sub-pixel.
    label
        Class whose deflectors are added; None adds none.
    columns
        Columns of N images.
    grid
        Centres of the sub-pixels in x and y, each (1, n, n), arcsec.
    galaxies
        Images (G, h, w) that serve as sources; None for Sérsic sources.
    compile
        Whether kernels are compiled, where they can be.

    Returns
    -------
    Tensor
        Surface brightness per arcsec², (N, n, n).
    """
    x, y = grid
    added = [] if label is None else substructure(preset, label, columns, x)
    lens = _lens(preset, columns, x, galaxies, compile)
    width = preset.instrument.pixel_scale / preset.supersampling
    looped = compile and x.device.type == "cpu"
    corner = -(x.shape[-1] - 1) / 2 * width
    smooth = [sum_on_grid(part, x.shape[-1], width, compile=compile) for part in added if part.deflection in SMOOTH]
    kinked = [part for part in added if part.deflection not in SMOOTH]
    nothing = (x.new_zeros(1, 1, 1),) * 2
    on_grid, borders, kinks = smooth or [nothing], [bordered(each) for each in total(smooth)] if smooth else [], None
    if kinked:
        field = total([deflection_sum(part, compile=compile)(x, y) for part in kinked])
        on_grid = [*smooth, field]
        # Images in a kink of the deflection may be so small that no sample shows them.
        kinks = roughness(field[0], compiled=looped) + roughness(field[1], compiled=looped)
    samples = lens(x, y, *total(on_grid), None)

    def rays(places: Places) -> Tensor:
        at = places.positions(corner, width)
        # In one row, as short ones take a kernel longer.
        ray_x, ray_y = (each.flatten(1)[:, None] for each in at)
        # Where the noise tells how many rays an image needs, it has several rows of them.
        own = places.owners
        parts = [part.of(own) for part in kinked] if looped else kinked
        beside = [deflection_sum(part, compile=compile)(ray_x, ray_y) for part in parts]
        if borders:
            bx, by = (places.interpolate(each).flatten(1)[:, None] for each in borders)
            beside.append((bx, by))
        return lens(ray_x, ray_y, *total(beside or [nothing]), own if looped else None).view(at[0].shape)

    instrument = preset.instrument
    sigma = None if instrument.psf_file is not None else instrument.psf_fwhm * SIGMA_PER_FWHM / width
    noise = None
    if looped:
        (times,) = columns_of(columns, ["exposure_time"], torch.float64)
        noise = instrument.background(times).to(x) / instrument.pixel_scale**2
    return resolve(samples, rays, psf_sigma=sigma, kinks=kinks, noise=noise, compiled=looped)


def _lens(preset: Preset, columns: Columns, like: Tensor, galaxies: Tensor | None, compile: bool) -> Lens:
    """Main deflection, lens equation and source, compiled where they can be."""
    fused = fused_lens(preset, columns, like) if compile else None
    needed = {name: columns[name] for name in main_columns(preset, columns)}

    @cache
    def whole() -> tuple[Deflect, Light]:
        return parts(needed)

    def parts(own: Columns) -> tuple[Deflect, Light]:
        return main_deflection(preset, own, like), source_light(preset, own, like, galaxies=galaxies)

    def light(x: Tensor, y: Tensor, bx: Tensor, by: Tensor, owners: Tensor | None) -> Tensor:
        found = None if fused is None else fused(x, y, bx, by, owners)
        if found is not None:
            return found
        main, source = whole() if owners is None else parts(select(needed, owners.numpy()))
        ax, ay = main(x, y)
        return source(x - ax - bx, y - ay - by)

    return light
