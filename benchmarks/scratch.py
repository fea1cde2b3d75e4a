"""Choose the settings that `network.pretrained: false` brings: learning rates and crops on validation images of Model I.

    darklens simulate model-1 --count 15360 --out data/model-1
    python benchmarks/scratch.py data/model-1 --epochs 5 --out scratch

Each recipe is trained with each pair on as many images. The best validation loss decides; no test image is looked at. A
sweep that is run again goes on where it was.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

from darklens.training.history import epoch_history
from darklens.training.job import Job
from darklens.training.recipe import load_recipe, short_name
from darklens.training.train import resume, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipes", default="substructure/resnet18")
    parser.add_argument("--rates", default="3e-4,1e-3,3e-3")
    parser.add_argument("--crops", default="96,144")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("scratch"))
    arguments = parser.parse_args()
    rows = []
    choices = (arguments.recipes.split(","), arguments.rates.split(","), arguments.crops.split(","))
    for name, rate, crop in itertools.product(*choices):
        changes = {"network.pretrained": False, "optimizer.lr": float(rate), "preprocessing.crop": int(crop)}
        recipe = load_recipe(name, changes | {"trainer.epochs": arguments.epochs})
        run = arguments.out / f"{short_name(name)}-{rate}-{crop}"
        job = Job(recipe, str(arguments.data))
        if (run / "run.json").is_file():
            resume(run, job)
        else:
            train(job, run)
        best = min(epoch_history(run), key=lambda epoch: epoch["validation/loss"])
        rows.append((short_name(name), rate, crop, best["validation/loss"], best["validation/accuracy"]))
    print("| recipe | learning rate | crop | validation loss | validation accuracy |\n| --- | --- | --- | --- | --- |")
    for name, rate, crop, loss, accuracy in rows:
        print(f"| `{name}` | {rate} | {crop} | {loss:.3f} | {accuracy:.3f} |")


if __name__ == "__main__":
    main()
