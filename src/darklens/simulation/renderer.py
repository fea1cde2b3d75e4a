"""Render images of lenses: a deflector, a source, and the dark matter of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from darklens.errors import DataError, PresetError
from darklens.physics import (
    bin_pixels,
    convolve,
    convolve_separable,
    gaussian_psf_taps,
    pixel_coordinates,
    pixel_response,
    pixelated_psf,
)
from darklens.simulation.adaptive import adaptive_light
from darklens.simulation.columns import Columns, columns_of, select
from darklens.simulation.compiled import fused_light
from darklens.simulation.draw import draw_block
from darklens.simulation.image_files import load_galaxies, load_image
from darklens.simulation.noise import add_noise, expected_image, noise_sigma
from darklens.simulation.presets import Preset
from darklens.simulation.scene import LENS_LIGHT, lens_light, lensed_light, main_columns, substructure_columns


class LensRenderer:
    """Draw the truths of lenses and render them.

    Parameters
    ----------
    preset
        What is simulated.
    device
        Where images are computed.

    Raises
    ------
    PresetError
        If an image file that the preset names cannot be used.
    """

    def __init__(self, preset: Preset, device: torch.device):
        self.preset = preset
        self.device = device
        self._galaxies = _load_galaxies(preset, device)
        self._psf = _psf(preset, device)

    def draw(self, seed: int, block: int) -> dict[str, Any]:
        """Draw the truths of a block of images; return their columns."""
        return draw_block(self.preset, seed, block)

    def check(self, columns: Mapping[str, Any], *, substructure: bool = True) -> None:
        """Refuse columns that are not those of images of this preset.

        Raises
        ------
        DataError
            If a column or an image's deflectors are missing, or a label is not a class of the preset.
        """
        own = LENS_LIGHT if self.preset.lens_light is not None else ()
        _check_columns(columns, ["id", "label", *main_columns(self.preset, columns), *own, "exposure_time"])
        if unknown := set(columns["label"]) - set(self.preset.labels):
            raise DataError(
                f"catalogue: label {str(sorted(unknown)[0])!r} is not a class of preset {self.preset.name}: "
                f"{', '.join(self.preset.labels)}"
            )
        for label in dict.fromkeys(columns["label"]) if substructure else ():
            needed = substructure_columns(self.preset, label)
            _check_columns(columns, needed)
            for name in needed:
                values = zip(columns["id"], columns["label"], columns[name], strict=True)
                if lacking := [number for number, own, value in values if own == label and value is None]:
                    raise DataError(f"catalogue: image {lacking[0]}, of class {label}, has no {name}")

    def images(
        self,
        columns: Columns,
        seed: int,
        *,
        noise: bool,
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
        chosen: np.ndarray | None = None,
    ) -> Tensor:
        """Return images (N, 1, H, W) of rows.

        Parameters
        ----------
        columns
            Columns of the rows.
        seed
            Seed of the noise.
        noise
            Whether to add noise.
        dtype
            Of computation and images.
        compile
            Whether kernels are compiled, where they can be.
        chosen
            Rows that are returned, all if not given. Their light is computed with that of all rows, as rounding depends on
            what is summed beside it, and their noise alone.

        Returns
        -------
        Tensor
            In `Preset.unit`.
        """
        flux = self._flux(columns, dtype, compile)
        if chosen is not None:
            flux, columns = flux[torch.from_numpy(chosen).to(flux.device)], select(columns, chosen)
        times = _times(columns, dtype)
        _check_finite(self.preset, flux, times, columns)
        if noise:
            images = add_noise(self.preset, seed, flux, times=times, ids=np.asarray(columns["id"]))
        else:
            images = expected_image(self.preset, flux, times)
        return images[:, None]

    def without_substructure(self, columns: Columns, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return noise-free images (N, H, W) of the same main deflectors and sources, without any substructure."""
        self.check(columns, substructure=False)
        grid = self._grid(dtype)
        flux = self._observe(self._with_lens_light(self._light(None, columns, *grid), columns, *grid))
        times = _times(columns, dtype)
        _check_finite(self.preset, flux, times, columns)
        return expected_image(self.preset, flux, times)

    def noise_sigma(self, columns: Columns, expected: Tensor) -> Tensor:
        """Return the standard deviation of the noise in each pixel of expected images (N, H, W), in `Preset.unit`.

        For presets without noise it is that of their instrument.
        """
        return noise_sigma(self.preset, expected, _times(columns, expected.dtype))

    def _flux(self, columns: Columns, dtype: torch.dtype, compile: bool) -> Tensor:
        """Return the expected flux in each pixel, (N, H, W) e-/s."""
        preset, (x, y) = self.preset, self._grid(dtype)
        labels = np.asarray(columns["label"])
        images = x.new_empty(len(labels), preset.pixels, preset.pixels)
        for label in preset.labels:
            if not len(chosen := np.flatnonzero(labels == label)):
                continue
            rows = select(columns, chosen)
            light = None
            if compile and not preset.adaptive:
                light = fused_light(preset, label, rows, x, y)
            if light is None:
                light = self._light(label, rows, x, y, compile)
            images[torch.from_numpy(chosen).to(self.device)] = self._observe(self._with_lens_light(light, rows, x, y))
        return images

    def _grid(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        preset = self.preset
        scale = preset.instrument.pixel_scale
        x, y = pixel_coordinates(preset.pixels, scale, preset.supersampling, dtype, self.device)
        return x[None], y[None]

    def _light(self, label: str | None, rows: Columns, x: Tensor, y: Tensor, compile: bool = False) -> Tensor:
        """Return the lensed surface brightness (N, H, W), with the deflectors of a class, or with none added."""
        if self.preset.adaptive:
            return adaptive_light(self.preset, label, rows, grid=(x, y), galaxies=self._galaxies, compile=compile)
        return lensed_light(self.preset, label, rows, x, y, galaxies=self._galaxies)

    def _with_lens_light(self, light: Tensor, rows: Columns, x: Tensor, y: Tensor) -> Tensor:
        return light if self.preset.lens_light is None else light + lens_light(self.preset, rows, x, y)

    def _observe(self, light: Tensor) -> Tensor:
        flux = light * self.preset.instrument.pixel_scale**2
        if isinstance(self._psf, list):
            return convolve_separable(flux, self._psf)
        if self.preset.instrument.psf_file is None:
            response = self._psf.to(flux)
            return response @ flux @ response.mT
        return convolve(bin_pixels(flux, self.preset.supersampling), self._psf.to(flux))


def _check_columns(columns: Mapping[str, Any], needed: Sequence[str]) -> None:
    if missing := [name for name in needed if name not in columns]:
        raise DataError(f"catalogue: no column {', '.join(missing)}; these are not rows of a simulated set")


def _times(columns: Columns, dtype: torch.dtype) -> Tensor:
    """Return exposure times in seconds, (N,), on the CPU, from where the noise level is computed."""
    return columns_of({"exposure_time": columns["exposure_time"]}, ["exposure_time"], dtype)[0]


def _check_finite(preset: Preset, flux: Tensor, times: Tensor, columns: Columns) -> None:
    """Refuse an image whose expectation is not finite, with its number and its truths; not on devices that would wait."""
    if flux.device.type != "cpu":
        return
    finite = flux.isfinite().flatten(1).all(1) & times.isfinite()
    if finite.all():
        return
    i = int(finite.logical_not().nonzero()[0])
    others = ["id"] if preset.classes[columns["label"][i]].vortex else ["id", "vortex_", "log10_axion_mass"]
    own = {name: values[i] for name, values in columns.items() if not name.startswith(tuple(others))}
    truths = ", ".join(f"{name} {_as_text(value)}" for name, value in own.items() if value is not None)
    raise DataError(
        f"image {columns['id'][i]}: the flux expected of it is not finite; its truths, of which some are impossible or "
        f"put a ray on a singularity: {truths}"
    )


def _as_text(value: Any) -> str:
    """A truth, or the number and the range of several."""
    if isinstance(value, str):
        return value
    if np.ndim(value) == 0:
        return f"{float(value):.6g}"
    return f"({len(value)} from {value.min():.6g} to {value.max():.6g})" if len(value) else "(none)"


def _psf(preset: Preset, device: torch.device) -> Tensor | list[float]:
    """Return the kernel of a pixelated PSF, or of a Gaussian one the weights in pixels or the response of pixels."""
    instrument = preset.instrument
    if instrument.psf_file is not None:
        try:
            return pixelated_psf(torch.from_numpy(load_image(instrument.psf_file))).to(device)
        except ValueError as error:
            raise PresetError(f"{instrument.psf_file}: {error}") from error
    fwhm = instrument.psf_fwhm / instrument.pixel_scale * preset.supersampling
    taps = gaussian_psf_taps(fwhm, instrument.psf_truncation)
    # A few taps are fastest as they are, and published images keep their last digits.
    return taps if preset.supersampling == 1 else pixel_response(preset.pixels, preset.supersampling, taps).to(device)


def _load_galaxies(preset: Preset, device: torch.device) -> Tensor | None:
    return None if preset.source.images is None else torch.from_numpy(load_galaxies(preset.source.images)).to(device)
