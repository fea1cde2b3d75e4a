"""A pixel scale that the user says in place of that of the images: a note names both, wherever images are used."""

import numpy as np
import pytest
from astropy.io import fits

from darklens.data.importing import import_data
from darklens.data.layouts import open_data
from darklens.data.options import DataOptions
from darklens.workflows.explain import explain_images
from darklens.workflows.look import look
from darklens.workflows.predict import predict_paths

OTHER = "pixel scale 0.2″ as --pixel_scale says; the images themselves say 0.168″"


@pytest.fixture
def cutouts(tmp_path):
    """Two FITS files of 0.168″ a pixel."""
    folder = tmp_path / "cutouts"
    folder.mkdir()
    header = fits.Header()
    header.update(CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CDELT1=-0.168 / 3600, CDELT2=0.168 / 3600)
    for number in range(2):
        fits.writeto(folder / f"{number}.fits", np.random.default_rng(number).random((32, 32), np.float32), header)
    return folder


def notes(of, said):
    return sum(said in note for note in of)


def test_only_another_value_is_noted_and_counts(cutouts, tmp_path):
    assert notes(open_data(cutouts, pixel_scale=0.168).info.notes, "--pixel_scale") == 0
    assert notes(open_data(cutouts, pixel_scale=0.1683).info.notes, "--pixel_scale") == 0, "rounded"
    opened = open_data(cutouts, pixel_scale=0.2)
    assert opened.info.notes.count(OTHER) == 1
    assert opened.info.pixel_scale == 0.2
    assert opened.subset(np.array([1])).overruled == [OTHER]
    np.save(tmp_path / "plain.npy", np.zeros((2, 8, 8)))
    assert notes(open_data(tmp_path / "plain.npy", pixel_scale=0.2).info.notes, "--pixel_scale") == 0, "unknown before"
    assert look(cutouts, DataOptions(pixel_scale=0.2)).facts.count(OTHER) == 1


@pytest.mark.parametrize("imported", [False, True])
def test_predictions_and_explanations_say_it_once(run, cutouts, tmp_path, imported):
    path = cutouts
    if imported:
        path = tmp_path / "dataset"
        import_data(open_data(cutouts), path)
    options = DataOptions(pixel_scale=0.2)
    written = predict_paths(run, [path], tmp_path / "out.csv", options=options)
    assert notes(written.notes, OTHER) == 1
    _, said = explain_images(run, [path], tmp_path / "out.png", options)
    assert notes(said, OTHER) == 1
    assert notes(predict_paths(run, [path], tmp_path / "own.csv").notes, "--pixel_scale says;") == 0
