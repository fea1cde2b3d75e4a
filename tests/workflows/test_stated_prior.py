"""Probabilities of a lens finder for another prior, from simulated images to figures and notes."""

import json
import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from conftest import write_rings
from numpy.testing import assert_allclose
from torch import nn

from darklens.errors import DarklensError, ModelError
from darklens.evaluation.finding import shift_prior
from darklens.inference.config import ModelConfig
from darklens.inference.model import Ensemble, TrainedModel, save_model
from darklens.tasks.find import Find
from darklens.workflows import explain
from darklens.workflows.evaluate import evaluate_run
from darklens.workflows.explain import explain_images
from darklens.workflows.options import EvaluationOptions, PredictionOptions
from darklens.workflows.predict import predict_paths

SHARE, PRIOR, APART = 0.4, 0.01, 3.0


def finder(scale=1.0):
    """An exact model of images whose pixels have a scatter of 4 about `APART` if they show a lens, else about 0."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    network[1].weight.data = torch.stack([torch.zeros(16), torch.full((16,), scale * APART / 16)])
    network[1].bias.data = torch.tensor(
        [0.0, scale * (np.log(SHARE / (1 - SHARE)) - APART**2 / 2)], dtype=torch.float32
    )
    task = {"name": "find", "class_names": ["nonlens", "lens"], "share": SHARE, "prior": PRIOR}
    config = ModelConfig(task, {}, {"stretch": "none"}, 1, 4, outputs=["nonlens", "lens"], pixel_scale=0.1)
    return TrainedModel(config, network, Find(class_names=["nonlens", "lens"], share=SHARE, prior=PRIOR))


def objects(count, prior, seed=0):
    """Images (N, 1, 4, 4) and which of them show lenses."""
    rng = np.random.default_rng(seed)
    lens = rng.random(count) < prior
    images = np.where(lens, APART, 0)[:, None] + 4 * rng.normal(size=(count, 16))
    return images.reshape(-1, 1, 4, 4).astype(np.float32), lens


@pytest.fixture
def searched(finding_run, tmp_path):
    """A run of a trained finder, and 400 images of which half are lenses."""
    run = shutil.copytree(finding_run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluations"))
    return run, write_rings(tmp_path / "data", 400, 2)


@pytest.mark.parametrize("prior", [0.002, 0.1])
def test_half_of_the_objects_at_one_half_are_lenses_for_any_prior(prior):
    images, lens = objects(1_000_000, prior)
    found = finder().with_prior(prior).predict(images, batch_size=50_000).array[:, 1]
    near = np.abs(found - 0.5) < 0.15
    assert near.sum() > 500
    assert lens[near].mean() == pytest.approx(found[near].mean(), abs=0.05)
    assert found.sum() == pytest.approx(lens.sum(), rel=0.06)
    own = finder().predict(images[:10_000]).array[:, 1]
    assert_allclose(found[:10_000], shift_prior(own, PRIOR, prior), rtol=1e-9)


@pytest.mark.parametrize("symmetries", [False, True])
def test_an_ensemble_follows_bayes_as_its_members_do(symmetries):
    both = Ensemble(finder().config, [finder(), finder(scale=0.5)])
    images, _ = objects(300, 0.5)
    for model in (finder(), both):
        own = model.predict(images, symmetries=symmetries).array
        other = model.with_prior(0.6).predict(images, symmetries=symmetries).array
        assert_allclose(other[:, 1], shift_prior(own[:, 1], PRIOR, 0.6), rtol=1e-9)
        assert_allclose(other.sum(1), 1)
    assert both.with_prior(0.2).task.stated_prior == 0.2
    assert (both.task.stated_prior, both.members[0].task.stated_prior) == (PRIOR, PRIOR)


def test_a_model_of_another_prior_is_kept_as_such(tmp_path):
    save_model(tmp_path / "other", finder().with_prior(0.25), "card")
    assert json.loads((tmp_path / "other" / "config.json").read_text())["task"]["prior"] == 0.25


@pytest.mark.parametrize("prior", [0.0, 1.0, -1.0, float("nan")])
@pytest.mark.parametrize("options", [EvaluationOptions, PredictionOptions])
def test_a_prior_outside_its_bounds_is_refused(options, prior):
    with pytest.raises(DarklensError, match="--prior is the fraction of lenses, above 0 and below 1; got"):
        options(prior=prior)


def test_models_of_other_tasks_have_no_prior(run, mass_run, test_set, tmp_path):
    for model in (run, mass_run):
        with pytest.raises(ModelError, match="--prior is for models of the task find"):
            predict_paths(model, [test_set], tmp_path / "out.csv", choices=PredictionOptions(prior=0.1))
        with pytest.raises(ModelError, match="--prior is for models of the task find"):
            evaluate_run(model, test_set, EvaluationOptions("priors", prior=0.1))
        with pytest.raises(ModelError, match="--prior is for models of the task find"):
            explain_images(model, [test_set], tmp_path / "out.png", prior=0.1)


def test_figures_and_notes_are_those_of_the_prior(searched, tmp_path):
    run, data = searched
    own = evaluate_run(run, data)
    other = evaluate_run(run, data, EvaluationOptions("other", prior=0.6))
    assert (own["prior"], other["prior"], other["options"]["prior"]) == (PRIOR, 0.6, 0.6)
    assert "--prior 0.6" in other["command"]
    p = pl.read_parquet(run / "evaluations" / "other" / "predictions.parquet")
    lens, called = (p["true"] == "lens").to_numpy(), (p["p_lens"] > 0.5).to_numpy()
    true, false = called[lens].mean(), called[~lens].mean()
    assert other["figures"]["completeness"]["value"] == pytest.approx(true)
    assert other["figures"]["purity"]["value"] == pytest.approx(0.6 * true / (0.6 * true + 0.4 * false))
    assert own["figures"]["completeness"]["value"] < true
    weights = np.where(lens, 0.6 / 0.5, 0.4 / 0.5)
    number = np.minimum((p["p_lens"].to_numpy() * 15).astype(int), 14)
    gaps = [np.sum((weights * (lens - p["p_lens"].to_numpy()))[number == i]) for i in range(15)]
    assert other["figures"]["ece"]["value"] == pytest.approx(np.abs(gaps).sum() / weights.sum(), rel=1e-6)
    assert other["figures"]["auc"] == own["figures"]["auc"]
    with pytest.raises(DarklensError, match="another evaluation of this name"):
        evaluate_run(run, data, EvaluationOptions("other", prior=0.3))
    written = predict_paths(run, [data], tmp_path / "out.parquet", choices=PredictionOptions(prior=0.6))
    assert any("a fraction of 0.6 are lenses" in note for note in written.notes)
    assert_allclose(pl.read_parquet(tmp_path / "out.parquet")["p_lens"], p["p_lens"])


@pytest.mark.parametrize("prior", [None, 0.3])
def test_explanations_say_for_which_prior_their_probabilities_are(searched, tmp_path, monkeypatch, prior):
    run, _ = searched
    paths = [write_rings(tmp_path / name, 3, seed) for name, seed in (("one", 4), ("two", 5))]
    figures = []
    monkeypatch.setattr(explain, "save", lambda figure, out: figures.append(figure))
    lines, notes = explain_images(run, paths, tmp_path / "out.png", prior=prior)
    choices = PredictionOptions(prior=prior)
    predict_paths(run, paths, tmp_path / "out.parquet", choices=choices)
    p = pl.read_parquet(tmp_path / "out.parquet")["p_lens"]
    assert [line.partition(": ")[2].partition(",")[0] for line in lines] == [f"lens {each:.2g}" for each in p]
    stated = f"probabilities are for objects of which a fraction of {prior or PRIOR:g} are lenses"
    assert notes[-1] == f"{stated} (--prior states another); they add up to {p.sum():.3g} lenses among 6"
    assert stated in " ".join(text.get_text() for text in figures[0].texts).replace("\n", " ")


def test_explanations_of_other_tasks_state_no_prior(run, test_set, tmp_path):
    images = np.load(test_set / "images.npy")[:2]
    np.save(tmp_path / "two.npy", images)
    assert not any("fraction" in note for note in explain_images(run, [tmp_path / "two.npy"], tmp_path / "a.png")[1])


def test_options_without_a_prior_are_as_before():
    assert replace(EvaluationOptions("a"), prior=None).given() == {"name": "a"}
