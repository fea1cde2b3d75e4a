"""Does super-resolution help to find substructure? Classify low resolution, the output of each method, and the truth.

The same classifier recipe is trained three or more times, on the same lenses: on the images as they are, on what each
trained model of super-resolution makes of them, on bicubic interpolation, and on the true high resolution. All are tested
on the same further lenses; AUCs are compared in pairs. Models of super-resolution must not have seen these lenses.

    python benchmarks/superresolution_classify.py --preset fair-hst --models runs/edsr runs/darklens --count 3000

Super-resolution can add nothing to what an image holds; it can make it easier to learn, or invent. A method that invents
substructure is known by ``false``: the mean probability of substructure that the classifier trained on the truth gives to
its output for lenses without any.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np

from darklens.data.dataset import Cutouts, DatasetWriter, read_dataset
from darklens.data.synthesis import simulate_dataset
from darklens.evaluation.bootstrap import Metric, intervals, paired_differences
from darklens.evaluation.classification import auc_statistic
from darklens.inference.model import load_model
from darklens.inference.predictions import predict_cutouts
from darklens.progress import progress_bar
from darklens.simulation import load_preset
from darklens.simulation.pairs import paired_telescope
from darklens.training.job import Job
from darklens.training.recipe import load_recipe
from darklens.training.train import train

EPOCHS = {"trainer.patience": None}


def write(cutouts: Cutouts, images: np.ndarray, factor: int, out: Path) -> Path:
    """Write other images of the same lenses as a dataset of their own."""
    info = cutouts.info
    scale = None if info.pixel_scale is None else info.pixel_scale / factor
    writer = DatasetWriter(out, images.shape, np.dtype(np.float32), fingerprint={"of": str(cutouts.where)})
    writer.write(0, images.astype(np.float32))
    return writer.finish(cutouts.catalog, dataclasses.replace(info, pixel_scale=scale, preset=None))


def seen_by(models: dict[str, Path], pairs: Path, out: Path) -> dict[str, Path]:
    """Write what each method makes of the images of pairs; return the datasets by name, the images as they are first."""
    cutouts = read_dataset(pairs)
    assert cutouts.targets is not None
    rows = np.arange(len(cutouts))
    images, truth = (np.asarray(each[rows], np.float32) for each in (cutouts.images, cutouts.targets))
    factor = truth.shape[-1] // images.shape[-1]
    made = {"low": (images, 1)}
    for name, run in models.items():
        model = load_model(run)
        with progress_bar(f"super-resolution by {name}") as advance:
            predicted = predict_cutouts(model, cutouts, progress=advance).prediction.array
        made[name] = (predicted[:, : images.shape[1]], factor)
        if "bicubic" not in made:
            made["bicubic"] = (dict(model.task.with_images(images).baselines(truth))["bicubic"], factor)
    made["high"] = (truth, factor)
    return {name: write(cutouts, *each, out / name) for name, each in made.items()}


def probabilities(run: Path, data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability of substructure (N,) of a dataset's images, and whether they have any (N,)."""
    cutouts, model = read_dataset(data), load_model(run)
    found = predict_cutouts(model, cutouts).prediction.array
    smooth = list(model.classes).index("no_sub")
    return 1 - found[:, smooth], (cutouts.catalog["label"] != "no_sub").to_numpy().astype(float)


def main() -> None:
    """Run the comparison; print a table and keep it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--models", nargs="+", type=Path, required=True, help="trained runs of super-resolution")
    parser.add_argument("--preset", default="fair-hst")
    parser.add_argument("--pairs", default="2")
    parser.add_argument("--count", type=int, default=3000, help="lenses to train classifiers on")
    parser.add_argument("--test", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=100, help="of the lenses; the next one is the test's")
    parser.add_argument("--recipe", default="substructure/demo")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("superresolution-classify"))
    given = parser.parse_args()
    given.out.mkdir(parents=True)
    preset = load_preset(given.preset)
    target = paired_telescope(preset, given.pairs)
    models = {run.name: run for run in given.models}
    sets: dict[str, dict[str, Path]] = {}
    for number, (part, count) in enumerate({"train": given.count, "test": given.test}.items()):
        with progress_bar(f"simulating {part} lenses") as advance:
            pairs = simulate_dataset(
                preset, count, given.seed + number, out=given.out / "pairs" / part, target=target, progress=advance
            )
        sets[part] = seen_by(models, pairs, given.out / part)
    side = read_dataset(sets["train"]["low"]).images.shape[-1]
    runs = {}
    for name, data in sets["train"].items():
        factor = read_dataset(data).images.shape[-1] // side
        # The field is the same for all; a classifier of its own pixels learns each.
        changes = EPOCHS | {"trainer.epochs": given.epochs, "preprocessing.crop": side * factor}
        runs[name] = train(Job(load_recipe(given.recipe, changes), str(data)), given.out / "runs" / name)
    found = {name: probabilities(run, sets["test"][name]) for name, run in runs.items()}
    metrics = {name: Metric("auc", "AUC", auc_statistic(p, positive)) for name, (p, positive) in found.items()}
    rows = []
    for name, metric in metrics.items():
        figure = intervals([metric], given.test)["auc"]
        row = {"images": name, "auc": figure.record()}
        if name not in ("low", "high"):
            p, positive = probabilities(runs["high"], sets["test"][name])
            row["false"] = float(p[positive == 0].mean())
        rows.append(row)
        print(f"{name:20} AUC {figure}" + (f"  false {row['false']:.3f}" if "false" in row else ""))
    p, positive = found["high"]
    print(f"{'high':20} false {p[positive == 0].mean():.3f}")
    gaps = [each for each in paired_differences(metrics, given.test) if "low" in (each.first, each.second)]
    for gap in gaps:
        print(f"{gap.first} − {gap.second}: {gap.value:+.4f} ({gap.low:+.4f} to {gap.high:+.4f}), p {gap.p_holm:.3f}")
    content = {"rows": rows, "differences": [dataclasses.asdict(gap) for gap in gaps], "options": vars(given)}
    (given.out / "result.json").write_text(json.dumps(content, indent=1, default=str) + "\n", "utf-8")


if __name__ == "__main__":
    main()
