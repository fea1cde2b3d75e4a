"""Presets whose lenses are more or less frequent than in another."""

from __future__ import annotations

from typing import Any

from darklens.errors import PresetError
from darklens.simulation.preset_files import AnyPreset, load_preset
from darklens.simulation.scenes.presets import ScenePreset

ALIKE = 0.1
"""Relative difference of shares that changes nothing."""


def with_lens_share(preset: AnyPreset, share: float) -> AnyPreset:
    """Return a preset with its lenses as frequent as given; their kinds, and those of others, keep their proportions.

    Parameters
    ----------
    preset
        Of scenes with lenses and others; one of substructure is returned as it is.
    share
        Fraction of the images that are lenses, between 0 and 1.

    Returns
    -------
    Preset
        The same one where its share is within a tenth of the given one.

    Raises
    ------
    PresetError
        If the share is not between 0 and 1, or the preset has no lenses or nothing else.
    """
    if not 0 < share < 1:
        raise PresetError(f"the share of lenses must be between 0 and 1; got {share}")
    if not isinstance(preset, ScenePreset):
        return preset
    lenses = {name: each.turns for name, each in preset.classes.items() if preset.label_of(name) == "lens"}
    others = {name: each.turns for name, each in preset.classes.items() if name not in lenses}
    if not lenses or not others:
        raise PresetError(f"preset {preset.name} has no {'others' if lenses else 'lenses'}")
    wanted, found = share / (1 - share), sum(lenses.values()) / sum(others.values())
    if abs(wanted / found - 1) < ALIKE:
        return preset
    more, factor = (lenses, wanted / found) if wanted > found else (others, found / wanted)
    turns = lenses | others | {name: max(1, round(factor * own)) for name, own in more.items()}
    content: dict[str, Any] = dict(preset.resolved)
    classes = {
        name: ({"objects": own} if isinstance(own, str) else dict(own)) | {"turns": turns[name]}
        for name, own in content["classes"].items()
    }
    changed = content | {"name": f"{preset.name} with {share:.3g} lenses", "classes": classes}
    return load_preset(changed, trust_code=True)  # whoever loaded the preset trusts it
