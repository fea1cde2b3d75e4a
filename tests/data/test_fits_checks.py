"""FITS files that would end the process are refused before cfitsio opens them."""

import gzip

import numpy as np
import pytest
from astropy.io import fits

from darklens.data.layouts import open_data
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
    with pytest.raises(DataError, match=rf"a{suffix}: damaged: its header says 'znaxis2 {value.decode()}'; expected"):
        open_data(path)


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\x1f\x9d\x90", b"BZh9", b"XIMPLE"])
def test_archives_and_other_files_named_fits_are_refused(tmp_path, start):
    (tmp_path / "a.fits").write_bytes(start + bytes(5756))
    with pytest.raises(DataError, match=r"a\.fits: not a readable FITS file: it does not begin with SIMPLE"):
        open_data(tmp_path / "a.fits")
