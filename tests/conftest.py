"""What several tests share: a grid, small datasets, and one trained run."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest
import torch

from darklens.cli import main
from darklens.data.dataset import DatasetInfo, DatasetWriter
from darklens.data.synthesis import simulate_dataset
from darklens.simulation import load_preset
from darklens.training.job import Job
from darklens.training.recipe import load_recipe
from darklens.training.train import train

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
EXAMPLES = Path(__file__).resolve().parents[1] / "src" / "darklens" / "examples"

TINY = {
    "network.widths": [8, 8],
    "network.blocks": [1, 1],
    "preprocessing.crop": None,
    "trainer.epochs": 2,
    "trainer.batch_size": 32,
    "trainer.precision": "32-true",
}
"""A network and training for tests: seconds, not skill."""


SLOWEST_FIRST = ["test_benchmark", "test_pages", "test_training", "test_extending", "test_trusted_code", "test_first_steps",
                 "test_docs", "test_hub", "test_synthesis", "test_compiled", "test_fuzz"]  # fmt: skip
"""Modules that begin first, so that two processes end at about the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order whole modules; the order within each stays."""
    rank = {name: number for number, name in enumerate(SLOWEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.fixture
def grid() -> tuple[torch.Tensor, torch.Tensor]:
    """Positions across a lens, off any centre, (23, 23) float64."""
    axis = torch.linspace(-2.51, 2.47, 23, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x, y


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """192 images of model-3-noisy as a dataset folder."""
    return simulate_dataset(load_preset("model-3-noisy"), 192, 1, out=tmp_path_factory.mktemp("data") / "train")


@pytest.fixture(scope="session")
def test_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 other images of the same."""
    return simulate_dataset(load_preset("model-3-noisy"), 96, 2, out=tmp_path_factory.mktemp("data") / "test")


@pytest.fixture(scope="session")
def run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny classifier trained on it."""
    return train(Job(load_recipe("substructure/demo", TINY), str(dataset)), tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="session")
def mass_run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny regression of the axion mass."""
    return train(Job(load_recipe("mass/demo", TINY), str(dataset)), tmp_path_factory.mktemp("runs") / "mass")


def write_rings(out: Path, count: int, seed: int, *, bands: Sequence[str] = ("g", "r", "i"), side: int = 24) -> Path:
    """Write a dataset of galaxies, of which half have a ring and the label lens, with positions on the sky."""
    rng = np.random.default_rng(seed)
    lens = np.arange(count) % 2 == 1
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    r = np.hypot(x + rng.normal(0, 0.3, (count, 1, 1)), y)
    ring = lens[:, None, None] * rng.uniform(0.2, 1.5, (count, 1, 1)) * np.exp(-((r - 7) ** 2) / 2)
    colours = np.linspace(1, 2, len(bands))[None, :, None, None]
    images = 5 * np.exp(-r / 2)[:, None] * colours + 3 * ring[:, None] / colours
    images = (images + rng.normal(0, 0.5, images.shape)).astype(np.float32)
    catalog = pl.DataFrame(
        {
            "id": [f"o{seed}-{i}" for i in range(count)],
            "label": np.where(lens, "lens", "nonlens"),
            "ra": 150 + np.arange(count) / 100,
            "dec": 2 + np.arange(count) / 200,
            "z_phot": rng.uniform(0.2, 0.9, count),
        }
    )
    with DatasetWriter(out, images.shape, images.dtype, fingerprint={}) as writer:
        writer.write(0, images)
        return writer.finish(catalog, DatasetInfo("rings", ["nonlens", "lens"], list(bands), pixel_scale=0.168))


def train_here(line: Sequence[str]) -> tuple[int, str]:
    """Stand for `run_passing_on_errors`: train in this process, which saves the start of another."""
    try:
        main(list(line[3:]))
    except SystemExit as stop:
        return int(stop.code or 0), f"darklens: {stop.__context__}"
    return 0, ""


@pytest.fixture(scope="session")
def finding_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny lens finder in three bands."""
    folder = tmp_path_factory.mktemp("finding")
    data = write_rings(folder / "train", 256, 1)
    return train(Job(load_recipe("finding/demo", TINY | {"trainer.epochs": 6}), str(data)), folder / "run")


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    """``no_sub/ cdm/ axion/`` with plain images and pickled pairs, as DeepLense has them."""
    rng = np.random.default_rng(0)
    for name in ("no_sub", "cdm", "axion"):
        (tmp_path / "deeplense" / name).mkdir(parents=True)
        for i in range(4):
            image = rng.normal(10, 1, (16, 16))
            path = tmp_path / "deeplense" / name / f"{name}_{i}.npy"
            if name == "axion":
                pair = np.empty(2, dtype=object)
                pair[0], pair[1] = image, 10.0 ** (-23 + 0.1 * i)
                np.save(path, pair, allow_pickle=True)
            else:
                np.save(path, image)
    return tmp_path / "deeplense"


@pytest.fixture(scope="session")
def benchmark_module() -> Callable[[str], ModuleType]:
    """A function that imports a benchmark by its name: they are scripts, outside the package."""

    def load(name: str) -> ModuleType:
        path = Path(__file__).parents[1] / "benchmarks" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def not_compiled(monkeypatch):
    """Run what torch.compile would compile as it is, in processes that are started too."""
    from darklens.simulation import compiled

    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(compiled, "_failed", [])
    monkeypatch.setattr(compiled, "_ready", set())
    caches = (compiled._kernel, compiled._sum, compiled._each, compiled._lens, compiled.kernels_compile)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()
