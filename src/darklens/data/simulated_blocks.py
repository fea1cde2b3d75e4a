"""What a simulated dataset holds of a block of images: the images, their truths, sharper targets and masks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from darklens.simulation import BLOCK, AnyPreset, Simulator
from darklens.simulation.pairs import Target
from darklens.simulation.scenes.presets import ScenePreset
from darklens.simulation.scenes.renderer import SceneRenderer


def image_dtype(preset: AnyPreset, noise: bool) -> np.dtype:
    """Return the type in which images are stored: uint16 for noisy counts, as a detector gives them, else float32."""
    return np.dtype(np.uint16 if preset.unit == "counts" and noise else np.float32)


@dataclass
class Block:
    """Part of a dataset.

    Parameters
    ----------
    images
        (N, bands, H, W), as they are stored.
    rows
        Columns of their truths.
    targets
        Sharper images (N, bands, H', W') float32 of the same scenes, if there are any.
    mask
        True where a pixel holds no data, (N, bands, H, W), if any can be so.
    """

    images: np.ndarray
    rows: dict[str, Any]
    targets: np.ndarray | None
    mask: np.ndarray | None


@dataclass
class BlockMaker:
    """Makes blocks of a dataset by their numbers; simulators are made when the first is asked for, in each process.

    Parameters
    ----------
    preset
        What is simulated.
    seed
        Of all random numbers.
    count
        Number of images of the whole dataset.
    noise
        Whether images have noise.
    device
        PyTorch's name of the device that renders.
    compile
        Whether kernels are compiled.
    target
        How the sharper image of each pair is seen, if pairs are made.
    noisy_targets
        Whether those have noise.
    """

    preset: AnyPreset
    seed: int
    count: int
    noise: bool = True
    device: str = "cpu"
    compile: bool = False
    target: Target | None = None
    noisy_targets: bool = False

    @cached_property
    def simulator(self) -> Simulator:
        """That of the images."""
        return Simulator(self.preset, self.seed, self.device, compile=self.compile)

    @cached_property
    def sharp(self) -> Simulator | None:
        """That of the targets."""
        if self.target is None:
            return None
        return Simulator(self.target.preset, self.seed, self.device, compile=self.compile)

    @property
    def masked(self) -> bool:
        """Whether blocks have masks."""
        return self.noise and isinstance(self.preset, ScenePreset) and self.preset.loses_pixels

    def __call__(self, number: int) -> Block:
        """Return the images of a block that are in the dataset."""
        images, rows = self.simulator.first_of_block(number, self.count - number * BLOCK, self.noise)
        mask = targets = None
        if self.masked and isinstance(self.simulator.renderer, SceneRenderer):
            mask = self.simulator.renderer.without_data(rows, images)
        if self.target is not None and self.sharp is not None:
            seen = self.target.rows(rows)
            sharp = self.sharp.renderer.images(seen, self.seed, noise=self.noisy_targets, compile=self.compile)
            targets = sharp.float().cpu().numpy()
        return Block(images.cpu().numpy().astype(image_dtype(self.preset, self.noise)), rows, targets, mask)
