"""The hot path: deflection, lens equation and source light of a class in one compiled kernel."""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from darklens.physics import exponential_light, sersic_light, shear_deflection, sie_deflection
from darklens.progress import working
from darklens.simulation.presets import Preset
from darklens.simulation.profiles import PROFILES
from darklens.simulation.scene import Rows, columns_of, sersic_parameters, substructure, summed_deflection

Kernel = Callable[..., Tensor]


def fused_light(preset: Preset, label: str, rows: Rows, x: Tensor, y: Tensor) -> Tensor | None:
    """Lensed surface brightness (N, H, W) of one class, or None where it cannot be compiled.

    Compiled are isothermal deflectors with Sérsic sources and darklens's own profiles. Where all images share one
    main deflector, as in the published data, its deflection is computed once.
    """
    if preset.deflector.profile != "sie" or preset.source.profile != "sersic" or not kernels_compile(x.device.type):
        return None
    added = substructure(preset, label, rows, x)
    if added is not None and added.deflection not in PROFILES.values():
        return None
    main = columns_of(rows, ["lens_x", "lens_y", "theta_E", "e1", "e2", "gamma1", "gamma2"], x)
    if all(bool((m == m[0]).all()) for m in main):
        main = [m[:1] for m in main]
    source = sersic_parameters(preset, rows, x)
    if exponential := bool((source[4] == 1).all()):
        del source[4]
    ax, ay = _main(x, y, [m.view(-1, 1, 1) for m in main])
    parameters = [] if added is None else [*added.parameters, added.weights]
    kernel = _kernel(None if added is None else added.deflection, exponential)
    arguments = x, y, ax, ay, [s.view(-1, 1, 1) for s in source], parameters
    try:
        return kernel(*arguments) if kernel in _ready else _compiling(kernel, *arguments)
    except TorchDynamoException as error:
        _give_up(str(error).splitlines()[0])
        return None


def _main(x: Tensor, y: Tensor, main: list[Tensor]) -> tuple[Tensor, Tensor]:
    ax, ay = sie_deflection(x, y, *main[:5])
    bx, by = shear_deflection(x, y, *main[5:])
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

    def light(x: Tensor, y: Tensor, ax: Tensor, ay: Tensor, source: list[Tensor], added: list[Tensor]) -> Tensor:
        if deflection is not None:
            bx, by = summed_deflection(deflection, x, y, added[:-1], added[-1])
            ax, ay = ax + bx, ay + by
        return profile(x - ax, y - ay, *source)

    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "darklens" / "kernels"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # a CUDA toolkit without a GPU is no problem
    # A C++ wrapper lets go of Python's lock, so that threads run side by side. One core each, because blocks of images
    # are the unit of parallel work, not pixels.
    return torch.compile(light, dynamic=True, options={"cpp.threads": 1, "cpp_wrapper": True})


@lru_cache
def kernels_compile(device: str) -> bool:
    """Whether kernels can be compiled here; says so once if not."""
    if device != "cpu" or any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++")):
        return not _failed
    _give_up("no C++ compiler found")
    return False


_failed: list[str] = []


def _give_up(reason: str) -> None:
    """Go on without compiled kernels, and say so."""
    _failed.append(reason)
    kernels_compile.cache_clear()
    warnings.warn(f"{reason}: simulating without compiled kernels, several times slower", stacklevel=2)
