"""The trained models inside the package, by name. No PyTorch here."""

from __future__ import annotations

import difflib
import json
import shutil
from pathlib import Path

from darklens.errors import DataError, ModelError

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
    return started if started.endswith("--resume") else f"{started} --resume"


def describe_shipped() -> list[tuple[str, str, str]]:
    """Return name, what it is, and its headline figures with intervals, of every model inside the package."""
    from darklens.evaluation.bootstrap import current_figures, figure_text
    from darklens.tasks.registry import current_model, task_class

    rows = []
    for name, folder in shipped_models().items():
        content = json.loads((folder / "config.json").read_text("utf-8"))
        content = current_model(content) if isinstance(content["task"], str) else content
        figures = current_figures(content["measured"].get("figures", {}))
        headlines = task_class(content["task"]["name"]).headlines
        shown = [f"{key.replace('_', ' ')} {figure_text(figures[key])}" for key in headlines if key in figures]
        rows.append(
            (name, f"{', '.join(content['outputs'])} in images of {content['data']['source']}", "; ".join(shown))
        )
    return rows


def shipped_run(name: str, out: Path) -> Path:
    """Copy a shipped model and the record of its training into a run folder, if it is not there yet; return the folder.

    Raises
    ------
    DataError
        If the folder holds another model.
    """
    folder = shipped_models()[name]
    if (out / "model" / "config.json").is_file():
        if (out / "model" / "config.json").read_bytes() != (folder / "config.json").read_bytes():
            raise DataError(f"{out}: holds another model than the package's {name}; move it away")
        return out
    shutil.copytree(folder, out / "model", ignore=shutil.ignore_patterns("run.json"), dirs_exist_ok=True)
    shutil.copy(folder / "run.json", out / "run.json")
    return out
