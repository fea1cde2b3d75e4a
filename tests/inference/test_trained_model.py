"""What a trained model makes of images: of a linear network, by numpy; and what it is stored as."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from fuzz import make_model
from numpy.testing import assert_allclose
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from darklens.errors import ModelError, UserCodeError
from darklens.inference.config import ModelConfig, read_config
from darklens.inference.model import Ensemble, TrainedModel, fitting_batch, load_model, load_task, save_model
from darklens.inference.outliers import OutlierScore
from darklens.tasks.classify import Classify
from darklens.tasks.regress import Regress

RNG = np.random.default_rng(4)
IMAGES = RNG.normal(3, 2, (7, 2, 5, 5)).astype(np.float32)
WEIGHTS = RNG.normal(0, 0.3, (3, 50)).astype(np.float32)
CLASSES = ["no_sub", "cdm", "axion"]


class Linear(nn.Module):
    """Logits WEIGHTS · x; it keeps the number of images of each call."""

    def __init__(self, weights=WEIGHTS):
        super().__init__()
        self.layer = nn.Linear(weights.shape[1], len(weights), bias=False)
        self.layer.weight.data = torch.from_numpy(weights.copy())
        self.calls = []

    def forward(self, images):
        self.calls.append(len(images))
        return self.layer(images.flatten(1))


def linear(outliers=None, channels=2, weights=WEIGHTS, temperature=1.6, **preprocessing):
    config = ModelConfig(
        {"name": "classify"}, {}, {"stretch": "none", "center": 1.0, "scale": 2.0} | preprocessing, channels, 5,
        outputs=CLASSES, classes=CLASSES, calibration={"temperature": temperature},
    )  # fmt: skip
    return TrainedModel(config, Linear(weights), Classify(class_names=CLASSES), outliers=outliers)


@pytest.mark.parametrize("returned", [torch.ones(7), torch.ones(7, 2), torch.ones(6, 3)])
def test_predictions_of_another_shape_are_refused(returned, monkeypatch):
    monkeypatch.setattr(Classify, "calibrated", lambda *given: returned)
    monkeypatch.setattr(Classify, "averaged", lambda *given: returned)
    shape = str(tuple(returned.shape)).replace("(", r"\(").replace(")", r"\)")
    message = rf"predictions of Classify for 7 images have shape {shape}; expected \(7, 3\), a column for each"
    for model in (linear(), Ensemble(linear().config, [linear(), linear()])):
        with pytest.raises(UserCodeError, match=message):
            model.predict(IMAGES)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("folder", r"folder: predict takes arrays; those of files are darklens\.open_data\(path\)\.images"),
        ([[1, 2], [3]], "images are no array of numbers: "),
        (["a"], "images are no array of numbers: .*'a'"),
    ],
)
def test_what_is_no_array_is_refused(images, message):
    with pytest.raises(ModelError, match=message):
        linear().predict(images)


def test_predicted_images_have_four_dimensions(monkeypatch):
    model = linear()
    monkeypatch.setattr(Classify, "predicts", "images")
    monkeypatch.setattr(Classify, "calibrated", lambda *given: torch.ones(7, 2, 9, 9))
    assert model.predict(IMAGES).array.shape == (7, 2, 9, 9)
    monkeypatch.setattr(Classify, "calibrated", lambda *given: torch.ones(7, 9, 9))
    with pytest.raises(UserCodeError, match=r"have shape \(7, 9, 9\); expected \(N, C, H, W\)"):
        model.predict(IMAGES)


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def expected(images, temperature=1.6):
    prepared = (np.asarray(images, np.float64) - 1) / 2
    return softmax(prepared.reshape(len(images), -1) @ WEIGHTS.T.astype(np.float64) / temperature)


def test_probabilities_are_those_of_logits_over_the_temperature():
    model = linear()
    found = model.predict(IMAGES)
    assert_allclose(found.probabilities, expected(IMAGES), rtol=1e-5)
    assert found.array.dtype == np.float64
    assert found.values is None
    assert found.outlier_score is None
    assert list(found.outputs) == list(found.classes) == list(model.classes) == CLASSES
    assert not model.network.training
    assert model.members == [model]
    assert model.knows_outliers is False


def test_images_are_seen_a_batch_at_a_time():
    model = linear()
    assert_allclose(model.predict(IMAGES, batch_size=3).array, expected(IMAGES), rtol=1e-5)
    assert model.network.calls == [3, 3, 1]
    assert model.predict(IMAGES[:0]).array.shape == (0, 3)
    assert model.predict(IMAGES[:0]).outlier_score is None
    many = np.repeat(IMAGES, 10, axis=0)
    model.network.calls.clear()
    model.predict(many)
    assert model.network.calls == [64, 6]


@pytest.mark.parametrize(("pixels", "number"), [(512, 64), (513, 63), (1024, 16), (4096, 1), (5000, 1)])
def test_number_of_images_at_a_time(pixels, number):
    """2²⁴ pixels, of 64 images of 512 × 512."""
    assert fitting_batch(64, pixels) == number
    assert fitting_batch(2, 100) == 2


def test_symmetries_are_the_eight_of_the_square():
    turns = [np.rot90(images, k, axes=(-2, -1)) for images in (IMAGES, IMAGES[..., ::-1]) for k in range(4)]
    found = linear().predict(IMAGES, symmetries=True).array
    assert_allclose(found, np.mean([expected(turned) for turned in turns], axis=0), rtol=1e-5)
    assert np.abs(found - expected(IMAGES)).max() > 0.05


def test_images_of_one_channel_may_leave_it_out():
    one = linear(channels=1, weights=WEIGHTS[:, :25])
    images = IMAGES[:, :1]
    whole = one.predict(images).array
    assert_allclose(one.predict(images[:, 0]).array, whole)
    assert_allclose(one.predict(images[3, 0]).array, whole[3:4], rtol=1e-6)
    assert_allclose(one.predict(torch.from_numpy(images)).array, whole)
    two = linear()
    assert_allclose(two.predict(IMAGES[2]).array, expected(IMAGES[2:3]), rtol=1e-5)
    counts = RNG.integers(0, 60000, (3, 2, 5, 5)).astype(np.uint16)
    assert_allclose(two.predict(counts).array, expected(counts), atol=1e-6)
    assert_allclose(two.predict(IMAGES[::-2]).array, expected(IMAGES)[::-2], rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 5, 5), r"images of shape \(3, 5, 5\) do not fit a model of 2 channels: expected \(N, C, H, W\)"),
        ((5, 5), r"images of shape \(5, 5\) do not fit a model of 2 channels"),
        ((1, 1, 2, 5, 5), "do not fit a model of 2 channels"),
        ((4, 2, 5, 6), "images of 5×6 pixels; the model was trained on 5×5. 'darklens predict' resamples and crops"),
        ((4, 2, 6, 5), "images of 6×5 pixels; the model was trained on 5×5"),
    ],
)
def test_images_of_another_shape_are_refused(shape, message):
    with pytest.raises(ModelError, match=message):
        linear().predict(np.zeros(shape))


def test_images_with_bad_pixels_are_counted():
    bad = IMAGES.copy()
    bad[2, 1, 0, 4], bad[5, 0, 3, 3] = np.inf, np.nan
    with pytest.raises(ModelError, match=r"^2 images have pixels that are nan or infinite; the first is number 2$"):
        linear().predict(bad)


def score(features=50, channels=2, rng=RNG, threshold=1.7):
    """A score of one component; statistics are five of each channel."""
    size = 2 + 5 * channels
    components = np.zeros((1, features))
    components[0, 3] = 1.0
    root = rng.normal(0, 1, (size, size))
    tensors = {
        "feature_mean": rng.normal(0, 1, features), "components": components, "floor": np.array(0.3),
        "mean": rng.normal(0, 1, size), "precision": root @ root.T, "threshold": np.array(threshold),
    }  # fmt: skip
    return OutlierScore.from_tensors({name: torch.from_numpy(values) for name, values in tensors.items()})


def test_outlier_score_is_of_features_and_statistics_of_the_prepared_image():
    """What goes into the last layer, along the component and beside it, and five figures of each channel."""
    outliers = score()
    prepared = (IMAGES.astype(np.float64) - 1) / 2
    away = prepared.reshape(7, -1) - outliers.feature_mean.numpy()
    rest = np.log((away**2).sum(1) - away[:, 3] ** 2 + 0.3)
    rough = np.abs(np.diff(prepared, axis=-1)).mean((2, 3)) + np.abs(np.diff(prepared, axis=-2)).mean((2, 3))
    statistics = [
        prepared.mean((2, 3)), np.log(prepared.std((2, 3), ddof=1) + 1e-6), prepared.min((2, 3)), prepared.max((2, 3)),
        np.log(rough + 1e-6),
    ]  # fmt: skip
    rows = np.column_stack([away[:, 3], rest, *statistics]) - outliers.mean.numpy()
    distance = np.sqrt(np.einsum("ni,ij,nj->n", rows, outliers.precision.numpy(), rows))
    model = linear(outliers)
    assert model.knows_outliers is True
    found = model.predict(IMAGES, batch_size=2).outlier_score
    assert_allclose(found, distance / 1.7, rtol=1e-4)
    assert found.dtype == np.float64
    assert model.predict(IMAGES[:0]).outlier_score.shape == (0,)
    output, features, given = model.outputs_and_features(torch.from_numpy(IMAGES))
    assert_allclose(output, prepared.reshape(7, -1) @ WEIGHTS.T, atol=1e-4)
    assert_allclose(features, prepared.reshape(7, -1), atol=1e-5)
    assert_allclose(given, np.column_stack(statistics), atol=1e-4)


def test_network_without_a_linear_layer_has_one_feature_of_nothing():
    config = ModelConfig({"name": "classify"}, {}, {"stretch": "none"}, 2, 5, outputs=CLASSES, classes=CLASSES)
    model = TrainedModel(config, nn.Conv2d(2, 3, 5), Classify(class_names=CLASSES))
    _, features, _ = model.outputs_and_features(torch.from_numpy(IMAGES))
    assert features.tolist() == [[0.0]] * 7


def test_ensemble_averages_calibrated_predictions_and_scores():
    first, second = linear(score(rng=np.random.default_rng(1))), linear(score(), weights=-WEIGHTS, temperature=0.5)
    config = dataclasses.replace(first.config, preprocessing={}, calibration={"temperature": 0.8})
    model = Ensemble(config, [first, second])
    each = [first.predict(IMAGES), second.predict(IMAGES)]
    found = model.predict(IMAGES, batch_size=4)
    mean = np.mean([one.array for one in each], axis=0)
    assert_allclose(found.array, softmax(np.log(mean) / 0.8), rtol=1e-5)
    assert_allclose(found.outlier_score, (each[0].outlier_score + each[1].outlier_score) / 2, rtol=1e-5)
    assert model.members == [first, second]
    assert first.network.calls[-2:] == [4, 3]
    turned = model.predict(IMAGES, symmetries=True).array
    mean = np.mean([one.predict(IMAGES, symmetries=True).array for one in (first, second)], axis=0)
    assert_allclose(turned, softmax(np.log(mean) / 0.8), rtol=1e-5)
    without = Ensemble(config, [first, linear()])
    assert without.knows_outliers is False
    assert without.predict(IMAGES).outlier_score is None
    assert model.knows_outliers is True


def test_values_of_a_regression():
    config = ModelConfig({"name": "regress"}, {}, {"stretch": "none"}, 2, 5, outputs=["m"])
    model = TrainedModel(config, Linear(WEIGHTS[:1]), Regress("m", center=[-20.0], scale=[0.5]))
    found = model.predict(IMAGES)
    assert_allclose(found.values, IMAGES.reshape(7, -1) @ WEIGHTS[:1].T * 0.5 - 20, rtol=1e-5)
    assert found.probabilities is None
    assert list(found.outputs) == ["m"]


def test_folder_of_a_model(tmp_path):
    folder = make_model(tmp_path / "model", lens=False)
    model = load_model(folder)
    images = RNG.normal(10, 1, (3, 16, 16))
    save_model(tmp_path / "deep" / "copy", model, "# A model\n")
    copy = tmp_path / "deep" / "copy"
    assert sorted(path.name for path in copy.iterdir()) == [
        "README.md", "config.json", "model.safetensors", "outliers.safetensors",
    ]  # fmt: skip
    assert (copy / "README.md").read_text("utf-8") == "# A model\n"
    text = (copy / "config.json").read_text("utf-8")
    assert text.endswith("}\n")
    assert json.loads(text) == json.loads((folder / "config.json").read_text())
    assert text.splitlines()[1].startswith('  "task"')
    for name in ("model", "outliers"):
        with safe_open(copy / f"{name}.safetensors", "pt") as file:
            assert file.metadata() == {"format": "pt"}, "what other readers of such files ask for"
    again = load_model(copy).predict(images)
    assert_allclose(again.array, model.predict(images).array, rtol=1e-6)
    assert_allclose(again.outlier_score, model.predict(images).outlier_score, rtol=1e-4)


def test_outlier_score_of_few_features_is_stored_to_the_last_bit(tmp_path):
    """Where all components are kept, what they leave is rounding, which the score of a single-precision copy would see."""
    model = load_model(make_model(tmp_path / "model", lens=False))
    features, statistics = torch.from_numpy(RNG.normal(3, 2, (400, 8))), torch.from_numpy(RNG.normal(0, 1, (400, 5)))
    model.outliers = OutlierScore.fit(features, statistics, (features, statistics))
    assert model.outliers.components.shape == (8, 8)
    save_model(tmp_path / "copy", model, "")
    again = load_model(tmp_path / "copy").outliers
    assert_allclose(again(features, statistics), model.outliers(features, statistics), rtol=1e-6)


def test_weights_in_half_precision(tmp_path):
    model = load_model(make_model(tmp_path / "model", lens=False))
    save_model(tmp_path / "half", model, "", half=True)
    whole, half = (load_file(tmp_path / name / "model.safetensors") for name in ("model", "half"))
    assert set(whole) == set(half)
    for name, tensor in whole.items():
        assert half[name].dtype == (torch.float16 if tensor.is_floating_point() else tensor.dtype), name
        torch.testing.assert_close(half[name].to(tensor.dtype), tensor, rtol=1e-3, atol=1e-6)
    images = RNG.normal(10, 1, (3, 16, 16))
    assert_allclose(load_model(tmp_path / "half").predict(images).array, model.predict(images).array, atol=1e-2)


@pytest.fixture
def pair(tmp_path):
    """An ensemble of two."""
    folder = make_model(tmp_path / "pair", lens=False)
    for number in ("0", "1"):
        make_model(folder / "members" / number, lens=False)
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"members": ["members/0", "members/1"]}))
    return folder


def test_ensemble_is_loaded_with_its_members_and_its_own_calibration(pair):
    model = load_model(pair)
    assert isinstance(model, Ensemble)
    assert len(model.members) == 2
    assert model.calibration.temperature == 1.2
    images = RNG.normal(10, 1, (3, 16, 16))
    mean = np.mean([load_model(pair / "members" / n).predict(images).array for n in ("0", "1")], axis=0)
    assert_allclose(model.predict(images).array, softmax(np.log(mean) / 1.2), rtol=1e-5)
    assert load_task(pair, read_config(pair)) == Classify(class_names=["cdm", "axion"])
    content = json.loads((pair / "members/0/config.json").read_text())
    names = {"task": {"name": "classify", "class_names": ["a", "b"]}, "classes": ["a", "b"], "outputs": ["a", "b"]}
    (pair / "members/0/config.json").write_text(json.dumps(content | names))
    assert load_task(pair, read_config(pair)).classes == ["a", "b"], "what an ensemble has learned is in its members"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 3}, "members/1: its channels are 3, those of the ensemble 1"),
        ({"pixels": 15}, "members/1: its pixels are 15, those of the ensemble 16"),
        (
            {"task": {"name": "regress", "target": "m"}, "outputs": ["m"], "classes": []},
            "members/1: its task is 'regress', that of the ensemble 'classify'",
        ),
    ],
)
def test_members_that_do_not_fit_are_refused(pair, changes, message):
    content = json.loads((pair / "members/1/config.json").read_text())
    (pair / "members/1/config.json").write_text(json.dumps(content | changes))
    with pytest.raises(ModelError, match=message):
        load_model(pair)
    shutil.rmtree(pair / "members/1")
    with pytest.raises(ModelError, match="members/1: there is no such file or folder"):
        load_model(pair)


def test_task_whose_outputs_are_others_is_refused(tmp_path):
    folder = make_model(tmp_path / "model", lens=False)
    config = dataclasses.replace(read_config(folder), outputs=["cdm"])
    with pytest.raises(ModelError, match=r"model: its outputs are \['cdm'\]; those of its task are \['cdm', 'axion'\]"):
        load_task(folder, config)
