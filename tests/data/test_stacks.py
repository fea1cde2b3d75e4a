"""Images that are stored in one array: ``.npy`` stacks and HDF5 files."""

import pickle

import h5py
import numpy as np
import pytest

from darklens.data.layouts import open_data
from darklens.data.readers.stacks import Hdf5Stack, open_npy_stack
from darklens.errors import DataError

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


def write_hdf5(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name.replace("__", "/")] = array
    return path


def test_largest_dataset_of_images_is_read_or_the_named_one(tmp_path):
    images = RNG.normal(-1, 2, (6, 2, 5, 7))
    path = write_hdf5(
        tmp_path / "a.h5", small=images[:, 0, :2], deep__images=images, text=[b"x"], table=RNG.random((500, 50))
    )
    stack = Hdf5Stack(path)
    assert (stack.name, stack.shape, stack.dtype, stack.notes) == ("deep/images", (6, 2, 5, 7), np.float64, [])
    for rows in ([4, 0, 0, 5], slice(1, 3), np.array([True] + [False] * 4 + [True]), [-1]):
        np.testing.assert_array_equal(stack[rows], images[rows])
    again = pickle.loads(pickle.dumps(stack))
    np.testing.assert_array_equal(again[[2]], images[[2]])
    small = Hdf5Stack(path, "small")
    assert small.shape == (6, 1, 2, 7)
    np.testing.assert_array_equal(small[[3, 1]][:, 0], images[[3, 1], 0, :2])
    with pytest.raises(DataError, match=r"b\.h5: no dataset of images"):
        Hdf5Stack(write_hdf5(tmp_path / "b.h5", table=np.ones((5, 5))))
    (tmp_path / "c.h5").write_text("not HDF5")
    with pytest.raises(DataError, match=r"c\.h5: not a readable HDF5 file"):
        Hdf5Stack(tmp_path / "c.h5")


def test_columns_have_a_value_for_each_image(tmp_path):
    path = write_hdf5(
        tmp_path / "a.h5",
        images=RNG.random((3, 4, 4)),
        truths__z=[0.5, -1.5, 2],
        label=[b"p", b"q", b"r"],
        other=[1, 2, 3, 4],
        complex=np.array([1j, 2, 3]),
    )
    columns = Hdf5Stack(path).columns()
    assert sorted(columns) == ["label", "z"]
    assert columns["z"].tolist() == [0.5, -1.5, 2]
    assert columns["label"].tolist() == ["p", "q", "r"]


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((6, 7), (1, 1, 6, 7)), ((4, 6, 7), (1, 4, 6, 7)), ((5, 6, 7), (5, 1, 6, 7)), ((2, 3, 6, 7), (2, 3, 6, 7))],
)
def test_npy_arrays_become_stacks(tmp_path, shape, axes):
    array = RNG.normal(0, 1, shape)
    np.save(tmp_path / "a.npy", array)
    images, notes = open_npy_stack(tmp_path / "a.npy")
    np.testing.assert_array_equal(images, array.reshape(axes))
    assert notes == []


def test_npy_arrays_that_are_no_images_are_refused(tmp_path):
    for shape, message in (
        ((5,), r"is no image \(H, W\) and no stack"),
        ((1, 2, 3, 4, 5), "is no image"),
        ((0, 3, 3), "not of images"),
    ):
        np.save(tmp_path / "a.npy", np.ones(shape))
        with pytest.raises(DataError, match=rf"a\.npy: an array of shape .*{message}"):
            open_npy_stack(tmp_path / "a.npy")


def test_labels_of_one_group_are_not_those_of_another(tmp_path):
    """Both groups have as many images; the second is the larger, by its pixels."""
    path = write_hdf5(
        tmp_path / "a.h5",
        train__images=RNG.random((4, 8, 8)), train__label=np.array([0, 1, 0, 1]),
        other__images=RNG.random((4, 9, 9)), other__label=np.array([1, 1, 1, 0]), z=np.array([0.1, 0.2, 0.3, 0.4]),
        other__truth__z=np.array([5.0, 6, 7, 8]), other__truth__m=np.array([1.0, 2, 3, 4]),
    )  # fmt: skip
    data = open_data(path)
    assert data.images.shape == (4, 1, 9, 9)
    assert data.catalog["label"].to_list() == ["1", "1", "1", "0"]
    assert data.values("m").tolist() == [1, 2, 3, 4]
    assert data.values("z").tolist() == [5, 6, 7, 8]
    train = Hdf5Stack(path, "train/images").columns()
    assert sorted(train) == ["label", "z"]
    assert train["label"].tolist() == [0, 1, 0, 1]


def test_groups_that_are_named_for_splits_are_one_dataset(tmp_path):
    images = {name: RNG.random((n, 8, 8)).astype(np.float32) for name, n in (("train", 3), ("valid", 3), ("test", 2))}
    labels = {"train": [0, 1, 0], "valid": [1, 1, 0], "test": [0, 1]}
    arrays = {f"{name}__x": each for name, each in images.items()}
    arrays |= {f"{name}__label": np.array(each) for name, each in labels.items()}
    data = open_data(write_hdf5(tmp_path / "a.h5", **arrays))
    split = data.catalog["split"].to_list()
    assert sorted(set(split)) == ["test", "train", "validation"]
    for row, identifier in enumerate(data.ids):
        name, _, number = identifier.partition("/")
        assert data.catalog["label"][row] == str(labels[name][int(number)])
        assert split[row] == {"valid": "validation"}.get(name, name)
        np.testing.assert_array_equal(data.images[[row]][0, 0], images[name][int(number)])


@pytest.mark.parametrize(("channels", "axes"), [(None, (0, 3, 1, 2)), ("last", (0, 3, 1, 2)), ("first", (0, 1, 2, 3))])
def test_bands_of_an_hdf5_file_are_where_the_user_says(channels, axes, tmp_path):
    images = RNG.normal(-1, 2, (4, 6, 7, 3))
    stack = Hdf5Stack(write_hdf5(tmp_path / "a.h5", images=images), channels=channels)
    assert stack.shape == images.transpose(axes).shape
    np.testing.assert_array_equal(stack[[3, 1]], images[[3, 1]].transpose(axes))
    assert len(stack.notes) == (channels != "first")
    other = Hdf5Stack(write_hdf5(tmp_path / "b.h5", images=images[..., :2]), channels="last")
    assert other.shape == (4, 2, 6, 7), "two bands are not guessed"


def test_a_file_that_is_gone_when_its_images_are_read_is_named(tmp_path):
    stack = Hdf5Stack(write_hdf5(tmp_path / "a.h5", images=RNG.random((4, 6, 7))))
    (tmp_path / "a.h5").write_bytes(b"something else")
    with pytest.raises(DataError, match=r"a\.h5: not a readable HDF5 file"):
        stack[[1]]
