"""Links to files that are not there are named, as damaged files are, and never left out without a word."""

import shutil

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from darklens.data.layouts import open_data
from darklens.errors import DataError
from darklens.workflows.look import look
from darklens.workflows.options import PredictionOptions
from darklens.workflows.predict import predict_paths


def write(path, seed):
    pixels = np.random.default_rng(seed).integers(1, 255, (24, 24)).astype(np.uint8)
    if path.suffix == ".png":
        Image.fromarray(pixels).save(path)
    elif path.suffix == ".npy":
        np.save(path, pixels.astype(np.float32))
    else:
        fits.writeto(path, pixels.astype(np.float32))


@pytest.fixture
def folder(tmp_path):
    """Three files and a link to a file that is not there, of a suffix."""

    def make(suffix, place="b"):
        made = tmp_path / "cutouts"
        made.mkdir()
        for seed, name in enumerate("acd"):
            write(made / f"{name}{suffix}", seed)
        (made / f"{place}{suffix}").symlink_to(tmp_path / f"moved{suffix}")
        return made

    return make


@pytest.mark.parametrize("suffix", [".png", ".fits"])
@pytest.mark.parametrize("place", ["b", "0"])
def test_it_is_looked_at_and_skipped_by_name(run, folder, tmp_path, suffix, place):
    cutouts = folder(suffix, place)
    (warning,) = (said for said in look(cutouts).warnings if "cannot be read" in said)
    assert f"{place}{suffix}: cannot be read: a link to {tmp_path / 'moved'}{suffix}: No such file" in warning
    with pytest.raises(DataError, match=rf"{place}\{suffix}: cannot be read: a link to "):
        predict_paths(run, [cutouts], tmp_path / "out.csv")
    written = predict_paths(run, [cutouts], tmp_path / "out.csv", choices=PredictionOptions(skip=True))
    assert (written.images, list(written.skipped)) == (3, [place])


def test_arrays_of_which_all_headers_are_read_are_refused(folder):
    with pytest.raises(DataError, match=r"b\.npy: cannot be read: .*No such file"):
        open_data(folder(".npy"))


def test_a_link_to_a_file_and_a_broken_one_in_class_folders(tmp_path):
    for label in ("cdm", "axion"):
        (tmp_path / "mine" / label).mkdir(parents=True)
        for seed in range(2):
            write(tmp_path / "mine" / label / f"{label}{seed}.png", seed)
    shutil.move(tmp_path / "mine/cdm/cdm0.png", tmp_path / "elsewhere.png")
    (tmp_path / "mine/cdm/cdm0.png").symlink_to(tmp_path / "elsewhere.png")
    assert len(open_data(tmp_path / "mine")) == 4
    assert not look(tmp_path / "mine").warnings
    (tmp_path / "elsewhere.png").unlink()
    assert any("cdm0.png: cannot be read" in said for said in look(tmp_path / "mine").warnings)
