"""Kinds of objects that scenes show: lenses, and what is taken for them.

Each is a function ``kind(sky, rng, images, **options)`` that returns `Objects`; options are priors with defaults, which a
preset may replace. A kind of your own is such a function in a file of your own, named as ``my_kinds.py:function``.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.random import Generator

from darklens.errors import PresetError
from darklens.simulation.priors import Constant, Floats, LogUniform, Normal, Prior, Uniform
from darklens.simulation.scenes.images_of_points import images_of_points
from darklens.simulation.scenes.objects import Objects
from darklens.simulation.scenes.photometry import Photometry
from darklens.simulation.scenes.sky import Galaxies, Lenses, Sky
from darklens.simulation.scenes.sky_tables import BRIGHTEST
from darklens.usercode import is_reference, load_function

Kind = Callable[..., Objects]

SHEAR = Normal(0, 0.05)
SHAPE_SCATTER = Normal(0, 0.04)
"""What is added to each component of the light's ellipticity to get that of the mass: about 10° and 0.08 in q of a typical
galaxy, as the lenses of SLACS have it (Bolton et al. 2008, ApJ 682, 964; Koopmans et al. 2006, ApJ 649, 599)."""

OFFSET = Normal(0, 0.04)
"""Of the main galaxy from the centre of the image, arcsec."""

STAR_TEMPERATURES = (3500.0, 9000.0)
"""Of stars, K."""


def lens(
    sky: Sky,
    rng: Generator,
    images: int,
    *,
    clumps: Prior = Constant(2.0),
    clump_flux: Prior = LogUniform(0.02, 0.15),
    shape_scatter: Prior = SHAPE_SCATTER,
    shear: Prior = SHEAR,
    offset: Prior = OFFSET,
) -> Objects:
    """Draw early-type galaxies that lens a clumpy galaxy behind them, with their neighbours on the sky.

    Parameters
    ----------
    sky
        Draws galaxies.
    rng
        Random numbers.
    images
        Number of images.
    clumps
        Mean number of clumps of a source, of which a Poisson number is drawn.
    clump_flux
        Flux of a clump relative to the source.
    shape_scatter
        See `SHAPE_SCATTER`.
    shear
        Each component of the external shear.
    offset
        See `OFFSET`.

    Returns
    -------
    Objects
        Those of the images.
    """
    found = Objects(images, list(sky.preset.bands))
    drawn, place = _lensed(found, sky, rng, shape_scatter=shape_scatter, shear=shear, offset=offset)
    add_lensed_clumps(found, drawn, rng, place, clumps=clumps, clump_flux=clump_flux)
    _add_neighbours(found, sky, rng)
    return found


def add_lensed_clumps(
    found: Objects, drawn: Lenses, rng: Generator, place: tuple[Floats, Floats], *, clumps: Prior, clump_flux: Prior
) -> None:
    """Add clumps to the sources of images.

    Parameters
    ----------
    found
        Of N images.
    drawn
        Their lenses, N.
    rng
        Random numbers.
    place
        Of the sources, arcsec, two of (N,).
    clumps, clump_flux
        As for `lens`.
    """
    image = np.repeat(np.arange(found.images), rng.poisson(clumps.sample(rng, found.images).clip(0)))
    _clumps(found, rng, image, drawn.source, place, clump_flux, lensed=True)


def lensed_quasar(
    sky: Sky,
    rng: Generator,
    images: int,
    *,
    host_excess: Prior = Normal(1.5, 1.0),
    shape_scatter: Prior = SHAPE_SCATTER,
    shear: Prior = SHEAR,
    offset: Prior = OFFSET,
) -> Objects:
    """Draw lenses whose source is a galaxy with a quasar at its centre, a point.

    Parameters
    ----------
    sky, rng, images, shape_scatter, shear, offset
        As for `lens`.
    host_excess
        By how many magnitudes the quasar is brighter than its galaxy, in the detection band.

    Returns
    -------
    Objects
        Those of the images.
    """
    found = Objects(images, list(sky.preset.bands))
    drawn, place = _lensed(found, sky, rng, shape_scatter=shape_scatter, shear=shear, offset=offset)
    at, image_x, image_y, magnification = images_of_points(found.values, *place)
    colours = _colours(sky, "power_law:-1.5", drawn.source.z)
    quasar = (drawn.source.magnitudes[:, sky.detection] - host_excess.sample(rng, images))[:, None] + colours
    found.add_points(at, quasar[at] - 2.5 * np.log10(magnification)[:, None], image_x, image_y)
    _add_neighbours(found, sky, rng)
    return found


def galaxy(sky: Sky, rng: Generator, images: int, *, offset: Prior = OFFSET) -> Objects:
    """Draw the deflectors of `lens`, with their neighbours, and without a source.

    Parameters
    ----------
    sky, rng, images, offset
        As for `lens`.

    Returns
    -------
    Objects
        Those of the images.
    """
    found = Objects(images, list(sky.preset.bands))
    _placed(found, rng, sky.lenses(rng, images).deflector, offset)
    _add_neighbours(found, sky, rng)
    return found


def spiral(
    sky: Sky,
    rng: Generator,
    images: int,
    *,
    z: Prior = Uniform(0.08, 0.5),
    bulge: Prior = Uniform(0.05, 0.35),
    R_sersic: Prior = LogUniform(0.8, 2.5),
    arm_amplitude: Prior = Uniform(0.5, 1.0),
    arm_pitch: Prior = Uniform(0.2, 0.6),
    clumps: Prior = Constant(6.0),
    clump_flux: Prior = LogUniform(0.005, 0.04),
    offset: Prior = OFFSET,
) -> Objects:
    """Draw spiral galaxies: a red bulge, and a blue disc with two to four arms and clumps, as bright as lenses.

    Parameters
    ----------
    sky, rng, images, clumps, clump_flux, offset
        As for `lens`.
    z
        Redshift.
    bulge
        The bulge's share of the flux in the detection band.
    R_sersic
        Half-light radius of the disc, arcsec.
    arm_amplitude, arm_pitch
        As in `darklens.physics.spiral_arms`.

    Returns
    -------
    Objects
        Those of the images.
    """
    disc = _bright_disc(sky, rng, images, z, R_sersic)
    number = rng.choice([2.0, 2.0, 2.0, 3.0, 4.0], images)
    sign = rng.choice([-1.0, 1.0], images)
    arms = {
        "arm_amplitude": arm_amplitude.sample(rng, images),
        "arm_number": number,
        "arm_pitch": sign * arm_pitch.sample(rng, images),
        "arm_phase": rng.uniform(0, 2 * math.pi, images),
    }
    return _disc_galaxy(
        sky, rng, disc, bulge.sample(rng, images), arms, clumps=clumps, clump_flux=clump_flux, offset=offset
    )


def edge_on(
    sky: Sky,
    rng: Generator,
    images: int,
    *,
    z: Prior = Uniform(0.08, 0.6),
    bulge: Prior = Uniform(0.05, 0.4),
    R_sersic: Prior = LogUniform(0.5, 1.5),
    axis_ratio: Prior = Uniform(0.1, 0.25),
    offset: Prior = OFFSET,
) -> Objects:
    """Draw discs that are seen edge-on, as bright as lenses.

    Parameters
    ----------
    sky, rng, images, offset
        As for `lens`.
    z, bulge, R_sersic
        As for `spiral`.
    axis_ratio
        Of the disc.

    Returns
    -------
    Objects
        Those of the images.
    """
    disc = _bright_disc(sky, rng, images, z, R_sersic)
    q = axis_ratio.sample(rng, images)
    modulus, angle = (1 - q) / (1 + q), rng.uniform(0, 2 * math.pi, images)
    disc = disc._replace(e1=modulus * np.cos(angle), e2=modulus * np.sin(angle))
    return _disc_galaxy(sky, rng, disc, bulge.sample(rng, images), {}, offset=offset)


def ring(
    sky: Sky,
    rng: Generator,
    images: int,
    *,
    radius: Prior = LogUniform(0.8, 2.5),
    width: Prior = Uniform(0.1, 0.3),
    flux: Prior = LogUniform(0.1, 0.6),
    offset: Prior = OFFSET,
) -> Objects:
    """Draw ring galaxies: an early-type galaxy inside a blue ring with clumps.

    Parameters
    ----------
    sky, rng, images, offset
        As for `lens`.
    radius
        Of the ring, arcsec.
    width
        Standard deviation of the ring's profile across, relative to the radius.
    flux
        Of the ring in the detection band, relative to the galaxy within.

    Returns
    -------
    Objects
        Those of the images.
    """
    found = Objects(images, list(sky.preset.bands))
    main = sky.lenses(rng, images).deflector
    x, y = _placed(found, rng, main, offset)
    r = radius.sample(rng, images)
    magnitude = main.magnitudes[:, sky.detection] - 2.5 * np.log10(flux.sample(rng, images))
    blue = _coloured(sky, np.full(images, 2.7), main.z, magnitude)
    tilt = rng.normal(0, 0.1, (2, images))
    blue = blue._replace(R_sersic=r, e1=tilt[0], e2=tilt[1])
    every = np.arange(images)
    found.add(every, blue, x, y, others={"ring_width": r * width.sample(rng, images)})
    on_ring = np.repeat(every, rng.poisson(4, images))
    angle = rng.uniform(0, 2 * math.pi, len(on_ring))
    places = x[on_ring] + r[on_ring] * np.cos(angle), y[on_ring] + r[on_ring] * np.sin(angle)
    clumps = _coloured(
        sky, np.full(len(on_ring), 3.0), main.z[on_ring], magnitude[on_ring] + rng.uniform(2, 4, len(on_ring))
    )
    found.add(on_ring, clumps._replace(R_sersic=0.1 * r[on_ring], n_sersic=np.full(len(on_ring), 0.5)), *places)
    _add_neighbours(found, sky, rng)
    return found


def merger(
    sky: Sky,
    rng: Generator,
    images: int,
    *,
    separation: Prior = Uniform(0.8, 3.0),
    ratio: Prior = LogUniform(0.2, 1.0),
    tail_flux: Prior = LogUniform(0.1, 0.5),
    offset: Prior = OFFSET,
) -> Objects:
    """Draw mergers: two galaxies of one redshift, each with a tidal tail.

    Parameters
    ----------
    sky, rng, images, offset
        As for `lens`.
    separation
        Of the two, arcsec.
    ratio
        Of their fluxes.
    tail_flux
        Of a tail relative to its galaxy, in the detection band.

    Returns
    -------
    Objects
        Those of the images.
    """
    found = Objects(images, list(sky.preset.bands))
    main = sky.lenses(rng, images).deflector
    x, y = _placed(found, rng, main, offset)
    every = np.arange(images)
    distance, angle = separation.sample(rng, images), rng.uniform(0, 2 * math.pi, images)
    other_x, other_y = x + distance * np.cos(angle), y + distance * np.sin(angle)
    magnitude = main.magnitudes[:, sky.detection]
    fainter = magnitude - 2.5 * np.log10(ratio.sample(rng, images))
    spectrum = rng.uniform(0, 2, images)
    other = _coloured(sky, spectrum, main.z, fainter)._replace(
        R_sersic=main.R_sersic * rng.uniform(0.5, 1.0, images), n_sersic=rng.uniform(1, 4, images)
    )
    found.add(every, other, other_x, other_y)
    for own_x, own_y, bright in ((x, y, magnitude), (other_x, other_y, fainter)):
        light = _coloured(sky, np.full(images, 1.5), main.z, bright - 2.5 * np.log10(tail_flux.sample(rng, images)))
        tilt = rng.normal(0, 0.15, (2, images))
        light = light._replace(
            R_sersic=distance * rng.uniform(0.6, 1.2, images), n_sersic=np.full(images, 0.7), e1=tilt[0], e2=tilt[1]
        )
        arms = {
            "arm_amplitude": np.ones(images),
            "arm_number": np.ones(images),
            "arm_pitch": rng.choice([-1.0, 1.0], images) * rng.uniform(0.3, 0.8, images),
            "arm_phase": rng.uniform(0, 2 * math.pi, images),
        }
        found.add(every, light, own_x, own_y, others=arms)
    _add_neighbours(found, sky, rng)
    return found


def chance_pair(
    sky: Sky,
    rng: Generator,
    images: int,
    *,
    distance: Prior = Uniform(0.8, 3.0),
    number: Prior = Constant(1.6),
    offset: Prior = OFFSET,
) -> Objects:
    """Draw deflectors of `lens` with blue galaxies close by, which are not lensed.

    Parameters
    ----------
    sky, rng, images, offset
        As for `lens`.
    distance
        Of such a galaxy from the main one, arcsec.
    number
        Mean of their number, of which one is sure, and the others are a Poisson number.

    Returns
    -------
    Objects
        Those of the images.
    """
    found = Objects(images, list(sky.preset.bands))
    main = sky.lenses(rng, images).deflector
    x, y = _placed(found, rng, main, offset)
    image = np.repeat(np.arange(images), 1 + rng.poisson((number.sample(rng, images) - 1).clip(0)))
    faintest = min(sky.preset.faintest_neighbour, 24.5)
    close = sky.counted(rng, len(image), faintest - 3, faintest)
    r, angle = distance.sample(rng, len(image)), rng.uniform(0, 2 * math.pi, len(image))
    found.add(image, close, x[image] + r * np.cos(angle), y[image] + r * np.sin(angle))
    _add_neighbours(found, sky, rng)
    return found


def group(
    sky: Sky,
    rng: Generator,
    images: int,
    *,
    members: Prior = Constant(3.0),
    spread: Prior = Constant(3.0),
    offset: Prior = OFFSET,
) -> Objects:
    """Draw groups of early-type galaxies at one redshift, without a source.

    Parameters
    ----------
    sky, rng, images, offset
        As for `lens`.
    members
        Mean number of galaxies beside the main one, of which a Poisson number is drawn.
    spread
        Standard deviation of their places, arcsec.

    Returns
    -------
    Objects
        Those of the images.
    """
    found = Objects(images, list(sky.preset.bands))
    drawn = sky.lenses(rng, images)
    _placed(found, rng, drawn.deflector, offset)
    _members(found, sky, rng, drawn, members=members, spread=spread)
    _add_neighbours(found, sky, rng)
    return found


def lensing_group(
    sky: Sky,
    rng: Generator,
    images: int,
    *,
    members: Prior = Constant(3.0),
    spread: Prior = Constant(3.0),
    clumps: Prior = Constant(2.0),
    clump_flux: Prior = LogUniform(0.02, 0.15),
    shape_scatter: Prior = SHAPE_SCATTER,
    shear: Prior = Normal(0, 0.08),
    offset: Prior = OFFSET,
) -> Objects:
    """Draw lenses of `lens` whose deflector is in a group: its members deflect as well.

    Parameters
    ----------
    sky, rng, images, clumps, clump_flux, shape_scatter, shear, offset
        As for `lens`.
    members, spread
        As for `group`.

    Returns
    -------
    Objects
        Those of the images.
    """
    found = Objects(images, list(sky.preset.bands))
    drawn, place = _lensed(found, sky, rng, shape_scatter=shape_scatter, shear=shear, offset=offset)
    image = np.repeat(np.arange(images), rng.poisson(clumps.sample(rng, images).clip(0)))
    _clumps(found, rng, image, drawn.source, place, clump_flux, lensed=True)
    _members(found, sky, rng, drawn, members=members, spread=spread, deflect=True)
    _add_neighbours(found, sky, rng)
    return found


def quasar_pair(
    sky: Sky,
    rng: Generator,
    images: int,
    *,
    separation: Prior = Uniform(0.8, 3.5),
    magnitude: Prior = Uniform(18.5, 22.0),
    excess: Prior = Uniform(0.0, 2.0),
) -> Objects:
    """Draw two points close together: two quasars, or a quasar and a star.

    Parameters
    ----------
    sky, rng, images
        As for `lens`.
    separation
        arcsec.
    magnitude
        Of the brighter one, in the detection band.
    excess
        By how many magnitudes the other is fainter.

    Returns
    -------
    Objects
        Those of the images.
    """
    found = Objects(images, list(sky.preset.bands))
    every = np.arange(images)
    first = magnitude.sample(rng, images)
    second = first + excess.sample(rng, images)
    distance, angle = separation.sample(rng, images), rng.uniform(0, 2 * math.pi, images)
    dx, dy = distance * np.cos(angle) / 2, distance * np.sin(angle) / 2
    z = rng.uniform(0.5, min(3.0, sky.preset.z_source), images)
    quasar = _colours(sky, "power_law:-1.5", z)
    is_star = rng.uniform(size=images) < 0.5
    others = np.where(is_star[:, None], _star_colours(sky, rng, images), quasar)
    found.add_points(every, first[:, None] + quasar, dx, dy)
    found.add_points(every, second[:, None] + others, -dx, -dy)
    _add_neighbours(found, sky, rng)
    return found


def star(
    sky: Sky,
    rng: Generator,
    images: int,
    *,
    magnitude: Prior = Uniform(16.0, 20.0),
    spikes: Prior = LogUniform(0.005, 0.05),
    spike_length: Prior = Uniform(1.0, 3.0),
) -> Objects:
    """Draw bright stars with four diffraction spikes.

    Parameters
    ----------
    sky, rng, images
        As for `lens`.
    magnitude
        In the detection band.
    spikes
        Flux in the spikes, relative to the star.
    spike_length
        Half-light length, arcsec.

    Returns
    -------
    Objects
        Those of the images.
    """
    found = Objects(images, list(sky.preset.bands))
    every = np.arange(images)
    magnitudes = magnitude.sample(rng, images)[:, None] + _star_colours(sky, rng, images)
    x, y = rng.normal(0, 0.3, (2, images))
    found.add_points(every, magnitudes, x, y)
    flux, length = spikes.sample(rng, images), spike_length.sample(rng, images)
    angle = rng.uniform(0, math.pi, images)
    thin = 0.96
    for turn in (0.0, math.pi / 2):
        phi = 2 * (angle + turn)
        q = (1 - thin) / (1 + thin)
        shape = Galaxies(
            z=np.zeros(images),
            spectrum=np.zeros(images),
            magnitudes=magnitudes - 2.5 * np.log10(flux / 2)[:, None],
            R_sersic=length * math.sqrt(q),
            n_sersic=np.ones(images),
            e1=thin * np.cos(phi),
            e2=thin * np.sin(phi),
        )
        found.add(every, shape, x, y)
    _add_neighbours(found, sky, rng)
    return found


def empty(sky: Sky, rng: Generator, images: int) -> Objects:
    """Draw fields without a main galaxy: neighbours alone.

    Parameters
    ----------
    sky, rng, images
        As for `lens`.

    Returns
    -------
    Objects
        Those of the images.
    """
    found = Objects(images, list(sky.preset.bands))
    _add_neighbours(found, sky, rng)
    return found


KINDS: dict[str, Kind] = {
    each.__name__: each
    for each in (
        lens, lensed_quasar, lensing_group, galaxy, spiral, edge_on, ring, merger, chance_pair, group, quasar_pair, star,
        empty
    )
}  # fmt: skip
"""Kinds by name. Those that begin with ``lens`` are lenses."""


def find_kind(name: str, options: Mapping[str, Prior], where: str) -> Kind:
    """Return a kind by name, or from a file of the user's own, with its options checked.

    Parameters
    ----------
    name
        A key of `KINDS`, or ``file.py:function``.
    options
        Options of the function.
    where
        Which class asks, for errors.

    Returns
    -------
    Kind
        The function.

    Raises
    ------
    PresetError
        If there is none, or it has no such option.
    """
    if is_reference(name):
        found: Kind = load_function(name)
    elif name in KINDS:
        found = KINDS[name]
    else:
        raise PresetError(f"{where}.objects: no {name!r}; there are {', '.join(KINDS)}, or my_kinds.py:function")
    known = [p.name for p in inspect.signature(found).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            raise PresetError(f"{where}.options: {name} has no {option!r}; it takes {', '.join(known) or 'none'}")
    return found


def _placed(found: Objects, rng: Generator, galaxies: Galaxies, offset: Prior) -> tuple[Floats, Floats]:
    """Set main galaxies about the centres of the images; return their places."""
    x, y = offset.sample(rng, found.images), offset.sample(rng, found.images)
    found.set_galaxy("galaxy", galaxies, x, y)
    return x, y


def _lensed(
    found: Objects, sky: Sky, rng: Generator, *, shape_scatter: Prior, shear: Prior, offset: Prior
) -> tuple[Lenses, tuple[Floats, Floats]]:
    """Set main galaxies that deflect, and their sources; return both, and the places of the sources."""
    drawn = sky.lenses(rng, found.images)
    x, y = _deflectors(found, drawn, rng, shape_scatter=shape_scatter, shear=shear, offset=offset)
    place = x + drawn.source_x, y + drawn.source_y
    found.set_galaxy("source", drawn.source, *place)
    return drawn, place


def _deflectors(
    found: Objects, drawn: Lenses, rng: Generator, *, shape_scatter: Prior, shear: Prior, offset: Prior
) -> tuple[Floats, Floats]:
    """Set main galaxies that deflect; return their places."""
    x, y = _placed(found, rng, drawn.deflector, offset)
    deflect(found, drawn, rng, (x, y), shape_scatter=shape_scatter, shear=shear)
    return x, y


def deflect(
    found: Objects, drawn: Lenses, rng: Generator, place: tuple[Floats, Floats], *, shape_scatter: Prior, shear: Prior
) -> None:
    """Give the main galaxies of images the masses of lenses, whose shapes follow their light.

    Parameters
    ----------
    found
        Of N images.
    drawn
        Their lenses, N.
    rng
        Random numbers.
    place
        Of the galaxies, arcsec, two of (N,).
    shape_scatter
        See `SHAPE_SCATTER`.
    shear
        Each component of the external shear.
    """
    images, main = found.images, drawn.deflector
    e1, e2 = (light + shape_scatter.sample(rng, images) for light in (main.e1, main.e2))
    # Mass is rounder than q = 0.3: an isothermal ellipsoid that is flatter than that has no galaxy.
    most = 0.7 / 1.3
    shrink = np.minimum(1, most / np.maximum(np.hypot(e1, e2), 1e-12))
    found.set(
        theta_E=drawn.theta_E,
        e1=e1 * shrink,
        e2=e2 * shrink,
        lens_x=place[0],
        lens_y=place[1],
        gamma1=shear.sample(rng, images),
        gamma2=shear.sample(rng, images),
        sigma_v=drawn.sigma_v,
        z_lens=main.z,
        z_source=drawn.source.z,
        magnification_estimate=drawn.magnification,
        arc_snr_estimate=drawn.arc_snr,
    )
    if drawn.row is not None:
        found.set(population_row=drawn.row)


def _members(
    found: Objects, sky: Sky, rng: Generator, drawn: Lenses, *, members: Prior, spread: Prior, deflect: bool = False
) -> None:
    """Add early-type galaxies at the redshift of the main one, slower than it."""
    image = np.repeat(np.arange(found.images), rng.poisson(members.sample(rng, found.images).clip(0)))
    count = len(image)
    sigma_v = (drawn.sigma_v[image] * rng.uniform(0.45, 0.9, count)).clip(60)
    galaxies = sky.early_types(rng, sigma_v, drawn.deflector.z[image])
    width = spread.sample(rng, found.images)[image]
    x, y = width * rng.normal(size=count), width * rng.normal(size=count)
    found.add(image, galaxies, x, y)
    if deflect:
        theta_E = sky.einstein_radius(sigma_v, drawn.deflector.z[image], drawn.source.z[image])
        found.add_perturbers(image, x, y, theta_E)


def _add_neighbours(found: Objects, sky: Sky, rng: Generator) -> None:
    """Add the galaxies that happen to be in the field, anywhere."""
    image, galaxies = sky.neighbours(rng, found.images)
    half = sky.preset.half_width
    x, y = rng.uniform(-half, half, (2, len(image)))
    found.add(image, galaxies, x, y)


def _clumps(
    found: Objects,
    rng: Generator,
    image: np.ndarray,
    disc: Galaxies,
    centre: tuple[Floats, Floats],
    flux: Prior,
    *,
    lensed: bool,
) -> None:
    """Add clumps within twice the half-light radius of galaxies, as blue as they are."""
    count = len(image)
    r = disc.R_sersic[image] * 2 * np.sqrt(rng.uniform(size=count))
    angle = rng.uniform(0, 2 * math.pi, count)
    u, v = r * np.cos(angle), r * np.sin(angle)
    e1, e2 = disc.e1[image], disc.e2[image]
    norm = np.sqrt(1 - e1**2 - e2**2)
    x, y = (u + e1 * u + e2 * v) / norm, (v + e2 * u - e1 * v) / norm
    dimming = -2.5 * np.log10(flux.sample(rng, count))
    clumps = Galaxies(
        z=disc.z[image],
        spectrum=disc.spectrum[image],
        magnitudes=disc.magnitudes[image] + dimming[:, None],
        R_sersic=disc.R_sersic[image] * rng.uniform(0.08, 0.25, count),
        n_sersic=np.full(count, 0.5),
        e1=np.zeros(count),
        e2=np.zeros(count),
    )
    found.add(image, clumps, centre[0][image] + x, centre[1][image] + y, lensed=lensed)


def _bright_disc(sky: Sky, rng: Generator, images: int, z: Prior, R_sersic: Prior) -> Galaxies:
    """Discs as bright as the deflectors of lenses, and as blue as spirals."""
    magnitude = sky.lenses(rng, images).deflector.magnitudes[:, sky.detection] + rng.normal(0, 0.3, images)
    galaxies = _coloured(sky, rng.uniform(1.2, 2.6, images), z.sample(rng, images), magnitude.clip(BRIGHTEST - 2))
    modulus, angle = rng.uniform(0, 0.35, images), rng.uniform(0, 2 * math.pi, images)
    return galaxies._replace(
        R_sersic=R_sersic.sample(rng, images), e1=modulus * np.cos(angle), e2=modulus * np.sin(angle)
    )


def _disc_galaxy(
    sky: Sky,
    rng: Generator,
    disc: Galaxies,
    bulge: Floats,
    arms: dict[str, Floats],
    *,
    clumps: Prior | None = None,
    clump_flux: Prior = Constant(0.01),
    offset: Prior,
) -> Objects:
    """A disc and its red bulge, which has some share of the flux in the detection band."""
    images = len(disc.z)
    found = Objects(images, list(sky.preset.bands))
    every = np.arange(images)
    x, y = offset.sample(rng, images), offset.sample(rng, images)
    magnitude = disc.magnitudes[:, sky.detection]
    red = _coloured(sky, np.full(images, 0.3), disc.z, magnitude - 2.5 * np.log10(bulge))
    round_e1, round_e2 = rng.normal(0, 0.05, (2, images))
    red = red._replace(R_sersic=0.3 * disc.R_sersic, n_sersic=rng.uniform(1.5, 4, images), e1=round_e1, e2=round_e2)
    found.set_galaxy("galaxy", red, x, y)
    rest = disc._replace(magnitudes=disc.magnitudes - 2.5 * np.log10(1 - bulge)[:, None])
    found.add(every, rest, x, y, others=arms)
    if clumps is not None:
        image = np.repeat(every, rng.poisson(clumps.sample(rng, images).clip(0)))
        _clumps(found, rng, image, disc, (x, y), clump_flux, lensed=False)
    _add_neighbours(found, sky, rng)
    return found


def _coloured(sky: Sky, spectrum: Floats, z: Floats, magnitude: Floats) -> Galaxies:
    """Round exponential galaxies of given spectra and magnitudes in the detection band."""
    colours = sky.photometry.colours_from(sky.preset.detection_band, spectrum, z)[:, :-1]
    ones, zeros = np.ones(len(z)), np.zeros(len(z))
    return Galaxies(z, spectrum, magnitude[:, None] + colours, ones, ones, zeros, zeros)


def _colours(sky: Sky, spectrum: str, z: Floats) -> Floats:
    """Magnitudes of one spectrum at redshifts minus that in the detection band, (N, bands)."""
    filters = {name: band.filter for name, band in sky.preset.bands.items()}
    table = Photometry(filters, (spectrum,), highest=sky.preset.z_source)
    return table.colours_from(sky.preset.detection_band, np.zeros(len(z)), z)


def _star_colours(sky: Sky, rng: Generator, images: int) -> Floats:
    """Magnitudes of black bodies minus that in the detection band, (N, bands)."""
    filters = {name: band.filter for name, band in sky.preset.bands.items()}
    temperatures = np.geomspace(*STAR_TEMPERATURES, 8)
    table = Photometry(filters, [f"blackbody:{t:.0f}" for t in temperatures], highest=0.0)
    which = rng.uniform(0, len(temperatures) - 1, images)
    return table.colours_from(sky.preset.detection_band, which, np.zeros(images))
