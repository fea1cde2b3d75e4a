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


def load_galaxies(path: str) -> np.ndarray:
    """Return images of galaxies (N, H, W), float64, from a ``.npy`` or FITS file of one or of a stack.

    Raises
    ------
    PresetError
        If it cannot be read, or an image is not finite or not brighter than zero in sum.
    """
    stack = load_image(path)
    if stack.ndim == 2:
        stack = stack[None]
    if stack.ndim != 3 or not len(stack) or not (np.isfinite(stack).all() and (stack.sum((1, 2)) > 0).all()):
        raise PresetError(f"{path}: expected galaxies (N, H, W), finite and brighter than zero in sum")
    return stack
