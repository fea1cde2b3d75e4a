"""Presets of scenes: through which bands of a survey, of what kinds of objects. Dataclasses that check themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from darklens.errors import PresetError
from darklens.physics import Cosmology
from darklens.simulation.identity import Content
from darklens.simulation.priors import Constant, Prior
from darklens.usercode import is_reference

Artefact = Literal["satellite", "cosmic_rays", "bleeding", "edge", "missing_band"]
ARTEFACTS = ("satellite", "cosmic_rays", "bleeding", "edge", "missing_band")

NO_DATA = ("bleeding", "edge", "missing_band")
"""Artefacts that leave pixels without data."""


@dataclass(frozen=True)
class Band:
    """One band of a survey's images.

    Attributes
    ----------
    zero_point
        AB magnitude of 1 in the images' unit.
    filter
        Filter curve: a name or a file (`darklens.simulation.scenes.photometry.load_filter`).
    psf_fwhm
        Full width at half maximum of the point-spread function, arcsec, before pixels average. Drawn for each image.
    psf_beta
        Exponent of a Moffat function, above 1; without it the function is Gaussian.
    psf_ellipticity
        Each component of the point-spread function's ellipticity. Drawn for each image.
    psf_file
        A ``.npy`` or FITS image of the point-spread function with odd sides; takes the place of the other three.
    psf_oversampling
        Its pixels along the side of one of the images; the preset's ``supersampling``, or 1.
    depth
        AB magnitude of a point source at 5σ, measured with the point-spread function as weight. Drawn for each image.
    background_rms
        Standard deviation of the sky and read-out noise in a pixel, image units; takes the place of ``depth``.
    gain
        Electrons for 1 in the images' unit, all exposures together; without it, light has no photon noise.
    noise_correlation
        As in `darklens.simulation.instruments.Instrument`, pixels.
    noise_cutoff
        As in `darklens.physics.band_limit_noise`, cycles a pixel; 0 leaves all frequencies.
    pixel_scale
        arcsec, of a detector with larger pixels than the images have: a multiple of theirs. Its pixels are resampled to
        those of the images.
    """

    zero_point: float
    filter: str
    psf_fwhm: Prior | None = None
    psf_beta: float | None = None
    psf_ellipticity: Prior = Constant(0.0)
    psf_file: str | None = None
    psf_oversampling: int = 1
    depth: Prior | None = None
    background_rms: float | None = None
    gain: float | None = None
    noise_correlation: float = 0.0
    noise_cutoff: float = 0.0
    pixel_scale: float | None = None

    def __post_init__(self) -> None:
        if (self.psf_fwhm is None) == (self.psf_file is None):
            raise PresetError("give exactly one of psf_fwhm, psf_file")
        if self.psf_fwhm is not None and self.psf_fwhm.lowest < 0:
            raise PresetError(f"psf_fwhm must be above zero; its lowest value is {self.psf_fwhm.lowest}")
        if self.psf_beta is not None and not self.psf_beta > 1:
            raise PresetError(f"psf_beta must be above 1; got {self.psf_beta}")
        if self.psf_file is None and self.psf_oversampling != 1:
            raise PresetError("psf_oversampling goes with psf_file")
        if (self.depth is None) == (self.background_rms is None):
            raise PresetError("give exactly one of depth, background_rms")
        if self.depth is not None and self.psf_fwhm is None:
            raise PresetError("depth needs psf_fwhm; with psf_file, give background_rms")
        if self.gain is not None and not self.gain > 0:
            raise PresetError(f"gain must be above zero; got {self.gain}")
        if self.noise_correlation < 0:
            raise PresetError(f"noise_correlation must be zero or more; got {self.noise_correlation}")
        if self.noise_cutoff and not 0.05 <= self.noise_cutoff < 1:
            raise PresetError(f"noise_cutoff must be from 0.05 to 1 cycles a pixel, or 0; got {self.noise_cutoff}")


@dataclass(frozen=True)
class Rules:
    """Which lenses are seen, in the detection band: all others are left out.

    Attributes
    ----------
    arc_snr
        Lowest signal-to-noise ratio of the lensed source (`darklens.simulation.scenes.sky.Sky.arc_visibility`).
    arc_contrast
        Lowest surface brightness of the lensed source relative to the deflector's at the Einstein radius, in the band
        where that is highest.
    tangential_magnification
        Lowest magnification of the brightest image along the arc, of a singular isothermal sphere.
    resolved
        Whether images must be apart, ``theta_E² > R² + (FWHM/2)²``, and the arc longer than the seeing, ``μ R > FWHM``,
        for a source of half-light radius R. These three rules are those of Collett (2015, ApJ 811, 20).
    theta_E
        Lowest and highest Einstein radius, arcsec.
    magnitude
        Faintest magnitude of the deflector.
    """

    arc_snr: float = 20.0
    arc_contrast: float = 0.0
    tangential_magnification: float = 3.0
    resolved: bool = True
    theta_E: tuple[float, float] = (0.3, 4.0)
    magnitude: float = 24.0


POPULATION_SUFFIXES = (".csv", ".parquet", ".fits", ".fit", ".ecsv", ".vot", ".xml")
"""How names of tables of lenses end."""


@dataclass(frozen=True)
class Population:
    """Lenses of a table in the place of those that `darklens.simulation.scenes.sky.Sky` draws.

    ``table`` is a file of one lens in a row. ``columns`` has the names of its columns by ours
    (`darklens.simulation.scenes.population.read_population`); those that have our names need not be given.
    """

    table: str
    columns: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if Path(self.table).suffix not in POPULATION_SUFFIXES:
            raise PresetError(f"population.table: {self.table!r} is none of {', '.join(POPULATION_SUFFIXES)}")


@dataclass(frozen=True)
class SceneClass:
    """One kind of object: ``objects`` draws it (a name of `darklens.simulation.scenes.kinds`, or ``file.py:function``).

    Classes take turns, ``turns`` images of one after those of another. ``label`` is what the catalogue calls it: ``lens``
    or ``nonlens`` by default, and must be given for a function of your own. ``options`` are those of the function.
    With ``source_images``, a ``.npy`` or FITS stack of galaxies, sources are shaped like one of them at random
    (`darklens.simulation.scenes.pictures`).
    """

    objects: str
    turns: int = 1
    label: str | None = None
    options: Mapping[str, Prior] = field(default_factory=dict)
    source_images: str | None = None

    def __post_init__(self) -> None:
        if self.turns < 1:
            raise PresetError(f"turns must be at least 1; got {self.turns}")
        if self.source_images is not None and self.objects not in ("lens", "lensing_group"):
            raise PresetError(f"source_images goes with objects lens or lensing_group; got {self.objects}")
        if is_reference(self.objects) and self.label is None:
            raise PresetError(f"label must be given, lens or nonlens, as {self.objects} does not say which it is")


@dataclass(frozen=True)
class ScenePreset(Content):
    """All that defines a simulated set of scenes but its seed and size. `darklens.simulation.load_preset` makes one.

    Light is sampled at the centres of ``supersampling`` × ``supersampling`` sub-pixels of each pixel, and at more places
    about the centres of galaxies. The sky that is left has ``sky_residual`` times the background's standard deviation in
    every pixel. ``artefacts`` are probabilities of what detectors do. ``seeing_correlation`` is that of the seeing in the
    bands of an image, by ranks: bands of one night, or of one place on the sky, are alike. With a ``population``,
    lenses are rows of a table, to which ``rules`` are not applied.
    """

    name: str
    description: str
    pixels: int
    pixel_scale: float
    bands: Mapping[str, Band]
    classes: Mapping[str, SceneClass]
    detection_band: str
    rules: Rules = Rules()
    z_lens: float = 1.5
    z_source: float = 5.0
    faintest_source: float = 28.0
    faintest_neighbour: float = 25.5
    cosmology: Cosmology = Cosmology()
    supersampling: int = 2
    sky_residual: Prior = Constant(0.0)
    seeing_correlation: float = 0.0
    artefacts: Mapping[str, float] = field(default_factory=dict)
    population: Population | None = None
    resolved: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("pixels", "supersampling"):
            if (value := getattr(self, name)) < 1:
                raise PresetError(f"{name} must be at least 1; got {value}")
        if not self.pixel_scale > 0:
            raise PresetError(f"pixel_scale must be above zero; got {self.pixel_scale}")
        if not self.bands or not self.classes:
            raise PresetError("bands, classes: at least one of each is needed")
        if self.detection_band not in self.bands:
            raise PresetError(f"detection_band: no band {self.detection_band!r}; there are {', '.join(self.bands)}")
        for name, band in self.bands.items():
            self._check_band(name, band)
        if not 0 <= self.seeing_correlation < 1:
            raise PresetError(f"seeing_correlation must be from 0 to 1, and below it; got {self.seeing_correlation}")
        for name, share in self.artefacts.items():
            if name not in ARTEFACTS:
                raise PresetError(f"artefacts: no {name!r}; there are {', '.join(ARTEFACTS)}")
            if not 0 <= share <= 1:
                raise PresetError(f"artefacts.{name} is a probability, from 0 to 1; got {share}")
        if not 0 < self.z_lens < self.z_source <= 6:
            raise PresetError(
                f"z_lens and z_source are the highest redshifts, 0 < z_lens < z_source <= 6; got {self.z_lens}, "
                f"{self.z_source}"
            )

    def _check_band(self, name: str, band: Band) -> None:
        where = f"bands.{name}"
        if band.psf_oversampling not in (1, self.supersampling):
            raise PresetError(
                f"{where}.psf_oversampling: 1, or the preset's supersampling of {self.supersampling}; got "
                f"{band.psf_oversampling}"
            )
        ratio = self.binning(name)
        if ratio < 1 or abs(ratio * self.pixel_scale - (band.pixel_scale or self.pixel_scale)) > 1e-6 * ratio:
            raise PresetError(
                f"{where}.pixel_scale must be a multiple of the preset's {self.pixel_scale}; got {band.pixel_scale}"
            )
        if self.pixels % ratio:
            raise PresetError(
                f"{where}.pixel_scale: {self.pixels} pixels are no whole number of {ratio} times larger ones"
            )

    def binning(self, band: str) -> int:
        """Return how many pixels of the images lie along one of a band's detector."""
        return round((self.bands[band].pixel_scale or self.pixel_scale) / self.pixel_scale)

    @cached_property
    def turns(self) -> list[str]:
        """The class of each image of a round, after which the next begins. Classes are spread evenly."""
        places = [((i + 0.5) / each.turns, name) for name, each in self.classes.items() for i in range(each.turns)]
        return [name for _, name in sorted(places, key=lambda pair: pair[0])]

    @property
    def labels(self) -> list[str]:
        """Labels of classes, in the order of their numbers; ``nonlens`` before ``lens``."""
        found = dict.fromkeys(self.label_of(name) for name in self.classes)
        return sorted(found, key=lambda label: label == "lens")

    def label_of(self, name: str) -> str:
        """Return the label of a class's images."""
        chosen = self.classes[name]
        return chosen.label or ("lens" if chosen.objects.startswith("lens") else "nonlens")

    @property
    def files(self) -> list[Path]:
        """Files that images depend on: point-spread functions, filters, tables, galaxies, code of the user's own."""
        named = [band.psf_file for band in self.bands.values()]
        named += [band.filter for band in self.bands.values() if Path(band.filter).suffix]
        named += [each.source_images for each in self.classes.values()]
        named += [self.population.table] if self.population is not None else []
        return sorted({Path(name) for name in named if name is not None} | self.code_files())

    @property
    def loses_pixels(self) -> bool:
        """Whether any image can have pixels without data."""
        return any(self.artefacts.get(name, 0) > 0 for name in NO_DATA)

    @property
    def half_width(self) -> float:
        """From the centre of the image to its edge, arcsec."""
        return self.pixels * self.pixel_scale / 2

    @property
    def unit(self) -> str:
        """Unit of a pixel."""
        return "flux"

    @property
    def zero_points(self) -> list[float | None]:
        """AB magnitude of 1 in the images' unit, for each band."""
        return [band.zero_point for band in self.bands.values()]

    @property
    def band_names(self) -> list[str]:
        """Names of the bands of the images, in their order."""
        return list(self.bands)
