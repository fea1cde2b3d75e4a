"""Deflectors of dark matter by name, and their parameters as tensors, padded to equal number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, wraps
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from darklens.errors import PresetError
from darklens.physics import (
    line_mass_deflection,
    point_mass_deflection,
    sis_deflection,
    truncated_nfw_deflection,
)
from darklens.simulation.columns import as_tensor
from darklens.usercode import is_reference, load_function, split_reference

Deflection = Callable[..., tuple[Tensor, Tensor]]

PROFILES: dict[str, Deflection] = {
    "point_mass": point_mass_deflection,
    "sis": sis_deflection,
    "tnfw": truncated_nfw_deflection,
    "line": line_mass_deflection,
}

SMOOTH: list[Deflection] = [truncated_nfw_deflection]
"""Deflections without jumps or poles, which polynomials through neighbouring sub-pixels reproduce."""

STRENGTHS = {
    "point_mass": ("theta_E", 0.5),
    "sis": ("theta_E", 1.0),
    "tnfw": ("alpha_Rs", 1.0),
    "line": ("theta_E", 0.5),
}
"""The parameter of each profile that its deflection grows with, and the power of the deflection that it goes as."""


@dataclass(frozen=True)
class Substructure:
    """Hold the deflectors of N images: parameters (N, K) by name, and weights (N, K), 0 where an image has fewer.

    A weight is a factor on the deflection. Deflectors can also be flat: (M,) of them, whatever images they belong to.
    """

    deflection: Deflection
    parameters: dict[str, Tensor]
    weights: Tensor

    def flat(self) -> tuple[Substructure, Tensor]:
        """Return the M deflectors of all images, one after the other, and the number of the image of each, (M,).

        Those that are not there are left out on a CPU alone: another device would have to wait for their number.
        """
        images, deflectors = self.weights.shape
        owners = torch.arange(images, device=self.weights.device).repeat_interleave(deflectors)
        flat = Substructure(
            self.deflection, {k: v.flatten() for k, v in self.parameters.items()}, self.weights.flatten()
        )
        if self.weights.device.type != "cpu":
            return flat, owners
        there = flat.weights.nonzero()[:, 0]
        parameters = {name: values[there] for name, values in flat.parameters.items()}
        return Substructure(self.deflection, parameters, flat.weights[there]), owners[there]

    def of(self, images: Tensor) -> Substructure:
        """Return the deflectors of some of the images, by their numbers (R,)."""
        parameters = {name: values[images] for name, values in self.parameters.items()}
        return Substructure(self.deflection, parameters, self.weights[images])

    def slice(self, start: int, stop: int) -> Substructure:
        """Return some of flat deflectors."""
        parameters = {name: values[start:stop] for name, values in self.parameters.items()}
        return Substructure(self.deflection, parameters, self.weights[start:stop])


def deflection_function(profile: str) -> Deflection:
    """Return the deflection of a profile: one of `PROFILES`, or the user's ``file.py:name``, whose results are checked."""
    return _own_deflection(profile) if is_reference(profile) else PROFILES[profile]


@lru_cache
def _own_deflection(reference: str) -> Deflection:
    function = load_function(reference)

    @wraps(function)
    def deflection(x: Tensor, y: Tensor, **parameters: Tensor) -> tuple[Tensor, Tensor]:
        found = function(x, y, **parameters)
        shape = np.broadcast_shapes(x.shape, y.shape, *(each.shape for each in parameters.values()))
        if not isinstance(found, tuple | list) or len(found) != 2:
            said = type(found).__name__
        elif any(not isinstance(each, Tensor) or not _fits(each.shape, shape) for each in found):
            said = " and ".join(str(tuple(e.shape)) if isinstance(e, Tensor) else type(e).__name__ for e in found)
        else:
            return found[0], found[1]
        raise PresetError(
            f"{reference} returned {said}; expected two tensors {tuple(shape)}: the deflection in x and in y"
        )

    return deflection


def _fits(shape: torch.Size, whole: tuple[int, ...]) -> bool:
    """Whether a tensor has the dimensions of another, or 1 in place of some."""
    return len(shape) == len(whole) and all(own in (1, length) for own, length in zip(shape, whole, strict=True))


def column_names(deflection: Deflection) -> dict[str, str]:
    """Return the parameters of a deflection after the position in the image plane, and their names in a catalogue."""
    names = list(signature(deflection).parameters)[2:]
    return {name: {"x0": "x", "y0": "y"}.get(name, name) for name in names}


def gather(profile: str, columns: Mapping[str, Sequence[Any]], like: Tensor) -> Substructure:
    """Pad the parameters of a profile to the largest number of deflectors in any image.

    Parameters
    ----------
    profile
        One of `PROFILES`, or the user's ``file.py:name``.
    columns
        For each parameter (``x, y, theta_E, …``) a list of arrays or tensors, one for each of N images.
    like
        Gives dtype and device.

    Returns
    -------
    The deflection, its parameters and their weights.

    Raises
    ------
    PresetError
        If a parameter of the profile is missing.
    """
    deflection = deflection_function(profile)
    names = column_names(deflection)
    if missing := [name for name in names.values() if name not in columns]:
        raise PresetError(
            f"profile {profile} needs {', '.join(names.values())}; missing: {', '.join(missing)}; "
            f"given: {', '.join(columns)}"
        )
    counts = [len(values) for values in columns["x"]]
    present = torch.arange(max(counts, default=0)) < torch.tensor(counts)[:, None]
    # Where an image has fewer, the weight is 0 and the parameters are harmless copies of real ones.
    tensors = {}
    for name, column in names.items():
        flat = _concatenated(columns[column])
        harmless = flat[:1].detach() if len(flat) else torch.ones(1, dtype=flat.dtype)
        tensors[name] = harmless.expand(present.shape).index_put((present,), flat).to(like)
    return Substructure(deflection, tensors, present.to(like))


def _concatenated(lists: Sequence[Any]) -> Tensor:
    """The numbers of all images; of tensors with their derivatives, and else without an operation for each image."""
    if any(isinstance(values, Tensor) for values in lists):
        return torch.cat([as_tensor(values) for values in lists])
    return as_tensor(np.concatenate([np.asarray(values, dtype=np.float64) for values in lists]))


def own_profile(population: str, profile: str) -> str:
    """Return the profile that a catalogue names for deflectors of a user's population, in the population's own file.

    A catalogue may be a stranger's, or be read in another place: of a function it tells the name alone, and no other
    file than that of ``population`` (``file.py:name``) is ever run.

    Raises
    ------
    PresetError
        If the catalogue names a function of another file.
    """
    if not is_reference(profile):
        return profile
    path, name = split_reference(profile)
    own, _ = split_reference(population)
    if path.name != own.name:
        raise PresetError(f"the catalogue's profile {profile} is not of {own.name}, the file of this class")
    return f"{own}:{name}"


def _name_of(profile: Callable[..., Any], file: Path) -> str:
    """The name by which a catalogue finds a function of a user's file again."""
    name = getattr(profile, "__name__", "")
    if not name.isidentifier() or load_function(f"{file}:{name}") is not profile:
        raise PresetError(f"{file.name}: a profile must be a function of this file by its own name; got {profile!r}")
    return f"{file.name}:{name}"


def custom_profile(drawn: Any, reference: str) -> dict[str, Any]:
    """Check what a user's population function returned, and name its profile so that a catalogue can hold it.

    Parameters
    ----------
    drawn
        What the function returned: a dict with ``profile``, ``x``, ``y`` and the profile's parameters.
    reference
        The function, ``file.py:name``.

    Returns
    -------
    The profile's name, and for each parameter an array of one value for each deflector.

    Raises
    ------
    PresetError
        If a key is missing, the profile does not exist, parameters are no finite numbers, or lengths differ.
    """
    if not isinstance(drawn, Mapping) or not {"profile", "x", "y"} <= set(drawn):
        raise PresetError(f"{reference} must return a dict with profile, x, y and the profile's parameters")
    profile = drawn["profile"]
    if callable(profile):
        profile = _name_of(profile, split_reference(reference)[0])
    elif profile not in PROFILES:
        raise PresetError(f"{reference}: no profile {profile!r}; there are {', '.join(PROFILES)}, or a function")
    try:
        arrays = {
            name: np.atleast_1d(np.asarray(v, dtype=np.float64)) for name, v in drawn.items() if name != "profile"
        }
    except (TypeError, ValueError) as error:
        raise PresetError(f"{reference}: all parameters are numbers, or arrays of them: {error}") from error
    for name, values in arrays.items():
        if values.ndim != 1 or not np.isfinite(values).all():
            raise PresetError(f"{reference}: {name} is one finite number for each deflector; got {values}")
    if len({len(values) for values in arrays.values()}) != 1:
        lengths = {name: len(values) for name, values in arrays.items()}
        raise PresetError(f"{reference}: all parameters need one value for each deflector; got {lengths}")
    return {"profile": profile} | arrays
