import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from darklens.data.batches import Batches, CutoutDataset, FreshBlocks
from darklens.data.dataset import DatasetInfo, DatasetWriter, read_dataset
from darklens.data.splits import ensure_split, split_rows
from darklens.data.synthesis import simulate_dataset
from darklens.errors import DataError
from darklens.simulation import Simulator, load_preset


def digest(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def test_simulated_folder_holds_images_and_whole_truth(dataset):
    data = read_dataset(dataset)
    assert data.images.shape == (192, 1, 64, 64)
    assert data.info.classes == ["no_sub", "cdm", "axion"]
    assert data.info.checksum == "sha256:" + hashlib.sha256((dataset / "images.npy").read_bytes()).hexdigest()
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


def test_interrupted_simulation_ends_with_the_same_bytes(tmp_path):
    whole = simulate_dataset(load_preset("model-3-noisy"), 3000, 5, out=tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop(done, total):
        raise Stop

    with pytest.raises(Stop):
        simulate_dataset(load_preset("model-3-noisy"), 3000, 5, out=tmp_path / "again", progress=stop)
    assert not (tmp_path / "again").exists()
    assert json.loads((tmp_path / "again.partial" / "progress.json").read_text())["done"] == 1024
    seen = []
    simulate_dataset(
        load_preset("model-3-noisy"), 3000, 5, out=tmp_path / "again", progress=lambda d, t: seen.append(d)
    )
    assert seen[0] == 2048, "it goes on where it stopped"
    assert digest(tmp_path / "again") == digest(whole)
    assert not (tmp_path / "again.partial").exists()


def test_killed_simulation_resumes(tmp_path):
    command = [sys.executable, "-m", "darklens", "simulate", "model-3-noisy", "--count", "6000", "--out", "a"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    state = tmp_path / "a.partial" / "progress.json"
    deadline = time.monotonic() + 120
    while not (state.exists() and json.loads(state.read_text())["done"]) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if (tmp_path / "a").exists():
        pytest.skip("the simulation was faster than the kill")
    subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*command[:-1], "b"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_partial_folder_of_other_settings_is_not_mixed(tmp_path):
    DatasetWriter(tmp_path / "a", (4, 1, 2, 2), np.dtype("f4"), fingerprint={"seed": 1})
    with pytest.raises(DataError, match="left by a run with other settings"):
        DatasetWriter(tmp_path / "a", (4, 1, 2, 2), np.dtype("f4"), fingerprint={"seed": 2})


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


def test_damaged_folder_is_named(dataset, tmp_path):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(dataset, broken)
    (broken / "images.npy").write_bytes((broken / "images.npy").read_bytes()[:5000])
    with pytest.raises(DataError, match=r"images\.npy: truncated"):
        read_dataset(broken)
    (broken / "images.npy").unlink()
    with pytest.raises(DataError, match=r"images\.npy is missing"):
        read_dataset(broken)
    info = json.loads((broken / "dataset.json").read_text()) | {"format": 99}
    (broken / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match="newer darklens"):
        read_dataset(broken)


def test_split_is_stratified_and_seeded():
    catalog = pl.DataFrame({"id": range(300), "label": ["a"] * 200 + ["b"] * 100})
    fractions = {"train": 0.8, "validation": 0.1, "test": 0.1}
    split = split_rows(catalog, fractions, seed=1)
    assert [(split[:200] == name).sum() for name in fractions] == [160, 20, 20]
    assert [(split[200:] == name).sum() for name in fractions] == [80, 10, 10]
    assert (split == split_rows(catalog, fractions, seed=1)).all()
    assert (split != split_rows(catalog, fractions, seed=2)).any()
    with pytest.raises(DataError, match="too few to split"):
        split_rows(catalog[:3], fractions, 0)


def test_test_rows_of_a_stored_split_are_never_trained_on():
    catalog = pl.DataFrame({"id": range(60), "label": ["a", "b"] * 30, "split": ["train"] * 40 + ["test"] * 20})
    split = ensure_split(catalog, seed=0)["split"].to_list()
    assert split[40:] == ["test"] * 20
    assert split[:40].count("validation") == 4


def test_batches_cover_each_epoch_once_over_processes():
    parts = [Batches(103, 8, seed=1, shuffle=True, rank=r, world_size=2) for r in range(2)]
    for part in parts:
        part.set_epoch(3)
    rows = [row for part in parts for batch in part for row in batch]
    assert len(rows) == len(set(rows)) == 96
    assert [len(p) for p in parts] == [6, 6]
    again = Batches(103, 8, seed=1, shuffle=True, world_size=2)
    again.set_epoch(3)
    assert list(again) == list(parts[0])
    again.set_epoch(4)
    assert list(again) != list(parts[0])
    ordered = [
        row for r in range(2) for batch in Batches(103, 8, 0, shuffle=False, rank=r, world_size=2) for row in batch
    ]
    assert sorted(ordered) == list(range(103))


def test_fresh_blocks_never_repeat():
    seen = []
    for epoch in range(3):
        for rank in range(2):
            blocks = FreshBlocks(12, 2, rank, world_size=2)
            blocks.set_epoch(epoch)
            seen += [number for batch in blocks for number in batch]
    assert sorted(seen) == list(range(36))


def test_crop_is_read_from_the_centre(dataset):
    data = read_dataset(dataset)
    batch = CutoutDataset(data, np.zeros(192), crop=32)[[5, 9]]
    assert_array_equal(batch["image"], data.images[[5, 9]][..., 16:48, 16:48])


def test_constant_image_is_refused_where_it_would_be_scaled(dataset):
    data = read_dataset(dataset)
    images = np.array(data.images[:4])
    images[2] = 1.5
    flat = type(data)(images, data.catalog[:4], DatasetInfo("mine"))
    with pytest.raises(DataError, match="mine: image 2 is constant"):
        CutoutDataset(flat, np.zeros(4), refuse_constant=True)[[0, 2]]


def test_augmentation_is_the_group_of_the_square():
    from darklens.data.augmentation import augment, transform

    images = torch.arange(2 * 9.0).view(2, 1, 3, 3)
    seen = {tuple(transform(images[:1], s).flatten().tolist()) for s in range(8)}
    assert len(seen) == 8
    out = augment(images.repeat(50, 1, 1, 1), "dihedral", torch.Generator().manual_seed(0))
    found = {tuple(o.flatten().tolist()) for o in out[::2]}
    assert found == seen
    flips = {tuple(o.flatten().tolist()) for o in augment(images[:1].repeat(99, 1, 1, 1), "flips", torch.Generator())}
    assert len(flips) == 4


@pytest.mark.parametrize("stretch", ["sqrt", "asinh", "none"])
def test_preprocessing_fits_its_training_images(stretch):
    from darklens.data.preprocessing import Preprocessing

    images = torch.rand(50, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 100
    prepared = Preprocessing(crop=12, stretch=stretch).fit(images)(images)
    assert prepared.shape == (50, 1, 12, 12)
    assert abs(prepared.mean()) < 1e-4
    assert abs(prepared.std() - 1) < 1e-3


def test_minmax_scales_each_image_to_the_unit_interval():
    from darklens.data.preprocessing import Preprocessing

    images = torch.rand(5, 1, 16, 16) * torch.arange(1, 6).view(5, 1, 1, 1) - 3
    prepared = Preprocessing(stretch="minmax", resize=8, repeat_channels=3)(images)
    assert prepared.shape == (5, 3, 8, 8)
    full = Preprocessing(stretch="minmax")(images)
    assert_allclose(full.amin((1, 2, 3)), 0)
    assert_allclose(full.amax((1, 2, 3)), 1)
