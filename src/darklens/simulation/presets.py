"""Presets: what is simulated, through which telescope. Dataclasses that check themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from darklens.errors import PresetError
from darklens.physics import Cosmology
from darklens.physics.halos import MASSES
from darklens.simulation.identity import Content
from darklens.simulation.instruments import Instrument
from darklens.simulation.priors import Constant, PowerLaw, Prior, WarmPowerLaw
from darklens.simulation.redshifts import check_redshifts
from darklens.usercode import is_reference

Noise = Literal["physical", "deeplense-twice", "deeplense-doubled"]
Distances = Literal["angular", "luminosity"]
NOISES = ("physical", "deeplense-twice", "deeplense-doubled")
PROFILES = ("point_mass", "sis", "tnfw")


@dataclass(frozen=True)
class Deflector:
    """The main deflector and the external shear. ``mass`` (M☉) may take the place of ``theta_E`` (arcsec)."""

    profile: str = "sie"
    theta_E: Prior | None = None
    mass: Prior | None = None
    distances: Distances = "angular"
    gamma: Prior = Constant(2.0)
    e1: Prior = Constant(0.0)
    e2: Prior = Constant(0.0)
    x: Prior = Constant(0.0)
    y: Prior = Constant(0.0)
    gamma1: Prior = Constant(0.0)
    gamma2: Prior = Constant(0.0)

    def __post_init__(self) -> None:
        _one_of(self.profile, ("sie", "epl"), "deflector.profile")
        _one_of(self.distances, ("angular", "luminosity"), "deflector.distances")
        _exactly_one(self, "deflector", "theta_E", "mass")
        _positive(self.theta_E or self.mass, "deflector.theta_E" if self.theta_E else "deflector.mass")


@dataclass(frozen=True)
class Source:
    """The lensed galaxy: an elliptical Sérsic profile, or images of real galaxies (``images``, a ``.npy`` stack)."""

    profile: str = "sersic"
    amp: Prior | None = None
    magnitude: Prior | None = None
    R_sersic: Prior = Constant(0.25)
    n_sersic: Prior = Constant(1.0)
    e1: Prior = Constant(0.0)
    e2: Prior = Constant(0.0)
    x: Prior = Constant(0.0)
    y: Prior = Constant(0.0)
    images: str | None = None
    pixel_scale: Prior = Constant(0.01)

    def __post_init__(self) -> None:
        _one_of(self.profile, ("sersic", "image"), "source.profile")
        _exactly_one(self, "source", "amp", "magnitude")
        _positive(self.R_sersic, "source.R_sersic")
        _positive(self.n_sersic, "source.n_sersic")
        _positive(self.pixel_scale, "source.pixel_scale")
        if (self.profile == "image") != (self.images is not None):
            raise PresetError("source: profile image and images (a .npy stack of galaxies) go together")


@dataclass(frozen=True)
class LensLight:
    """The deflector's own light: an elliptical Sérsic profile at its centre.

    Its ellipticity is that of the mass, plus ``shape_scatter`` on each component; ``R_sersic`` is in arcsec.
    """

    magnitude: Prior
    R_sersic: Prior
    n_sersic: Prior = Constant(4.0)
    shape_scatter: Prior = Constant(0.0)

    def __post_init__(self) -> None:
        _positive(self.R_sersic, "lens_light.R_sersic")
        _positive(self.n_sersic, "lens_light.n_sersic")


@dataclass(frozen=True)
class Subhalos:
    """A population of subhalos.

    ``count`` is a fixed number, ``mean_count`` the mean of a Poisson number, and ``total_mass`` (M☉) the mean of the
    summed mass, from which the Poisson mean follows. Positions are uniform in the square of ``half_width`` arcsec
    (half of the image if not given), or at polar ``radius``. ``profile`` is point_mass, sis, tnfw, or a function
    ``file.py:name`` whose further arguments are drawn from ``parameters``.

    ``mass`` of a point mass is all of it, that of a sis what is inside its own Einstein radius (it grows with the radius
    without end), that of a tnfw its total mass after truncation at ``truncation`` scale radii. Scale radii of the latter
    follow from M200 before truncation and its median concentration, with a scatter of ``concentration_scatter`` dex.
    """

    profile: str
    mass: Prior | None = None
    count: int | None = None
    mean_count: float | None = None
    total_mass: float | None = None
    distances: Distances = "angular"
    radius: Prior | None = None
    half_width: float | None = None
    truncation: Prior = Constant(5.0)
    concentration_scatter: float = 0.0
    parameters: Mapping[str, Prior] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not is_reference(self.profile):
            _one_of(self.profile, PROFILES, "subhalos.profile")
            if self.mass is None:
                raise PresetError(f"subhalos: profile {self.profile} needs a mass")
            if self.parameters:
                raise PresetError("subhalos.parameters go with a profile of your own, file.py:name")
        _one_of(self.distances, ("angular", "luminosity"), "subhalos.distances")
        if self.distances != "angular" and self.profile == "tnfw":
            raise PresetError("subhalos.distances must be angular for profile tnfw, which takes no other")
        if not 0 <= self.concentration_scatter < 1:
            raise PresetError(
                f"subhalos.concentration_scatter is in dex, from 0 to 1; got {self.concentration_scatter}"
            )
        if self.concentration_scatter and self.profile != "tnfw":
            raise PresetError("subhalos.concentration_scatter goes with profile tnfw")
        _exactly_one(self, "subhalos", "count", "mean_count", "total_mass")
        for name in ("count", "mean_count", "total_mass", "half_width"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise PresetError(f"subhalos.{name} must be above zero; got {value}")
        for name in ("mass", "radius", "truncation"):
            _positive(getattr(self, name), f"subhalos.{name}")
        if self.total_mass is not None and not isinstance(self.mass, PowerLaw | WarmPowerLaw | Constant):
            raise PresetError(
                "subhalos.total_mass needs a mass with a known mean: a number, a power_law or a warm_power_law"
            )

    @property
    def poisson_mean(self) -> float | None:
        """Mean number, or None where the number is fixed."""
        if self.total_mass is None:
            return self.mean_count
        assert isinstance(self.mass, PowerLaw | WarmPowerLaw | Constant)
        return self.total_mass / (self.mass.value if isinstance(self.mass, Constant) else self.mass.mean)


@dataclass(frozen=True)
class Vortex:
    """A vortex of axion dark matter: a ``line``, or ``point_masses`` as in the published data.

    Its half-length in arcsec is 0.06 / (2 m) · 1e-22 with the axion mass m in eV, a relation that DeepLense made for
    deflectors at redshift 0.5; ``half_length`` gives it directly. ``mass`` is in M☉, ``x, y`` its centre in arcsec.
    """

    profile: str
    mass: Prior
    log10_axion_mass: Prior | None = None
    half_length: Prior | None = None
    count: int = 100
    distances: Distances = "angular"
    x: Prior = Constant(0.0)
    y: Prior = Constant(0.0)

    def __post_init__(self) -> None:
        _one_of(self.profile, ("line", "point_masses"), "vortex.profile")
        _one_of(self.distances, ("angular", "luminosity"), "vortex.distances")
        _exactly_one(self, "vortex", "log10_axion_mass", "half_length")
        _positive(self.mass, "vortex.mass")
        _positive(self.half_length, "vortex.half_length")
        if self.count < 1:
            raise PresetError(f"vortex.count must be at least 1; got {self.count}")


@dataclass(frozen=True)
class LineOfSight:
    """Halos between observer and source, projected into the lens plane (`darklens.physics.line_of_sight`).

    ``mass`` is the range of their M200 in M☉, and their number is that of the mass function of Sheth & Tormen (1999), times
    ``amplitude``, in a double cone about the square of ``half_width`` arcsec (half of the image if not given). They are NFW
    halos, truncated at r200, of median concentrations with a scatter of ``concentration_scatter`` dex.
    """

    mass: tuple[float, float]
    amplitude: float = 1.0
    half_width: float | None = None
    concentration_scatter: float = 0.0

    def __post_init__(self) -> None:
        low, high = self.mass
        if not MASSES[0] <= low < high <= MASSES[1]:
            raise PresetError(
                f"line_of_sight.mass is a range of M☉ in {MASSES[0]:g} to {MASSES[1]:g}; got {low:g}, {high:g}"
            )
        for name in ("amplitude", "half_width"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise PresetError(f"line_of_sight.{name} must be above zero; got {value}")
        if not 0 <= self.concentration_scatter < 1:
            raise PresetError(
                f"line_of_sight.concentration_scatter is in dex, from 0 to 1; got {self.concentration_scatter}"
            )


@dataclass(frozen=True)
class DarkMatter:
    """What one class adds to the main deflector; ``add`` names a function of the user's.

    A line vortex may come with one of the others: subhalos, a function, or a vortex of point masses exclude each other.
    Halos along the line of sight may come with any of them.
    """

    subhalos: Subhalos | None = None
    vortex: Vortex | None = None
    add: str | None = None
    line_of_sight: LineOfSight | None = None

    def __post_init__(self) -> None:
        masses = None if self.line is not None else self.vortex
        if sum(part is not None for part in (self.subhalos, masses, self.add)) > 1:
            raise PresetError("a class takes one of subhalos, add and a vortex of point masses, beside a line vortex")

    @property
    def line(self) -> Vortex | None:
        """The vortex, if it is a line."""
        return self.vortex if self.vortex is not None and self.vortex.profile == "line" else None

    @property
    def point_profile(self) -> str | None:
        """Profile of the deflectors in the columns ``subhalo_…``; None if there are none, or if a function says it."""
        if self.subhalos is not None:
            return self.subhalos.profile
        return "point_mass" if self.vortex is not None and self.line is None else None


@dataclass(frozen=True)
class Preset(Content):
    """All that defines a simulated data set but its seed and size. `load_preset` makes one.

    Light is sampled at the centres of ``supersampling`` × ``supersampling`` sub-pixels of each pixel; with ``adaptive``,
    at tens or hundreds of places in those sub-pixels where that is not enough (`darklens.simulation.quadrature`).

    ``z_lens`` and ``z_source`` are numbers, or priors from which each image has redshifts of its own, given that the source
    lies behind the lens (`darklens.simulation.redshifts`).

    With ``z_source_convention`` the Einstein radii and the shear of the preset are taken to be those for a source at
    that redshift, and are rescaled to ``z_source`` with ``convention_cosmology``: a quirk of published data.
    """

    name: str
    description: str
    pixels: int
    instrument: Instrument
    deflector: Deflector
    source: Source
    classes: Mapping[str, DarkMatter]
    noise: Noise
    z_lens: float | Prior
    z_source: float | Prior
    cosmology: Cosmology = Cosmology()
    z_source_convention: float | None = None
    convention_cosmology: Cosmology = Cosmology()
    lens_light: LensLight | None = None
    supersampling: int = 1
    adaptive: bool = False
    conserve_mass: bool = False
    resolved: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        _one_of(self.noise, NOISES, "noise")
        if self.instrument.noise_correlation and self.noise != "physical":
            raise PresetError(f"instrument.noise_correlation goes with noise: physical; got {self.noise}")
        for name in ("pixels", "supersampling"):
            if (value := getattr(self, name)) < 1:
                raise PresetError(f"{name} must be at least 1; got {value}")
        check_redshifts(self.z_lens, self.z_source, self.z_source_convention)
        if any(matter.line_of_sight is not None for matter in self.classes.values()):
            if self.z_source_convention is not None:
                raise PresetError("line_of_sight does not go with a z_source_convention, which is for one lens plane")
            if self.cosmology.Om0 == 0:
                raise PresetError("line_of_sight needs a cosmology with matter: cosmology.Om0 is 0")
        for name in ("cosmology", "convention_cosmology"):
            _possible(getattr(self, name), name)
        if not self.classes:
            raise PresetError("classes: at least one is needed")
        if self.source.magnitude is not None and self.instrument.zero_point is None:
            raise PresetError("source.magnitude needs instrument.zero_point")
        if self.lens_light is not None and self.instrument.zero_point is None:
            raise PresetError("lens_light.magnitude needs instrument.zero_point")

    @property
    def labels(self) -> list[str]:
        """Class names, in the order of their label numbers."""
        return list(self.classes)

    @property
    def files(self) -> list[Path]:
        """Files that images depend on: PSF, galaxies, code of the user's own."""
        named = [self.instrument.psf_file, self.source.images]
        return sorted({Path(name) for name in named if name is not None} | self.code_files())

    @property
    def half_width(self) -> float:
        """From the centre of the image to its edge, arcsec."""
        return self.pixels * self.instrument.pixel_scale / 2

    @property
    def redshifts_vary(self) -> bool:
        """Whether images have redshifts of their own, which are then columns of the catalogue."""
        return not (isinstance(self.z_lens, int | float) and isinstance(self.z_source, int | float))

    @property
    def unit(self) -> str:
        """Unit of a pixel."""
        return "counts" if self.noise == "deeplense-twice" else "e-/s"

    @property
    def band_names(self) -> list[str]:
        """Name of the one band of the images."""
        return [self.instrument.name]

    @property
    def zero_points(self) -> list[float | None]:
        """AB magnitude of 1 in the images' unit, of the one band; None where it is not e-/s, for which it is known."""
        return [self.instrument.zero_point if self.unit == "e-/s" else None]

    @property
    def pixel_scale(self) -> float:
        """Arcsec per pixel."""
        return self.instrument.pixel_scale


def _one_of(value: str, allowed: tuple[str, ...], where: str) -> None:
    if value not in allowed:
        raise PresetError(f"{where}: no {value!r}; there are {', '.join(allowed)}")


def _possible(cosmology: Cosmology, where: str) -> None:
    if not (math.isfinite(cosmology.H0) and cosmology.H0 > 0):
        raise PresetError(f"{where}.H0 must be above zero (km/s/Mpc); got {cosmology.H0}")
    if not 0 <= cosmology.Ob0 <= cosmology.Om0 <= 1:
        raise PresetError(
            f"{where}: Om0 must be from 0 to 1, and Ob0 from 0 to Om0; got Om0 {cosmology.Om0}, Ob0 {cosmology.Ob0}"
        )


def _exactly_one(part: object, where: str, *names: str) -> None:
    if sum(getattr(part, name) is not None for name in names) != 1:
        raise PresetError(f"{where}: give exactly one of {', '.join(names)}")


def _positive(prior: Prior | None, where: str) -> None:
    # Normal is meant for quantities of either sign; it has no lowest value.
    if (prior is not None and prior.lowest < 0) or (isinstance(prior, Constant) and prior.value == 0):
        raise PresetError(f"{where} must be above zero; its lowest value is {prior.lowest}")
