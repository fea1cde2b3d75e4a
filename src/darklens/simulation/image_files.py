"""Images that presets name: point-spread functions and galaxies."""

from __future__ import annotations

import numpy as np

from darklens.errors import PresetError


def load_image(path: str) -> np.ndarray:
    """Return an image, or a stack of images, from a ``.npy`` or FITS file, in float64.

    Raises
    ------
    PresetError
        If it cannot be read.
    """
    try:
        if path.endswith(".npy"):
            image = np.load(path, allow_pickle=False)
        else:
            from astropy.io import fits

            image = fits.getdata(path)
    except (OSError, ValueError) as error:
        raise PresetError(f"{path}: cannot be read as an image (.npy or FITS): {error}") from error
    return np.asarray(image, dtype=np.float64)
