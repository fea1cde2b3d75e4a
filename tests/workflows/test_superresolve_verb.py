"""Cutouts are made finer: coordinates, units and zero points in FITS, arrays, and what is refused."""

import csv

import numpy as np
import polars as pl
import pytest
import torch
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS, Sip

from darklens.data.augmentation import transform, turned_back
from darklens.data.finer_wcs import finer_wcs
from darklens.data.options import DataOptions
from darklens.errors import DarklensError, DataError, ModelError
from darklens.inference.model import ModelConfig, TrainedModel, load_model, save_model
from darklens.models.registry import build_network
from darklens.physics.degrading import bicubic
from darklens.tasks.registry import task_content
from darklens.tasks.superresolve import Superresolve
from darklens.workflows.superresolve import superresolve_paths

SIDE = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An untrained EDSR, which interpolates, for images of 24 pixels of 0.2 arcsec."""
    task = Superresolve(factor=2, center=0.5, scale=1.25, flux_ratio=0.25)
    network = {"name": "edsr", "width": 8, "blocks": 1}
    config = ModelConfig(
        task_content(task, "superresolve"), network, {"stretch": "none", "center": 2.0, "scale": 5.0}, 1, SIDE,
        outputs=["image"], pixel_scale=0.2, recipe={"name": "superresolution/edsr"}, zero_points=[25.0], bands=["r"],
    )  # fmt: skip
    out = tmp_path_factory.mktemp("model") / "model"
    save_model(out, TrainedModel(config, build_network("edsr", 1, 1, {"width": 8, "blocks": 1}), task), "card")
    return out


def header(cd=True, scale=0.2, side=SIDE):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150.1, 2.2], [side / 2 + 0.5, 7.0]
    turn = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]) @ np.diag([-scale, scale]) / 3600
    if cd:
        wcs.wcs.cd = turn
    else:
        wcs.wcs.cdelt = [-scale / 3600, scale / 3600]
    found = wcs.to_header()
    if cd:  # astropy writes PC and CDELT, of which CD is the product
        for i in (1, 2):
            for j in (1, 2):
                found[f"CD{i}_{j}"] = float(turn[i - 1, j - 1])
                found.remove(f"PC{i}_{j}", ignore_missing=True)
            found.remove(f"CDELT{i}", ignore_missing=True)
    found["FILTER"], found["MAGZERO"], found["BUNIT"] = "r", 27.5, "nJy"
    return found


def source(x, y, side=SIDE, width=2.0):
    rows, columns = np.mgrid[:side, :side]
    return 40 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * width**2)).astype(np.float32)


def centroid(image):
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    return (image * columns).sum() / image.sum(), (image * rows).sum() / image.sum()


def cutouts(folder, **options):
    folder.mkdir()
    for number, place in enumerate([(11.3, 12.1), (9.0, 13.7), (12.5, 10.4)]):
        made = source(*place, side=options.get("side", SIDE))
        fits.PrimaryHDU(made, header(**options)).writeto(folder / f"lens {number}.fits")
    return folder


@pytest.mark.parametrize("cd", [True, False])
def test_sources_stay_where_they_are_on_the_sky_and_keep_their_flux(model, tmp_path, cd):
    folder = cutouts(tmp_path / "in", cd=cd)
    done = superresolve_paths(model, [folder], tmp_path / "out")
    assert done.images == 3
    for number in range(3):
        with fits.open(folder / f"lens {number}.fits") as file:
            before, given = file[0].data, WCS(file[0].header)
        with fits.open(tmp_path / "out" / f"lens_{number}.fits") as file:
            after, found, head = file[0].data, WCS(file[0].header), file[0].header
        assert after.shape == (2 * SIDE, 2 * SIDE)
        places = [wcs.pixel_to_world(*centroid(image)) for wcs, image in ((given, before), (found, after))]
        assert places[0].separation(places[1]).arcsec < 0.004, "a fiftieth of a pixel"
        corner = [wcs.pixel_to_world(-0.5, -0.5) for wcs in (given, found)]
        assert corner[0].separation(corner[1]).arcsec < 1e-6
        assert after.sum() == pytest.approx(before.sum(), rel=1e-3)
        assert (head["MAGZERO"], head["BUNIT"], head["FILTER"]) == (27.5, "nJy", "r")
        assert head["PIXSCALE"] == pytest.approx(0.1)
        expected = bicubic(torch.from_numpy(before.astype(np.float32))[None, None], 2)[0, 0].numpy() / 4
        np.testing.assert_allclose(after, expected, atol=1e-4), "brought to the model's zero point, and back"
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert page.count("data:image/png;base64,") == 6
    assert "http" not in page
    rows = list(csv.DictReader((tmp_path / "out" / "images.csv").open()))
    assert [row["file"] for row in rows] == ["lens_0.fits", "lens_1.fits", "lens_2.fits"]


def test_larger_cutouts_are_cropped_with_their_coordinates(model, tmp_path):
    folder = cutouts(tmp_path / "in", side=31)
    superresolve_paths(model, [folder], tmp_path / "out")
    with fits.open(folder / "lens 0.fits") as file, fits.open(tmp_path / "out" / "lens_0.fits") as other:
        peaks = [np.unravel_index(each[0].data.argmax(), each[0].shape)[::-1] for each in (file, other)]
        places = [WCS(each[0].header).pixel_to_world(*peak) for each, peak in zip((file, other), peaks, strict=True)]
    assert places[0].separation(places[1]).arcsec < 0.15


def test_distortion_goes_along():
    wcs = WCS(fits.Header(dict(header())))
    a, b = np.zeros((3, 3)), np.zeros((3, 3))
    a[2, 0], b[1, 1] = 3e-4, -2e-4
    wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    finer = finer_wcs(wcs, 3, (2, 5))
    for x, y in [(6.0, 4.0), (20.0, 17.0)]:
        there = finer.all_pix2world([[(x - 5 + 0.5) * 3 - 0.5, (y - 2 + 0.5) * 3 - 0.5]], 0)[0]
        here = wcs.all_pix2world([[x, y]], 0)[0]
        assert SkyCoord(*here, unit="deg").separation(SkyCoord(*there, unit="deg")).arcsec < 1e-6


def test_arrays_become_arrays_and_nothing_is_overwritten(model, tmp_path):
    images = np.stack([source(10, 11), source(12.2, 9)])[:, None]
    np.save(tmp_path / "a.npy", images)
    superresolve_paths(model, [tmp_path / "a.npy"], tmp_path / "out")
    found = np.load(tmp_path / "out" / "a.npy")
    np.testing.assert_allclose(found, bicubic(torch.from_numpy(images), 2).numpy() / 4, atol=1e-4)
    with pytest.raises(DarklensError, match="exists"):
        superresolve_paths(model, [tmp_path / "a.npy"], tmp_path / "out")
    assert not (tmp_path / "out.partial").exists()


def test_images_that_cannot_be_used_are_left_out_without_a_gap(model, tmp_path):
    images = np.stack([source(10, 11), source(12.2, 9)])[:, None]
    images[0, 0, 3, 3] = np.nan
    np.save(tmp_path / "a.npy", images)
    with pytest.raises(DataError, match="nan"):
        superresolve_paths(model, [tmp_path / "a.npy"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    done = superresolve_paths(model, [tmp_path / "a.npy"], tmp_path / "out", skip=True)
    assert (done.images, list(done.skipped)) == (1, ["a:0"])
    assert np.load(tmp_path / "out" / "a.npy").shape == (1, 1, 48, 48)


def test_other_pixels_than_the_models_are_refused(model, tmp_path):
    with pytest.raises(ModelError, match=r"the pixel scale is 0\.5 times that of the model's training images"):
        superresolve_paths(model, [cutouts(tmp_path / "in", scale=0.1)], tmp_path / "out")
    np.save(tmp_path / "small.npy", np.ones((2, 1, 16, 16), np.float32))
    with pytest.raises(ModelError, match="smaller than the model's 24×24"):
        superresolve_paths(model, [tmp_path / "small.npy"], tmp_path / "out", options=DataOptions(pixel_scale=0.2))


def test_model_of_another_task_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((1, 1, 64, 64), np.float32))
    with pytest.raises(ModelError, match="does not make images finer"):
        superresolve_paths("substructure-model-3", [tmp_path / "a.npy"], tmp_path / "out")


def test_symmetries_of_predicted_images_are_turned_back(model):
    image = torch.randn(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    for number in range(8):
        assert torch.equal(turned_back(transform(image, number), number), image)
    loaded = load_model(model)
    once, eight = (loaded.predict(image, symmetries=each).array for each in (False, True))
    np.testing.assert_allclose(once, eight, atol=1e-5)
    assert pl.DataFrame({"flux": once.sum((1, 2, 3))}).height == 1
