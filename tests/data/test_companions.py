"""Noise maps and PSFs in the file of an image, and in files and folders of their own."""

import numpy as np
import pytest
from astropy.io import fits

from darklens.data.importing import import_data
from darklens.data.layouts import open_data

FLAT = np.ones((4, 5))


def write(path, *planes):
    """A file of images, each (name, pixels) or (name, pixels, cards), after an empty primary HDU."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [
        fits.ImageHDU(np.asarray(pixels, np.float32), fits.Header(*cards), name=name or None)
        for name, pixels, *cards in planes
    ]
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(path, output_verify="silentfix")
    return path


def kernel(peak):
    """A PSF (3, 3) of sum 1 with this value in its middle."""
    out = np.full((3, 3), (1 - peak) / 8)
    out[1, 1] = peak
    return out


def peaks(data, row=0):
    """The largest value of each band's PSF."""
    return {band: round(float(psf.max()), 3) for band, psf in data.psf(row).items()}


def noise(data):
    """The noise of a pixel of the first image, by band."""
    return data.noise[[0]][0, :, 1, 1].tolist()


@pytest.mark.parametrize(
    "named",
    [
        lambda band: f"DES_{band}",
        lambda band: f"{band}_RMS",
        lambda band: f"RMS-{band.lower()}",
        lambda band: ("RMS", band),
        lambda band: ("", band),
    ],
    ids=["survey", "word behind", "word before", "card", "card alone"],
)
def test_noise_maps_beside_are_matched_by_the_bands_that_they_name(tmp_path, named):
    write(tmp_path / "a.fits", ("G", FLAT), ("R", FLAT), ("I", FLAT))
    planes = []
    for band, value in (("I", 3), ("R", 2), ("G", 1)):
        name = named(band)
        card = {} if isinstance(name, str) else {"FILTER": name[1]}
        planes.append((name if isinstance(name, str) else name[0], value * FLAT, card))
    write(tmp_path / "a_rms.fits", *planes)
    assert noise(open_data(tmp_path)) == [1, 2, 3]


def test_psfs_beside_are_matched_by_the_bands_that_they_name(tmp_path):
    write(tmp_path / "a.fits", ("SCI", FLAT, {"FILTER": "HSC-G"}), ("SCI", FLAT, {"FILTER": "HSC-R"}))
    write(tmp_path / "a_psf.fits", ("PSF_R", kernel(0.2)), ("PSF_G", kernel(0.4)))
    assert peaks(open_data(tmp_path)) == {"HSC-G": 0.4, "HSC-R": 0.2}


@pytest.mark.parametrize("plane", [("R", {}), ("PSF", {"FILTER": "R"})])
def test_a_psf_of_another_band_is_not_used(tmp_path, plane):
    name, cards = plane
    write(tmp_path / "a.fits", ("G", FLAT), ("I", FLAT))
    write(tmp_path / "a_psf.fits", (name, kernel(0.2), cards))
    assert open_data(tmp_path).psf is None


def test_a_psf_whose_name_is_no_band_is_that_of_the_image(tmp_path):
    write(tmp_path / "a.fits", ("G", FLAT))
    write(tmp_path / "a_psf.fits", ("STAMP", kernel(0.2)))
    assert peaks(open_data(tmp_path)) == {"G": 0.2}


@pytest.mark.parametrize("said", ["COADD", "g"])
def test_a_file_beside_a_file_of_one_band_is_matched_by_either_name_of_the_band(tmp_path, said):
    for band in "gr":
        write(tmp_path / f"x_{band}.fits", ("COADD", FLAT))
        write(tmp_path / f"x_{band}_rms.fits", (said.replace("g", band), 2 * FLAT))
    assert noise(open_data(tmp_path)) == [2, 2]


@pytest.mark.parametrize(
    ("planes", "file", "expected"),
    [
        ([("G", 1), ("G_MASK", 7), ("R", 2), ("R_MASK", 8)], "a_rms", [1, 2]),
        ([("G", 9), ("G_RMS", 1), ("R", 9), ("R_RMS", 2)], "a_rms", [1, 2]),
        ([("G_IVAR", 4), ("R_VAR", 4)], "a_noise", [0.5, 2]),
        ([("SCI", 9), ("RMS", 1), ("SCI", 9), ("RMS", 2)], "a_rms", [1, 2]),
    ],
)
def test_words_of_an_hdu_decide_before_those_of_its_file(tmp_path, planes, file, expected):
    write(tmp_path / "a.fits", ("G", FLAT), ("R", FLAT))
    write(tmp_path / f"{file}.fits", *((name, value * FLAT) for name, value in planes))
    assert noise(open_data(tmp_path)) == expected


@pytest.mark.parametrize("names", [("G", "R"), ("SCI", "SCI")])
def test_one_psf_without_a_band_is_that_of_all_bands_of_its_file(tmp_path, names):
    bands = [(name, FLAT, {"FILTER": band}) for name, band in zip(names, "GR", strict=True)]
    write(tmp_path / "a.fits", *bands, ("PSF", kernel(0.3)))
    assert peaks(open_data(tmp_path)) == {"G": 0.3, "R": 0.3}


def test_psf_cubes_go_with_the_planes_of_image_cubes(tmp_path):
    cube = np.stack([FLAT, 2 * FLAT])
    write(tmp_path / "in" / "a.fits", ("SCI", cube), ("ERR", cube), ("PSF", np.stack([kernel(0.2), kernel(0.4)])))
    write(tmp_path / "in" / "b.fits", ("SCI", cube), ("ERR", cube), ("PSF", kernel(0.3)[None]))
    data = open_data(import_data(open_data(tmp_path / "in"), tmp_path / "out"))
    assert peaks(data) == {"SCI0": 0.2, "SCI1": 0.4}
    assert peaks(data, 1) == {"SCI0": 0.3, "SCI1": 0.3}
    assert noise(data) == [1, 2]


def test_a_file_with_names_is_read_by_its_names_whatever_is_in_turns_in_others(tmp_path):
    rng = np.random.default_rng(1)
    for name in "abde":
        write(tmp_path / f"{name}.fits", ("", rng.normal(0, 5, (9, 9))), ("", np.full((9, 9), 5)))
    write(tmp_path / "c.fits", ("IMAGE1", rng.normal(0, 5, (9, 9))), ("R", np.full((9, 9), 7)))
    data = open_data(tmp_path)
    assert data.info.bands == ["IMAGE1"]
    assert "band R left out: 4 of 5 files lack it" in data.info.notes
    assert data.noise is None
    assert "noise maps of 4 of 5 objects: not used, as others lack them" in data.info.notes


def test_blank_integers_of_a_noise_map_are_no_data(tmp_path):
    values = np.full((4, 5), 50, np.int16)
    values[0, 0] = 32767
    rms = fits.ImageHDU(values, name="G_RMS")
    rms.header["BLANK"] = 32767
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(FLAT, name="G"), rms]).writeto(tmp_path / "a.fits")
    read = open_data(tmp_path).noise[[0]][0, 0]
    assert read[0, 0] == np.inf
    assert (read.ravel()[1:] == 50).all()


@pytest.mark.parametrize("images", ["images", "cutouts"])
def test_folders_of_noise_maps_and_psfs_go_with_the_folder_of_images(tmp_path, images):
    for number, name in enumerate("ab", 1):
        write(tmp_path / images / f"{name}.fits", ("", FLAT))
        write(tmp_path / "variance_maps" / f"{name}.fits", ("", number**2 * FLAT))
        write(tmp_path / "psfs" / f"psf_{name}.fits", ("", kernel(0.2 * number)))
        write(tmp_path / "masks" / f"{name}.fits", ("", FLAT))
    data = open_data(tmp_path)
    assert (data.info.layout, data.ids) == ("fits", ["a", "b"])
    assert data.noise[:][:, 0, 1, 1].tolist() == [1, 2]
    assert [peaks(data, row)["IMAGE"] for row in (0, 1)] == [0.2, 0.4]
    assert "2 files beside the images left out: masks/a.fits, masks/b.fits" in data.info.notes


def test_folders_of_psfs_and_noise_maps_are_no_classes(tmp_path):
    for label, names in (("lens", "ab"), ("nonlens", "bc")):
        for name in names:
            write(tmp_path / label / f"{name}.fits", ("", FLAT))
            write(tmp_path / label / "rms" / f"{name}.fits", ("", 3 * FLAT))
    for name in "abc":  # b is the name of two images
        write(tmp_path / "psf" / f"{name}.fits", ("", kernel(0.3)))
    data = open_data(tmp_path)
    assert (data.info.layout, data.info.classes) == ("classes", ["nonlens", "lens"])
    assert data.ids == ["lens/a", "lens/b", "nonlens/b", "nonlens/c"]
    assert (data.noise[:] == 3).all()
    assert [len(data.psf(row)) for row in range(4)] == [1, 0, 0, 1]
    assert "1 files beside the images left out: psf/b.fits" in data.info.notes


def test_classes_may_be_named_for_strengths_of_noise(tmp_path):
    for path in ("high_noise/a", "low_noise/b"):
        write(tmp_path / f"{path}.fits", ("", FLAT))
    assert open_data(tmp_path).info.classes == ["high_noise", "low_noise"]


@pytest.mark.parametrize("inner", ["g/noise", "noise/g", "noise_g"])
def test_folders_of_noise_maps_within_and_around_bands(tmp_path, inner):
    for value, band in enumerate("gr", 1):
        for name in ("obj0", "obj1"):
            write(tmp_path / band / f"{name}.fits", ("", FLAT))
            write(tmp_path / inner.replace("g", band) / f"{name}.fits", ("", value * FLAT))
    data = open_data(tmp_path)
    assert (data.info.bands, data.ids) == (["g", "r"], ["obj0", "obj1"])
    assert noise(data) == [1, 2]


def test_masks_of_pictures_are_left_out_with_a_note(tmp_path):
    for folder in ("cdm", "no_sub", "masks"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "1.npy", FLAT)
    data = open_data(tmp_path)
    assert data.info.classes == ["no_sub", "cdm"]
    assert data.info.notes == ["1 files beside the images left out: masks/1.npy"]


def test_images_beside_and_below_class_folders_are_said(tmp_path):
    for path in ("lens/a", "nonlens/b", "c", "lens/more/d"):
        write(tmp_path / f"{path}.fits", ("", FLAT))
    assert "2 files beside the images left out: c.fits, lens/more/d.fits" in open_data(tmp_path).info.notes


@pytest.mark.parametrize("names", [("J1_A", "J1_a"), ("J1-05", "J1_05")])
def test_names_that_differ_in_case_or_separators_have_files_of_their_own(tmp_path, names):
    for value, name in enumerate(names, 1):
        write(tmp_path / f"{name}.fits", ("", FLAT))
        write(tmp_path / f"{name}_rms.fits", ("", value * FLAT))
    data = open_data(tmp_path)
    assert dict(zip(data.ids, data.noise[:][:, 0, 1, 1].tolist(), strict=True)) == dict(zip(names, (1, 2), strict=True))


def test_a_noise_map_whose_name_differs_in_separators_goes_with_the_only_image(tmp_path):
    write(tmp_path / "J1-05.fits", ("", FLAT))
    write(tmp_path / "J1_05_rms.fits", ("", 2 * FLAT))
    assert noise(open_data(tmp_path)) == [2]


def test_import_says_of_masked_pixels_that_their_noise_is_infinite(tmp_path):
    image = FLAT.copy()
    image[2, 3] = np.nan
    write(tmp_path / "in" / "a.fits", ("SCI", image), ("ERR", 2 * FLAT))
    data = open_data(import_data(open_data(tmp_path / "in"), tmp_path / "out", mask=True))
    assert data.images[[0]][0, 0, 2, 3] == 0
    np.testing.assert_array_equal(data.noise[[0]][0, 0], np.where(np.isnan(image), np.inf, 2))


@pytest.mark.parametrize("value", [np.nan, np.inf, -9.0])
def test_a_psf_that_cannot_be_used_is_said(tmp_path, value):
    bad = kernel(0.3)
    bad[0, 0] = value
    write(tmp_path / "a.fits", ("G", FLAT), ("R", FLAT), ("G_PSF", bad), ("R_PSF", kernel(0.2)))
    data = open_data(tmp_path)
    assert peaks(data) == {"R": 0.2}
    (note,) = data.info.notes
    assert note.startswith("PSF of G in a.fits is not used: it has pixels that are nan or infinite, or no flux;")
