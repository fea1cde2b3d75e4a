"""How lens finders that were trained on simulations rank real lenses.

    darklens simulate finding-ps1 --count 30720 --seed 1001 --out data/ps1
    darklens train finding/darklens --data data/ps1 --preprocessing.crop 32 --trainer.epochs 6 --out runs/ps1
    python benchmarks/finding_real.py fields PATH/ps1_lenses --model runs/ps1
    python benchmarks/finding_real.py pictures data/ground --out data/colours
    darklens train finding/darklens --data data/colours --trainer.epochs 4 --out runs/colours
    python benchmarks/finding_real.py graded PATH/cfhtls_candidates --pixel_scale 0.186 --model runs/colours
    darklens simulate finding-euclid --count 20480 --seed 2001 --out data/euclid-test
    python benchmarks/finding_real.py placed PATH/euclid_q1 --model finding-euclid --data data/euclid-test
    darklens simulate finding-hsc --count 20480 --seed 2001 --out data/hsc-test
    python benchmarks/finding_real.py placed PATH/hsc_lenses --model finding-hsc --data data/hsc-test \
        --bands IMAGE1,IMAGE2,IMAGE3 --pixel_scale 0.168

``fields``: cutouts with a lens at their centre are wider than what a finder sees, and the bright objects beside the lenses
are real non-lenses of the same images. ``graded``: rank correlation of the probability with the grade of experts.
``pictures`` makes colour pictures of 8 bits, each with a stretch of its own, of simulated images in three bands, as
candidates in catalogues of pictures are. ``placed``: where real lenses fall among simulated objects.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from realism import beside, cut, paired
from scipy.special import logit
from scipy.stats import rankdata

from darklens.data.dataset import Cutouts, DatasetInfo, DatasetWriter
from darklens.data.layouts import open_with
from darklens.data.options import DataOptions
from darklens.evaluation.bootstrap import Metric, figure_text, intervals
from darklens.evaluation.classification import auc_statistic
from darklens.evaluation.finding import recall_statistic
from darklens.inference.model import TrainedModel, load_model
from darklens.inference.predictions import predict_cutouts

APERTURE = 5
"""Radius in pixels of the circle in which magnitudes are measured."""
MATCHED = 0.25
"""Magnitudes by which a galaxy and the lens that it is compared with differ at most."""


def scores(model: TrainedModel, cutouts: Cutouts, bands: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return logits of the probability of a lens and outlier scores of images, each (N,)."""
    found = predict_cutouts(model, cutouts, band=bands, mask=True)
    p = found.prediction.array[:, 1].clip(1e-12, 1 - 1e-12)
    return logit(p), found.prediction.outlier_score


def magnitudes(images: np.ndarray, detection: int, zero_point: float) -> np.ndarray:
    """Return magnitudes (N,) in a circle about the centres of images (N, C, H, W), of what is brighter than the sky."""
    side = images.shape[-1]
    inside = np.hypot(*(np.indices((side, side)) - (side - 1) / 2)) < APERTURE
    image = np.nan_to_num(images[:, detection])
    flux = image[:, inside].sum(1) - inside.sum() * np.median(image, axis=(1, 2))
    return zero_point - 2.5 * np.log10(flux.clip(1e-3))


def compared(name: str, lenses: np.ndarray, galaxies: np.ndarray) -> dict[str, Any]:
    """Print and return how scores of lenses stand above those of galaxies."""
    both = np.concatenate([lenses, galaxies])
    positive = np.repeat([1.0, 0.0], [len(lenses), len(galaxies)])
    metrics = [
        Metric("auc", "AUC", auc_statistic(both, positive)),
        Metric("above_1", "lenses above the highest 1% of galaxies", recall_statistic(both, positive, rate=0.01)),
        Metric("above_10", "lenses above the highest 10%", recall_statistic(both, positive, rate=0.1)),
    ]
    figures = intervals(metrics, len(both), 0)
    print(f"\n{name}: {len(lenses)} lenses, {len(galaxies)} galaxies")
    for metric in metrics:
        print(f"  {metric.title}: {figure_text(figures[metric.key].record())}")
    return {"lenses": len(lenses), "galaxies": len(galaxies)} | {key: each.record() for key, each in figures.items()}


def cutouts_of(fields: Cutouts, places: list[tuple[int, int, int]], side: int) -> Cutouts:
    """Return cutouts about places (field, y, x) of fields."""
    images = np.stack([cut(np.asarray(fields.images[[i]])[0], y, x, side) for i, y, x in places])
    catalog = pl.DataFrame(
        {"id": [f"{fields.ids[i]}-{y}-{x}" for i, y, x in places], "field": [i for i, _, _ in places]}
    )
    info = fields.info
    own = DatasetInfo("fields", [], list(info.bands), info.pixel_scale, list(info.zero_points))
    return Cutouts(images.astype(np.float32), catalog, own)


def places_in(fields: Cutouts, side: int) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    """Return the places of lenses and of the bright objects beside them."""
    detection = len(fields.info.bands) // 2
    lenses, others = [], []
    for i in range(len(fields)):
        image = np.asarray(fields.images[[i]], dtype=np.float64)[0]
        middle = image.shape[-1] // 2
        if np.isfinite(cut(image, middle, middle, side)).all():
            lenses.append((i, middle, middle))
        found = [(i, y, x) for y, x in beside(image, detection, side)]
        others += [place for place in found if np.isfinite(cut(image, *place[1:], side)).all()]
    return lenses, others


def in_fields(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare lenses with the objects beside them."""
    model, fields = load_model(arguments.model), opened(arguments)
    side = model.preprocessing.crop or model.config.pixels
    places = places_in(fields, side)
    lenses, galaxies = (cutouts_of(fields, each, side) for each in places)
    (ours, unlike), (theirs, _) = (scores(model, each) for each in (lenses, galaxies))
    zero_point = fields.info.zero_points[len(fields.info.bands) // 2] or 0.0
    bright, others = (
        magnitudes(np.asarray(each.images), len(fields.info.bands) // 2, zero_point) for each in (lenses, galaxies)
    )
    found = {"all": compared("all", ours, theirs)}
    pairs = paired(bright, others, MATCHED)
    found["matched"] = compared("matched in magnitude", ours[pairs[0]], theirs[pairs[1]])
    found["lens_is_brighter"] = float(np.median(others) - np.median(bright))
    found["unlike"] = float((unlike > 1).mean())
    print(
        f"\nlenses are brighter by {found['lens_is_brighter']:.2f} mag in the median; outlier score above 1: "
        f"{found['unlike']:.2f} of the lenses"
    )
    return found


def graded(arguments: argparse.Namespace) -> dict[str, Any]:
    """Correlate probabilities with the grades of experts."""
    model, cutouts = load_model(arguments.model), opened(arguments)
    score, unlike = scores(model, cutouts, arguments.bands)
    grade = cutouts.catalog["grade"].cast(pl.Float64).to_numpy()
    ranks = [rankdata(score), rankdata(grade)]

    def correlation(weights: np.ndarray) -> np.ndarray:
        # Ranks of all images stand for those among the drawn ones.
        total = weights.sum(1)
        a, b = ((of[None] - (weights @ of / total)[:, None]) for of in ranks)
        return (weights * a * b).sum(1) / np.sqrt((weights * a * a).sum(1) * (weights * b * b).sum(1))

    figure = intervals([Metric("spearman", "rank correlation", correlation)], len(score), 0)["spearman"]
    print(f"{len(score)} candidates: rank correlation of probability and grade {figure_text(figure.record())}")
    sure, not_sure = score[grade >= 2], score[grade < 1]
    found = {"n": len(score), "spearman": figure.record(), "unlike": float((unlike > 1).mean())}
    found["sure"] = compared("grade of 2 and more against below 1", sure, not_sure)
    print(f"\noutlier score above 1: {found['unlike']:.2f} of the candidates")
    return found


def placed(arguments: argparse.Namespace) -> dict[str, Any]:
    """Print where each real lens falls among simulated objects."""
    model, cutouts = load_model(arguments.model), opened(arguments)
    score, unlike = scores(model, cutouts, arguments.bands)
    test = open_with(arguments.data, DataOptions())
    simulated, _ = scores(model, test)
    is_lens = (test.catalog["label"] == "lens").to_numpy()
    rows = []
    for name, own, away in zip(cutouts.ids, score, unlike, strict=True):
        above = float((simulated[~is_lens] >= own).mean())
        below = float((simulated[is_lens] < own).mean())
        rows.append({"id": str(name), "look_alikes_above": above, "lenses_below": below, "outlier_score": float(away)})
        print(
            f"{name}: {above:.4f} of {int((~is_lens).sum()):,} simulated look-alikes rank above it, {below:.2f} of the "
            f"simulated lenses below it; outlier score {away:.2f}{' (unlike)' if away > 1 else ''}"
        )
    return {"lenses": rows}


def picture(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return red, green and blue of 8 bits of an image (3, H, W) in units of its noise, with a stretch drawn at random."""
    weights = rng.uniform(0.6, 1.6, 3)[:, None, None]
    softening, white = (np.exp(rng.uniform(*np.log(between))) for between in ((1, 12), (20, 300)))
    black = rng.uniform(-1, 2)
    kind = rng.integers(3)
    light = (image * weights - black).clip(0)
    total = light.mean(0)
    if kind == 0:  # Lupton et al. (2004): one stretch for all bands, which keeps colours
        stretched = light * (np.arcsinh(total / softening) / np.arcsinh(white / softening) / total.clip(1e-6))
    elif kind == 1:
        stretched = np.arcsinh(light / softening) / np.arcsinh(white / softening)
    else:
        stretched = np.sqrt(light / white)
    return np.rint(255 * stretched.clip(0, 1)).astype(np.uint8)


def pictures(arguments: argparse.Namespace) -> dict[str, Any]:
    """Make colour pictures of simulated images, red first."""
    data = open_with(arguments.cutouts, DataOptions())
    rng, made = np.random.default_rng(arguments.seed), np.empty((len(data), 3, *data.images.shape[2:]), np.uint8)
    for i in range(len(data)):
        image = np.asarray(data.images[[i]], dtype=np.float64)[0, :3]
        noise = 1.4826 * np.median(np.abs(image - np.median(image, axis=(1, 2), keepdims=True)), axis=(1, 2))
        made[i] = picture(image / noise.clip(1e-9)[:, None, None], rng)[::-1]
    info = DatasetInfo("pictures", list(data.info.classes), ["R", "G", "B"], data.info.pixel_scale)
    written(arguments.out, made, data.catalog.select("id", "label", "object"), info)
    print(f"{len(made)} pictures → {arguments.out}")
    return {"pictures": len(made)}


def written(out: Path, images: np.ndarray, catalog: pl.DataFrame, info: DatasetInfo) -> None:
    """Write a dataset folder."""
    with DatasetWriter(out, images.shape, images.dtype, fingerprint={"made": "benchmarks/finding_real.py"}) as writer:
        writer.images[:] = images
        writer.checkpoint(len(images))
        writer.finish(catalog, info)


def opened(arguments: argparse.Namespace) -> Cutouts:
    """Open the cutouts."""
    return open_with(arguments.cutouts, DataOptions(pixel_scale=arguments.pixel_scale))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("fields", "graded", "placed", "pictures"))
    parser.add_argument("cutouts", type=Path)
    parser.add_argument("--model", help="a run, a model folder, or the name of a shipped model")
    parser.add_argument("--data", type=Path, help="simulated images, with labels")
    parser.add_argument("--bands", help="of the model, with commas between, as they are named in the cutouts")
    parser.add_argument("--pixel_scale", type=float, help="arcsec, for images that do not say it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a folder for images, or a JSON file for figures")
    arguments = parser.parse_args()
    run = {"fields": in_fields, "graded": graded, "placed": placed, "pictures": pictures}
    found = run[arguments.what](arguments)
    if arguments.out is not None and arguments.what != "pictures":
        arguments.out.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
