"""Which images are evaluated, and what is kept of them."""

import json
import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from conftest import TINY

from darklens.data.importing import import_data
from darklens.data.layouts import open_data
from darklens.data.synthesis import simulate_dataset
from darklens.errors import DarklensError, DataError, UserCodeError
from darklens.inference.model import load_model
from darklens.report.page import differences, read_run, write_report
from darklens.simulation import Simulator, load_preset
from darklens.tasks.classify import Classify
from darklens.training.job import Job
from darklens.training.recipe import load_recipe
from darklens.training.train import train
from darklens.workflows.evaluate import evaluate_run
from darklens.workflows.options import EvaluationOptions


@pytest.fixture(scope="module")
def split(dataset, tmp_path_factory):
    """The dataset with half for training, a fifth for validation and the rest for the test, and a run on it."""
    folder = tmp_path_factory.mktemp("split") / "data"
    import_data(open_data(dataset), folder, fractions={"train": 0.5, "validation": 0.2, "test": 0.3})
    recipe = load_recipe("substructure/demo", TINY | {"trainer.epochs": 1})
    return folder, train(Job(recipe, str(folder)), folder.parent / "run")


def fresh_copy(run, path):
    """A copy without evaluations: other tests may have left some in a run that all share."""
    return shutil.copytree(run, path, ignore=shutil.ignore_patterns("evaluations"))


def predictions(run, name):
    return pl.read_parquet(run / "evaluations" / name / "predictions.parquet")


def test_of_a_dataset_with_splits_only_test_rows_count(split):
    folder, run = split
    record = evaluate_run(run, folder, EvaluationOptions("held-out"))
    marked = open_data(folder).catalog.filter(split="test")
    assert record["n"] == len(marked)
    table = predictions(run, "held-out")
    assert table["id"].to_list() == marked["id"].to_list()
    assert table["true"].to_list() == marked["label"].to_list()
    assert set(table["path"]) == {str(folder)}, "where the images are, not what they were simulated from"


def test_images_without_a_label_do_not_count(run, test_set, tmp_path):
    folder = shutil.copytree(test_set, tmp_path / "partly")
    catalog = pl.read_parquet(folder / "catalog.parquet")
    labels = [None if i % 5 == 2 else label for i, label in enumerate(catalog["label"])]
    catalog.with_columns(pl.Series("label", labels)).write_parquet(folder / "catalog.parquet")
    own = fresh_copy(run, tmp_path / "run")
    assert evaluate_run(own, folder)["n"] == 96 - 19
    assert predictions(own, "partly")["true"].to_list() == [label for label in labels if label is not None]


def test_training_images_are_refused_by_checksum_and_by_name(run, dataset, class_folders, tmp_path):
    with pytest.raises(DataError, match="these are the images the model was trained on"):
        evaluate_run(run, dataset)
    renamed = shutil.copytree(dataset, tmp_path / "renamed")
    with pytest.raises(DataError, match="these are the images the model was trained on"):
        evaluate_run(run, renamed)
    many = tmp_path / "folders"
    for i, path in enumerate(p for p in sorted(class_folders.rglob("*.npy")) for _ in range(3)):
        (many / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, many / path.parent.name / f"{i}.npy")
    options = TINY | {"trainer.epochs": 1, "trainer.batch_size": 4}
    own = train(Job(load_recipe("substructure/demo", options), str(many)), tmp_path / "own")
    with pytest.raises(DataError, match="these are the images the model was trained on"):
        evaluate_run(own, many)
    again = import_data(open_data(many), tmp_path / "again", fractions={"train": 0.6, "validation": 0.2, "test": 0.2})
    with pytest.raises(DataError, match=r"\d of \d images with identifiers of training images are the same images, "):
        evaluate_run(own, again)
    for path in many.rglob("*.npy"):
        path.rename(path.with_name(f"new-{path.name}"))
    assert evaluate_run(own, many)["n"] == 36, "of the same folder, but other files"


def test_images_of_chosen_classes_are_evaluated_under_a_name_that_any_system_takes(run, tmp_path):
    copy = fresh_copy(run, tmp_path / "run")
    record = evaluate_run(copy, "preset:model-3-noisy:no_sub,cdm", EvaluationOptions(count=64))
    assert record["name"] == "model-3-noisy-no_sub,cdm"
    assert set(predictions(copy, record["name"])["label"]) == {"no_sub", "cdm"}


def test_fresh_images_are_of_no_seed_that_the_model_has_seen(run, tmp_path):
    copy = fresh_copy(run, tmp_path / "run")
    record = evaluate_run(copy, "preset:model-3-noisy", EvaluationOptions("fresh", count=64))
    expected = Simulator("model-3-noisy", 3 * 2**30).catalog(64)
    assert predictions(copy, "fresh")["theta_E"].to_list() == expected["theta_E"].to_list()
    assert record["n"] == 64
    assert "--count 64" in record["command"]


def test_simulated_images_of_a_seed_that_was_trained_on_are_refused_whatever_their_number(run, tmp_path):
    copy = fresh_copy(run, tmp_path / "run")
    preset = load_preset("model-3-noisy")
    more = simulate_dataset(preset, 32, 1, out=tmp_path / "more")  # the training's has the seed 1
    with pytest.raises(DataError, match=r"simulated images of a preset and a seed \(1\) that the model was trained or"):
        evaluate_run(copy, more)
    others = simulate_dataset(preset, 32, 2, out=tmp_path / "others")
    assert evaluate_run(copy, others)["n"] == 32


def test_kept_pictures_are_those_of_their_captions(run, test_set, tmp_path):
    copy = fresh_copy(run, tmp_path / "run")
    record = evaluate_run(copy, test_set, EvaluationOptions("t"))
    folder = copy / "evaluations" / "t"
    data = open_data(test_set)
    labels = data.catalog["label"].to_list()
    pictures = np.load(folder / "pictures.npy")
    rows = [row for name in ("no_sub", "cdm", "axion") for row in [i for i, v in enumerate(labels) if v == name][:4]]
    assert record["examples"] == [labels[row] for row in rows]
    rows += [data.ids.index(mistake["id"]) for mistake in record["mistakes"]]
    np.testing.assert_array_equal(pictures, np.asarray(data.images[np.array(rows)][:, 0], np.float32))
    for mistake in record["mistakes"]:
        assert mistake["true"] == labels[data.ids.index(mistake["id"])] != mistake["called"]
    assert [m["p"] for m in record["mistakes"]] == sorted((m["p"] for m in record["mistakes"]), reverse=True)


def test_kept_arrays_are_the_predictions(run, test_set, tmp_path):
    copy = fresh_copy(run, tmp_path / "run")
    evaluate_run(copy, test_set, EvaluationOptions("t"))
    expected = load_model(run).predict(open_data(test_set).images[:]).array
    with np.load(copy / "evaluations" / "t" / "arrays.npz") as arrays:
        np.testing.assert_allclose(arrays["predicted"], expected, atol=1e-7)
        names = ["no_sub", "cdm", "axion"]
        assert [names[i] for i in arrays["truth"]] == open_data(test_set).catalog["label"].to_list()


def test_bootstrap_seed_changes_intervals_and_not_values(run, test_set, tmp_path):
    copy = fresh_copy(run, tmp_path / "run")
    choices = [EvaluationOptions("t"), EvaluationOptions("t"), EvaluationOptions("other", seed=1)]
    found = [evaluate_run(copy, test_set, each)["figures"]["macro_auc"] for each in choices]
    assert found[0] == found[1] != found[2]
    assert found[0]["value"] == found[2]["value"]


def test_another_evaluation_of_the_same_name_is_refused(run, dataset, test_set, tmp_path):
    copy = fresh_copy(run, tmp_path / "run")
    record = copy / "evaluations" / "t" / "evaluation.json"
    evaluate_run(copy, test_set, EvaluationOptions("t"))
    before = record.read_bytes()
    for data, choices in ((test_set, EvaluationOptions("t", seed=1)), ("preset:model-3-noisy", EvaluationOptions("t"))):
        with pytest.raises(
            DataError, match=r"there is another evaluation of this name, by darklens evaluate .*; give --name"
        ):
            evaluate_run(copy, data, replace(choices, count=48))
        assert record.read_bytes() == before
    evaluate_run(copy, test_set, EvaluationOptions("t"), trust_code=True)
    assert json.loads(record.read_text())["figures"] == json.loads(before)["figures"]


def test_report_shows_the_newest_evaluation(run, test_set, tmp_path):
    import os

    copy = fresh_copy(run, tmp_path / "run")
    for age, name in enumerate(("newest", "older", "oldest")):
        evaluate_run(copy, test_set, EvaluationOptions(name, seed=age))
        stamp = 1_700_000_000 - 1000 * age
        os.utime(copy / "evaluations" / name / "evaluation.json", (stamp, stamp))
    assert read_run(copy).evaluation["name"] == "newest"
    page = write_report([copy], tmp_path / "page.html").read_text()
    assert "--name newest" in page
    assert "--name oldest" not in page


def test_evaluation_of_version_0_1_is_still_reported(run, mass_run, test_set, tmp_path):
    """Without arrays, titles and ranking, which it did not keep."""
    for number, source in enumerate((run, mass_run)):
        copy = fresh_copy(source, tmp_path / f"run{number}")
        evaluate_run(copy, test_set, EvaluationOptions("t"))
        folder = copy / "evaluations" / "t"
        (folder / "arrays.npz").unlink()
        record = json.loads((folder / "evaluation.json").read_text())
        old = {key: value for key, value in record.items() if key not in ("metrics", "ranking", "mistakes_title")}
        (folder / "evaluation.json").write_text(json.dumps(old))
        page = write_report([copy], tmp_path / f"{number}.html").read_text()
        assert page.count("<svg") == (4, 2)[number]
    both = write_report([tmp_path / "run0", tmp_path / "run1"], tmp_path / "both.html").read_text()
    assert "Which differences are real" not in both


def test_metrics_of_a_task_have_a_key_each_and_the_one_that_ranks_is_among_them(run, test_set, monkeypatch):
    metrics = Classify.metrics
    with monkeypatch.context() as patch:
        patch.setattr(Classify, "metrics", lambda *given: [*metrics(*given), metrics(*given)[0]])
        with pytest.raises(UserCodeError, match="metrics of Classify: two have the key accuracy; give each its own"):
            evaluate_run(run, test_set, EvaluationOptions("bad"))
    monkeypatch.setattr(Classify, "ranking", "skill")
    with pytest.raises(UserCodeError, match="it ranks by skill, which is none of accuracy, "):
        evaluate_run(run, test_set, EvaluationOptions("bad"))
    assert not (run / "evaluations" / "bad").exists()


def test_own_metrics_without_a_value_are_a_warning(run, test_set, tmp_path):
    copy = fresh_copy(run, tmp_path / "run")
    (tmp_path / "metric.py").write_text(
        "import numpy as np\n"
        "from darklens.evaluation.bootstrap import Metric, mean_statistic\n\n"
        "def nothing(predicted, truth):\n"
        "    return Metric('nothing', 'Nothing', mean_statistic(np.full(len(truth), np.nan)))\n\n"
        "def three(predicted, truth):\n"
        "    return Metric('three', 'Three', mean_statistic(np.full(len(truth), 3.0)))\n"
    )
    both = f"{tmp_path / 'metric.py'}:nothing,{tmp_path / 'metric.py'}:three"
    record = evaluate_run(copy, test_set, EvaluationOptions("own", metrics=both))
    assert record["figures"]["three"]["value"] == 3.0
    said = [warning for warning in record["warnings"] if "has no value" in warning]
    assert said == ["Nothing (nothing) has no value on these images: it is nan"]


def test_details_of_a_task_are_kept_as_plain_numbers_under_names_of_their_own(run, test_set, tmp_path, monkeypatch):
    copy = fresh_copy(run, tmp_path / "run")
    details = {"found": np.float32(1.5), "rows": np.arange(3), 2: [np.int64(4)]}
    monkeypatch.setattr(Classify, "details", lambda *given: details)
    record = evaluate_run(copy, test_set, EvaluationOptions("plain"))
    assert {key: record[key] for key in ("found", "rows", "2")} == {"found": 1.5, "rows": [0, 1, 2], "2": [4]}
    details = {"figures": 1, "data": 2, "mine": 3}
    with pytest.raises(UserCodeError, match="details of Classify: data, figures is a name of darklens's own"):
        evaluate_run(copy, test_set, EvaluationOptions("taken"))
    details = {"mine": {1, 2}}
    with pytest.raises(UserCodeError, match="details of Classify: JSON knows no set"):
        evaluate_run(copy, test_set, EvaluationOptions("set"))


def test_options_that_make_no_sense_are_refused(run, test_set, tmp_path):
    for coverage in (0.0, 1.0, 1.5):
        with pytest.raises(DarklensError, match="--coverage must be between 0 and 1"):
            EvaluationOptions(coverage=coverage)
    with pytest.raises(DarklensError, match="--count must be at least 1"):
        EvaluationOptions(count=0)
    (tmp_path / "metric.py").write_text(
        "def number(predicted, truth):\n    return 3\n\ndef wrong(predicted, truth):\n    1 / 0"
    )
    with pytest.raises(ZeroDivisionError):
        evaluate_run(run, test_set, EvaluationOptions("bad", metrics=f"{tmp_path / 'metric.py'}:wrong"))
    with pytest.raises(UserCodeError, match="returns a int; expected a Metric"):
        evaluate_run(run, test_set, EvaluationOptions("bad", metrics=f"{tmp_path / 'metric.py'}:number"))
    assert not (run / "evaluations" / "bad").exists()


def test_evaluations_on_presets_of_one_name_and_other_content_are_apart(run, tmp_path):
    copy = fresh_copy(run, tmp_path / "run")
    paths = []
    for place, pixels in (("a", 64), ("b", 60)):
        (tmp_path / place).mkdir()
        paths.append(tmp_path / place / "mine.yaml")
        paths[-1].write_text(f"extends: model-3-noisy\npixels: {pixels}\n")
    evaluate_run(copy, f"preset:{paths[0]}", EvaluationOptions("x", count=48))
    with pytest.raises(DataError, match="another evaluation of this name"):
        evaluate_run(copy, f"preset:{paths[1]}", EvaluationOptions("x", count=48))


def test_options_of_an_older_record_are_those_of_its_command(run, test_set, tmp_path):
    copy = fresh_copy(run, tmp_path / "run")
    evaluate_run(copy, test_set, EvaluationOptions("t", coverage=0.9))
    path = copy / "evaluations" / "t" / "evaluation.json"
    record = json.loads(path.read_text())
    assert record["data"]["seed"] == 2
    del record["options"]
    record["data"] = {key: record["data"][key] for key in ("source", "layout", "checksum")}
    path.write_text(json.dumps(record))
    with pytest.raises(DataError, match="another evaluation of this name"):
        evaluate_run(copy, test_set, EvaluationOptions("t"))
    evaluate_run(copy, test_set, EvaluationOptions("t", coverage=0.9))


def test_report_shows_the_evaluation_that_is_named(run, test_set, tmp_path):
    copy = fresh_copy(run, tmp_path / "run")
    for name in ("first", "second"):
        evaluate_run(copy, test_set, EvaluationOptions(name))
    page = write_report([copy], tmp_path / "page.html", name="first").read_text()
    assert f"darklens report {copy} --out {tmp_path / 'page.html'} --name first" in page
    assert f"darklens evaluate {copy} --data {test_set} --name first" in page
    with pytest.raises(DataError, match=r"no evaluation third; there are .*first"):
        write_report([copy], tmp_path / "page.html", name="third")


def test_fresh_images_are_the_same_for_all_models_and_runs_that_saw_others_are_not_paired(run, tmp_path):
    copies = [fresh_copy(run, tmp_path / name) for name in ("a", "b")]
    config = json.loads((copies[1] / "model" / "config.json").read_text())
    config["data"]["seed"] = 5
    (copies[1] / "model" / "config.json").write_text(json.dumps(config))
    for copy in copies:
        evaluate_run(copy, "preset:model-3-noisy", EvaluationOptions("x", count=48))
    assert len(differences([read_run(copy) for copy in copies])) == 1
    record = copies[1] / "evaluations" / "x" / "evaluation.json"  # as of version 0.1, whose seeds depended on the model
    content = json.loads(record.read_text())
    content["data"]["seed"] += 1
    record.write_text(json.dumps(content))
    assert differences([read_run(copy) for copy in copies]) == []
    page = write_report(copies, tmp_path / "page.html").read_text()
    assert "different test sets" in page
