"""Objects whose bands are told by headers alone."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from darklens.data.layouts import open_data
from darklens.data.readers import fits_scan, header_groups
from darklens.data.readers.fits_hdus import read_hdus
from darklens.errors import DataError

PLACES = {"J1": (359.99999, -30.0), "J2": (10.0, -30.001), "J3": (10.0, 89.99)}


def write(folder, name, value, *, place=None, **cards):
    header = fits.Header(cards)
    if place is not None:
        ra, dec = place
        header.update({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": ra, "CRVAL2": dec})
        header.update({"CRPIX1": 3.0, "CRPIX2": 2.5, "CDELT1": -0.2 / 3600, "CDELT2": 0.2 / 3600})
    path = folder / f"{name}.fits"
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.writeto(path, np.full((4, 5), value, dtype=np.float32), header)


def test_files_of_one_object_name_it(tmp_path):
    for number, (name, band) in enumerate([("A B", "r"), ("C", "g"), ("C", "r"), ("A B", "g"), ("C", "z")]):
        write(tmp_path, f"file{number}", number, OBJECT=name, FILTER=f"{band}.00000")
    data = open_data(tmp_path)
    assert (data.info.layout, data.info.bands, data.ids) == ("bands", ["g", "r"], ["A B", "C"])
    assert data.images[:][:, :, 0, 0].tolist() == [[3, 0], [1, 2]]
    assert data.info.notes == ["band z left out: 1 of 2 objects lack it"]


def test_headers_of_grouped_files_are_read_once(tmp_path, monkeypatch):
    for number, (name, band) in enumerate([("A", "r"), ("B", "g"), ("B", "r"), ("A", "g")]):
        write(tmp_path, f"file{number}", number, OBJECT=name, FILTER=band)
    read = []
    for module in (header_groups, fits_scan):
        monkeypatch.setattr(module, "read_hdus", lambda path: read.append(path) or read_hdus(path))
    data = open_data(tmp_path)
    assert data.images[:][:, :, 0, 0].tolist() == [[3, 0], [1, 2]]
    assert sorted(path.name for path in read) == [f"file{number}.fits" for number in range(4)]


def test_files_of_one_place_are_one_object(tmp_path):
    """Half an arcsecond apart, over the line of right ascension 0 and beside the pole."""
    shift = 0.5 / 3600
    for number, (name, place) in enumerate(PLACES.items()):
        folder = "lens" if name == "J2" else "nolens"
        near = ((place[0] + shift / np.cos(np.deg2rad(place[1]))) % 360, place[1])
        write(tmp_path, f"{folder}/{name}x", number, place=place, FILTER="F814W")
        write(tmp_path, f"{folder}/{name}y", number + 10, place=near, FILTER="F606W")
    data = open_data(tmp_path, layout="bands")
    assert data.info.bands == ["F606W", "F814W"]
    levels = np.nanmax(data.images[:], axis=(2, 3))  # the second band is shifted by 2.5 of 5 pixels
    found = {round(level): row for row, level in enumerate(levels[:, 1])}
    assert sorted(found) == [0, 1, 2]
    assert [levels[found[n], 0] for n in range(3)] == pytest.approx([10, 11, 12])
    assert data.catalog["label"][found[1]] == "lens"
    assert data.catalog["label"][found[0]] == "nolens"


@pytest.mark.parametrize(("kind", "bands"), [("no object", "gr"), ("twice", "grr"), ("two images", "gr")])
def test_files_whose_headers_do_not_tell_are_not_joined(kind, bands, tmp_path):
    for number, band in enumerate(bands):
        write(tmp_path, f"x{number}", number, FILTER=band, **({} if kind == "no object" else {"OBJECT": "A"}))
    if kind == "two images":
        fits.append(tmp_path / "x1.fits", np.ones((4, 5)), fits.Header({"EXTNAME": "other"}))
    with pytest.raises(DataError, match="no band is common to all"):
        open_data(tmp_path)


def test_files_of_one_filter_are_objects_of_their_own(tmp_path):
    for number in range(2):
        write(tmp_path, f"x{number}", number, FILTER="HSC-G", OBJECT="A")
    data = open_data(tmp_path)
    assert (data.ids, data.info.bands) == (["x0", "x1"], ["HSC-G"])


def test_one_name_for_two_places_is_two_objects(tmp_path):
    for number, (place, band) in enumerate(
        [((10.0, 1.0), "g"), ((10.0, 1.0), "r"), ((11.0, 1.0), "g"), ((11.0, 1.0), "r")]
    ):
        write(tmp_path, f"x{number}", number, place=place, FILTER=band, OBJECT="COSMOS")
    data = open_data(tmp_path)
    assert data.images[:][:, :, 1, 1].tolist() == [[0, 1], [2, 3]]
    (tmp_path / "x1.fits").unlink()
    (tmp_path / "x2.fits").unlink()  # one band of each
    with pytest.raises(DataError, match="no band is common"):
        open_data(tmp_path)


def test_folders_sorted_by_band_and_damaged_files_are_grouped_all_the_same(tmp_path):
    for band in "gr":
        for number in range(25):
            write(tmp_path, f"{band}{number:02}x", number, FILTER=band, OBJECT=f"J{number:02}")
    (tmp_path / "r07x.fits").write_bytes(b"nothing")
    data = open_data(tmp_path)
    assert data.info.bands == ["g"]
    assert "band r left out: 1 of 25 objects lack it" in data.info.notes
    assert "1 files such as r07x.fits cannot be read: left out" in data.info.notes
