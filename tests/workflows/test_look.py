"""Looking at a path: what is said of it, and what is drawn."""

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

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
