"""Labelled batches with unlabelled images beside them, in an order that follows from seed and step."""

import numpy as np
import polars as pl
import pytest
from numpy.random import SeedSequence, default_rng
from numpy.testing import assert_array_equal

from darklens.data.batches import Batches, CutoutDataset
from darklens.data.dataset import Cutouts, DatasetInfo
from darklens.data.streams import TwoStreamBatches, TwoStreams, UnlabelledImages
from darklens.errors import DataError

IMAGES = np.arange(24, dtype=np.float64).reshape(6, 1, 2, 2) - 5


def cutouts_of(images):
    return Cutouts(images, pl.DataFrame({"id": [f"o{i}" for i in range(len(images))]}), DatasetInfo("wild"))


def labelled(size=12, batch_size=4, **options):
    return Batches(size, batch_size, 3, shuffle=True, **options)


def others(epoch=0, *, size=7, batch_size=2, seed=3, **options):
    """Rows of the second dataset in each batch of an epoch; those of the first are its own."""
    batches = TwoStreamBatches(labelled(**options), size, batch_size, seed=seed, **options)
    batches.set_epoch(epoch)
    own = labelled(**options)
    own.set_epoch(epoch)
    pairs = list(batches)
    assert len(batches) == len(pairs)
    assert [rows for rows, _ in pairs] == list(own)
    return [rows for _, rows in pairs]


def order(number, size=7, seed=3):
    """The stream of stored runs: purpose 13, and the number of the pass."""
    return default_rng(SeedSequence([seed, 13, number])).permutation(size).tolist()


def test_second_stream_is_gone_through_pass_by_pass():
    """Three batches of two make a pass of the seven images; an epoch has three batches too."""
    for epoch in (0, 1, 2):
        expected = order(epoch)
        assert others(epoch) == [sorted(expected[2 * i : 2 * i + 2]) for i in range(3)]
    assert others(seed=4) == [sorted(order(0, seed=4)[2 * i : 2 * i + 2]) for i in range(3)]
    assert others(0) != others(1) != others(0, seed=4)


def test_passes_go_on_over_epochs_of_another_length():
    """Two batches of three make a pass, and an epoch ends in the middle of the second."""
    found = [rows for epoch in (0, 1) for rows in others(epoch, batch_size=3)]
    orders = [order(number) for number in (0, 1, 2)]
    assert found == [sorted(orders[i // 2][3 * (i % 2) : 3 * (i % 2) + 3]) for i in range(6)]


def test_processes_share_the_second_stream():
    parts = [others(rank=rank, world_size=2) for rank in (0, 1)]
    assert parts == [[sorted(order(0)[rank::2][:2])] for rank in (0, 1)]


def test_batch_as_large_as_the_second_dataset_is_all_of_it():
    assert others(size=3, batch_size=3) == [[0, 1, 2]] * 3
    assert others(size=2, batch_size=3) == [[0, 1]] * 3


def test_images_of_both_streams_are_in_a_batch():
    first = CutoutDataset(cutouts_of(IMAGES), np.arange(6) * 10)
    second = UnlabelledImages(cutouts_of(-IMAGES))
    assert len(second) == 6
    batch = TwoStreams(first, second)[([4, 1], [5, 0, 2])]
    assert_array_equal(batch["image"], IMAGES[[4, 1]])
    assert batch["target"].tolist() == [40, 10]
    assert_array_equal(batch["unlabelled"], -IMAGES[[5, 0, 2]])
    assert {str(batch[name].dtype) for name in ("image", "unlabelled")} == {"torch.float32"}


def test_bad_pixels_of_the_second_stream_are_refused_or_masked():
    images = IMAGES.copy()
    images[3, 0, 1, 0] = np.nan
    with pytest.raises(DataError, match="wild: image o3 has 1 pixels that are nan or infinite"):
        UnlabelledImages(cutouts_of(images))[[2, 3]]
    masked = UnlabelledImages(cutouts_of(images), mask=True)[[2, 3]]["image"]
    assert_array_equal(masked, np.nan_to_num(images[[2, 3]]))
