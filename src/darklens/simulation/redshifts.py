"""Redshifts of lenses and sources: fixed by a preset, or drawn for each image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from darklens.errors import DataError, PresetError
from darklens.physics import deflection_rescaling
from darklens.physics.cosmology import Redshift
from darklens.simulation.priors import Constant, Floats, Prior

if TYPE_CHECKING:
    from darklens.simulation.presets import Preset

LOWEST_REDSHIFT = 0.01
"""Lenses that are drawn nearer are drawn again: towards redshift zero, angles of halos grow without end."""

LEAST_SEPARATION = 0.05
"""Sources that are drawn less than this behind their lens are drawn again, with the lens: towards it, Einstein radii of all
masses go to zero."""

LEAST_SHARE = 0.01
"""Presets of which fewer draws than this are possible are refused: their redshifts are most likely a mistake."""


class Redshifts(NamedTuple):
    """Redshifts of lens and source: two numbers that all images share, or two arrays with one for each image."""

    lens: Redshift
    source: Redshift

    def select(self, chosen: np.ndarray) -> Redshifts:
        """Return those of some images, by their indices."""
        return Redshifts(*(z[chosen] if isinstance(z, np.ndarray) else z for z in self))

    def repeat(self, counts: np.ndarray) -> Redshifts:
        """Return those of each of ``counts`` deflectors in each image, one image after the other."""
        return Redshifts(*(z.repeat(counts) if isinstance(z, np.ndarray) else z for z in self))


def draw_redshifts(preset: Preset, rng: np.random.Generator, size: int) -> Redshifts:
    """Return the redshifts of images; random numbers are used only where a prior says that they vary.

    Lens and source are drawn independently. Both are drawn again where the lens is nearer than `LOWEST_REDSHIFT`, or the
    source less than `LEAST_SEPARATION` behind it: the two priors, given that the source lies behind. A source that a
    `Preset.z_source_convention` names lies behind the lens likewise.

    Parameters
    ----------
    preset
        Gives the redshifts or their priors.
    rng
        Random numbers.
    size
        Number of images.

    Returns
    -------
    Two numbers, or two arrays (size,) if any of the two varies.
    """
    lens, source = preset.z_lens, preset.z_source
    if isinstance(lens, int | float) and isinstance(source, int | float):
        return Redshifts(lens, source)
    z_lens, z_source = _sample(lens, rng, size), _sample(source, rng, size)
    while len(again := np.flatnonzero(~_possible(z_lens, z_source, preset.z_source_convention))):
        z_lens[again], z_source[again] = _sample(lens, rng, len(again)), _sample(source, rng, len(again))
    return Redshifts(z_lens, z_source)


def check_redshifts(z_lens: float | Prior, z_source: float | Prior, z_source_convention: float | None) -> None:
    """Refuse redshifts of which the source does not lie behind the lens.

    Parameters
    ----------
    z_lens, z_source
        Those of a preset: numbers, or priors.
    z_source_convention
        Redshift of the source that the preset's angles are quoted for, if they are.

    Raises
    ------
    PresetError
        If they are impossible, or, of priors, if fewer than `LEAST_SHARE` of the draws are possible.
    """
    if isinstance(z_lens, int | float) and isinstance(z_source, int | float):
        if not 0 < z_lens < z_source:
            raise PresetError(
                f"z_source must be above z_lens, and both above zero: z_lens={z_lens}, z_source={z_source}"
            )
        if z_source_convention is not None and z_source_convention <= z_lens:
            raise PresetError(f"z_source_convention must be above z_lens; got {z_source_convention}")
        return
    for name, value in (("z_lens", z_lens), ("z_source", z_source)):
        if (lowest := value if isinstance(value, int | float) else value.lowest) < 0:
            raise PresetError(f"{name} must be above zero; its lowest value is {lowest}; a truncated_normal has bounds")
    rng = np.random.default_rng(0)
    drawn = _sample(z_lens, rng, 10_000), _sample(z_source, rng, 10_000)
    if (share := _possible(*drawn, z_source_convention).mean()) < LEAST_SHARE:
        raise PresetError(
            f"z_source must be above z_lens by {LEAST_SEPARATION}, and z_lens at least {LOWEST_REDSHIFT}: of what the "
            f"priors draw, {share:.1%} are; z_source_convention, if there is one, must be above z_lens likewise"
        )


def redshifts_of(preset: Preset, columns: Mapping[str, Any]) -> Redshifts:
    """Return the redshifts of a catalogue's rows: those of its columns, if they vary in the preset.

    Raises
    ------
    DataError
        If a column is missing, or a source does not lie behind its lens.
    """
    if isinstance(preset.z_lens, int | float) and isinstance(preset.z_source, int | float):
        return Redshifts(preset.z_lens, preset.z_source)
    if missing := [name for name in ("z_lens", "z_source") if name not in columns]:
        raise DataError(f"catalogue: no column {', '.join(missing)}; redshifts vary in preset {preset.name}")
    z_lens, z_source = (np.asarray(columns[name], dtype=np.float64) for name in ("z_lens", "z_source"))
    if len(wrong := np.flatnonzero(~((z_lens > 0) & (z_source > z_lens)))):
        i = int(wrong[0])
        raise DataError(
            f"catalogue: image {columns['id'][i]}: z_source must be above z_lens, and both above zero: "
            f"z_lens={z_lens[i]}, z_source={z_source[i]}"
        )
    return Redshifts(z_lens, z_source)


def deflection_scale(preset: Preset, z: Redshifts) -> Redshift:
    """Return what the reduced deflection angles of images are multiplied with; 1 without a `z_source_convention`.

    Parameters
    ----------
    preset
        Gives the redshift of the source that angles are quoted for, and the cosmology.
    z
        Redshifts of the images.

    Returns
    -------
    A factor that all images share, or one for each.
    """
    if preset.z_source_convention is None:
        return 1.0
    return deflection_rescaling(z.lens, z.source, preset.z_source_convention, preset.convention_cosmology)


def _sample(value: float | Prior, rng: np.random.Generator, size: int) -> Floats:
    return (Constant(value) if isinstance(value, int | float) else value).sample(rng, size)


def _possible(z_lens: Floats, z_source: Floats, z_source_convention: float | None) -> np.ndarray:
    farthest = z_source if z_source_convention is None else np.minimum(z_source, z_source_convention)
    return (z_lens >= LOWEST_REDSHIFT) & (farthest - z_lens >= LEAST_SEPARATION)
