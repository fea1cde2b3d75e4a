"""Names of bands."""

import pytest

from darklens.data.bands import by_wavelength, chosen, colour_channels, is_band, matching, short_name


@pytest.mark.parametrize(
    ("name", "short"),
    [("DES_G", "g"), ("HSC-R", "r"), ("g", "g"), ("sdss.i'", "i"), ("NIR_Y", "nir_y"), ("Ks", "k"), ("F814W", "f814w")],
)
def test_short_names(name, short):
    assert short_name(name) == short
    assert is_band(name)


@pytest.mark.parametrize("word", ["lens", "cutout", "7", "subtracted", "J0123", "image", ""])
def test_words_that_are_no_bands(word):
    assert not is_band(word)


def test_bands_are_ordered_by_wavelength():
    assert by_wavelength(["SDSS_U", "SDSS_R", "SDSS_I", "SDSS_G"]) == ["SDSS_U", "SDSS_G", "SDSS_R", "SDSS_I"]
    assert by_wavelength(["NIR_H", "VIS", "B", "NIR_Y", "A"]) == ["VIS", "NIR_Y", "NIR_H", "A", "B"]


def test_bands_are_matched_by_name_and_never_twice():
    assert matching(["g", "r"], ["DES_R", "DES_I", "DES_G"]) == [2, 0]
    assert matching(["r", "g"], ["r", "DES_G", "DES_R"]) == [0, 1], "the name itself comes first"
    assert matching(["g"], ["DES_G", "HSC_G"]) is None
    assert matching(["y"], ["NIR_Y"]) is None
    assert matching(["g", "G"], ["DES_G"]) is None


@pytest.mark.parametrize(
    ("bands", "expected"),
    [
        (["R", "G", "B"], [0, 1, 2]),
        (["B", "R", "G"], [1, 2, 0]),
        (["HSC-G", "HSC-I", "HSC-R"], [1, 2, 0]),
        (["NIR_J", "VIS", "NIR_H"], [2, 0, 1]),
        (["g", "r"], None),
        (["g", "r", "i", "z"], [2, 1, 0]),
        (["y", "DES_G", "z", "i", "r"], [3, 4, 1]),
        (["NIR_Y", "VIS", "NIR_H", "NIR_J"], [2, 3, 1]),
        (["g", "r", "i", "what"], None),
        (["g", "DES_g", "i"], None),
        (["F814W", "g", "r"], None),
        ([], None),
    ],
)
def test_colours_are_by_name_or_by_wavelength_the_longest_red(bands, expected):
    assert colour_channels(bands) == expected


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        ("r,HSC-G", [1, 0]),
        ("2,0", [2, 0]),
        ("1", [1]),
        ("3", None),
        ("r,0", None),
        ("1,1", None),
        ("r,r", None),
        ("-1", None),
    ],
)
def test_bands_that_are_asked_for_go_by_name_or_else_by_number(wanted, places):
    assert chosen(wanted.split(","), ["HSC-G", "HSC-R", "IMAGE3"]) == places
    assert chosen(["1"], ["2", "1", "0"]) == [1]
