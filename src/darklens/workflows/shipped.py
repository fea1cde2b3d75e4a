"""Runs of the models inside the package, to evaluate and report like any other."""

from __future__ import annotations

import shutil
from pathlib import Path

from darklens.errors import DataError
from darklens.inference.shipped import shipped_models


def run_of(name: str, out: Path) -> Path:
    """A run folder with a shipped model and the record of its training, made if it is not there yet."""
    folder = shipped_models()[name]
    if (out / "model" / "config.json").is_file():
        if (out / "model" / "config.json").read_bytes() != (folder / "config.json").read_bytes():
            raise DataError(f"{out}: holds another model than the package's {name}; move it away")
        return out
    shutil.copytree(folder, out / "model", ignore=shutil.ignore_patterns("run.json"), dirs_exist_ok=True)
    shutil.copy(folder / "run.json", out / "run.json")
    return out
