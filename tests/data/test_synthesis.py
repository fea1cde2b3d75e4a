"""Simulated datasets: whole truths, the same bytes after any interruption, nothing overwritten."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from darklens.data import synthesis
from darklens.data.dataset import read_dataset
from darklens.data.synthesis import estimate, image_dtype, simulate_cutouts, simulate_dataset, simulated_info
from darklens.errors import DataError
from darklens.simulation import Simulator, load_preset
from darklens.simulation.draw import draw_block
from darklens.simulation.library import resolve_preset


def digest(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir()) if p.is_file()}


def test_simulated_folder_holds_images_and_whole_truth(dataset):
    data = read_dataset(dataset)
    assert data.images.shape == (192, 1, 64, 64)
    assert data.info.classes == ["no_sub", "cdm", "axion"]
    assert data.info.checksum == "sha256:" + hashlib.sha256((dataset / "images.npy").read_bytes()).hexdigest()
    assert data.catalog["seed"].to_list() == [1] * 192
    # Every image can be rendered again from its row.
    simulator = Simulator(data.info.preset, data.info.seed)
    again = simulator.render(data.catalog[100:130])
    assert_array_equal(again, data.images[100:130])
    assert_allclose(
        simulator.render(data.catalog[:30], noise=False),
        simulator.render(simulator.catalog(30), noise=False),
    )


def test_counts_are_stored_as_integers(tmp_path):
    folder = simulate_dataset(load_preset("model-1"), 3, 0, out=tmp_path / "a")
    assert read_dataset(folder).images.dtype == np.uint16
    folder = simulate_dataset(load_preset("model-1"), 3, 0, out=tmp_path / "b", noise=False)
    assert read_dataset(folder).images.dtype == np.float32


@pytest.fixture
def often(monkeypatch):
    """Checkpoints after every block, so that few images are enough."""
    monkeypatch.setattr(synthesis, "CHECKPOINT", 64)


class Stop(Exception):
    pass


def stop_at(number):
    def progress(done, total):
        if done == number:
            raise Stop

    return progress


def interrupted(out, seed=5, noise=True):
    with pytest.raises(Stop):
        simulate_dataset(load_preset("model-3-noisy"), 200, seed, out=out, noise=noise, progress=stop_at(128))


def test_interrupted_simulation_ends_with_the_same_bytes(tmp_path, often):
    seen = []
    preset = load_preset("model-3-noisy")
    whole = simulate_dataset(preset, 200, 5, out=tmp_path / "whole", progress=lambda *done: seen.append(done))
    assert seen == [(64, 200), (128, 200), (192, 200), (200, 200)]
    interrupted(tmp_path / "again")
    assert not (tmp_path / "again").exists()
    assert json.loads((tmp_path / "again.partial" / "progress.json").read_text())["done"] == 128
    seen.clear()
    simulate_dataset(preset, 200, 5, out=tmp_path / "again", progress=lambda *done: seen.append(done))
    assert seen == [(192, 200), (200, 200)], "it goes on where it stopped"
    assert digest(tmp_path / "again") == digest(whole)
    assert not (tmp_path / "again.partial").exists()
    other = simulate_dataset(preset, 200, 6, out=tmp_path / "other")
    assert digest(other)["images.npy"] != digest(whole)["images.npy"]


def test_truths_are_drawn_once_and_kept_with_their_images(tmp_path, often, monkeypatch):
    drawn = []

    def draw(preset, seed, block):
        drawn.append(block)
        return draw_block(preset, seed, block)

    monkeypatch.setattr("darklens.simulation.renderer.draw_block", draw)
    interrupted(tmp_path / "a")
    assert set(drawn[:2]) == {0, 1}
    drawn.clear()
    resumed = simulate_dataset(load_preset("model-3-noisy"), 200, 5, out=tmp_path / "a")
    assert sorted(drawn) == [2, 3]
    truths = Simulator("model-3-noisy", 5).catalog(200)
    assert read_dataset(resumed).catalog.drop("seed").equals(truths)
    drawn.clear()
    assert simulate_cutouts(load_preset("model-3-noisy"), 200, 5).catalog.equals(truths)
    assert sorted(drawn) == [0, 1, 2, 3]
    empty = simulate_dataset(load_preset("model-3-noisy"), 0, 5, out=tmp_path / "empty")
    assert read_dataset(empty).catalog.drop("seed").schema == truths.schema


@pytest.mark.parametrize(
    "changed",
    [{"seed": 6}, {"noise": False}, {"count": 201}, {"preset": "model-3"}],
    ids=["seed", "noise", "count", "preset"],
)
def test_interrupted_simulation_of_other_settings_is_not_continued(tmp_path, often, changed):
    interrupted(tmp_path / "a")
    before = digest(tmp_path / "a.partial")
    given = {"preset": "model-3-noisy", "count": 200, "seed": 5, "noise": True} | changed
    preset, count, seed = load_preset(given["preset"]), given["count"], given["seed"]
    with pytest.raises(DataError, match=r"a\.partial: left by a run with other settings"):
        simulate_dataset(preset, count, seed, out=tmp_path / "a", noise=given["noise"])
    assert digest(tmp_path / "a.partial")["images.npy"] == before["images.npy"]


def test_interrupted_simulation_is_not_continued_with_another_psf(tmp_path, often):
    """Of the same name: half of the images would have one, half the other."""
    content = resolve_preset("model-3-noisy") | {"name": "own"}
    content["instrument"] = content["instrument"] | {"psf_file": str(tmp_path / "psf.npy")}
    np.save(tmp_path / "psf.npy", np.eye(5))
    preset = load_preset(content)
    assert preset.files == [tmp_path / "psf.npy"]
    with pytest.raises(Stop):
        simulate_dataset(preset, 100, 5, out=tmp_path / "a", progress=stop_at(64))
    np.save(tmp_path / "psf.npy", np.ones((5, 5)))
    with pytest.raises(DataError, match="left by a run with other settings"):
        simulate_dataset(preset, 100, 5, out=tmp_path / "a")
    np.save(tmp_path / "psf.npy", np.eye(5))
    assert len(read_dataset(simulate_dataset(preset, 100, 5, out=tmp_path / "a"))) == 100


KILLED = """
import os, signal, sys
from pathlib import Path
from darklens.data import synthesis
from darklens.simulation import load_preset

synthesis.CHECKPOINT = 64
kill = lambda done, total: done == 128 and os.kill(os.getpid(), signal.SIGKILL)
synthesis.simulate_dataset(load_preset("model-3-noisy"), 200, 5, out=Path(sys.argv[1]), progress=kill)
"""


def test_killed_simulation_resumes(tmp_path, often):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a")], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert json.loads((tmp_path / "a.partial" / "progress.json").read_text())["done"] == 128
    resumed = simulate_dataset(load_preset("model-3-noisy"), 200, 5, out=tmp_path / "a")
    assert digest(resumed) == digest(simulate_dataset(load_preset("model-3-noisy"), 200, 5, out=tmp_path / "b"))


def test_existing_folder_is_never_overwritten(dataset):
    before = digest(dataset)
    with pytest.raises(DataError, match="exists already, and nothing is overwritten"):
        simulate_dataset(load_preset("model-3"), 6, 0, out=dataset)
    assert digest(dataset) == before


def test_full_disk_is_said_and_nothing_left(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match="No space left on device"):
        simulate_dataset(load_preset("model-3"), 6, 0, out=tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_images_in_memory_are_those_of_the_folder(dataset, test_set):
    seen = []
    preset = load_preset("model-3-noisy")
    made = simulate_cutouts(preset, 70, 1, progress=lambda *done: seen.append(done))
    assert seen == [(64, 70), (70, 70)]
    stored = read_dataset(dataset)
    assert_array_equal(made.images, stored.images[:70])
    assert made.images.dtype == stored.images.dtype
    assert (made.info.seed, made.info.source, made.info.noise) == (1, "preset:model-3-noisy", True)
    assert stored.where == str(dataset), "errors name the folder, not the preset"
    assert made.catalog["theta_E"].to_list() == stored.catalog["theta_E"][:70].to_list()
    assert_array_equal(simulate_cutouts(preset, 70, 2).images, read_dataset(test_set).images[:70])


@pytest.mark.parametrize(
    ("name", "noise", "kind"), [("model-1", True, "u2"), ("model-1", False, "f4"), ("model-3-noisy", True, "f4")]
)
def test_description_of_a_simulated_dataset(name, noise, kind):
    preset = load_preset(name)
    info = simulated_info(preset, 12, noise)
    assert (info.source, info.seed, info.noise, info.layout) == (f"preset:{name}", 12, noise, "dataset")
    assert info.preset["name"] == name
    assert info.pixel_scale == preset.instrument.pixel_scale
    assert info.zero_points == [preset.instrument.zero_point]
    assert (info.bands, info.unit, info.notes) == ([preset.instrument.name], preset.unit, [preset.description])
    assert image_dtype(preset, noise) == np.dtype(kind)


def test_estimate_is_proportional_to_the_number_of_images():
    few = estimate(load_preset("model-1"), 1000)
    assert few.bytes == 1000 * 150 * 150 * 2
    assert few.seconds * few.images_per_second == pytest.approx(1000)
    assert estimate(load_preset("model-3-noisy"), 10, noise=False).bytes == 10 * 64 * 64 * 4


@pytest.mark.parametrize("noise", [True, False])
def test_a_simulated_folder_says_whether_it_has_noise(noise, tmp_path):
    preset = load_preset("model-1")
    out = simulate_dataset(preset, 2, 9, out=tmp_path / "a", noise=noise)
    info = read_dataset(out).info
    assert (info.noise, info.seed) == (noise, 9)
    assert info.source == "preset:model-1"
    made = simulate_cutouts(preset, 2, 11)
    assert (made.info.noise, made.info.seed) == (True, 11)
    assert made.info.classes == info.classes == preset.labels


def test_an_estimate_is_that_of_the_second_block_of_64_images(monkeypatch):
    """Clock times of 5 s and 7.5 s around it: 25.6 images a second."""
    monkeypatch.setattr(synthesis, "time", SimpleNamespace(perf_counter=iter([5.0, 7.5]).__next__))
    monkeypatch.setattr(Simulator, "blocks", lambda self, count, **options: iter([None] * 2))
    made = estimate(load_preset("model-1"), 1000)
    assert made.images_per_second == pytest.approx(25.6)
    assert made.seconds == pytest.approx(1000 / 25.6)
