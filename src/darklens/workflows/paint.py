"""Paint lensed sources over a survey's own galaxies: a labelled dataset of lenses that nobody has seen before."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import re
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
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

ONE_VALUE = 0.01
"""Share of an image's pixels with one value above which that value means that there is no data."""

STEEP, MANY = 7.9, 0.25
"""Sérsic index above which a fit is at its bound, and the share of such fits above which that is said. Of 84 simulated
galaxies of `finding-hsc`, fitted with the seeing of others, 13% are."""

APART = 3.0
"""Distance in arcsec within which a known lens is the host, and two cutouts show the same galaxy."""

REDSHIFTS = ("z_phot", "photo_z", "photoz", "zphot", "z_photo", "zphoto", "z_spec", "zspec", "redshift")
"""Columns that are taken for the redshifts of hosts, in this order, in any case. A column ``z`` may be a magnitude."""

LENS_LABELS = {"lens", "lenses", "1", "1.0", "true"}
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
    usable = hosts.filter(pl.col("reason") == "")
    rows = job.chosen(usable, reasons)
    if (steep := int((usable["galaxy_n_sersic"] > STEEP).sum())) > MANY * len(usable):
        job.notes.append(
            f"{steep:,} of {len(usable):,} hosts were fitted with the steepest profile there is: the point-spread function "
            "is likely not that of the images"
        )
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
        writer.finish(rows.drop("reason", "pixels"), info, psf=job.psf_of_rows(rows))
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
        self._given_bands, self._places = cutouts.bands, places
        self.cutouts = cutouts.with_bands([cutouts.bands[place] for place in places])
        self.preset = adapted(preset, names, cutouts.images.shape[-1], cutouts.info.pixel_scale)
        self.bands, self.names = self.cutouts.bands, names
        self.zero_points: list[float | None] = list(self._zero_points())
        own = [band.zero_point for band in self.preset.bands.values()]
        given = np.array(self.zero_points, dtype=np.float64)
        self._factor = 10 ** (-0.4 * (given - np.array(own)))[:, None, None]
        self._file_psf = self._psf_in_file()
        if self._file_psf is None and self.cutouts.psf is None:
            self.notes.append(
                f"point-spread functions are drawn from the seeing of {preset.name}; if that is not your survey's, fits, "
                "arcs and what counts as a point are wrong: --psf gives your own"
            )
        if abs(preset.pixel_scale / self.preset.pixel_scale - 1) > 0.1:
            self.notes.append(
                f"pixels are {self.preset.pixel_scale:.3g}″ wide, and those of {preset.name} {preset.pixel_scale:.3g}″: "
                "is it your survey's preset?"
            )
        self._positions = positions_of(self.cutouts.catalog)
        self._redshift = self._redshift_column()
        self.painter = Painter(self.preset)

    @property
    def shape(self) -> tuple[int, ...]:
        """Bands, height and width of an image."""
        return tuple(self.cutouts.images.shape[1:])

    @cached_property
    def measuring(self) -> dict[str, Any]:
        """All that the measured galaxies depend on, but for the pixels, whose checksums are kept with them."""
        options = dataclasses.asdict(self.options)
        for name in ("psf", "known_lenses"):
            path = getattr(self.options, name)
            options[name] = None if path is None else [str(path), checksum(path)]
        of_choice = ("count", "share", "both", "split")
        catalog = io.BytesIO()
        self.cutouts.catalog.drop("path", strict=False).write_ipc(catalog)
        return {
            "preset": self.preset.resolved, "files": {str(path): checksum(path) for path in self.preset.files},
            "options": {name: value for name, value in options.items() if name not in of_choice},
            "seed": self.seed, "mask": self.mask, "source": self.cutouts.where, "shape": list(self.shape),
            "pixel_scale": self.preset.pixel_scale, "zero_points": self.zero_points, "bands": self.bands,
            "noise": self.cutouts.noise is not None, "psf": self.cutouts.psf is not None, "versions": versions(),
            "catalog": hashlib.sha256(catalog.getvalue()).hexdigest(),
        }  # fmt: skip

    @property
    def fingerprint(self) -> dict[str, Any]:
        """All that the painted images depend on."""
        chosen = {name: getattr(self.options, name) for name in ("count", "share", "both", "split")}
        return self.measuring | {"chosen": chosen}

    def _matched(self, cutouts: Cutouts, preset: ScenePreset) -> tuple[list[str], list[int]]:
        """Names of the preset's bands that the images have, and the places of these."""
        bands = list(preset.bands)
        nameless = all(re.fullmatch(r"(image|band|channel)?[-_ ]?\d*", name.lower()) for name in cutouts.bands)
        if nameless and len(bands) == len(cutouts.bands):
            self.notes.append(
                f"bands {', '.join(cutouts.bands)} are taken for {', '.join(bands)}, as the preset has them"
            )
            return bands, list(range(len(bands)))
        places = counterparts(bands, cutouts.bands)
        found = {name: place for name, place in zip(bands, places, strict=True) if place is not None}
        if not found:
            raise PresetError(
                f"{cutouts.where}: has the bands {', '.join(cutouts.bands)}, none of which is one of preset {preset.name}: "
                f"{', '.join(bands)}; --bands chooses those of images without names, in the preset's order"
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
        if len(numbers) not in (1, len(self._given_bands)) or not np.isfinite(numbers).all():
            raise DataError(
                f"--zero_points takes one number, or one for each of {', '.join(self._given_bands)}; got {given!r}"
            )
        return numbers * len(self.bands) if len(numbers) == 1 else [numbers[place] for place in self._places]

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
            mine = json.loads(json.dumps(self.measuring))
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
        raw, data = self._pixels(rows)
        images, whole = torch.from_numpy(raw * self._factor), self._usable(rows)
        kernels, bad_psf = self._kernels(rows)
        broken = "no pixel is finite" if self.mask else "pixels that are nan or infinite (--mask true uses such images)"
        reasons = ["" if fine else broken for fine in whole]
        reasons = [bad or reason for bad, reason in zip(bad_psf, reasons, strict=True)]
        reasons = ["a known lens" if one else reason for one, reason in zip(known, reasons, strict=True)]
        noise = self._noise(rows, images, data)
        hosts = self.painter.measure(images, noise, self.painter.kernels(observed, kernels))
        reasons = [reason or other for reason, other in zip(reasons, self.painter.unfit(hosts), strict=True)]
        fit = np.flatnonzero([not reason for reason in reasons])
        which, truths = self.painter.draw(rng, hosts, self._redshift[rows[fit]], fit)
        for place in np.setdiff1d(np.arange(len(fit)), which):
            reasons[fit[place]] = "no source behind it that is seen by the preset's rules"
        frame = pl.DataFrame({"host": rows, "reason": reasons, "pixels": _checksums(raw)})
        if observed:
            frame = pl.concat([frame, to_frame(observed)], how="horizontal")
        if not len(which):
            return frame
        lenses = to_frame(truths).with_columns(pl.Series("host", rows[fit[which]]))
        return frame.join(lenses, on="host", how="left", maintain_order="left")

    def _pixels(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (n, bands, H, W) in the cutouts' units, 0 where they are not finite, and which hold data, of bool.

        No data are where the noise says so, and where a hundredth of an image or more has one value: borders, gaps.
        """
        raw = np.asarray(self.cutouts.images[rows], dtype=np.float64)
        data = np.isfinite(raw)
        if self.cutouts.noise is not None:
            noise = np.asarray(self.cutouts.noise[rows], dtype=np.float64)
            data &= np.isfinite(noise) & (noise > 0)
        raw = np.where(np.isfinite(raw), raw, 0)
        for image, good in zip(raw.reshape(-1, *raw.shape[-2:]), data.reshape(-1, *raw.shape[-2:]), strict=True):
            values, counts = np.unique(image, return_counts=True)
            if counts.max() > max(ONE_VALUE * image.size, 1) and not (image == np.rint(image)).all():
                good &= image != values[counts.argmax()]
        return raw, data

    def _usable(self, rows: np.ndarray) -> list[bool]:
        """Which images have finite pixels alone, or may be used without the others."""
        finite = np.isfinite(np.asarray(self.cutouts.images[rows], dtype=np.float64)).reshape(len(rows), -1)
        return np.asarray(finite.any(1) if self.mask else finite.all(1)).tolist()

    def _noise(self, rows: np.ndarray, images: Tensor, data: np.ndarray) -> Tensor:
        """Standard deviation of each pixel's noise, infinite without data."""
        if self.cutouts.noise is None:
            noise = sky_noise_of(images).expand_as(images).numpy()
        else:
            noise = np.asarray(self.cutouts.noise[rows], dtype=np.float64) * self._factor
        return torch.from_numpy(np.where(data, noise, np.inf))

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
            asked = f"{wanted:,} images are asked for" if images > 1 else "two images at least are needed"
            why = ", ".join(f"{count:,} × {reason}" for reason, count in reasons.items())
            raise DataError(
                f"{self.cutouts.where}: {asked}, and {images:,} can be made: of "
                f"{len(self.cutouts):,} cutouts, {len(usable):,} can be hosts{f' ({why})' if why else ''}"
            )
        order = rng.permutation(len(usable))
        lenses = wanted // 2 if options.both else min(max(round(wanted * options.share), 1), wanted - 1)
        painted = usable[order[:lenses]]
        other = painted if options.both else usable[order[lenses:wanted]]
        own = [
            name
            for name in usable.columns
            if name in ("host", "reason", "pixels") or name.startswith(("psf_", "galaxy_"))
        ]
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
        theirs = theirs.rename(_free_names(theirs.columns, found.columns))
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
        raw, data = self._pixels(hosts)
        if (other := np.flatnonzero(rows["pixels"].to_numpy() != _checksums(raw))).size:
            name = rows["host_id"][int(other[0])]
            raise DataError(
                f"{self.cutouts.where}: image {name} is not the one that was measured; remove what is unfinished"
            )
        painted = np.flatnonzero((rows["label"] == "lens").to_numpy())
        if len(painted):
            columns = from_frame(rows[painted].drop("id", "label", "reason", "pixels", "split", "host_id"))
            kernels, _ = self._kernels(hosts[painted])
            arcs = self.painter.arcs(columns, kernels)
            streams = [make_generator(self.seed, "painting", 2, int(host)) for host in hosts[painted]]
            arcs = (arcs + self.painter.photon_noise(arcs, streams)).double().numpy() / self._factor
            for i, arc in zip(painted, arcs, strict=True):
                # Of whole numbers, as detectors count, stay whole numbers.
                added = np.rint(raw[i] + arc) if (raw[i] == np.rint(raw[i])).all() else raw[i] + arc
                raw[i] = np.where(data[i], added, raw[i])
        return raw.astype(np.float32)

    def psf_of_rows(self, rows: pl.DataFrame) -> Callable[[int], dict[str, np.ndarray]] | None:
        """Point-spread functions of the rows by number, where they are known."""
        own, hosts = self.cutouts.psf, rows["host"].to_numpy()
        if self._file_psf is not None:
            kernels = dict.fromkeys(self.bands, self._file_psf[0].numpy())
            return lambda row: kernels
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


def _checksums(images: np.ndarray) -> list[int]:
    """A checksum of the pixels of each image (N, …)."""
    return [zlib.crc32(image.tobytes()) for image in np.ascontiguousarray(images)]


def _free_names(names: Sequence[str], taken: Sequence[str]) -> dict[str, str]:
    """New names, ``catalog_NAME``, of those that are taken."""
    found: dict[str, str] = {}
    for name in names:
        new = name
        while new in taken or new in found.values() or (new != name and new in names):
            new = f"catalog_{new}"
        if new != name:
            found[name] = new
    return found
