"""What it saves that a training fits the lens of each stored image once: a step when images come first and when they come
again.

    python benchmarks/lenses.py model-1 fair-hst    # about a minute on two cores
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from darklens.data.synthesis import simulate_dataset
from darklens.simulation import load_preset
from darklens.training.job import Job, machine
from darklens.training.recipe import load_recipe
from darklens.workflows.estimate import training_rate


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("presets", nargs="+")
    parser.add_argument("--recipe", default="substructure/darklens")
    options = parser.parse_args()
    print(f"{options.recipe}, {machine()}, {torch.get_num_threads()} threads")
    for name in options.presets:
        with tempfile.TemporaryDirectory() as folder:
            data = simulate_dataset(load_preset(name), 3072, 0, out=Path(folder) / "data")
            rate = training_rate(Job(load_recipe(options.recipe), str(data)))
        first = rate.step + rate.first
        print(
            f"{name}: prepared in {rate.preparation:.0f} s; {1 / first:.0f} images/s the first time, "
            f"{1 / rate.step:.0f} again; ratio {first / rate.step:.2f}"
        )


if __name__ == "__main__":
    main()
