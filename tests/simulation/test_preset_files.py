import pytest

from darklens.errors import PresetError, UntrustedCodeError
from darklens.simulation import load_preset
from darklens.simulation.library import resolve_preset
from darklens.simulation.priors import Constant, Uniform

BAD = {
    "z_source: 0.4": "z_source must be above z_lens",
    "instrument: {exposure_time: -5}": "exposure_time must be above zero",
    "instrument: {pixel_scale: 0}": "pixel_scale must be above zero",
    "pixel: 64": "unknown key pixel; did you mean 'pixels'?",
    "pixels: 64.5": "pixels: expected a whole number",
    "deflector: {theta_E: {uniform: [2, 1]}}": "lower bound must be below",
    "deflector: {theta_E: {unifrm: [1, 2]}}": "expected a number or one of uniform",
    "source: {x: {normal: [0]}}": "normal takes",
    "deflector: {profile: sei}": "no 'sei'; there are sie, epl",
    "source: {amp: 3}": "exactly one of amp, magnitude",
    "noise: twice": "noise: no 'twice'",
    "classes: {cdm: {subhalos: {total_mass: -1}}}": "total_mass must be above zero",
    "classes: {cdm: {add: 'nowhere.py:f'}}": "takes one of subhalos, add and a vortex",
    "extends: fair-hts": "fair-hts",
    "instrument: {gain: 2.5}": "instrument.gain: images are in electrons",
}


@pytest.mark.parametrize(("text", "message"), BAD.items())
def test_impossible_preset_is_refused(text, message, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(text if "extends" in text else f"extends: fair-hst\n{text}\n")
    with pytest.raises(PresetError, match=message.replace("?", r"\?")):
        load_preset(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"source": None},
            "source: missing, or no keys and values; 'extends: fair-hst' takes it from a built-in preset",
        ),
        ({"classes": ["cdm"]}, "classes: missing, or no keys and values"),
        ({"classes": {"cdm": {"subhalo": {}}}}, "unknown key classes.cdm.subhalo; did you mean 'subhalos'?"),
        ({"classes": {"cdm": {"subhalos": {"mas": 1}}}}, "unknown key classes.cdm.subhalos.mas; did you mean 'mass'?"),
        ({"classes": {"a": {"vortex": {"masss": 1}}}}, "unknown key classes.a.vortex.masss; did you mean 'mass'?"),
        ({"classes": {"a": {"vortex": {"mass": "x"}}}}, "classes.a.vortex.mass: expected a number or one of uniform"),
        (
            {"classes": {"a": {"subhalos": {"parameters": {"b": []}}}}},
            "classes.a.subhalos.parameters.b: expected a numb",
        ),
        ({"zzz": 1}, "unknown key zzz"),
        ({"pixels": {"uniform": [3, 5]}}, "pixels: expected a whole number; got {'uniform': [3, 5]}"),
        ({"z_lens": {"uniform": 0.1}}, "z_lens: uniform takes [low, high]; got 0.1"),
        (
            {"z_source_convention": {"uniform": [1, 2]}},
            "z_source_convention: expected a number; got {'uniform': [1, 2]}",
        ),
        ({"z_source": {"normal": [1, 0.1]}}, "z_source must be above zero; its lowest value is -inf"),
        (
            {"z_lens": {"uniform": [1.0, 1.5]}},
            "z_source must be above z_lens by 0.05, and z_lens at least 0.01: of what",
        ),
        ({"conserve_mass": 1}, "conserve_mass: expected true or false; got 1"),
        ({"description": 3}, "description: expected text; got 3"),
        ({"noise": 3}, "noise: expected text; got 3"),
        ({"cosmology": {"h": 0.7}}, "unknown key cosmology.h; there are H0, Om0, Ob0"),
        ({"convention_cosmology": {"h": 0.7}}, "unknown key convention_cosmology.h; there are H0, Om0, Ob0"),
        ({"cosmology": {"H0": "fast"}}, "cosmology.H0: expected a number"),
        ({"cosmology": {"H0": -70}}, "cosmology.H0 must be above zero (km/s/Mpc); got -70.0"),
        ({"convention_cosmology": {"H0": 0}}, "convention_cosmology.H0 must be above zero (km/s/Mpc); got 0.0"),
        (
            {"cosmology": {"Om0": 1.1}},
            "cosmology: Om0 must be from 0 to 1, and Ob0 from 0 to Om0; got Om0 1.1, Ob0 0.05",
        ),
        ({"cosmology": {"Om0": 0.04}}, "cosmology: Om0 must be from 0 to 1, and Ob0 from 0 to Om0; got Om0 0.04"),
        ({"classes": {"a": {"vortex": "line"}}}, "classes.a.vortex: missing, or no keys and values"),
        ({"classes": {"a": {"vortex": {"profile": "line"}}}}, "classes.a.vortex: mass must be given"),
        ({"cosmology": 70}, "cosmology: missing, or no keys and values"),
    ],
)
def test_content_that_cannot_be_used_is_named_by_its_place(changes, message):
    with pytest.raises(PresetError) as raised:
        load_preset(resolve_preset("fair-hst") | {"name": "mine"} | changes)
    assert str(raised.value).startswith(f"preset mine: {message}")


def test_values_are_converted_to_their_types():
    """Text like 1e9 is a number, null is the default, and what is not said of cosmologies is theirs."""
    content = resolve_preset("fair-hst") | {"name": "mine", "pixels": 32.0, "supersampling": None, "z_source": "1.5e0"}
    content |= {"cosmology": {"H0": 67.0}, "convention_cosmology": {"Om0": 0.2}, "z_source_convention": 2}
    content["classes"] = {
        "none": None,
        7: {"subhalos": {"profile": "sis", "count": "3", "mass": "1e8", "parameters": {}}},
        "vortex": {"vortex": {"profile": "line", "mass": "3e10", "half_length": 0.5}},
    }
    mine = load_preset(content)
    assert (mine.pixels, type(mine.pixels), mine.supersampling, mine.z_source) == (32, int, 1, 1.5)
    assert (mine.cosmology.H0, mine.cosmology.Om0) == (67.0, 0.3)
    assert (mine.convention_cosmology.H0, mine.convention_cosmology.Om0) == (70.0, 0.2)
    assert (mine.z_source_convention, mine.name) == (2.0, "mine")
    assert mine.labels == ["none", "7", "vortex"]
    assert mine.classes["none"].subhalos is None
    assert (mine.classes["7"].subhalos.mass, mine.classes["7"].subhalos.count) == (Constant(1e8), 3)
    assert mine.classes["vortex"].vortex.mass == Constant(3e10)
    assert mine.resolved == content


def test_datasets_of_older_versions_that_state_a_gain_are_read():
    content = resolve_preset("fair-hst")
    older = content | {"instrument": content["instrument"] | {"gain": 2.5}}
    assert load_preset(older) == load_preset(content)


def test_numbers_that_yaml_reads_as_text_are_numbers_of_a_cosmology(tmp_path):
    (tmp_path / "p.yaml").write_text("extends: fair-hst\ncosmology: {H0: 7e1, Om0: 3e-1, Ob0: null}\n")
    assert load_preset(tmp_path / "p.yaml").cosmology == (70.0, 0.3, 0.05)


def test_parameters_of_an_own_profile_are_distributions(tmp_path):
    (tmp_path / "f.py").write_text("def cored(x, y, x0, y0, r, s):\n    return x, y\n")
    (tmp_path / "p.yaml").write_text(
        "extends: fair-hst\nclasses: {own: {subhalos: {profile: 'f.py:cored', count: 2, "
        "parameters: {r: {uniform: [-1, 2]}, s: '1e-3'}}}}\n"
    )
    subhalos = load_preset(tmp_path / "p.yaml", trust_code=True).classes["own"].subhalos
    assert subhalos.parameters == {"r": Uniform(-1, 2), "s": Constant(0.001)}
    assert subhalos.profile == f"{tmp_path}/f.py:cored"


def test_code_that_a_file_or_content_names_is_not_trusted(tmp_path):
    (tmp_path / "f.py").write_text("def draw(rng, lens):\n    return {}\n")
    (tmp_path / "p.yaml").write_text("extends: fair-hst\nclasses: {own: {add: 'f.py:draw'}}\n")
    with pytest.raises(UntrustedCodeError, match=rf"^{tmp_path}/p\.yaml: would run draw of {tmp_path}/f\.py"):
        load_preset(tmp_path / "p.yaml")
    content = resolve_preset(tmp_path / "p.yaml")
    with pytest.raises(UntrustedCodeError, match=rf"^preset p: would run draw of {tmp_path}/f\.py"):
        load_preset(content)
    assert load_preset(content, trust_code=True).classes["own"].add == f"{tmp_path}/f.py:draw"
    # A function that the user names is the user's own choice.
    assert load_preset(f"{tmp_path}/f.py:draw").labels[-1] == "draw"
