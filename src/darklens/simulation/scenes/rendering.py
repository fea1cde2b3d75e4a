"""From the columns of scenes to their light, through a survey's point-spread functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from darklens.errors import DataError, PresetError
from darklens.physics import bin_pixels, pixelated_psf, psf_kernel, ring_total_flux, sersic_total_flux
from darklens.physics.deflectors import kormann_axes
from darklens.physics.light import sersic_b
from darklens.simulation.columns import Columns, as_tensor
from darklens.simulation.image_files import load_image
from darklens.simulation.priors import Floats, median
from darklens.simulation.scenes import loops
from darklens.simulation.scenes.objects import ARMS, LIGHT, MASS, PERTURBER, SHAPE
from darklens.simulation.scenes.pictures import Pictures
from darklens.simulation.scenes.presets import ScenePreset
from darklens.simulation.scenes.spread import Places, Seeing, size_of, spread

GAUSSIAN_RADIUS, MOFFAT_RADIUS = 2.5, 6.0
"""Full widths at half maximum from the centre to the edge of a point-spread function's kernel. Outside, a Gaussian has
3e-8 of its light, and a Moffat function of exponent 3.5 has 2e-4."""

WIDEST = 1.3
"""Full width at half maximum for which these radii are, over the median: of all images of a band the kernels are equally
large, so that an image does not depend on those beside it."""

SMALLEST = 8.0
"""Parts of a sub-pixel, of which a half-light radius is at least one: smaller components look the same, and would fall
between the places where light is sampled."""


class Components(NamedTuple):
    """Extended components of N images, one after the other, and where those of each begin (N + 1,).

    ``values`` are columns of `LIGHT` by name (K,), and ``magnitudes`` those in the bands (K, bands).
    """

    starts: np.ndarray
    values: dict[str, Floats]
    magnitudes: Floats


class Points(NamedTuple):
    """Points in one band: number of the image (M,), flux (M,) and places in arcsec (2, M)."""

    image: np.ndarray
    flux: Floats
    places: Floats


def gather(columns: Columns, bands: Sequence[str], images: int) -> Components:
    """Collect the extended components of images.

    Parameters
    ----------
    columns
        Columns of `darklens.simulation.scenes.objects`.
    bands
        Names of the bands.
    images
        Number of images.

    Returns
    -------
    Components
        Those of all images.
    """
    owners: list[np.ndarray] = []
    parts: list[list[Floats]] = []
    names = [*LIGHT, *(f"magnitude_{band}" for band in bands)]
    for group, lensed in (("galaxy", 0.0), ("source", 1.0)):
        if f"{group}_x" not in columns:
            continue
        given = {
            name: np.asarray(columns[f"{group}_{name}"], dtype=np.float64) for name in (*SHAPE, *names[len(LIGHT) :])
        }
        shown = np.isfinite(given["x"])
        if group == "source" and "source_image" in columns:  # of which `pictures` renders those
            shown &= np.isnan(np.asarray(columns["source_image"], dtype=np.float64))
        there = np.flatnonzero(shown)
        zeros = np.zeros(len(there))
        rest = dict.fromkeys((*ARMS, "ring_width"), zeros) | {"lensed": zeros + lensed}
        owners.append(there)
        parts.append([given[name][there] if name in given else rest[name] for name in names])
    if "light_x" in columns:
        owners.append(np.repeat(np.arange(images), _lengths(columns["light_x"])))
        parts.append([_joined(columns[f"light_{name}"]) for name in names])
    owner = np.concatenate([np.zeros(0, int), *owners])
    order = np.argsort(owner, kind="stable")
    joined = [np.concatenate([np.zeros(0), *(part[i] for part in parts)])[order] for i in range(len(names))]
    starts = np.searchsorted(owner[order], np.arange(images + 1))
    magnitudes = np.stack(joined[len(LIGHT) :], axis=1)
    return Components(starts, dict(zip(LIGHT, joined, strict=False)), magnitudes)


def light(
    preset: ScenePreset,
    columns: Columns,
    *,
    divide: bool = True,
    pictures: Mapping[str, Pictures] = MappingProxyType({}),
) -> Tensor:
    """Return the flux in each sub-pixel of images, before the atmosphere and the telescope.

    Parameters
    ----------
    preset
        Gives bands, pixels and sub-pixels.
    columns
        Columns of N images.
    divide
        Whether sub-pixels are divided further where light is steep; otherwise it is sampled at their centres.
    pictures
        Galaxies as which the sources of a class are seen, by its name.

    Returns
    -------
    Tensor
        Flux in the unit of each band (N, bands, n, n), float32.

    Raises
    ------
    DataError
        If an image without a deflector has lensed components.
    """
    images, bands = len(columns["id"]), list(preset.bands)
    found = gather(columns, bands, images)
    flux, rows = _prepared(preset, found, divide)
    lenses = _lenses(columns, images)
    lensed = np.add.reduceat(np.append(found.values["lensed"], 0), found.starts[:-1]) * (np.diff(found.starts) > 0)
    if (alone := np.flatnonzero((lensed > 0) & ~np.isfinite(lenses[:, 0]))).size:
        raise DataError(f"catalogue: image {columns['id'][alone[0]]} has a source, and no theta_E of a deflector")
    offsets, perturbers = _perturbers(columns, images)
    n = preset.pixels * preset.supersampling
    width = preset.pixel_scale / preset.supersampling
    out = np.zeros((images, len(bands), n, n), np.float32)
    grid = (-(n - 1) / 2 * width, width, divide)
    starts = np.stack([found.starts, offsets])
    scenes = loops.Scene(
        np.stack([found.values["x"], found.values["y"]], axis=1),
        _single(rows), _single(flux * width**2), _single(np.nan_to_num(lenses)), _single(perturbers),
    )  # fmt: skip
    loops.add_images(starts, scenes, grid, loops.make_room(n), loops.make_room(n), out)
    if pictures:
        for i in np.flatnonzero(np.isfinite(np.asarray(columns["source_image"], dtype=np.float64))):
            beside = scenes.perturbers[offsets[i] : offsets[i + 1]]
            seen = pictures[str(columns["object"][i])].lensed(columns, int(i), scenes.lens[i], beside, n=n, width=width)
            zero_points = np.array([band.zero_point for band in preset.bands.values()])
            magnitudes = np.array([float(columns[f"source_magnitude_{band}"][i]) for band in bands])
            out[i] += _single(10 ** (-0.4 * (magnitudes - zero_points)) * width**2)[:, None, None] * seen
    return torch.from_numpy(out)


def _lengths(lists: Sequence[Floats | None]) -> list[int]:
    """Number of values that each image has in a column of lists."""
    return [0 if each is None else len(each) for each in lists]


def _joined(lists: Sequence[Floats | None]) -> Floats:
    """The values of all images in a column of lists, one image after the other."""
    return np.concatenate([np.zeros(0), *(each for each in lists if each is not None)])


def _single(array: Floats) -> Any:
    return np.ascontiguousarray(array, np.float32)


def _prepared(preset: ScenePreset, found: Components, divide: bool) -> tuple[Floats, Floats]:
    """What `loops.Scene` holds of components: brightness in the bands, and rows."""
    c = {name: torch.from_numpy(values) for name, values in found.values.items()}
    width = preset.pixel_scale / preset.supersampling
    if divide:
        c["R_sersic"] = c["R_sersic"].clamp_min(width / SMALLEST)
    is_ring = c["ring_width"] > 0
    ones = torch.ones_like(c["x"])
    total = torch.where(
        is_ring,
        ring_total_flux(ones, c["R_sersic"], torch.where(is_ring, c["ring_width"], ones)),
        sersic_total_flux(ones, c["R_sersic"], c["n_sersic"]),
    )
    zero_points = np.array([band.zero_point for band in preset.bands.values()])
    b = sersic_b(c["n_sersic"])
    centre = torch.where(is_ring, ones, torch.exp(b)) / total
    flux = 10 ** (-0.4 * (found.magnitudes - zero_points)) * centre.numpy()[:, None]
    e = torch.hypot(c["e1"], c["e2"])
    sersic_reach = c["R_sersic"] * (1 + loops.FAINTEST / b) ** c["n_sersic"]
    ring_reach = c["R_sersic"] + math.sqrt(2 * loops.FAINTEST) * c["ring_width"]
    # To the far corner of the last sub-pixel.
    reach = (torch.where(is_ring, ring_reach, sersic_reach) + width).square()
    rows = [
        c["R_sersic"], b, c["e1"], c["e2"], 1 / (1 - e.square()), c["R_sersic"].square().reciprocal(),
        0.5 / c["n_sersic"], reach, c["arm_amplitude"], c["arm_number"],
        0.5 / torch.tan(torch.where(c["arm_pitch"] == 0, ones, c["arm_pitch"])), c["arm_phase"], c["ring_width"],
        torch.sqrt((1 + e) / (1 - e)), c["lensed"],
    ]  # fmt: skip
    return flux, torch.stack(rows, dim=1).contiguous().numpy()


def _lenses(columns: Columns, images: int) -> Floats:
    """Rows of `loops.source_plane` (N, 10), the last of which is the Einstein radius; nan where there is no deflector."""
    if "theta_E" not in columns:
        return np.full((images, 10), np.nan)
    theta_E, e1, e2, x, y, gamma1, gamma2 = (as_tensor(columns[name]) for name in MASS)
    axes = kormann_axes(theta_E=theta_E, e1=e1, e2=e2)
    rows = [x, y, axes["q"], axes["cos"], axes["sin"], axes["f"], axes["scale"], gamma1, gamma2, theta_E]
    return torch.stack(rows, dim=1).contiguous().numpy()


def _perturbers(columns: Columns, images: int) -> tuple[np.ndarray, Floats]:
    if "perturber_x" not in columns:
        return np.zeros(images + 1, int), np.zeros((0, 3))
    values = [_joined(columns[f"perturber_{name}"]) for name in PERTURBER]
    return np.concatenate([[0], np.cumsum(_lengths(columns["perturber_x"]))]), np.stack(values, axis=1)


class Optics:
    """The point-spread functions of a preset's bands.

    Parameters
    ----------
    preset
        Gives bands, pixels and sub-pixels.

    Raises
    ------
    PresetError
        If a file is not a point-spread function.
    """

    def __init__(self, preset: ScenePreset):
        self.preset = preset
        self._kernels = {
            name: _from_file(band.psf_file, f"bands.{name}.psf_file")
            for name, band in preset.bands.items()
            if band.psf_file is not None
        }

    def factor(self, band: str) -> int:
        """Return into how many parts along either side a pixel is divided where a band's point-spread function acts."""
        own = self.preset.bands[band]
        # On whole pixels, what is smaller than one would be seen at the centre of its pixel.
        return self.preset.supersampling if own.psf_file is None else own.psf_oversampling

    def radius(self, band: str, factor: int) -> int:
        """Return how far a band's point-spread function reaches, in parts of a pixel, of which a side has ``factor``."""
        if band in self._kernels:
            return int(max(self._kernels[band].shape) - 1) // 2
        own = self.preset.bands[band]
        assert own.psf_fwhm is not None
        reach = WIDEST * median(own.psf_fwhm) * (GAUSSIAN_RADIUS if own.psf_beta is None else MOFFAT_RADIUS)
        return min(math.ceil(reach / self.preset.pixel_scale * factor), self.preset.pixels * factor)

    def kernels(self, band: str, columns: Columns, factor: int) -> Tensor:
        """Return the kernels of a band's images, (N or 1, k, k), float64.

        Parameters
        ----------
        band
            Name of the band.
        columns
            With ``psf_fwhm_<band>`` (arcsec), ``psf_e1_<band>`` and ``psf_e2_<band>``.
        factor
            Parts of a pixel along either side.

        Returns
        -------
        Tensor
            Each of sum 1.
        """
        if band in self._kernels:
            return self._kernels[band][None]
        own = self.preset.bands[band]
        scale = self.preset.pixel_scale / factor
        fwhm, e1, e2 = (as_tensor(columns[f"psf_{name}_{band}"]) for name in ("fwhm", "e1", "e2"))
        radius = self.radius(band, factor)
        if not (fwhm > fwhm[0]).any() and not (fwhm < fwhm[0]).any() and not e1.any() and not e2.any():
            fwhm, e1, e2 = fwhm[:1], e1[:1], e2[:1]
        return psf_kernel(radius, fwhm / scale, beta=own.psf_beta, e1=e1, e2=e2)

    def observe(self, band: str, image: Tensor, points: Points, columns: Columns, *, spread_out: bool = True) -> Tensor:
        """Return images of one band as the telescope sees them, without noise.

        Parameters
        ----------
        band
            Name of the band.
        image
            Flux in sub-pixels, (N, n, n).
        points
            What is not extended.
        columns
            As of `kernels`.
        spread_out
            Whether light in a sub-pixel is counted as spread over it by the detector; otherwise, as seen at its centre.

        Returns
        -------
        Tensor
            Flux in pixels, (N, pixels, pixels).
        """
        preset, factor = self.preset, self.factor(band)
        width = preset.pixel_scale / factor
        side, radius = preset.pixels * factor, self.radius(band, factor)
        size = size_of(side + radius, factor)
        places = Places(points.image, points.flux, points.places / width + (side - 1) / 2)
        if spread_out and band not in self._kernels:
            fwhm, e1, e2 = (np.asarray(columns[f"psf_{name}_{band}"], np.float64) for name in ("fwhm", "e1", "e2"))
            beta = preset.bands[band].psf_beta
            return spread(image, Seeing(fwhm / width, e1, e2), beta, points=places, factor=factor, size=size)
        # As lenstronomy has it, in double precision: transforms in single precision are off by 1e-6 of the brightest pixel.
        coarse = _binned(image if spread_out else image.double(), preset.supersampling // factor)
        spectrum = torch.fft.rfft2(coarse, s=(size, size))
        across = torch.fft.rfftfreq(size, dtype=coarse.dtype)
        down = torch.fft.fftfreq(size, dtype=coarse.dtype)
        if len(places.image):
            at = torch.from_numpy(places.at)[:, :, None]
            x_wave = torch.exp(-2j * math.pi * at[0] * across)
            y_wave = torch.exp(-2j * math.pi * at[1] * down) * torch.from_numpy(places.flux)[:, None]
            spectrum.index_add_(
                0, torch.from_numpy(places.image), (y_wave[:, :, None] * x_wave[:, None, :]).to(spectrum)
            )
        if spread_out:
            spectrum *= torch.sinc(down)[:, None] * torch.sinc(across)
        kernels = self.kernels(band, columns, factor).to(coarse)
        # Its centre at the corner, where the transform has its origin.
        rolled = pad(kernels, (0, size - kernels.shape[-1], 0, size - kernels.shape[-2])).roll(
            (-radius, -radius), (-2, -1)
        )
        spectrum = spectrum * torch.fft.rfft2(rolled)
        seen = torch.fft.irfft2(spectrum, s=(size, size))[:, :side, :side]
        return _binned(seen, factor).to(image)


def point_fluxes(preset: ScenePreset, columns: Columns) -> list[Points]:
    """Return the points of images in each band.

    Parameters
    ----------
    preset
        Gives bands and zero points.
    columns
        Columns of N images.
    """
    if "point_x" not in columns:
        return [Points(np.zeros(0, int), np.zeros(0), np.zeros((2, 0)))] * len(preset.bands)
    counts = _lengths(columns["point_x"])
    owner = np.repeat(np.arange(len(counts)), counts)
    places = np.stack([_joined(columns["point_x"]), _joined(columns["point_y"])])
    # Far outside, a point would come in at the other side of the periodic transform.
    inside = (np.abs(places) < preset.half_width).all(0)
    return [
        Points(
            owner[inside],
            10 ** (-0.4 * (_joined(columns[f"point_magnitude_{name}"])[inside] - band.zero_point)),
            places[:, inside],
        )
        for name, band in preset.bands.items()
    ]


def _binned(image: Tensor, factor: int) -> Tensor:
    """Flux in pixels from flux in their parts."""
    return image if factor == 1 else bin_pixels(image, factor) * factor**2


def _from_file(name: str, where: str) -> Tensor:
    try:
        kernel = torch.from_numpy(load_image(name)).double()
        return checked_psf(kernel)
    except ValueError as error:
        raise PresetError(f"{where}: {Path(name).name}: {error}") from error


def checked_psf(kernel: Tensor) -> Tensor:
    """Return the kernel of a PSF, (h, w), normalised to sum 1.

    Raises
    ------
    ValueError
        If a side is even, its sum is not above zero, a value is not finite, or its peak is off the centre.
    """
    found = pixelated_psf(kernel)
    peak = np.unravel_index(int(kernel.argmax()), kernel.shape)
    middle = tuple((side - 1) // 2 for side in kernel.shape)
    if max(abs(int(p) - m) for p, m in zip(peak, middle, strict=True)) > 1:
        raise ValueError(f"its peak is at {tuple(map(int, peak))}, not at its centre {middle}")
    return found
