import pytest

from darklens.errors import PresetError
from darklens.simulation import load_preset

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
    "classes: {cdm: {add: 'nowhere.py:f'}}": "takes one of subhalos, vortex, add",
    "extends: fair-hts": "fair-hts",
}


@pytest.mark.parametrize(("text", "message"), BAD.items())
def test_impossible_preset_is_refused(text, message, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(text if "extends" in text else f"extends: fair-hst\n{text}\n")
    with pytest.raises(PresetError, match=message.replace("?", r"\?")):
        load_preset(path)
