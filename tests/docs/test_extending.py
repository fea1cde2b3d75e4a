"""The page on extending, as a stranger would follow it: its files are written, its commands and its tests run."""

import contextlib
import io
import json
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import darklens
from darklens.cli import main
from darklens.errors import RecipeError, UntrustedCodeError
from darklens.tasks.base import options_of
from darklens.training import fit as fitting
from darklens.training.job import read_record
from darklens.training.recipe import load_recipe

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
QUICK = "--trainer.epochs 1 --trainer.batch_size 32 --network.widths [8,8] --network.blocks [1,1]"


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(text) for _, text in found]


def commands() -> list[str]:
    return [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines()]


def quicker(command: str) -> str:
    """The same command with few images, few steps and, where it is the recipe's own, a small network."""
    command = command.replace("--count 3000", "--count 192").replace("--count 960", "--count 96")
    if command.startswith(("darklens train", "darklens finetune", "darklens benchmark")) and "--help" not in command:
        flags = QUICK if "my_network" not in command else QUICK.partition(" --network")[0]
        if command.startswith("darklens benchmark"):
            flags = flags.removeprefix("--trainer.epochs 1 ")
            flags += " --preset model-3-noisy --train_images 192 --test_images 96"
        return f"{command} {flags}"
    return command


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A stranger's folder with all files of the page, after all its commands."""
    place = tmp_path_factory.mktemp("stranger")
    for text in [*blocks("python"), *blocks("yaml")]:
        name = re.match(r"# ([\w.]+)", text)[1]
        with (place / name).open("a", encoding="utf-8") as file:
            file.write(text)
    (place / "texts").mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        np.savetxt(place / "texts" / f"{('cdm', 'no_sub')[i % 2]}_{i}.txt", rng.normal(size=(16, 16)))
    return place


@pytest.fixture(scope="module")
def done(folder):
    """What each command of the page printed."""
    printed = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in commands():
            line = quicker(command)
            if command.startswith("darklens benchmark"):  # in a process of its own, it starts others
                code = [sys.executable, "-m", *shlex.split(line)]
                run = subprocess.run(code, capture_output=True, text=True, check=False)
                assert run.returncode == 0, run.stderr[-2000:]
                printed[command] = run.stdout
                continue
            text = io.StringIO()
            with contextlib.redirect_stdout(text):
                if "--help" in line:
                    with pytest.raises(SystemExit, match="0"):
                        main(shlex.split(line)[1:])
                else:
                    main(shlex.split(line)[1:])
            printed[command] = text.getvalue()
    return printed


def output_of(done, start):
    return next(text for command, text in done.items() if command.startswith(start))


def test_task_of_a_stranger_goes_from_training_to_a_page(folder, done):
    assert "deviance" in output_of(done, "darklens evaluate runs/count")
    record = json.loads((folder / "runs/count/evaluations/test/evaluation.json").read_text())
    assert record["ranking"] == "deviance"
    assert record["metrics"]["bias"] == {"title": "Bias", "unit": "subhalos", "better": "neither", "perfect": 0}
    table = pl.read_csv(folder / "counts.csv")
    rates = pl.read_parquet(folder / "runs/count/evaluations/test/predictions.parquet")
    np.testing.assert_allclose(table["subhalos"], rates["subhalos"], rtol=1e-9)
    number, rate = rates["true"].to_numpy(), rates["subhalos"].to_numpy()
    counted = pl.read_parquet(folder / "test/catalog.parquet")["subhalo_x"].list.len().fill_null(0).to_numpy()
    np.testing.assert_array_equal(number, counted)
    with np.errstate(divide="ignore", invalid="ignore"):
        deviance = 2 * (np.where(number > 0, number * np.log(number / rate), 0) - number + rate)
    assert record["figures"]["deviance"]["value"] == pytest.approx(deviance.mean())
    page = (folder / "count.html").read_text()
    assert "Poisson deviance" in page
    assert page.count("<svg") == 2, "the panel of the task, and the learning curves"
    board = json.loads((folder / "board/leaderboard.json").read_text())
    assert board["ranking"]["title"] == "Poisson deviance"
    assert [row["recipe"] for row in board["rows"]] == ["count"]
    assert read_record(folder / "runs/finer")["start"] == "runs/count"


def test_what_a_task_learns_from_its_targets_is_no_option(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    from my_scaled_task import ScaledCount

    task = ScaledCount().fit(np.array([[2.0], [6.0]]))
    assert task.mean == 4
    assert options_of(ScaledCount) == ["column", "floor"]
    torch.testing.assert_close(
        task.predictions(torch.tensor([[0.0], [1.0]])), torch.tensor([[4.0], [4 * np.e]]).float()
    )
    number = torch.tensor([[8.0]])
    best = task.loss(torch.tensor([[np.log(2)]]), number, 1)
    assert task.loss(torch.tensor([[np.log(2) + 0.1]]), number, 1) > best
    assert task.loss(torch.tensor([[np.log(2) - 0.1]]), number, 1) > best


def test_model_of_a_strangers_task_is_loaded_from_anywhere_with_trust(folder, done, tmp_path, monkeypatch):
    moved = tmp_path / "mailed"
    (folder / "runs/count/model").rename(moved)
    monkeypatch.chdir(tmp_path)
    try:
        with pytest.raises(UntrustedCodeError, match="nothing was run"):
            darklens.load(moved)
        model = darklens.load(moved, trust_code=True)
        values = model.predict(np.load(folder / "test/images.npy")[:5]).values
        assert model.task.floor == 0.01
    finally:
        moved.rename(folder / "runs/count/model")
    expected = pl.read_csv(folder / "counts.csv")["subhalos"].to_numpy()[:5]
    np.testing.assert_allclose(values[:, 0], expected, rtol=1e-4)


def test_code_is_kept_in_the_run_and_a_changed_file_is_not_resumed(folder, done, capsys, monkeypatch):
    kept = folder / "runs/count/code/my_task.py"
    assert kept.read_text() == (folder / "my_task.py").read_text()
    assert list(read_record(folder / "runs/count")["code"]) == ["my_task.py"]
    monkeypatch.chdir(folder)
    train = next(c for c in commands() if c.startswith("darklens train count"))
    line = shlex.split(f"{quicker(train)} --resume")[1:]
    main(line)
    assert "already finished" in capsys.readouterr().out.replace("\n", " ")
    text = (folder / "my_task.py").read_text()
    (folder / "my_task.py").write_text(text + "\n# another thought\n")
    try:
        with pytest.raises(SystemExit):
            main(line)
        assert "my_task.py: was changed since the run began; bring back what is kept" in capsys.readouterr().err
    finally:
        (folder / "my_task.py").write_text(text)


def test_interrupted_training_of_a_strangers_task_resumes_to_the_same_weights(folder, done, monkeypatch):
    monkeypatch.chdir(folder)
    line = f"train count.yaml --data data --trust_code {QUICK.replace('epochs 1', 'epochs 2')}"
    main([*shlex.split(line), "--out", "runs/whole"])
    whole = torch.load("runs/whole/checkpoints/last.ckpt", weights_only=True)["state_dict"]

    class Kill(fitting.EpochLines):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "EpochLines", Kill)
        with pytest.raises(RuntimeError, match="killed"):
            main([*shlex.split(line), "--out", "runs/cut"])
    cut = torch.load("runs/cut/checkpoints/last.ckpt", weights_only=True)
    assert cut["epoch"] == 0
    main([*shlex.split(line), "--out", "runs/cut", "--resume"])
    again = torch.load("runs/cut/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    for name, tensor in whole.items():
        assert torch.equal(tensor, again[name]), name


def test_network_of_a_stranger_has_options_with_help_types_and_near_matches(folder, done, capsys, monkeypatch):
    text = output_of(done, "darklens train substructure/demo --network.name my_network.py:Net --help")
    assert "--network.width int (now 16)  Channels of the convolutions." in text
    assert "--network.kernel int (now 5)  Their side, pixels; an odd number." in text
    assert "--task.losses" in text
    trained = next(out for line, out in done.items() if "--network.width 8" in line)
    (shown,) = (line for line in trained.splitlines() if line.startswith("next: "))
    assert "--trust_code" in shown, "the next command works as it is printed"
    config = json.loads((folder / "runs/own/model/config.json").read_text())
    assert config["network"] == {"name": "my_network.py:Net", "width": 8}
    assert (folder / "runs/own/model/my_network.py").is_file()
    assert (folder / "runs/own/code/my_network.py").is_file()
    monkeypatch.chdir(folder)
    train = "train substructure/demo --network.name my_network.py:Net --data data --out runs/bad "
    bad = {
        "--network.widht 8": "unknown key network.widht; did you mean network.width?",
        "--network.blocks 8": "unknown key network.blocks; it takes width, kernel",
        "--network.width wide": "network.width is 'wide'; expected int",
    }
    for flags, message in bad.items():
        with pytest.raises(SystemExit):
            main(shlex.split(train + flags))
        assert message in capsys.readouterr().err
        assert not (folder / "runs/bad").exists()


def test_loss_and_optimiser_of_a_stranger_are_used_and_kept(folder, done):
    assert list(read_record(folder / "runs/loss")["code"]) == ["my_loss.py"]
    assert list(read_record(folder / "runs/sign")["code"]) == ["my_optimizer.py"]
    for run, name in (("loss", "my_loss.py"), ("sign", "my_optimizer.py")):
        assert (folder / "runs" / run / "model" / name).is_file(), "what further training needs travels with the model"
    darklens.load(folder / "runs/sign")  # predicting runs no optimiser


def test_metric_of_a_stranger_stands_among_the_others(folder, done):
    record = json.loads((folder / "runs/own/evaluations/brier/evaluation.json").read_text())
    table = pl.read_parquet(folder / "runs/own/evaluations/brier/predictions.parquet")
    p = table.select("p_no_sub", "p_cdm", "p_axion").to_numpy()
    truth = np.array([["no_sub", "cdm", "axion"].index(name) for name in table["true"]])
    expected = ((p - np.eye(3)[truth]) ** 2).sum(1).mean()
    figure = record["figures"]["brier"]
    assert figure["value"] == pytest.approx(expected)
    assert figure["low"] < expected < figure["high"]
    assert record["metrics"]["brier"]["title"] == "Brier score"
    assert "--metrics my_metric.py:brier" in record["command"]


def test_reader_of_a_stranger_serves_every_verb(folder, done):
    assert "layout: text" in output_of(done, "darklens look texts")
    stored = json.loads((folder / "imported/dataset.json").read_text())
    assert stored["classes"] == ["cdm", "no_sub"]
    catalog = pl.read_parquet(folder / "imported/catalog.parquet")
    images = np.load(folder / "imported/images.npy")
    for row, name in enumerate(catalog["id"]):
        np.testing.assert_allclose(images[row, 0], np.loadtxt(folder / "texts" / f"{name}.txt"), rtol=1e-6)


def test_tests_of_the_page_pass(folder):
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *sorted(p.name for p in folder.glob("test_*.py"))],
        cwd=folder, capture_output=True, text=True, check=False, env=None,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-3000:]
    assert "7 passed" in run.stdout


def test_recipes_of_the_page_are_what_they_say(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert load_recipe("changed.yaml").trainer.epochs == 20
    assert load_recipe("wide.yaml").network_options["widths"] == [64, 128, 256]
    staged = load_recipe("staged.yaml")
    assert [(part.task["name"], part.trainer.epochs) for part in staged.parts()] == [("regress", 2), ("classify", 4)]
    assert [stage.get("data") for stage in staged.stages] == ["preset:model-3-noisy", None]
    with pytest.raises(RecipeError, match="unknown key stage; did you mean stages"):
        load_recipe("staged.yaml", {"stage": []})


def test_stages_are_trained_one_from_the_other(folder, done, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    text = (
        (folder / "staged.yaml")
        .read_text()
        .replace('"preset:model-3-noisy"', "data")
        .replace("epochs: 4", "epochs: 1")
        .replace("size: 64", "size: 32")
    )
    (folder / "short.yaml").write_text(text.replace("[32, 64, 128]", "[8, 8]").replace("[0, 1, 1]", "[1, 1]"))
    line = "train short.yaml --data data --out runs/staged --trainer.precision 32-true"
    main(shlex.split(line))
    runs = sorted(path.name for path in (folder / "runs/staged/stages").iterdir())
    assert runs == ["0-regress", "1-classify"]
    record = read_record(folder / "runs/staged/stages/1-classify")
    assert record["start"] == str(Path("runs/staged/stages/0-regress"))
    assert list(darklens.load("runs/staged").classes) == ["no_sub", "cdm", "axion"]
    assert read_record(folder / "runs/staged")["training"]["epochs"] == 3
    main(shlex.split("evaluate runs/staged --data test"))
    assert "macro_auc" in capsys.readouterr().out
    main(shlex.split(f"{line} --resume"))
    assert "already finished" in capsys.readouterr().out.replace("\n", " ")
