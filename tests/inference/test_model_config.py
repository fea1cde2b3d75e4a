"""The description of a model: which values are accepted, and which are refused by name."""

import json
import re

import pytest
from fuzz import make_model

from darklens.errors import ModelError
from darklens.inference.config import ModelConfig, numbers_in, read_config


@pytest.fixture
def described(tmp_path):
    """Write a description with changes, and read it."""
    folders = {lens: make_model(tmp_path / str(lens), lens=lens) for lens in (False, True)}
    originals = {lens: json.loads((folder / "config.json").read_text()) for lens, folder in folders.items()}

    def read(lens=False, **changes):
        content = json.loads(json.dumps(originals[lens]))
        for key, value in changes.items():
            inner = content
            *outer, last = key.split("__")
            for name in outer:
                inner = inner[name]
            inner[last] = value
        (folders[lens] / "config.json").write_text(json.dumps(content))
        return read_config(folders[lens])

    return read


def test_description_is_read_whole(described):
    found = described()
    assert isinstance(found, ModelConfig)
    plain = {"name": "cross-entropy", "label_smoothing": 0.0, "from_epoch": 1}
    assert found.task == {"name": "classify", "losses": [plain], "class_names": ["cdm", "axion"]}
    assert (found.channels, found.pixels, found.pixel_scale, found.unit) == (1, 16, 0.1, None)
    assert found.calibration == {"temperature": 1.2, "scores": [0.1, 0.2, 0.3]}


@pytest.mark.parametrize(
    "changes",
    [
        {"channels": 4096}, {"channels": 1}, {"pixels": 2048}, {"pixels": 1}, {"pixel_scale": 1e-6}, {"pixel_scale": None},
        {"data": {"typical_peak": 3}}, {"data": {"typical_peak": None}}, {"data": {}}, {"calibration__temperature": 1000},
        {"calibration__temperature": 0.001}, {"preprocessing__crop": 1}, {"preprocessing__crop": 2048},
        {"preprocessing__resize": 1}, {"preprocessing__repeat_channels": 64}, {"preprocessing__scale": -1.0},
        {"members": ["members/0", "a"]}, {"members": ["..a/b"]},
    ],
)  # fmt: skip
def test_values_at_their_limits_are_accepted(described, changes):
    found = described(**changes)
    for key, value in changes.items():
        part, _, name = key.partition("__")
        assert (getattr(found, part)[name] if name else getattr(found, part)) == value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 4097}, "channels is 4097; expected 1 to 4096"),
        ({"channels": "1"}, "channels is '1'; expected int"),
        ({"channels": 0}, "channels is 0; expected 1 to 4096"),
        ({"pixels": 2049}, "pixels is 2049; expected 1 to 2048"),
        ({"pixels": 0}, "pixels is 0; expected 1 to 2048"),
        ({"pixel_scale": 0.0}, "pixel_scale is 0.0; expected arcsec per pixel, above 0"),
        ({"data": {"typical_peak": "3"}}, "data.typical_peak is no number"),
        ({"calibration__temperature": 1000.5}, "calibration.temperature is 1000.5; expected 0.001 to 1000"),
        ({"calibration__temperature": 0.0009}, "calibration.temperature is 0.0009; expected 0.001 to 1000"),
        ({"preprocessing__crop": 2049}, "preprocessing.crop is 2049; expected 1 to 2048"),
        ({"preprocessing__resize": 0}, "preprocessing.resize is 0; expected 1 to 2048"),
        ({"preprocessing__repeat_channels": 65}, "preprocessing.repeat_channels is 65; expected 1 to 64"),
        ({"preprocessing__repeat_channels": 0}, "preprocessing.repeat_channels is 0; expected 1 to 64"),
        ({"preprocessing__scale": 0.0}, "preprocessing.scale is 0, by which pixels are divided"),
        ({"members": ["a", "/b"]}, "member '/b' is no folder beside this file"),
        ({"members": ["a/../b"]}, "member 'a/../b' is no folder beside this file"),
        ({"members": ["./."]}, "member './.' is no folder beside this file"),
        ({"members": [""]}, "member '' is no folder beside this file"),
        ({"outputs": ["a", "b"]}, "outputs are a, b of classes cdm, axion; its task has cdm, axion"),
        ({"classes": []}, "outputs are cdm, axion of classes none; its task has cdm, axion"),
        ({"outputs": []}, "outputs are none; expected different names, at least one"),
        ({"outputs": ["b", "a", "b"]}, "outputs are b, a, b; expected different names, at least one"),
        ({"format": 3}, "written by a newer darklens (format 3, this one reads up to 2); upgrade"),
        ({"task__losses": 3}, "task.losses is 3; expected "),
    ],
)
def test_values_beyond_are_refused(described, changes, message):
    with pytest.raises(ModelError, match=r"False/config\.json: " + re.escape(message)):
        described(**changes)


def test_description_of_version_0_1_is_read(described):
    found = described(task="classify", classes=["x", "y"], outputs=[], format=1)
    assert found.task == {"name": "classify", "class_names": ["x", "y"]}
    assert found.outputs == found.classes == ["x", "y"]


def test_outputs_of_an_own_task_are_known_only_when_it_runs(described):
    assert described(task={"name": "gone.py:Gone"}, outputs=["anything"]).outputs == ["anything"]
    with pytest.raises(ModelError, match="outputs are a, a; expected different names"):
        described(task={"name": "gone.py:Gone"}, outputs=["a", "a"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": [0.1] * 14}, "lens_prior has mean (14,), precision (15, 15) and blur 0.05; expected finite"),
        ({"precision": [[1.0, 0.0], [0.0, 2.0]]}, "lens_prior has mean (15,), precision (2, 2) and blur 0.05;"),
        ({"mean": [1e200] * 15}, "lens_prior has mean (15,)"),
        (
            {"blur": 2.1},
            "lens_prior has mean (15,), precision (15, 15) and blur 2.1; expected finite numbers, (15,), (15, 15) and 0",
        ),
        ({"blur": -0.1}, "lens_prior has mean (15,), precision (15, 15) and blur -0.1; expected"),
        ({"blur": "wide"}, "lens_prior is damaged: could not convert"),
        ({"precision": [1.0] * 15}, "lens_prior is damaged: "),
    ],
)
def test_lens_priors_are_checked(described, changes, message):
    with pytest.raises(ModelError, match=r"config\.json: preprocessing\." + re.escape(message)):
        described(lens=True, **{f"preprocessing__lens_prior__{key}": value for key, value in changes.items()})


def test_smallest_crop_and_blur_of_a_lens_model(described):
    assert described(lens=True, preprocessing__crop=8, preprocessing__lens_prior__blur=2.0).preprocessing["crop"] == 8
    assert described(lens=True, preprocessing__lens_prior__blur=0).preprocessing["lens_prior"]["blur"] == 0
    with pytest.raises(ModelError, match=r"preprocessing\.crop is 7; expected 8 to 2048"):
        described(lens=True, preprocessing__crop=7)


def test_numbers_however_deep():
    assert numbers_in({"a": [1, {"b": -2.5, "c": "x"}, [[3]]], "d": None, "e": 4}) == [1, -2.5, 3, 4]
    assert numbers_in("7") == []
    assert numbers_in(7) == [7]
