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
from darklens.physics.cosmology import Redshift
from darklens.simulation.columns import as_tensor, scatter
from darklens.simulation.identity import Content
from darklens.simulation.line_of_sight import draw_line_of_sight
from darklens.simulation.mass import conserve_mass
from darklens.simulation.presets import DarkMatter, Distances, LensLight, Preset, Subhalos, Vortex
from darklens.simulation.priors import Floats
from darklens.simulation.profiles import STRENGTHS, custom_profile
from darklens.simulation.redshifts import Redshifts, deflection_scale, draw_redshifts
from darklens.usercode import load_function

BLOCK = 64
"""Images are drawn in blocks of this many: an image depends on preset, seed and its block, and on nothing else.

Another size is another simulation from the same seed. Memory grows with it."""

TRUTHS, NOISE, DEVICE_NOISE = 0, 1, 2
"""Purposes of random streams: the parameters of a block, the noise of an image on a CPU, and that of all images on another
device. Any distinct numbers would do; another number is another simulation from the same seed."""

LENS_KEYS = ("theta_E", "e1", "e2", "lens_x", "lens_y", "gamma1", "gamma2", "z_lens", "z_source")
"""What a population of the user's own is told of the main deflector; redshifts, where they vary."""

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
    z = draw_redshifts(preset, rng, BLOCK)
    if preset.redshifts_vary:
        rows |= {"z_lens": z.lens, "z_source": z.source}
    rows |= _deflector(preset, rng, z) | _source(preset, rng)
    if preset.lens_light is not None:
        rows |= _lens_light(preset.lens_light, rows, rng)
    rows["exposure_time"] = preset.instrument.exposure_time.sample(rng, BLOCK)
    for number, matter in enumerate(preset.classes.values()):
        chosen = np.flatnonzero(labels == number)
        own = z.select(chosen)
        drawn = _dark_matter(preset, matter, rng, own, rows=rows, chosen=chosen)
        scatter(rows, chosen, _rescaled(drawn, matter, deflection_scale(preset, own)), BLOCK)
    if preset.z_source_convention is not None:
        _rescale(rows, deflection_scale(preset, z))
    if preset.conserve_mass:
        rows["theta_E"] = conserve_mass(preset, rows)
    return rows


def _deflector(preset: Preset, rng: np.random.Generator, z: Redshifts) -> Truths:
    deflector = preset.deflector
    if deflector.theta_E is not None:
        theta_E = deflector.theta_E.sample(rng, BLOCK)
    else:
        assert deflector.mass is not None
        theta_E = _theta_E(preset, deflector.mass.sample(rng, BLOCK), deflector.distances, z=z)
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
    preset: Preset, matter: DarkMatter, rng: np.random.Generator, z: Redshifts, *, rows: Truths, chosen: np.ndarray
) -> Truths:
    drawn: Truths = {}
    if matter.subhalos is not None:
        drawn |= _subhalos(preset, matter.subhalos, rng, z, images=len(chosen))
    if matter.vortex is not None:
        drawn |= _vortex(preset, matter.vortex, rng, z, images=len(chosen))
    if matter.add is not None:
        drawn |= _populated(matter.add, rng, rows, chosen)
    if matter.line_of_sight is not None:
        drawn |= draw_line_of_sight(preset, matter.line_of_sight, rng, z, images=len(chosen))
    return drawn


def _subhalos(preset: Preset, subhalos: Subhalos, rng: np.random.Generator, z: Redshifts, *, images: int) -> Truths:
    mean = subhalos.poisson_mean
    counts = np.full(images, subhalos.count) if mean is None else rng.poisson(mean, images)
    total = int(counts.sum())
    flat: dict[str, Floats] = dict(zip(("x", "y"), _positions(preset, subhalos, rng, total), strict=True))
    if subhalos.mass is not None:
        flat["mass"] = subhalos.mass.sample(rng, total)
    if subhalos.profile in ("point_mass", "sis"):
        flat["theta_E"] = _theta_E(preset, flat["mass"], subhalos.distances, z=z.repeat(counts))
    elif subhalos.profile == "tnfw":
        flat |= _truncated_halos(preset, subhalos, rng, z.repeat(counts), mass=flat["mass"])
    flat |= {name: prior.sample(rng, total) for name, prior in subhalos.parameters.items()}
    splits = np.cumsum(counts)[:-1]
    return {f"subhalo_{name}": np.split(values, splits) for name, values in flat.items()}


def _truncated_halos(
    preset: Preset, subhalos: Subhalos, rng: np.random.Generator, z: Redshifts, *, mass: Floats
) -> Truths:
    tau = subhalos.truncation.sample(rng, len(mass))
    scatter = rng.normal(0, subhalos.concentration_scatter, len(mass)) if subhalos.concentration_scatter else 0.0
    factor = torch.as_tensor(10**scatter, dtype=torch.float64)
    total, cut = torch.from_numpy(mass), torch.from_numpy(tau)
    M200, concentration = nfw_mass_before_truncation(
        total, cut, lambda m: factor * nfw_concentration(m, z.lens, preset.cosmology)
    )
    Rs = nfw_scale_radius(M200, concentration, z.lens, preset.cosmology)
    sigma_crit = as_tensor(critical_surface_density(z.lens, z.source, preset.cosmology))
    alpha_Rs = truncated_nfw_scale_deflection(total, Rs, cut * Rs, sigma_crit)
    found = {"M200": M200, "concentration": concentration, "Rs": Rs, "r_trunc": cut * Rs, "alpha_Rs": alpha_Rs}
    return {name: values.numpy() for name, values in found.items()}


def _positions(preset: Preset, subhalos: Subhalos, rng: np.random.Generator, total: int) -> tuple[Floats, Floats]:
    if subhalos.radius is None:
        half = subhalos.half_width or preset.half_width
        return rng.uniform(-half, half, total), rng.uniform(-half, half, total)
    radius, angle = subhalos.radius.sample(rng, total), rng.uniform(0, 2 * np.pi, total)
    return radius * np.cos(angle), radius * np.sin(angle)


def _vortex(preset: Preset, vortex: Vortex, rng: np.random.Generator, z: Redshifts, *, images: int) -> Truths:
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
        "vortex_theta_E": _theta_E(preset, vortex.mass.sample(rng, images), vortex.distances, z=z),
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
        lens = {name: float(rows[name][i]) for name in LENS_KEYS if name in rows}
        drawn.append(custom_profile(populate(rng, lens), reference))
    columns: Truths = {"subhalo_profile": [d["profile"] for d in drawn]}
    names = {name for d in drawn for name in d}
    for d in drawn:
        if len(d["x"]) and (missing := sorted(names - set(d))):
            raise PresetError(f"{reference}: {', '.join(missing)} is given for some images and not for others")
    for name in sorted(names - {"profile"}):
        columns[f"subhalo_{name}"] = [d.get(name, np.zeros(0)) for d in drawn]
    return columns


def _theta_E(preset: Preset, mass: Floats, distances: Distances, *, z: Redshifts) -> Floats:
    radius = einstein_radius_luminosity_distance if distances == "luminosity" else einstein_radius
    return radius(mass, z.lens, z.source, preset.cosmology)


def _rescale(rows: Truths, scale: Redshift) -> None:
    """Multiply the deflection of main deflectors and shear by a factor: the catalogue holds what is rendered."""
    slope = rows["gamma"] - 1 if "gamma" in rows else 1.0
    rows["theta_E"] *= scale ** (1 / slope)
    for name in ("gamma1", "gamma2"):
        rows[name] *= scale


def _rescaled(drawn: Truths, matter: DarkMatter, scale: Redshift) -> Truths:
    """The deflectors of a class with their deflection multiplied by a factor.

    What the parameters of a user's own profile mean is not known: they stay, and the factor is applied to its deflection
    (`darklens.simulation.scene.substructure`).
    """
    if np.all(scale == 1):
        return drawn
    rescaled = dict(drawn)
    if "vortex_theta_E" in drawn:
        rescaled["vortex_theta_E"] = drawn["vortex_theta_E"] * scale ** STRENGTHS["line"][1]
    images = len(drawn.get("subhalo_x", []))
    profiles = drawn.get("subhalo_profile", [matter.point_profile] * images)
    scales = scale if isinstance(scale, np.ndarray) else [scale] * images
    for name, (parameter, power) in STRENGTHS.items():
        if (column := f"subhalo_{parameter}") in rescaled:
            each = zip(rescaled[column], profiles, scales, strict=True)
            rescaled[column] = [values * one**power if own == name else values for values, own, one in each]
    return rescaled
