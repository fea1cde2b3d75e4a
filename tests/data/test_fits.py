"""fitsio's pixels and our reading of headers against astropy."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales
from conftest import EXAMPLES, SHARED

from darklens.data.layouts import open_data
from darklens.data.readers.fits import read_fits_cutout
from darklens.errors import DataError

FILES = [EXAMPLES / "euclid" / "102018665_VIS.fits", *sorted((SHARED / "euclid_q1").glob("*.fits"))]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem[:14])
def test_euclid_cutouts_agree_with_astropy(path):
    cutout = read_fits_cutout(path)
    with fits.open(path) as file:
        names = [h.name for h in file if h.name.endswith(("_BGSUB", "_FLUX"))]
        assert cutout.bands == [name.rsplit("_", 1)[0] for name in names]
        for i, name in enumerate(names):
            band = cutout.bands[i]
            np.testing.assert_array_equal(cutout.images[i], file[name].data.astype(np.float32))
            np.testing.assert_array_equal(cutout.psf[band], file[f"{band}_PSF"].data.astype(np.float32))
            np.testing.assert_array_equal(cutout.rms[i], file[f"{band}_RMS"].data.astype(np.float32))
            assert cutout.zero_points[i] == file[name].header["MAGZERO"]
        wcs = WCS(file[names[0]].header)
        assert cutout.pixel_scale == pytest.approx(proj_plane_pixel_scales(wcs)[0] * 3600, rel=1e-9)
        side = (cutout.images.shape[1] - 1) / 2
        np.testing.assert_allclose(cutout.position, wcs.wcs_pix2world([[side, side]], 0)[0], rtol=1e-9)
    assert cutout.mask.shape == cutout.images.shape


def test_noise_maps_without_data_are_masked(tmp_path):
    rms = np.ones((8, 8), dtype=np.float32)
    rms[2, 3], rms[4, 5] = 1e13, np.nan
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(np.ones((8, 8)), name="VIS_BGSUB"), fits.ImageHDU(rms, name="VIS_RMS")]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    assert np.argwhere(read_fits_cutout(tmp_path / "a.fits").mask[0]).tolist() == [[2, 3], [4, 5]]


def test_cube_is_bands_and_hst_zero_point_is_computed(tmp_path):
    header = fits.Header({"PHOTFLAM": 1.9275602e-20, "PHOTPLAM": 15369.176})  # WFC3/F160W
    fits.writeto(tmp_path / "cube.fits", np.zeros((3, 8, 8), dtype=np.float32), header)
    cutout = read_fits_cutout(tmp_path / "cube.fits")
    assert cutout.images.shape == (3, 8, 8)
    assert cutout.zero_points[0] == pytest.approx(25.946, abs=0.01)


def test_damaged_files_are_named(tmp_path):
    path = tmp_path / "a.fits"
    fits.writeto(path, np.zeros((64, 64)))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"a\.fits"):
        read_fits_cutout(path)
    path.write_text("not fits")
    with pytest.raises(DataError, match=r"a\.fits: not a readable FITS file"):
        read_fits_cutout(path)
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns([])]).writeto(tmp_path / "t.fits")
    with pytest.raises(DataError, match=r"t\.fits: no image HDU"):
        read_fits_cutout(tmp_path / "t.fits")


def test_bands_are_read_by_name_whatever_their_order_in_a_file(tmp_path):
    values = {"G": 1.0, "R": 2.0, "I": 3.0}
    for name, order in (("a", "GRI"), ("b", "IRG"), ("c", "RIG")):
        hdus = [fits.ImageHDU(np.full((8, 8), values[band], dtype=np.float32), name=band) for band in order]
        noise = fits.ImageHDU(np.full((8, 8), 9.0, dtype=np.float32), name=f"{order[0]}_RMS")
        fits.HDUList([fits.PrimaryHDU(), hdus[0], noise, *hdus[1:]]).writeto(tmp_path / f"{name}.fits")
    data = open_data(tmp_path)
    assert data.info.bands == ["G", "R", "I"]
    assert data.images[:][:, :, 0, 0].tolist() == [[1, 2, 3]] * 3
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones((8, 8)), name="G")]).writeto(tmp_path / "d.fits")
    with pytest.raises(DataError, match=r"d\.fits: no band R, I, which a\.fits has; it has G"):
        open_data(tmp_path).images[:]


def fits_header(**cards) -> bytes:
    text = "".join(f"{key:8}= {value:>20}".ljust(80) for key, value in cards.items()) + "END"
    return text.ljust(-(-len(text) // 2880) * 2880).encode()


@pytest.mark.parametrize("sides", [(64, 2_000_000_000), (2_000_000_000, 64), (4000, 4000)])
def test_fits_headers_that_promise_more_than_the_file_are_refused(tmp_path, sides):
    header = fits_header(SIMPLE="T", BITPIX=-32, NAXIS=2, NAXIS1=sides[1], NAXIS2=sides[0])
    (tmp_path / "a.fits").write_bytes(header + bytes(2880))
    with pytest.raises(DataError, match=r"a\.fits: (truncated: 5760 bytes where|an image of)"):
        open_data(tmp_path / "a.fits")


def test_compressed_fits_that_promise_more_than_tiles_can_hold_are_refused(tmp_path):
    path = tmp_path / "a.fits"
    packed = fits.CompImageHDU(np.zeros((16, 16), np.int32), compression_type="RICE_1")
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(path)
    assert open_data(path).images[[0]].shape == (1, 1, 16, 16)
    text = path.read_bytes()
    for key in (b"ZNAXIS1", b"ZTILE1"):
        old = key.ljust(8) + b"=                   16"
        assert old in text
        text = text.replace(old, old.replace(b"      16", b"20000000"))
    path.write_bytes(text)
    with pytest.raises(
        DataError, match=rf"a\.fits: damaged: its header promises 1,280,000,000 bytes, and {len(text):,} "
    ):
        open_data(path).images[[0]]


def test_text_that_is_not_ascii_in_fits_headers_is_refused_by_name(tmp_path):
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones((8, 8)), name="VIS")]).writeto(path)
    path.write_bytes(path.read_bytes().replace(b"NAXIS1  =                    8", b"NAXIS1  =           \xff        8"))
    with pytest.raises(DataError, match=r"a\.fits: .*decode"):
        open_data(path)
