"""Distributions of simulated lenses beside those of published forecasts and samples: medians, ranges, distances, a figure.

    python benchmarks/populations.py FOLDER --out populations.json --figure docs/_static/populations.jpg

FOLDER holds copies of four tables, which are not part of darklens:

- ``lenses_LSSTc.txt`` and ``lenses_Euclid.txt``: the forecast of Collett (2015, ApJ 811, 20), repository tcollett/LensPop;
- ``SLACS_table.cat``: 59 lenses of SLACS with the measurements of Auger et al. (2009, ApJ 705, 1099), repository
  astrosonnen/strong_lensing_tools, folder papers/slacs_selection;
- ``catalog.csv``: lenscat (repository lenscat/lenscat, folder lenscat/data), of which those lenses are taken that cite
  Sonnenfeld et al. (2013, ApJ 777, 97 and 98). They are 12 of the 56 of SL2S, with redshifts of the deflectors alone, so
  that Einstein radii of SL2S are not compared.

Cuts that are applied are in `comparisons`. Samples are selected in other ways too, which are not: SLACS by a spectrum
within 1.5″ of the deflector, SL2S by eye. The distance is that of Kolmogorov and Smirnov, the largest difference of the
cumulative distributions, with the central 95% of `ROUNDS` resamples of both; resampling adds noise, so that for small
samples both ends are too high.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from scipy.stats import ks_2samp

from darklens.data.readers.tables import read_csv
from darklens.errors import DataError
from darklens.simulation import ScenePreset, Simulator, load_preset
from darklens.simulation.scenes.sky import Galaxies, Sky, extended_magnification

ROUNDS = 400

LABELS = {
    "theta_E": "Einstein radius (arcsec)",
    "z_lens": "redshift of the lens",
    "z_source": "redshift of the source",
    "sigma_v": "velocity dispersion (km/s)",
    "lens_magnitude": "lens, AB magnitude",
    "source_magnitude": "source unlensed, AB magnitude",
    "source_radius": "source half-light radius (arcsec)",
}
RANGES = {
    "theta_E": (0.3, 3.0), "z_lens": (0, 2), "z_source": (0, 6), "sigma_v": (100, 420), "lens_magnitude": (14, 24),
    "source_magnitude": (21, 29), "source_radius": (0, 1)
}  # fmt: skip

LENSPOP = {"z_lens": 0, "z_source": 1, "theta_E": 2, "sigma_v": 3, "lens_radius": 5}
"""Columns of a table of LensPop, as its header numbers them; those of magnitudes differ from survey to survey."""

SL2S = ("1307.4759", "1307.4764")
"""Numbers on arXiv of Sonnenfeld et al. (2013), by which lenscat names them."""

Sample = dict[str, np.ndarray]


class Comparison(NamedTuple):
    """Two samples after the cuts that are applied to both, the cuts in words, and ratios of `snr_ratios`."""

    title: str
    ours: Sample
    theirs: Sample
    cuts: str
    snr_ratio: np.ndarray | None = None


def drawn(preset: ScenePreset, count: int, seed: int) -> Sample:
    """Return lenses of a preset's class ``lens`` by quantity, each (count,); ``snr`` is that of the arc."""
    sky = Sky(preset)
    lenses = sky.lenses(np.random.default_rng(seed), count)
    return {
        "theta_E": lenses.theta_E, "z_lens": lenses.deflector.z, "z_source": lenses.source.z, "sigma_v": lenses.sigma_v,
        "lens_magnitude": lenses.deflector.magnitudes[:, sky.detection],
        "source_magnitude": lenses.source.magnitudes[:, sky.detection], "source_radius": lenses.source.R_sersic,
        "snr": lenses.arc_snr,
    }  # fmt: skip


def without_contrast(preset: ScenePreset) -> ScenePreset:
    """Return a preset with the rules of Collett (2015), who asks for no contrast of arc and deflector."""
    return dataclasses.replace(preset, rules=dataclasses.replace(preset.rules, arc_contrast=0.0))


def lenspop(path: Path, others: Mapping[str, int]) -> Sample:
    """Return the columns of a table of LensPop by quantity, those of `LENSPOP` and others, each (N,)."""
    table = np.loadtxt(path)
    return {name: table[:, number] for name, number in {**LENSPOP, **others}.items()}


def slacs(path: Path) -> Sample:
    """Return redshifts, Einstein radii and velocity dispersions of the lenses of SLACS, each (N,)."""
    table = np.loadtxt(path, usecols=(3, 4, 7, 11))
    return dict(zip(("z_lens", "z_source", "theta_E", "sigma_v"), table.T, strict=True))


def sl2s(path: Path) -> Sample:
    """Return redshifts of the deflectors of SL2S in the table of lenscat, (N,)."""
    table = read_csv(path, text=("zlens",))
    cited = table.filter(pl.col("ref").str.contains_any(list(SL2S)) & (pl.col("type") == "galaxy"))
    found = []
    for stated, references in cited.select("zlens", "ref").iter_rows():
        # One redshift for each reference, in their order.
        by_reference = zip(stated.split(" | "), references.split(" | "), strict=True)
        numbers = [value for value, ref in by_reference if any(number in ref for number in SL2S)]
        found += [float(value) for value in numbers[:1] if value.replace(".", "", 1).isdigit()]
    return {"z_lens": np.array(found)}


def cut(sample: Sample, **bounds: tuple[float, float]) -> Sample:
    """Return what is within bounds in each quantity."""
    keep = np.all([(sample[name] > low) & (sample[name] < high) for name, (low, high) in bounds.items()], axis=0)
    return {name: values[keep] for name, values in sample.items()}


def comparisons(folder: Path, count: int, seed: int) -> list[Comparison]:
    """Return all comparisons; ``folder`` holds the tables, ``count`` lenses are drawn of each preset before cuts."""
    found = []
    lsst = {"lens_magnitude": 8, "x": 9, "y": 10, "source_radius": 13, "source_magnitude": 16, "snr": 23}
    euclid = {"lens_magnitude": 6, "x": 7, "y": 8, "source_radius": 11, "source_magnitude": 12, "snr": 15}
    tables = {
        "lsst": lenspop(folder / "lenses_LSSTc.txt", lsst),
        "euclid": lenspop(folder / "lenses_Euclid.txt", euclid),
    }
    for survey, theirs in tables.items():
        preset = scenes(f"finding-{survey}")
        rules = preset.rules
        bounds = {"theta_E": rules.theta_E, "lens_magnitude": (0, rules.magnitude), "snr": (rules.arc_snr, np.inf)}
        bounds["z_lens"] = (0, preset.z_lens)
        band = preset.detection_band
        text = (
            f"{rules.theta_E[0]} < theta_E < {rules.theta_E[1]}, {band} of the deflector < {rules.magnitude}, "
            f"signal-to-noise ratio in {band} > {rules.arc_snr:.0f}, z_lens < {preset.z_lens}"
        )
        for note, own in (("", preset), (", Collett's rules", without_contrast(preset))):
            ours = cut(drawn(own, count, seed), **bounds)
            title = f"finding-{survey}{note} and Collett (2015)"
            kept = cut(theirs, **bounds)
            found.append(Comparison(title, ours, kept, text, snr_ratios(own, kept)))
    hsc = drawn(scenes("finding-hsc"), 4 * count, seed)
    spectra = slacs(folder / "SLACS_table.cat")
    bounds = {"z_lens": (0.06, 0.36), "z_source": (0, 1.31)}
    found.append(Comparison("finding-hsc and SLACS", hsc, spectra, "none"))
    text = "0.06 < z_lens < 0.36, z_source < 1.31, as all of SLACS are"
    found.append(Comparison("finding-hsc at the redshifts of SLACS", cut(hsc, **bounds), spectra, text))
    found.append(Comparison("finding-hsc and SL2S", hsc, sl2s(folder / "catalog.csv"), "none"))
    one = {"theta_E": np.asarray(Simulator("substructure-hst", seed=seed).catalog(count)["theta_E"])}
    found.append(Comparison("substructure-hst and SLACS", one, spectra, "none; its redshifts are fixed, 0.5 and 1"))
    return found


def snr_ratios(preset: ScenePreset, theirs: Sample) -> np.ndarray:
    """Return the signal-to-noise ratios that darklens estimates of the lenses of LensPop over those stated there, (N,)."""
    sky, one = Sky(preset), np.ones(len(theirs["snr"]))

    def galaxies(what: str, z: str, index: float) -> Galaxies:
        magnitudes = np.repeat(theirs[f"{what}_magnitude"][:, None], len(preset.bands), 1)
        radius = theirs[f"{what}_radius"].clip(0.01)
        return Galaxies(theirs[z], one, magnitudes, radius, index * one, 0 * one, 0 * one)

    source, lens = galaxies("source", "z_source", 1), galaxies("lens", "z_lens", 4)
    beta = np.hypot(theirs["x"], theirs["y"])
    magnification = extended_magnification(theirs["theta_E"], beta, source.R_sersic)
    ratios: np.ndarray = sky.arc_visibility(source, lens, theirs["theta_E"], magnification)[0] / theirs["snr"]
    return ratios


def scenes(name: str) -> ScenePreset:
    """Return a built-in preset of scenes."""
    preset = load_preset(name)
    assert isinstance(preset, ScenePreset)
    return preset


def distance(ours: np.ndarray, theirs: np.ndarray, seed: int = 0, rounds: int = ROUNDS) -> dict[str, float]:
    """Return the distance of Kolmogorov and Smirnov of two samples, with the central 95% of resamples of both."""
    rng = np.random.default_rng(seed)
    values = [ks_2samp(rng.choice(ours, len(ours)), rng.choice(theirs, len(theirs)), method="asymp").statistic
              for _ in range(rounds)]  # fmt: skip
    low, high = np.percentile(values, [2.5, 97.5])
    return {"value": float(ks_2samp(ours, theirs, method="asymp").statistic), "low": float(low), "high": float(high)}


def summary(values: np.ndarray) -> dict[str, float]:
    """Return the median and the central 68% of values."""
    low, middle, high = np.percentile(values, [16, 50, 84])
    return {"median": float(middle), "p16": float(low), "p84": float(high)}


def record(comparison: Comparison) -> dict[str, Any]:
    """Return the figures of a comparison: of each quantity that both samples have, medians, ranges and the distance."""
    ours, theirs = comparison.ours, comparison.theirs
    shared = [name for name in LABELS if name in ours and name in theirs]
    if not shared or not all(len(sample[name]) for sample in (ours, theirs) for name in shared):
        raise DataError(f"{comparison.title}: nothing is left to compare")
    ratio = {} if comparison.snr_ratio is None else {"snr_ratio": summary(comparison.snr_ratio)}
    return ratio | {
        "cuts": comparison.cuts,
        "lenses": {"ours": len(ours[shared[0]]), "theirs": len(theirs[shared[0]])},
        "quantities": {
            name: {
                "ours": summary(ours[name]),
                "theirs": summary(theirs[name]),
                "ks": distance(ours[name], theirs[name]),
            }
            for name in shared
        },
    }


def draw(found: Mapping[str, Comparison], path: Path) -> None:
    """Draw histograms of each quantity, a row for LSST, for Euclid and for known lenses, into an image file."""
    from matplotlib.figure import Figure

    lsst, euclid = ([name for name in found if f"finding-{survey}" in name] for survey in ("lsst", "euclid"))
    slacs_only, sl2s_only = found["finding-hsc at the redshifts of SLACS"], found["finding-hsc and SL2S"]
    rows: list[list[tuple[str, Sample, dict[str, Any]]]] = []
    band = {"color": "0.75", "histtype": "stepfilled"}
    for names, preset in ((lsst, "finding-lsst"), (euclid, "finding-euclid")):
        shipped, loose = (found[name] for name in names)
        rows.append(
            [
                ("Collett (2015)", shipped.theirs, band),
                (preset, shipped.ours, {"color": "C0"}),
                (f"{preset}, Collett's rules", loose.ours, {"color": "C0", "linestyle": "--"}),
            ]
        )
    rows.append(
        [
            ("SLACS", slacs_only.theirs, band),
            ("SL2S", sl2s_only.theirs, {"color": "C1"}),
            ("finding-hsc", sl2s_only.ours, {"color": "C0"}),
            ("finding-hsc, redshifts of SLACS", slacs_only.ours, {"color": "C0", "linestyle": "--"}),
        ]
    )
    figure = Figure(figsize=(16, 8), layout="constrained")
    axes = figure.subplots(3, len(LABELS))
    for line, samples in zip(axes, rows, strict=True):
        for axis, (name, label) in zip(line, LABELS.items(), strict=True):
            edges = np.linspace(*RANGES[name], 31)
            for title, sample, style in samples:
                if name in sample:
                    few = edges[::2] if len(sample[name]) < 200 else edges
                    kind = {"histtype": "step", "linewidth": 1.4} | style
                    axis.hist(sample[name], few, density=True, label=title, **kind)
            axis.set_xlabel(label, fontsize=9)
            axis.set_xlim(*RANGES[name])
            axis.set_yticks([])
        line[0].set_ylabel("share of lenses")
        shown = {t: h for axis in line for h, t in zip(*axis.get_legend_handles_labels(), strict=True)}
        line[0].set_title(" ", fontsize=15)  # room for the legend
        handles, titles = list(shown.values()), list(shown)
        legend = line[0].legend(handles, titles, loc="lower left", bbox_to_anchor=(-0.05, 0.99), ncols=4, frameon=False)
        legend.set_in_layout(False)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the published tables")
    parser.add_argument("--count", type=int, default=4000, help="lenses drawn of each preset, before cuts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    parser.add_argument("--figure", type=Path, help="an image file for the histograms")
    options = parser.parse_args()
    found = {each.title: each for each in comparisons(options.folder, options.count, options.seed)}
    results = {title: record(each) for title, each in found.items()}
    for title, result in results.items():
        print(f"\n{title}: {result['lenses']['ours']} and {result['lenses']['theirs']} lenses; cuts: {result['cuts']}")
        if "snr_ratio" in result:
            ratio = "{median:.2f} ({p16:.2f} to {p84:.2f})".format(**result["snr_ratio"])
            print(f"  of their lenses, our estimate of the signal-to-noise ratio over theirs: {ratio}")
        for name, quantity in result["quantities"].items():
            ours, theirs = (
                f"{quantity[who]['median']:.2f} ({quantity[who]['p16']:.2f} to {quantity[who]['p84']:.2f})"
                for who in ("ours", "theirs")
            )
            ks = quantity["ks"]
            print(f"  {name:17}{ours:26}{theirs:26}distance {ks['value']:.2f} ({ks['low']:.2f} to {ks['high']:.2f})")
    if options.out is not None:
        options.out.write_text(json.dumps({"seed": options.seed, "count": options.count} | results, indent=2))
    if options.figure is not None:
        draw(found, options.figure)


if __name__ == "__main__":
    main()
