"""Looking at a path: what is said of it, and what is drawn."""

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from darklens.data.options import DataOptions
from darklens.errors import DataError
from darklens.workflows import look as looking
from darklens.workflows.look import look

RNG = np.random.default_rng(8)


@pytest.fixture
def drawn(monkeypatch):
    """Images and captions that are handed to the mosaic."""
    found = []
    monkeypatch.setattr(looking, "mosaic", lambda images, captions, **more: found.extend((images, captions)))
    monkeypatch.setattr(looking, "save", lambda figure, out: None)
    return found


def save(path, shape):
    pixels = RNG.integers(0, 255, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def test_colour_pictures_are_drawn_in_their_colours(tmp_path, drawn):
    pixels = [save(tmp_path / f"{name}.png", (6, 8, 3)) for name in "ab"]
    findings = look(tmp_path, out=tmp_path / "look.png")
    assert "bands: R, G, B" in findings.facts
    np.testing.assert_allclose(drawn[0], np.stack(pixels) / 255, atol=1e-6)
    assert drawn[1] == ["a", "b"]


def test_grey_pictures_are_drawn_as_before(tmp_path, drawn):
    pixels = save(tmp_path / "a.png", (6, 8))
    look(tmp_path, out=tmp_path / "look.png")
    np.testing.assert_array_equal(drawn[0], pixels[None])


@pytest.mark.parametrize("damaged", ["a", "b"])
def test_damaged_file_is_named_and_the_others_are_looked_at(tmp_path, drawn, damaged):
    pixels = {name: save(tmp_path / f"{name}.png", (6, 8)) for name in "abc"}
    path = tmp_path / f"{damaged}.png"
    path.write_bytes(path.read_bytes()[:40])
    findings = look(tmp_path, out=tmp_path / "look.png")
    assert [f"{damaged}.png: not a readable PNG" in warning for warning in findings.warnings] == [True]
    rest = [name for name in "abc" if name != damaged]
    assert drawn[1] == rest
    np.testing.assert_array_equal(drawn[0], np.stack([pixels[name] for name in rest]))


def test_folder_of_damaged_files_alone_is_refused(tmp_path):
    save(tmp_path / "a.png", (6, 8))
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    with pytest.raises(DataError, match=r"a\.png: not a readable PNG"):
        look(tmp_path)


def test_folder_of_grey_and_colour_is_refused_not_read_in_part(tmp_path):
    save(tmp_path / "a.png", (6, 8, 3))
    save(tmp_path / "b.png", (6, 8))
    with pytest.raises(DataError, match=r"differ in their bands: .*such as a\.png.*such as b\.png"):
        look(tmp_path)


@pytest.mark.parametrize(("bands", "said"), [(["NIR_H", "VIS"], "NIR_H, VIS (drawn: VIS)"), (["G", "R"], "G, R (drawn: G)"),
                                             (["G", "R", "I"], "G, R, I"), (["R"], "R")])  # fmt: skip
def test_band_that_is_drawn_of_several_is_named(tmp_path, drawn, bands, said):
    images = {name: RNG.normal(size=(len(bands), 8, 8)).astype(np.float32) for name in "ab"}
    for name, image in images.items():
        hdus = [fits.PrimaryHDU(), *(fits.ImageHDU(plane, name=band) for band, plane in zip(bands, image, strict=True))]
        fits.HDUList(hdus).writeto(tmp_path / f"{name}.fits")
    findings = look(tmp_path, out=tmp_path / "look.png")
    assert f"bands: {said}" in findings.facts
    if "drawn" in said:
        place = bands.index(said.rpartition(" ")[2].rstrip(")"))
        np.testing.assert_allclose(drawn[0], np.stack([image[place] for image in images.values()]))


def test_bands_of_a_single_image_are_all_drawn(tmp_path, drawn):
    image = RNG.normal(size=(2, 8, 8)).astype(np.float32)
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(image[0], name="G"), fits.ImageHDU(image[1], name="R")]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    assert "bands: G, R" in look(tmp_path, out=tmp_path / "look.png").facts
    np.testing.assert_allclose(drawn[0], image)


def survey(folder, bands, scale=None, side=64, count=3):
    """Cutouts with an HDU for each band, and a pixel scale (arcsec) in their headers."""
    folder.mkdir()
    for number in range(count):
        hdus = [fits.ImageHDU(RNG.normal(size=(side, side)).astype(np.float32), name=band) for band in bands]
        for hdu in hdus if scale else ():
            hdu.header.update(CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CDELT1=-scale / 3600, CDELT2=scale / 3600)
        fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(folder / f"o{number}.fits")
    return folder


@pytest.mark.parametrize(
    ("bands", "scale", "side", "model"),
    [
        ("GRI", 0.168, 64, "finding-hsc"),
        (["HSC-I", "HSC-G", "HSC-R", "HSC-Z"], 0.17, 90, "finding-hsc"),
        ("gri", 0.26, 50, "finding-ground"),
        ("gri", 0.2, 64, "finding-ground"),
        (["VIS", "NIR_Y", "NIR_J", "NIR_H"], 0.1, 96, "finding-euclid"),
        (["VIS", "NIR_Y", "NIR_J", "NIR_H"], None, 96, "finding-euclid"),
        ("gr", 0.168, 64, None),
        (["VIS"], 0.1, 96, None),
        (["BAND1", "BAND2", "BAND3"], 0.168, 64, None),
    ],
)
def test_search_is_suggested_where_a_shipped_finder_knows_the_bands(tmp_path, monkeypatch, bands, scale, side, model):
    monkeypatch.chdir(tmp_path)
    folder = survey(tmp_path / "cutouts", bands, scale, side)
    findings = look(folder)
    expected = f"darklens find {folder} --model {model} --out candidates.csv --mosaic candidates.html"
    assert findings.search_command == (expected if model else None)
    assert findings.next_command.startswith("darklens predict substructure-")


def test_suggested_search_repeats_what_was_given_with_bands_in_the_order_of_the_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = survey(tmp_path / "cutouts", ["HSC-G", "DES-G", "HSC-R", "HSC-I"])
    (tmp_path / "candidates.csv").touch()
    options = DataOptions(bands="HSC-I,HSC-R,HSC-G", pixel_scale=0.168, mask=True)
    given = "--bands HSC-G,HSC-R,HSC-I --pixel_scale 0.168 --mask true"
    findings = look(folder, options)
    assert findings.search_command == (
        f"darklens find {folder} --model finding-hsc --out candidates-2.csv --mosaic candidates.html {given}"
    )
    assert "--bands" not in findings.next_command


def test_search_is_not_suggested_for_images_with_classes_other_than_lenses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = survey(tmp_path / "cutouts", "gri", 0.168, 16, 24)
    for labels, suggested in ((("cdm", "axion"), False), (("lens", "spiral"), True), (("lens", "lens"), True)):
        rows = "".join(f"o{number},{labels[number % 2]}\n" for number in range(24))
        (tmp_path / "cutouts" / "table.csv").write_text(f"id,label\n{rows}")
        assert (look(folder).search_command is not None) == suggested
