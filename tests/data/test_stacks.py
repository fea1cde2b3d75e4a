"""Images that are stored in one array: ``.npy`` stacks and HDF5 files."""

import h5py
import numpy as np
import pytest

from darklens.data.layouts import open_data

RNG = np.random.default_rng(0)


def test_hdf5_stack(tmp_path):
    images = RNG.random((10, 8, 8)).astype(np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = images
        file["label"] = np.array([b"lens", b"other"] * 5)
        file["z"] = np.linspace(0, 1, 10)
    data = open_data(tmp_path / "a.h5")
    assert data.info.classes == ["lens", "other"]
    np.testing.assert_array_equal(data.images[[7, 2, 2]][:, 0], images[[7, 2, 2]])
    assert data.values("z")[-1] == 1


def test_bands_in_the_last_place_are_recognised_and_said(tmp_path):
    image = RNG.random((20, 24, 3)).astype(np.float32)
    np.save(tmp_path / "one.npy", image)
    data = open_data(tmp_path / "one.npy")
    assert data.images.shape == (1, 3, 20, 24)
    np.testing.assert_array_equal(data.images[[0]][0], np.moveaxis(image, -1, 0))
    assert "one.npy: the shape (20, 24, 3) is read as 3 bands in the last place; --channels first if it is not" in (
        data.info.notes
    )
    stack = RNG.random((7, 20, 20, 4)).astype(np.float32)
    np.save(tmp_path / "stack.npy", stack)
    np.testing.assert_array_equal(open_data(tmp_path / "stack.npy").images[[6, 2]], np.moveaxis(stack[[6, 2]], -1, 1))
    with h5py.File(tmp_path / "stack.h5", "w") as file:
        file["images"] = stack
    data = open_data(tmp_path / "stack.h5")
    np.testing.assert_array_equal(data.images[[6, 2]], np.moveaxis(stack[[6, 2]], -1, 1))
    assert any("4 bands in the last place" in note for note in data.info.notes)


@pytest.mark.parametrize(
    ("shape", "channels", "read"),
    [
        ((20, 20, 5), None, (20, 1, 20, 5)),  # five in the last place are as likely columns
        ((20, 20, 5), "last", (1, 5, 20, 20)),
        ((9, 20, 20, 5), None, (9, 20, 20, 5)),
        ((9, 20, 20, 5), "last", (9, 5, 20, 20)),
        ((20, 16, 3), "first", (1, 20, 16, 3)),
        ((3, 20, 20), None, (1, 3, 20, 20)),
        ((3, 20, 3), None, (1, 3, 20, 3)),
        ((30, 20, 20), None, (30, 1, 20, 20)),
    ],
)
def test_places_of_bands(tmp_path, shape, channels, read):
    array = RNG.random(shape).astype(np.float32)
    np.save(tmp_path / "a.npy", array)
    images = open_data(tmp_path / "a.npy", channels=channels).images
    assert images.shape == read
    if channels == "last":
        np.testing.assert_array_equal(images[[0]][0, 3], array[..., 3] if array.ndim == 3 else array[0, ..., 3])


def test_stacks_are_brought_to_a_size_too(tmp_path):
    stack = RNG.random((5, 1, 12, 14)).astype(np.float32)
    np.save(tmp_path / "stack.npy", stack)
    np.testing.assert_array_equal(open_data(tmp_path / "stack.npy", crop=8).images[[4]], stack[[4], :, 2:10, 3:11])
