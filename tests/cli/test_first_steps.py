"""First steps as strangers take them: commands that are printed are run, mistakes end in one line."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from astropy.io import fits
from conftest import EXAMPLES
from PIL import Image

from darklens.cli import main
from darklens.cli.parser import plain_arguments
from darklens.data.dataset import DatasetWriter, read_dataset
from darklens.data.layouts import open_data
from darklens.errors import DataError
from darklens.paths import check_absent, check_writable, only_one
from darklens.training import fit as fitting
from darklens.training.train import resume

TINY = "--network.widths=[8,8] --network.blocks=[1,1] --trainer.epochs 1 --trainer.batch_size 32"


@pytest.fixture
def verb(capsys, monkeypatch, tmp_path):
    """Run a command line in an empty folder; returns what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(line, status=0):
        code = 0
        try:
            main(shlex.split(line.removeprefix("darklens ")))
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        assert code == status, (line, out, err)
        return out + err

    return run


def next_command(printed):
    return re.findall(r"^next: (.*)$", printed, re.MULTILINE)[-1]


def test_each_command_that_is_printed_runs(verb, tmp_path):
    """From a simulation to a report, by what the verb before printed; appended options only make it cheaper."""
    train = next_command(verb("simulate model-3-noisy --count 192 --out 'data sets/my train'"))
    assert train.startswith("darklens train substructure/demo --data 'data sets/my train' --out 'runs/my train'")
    looked = next_command(verb("look 'data sets/my train'"))
    assert looked == train
    evaluate = next_command(verb(f"{train} {TINY}"))
    assert evaluate == "darklens evaluate 'runs/my train' --data preset:model-3-noisy"
    report = next_command(verb(f"{evaluate} --count 96"))
    verb(report)
    page = (tmp_path / "report.html").read_text()
    again = re.search(r"Run it again.*?<pre>(.*?)</pre>", page, re.DOTALL)[1].replace("&#39;", "'").splitlines()
    assert len(again) == 3
    shutil.rmtree(tmp_path / "runs")
    (tmp_path / "report.html").unlink()
    for line in again:
        verb(line)
    assert (tmp_path / "report.html").is_file()


def test_lenses_are_searched_for_where_scenes_have_them(verb, tmp_path):
    """From scenes to a report of a search, at the prior that is asked for."""
    train = next_command(verb("simulate finding-hsc --count 192 --out scenes"))
    assert train.startswith("darklens train finding/demo --data scenes --out runs/scenes")
    looked = verb("look scenes")
    assert next_command(looked) == train
    search = re.search(r"^to search for lenses: (darklens find scenes --model finding-hsc .*)$", looked, re.MULTILINE)[
        1
    ]
    assert "192 images ranked" in verb(search)
    evaluate = next_command(verb(f"{train} {TINY} --task.prior 0.02"))
    report = next_command(verb(f"{evaluate} --count 96"))
    verb(report)
    assert np.load(tmp_path / "runs/scenes/evaluations/finding-hsc/pictures.npy").shape[1:] == (64, 64, 3)
    page = (tmp_path / "report.html").read_text()
    for text in ("TPR10", "Purity at a prior of 0.02", "Candidates per lens at 0.02"):
        assert text in page
    predicted = verb("predict runs/scenes scenes --out found.csv")
    assert "probabilities are for objects of which a fraction of 0.02 are lenses (--prior states another)" in predicted


def test_after_an_import_with_a_split_its_test_images_are_evaluated(verb, dataset, tmp_path):
    imported = verb(f"import {dataset} --out mine --split 0.6,0.2,0.2")
    evaluate = next_command(verb(f"{next_command(imported)} {TINY}"))
    assert evaluate == "darklens evaluate runs/mine --data mine"
    assert "runs/mine on 39 images" in verb(evaluate)


def test_own_preset_and_code_are_pointed_to(verb, tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: model-3-noisy\n")
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\nclass Net(nn.Sequential):\n    def __init__(self, channels, outputs):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(64 * 64, outputs))\n"
    )
    (tmp_path / "own.py").write_text(
        "def sis(rng, lens):\n    return {'profile': 'sis', 'x': [0.5], 'y': [0.5], 'theta_E': [0.1]}\n"
    )
    verb("simulate own.py:sis --count 64 --out lenses")
    train = "train substructure/demo --data lenses --out own --trainer.epochs 1 --trainer.batch_size 16"
    evaluate = next_command(verb(train))
    assert evaluate == "darklens evaluate own --data preset:own.py:sis"
    verb("simulate mine.yaml --count 64 --out images")
    train = "train substructure/demo --data images --out run --network.name net.py:Net --trainer.epochs 1"
    train += " --trainer.batch_size 16 --preprocessing.crop 64"
    assert next_command(verb(train)) == "darklens evaluate run --data preset:mine.yaml --trust_code true"
    shutil.rmtree(tmp_path / "run" / "model")
    (tmp_path / "net.py").rename(tmp_path / "moved.py")
    with pytest.raises(
        AssertionError, match=r"net\.py: there is no such file of code, .*; the run keeps what it was started"
    ):
        verb(f"{train} --resume")


def test_folder_without_test_images_is_told_how_to_come_by_some(verb, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cdm", "no_sub"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(40):
            np.save(tmp_path / "mine" / name / f"{i}.npy", rng.normal(9, 1, (32, 32)))
    (tmp_path / "mine" / "cdm" / "3.npy").write_bytes((tmp_path / "mine" / "cdm" / "4.npy").read_bytes())
    printed = verb(f"train substructure/demo --data mine --out run {TINY} --preprocessing.crop null")
    assert "mine has no test images; keep some apart, and train on the rest:" in printed
    apart = next_command(printed)
    assert apart == "darklens import mine --out mine-split --split 0.8,0.1,0.1"
    verb(apart)
    looked = verb("look mine-split")
    assert all(part in looked for part in ("train 64", "test 8", "validation 8"))


def test_images_without_classes_are_predicted_with_the_catalogue_that_was_given(verb, tmp_path):
    (tmp_path / "cutouts").mkdir()
    for i in range(3):
        image = np.random.default_rng(i).random((64, 64)).astype(np.float32)
        image[0, 0] = np.nan
        fits.writeto(tmp_path / "cutouts" / f"o{i}.fits", image)
    pl.DataFrame({"object_id": ["o0", "o1", "o2"], "ra": [1.5, 2.5, 3.5], "dec": [4.0, 5.0, 6.0]}).write_csv("t.csv")
    printed = verb("look cutouts --catalog t.csv")
    assert "--mask sets them to 0" in printed
    predict = next_command(printed)
    assert re.fullmatch(
        r"darklens predict substructure-\S+ cutouts --out predictions.csv --catalog t.csv --mask true", predict
    )
    verb(predict)
    table = pl.read_csv("predictions.csv")
    assert table["ra"].to_list() == [1.5, 2.5, 3.5]
    assert table["dec"].to_list() == [4.0, 5.0, 6.0]
    assert "set to 0" in verb("look cutouts --mask")
    assert "3 images" in verb("import cutouts --out stored --mask --catalog t.csv")
    assert np.isfinite(read_dataset(tmp_path / "stored").images[:]).all()


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ("look x --mask", "look x --mask=true"),
        ("look x --mask true --out y", "look x --mask=true --out y"),
        ("look --mask x", "look --mask=true x"),
        ("look x --mask=false", "look x --mask=false"),
        ("look x --mask False", "look x --mask=false"),
        ("predict m --skip no --out x", "predict m --skip=true no --out x"),
        ("train r --data d --out o --dry-run", "train r --data d --out o --dry_run=true"),
        ("predict m a-b.fits --pixel-scale 0.1 --trust-code", "predict m a-b.fits --pixel_scale 0.1 --trust_code=true"),
        ("train r --network.name=my-net.py:Net", "train r --network.name=my-net.py:Net"),
        ("benchmark substructure --pretrained false", "benchmark substructure --pretrained=false"),
    ],
)
def test_switches_and_hyphens(given, plain):
    assert plain_arguments(given.split()) == plain.split()


def test_evaluate_takes_a_preset_and_never_training_or_validation_images(verb, run, monkeypatch):
    from darklens.workflows import evaluate

    seeds = []
    fresh = evaluate.simulate_cutouts
    monkeypatch.setattr(evaluate, "simulate_cutouts", lambda *a, **k: seeds.append(a[2]) or fresh(*a, **k))
    printed = verb(f"evaluate {run} --data preset:model-3-noisy --count 96")
    assert "on 96 images" in printed
    assert seeds == [3 * 2**30], "which no dataset folder, training or validation has"
    record = json.loads((run / "evaluations" / "model-3-noisy" / "evaluation.json").read_text())
    assert record["command"] == f"darklens evaluate {run} --data preset:model-3-noisy --count 96"
    assert "no preset 'modle'" in verb(f"evaluate {run} --data preset:modle", status=2)


def test_documented_layout_names_are_accepted(class_folders, tmp_path):
    for name in ("splits", "lens-finding", "classes"):
        assert open_data(class_folders, layout=name).info.layout == "classes"
    np.save(tmp_path / "a.npy", np.zeros((5, 8, 8)))
    assert open_data(tmp_path / "a.npy", layout="array").images.shape == (5, 1, 8, 8)
    assert open_data(EXAMPLES / "euclid", layout="fits").info.layout == "fits"
    with pytest.raises(DataError, match=r"no layout 'nothing'; there are dataset, .*splits, lens-finding, fits, array"):
        open_data(class_folders, layout="nothing")


def test_recipe_named_without_its_folder(verb):
    printed = verb("train resnet18 --data x --out y", status=2)
    assert "Did you mean 'mass/resnet18' or 'substructure/resnet18'?" in printed


def test_bands_without_names_go_by_number(verb, run, tmp_path):
    (tmp_path / "pngs").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("pngs/a.png")
    np.save("green.npy", pixels[..., 1])
    verb(f"predict {run} pngs --band 1 --out by_number.csv")
    verb(f"predict {run} green.npy --out alone.csv")
    first, second = (pl.read_csv(name)["p_cdm"][0] for name in ("by_number.csv", "alone.csv"))
    assert first == pytest.approx(second, rel=1e-6)
    assert "no band z; there are R, G, B" in verb(f"predict {run} pngs --band z --out no.csv", status=2)


def test_predictions_are_sorted_and_what_is_unlike_comes_last(verb, run, test_set, tmp_path):
    stored = read_dataset(test_set)
    np.save("strange.npy", np.random.default_rng(0).normal(0, 1e4, (5, 64, 64)))
    verb(f"predict {run} {test_set} strange.npy --sort p_axion --out p.csv")
    table = pl.read_csv("p.csv")
    usual, strange = (table.filter(pl.col("outlier") == flag) for flag in (False, True))
    assert table["outlier"].to_list() == [False] * len(usual) + [True] * len(strange)
    assert {"strange:0", "strange:1", "strange:2"} <= set(strange["id"])
    for part in (usual, strange):
        assert part["p_axion"].to_list() == sorted(part["p_axion"], reverse=True)
    matched = table.filter(pl.col("path").str.starts_with("preset"))
    truth = dict(zip(stored.ids, stored.catalog["theta_E"], strict=True))
    assert [truth[i] for i in matched["id"].cast(pl.String)] == pytest.approx(matched["theta_E"].to_list())
    assert "cannot be sorted by 'p_vortex'; columns of numbers are p_no_sub" in verb(
        f"predict {run} {test_set} --sort p_vortex --out q.csv", status=2
    )
    assert not Path("q.csv").exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("simulate model-1 --out o --seed -1", "--seed is a whole number from 0 to 4294967295; got -1"),
        ("simulate model-1 --out o --count 99999999999999999999", "at most 1,000,000,000"),
        ("simulate model-1 --out o --device foo", "--device foo: not to be had here; there is cpu"),
        ("predict RUN '' --out p.csv", "an argument is empty"),
        ("predict RUN SET --out p.csv --bands ²", "no band ²"),
        ("predict RUN SET --out p.csv --bands hst-wfc3-f160w,hst-wfc3-f160w", "band hst-wfc3-f160w is asked for twice"),
        ("predict RUN SET --out p.csv --crop 999999", "--crop takes a number of pixels, 1 to 16384; got 999999"),
        ("predict RUN SET --out p.csv --pixel_scale 1e-300", "say the right one with --pixel_scale"),
        ("predict RUN SET --out p.csv --catalog none.parquet", "none.parquet: there is no such file"),
        ("train five.yaml --data SET --out o", "network is 5; expected"),
        ("train members.yaml --data SET --out o", "members is a list of recipes; got 5"),
        ("train itself.yaml --data SET --out o", "itself.yaml: is one of its own members"),
        ("preview deep.yaml", "deep.yaml: not valid YAML"),
        ("benchmark substructure --recipes substructure/demo --budget 1epochs --out board", "board/benchmark.json"),
    ],
)
def test_values_that_cannot_be_end_in_one_line(verb, run, test_set, line, said, tmp_path):
    (tmp_path / "five.yaml").write_text("task: classify\nnetwork: 5\n")
    (tmp_path / "members.yaml").write_text("task: classify\nmembers: 5\n")
    (tmp_path / "itself.yaml").write_text("task: classify\nmembers: [itself.yaml]\n")
    (tmp_path / "deep.yaml").write_text("[" * 20_000)
    (tmp_path / "board").mkdir()
    (tmp_path / "board" / "benchmark.json").write_text("{")
    printed = verb(line.replace("RUN", str(run)).replace("SET", str(test_set)), status=2)
    assert re.search(said, printed), printed
    assert "Traceback" not in printed


def test_columns_that_bear_the_names_of_predictions_are_kept_apart(verb, run, tmp_path):
    np.save("stack.npy", np.zeros((6, 64, 64), dtype=np.float32))
    columns = {"id": [f"stack:{i}" for i in range(6)], "p_axion": [7.0] * 6, "catalog_p_axion": [8.0] * 6}
    pl.DataFrame(columns | {"raw": [b"x"] * 6}).write_parquet("c.parquet")
    assert "left out columns that CSV cannot hold: raw" in verb(
        f"predict {run} stack.npy --catalog c.parquet --out p.csv"
    )
    table = pl.read_csv("p.csv")
    assert max(table["p_axion"]) < 1
    assert set(table["catalog_p_axion"]) == {7.0}
    assert set(table["catalog_catalog_p_axion"]) == {8.0}


def test_run_in_a_folder_that_is_called_resume_goes_on(verb, dataset, tmp_path, monkeypatch):
    class Interrupt(fitting.EpochLines):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "EpochLines", Interrupt)
        longer = f"{TINY} --trainer.epochs 3 --trainer.patience 2"
        line = f"train substructure/demo --data {dataset} --out 'to --resume x' {longer}"
        printed = verb(line, status=130)
    signal.signal(signal.SIGINT, handler)
    command = printed.strip().rpartition("to go on: ")[2]
    assert command.endswith(" --resume")
    assert "trained in" in verb(command), "with patience too"


def test_checkpoint_that_was_cut_off_is_named(verb, dataset, run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(copy / "model")
    checkpoint = copy / "checkpoints" / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:500])
    with pytest.raises(DataError, match=r"last\.ckpt: cannot be read as a checkpoint; bring a copy back"):
        resume(copy)


def test_model_that_decides_nothing_is_called_so(verb, run, test_set):
    """After two epochs on 192 images every probability is a third."""
    assert re.search(
        r"no class stands out in any image: the highest probability is 0.3\d\d, and guessing gives 0.333",
        verb(f"predict {run} {test_set} --out p.csv"),
    )
    assert "no class stands out" not in verb(f"predict substructure-model-3-noisy {test_set} --out q.csv")


def test_reader_that_goes_away_is_no_error():
    """``darklens recipes | head -1``: exit as other programs do, without a traceback."""
    started = subprocess.Popen(
        [sys.executable, "-m", "darklens", "recipes"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    started.stdout.close()
    error = started.stderr.read()
    assert started.wait() == 141
    assert error == ""


@pytest.mark.parametrize(
    "line", ["simulate model-1 --out o", "train substructure/demo --data . --out o", "import . --out o"]
)
def test_place_where_nothing_can_be_made(line, verb, tmp_path):
    (tmp_path / "file").write_text("")
    printed = verb(line.replace("--out o", "--out file/below/o"), status=2)
    assert re.search(r"file/below/o: cannot be written: \S*/file is a file, not a folder", printed)


def test_folder_without_permission_is_named():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        if os.geteuid() == 0:
            os.seteuid(65534)  # nobody
        else:
            os.chmod(folder, 0o555)
        try:
            with pytest.raises(DataError, match=r"cannot be written: no permission to write in .*"):
                check_writable(Path(folder) / "a" / "b")
        finally:
            os.seteuid(os.getuid())


def test_second_simulation_into_one_folder_is_told_who_has_it(verb, tmp_path):
    with only_one(tmp_path / "set.partial", "writing images"):
        printed = verb("simulate model-3-noisy --count 64 --out set", status=2)
        assert re.search(rf"set.partial: another process is writing images here \({os.getpid()}, since 20", printed)
        assert printed.strip().count("\n") == 0
    verb("simulate model-3-noisy --count 64 --out set")
    assert sorted(p.name for p in (tmp_path / "set").iterdir()) == ["catalog.parquet", "dataset.json", "images.npy"]


def test_second_training_into_one_folder_is_told_who_has_it(verb, dataset, tmp_path):
    line = f"train substructure/demo --data {dataset} --out run {TINY}"
    with only_one(tmp_path / "run", "training"):
        printed = verb(line, status=2)
        assert re.search(rf"run: another process is training here \({os.getpid()}, since 20.*; wait for it", printed)
        assert (tmp_path / "run" / ".lock").exists(), "what the other has is left alone"
    verb(line)
    assert "holds a run already" in verb(line, status=2)
    with only_one(tmp_path / "run", "training"):
        assert "another process is training here" in verb(line, status=2)


def test_lock_of_a_dead_process_is_no_hindrance(tmp_path):
    code = (
        "import os,sys\nfrom pathlib import Path\nfrom darklens.paths import only_one\n"
        "with only_one(Path(sys.argv[1]), 'training'):\n    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], check=False)
    assert (tmp_path / "run" / ".owner").exists()
    check_absent(tmp_path / "run")
    with only_one(tmp_path / "run", "training"):
        pass


def test_interrupted_training_says_what_is_kept_and_the_command_goes_on(verb, dataset, tmp_path, monkeypatch):
    class Interrupt(fitting.EpochLines):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                raise KeyboardInterrupt

    line = f"train substructure/demo --data {dataset} --out 'my run' {TINY} --trainer.epochs 3"
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "EpochLines", Interrupt)
        printed = verb(line, status=130)
    signal.signal(signal.SIGINT, handler)
    assert "interrupted; 2 epochs are finished, and kept in my run; to go on: darklens train" in printed
    command = printed.strip().rpartition("to go on: ")[2]
    assert command.endswith("--resume")
    assert "trained in" in verb(command)


def test_training_interrupted_at_once_says_that_nothing_is_kept(verb, dataset, tmp_path, monkeypatch):
    class Interrupt(fitting.EpochLines):
        def on_train_epoch_start(self, trainer, pl_module):
            raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(fitting, "EpochLines", Interrupt)
    printed = verb(f"train substructure/demo --data {dataset} --out run {TINY}", status=130)
    signal.signal(signal.SIGINT, handler)
    assert "interrupted before the first epoch was over: nothing is kept; to start anew: darklens train" in printed
    assert not (tmp_path / "run").exists()


def test_interrupted_simulation_says_what_is_kept_and_goes_on(verb, tmp_path, monkeypatch):
    checkpoint = DatasetWriter.checkpoint

    def interrupt(self, done, rows):
        checkpoint(self, done, rows)
        raise KeyboardInterrupt

    line = "simulate model-3-noisy --count 1100 --out set"
    with monkeypatch.context() as patch:
        patch.setattr(DatasetWriter, "checkpoint", interrupt)
        printed = verb(line, status=130)
    assert f"interrupted; 1,024 of 1,100 images are kept in set.partial; to go on: darklens {line}" in printed
    verb(printed.strip().rpartition("to go on: ")[2])
    assert len(read_dataset(tmp_path / "set")) == 1100
