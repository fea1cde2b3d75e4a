"""Draw and render the scenes of a preset, a block at a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from darklens.errors import DataError, PresetError
from darklens.physics import band_limit_noise, bin_pixels, correlate_noise, gaussian_noise, poisson
from darklens.simulation.columns import Columns, as_tensor, requires_grad, scatter, select
from darklens.simulation.draw import BLOCK, NOISE, TRUTHS, seed_sequence
from darklens.simulation.image_files import load_galaxies
from darklens.simulation.priors import Constant, Floats
from darklens.simulation.scenes.artefacts import add_artefacts, without_data
from darklens.simulation.scenes.kinds import find_kind
from darklens.simulation.scenes.objects import Objects
from darklens.simulation.scenes.pictures import Pictures
from darklens.simulation.scenes.population import TableSky
from darklens.simulation.scenes.presets import ARTEFACTS, ScenePreset
from darklens.simulation.scenes.rendering import Optics, light, point_fluxes
from darklens.simulation.scenes.sky import Sky
from darklens.simulation.scenes.sky_tables import background_of_depth


class SceneRenderer:
    """Draw the truths of scenes and render them.

    Parameters
    ----------
    preset
        What is simulated.
    device
        Must be a CPU: loops over sub-pixels are compiled for it.

    Raises
    ------
    PresetError
        If a file that the preset names cannot be used, a class has no such option, or the device is no CPU.
    """

    def __init__(self, preset: ScenePreset, device: torch.device):
        if device.type != "cpu":
            raise PresetError(f"preset {preset.name}: scenes are simulated on a CPU; got device {device}")
        self.preset = preset
        self._sky = Sky(preset) if preset.population is None else TableSky(preset)
        self._kinds = {
            name: find_kind(chosen.objects, chosen.options, f"classes.{name}")
            for name, chosen in preset.classes.items()
        }
        self._optics = Optics(preset)
        self._pictures = {
            name: Pictures(load_galaxies(chosen.source_images))
            for name, chosen in preset.classes.items()
            if chosen.source_images is not None
        }

    def draw(self, seed: int, block: int) -> dict[str, Any]:
        """Draw the truths of a block of images, whose classes take turns; return their columns."""
        preset = self.preset
        rng = np.random.default_rng(seed_sequence(preset, seed, TRUTHS, block))
        ids = np.arange(block * BLOCK, (block + 1) * BLOCK)
        turns = np.array(preset.turns)[ids % len(preset.turns)]
        labels = np.array([preset.label_of(name) for name in turns])
        rows: dict[str, Any] = {"id": ids, "label": labels, "object": turns}
        rows |= self._observations(rng)
        sky = self._sky.afresh()
        for name, chosen in preset.classes.items():
            if not len(places := np.flatnonzero(turns == name)):
                continue  # a rare class: its turn is in another block
            drawn = self._drawn(sky, name, rng, len(places), chosen.options)
            scatter(rows, places, drawn.columns(), BLOCK)
        return rows

    def _drawn(self, sky: Sky, name: str, rng: Generator, images: int, options: Any) -> Objects:
        if name in self._pictures:
            options = {"clumps": Constant(0.0), **options}  # real galaxies have their own
        found = self._kinds[name](sky, rng, images, **options)
        if not isinstance(found, Objects) or found.images != images:
            raise PresetError(
                f"classes.{name}: {self.preset.classes[name].objects} must return Objects of {images} images; got "
                f"{found!r:.80}"
            )
        if name in self._pictures:
            unknown = np.full(images, np.nan)
            found.set(source_image=rng.uniform(size=images), source_phi=rng.uniform(0, 2 * math.pi, images))
            found.set(source_n_sersic=unknown, source_e1=unknown, source_e2=unknown)
        return found

    def _observations(self, rng: Generator) -> dict[str, Any]:
        """What varies from image to image of a survey: seeing, depth, the sky that is left, what detectors do."""
        preset = self.preset
        rows: dict[str, Any] = {}
        alike = rng.normal(size=BLOCK) if preset.seeing_correlation else None
        for name, band in preset.bands.items():
            if band.psf_fwhm is not None:
                fwhm = band.psf_fwhm.sample(rng, BLOCK)
                if alike is not None:
                    fwhm = in_order_of(fwhm, alike, preset.seeing_correlation, rng)
                rows[f"psf_fwhm_{name}"] = fwhm
                for component in ("e1", "e2"):
                    rows[f"psf_{component}_{name}"] = band.psf_ellipticity.sample(rng, BLOCK)
            if band.depth is not None:
                rows[f"depth_{name}"] = band.depth.sample(rng, BLOCK)
            rows[f"sky_residual_{name}"] = preset.sky_residual.sample(rng, BLOCK)
        happens = {name: rng.uniform(size=BLOCK) < preset.artefacts.get(name, 0) for name in ARTEFACTS}
        rows["artefacts"] = np.array([",".join(name for name in ARTEFACTS if happens[name][i]) for i in range(BLOCK)])
        return rows

    def check(self, columns: Columns) -> None:
        """Refuse columns that are not those of scenes of this preset.

        Raises
        ------
        DataError
            If a column is missing, or a class is none of the preset.
        """
        needed = ["id", "label", "object", "artefacts"]
        for name, band in self.preset.bands.items():
            needed += [f"psf_{part}_{name}" for part in ("fwhm", "e1", "e2")] if band.psf_file is None else []
            needed += [f"depth_{name}"] if band.depth is not None else []
            needed.append(f"sky_residual_{name}")
        if missing := [name for name in needed if name not in columns]:
            raise DataError(f"catalogue: no column {', '.join(missing)}; these are not rows of a simulated set")
        if unknown := set(columns["object"]) - set(self.preset.classes):
            raise DataError(
                f"catalogue: object {str(sorted(unknown)[0])!r} is not a class of preset {self.preset.name}: "
                f"{', '.join(self.preset.classes)}"
            )

    def images(
        self,
        columns: Columns,
        seed: int,
        *,
        noise: bool,
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
        chosen: np.ndarray | None = None,
    ) -> Tensor:
        """Return images (N, bands, H, W) of rows.

        Parameters
        ----------
        columns
            Columns of the rows.
        seed
            Seed of the noise.
        noise
            Whether to add noise, the sky that is left and what detectors do.
        dtype
            Of the images; they are computed in float32.
        compile
            Of no effect: loops are always compiled.
        chosen
            Rows that are returned, all if not given. An image does not depend on those beside it.

        Returns
        -------
        Tensor
            In the unit of each band.

        Raises
        ------
        DataError
            If a tensor asks for derivatives, which scenes do not have.
        """
        if requires_grad(columns):
            raise DataError(
                f"preset {self.preset.name}: images of scenes have no derivatives by any column, as their loops are "
                "compiled; detach the tensors, or take a preset of one band such as fair-hst or substructure-hst, whose "
                "images without noise are differentiable by lens, source and substructure"
            )
        if chosen is not None:
            columns = select(columns, chosen)
        expected = self.expected(columns)
        if not noise:
            return expected.to(dtype)
        return self._with_noise(expected, columns, seed).to(dtype)

    def expected(self, columns: Columns, *, divide: bool = True) -> Tensor:
        """Return noise-free images (N, bands, H, W), float32.

        Parameters
        ----------
        columns
            Columns of the rows.
        divide
            As in `darklens.simulation.scenes.rendering.light`; without it, light is seen at the centres of sub-pixels, as
            lenstronomy has it.

        Raises
        ------
        DataError
            If what is expected of an image is not finite.
        """
        found = light(self.preset, columns, divide=divide, pictures=self._pictures)
        points = point_fluxes(self.preset, columns)
        seen = [
            self._optics.observe(name, found[:, i], points[i], columns, spread_out=divide)
            for i, name in enumerate(self.preset.bands)
        ]
        images = torch.stack(seen, dim=1)
        finite = images.isfinite().flatten(1).all(1)
        if not finite.all():
            i = int(finite.logical_not().nonzero()[0])
            raise DataError(f"image {columns['id'][i]}, {columns['object'][i]}: the flux expected of it is not finite")
        return images

    def without_data(self, columns: Columns, images: Tensor) -> np.ndarray:
        """Return where noisy images (N, bands, H, W) of rows hold no data, bool of their shape.

        That is at edges, in missing bands and where light bled; of the other artefacts, pixels hold wrong data.
        """
        levels = np.stack([self._background(name, columns) for name in self.preset.bands], axis=1)
        found = np.zeros(tuple(images.shape), dtype=bool)
        for i, names in enumerate(columns["artefacts"]):
            if names:
                found[i] = without_data(images[i].numpy(), str(names).split(","), levels[i])
        return found

    def noise_sigma(self, columns: Columns, expected: Tensor) -> Tensor:
        """Return the standard deviation of the noise in each pixel of expected images (N, bands, H, W)."""
        found = torch.empty_like(expected)
        for i, (name, band) in enumerate(self.preset.bands.items()):
            variance = torch.as_tensor(self._background(name, columns)).to(expected).square()[:, None, None]
            if band.gain is not None:
                variance = variance + expected[:, i].clamp_min(0) / band.gain
            found[:, i] = variance.sqrt()
        return found

    def _background(self, name: str, columns: Columns) -> Floats:
        """Standard deviation of the background in a band's pixels, (N,)."""
        band, images = self.preset.bands[name], len(columns["id"])
        if band.background_rms is not None:
            return np.full(images, band.background_rms)
        depth, fwhm = (np.asarray(columns[f"{part}_{name}"], float) for part in ("depth", "psf_fwhm"))
        return background_of_depth(depth, fwhm, self.preset.pixel_scale, band.zero_point)

    def _with_noise(self, expected: Tensor, columns: Columns, seed: int) -> Tensor:
        """Images with noise, the sky that is left and what detectors do, each image's from a generator of its own."""
        preset = self.preset
        streams = [np.random.default_rng(seed_sequence(preset, seed, NOISE, int(number))) for number in columns["id"]]
        out = torch.empty_like(expected)
        levels = np.stack([self._background(name, columns) for name in preset.bands], axis=1)
        for number, (name, band) in enumerate(preset.bands.items()):
            factor, native = preset.binning(name), expected[:, number]
            if factor > 1:  # light of larger pixels
                native = bin_pixels(native, factor) * factor**2
            sigma = torch.from_numpy(levels[:, number] * factor).to(native)[:, None, None]
            noise = torch.stack([gaussian_noise(image, sigma[i], streams[i]) for i, image in enumerate(native)])
            if band.gain is not None:
                photons = (native * band.gain).clamp_min(0)
                for i, image in enumerate(photons):
                    noise[i] += (poisson(image, streams[i]) - image) / band.gain
            if band.noise_correlation:
                noise = correlate_noise(noise, band.noise_correlation)
            if band.noise_cutoff:
                noise = band_limit_noise(noise, band.noise_cutoff)
            left = as_tensor(columns[f"sky_residual_{name}"]).to(native)[:, None, None]
            seen = native + sigma * left + noise
            out[:, number] = seen if factor == 1 else resampled(seen, preset.pixels) / factor**2
        for i, names in enumerate(columns["artefacts"]):
            if names:
                happened = add_artefacts(out[i].numpy(), str(names).split(","), levels[i], streams[i])
                out[i] = torch.from_numpy(happened)
        return out


def in_order_of(values: Floats, like: Floats, correlation: float, rng: Generator) -> Floats:
    """Return the same values in an order that correlates with that of others (Iman & Conover 1982).

    Parameters
    ----------
    values
        (N,).
    like
        Normal numbers (N,).
    correlation
        With ``like``'s root: values that were ordered like the same numbers correlate with each other by this, by ranks.
    rng
        Random numbers.

    Returns
    -------
    Floats
        The values, (N,).
    """
    score = math.sqrt(correlation) * like + math.sqrt(1 - correlation) * rng.normal(size=len(values))
    found = np.empty_like(values)
    found[np.argsort(score)] = np.sort(values)
    return found


def resampled(images: Tensor, pixels: int) -> Tensor:
    """Return images on smaller pixels, by cubic interpolation, with the surface brightness kept.

    Parameters
    ----------
    images
        Images (N, h, w).
    pixels
        Pixels along either side.
    """
    found = torch.nn.functional.interpolate(images[:, None], size=(pixels, pixels), mode="bicubic", align_corners=False)
    return found[:, 0]
