"""darklens: dark matter from strong gravitational lenses.

Simulate images of any dark-matter model through any telescope, train networks on them, evaluate and report, and predict
on a survey's cutouts. Everything is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from darklens.data.layouts import open_data as open_data
    from darklens.inference.model import TrainedModel as TrainedModel
    from darklens.inference.model import load_model as load
    from darklens.simulation import Simulator as Simulator
    from darklens.simulation import load_preset as load_preset

__version__ = version("darklens")
__all__ = ["Simulator", "TrainedModel", "load", "load_preset", "open_data"]

_HOMES = {
    "Simulator": ("darklens.simulation", "Simulator"),
    "TrainedModel": ("darklens.inference.model", "TrainedModel"),
    "load": ("darklens.inference.model", "load_model"),
    "load_preset": ("darklens.simulation", "load_preset"),
    "open_data": ("darklens.data.layouts", "open_data"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)
