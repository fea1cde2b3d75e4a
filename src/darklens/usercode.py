"""Code of the user's own, named as ``file.py:name``: a deflection, a population, a network.

It is run when, and only when, a preset or recipe that the user wrote names it; reading data never runs code.

Either a deflection, for subhalos whose parameters a preset draws, such as cored isothermal spheres::

    def cored(x, y, x0, y0, theta_E, r_core):            # torch tensors, arcsec
        dx, dy = x - x0, y - y0
        scale = theta_E / ((dx**2 + dy**2 + r_core**2).sqrt() + r_core)
        return scale * dx, scale * dy

or a population, which draws deflectors itself, for one image at a time::

    def sidm(rng, lens):                                  # numpy Generator, dict of the image's main deflector
        n = rng.poisson(50)
        return {
            "profile": cored,
            "x": rng.uniform(-2.56, 2.56, n),
            "y": rng.uniform(-2.56, 2.56, n),
            "theta_E": 0.0004 * (1 - rng.uniform(0, 1 - 20**-1.35, n)) ** (-1 / 1.35),
            "r_core": np.exp(rng.uniform(np.log(0.05), np.log(0.3), n)),
        }

where ``profile`` is ``point_mass``, ``sis``, ``tnfw`` or a deflection function.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from darklens.errors import UserCodeError


def is_reference(text: object) -> bool:
    """Whether this names a function in a file: ``file.py:function``."""
    if not isinstance(text, str):
        return False
    path, _, name = text.rpartition(":")
    return path.endswith(".py") and name.isidentifier()


@lru_cache
def load_function(reference: str) -> Callable[..., Any]:
    """The function that ``file.py:function`` names. This runs the file.

    Raises
    ------
    UserCodeError
        If there is no such file or function, or the file fails.
    """
    text, _, name = reference.rpartition(":")
    path = Path(text)
    if not path.is_file():
        raise UserCodeError(f"{reference}: there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"darklens_user_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserCodeError(f"{path}: the file fails with {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise UserCodeError(f"{reference}: {path.name} has no function {name}")
    return function
