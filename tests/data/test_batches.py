"""Batches: which rows, in which order, and what is read of them."""

import numpy as np
import polars as pl
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from darklens.data.batches import Batches, CutoutDataset, FreshImages, SimulatedDataset, batch_loader
from darklens.data.dataset import Cutouts, DatasetInfo, ImageSubset
from darklens.errors import DataError
from darklens.simulation import Simulator

RNG = np.random.default_rng(1)


def batches_of(epoch=0, **options):
    given = {"size": 103, "batch_size": 8, "seed": 1, "shuffle": True} | options
    batches = Batches(given.pop("size"), given.pop("batch_size"), given.pop("seed"), **given)
    batches.set_epoch(epoch)
    assert len(list(batches)) == len(batches)
    return list(batches)


def test_batches_cover_each_epoch_once_over_processes():
    parts = [batches_of(3, rank=rank, world_size=2) for rank in range(2)]
    rows = [row for part in parts for batch in part for row in batch]
    assert len(rows) == len(set(rows)) == 96
    assert [len(part) for part in parts] == [6, 6]
    assert {len(batch) for part in parts for batch in part} == {8}
    assert all(batch == sorted(batch) for part in parts for batch in part)
    assert batches_of(3, world_size=2) == parts[0]


def test_order_follows_from_seed_and_epoch():
    """As in stored runs: ``default_rng(SeedSequence([3, 11, epoch])).permutation(10)``, four rows at a time."""
    first = [[2, 5, 8, 9], [1, 3, 6, 7]]
    assert batches_of(0, size=10, batch_size=4, seed=3) == first
    assert batches_of(1, size=10, batch_size=4, seed=3) == [[0, 1, 4, 5], [3, 6, 8, 9]]
    assert batches_of(0, size=10, batch_size=4, seed=4) != first


def test_short_epochs_go_on_through_passes_over_all_rows():
    """Three batches of 10 rows make a pass of the 32, and four make an epoch: the passes are those of full epochs."""
    short = [batch for epoch in range(3) for batch in batches_of(epoch, size=32, batch_size=10, epoch_size=20)]
    whole = [batch for epoch in range(2) for batch in batches_of(epoch, size=32, batch_size=10)]
    assert len(short) == 6
    assert short == whole
    assert batches_of(1, size=32, batch_size=10, epoch_size=99) == batches_of(1, size=32, batch_size=10)


def test_a_set_smaller_than_a_batch_makes_one():
    assert batches_of(0, size=5, batch_size=8) == [[0, 1, 2, 3, 4]]


def test_rows_in_order_are_all_there_whatever_the_epoch():
    assert batches_of(2, size=7, batch_size=3, shuffle=False) == [[0, 1, 2], [3, 4, 5], [6]]
    assert batches_of(0, size=7, batch_size=3, shuffle=False, rank=1, world_size=2) == [[1, 3, 5]]
    assert batches_of(0, size=7, batch_size=3, shuffle=False, rank=0, world_size=2) == [[0, 2, 4], [6]]
    assert batches_of(0, size=6, batch_size=3, shuffle=False, epoch_size=3) == [[0, 1, 2], [3, 4, 5]]


def fresh(epoch, *sizes, **place):
    images = FreshImages(*sizes, **place)
    images.set_epoch(epoch)
    assert len(list(images)) == len(images)
    return list(images)


def test_fresh_images_never_repeat():
    parts = [fresh(epoch, 12, 2, rank=rank, world_size=2) for epoch in range(3) for rank in range(2)]
    assert {len(part) for part in parts} == {3}
    assert sorted(number for part in parts for batch in part for number in batch) == list(range(36))
    assert parts[-1] == [[26, 27], [30, 31], [34, 35]]
    assert fresh(0, 1, 4) == [[0, 1, 2, 3]]
    assert fresh(1, 7, 2) == [[6, 7], [8, 9], [10, 11]], "what is less than a step is left out"


@pytest.mark.parametrize("processes", [2, 3, 6])
def test_steps_are_the_same_for_any_number_of_processes(processes):
    for epoch in (0, 2):
        parts = [fresh(epoch, 50, 12 // processes, rank=rank, world_size=processes) for rank in range(processes)]
        steps = [[number for share in shares for number in share] for shares in zip(*parts, strict=True)]
        assert steps == fresh(epoch, 50, 12)


def cutouts_of(images, **columns):
    catalog = pl.DataFrame({"id": [f"o{i}" for i in range(images.shape[0])], **columns})
    return Cutouts(images, catalog, DatasetInfo("mine"))


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(
    ("crop", "rows", "columns"),
    [
        (4, slice(1, 5), slice(2, 6)),
        (3, slice(2, 5), slice(3, 6)),
        (7, slice(0, 7), slice(1, 8)),
        (8, slice(0, 7), slice(0, 8)),
        (9, slice(0, 7), slice(0, 9)),
        (None, slice(0, 7), slice(0, 9)),
    ],
)
def test_crop_is_read_from_the_centre(lazy, crop, rows, columns):
    images = RNG.normal(-1, 3, (6, 2, 7, 9)).astype(np.float32)
    cutouts = cutouts_of(ImageSubset(images, np.arange(6)) if lazy else images)
    batch = CutoutDataset(cutouts, np.arange(6), crop)[[5, 1, 2]]
    assert_array_equal(batch["image"], images[[5, 1, 2]][:, :, rows, columns])
    assert batch["image"].dtype == torch.float32


def test_targets_and_rows_are_those_of_the_images():
    data = CutoutDataset(cutouts_of(np.arange(5, dtype=np.uint16).reshape(5, 1, 1, 1)), np.arange(10).reshape(5, 2) - 4)
    assert len(data) == 5
    batch = data[[3, 0]]
    assert batch["image"].flatten().tolist() == [3, 0]
    assert batch["row"].tolist() == [3, 0]
    assert batch["target"].tolist() == [[2, 3], [-4, -3]]


def test_bad_pixels_are_refused_or_masked():
    images = RNG.normal(5, 1, (4, 1, 3, 3))
    images[2, 0, 1, 0] = 1e39  # infinite in float32
    with pytest.raises(DataError, match="mine: image o2 has 1 pixels that are nan or infinite"):
        CutoutDataset(cutouts_of(images), np.zeros(4))[[3, 2]]
    masked = CutoutDataset(cutouts_of(images), np.zeros(4), mask=True)[[3, 2]]["image"]
    images[2, 0, 1, 0] = 0
    assert_allclose(masked, images[[3, 2]], rtol=1e-6)


def test_constant_image_is_refused_where_it_would_be_scaled():
    images = RNG.normal(5, 1, (4, 2, 3, 3)).astype(np.float32)
    images[0, 1], images[2, 0], images[2, 1] = 7, 1.5, -1.5
    strict = CutoutDataset(cutouts_of(images), np.zeros(4), refuse_constant=True)
    assert_array_equal(strict[[0, 3]]["image"], images[[0, 3]])
    with pytest.raises(DataError, match="mine: image o2 is constant: there is nothing to scale in it"):
        strict[[0, 2]]
    assert_array_equal(CutoutDataset(cutouts_of(images), np.zeros(4))[[2]]["image"], images[[2]])


def test_simulated_batches_are_the_images_of_the_simulator():
    def labels(cutouts):
        return cutouts.labels(cutouts.info.classes)

    def values(cutouts):
        return cutouts.values("log10_axion_mass")[:, None]

    simulator = Simulator("model-3-noisy", seed=5)
    (first, truths), (second, others) = simulator.block(0), simulator.block(1)
    images = torch.cat([second, first])
    both = [*range(64, 128), *range(64)]
    batch = SimulatedDataset(simulator, labels, ["label"])[both]
    assert_array_equal(batch["image"], images)
    assert len(batch["image"]) == 128
    names = [*others["label"], *truths["label"]]
    assert batch["target"].tolist() == [["no_sub", "cdm", "axion"].index(name) for name in names]
    masses = np.concatenate([others["log10_axion_mass"], truths["log10_axion_mass"]])
    known = np.isfinite(masses)
    assert 0 < known.sum() < 128
    batch = SimulatedDataset(simulator, values, ["log10_axion_mass"])[both]
    assert_array_equal(batch["image"], images[torch.from_numpy(known)])
    assert_allclose(batch["target"], masses[known][:, None], rtol=1e-6)
    part = SimulatedDataset(simulator, labels, ["label"])[range(61, 66)]
    assert_array_equal(part["image"], torch.cat([first[61:], second[:2]]))
    assert part["target"].tolist() == [number % 3 for number in range(61, 66)]
    other = SimulatedDataset(Simulator("model-3-noisy", seed=6), labels, ["label"])[range(64)]
    assert not torch.equal(other["image"], first)


def test_loader_gives_the_batches_of_its_sampler():
    images = np.arange(7, dtype=np.float32).reshape(7, 1, 1, 1)
    loader = batch_loader(CutoutDataset(cutouts_of(images), np.arange(7)), Batches(7, 3, 0, shuffle=False))
    assert [batch["image"].flatten().tolist() for batch in loader] == [[0, 1, 2], [3, 4, 5], [6]]


def test_loader_of_several_processes_keeps_them():
    data, batches = CutoutDataset(cutouts_of(np.zeros((7, 1, 1, 1))), np.arange(7)), Batches(7, 3, 0, shuffle=False)
    alone, ahead = batch_loader(data, batches), batch_loader(data, batches, 2)
    assert (alone.num_workers, alone.persistent_workers, alone.multiprocessing_context) == (0, False, None)
    assert (ahead.num_workers, ahead.persistent_workers) == (2, True)
    assert ahead.multiprocessing_context.get_start_method() == "spawn"


def test_batches_have_the_noise_of_the_sky_where_there_are_maps():
    rng = np.random.default_rng(4)
    images = rng.normal(size=(5, 2, 20, 30)).astype(np.float32)
    maps = np.full(images.shape, 9.0, np.float32)
    level = np.arange(1, 11).reshape(5, 2)
    maps[:, :, [0, 1, 2, 17, 18, 19]] = level[:, :, None, None]  # a tenth of 30 columns, at the top and at the bottom
    catalog = pl.DataFrame({"id": [str(i) for i in range(5)]})
    cutouts = Cutouts(images, catalog, DatasetInfo("x"), noise=maps)
    targets = np.zeros(5, dtype=np.int64)
    batches = CutoutDataset(cutouts, targets, noise=True)
    assert batches[[3, 1]]["noise"].tolist() == level[[3, 1]].tolist()
    maps[:] = 0  # what was read is kept
    assert batches[[1, 0]]["noise"].tolist()[0] == level[1].tolist()
    assert "noise" not in CutoutDataset(cutouts, targets)[[0]]
    without = Cutouts(images, catalog, DatasetInfo("x"))
    assert "noise" not in CutoutDataset(without, targets, noise=True)[[0]]
