"""The trained models inside the package, by name. No PyTorch here."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

from darklens.errors import ModelError

SHIPPED = Path(__file__).parents[1] / "weights"
WEIGHTS = "model.safetensors"


def shipped_models() -> dict[str, Path]:
    """Names and folders of the models that need no training."""
    return {folder.name: folder for folder in sorted(SHIPPED.iterdir()) if (folder / "config.json").is_file()}


def shipped_name(run: Path) -> str | None:
    """Return the name of the shipped model that a run folder is a copy of, or None."""
    config = run / "model" / "config.json"
    shipped = shipped_models().get(run.name)
    if shipped is None or not config.is_file():
        return None
    return run.name if config.read_bytes() == (shipped / "config.json").read_bytes() else None


def model_folder(path: str | Path) -> Path:
    """Where a model lies: the folder itself, ``model/`` of a run, or inside the package.

    Raises
    ------
    ModelError
        If there is none.
    """
    where = Path(path)
    for folder in (where, where / "model"):
        if (folder / "config.json").is_file() and (folder / WEIGHTS).is_file():
            return folder
    if (where / "checkpoints").is_dir():
        raise ModelError(f"{where}: training has not finished; to go on: {_resuming(where)}")
    shipped = shipped_models()
    if str(path) in shipped:
        return shipped[str(path)]
    if not where.exists():
        near = difflib.get_close_matches(str(path), shipped, 1)
        hint = f"did you mean {near[0]!r}?" if near else "darklens models lists those that need no training"
        raise ModelError(f"{where}: there is no such file or folder, and no model of that name; {hint}")
    raise ModelError(f"{where}: no trained model here (config.json and {WEIGHTS})")


def _resuming(run: Path) -> str:
    """The command that goes on with a run, if it is on record."""
    try:
        started = json.loads((run / "run.json").read_text("utf-8"))["command"]
    except (OSError, ValueError, KeyError, TypeError):
        started = None
    if not isinstance(started, str):
        return "its training command again, with --resume"
    return started if "--resume" in started else f"{started} --resume"


def describe_shipped() -> list[tuple[str, str, str]]:
    """Name, what it is, and its figures with intervals, of every model inside the package."""
    from darklens.evaluation.bootstrap import Interval

    rows = []
    for name, folder in shipped_models().items():
        config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
        figures = config["measured"].get("figures", {})
        shown = [
            f"{key.replace('_', ' ')} {Interval(**figures[key])}"
            for key in ("accuracy", "macro_auc", "ece")
            if key in figures
        ]
        what = f"{', '.join(config['classes'])} in images of {config['data']['source']}"
        rows.append((name, what, "; ".join(shown)))
    return rows
