"""Images of any layout as a dataset folder."""

import numpy as np
import polars as pl
import pytest

from darklens.data import importing
from darklens.data.dataset import Cutouts, DatasetInfo, read_dataset
from darklens.data.importing import import_data
from darklens.data.layouts import open_data
from darklens.errors import DataError

RNG = np.random.default_rng(0)


def save_images(folder, names, shape=(16, 16)):
    folder.mkdir(parents=True, exist_ok=True)
    images = RNG.normal(5, 1, (len(names), *shape)).astype(np.float32)
    for name, image in zip(names, images, strict=True):
        np.save(folder / f"{name}.npy", image)
    return images


def test_import_writes_what_it_read(class_folders, tmp_path):
    source = open_data(class_folders)
    out = import_data(source, tmp_path / "out", fractions={"train": 0.5, "validation": 0.25, "test": 0.25}, seed=3)
    data = open_data(out)
    np.testing.assert_array_equal(data.images[:], source.images[:].astype(np.float32))
    assert data.info.classes == source.info.classes
    counts = data.catalog.group_by("label", "split").len().sort("label", "split")["len"].to_list()
    assert counts == [1, 2, 1] * 3
    assert data.catalog["log10_axion_mass"].null_count() == 8


def test_bad_pixels_are_refused_or_masked(tmp_path):
    images = save_images(tmp_path / "in" / "cdm", ["a", "b"])
    save_images(tmp_path / "in" / "no_sub", ["a"])
    images[1, 2, 3], images[1, 4, 5] = np.nan, np.inf
    np.save(tmp_path / "in" / "cdm" / "b.npy", images[1])
    data = open_data(tmp_path / "in")
    with pytest.raises(DataError, match="image cdm/b has 2 pixels that are nan or infinite"):
        import_data(data, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [tmp_path / "in"], "nothing is left behind"
    out = import_data(data, tmp_path / "out", mask=True)
    images[1, 2, 3] = images[1, 4, 5] = 0
    stored = open_data(out)
    np.testing.assert_array_equal(stored.images[[stored.ids.index("cdm/a"), stored.ids.index("cdm/b")]][:, 0], images)


def test_what_float32_cannot_hold_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.full((6, 8, 8), 1e39))
    with pytest.raises(DataError, match=r"image a:0 has 64 pixels that are nan or infinite"):
        import_data(open_data(tmp_path / "a.npy"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", [np.uint16, np.int32])
def test_images_are_imported_chunk_by_chunk_with_progress(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(importing, "CHUNK", 4)
    images = RNG.integers(0, 60_000, (10, 2, 3, 5)).astype(kind)
    np.save(tmp_path / "a.npy", images)
    seen = []
    source = open_data(tmp_path / "a.npy")
    out = import_data(source, tmp_path / "out", progress=lambda *done: seen.append(done))
    assert seen == [(4, 10), (8, 10), (10, 10)]
    stored = np.load(out / "images.npy")
    assert stored.dtype == kind
    np.testing.assert_array_equal(stored, images)
    data = open_data(out)
    assert "split" not in data.catalog.columns
    assert (data.info.layout, data.info.seed, data.info.source) == ("dataset", None, str(tmp_path / "a.npy"))
    assert data.ids == [f"a:{i}" for i in range(10)]


def test_the_split_of_an_import_follows_from_its_seed(tmp_path):
    np.save(tmp_path / "a.npy", RNG.normal(0, 1, (40, 1, 2, 2)))
    halves = {"train": 0.5, "test": 0.5}
    made = {
        name: open_data(import_data(open_data(tmp_path / "a.npy"), tmp_path / name, fractions=halves, seed=seed))
        for name, seed in (("one", 1), ("same", 1), ("other", 2))
    }
    splits = {name: data.catalog["split"].to_list() for name, data in made.items()}
    assert splits["one"] == splits["same"] != splits["other"]
    assert made["other"].info.seed is None, "that is the seed of a simulation"
    assert made["other"].info.notes[-1] == "split train 0.5, test 0.5 with seed 2"


def test_the_seed_of_a_simulation_outlives_a_split(dataset, tmp_path):
    """Test images of the same preset are drawn from another seed than that."""
    simulated = open_data(dataset)
    assert simulated.info.seed == 1
    out = import_data(simulated, tmp_path / "out", fractions={"train": 0.5, "validation": 0.5}, seed=5)
    again = import_data(open_data(out), tmp_path / "again", fractions={"train": 0.5, "test": 0.5}, seed=6)
    assert open_data(out).info.seed == open_data(again).info.seed == 1
    assert "the column 'split' that was there is replaced" in open_data(again).info.notes


def test_pairs_keep_their_targets(tmp_path):
    high = save_images(tmp_path / "in" / "HR", ["a", "b"], (1, 6, 8))
    low = save_images(tmp_path / "in" / "LR", ["a", "b"], (1, 3, 4))
    data = open_data(import_data(open_data(tmp_path / "in"), tmp_path / "out"))
    np.testing.assert_array_equal(data.images[:], low)
    np.testing.assert_array_equal(data.targets[:], high)


def test_noise_maps_go_into_the_dataset_and_out_of_its_shards(tmp_path):
    rng = np.random.default_rng(2)
    images, noise = rng.normal(size=(2, 3, 1, 6, 8)).astype(np.float32)
    noise = abs(noise)
    catalog = pl.DataFrame({"id": ["a", "b", "c"]})
    cutouts = Cutouts(images, catalog, DatasetInfo("x"), noise=noise, psf=lambda row: {})
    for name in ("one", "two"):
        import_data(cutouts.subset(np.array([0, 2]) + (name == "two") * np.array([1, -1])), tmp_path / "set" / name)
    data = read_dataset(tmp_path / "set")
    np.testing.assert_array_equal(data.noise[:], noise[[0, 2, 1, 1]])
    assert "PSFs are not kept in a dataset folder" in read_dataset(tmp_path / "set" / "one").info.notes
    smaller = open_data(tmp_path / "set", crop=7, pad=7)
    assert smaller.noise.shape == (4, 1, 7, 7)
    np.testing.assert_array_equal(smaller.noise[[1]][0, 0, :6], noise[2, 0, :, :7])
    assert np.isinf(smaller.noise[[1]][0, 0, 6]).all()
    (tmp_path / "set" / "two" / "noise.npy").unlink()
    assert read_dataset(tmp_path / "set").noise is None
    np.save(tmp_path / "set" / "one" / "noise.npy", noise)
    with pytest.raises(DataError, match=r"noise\.npy: shape \(3, 1, 6, 8\) where images\.npy has \(2, 1, 6, 8\)"):
        read_dataset(tmp_path / "set" / "one")


def test_an_interrupted_import_of_other_bands_is_not_continued(tmp_path):
    images = np.random.default_rng(1).normal(size=(3, 2, 4, 4)).astype(np.float32)
    cutouts = Cutouts(
        images, pl.DataFrame({"id": ["a", "b", "c"]}), DatasetInfo("x", bands=["g", "r"]), noise=abs(images)
    )
    partial = tmp_path / "out.partial"

    def killed(done, total):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("darklens.data.dataset.DatasetWriter.discard", lambda self: self._lock.close())
        patch.setattr(importing, "CHUNK", 2)
        with pytest.raises(KeyboardInterrupt):
            import_data(cutouts.with_bands(["g"]), tmp_path / "out", progress=killed)
    np.save(partial / "noise.npy", np.zeros(3))
    with pytest.raises(DataError, match="left by a run with other settings"):
        import_data(cutouts.with_bands(["r"]), tmp_path / "out")
    import_data(cutouts.with_bands(["g"]), tmp_path / "out")
    np.testing.assert_array_equal(read_dataset(tmp_path / "out").noise[:], abs(images[:, :1]))
