"""Probabilities that can be trusted: calibration, prediction sets, what is unlike, averaging, ensembles, explanations."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
import torch
from conftest import EXAMPLES, TINY

from darklens.data.augmentation import transform
from darklens.data.dataset import read_dataset
from darklens.data.options import DataOptions
from darklens.errors import DataError, ModelError
from darklens.inference.attribution import attributions
from darklens.inference.model import Ensemble, load_model
from darklens.inference.outliers import OutlierScore, image_statistics
from darklens.inference.shipped import shipped_models
from darklens.report.page import write_report
from darklens.training.build import check_networks
from darklens.training.ensemble import make_ensemble
from darklens.training.job import Job, read_job, read_record
from darklens.training.recipe import load_recipe, recipe_from
from darklens.training.train import resume, train
from darklens.workflows.evaluate import evaluate_run
from darklens.workflows.explain import explain_images
from darklens.workflows.finetune import finetune, finetuning_recipe
from darklens.workflows.options import EvaluationOptions
from darklens.workflows.predict import predict_paths


def test_outlier_score_tells_what_is_unlike():
    rng = torch.Generator().manual_seed(0)
    axes = torch.randn(5, 40, generator=rng)

    def features(n, noise=0.1):
        return torch.randn(n, 5, generator=rng) @ axes + noise * torch.randn(n, 40, generator=rng)

    def statistics(n):
        return torch.randn(n, 3, generator=rng)

    score = OutlierScore.fit(features(2000), statistics(2000), (features(1000), statistics(1000)))
    usual = score(features(1000), statistics(1000))
    assert 0.97 < float((usual < 1).double().mean()) < 1
    assert (score(features(100) + 5, statistics(100)) > 1).all(), "away along what varies"
    assert (score(features(100, noise=1.0), statistics(100)) > 1).all(), "away along what never varied"
    assert (score(features(100), statistics(100) + 8) > 1).all(), "another brightness"
    again = OutlierScore.from_tensors({k: t.float() for k, t in score.tensors().items()})
    torch.testing.assert_close(again(features(9), statistics(9)).shape, torch.Size([9]))


def test_statistics_of_images_are_the_same_under_the_symmetries():
    images = torch.rand(2, 3, 9, 9)
    for k in range(8):
        torch.testing.assert_close(image_statistics(transform(images, k)), image_statistics(images))


def test_model_is_calibrated_and_survives_its_folder(run, test_set):
    model, images = load_model(run), read_dataset(test_set).images[:20]
    assert model.calibration.temperature != 1
    assert len(model.calibration.scores) == 18
    raw, _, _ = model.outputs_and_features(torch.tensor(np.asarray(images, np.float32)))
    expected = (raw.double() / model.calibration.temperature).softmax(-1)
    found = model.predict(images)
    np.testing.assert_allclose(found.probabilities, expected.numpy(), atol=1e-6)
    assert (found.outlier_score > 0).all()
    assert model.predict(np.random.default_rng(0).normal(0, 1e4, (3, 64, 64))).outlier_score.min() > 1


def test_averaging_over_symmetries_does_not_depend_on_the_orientation(run, test_set):
    model = load_model(run)
    images = torch.tensor(np.asarray(read_dataset(test_set).images[:6], np.float32))
    averaged = model.predict(images, symmetries=True).probabilities
    np.testing.assert_allclose(model.predict(transform(images, 5), symmetries=True).probabilities, averaged, atol=1e-5)
    each = np.mean([model.predict(transform(images, k)).probabilities for k in range(8)], axis=0)
    np.testing.assert_allclose(averaged, each, atol=1e-6)


def test_evaluation_verifies_coverage_and_outliers(run, test_set, tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "strange.npy", rng.normal(0, 1e3, (12, 64, 64)).astype(np.float32))
    copy = shutil.copytree(run, tmp_path / "run")
    chosen = EvaluationOptions("trust", symmetries=True, coverage=0.8, outliers=tmp_path / "strange.npy")
    record = evaluate_run(copy, test_set, chosen)
    assert record["figures"]["outlier_auc"]["value"] > 0.99
    assert record["figures"]["outliers_flagged"]["value"] == 1
    assert record["symmetries"] is True
    table = pl.read_parquet(copy / "evaluations" / "trust" / "predictions.parquet")
    inside = [true in held.split("|") for true, held in zip(table["true"], table["set"], strict=True)]
    assert np.mean(inside) == pytest.approx(record["figures"]["coverage"]["value"])
    assert len(record["explained"]) == 3
    page = write_report([copy], tmp_path / "page.html").read_text()
    assert "Where it looks" in page
    assert "Coverage of prediction sets" in page


def test_predict_warns_of_what_is_unlike(run, tmp_path):
    written = predict_paths(run, [EXAMPLES / "euclid"], tmp_path / "out.csv", options=DataOptions(mask=True))
    assert any("unlike those that the model was trained on" in note for note in written.notes)
    assert pl.read_csv(tmp_path / "out.csv")["outlier_score"][0] > 1


@pytest.fixture(scope="module")
def second(dataset, tmp_path_factory):
    """Another tiny classifier on the same data."""
    recipe = load_recipe("substructure/demo", TINY)
    return train(Job(recipe, str(dataset), member=1), tmp_path_factory.mktemp("runs") / "second")


def test_members_differ_but_share_their_split(run, second):
    splits = [pl.read_parquet(folder / "split.parquet") for folder in (run, second)]
    assert splits[0].equals(splits[1])
    states = [load_model(folder).network.state_dict() for folder in (run, second)]
    assert not torch.equal(states[0]["stem.0.weight"], states[1]["stem.0.weight"])


def test_ensemble_is_a_run_like_any_other(run, second, test_set, tmp_path):
    made = make_ensemble([run, second], tmp_path / "both")
    model, images = load_model(made), np.asarray(read_dataset(test_set).images[:9])
    assert isinstance(model, Ensemble)
    mean = np.mean([load_model(r).predict(images).probabilities for r in (run, second)], axis=0)
    expected = (torch.from_numpy(mean).log() / model.calibration.temperature).softmax(-1)
    np.testing.assert_allclose(model.predict(images).probabilities, expected.numpy(), atol=1e-6)
    assert len(model.calibration.scores) == 18
    shutil.rmtree(tmp_path / "elsewhere", ignore_errors=True)
    shutil.move(made, tmp_path / "elsewhere")
    record = evaluate_run(tmp_path / "elsewhere", test_set, EvaluationOptions("test"))
    assert record["n"] == 96
    assert "outlier" not in json.dumps(record)
    page = write_report([tmp_path / "elsewhere", run_with_evaluation(run, test_set, tmp_path)], tmp_path / "page.html")
    assert "runs side by side" in page.read_text()
    assert attributions(model, torch.from_numpy(images[:2].astype(np.float32)), [0, 1], steps=4).shape == (2, 64, 64)


def run_with_evaluation(run, test_set, tmp_path):
    copy = shutil.copytree(run, tmp_path / "evaluated")
    evaluate_run(copy, test_set, EvaluationOptions("test"))
    return copy


def test_recipe_of_an_ensemble_trains_its_members_and_goes_on(dataset, tmp_path):
    (tmp_path / "two.yaml").write_text("task: classify\nmembers: [substructure/demo, substructure/demo]\n")
    recipe = load_recipe(str(tmp_path / "two.yaml"), TINY)
    assert [member["trainer"]["epochs"] for member in recipe.members] == [2, 2]
    job = Job(recipe, str(dataset))
    out = train(job, tmp_path / "run")
    assert read_job(out) == job
    assert len(load_model(out).members) == 2
    assert (
        read_record(out)["training"]["parameters"] == 2 * read_record(out / "members/0-demo")["training"]["parameters"]
    )
    shutil.rmtree(out / "model")
    shutil.rmtree(out / "members" / "1-demo")
    resume(out, job)
    assert len(load_model(out).members) == 2


def test_members_that_cannot_answer_together_are_refused(run, mass_run, second, tmp_path):
    with pytest.raises(ModelError, match="their tasks differ"):
        make_ensemble([run, mass_run], tmp_path / "bad")
    for key, value in (("pixels", 32), ("pixel_scale", 0.1)):
        odd = shutil.copytree(second, tmp_path / key)
        config = json.loads((odd / "model" / "config.json").read_text())
        (odd / "model" / "config.json").write_text(json.dumps(config | {key: value}))
        with pytest.raises(ModelError, match=f"their {key.replace('_', ' ')} differ"):
            make_ensemble([run, odd], tmp_path / "bad")
    with pytest.raises(ModelError, match="at least two"):
        make_ensemble([run], tmp_path / "bad")
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize("name", sorted(shipped_models()))
def test_each_model_of_the_package_can_be_tuned(name):
    recipe = finetuning_recipe(name, {})
    check_networks(recipe)
    assert recipe.network == {"name": "compact", "widths": [32, 64, 128, 224], "blocks": [0, 1, 2, 2]}
    assert recipe.trainer.epochs == 5
    assert recipe.optimizer.lr < recipe_from(load_model(name).config.recipe, name).optimizer.lr


def test_finetuning_starts_from_the_weights_and_needs_nothing_else(run, class_folders, dataset, tmp_path):
    tuned = finetune(str(run), str(dataset), tmp_path / "same", overrides={"trainer.epochs": 1, "optimizer.lr": 1e-9})
    before, after = (load_model(r).network.state_dict()["stem.0.weight"] for r in (run, tuned))
    torch.testing.assert_close(before, after, atol=1e-4, rtol=0)
    assert read_record(tuned)["start"] == str(run)
    few = tmp_path / "few"
    for name in ("smooth", "lumpy"):  # other classes, other pixels, hardly any images
        (few / name).mkdir(parents=True)
        for i, source in enumerate(sorted((class_folders / "no_sub").iterdir()) * 3):
            shutil.copy(source, few / name / f"{i}.npy")
    tuned = finetune(str(run), str(few), tmp_path / "other", overrides={"trainer.epochs": 1})
    assert load_model(tuned).classes == ["lumpy", "smooth"]
    recipe = load_recipe("substructure/demo", TINY | {"network.widths": [4, 4]})
    with pytest.raises(ModelError, match="do not fit this recipe's network"):
        train(Job(recipe, str(dataset), start=str(run)), tmp_path / "misfit")
    assert not (tmp_path / "misfit").exists()


def test_attributions_add_up_to_the_change_of_the_logit(run, test_set):
    """Completeness of integrated gradients, for one image that is not cropped."""
    model = load_model(run)
    image = torch.tensor(read_dataset(test_set).images[:1]).float()
    found = attributions(model, image, [1], steps=200)
    prepared = model.preprocessing(image)
    with torch.no_grad():
        change = model.network(prepared) - model.network(torch.zeros_like(prepared))
    assert found.shape == (1, 64, 64)
    assert found.sum() == pytest.approx(float(change[0, 1]), rel=0.02, abs=0.01)


def test_explanations_are_drawn(run, tmp_path):
    examples = [EXAMPLES / "deeplense", EXAMPLES / "euclid"]
    lines, notes = explain_images(run, examples, tmp_path / "where.png", DataOptions(mask=True))
    assert any("unlike those that the model was trained on" in note for note in notes), "it warns as predict does"
    assert all(", outlier " in line for line in lines)
    assert len(lines) == 4
    assert (tmp_path / "where.png").stat().st_size > 10_000
    np.save(tmp_path / "many.npy", np.ones((30, 64, 64)))
    with pytest.raises(DataError, match="at most 24 can be explained"):
        explain_images(run, [tmp_path / "many.npy"], tmp_path / "no.png")
