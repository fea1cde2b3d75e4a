"""Recipes made for one band, on images of several; images that are not square."""

import numpy as np
import pytest
import torch
from conftest import TINY

import darklens
from darklens.data.preprocessing import Preprocessing
from darklens.errors import DataError, RecipeError
from darklens.simulation import Simulator
from darklens.training.build import build_module
from darklens.training.job import Job, open_job_data
from darklens.training.recipe import load_recipe
from darklens.training.train import train

SHORT = TINY | {"trainer.epochs": 1, "trainer.batch_size": 16}


@pytest.fixture
def colour(tmp_path):
    """Forty images of three bands, (3, 24, 30), in two classes."""
    rng = np.random.default_rng(0)
    for name in ("cdm", "no_sub"):
        (tmp_path / "colour" / name).mkdir(parents=True)
        for i in range(20):
            np.save(tmp_path / "colour" / name / f"{i}.npy", rng.normal(9, 1, (3, 24, 30)).astype(np.float32))
    return tmp_path / "colour"


def test_three_bands_are_not_repeated(colour, tmp_path):
    job = Job(load_recipe("substructure/demo", SHORT | {"preprocessing.repeat_channels": 3}), str(colour))
    source = open_job_data(job)
    module = build_module(job.recipe, source)
    prepared = module.preprocessing(source.sample)
    expected = (source.sample.sqrt() - module.preprocessing.center) / module.preprocessing.scale
    torch.testing.assert_close(prepared, expected)
    assert any("3 bands, which the network sees as they are" in note for note in source.notes)
    with pytest.raises(DataError, match=r"takes 3 channels \(repeat_channels\).*these images have 2"):
        module.preprocessing.output_shape((2, 24, 24))


def test_images_that_are_not_square_are_cropped_and_said(colour, tmp_path, capsys):
    run = train(Job(load_recipe("substructure/demo", SHORT), str(colour)), tmp_path / "run")
    assert "note: images of 24×30 pixels are cropped to the central 24×24" in capsys.readouterr().out.replace("\n", " ")
    model = darklens.load(run)
    assert (model.config.channels, model.config.pixels) == (3, 24)
    source = open_job_data(Job(load_recipe("substructure/demo", SHORT), str(colour)))
    row = source.train[[0]]["image"][0]
    whole = np.load(next(p for p in colour.rglob("*.npy") if np.allclose(np.load(p)[:, :, 3:27], row)))
    np.testing.assert_array_equal(row, whole[:, :, 3:27])


def test_lens_is_fitted_to_the_band_that_is_asked_for():
    """Two bands of one lens in different noise: the fit to one is that of this band alone, the default that of the sum."""
    simulator = Simulator("fair-hst", seed=4)
    rows = simulator.catalog(32)
    clean = simulator.render(rows, noise=False)
    noise = torch.randn(32, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    images = clean * torch.tensor([1.0, 0.3])[:, None, None] + noise * torch.tensor([0.01, 0.05])[:, None, None]
    alone = Preprocessing(lens_model=True, stretch="none").fit(images[:, [0]])
    for band, single in ((0, images[:, [0]]), (1, images[:, [1]]), (None, images.sum(1, keepdim=True))):
        both = Preprocessing(lens_model=True, stretch="none", lens_band=band, lens_prior=alone.lens_prior)
        one = Preprocessing(lens_model=True, stretch="none", lens_prior=alone.lens_prior)
        torch.testing.assert_close(both.lenses(images), one.lenses(single))
        prepared = both(images)
        assert prepared.shape[1] == 4 == both.output_shape((2, 64, 64))[0]
        torch.testing.assert_close(prepared[:, :2], images)
        torch.testing.assert_close(prepared[:, 2:], one(single)[:, 1:])
    assert not torch.equal(
        Preprocessing(lens_model=True, lens_band=0, lens_prior=alone.lens_prior).lenses(images),
        Preprocessing(lens_model=True, lens_band=1, lens_prior=alone.lens_prior).lenses(images),
    )


def test_lens_band_by_name_and_what_is_guessed(colour, tmp_path):
    recipe = load_recipe("substructure/demo", SHORT | {"preprocessing.lens_model": True})
    job = Job(recipe, str(colour))
    source = open_job_data(job)
    assert any("the smooth lens is fitted to the sum of the 3 bands" in note for note in source.notes)
    assert build_module(recipe, source).preprocessing.lens_band is None
    source.bands = ["g", "r", "i"]
    chosen = load_recipe(
        "substructure/demo", SHORT | {"preprocessing.lens_model": True, "preprocessing.lens_band": "i"}
    )
    assert build_module(chosen, source).preprocessing.lens_band == 2
    source.bands, source.shape = ["g", "r"], (2, 24, 24)
    with pytest.raises(RecipeError, match="lens_band i: the images have bands g, r; or say sum"):
        build_module(chosen, source)
