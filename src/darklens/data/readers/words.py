"""Words in the names of files and of HDUs that say what belongs to an image: its noise, weights, PSF or mask."""

from __future__ import annotations

import re
from typing import Literal

NoiseKind = Literal["deviation", "variance", "inverse variance"]
NOISE: dict[str, NoiseKind] = {
    "rms": "deviation", "err": "deviation", "error": "deviation", "errors": "deviation", "sigma": "deviation",
    "noise": "deviation", "uncert": "deviation",
    "var": "variance", "variance": "variance", "ivar": "inverse variance", "invvar": "inverse variance",
}  # fmt: skip
"""Words for noise maps, and what they hold."""
AUXILIARY = {*NOISE, "psf", "mask", "wht", "weight", "weights", "seg", "segmentation", "flag", "flags"}
"""Words for all that belongs to an image and is none."""


def words(name: str) -> list[str]:
    """Return the words of a name, in small letters."""
    return [word for word in re.split(r"[-_. ]+", name.lower()) if word]
