"""Presets with lenses as frequent as in another."""

import pytest

from darklens.errors import PresetError
from darklens.simulation import Simulator, load_preset
from darklens.simulation.library import resolve_preset
from darklens.simulation.shares import with_lens_share


def turns(preset):
    return {name: each.turns for name, each in preset.classes.items()}


def test_lenses_become_as_frequent_as_asked_for():
    rare = load_preset("finding-survey")
    often = with_lens_share(rare, 1 / 3)
    assert turns(often) == turns(rare) | {"lens": 50}
    assert turns(with_lens_share(often, 1 / 101)) == {
        n: 50 if n == "lens" else 50 * t for n, t in turns(rare).items()
    } | {"lens": 50}
    assert with_lens_share(rare, 0.0099) is rare
    several = with_lens_share(load_preset("finding-hsc"), 0.6)
    assert [several.classes[name].turns for name in ("lens", "lensing_group", "lensed_quasar")] == [27, 6, 3]
    short = load_preset(resolve_preset("finding-deeplense") | {"name": "a", "classes": {"lens": "lens", "b": "galaxy"}})
    catalog = Simulator(with_lens_share(short, 0.25), 0).catalog(64)
    assert (catalog["label"] == "lens").sum() == 16


def test_what_cannot_be_done_is_said():
    assert with_lens_share(load_preset("model-3-noisy"), 0.3).name == "model-3-noisy"
    for share in (0, 1, 1.5):
        with pytest.raises(PresetError, match="between 0 and 1"):
            with_lens_share(load_preset("finding-survey"), share)
    only = load_preset(resolve_preset("finding-deeplense") | {"name": "a", "classes": {"lens": {"objects": "lens"}}})
    with pytest.raises(PresetError, match="preset a has no others"):
        with_lens_share(only, 0.5)
