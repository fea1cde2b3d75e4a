"""From a named preset and a seed to batches of images and their truths.

`darklens.simulation.library` lists presets without loading PyTorch; all else is imported when it is first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from darklens.simulation.columns import from_frame
    from darklens.simulation.draw import BLOCK
    from darklens.simulation.library import list_presets
    from darklens.simulation.preset_files import AnyPreset, load_preset
    from darklens.simulation.presets import Preset
    from darklens.simulation.scenes.presets import ScenePreset
    from darklens.simulation.simulator import Simulator

__all__ = ["BLOCK", "AnyPreset", "Preset", "ScenePreset", "Simulator", "from_frame", "list_presets", "load_preset"]

_HOMES = {
    "BLOCK": "draw",
    "AnyPreset": "preset_files",
    "Preset": "presets",
    "ScenePreset": "scenes.presets",
    "Simulator": "simulator",
    "from_frame": "columns",
    "list_presets": "library",
    "load_preset": "preset_files",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
