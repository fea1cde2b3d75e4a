"""Files of images that are mapped into memory, and what is read of them."""

import pickle

import numpy as np
import polars as pl
import pytest

from darklens.data.batches import CutoutDataset
from darklens.data.dataset import ConcatenatedImages, Cutouts, DatasetInfo, ImageSubset, read_window
from darklens.data.layouts import open_data
from darklens.data.mapped import MappedImages

STACK = np.random.default_rng(3).normal(-1, 2, (9, 20, 24, 3)).astype(np.float32)
IMAGES = np.moveaxis(STACK, -1, 1)


@pytest.fixture
def mapped(tmp_path):
    np.save(tmp_path / "a.npy", STACK)
    return open_data(tmp_path / "a.npy").images


def test_another_process_gets_the_name_of_the_file(mapped, dataset, tmp_path):
    sent = pickle.dumps(mapped)
    assert len(sent) < 500 < STACK.nbytes
    again = pickle.loads(sent)
    assert again.shape == (9, 3, 20, 24)
    np.testing.assert_array_equal(again[[7, 2]], IMAGES[[7, 2]])
    assert len(pickle.dumps(open_data(dataset).images)) < 500
    np.save(tmp_path / "flat.npy", STACK[..., 0].repeat(2, 0))
    planes = open_data(tmp_path / "flat.npy").images
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(planes))[[5]], STACK[None, 2, None, :, :, 0])


def test_only_the_window_is_asked_of_a_mapped_file(mapped, monkeypatch):
    """Through subsets and joined files, as a training opens them."""
    joined = ConcatenatedImages([mapped, IMAGES[:4] * 10, mapped])
    chosen = ImageSubset(joined, np.array([21, 0, 10, 12, 8]))
    every = np.concatenate([IMAGES, IMAGES[:4] * 10, IMAGES])
    window = slice(3, 8), slice(5, 16)
    expected = every[np.array([21, 0, 10, 12, 8])][[4, 2, 2, 0]][..., 3:8, 5:16]
    monkeypatch.setattr(MappedImages, "__getitem__", lambda *_: pytest.fail("whole images are read"))
    np.testing.assert_array_equal(read_window(chosen, np.array([4, 2, 2, 0]), window), expected)


def test_crop_of_a_training_reads_the_centre_alone(mapped, monkeypatch):
    cutouts = Cutouts(mapped, pl.DataFrame({"id": list("abcdefghi")}), DatasetInfo("x")).subset(np.array([6, 1]))
    monkeypatch.setattr(MappedImages, "__getitem__", lambda *_: pytest.fail("whole images are read"))
    batch = CutoutDataset(cutouts, np.zeros(2), crop=10)[[1, 0]]
    np.testing.assert_array_equal(batch["image"], IMAGES[[1, 6]][..., 5:15, 7:17])
