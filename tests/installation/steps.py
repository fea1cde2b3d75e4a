"""What must work after an installation: every verb with the core alone, and what each extra is for."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

from environment import CheckError, Step

TINY = ["--network.widths=[8,8]", "--network.blocks=[1,1]", "--trainer.epochs", "1", "--trainer.batch_size", "16"]

CUTOUTS = """
from pathlib import Path
import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from PIL import Image
rng = np.random.default_rng(0)
wcs = WCS(naxis=2)
wcs.wcs.ctype, wcs.wcs.cdelt = ["RA---TAN", "DEC--TAN"], [-0.05 / 3600, 0.05 / 3600]
for name in ("fits", "png"):
    Path(name).mkdir()
for i in range(3):
    image = rng.normal(10, 1, (64, 64)).astype("float32")
    fits.PrimaryHDU(image, wcs.to_header()).writeto(f"fits/{i}.fits")
    Image.fromarray((image * 10).astype("uint8")).save(f"png/{i}.png")
"""
"""Makes three FITS cutouts of 0.05 arcsec a pixel and three PNG images in the current folder."""

EVERY_MODULE = """
import importlib, pkgutil
import darklens
for module in pkgutil.walk_packages(darklens.__path__, "darklens."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(darklens.__file__)
"""
"""Imports all of darklens, and prints where it lies."""

RECIPE = "extends: substructure/demo\naugmentation: flips\n"


def import_step() -> Step:
    """Return a step that imports every module of darklens."""
    return Step(["python", "-c", EVERY_MODULE], says="site-packages")


def core_steps(version: str) -> list[Step]:
    """Return a step for each verb of the command line, in an order in which each finds what it needs.

    ``demo`` is left out: it takes minutes, and does what these do.
    """
    return [
        darklens("--version", says=f"darklens {version}\n"),
        darklens("models", says="substructure-model-1"),
        darklens("presets", says="fair-hst"),
        darklens("recipes", says="substructure/demo"),
        darklens("doctor", says="no known problems"),
        darklens("simulate model-3-noisy --count 60 --out train", says="60 images", makes="train/images.npy"),
        darklens("simulate model-3-noisy --count 24 --seed 1 --out test", says="24 images"),
        Step(["python", "-c", CUTOUTS], makes="png/2.png"),
        darklens("look train", says="classes: ", makes="look.png"),
        darklens("import train --out imported --split 0.8,0.1,0.1", says="60 images", makes="imported/images.npy"),
        darklens("import fits --out survey", says="3 images", makes="survey/dataset.json"),
        darklens("preview model-3-noisy", says="mosaic", makes="preview.png"),
        darklens("simulate finding-hsc:galaxy --count 40 --out hosts", says="40 images"),
        darklens("paint hosts --preset finding-hsc --out painted", says="lenses painted", makes="painted/images.npy"),
        darklens("train substructure/demo --data train --out run --dry-run", *TINY, says="about"),
        darklens("train substructure/demo --data train --out run", *TINY, makes="run/model/model.safetensors"),
        darklens("evaluate run --data test", says="macro_auc", makes="run/evaluations/test"),
        darklens("predict run test --out own.csv", says="24 images, 0 skipped", makes="own.csv"),
        darklens(
            "predict substructure-model-3-noisy test fits png --pixel_scale 0.05 --out shipped.parquet",
            says="30 images, 0 skipped",
            makes="shipped.parquet",
        ),
        darklens("simulate finding-hsc --count 60 --out objects", says="60 images", makes="objects/images.npy"),
        darklens("train finding/demo --data objects --out finder", *TINY, makes="finder/model/model.safetensors"),
        darklens("simulate finding-hsc --count 24 --seed 1 --out survey-objects", says="24 images"),
        darklens(
            "adapt adaptation/dann --encoder finding/demo --data objects --target survey-objects --out adapted",
            *TINY,
            makes="adapted/target_split.parquet",
        ),
        darklens(
            "find survey-objects --model finder --out candidates.fits --mosaic candidates.html --prior 0.1",
            says="24 images ranked",
            makes="candidates.html",
        ),
        darklens(
            "embed test --model run --out embedded.parquet --page map.html", says="24 images of", makes="map.html"
        ),
        darklens("simulate model-3-noisy --count 24 --pairs 2 --out pairs", says="24 pairs"),
        darklens(
            "train superresolution/srcnn --data pairs --out sharp --trainer.epochs 1 --trainer.batch_size 8",
            makes="sharp/model/model.safetensors",
        ),
        darklens("superresolve test --model sharp --out finer", says="24 images", makes="finer/index.html"),
        darklens("explain substructure-model-3-noisy fits", makes="explain.png"),
        darklens("finetune run --data train --out tuned --trainer.epochs 1", makes="tuned/model/model.safetensors"),
        darklens("ensemble run tuned --out both", says="2 runs"),
        darklens("evaluate both --data test", makes="both/evaluations/test"),
        darklens("report run both", makes="report.html"),
        Step(["python", "-c", f"open('flips.yaml', 'w').write({RECIPE!r})"], makes="flips.yaml"),
        darklens(
            "benchmark substructure --preset model-3-noisy --budget 1epochs --recipes demo,flips.yaml --out board "
            "--train_images 60 --test_images 24 --pretrained false",
            *TINY,
            makes="board/*.html",
        ),
    ]


def wandb_steps(sources: Path) -> list[Step]:
    """Return steps that train with a log for Weights & Biases, which stays on this machine."""
    return [
        darklens("simulate model-3-noisy --count 24 --out train", says="24 images"),
        darklens("train substructure/demo --data train --out run --wandb x", *TINY, makes="run/wandb/offline-run-*"),
    ]


def lenses_steps(sources: Path) -> list[Step]:
    """Return a step that reads the table of known lenses."""
    code = (
        "from darklens.data.positions import lenscat_table, read_positions\n"
        "assert len(read_positions(lenscat_table())) > 10_000\n"
        "print('known lenses')"
    )
    return [Step(["python", "-c", code], says="known lenses")]


def test_steps(sources: Path) -> list[Step]:
    """Return steps that import every test, and run some fast ones."""
    tests = sources / "tests"
    return [
        Step(["pytest", "--collect-only", str(tests)], says="tests collected"),
        Step(["pytest", str(tests / "physics" / "test_cosmology.py")], says=" passed"),
    ]


def docs_steps(sources: Path) -> list[Step]:
    """Return a step that builds the documentation, warnings being errors."""
    build = ["sphinx-build", "-W", "--keep-going", "-q", str(sources / "docs"), "html"]
    return [Step(build, makes="html/index.html")]


def lint_steps(sources: Path) -> list[Step]:
    """Return steps that lint the sources, and check their types."""
    return [
        Step(["ruff", "check", "--no-cache", str(sources)], says="All checks passed"),
        Step(["ruff", "format", "--no-cache", "--check", str(sources)], says="already formatted"),
        Step(["mypy"], says="no issues found", cwd=sources),
    ]


def bench_steps(sources: Path) -> list[Step]:
    """Return a step that runs all imports of all benchmarks, also those inside functions."""
    lines = ["import sys", *(f"sys.path.insert(0, {str(sources / name)!r})" for name in ("tests", "benchmarks"))]
    for file in sorted((sources / "benchmarks").glob("*.py")):
        lines += [*imports(file), f"print('imported all of', {file.name!r})"]
    return [Step(["python", "-c", "\n".join(lines)], says="imported all of training.py")]


PROOFS: dict[str, Callable[[Path], list[Step]]] = {
    "wandb": wandb_steps,
    "lenses": lenses_steps,
    "test": test_steps,
    "docs": docs_steps,
    "lint": lint_steps,
    "bench": bench_steps,
}
"""What proves that an extra brings all that it is for, given the folder of the unpacked source distribution."""


def extra_steps(extra: str, sources: Path) -> list[Step]:
    """Return the steps that prove an extra.

    Raises
    ------
    CheckError
        If nothing here proves it.
    """
    if extra not in PROOFS:
        raise CheckError(f"pyproject.toml: nothing proves the extra {extra!r}; add steps to PROOFS in {__file__}")
    return PROOFS[extra](sources)


def darklens(line: str, *more: str, says: str = "", makes: str = "") -> Step:
    """Return the step of a darklens command, written in one line."""
    return Step(["darklens", *line.split(), *more], says, makes)


def imports(file: Path) -> list[str]:
    """Return all import statements of a Python file but those of ``__future__``."""
    found = [n for n in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(n, ast.Import | ast.ImportFrom)]
    return [ast.unparse(n) for n in found if getattr(n, "module", None) != "__future__"]
