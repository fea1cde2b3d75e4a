"""Layouts of images on disk: detected, opened, and refused with a reason."""

import h5py
import numpy as np
import polars as pl
import pytest
from astropy.io import fits
from conftest import EXAMPLES, SHARED
from PIL import Image

from darklens.data.layouts import LAYOUTS, open_data, open_with, order_classes
from darklens.data.options import DataOptions
from darklens.errors import DataError

RNG = np.random.default_rng(0)


def save_images(folder, names, shape=(16, 16)):
    folder.mkdir(parents=True, exist_ok=True)
    images = RNG.normal(5, 1, (len(names), *shape)).astype(np.float32)
    for name, image in zip(names, images, strict=True):
        np.save(folder / f"{name}.npy", image)
    return images


def test_class_folders_with_pickled_axions(class_folders):
    data = open_data(class_folders)
    assert data.info.layout == "classes"
    assert data.info.classes == ["no_sub", "cdm", "axion"]
    assert data.images.shape == (12, 1, 16, 16)
    axion = data.catalog.filter(label="axion")
    np.testing.assert_allclose(axion["log10_axion_mass"], [-23, -22.9, -22.8, -22.7])
    assert data.catalog.filter(label="cdm")["axion_mass"].null_count() == 4
    row = data.catalog["id"].to_list().index("cdm/cdm_2")
    np.testing.assert_allclose(data.images[[row]][0, 0], np.load(class_folders / "cdm" / "cdm_2.npy"), rtol=1e-6)


def test_train_and_validation_folders(tmp_path):
    for split in ("train", "val"):
        for name in ("no", "sphere", "vort"):
            save_images(tmp_path / split / name, ["a", "b"], (1, 8, 8))
    data = open_data(tmp_path)
    assert data.info.classes == ["no", "sphere", "vort"]
    assert data.catalog["split"].to_list() == ["train"] * 6 + ["validation"] * 6
    # DeepLense calls the same classes by two sets of names.
    assert data.labels(["no_sub", "cdm", "axion"]).tolist() == [0, 0, 1, 1, 2, 2] * 2
    with pytest.raises(DataError, match=r"label .sphere.; expected one of no, vort"):
        data.labels(["no", "vort"])


def test_lens_finding_folders(tmp_path):
    for folder, n in (("train_lenses", 3), ("train_nonlenses", 4), ("test_lenses", 1), ("test_nonlenses", 5)):
        save_images(tmp_path / folder, [f"{i}" for i in range(n)], (3, 8, 8))
    data = open_data(tmp_path)
    assert data.info.layout == "lens-finding"
    assert data.images.shape == (13, 3, 8, 8)
    assert data.catalog.filter(split="test")["label"].to_list() == ["lenses"] + ["nonlenses"] * 5


def test_halo_masses_with_lists_of_splits(tmp_path):
    (tmp_path / "lens_data").mkdir()
    for i in range(6):
        pair = np.empty(2, dtype=object)
        pair[0], pair[1] = RNG.random((12, 12)), 1e9 * (i + 1)
        np.save(tmp_path / "lens_data" / f"sim_{i}.npy", pair, allow_pickle=True)
    (tmp_path / "train.csv").write_text("sim_0.npy\nsim_1.npy\nsim_2.npy\n")
    (tmp_path / "test.csv").write_text("sim_3.npy\nsim_4.npy\nsim_5.npy\n")
    data = open_data(tmp_path)
    assert data.info.layout == "halo-mass"
    np.testing.assert_allclose(data.values("log10_mass"), np.log10(1e9 * np.arange(1, 7)))
    assert data.catalog["split"].to_list() == ["train"] * 3 + ["test"] * 3


def test_super_resolution_pairs(tmp_path):
    high = save_images(tmp_path / "HR", ["a", "b"], (1, 16, 16))
    save_images(tmp_path / "LR", ["a", "b"], (1, 8, 8))
    data = open_data(tmp_path)
    assert data.targets is not None
    np.testing.assert_array_equal(data.targets[[1]], high[[1]])
    (tmp_path / "LR" / "b.npy").unlink()
    with pytest.raises(DataError, match=r"b\.npy is in one only"):
        open_data(tmp_path)


def test_one_array_with_labels(tmp_path):
    images = RNG.random((10, 1, 8, 8)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "labels.npy", np.arange(10)[:, None] % 2)
    data = open_data(tmp_path)
    assert data.labels(["0", "1"]).tolist() == [0, 1] * 5
    np.testing.assert_array_equal(data.images[[3, 7]], images[[3, 7]])
    np.save(tmp_path / "labels.npy", np.arange(9))
    with pytest.raises(DataError, match="9 labels for the 10 images"):
        open_data(tmp_path)


def test_challenge_bands_and_catalogue_with_leaks(tmp_path):
    for number in (100001, 100002, 100003):
        for band, side in (("EUC_VIS", 20), ("EUC_J", 10)):
            (tmp_path / band).mkdir(exist_ok=True)
            image = np.full((side, side), 3.0, dtype=np.float32)
            fits.writeto(tmp_path / band / f"image{band}-{number}.fits", image)
    table = {"ID": [100001, 100002, 100003], "mag_lens": [20.0, 21, 22], "is_lens": [1, 0, 1]}
    pl.DataFrame(table).write_csv(tmp_path / "log.csv")
    data = open_data(tmp_path)
    assert data.info.layout == "bands"
    assert data.info.bands == ["EUC_VIS", "EUC_J"]
    assert data.images.shape == (3, 2, 20, 20)
    _, near = data.images[[0]][0]
    np.testing.assert_allclose(near.sum(), 3 * 100, rtol=1e-5)  # flux is kept in resampling
    assert data.labels(["0", "1"]).tolist() == [1, 0, 1]
    assert any("no observer knows" in note and "mag_lens" in note for note in data.info.notes)


def test_published_samples_read_as_they_are():
    data = open_data(EXAMPLES / "deeplense")
    assert data.catalog["label"].to_list() == ["axion", "cdm", "no_sub"]
    assert data.images.shape == (3, 1, 64, 64)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the samples are not beside this checkout")
def test_shared_samples_read_as_they_are():
    assert open_data(SHARED / "deeplense_model2").info.classes == ["no_sub", "cdm", "axion"]
    for path, bands, side in (("102018665_NEG570040238507752998", 8, 100), ("102044185_NEG528176967277992842", 4, 300)):
        data = open_data(SHARED / "euclid_q1" / f"{path}.fits")
        assert data.images.shape == (1, bands, side, side)
        assert data.info.pixel_scale == pytest.approx(0.1)


BAD = {
    "mixed shapes": lambda p: [save_images(p, ["a"], (8, 8)), save_images(p, ["b"], (9, 9))],
    "mixed kinds": lambda p: [save_images(p, ["a"]), Image.new("L", (4, 4)).save(p / "b.png")],
    "one dimension": lambda p: save_images(p, ["a"], (8,)),
}


@pytest.mark.parametrize(
    ("case", "message"),
    [("mixed shapes", r"2 sizes: .*1×8×8 \(1, such as a\.npy\), 1×9×9 \(1, .*--crop 8 or --pad 9"),
     ("mixed kinds", "mixes npy, png"), ("one dimension", r"shape \(8,\); expected one image")],
)  # fmt: skip
def test_unusable_folder_says_why(tmp_path, case, message):
    BAD[case](tmp_path)
    with pytest.raises(DataError, match=message):
        open_data(tmp_path)


def test_nothing_and_nothing_known(tmp_path):
    with pytest.raises(DataError, match="there is no such file"):
        open_data(tmp_path / "none")
    with pytest.raises(DataError, match="the folder is empty"):
        open_data(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"no layout recognised \(notes.txt\)"):
        open_data(tmp_path)
    with pytest.raises(DataError, match=f"no layout 'x'; there are {', '.join(LAYOUTS)}"):
        open_data(tmp_path, layout="x")


@pytest.mark.parametrize("number", ["101", "a"])
def test_folders_of_several_datasets_name_them(tmp_path, number):
    for band in "GRIU":
        for label in ("lens", "nolens"):
            folder = tmp_path / "ground" / label / f"Band_{band}"
            folder.mkdir(parents=True)
            for number in (101, 102):
                fits.PrimaryHDU(RNG.normal(size=(8, 8))).writeto(folder / f"imageSDSS_{band}-{number}.fits")
    for label in ("lens", "nolens"):
        (tmp_path / "space" / label).mkdir(parents=True)
        fits.PrimaryHDU(RNG.normal(size=(9, 9))).writeto(tmp_path / "space" / label / f"imageEUC_VIS-{number}.fits")
    (tmp_path / "notes").mkdir()
    with pytest.raises(DataError) as error:
        open_data(tmp_path)
    assert f"ground (bands), space (classes); name one, such as {tmp_path / 'ground'}" in str(error.value)
    assert open_data(tmp_path / "ground").images.shape == (4, 4, 8, 8)


def test_folders_of_several_kinds_of_files_are_no_classes(tmp_path):
    save_images(tmp_path / "arrays", ["a", "b"])
    (tmp_path / "pictures").mkdir()
    for kind in ("png", "jpg"):
        Image.new("L", (16, 16)).save(tmp_path / "pictures" / f"{kind}.{kind}")
    with pytest.raises(
        DataError, match=r"mixes jpeg, npy, png files; .*: arrays \(files\), pictures \(files\); name one"
    ):
        open_data(tmp_path)
    (tmp_path / "pictures").rename(tmp_path / "lens")
    (tmp_path / "arrays" / "a.npy").unlink()
    (tmp_path / "arrays" / "b.npy").unlink()
    Image.new("L", (16, 16)).save(tmp_path / "arrays" / "a.png")
    assert open_data(tmp_path).images.shape == (3, 1, 16, 16)


@pytest.mark.parametrize("labels", [[0, np.nan, 1], [0, np.inf, 1], ["a", "b", "c"]])
def test_labels_that_are_no_numbers_are_refused(tmp_path, labels):
    np.save(tmp_path / "images.npy", np.ones((3, 1, 8, 8)))
    np.save(tmp_path / "labels.npy", np.array(labels))
    with pytest.raises(DataError, match=r"labels\.npy: (labels of type float64, or nan|holds <U1, not numbers)"):
        open_data(tmp_path)


def test_notes_say_what_was_assumed(tmp_path, class_folders):
    assert any(
        "pairs [image, mass] read safely; column log10_axion_mass" in n for n in open_data(class_folders).info.notes
    )
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    assert "PNG: brightness may be stretched, and is not calibrated" in open_data(tmp_path / "a.png").info.notes
    for band in ("VIS", "H", "A"):
        for number in (100, 101):
            fits.writeto(tmp_path / f"{band}-{number}.fits", np.zeros((4, 4), dtype=np.float32))
    (tmp_path / "a.png").unlink()
    data = open_data(tmp_path)
    assert data.info.bands == ["VIS", "H", "A"]
    assert data.info.notes == [], "all of one size"


def test_several_tables_beside_images_are_not_joined(tmp_path):
    save_images(tmp_path, ["a", "b"])
    pl.DataFrame({"id": ["a", "b"], "z": [1.5, 2.5]}).write_csv(tmp_path / "one.csv")
    assert open_data(tmp_path).values("z").tolist() == [1.5, 2.5]
    pl.DataFrame({"id": ["a", "b"], "z": [3.5, 4.5]}).write_csv(tmp_path / "two.csv")
    assert "z" not in open_data(tmp_path).catalog.columns
    assert open_data(tmp_path, catalog=tmp_path / "two.csv").values("z").tolist() == [3.5, 4.5]


def test_labels_of_class_folders_and_of_a_catalogue_must_agree(tmp_path):
    for label, names in {"cdm": ["a", "b"], "no_sub": ["c"]}.items():
        (tmp_path / label).mkdir()
        save_images(tmp_path / label, names)
    ids = open_data(tmp_path).ids
    table = pl.DataFrame({"id": ids, "label": ["cdm", "cdm ", "no_sub"], "path": ["x", "y", "z"], "z": [1.5, 2.5, 3.5]})
    table.write_csv(tmp_path / "same.csv")
    same = open_data(tmp_path, catalog=tmp_path / "same.csv")
    assert same.catalog["label"].to_list() == ["cdm", "cdm", "no_sub"]
    assert same.catalog["catalog_path"].to_list() == ["x", "y", "z"]
    assert "same.csv: path read as catalog_path, as images have their own" in same.info.notes
    assert "catalog_label" not in same.catalog.columns
    table.with_columns(label=pl.Series(["cdm", "axion", None])).rename({"label": "Class"}).write_csv(
        tmp_path / "other.csv"
    )
    message = (
        rf"of 1 images the label differs from the column Class of other\.csv: {ids[1]} is cdm here and axion there\."
    )
    with pytest.raises(DataError, match=message):
        open_data(tmp_path, catalog=tmp_path / "other.csv")


def test_a_column_that_is_called_as_ours_would_be_is_not_taken_for_it(tmp_path):
    for label in ("cdm", "no_sub"):
        (tmp_path / label).mkdir()
        save_images(tmp_path / label, ["a"])
    table = pl.DataFrame({"id": ["cdm/a", "no_sub/a"], "label": ["cdm", "no_sub"], "catalog_label": ["x", "y"]})
    table.write_csv(tmp_path / "t.csv")
    found = open_data(tmp_path, catalog=tmp_path / "t.csv").catalog
    assert found["label"].to_list() == ["cdm", "no_sub"]
    assert found["catalog_label"].to_list() == ["x", "y"]


def test_labels_that_are_numbers_agree_however_they_are_written(tmp_path):
    for label, names in {"0": ["a"], "1": ["b"]}.items():
        (tmp_path / label).mkdir()
        save_images(tmp_path / label, names)
    table = pl.DataFrame({"id": ["0/a", "1/b"], "label": [0.0, 1.0]})
    table.write_parquet(tmp_path / "n.parquet")
    assert open_data(tmp_path, catalog=tmp_path / "n.parquet").catalog["label"].to_list() == ["0", "1"]
    table.with_columns(label=pl.Series([1.0, 1.0])).write_parquet(tmp_path / "n.parquet")
    with pytest.raises(DataError, match=r"0/a is 0 here and 1\.0 there"):
        open_data(tmp_path, catalog=tmp_path / "n.parquet")


def test_files_are_in_the_order_of_their_names_and_hidden_ones_left_out(tmp_path):
    images = save_images(tmp_path, ["c", "a", "b"])
    save_images(tmp_path, [".hidden"])
    data = open_data(tmp_path)
    assert data.ids == ["a", "b", "c"]
    np.testing.assert_array_equal(data.images[:][:, 0], images[[1, 2, 0]])


def test_classes_are_in_the_order_of_the_field_and_others_follow(tmp_path):
    names = {"zeta", "axion", "alpha", "no_sub", "cdm"}
    assert order_classes(names) == ["no_sub", "cdm", "axion", "alpha", "zeta"]
    for name in names:
        save_images(tmp_path / name, ["x"])
    assert open_data(tmp_path).info.classes == ["no_sub", "cdm", "axion", "alpha", "zeta"]


@pytest.mark.parametrize("count", [9, 11])
def test_labels_must_be_as_many_as_images(tmp_path, count):
    np.save(tmp_path / "images.npy", RNG.random((10, 1, 8, 8)))
    np.save(tmp_path / "labels.npy", np.zeros(count))
    with pytest.raises(DataError, match=f"{count} labels for the 10 images of images.npy"):
        open_data(tmp_path)


def test_a_band_that_not_all_objects_have_is_left_out_and_said(tmp_path):
    for name in ("VIS-100", "VIS-101", "H-100", "H-101", "VIS-102"):
        fits.writeto(tmp_path / f"{name}.fits", np.zeros((4, 4), dtype=np.float32))
    data = open_data(tmp_path)
    assert (data.info.bands, data.ids) == (["VIS"], ["100", "101", "102"])
    assert "band H left out: 1 of 3 objects lack it" in data.info.notes


def test_layout_may_be_chosen(class_folders):
    with pytest.raises(DataError, match=r"does not have the layout 'hdf5'"):
        open_data(class_folders, layout="hdf5")
    options = DataOptions(layout="files", crop=8, mask=True)
    assert open_with(class_folders / "cdm", options).images.shape == (4, 1, 8, 8)


def test_split_column_of_a_table_is_kept_whatever_it_calls_validation(tmp_path):
    for i in range(6):
        np.save(tmp_path / f"{i}.npy", np.full((8, 8), i, np.float32))
    names = ["train", "val", "Test", "train", "VALID", ""]
    rows = "\n".join(f"{i},{name}" for i, name in enumerate(names))
    (tmp_path / "t.csv").write_text(f"id,split\n{rows}\n")
    split = open_data(tmp_path).catalog["split"].to_list()
    assert split == ["train", "validation", "test", "train", "validation", None]


def described(path, **options):
    """Layout, classes, bands, notes and identifiers of what is opened."""
    found = open_data(path, **options)
    assert found.info.source == str(path)
    return found.info.layout, found.info.classes, found.info.bands, found.info.notes, found.ids


def test_descriptions_say_what_was_opened(tmp_path):
    """Signed values, several bands, and names that are numbers."""
    images = RNG.normal(-1, 2, (3, 2, 8, 8)).astype(np.float32)
    np.save(tmp_path / "one.npy", images[0, 0])
    np.save(tmp_path / "many.npy", images)
    assert described(tmp_path / "one.npy") == ("array", [], [], [], ["one"])
    assert described(tmp_path / "many.npy") == ("array", [], [], [], ["many:0", "many:1", "many:2"])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["pictures"] = images
        file["label"] = ["cdm", "axion", "cdm"]
    assert described(tmp_path / "a.h5") == ("hdf5", ["cdm", "axion"], [], ["dataset pictures"], ["0", "1", "2"])
    (tmp_path / "stack").mkdir()
    np.save(tmp_path / "stack" / "x.npy", images)
    np.save(tmp_path / "stack" / "y.npy", np.array([1.5, 0, 10]))
    assert described(tmp_path / "stack") == ("stack", ["0", "1.5", "10"], [], [], ["0", "1", "2"])
    assert open_data(tmp_path / "stack").catalog["label"].to_list() == ["1.5", "0", "10"]
    (tmp_path / "flat").mkdir()
    for name in ("cdm", "no_sub"):
        fits.writeto(tmp_path / "flat" / f"{name}.fits", images[0, 0], fits.Header({"EXTNAME": "R"}))
    assert described(tmp_path / "flat") == ("fits", ["no_sub", "cdm"], ["R"], [], ["cdm", "no_sub"])
    Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).save(tmp_path / "a.png")
    notes = ["PNG: brightness may be stretched, and is not calibrated"]
    assert described(tmp_path / "a.png") == ("file", [], [], notes, ["a"])
    assert open_data(tmp_path / "a.png").catalog["path"].to_list() == [str(tmp_path / "a.png")]


@pytest.mark.parametrize(
    ("masses", "name"),
    [([3e-24, 0.5], "axion_mass"), ([1e9, 2.0], "mass"), ([1e9, 1e-3], "mass"), ([1.0, 1e-3], "mass")],
)
def test_masses_below_one_are_those_of_axions(masses, name, tmp_path):
    for i, mass in enumerate(masses):
        pair = np.empty(2, dtype=object)
        pair[0], pair[1] = RNG.random((6, 6)), mass
        np.save(tmp_path / f"{i}.npy", pair, allow_pickle=True)
    data = open_data(tmp_path)
    assert data.catalog[name].to_list() == masses
    np.testing.assert_allclose(data.values(f"log10_{name}"), np.log10(masses))
    assert data.info.notes[-1] == f"pickled pairs [image, mass] read safely; column log10_{name}"


def test_catalogue_of_labels_gives_the_classes_and_says_what_was_joined(tmp_path):
    save_images(tmp_path, ["a", "b", "c"])
    pl.DataFrame({"id": ["c", "a"], "label": ["sub", "axion"], "mag_lens": [20.5, 21.0]}).write_csv(tmp_path / "t.csv")
    data = open_data(tmp_path)
    assert data.catalog["label"].to_list() == ["axion", None, "sub"]
    assert data.info.classes == ["axion", "sub"]
    assert data.info.notes[0].startswith("t.csv: ")
    leak = "columns no observer knows, which tell the label: mag_lens; do not train on them"
    assert data.info.notes[-1] == leak
    numbers = pl.DataFrame({"id": ["a", "b", "c"], "label": [1.0, None, float("nan")]})
    numbers.write_parquet(tmp_path / "n.parquet")
    assert open_data(tmp_path, catalog=tmp_path / "n.parquet").catalog["label"].to_list() == ["1.0", None, None]


def test_image_pairs_are_not_cropped(tmp_path):
    save_images(tmp_path / "HR", ["a"], (1, 16, 16))
    save_images(tmp_path / "LR", ["a"], (1, 8, 8))
    with pytest.raises(DataError, match="--crop and --pad are not for image pairs, whose sizes go together"):
        open_data(tmp_path, crop=4)
    assert open_data(tmp_path, crop=8).images.shape == (1, 1, 8, 8)


def test_only_npy_files_of_a_list_are_in_its_split(tmp_path):
    (tmp_path / "lens_data").mkdir()
    for i in range(3):
        pair = np.empty(2, dtype=object)
        pair[0], pair[1] = RNG.random((6, 6)), 1e9
        np.save(tmp_path / "lens_data" / f"sim_{i}.npy", pair, allow_pickle=True)
    (tmp_path / "train.csv").write_text("sim_0.npy,sim_1\nsim_2.npy,\n")
    assert open_data(tmp_path).catalog["split"].to_list() == ["train", None, "train"]


def test_a_stack_without_labels_has_no_classes_and_says_where_its_bands_are(tmp_path):
    images = RNG.normal(-1, 2, (4, 6, 7, 3))
    np.save(tmp_path / "x.npy", images)
    layout, classes, bands, notes, ids = described(tmp_path)
    assert (layout, classes, bands, ids) == ("stack", [], [], ["0", "1", "2", "3"])
    assert len(notes) == 1
    assert "x.npy" in notes[0]
    np.testing.assert_array_equal(open_data(tmp_path).images[[2]][0], images[2].transpose(2, 0, 1))
    assert described(tmp_path, channels="first")[3] == []


def test_noise_maps_between_bands_are_no_bands(tmp_path):
    for name in ("VIS-100", "VIS-101", "H-100", "H-101", "VIS_rms-100", "VIS_rms-101"):
        fits.writeto(tmp_path / f"{name}.fits", np.zeros((4, 4), dtype=np.float32))
    layout, _, bands, notes, ids = described(tmp_path)
    assert (layout, bands, ids) == ("bands", ["VIS", "H"], ["100", "101"])
    assert notes == ["2 noise maps and PSFs beside the images: VIS_rms-100.fits, VIS_rms-101.fits"]


def write_fits(path, value, **cards):
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.writeto(path, np.full((6, 8), value, dtype=np.float32), fits.Header(cards))


@pytest.mark.parametrize("split", ["", "train/", "test/"])
def test_class_folders_of_band_files_and_their_noise_maps(split, tmp_path):
    for label, value in (("lens", 1), ("nolens", 10)):
        for number in range(2):
            write_fits(tmp_path / f"{split}{label}/J{number}_g.fits", value + number)
            write_fits(tmp_path / f"{split}{label}/J{number}_r.fits", -value - number)
            write_fits(tmp_path / f"{split}{label}/J{number}_g_rms.fits", 3 + number)
            write_fits(tmp_path / f"{split}{label}/J{number}_r_var.fits", 16)
    data = open_data(tmp_path)
    assert (data.info.layout, data.info.bands) == ("bands", ["g", "r"])
    values = dict(zip(data.ids, data.images[:][:, :, 0, 0].tolist(), strict=True))
    assert values == {
        f"{split}{label}/J{number}": [value + number, -value - number]
        for label, value in (("lens", 1), ("nolens", 10))
        for number in range(2)
    }
    assert all(
        name.removeprefix(split).startswith(f"{label}/") for name, label in data.catalog.select("id", "label").rows()
    )
    assert data.noise[:][:, :, 0, 0].tolist() == [[3 + int(name[-1]), 4] for name in data.ids]


def test_class_folders_of_images_and_their_noise_maps(tmp_path):
    for label in ("lens", "nolens"):
        for number in range(2):
            write_fits(tmp_path / f"{label}/J{number}.fits", number)
            write_fits(tmp_path / f"{label}/J{number}_rms.fits", number + 5)
    data = open_data(tmp_path)
    assert (data.info.layout, data.ids) == ("classes", ["lens/J0", "lens/J1", "nolens/J0", "nolens/J1"])
    assert data.noise[:][:, 0, 0, 0].tolist() == [5, 6, 5, 6]


@pytest.mark.parametrize("names", [["9813_100", "9814_100"], ["cosmos_100", "egs_100"], ["J0123-0100", "J0456-0100"]])
def test_numbers_at_the_end_of_names_make_no_bands_of_fields(names, tmp_path):
    for value, name in enumerate(names):
        write_fits(tmp_path / f"{name}.fits", value)
    data = open_data(tmp_path)
    assert (data.ids, data.info.bands) == (names, ["IMAGE"])


def test_two_files_of_one_identifier_are_refused(tmp_path):
    write_fits(tmp_path / "a.fits", 1)
    write_fits(tmp_path / "a.fits.gz", 2)
    with pytest.raises(DataError, match=r"a\.fits and a\.fits\.gz would both be a; rename or remove one"):
        open_data(tmp_path)


def test_places_of_objects_without_a_row_come_from_their_wcs(tmp_path):
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -1e-5, "CDELT2": 1e-5, "CRPIX1": 4.5, "CRPIX2": 3.5}
    for number in range(3):
        write_fits(tmp_path / f"o{number}.fits", 1, CRVAL1=10.0 + number, CRVAL2=-5.0, **cards)
    pl.DataFrame({"id": ["o0", "o2"], "ra": [1.5, 2.5], "dec": [3.5, 4.5]}).write_csv(tmp_path / "c.csv")
    catalog = open_data(tmp_path).catalog
    assert catalog["ra"].to_list() == pytest.approx([1.5, 11, 2.5])
    assert catalog["dec"].to_list() == pytest.approx([3.5, -5, 4.5])


def one_of_each_reader(kind, folder):
    """Images of bands G, R, I (without names in arrays) that hold 0, 1, 2; return what to open."""
    planes = [np.full((8, 9), number, np.float32) for number in range(3)]
    if kind == "array":
        np.save(folder / "a.npy", np.stack(planes)[None])
        return folder / "a.npy"
    if kind == "files":
        for name in "ab":
            np.save(folder / f"{name}.npy", np.stack(planes))
    for name in "ab":
        if kind == "fits":
            extensions = [fits.ImageHDU(plane, name=band) for band, plane in zip("GRI", planes, strict=True)]
            fits.HDUList([fits.PrimaryHDU(), *extensions]).writeto(folder / f"{name}.fits")
        if kind == "bands":
            for band, plane in zip("GRI", planes, strict=True):
                fits.writeto(folder / f"J{name}_{band}.fits", plane)
        if kind == "hdf5" and name == "a":
            with h5py.File(folder / "a.h5", "w") as file:
                file["images"] = np.stack(planes)[None]
    return folder / "a.h5" if kind == "hdf5" else folder


@pytest.mark.parametrize("kind", ["array", "files", "hdf5", "fits", "bands"])
def test_bands_are_asked_for_in_one_way_whatever_the_reader(kind, tmp_path):
    path = one_of_each_reader(kind, tmp_path)
    known = open_data(path).info.bands
    numbers = [known.index(band) for band in "GRI"] if known else [0, 1, 2]
    asked = ",".join(str(numbers[place]) for place in (2, 0))
    assert open_data(path, bands=asked).images[[0]][0, :, 0, 0].tolist() == [2, 0]
    if known:
        assert open_data(path, bands="i,g").images[[0]][0, :, 0, 0].tolist() == [2, 0]
    there = f"there are {', '.join(known)}" if known else "they have no names; say numbers from 0 to 2"
    for bands, said in (
        ("z", f"no band z; {there}"),
        ("7,-8", f"no band 7, -8; {there}"),
        ("0,0", "band 0 is asked for twice"),
    ):
        with pytest.raises(DataError, match=said):
            open_data(path, bands=bands)
    if known:
        with pytest.raises(DataError, match="bands g, 2: give names or numbers, not both"):
            open_data(path, bands="g,2")


def test_bands_that_no_object_has_together_are_refused(tmp_path):
    for name, bands in (("a", "GR"), ("b", "GI")):
        extensions = [fits.ImageHDU(np.ones((8, 9)), name=band) for band in bands]
        fits.HDUList([fits.PrimaryHDU(), *extensions]).writeto(tmp_path / f"{name}.fits")
    with pytest.raises(DataError, match="no object has all of the bands R, I; ask for fewer"):
        open_data(tmp_path, bands="r,i")


@pytest.mark.parametrize("folders", [("train/cdm", "Test/cdm"), ("Train/cdm", "TEST/no_sub")])
def test_folders_of_splits_are_known_in_any_case(tmp_path, folders):
    for folder in folders:
        save_images(tmp_path / folder, ["1"])
    data = open_data(tmp_path)
    splits = dict(zip(data.ids, data.catalog["split"].to_list(), strict=True))
    assert splits == {f"{folders[0]}/1": "train", f"{folders[1]}/1": "test"}
