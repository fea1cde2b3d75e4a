"""Presets by name, by file and by function: what they take over from others, and where their files are."""

import re

import pytest

from darklens.errors import PresetError
from darklens.simulation import Simulator
from darklens.simulation.library import builtin_names, list_presets, resolve_preset


def test_names_and_descriptions_of_the_library():
    names = builtin_names()
    assert names == sorted(names)
    assert {"fair-hst", "model-1", "model-2", "model-3-noisy"} <= set(names)
    described = list_presets()
    assert list(described) == names
    assert all(text and "\n" not in text and "  " not in text for text in described.values())


def test_preset_of_the_library_has_its_name():
    content = resolve_preset("model-3-noisy")
    assert content["name"] == "model-3-noisy"
    assert "extends" not in content
    assert resolve_preset("model-3")["instrument"] == content["instrument"]


def test_own_preset_takes_over_what_it_does_not_say(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "extends: fair-hst\npixels: 40\nsource: {x: {normal: [0, 0.2]}, n_sersic: 3}\nclasses: {cdm: {}}\n"
    )
    content, base = resolve_preset(tmp_path / "mine.yaml"), resolve_preset("fair-hst")
    assert content["name"] == "mine"
    assert content["description"] == "fair-hst with the changes of mine.yaml"
    assert content["pixels"] == 40
    assert "uniform" in base["source"]["x"]
    assert content["source"] == base["source"] | {"x": {"normal": [0, 0.2]}, "n_sersic": 3}, "a prior is taken whole"
    assert list(content["classes"]) == list(base["classes"])
    assert content["classes"]["cdm"] == base["classes"]["cdm"]
    assert content["deflector"] == base["deflector"]


def test_own_name_and_description_are_kept(tmp_path):
    (tmp_path / "mine.yml").write_text("extends: model-3\nname: other\ndescription: what it is\n")
    content = resolve_preset(str(tmp_path / "mine.yml"))
    assert (content["name"], content["description"]) == ("other", "what it is")


def test_files_are_looked_for_beside_the_preset_that_names_them(tmp_path, monkeypatch):
    """Also in a preset that another one in another folder extends."""
    (tmp_path / "base" / "code").mkdir(parents=True)
    (tmp_path / "base" / "base.yaml").write_text(
        "extends: fair-hst\nsource: {images: galaxies.npy}\n"
        "classes: {own: {subhalos: {profile: 'code/f.py:cored', mean_count: 3}}, more: {add: 'f.py:draw'}}\n"
    )
    (tmp_path / "mine.yaml").write_text("extends: base/base.yaml\ninstrument: {psf_file: psf.npy, name: psf.npy}\n")
    for source in (tmp_path / "mine.yaml", "mine.yaml"):
        monkeypatch.chdir(tmp_path)
        content = resolve_preset(source)
        assert content["source"]["images"] == str(tmp_path / "base" / "galaxies.npy")
        assert content["classes"]["own"]["subhalos"]["profile"] == f"{tmp_path}/base/code/f.py:cored"
        assert content["classes"]["more"]["add"] == f"{tmp_path}/base/f.py:draw"
        assert content["instrument"]["psf_file"] == str(tmp_path / "psf.npy")
        assert content["instrument"]["name"] == "psf.npy"
        assert content["deflector"]["profile"] == "sie", "the name of a profile is no file"


def test_function_is_a_class_beside_those_of_a_fair_preset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = resolve_preset("own.py:sidm")
    assert content["name"] == "sidm"
    assert content["description"] == "fair-hst with sidm"
    assert list(content["classes"]) == [*resolve_preset("fair-hst")["classes"], "sidm"]
    assert content["classes"]["sidm"] == {"add": f"{tmp_path}/own.py:sidm"}


def test_circle_of_presets_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(PresetError, match=r"^[ab]\.yaml: 'extends' goes round in a circle"):
        resolve_preset(tmp_path / "a.yaml")
    # Eight presets that extend each other are none.
    (tmp_path / "p0.yaml").write_text("pixels: 3\n")
    for i in range(1, 10):
        (tmp_path / f"p{i}.yaml").write_text(f"extends: p{i - 1}.yaml\n")
    assert resolve_preset(tmp_path / "p8.yaml")["pixels"] == 3
    with pytest.raises(PresetError, match="circle"):
        resolve_preset(tmp_path / "p9.yaml")


def test_unknown_preset_is_refused_with_what_there_is():
    listed = ", ".join(builtin_names())
    with pytest.raises(PresetError) as raised:
        resolve_preset("fair-hts")
    assert re.match(r"no preset 'fair-hts'\. Did you mean 'fair-hst'\? There are ", str(raised.value))
    assert f"There are {listed}; your own is a .yaml file or a function my_models.py:name" in str(raised.value)
    with pytest.raises(PresetError, match=r"^no preset '0000'\. There are "):
        resolve_preset("0000")


def test_classes_of_a_preset_are_chosen_by_name(tmp_path):
    whole, axion = resolve_preset("model-1"), resolve_preset("model-1:axion")
    assert axion["classes"] == {"axion": whole["classes"]["axion"]}
    assert axion["name"] == "model-1:axion"
    assert axion["description"].endswith("Of its classes: axion.")
    rest = {"name", "description", "classes"}
    assert {k: v for k, v in axion.items() if k not in rest} == {k: v for k, v in whole.items() if k not in rest}
    assert list(resolve_preset("model-1:axion,no_sub")["classes"]) == ["no_sub", "axion"], "in the preset's order"
    assert resolve_preset("model-1:axion,no_sub")["name"] == "model-1:no_sub,axion"
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: model-1\n")
    assert list(resolve_preset(f"{mine}:cdm")["classes"]) == ["cdm"]
    with pytest.raises(PresetError, match=r"preset model-1: no class 'axions'; there are no_sub, cdm, axion"):
        resolve_preset("model-1:axions")
    with pytest.raises(PresetError, match="no preset 'model-9:axion'"):
        resolve_preset("model-9:axion")


def test_chosen_classes_are_simulated_alone():
    images = Simulator("model-3-noisy:axion", seed=4).catalog(70)
    assert set(images["label"]) == {"axion"}
    assert images["log10_axion_mass"].null_count() == 0
