"""Dataset folders: written, resumed, read, and refused if they are damaged."""

import dataclasses
import hashlib
import json
import shutil

import numpy as np
import polars as pl
import pytest

from darklens.data.dataset import ConcatenatedImages, Cutouts, DatasetInfo, DatasetWriter, read_dataset, read_window
from darklens.data.layouts import open_data
from darklens.errors import DataError, InUseError


@pytest.fixture
def folder(tmp_path):
    writer = DatasetWriter(tmp_path / "set", (2, 1, 8, 8), np.dtype(np.float32), fingerprint={})
    writer.write(0, np.ones((2, 1, 8, 8)))
    return writer.finish(pl.DataFrame({"id": ["0", "1"]}), DatasetInfo("a telescope", ["cdm"], ["VIS"], 0.1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": "cdm"}, r"classes is 'cdm'; expected list\[str\]"),
        ({"classes": [1]}, r"classes is \[1\]; expected list\[str\]"),
        ({"pixel_scale": "0.1"}, r"pixel_scale is '0.1'; expected float or null"),
        ({"pixel_scale": True}, "pixel_scale is True"),
        ({"pixel_scale": float("nan")}, "pixel_scale is nan"),
        ({"seed": 1.5}, r"seed is 1.5; expected int or null"),
        ({"format": "1"}, "format is '1'; expected a whole number"),
        ({"format": 2}, "written by a newer darklens"),
        ({"bands": ["VIS", "Y"]}, "names 2 bands; images.npy has 1"),
    ],
)
def test_descriptions_of_datasets_with_wrong_values_are_refused(folder, change, message):
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"not known": 1}))
    assert read_dataset(folder).info.classes == ["cdm"]
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=rf"dataset\.json: {message}"):
        read_dataset(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "holds a list; expected keys and values"),
        ("[" * 100_000, "not valid JSON"),
        ("{}", "no key 'source'"),
        (r'{"source": "\ud800"}', "not valid JSON: .*surrogates"),
    ],
)
def test_descriptions_that_are_none_are_refused(folder, text, message):
    (folder / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=rf"dataset\.json: {message}"):
        read_dataset(folder)


@pytest.mark.parametrize(
    "array", [np.ones((2, 8, 8)), np.ones((2, 1, 0, 8)), np.ones((2, 0, 8, 8)), np.array([[1, None]], dtype=object)]
)
def test_datasets_whose_images_are_none_are_refused(folder, array):
    np.save(folder / "images.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=r"images\.npy: .* expected numbers, \(N, C, H, W\)"):
        read_dataset(folder)


def test_damaged_catalogues_are_refused(folder):
    path = folder / "catalog.parquet"
    pl.DataFrame({"id": [[0], [1]]}).write_parquet(path)
    with pytest.raises(DataError, match=r"catalog\.parquet: column 'id' holds List"):
        read_dataset(folder)
    pl.DataFrame({"name": ["a", "b"]}).write_parquet(path)
    with pytest.raises(DataError, match=r"catalog\.parquet: no column 'id'; there are name"):
        read_dataset(folder)


def test_partial_folder_of_other_settings_is_not_mixed(tmp_path):
    DatasetWriter(tmp_path / "a", (4, 1, 2, 2), np.dtype("f4"), fingerprint={"seed": 1})
    with pytest.raises(DataError, match="left by a run with other settings"):
        DatasetWriter(tmp_path / "a", (4, 1, 2, 2), np.dtype("f4"), fingerprint={"seed": 2})


def test_damaged_folder_is_named(dataset, tmp_path):
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


def test_shards_are_one_dataset(dataset, test_set, tmp_path):
    (tmp_path / "a").symlink_to(dataset)
    (tmp_path / "b").symlink_to(test_set)
    data = open_data(tmp_path)
    assert len(data) == 288
    np.testing.assert_array_equal(
        data.images[[200, 3]], [*open_data(test_set).images[[8]], *open_data(dataset).images[[3]]]
    )


IMAGES = np.random.default_rng(6).normal(-2, 3, (7, 2, 3, 4)).astype(np.float32)


def cutouts(**columns):
    return Cutouts(IMAGES, pl.DataFrame({"id": list("abcdefg"), **columns}), DatasetInfo("mine"))


def test_labels_are_places_in_the_list_of_classes():
    data = cutouts(label=["cdm", "no_sub", "axion", "cdm", "no_sub", "no_sub", "axion"])
    labels = data.labels(["axion", "no_sub", "cdm"])
    assert labels.tolist() == [2, 1, 0, 2, 1, 1, 0]
    assert labels.dtype == np.int64
    assert data.labels(["no", "sphere", "vort"]).tolist() == [1, 0, 2, 1, 0, 0, 2]
    # A name that is a class of its own is not taken for another's.
    assert cutouts(label=["sphere", "cdm"] * 3 + ["sphere"]).labels(["cdm", "sphere"]).tolist() == [1, 0] * 3 + [1]
    assert cutouts(label=[3, 5, 3, 3, 5, 5, 5]).labels(["5", "3"]).tolist() == [1, 0, 1, 1, 0, 0, 0]
    with pytest.raises(DataError, match=r"mine: row 2 \(id c\) has label 'axion'; expected one of no_sub, cdm"):
        data.labels(["no_sub", "cdm"])
    with pytest.raises(DataError, match="mine: the catalogue has no column 'label'"):
        cutouts().labels(["a"])


@pytest.mark.parametrize("missing", [None, ""])
def test_images_without_a_label_have_nan(missing):
    labels = cutouts(label=["b", "a", missing, "b", "b", missing, "a"]).labels(["a", "b"])
    np.testing.assert_array_equal(labels, [1, 0, np.nan, 1, 1, np.nan, 0])


def test_values_are_numbers_or_nan():
    data = cutouts(z=[0.5, None, -1.5, 3, 4, 5, 6], count=[1, 2, 3, 4, 5, 6, None], name=list("xyzuvwt"))
    np.testing.assert_array_equal(data.values("z"), [0.5, np.nan, -1.5, 3, 4, 5, 6])
    np.testing.assert_array_equal(data.values("count"), [1, 2, 3, 4, 5, 6, np.nan])
    assert data.values("count").dtype == np.float64
    with pytest.raises(DataError, match="mine: no column 'mass'; numbers are in z, count"):
        data.values("mass")
    with pytest.raises(DataError, match="mine: column 'name' does not hold numbers"):
        data.values("name")


def test_images_and_rows_must_be_as_many(tmp_path):
    with pytest.raises(DataError, match=r"^mine: 7 images but 6 catalogue rows"):
        Cutouts(IMAGES, pl.DataFrame({"id": list("abcdef")}), DatasetInfo("mine"))
    with pytest.raises(DataError, match=r"set: 7 images but 1 catalogue rows"):
        Cutouts(IMAGES, pl.DataFrame({"id": ["a"]}), DatasetInfo("mine"), path=tmp_path / "set")


def test_subsets_are_rows_in_the_order_asked_for():
    data = cutouts(z=range(7))
    data.targets = -IMAGES
    part = data.subset(np.array([5, 0, 3, 3])).subset(np.array([3, 0, 1]))
    assert part.ids == ["d", "f", "a"]
    assert (len(part), part.images.shape, part.images.dtype) == (3, (3, 2, 3, 4), np.float32)
    np.testing.assert_array_equal(part.images[[2, 0]], IMAGES[[0, 3]])
    np.testing.assert_array_equal(part.targets[[2, 0]], -IMAGES[[0, 3]])
    assert part.values("z").tolist() == [3, 5, 0]


def test_images_of_several_shards_are_numbered_through():
    parts = [(IMAGES[:3] * 100).astype(np.int16), IMAGES[3:4], IMAGES[4:]]
    joined = ConcatenatedImages(parts)
    expected = np.concatenate(parts)
    assert joined.shape == (7, 2, 3, 4)
    assert joined.dtype == np.float32
    for rows in ([6, 0, 3, 2, 4, 4], slice(2, 5), np.array([False, True] * 3 + [True])):
        np.testing.assert_array_equal(joined[rows], expected[rows])
    np.testing.assert_array_equal(joined[-1], expected[[-1]])


def test_shards_that_do_not_fit_are_refused(tmp_path):
    def shard(name, shape, classes, targets=None, value=0, **info):
        writer = DatasetWriter(tmp_path / name, shape, np.dtype("f4"), fingerprint={})
        writer.write(0, np.full(shape, ord(name) + value, np.float32))
        writer.finish(pl.DataFrame({"id": ["0"]}), DatasetInfo(name, classes, **info), targets)

    def again(**given):
        shutil.rmtree(tmp_path / "c", ignore_errors=True)
        shard("c", (1, 1, 4, 4), ["x", "y"], **given)
        return read_dataset(tmp_path)

    shard("a", (1, 1, 4, 4), ["x", "y"], np.full((1, 1, 8, 8), 3, np.float32), pixel_scale=0.1, unit="adu")
    shard("b", (1, 1, 4, 4), ["x", "y"], np.full((1, 1, 8, 8), 4, np.float32), pixel_scale=0.1, unit="adu")
    joined = read_dataset(tmp_path)
    assert joined.ids == ["a/0", "b/0"], "identifiers stay apart"
    assert "identifiers that shards share begin with the shard's name" in joined.info.notes
    assert joined.targets[[1, 0]][:, 0, 0, 0].tolist() == [4, 3]
    assert joined.images[[1, 0]][:, 0, 0, 0].tolist() == [98, 97]
    with pytest.raises(DataError, match=r"shards differ in pixel scale: 0\.1 in b, 0\.2 in c; use them one by one"):
        again(pixel_scale=0.2, unit="adu")
    with pytest.raises(DataError, match="shards differ in unit: adu in b, e-/s in c"):
        again(pixel_scale=0.1, unit="e-/s")
    with pytest.raises(
        DataError, match=r"shards differ in their images to predict: all have targets\.npy of one shape"
    ):
        again(pixel_scale=0.1, unit="adu")
    with pytest.raises(DataError, match="shards b, c hold the same images; remove all but one"):
        again(pixel_scale=0.1, unit="adu", value=-1, targets=np.zeros((1, 1, 8, 8), np.float32))
    shutil.rmtree(tmp_path / "c")
    assert read_dataset(tmp_path).info.source == str(tmp_path)
    shard("c", (1, 1, 4, 4), ["y", "x"])
    with pytest.raises(DataError, match="shards differ in image shape or classes"):
        read_dataset(tmp_path)
    shutil.rmtree(tmp_path / "c")
    shard("c", (1, 1, 4, 5), ["x", "y"])
    with pytest.raises(DataError, match="shards differ in image shape or classes"):
        read_dataset(tmp_path)


def test_writer_writes_what_it_is_given_and_continues_where_it_was(tmp_path):
    def writer():
        return DatasetWriter(tmp_path / "set", IMAGES.shape, IMAGES.dtype, fingerprint={"seed": 1})

    first = writer()
    assert first.done == 0
    first.write(0, IMAGES[:2])
    first.write(2, IMAGES[2:5])
    first.checkpoint(5)
    with pytest.raises(InUseError):
        writer()
    first._lock.close()
    second = writer()
    assert second.done == 5
    second.write(5, IMAGES[5:])
    info = DatasetInfo("mine", ["x"], ["g", "r"], 0.2, [24.5, None], "e-/s", seed=3, noise=True, notes=["a note"])
    out = second.finish(pl.DataFrame({"id": list("abcdefg")}), info, targets=-IMAGES[:, :1])
    assert out == tmp_path / "set"
    assert sorted(path.name for path in out.iterdir()) == [
        "catalog.parquet", "dataset.json", "images.npy", "targets.npy",
    ]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    np.testing.assert_array_equal(np.load(out / "images.npy"), IMAGES)
    data = read_dataset(out)
    np.testing.assert_array_equal(data.targets[:], -IMAGES[:, :1])
    assert data.info.checksum == "sha256:" + hashlib.sha256((out / "images.npy").read_bytes()).hexdigest()
    assert set(data.info.versions) == {"darklens", "torch", "numpy", "polars", "astropy"}
    assert dataclasses.replace(data.info, checksum=None, versions={}) == info
    np.save(out / "targets.npy", IMAGES[:6])
    with pytest.raises(DataError, match=r"targets\.npy: 6 images where images\.npy has 7"):
        read_dataset(out)
    (out / "catalog.parquet").unlink()
    with pytest.raises(DataError, match=r"catalog\.parquet is missing"):
        read_dataset(out)


@pytest.mark.parametrize(("shape", "dtype"), [((4, 1, 2, 3), "f4"), ((5, 1, 2, 2), "f4"), ((4, 1, 2, 2), "f8")])
def test_partial_folder_of_another_shape_or_type_is_not_mixed(tmp_path, shape, dtype):
    DatasetWriter(tmp_path / "a", (4, 1, 2, 2), np.dtype("f4"), fingerprint={})._lock.close()
    with pytest.raises(DataError, match="left by a run with other settings"):
        DatasetWriter(tmp_path / "a", shape, np.dtype(dtype), fingerprint={})


def test_bands_are_chosen_by_name_or_number():
    images = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 2, 2)
    catalog = pl.DataFrame({"id": ["a", "b"]})
    named = Cutouts(
        images,
        catalog,
        DatasetInfo("x", bands=["HSC-G", "HSC-R", "HSC-I"], zero_points=[27.0, None, 26.0]),
        noise=-images,
    )
    found = named.with_bands(["i", "HSC-G"])
    assert (found.info.bands, found.info.zero_points) == (["HSC-I", "HSC-G"], [26.0, 27.0])
    np.testing.assert_array_equal(found.images[:], images[:, [2, 0]])
    np.testing.assert_array_equal(found.noise[[1]], -images[[1]][:, [2, 0]])
    np.testing.assert_array_equal(found.subset(np.array([1])).images[:], images[[1]][:, [2, 0]])
    window = (slice(0, 1), slice(1, 2))
    np.testing.assert_array_equal(
        read_window(found.images, np.array([1, 0]), window), images[[1, 0]][:, [2, 0], :1, 1:]
    )
    assert named.with_bands(["g", "r", "i"]) is named
    for names, said in ((["z"], "no band z; there are HSC-G, HSC-R, HSC-I"), (["g", "g"], "band g is asked for twice")):
        with pytest.raises(DataError, match=f"x: {said}"):
            named.with_bands(names)
    numbered = Cutouts(images, catalog, DatasetInfo("x"))
    found = numbered.with_bands(["2", "1"])
    assert (found.info.bands, found.images.shape) == (["2", "1"], (2, 2, 2, 2))
    np.testing.assert_array_equal(found.images[[0]], images[[0]][:, [2, 1]])
    for names in (["3"], ["g"], ["-1"]):
        with pytest.raises(DataError, match=f"no band {names[0]}; they have no names; say numbers from 0 to 2"):
            numbered.with_bands(names)
