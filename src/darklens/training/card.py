"""The model card: what a model is, what it was trained on, what it can and cannot do."""

from __future__ import annotations

from typing import Any

from darklens.inference.model import ModelConfig


def model_card(config: ModelConfig, record: dict[str, Any]) -> str:
    """Markdown with the metadata header of model hubs."""
    recipe, data, training = config.recipe, config.data, record["training"]
    what = ", ".join(config.classes) if config.classes else ", ".join(config.outputs)
    scale = f"{config.pixel_scale:g}″/pixel" if config.pixel_scale else "an unknown pixel scale"
    lines = [
        "---",
        "library_name: darklens",
        "license: mit",
        f"tags: [gravitational-lensing, dark-matter, {config.task}]",
        "---",
        f"# {recipe['name']}",
        "",
        " ".join(recipe["description"].split()),
        "",
        f"- **Predicts**: {what}",
        f"- **Images**: {config.channels} × {config.pixels} × {config.pixels}, {scale}, {config.unit or 'unknown unit'}",
        f"- **Trained on**: {data['source']} (seed {data['seed']}), {data['train_images']:,} training images",
        f"- **Training**: {training['epochs']} epochs, {training['images']:,} images seen, {training['seconds']:.0f} s on "
        f"{training['machine']}, {training['precision']}; the best epoch by validation loss is {training['best_epoch']}",
        f"- **Parameters**: {training['parameters']:,}",
        f"- **Source**: {recipe['source'] or 'darklens'}",
        "",
        "## Limits",
        "",
        "It knows the data that it was trained on. On images of another telescope, noise or lens population its "
        "probabilities mean little until they are checked against a labelled sample.",
        "",
        "## Use",
        "",
        "```python",
        "import darklens",
        'model = darklens.load("path/to/this/folder")',
        "model.predict(images)",
        "```",
        "",
    ]
    return "\n".join(lines)
