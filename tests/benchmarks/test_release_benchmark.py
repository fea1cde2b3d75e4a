"""Models of the package measured again: figures and card change, and nothing else."""

import json
import shutil

import pytest

from darklens.data.synthesis import simulate_dataset
from darklens.errors import ModelError
from darklens.simulation import load_preset
from darklens.workflows.evaluate import evaluate_run
from darklens.workflows.options import EvaluationOptions

BEFORE = {
    "accuracy": {"value": 0.5, "low": 0.25, "high": 0.75, "n": 64},
    "ece": {"value": 9, "low": 8, "high": 9.5, "n": 64},
}
MEASURED = {"data": "preset:model-3-noisy", "n": 64, "seed": 999, "coverage": 0.8, "figures": BEFORE}


@pytest.fixture
def shipped(run, tmp_path):
    """A model folder as in the package, with figures that are wrong."""
    folder = shutil.copytree(run / "model", tmp_path / "substructure-x")
    shutil.copy(run / "run.json", folder)
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"measured": MEASURED, "unknown": 1}, indent=2) + "\n")
    return folder


def test_figures_and_card_are_measured_again_on_the_same_images(shipped, run, benchmark_module, tmp_path, capsys):
    before = {path.name: path.read_bytes() for path in shipped.iterdir()}
    benchmark_module("release").measure_again(shipped)
    after = {path.name: path.read_bytes() for path in shipped.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"config.json", "README.md"}
    assert after.keys() == before.keys()
    old, new = (json.loads(each["config.json"]) for each in (before, after))
    assert list(new) == list(old)
    assert {key for key in old if old[key] != new[key]} == {"measured"}
    test = simulate_dataset(load_preset("model-3-noisy"), 64, 999, out=tmp_path / "test")
    copy = shutil.copytree(run, tmp_path / "copy")
    expected = evaluate_run(copy, test, EvaluationOptions("test", coverage=0.8))["figures"]
    assert new["measured"] == MEASURED | {"figures": expected}
    card = after["README.md"].decode()
    assert "# substructure-x\n" in card
    assert "On 64 images of preset:model-3-noisy (seed 999)" in card
    assert f"| accuracy | {expected['accuracy']['value']:.4f} | {expected['accuracy']['low']:.4f} – " in card
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("accuracy ")
    assert printed[0].endswith(", formerly 0.5000 [0.2500, 0.7500]")


def test_model_that_was_not_measured_is_refused(shipped, benchmark_module):
    content = json.loads((shipped / "config.json").read_text())
    (shipped / "config.json").write_text(json.dumps(content | {"measured": {}}))
    with pytest.raises(ModelError, match="records no images that it was measured on"):
        benchmark_module("release").measure_again(shipped)


def test_command_line_needs_a_run_or_again(benchmark_module, monkeypatch, capsys):
    release = benchmark_module("release")
    for words, said in ((["x"], "a run is needed, or --again"), (["x", "run", "--again"], "--again takes no run")):
        monkeypatch.setattr("sys.argv", ["release.py", *words])
        with pytest.raises(SystemExit):
            release.main()
        assert said in capsys.readouterr().err
