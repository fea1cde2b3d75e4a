"""The simulator: from a preset and a seed to images and their truths, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    gaussian_noise,
    gaussian_psf_taps,
    pixel_coordinates,
    pixelated_psf,
    poisson,
)
from darklens.simulation.compiled import fused_light
from darklens.simulation.draw import BLOCK, Rows, draw_block, seed_sequence
from darklens.simulation.preset_files import load_preset
from darklens.simulation.presets import Preset
from darklens.simulation.scene import main_deflection, select, source_light, substructure_deflection


class Simulator:
    """Render images of a preset.

    Parameters
    ----------
    preset
        A `Preset`, or what `load_preset` takes: a name, a YAML file, ``file.py:function``.
    seed
        Image *i* depends on preset, seed and *i*'s block of 64 images alone.
    device
        Where images are made. The noise of one device's generator is not that of another's.
    compile
        Fuse each class's light into one kernel (float32) in `blocks`. It takes up to a minute once on a machine, then
        seconds; worth it from about a thousand images. Needs a C++ compiler on a CPU; without one it falls back, and
        warns.
    trust_code
        Whether code that a YAML file or a content names may run, as in `load_preset`.
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
        self._galaxies = _load_galaxies(self.preset)
        self._psf = _psf(self.preset)

    def catalog(self, count: int, start: int = 0) -> pl.DataFrame:
        """Truths of images ``start`` to ``start + count - 1``, one row an image."""
        blocks = range(start // BLOCK, -(-(start + count) // BLOCK))
        frames = [to_frame(draw_block(self.preset, self.seed, block)) for block in blocks]
        if not frames:
            return to_frame(draw_block(self.preset, self.seed, 0)).clear()
        return pl.concat(frames, how="diagonal_relaxed").slice(start % BLOCK, count)

    def render(
        self,
        rows: pl.DataFrame | Rows,
        noise: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Images (N, 1, H, W) of catalogue rows, in the preset's `Preset.unit`.

        Without ``noise`` they are its expectation. With it, a row whose id and seed are those of a simulated image
        gets that image's noise again: on the same device to the bit, but for images that compiled kernels made, where
        the flux differs by rounding.

        Raises
        ------
        DataError
            If a column is missing, or a label is not a class of the preset.
        """
        columns = to_rows(rows) if isinstance(rows, pl.DataFrame) else dict(rows)
        self._check(columns)
        return self._render(columns, noise, dtype, compile=False)

    def _render(self, columns: Rows, noise: bool, dtype: torch.dtype, compile: bool) -> Tensor:
        images = self._noise_free(columns, dtype, compile)
        times = self._times(columns, dtype)
        images = self._with_noise(images, times, np.asarray(columns["id"])) if noise else self._expected(images, times)
        return images[:, None]

    def without_substructure(self, rows: pl.DataFrame | Rows, dtype: torch.dtype = torch.float64) -> Tensor:
        """Noise-free images (N, H, W) of the same main deflectors and sources, without what their class adds."""
        columns = to_rows(rows) if isinstance(rows, pl.DataFrame) else dict(rows)
        flux = self._observe(self._light(None, columns, *self._grid(dtype)))
        return self._expected(flux, self._times(columns, dtype))

    def noise_sigma(self, rows: pl.DataFrame | Rows, expected: Tensor) -> Tensor:
        """Standard deviation of the noise in each pixel of expected images (N, H, W), in `Preset.unit`.

        For presets without noise it is that of their instrument.
        """
        instrument, noise = self.preset.instrument, self.preset.noise
        times = torch.tensor(np.asarray(rows["exposure_time"])).to(expected)[:, None, None]
        background = torch.tensor([instrument.background(float(t)) for t in times.flatten()]).to(expected)[
            :, None, None
        ]
        if noise == "deeplense-twice":  # a Gaussian and a Poisson draw, each with the variance of the counts
            return (2 * expected + (background * times).square()).sqrt()
        factor = 2.0 if noise == "deeplense-doubled" else 1.0
        flux = expected / factor
        return factor * (flux / (times * instrument.exposures) + background.square()).sqrt()

    def blocks(
        self, count: int, start: int = 0, noise: bool = True, threads: int | None = None
    ) -> Iterator[tuple[Tensor, Rows]]:
        """Images (up to 64, 1, H, W) and truths of whole blocks in order; ``start`` must be a multiple of 64.

        Blocks are made on ``threads`` threads of one core each (all of PyTorch's, if not given), never more than a
        few ahead of the reader, so memory does not grow with ``count``.
        """
        if start % BLOCK:
            raise ValueError(f"start must be a multiple of {BLOCK}; got {start}")
        numbers = iter(range(start // BLOCK, -(-(start + count) // BLOCK)))
        workers = threads or (torch.get_num_threads() if self.device.type == "cpu" else 1)

        def make(block: int) -> tuple[Tensor, Rows]:
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

    def block(self, number: int, noise: bool = True) -> tuple[Tensor, Rows]:
        """Images (64, 1, H, W) and truths of one block, on this thread."""
        rows = draw_block(self.preset, self.seed, number)
        return self._render(rows, noise, torch.float32, self.compile), rows

    def _check(self, columns: Mapping[str, Any]) -> None:
        needed = ["id", "label", "theta_E", "e1", "e2", "lens_x", "lens_y", "gamma1", "gamma2", "exposure_time"]
        if missing := [name for name in needed if name not in columns]:
            raise DataError(f"catalogue: no column {', '.join(missing)}; these are not rows of a simulated set")
        if unknown := set(columns["label"]) - set(self.preset.labels):
            raise DataError(
                f"catalogue: label {sorted(unknown)[0]!r} is not a class of preset {self.preset.name}: "
                f"{', '.join(self.preset.labels)}"
            )

    def _noise_free(self, columns: Rows, dtype: torch.dtype, compile: bool) -> Tensor:
        """Flux in each pixel behind telescope and atmosphere, (N, H, W)."""
        preset, (x, y) = self.preset, self._grid(dtype)
        labels = np.asarray(columns["label"])
        images = x.new_empty(len(labels), preset.pixels, preset.pixels)
        for label in preset.labels:
            if not len(chosen := np.flatnonzero(labels == label)):
                continue
            rows = select(columns, chosen)
            light = None
            if compile:
                light = fused_light(preset, label, rows, x, y)
            if light is None:
                light = self._light(label, rows, x, y)
            images[torch.from_numpy(chosen)] = self._observe(light)
        return images

    def _grid(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        preset = self.preset
        scale = preset.instrument.pixel_scale
        x, y = pixel_coordinates(preset.pixels, scale, preset.supersampling, dtype, self.device)
        return x[None], y[None]

    def _times(self, columns: Mapping[str, Any], dtype: torch.dtype) -> Tensor:
        return torch.tensor(np.asarray(columns["exposure_time"]), device=self.device, dtype=dtype)

    def _light(self, label: str | None, rows: Rows, x: Tensor, y: Tensor) -> Tensor:
        """Lensed surface brightness (N, H, W), with what the class ``label`` adds, or with nothing added."""
        ax, ay = main_deflection(self.preset, rows, x)(x, y)
        added = None if label is None else substructure_deflection(self.preset, label, rows, x)
        if added is not None:
            bx, by = added(x, y)
            ax, ay = ax + bx, ay + by
        return source_light(self.preset, rows, x, self._galaxies)(x - ax, y - ay)

    def _observe(self, light: Tensor) -> Tensor:
        flux = light * self.preset.instrument.pixel_scale**2
        factor = self.preset.supersampling
        if isinstance(self._psf, Tensor):
            return convolve(bin_pixels(flux, factor), self._psf.to(flux))
        return bin_pixels(convolve_separable(flux, self._psf), factor)

    def _expected(self, flux: Tensor, times: Tensor) -> Tensor:
        if self.preset.noise == "deeplense-twice":
            return flux * times[:, None, None]
        return flux * 2 if self.preset.noise == "deeplense-doubled" else flux

    def _with_noise(self, flux: Tensor, times: Tensor, ids: np.ndarray) -> Tensor:
        if self.preset.noise == "deeplense-doubled":
            return self._expected(flux, times)
        instrument, generator = self.preset.instrument, torch.Generator(self.device)
        background = torch.tensor([instrument.background(float(t)) for t in times]).to(flux)
        totals = times * instrument.exposures
        # Photons in units of counts, and the Gaussian: of the background, or of all noise where a Poisson follows it.
        counts = flux * totals[:, None, None]
        if twice := self.preset.noise == "deeplense-twice":
            sigma = (counts.abs() + (background * times).square()[:, None, None]).sqrt()
        noisy = torch.empty_like(flux)
        for i, number in enumerate(ids):
            state = seed_sequence(self.preset, self.seed, 1, int(number)).generate_state(1, np.uint64)
            generator.manual_seed(int(state[0]))
            if twice:  # quirk 4 of the published Model I: a Poisson draw on top of a Gaussian that stands for one
                noisy[i] = poisson(counts[i] + gaussian_noise(counts[i], sigma[i], generator), generator)
            else:
                photons = poisson(counts[i], generator) / totals[i]
                noisy[i] = photons + gaussian_noise(photons, background[i], generator)
        return noisy


def _psf(preset: Preset) -> Tensor | list[float]:
    """The kernel of a pixelated PSF, or the taps of a Gaussian one in (sub-)pixels."""
    instrument = preset.instrument
    if instrument.psf_file is not None:
        try:
            return pixelated_psf(torch.from_numpy(_load_image(instrument.psf_file)))
        except ValueError as error:
            raise PresetError(f"{instrument.psf_file}: {error}") from error
    fwhm = instrument.psf_fwhm / instrument.pixel_scale * preset.supersampling
    return gaussian_psf_taps(fwhm, instrument.psf_truncation)


def to_frame(rows: Rows) -> pl.DataFrame:
    """Columns to a table: nan becomes null, arrays become lists."""
    columns = []
    for name, values in rows.items():
        if isinstance(values, np.ndarray):
            columns.append(pl.Series(name, values, nan_to_null=values.dtype.kind == "f"))
        elif name == "subhalo_profile":
            columns.append(pl.Series(name, values, dtype=pl.String))
        else:
            lists = [None if v is None else v.tolist() for v in values]
            columns.append(pl.Series(name, lists, dtype=pl.List(pl.Float64)))
    return pl.DataFrame(columns)


def to_rows(frame: pl.DataFrame) -> Rows:
    """The inverse of `to_frame`."""
    rows: Rows = {}
    for series in frame:
        if series.dtype == pl.List:
            rows[series.name] = [None if v is None else np.asarray(v, dtype=np.float64) for v in series.to_list()]
        elif series.name == "subhalo_profile":
            rows[series.name] = series.to_list()
        else:
            rows[series.name] = series.to_numpy()
    return rows


@contextmanager
def _one_core_each() -> Iterator[None]:
    """Threads that share the cores must not each use all of them; the caller's setting comes back afterwards."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _load_galaxies(preset: Preset) -> Tensor | None:
    if preset.source.images is None:
        return None
    stack = _load_image(preset.source.images)
    if stack.ndim == 2:
        stack = stack[None]
    if stack.ndim != 3 or not (np.isfinite(stack).all() and (stack.sum((1, 2)) > 0).all()):
        raise PresetError(f"{preset.source.images}: expected galaxies (N, H, W), finite and brighter than zero in sum")
    return torch.from_numpy(stack)


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
