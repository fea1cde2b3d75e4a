"""The model card: what a model is, what it was trained on, what it can and cannot do."""

from __future__ import annotations

from typing import Any

from darklens.adaptation.options import make_method
from darklens.evaluation.bootstrap import IF_CALIBRATED, current_figures, range_text
from darklens.inference.config import ModelConfig
from darklens.tasks.base import Task
from darklens.tasks.registry import task_title


def model_card(config: ModelConfig, task: Task, record: dict[str, Any], *, name: str | None = None) -> str:
    """Return the card of a model, in Markdown with the metadata header of model hubs.

    Parameters
    ----------
    config
        Its description.
    task
        What it does.
    record
        The record of its training, ``run.json``.
    name
        What `darklens.load` calls it.

    Returns
    -------
    str
        The text of ``README.md``.
    """
    recipe, data, training = config.recipe, config.data, record["training"]
    what = ", ".join(config.outputs)
    scale = f"{config.pixel_scale:g}″/pixel" if config.pixel_scale else "an unknown pixel scale"
    lines = [
        "---",
        "library_name: darklens",
        "license: mit",
        f"tags: [gravitational-lensing, dark-matter, {task_title(config.task)}]",
        "---",
        f"# {name or recipe['name']}",
        "",
        " ".join(recipe["description"].split()),
        "",
        f"- **Predicts**: {what}",
        f"- **Images**: {config.channels} × {config.pixels} × {config.pixels}, {scale}, {config.unit or 'unknown unit'}",
        f"- **Trained on**: {data['source']} (seed {data['seed']}), {data['train_images']:,} training images"
        + _of_which(task.training_counts(data["train_images"])),
        *_target(data),
        f"- **Training**: {training['epochs']} epochs, {training['images']:,} images seen, {training['seconds']:.0f} s on "
        f"{training['machine']} ({training.get('threads', 'all')} of its cores used), {training['precision']}"
        + (f"; the best epoch by {_chosen_by(recipe)} is {training['best_epoch']}" if training["best_epoch"] else ""),
        f"- **Command**: `{record['command']}`",
        f"- **Parameters**: {training['parameters']:,}",
        f"- **Source**: {recipe['source'] or 'darklens'}",
        "",
        *_inputs(config),
        *_figures(config),
        "## Intended use",
        "",
        f"{task.purpose()}, and to start from (`darklens finetune`).",
        "",
        "## Limits",
        "",
        "It knows the data that it was trained on. On images of another telescope, noise or lens population its "
        "probabilities cannot be relied on until they are checked against a labelled sample (`darklens evaluate`). "
        "`outlier_score` is above 1 for images unlike 99% of those that it was trained on; below 1 is no proof that an "
        f"image is like them. {task.limits()}",
        "",
        "## Use",
        "",
        "```python",
        "import darklens",
        "",
        f'model = darklens.load("{name or "path/to/this/folder"}")',
        "model.predict(images)" if not config.catalog else "model.predict(images, catalog=table)",
        "```",
        "",
    ]
    return "\n".join(lines)


def _chosen_by(recipe: dict[str, Any]) -> str:
    """What chose the best epoch."""
    method = make_method(recipe.get("adaptation") or {}, recipe["name"])
    if method is None or method.select == "source":
        return "validation loss"
    return f"{method.select} (--adaptation.select, no labels of the target)"


def _target(data: dict[str, Any]) -> list[str]:
    """What an adapted model was adapted to, and that its calibration is the source's."""
    if not (target := data.get("target")):
        return []
    count = f", {target['train_images']:,} images" if "train_images" in target else ", simulated as it went"
    return [
        f"- **Adapted to**: {target['source']}{count}, without their labels; `outlier_score` is relative to these, "
        "probabilities are calibrated on the source alone"
    ]


def _of_which(counts: dict[str, int]) -> str:
    """How many images have each label, as the end of a sentence; empty if that is not known."""
    return ": " + ", ".join(f"{count:,} {label}" for label, count in counts.items()) if counts else ""


def _inputs(config: ModelConfig) -> list[str]:
    """Columns of the catalogue that it takes beside images, if any."""
    if not config.catalog:
        return []
    names = ", ".join(f"`{column['name']}`" for column in config.catalog)
    return ["## Inputs", "", f"Beside an image, these columns of the catalogue: {names}.", ""]


def _figures(config: ModelConfig) -> list[str]:
    """A table of what was measured, if anything was."""
    measured = config.measured
    if not measured:
        return []
    figures = current_figures(measured["figures"])
    calibrated = f"; {IF_CALIBRATED}" if any("if_calibrated" in figure for figure in figures.values()) else ""
    rows = [f"| {key.replace('_', ' ')} | {f['value']:.4f} | {range_text(f)} |" for key, f in figures.items()]
    return [
        "## Measured",
        "",
        f"On {measured['n']:,} images of {measured['data']} (seed {measured['seed']}"
        f"{_of_which(measured.get('labels', {}))}), none of them used in training; 95% bootstrap intervals{calibrated}."
        + (f" Prediction sets promise {measured['coverage']:.0%}." if "coverage" in figures else ""),
        "",
        "| figure | value | 95% interval |",
        "| --- | --- | --- |",
        *rows,
        "",
    ]
