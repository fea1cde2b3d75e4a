"""Put a trained run into the package: weights in half precision, calibrated, measured on fresh images, with a card.

    darklens train substructure/darklens --data preset:model-1 --out runs/model-1
    python benchmarks/release.py substructure-model-1 runs/model-1 --images 15000

Measured is what ships: the model as it is read back from the package.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import shutil
import tempfile
from pathlib import Path

from darklens.data.synthesis import simulate_dataset
from darklens.evaluation.bootstrap import figure_text
from darklens.inference.model import TrainedModel, load_model, save_model
from darklens.inference.shipped import SHIPPED
from darklens.simulation import load_preset
from darklens.training.card import model_card
from darklens.training.finish import calibrated
from darklens.training.job import open_job_data, read_job, read_record, write_record
from darklens.workflows.evaluate import evaluate_run
from darklens.workflows.options import EvaluationOptions

LARGEST = 5_000_000
"""Bytes that a model may take."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=15_000, help="test images, a total over the classes")
    parser.add_argument("--seed", type=int, default=999, help="of the test images")
    parser.add_argument("--outliers", type=Path, help="images of another kind, which should be flagged")
    arguments = parser.parse_args()
    folder = SHIPPED / arguments.name
    model, record, job = load_model(arguments.run), read_record(arguments.run), read_job(arguments.run)
    preset = job.data.removeprefix("preset:")
    if not model.calibration.scores:
        model = calibrated(model, open_job_data(job))
    record |= {"command": re.sub(r"--out \S+", f"--out runs/{preset}", record["command"]), "git": None}
    shutil.rmtree(folder, ignore_errors=True)
    save_model(folder, model, "", half=True)
    with tempfile.TemporaryDirectory() as temporary:
        test = simulate_dataset(load_preset(preset), arguments.images, arguments.seed, out=Path(temporary) / "test")
        run = Path(temporary) / "run"
        shutil.copytree(folder, run / "model")
        measured = evaluate_run(run, test, EvaluationOptions("test", outliers=arguments.outliers))
    config = dataclasses.replace(
        model.config,
        measured={
            "data": job.data,
            "n": measured["n"],
            "seed": arguments.seed,
            "coverage": measured["coverage"],
            "figures": measured["figures"],
        },
    )
    final = TrainedModel(config, model.network, model.task, outliers=model.outliers)
    save_model(folder, final, model_card(config, model.task, record, name=arguments.name), half=True)
    write_record(folder, record)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder.name}: {size:,} bytes")
    for key, figure in measured["figures"].items():
        print(f"{key:20} {figure_text(figure)}")
    if size > LARGEST:
        raise SystemExit(f"too large: at most {LARGEST:,} bytes")


if __name__ == "__main__":
    main()
