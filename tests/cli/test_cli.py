import json
import re
import subprocess
import sys

import pytest

from darklens.cli import main
from darklens.cli.interrupted import kept
from darklens.workflows import doctor
from darklens.workflows.doctor import known_bad

LIGHT = {
    "--help": (0, "VERB"),
    "--version": (0, "darklens 0."),
    "train --help": (0, "--trainer.epochs"),
    "presets": (0, "fair-hst"),
    "recipes": (0, "substructure/resnet18"),
    "simulate modle-1 --out x": (2, "Did you mean 'model-1'"),
    "simulate model-1 --count 0 --out x": (2, "--count must be at least 1"),
    "simulate model-1": (2, "out"),
    "train substructure/mobilenetv3 --data x --out y": (2, "Did you mean 'substructure/mobilenetv3-small'"),
    "train substructure/demo --data nowhere --out y": (2, "nowhere: there is no such file"),
    "train substructure/demo --data preset:modle-1 --out y": (2, "Did you mean 'model-1'"),
    "train substructure/demo --data . --out y --trainer.epoch 3": (2, "trainer.epoch"),
    "train substructure/demo --data . --out y --trainer.epochs x": (2, "trainer.epochs"),
    "import nowhere --out y": (2, "there is no such file"),
    "import . --out y --split 1,2": (2, "--split takes three numbers"),
    "evaluate nowhere --data .": (2, "there is no such file"),
    "predict nowhere . --out a.csv": (2, "there is no such file"),
    "predict . . --out a.txt": (2, "a table ends in .parquet, .csv or .fits"),
    "report nowhere": (2, "there is no such file"),
    "look nowhere": (2, "there is no such file"),
    "preview nothing": (2, "no preset 'nothing'"),
    "frobnicate": (2, "frobnicate"),
}


@pytest.mark.parametrize(("line", "status", "said"), [(k, *v) for k, v in LIGHT.items()])
def test_help_lists_and_argument_errors_load_no_torch(line, status, said, tmp_path):
    """What makes them answer at once: PyTorch, polars and matplotlib stay out."""
    (tmp_path / "file").write_text("")
    code = (
        "import sys\nfrom darklens.cli import main\n"
        "try:\n    main(sys.argv[1:])\n    code = 0\nexcept SystemExit as stop:\n    code = stop.code or 0\n"
        "heavy = {'torch', 'lightning', 'polars', 'matplotlib', 'astropy', 'timm'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))\nsys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *line.split()], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    assert said in re.sub(r"\s+", " ", done.stdout + done.stderr)
    assert "HEAVY []" in done.stdout


def run_verb(capsys, line):
    main(line.split())
    return capsys.readouterr().out


def test_verbs_from_simulation_to_report(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "MiB, at most" in run_verb(capsys, "simulate model-3-noisy --count 300 --out train --dry-run")
    assert not (tmp_path / "train").exists()
    assert "300 images" in run_verb(capsys, "simulate model-3-noisy --count 300 --out train")
    run_verb(capsys, "simulate model-3-noisy --count 96 --seed 1 --out test")
    tiny = "--network.widths=[8,8] --network.blocks=[1,1] --trainer.epochs 1 --trainer.batch_size 64"
    train = f"train substructure/demo --data train --out run {tiny}"
    assert "about" in run_verb(capsys, f"{train} --dry-run")
    assert "darklens evaluate run" in run_verb(capsys, train)
    with pytest.raises(SystemExit):
        main(train.split())
    assert "holds a run already; --resume goes on with it" in capsys.readouterr().err
    run_verb(capsys, f"{train} --resume")
    assert "macro_auc" in run_verb(capsys, "evaluate run --data test")
    assert "96 images, 0 skipped" in run_verb(capsys, "predict run test --out p.csv")
    assert "report.html" in run_verb(capsys, "report run --out report.html")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["recipe"]["network"]["widths"] == [8, 8]
    assert "300 images (dataset)" in run_verb(capsys, "import train --out again --split 0.8,0.1,0.1")
    assert "splits: train" in run_verb(capsys, "look again")


def test_doctor_prints_versions_and_knows_what_is_bad(capsys):
    out = run_verb(capsys, "doctor")
    assert re.search(r"torch +\d", out)
    assert "threads" in out
    assert known_bad({"lightning": "2.6.3"})[0].startswith("this lightning is a malicious release")
    assert known_bad({"torch": "2.15.0", "torchvision": "0.22.0"})
    assert not known_bad({"torch": "2.15.0", "torchvision": "0.29.2", "lightning": "2.6.6", "numpy": "2.4.0"})


REQUIRED = [
    "lightning>=2.6.4",
    "numpy>=2.0",
    "scikit-learn>=1.5",
    "torch>=2.7",
    "jsonargparse[signatures]>=4.50",
    "lenstronomy>=99; extra == 'test'",
    "pywin32>=1; sys_platform == 'no-such-system'",
]


def test_doctor_names_what_is_missing_or_too_old_of_the_core_and_how_to_mend_it(capsys, monkeypatch):
    installed = {"darklens": "0.1.0", "numpy": "1.26.4", "torch": "2.15.0"}
    monkeypatch.setattr(doctor, "requires", lambda name: REQUIRED)
    monkeypatch.setattr(doctor, "_version", installed.get)
    out = run_verb(capsys, "doctor")
    assert [line for line in out.splitlines() if line.startswith("!")] == [
        "! lightning is not installed, and darklens needs it: pip install 'lightning>=2.6.4'",
        "! numpy 1.26.4 is installed, but darklens needs another: pip install 'numpy>=2.0'",
        "! scikit-learn is not installed, and darklens needs it: pip install 'scikit-learn>=1.5'",
        "! jsonargparse is not installed, and darklens needs it: pip install 'jsonargparse[signatures]>=4.50'",
    ]
    assert re.search(r"^scikit-learn +not installed$", out, re.MULTILINE)
    assert "no known problems" not in out


def test_doctor_finds_nothing_missing_where_all_of_the_core_is_installed(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "requires", lambda name: REQUIRED)
    out = run_verb(capsys, "doctor")
    assert "no known problems" in out
    assert re.search(r"^bfloat16 ", out, re.MULTILINE)


def test_module_runs():
    done = subprocess.run([sys.executable, "-m", "darklens", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("darklens 0.")


def test_command_line_is_known_while_it_runs_and_not_after(capsys):
    from darklens.commands import given_command

    main(["models"])
    assert given_command.get() is None
    with pytest.raises(SystemExit):
        main(["look", "no/such/folder"])
    assert given_command.get() is None


def test_help_of_a_wrong_option_says_which(capsys):
    for line, message in (
        ("--task.loses 1", "unknown key task.loses; did you mean task.losses?"),
        ("--network.widht 8", "unknown key network.widht; did you mean network.widths?"),
    ):
        with pytest.raises(SystemExit):
            main(["train", "substructure/demo", *line.split(), "--help"])
        assert message in capsys.readouterr().out


def test_what_code_of_ones_own_ends_with_is_one_line(run, test_set, tmp_path, capsys):
    own = tmp_path / "own.py"
    own.write_text(
        "def metric(predicted, truth):\n    return truth / 'x'\n\ndef loss(logits, labels):\n    return logits.nothing\n"
    )
    for line, said in (
        (["evaluate", run, "--data", test_set, "--metrics", f"{own}:metric", "--name", "own"],
         "darklens: own.py, line 2, in metric: ended with TypeError: ufunc"),
        (["train", "substructure/demo", "--data", test_set, "--task.losses", f"[{{name: {own}:loss}}]",
          "--out", tmp_path / "run", "--trainer.batch_size", "16"],
         "darklens: own.py, line 5, in loss: ended with AttributeError"),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in line])
        assert stop.value.code == 2
        assert said in capsys.readouterr().err


def test_resuming_without_the_command_says_which_it_was(tmp_path, capsys):
    for began, again in (("darklens train r --out x", " --resume"), ("darklens train r --resume --out x", "")):
        (tmp_path / "run.json").write_text(json.dumps({"command": began}))
        for line in (["--resume", str(tmp_path)], [str(tmp_path), "--resume"]):
            with pytest.raises(SystemExit) as stop:
                main(["train", *line])
            assert stop.value.code == 2
            said = f"darklens: --resume takes the command again that began the run: {began}{again}\n"
            assert capsys.readouterr().err == said
    (tmp_path / "run.json").write_text("3")
    with pytest.raises(SystemExit):
        main(["train", str(tmp_path), "--resume"])
    assert "with its recipe, --data and --out; run.json keeps it" in capsys.readouterr().err


def test_help_of_a_recipe_says_what_it_changes(capsys):
    with pytest.raises(SystemExit):
        main(["train", "substructure/densenet161", "--help"])
    said = capsys.readouterr().out.split("What substructure/densenet161 says")[1]
    lines = {line.strip() for line in said.splitlines()}
    assert {"--optimizer.name Adam", "--schedule.name step", "--trainer.unfreezing sections"} <= lines
    assert "--preprocessing" not in " ".join(line for line in lines if "crop" in line)


def test_option_of_several_values_is_given_once(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "run", "--data", "x", "--metrics", "a.py:f", "--metrics", "a.py:g"])
    assert "--metrics is given 2 times; say it once, with commas between the values" in capsys.readouterr().err


def test_what_an_interrupted_staged_training_keeps(tmp_path):
    for name in ("0-regress", "1-classify"):
        (tmp_path / "run" / "stages" / name / "checkpoints").mkdir(parents=True)
    (tmp_path / "run/stages/0-regress/checkpoints/last.ckpt").touch()
    assert "1 stage is begun or done" in kept("train", {"out": tmp_path / "run"}, "darklens train x")
    (tmp_path / "run/stages/1-classify/checkpoints/last.ckpt").touch()
    text = kept("train", {"out": tmp_path / "run"}, "darklens train x")
    assert "2 stages are begun or done" in text
    assert text.endswith("to go on: darklens train x --resume")
