"""The model card: each figure in its place."""

import pytest

from darklens.errors import ModelError
from darklens.inference.config import ModelConfig, read_config
from darklens.inference.model import load_task
from darklens.inference.shipped import shipped_models
from darklens.schema import read_json
from darklens.simulation import Simulator, load_preset
from darklens.tasks.classify import Classify
from darklens.tasks.find import Find
from darklens.training.card import model_card

TASK = Classify(class_names=["cdm", "axion"])
RECIPE = {"name": "mine/demo", "description": "A small\n  network.", "source": ""}
TRAINING = {
    "epochs": 7, "images": 12345, "seconds": 98.6, "machine": "a machine, 4 cores", "threads": 3, "precision": "32-true",
    "best_epoch": 5, "parameters": 1234567,
}  # fmt: skip
RECORD = {"training": TRAINING, "command": "darklens train mine"}
MEASURED = {
    "n": 2500, "data": "preset:x", "seed": 9, "coverage": 0.9,
    "figures": {"macro_auc": {"value": 0.98765, "low": 0.9, "high": 0.99999},
                "ece": {"value": 0.01, "if_calibrated": {"low": 0.002, "high": 0.009, "p": 0.01}},
                "coverage": {"value": 0.91, "low": 0.9, "high": 0.92}},
}  # fmt: skip


def config(**changes):
    given = {
        "outputs": ["cdm", "axion"], "pixel_scale": 0.08, "unit": "e-/s", "recipe": RECIPE,
        "data": {"source": "preset:x", "seed": 3, "train_images": 98765}, "measured": MEASURED,
    }  # fmt: skip
    return ModelConfig({"name": "classify"}, {}, {}, 2, 64, **given | changes)


def test_card_says_what_the_record_says():
    lines = model_card(config(), TASK, RECORD, name="substructure-x").splitlines()
    assert lines[:28] == [
        "---",
        "library_name: darklens",
        "license: mit",
        "tags: [gravitational-lensing, dark-matter, classify]",
        "---",
        "# substructure-x",
        "",
        "A small network.",
        "",
        "- **Predicts**: cdm, axion",
        "- **Images**: 2 × 64 × 64, 0.08″/pixel, e-/s",
        "- **Trained on**: preset:x (seed 3), 98,765 training images",
        "- **Training**: 7 epochs, 12,345 images seen, 99 s on a machine, 4 cores (3 of its cores used), 32-true; the best "
        "epoch by validation loss is 5",
        "- **Command**: `darklens train mine`",
        "- **Parameters**: 1,234,567",
        "- **Source**: darklens",
        "",
        "## Measured",
        "",
        "On 2,500 images of preset:x (seed 9), none of them used in training; 95% bootstrap intervals; “if calibrated”: "
        "the central 95% of what an exactly calibrated model of the same probabilities would show on as many images. "
        "Prediction sets promise 90%.",
        "",
        "| figure | value | 95% interval |",
        "| --- | --- | --- |",
        "| macro auc | 0.9877 | 0.9000 – 1.0000 |",
        "| ece | 0.0100 | 0.0020 – 0.0090 if calibrated |",
        "| coverage | 0.9100 | 0.9000 – 0.9200 |",
        "",
        "## Intended use",
    ]
    assert lines[29] == (
        "To tell cdm, axion in images like those above, to compare networks with, and to start from (`darklens finetune`)."
    )
    assert lines[-6:] == [
        "```python", "import darklens", "", 'model = darklens.load("substructure-x")', "model.predict(images)", "```",
    ]  # fmt: skip
    assert {"## Limits", "## Use"} <= set(lines)


def test_card_of_an_earlier_version_gives_the_calibration_error_without_its_interval():
    figures = {"ece": {"value": 0.01, "low": 0, "high": 1, "n": 5}}
    card = model_card(config(measured=MEASURED | {"figures": figures}), TASK, RECORD)
    assert "| ece | 0.0100 | – |\n" in card
    assert "95% bootstrap intervals.\n" in card


def test_card_of_a_model_without_name_scale_unit_or_figures():
    training = {key: value for key, value in TRAINING.items() if key != "threads"} | {"best_epoch": None}
    recipe = RECIPE | {"source": "A paper"}
    card = model_card(
        config(pixel_scale=None, unit=None, measured={}, recipe=recipe), TASK, RECORD | {"training": training}
    )
    assert "# mine/demo\n" in card
    assert "- **Images**: 2 × 64 × 64, an unknown pixel scale, unknown unit\n" in card
    assert "99 s on a machine, 4 cores (all of its cores used), 32-true\n" in card
    assert "- **Source**: A paper\n" in card
    assert "## Measured" not in card
    assert "- **Source**: A paper\n\n## Intended use\n\nTo tell" in card
    assert 'darklens.load("path/to/this/folder")' in card
    assert card.endswith("```\n")


@pytest.mark.parametrize(("name", "tag"), [("regress", "regress"), ("folder/my_task.py:Mine", "Mine")])
def test_tag_of_a_task_is_its_name(name, tag):
    found = model_card(ModelConfig({"name": name}, {}, {}, 1, 4, recipe=RECIPE, data=config().data), TASK, RECORD)
    assert f"tags: [gravitational-lensing, dark-matter, {tag}]" in found


def test_card_of_a_finder_counts_lenses_and_others():
    task = Find(class_names=["other", "lens"], share=round(12_345 / 98_765, 8))
    measured = MEASURED | {"labels": {"lens": 801, "other": 1699}}
    found = model_card(config(measured=measured), task, RECORD)
    assert "98,765 training images: 12,345 lens, 86,420 other\n" in found
    assert "On 2,500 images of preset:x (seed 9: 801 lens, 1,699 other), none of them used in training" in found


@pytest.mark.parametrize("name", [name for name in shipped_models() if name.startswith("finding-")])
def test_cards_of_shipped_finders_say_what_was_trained_and_tested_on(name):
    folder = shipped_models()[name]
    shipped = read_config(folder)
    card = (folder / "README.md").read_text("utf-8")
    assert card == model_card(
        shipped, load_task(folder, shipped), read_json(folder / "run.json", ModelError), name=name
    )
    counts, preset = shipped.measured["labels"], load_preset(name)
    assert sum(counts.values()) == shipped.measured["n"] == 20_480
    rounds, rest = divmod(20_480, len(preset.turns))
    turns = Simulator(preset, 2001).catalog(64)["label"].to_list()[: len(preset.turns)]
    assert counts["lens"] == rounds * turns.count("lens") + turns[:rest].count("lens")
    assert "27,648 training images: 9,216 lens, 18,432 nonlens\n" in card
