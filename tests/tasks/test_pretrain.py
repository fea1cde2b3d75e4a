"""The task pretrain: what a recipe may say of it, and its metrics against closed forms."""

import numpy as np
import polars as pl
import pytest
import torch

from darklens.data.dataset import Cutouts, DatasetInfo
from darklens.errors import DataError, RecipeError
from darklens.evaluation.bootstrap import intervals
from darklens.evaluation.embedding import EffectiveRank, effective_rank, embedding_metrics
from darklens.tasks.pretrain import Pretrain


def test_options_of_other_methods_are_refused():
    for options, says in (
        ({"margin": 1.0}, "task.margin is for the method contrastive-pairs; this is mae"),
        ({"method": "vicreg", "temperature": 0.1}, "task.temperature is for the method simclr, dino; this is vicreg"),
        ({"method": "simclr", "temperature": 0.0}, "task.temperature must be above 0"),
        ({"method": "contrastive-pairs", "margin": 2.5}, "above 0 and at most 2; got 2.5"),
        ({"method": "dino", "momentum": 1.0}, "task.momentum must be from 0 to below 1"),
        ({"method": "vicreg", "embedding": 1}, "task.embedding must be at least 2; got 1"),
        ({"method": "vicreg", "shift": -1}, "task.shift must be at least 0; got -1"),
    ):
        with pytest.raises(RecipeError, match=says):
            Pretrain(**options)


def test_outputs_are_errors_or_an_embedding():
    assert list(Pretrain().output_names) == ["reconstruction_error", "constant_error"]
    assert list(Pretrain("simclr", embedding=3).output_names) == ["z0", "z1", "z2"]
    assert Pretrain("vicreg").outputs == 64


def test_targets_need_no_catalogue_and_a_single_image_cannot_be_told_from_another():
    cutouts = Cutouts(np.zeros((3, 1, 4, 4), np.float32), pl.DataFrame({"id": ["a", "b", "c"]}), DatasetInfo("here"))
    task = Pretrain("vicreg")
    assert task.targets(cutouts).tolist() == [[0], [0], [0]]
    assert task.needs.columns == ()
    with pytest.raises(DataError, match="here: 1 images; the method vicreg takes 2 at least"):
        task.check_split(np.zeros((1, 1)), "here")
    Pretrain().check_split(np.zeros((1, 1)), "here")


def test_reconstructions_are_of_the_best_the_worst_and_three_between():
    errors = np.array([3.0, 1.0, 9.0, 5.0, 7.0, 2.0, 8.0, 4.0, 6.0])
    gallery = Pretrain().gallery(np.column_stack([errors, np.full(9, 10.0)]), np.zeros((9, 1)))
    assert errors[list(gallery.rebuilt)].tolist() == [1, 3, 5, 7, 9]
    assert gallery.rebuilt_captions[0] == "error 1.000\nconstant 10.000"
    assert errors[list(gallery.mistakes)].tolist() == sorted(errors, reverse=True)
    assert list(Pretrain().gallery(np.ones((2, 2)), np.zeros((2, 1))).rebuilt) == [1, 0]
    assert not Pretrain("vicreg").gallery(np.ones((2, 64)), np.zeros((2, 1))).rebuilt


def test_effective_rank_of_known_scatter():
    assert effective_rank(np.ones(5)) == pytest.approx(5)
    assert effective_rank(np.array([3.0, 0, 0, -1e-12])) == pytest.approx(1)
    assert effective_rank(np.zeros(4)) == 0
    p = np.array([2 / 3, 1 / 3])
    assert effective_rank(np.array([4.0, 1.0])) == pytest.approx(np.exp(-(p * np.log(p)).sum()))


def test_effective_rank_of_embeddings_is_that_of_their_singular_values():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(40, 3)) * [3, 2, 0.5] + 7
    p = np.linalg.svd(embeddings - embeddings.mean(0), compute_uv=False)
    p /= p.sum()
    expected = np.exp(-(p * np.log(p)).sum())
    (metric,) = embedding_metrics(embeddings)
    assert metric.statistic(np.ones((1, 40)))[0] == pytest.approx(expected)
    weights = rng.integers(0, 3, (2, 40)).astype(float)
    repeated = [embedding_metrics(np.repeat(embeddings, w.astype(int), 0))[0] for w in weights]
    expected_each = [m.statistic(np.ones((1, int(w.sum()))))[0] for m, w in zip(repeated, weights, strict=True)]
    np.testing.assert_allclose(metric.statistic(weights), expected_each)
    gathered = EffectiveRank(3)
    for part in np.split(embeddings, [13, 14]):
        gathered.update(torch.from_numpy(part), torch.zeros(len(part)))
    assert float(gathered.compute()) == pytest.approx(expected, rel=1e-5)


def test_collapse_is_said():
    task = Pretrain("vicreg", embedding=3)
    rng = np.random.default_rng(0)
    line = np.outer(rng.normal(size=50), [1.0, 2.0, 3.0])
    truth = np.zeros((50, 1))
    figures = intervals(task.metrics(line, truth), 50, 0, 20)
    assert "effective rank is 1.00 of 3" in task.concerns(figures, line, truth)[0]
    wide = rng.normal(size=(50, 3))
    assert task.concerns(intervals(task.metrics(wide, truth), 50, 0, 20), wide, truth) == []
    assert "collapsed" in task.concern_of_training({"effective_rank": 1.5}, 50)
    assert task.concern_of_training({"effective_rank": 1.5}, 2) is None
    assert task.concern_of_training({"effective_rank": 2.5}, 50) is None


def test_reconstruction_is_a_fraction_of_the_error_of_a_constant():
    task = Pretrain()
    predicted = np.array([[1.0, 4.0], [3.0, 4.0], [2.0, 16.0]])
    values = {m.key: m.statistic(np.ones((1, 3)))[0] for m in task.metrics(predicted, np.zeros((3, 1)))}
    assert values == pytest.approx({"reconstruction": 6 / 24, "reconstruction_error": 2})
    assert task.gallery(predicted, np.zeros((3, 1))).mistakes == [1, 0, 2]
    assert task.captions(predicted)[0] == "error 1.00, of a constant 4.00"
    bad = np.array([[5.0, 4.0]] * 9)
    figures = intervals(task.metrics(bad, np.zeros((9, 1))), 9, 0, 20)
    assert "no better than the mean of the shown ones" in task.concerns(figures, bad, np.zeros((9, 1)))[0]
    good = np.array([[1.0, 4.0]] * 9)
    assert task.concerns(intervals(task.metrics(good, np.zeros((9, 1))), 9, 0, 20), good, np.zeros((9, 1))) == []


def test_embeddings_of_two_models_are_not_averaged():
    with pytest.raises(RecipeError, match="models of the method dino cannot be averaged"):
        _ = Pretrain("dino").must_agree
    assert Pretrain().must_agree == ("method",)
