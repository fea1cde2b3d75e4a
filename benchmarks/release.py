"""Put a trained run into the package: weights in half precision, calibrated, measured on fresh images, with a card.

    darklens train substructure/darklens --data preset:model-1 --out runs/model-1
    python benchmarks/release.py substructure-model-1 runs/model-1 --images 15000
    python benchmarks/release.py substructure-fair-hst runs/fair-hst --data preset:fair-hst
    python benchmarks/release.py substructure-model-1 --again
    python benchmarks/release.py substructure-model-1 --outlier_score

Measured is what ships: the model as it is read back from the package. ``--again`` measures a model of the package on the
images that its figures were measured on, and rewrites figures and card; all other files stay as they are. So they do
with ``--outlier_score``, which fits the outlier score to fresh images of the preset.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from darklens.data.dataset import read_dataset
from darklens.data.synthesis import simulate_dataset
from darklens.errors import ModelError
from darklens.evaluation.bootstrap import figure_text
from darklens.inference.config import read_config
from darklens.inference.model import TrainedModel, load_model, load_task, save_model
from darklens.inference.outliers import OutlierScore
from darklens.inference.shipped import SHIPPED, model_folder
from darklens.inference.weights import OUTLIERS
from darklens.simulation import Simulator, load_preset
from darklens.training.card import model_card
from darklens.training.finish import calibrated
from darklens.training.job import open_job_data, read_job, read_record, write_record
from darklens.workflows.evaluate import evaluate_run
from darklens.workflows.options import EvaluationOptions

LARGEST = 5_000_000
"""Bytes that a model may take."""


SCORE_IMAGES, SCORE_SEED = 16_384, 4242
"""Images that ``--outlier_score`` simulates, and their seed, which is no test set's."""


def measure(
    folder: Path,
    data: str,
    images: int,
    seed: int,
    *,
    coverage: float = 0.95,
    outliers: Path | None = None,
    test: Path | None = None,
) -> dict[str, Any]:
    """Return what ``config.json`` keeps of an evaluation of a model folder on simulated images.

    Parameters
    ----------
    folder
        Of the model.
    data
        ``preset:NAME``.
    images
        Number of test images, a total over the classes.
    seed
        Of the test images.
    coverage
        What prediction sets promise.
    outliers
        Images of another kind, which should be flagged.
    test
        The folder of these test images, if they were simulated already.

    Returns
    -------
    dict
        ``data``, ``n``, ``seed``, ``coverage`` and ``figures``; of a finder also ``labels``, the numbers of test images.
    """
    preset = load_preset(data.removeprefix("preset:"))
    with tempfile.TemporaryDirectory() as temporary:
        if test is None:
            test = simulate_dataset(preset, images, seed, out=Path(temporary) / "test")
        else:
            found = read_dataset(test)
            if (there := (found.info.source, found.info.seed, len(found))) != (data, seed, images):
                raise ModelError(f"{test}: has source, seed and number {there}; expected {(data, seed, images)}")
        run = Path(temporary) / "run"
        shutil.copytree(folder, run / "model")
        found = evaluate_run(run, test, EvaluationOptions("test", coverage=coverage, outliers=outliers))
    measured = {"data": data, "n": found["n"], "seed": seed, "coverage": found["coverage"], "figures": found["figures"]}
    if "lenses" in found:
        other, lens = found["classes"]
        measured["labels"] = {lens: found["lenses"], other: found["others"]}
    return measured


def measure_again(folder: Path) -> None:
    """Measure a model on the images that its figures were measured on; rewrite ``config.json`` and ``README.md`` alone.

    Raises
    ------
    ModelError
        If it was not measured before.
    """
    content = json.loads((folder / "config.json").read_text("utf-8"))
    before = content["measured"]
    if not before:
        raise ModelError(f"{folder}: records no images that it was measured on; release it from its run")
    measured = measure(folder, before["data"], before["n"], before["seed"], coverage=before["coverage"])
    (folder / "config.json").write_text(json.dumps(content | {"measured": measured}, indent=2) + "\n", "utf-8")
    config = read_config(folder)
    card = model_card(config, load_task(folder, config), read_record(folder), name=folder.name)
    (folder / "README.md").write_text(card, "utf-8")
    for key, figure in measured["figures"].items():
        former = before["figures"].get(key)
        print(f"{key:20} {figure_text(figure)}" + (f", formerly {figure_text(former)}" if former else ""))


def fit_outlier_score(folder: Path) -> None:
    """Fit the outlier score of a model to fresh images of the preset that it was measured on, and rewrite it alone.

    Of `SCORE_IMAGES` images of the seed `SCORE_SEED`, the second half sets what is usual. Predictions do not change.
    """
    model = load_model(folder)
    simulator = Simulator(load_preset(model.config.measured["data"].removeprefix("preset:")), SCORE_SEED)
    found = [model.outputs_and_features(images) for images, _ in simulator.blocks(SCORE_IMAGES)]
    features, statistics = torch.cat([f for _, f, _ in found]), torch.cat([s for _, _, s in found])
    half = SCORE_IMAGES // 2
    score = OutlierScore.fit(features[:half], statistics[:half], (features[half:], statistics[half:]))
    save_file({name: tensor.contiguous() for name, tensor in score.tensors().items()}, folder / OUTLIERS)
    usual = float((score(features[half:], statistics[half:]) > 1).double().mean())
    print(f"{folder.name}: outlier score of {SCORE_IMAGES:,} images, {usual:.4f} of the second half above 1")


def release(
    name: str,
    source: Path,
    *,
    data: str | None = None,
    images: int,
    seed: int,
    outliers: Path | None,
    test: Path | None = None,
) -> None:
    """Put the model of a run into the package.

    Parameters
    ----------
    name
        What the package calls it.
    source
        The run folder.
    data
        ``preset:NAME`` of the test images; by default what the run was trained on.
    images
        Number of test images, a total over the classes.
    seed
        Of the test images.
    outliers
        Images of another kind, which should be flagged.
    test
        The folder of the test images, if they were simulated already.
    """
    folder = SHIPPED / name
    model, record, job = load_model(source), read_record(source), read_job(source)
    data = data or job.data
    if not data.startswith("preset:"):
        raise SystemExit(f"the run was trained on {data}; --data preset:NAME says of which preset test images are")
    preset = data.removeprefix("preset:")
    command = re.sub(r"--out \S+", f"--out runs/{preset}", record["command"])
    command = re.sub(r"--data (?!preset:)\S+", f"--data data/{preset}", command)
    if not model.calibration.scores:
        model = calibrated(model, open_job_data(job))
    record |= {"command": command.replace(" --resume", ""), "git": None}
    if not job.data.startswith("preset:"):  # a folder of this machine
        record["data"] = f"data/{preset}"
    shutil.rmtree(folder, ignore_errors=True)
    save_model(folder, model, "", half=True)
    measured = measure(folder, data, images, seed, outliers=outliers, test=test)
    config = dataclasses.replace(model.config, measured=measured)
    final = TrainedModel(config, model.network, model.task, outliers=model.outliers)
    save_model(folder, final, model_card(config, model.task, record, name=name), half=True)
    write_record(folder, record)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{name}: {size:,} bytes")
    for key, figure in measured["figures"].items():
        print(f"{key:20} {figure_text(figure)}")
    if size > LARGEST:
        raise SystemExit(f"too large: at most {LARGEST:,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--again", action="store_true", help="measure the package's model of this name again")
    parser.add_argument(
        "--outlier_score", action="store_true", help="fit that of the package's model of this name again"
    )
    parser.add_argument("--data", help="preset:NAME of the test images; by default what the run was trained on")
    parser.add_argument("--images", type=int, default=15_000, help="test images, a total over the classes")
    parser.add_argument("--seed", type=int, default=999, help="of the test images")
    parser.add_argument("--outliers", type=Path, help="images of another kind, which should be flagged")
    parser.add_argument("--test", type=Path, help="the folder of the test images, if they were simulated already")
    arguments = parser.parse_args()
    if arguments.outlier_score:
        fit_outlier_score(model_folder(arguments.name))
        return
    if arguments.again:
        if arguments.run is not None:
            parser.error("--again takes no run: it measures the model of the package")
        measure_again(model_folder(arguments.name))
        return
    if arguments.run is None:
        parser.error("a run is needed, or --again")
    release(
        arguments.name, arguments.run, data=arguments.data, images=arguments.images, seed=arguments.seed,
        outliers=arguments.outliers, test=arguments.test,
    )  # fmt: skip


if __name__ == "__main__":
    main()
