"""Predictions of a dataset and the table of them: which rows, in which batches, under which names."""

from threading import Event

import numpy as np
import polars as pl
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from darklens.data.dataset import Cutouts, DatasetInfo
from darklens.errors import DataError
from darklens.inference.adapt import Adaptation
from darklens.inference.config import ModelConfig
from darklens.inference.model import Prediction, TrainedModel
from darklens.inference.outliers import OutlierScore
from darklens.inference.predictions import Predicted, _one_ahead, predict_cutouts, prediction_table
from darklens.tasks.classify import Classify
from darklens.tasks.regress import Regress

IMAGES = np.random.default_rng(0).normal(2, 1, (7, 1, 4, 4)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(0, 0.5, (1, 16)).astype(np.float32)


def model(scored=False):
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 1, bias=False))
    network[1].weight.data = torch.from_numpy(WEIGHTS)
    config = ModelConfig({"name": "regress"}, {}, {"stretch": "none"}, 1, 4, outputs=["m"], pixel_scale=0.1)
    outliers = None
    if scored:
        features, statistics = torch.randn(90, 16), torch.randn(90, 5)
        outliers = OutlierScore.fit(features, statistics, (features, statistics))
    return TrainedModel(config, network, Regress("m", center=[5.0], scale=[2.0]), outliers=outliers)


def cutouts(images=IMAGES, **columns):
    frame = pl.DataFrame({"id": list("abcdefghij"[: len(images)])} | columns)
    return Cutouts(images, frame, DatasetInfo("here", pixel_scale=0.1))


def expected(images):
    return images.reshape(len(images), -1) @ WEIGHTS.T * 2 + 5


def test_all_rows_are_predicted_in_batches_and_counted():
    seen = []
    found = predict_cutouts(model(), cutouts(), batch_size=3, progress=lambda *done: seen.append(done))
    assert found.rows.tolist() == list(range(7))
    assert_allclose(found.prediction.values, expected(IMAGES), rtol=1e-5)
    assert found.prediction.outlier_score is None
    assert (found.notes, found.skipped) == ([], {})
    assert seen == [(3, 7), (6, 7), (7, 7)]


def test_outlier_scores_are_those_of_the_model():
    made = model(scored=True)
    found = predict_cutouts(made, cutouts(), batch_size=2)
    assert_allclose(found.prediction.outlier_score, made.predict(IMAGES).outlier_score, rtol=1e-5)


def test_symmetries_and_bands_reach_the_model():
    made = model()
    found = predict_cutouts(made, cutouts(), symmetries=True).prediction.values
    assert_allclose(found, made.predict(IMAGES, symmetries=True).values, rtol=1e-6)
    assert np.abs(found - expected(IMAGES)).max() > 0.1
    two = np.concatenate([IMAGES - 1, IMAGES], axis=1)
    second = predict_cutouts(made, cutouts(two), band="1")
    assert_allclose(second.prediction.values, expected(IMAGES), rtol=1e-5)
    assert second.notes == ["band 1 of 2"]


def test_bad_images_stop_are_skipped_or_masked():
    bad = IMAGES.astype(np.float64)
    bad[1, 0, 2, 3], bad[3:5, 0, 0, 0] = np.nan, 1e300
    with pytest.raises(DataError, match="image b has 1 pixels that are nan or infinite"):
        predict_cutouts(model(), cutouts(bad), batch_size=2)
    found = predict_cutouts(model(), cutouts(bad), batch_size=2, skip=True)
    assert found.rows.tolist() == [0, 2, 5, 6]
    assert_allclose(found.prediction.values, expected(IMAGES[[0, 2, 5, 6]]), rtol=1e-5)
    assert list(found.skipped) == ["b", "d", "e"]
    assert "image d has 1 pixels that are nan or infinite" in found.skipped["d"]
    masked = bad.copy()
    masked[1, 0, 2, 3] = masked[3, 0, 0, 0] = masked[4, 0, 0, 0] = 0
    found = predict_cutouts(model(), cutouts(bad), mask=True, batch_size=2)
    assert_allclose(found.prediction.values, expected(masked.astype(np.float32)), rtol=1e-5)
    mixed = predict_cutouts(model(), cutouts(bad), mask=True, skip=True)
    assert mixed.rows.tolist() == list(range(7))


@pytest.mark.parametrize("scored", [True, False])
def test_nothing_is_left_of_images_that_are_all_bad(scored):
    seen = []
    bad = np.full((3, 1, 4, 4), np.nan)
    found = predict_cutouts(model(scored), cutouts(bad), skip=True, progress=lambda *done: seen.append(done))
    assert found.rows.tolist() == []
    assert found.prediction.array.shape == (0, 1)
    assert (found.prediction.outlier_score is not None) == scored
    assert sorted(found.skipped) == ["a", "b", "c"]
    assert seen == [(3, 3)]
    assert len(prediction_table(found, cutouts(bad), model().task)) == 0


def predicted(values, scores=None, rows=(2, 0)):
    return Predicted(np.array(rows), Prediction(np.array(values), ["m"], (), scores), Adaptation([0], 1.0, 4, None, []))


def test_table_has_the_rows_that_were_predicted_and_keeps_all_columns():
    data = cutouts(z=list(range(7)), m=[0.5 * i for i in range(7)], outlier=["x"] * 7, catalog_m=[-1] * 7)
    table = prediction_table(predicted([[1.5], [-2.5]], np.array([1.0, 1.2])), data, Regress("m"))
    assert table.to_dict(as_series=False) == {
        "id": ["c", "a"], "path": ["here", "here"], "m": [1.5, -2.5], "outlier_score": [1.0, 1.2], "outlier": [False, True],
        "z": [2, 0], "catalog_m": [1.0, 0.0], "catalog_outlier": ["x", "x"], "catalog_catalog_m": [-1, -1],
    }  # fmt: skip


def test_table_takes_paths_of_the_catalogue_and_makes_text_of_numbers():
    data = cutouts(path=[f"{i}.fits" for i in range(7)])
    data.catalog = data.catalog.with_columns(id=pl.Series(range(10, 17)))
    table = prediction_table(predicted([[1.5], [-2.5]]), data, Regress("m"))
    assert table.to_dict(as_series=False) == {"id": ["12", "10"], "path": ["2.fits", "0.fits"], "m": [1.5, -2.5]}


def test_table_of_classes_has_their_sets():
    task = Classify(class_names=["x", "y"])
    found = Predicted(
        np.array([1]), Prediction(np.array([[0.3, 0.7]]), ["x", "y"], ["x", "y"]), Adaptation([0], 1.0, 4, None, [])
    )
    table = prediction_table(found, cutouts(), task, sets=np.array([[True, True]]))
    assert table.to_dict(as_series=False) == {
        "id": ["b"], "path": ["here"], "predicted": ["y"], "p_x": [0.3], "p_y": [0.7], "set": ["x|y"],
    }  # fmt: skip
    assert "set" not in prediction_table(found, cutouts(), task).columns


def test_the_next_batch_is_read_while_one_is_predicted_and_an_error_ends_both():
    reading, used = Event(), []

    def read(start):
        if start == 2:
            reading.set()
        if start == 4:
            raise DataError("damaged")
        return start

    def use():
        for start in _one_ahead(read, range(0, 20, 2)):
            used.append(start)
            if start == 0:
                assert reading.wait(10)

    with pytest.raises(DataError, match="damaged"):
        use()
    assert used == [0, 2]
    assert list(_one_ahead(lambda start: start, range(3))) == [0, 1, 2]
    assert list(_one_ahead(read, [])) == []
