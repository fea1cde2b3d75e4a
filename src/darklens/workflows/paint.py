"""Paint lensed sources over a survey's own galaxies: a labelled dataset of lenses that nobody has seen before."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from darklens.data.bands import counterparts
from darklens.data.dataset import Cutouts, DatasetWriter, checksum, versions
from darklens.data.positions import lenscat_table, near, objects_at, positions_of, read_positions
from darklens.data.seeds import make_generator
from darklens.data.splits import split_rows
from darklens.errors import DataError, PresetError
from darklens.paths import check_absent, only_one
from darklens.progress import progress_bar
from darklens.simulation.columns import from_frame, to_frame
from darklens.simulation.image_files import load_image
from darklens.simulation.scenes.painting import Painter, adapted, sky_noise_of
from darklens.simulation.scenes.presets import ScenePreset
from darklens.simulation.scenes.rendering import checked_psf
from darklens.workflows.options import PaintOptions

BLOCK = 64
"""Hosts that are measured, and images that are painted, at once: what an interruption loses at most."""

APART = 3.0
"""Distance in arcsec within which a known lens is the host, and two cutouts show the same galaxy."""

REDSHIFTS = ("z_phot", "photo_z", "photoz", "zphot", "z_photo", "zphoto", "z_spec", "zspec", "redshift")
"""Columns that are taken for the redshifts of hosts, in this order, in any case. A column ``z`` may be a magnitude."""

LENS_LABELS = {"lens", "lenses", "1"}
"""Labels of cutouts that are no hosts, as they show a lens already."""


@dataclass(frozen=True)
class Painted:
    """What was painted: the folder, how many lenses and other images, and why how many cutouts were left out."""

    path: Path
    lenses: int
    others: int
    left_out: dict[str, int]
    notes: list[str]


def paint(
    cutouts: Cutouts,
    preset: ScenePreset,
    out: Path,
    *,
    options: PaintOptions = PaintOptions(),
    seed: int = 0,
    mask: bool = False,
) -> Painted:
    """Write a dataset of lenses painted over real galaxies, and of other galaxies as they are.

    First all hosts are measured and a source is drawn behind each; those that show no lens by the preset's rules are left
    out, of the lenses and of the other images alike, so that nothing about a galaxy tells to which it belongs. Which are
    painted is then drawn at random. An interrupted painting goes on where it stopped.

    Parameters
    ----------
    cutouts
        Images of galaxies, each at the centre of its image, in linear units.
    preset
        Of scenes: gives sources, rules, seeing and photons.
    out
        The folder to make.
    options
        How many, and what is known of the cutouts.
    seed
        Of all random numbers.
    mask
        Set pixels that are nan or infinite to 0, and use such cutouts; otherwise they are left out.

    Returns
    -------
    Painted
        The dataset and what is in it.

    Raises
    ------
    DataError
        If the cutouts lack what is needed (the message says which option gives it), or hosts are fewer than asked for.
    PresetError
        If the preset lacks the bands.
    """
    check_absent(out)
    fractions = options.fractions
    job = _Job(cutouts, preset, options, seed, mask)
    hosts = job.measured(out.with_name(out.name + ".hosts"))
    left_out = hosts.filter(pl.col("reason") != "")["reason"].value_counts().sort("count", descending=True)
    reasons = dict(zip(left_out["reason"], left_out["count"], strict=True))
    rows = job.chosen(hosts.filter(pl.col("reason") == ""), reasons)
    rows = rows.with_columns(job.split(rows, fractions))
    fingerprint = job.fingerprint | {"rows": len(rows)}
    info = dataclasses.replace(
        cutouts.info, source=f"painted:{cutouts.where}", classes=["nonlens", "lens"], layout="dataset", seed=seed,
        bands=job.bands, zero_points=job.zero_points, preset={"name": preset.name, **preset.resolved},
        notes=[*cutouts.info.notes, *job.notes], checksum=None, psf_sizes=None,
    )  # fmt: skip
    shape = (len(rows), *job.shape)
    with (
        DatasetWriter(out, shape, np.dtype(np.float32), fingerprint=fingerprint) as writer,
        progress_bar("painting") as advance,
    ):
        for start in range(writer.done, len(rows), BLOCK):
            part = rows[start : start + BLOCK]
            writer.write(start, job.images(part))
            writer.checkpoint(start + len(part))
            advance(start + len(part), len(rows))
        writer.finish(rows.drop("reason"), info, psf=job.psf_of_rows(rows))
    shutil.rmtree(out.with_name(out.name + ".hosts"), ignore_errors=True)
    lenses = int((rows["label"] == "lens").sum())
    return Painted(out, lenses, len(rows) - lenses, reasons, job.notes)


class _Job:
    """One painting: the cutouts in the preset's units, and what is known of them."""

    def __init__(self, cutouts: Cutouts, preset: ScenePreset, options: PaintOptions, seed: int, mask: bool):
        self.options, self.seed, self.mask = options, seed, mask
        self.notes: list[str] = []
        if cutouts.images.shape[-1] != cutouts.images.shape[-2]:
            raise DataError(
                f"{cutouts.where}: images must be square; got {cutouts.images.shape[-2:]}. --crop cuts them"
            )
        if cutouts.info.pixel_scale is None:
            raise DataError(f"{cutouts.where}: the pixel scale is not known; --pixel_scale gives it, in arcsec")
        names, places = self._matched(cutouts, preset)
        self.cutouts = cutouts.with_bands([cutouts.bands[place] for place in places])
        self.preset = adapted(preset, names, cutouts.images.shape[-1], cutouts.info.pixel_scale)
        self.bands, self.names = self.cutouts.bands, names
        self.zero_points: list[float | None] = list(self._zero_points())
        own = [band.zero_point for band in self.preset.bands.values()]
        given = np.array(self.zero_points, dtype=np.float64)
        self._factor = 10 ** (-0.4 * (given - np.array(own)))[:, None, None]
        self._file_psf = self._psf_in_file()
        if self._file_psf is None and self.cutouts.psf is None:
            self.notes.append(f"point-spread functions are drawn from the seeing of {preset.name}")
        self._positions = positions_of(self.cutouts.catalog)
        self._redshift = self._redshift_column()
        self.painter = Painter(self.preset)

    @property
    def shape(self) -> tuple[int, ...]:
        """Bands, height and width of an image."""
        return tuple(self.cutouts.images.shape[1:])

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """All that the painted images depend on."""
        options = dataclasses.asdict(self.options)
        for name in ("psf", "known_lenses"):
            path = getattr(self.options, name)
            options[name] = None if path is None else [str(path), checksum(path)]
        return {
            "preset": self.preset.resolved, "files": {str(path): checksum(path) for path in self.preset.files},
            "options": options, "seed": self.seed, "mask": self.mask, "source": self.cutouts.where,
            "pixel_scale": self.preset.pixel_scale, "zero_points": self.zero_points, "bands": self.bands,
            "ids": hashlib.sha256("\n".join(self.cutouts.ids).encode()).hexdigest(), "versions": versions(),
        }  # fmt: skip

    def _matched(self, cutouts: Cutouts, preset: ScenePreset) -> tuple[list[str], list[int]]:
        """Names of the preset's bands that the images have, and the places of these."""
        bands = list(preset.bands)
        if not cutouts.info.bands and len(bands) == cutouts.images.shape[1]:
            self.notes.append(f"bands without names are taken for {', '.join(bands)}, as the preset has them")
            return bands, list(range(len(bands)))
        places = counterparts(bands, cutouts.bands)
        found = {name: place for name, place in zip(bands, places, strict=True) if place is not None}
        if not found:
            raise PresetError(
                f"{cutouts.where}: has the bands {', '.join(cutouts.bands)}, none of which is one of preset {preset.name}: "
                f"{', '.join(bands)}"
            )
        if left := [name for i, name in enumerate(cutouts.bands) if i not in found.values()]:
            self.notes.append(f"bands left out, which preset {preset.name} lacks: {', '.join(left)}")
        return list(found), list(found.values())

    def _zero_points(self) -> list[float]:
        given = self.options.zero_points
        if given is None:
            known = self.cutouts.info.zero_points or [None] * len(self.bands)
            if missing := [name for name, value in zip(self.bands, known, strict=True) if value is None]:
                raise DataError(
                    f"{self.cutouts.where}: no zero point of band {', '.join(missing)}; --zero_points gives them, AB "
                    "magnitudes of 1 in the images' unit"
                )
            return [float(value) for value in known if value is not None]
        try:
            numbers = [float(part) for part in given.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) not in (1, len(self.bands)) or not np.isfinite(numbers).all():
            raise DataError(
                f"--zero_points takes one number, or one for each of {', '.join(self.bands)}; got {given!r}"
            )
        return numbers * (len(self.bands) // len(numbers))

    def _psf_in_file(self) -> Tensor | None:
        path = self.options.psf
        if path is None:
            return None
        _check_psf_scale(path, self.preset.pixel_scale)
        try:
            return checked_psf(torch.from_numpy(load_image(str(path))))[None]
        except ValueError as error:
            raise DataError(f"--psf {path}: {error}") from error

    def _redshift_column(self) -> np.ndarray:
        """Redshifts of the hosts, nan where they are not known, (N,)."""
        column = self.options.redshift
        if column is None:
            lower = {name.lower(): name for name in reversed(self.cutouts.catalog.columns)}
            column = next((lower[name] for name in REDSHIFTS if name in lower), None)
            said = f"redshifts are those of the column {column}" if column else (
                "redshifts are drawn by the magnitudes of the hosts; --redshift names a column that has them"
            )  # fmt: skip
            self.notes.append(said)
        if column is None:
            return np.full(len(self.cutouts), np.nan)
        values = np.array(self.cutouts.values(column))
        wrong = np.isfinite(values) & ((values <= 0) | (values > self.preset.z_source))
        if wrong.all():
            raise DataError(f"column {column}: no redshift is between 0 and {self.preset.z_source:g}")
        values[wrong] = np.nan
        if missing := int((~np.isfinite(values)).sum()):
            self.notes.append(
                f"{missing:,} hosts without a redshift between 0 and {self.preset.z_source:g}: it is drawn"
            )
        return values

    def measured(self, folder: Path) -> pl.DataFrame:
        """A row for each host: why it is left out, or the truths of the lens that it could be."""
        with only_one(folder, "measuring galaxies"), progress_bar("measuring galaxies") as advance:
            state, parts = folder / "fingerprint.json", []
            mine = json.loads(json.dumps(self.fingerprint))
            if state.is_file() and json.loads(state.read_text("utf-8")) != mine:
                raise DataError(f"{folder}: left by a run with other settings; remove it, or choose another --out")
            state.write_text(json.dumps(mine), "utf-8")
            known = self._known_lenses()
            for start in range(0, len(self.cutouts), BLOCK):
                path = folder / f"{start:012d}.parquet"
                if not path.is_file():
                    rows = np.arange(start, min(start + BLOCK, len(self.cutouts)))
                    temporary = path.with_suffix(".tmp")
                    self._measured(rows, known[rows]).write_parquet(temporary)
                    temporary.replace(path)
                parts.append(pl.read_parquet(path))
                advance(min(start + BLOCK, len(self.cutouts)), len(self.cutouts))
        return pl.concat(parts, how="diagonal_relaxed")

    def _measured(self, rows: np.ndarray, known: np.ndarray) -> pl.DataFrame:
        rng = make_generator(self.seed, "painting", 0, int(rows[0]) // BLOCK)
        observed = self.painter.observed(rng, len(rows))
        images, whole = self._pixels(rows)
        kernels, bad_psf = self._kernels(rows)
        broken = "no pixel is finite" if self.mask else "pixels that are nan or infinite (--mask true uses such images)"
        reasons = ["" if fine else broken for fine in whole]
        reasons = [bad or reason for bad, reason in zip(bad_psf, reasons, strict=True)]
        reasons = ["a known lens" if one else reason for one, reason in zip(known, reasons, strict=True)]
        noise = self._noise(rows, images)
        hosts = self.painter.measure(images, noise, self.painter.kernels(observed, kernels))
        reasons = [reason or other for reason, other in zip(reasons, self.painter.unfit(hosts), strict=True)]
        fit = np.flatnonzero([not reason for reason in reasons])
        which, truths = self.painter.draw(rng, hosts, self._redshift[rows[fit]], fit)
        for place in np.setdiff1d(np.arange(len(fit)), which):
            reasons[fit[place]] = "no source behind it that is seen by the preset's rules"
        frame = pl.DataFrame({"host": rows, "reason": reasons}) if not observed else pl.concat(
            [pl.DataFrame({"host": rows, "reason": reasons}), to_frame(observed)], how="horizontal"
        )  # fmt: skip
        if not len(which):
            return frame
        lenses = to_frame(truths).with_columns(pl.Series("host", rows[fit[which]]))
        return frame.join(lenses, on="host", how="left", maintain_order="left")

    def _pixels(self, rows: np.ndarray) -> tuple[Tensor, list[bool]]:
        """Images in the preset's units, 0 where they are not finite, and which may be used."""
        raw = np.asarray(self.cutouts.images[rows], dtype=np.float64)
        finite = np.isfinite(raw)
        flat = finite.reshape(len(rows), -1)
        usable = np.asarray(flat.any(1) if self.mask else flat.all(1))
        return torch.from_numpy(np.where(finite, raw, 0) * self._factor), usable.tolist()

    def _noise(self, rows: np.ndarray, images: Tensor) -> Tensor:
        if self.cutouts.noise is None:
            return sky_noise_of(images).expand_as(images)
        noise = np.asarray(self.cutouts.noise[rows], dtype=np.float64) * self._factor
        return torch.from_numpy(np.where(np.isfinite(noise) & (noise > 0), noise, np.inf))

    def _kernels(self, rows: np.ndarray) -> tuple[dict[str, Tensor], list[str]]:
        """Point-spread functions of images by the preset's band, and what is wrong with those of each image."""
        if self._file_psf is not None:
            return dict.fromkeys(self.names, self._file_psf), [""] * len(rows)
        if self.cutouts.psf is None:
            return {}, [""] * len(rows)
        reasons, found = [""] * len(rows), list[list[Tensor]]()
        for i, row in enumerate(rows):
            of_image = self.cutouts.psf(int(row))
            found.append([])
            for band in self.bands:
                kernel = torch.ones(1, 1, dtype=torch.float64)
                try:
                    kernel = checked_psf(torch.from_numpy(np.array(of_image[band], dtype=np.float64)))
                except KeyError:
                    reasons[i] = f"no point-spread function of band {band}"
                except ValueError as error:
                    reasons[i] = f"point-spread function of band {band}: {error}"
                found[-1].append(kernel)
        kernels = {}
        for k, name in enumerate(self.names):
            side = max(max(of[k].shape) for of in found)
            kernels[name] = torch.stack([_padded(of[k], side) for of in found])
        return kernels, reasons

    def _known_lenses(self) -> np.ndarray:
        """Which hosts are known lenses, (N,) of bool."""
        found = np.zeros(len(self.cutouts), dtype=bool)
        if "label" in self.cutouts.catalog.columns:
            labels = self.cutouts.catalog["label"].cast(pl.String).str.to_lowercase()
            found |= labels.is_in(list(LENS_LABELS)).fill_null(value=False).to_numpy()
        tables = [path for path in (self.options.known_lenses, lenscat_table()) if path is not None]
        places = self._positions
        if places is None:
            if self.options.known_lenses is not None:
                raise DataError(f"{self.cutouts.where}: no columns ra and dec, by which known lenses could be found")
            self.notes.append("known lenses cannot be left out: the images have no ra and dec")
            return found
        for path in tables:
            found |= near(places, read_positions(path), APART)
        if not tables:
            self.notes.append(
                "known lenses are not looked for: --known_lenses names a table; pip install 'darklens[lenses]' brings one"
            )
        return found

    def chosen(self, usable: pl.DataFrame, reasons: Mapping[str, int]) -> pl.DataFrame:
        """Rows of the images, in their order: which hosts are painted, and which are left as they are."""
        options, rng = self.options, make_generator(self.seed, "painting", 1)
        if self._positions is not None:
            objects = objects_at(self._positions[usable["host"].to_numpy()], APART)
            usable = usable.filter(pl.Series(_first(objects)))
        images = 2 * len(usable) if options.both else len(usable)
        wanted = options.count or images
        if wanted > images or images < 2:
            why = ", ".join(f"{count:,} × {reason}" for reason, count in reasons.items())
            raise DataError(
                f"{self.cutouts.where}: {wanted:,} images are asked for, and {images:,} can be made: of "
                f"{len(self.cutouts):,} cutouts, {len(usable):,} can be hosts{f' ({why})' if why else ''}"
            )
        order = rng.permutation(len(usable))
        lenses = wanted // 2 if options.both else min(max(round(wanted * options.share), 1), wanted - 1)
        painted = usable[order[:lenses]]
        other = painted if options.both else usable[order[lenses:wanted]]
        own = [name for name in usable.columns if name in ("host", "reason") or name.startswith(("psf_", "galaxy_"))]
        labelled = {"lens": painted, "nonlens": other.select(own)}
        found = pl.concat(
            [rows.with_columns(pl.lit(label).alias("label")) for label, rows in labelled.items()],
            how="diagonal_relaxed",
        )
        found = found[rng.permutation(len(found))]
        hosts = found["host"].to_numpy()
        ids = pl.Series("host_id", self.cutouts.ids)[hosts]
        suffix = pl.when(pl.col("label") == "lens").then(pl.lit("-painted")).otherwise(pl.lit(""))
        found = found.with_columns(ids).with_columns((pl.col("host_id") + suffix).alias("id"))
        theirs = self.cutouts.catalog.drop("id", "label", "split", strict=False)[hosts]
        theirs = theirs.rename({name: f"catalog_{name}" for name in theirs.columns if name in found.columns})
        return pl.concat([found.select("id", pl.exclude("id")), theirs], how="horizontal")

    def split(self, rows: pl.DataFrame, fractions: Mapping[str, float]) -> pl.Series:
        """The part that each row is in; both images of a galaxy are in the same."""
        hosts = rows.unique("host", keep="first", maintain_order=True).select("host", "label")
        parts = split_rows(hosts, fractions, self.seed, stratify=None if self.options.both else "label")
        of_host = dict(zip(hosts["host"], parts.tolist(), strict=True))
        return pl.Series("split", [of_host[host] for host in rows["host"]])

    def images(self, rows: pl.DataFrame) -> np.ndarray:
        """Images (n, bands, H, W) of rows, in the unit of the cutouts."""
        hosts = rows["host"].to_numpy()
        raw = np.asarray(self.cutouts.images[hosts], dtype=np.float64)
        finite = np.isfinite(raw)
        raw = np.where(finite, raw, 0)
        painted = np.flatnonzero((rows["label"] == "lens").to_numpy())
        if len(painted):
            columns = from_frame(rows[painted].drop("id", "label", "reason", "split", "host_id"))
            kernels, _ = self._kernels(hosts[painted])
            arcs = self.painter.arcs(columns, kernels)
            streams = [make_generator(self.seed, "painting", 2, int(host)) for host in hosts[painted]]
            arcs = (arcs + self.painter.photon_noise(arcs, streams)).double().numpy() / self._factor
            raw[painted] += np.where(finite[painted], arcs, 0)
        return raw.astype(np.float32)

    def psf_of_rows(self, rows: pl.DataFrame) -> Callable[[int], dict[str, np.ndarray]] | None:
        """Point-spread functions of the rows by number, where the cutouts have their own."""
        own, hosts = self.cutouts.psf, rows["host"].to_numpy()
        return None if own is None else lambda row: own(int(hosts[row]))


def _padded(kernel: Tensor, side: int) -> Tensor:
    """A kernel in the middle of a square of zeros of odd side."""
    down, across = ((side - n) // 2 for n in kernel.shape)
    return torch.nn.functional.pad(kernel, (across, across, down, down))


def _check_psf_scale(path: Path, pixel_scale: float) -> None:
    """Refuse a FITS file that says that its pixels are others than those of the images."""
    if path.suffix == ".npy" or not path.is_file():
        return
    from astropy.io import fits
    from astropy.wcs import WCS
    from astropy.wcs.utils import proj_plane_pixel_scales

    header = fits.getheader(path)
    wcs = WCS(header)
    if wcs.has_celestial:
        scale = float(proj_plane_pixel_scales(wcs.celestial)[0]) * 3600
        if abs(scale / pixel_scale - 1) > 0.01:
            raise DataError(
                f"--psf {path}: its pixels are {scale:.4g}″ wide, and those of the images {pixel_scale:.4g}″; resample it"
            )


def _first(groups: np.ndarray) -> np.ndarray:
    """Which entries are the first of their value, (N,) of bool."""
    found = np.zeros(len(groups), dtype=bool)
    found[np.unique(groups, return_index=True)[1]] = True
    return found
