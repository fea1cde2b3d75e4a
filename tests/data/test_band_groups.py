"""Objects with a file for each band, as surveys name them."""

import numpy as np
import pytest
from astropy.io import fits
from conftest import SHARED

from darklens.data.layouts import CLASS_NAMES, open_data
from darklens.data.readers.band_groups import group_bands
from darklens.data.readers.companions import is_auxiliary
from darklens.errors import DataError


def write(folder, *names):
    """Files whose pixels say which they are: the place of the name in the list."""
    for number, name in enumerate(names):
        path = folder / f"{name}.fits"
        path.parent.mkdir(parents=True, exist_ok=True)
        fits.writeto(path, np.full((6, 5), number, dtype=np.float32))
    return folder


def groups(folder, *names):
    paths = [folder / f"{name}.fits" for name in names]
    found = group_bands(folder, paths, CLASS_NAMES)
    assert found is not None
    objects = {name: [p.relative_to(folder).as_posix() for p in files] for name, files in found.objects.items()}
    return found.bands, objects, found.labels(), found.splits()


def test_band_at_the_end_of_a_name(tmp_path):
    bands, objects, labels, _ = groups(tmp_path, "J01.2_i", "J01.2_g", "J9_r", "J9_g", "J9_i", "J01.2_r")
    assert bands == ["g", "r", "i"]
    assert objects == {
        "J01.2": ["J01.2_g.fits", "J01.2_r.fits", "J01.2_i.fits"], "J9": ["J9_g.fits", "J9_r.fits", "J9_i.fits"],
    }  # fmt: skip
    assert labels is None


def test_band_as_a_folder_around_or_within_classes(tmp_path):
    bands, objects, labels, splits = groups(tmp_path, "train/a/G/x", "train/a/R/x", "test/b/R/x", "test/b/G/x")
    assert bands == ["G", "R"]
    assert objects == {
        "train/a/x": ["train/a/G/x.fits", "train/a/R/x.fits"], "test/b/x": ["test/b/G/x.fits", "test/b/R/x.fits"],
    }  # fmt: skip
    assert (labels, splits) == (["a", "b"], ["train", "test"])


def test_equal_numbers_in_two_classes_are_two_objects(tmp_path):
    names = [
        f"{label}/Band{n}/imageSDSS_{band}-100002" for label in ("lens", "nolens") for n, band in ((1, "R"), (2, "I"))
    ]
    bands, objects, labels, _ = groups(tmp_path, *names)
    assert bands == ["SDSS_R", "SDSS_I"]
    assert objects == {
        f"{label}/100002": [f"{label}/Band1/imageSDSS_R-100002.fits", f"{label}/Band2/imageSDSS_I-100002.fits"]
        for label in ("lens", "nolens")
    }
    assert labels == ["lens", "nolens"]


@pytest.mark.parametrize("numbers", [("001", "001"), ("001", "002")])
def test_a_name_before_the_band_and_a_number_behind_it_are_those_of_the_object(tmp_path, numbers):
    names = [f"{name}_{band}_{number}" for name, number in zip("xy", numbers, strict=True) for band in "gr"]
    bands, objects, _, _ = groups(tmp_path, *names)
    assert bands == ["g", "r"]
    assert objects == {
        f"{name}_{number}": [f"{name}_{band}_{number}.fits" for band in "gr"]
        for name, number in zip("xy", numbers, strict=True)
    }


@pytest.mark.parametrize(
    "names",
    [
        ["cdm_001", "axion_001", "cdm_002", "axion_002"],
        ["lens1", "lens2"],
        ["a_g", "b_g"],
        ["x/a", "y/a"],
        ["obs_001", "obs_002", "ref_003", "ref_004"],
    ],
)
def test_names_that_do_not_say_bands(names, tmp_path):
    assert group_bands(tmp_path, [tmp_path / f"{name}.fits" for name in names], CLASS_NAMES) is None


def test_what_is_left_out_is_said_and_nothing_is_guessed(tmp_path):
    names = ["a_g", "a_r", "a_H", "b_g", "b_r"]
    found = group_bands(tmp_path, [tmp_path / f"{name}.fits" for name in names], CLASS_NAMES)
    assert found.notes == ["band H left out: 1 of 2 objects lack it"]
    with pytest.raises(DataError, match=r"no band is common to all 3 objects: c has H, of g, r, H"):
        groups(tmp_path, "a_g", "a_r", "b_g", "b_r", "c_H")
    with pytest.raises(DataError, match=r"object 001 has band g in g-001\.fits too"):
        groups(tmp_path, "g-001", "g_001", "r-001", "r-002", "g-002")


def test_pixels_and_labels_of_each_object_are_its_own(tmp_path):
    write(tmp_path, "lens/i/7", "lens/g/7", "nolens/g/7", "nolens/i/7", "nolens/g/9", "nolens/i/9")
    data = open_data(tmp_path)
    assert (data.info.layout, data.info.bands, data.info.classes) == ("bands", ["g", "i"], ["nolens", "lens"])
    pixels = {name: data.images[[row]][0, :, 0, 0].tolist() for row, name in enumerate(data.ids)}
    assert pixels == {"lens/7": [1, 0], "nolens/7": [2, 3], "nolens/9": [4, 5]}
    assert data.catalog["label"].to_list() == ["lens", "nolens", "nolens"]


@pytest.mark.parametrize("name", ["noise_map", "psf", "J01_g_RMS", "x.weight", "a-mask", "b_ivar"])
def test_names_of_what_belongs_to_an_image(name, tmp_path):
    assert is_auxiliary(tmp_path / f"{name}.fits")


@pytest.mark.parametrize("name", ["image", "errant_1", "J0123", "masked", "terror"])
def test_names_of_images(name, tmp_path):
    assert not is_auxiliary(tmp_path / f"{name}.fits")


def test_noise_maps_and_psfs_are_no_objects(tmp_path):
    write(tmp_path, "a_image", "a_noise_map", "a_psf", "b_image", "b_noise_map", "b_psf")
    data = open_data(tmp_path)
    assert data.ids == ["a_image", "b_image"]
    named = "a_noise_map.fits, a_psf.fits, b_noise_map.fits, b_psf.fits"
    assert data.info.notes == [f"4 noise maps and PSFs beside the images: {named}"]
    write(tmp_path / "only", "psf_1", "psf_2")
    assert open_data(tmp_path / "only").ids == ["psf_1", "psf_2"], "a folder of PSFs"


def test_folder_for_each_object(tmp_path):
    write(tmp_path, "J1/image", "J1/noise_map", "J1/psf", "J2/image", "J2/psf", "J2/image_lens_subtracted")
    data = open_data(tmp_path)
    assert (data.info.layout, data.ids, data.info.classes) == ("objects", ["J1", "J2"], [])
    assert data.images[[0, 1]][:, 0, 0, 0].tolist() == [0, 3]
    assert data.info.notes == [
        "noise maps of 1 of 2 objects: not used, as others lack them",
        "3 noise maps and PSFs beside the images: noise_map.fits, psf.fits",
        "1 files beside the images left out: image_lens_subtracted.fits",
    ]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the samples are not beside this checkout")
def test_shared_folders_of_bands_are_read_as_what_they_are():
    ground = open_data(SHARED / "bologna_challenge" / "ground")
    assert ground.images.shape == (4, 4, 101, 101)
    assert ground.info.bands == ["SDSS_U", "SDSS_G", "SDSS_R", "SDSS_I"]
    for row, name in enumerate(ground.ids):
        label, number = name.split("/")
        assert ground.catalog["label"][row] == label
        for band, letter in enumerate("UGRI"):
            (path,) = (SHARED / "bologna_challenge/ground" / label).glob(f"*/imageSDSS_{letter}-{number}.fits")
            np.testing.assert_array_equal(ground.images[[row]][0, band], fits.getdata(path).astype(np.float32))
    slacs = open_data(SHARED / "slacs")
    assert slacs.ids == ["slacs1250+0523", "slacs1430+4105"]
    assert slacs.images.shape == (2, 1, 281, 281)
