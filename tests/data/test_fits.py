"""fitsio's pixels and our reading of headers against astropy."""

import fitsio
import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales
from conftest import EXAMPLES, SHARED

from darklens.data.checks import check_finite
from darklens.data.layouts import open_data
from darklens.data.readers.fits import FitsObjects, read_fits_cutout
from darklens.data.readers.fits_hdus import KNOWN_CARDS, read_hdus
from darklens.data.readers.fits_headers import zero_point
from darklens.errors import DataError

FILES = [EXAMPLES / "euclid" / "102018665_VIS.fits", *sorted((SHARED / "euclid_q1").glob("*.fits"))]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem[:14])
def test_euclid_cutouts_agree_with_astropy(path):
    cutout = read_fits_cutout(path)
    with fits.open(path) as file:
        names = [h.name for h in file if h.name.endswith(("_BGSUB", "_FLUX"))]
        assert len(names) >= 1
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
        noise = np.stack([file[f"{band}_RMS"].data for band in cutout.bands])
        np.testing.assert_array_equal(cutout.mask, np.isnan(cutout.images) | ~(noise < 1e15))


def test_the_euclid_cutout_of_the_package_has_its_published_values():
    cutout = read_fits_cutout(FILES[0])
    assert cutout.bands == ["VIS"]
    assert cutout.images.shape == (1, 100, 100)
    assert cutout.zero_points == [24.6]
    assert cutout.pixel_scale == pytest.approx(0.1, rel=1e-3)
    assert int(cutout.mask.sum()) == 51
    assert cutout.position == pytest.approx((57.004035, -50.775290), abs=1e-4)


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
        FitsObjects([[tmp_path / "a.fits"], [tmp_path / "d.fits"]], bands=["G", "R", "I"])[:]
    common = open_data(tmp_path)
    assert common.info.bands == ["G"]
    assert common.images[:][:, 0, 0, 0].tolist() == [1, 1, 1, 1]
    assert common.info.notes == [
        *(f"band {band} left out: 1 of 4 files lack it" for band in "RI"),
        "noise maps of 1 of 4 objects: not used, as others lack them",
    ]
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones((8, 8)), name="Z")]).writeto(tmp_path / "e.fits")
    with pytest.raises(DataError, match=r"no band is common to all 5 files: .*a\.fits has G, R, I, e\.fits has Z"):
        open_data(tmp_path)


def write_calibrated(path, value, zero_point=None, scale=0.1, **cards):
    header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -scale / 3600, "CDELT2": scale / 3600})
    if zero_point is not None:
        header["MAGZERO"] = zero_point
    header.update(cards)
    fits.writeto(path, np.full((6, 5), value, dtype=np.float32), header)


def test_fluxes_are_on_one_scale_whatever_the_zero_points(tmp_path):
    """An AB magnitude of 20 in each: 10^(0.4 (zero point - 20)) counts."""
    for name, value in (("a", 25.0), ("b", 27.5), ("c", 24.0)):
        write_calibrated(tmp_path / f"{name}.fits", 10 ** (0.4 * (value - 20)), value)
    write_calibrated(tmp_path / "d.fits", 7.0)
    data = open_data(tmp_path)
    np.testing.assert_allclose(data.images[:][:, 0, 2, 3], [100, 100, 100, 7], rtol=1e-6)
    assert data.info.zero_points == [25.0]
    assert data.info.notes == [
        "zero points of IMAGE from 24.00 to 27.50: fluxes are brought to that of a.fits, 25.00",
        "zero point of IMAGE unknown in 1 of 4 files: left as they are",
    ]
    alone = open_data(tmp_path / "b.fits")
    np.testing.assert_allclose(alone.images[:][0, 0, 0, 0], 1000, rtol=1e-6)
    assert alone.info.zero_points == [27.5]


def test_a_first_file_without_zero_point_leaves_the_others_on_one_scale(tmp_path):
    for name, value, known in (("a", 7, None), ("b", 100, 25.0), ("c", 1000, 27.5)):
        write_calibrated(tmp_path / f"{name}.fits", value, known)
    data = open_data(tmp_path)
    np.testing.assert_allclose(data.images[:][:, 0, 2, 3], [7, 100, 100], rtol=1e-6)
    assert data.info.zero_points == [25.0]
    assert data.info.notes == [
        "zero points of IMAGE from 25.00 to 27.50: fluxes are brought to that of b.fits, 25.00",
        "zero point of IMAGE unknown in 1 of 3 files: left as they are",
    ]


@pytest.mark.parametrize(
    ("unit", "factor"), [("MJy/arcsec2", 1), ("MJy/sr", 1), ("nJy arcsec^-2", 1), ("nJy", 4), ("degC", 4)]
)
def test_surface_brightness_is_no_flux(tmp_path, unit, factor):
    """Where pixels become four times as large, flux grows with them."""
    for name, scale in (("a", 0.2), ("b", 0.2), ("c", 0.1)):
        write_calibrated(tmp_path / f"{name}.fits", 3.0, 25.0, scale, BUNIT=unit)
    images = open_data(tmp_path).images[:]
    assert images[2, 0, 3, 2] == pytest.approx(3 * factor, rel=1e-6)


def test_objects_of_another_pixel_scale_are_resampled_to_that_of_most(tmp_path):
    write_calibrated(tmp_path / "a.fits", 1, scale=0.2)
    write_calibrated(tmp_path / "b.fits", 1, scale=0.1)
    write_calibrated(tmp_path / "c.fits", 1, scale=0.1003)
    fits.writeto(tmp_path / "d.fits", np.full((6, 5), 3, dtype=np.float32))
    data = open_data(tmp_path)
    assert data.info.pixel_scale == pytest.approx(0.1)
    assert data.info.notes == [
        "1 of 4 files with pixels of 0.2″: resampled to 0.1″, which most have",
        "pixel scale unknown in 1 of 4 files: taken for 0.1″",
        "images of 2 sizes brought to 6×6 pixels: 1 cropped, 3 padded; --crop or --pad chooses another",
    ]
    assert data.images.shape == (4, 1, 6, 6)
    np.testing.assert_allclose(data.images[:][:, 0, 2, 3], [0.25, 1, 1, 3], rtol=1e-6)
    # A WCS of one degree a pixel, as of images without one, says nothing.
    write_calibrated(tmp_path / "e.fits", 1, scale=3600)
    assert open_data(tmp_path / "e.fits").info.pixel_scale is None


def test_bands_are_brought_to_the_pixels_of_the_first_by_their_wcs(tmp_path):
    """A star at one place on the sky, in bands with other pixels, shifted and mirrored, is at one place in the result."""
    star = (150.0003, -39.9998)
    sizes = {"g": (31, 40, 0.2, -1), "r": (75, 90, 0.1, -1), "i": (20, 24, 0.35, 1)}
    for band, (height, width, scale, east) in sizes.items():
        cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": -40.0}
        cards |= {"CRPIX1": width / 2 + 1.3, "CRPIX2": height / 2 - 0.6}
        cards |= {"CD1_1": east * scale / 3600, "CD2_2": scale / 3600}
        wcs = WCS(fits.Header(cards))
        x, y = wcs.wcs_world2pix([star], 0)[0]
        rows, columns = np.indices((height, width))
        image = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 2 / (0.5 / scale) ** 2)
        fits.writeto(tmp_path / f"J1_{band}.fits", (image / image.sum()).astype(np.float32), fits.Header(cards))
    data = open_data(tmp_path)
    assert data.info.bands == ["g", "r", "i"]
    read = data.images[:][0]
    rows, columns = np.indices(read.shape[1:])
    for plane in np.nan_to_num(read):
        assert plane.sum() == pytest.approx(1, abs=0.01)
        place = (rows * plane).sum() / plane.sum(), (columns * plane).sum() / plane.sum()
        wcs = WCS(fits.getheader(tmp_path / "J1_g.fits"))
        assert place[::-1] == pytest.approx(wcs.wcs_world2pix([star], 0)[0], abs=0.02)
    assert data.catalog["ra"][0] == pytest.approx(float(wcs.wcs_pix2world([[19.5, 15]], 0)[0][0]), abs=1e-9)
    assert data.info.notes[:2] == [f"band {band} resampled to the pixels of g, where its WCS differs" for band in "ri"]


def test_bands_that_are_turned_against_each_other_are_refused(tmp_path):
    write_calibrated(tmp_path / "a_g.fits", 1, CRVAL1=10.0, CRVAL2=5.0, CROTA2=0.0)
    write_calibrated(tmp_path / "a_r.fits", 1, CRVAL1=10.0, CRVAL2=5.0, CROTA2=30.0)
    with pytest.raises(DataError, match=r"a_r\.fits: band r is turned against g; bring the bands of an object to one"):
        open_data(tmp_path).images[:]


@pytest.mark.parametrize(
    "cards",
    [
        {"CDELT1": -1e-4, "CDELT2": 5e-5, "CROTA2": 35.0},
        {"CDELT1": 2e-4, "CDELT2": 2e-4, "PC1_1": 0.6, "PC1_2": -0.8, "PC2_1": 0.8, "PC2_2": 0.6},
        {"CD1_1": -3e-5, "CD1_2": 4e-5, "CD2_1": 4e-5, "CD2_2": 3e-5, "CRVAL2": 89.9999},
        {"CDELT1": -1e-4, "CDELT2": 1e-4, "CTYPE1": "GLON-CAR", "CTYPE2": "GLAT-CAR"},
        {"CDELT1": -1e-4, "CDELT2": 1e-4, "RADESYS": "FK4", "EQUINOX": 1950.0},
        {"CDELT1": -1e-4, "CDELT2": 1e-4, "EPOCH": 1950.0},
        {"CDELT1": -1e-4, "CDELT2": 1e-4, "RADECSYS": "FK4"},
        {"CDELT1": -1e-4, "CDELT2": 1e-4, "PV1_1": 1.0005, "PV2_1": 1.0005, "PV1_7": 1e-3, "PV2_7": 1e-3},
        {"CDELT1": -1e-4, "CDELT2": 1e-4, "CRVAL2": 90.0},
        {
            "CD1_1": -1e-4,
            "CD2_2": 1e-4,
            "CD1_2": 0.0,
            "CD2_1": 0.0,
            "A_ORDER": 2,
            "B_ORDER": 2,
            "A_2_0": 1e-5,
            "B_0_2": 1e-5,
        },
    ],
)
def test_positions_are_those_of_astropy(cards, tmp_path):
    header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 359.9999, "CRVAL2": -30.0} | cards)
    header["CRPIX1"], header["CRPIX2"] = 1500.5, -700.0
    fits.writeto(tmp_path / "a.fits", np.ones((6, 5), np.float32), header)
    expected = WCS(header).pixel_to_world(2, 2.5).icrs
    catalog = open_data(tmp_path / "a.fits").catalog
    assert catalog["ra"][0] == pytest.approx(expected.ra.deg, abs=1e-8)
    assert catalog["dec"][0] == pytest.approx(expected.dec.deg, abs=1e-8)


def test_positions_that_mean_nothing_are_none(tmp_path):
    write_calibrated(tmp_path / "a.fits", 1, CRVAL1=0.0, CRVAL2=0.0)
    assert "ra" not in open_data(tmp_path).catalog.columns
    write_calibrated(tmp_path / "b.fits", 1, CRVAL1=3.0, CRVAL2=0.0)
    assert open_data(tmp_path).catalog["ra"][0] is None
    assert open_data(tmp_path).catalog["ra"][1] == pytest.approx(3 - 3 * 0.1 / 3600, abs=1e-7)


TURNED = {"CDELT1": -1e-4, "CDELT2": 5e-5, "PC1_1": 0.6, "PC1_2": -0.8, "PC2_1": 0.8, "PC2_2": 0.6}


@pytest.mark.parametrize("matrix", [{"CD1_1": -3e-5, "CD1_2": 4e-5, "CD2_1": 4e-5, "CD2_2": 3e-5}, TURNED])
def test_pixel_scale_of_the_quick_look_is_that_of_astropy(matrix, tmp_path):
    header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"} | matrix)
    fits.writeto(tmp_path / "a.fits", np.ones((6, 5), np.float32), header)
    expected = 3600 * np.sqrt(np.prod(proj_plane_pixel_scales(WCS(header))))
    assert open_data(tmp_path / "a.fits").info.pixel_scale == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", ["plain", "unsigned", "scaled", "compressed"])
def test_blank_integers_are_no_pixels(kind, tmp_path):
    pixels = np.array([[5, -32768, 7], [8, 9, -32768]], dtype=np.int16)
    expected = np.where(pixels == -32768, np.nan, pixels).astype(np.float64)
    header = fits.Header({"BLANK": -32768})
    if kind == "compressed":
        fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(pixels, header)]).writeto(tmp_path / "a.fits")
    else:
        fits.writeto(tmp_path / "a.fits", pixels, header)
        if kind != "plain":
            offset, factor = (32768, 1) if kind == "unsigned" else (100.0, 0.5)
            expected = expected * factor + offset
            for key, value in (("BZERO", offset), ("BSCALE", factor)):
                fits.setval(tmp_path / "a.fits", key, value=value)
    np.testing.assert_array_equal(open_data(tmp_path / "a.fits").images[:][0, 0], expected)
    np.testing.assert_array_equal(read_fits_cutout(tmp_path / "a.fits").images[0], expected)
    with pytest.raises(DataError, match="nan"):
        check_finite(open_data(tmp_path / "a.fits").images[:], ["a"], "a.fits", mask=False)


def fits_header(**cards) -> bytes:
    text = "".join(f"{key:8}= {value:>20}".ljust(80) for key, value in cards.items()) + "END"
    return text.ljust(-(-len(text) // 2880) * 2880).encode()


@pytest.mark.parametrize("sides", [(64, 2_000_000_000), (2_000_000_000, 64), (4000, 4000)])
def test_fits_headers_that_promise_more_than_the_file_are_refused(tmp_path, sides):
    header = fits_header(SIMPLE="T", BITPIX=-32, NAXIS=2, NAXIS1=sides[1], NAXIS2=sides[0])
    (tmp_path / "a.fits").write_bytes(header + bytes(2880))
    with pytest.raises(DataError, match=r"a\.fits: (truncated: 5760 bytes where|an image of)"):
        open_data(tmp_path / "a.fits").images[:]


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
        DataError, match=rf"a\.fits: damaged: its header promises 320,000,000 bytes, and {len(text):,} "
    ):
        open_data(path).images[[0]]


def test_text_that_is_not_ascii_in_fits_headers_is_refused_by_name(tmp_path):
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones((8, 8)), name="VIS")]).writeto(path)
    path.write_bytes(path.read_bytes().replace(b"NAXIS1  =                    8", b"NAXIS1  =           \xff        8"))
    with pytest.raises(DataError, match=r"a\.fits: .*decode"):
        open_data(path)


def write_bands(path, **planes):
    hdus = [fits.ImageHDU(np.asarray(plane, dtype=np.float32), name=name) for name, plane in planes.items()]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    return path


def test_models_and_residuals_are_no_bands(tmp_path):
    names = ("G", "G_MODEL", "G_STD", "G_CHI", "R", "R_RESIDUAL", "R_STD")
    write_bands(tmp_path / "a.fits", **{name: np.full((5, 6), number) for number, name in enumerate(names, 1)})
    data = open_data(tmp_path)
    assert data.info.bands == ["G", "R"]
    assert data.images[:][0, :, 0, 0].tolist() == [1, 5]
    assert data.noise[:][0, :, 0, 0].tolist() == [3, 7]


def test_position_and_scale_of_a_turned_image_that_is_not_square(tmp_path):
    """The scale is the root of the pixel's area; the position that of the centre, whatever pixel the header refers to."""
    turn, (across, up) = np.deg2rad(30), (-2e-5, 5e-5)
    cards = {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRVAL1": 150.0,
        "CRVAL2": -40.0,
        "CRPIX1": 6.5,
        "CRPIX2": 10.5,
    }
    cards |= {"CD1_1": across * np.cos(turn), "CD1_2": -up * np.sin(turn)}
    cards |= {"CD2_1": across * np.sin(turn), "CD2_2": up * np.cos(turn)}
    header = fits.Header(cards)
    fits.writeto(tmp_path / "a.fits", np.zeros((20, 12), dtype=np.float32), header)
    cutout = read_fits_cutout(tmp_path / "a.fits")
    assert cutout.pixel_scale == pytest.approx(3600 * np.sqrt(2e-5 * 5e-5), rel=1e-6)
    assert cutout.position == pytest.approx((150, -40), abs=1e-9)
    header["CRPIX2"] = 9.5  # one pixel below the centre
    fits.writeto(tmp_path / "b.fits", np.zeros((20, 12), dtype=np.float32), header)
    ra, dec = read_fits_cutout(tmp_path / "b.fits").position
    assert (dec + 40) / 5e-5 == pytest.approx(np.cos(turn), rel=1e-4)
    assert (ra - 150) * np.cos(np.deg2rad(40)) / 5e-5 == pytest.approx(-np.sin(turn), rel=1e-4)


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        ({"MAGZERO": 24.6, "ZP": 30.0}, 24.6),
        ({"PHOTZP": -1, "PHOTFLAM": 1e-19, "PHOTPLAM": 5000.0}, -1),
        ({"MAGZERO": "unknown", "MAGZPT": 22.5}, 22.5),
        ({"PHOTFLAM": 0.0, "PHOTPLAM": 8045.0}, None),
        ({"PHOTFLAM": 1e-19}, None),
        ({}, None),
    ],
)
def test_zero_points(cards, expected):
    assert zero_point(fits.Header(cards)) == (expected if expected is None else pytest.approx(expected))


def test_zero_point_of_hst_is_the_ab_magnitude_of_its_unit_of_flux():
    flux, wavelength = 7.0724e-20, 8045.0
    cards = fits.Header({"PHOTFLAM": flux, "PHOTPLAM": wavelength})
    unit = flux * u.erg / u.s / u.cm**2 / u.AA
    expected = unit.to_value(u.ABmag, u.spectral_density(wavelength * u.AA))
    assert zero_point(cards) == pytest.approx(expected, abs=0.001)


def test_bands_noise_and_psf_are_told_apart_by_name(tmp_path):
    rng = np.random.default_rng(5)
    planes = {
        name: rng.normal(-1, 2, (5, 7)) for name in ("VIS_BGSUB", "VIS_RMS", "NIR_Y_SCI", "VIS_MASK", "NIR_Y_RMS")
    }
    planes |= {"NIR_Y_PSF": rng.random((3, 3)), "STAMP": rng.random((4, 4))}
    cutout = read_fits_cutout(write_bands(tmp_path / "a.fits", **planes))
    assert cutout.bands == ["VIS", "NIR_Y"]
    np.testing.assert_array_equal(cutout.images, np.float32([planes["VIS_BGSUB"], planes["NIR_Y_SCI"]]))
    np.testing.assert_array_equal(cutout.rms, np.float32([planes["VIS_RMS"], planes["NIR_Y_RMS"]]))
    assert list(cutout.psf) == ["NIR_Y"]
    np.testing.assert_array_equal(cutout.psf["NIR_Y"], np.float32(planes["NIR_Y_PSF"]))
    assert (cutout.pixel_scale, cutout.position, cutout.wcs) == (None, None, None)
    planes["NIR_Y_RMS"] = planes["NIR_Y_RMS"][:4]
    with pytest.raises(DataError, match=r"b\.fits: a noise map is not of the size \(5, 7\) of its band"):
        read_fits_cutout(write_bands(tmp_path / "b.fits", **planes))
    del planes["NIR_Y_RMS"]
    alone = read_fits_cutout(write_bands(tmp_path / "c.fits", **planes))
    assert (alone.rms, alone.mask) == (None, None)


def test_planes_of_cubes_are_bands_in_their_order(tmp_path):
    cube = np.random.default_rng(5).normal(0, 1, (32, 3, 5)).astype(np.float32)
    fits.HDUList([fits.PrimaryHDU(cube), fits.ImageHDU(-cube[0], name="G")]).writeto(tmp_path / "a.fits")
    files = FitsObjects([[tmp_path / "a.fits"]], bands=["IMAGE31", "G", "IMAGE2"])
    np.testing.assert_array_equal(files[[0]][0], [cube[31], -cube[0], cube[2]])
    assert len(read_fits_cutout(tmp_path / "a.fits").bands) == 33
    with pytest.raises(DataError, match=r"a\.fits: no band R; there are IMAGE0, "):
        FitsObjects([[tmp_path / "a.fits"]], bands=["G", "R"])
    fits.writeto(tmp_path / "b.fits", np.zeros((33, 3, 5)))
    with pytest.raises(DataError, match=r"b\.fits: no image HDU; it has HDU 0"):
        read_fits_cutout(tmp_path / "b.fits")


def test_scaled_integers_are_the_values_they_stand_for(tmp_path):
    hdu = fits.PrimaryHDU(np.array([[40_000, 3], [0, 65_535]], dtype=np.uint16))
    hdu.writeto(tmp_path / "a.fits")
    assert fits.getheader(tmp_path / "a.fits")["BZERO"] == 32768
    assert read_fits_cutout(tmp_path / "a.fits").images.tolist() == [[[40_000, 3], [0, 65_535]]]


def test_coarser_bands_keep_their_flux_and_place(tmp_path):
    """Without a WCS, a band of half the size shows the same field in pixels twice as wide."""
    fine, coarse = np.zeros((24, 36)), np.zeros((12, 18))
    fine[3, 30], coarse[4, 11] = 7, -8
    write_bands(tmp_path / "x_g.fits", I=fine)
    write_bands(tmp_path / "x_r.fits", I=coarse)
    data = open_data(tmp_path, layout="bands")
    read = data.images[[0]][0]
    np.testing.assert_array_equal(read[0], fine)
    assert read[1].sum() == pytest.approx(-8, abs=1e-5)
    rows, columns = np.indices(fine.shape)
    centre = (rows * read[1]).sum() / -8, (columns * read[1]).sum() / -8
    assert centre == pytest.approx((8.5, 22.5), abs=1e-4)
    assert data.info.notes == ["band r resampled to the pixels of g, taken to show the same field, as there is no WCS"]


def test_file_without_image_among_others_is_named(tmp_path):
    write_bands(tmp_path / "a.fits", I=np.ones((4, 6)))
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns([])]).writeto(tmp_path / "t.fits")
    files = FitsObjects([[tmp_path / "a.fits"], [tmp_path / "t.fits"]])
    assert files.shape_of(tmp_path / "a.fits") == (1, 4, 6)
    with pytest.raises(DataError, match=r"t\.fits: no image HDU"):
        files.shape_of(tmp_path / "t.fits")


@pytest.mark.parametrize(("kind", "power"), [("deviation", 1), ("variance", 2)])
def test_images_without_names_and_their_noise_maps_in_turns(kind, power, tmp_path):
    rng = np.random.default_rng(6)
    for name in "ab":
        noise = rng.uniform(2, 4, (2, 9, 12))
        images = rng.normal(0, noise)
        planes = [plane for pair in zip(images, noise**power, strict=True) for plane in pair]
        hdus = [fits.ImageHDU(plane.astype(np.float32)) for plane in planes]
        fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / f"{name}.fits")
    data = open_data(tmp_path)
    assert data.info.bands == ["IMAGE1", "IMAGE2"]
    assert data.info.notes == [
        f"images without names, every second one without a negative value: read as noise maps ({kind})"
    ]
    np.testing.assert_allclose(data.images[[1]][0], images, rtol=1e-6)
    np.testing.assert_allclose(data.noise[[1]][0], noise, rtol=1e-6)
    np.testing.assert_allclose(data.subset(np.array([1])).noise[[0]][0], noise, rtol=1e-6)


@pytest.mark.parametrize("what", ["bands", "models", "positive"])
def test_what_is_in_turns_is_told_by_all_files_that_are_looked_at(what, tmp_path):
    """Two bands are two bands, even if one file's second is dark or positive; models without noise are left out."""
    rng = np.random.default_rng(7)
    for name in "abc":
        images = rng.normal(0, 1, (2, 9, 12))
        if what == "models":
            images[1] = images[1].clip(0)
        elif what == "positive":
            images += 20
        elif name == "b":
            images[1] = abs(images[1])
        hdus = [fits.ImageHDU(plane.astype(np.float32)) for plane in images]
        fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / f"{name}.fits")
    data = open_data(tmp_path)
    assert data.info.bands == (["IMAGE1"] if what == "models" else ["IMAGE", "IMAGE2"])
    assert len(data.info.notes) == (what == "models")
    assert data.noise is None


def test_hsc_lenses_are_four_bands():
    if not (SHARED / "hsc_lenses").is_dir():
        pytest.skip("no shared data here")
    data = open_data(SHARED / "hsc_lenses")
    assert data.images.shape == (8, 4, 64, 64)
    assert "left out, as a model of what is in the image" in data.info.notes[0]
    with fits.open(SHARED / "hsc_lenses" / "lens_4.fits") as file:
        row = data.ids.index("lens_4")
        expected = np.float32([file[n].data for n in (1, 3, 5, 7)])
        np.testing.assert_array_equal(data.images[[row]][0], expected)


def test_files_that_are_cut_off_take_no_band_from_the_others(tmp_path):
    for name in "abc":
        write_bands(tmp_path / f"{name}.fits", G=np.ones((30, 40)), R=np.ones((30, 40)))
    whole = (tmp_path / "a.fits").read_bytes()
    for left, said in (
        (len(whole) - 3500, "truncated: "),
        (whole.rindex(b"XTENSION") + 99, "within the header of HDU 2"),
    ):
        (tmp_path / "a.fits").write_bytes(whole[:left])
        data = open_data(tmp_path)
        assert data.info.bands == ["G", "R"]
        assert data.images[[1, 2]].shape == (2, 2, 30, 40)
        with pytest.raises(DataError, match=rf"a\.fits: .*{said}"):
            data.images[[0]]


def test_bands_that_are_asked_for_need_not_be_those_of_the_first(tmp_path):
    write_bands(tmp_path / "a.fits", DES_G=np.full((5, 6), 1))
    for number, name in enumerate("bc", 2):
        write_bands(tmp_path / f"{name}.fits", DES_G=np.full((5, 6), number), DES_R=np.full((5, 6), -number))
    data = open_data(tmp_path, bands="r, g")
    assert data.info.bands == ["DES_R", "DES_G"]
    assert data.info.notes == ["1 of 3 files lack one of the bands DES_R, DES_G"]
    assert data.images[[1, 2]][:, :, 0, 0].tolist() == [[-2, 2], [-3, 3]]
    with pytest.raises(DataError, match=r"a\.fits: no band DES_R, which b\.fits has; it has DES_G"):
        data.images[[0]]
    with pytest.raises(DataError, match=r"no band z; there are DES_G, DES_R"):
        open_data(tmp_path, bands="z")


def test_numbers_of_bands_count_those_that_are_read_without_them(tmp_path):
    write_bands(tmp_path / "a.fits", U=np.full((5, 6), 5), G=np.full((5, 6), 1), R=np.full((5, 6), 2))
    write_bands(tmp_path / "b.fits", R=np.full((5, 6), 4), G=np.full((5, 6), 3))
    assert open_data(tmp_path).info.bands == ["G", "R"]
    data = open_data(tmp_path, bands="1")
    assert data.info.bands == ["R"]
    assert data.images[:][:, 0, 0, 0].tolist() == [2, 4]
    with pytest.raises(DataError, match="no band 2; there are G, R"):
        open_data(tmp_path, bands="2")


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        (["ELECTRONS/S", "electron / s"], "e-/s"),
        (["e-/s", "e s**-1"], "e-/s"),
        (["Counts", "ct"], "counts"),
        (["nJy", "nJy"], "nJy"),
        (["nJy", "counts"], None),
        (["nJy", None], None),
    ],
)
def test_units_are_those_of_the_headers_if_all_say_the_same(units, expected, tmp_path):
    for name, unit in zip("ab", units, strict=True):
        write_calibrated(tmp_path / f"{name}.fits", 1, 25.0, **({} if unit is None else {"BUNIT": unit}))
    data = open_data(tmp_path)
    assert data.info.unit == expected
    assert any(note.startswith("units of images differ: nJy (1), ") for note in data.info.notes) == (expected is None)


def test_files_whose_headers_were_not_read_at_first_are_read_by_the_names_of_their_bands(tmp_path, monkeypatch):
    """Two bands, in another order in the second and third file; headers of the first file alone are read at first."""
    monkeypatch.setattr("darklens.data.readers.fits_scan.COUNTED_FILES", 1)
    for number, order in enumerate(("AB", "BA", "BA")):
        values = {"A": number - 1.5, "B": 10.0 + number}
        hdus = [fits.ImageHDU(np.full((3, 4), values[name], np.float32), name=name) for name in order]
        fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / f"{number}.fits")
    images = FitsObjects([[tmp_path / f"{number}.fits"] for number in range(3)])
    assert images.plan.bands == ["A", "B"]
    np.testing.assert_array_equal(images[[2, 0, 1]][:, :, 1, 2], [[0.5, 12], [-1.5, 10], [-0.5, 11]])


def hdus(path, *planes, **primary):
    """A file of named images after an empty primary HDU, as space telescopes deliver them."""
    images = [fits.ImageHDU(np.asarray(plane, dtype=np.float32), name=name) for name, plane in planes]
    fits.HDUList([fits.PrimaryHDU(header=fits.Header(primary)), *images]).writeto(path)
    return path


def test_repeated_names_pair_in_their_order(tmp_path):
    flat = np.ones((4, 5))
    names = [("SCI", 1), ("ERR", 10), ("DQ", 0), ("SCI", 2), ("ERR", 20), ("DQ", 0), ("AREA", 7)]
    hdus(tmp_path / "a.fits", *((name, flat * value) for name, value in names))
    data = open_data(tmp_path / "a.fits")
    assert data.images[:][0, :, 0, 0].tolist() == [1, 2]
    assert data.noise[:][0, :, 0, 0].tolist() == [10, 20]


def test_cubes_and_their_noise_cubes(tmp_path):
    cube = np.arange(1, 4)[:, None, None] * np.ones((3, 4, 5))
    hdus(tmp_path / "a.fits", ("SCI", cube), ("ERR", 10 * cube))
    data = open_data(tmp_path / "a.fits")
    assert data.noise[:][0, :, 0, 0].tolist() == [10, 20, 30]
    # An image beside a cube takes no name of its planes.
    fits.HDUList([fits.PrimaryHDU(cube), fits.ImageHDU(99 * np.ones((4, 5)))]).writeto(tmp_path / "b.fits")
    assert open_data(tmp_path / "b.fits").images[:][0, :, 0, 0].tolist() == [1, 2, 3, 99]


def test_noise_maps_in_files_of_their_own_go_with_their_bands(tmp_path):
    flat = np.ones((4, 5))
    hdus(tmp_path / "o.fits", ("G", flat), ("R", 2 * flat))
    hdus(tmp_path / "o_noise_var.fits", ("R_VAR", 25 * flat), ("G_VAR", 9 * flat))
    assert open_data(tmp_path).noise[:][0, :, 0, 0].tolist() == [3, 5]
    (tmp_path / "o_noise_var.fits").unlink()
    fits.writeto(tmp_path / "o_rms.fits", np.stack([7 * flat, 8 * flat]))
    assert open_data(tmp_path).noise[:][0, :, 0, 0].tolist() == [7, 8]
    (tmp_path / "o_rms.fits").unlink()
    fits.writeto(tmp_path / "o_rms.fits", flat)  # one map for two bands
    assert open_data(tmp_path).noise is None


@pytest.mark.parametrize(
    ("word", "power"),
    [(word, 1) for word in ("rms", "err", "error", "errors", "sigma", "noise", "uncert")]
    + [("var", 2), ("variance", 2), ("ivar", -2), ("invvar", -2)],
)
def test_words_for_noise_are_known_in_names_of_hdus_and_of_files(tmp_path, word, power):
    flat = np.ones((4, 5))
    noise = 5.0**power * flat
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    hdus(tmp_path / "one" / "o.fits", ("G", flat), (f"G_{word.upper()}", noise))
    hdus(tmp_path / "two" / "o.fits", ("G", flat))
    fits.writeto(tmp_path / "two" / f"o_{word}.fits", noise)
    for folder in ("one", "two"):
        data = open_data(tmp_path / folder)
        assert data.info.bands == ["G"]
        np.testing.assert_allclose(data.noise[:], 5, rtol=1e-6)


@pytest.mark.parametrize("word", ["psf", "mask", "wht", "weight", "weights", "seg", "segmentation", "flag", "flags"])
def test_words_for_what_is_no_image_are_known_in_names_of_hdus_and_of_files(tmp_path, word):
    flat = np.ones((4, 5))
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    hdus(tmp_path / "one" / "o.fits", ("G", flat), (f"G_{word.upper()}", flat))
    hdus(tmp_path / "two" / "o.fits", ("G", flat))
    fits.writeto(tmp_path / "two" / f"o_{word}.fits", flat)
    for folder in ("one", "two"):
        assert open_data(tmp_path / folder).images.shape == (1, 1, 4, 5)


def test_a_psf_without_a_band_is_that_of_all_bands(tmp_path):
    hdus(tmp_path / "o.fits", ("G", np.ones((4, 5))), ("R", np.ones((4, 5))))
    kernel = np.arange(9.0).reshape(3, 3)
    fits.writeto(tmp_path / "o_psf.fits", kernel)
    psf = open_data(tmp_path).psf(0)
    assert list(psf) == ["G", "R"]
    for band in psf:
        np.testing.assert_allclose(psf[band], kernel / kernel.sum(), rtol=1e-6)


def test_a_file_read_alone_has_the_noise_map_and_psf_beside_it(tmp_path):
    for name in ("a", "b"):
        fits.writeto(tmp_path / f"{name}.fits", np.ones((4, 5)))
    fits.writeto(tmp_path / "psf_a.fits", np.eye(3))
    assert open_data(tmp_path / "b.fits").psf is None
    fits.writeto(tmp_path / "b_rms.fits", 7 * np.ones((4, 5)))
    one, other = open_data(tmp_path / "a.fits"), open_data(tmp_path / "b.fits")
    assert one.noise is None
    np.testing.assert_allclose(one.psf(0)["IMAGE"], np.eye(3) / 3, atol=1e-7)
    assert "1 noise maps and PSFs beside the images: psf_a.fits" in one.info.notes
    assert other.psf is None
    assert (other.noise[:] == 7).all()
    assert open_data(tmp_path / "psf_a.fits").psf is None


def test_files_without_a_common_band_are_refused_with_the_commands_that_read_them(tmp_path):
    hdus(tmp_path / "a.fits", ("G", np.ones((4, 5))))
    hdus(tmp_path / "b.fits", ("R", np.ones((8, 10))), ("I", np.ones((8, 10))))
    commands = rf"apart, such as by darklens look {tmp_path}/a\.fits and darklens look {tmp_path}/b\.fits"
    with pytest.raises(DataError, match=commands):
        open_data(tmp_path, layout="fits")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the samples are not beside this checkout")
def test_two_telescopes_of_one_field_are_read_alone_with_their_psfs():
    folder = SHARED / "hsc_hst_pair"
    with pytest.raises(DataError, match=r"darklens look .*hsc\.fits and darklens look .*hst\.fits"):
        open_data(folder)
    shapes = [
        {band: psf.shape for band, psf in open_data(folder / f"{name}.fits").psf(0).items()} for name in ("hsc", "hst")
    ]
    assert shapes == [dict.fromkeys(("IMAGE0", "IMAGE1", "IMAGE2"), (31, 31)), {"IMAGE": (179, 179)}]


def test_bands_of_another_size_show_the_same_field_by_their_wcs(tmp_path):
    images = []
    for name, pixels, scale in (("VIS", 40, 0.1), ("NIR_H", 14, 0.3), ("STAMP", 12, 0.1)):
        header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 5.0, "CRVAL2": 1.0})
        header.update({"CRPIX1": (pixels + 1) / 2, "CRPIX2": (pixels + 1) / 2})
        header.update({"CDELT1": -scale / 3600, "CDELT2": scale / 3600})
        images.append(fits.ImageHDU(np.full((pixels, pixels), scale**2, np.float32), header, name=name))
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(tmp_path / "a.fits")
    data = open_data(tmp_path)
    assert data.info.bands == ["VIS", "NIR_H"]
    np.testing.assert_allclose(data.images[:], 0.01, rtol=1e-5)  # of one brightness
    assert read_fits_cutout(tmp_path / "a.fits").bands == ["VIS"]


@pytest.mark.parametrize(
    "unit", ["MJy/sr", "MJy sr-1", "MJy/arcsec2", "MJy/arcsec^2", "MJy / arcsec**2", "mJy arcmin-2"]
)
def test_brightness_for_each_area_of_the_sky_stays_what_it_is(tmp_path, unit):
    write_calibrated(tmp_path / "a.fits", 1, scale=0.1, BUNIT=unit)
    write_calibrated(tmp_path / "b.fits", 1, scale=0.1, BUNIT=unit)
    write_calibrated(tmp_path / "c.fits", 5, scale=0.2, BUNIT=unit)
    np.testing.assert_allclose(open_data(tmp_path).images[[2]][0, 0, 2, 2], 5, rtol=1e-5)


def test_zero_points_that_stand_for_none(tmp_path):
    for name, value in (("a", 0.0), ("b", 25.0), ("c", -99.0), ("d", True)):
        write_calibrated(tmp_path / f"{name}.fits", 3, value)
    data = open_data(tmp_path)
    assert data.images[:][:, 0, 0, 0].tolist() == [3, 3, 3, 3]
    assert data.info.notes == ["zero point of IMAGE unknown in 3 of 4 files: left as they are"]
    hdus(tmp_path / "e.fits", ("SCI", np.ones((4, 5))), MAGZERO=24.5, BUNIT="counts")
    info = open_data(tmp_path / "e.fits").info
    assert (info.zero_points, info.unit) == ([24.5], "counts")


def test_bands_of_two_places_are_not_of_one_object(tmp_path):
    for band, ra in (("g", 10.0), ("r", 10.5)):
        write_calibrated(tmp_path / f"o_{band}.fits", 1, CRVAL1=ra, CRVAL2=3.0)
    with pytest.raises(DataError, match=r"o_r\.fits: band r shows another part of the sky than g in o_g\.fits"):
        open_data(tmp_path).images[:]


def test_psf_of_a_mirrored_band_is_mirrored(tmp_path):
    for band, east in (("g", -1), ("r", 1)):
        write_calibrated(tmp_path / f"o_{band}.fits", 1, CRVAL1=10.0, CRVAL2=3.0, CDELT1=east * 0.1 / 3600, CRPIX1=3.0)
        kernel = np.zeros((7, 7), np.float32)
        kernel[1, 2] = 2
        fits.writeto(tmp_path / f"o_{band}_psf.fits", kernel)
    data = open_data(tmp_path)
    psf = data.psf(0)
    assert np.unravel_index(psf["g"].argmax(), (7, 7)) == (1, 2)
    assert np.unravel_index(psf["r"].argmax(), (7, 7)) == (1, 4)
    assert psf["r"].sum() == pytest.approx(1)


@pytest.mark.parametrize("cards", [{"CTYPE1": "RA---XXX"}, {"CRVAL1": "ten"}, {"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"}])
def test_a_wcs_that_makes_no_sense_is_a_place_unknown(cards, tmp_path):
    for number in range(3):
        wrong = cards if number == 1 else {}
        write_calibrated(tmp_path / f"o{number}.fits", number, CRVAL1=10.0, CRVAL2=3.0 + number)
        with fits.open(tmp_path / f"o{number}.fits", mode="update") as file:
            file[0].header.update(wrong | {"FILTER": "gr"[number % 2]})
    header = fits.getheader(tmp_path / "o1.fits")
    fits.writeto(tmp_path / "alone.fits", np.ones((4, 5)), header)
    alone = open_data(tmp_path / "alone.fits")
    assert alone.images[:].shape == (1, 1, 4, 5)
    assert "ra" not in alone.catalog.columns or alone.catalog["ra"][0] is None or "LINEAR" in cards.values()
    with pytest.raises(DataError, match="no band is common"):
        open_data(tmp_path)


def test_cards_are_those_of_cfitsio(tmp_path):
    """Of files made here, by astropy and by fitsio, and of all real ones that are at hand."""
    header = fits.Header(
        {"FILTER": "it's g", "BUNIT": "", "MAGZERO": -1.5e3, "BSCALE": 2, "BLANK": -7, "EQUINOX": 2000.0}
    )
    header["CRVAL1"], header["CTYPE1"], header["OBJECT"] = (12.25, "with a / comment"), "RA---TAN", "a / b"
    fits.writeto(tmp_path / "a.fits", np.ones((3, 4), np.int16), header)
    packed = [fits.CompImageHDU(np.ones((16, 16), np.int16), header, name="X"), fits.ImageHDU(np.ones((2, 2)), header)]
    fits.HDUList([fits.PrimaryHDU(), *packed]).writeto(tmp_path / "b.fits")
    with fitsio.FITS(str(tmp_path / "c.fits"), "rw") as file:
        file.write(np.ones((8, 8), np.float32), header={"MAGZERO": 25, "CRVAL2": 1e-30}, compress="rice")
    compared = 0
    for path in [
        *sorted(tmp_path.glob("*.fits")),
        *sorted(EXAMPLES.rglob("*.fits")),
        *sorted(SHARED.rglob("*.fits"))[::7],
    ]:
        hdus = read_hdus(path)
        with fitsio.FITS(str(path)) as file:
            assert [hdu.name for hdu in hdus] == [other.get_extname() for other in file]
            for number, hdu in enumerate(hdus):
                assert hdu.is_image == (file[number].get_exttype() == "IMAGE_HDU")
                if hdu.is_image:
                    assert hdu.shape == tuple(file[number].get_info().get("dims", ()))
                expected = {card["name"]: card.get("value") for card in file[number].read_header_list()}
                expected = {name: value for name, value in expected.items() if KNOWN_CARDS.fullmatch(name)}
                found = hdu.cards
                assert found.keys() == expected.keys(), path
                for name, value in expected.items():
                    same = found[name] == (value.rstrip() if isinstance(value, str) else value) and type(
                        found[name]
                    ) is type(value)
                    assert same or not value, (path, number, name)
                compared += len(found)
    assert compared > 40
