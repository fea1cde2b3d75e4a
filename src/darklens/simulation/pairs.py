"""Presets of the sharper images in pairs for super-resolution: the same scenes through a better telescope."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from darklens.errors import PresetError
from darklens.simulation.columns import Columns
from darklens.simulation.presets import Preset
from darklens.simulation.scenes.presets import ScenePreset

FINEST = 8
"""Largest factor by which pixels are made finer."""


@dataclasses.dataclass(frozen=True)
class Target:
    """How the sharper image of each pair is seen: a preset, and the factor by which seeing in rows is better."""

    preset: Preset | ScenePreset
    factor: int = 1

    def rows(self, columns: Columns) -> dict[str, Any]:
        """Return the rows of images with their seeing divided by the factor."""
        return {
            name: np.asarray(values) / self.factor if name.startswith("psf_fwhm_") else values
            for name, values in columns.items()
        }


def paired_telescope(preset: Preset | ScenePreset, pairs: str, *, trust_code: bool = False) -> Target:
    """Return how the sharper images of pairs are seen.

    Parameters
    ----------
    preset
        Of the images.
    pairs
        By how many times pixels are finer, or the name of a preset whose instrument sees the same field.
    trust_code
        Whether code that such a preset in YAML names may run.

    Returns
    -------
    Target
        As of `sharper`, or of `seen_by` where another preset is named.

    Raises
    ------
    PresetError
        As of `sharper` and `seen_by`, or if there is no such preset.
    """
    from darklens.simulation import load_preset

    if pairs.isdigit():
        return sharper(preset, int(pairs))
    return seen_by(preset, load_preset(pairs, trust_code=trust_code))


def sharper(preset: Preset | ScenePreset, factor: int) -> Target:
    """Return a telescope whose pixels and point-spread functions are so many times smaller.

    Parameters
    ----------
    preset
        Of the images.
    factor
        2 to `FINEST`.

    Returns
    -------
    Target
        The same field on ``factor`` times as many pixels a side. Fluxes are those of its own, smaller pixels.

    Raises
    ------
    PresetError
        If the factor is out of range, or a point-spread function is in a file, which says nothing of a finer one.
    """
    if not 2 <= factor <= FINEST:
        raise PresetError(f"--pairs: pixels can be 2 to {FINEST} times finer; got {factor}")
    name, pixels = f"{preset.name} x{factor}", preset.pixels * factor
    sampling = max(1, -(-preset.supersampling // factor))
    if isinstance(preset, ScenePreset):
        _no_file(preset.name, [band.psf_file for band in preset.bands.values()])
        bands = {
            key: band if band.pixel_scale is None else dataclasses.replace(band, pixel_scale=band.pixel_scale / factor)
            for key, band in preset.bands.items()
        }
        scene = dataclasses.replace(
            preset,
            name=name,
            pixels=pixels,
            pixel_scale=preset.pixel_scale / factor,
            bands=bands,
            supersampling=sampling,
        )
        return Target(scene, factor)
    telescope = preset.instrument
    _no_file(preset.name, [telescope.psf_file])
    finer = dataclasses.replace(
        telescope, pixel_scale=telescope.pixel_scale / factor, psf_fwhm=telescope.psf_fwhm / factor
    )
    return Target(dataclasses.replace(preset, name=name, pixels=pixels, instrument=finer, supersampling=sampling))


def seen_by(preset: Preset | ScenePreset, other: Preset | ScenePreset) -> Target:
    """Return the telescope of another preset, which looks at the same field.

    Parameters
    ----------
    preset
        Of the images.
    other
        Its instrument and sampling see the targets.

    Returns
    -------
    Target
        The preset's lenses and sources through the other's instrument.

    Raises
    ------
    PresetError
        If one is of scenes, or the field is no whole number of the other's pixels.
    """
    if isinstance(preset, ScenePreset) or isinstance(other, ScenePreset):
        raise PresetError("--pairs: of presets of scenes, give a number, by which pixels are finer")
    exact = preset.pixels * preset.instrument.pixel_scale / other.instrument.pixel_scale
    if abs(exact - round(exact)) > 1e-6 * exact:
        raise PresetError(
            f"--pairs: the field of {preset.name} is {exact:.2f} pixels of {other.name}, which must be a whole number"
        )
    seen = dataclasses.replace(
        preset, name=f"{preset.name} by {other.name}", pixels=round(exact), instrument=other.instrument,
        supersampling=other.supersampling, adaptive=other.adaptive, noise=other.noise,
    )  # fmt: skip
    return Target(seen)


def _no_file(name: str, files: list[str | None]) -> None:
    if given := [each for each in files if each is not None]:
        raise PresetError(
            f"--pairs: preset {name} has its point-spread function in {given[0]}, which cannot be made finer"
        )
