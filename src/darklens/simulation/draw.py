"""Draw the true parameters of a block of images: all that the catalogue holds, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from darklens.errors import PresetError
from darklens.physics import (
    critical_surface_density,
    einstein_radius,
    einstein_radius_luminosity_distance,
    nfw_concentration,
    nfw_mass_before_truncation,
    nfw_scale_radius,
    truncated_nfw_scale_deflection,
    vortex_point_masses,
)
from darklens.simulation.columns import scatter
from darklens.simulation.identity import Content
from darklens.simulation.mass import conserve_mass
from darklens.simulation.presets import DarkMatter, Distances, LensLight, Preset, Subhalos, Vortex
from darklens.simulation.priors import Floats
from darklens.simulation.profiles import STRENGTHS, custom_profile
from darklens.usercode import load_function

BLOCK = 64
"""Images are drawn in blocks of this many: an image depends on preset, seed and its block, and on nothing else.

Another size is another simulation from the same seed. Memory grows with it."""

TRUTHS, NOISE, DEVICE_NOISE = 0, 1, 2
"""Purposes of random streams: the parameters of a block, the noise of an image on a CPU, and that of all images on another
device. Any distinct numbers would do; another number is another simulation from the same seed."""

Truths = dict[str, Any]
"""Columns (see `darklens.simulation.columns`) that are being drawn."""


def seed_sequence(preset: Content, seed: int, purpose: int, number: int = 0) -> np.random.SeedSequence:
    """Return the random stream for a purpose: the one place where the simulation makes streams from a seed.

    Parameters
    ----------
    preset
        Gives its `Content.key`: with one seed, presets of different names or contents draw different lenses.
    seed
        Seed of the simulation, zero or above.
    purpose
        `TRUTHS`, `NOISE` or `DEVICE_NOISE`.
    number
        Number of the block (`TRUTHS`) or of the image (`NOISE`).

    Returns
    -------
    A sequence that is independent of that of any other preset, seed, purpose and number.
    """
    return np.random.SeedSequence([*preset.key, seed, purpose, number])


def draw_block(preset: Preset, seed: int, block: int) -> Truths:
    """Draw the parameters of a block of images. Classes take turns.

    Parameters
    ----------
    preset
        What is drawn.
    seed
        Seed of the simulation, zero or above.
    block
        Number of the block, which holds the images ``block * BLOCK`` to ``(block + 1) * BLOCK - 1``.

    Returns
    -------
    Columns of `BLOCK` rows.
    """
    rng = np.random.default_rng(seed_sequence(preset, seed, TRUTHS, block))
    ids = np.arange(block * BLOCK, (block + 1) * BLOCK)
    labels = ids % len(preset.classes)
    rows: Truths = {"id": ids, "label": np.array(preset.labels)[labels]}
    rows |= _deflector(preset, rng) | _source(preset, rng)
    if preset.lens_light is not None:
        rows |= _lens_light(preset.lens_light, rows, rng)
    rows["exposure_time"] = preset.instrument.exposure_time.sample(rng, BLOCK)
    for number, matter in enumerate(preset.classes.values()):
        chosen = np.flatnonzero(labels == number)
        drawn = _dark_matter(preset, matter, rng, rows, chosen)
        scatter(rows, chosen, _rescaled(drawn, matter, preset.deflection_scale), BLOCK)
    if preset.deflection_scale != 1:
        _rescale(preset, rows)
    if preset.conserve_mass:
        rows["theta_E"] = conserve_mass(preset, rows)
    return rows


def _deflector(preset: Preset, rng: np.random.Generator) -> Truths:
    deflector = preset.deflector
    if deflector.theta_E is not None:
        theta_E = deflector.theta_E.sample(rng, BLOCK)
    else:
        assert deflector.mass is not None
        theta_E = _theta_E(preset, deflector.mass.sample(rng, BLOCK), deflector.distances)
    rows: Truths = {"theta_E": theta_E}
    if deflector.profile == "epl":
        rows["gamma"] = deflector.gamma.sample(rng, BLOCK)
    names = {"e1": "e1", "e2": "e2", "lens_x": "x", "lens_y": "y", "gamma1": "gamma1", "gamma2": "gamma2"}
    return rows | {column: getattr(deflector, name).sample(rng, BLOCK) for column, name in names.items()}


def _source(preset: Preset, rng: np.random.Generator) -> Truths:
    source = preset.source
    brightness = "magnitude" if source.magnitude is not None else "amp"
    names = ["x", "y", brightness]
    names += ["R_sersic", "n_sersic", "e1", "e2"] if source.profile == "sersic" else ["pixel_scale"]
    rows: Truths = {f"source_{name}": getattr(source, name).sample(rng, BLOCK) for name in names}
    if source.profile == "image":
        rows["source_image"] = rng.uniform(0, 1, BLOCK)
        rows["source_phi"] = rng.uniform(0, 2 * np.pi, BLOCK)
    return rows


def _lens_light(light: LensLight, rows: Truths, rng: np.random.Generator) -> Truths:
    drawn = {
        f"lens_light_{name}": getattr(light, name).sample(rng, BLOCK) for name in ("magnitude", "R_sersic", "n_sersic")
    }
    for name in ("e1", "e2"):
        drawn[f"lens_light_{name}"] = rows[name] + light.shape_scatter.sample(rng, BLOCK)
    return drawn


def _dark_matter(
    preset: Preset, matter: DarkMatter, rng: np.random.Generator, rows: Truths, chosen: np.ndarray
) -> Truths:
    drawn: Truths = {}
    if matter.subhalos is not None:
        drawn |= _subhalos(preset, matter.subhalos, rng, len(chosen))
    if matter.vortex is not None:
        drawn |= _vortex(preset, matter.vortex, rng, len(chosen))
    if matter.add is not None:
        drawn |= _populated(matter.add, rng, rows, chosen)
    return drawn


def _subhalos(preset: Preset, subhalos: Subhalos, rng: np.random.Generator, images: int) -> Truths:
    mean = subhalos.poisson_mean
    counts = np.full(images, subhalos.count) if mean is None else rng.poisson(mean, images)
    total = int(counts.sum())
    flat: dict[str, Floats] = dict(zip(("x", "y"), _positions(preset, subhalos, rng, total), strict=True))
    if subhalos.mass is not None:
        flat["mass"] = subhalos.mass.sample(rng, total)
    if subhalos.profile in ("point_mass", "sis"):
        flat["theta_E"] = _theta_E(preset, flat["mass"], subhalos.distances)
    elif subhalos.profile == "tnfw":
        flat |= _truncated_halos(preset, subhalos, rng, flat["mass"])
    flat |= {name: prior.sample(rng, total) for name, prior in subhalos.parameters.items()}
    splits = np.cumsum(counts)[:-1]
    return {f"subhalo_{name}": np.split(values, splits) for name, values in flat.items()}


def _truncated_halos(preset: Preset, subhalos: Subhalos, rng: np.random.Generator, mass: Floats) -> Truths:
    tau = subhalos.truncation.sample(rng, len(mass))
    scatter = rng.normal(0, subhalos.concentration_scatter, len(mass)) if subhalos.concentration_scatter else 0.0
    factor = torch.as_tensor(10**scatter, dtype=torch.float64)
    total, cut = torch.from_numpy(mass), torch.from_numpy(tau)
    M200, concentration = nfw_mass_before_truncation(
        total, cut, lambda m: factor * nfw_concentration(m, preset.z_lens, preset.cosmology)
    )
    Rs = nfw_scale_radius(M200, concentration, preset.z_lens, preset.cosmology)
    sigma_crit = critical_surface_density(preset.z_lens, preset.z_source, preset.cosmology)
    alpha_Rs = truncated_nfw_scale_deflection(total, Rs, cut * Rs, sigma_crit)
    found = {"M200": M200, "concentration": concentration, "Rs": Rs, "r_trunc": cut * Rs, "alpha_Rs": alpha_Rs}
    return {name: values.numpy() for name, values in found.items()}


def _positions(preset: Preset, subhalos: Subhalos, rng: np.random.Generator, total: int) -> tuple[Floats, Floats]:
    if subhalos.radius is None:
        half = subhalos.half_width or preset.half_width
        return rng.uniform(-half, half, total), rng.uniform(-half, half, total)
    radius, angle = subhalos.radius.sample(rng, total), rng.uniform(0, 2 * np.pi, total)
    return radius * np.cos(angle), radius * np.sin(angle)


def _vortex(preset: Preset, vortex: Vortex, rng: np.random.Generator, images: int) -> Truths:
    rows: Truths = {}
    if vortex.log10_axion_mass is not None:
        rows["log10_axion_mass"] = vortex.log10_axion_mass.sample(rng, images)
        # DeepLense's relation of length and axion mass: see `Vortex`.
        half_length = 0.06 / 2 * 10 ** (-22 - rows["log10_axion_mass"])
    else:
        assert vortex.half_length is not None
        half_length = vortex.half_length.sample(rng, images)
    rows |= {
        "vortex_x": vortex.x.sample(rng, images),
        "vortex_y": vortex.y.sample(rng, images),
        "vortex_half_length": half_length,
        "vortex_phi": rng.uniform(0, 2 * np.pi, images),
        "vortex_theta_E": _theta_E(preset, vortex.mass.sample(rng, images), vortex.distances),
    }
    if vortex.profile == "point_masses":
        names = ("x", "y", "half_length", "phi", "theta_E")
        x, y, half, phi, theta_E = (torch.from_numpy(rows[f"vortex_{name}"]) for name in names)
        masses = vortex_point_masses(x, y, half, phi, theta_E, vortex.count)
        rows |= {f"subhalo_{n}": list(m.numpy()) for n, m in zip(("x", "y", "theta_E"), masses, strict=True)}
    return rows


def _populated(reference: str, rng: np.random.Generator, rows: Truths, chosen: np.ndarray) -> Truths:
    populate = load_function(reference)
    drawn: list[dict[str, Any]] = []
    for i in chosen:
        lens = {name: float(rows[name][i]) for name in ("theta_E", "e1", "e2", "lens_x", "lens_y", "gamma1", "gamma2")}
        drawn.append(custom_profile(populate(rng, lens), reference))
    columns: Truths = {"subhalo_profile": [d["profile"] for d in drawn]}
    names = {name for d in drawn for name in d}
    for d in drawn:
        if len(d["x"]) and (missing := sorted(names - set(d))):
            raise PresetError(f"{reference}: {', '.join(missing)} is given for some images and not for others")
    for name in sorted(names - {"profile"}):
        columns[f"subhalo_{name}"] = [d.get(name, np.zeros(0)) for d in drawn]
    return columns


def _theta_E(preset: Preset, mass: Floats, distances: Distances) -> Floats:
    radius = einstein_radius_luminosity_distance if distances == "luminosity" else einstein_radius
    return radius(mass, preset.z_lens, preset.z_source, preset.cosmology)


def _rescale(preset: Preset, rows: Truths) -> None:
    """Multiply the deflection of main deflectors and shear by `Preset.deflection_scale`.

    The catalogue holds the values that are rendered.
    """
    scale = preset.deflection_scale
    slope = rows["gamma"] - 1 if "gamma" in rows else 1.0
    rows["theta_E"] *= scale ** (1 / slope)
    for name in ("gamma1", "gamma2"):
        rows[name] *= scale


def _rescaled(drawn: Truths, matter: DarkMatter, scale: float) -> Truths:
    """The deflectors of a class with their deflection multiplied by a factor.

    What the parameters of a user's own profile mean is not known: they stay, and the factor is applied to its deflection
    (`darklens.simulation.scene.substructure`).
    """
    if scale == 1:
        return drawn
    rescaled = dict(drawn)
    if "vortex_theta_E" in drawn:
        rescaled["vortex_theta_E"] = drawn["vortex_theta_E"] * scale ** STRENGTHS["line"][1]
    profiles = drawn.get("subhalo_profile", [matter.point_profile] * len(drawn.get("subhalo_x", [])))
    for name, (parameter, power) in STRENGTHS.items():
        if (column := f"subhalo_{parameter}") in rescaled:
            pairs = zip(rescaled[column], profiles, strict=True)
            rescaled[column] = [values * scale**power if own == name else values for values, own in pairs]
    return rescaled
