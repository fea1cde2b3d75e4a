"""Simulate images of a preset and their true parameters, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
import torch
from torch import Tensor

from darklens.errors import PresetError
from darklens.simulation.columns import Columns, from_frame, requires_grad, select, to_frame
from darklens.simulation.draw import BLOCK
from darklens.simulation.parallel import in_order
from darklens.simulation.preset_files import AnyPreset, load_preset
from darklens.simulation.presets import Preset
from darklens.simulation.renderer import LensRenderer
from darklens.simulation.scenes.presets import ScenePreset
from darklens.simulation.scenes.renderer import SceneRenderer


class Renderer(Protocol):
    """Draws and renders one kind of preset."""

    def draw(self, seed: int, block: int) -> dict[str, Any]:
        """Draw the truths of a block of images; return their columns."""
        ...

    def check(self, columns: Columns) -> None:
        """Refuse columns that are not those of images of the preset."""
        ...

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
        """Return images of rows.

        Parameters
        ----------
        columns
            Columns of the rows.
        seed
            Seed of the noise.
        noise
            Whether to add noise.
        dtype
            Of the images.
        compile
            Whether kernels are compiled, where they can be.
        chosen
            Rows that are returned, all if not given.

        Returns
        -------
        Tensor
            Images (N, bands, H, W).
        """
        ...

    def noise_sigma(self, columns: Columns, expected: Tensor) -> Tensor:
        """Return the standard deviation of the noise in each pixel of expected images."""
        ...


class Simulator:
    """Render images of a preset.

    Parameters
    ----------
    preset
        A `Preset` or `ScenePreset`, or what `load_preset` takes: a name, a YAML file, ``file.py:function``.
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
        preset: Preset | ScenePreset | str | Path | Mapping[str, Any],
        seed: int = 0,
        device: torch.device | str = "cpu",
        compile: bool = False,
        *,
        trust_code: bool = False,
    ):
        self.preset: AnyPreset = (
            preset if isinstance(preset, Preset | ScenePreset) else load_preset(preset, trust_code=trust_code)
        )
        self.seed = seed
        self.device = torch.device(device)
        self.compile = compile
        self.renderer: Renderer = (
            SceneRenderer(self.preset, self.device)
            if isinstance(self.preset, ScenePreset)
            else LensRenderer(self.preset, self.device)
        )

    def catalog(self, count: int, start: int = 0) -> pl.DataFrame:
        """Return the true parameters of the images ``start`` to ``start + count - 1``, one row for each image."""
        blocks = range(start // BLOCK, -(-(start + count) // BLOCK))
        frames = [to_frame(self.renderer.draw(self.seed, block)) for block in blocks]
        if not frames:
            return to_frame(self.renderer.draw(self.seed, 0)).clear()
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
            hold tensors: images without noise are differentiable by those, but for scenes.
        noise
            Whether to add noise; without it images are its expectation. A row whose id and seed are those of a simulated
            image gets that image's noise again: on the same device to the bit, but for images from compiled kernels,
            where the flux differs by rounding, and of presets that sample adaptively by a hundredth of the noise.
        dtype
            Of computation and images.

        Returns
        -------
        Images (N, bands, H, W) in `Preset.unit`.

        Raises
        ------
        DataError
            If a column or an image's deflectors are missing, a label is not a class of the preset, or the flux expected
            of an image is not finite (on another device than a CPU, where a check would wait, that is left as nan).
        ValueError
            If derivatives of an image with noise are asked for.
        """
        columns = from_frame(rows) if isinstance(rows, pl.DataFrame) else dict(rows)
        self.renderer.check(columns)
        if noise and torch.is_grad_enabled() and requires_grad(columns):
            raise ValueError("noise has no derivative: render(rows, noise=False), or under torch.no_grad()")
        return self.renderer.images(columns, self.seed, noise=noise, dtype=dtype)

    def without_substructure(self, rows: pl.DataFrame | Columns, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return noise-free images (N, H, W) of the same main deflectors and sources, without any substructure.

        Raises
        ------
        PresetError
            If the preset is of scenes, which have none.
        """
        if not isinstance(self.renderer, LensRenderer):
            raise PresetError(f"preset {self.preset.name} is of scenes, which have no substructure")
        columns = from_frame(rows) if isinstance(rows, pl.DataFrame) else dict(rows)
        return self.renderer.without_substructure(columns, dtype)

    def noise_sigma(self, rows: pl.DataFrame | Columns, expected: Tensor) -> Tensor:
        """Return the standard deviation of the noise in each pixel of expected images, in `Preset.unit`.

        Parameters
        ----------
        rows
            Rows of N images.
        expected
            Their expectation, (N, H, W), or of scenes (N, bands, H, W). For presets without noise it is that of their
            instrument.
        """
        columns = from_frame(rows) if isinstance(rows, pl.DataFrame) else dict(rows)
        return self.renderer.noise_sigma(columns, expected)

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
        Images (up to 64, bands, H, W) in `Preset.unit`, and the columns of their true parameters.

        Raises
        ------
        ValueError
            If ``start`` is not a multiple of 64.
        """
        if start % BLOCK:
            raise ValueError(f"start must be a multiple of {BLOCK}; got {start}")
        workers = threads or (torch.get_num_threads() if self.device.type == "cpu" else 1)

        def make(block: int) -> tuple[Tensor, dict[str, Any]]:
            return self.first_of_block(block, start + count - block * BLOCK, noise)

        yield from in_order(make, range(start // BLOCK, -(-(start + count) // BLOCK)), workers)

    def first_of_block(self, number: int, count: int, noise: bool = True) -> tuple[Tensor, dict[str, Any]]:
        """Return the first images of one block and their truths, computed on this thread without the rest of the block.

        Parameters
        ----------
        number
            Number of the block, as of `block`.
        count
            How many images; all 64 if it is larger.
        noise
            Whether to add noise.

        Returns
        -------
        Images (N, bands, H, W) in `Preset.unit`, and the columns of their true parameters.
        """
        rows = select(self.renderer.draw(self.seed, number), np.arange(min(BLOCK, count)))
        return self.renderer.images(rows, self.seed, noise=noise, compile=self.compile), rows

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
        Images (N, bands, H, W) in `Preset.unit`, and the columns of their true parameters.
        """
        rows = self.renderer.draw(self.seed, number)
        images = self.renderer.images(rows, self.seed, noise=noise, compile=self.compile, chosen=chosen)
        return images, rows if chosen is None else select(rows, chosen)
