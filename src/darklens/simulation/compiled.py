"""Compute deflection, lens equation and source light of a class in one compiled kernel."""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from darklens.physics import exponential_light, sersic_light, shear_deflection
from darklens.physics.deflectors import kormann_deflection
from darklens.progress import working
from darklens.simulation.columns import Columns, columns_of
from darklens.simulation.presets import Preset
from darklens.simulation.profiles import PROFILES
from darklens.simulation.scene import sersic_parameters, substructure, summed_deflection

Kernel = Callable[..., Tensor]


def fused_light(preset: Preset, label: str, columns: Columns, x: Tensor, y: Tensor) -> Tensor | None:
    """Return the lensed surface brightness of one class, by a compiled kernel.

    Isothermal deflectors with Sérsic sources and darklens's own profiles are compiled. Where all images share one main
    deflector, as in the published data, its deflection is computed once.

    Parameters
    ----------
    preset
        Defines the class.
    label
        Name of the class.
    columns
        Columns of N images of this class.
    x, y
        Positions (1, H, W), arcsec.

    Returns
    -------
    Surface brightness per arcsec², (N, H, W), or None where it cannot be compiled.
    """
    if preset.deflector.profile != "sie" or preset.source.profile != "sersic" or not kernels_compile(x.device.type):
        return None
    added = substructure(preset, label, columns, x)
    if added is not None and added.deflection not in PROFILES.values():
        return None
    names = {"x0": "lens_x", "y0": "lens_y", "theta_E": "theta_E", "e1": "e1", "e2": "e2"}
    names |= {"gamma1": "gamma1", "gamma2": "gamma2"}
    # What decides how to go on is looked at on the host, so that nothing waits for a device.
    values = columns_of(columns, list(names.values()), x.dtype)
    if all(bool((v == v[0]).all()) for v in values):
        values = [v[:1] for v in values]
    main = {name: value.view(-1, 1, 1).to(x.device) for name, value in zip(names, values, strict=True)}
    source = {name: value.view(-1, 1, 1) for name, value in sersic_parameters(preset, columns, x).items()}
    if exponential := bool((columns_of(columns, ["source_n_sersic"], x.dtype)[0] == 1).all()):
        del source["n_sersic"]
    ax, ay = _main(x, y, main)
    kernel = _kernel(None if added is None else added.deflection, exponential)
    parameters, weights = ({}, x.new_empty(0)) if added is None else (added.parameters, added.weights)
    arguments = x, y, ax, ay, source, parameters, weights
    try:
        return kernel(*arguments) if kernel in _ready else _compiling(kernel, *arguments)
    except _compiler_error() as error:
        _give_up(str(error).splitlines()[0])
        return None


def _compiler_error() -> type[Exception]:
    """What the compiler raises; seconds to import, so only once something was compiled."""
    from torch._dynamo.exc import TorchDynamoException

    return TorchDynamoException


def _main(x: Tensor, y: Tensor, main: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    ax, ay = kormann_deflection(x, y, **{name: main[name] for name in ("x0", "y0", "theta_E", "e1", "e2")})
    bx, by = shear_deflection(x, y, main["gamma1"], main["gamma2"])
    return ax + bx, ay + by


_ready: set[Kernel] = set()


def _compiling(kernel: Kernel, *arguments: Any) -> Tensor:
    """Call a kernel for the first time in this process, which compiles it or reads it from the cache."""
    with working("compiling a kernel of the simulation (each once on a machine, up to a minute)"):
        light = kernel(*arguments)
    _ready.add(kernel)
    return light


@lru_cache
def _kernel(deflection: Callable[..., Any] | None, exponential: bool) -> Kernel:
    profile: Kernel = exponential_light if exponential else sersic_light

    def light(
        x: Tensor,
        y: Tensor,
        ax: Tensor,
        ay: Tensor,
        source: dict[str, Tensor],
        parameters: dict[str, Tensor],
        weights: Tensor,
    ) -> Tensor:
        if deflection is not None:
            bx, by = summed_deflection(deflection, x, y, parameters=parameters, weights=weights)
            ax, ay = ax + bx, ay + by
        return profile(x - ax, y - ay, **source)

    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "darklens" / "kernels"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # a CUDA toolkit without a GPU is no problem
    # A C++ wrapper lets go of Python's lock, so that threads run side by side. One core each, because blocks of images
    # are the unit of parallel work, not pixels.
    return torch.compile(light, dynamic=True, options={"cpp.threads": 1, "cpp_wrapper": True})


@lru_cache
def kernels_compile(device: str) -> bool:
    """Return whether kernels can be compiled for a device; warn once if not."""
    if device != "cpu" or any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++")):
        return not _failed
    _give_up("no C++ compiler found")
    return False


_failed: list[str] = []


def _give_up(reason: str) -> None:
    """Do without compiled kernels from now on, and warn."""
    _failed.append(reason)
    kernels_compile.cache_clear()
    warnings.warn(f"{reason}: simulating without compiled kernels, several times slower", stacklevel=2)
