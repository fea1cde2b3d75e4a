"""Where models are found, and what those of the package are."""

import json
import shutil

import pytest
from fuzz import make_model

from darklens.errors import DataError, ModelError
from darklens.inference import shipped
from darklens.inference.shipped import describe_shipped, model_folder, shipped_models, shipped_name, shipped_run

NAME = "substructure-model-1"


def test_models_of_the_package():
    assert list(shipped_models()) == [
        "finding-euclid", "finding-ground", "finding-hsc",
        "substructure-fair-euclid", "substructure-fair-hst", "substructure-model-1", "substructure-model-2",
        "substructure-model-3", "substructure-model-3-noisy",
    ]  # fmt: skip
    assert all((folder / "model.safetensors").is_file() for folder in shipped_models().values())


def test_folders_without_a_model_are_none(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    make_model(tmp_path / "b", lens=False)
    make_model(tmp_path / "a", lens=False)
    assert shipped_models() == {"a": tmp_path / "a", "b": tmp_path / "b"}


def test_model_is_found_by_its_folder_its_run_or_its_name(tmp_path):
    folder = make_model(tmp_path / "run" / "model", lens=False)
    assert model_folder(folder) == model_folder(tmp_path / "run") == model_folder(str(tmp_path / "run")) == folder
    assert model_folder(NAME) == shipped_models()[NAME]
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"run: no trained model here \(config\.json and model\.safetensors\)"):
        model_folder(tmp_path / "run")
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(ModelError, match="no trained model here"):
        model_folder(tmp_path)


def test_names_that_are_none_are_told_what_is_near():
    with pytest.raises(ModelError, match="no model of that name; did you mean 'substructure-model-1'"):
        model_folder("substructure-model1")
    with pytest.raises(ModelError, match="no such file or folder, and no model of that name; darklens models lists"):
        model_folder("quite/another")


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ('{"command": "darklens train a --out b"}', "darklens train a --out b --resume"),
        ('{"command": "darklens train a --resume"}', "darklens train a --resume"),
        ('{"command": null}', "its training command again, with --resume"),
        ("{}", "its training command again, with --resume"),
        ("[]", "its training command again, with --resume"),
        ("{", "its training command again, with --resume"),
        (None, "its training command again, with --resume"),
    ],
)
def test_training_that_was_interrupted_is_told_how_to_go_on(tmp_path, record, told):
    (tmp_path / "checkpoints").mkdir()
    if record is not None:
        (tmp_path / "run.json").write_text(record)
    with pytest.raises(ModelError) as caught:
        model_folder(tmp_path)
    assert str(caught.value) == f"{tmp_path}: training has not finished; to go on: {told}"


def test_copy_of_a_shipped_model_is_a_run_and_known_by_its_name(tmp_path):
    (tmp_path / NAME / "model").mkdir(parents=True)  # of a copy that was interrupted
    run = shipped_run(NAME, tmp_path / NAME)
    assert run == tmp_path / NAME
    assert sorted(path.name for path in run.iterdir()) == ["model", "run.json"]
    source = shipped_models()[NAME]
    kept = {path.name for path in source.iterdir() if path.name != "run.json"}
    assert {path.name for path in (run / "model").iterdir()} == kept
    assert (run / "run.json").read_bytes() == (source / "run.json").read_bytes()
    (run / "run.json").write_text("mine")
    assert shipped_run(NAME, run) == run
    assert (run / "run.json").read_text() == "mine", "what is there is left alone"
    assert shipped_name(run) == NAME
    assert shipped_name(shutil.move(run, tmp_path / "other")) is None
    config = tmp_path / "other" / "model" / "config.json"
    config.write_text(config.read_text() + " ")
    shutil.move(tmp_path / "other", run)
    assert shipped_name(run) is None
    with pytest.raises(DataError, match=f"{NAME}: holds another model than the package's {NAME}; move it away"):
        shipped_run(NAME, run)
    assert shipped_name(tmp_path) is None
    (tmp_path / "elsewhere" / NAME).mkdir(parents=True)
    assert shipped_name(tmp_path / "elsewhere" / NAME) is None


def test_shipped_models_are_described_by_their_figures():
    rows = {row[0]: row for row in describe_shipped()}
    assert list(rows) == list(shipped_models())
    name, what, figures = rows[NAME]
    measured = json.loads((shipped_models()[NAME] / "config.json").read_text())["measured"]["figures"]
    assert (name, what) == (NAME, "no_sub, cdm, axion in images of preset:model-1")
    *shown, ece = figures.split("; ")
    assert shown == [
        "{} {value:.4f} [{low:.4f}, {high:.4f}]".format(title, **measured[key])
        for key, title in (("accuracy", "accuracy"), ("macro_auc", "macro auc"), ("micro_auc", "micro auc"))
    ]
    known = measured["ece"]["if_calibrated"]
    assert ece == f"ece {measured['ece']['value']:.4f} ({known['low']:.4f} to {known['high']:.4f} if calibrated)"


def test_figures_of_shipped_models_are_as_this_version_measures_them():
    """No bootstrap interval of the ECE, and sets that hold a class at least and the truth as often as promised."""
    for folder in shipped_models().values():
        measured = json.loads((folder / "config.json").read_text())["measured"]
        figures = measured["figures"]
        assert set(figures["ece"]) == {"value", "n", "if_calibrated"}
        if folder.name.startswith("finding-"):
            assert measured["n"] >= 20_000
            assert 0 < figures["tpr0"]["value"] < figures["tpr10"]["value"] < 1
        else:
            assert figures["coverage"]["value"] > measured["coverage"]
            assert figures["set_size"]["value"] >= 1


def test_description_of_version_0_1_and_of_a_model_without_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path)
    (tmp_path / "old").mkdir()
    old = {
        "task": "regress", "outputs": ["m"], "classes": [], "output_center": [0.0], "output_scale": [1.0],
        "data": {"source": "here"}, "measured": {},
    }  # fmt: skip
    (tmp_path / "old" / "config.json").write_text(json.dumps(old))
    assert describe_shipped() == [("old", "m in images of here", "")]
