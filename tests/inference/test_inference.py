import json
import shutil

import numpy as np
import polars as pl
import pytest
import torch
from astropy.io import fits
from conftest import EXAMPLES
from numpy.testing import assert_allclose

import darklens
from darklens.data.dataset import DatasetInfo, read_dataset
from darklens.data.layouts import open_data
from darklens.data.options import DataOptions
from darklens.errors import DataError, ModelError
from darklens.inference.adapt import adaptation
from darklens.inference.model import ModelConfig, load_model
from darklens.inference.outliers import outlier_note
from darklens.inference.predictions import predict_cutouts
from darklens.simulation import Simulator
from darklens.simulation.library import resolve_preset
from darklens.workflows.predict import predict_paths


def config(**changes):
    base = {
        "task": "classify", "network": {}, "preprocessing": {}, "channels": 1, "pixels": 64, "pixel_scale": 0.08,
        "unit": "e-/s", "data": {"typical_peak": 2.0},
    }  # fmt: skip
    return ModelConfig(**base | changes)


def test_model_folder_is_portable(run, test_set, tmp_path):
    shutil.copytree(run / "model", tmp_path / "elsewhere")
    assert sorted(p.name for p in (tmp_path / "elsewhere").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "outliers.safetensors",
    ]
    images = read_dataset(test_set).images[:5]
    here, there = (darklens.load(p).predict(images).probabilities for p in (run, tmp_path / "elsewhere"))
    assert_allclose(here, there)
    assert_allclose(here.sum(1), 1, rtol=1e-6)
    assert darklens.load(run).classes == ["no_sub", "cdm", "axion"]


def test_images_of_any_shape_and_type(run, test_set):
    model, images = load_model(run), read_dataset(test_set).images[:3]
    expected = model.predict(images).probabilities
    assert_allclose(model.predict(images[:, 0]).probabilities, expected)
    assert_allclose(model.predict(torch.from_numpy(np.array(images))).probabilities, expected)
    assert_allclose(model.predict(images, batch_size=1).probabilities, expected, rtol=1e-4)
    assert model.predict(images[0, 0]).probabilities.shape == (1, 3)
    assert model.predict((images * 50).astype(np.uint16)).probabilities.shape == (3, 3)
    assert model.predict(images[:0]).probabilities.shape == (0, 3)


def test_images_that_do_not_fit_are_refused(run):
    model = load_model(run)
    with pytest.raises(ModelError, match="do not fit a model of 1 channels"):
        model.predict(np.zeros((2, 3, 64, 64)))
    with pytest.raises(ModelError, match="images of 32×32 pixels; the model was trained on 64×64"):
        model.predict(np.zeros((2, 1, 32, 32)))
    with pytest.raises(ModelError, match="1 images have pixels that are nan or infinite; the first is number 1"):
        model.predict(np.stack([np.zeros((64, 64)), np.full((64, 64), np.nan)]))


def test_damaged_or_newer_models_are_refused(run, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(run / "model", folder)
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"format": 99}))
    with pytest.raises(ModelError, match="newer darklens"):
        load_model(folder)
    (folder / "config.json").write_text(json.dumps(content))
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:500])
    with pytest.raises(ModelError, match="its weights are damaged"):
        load_model(folder)
    unfinished = tmp_path / "unfinished"
    (unfinished / "checkpoints").mkdir(parents=True)
    with pytest.raises(
        ModelError, match="training has not finished; to go on: its training command again, with --resume"
    ):
        load_model(unfinished)
    (unfinished / "run.json").write_text(json.dumps({"command": "darklens train a --data b --out c"}))
    with pytest.raises(ModelError, match="to go on: darklens train a --data b --out c --resume"):
        load_model(unfinished)
    with pytest.raises(ModelError, match="no trained model here"):
        load_model(unfinished / "checkpoints")


def test_resampling_keeps_flux_and_scale():
    """A cutout at half the pixel scale, binned by the adaptation, is the image at the model's."""
    content = resolve_preset("model-3-noisy")
    half = {"pixels": 128, "instrument": content["instrument"] | {"pixel_scale": 0.04}}
    fine, coarse = Simulator(content | half), Simulator(content)
    rows = coarse.catalog(2)
    adapt = adaptation(config(), DatasetInfo("x", pixel_scale=0.04, unit="e-/s"), (1, 128, 128))
    assert "resampled from 0.04″ to the model's 0.08″ per pixel" in adapt.notes
    resampled = adapt(fine.render(rows, noise=False).numpy())
    expected = coarse.render(rows, noise=False)
    assert_allclose(resampled.sum((1, 2, 3)), expected.sum((1, 2, 3)), rtol=5e-3)
    assert (resampled - expected).abs().max() < 0.1 * expected.max()


@pytest.mark.parametrize(
    ("side", "scale", "said"),
    [
        (100, 0.08, "cropped to the central 64 of 100"),
        (50, 0.08, "padded from 50 to the model's 64"),
        (64, 0.1, "resampled"),
    ],
)
def test_other_sizes_are_cropped_or_padded_and_said(side, scale, said):
    adapt = adaptation(config(), DatasetInfo("x", pixel_scale=scale, unit="e-/s"), (1, side, side))
    images = np.full((2, 1, side, side), 3.0)
    out = adapt(images)
    assert out.shape == (2, 1, 64, 64)
    assert any(said in note for note in adapt.notes)
    assert_allclose(out, 3.0 * (1 if scale == 0.08 else 0.64), rtol=1e-3)


def test_bands_are_chosen_by_name():
    info = DatasetInfo("x", bands=["VIS", "NIR_Y", "NIR_J"], pixel_scale=0.08, unit="e-/s")
    assert adaptation(config(), info, (3, 64, 64)).bands == [0]
    assert adaptation(config(), info, (3, 64, 64), band="NIR_J").bands == [2]
    assert adaptation(config(bands=["NIR_J", "VIS"], channels=2), info, (3, 64, 64)).bands == [2, 0]
    with pytest.raises(ModelError, match="no band H in these cutouts; there are VIS"):
        adaptation(config(), info, (3, 64, 64), band="H")
    colour = config(bands=["g", "r", "i"], channels=3)
    for names, expected in (
        (["i", "r", "g"], [2, 1, 0]),
        (["DES_G", "DES_I", "DES_R"], [0, 2, 1]),
        (["g", "r", "i"], [0, 1, 2]),
    ):
        found = adaptation(colour, DatasetInfo("x", bands=names, pixel_scale=0.08, unit="e-/s"), (3, 64, 64))
        assert found.bands == expected
        assert any("band" in note for note in found.notes) == (names != ["g", "r", "i"])
    near = DatasetInfo("x", bands=["z", "Y", "H"], pixel_scale=0.08, unit="e-/s")
    with pytest.raises(
        ModelError, match="the model knows bands g, r, i, these are z, Y, H; --bands says which is which"
    ):
        adaptation(colour, near, (3, 64, 64))
    assert adaptation(colour, near, (3, 64, 64), band="Y,z,H").bands == [1, 0, 2]
    unnamed = adaptation(colour, DatasetInfo("x", pixel_scale=0.08, unit="e-/s"), (3, 64, 64))
    assert unnamed.bands == [0, 1, 2]
    assert "bands taken in their order, as only one side has names for them: g, r, i" in unnamed.notes
    other = adaptation(config(bands=["VIS"]), DatasetInfo("x", bands=["F814W"], pixel_scale=0.08), (1, 64, 64))
    assert other.bands == [0]
    assert "band F814W, which the model does not know: its own is VIS" in other.notes
    with pytest.raises(ModelError, match="needs 2 bands, these cutouts have 3"):
        adaptation(config(channels=2), info, (3, 64, 64))


def test_paths_of_all_kinds_make_one_table(run, test_set, tmp_path):
    np.save(tmp_path / "stack.npy", np.asarray(read_dataset(test_set).images[:4]))
    paths = [tmp_path / "stack.npy", test_set, EXAMPLES / "deeplense", EXAMPLES / "euclid"]
    written = predict_paths(run, paths, tmp_path / "out.parquet", options=DataOptions(mask=True))
    table = pl.read_parquet(tmp_path / "out.parquet")
    assert len(table) == written.images == 4 + 96 + 3 + 1
    predicted = ["id", "path", "predicted", "p_no_sub", "p_cdm", "p_axion", "set", "outlier_score", "outlier"]
    assert table.columns[:9] == predicted
    assert table["theta_E"].drop_nulls().len() == 96, "the truths of the simulated set, null for the others"
    assert table["path"][-1].endswith("102018665_VIS.fits")
    assert any("resampled from 0.1″ to the model's 0.08″" in note for note in written.notes)
    strange = table["outlier"].sum()
    assert strange
    assert [note for note in written.notes if "are unlike" in note] == [outlier_note(table["outlier_score"].to_numpy())]
    assert f"{strange} of 104 images are unlike" in written.notes[-1]
    assert_allclose(table.select("p_no_sub", "p_cdm", "p_axion").sum_horizontal(), 1, rtol=1e-6)
    predict_paths(run, [test_set], tmp_path / "out.csv")
    assert len(pl.read_csv(tmp_path / "out.csv")) == 96
    finer = predict_paths(run, [tmp_path / "stack.npy"], tmp_path / "finer.csv", options=DataOptions(pixel_scale=0.04))
    assert any("resampled from 0.04″" in note for note in finer.notes)


def test_masses_are_predicted_as_values(mass_run, test_set, tmp_path):
    predict_paths(mass_run, [test_set], tmp_path / "out.csv")
    table = pl.read_csv(tmp_path / "out.csv")
    assert table.columns[:6] == ["id", "path", "log10_axion_mass", "outlier_score", "outlier", "label"]
    truth = read_dataset(test_set).catalog["log10_axion_mass"].to_list()
    assert table["catalog_log10_axion_mass"].to_list() == truth, "a truth never takes the prediction's place"


def test_bad_cutouts_stop_or_are_skipped_and_listed(run, tmp_path):
    for i in range(5):
        fits.writeto(tmp_path / f"obj{i}.fits", np.random.default_rng(i).random((64, 64)).astype(np.float32))
    fits.writeto(tmp_path / "obj1.fits", np.full((64, 64), np.nan, dtype=np.float32), overwrite=True)
    (tmp_path / "obj3.fits").write_text("cut off")
    model, data = load_model(run), open_data(tmp_path)
    with pytest.raises(DataError, match=r"obj3\.fits|image obj1"):
        predict_cutouts(model, data)
    predicted = predict_cutouts(model, data, skip=True)
    assert predicted.rows.tolist() == [0, 2, 4]
    assert set(predicted.skipped) == {"obj1", "obj3"}


def test_unwritable_table_leaves_nothing(run, test_set, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        predict_paths(run, [test_set], tmp_path / "file" / "out.csv")
