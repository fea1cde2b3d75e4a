"""Words in the names of files and of HDUs that say what belongs to an image: its noise, weights, PSF or mask."""

from __future__ import annotations

import re
from typing import Literal

NoiseKind = Literal["deviation", "variance", "inverse variance"]
NOISE: dict[str, NoiseKind] = {
    "rms": "deviation", "err": "deviation", "error": "deviation", "errors": "deviation", "sigma": "deviation",
    "noise": "deviation", "uncert": "deviation", "std": "deviation", "stddev": "deviation",
    "var": "variance", "variance": "variance", "ivar": "inverse variance", "invvar": "inverse variance",
}  # fmt: skip
"""Words for noise maps, and what they hold."""
PSF = {"psf", "psfs"}
AUXILIARY = {*NOISE, *PSF, "mask", "masks", "wht", "weight", "weights", "seg", "segmentation", "flag", "flags"}
"""Words for all that belongs to an image and is none."""


def words(name: str) -> list[str]:
    """Return the words of a name, in small letters."""
    return [word for word in re.split(r"[-_. ]+", name.lower()) if word]


def noise_kind(name: str) -> NoiseKind | None:
    """Return what a noise map of a name holds; None if no word says that it is one.

    ``noise_var`` is a variance: of several words the one that says more.
    """
    kinds = [NOISE[word] for word in words(name) if word in NOISE]
    return next((kind for kind in kinds if kind != "deviation"), kinds[0] if kinds else None)


def is_psf(name: str) -> bool:
    """Return whether a name says that it is that of a PSF."""
    return bool(PSF & set(words(name)))
