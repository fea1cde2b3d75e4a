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

from darklens.physics import (
    exponential_light,
    line_mass_deflection,
    sersic_light,
    shear_deflection,
    truncated_nfw_deflection,
)
from darklens.physics.deflectors import kormann_along_axes, kormann_axes, line_along_axes, line_axes
from darklens.physics.lensing import Deflect
from darklens.physics.nfw import truncated_nfw_of_terms, truncated_nfw_terms
from darklens.progress import working
from darklens.simulation.columns import Columns, columns_of
from darklens.simulation.presets import Preset
from darklens.simulation.profiles import PROFILES, Deflection, Substructure
from darklens.simulation.scene import (
    deflection_of,
    sersic_parameters,
    single_deflections,
    substructure,
    summed_deflection,
)

Kernel = Callable[..., Any]

MAIN = {
    "x0": "lens_x",
    "y0": "lens_y",
    "theta_E": "theta_E",
    "e1": "e1",
    "e2": "e2",
    "gamma1": "gamma1",
    "gamma2": "gamma2",
}
"""Parameters of the main deflector and the shear, and their names in a catalogue."""


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
    parts = substructure(preset, label, columns, x)
    if len(parts) > 1 or any(part.deflection not in PROFILES.values() for part in parts):
        return None
    added = parts[0] if parts else None
    # What decides how to go on is looked at on the host, so that nothing waits for a device.
    values = dict(zip(MAIN, columns_of(columns, list(MAIN.values()), x.dtype), strict=True))
    if all(bool((v == v[0]).all()) for v in values.values()):
        values = {name: value[:1] for name, value in values.items()}
    main = {name: value.view(-1, 1, 1).to(x.device) for name, value in values.items()}
    source = {name: value.view(-1, 1, 1) for name, value in sersic_parameters(preset, columns, x).items()}
    if exponential := bool((columns_of(columns, ["source_n_sersic"], x.dtype)[0] == 1).all()):
        del source["n_sersic"]
    ax, ay = _main(x, y, _along_axes(main))
    deflection, parameters = (None, {}) if added is None else _parts(added)
    kernel, weights = _kernel(deflection, exponential), x.new_empty(0) if added is None else added.weights
    light: Tensor | None = _called(kernel, x, y, ax, ay, source, parameters, weights)
    return light


def deflection_sum(added: Substructure, *, compile: bool) -> Deflect:
    """Return the summed deflection of the deflectors that a class adds.

    Parameters
    ----------
    added
        Deflectors of N images.
    compile
        Whether kernels are compiled, where they can be.

    Returns
    -------
    A function of positions (1 or N, H, W) in arcsec that returns the two components of the deflection, (N, H, W).
    """
    eager = deflection_of(added)

    def deflect(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        found = _fused(_sum, added, x, y) if compile else None
        return eager(x, y) if found is None else found

    return deflect


def deflection_of_each(added: Substructure, x: Tensor, y: Tensor, *, compile: bool) -> tuple[Tensor, Tensor]:
    """Return the deflection of each deflector that a class adds, at positions of its own.

    Parameters
    ----------
    added
        Flat: M deflectors.
    x, y
        Positions (M or 1, 1, w) and (M or 1, h, 1), arcsec.
    compile
        Whether kernels are compiled, where they can be.

    Returns
    -------
    Deflection in x and y, arcsec, (M, h, w).
    """
    found = _fused(_each, added, x, y) if compile else None
    if found is not None:
        return found
    return single_deflections(added.deflection, x, y, parameters=added.parameters, weights=added.weights)


def _fused(
    kernel: Callable[[Deflection], Kernel], added: Substructure, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor] | None:
    """The deflection by a compiled kernel, or None where it cannot be compiled."""
    if added.deflection not in PROFILES.values() or not kernels_compile(x.device.type):
        return None
    function, parameters = _parts(added)
    deflection: tuple[Tensor, Tensor] | None = _called(kernel(function), x, y, parameters, added.weights)
    return deflection


def fused_lens(preset: Preset, columns: Columns, like: Tensor) -> Callable[..., Tensor | None] | None:
    """Return a function that computes main deflection, lens equation and source light in one compiled kernel.

    Parameters
    ----------
    preset
        Gives deflector and source.
    columns
        Columns of N images.
    like
        Gives dtype and device.

    Returns
    -------
    A function of positions (1 or N, H, W) in arcsec and of a further deflection there, in x and y, that returns the surface
    brightness per arcsec², (N, H, W), or None where it cannot be compiled. With a fifth argument, the numbers of the images
    that positions (R, H, W) are of, it is (R, H, W). None instead of the function for other profiles than isothermal
    deflectors and Sérsic sources.
    """
    if preset.deflector.profile != "sie" or preset.source.profile != "sersic" or not kernels_compile(like.device.type):
        return None
    main = _along_axes(dict(zip(MAIN, columns_of(columns, list(MAIN.values()), like), strict=True)))
    source = sersic_parameters(preset, columns, like)
    # In one tensor, so that those of some of the images are picked at once.
    values = torch.stack([*main.values(), *source.values()])

    def light(x: Tensor, y: Tensor, bx: Tensor, by: Tensor, owners: Tensor | None = None) -> Tensor | None:
        each = (values if owners is None else values[:, owners])[..., None, None].unbind()
        of_main = dict(zip(main, each[: len(main)], strict=True))
        of_source = dict(zip(source, each[len(main) :], strict=True))
        found: Tensor | None = _called(_lens(), x, y, bx, by, of_main, of_source)
        return found

    return light


def _called(kernel: Kernel, *arguments: Any) -> Any:
    """What a kernel returns, or None if it cannot be compiled."""
    if _failed:
        return None
    try:
        return kernel(*arguments) if kernel in _ready else _compiling(kernel, *arguments)
    except _compiler_error() as error:
        _give_up(str(error).splitlines()[0])
        return None


def _compiler_error() -> type[Exception]:
    """What the compiler raises; seconds to import, so only once something was compiled."""
    from torch._dynamo.exc import TorchDynamoException

    return TorchDynamoException


PREPARED: dict[Deflection, tuple[Callable[..., dict[str, Tensor]], Deflection]] = {
    line_mass_deflection: (line_axes, line_along_axes),
    truncated_nfw_deflection: (truncated_nfw_terms, truncated_nfw_of_terms),
}
"""What to compute of a deflector beforehand, and the deflection that takes it: a kernel computes all that is in it anew for
each position."""


def _along_axes(main: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`MAIN` parameters as `_main` takes them."""
    axes = kormann_axes(**{name: main[name] for name in ("theta_E", "e1", "e2")})
    return axes | {name: main[name] for name in ("x0", "y0", "gamma1", "gamma2")}


def _parts(added: Substructure) -> tuple[Deflection, dict[str, Tensor]]:
    """A deflection, as it is compiled, and its parameters."""
    if added.deflection not in PREPARED:
        return added.deflection, added.parameters
    prepare, deflection = PREPARED[added.deflection]
    own = {name: value for name, value in added.parameters.items() if name not in ("x0", "y0")}
    return deflection, prepare(**own) | {name: added.parameters[name] for name in ("x0", "y0")}


def _main(x: Tensor, y: Tensor, main: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    own = {name: value for name, value in main.items() if name not in ("gamma1", "gamma2")}
    ax, ay = kormann_along_axes(x, y, **own)
    bx, by = shear_deflection(x, y, main["gamma1"], main["gamma2"])
    return ax + bx, ay + by


_ready: set[Kernel] = set()


def _compiling(kernel: Kernel, *arguments: Any) -> Any:
    """Call a kernel for the first time in this process, which compiles it or reads it from the cache."""
    with working("compiling a kernel of the simulation (each once on a machine, up to a minute)"):
        found = kernel(*arguments)
    _ready.add(kernel)
    return found


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

    return _compiled(light)


@lru_cache
def _sum(deflection: Callable[..., Any]) -> Kernel:
    def deflect(x: Tensor, y: Tensor, parameters: dict[str, Tensor], weights: Tensor) -> tuple[Tensor, Tensor]:
        return summed_deflection(deflection, x, y, parameters=parameters, weights=weights)

    return _compiled(deflect)


@lru_cache
def _each(deflection: Callable[..., Any]) -> Kernel:
    def deflect(x: Tensor, y: Tensor, parameters: dict[str, Tensor], weights: Tensor) -> tuple[Tensor, Tensor]:
        return single_deflections(deflection, x, y, parameters=parameters, weights=weights)

    return _compiled(deflect)


@lru_cache
def _lens() -> Kernel:
    def light(
        x: Tensor, y: Tensor, bx: Tensor, by: Tensor, main: dict[str, Tensor], source: dict[str, Tensor]
    ) -> Tensor:
        ax, ay = _main(x, y, main)
        return sersic_light(x - ax - bx, y - ay - by, **source)

    return _compiled(light)


def _compiled(function: Kernel) -> Kernel:
    """A function as a kernel, which is compiled when it is called for the first time."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "darklens" / "kernels"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # a CUDA toolkit without a GPU is no problem
    # A C++ wrapper lets go of Python's lock, so that threads run side by side. One core each, because blocks of images
    # are the unit of parallel work, not pixels.
    return torch.compile(function, dynamic=True, options={"cpp.threads": 1, "cpp_wrapper": True})


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
