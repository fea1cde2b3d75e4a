"""Features are what the head of a network reads, of every image, in their order."""

import numpy as np
import pytest
import torch

from darklens.errors import ModelError
from darklens.inference.features import FeatureRecorder
from darklens.inference.model import Ensemble, ModelConfig, TrainedModel
from darklens.models.registry import build_network
from darklens.tasks.classify import Classify
from darklens.tasks.pretrain import Pretrain
from darklens.tasks.registry import task_content
from darklens.tasks.superresolve import Superresolve

SIDE = 16
PATCHES = {"width": 16, "depth": 1, "heads": 2, "patch": 4}


def model_of(network, options, task=None, name="classify", seed=0):
    task = Classify(class_names=["a", "b", "c"]) if task is None else task
    torch.manual_seed(seed)
    made = build_network(network, 1, task.outputs, options)
    config = ModelConfig(
        task_content(task, name), {"name": network, **options}, {"stretch": "none", "center": 1.0, "scale": 2.0}, 1, SIDE,
        outputs=list(task.output_names), classes=list(task.classes),
    )  # fmt: skip
    return TrainedModel(config, made, task)


@pytest.fixture
def images():
    return torch.randn(7, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("network", "options", "head"),
    [
        ("compact", {"widths": [4, 8], "blocks": [0, 0]}, None),
        ("patch-transformer", {**PATCHES, "hidden": [12]}, lambda n: n.head),
        ("timm", {"architecture": "resnet10t"}, lambda n: n.fc),
    ],
)
def test_head_of_the_features_is_the_output(images, network, options, head):
    model = model_of(network, options)
    with FeatureRecorder(model, "here") as recorder:
        predicted = model.predict(images, batch_size=3)
        features = torch.from_numpy(recorder.take())
    layers = [module for module in model.network.modules() if isinstance(module, torch.nn.Linear)]
    head = layers[-1] if head is None else head(model.network)
    with torch.inference_mode():
        logits = head(features).softmax(-1)
    np.testing.assert_allclose(logits.numpy(), predicted.array, atol=1e-5)
    assert len(features) == 7


def test_of_a_masked_autoencoder_they_are_the_encoders_of_whole_images(images):
    model = model_of("masked-autoencoder", {**PATCHES, "decoder_width": 16}, Pretrain(), "pretrain")
    with FeatureRecorder(model, "here") as recorder:
        model.predict(images, batch_size=4)
        features = recorder.take()
    with torch.inference_mode():
        expected = model.network.encoder((images - 1) / 2)
    np.testing.assert_allclose(features, expected.numpy(), atol=1e-5)


def test_members_of_an_ensemble_stand_one_after_the_other(images):
    members = [model_of("compact", {"widths": [4, 8], "blocks": [0, 0]}, seed=seed) for seed in (0, 1)]
    each = []
    for member in members:
        with FeatureRecorder(member, "here") as recorder:
            member.predict(images)
            each.append(recorder.take())
    ensemble = Ensemble(members[0].config, members)
    with FeatureRecorder(ensemble, "here") as recorder:
        ensemble.predict(images)
        np.testing.assert_allclose(recorder.take(), np.concatenate(each, axis=1), atol=1e-6)
    assert np.abs(each[0] - each[1]).max() > 0.01


def test_nothing_is_recorded_outside_the_block_and_what_was_taken_is_forgotten(images):
    model = model_of("compact", {"widths": [4, 8], "blocks": [0, 0]})
    with FeatureRecorder(model, "here") as recorder:
        model.predict(images)
        assert len(recorder.take()) == 7
        model.predict(images[:2])
        assert len(recorder.take()) == 2
        assert len(recorder.take()) == 0
    model.predict(images)
    assert len(recorder.take()) == 0


def test_models_that_make_images_have_no_features_of_one():
    task = Superresolve(factor=2, center=0.5, scale=1.25, flux_ratio=0.25)
    network = build_network("edsr", 1, 1, {"width": 8, "blocks": 1})
    config = ModelConfig(task_content(task, "superresolve"), {"name": "edsr"}, {}, 1, SIDE, outputs=["image"])
    with pytest.raises(ModelError, match="runs/finer: its task, superresolve, makes images of images"):
        FeatureRecorder(TrainedModel(config, network, task), "runs/finer")
