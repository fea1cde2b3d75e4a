"""Simulate images of a preset and their true parameters, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
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
from darklens.simulation.columns import Columns, columns_of, from_frame, requires_grad, select, to_frame
from darklens.simulation.compiled import fused_light
from darklens.simulation.draw import BLOCK, draw_block
from darklens.simulation.noise import add_noise, expected_image, noise_sigma
from darklens.simulation.preset_files import load_preset
from darklens.simulation.presets import Preset
from darklens.simulation.scene import lensed_light, main_columns, substructure_columns


class Simulator:
    """Render images of a preset.

    Parameters
    ----------
    preset
        A `Preset`, or what `load_preset` takes: a name, a YAML file, ``file.py:function``.
    seed
        Image *i* depends on preset, seed and *i*'s block of 64 images alone.
    device
        Where images are computed. Noise on a CPU consists of other random numbers than on another device.
    compile
        Fuse each class's light into one kernel (float32) in `blocks`. It takes up to a minute once on a machine, then
        seconds; worth it from about a thousand images. Needs a C++ compiler on a CPU; without one it warns and does
        without.
    trust_code
        Whether code that a YAML file or a content names may run, as in `load_preset`.

    Raises
    ------
    PresetError
        If the preset, or an image file that it names, cannot be used.
    UntrustedCodeError
        If the preset names code and ``trust_code`` is not set.
    """

    def __init__(
        self,
        preset: Preset | str | Path | Mapping[str, Any],
        seed: int = 0,
        device: torch.device | str = "cpu",
        compile: bool = False,
        *,
        trust_code: bool = False,
    ):
        self.preset = preset if isinstance(preset, Preset) else load_preset(preset, trust_code=trust_code)
        self.seed = seed
        self.device = torch.device(device)
        self.compile = compile
        self._galaxies = _load_galaxies(self.preset, self.device)
        self._psf = _psf(self.preset, self.device)

    def catalog(self, count: int, start: int = 0) -> pl.DataFrame:
        """Return the true parameters of the images ``start`` to ``start + count - 1``, one row for each image."""
        blocks = range(start // BLOCK, -(-(start + count) // BLOCK))
        frames = [to_frame(draw_block(self.preset, self.seed, block)) for block in blocks]
        if not frames:
            return to_frame(draw_block(self.preset, self.seed, 0)).clear()
        return pl.concat(frames, how="diagonal_relaxed").slice(start % BLOCK, count)

    def render(
        self,
        rows: pl.DataFrame | Columns,
        noise: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Render catalogue rows.

        Parameters
        ----------
        rows
            Rows of `catalog`, as a table or as columns (`from_frame`), of which any may be a tensor (N,), and any list
            hold tensors: images without noise are differentiable by those.
        noise
            Whether to add noise; without it images are its expectation. A row whose id and seed are those of a simulated
            image gets that image's noise again: on the same device to the bit, but for images from compiled kernels,
            where the flux differs by rounding.
        dtype
            Of computation and images.

        Returns
        -------
        Images (N, 1, H, W) in `Preset.unit`.

        Raises
        ------
        DataError
            If a column or an image's deflectors are missing, a label is not a class of the preset, or the flux expected
            of an image is not finite (on another device than a CPU, where a check would wait, that is left as nan).
        ValueError
            If derivatives of an image with noise are asked for.
        """
        columns = from_frame(rows) if isinstance(rows, pl.DataFrame) else dict(rows)
        self._check(columns, substructure=True)
        if noise and torch.is_grad_enabled() and requires_grad(columns):
            raise ValueError("noise has no derivative: render(rows, noise=False), or under torch.no_grad()")
        return self._render(columns, noise, dtype, compile=False)

    def _render(
        self, columns: Columns, noise: bool, dtype: torch.dtype, compile: bool, chosen: np.ndarray | None = None
    ) -> Tensor:
        flux = self._flux(columns, dtype, compile)
        if chosen is not None:
            flux, columns = flux[torch.from_numpy(chosen).to(flux.device)], select(columns, chosen)
        times = _times(columns, dtype)
        _check_finite(self.preset, flux, times, columns)
        if noise:
            images = add_noise(self.preset, self.seed, flux, times=times, ids=np.asarray(columns["id"]))
        else:
            images = expected_image(self.preset, flux, times)
        return images[:, None]

    def without_substructure(self, rows: pl.DataFrame | Columns, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return noise-free images (N, H, W) of the same main deflectors and sources, without any substructure."""
        columns = from_frame(rows) if isinstance(rows, pl.DataFrame) else dict(rows)
        self._check(columns, substructure=False)
        flux = self._observe(self._light(None, columns, *self._grid(dtype)))
        times = _times(columns, dtype)
        _check_finite(self.preset, flux, times, columns)
        return expected_image(self.preset, flux, times)

    def noise_sigma(self, rows: pl.DataFrame | Columns, expected: Tensor) -> Tensor:
        """Return the standard deviation of the noise in each pixel of expected images (N, H, W), in `Preset.unit`.

        For presets without noise it is that of their instrument.
        """
        return noise_sigma(self.preset, expected, _times(rows, expected.dtype))

    def blocks(
        self, count: int, start: int = 0, noise: bool = True, threads: int | None = None
    ) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        """Simulate blocks in order.

        Parameters
        ----------
        count
            Number of images in all.
        start
            Number of the first image, a multiple of 64.
        noise
            Whether to add noise.
        threads
            Blocks are computed on this many threads of one core each (all of PyTorch's, if not given), never more than
            a few ahead of the reader, so memory does not grow with ``count``.

        Yields
        ------
        Images (up to 64, 1, H, W) in `Preset.unit`, and the columns of their true parameters.

        Raises
        ------
        ValueError
            If ``start`` is not a multiple of 64.
        """
        if start % BLOCK:
            raise ValueError(f"start must be a multiple of {BLOCK}; got {start}")
        numbers = iter(range(start // BLOCK, -(-(start + count) // BLOCK)))
        workers = threads or (torch.get_num_threads() if self.device.type == "cpu" else 1)

        def make(block: int) -> tuple[Tensor, dict[str, Any]]:
            rows = select(
                draw_block(self.preset, self.seed, block), np.arange(min(BLOCK, start + count - block * BLOCK))
            )
            return self._render(rows, noise, torch.float32, self.compile), rows

        with _one_core_each(), ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            # The first block alone, so that kernels are compiled once.
            waiting = [pool.submit(make, block) for block in islice(numbers, 1)]
            ahead = 2 * workers
            while waiting:
                yield waiting.pop(0).result()
                waiting += [pool.submit(make, block) for block in islice(numbers, ahead - len(waiting))]

    def block(
        self, number: int, noise: bool = True, *, chosen: np.ndarray | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return images and truths of one block, computed on this thread.

        Parameters
        ----------
        number
            Number of the block, which holds the images ``64 * number`` to ``64 * number + 63``.
        noise
            Whether to add noise.
        chosen
            Places in the block, 0 to 63, of the images that are returned, (N,); all of them by default. They are the same
            to the bit: their light is computed with that of the whole block, as rounding depends on what is summed beside
            it, and their noise alone.

        Returns
        -------
        Images (N, 1, H, W) in `Preset.unit`, and the columns of their true parameters.
        """
        rows = draw_block(self.preset, self.seed, number)
        images = self._render(rows, noise, torch.float32, self.compile, chosen)
        return images, rows if chosen is None else select(rows, chosen)

    def _check(self, columns: Mapping[str, Any], substructure: bool) -> None:
        _check_columns(columns, ["id", "label", *main_columns(self.preset, columns), "exposure_time"])
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
            images[torch.from_numpy(chosen).to(self.device)] = self._observe(light)
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


def _times(columns: pl.DataFrame | Columns, dtype: torch.dtype) -> Tensor:
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
            return pixelated_psf(torch.from_numpy(_load_image(instrument.psf_file))).to(device)
        except ValueError as error:
            raise PresetError(f"{instrument.psf_file}: {error}") from error
    fwhm = instrument.psf_fwhm / instrument.pixel_scale * preset.supersampling
    taps = gaussian_psf_taps(fwhm, instrument.psf_truncation)
    # A few taps are fastest as they are, and published images keep their last digits.
    return taps if preset.supersampling == 1 else pixel_response(preset.pixels, preset.supersampling, taps).to(device)


@contextmanager
def _one_core_each() -> Iterator[None]:
    """Restore the number of PyTorch's threads afterwards, which each thread of a pool sets to one for itself."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _load_galaxies(preset: Preset, device: torch.device) -> Tensor | None:
    if preset.source.images is None:
        return None
    stack = _load_image(preset.source.images)
    if stack.ndim == 2:
        stack = stack[None]
    if stack.ndim != 3 or not (np.isfinite(stack).all() and (stack.sum((1, 2)) > 0).all()):
        raise PresetError(f"{preset.source.images}: expected galaxies (N, H, W), finite and brighter than zero in sum")
    return torch.from_numpy(stack).to(device)


def _load_image(path: str) -> np.ndarray:
    try:
        if path.endswith(".npy"):
            image = np.load(path, allow_pickle=False)
        else:
            from astropy.io import fits

            image = fits.getdata(path)
    except (OSError, ValueError) as error:
        raise PresetError(f"{path}: cannot be read as an image (.npy or FITS): {error}") from error
    return np.asarray(image, dtype=np.float64)
