"""Reconstructions by a masked autoencoder: hidden pixels are rebuilt, shown ones are as they were."""

import numpy as np
import pytest
import torch

from darklens.errors import ModelError
from darklens.inference.model import ModelConfig, TrainedModel
from darklens.inference.reconstruction import reconstructions
from darklens.models.registry import build_network
from darklens.tasks.classify import Classify
from darklens.tasks.pretrain import Pretrain
from darklens.tasks.registry import task_content

OPTIONS = {"width": 16, "depth": 1, "heads": 2, "patch": 4, "decoder_width": 16}


def model_of(network, options, task, name):
    config = ModelConfig(
        task_content(task, name), {"name": network, **options}, {"stretch": "none", "center": 1.0, "scale": 2.0}, 2, 16,
        outputs=list(task.output_names), classes=list(task.classes),
    )  # fmt: skip
    torch.manual_seed(0)
    return TrainedModel(config, build_network(network, 2, task.outputs, options), task)


def test_a_quarter_is_shown_and_the_rest_is_what_the_network_makes_of_it():
    model = model_of("masked-autoencoder", OPTIONS, Pretrain(), "pretrain")
    images = torch.randn(3, 2, 16, 16)
    image, hidden, rebuilt = reconstructions(model, images).swapaxes(0, 1)
    np.testing.assert_allclose(image, (images[:, 0] - 1) / 2, atol=1e-6)
    expected = np.kron(np.arange(4) % 2 == 0, np.ones(4, bool))
    np.testing.assert_array_equal(hidden, np.broadcast_to(~np.outer(expected, expected), (3, 16, 16)))
    np.testing.assert_array_equal(rebuilt[hidden == 0], image[hidden == 0])
    mask = torch.from_numpy(hidden[:, None] > 0)
    changed = ((images - 1) / 2).masked_fill(mask, 99.0)  # what is hidden cannot matter
    with torch.inference_mode():
        made = model.network.rebuild(changed, mask)[:, 0].numpy()
    np.testing.assert_allclose(rebuilt[hidden == 1], made[hidden == 1], atol=1e-5)


def test_other_networks_rebuild_nothing():
    model = model_of("compact", {"widths": [4], "blocks": [0]}, Classify(class_names=["a", "b"]), "classify")
    with pytest.raises(ModelError, match="rebuilds no images; a masked-autoencoder does"):
        reconstructions(model, torch.zeros(1, 2, 16, 16))
