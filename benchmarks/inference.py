"""How fast do the shipped models predict, in float32 and in bfloat16, and what does it change?

    python benchmarks/inference.py finding-hsc finding-euclid finding-ground substructure-model-1

Images of each model's preset are in memory. In turns, each round predicts all of them in both precisions, and prepares them
without a network. Rates are of the time of one processor (all threads together), medians of the rounds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from darklens.inference.model import load_model
from darklens.simulation import Simulator
from darklens.training.job import machine


def milliseconds(function: Callable[[], object], images: int) -> float:
    started = time.process_time()
    function()
    return (time.process_time() - started) / images * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="shipped models, or others as MODEL:PRESET")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{machine()}; {arguments.images} images, seed 9, {arguments.threads} threads; ms of processor time an image")
    print(f"{'model':24} {'prepared':>9} {'float32':>9} {'bfloat16':>9} {'ratio':>6} {'largest difference':>19}")
    for name in arguments.models:
        name, _, preset = name.partition(":")
        simulator = Simulator(preset or name.removeprefix("substructure-"), seed=9, compile=True)
        images = torch.cat([block for block, _ in simulator.blocks(arguments.images)])
        exact = load_model(name)
        low = exact.with_precision("bfloat16")
        functions = {
            "prepared": lambda model=exact, images=images: model.preprocessing(images),
            "float32": lambda model=exact, images=images: model.predict(images),
            "bfloat16": lambda model=low, images=images: model.predict(images),
        }
        taken = {what: [] for what in functions}
        for _ in range(arguments.rounds):
            for what, function in functions.items():
                taken[what].append(milliseconds(function, len(images)))
        middle = {what: float(np.median(each)) for what, each in taken.items()}
        apart = np.abs(exact.predict(images).array - low.predict(images).array).max()
        told = " ".join(f"{middle[what]:9.2f}" for what in functions)
        print(f"{name:24} {told} {middle['bfloat16'] / middle['float32']:6.2f} {apart:19.4f}", flush=True)


if __name__ == "__main__":
    main()
