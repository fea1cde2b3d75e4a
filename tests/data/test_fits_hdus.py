"""FITS headers are read as cfitsio reads them, and files that would end the process are refused before it opens them."""

import gzip

import fitsio
import numpy as np
import pytest
from astropy.io import fits

from darklens.data.layouts import open_data
from darklens.data.readers.fits_hdus import read_hdus
from darklens.errors import DataError


@pytest.mark.parametrize(
    "value",
    [b"=                    0", b"=0                  16", b"=                    F", b"=                  0.5"],
)
@pytest.mark.parametrize("suffix", [".fits", ".fits.gz"])
def test_compressed_fits_with_a_side_of_nothing_are_refused(tmp_path, value, suffix):
    """cfitsio divides by it, which ends the process."""
    packed = fits.CompImageHDU(np.zeros((16, 16), np.int32), compression_type="RICE_1")
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(tmp_path / "whole.fits")
    text = (tmp_path / "whole.fits").read_bytes().replace(b"ZNAXIS2 =                   16", b"znaxis2 " + value)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(text if suffix == ".fits" else gzip.compress(text))
    with pytest.raises(
        DataError, match=rf"a{suffix}: damaged: its header says ZNAXIS2 = .*; expected a whole number above"
    ):
        open_data(path)


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("NAXIS1  =                    4", "both NAXIS1 = 8 and 4"),
        ("BITPIX  =                    8", "both BITPIX = 16 and 8"),
        ("GCOUNT  =                    2", "both GCOUNT = 1 and 2"),
        ("ZNAXIS1 =                    0", "ZNAXIS1 = 0; expected a whole number above 0"),
        ("ZTILE1  =                    0", "ZTILE1 = 0; expected a whole number above 0"),
        ("ZTILE1                       1", "ZTILE1 = None; expected a whole number above 0"),
        ("NAXIS1  =                    8", None),
        ("CRVAL1  =                    8", None),
        ("EXTNAME = 'B       '          ", None),
    ],
)
def test_headers_that_contradict_themselves_are_refused(tmp_path, card, message):
    """cfitsio takes the first card of a name: it would find other HDUs than those whose headers were checked."""
    image = fits.ImageHDU(np.zeros((8, 8), np.int16), fits.Header({"CRVAL1": 3.0, "CHECKED": True}), name="A")
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(tmp_path / "a.fits")
    text = (tmp_path / "a.fits").read_bytes()
    start = text.index(b"CHECKED ")
    (tmp_path / "a.fits").write_bytes(text[:start] + f"{card:80}".encode() + text[start + 80 :])
    if message is None:
        with fitsio.FITS(str(tmp_path / "a.fits")) as file:
            assert read_hdus(tmp_path / "a.fits")[1].name == file[1].get_extname()
        return
    with pytest.raises(DataError, match=message):
        open_data(tmp_path / "a.fits")


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("PCOUNT  =                -5760", "BITPIX, PCOUNT or GCOUNT is no whole number"),
        ("GCOUNT  =                   -9", "BITPIX, PCOUNT or GCOUNT is no whole number"),
        ("BITPIX  =                 16.5", "BITPIX, PCOUNT or GCOUNT is no whole number"),
        ("NAXIS   =                 1000", "NAXIS = 1000; expected 0 to 999"),
        ("NAXIS1  =                   -1", "NAXIS1 = -1; expected a whole number"),
        ("NAXIS1  =     9999999999999999", "truncated: 8640 bytes where its header promises"),
    ],
)
def test_headers_of_impossible_sizes_are_refused(tmp_path, card, message):
    """A negative size would lead back to the same header, for ever."""
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((8, 8), np.int16), name="A")]).writeto(tmp_path / "a.fits")
    text = (tmp_path / "a.fits").read_bytes()
    start = text.index(card[:8].encode(), 2880)
    (tmp_path / "a.fits").write_bytes(text[:start] + f"{card:80}".encode() + text[start + 80 :])
    with pytest.raises(DataError, match=message):
        open_data(tmp_path / "a.fits")


def test_random_groups_are_passed_by(tmp_path):
    """Their first axis has the length 0, and they are no image."""
    groups = fits.GroupsHDU(fits.GroupData(np.ones((3, 1, 4, 5), np.float32), parnames=["U"], pardata=[np.zeros(3)]))
    fits.HDUList([groups, fits.ImageHDU(np.ones((6, 7), np.float32), name="A")]).writeto(tmp_path / "a.fits")
    assert read_hdus(tmp_path / "a.fits")[1].shape == (6, 7)
    assert open_data(tmp_path / "a.fits").images[0].shape == (1, 1, 6, 7)


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\x1f\x9d\x90", b"BZh9", b"XIMPLE"])
def test_archives_and_other_files_named_fits_are_refused(tmp_path, start):
    (tmp_path / "a.fits").write_bytes(start + bytes(5756))
    with pytest.raises(DataError, match=r"a\.fits: not a readable FITS file: it does not begin with SIMPLE"):
        open_data(tmp_path / "a.fits")
