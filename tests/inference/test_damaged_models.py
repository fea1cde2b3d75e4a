"""Model folders of strangers: what their descriptions and weights claim is checked before it is built."""

import json

import numpy as np
import pytest
import torch
from fuzz import make_model
from safetensors.torch import load_file, save_file

from darklens.data.dataset import DatasetInfo
from darklens.errors import DataError, ModelError
from darklens.inference.adapt import adaptation
from darklens.inference.config import PIXELS, read_config
from darklens.inference.model import BATCH, fitting_batch, load_model
from darklens.training.job import read_job, read_record


@pytest.fixture
def folder(tmp_path):
    return make_model(tmp_path / "model", lens=False)


@pytest.fixture
def lens_folder(tmp_path):
    return make_model(tmp_path / "model", lens=True)


def change(folder, keys, value):
    """Set a key of a config.json, given as a dotted path."""
    path = folder / "config.json"
    content = inner = json.loads(path.read_text())
    *outer, last = keys.split(".")
    for key in outer:
        inner = inner[key]
    inner[last] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        ("classes", ["cdm", 3], r"classes is \['cdm', 3\]; expected list\[str\]"),
        ("outputs", ["cdm", "cdm"], "outputs are cdm, cdm; expected different names"),
        ("outputs", [], "outputs are none; expected different names, at least one"),
        ("outputs", ["axion", "cdm"], "outputs are axion, cdm of classes cdm, axion; its task has cdm, axion"),
        (
            "task.name",
            "clbssify",
            "task is 'clbssify'; there are classify, find, regress, superresolve, pretrain, and your own",
        ),
        ("task.class_names", ["cdm", "cdm"], "its task has cdm, cdm"),
        ("task.class_names", 3, r"task.class_names is 3; expected list\[str\]"),
        ("task.losses", [{"name": "none"}], "no loss 'none'"),
        ("channels", "1", "channels is '1'; expected int"),
        ("pixels", 10**9, f"pixels is 1000000000; expected 1 to {PIXELS}"),
        ("pixel_scale", -1, "pixel_scale is -1; expected arcsec per pixel, above 0"),
        ("data", {"typical_peak": "bright"}, "typical_peak is no number"),
        ("preprocessing.crop", 0, f"preprocessing.crop is 0; expected 1 to {PIXELS}"),
        ("preprocessing.resize", 10**6, "preprocessing.resize is 1000000; expected 1 to"),
        ("preprocessing.stretch", "sqrr", "preprocessing: stretch is 'sqrr'; expected none, sqrt"),
        ("preprocessing.scale", 0, "preprocessing.scale is 0"),
        ("preprocessing.crqp", 8, "preprocessing: unknown key 'crqp'"),
        ("preprocessing.lens_model", True, "preprocessing.lens_prior is damaged: 'mean'|preprocessing.lens_prior"),
        ("calibration.temperature", 0, "calibration.temperature is 0; expected 0.001 to 1000"),
        ("calibration.scores", ["0.1"], r"calibration: scores is \['0.1'\]; expected list\[float\]"),
        ("calibration.tempesature", 1, "calibration: unknown key 'tempesature'"),
        ("members", ["../model"], "member '../model' is no folder beside this file"),
        ("members", ["."], "member '.' is no folder beside this file"),
        ("network.name", 3, "network.name is 3; expected the name of a network"),
        ("network.name", "cumpact", "its network cannot be built: no network 'cumpact'"),
        ("network.widths", [4, 80], "not of this network: .*is of shape"),
        ("network.widths", [4, 10**9], "its network has an option 1e\\+09, more than its weights are for"),
        ("network.blocks", [0, 10**9], "more than its weights are for"),
        ("network.widths", [], "its network cannot be built"),
        ("network.dropout", 7, "its network cannot be built"),
    ],
)
def test_descriptions_that_make_no_sense_are_refused(folder, keys, value, message):
    assert load_model(folder).predict(np.ones((1, 16, 16))).probabilities.shape == (1, 2)
    change(folder, keys, value)
    with pytest.raises(ModelError, match=rf"model.*{message}") as caught:
        load_model(folder)
    assert str(folder) in str(caught.value)


def test_keys_of_a_newer_version_are_left_out(folder):
    change(folder, "of_a_newer_version", 1)
    assert read_config(folder).classes == ["cdm", "axion"]


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        ("preprocessing.lens_prior.mean", [0.1] * 3, r"lens_prior has mean \(3,\)"),
        ("preprocessing.lens_prior.mean", [[1], [1, 2]], "lens_prior is damaged"),
        ("preprocessing.lens_prior.precision", [[0.0] * 15] * 15, "lens_prior is damaged: .*singular"),
        ("preprocessing.lens_prior.blur", 1e9, r"blur 1e\+09; expected .* 0 to 2"),
        ("preprocessing.lens_prior", None, "lens_prior is damaged"),
        ("preprocessing.crop", 3, "preprocessing.crop is 3; expected 8 to"),
        ("task.scale", [1.0, 2.0], "center and scale have one value each"),
    ],
)
def test_lens_priors_that_cannot_be_used_are_refused(lens_folder, keys, value, message):
    assert load_model(lens_folder).predict(np.ones((1, 16, 16))).values.shape == (1, 1)
    change(lens_folder, keys, value)
    with pytest.raises(ModelError, match=message):
        load_model(lens_folder)


def test_an_ensemble_that_is_its_own_member_is_refused(folder, tmp_path):
    make_model(folder / "members" / "0", lens=False)
    change(folder, "members", ["members/0"])
    assert len(load_model(folder).members) == 1
    change(folder / "members" / "0", "members", ["inner"])
    with pytest.raises(ModelError, match="a member of an ensemble is an ensemble itself"):
        load_model(folder)
    change(folder / "members" / "0", "members", [])
    for key in ("classes", "outputs", "task.class_names"):
        change(folder / "members" / "0", key, ["axion", "cdm"])
    with pytest.raises(
        ModelError, match=r"its classes are \['axion', 'cdm'\], those of the ensemble \['cdm', 'axion'\]"
    ):
        load_model(folder)


def test_outlier_scores_of_another_network_are_refused(folder):
    tensors = load_file(folder / "outliers.safetensors")
    features = len(tensors["feature_mean"])
    save_file(tensors | {"feature_mean": torch.zeros(3)}, folder / "outliers.safetensors")
    message = rf"outliers\.safetensors: damaged: feature_mean is of shape \(3,\); expected \({features},\)"
    with pytest.raises(ModelError, match=message):
        load_model(folder)


def test_a_pixel_scale_that_asks_for_huge_images_is_refused(folder):
    config = read_config(folder)
    with pytest.raises(
        ModelError, match=r"stars: a pixel scale of 270000″ beside the model's 0.1″ makes 4.32e\+07 pixels"
    ):
        adaptation(config, DatasetInfo("stars", pixel_scale=2.7e5), (1, 16, 16))
    assert adaptation(config, DatasetInfo("stars", pixel_scale=0.2), (1, 16, 16)).zoom == 2


def test_large_images_are_predicted_a_few_at_a_time():
    assert fitting_batch(BATCH, 150) == fitting_batch(BATCH, 512) == BATCH
    assert fitting_batch(BATCH, 1024) == 16
    assert fitting_batch(BATCH, 10**6) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "holds a list"),
        ("{}", "no recipe with a name"),
        ('{"recipe": {"name": 3}}', "no recipe with a name"),
    ],
)
def test_records_of_runs_that_are_none_are_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=r"no run here \(no run\.json\)"):
        read_record(tmp_path)
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(DataError, match=rf"run\.json: {message}"):
        read_record(tmp_path)


def test_records_with_values_of_other_types_are_refused(run, tmp_path):
    record = json.loads((run / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(record | {"seed": "3"}))
    with pytest.raises(DataError, match=r"run\.json: seed is '3'; expected int"):
        read_job(tmp_path)
