"""Keep the predictions of a long run beside its table until this is written, so that a killed run goes on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from darklens.data.dataset import Cutouts
from darklens.inference.model import TrainedModel

FACTS = "facts.json"


@dataclasses.dataclass(frozen=True)
class Part:
    """Predictions of some consecutive rows of a dataset.

    Attributes
    ----------
    rows
        Those that could be used, (n,).
    array
        Their predictions, (n, K).
    outlier_score
        (n,), or None if the model has none.
    empty
        Which of them show nothing, (n,) of bool.
    skipped
        Why others were left out, by identifier.
    """

    rows: np.ndarray
    array: np.ndarray
    outlier_score: np.ndarray | None
    empty: np.ndarray
    skipped: Mapping[str, str]


class KeptPredictions:
    """Parts of the predictions of one dataset, in a folder.

    They serve again if all that decides them is the same: the model, how it predicts, the names of the images, and their
    files by size and time of change; and if the first image of a part still has its pixels. Else they are removed. All
    this is looked at when the first part is asked for, as few datasets are long enough to have any.

    Parameters
    ----------
    folder
        Where they are; it need not be there.
    model
        What predicts.
    cutouts
        The images.
    choices
        All else that decides predictions, as JSON holds it.
    """

    def __init__(self, folder: Path, model: TrainedModel, cutouts: Cutouts, choices: Mapping[str, Any]):
        self._folder, self._model, self._cutouts, self._choices = folder, model, cutouts, dict(choices)

    @cached_property
    def _facts(self) -> str:
        """All that decides predictions, after parts of which it is not true were removed."""
        images = _digest_of_images(self._cutouts)
        facts = {"model": _digest_of_model(self._model), "images": images, "choices": self._choices}
        told = json.dumps(facts, sort_keys=True)
        try:
            same = (self._folder / FACTS).read_text("utf-8") == told
        except (OSError, UnicodeDecodeError):
            same = False
        if not same and self._folder.exists():
            shutil.rmtree(self._folder)
        return told

    def read(self, start: int) -> Part | None:
        """Return the part that begins at a row; None if it is not there, or its first image has changed."""
        _ = self._facts
        try:
            with np.load(self._folder / f"{start}.npz", allow_pickle=False) as file:
                if bytes(file["first"]) != self._first(start):
                    return None
                skipped = json.loads(bytes(file["skipped"]).decode())
                return Part(file["rows"], file["array"], file.get("outlier_score"), file["empty"], skipped)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return None  # not there, or damaged

    def write(self, start: int, part: Part) -> None:
        """Keep the part that begins at a row; where nothing can be written, nothing is kept."""
        arrays = {"rows": part.rows, "array": part.array, "empty": part.empty}
        if part.outlier_score is not None:
            arrays["outlier_score"] = part.outlier_score
        texts = {"first": self._first(start), "skipped": json.dumps(dict(part.skipped)).encode()}
        arrays |= {name: np.frombuffer(text, np.uint8) for name, text in texts.items()}
        path = self._folder / f"{start}.npz"
        temporary = path.with_suffix(".tmp")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / FACTS).write_text(self._facts, "utf-8")
            with temporary.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
            temporary.replace(path)
        except OSError:
            return

    def _first(self, start: int) -> bytes:
        """What tells whether the images are still the same: a digest of the first one, as far as it can be read."""
        try:
            return hashlib.sha256(np.ascontiguousarray(self._cutouts.images[np.array([start])]).tobytes()).digest()
        except Exception:  # an image that cannot be read says why where it is predicted
            return b"unreadable"


def _digest_of_model(model: TrainedModel) -> str:
    told = hashlib.sha256()
    for member in model.members:
        told.update(json.dumps(dataclasses.asdict(member.config), sort_keys=True, default=str).encode())
        for name, tensor in member.network.state_dict().items():
            told.update(name.encode())
            told.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        if member.outliers is not None:
            for name, tensor in member.outliers.tensors().items():
                told.update(name.encode())
                told.update(tensor.contiguous().numpy().tobytes())
    return told.hexdigest()


def _digest_of_images(cutouts: Cutouts) -> str:
    whole = Path(cutouts.where)
    if "path" in cutouts.catalog.columns:
        files = [Path(path) for path in cutouts.catalog["path"].to_list()]
    else:
        files = sorted(whole.rglob("*.npy")) if whole.is_dir() else [whole]
    told = hashlib.sha256("\0".join(cutouts.ids).encode())
    for file in files:
        try:
            stat = file.stat()
        except OSError:
            continue
        told.update(f"\0{file}\0{stat.st_size}\0{stat.st_mtime_ns}".encode())
    return told.hexdigest()
