"""Draw the halos between observer and source, as effective halos in the lens plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from darklens.physics import (
    critical_surface_density,
    nfw_concentration,
    nfw_scale_radius,
    truncated_nfw_scale_deflection,
    truncated_nfw_share,
)
from darklens.physics.cosmology import ARCSEC_PER_RADIAN, Cosmology, comoving_distance, hubble_distance
from darklens.physics.halos import halo_mass_function
from darklens.physics.line_of_sight import double_cone_width, double_cone_width_of_distances, effective_halo
from darklens.simulation.priors import Floats, PowerLaw
from darklens.simulation.redshifts import Redshifts

if TYPE_CHECKING:
    from darklens.simulation.presets import LineOfSight, Preset

NEAREST = 0.01
"""Halos nearer than this to the observer, or to the source, in redshift are left out. Their angular size grows without end
and their weight goes to zero; for a source at 1, they are fewer than one in ten thousand."""

SLOPE = -1.9
"""Of the power law that masses are first drawn from: the closer to the mass function, the fewer are drawn in vain. From 1e6
to 1e12 M☉, the slope of the mass function today is within 0.02 of this one."""

STEPS = 128
"""Intervals of redshift in front of the lens, and as many behind, between which the density of halos is interpolated."""


def draw_line_of_sight(
    preset: Preset, halos: LineOfSight, rng: np.random.Generator, z: Redshifts, *, images: int
) -> dict[str, Any]:
    """Draw halos along the lines of sight of images.

    Their number is a Poisson one, whose mean is the integral of the mass function over the comoving volume of a double
    cone: its base is a square in the lens plane, its tips are observer and, behind the lens, source. Candidates of a power
    law in mass and of the volume in redshift are kept with the ratio of the mass function to that power law.

    Parameters
    ----------
    preset
        Gives the cosmology and the field.
    halos
        Masses, and what multiplies their number.
    rng
        Random numbers.
    z
        Redshifts of the images.
    images
        Number of images.

    Returns
    -------
    Lists of ``images`` arrays, by the names of their columns. Positions, radii and deflections are those in the lens plane.
    """
    low, high = halos.mass
    law = PowerLaw(SLOPE, low, high)
    highest = envelope(low, high, float(np.max(z.source)), preset.cosmology)
    grid, density = volume_density(z, images, preset.cosmology)
    side = 2 * (halos.half_width or preset.half_width) / ARCSEC_PER_RADIAN
    cumulative = np.concatenate([np.zeros((images, 1)), _steps(grid, density).cumsum(1)], 1) * side**2
    slope = SLOPE + 1
    number = halos.amplitude * highest * (high**slope - low**slope) / slope * cumulative[:, -1]
    counts = rng.poisson(number)
    mass = law.sample(rng, int(counts.sum()))
    owners = np.arange(images).repeat(counts)
    share = rng.uniform(size=len(owners))
    starts = np.concatenate([[0], counts.cumsum()])
    own = [
        np.interp(share[a:b] * c[-1], c, g)
        for a, b, c, g in zip(starts[:-1], starts[1:], cumulative, grid, strict=True)
    ]
    z_halo = np.concatenate([*own, np.zeros(0)])
    kept = rng.uniform(size=len(owners)) * highest * mass**slope < halo_mass_function(mass, z_halo, preset.cosmology)
    counts = np.bincount(owners[kept], minlength=images)
    half = halos.half_width or preset.half_width
    flat = {name: rng.uniform(-half, half, int(kept.sum())) for name in ("x", "y")} | {"z": z_halo[kept]}
    flat |= _in_the_lens_plane(preset, halos, rng, z.repeat(counts), M200=mass[kept], z_halo=z_halo[kept])
    return {f"los_{name}": np.split(values, counts.cumsum()[:-1]) for name, values in flat.items()}


def volume_density(z: Redshifts, images: int, cosmology: Cosmology) -> tuple[Floats, Floats]:
    """Return redshifts, and the comoving volume of the double cone per redshift and per solid angle in the lens plane.

    Parameters
    ----------
    z
        Redshifts of the images.
    images
        Number of images.
    cosmology
        Of the distances.

    Returns
    -------
    Redshifts (images, 2 `STEPS` + 1), from the observer to the source, and Mpc³ / sr at each of them.
    """
    lens, source = (np.broadcast_to(np.asarray(one, dtype=np.float64), images)[:, None] for one in z)
    at = np.linspace(0, 1, STEPS + 1)
    first, last = np.minimum(NEAREST, lens / 2), source - np.minimum(NEAREST, (source - lens) / 2)
    grid = np.concatenate([first + (lens - first) * at, (lens + (last - lens) * at)[:, 1:]], 1)
    distance = comoving_distance(grid, cosmology)
    width = double_cone_width_of_distances(
        distance, comoving_distance(lens, cosmology), comoving_distance(source, cosmology)
    )
    angle = np.where(grid > lens, width, 1.0) ** 2
    return grid, hubble_distance(grid, cosmology) * distance**2 * angle


def envelope(low: float, high: float, z_source: float, cosmology: Cosmology) -> float:
    """Return the factor A with which ``A m**(SLOPE + 1)`` is nowhere below the mass function (dn / d ln m in 1/Mpc³).

    Parameters
    ----------
    low, high
        Range of masses, M☉.
    z_source
        Highest redshift.
    cosmology
        Of the mass function.

    Returns
    -------
    In the units that make it so, from the highest ratio on a grid, and 1% more.
    """
    mass = np.geomspace(low, high, 64)[:, None]
    ratio = halo_mass_function(mass, np.linspace(0, z_source, 33), cosmology) * mass ** -(SLOPE + 1)
    return 1.01 * float(ratio.max())


def _steps(grid: Floats, density: Floats) -> Floats:
    """Integral of a density over each interval of a grid."""
    integrals: Floats = (density[:, 1:] + density[:, :-1]) / 2 * np.diff(grid)
    return integrals


def _in_the_lens_plane(
    preset: Preset, halos: LineOfSight, rng: np.random.Generator, z: Redshifts, *, M200: Floats, z_halo: Floats
) -> dict[str, Floats]:
    """Parameters of halos that are truncated at r200, which encloses the mass that the mass function counts."""
    off = rng.normal(0, halos.concentration_scatter, len(M200)) if halos.concentration_scatter else 0.0
    concentration = nfw_concentration(M200, z_halo, preset.cosmology) * 10**off
    Rs = nfw_scale_radius(M200, concentration, z_halo, preset.cosmology)
    z_source = np.broadcast_to(np.asarray(z.source, dtype=np.float64), len(M200))
    tau, scale = torch.from_numpy(concentration), torch.from_numpy(Rs)
    total = torch.from_numpy(M200) * truncated_nfw_share(tau, tau)
    sigma_crit = torch.from_numpy(critical_surface_density(z_halo, z_source, preset.cosmology))
    alpha_Rs = truncated_nfw_scale_deflection(total, scale, tau * scale, sigma_crit).numpy()
    width = double_cone_width(z_halo, z.lens, z.source, preset.cosmology)
    effective = effective_halo(Rs, concentration * Rs, alpha_Rs, width=width, behind=z_halo > z.lens)
    return {"mass": total.numpy(), "M200": M200, "concentration": concentration} | effective._asdict()
