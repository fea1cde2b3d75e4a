"""The parts of gpu.sh: rates, agreement of GPU and CPU, leaderboard and trainings, each with the device named.

See gpu.sh for how to run it. No part needs another, but for the leaderboard's: they share the images in ``runs/gpu``, which
the first of them makes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from darklens.data.synthesis import simulate_dataset
from darklens.inference.model import load_model
from darklens.inference.shipped import shipped_models
from darklens.simulation import BLOCK, Simulator, load_preset
from darklens.simulation.library import builtin_names, resolve_preset
from darklens.training.build import build_module
from darklens.training.job import Job, machine
from darklens.training.recipe import load_recipe, recipe_names
from darklens.training.train import train
from darklens.training.training_data import open_training_data
from darklens.workflows.evaluate import evaluate_run
from darklens.workflows.options import EvaluationOptions

GOAL = 20_000
"""Images a second that simulation on a GPU is to reach."""
RATED = ("demo", "darklens", "resnet18", "efficientnet-b5", "vit", "equivariant-d4", "densenet161")
"""Recipes of substructure whose rates of training and prediction are measured."""
IMAGENET = ("resnet18", "efficientnet-b5", "mobilenetv3-small", "resnet50", "densenet161")
"""Recipes that take ImageNet weights, trained at the size at which they were published."""

LENSES = [name for name in builtin_names() if "bands" not in resolve_preset(name)]
"""Presets that a GPU simulates: those of scenes are for CPUs."""


@dataclass(frozen=True)
class Size:
    """How much is done: on a GPU, and in a trial on a CPU."""

    device: str
    images: int
    rounds: int
    train_images: int
    test_images: int
    minutes: float
    overrides: dict[str, Any] = field(default_factory=dict)


FULL = Size("cuda", 64 * BLOCK, 5, 90_000, 15_000, 5.0)
TINY = Size(
    "cpu", BLOCK, 2, 192, 96, 0.0,
    {"trainer.epochs": 1, "trainer.batch_size": 32, "trainer.minutes": None, "trainer.epoch_images": 64},
)  # fmt: skip
Part = Callable[[Size, Path], dict[str, Any]]


def simulation(size: Size, out: Path) -> dict[str, Any]:
    """Images a second of each preset, with noise, on the device and on the CPU beside it."""
    rates = {}
    for name in LENSES:
        found: dict[str, list[float]] = {size.device: [], "cpu": []}
        for device, measured in found.items():
            simulator = Simulator(name, 0, device, compile=size is FULL)
            list(simulator.blocks(BLOCK))  # compiles
            for _ in range(size.rounds):
                measured.append(_rate(lambda: sum(len(i) for i, _ in simulator.blocks(size.images)), device))  # noqa: B023
        rates[name] = {device: round(statistics.median(measured), 1) for device, measured in found.items()}
    return {"images_per_second": rates, "goal": GOAL}


def agreement(size: Size, out: Path) -> dict[str, Any]:
    """Largest differences between the device and the CPU: noise-free images, and probabilities of the shipped models."""
    images, probabilities = {}, {}
    for name in LENSES:
        rows = Simulator(name, 5).catalog(BLOCK)
        made = [Simulator(name, 5, device).render(rows, noise=False).cpu() for device in ("cpu", size.device)]
        images[name] = float((made[0] - made[1]).abs().max() / made[0].abs().max())
    for name in shipped_models():
        preset = load_model(name).config.data["source"].removeprefix("preset:")
        batch = next(iter(Simulator(preset, 7).blocks(BLOCK)))[0].numpy()
        found = [load_model(name, device=device).predict(batch).array for device in ("cpu", size.device)]
        probabilities[name] = float(np.abs(found[0] - found[1]).max())
    return {"images_relative": images, "probabilities": probabilities}


def rates(size: Size, out: Path) -> dict[str, Any]:
    """Images a second in steps of training and in prediction, of some recipes."""
    found = {}
    data = _images(size, out, "train", size.train_images if size is TINY else 6400)
    for name in RATED:
        recipe = load_recipe(f"substructure/{name}", _unpretrained(name) | size.overrides)
        opened = open_training_data(str(data), recipe, 0)
        module = build_module(recipe, opened).to(size.device)
        optimizer = torch.optim.SGD(module.network.parameters(), lr=1e-4)
        batch = {key: value.to(size.device) for key, value in next(iter(opened.train_loader(0, 1))).items()}

        def step() -> int:
            optimizer.zero_grad()  # noqa: B023
            with torch.autocast(size.device, torch.bfloat16, enabled=size.device == "cuda"):
                module(batch).square().mean().backward()  # noqa: B023
            optimizer.step()  # noqa: B023
            return len(batch["image"])  # noqa: B023

        def predict() -> int:
            with torch.inference_mode(), torch.autocast(size.device, torch.bfloat16, enabled=size.device == "cuda"):
                module.eval()(batch)  # noqa: B023
            return len(batch["image"])  # noqa: B023

        step()
        training = [_rate(step, size.device) for _ in range(4 * size.rounds)]
        predict()
        prediction = [_rate(predict, size.device) for _ in range(4 * size.rounds)]
        found[name] = {"training": statistics.median(training), "prediction": statistics.median(prediction)}
    return {"images_per_second": found}


def imagenet(name: str) -> Part:
    """A part that trains a recipe of ImageNet networks at full size, with ImageNet weights where they can be had."""

    def part(size: Size, out: Path) -> dict[str, Any]:
        train_set = _images(size, out, "train", size.train_images)
        test_set = _images(size, out, "test", size.test_images)
        run = out / f"imagenet-{name}"
        weights = {} if _weights_at_hand(name) and size is FULL else {"network.pretrained": False}
        changes = weights | {"trainer.minutes": 7.0, "trainer.epochs": 30} | size.overrides
        train(Job(load_recipe(f"substructure/{name}", changes), str(train_set)), run)
        record = evaluate_run(run, test_set, EvaluationOptions("test"))
        return {"pretrained": not weights, "n": record["n"], "figures": record["figures"]}

    return part


def ranked(name: str) -> Part:
    """A part that trains one recipe of the leaderboard for its share of minutes, and ranks it among those done."""

    def part(size: Size, out: Path) -> dict[str, Any]:
        board = out / "leaderboard"
        budget = f"{size.minutes:g}min" if size.minutes else "64images"
        words = ["benchmark", "substructure", "--recipes", name, "--budget", budget, "--out", str(board)]
        words += ["--train_images", str(size.train_images), "--test_images", str(size.test_images)]
        words += ["--pretrained", "false", "--trainer.batch_size", "32"] if size is TINY else ["--pretrained", "false"]
        done = subprocess.run([sys.executable, "-m", "darklens", *words], check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        rows = json.loads((board / "leaderboard.json").read_text("utf-8"))["rows"]
        mine = next(row for row in rows if row["recipe"].endswith(f"/{name}"))
        return {"rank_so_far": rows.index(mine) + 1, "figures": mine["figures"], "seconds": mine["seconds"]}

    return part


def shipped(name: str) -> Part:
    """A part that trains the recipe of a shipped model longer; run again, it resumes."""

    def part(size: Size, out: Path) -> dict[str, Any]:
        preset = name.removeprefix("substructure-")
        run = out / name
        changes = {"trainer.epochs": 60} | size.overrides
        if size is TINY:
            changes |= {"trainer.batch_size": BLOCK, "preprocessing.lens_model": False, "network.widths": [8, 8],
                        "network.blocks": [0, 1]}  # fmt: skip
        words = ["train", "substructure/darklens", "--data", f"preset:{preset}", "--out", str(run), "--resume"]
        for key, value in changes.items():
            words += [f"--{key}", "null" if value is None else str(value)]
        try:  # ten minutes, and the rest the next time
            subprocess.run(
                [sys.executable, "-m", "darklens", *words], check=True, timeout=9.5 * 60, capture_output=True
            )
        except subprocess.TimeoutExpired:
            return {"finished": False, "note": "run this part again: it resumes after its last epoch"}
        record = evaluate_run(run, f"preset:{preset}", EvaluationOptions("test", count=size.test_images))
        return {"finished": True, "n": record["n"], "figures": record["figures"]}

    return part


SUBSTRUCTURE = [name.partition("/")[2] for name in recipe_names() if name.startswith("substructure/")]
PARTS: list[tuple[str, Part]] = [
    ("simulation", simulation),
    ("agreement", agreement),
    ("rates", rates),
    *((f"imagenet-{name}", imagenet(name)) for name in IMAGENET),
    *((f"leaderboard-{name}", ranked(name)) for name in SUBSTRUCTURE),
    *((f"longer-{name}", shipped(name)) for name in shipped_models()),
]


def _rate(function: Callable[[], int], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    images = function()
    if device == "cuda":
        torch.cuda.synchronize()
    return images / (time.perf_counter() - started)


def _images(size: Size, out: Path, name: str, count: int) -> Path:
    folder = out / "data" / f"{name}-{count}"
    if not folder.exists():
        simulate_dataset(load_preset("model-1"), count, {"train": 0, "test": 1}[name], out=folder, device=size.device)
    return folder


def _unpretrained(name: str) -> dict[str, Any]:
    return {"network.pretrained": False} if load_recipe(f"substructure/{name}").network.get("pretrained") else {}


def _weights_at_hand(name: str) -> bool:
    from darklens.models.hub import pretrained_file

    try:
        return pretrained_file(load_recipe(f"substructure/{name}").network["architecture"]) is not None
    except Exception:  # of the hub's client: no network here
        return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", type=int, help="their numbers; by default all")
    parser.add_argument("--list", action="store_true", help="print what the parts are")
    parser.add_argument("--tiny", action="store_true", help="tiny numbers on a CPU")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="images and runs")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "gpu", help="the figures")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{number:3} {name}" for number, (name, _) in enumerate(PARTS, 1)))
        return 0
    if not options.tiny and not torch.cuda.is_available():
        print("no GPU here; --tiny tries the parts on a CPU", file=sys.stderr)
        return 2
    size, failed = TINY if options.tiny else FULL, []
    for number, (name, part) in enumerate(PARTS, 1):
        if options.parts and number not in options.parts:
            continue
        started = time.perf_counter()
        print(f"[{number}/{len(PARTS)}] {name}", flush=True)
        try:
            found = part(size, options.out)
        except Exception:
            failed.append(name)
            traceback.print_exc()
            continue
        record = {"part": name, "device": machine(), "torch": torch.__version__, "tiny": options.tiny,
                  "seconds": round(time.perf_counter() - started, 1)} | found  # fmt: skip
        options.results.mkdir(parents=True, exist_ok=True)
        (options.results / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        print(json.dumps(record), flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
