"""Images of any layout as a dataset folder."""

import numpy as np
import polars as pl
import pytest
from astropy.io import fits
from conftest import SHARED

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
    cutouts = Cutouts(images, catalog, DatasetInfo("x"), noise=noise)
    for name in ("one", "two"):
        import_data(cutouts.subset(np.array([0, 2]) + (name == "two") * np.array([1, -1])), tmp_path / "set" / name)
    data = read_dataset(tmp_path / "set")
    np.testing.assert_array_equal(data.noise[:], noise[[0, 2, 1, 1]])
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


def assert_same_psfs(found, expected):
    for row in range(len(expected)):
        assert list(found.psf(row)) == list(expected.psf(row))
        for band, kernel in expected.psf(row).items():
            np.testing.assert_array_equal(found.psf(row)[band], kernel)


def save_fits(path, psfs):
    hdus = [fits.PrimaryHDU()]
    for band in "GR":
        hdus.append(fits.ImageHDU(RNG.normal(size=(32, 32)), name=band))
        hdus += [fits.ImageHDU(psfs[band], name=f"{band}_PSF")] if band in psfs else []
    fits.HDUList(hdus).writeto(path)


def test_psfs_go_into_the_dataset_and_out_of_its_shards_and_subsets(tmp_path):
    (tmp_path / "in").mkdir()
    save_fits(tmp_path / "in" / "a.fits", {"G": RNG.random((5, 7)), "R": RNG.random((9, 9))})
    save_fits(tmp_path / "in" / "b.fits", {"R": RNG.random((9, 9))})
    save_fits(tmp_path / "in" / "c.fits", {"G": RNG.random((5, 7)), "R": RNG.random((9, 9))})
    source = open_data(tmp_path / "in")
    data = open_data(import_data(source, tmp_path / "out"))
    assert np.load(tmp_path / "out" / "psf.npy").shape == (3, 2, 9, 9)
    assert data.info.psf_sizes == {"G": [5, 7], "R": [9, 9]}
    assert_same_psfs(data, source)
    rows = np.array([2, 0])
    assert_same_psfs(data.subset(rows), source.subset(rows))
    assert list(data.with_bands(["R", "G"]).psf(0)) == ["R", "G"]
    assert list(data.with_bands(["R"]).psf(2)) == ["R"]

    import_data(source.subset(rows), tmp_path / "set" / "one")
    import_data(source.subset(np.array([1])), tmp_path / "set" / "two")
    joined = read_dataset(tmp_path / "set")
    assert_same_psfs(joined, source.subset(np.array([2, 0, 1])))
    assert_same_psfs(read_dataset(import_data(joined, tmp_path / "again")), joined)
    (tmp_path / "set" / "one" / "psf.npy").unlink()
    assert [list(read_dataset(tmp_path / "set").psf(row)) for row in range(3)] == [[], [], ["R"]]


def test_a_psf_that_all_images_share_is_stored_once(tmp_path):
    kernel = RNG.random((5, 5)).astype(np.float32)
    catalog = pl.DataFrame({"id": ["a", "b", "c"]})
    images = np.zeros((3, 2, 4, 4), np.float32)
    source = Cutouts(images, catalog, DatasetInfo("x"), psf=lambda row: {"1": kernel})
    data = read_dataset(import_data(source, tmp_path / "out"))
    assert np.load(tmp_path / "out" / "psf.npy").shape == (1, 2, 5, 5)
    assert_same_psfs(data, source)
    import_data(Cutouts(images, catalog, DatasetInfo("x"), psf=lambda row: {}), tmp_path / "none")
    assert read_dataset(tmp_path / "none").psf is None
    assert not (tmp_path / "none" / "psf.npy").exists()


def test_psfs_of_several_sizes_in_a_band_get_a_border_of_zeros(tmp_path):
    kernels = [np.ones((3, 3)), np.ones((7, 5))]
    images, catalog = np.zeros((2, 1, 4, 4), np.float32), pl.DataFrame({"id": ["a", "b"]})
    source = Cutouts(images, catalog, DatasetInfo("x", bands=["g"]), psf=lambda row: {"g": kernels[row]})
    data = read_dataset(import_data(source, tmp_path / "out"))
    np.testing.assert_array_equal(data.psf(0)["g"], np.pad(kernels[0], ((2, 2), (1, 1))))
    np.testing.assert_array_equal(data.psf(1)["g"], kernels[1])


@pytest.mark.parametrize(
    ("psf", "message"),
    [({"r": np.ones((3, 3))}, "PSF of band 'r'; the bands are g"), ({"g": np.ones((3, 4))}, r"shape \(3, 4\)")],
)
def test_psfs_that_do_not_fit_are_refused(tmp_path, psf, message):
    images, catalog = np.zeros((1, 1, 4, 4), np.float32), pl.DataFrame({"id": ["a"]})
    with pytest.raises(DataError, match=message):
        import_data(Cutouts(images, catalog, DatasetInfo("x", bands=["g"]), psf=lambda row: psf), tmp_path / "out")
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_stored_psfs_of_another_dataset_are_refused(tmp_path):
    images, catalog = np.zeros((3, 1, 4, 4), np.float32), pl.DataFrame({"id": ["a", "b", "c"]})
    out = import_data(
        Cutouts(images, catalog, DatasetInfo("x", bands=["g"]), psf=lambda row: {"g": np.ones((5, 5))}),
        tmp_path / "out",
    )
    description = (out / "dataset.json").read_text()
    np.save(out / "psf.npy", np.ones((2, 1, 5, 5)))
    with pytest.raises(
        DataError, match=r"psf\.npy: float64 of shape \(2, 1, 5, 5\); expected floats, \(3 or 1, 1, h, w\)"
    ):
        read_dataset(out)
    np.save(out / "psf.npy", np.ones((1, 1, 3, 3)))
    with pytest.raises(DataError, match=r"psf\.npy: PSFs of band g of size \(5, 5\) are not in the middle of \(3, 3\)"):
        read_dataset(out)
    (out / "dataset.json").write_text(description.replace('"psf_sizes"', '"unknown"'))
    assert read_dataset(out).psf(2)["g"].shape == (3, 3)


@pytest.mark.skipif(not (SHARED / "euclid_q1").is_dir(), reason="needs the shared data")
def test_psfs_of_euclid_are_those_that_the_files_have(tmp_path):
    source = open_data(SHARED / "euclid_q1")
    data = open_data(import_data(source, tmp_path / "out", mask=True))
    assert data.info.psf_sizes == {"VIS": [21, 21], "NIR_Y": [33, 33], "NIR_J": [33, 33], "NIR_H": [33, 33]}
    assert_same_psfs(data, source)


def test_an_import_that_was_interrupted_ends_with_the_same_bytes(tmp_path):
    (tmp_path / "in").mkdir()
    for name in "abc":
        save_fits(tmp_path / "in" / f"{name}.fits", {"G": RNG.random((5, 5))})
    source = open_data(tmp_path / "in")
    whole = import_data(source, tmp_path / "whole")

    def killed(row):
        if row == 2:
            raise KeyboardInterrupt
        return source.psf(row)

    interrupted = Cutouts(source.images, source.catalog, source.info, psf=killed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("darklens.data.dataset.DatasetWriter.discard", lambda self: self._lock.close())
        with pytest.raises(KeyboardInterrupt):
            import_data(interrupted, tmp_path / "out")
    np.save(tmp_path / "out.partial" / "psf.npy", np.zeros(3))
    import_data(source, tmp_path / "out")
    for name in ("images.npy", "psf.npy", "dataset.json", "catalog.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (whole / name).read_bytes()
