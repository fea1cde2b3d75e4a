"""Tell whether a model has seen images in its training: by the checksum of their dataset, or by the preset and seed of
simulated ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from darklens.data.dataset import DatasetInfo

SIMULATED = "simulated as it goes"
"""The layout of images that are in no folder."""
FORMER_VALIDATION = 1_000_003
"""What version 0.1 added to a seed for validation images that were simulated as it went."""


def how_seen(trained: Mapping[str, Any], info: DatasetInfo) -> Literal["same images", "same seed"] | None:
    """Return how images are known to be those of a training; None if nothing says that they are.

    Parameters
    ----------
    trained
        What a model remembers of its data, with what it started from under ``also``.
    info
        Of the images.

    Returns
    -------
    str or None
        ``same images`` if the checksums are equal; ``same seed`` if these are simulated images of a preset and a seed that
        the training or its validation had, of which the first are the same, whatever their number.
    """
    everything = list(_all(trained))
    if info.checksum is not None and info.checksum in {each.get("checksum") for each in everything}:
        return "same images"
    if info.preset is None or info.seed is None:
        return None
    drawn = {(preset, seed) for each in everything for preset, seed in _simulations(each)}
    return "same seed" if (info.preset.get("name"), info.seed) in drawn else None


def _all(trained: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A description, and those of all models that the training started from or averaged."""
    yield trained
    for each in trained.get("also") or ():
        yield from _all(each)


def _simulations(trained: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Preset and seed of each simulation among the images of a training, its validation included."""
    if simulated := trained.get("simulated"):
        yield from ((simulated["preset"], seed) for seed in simulated["seeds"])
        return
    # Version 0.1 kept one seed, and no word on the preset but where the images come from.
    source, seed = str(trained.get("source")), trained.get("seed")
    if source.startswith("preset:") and isinstance(seed, int):
        yield source.removeprefix("preset:"), seed
        if trained.get("layout") == SIMULATED:
            yield source.removeprefix("preset:"), seed + FORMER_VALIDATION
