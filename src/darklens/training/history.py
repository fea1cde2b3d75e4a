"""What a run logged, epoch by epoch, over all the attempts it took."""

from __future__ import annotations

import csv
from pathlib import Path


def epoch_history(run: Path) -> list[dict[str, float]]:
    """Logged values of each validated epoch, in order; of an epoch that was repeated, the later ones.

    ``seconds`` is the time of training up to the end of the epoch, without what an interrupted attempt lost.
    """
    epochs: dict[int, dict[str, float]] = {}
    before = 0.0
    for log in sorted(run.glob("logs/csv-*/metrics.csv"), key=lambda path: int(path.parent.name.rpartition("-")[2])):
        spent = 0.0
        with log.open(newline="") as file:
            for row in csv.DictReader(file):
                if not row.get("epoch"):
                    continue
                values = {key: float(value) for key, value in row.items() if value and not key.endswith("_step")}
                if "seconds" in values:
                    spent = values["seconds"]
                    values["seconds"] = before + spent
                epochs.setdefault(int(values["epoch"]), {}).update(values)
        before += spent
    return [epochs[number] for number in sorted(epochs) if "validation/loss" in epochs[number]]
