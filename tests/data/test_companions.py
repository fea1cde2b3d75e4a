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
