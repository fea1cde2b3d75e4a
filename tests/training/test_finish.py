"""From fitted weights to a stored model: what is calibrated, measured and recorded."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from safetensors.torch import load_file
from torch import nn

from darklens.data.preprocessing import Preprocessing
from darklens.evaluation.calibration import fit_calibration
from darklens.inference.config import ModelConfig
from darklens.inference.model import Ensemble, TrainedModel, load_model
from darklens.inference.outliers import OutlierScore
from darklens.models.registry import build_network
from darklens.tasks.classify import Classify
from darklens.tasks.optimization import LearningOptions
from darklens.tasks.regress import Regress
from darklens.tasks.supervised import SupervisedModule
from darklens.training import finish as finishing
from darklens.training.finish import calibrated, finish
from darklens.training.fit import Fitted
from darklens.training.job import Job, new_record, read_record, write_record
from darklens.training.recipe import load_recipe
from darklens.training.training_data import Held

RNG = np.random.default_rng(6)
CLASSES = ["cdm", "axion", "no_sub"]
TASK = Classify(class_names=CLASSES)
IMAGES = torch.from_numpy(RNG.normal(0, 1, (150, 1, 5, 5)).astype(np.float32))
LABELS = torch.from_numpy(RNG.integers(0, 3, 150))
SAMPLE = torch.from_numpy(RNG.normal(0, 1, (130, 1, 5, 5)).astype(np.float32))


def data(seed=0, **more):
    held = Held({"image": IMAGES, "target": LABELS})
    return SimpleNamespace(
        validation=held,
        sample=SAMPLE,
        sample_noise=None,
        sample_catalog=None,
        encoder=None,
        target=None,
        task=TASK,
        seed=seed,
        **more,
    )


def linear(scale=1.0):
    network = nn.Sequential(nn.Flatten(), nn.Linear(25, 3, bias=False))
    network[1].weight.data = scale * torch.from_numpy(RNG.normal(0, 0.3, (3, 25)).astype(np.float32))
    config = ModelConfig({"name": "classify"}, {}, {"stretch": "none"}, 1, 5, outputs=CLASSES, classes=CLASSES)
    return TrainedModel(config, network, TASK)


def test_model_is_calibrated_on_the_validation_images():
    model = linear(3.0)
    found = calibrated(model, data())
    logits = IMAGES.flatten(1).double() @ model.network[1].weight.detach().double().T
    expected = fit_calibration(logits, LABELS)
    assert found.calibration.temperature == pytest.approx(expected.temperature, rel=1e-3)
    assert found.calibration.temperature != pytest.approx(1, rel=0.05)
    assert_allclose(found.calibration.scores, expected.scores, atol=1e-4)
    assert (found.network, found.task, found.device) == (model.network, TASK, model.device)
    output, features, statistics = model.outputs_and_features(IMAGES)
    _, known, known_statistics = model.outputs_and_features(SAMPLE)
    score = OutlierScore.fit(known, known_statistics, (features, statistics))
    assert_allclose(found.predict(IMAGES).outlier_score, score(features, statistics), rtol=1e-4)
    assert output.shape == (150, 3)


class Spied(Held):
    """Images in memory that remember which rows were read."""

    def __getitem__(self, rows):
        self.read = [*getattr(self, "read", []), *(int(row) for row in rows)]
        return super().__getitem__(rows)


def rows_read(validation, seed):
    calibrated(
        linear(),
        SimpleNamespace(
            validation=validation,
            sample=SAMPLE,
            sample_noise=None,
            sample_catalog=None,
            target=None,
            task=TASK,
            seed=seed,
        ),
    )
    read, validation.read = validation.read, []
    return read


def test_so_many_validation_images_are_enough_and_have_the_classes_of_all(monkeypatch):
    """In class order, 70 first rows of 150 would have none of the third class."""
    monkeypatch.setattr(finishing, "CALIBRATION_IMAGES", 70)
    labels = torch.tensor([1] * 75 + [0] * 45 + [2] * 30)
    read = rows_read(Spied({"image": IMAGES, "target": labels}), seed=3)
    assert len(read) == len(set(read)) == 70
    assert (np.bincount(labels[read]) - np.array([21, 35, 14])).tolist() == [0, 0, 0]
    assert read[:35] != list(range(35)), "drawn at random"


def test_calibration_images_follow_from_the_seed(monkeypatch):
    monkeypatch.setattr(finishing, "CALIBRATION_IMAGES", 70)
    validation = Spied({"image": IMAGES, "target": LABELS})
    first, again, other = (rows_read(validation, seed) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_few_validation_images_are_all_used():
    assert rows_read(Spied({"image": IMAGES, "target": LABELS}), seed=3) == list(range(150))


@pytest.mark.parametrize("shape", [(150, 1), (150, 1, 5, 5)])
def test_images_without_labels_are_drawn_from_all(monkeypatch, shape):
    """Masses and images to predict: 70 of 150, about as many of either half."""
    monkeypatch.setattr(finishing, "CALIBRATION_IMAGES", 70)
    targets = torch.arange(np.prod(shape), dtype=torch.float32).reshape(shape)
    model, validation = linear(), Spied({"image": IMAGES, "target": targets})
    model.task = Regress(target="log10_mass")
    calibrated(
        model,
        SimpleNamespace(
            validation=validation,
            sample=SAMPLE,
            sample_noise=None,
            sample_catalog=None,
            target=None,
            task=model.task,
            seed=1,
        ),
    )
    assert len(set(validation.read)) == 70
    assert 20 < sum(row < 75 for row in validation.read) < 50


def test_ensemble_is_calibrated_on_the_mean_of_its_members():
    members = [linear(), linear(2.0)]
    found = calibrated(Ensemble(members[0].config, members), data())
    assert isinstance(found, Ensemble)
    assert found.members == members
    mean = np.mean([member.predict(IMAGES).array for member in members], axis=0)
    expected = fit_calibration(torch.from_numpy(np.log(mean)), LABELS)
    assert found.calibration.temperature == pytest.approx(expected.temperature, rel=1e-3)
    assert_allclose(found.calibration.scores, expected.scores, atol=1e-4)
    assert len(found.calibration.scores) == 150


def trainer(completed=20):
    progress = SimpleNamespace(batch_progress=SimpleNamespace(total=SimpleNamespace(completed=completed)))
    return SimpleNamespace(
        current_epoch=4,
        precision="bf16-mixed",
        num_devices=2,
        num_nodes=3,
        fit_loop=SimpleNamespace(epoch_loop=progress),
    )


def finished(tmp_path, measured, **overrides):
    options = {
        "network.widths": [4, 8],
        "network.blocks": [0, 1],
        "trainer.batch_size": 16,
        "preprocessing.stretch": "none",
    }
    recipe = load_recipe("substructure/demo", options | {"preprocessing.crop": None} | overrides)
    network = build_network("compact", 1, 3, {"widths": [4, 8], "blocks": [0, 1]})
    network.get_parameter("stem.0.weight").requires_grad_(False)
    module = SupervisedModule(TASK, network, Preprocessing(stretch="none", scale=2.0), LearningOptions())
    job = Job(recipe, "some/data")
    given = data(
        description={"source": "some", "seed": 3, "train_images": 700}, shape=(1, 5, 5), bands=["VIS"], pixel_scale=0.1,
        zero_points=[25.0], unit="e-/s",
    )  # fmt: skip
    write_record(tmp_path, new_record(job, tmp_path))
    finish(job, given, module, tmp_path, Fitted(trainer(), 12.345, 320, 67.89, 3, measured))
    return module


def test_run_gets_its_model_and_what_its_training_took(tmp_path, capsys):
    module = finished(tmp_path, {"loss": 0.5, "auc": 0.9})
    record = read_record(tmp_path)
    training = record["training"]
    known = {"seconds": 12.3, "epochs": 4, "steps": 20, "images": 320, "images_per_second": 67.9, "best_epoch": 3,
             "precision": "bf16-mixed", "devices": 6, "threads": torch.get_num_threads(),
             "parameters": sum(p.numel() for p in module.network.parameters())}  # fmt: skip
    assert {key: training[key] for key in known} == known
    assert set(training) == {*known, "peak_memory_mib", "machine"}
    assert record["data_description"] == {"source": "some", "seed": 3, "train_images": 700}
    assert record["recipe"]["name"] == "substructure/demo", "the rest is kept"
    model = load_model(tmp_path)
    config = model.config
    assert (config.channels, config.pixels, config.bands, config.pixel_scale, config.unit) == (
        1,
        5,
        ["VIS"],
        0.1,
        "e-/s",
    )
    assert config.outputs == config.classes == CLASSES
    assert config.task == {
        "name": "classify", "class_names": CLASSES,
        "losses": [{"name": "cross-entropy", "label_smoothing": 0.0, "from_epoch": 1}],
    }  # fmt: skip
    assert config.network == {"name": "compact", "widths": [4, 8], "blocks": [0, 1]}
    assert config.preprocessing["scale"] == 2.0
    assert config.recipe == json.loads(json.dumps(record["recipe"]))
    assert config.data == record["data_description"]
    assert config.versions == record["versions"]
    assert config.measured == {}
    assert len(config.calibration["scores"]) == 150
    assert all(p.requires_grad for p in module.network.parameters())
    saved = load_file(tmp_path / "model" / "model.safetensors")
    assert torch.equal(saved["stem.0.weight"], module.network.state_dict()["stem.0.weight"])
    assert "- **Training**: 4 epochs, 320 images seen, 12 s on" in (tmp_path / "model" / "README.md").read_text("utf-8")
    assert "!" not in capsys.readouterr().out


def test_training_at_chance_is_said(tmp_path, capsys):
    finished(tmp_path, {"auc": 0.5})
    assert capsys.readouterr().out.startswith(
        "! the model cannot be told from guessing: its macro AUC on 150 validation images is 0.500"
    )


def test_stored_network_asks_for_no_pretrained_weights(tmp_path, monkeypatch):
    """What is loaded later comes from the model's own weights."""
    seen = []
    monkeypatch.setattr(finishing, "save_model", lambda path, model, card: seen.append(model.config.network))
    finished(tmp_path, {}, **{"network.pretrained": True, "network.weights": "some/where"})
    assert seen == [{"name": "compact", "widths": [4, 8], "blocks": [0, 1], "pretrained": False}]


def test_noise_maps_reach_calibration_and_outlier_score(monkeypatch):
    """The noise of validation images and of the sample is given to the network's preprocessing."""
    seen = []
    model = linear()
    compute = model.outputs_and_features

    def watched(images, noise=None, catalog=None):
        seen.append(None if noise is None else noise[:, 0].tolist())
        return compute(images)

    monkeypatch.setattr(model, "outputs_and_features", watched)
    images = torch.from_numpy(np.random.default_rng(1).normal(size=(6, *SAMPLE.shape[1:])).astype(np.float32))

    class Noisy(Spied):
        def __getitem__(self, rows):
            return super().__getitem__(rows) | {
                "noise": torch.as_tensor(np.asarray(rows), dtype=torch.float32)[:, None]
            }

    validation = Noisy({"image": images, "target": torch.tensor([0, 1, 2, 0, 1, 2])})
    noise = torch.arange(len(SAMPLE), dtype=torch.float32)[:, None] + 100
    calibrated(
        model,
        SimpleNamespace(
            validation=validation,
            sample=SAMPLE,
            sample_noise=noise,
            sample_catalog=None,
            target=None,
            task=TASK,
            seed=0,
        ),
    )
    assert sorted(seen[0]) == [0, 1, 2, 3, 4, 5]
    assert [value for part in seen[1:] for value in part] == noise[:, 0].tolist()
