"""Measure the light of real galaxies, and paint lensed sources over them: they become the deflectors of lenses.

All images here are in the units of a preset's bands; `darklens.workflows.paint` brings a survey's cutouts to them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from darklens.errors import PresetError
from darklens.physics import bin_pixels, convolve, poisson
from darklens.physics.lightfit import GalaxyFit, asymmetric, fit_fluxes, fit_galaxies
from darklens.simulation.columns import Columns
from darklens.simulation.priors import Constant, Floats, LogUniform, Prior
from darklens.simulation.scenes.kinds import SHAPE_SCATTER, SHEAR, add_lensed_clumps, deflect
from darklens.simulation.scenes.objects import Objects
from darklens.simulation.scenes.presets import ScenePreset
from darklens.simulation.scenes.rendering import Optics, Points, light
from darklens.simulation.scenes.sky import Galaxies, Lenses, Sky

WINDOW = 10.0
"""Side of the square in which a galaxy's light is fitted, arcsec. A larger one holds more neighbours, a smaller one less of
the sky about the galaxy."""

CENTRE = 1.0
"""Distance from the centre of a cutout within which its galaxy is looked for, arcsec."""

RADIUS = 1.0
"""Half-light radius from which fits start, arcsec."""

FAINTEST = 20.0
"""Signal-to-noise ratio below which there is said to be no galaxy."""

POINTLIKE = 0.25
"""Half-light radius below which a galaxy is said to be a point, in full widths at half maximum of the PSF."""

Kernels = Sequence[Tensor]
"""Point-spread functions of each band, (N or 1, k, k), of sum 1."""


class Hosts(NamedTuple):
    """N galaxies as their images show them.

    Magnitudes in the bands (N, bands), half-light radii in arcsec, Sérsic indices, two components of ellipticity, places in
    arcsec from the centre of the image and signal-to-noise ratios in the detection band, each (N,).
    """

    magnitudes: Floats
    R_sersic: Floats
    n_sersic: Floats
    e1: Floats
    e2: Floats
    x: Floats
    y: Floats
    snr: Floats

    def galaxies(self, z: Floats, chosen: np.ndarray) -> Galaxies:
        """Return some of them as galaxies at redshifts (n,), whose spectra are not known."""
        shapes = (column[chosen] for column in (self.R_sersic, self.n_sersic, self.e1, self.e2))
        return Galaxies(z, np.full(len(z), np.nan), self.magnitudes[chosen], *shapes)


def adapted(preset: ScenePreset, bands: Sequence[str], pixels: int, pixel_scale: float) -> ScenePreset:
    """Return a preset with some of its bands, on the pixels of a survey's cutouts.

    Parameters
    ----------
    preset
        As it is.
    bands
        Names of its bands that the cutouts have, in their order.
    pixels
        Side of the cutouts.
    pixel_scale
        Theirs, arcsec.

    Returns
    -------
    ScenePreset
        The rest is the preset's.

    Raises
    ------
    PresetError
        If the detection band is not among the bands, or the preset takes its lenses from a table.
    """
    if preset.population is not None:
        raise PresetError(
            f"preset {preset.name} takes lenses from {preset.population.table}, and what is painted is drawn behind the "
            "galaxies of the images: leave out its population"
        )
    if preset.detection_band not in bands:
        raise PresetError(
            f"preset {preset.name} says by its band {preset.detection_band} what is seen; the images have "
            f"{', '.join(bands)}"
        )
    own = {name: dataclasses.replace(preset.bands[name], pixel_scale=None) for name in bands}
    return dataclasses.replace(preset, bands=own, pixels=pixels, pixel_scale=pixel_scale)


class Painter:
    """Measure galaxies, draw lensed sources behind them, and render their light.

    Parameters
    ----------
    preset
        On the pixels of the images, with their bands (see `adapted`).
    """

    def __init__(self, preset: ScenePreset):
        self.preset = preset
        self.sky = Sky(preset)
        self._optics = Optics(preset)

    def kernels(self, observed: Columns, own: Mapping[str, Tensor]) -> Kernels:
        """Return the point-spread functions of images in each band: their own, or else the preset's.

        Parameters
        ----------
        observed
            Columns of `observed`.
        own
            By band, (N or 1, k, k), of sum 1.
        """
        return [own[name] if name in own else self._optics.kernels(name, observed, 1) for name in self.preset.bands]

    def observed(self, rng: Generator, images: int) -> dict[str, Floats]:
        """Draw the preset's seeing for images, as columns ``psf_fwhm_g``, ``psf_e1_g`` and ``psf_e2_g`` of each band."""
        rows: dict[str, Floats] = {}
        for name, band in self.preset.bands.items():
            if band.psf_fwhm is not None:
                rows[f"psf_fwhm_{name}"] = band.psf_fwhm.sample(rng, images)
                rows |= {f"psf_{part}_{name}": band.psf_ellipticity.sample(rng, images) for part in ("e1", "e2")}
        return rows

    def measure(self, images: Tensor, noise: Tensor, kernels: Kernels) -> Hosts:
        """Fit the light of the galaxies at the centres of images.

        Pixels that are brighter than those opposite to them are neighbours, and do not count. The shape is fitted in the
        detection band, and magnitudes in all others are those of this shape.

        Parameters
        ----------
        images
            (N, bands, H, H), finite, in the units of the preset's bands.
        noise
            Standard deviation of each pixel's noise, (N, bands, H, H), infinite without data.
        kernels
            As `kernels` returns them.

        Returns
        -------
        Hosts
            One for each image.
        """
        preset, scale, seen = self.preset, self.preset.pixel_scale, self.sky.detection
        images = images - sky_level_of(images)  # its photons are in the noise already
        centre, moved = _about_peaks(images[:, seen], round(CENTRE / scale))
        side = min(2 * int(WINDOW / scale / 2) + 1, images.shape[-1] - 1 + images.shape[-1] % 2)
        cut, noise = (_windows(of, centre, side) for of in (images, noise))
        weights = []
        for i, band in enumerate(preset.bands.values()):
            photons = 0 if band.gain is None else cut[:, i].clamp_min(0) / band.gain
            weights.append((noise[:, i].square() + photons).reciprocal())
        neighbour = asymmetric(cut[:, seen], weights[seen].rsqrt())
        weights = [torch.where(neighbour, 0, weight) for weight in weights]
        found = fit_galaxies(cut[:, seen], weights[seen], kernels[seen], RADIUS / scale)
        fits = [
            found if i == seen else fit_fluxes(cut[:, i], weights[i], kernels[i], found.shape)
            for i in range(len(preset.bands))
        ]
        zero_points = [band.zero_point for band in preset.bands.values()]
        magnitudes = np.stack([zero - 2.5 * _log(fit) for zero, fit in zip(zero_points, fits, strict=True)], axis=1)
        x, y, log_R, _, e1, e2 = (column.numpy() for column in found.shape.unbind(1))
        return Hosts(
            magnitudes, np.exp(log_R) * scale, found.sersic_index.numpy(), e1, e2,
            (x + moved[:, 1].numpy()) * scale, (y + moved[:, 0].numpy()) * scale,
            (found.flux / found.flux_error).numpy(),
        )  # fmt: skip

    def unfit(self, hosts: Hosts) -> list[str]:
        """Return why each galaxy can be no deflector of a lens of this preset; empty where it can."""
        fwhm = self.sky.typical_fwhm
        faintest, magnitude = self.preset.rules.magnitude, hosts.magnitudes[:, self.sky.detection]
        reasons = []
        for i in range(len(magnitude)):
            if not hosts.snr[i] > FAINTEST:
                reasons.append("no galaxy at the centre")
            elif hosts.R_sersic[i] < POINTLIKE * fwhm:
                reasons.append("a point, as a star is")
            elif not magnitude[i] < faintest:
                reasons.append("fainter than the preset's deflectors (rules.magnitude)")
            else:
                reasons.append("")
        return reasons

    def draw(self, rng: Generator, hosts: Hosts, z: Floats, chosen: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw lensed sources behind galaxies.

        Parameters
        ----------
        rng
            Random numbers.
        hosts
            The galaxies.
        z
            Redshifts of those that are chosen, nan where they are drawn by magnitudes (`Sky.redshifts_of`), (n,).
        chosen
            Numbers of those that may deflect, (n,).

        Returns
        -------
        np.ndarray
            Which of ``chosen`` got a source that is seen by the preset's rules, (m,).
        dict
            Columns of the truths of these, as those of the kind ``lens``.
        """
        magnitudes = hosts.magnitudes[chosen]
        unknown = np.flatnonzero(~np.isfinite(z))
        z = z.copy()
        z[unknown] = self.sky.redshifts_of(rng, magnitudes[unknown])
        z = z.clip(0.01, self.preset.z_source)
        sigma_v = self.sky.velocity_dispersions(rng, magnitudes[:, self.sky.detection], z)
        which, drawn = self.sky.behind(rng, hosts.galaxies(z, chosen), sigma_v)
        place = hosts.x[chosen][which], hosts.y[chosen][which]
        return which, self._truths(rng, drawn, place).columns()

    def _truths(self, rng: Generator, drawn: Lenses, place: tuple[Floats, Floats]) -> Objects:
        options = self._options()
        found = Objects(len(drawn.theta_E), list(self.preset.bands))
        found.set_galaxy("galaxy", drawn.deflector, *place)
        deflect(found, drawn, rng, place, shape_scatter=options["shape_scatter"], shear=options["shear"])
        source = place[0] + drawn.source_x, place[1] + drawn.source_y
        found.set_galaxy("source", drawn.source, *source)
        add_lensed_clumps(found, drawn, rng, source, clumps=options["clumps"], clump_flux=options["clump_flux"])
        return found

    def _options(self) -> dict[str, Prior]:
        """Options of the preset's class of lenses, or its defaults."""
        given = next((of.options for of in self.preset.classes.values() if of.objects == "lens"), {})
        usual = {"clumps": Constant(2.0), "clump_flux": LogUniform(0.02, 0.15)}
        return usual | {"shape_scatter": SHAPE_SCATTER, "shear": SHEAR} | dict(given)

    def arcs(self, truths: Columns, own: Mapping[str, Tensor]) -> Tensor:
        """Return the lensed light of sources without noise, and without the light of the galaxies, (N, bands, H, H).

        Parameters
        ----------
        truths
            Columns of `draw` and of `observed`.
        own
            Point-spread functions as in `kernels`.
        """
        columns = {name: values for name, values in truths.items() if not name.startswith("galaxy_")}
        columns["id"] = np.arange(len(truths["theta_E"]))
        fine = light(self.preset, columns)
        factor = self.preset.supersampling
        none = Points(np.zeros(0, int), np.zeros(0), np.zeros((2, 0)))
        seen = []
        for i, name in enumerate(self.preset.bands):
            if name in own:
                seen.append(convolve(bin_pixels(fine[:, i], factor) * factor**2, own[name].to(fine)))
            else:
                seen.append(self._optics.observe(name, fine[:, i], none, columns))
        return torch.stack(seen, dim=1)

    def photon_noise(self, arcs: Tensor, streams: Sequence[Generator]) -> Tensor:
        """Return what the photons of arcs (N, bands, H, H) add to the noise: none in a band without a gain."""
        noise = torch.zeros_like(arcs)
        for i, band in enumerate(self.preset.bands.values()):
            if band.gain is not None:
                photons = (arcs[:, i] * band.gain).clamp_min(0)
                for k, rng in enumerate(streams):
                    noise[k, i] = (poisson(photons[k], rng) - photons[k]) / band.gain
        return noise


def sky_noise_of(images: Tensor) -> Tensor:
    """Estimate the standard deviation of the noise in images (N, bands, H, W), from the half of the pixels at the edges.

    It is 1.48 times the median deviation from the median, which few bright pixels do not change; (N, bands, 1, 1). Where
    that is zero, a thousandth of the brightest pixel.
    """
    edge = _edges(images)
    deviation = (edge - edge.median(-1, keepdim=True).values).abs().median(-1).values * 1.4826
    floor = images.flatten(2).amax(-1).clamp_min(1e-30) * 1e-3
    return torch.where(deviation > 0, deviation, floor)[..., None, None]


def sky_level_of(images: Tensor) -> Tensor:
    """Estimate the level of the sky in images (N, bands, H, W), the median of the half of the pixels at the edges."""
    return _edges(images).median(-1).values[..., None, None]


def _edges(images: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    top, left = round(height * 0.15), round(width * 0.15)
    inner = torch.zeros(height, width, dtype=torch.bool)
    inner[top : height - top, left : width - left] = True
    return images[..., ~inner]


def _log(fit: GalaxyFit) -> Floats:
    """Decimal logarithm of fluxes, of those that are not above their error that of the error."""
    return np.asarray(torch.log10(torch.maximum(fit.flux, fit.flux_error)).numpy())


def _about_peaks(images: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Places (N, 2) of the brightest pixels near the centres of images (N, H, H), and their offsets from there."""
    smooth = torch.nn.functional.avg_pool2d(images[:, None], 3, stride=1, padding=1)[:, 0]
    side = images.shape[-1]
    middle, radius = (side - 1) / 2, max(radius, 1)
    axis = torch.arange(side) - middle
    near = axis.square()[:, None] + axis.square() <= radius**2
    place = torch.where(near, smooth, -math.inf).flatten(1).argmax(1)
    centre = torch.stack([place // side, place % side], 1)
    return centre, centre - middle


def _windows(images: Tensor, centre: Tensor, side: int) -> Tensor:
    """Squares of odd side about pixels of images (N, bands, H, H), inside of them as far as they go; beyond, the edge."""
    half = (side - 1) // 2
    padded = torch.nn.functional.pad(images, (half,) * 4, mode="replicate")
    return torch.stack([of[:, y : y + side, x : x + side] for of, (y, x) in zip(padded, centre.tolist(), strict=True)])
