"""What pixels add to an output: of a linear network it is their weight times their value."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from darklens.inference.attribution import attributions
from darklens.inference.config import ModelConfig
from darklens.inference.model import Ensemble, TrainedModel
from darklens.tasks.classify import Classify

RNG = np.random.default_rng(1)
IMAGES = torch.from_numpy(RNG.normal(0, 1, (3, 2, 7, 7)).astype(np.float32))


def model(weights, **preprocessing):
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(weights.shape[1] * weights.shape[2] * weights.shape[3], len(weights))
    )
    network[1].weight.data = torch.from_numpy(weights.reshape(len(weights), -1))
    config = ModelConfig(
        {"name": "classify"}, {}, {"stretch": "none"} | preprocessing, 2, 7, outputs=["a", "b"], classes=["a", "b"]
    )
    return TrainedModel(config, network, Classify(class_names=["a", "b"]))


def weights(side):
    return RNG.normal(0, 1, (2, 2, side, side)).astype(np.float32)


def products(images, w, targets):
    return np.stack([(image.numpy() * w[target]).sum(0) for image, target in zip(images, targets, strict=True)])


def test_weight_times_value_summed_over_channels():
    w = weights(7)
    found = attributions(model(w, center=0.5, scale=2.0), IMAGES, [1, 0, 1])
    assert_allclose(found, products((IMAGES - 0.5) / 2, w, [1, 0, 1]), atol=1e-4)


def test_pixels_that_are_cropped_away_have_none():
    """Of a crop to 4 of 7 pixels, one more is left out at the end than at the start."""
    w = weights(4)
    found = attributions(model(w, crop=4), IMAGES, [0, 0, 1])
    rest = found.copy()
    rest[:, 1:5, 1:5] = 0
    assert not rest.any()
    assert_allclose(found[:, 1:5, 1:5], products(IMAGES[:, :, 1:5, 1:5], w, [0, 0, 1]), atol=1e-4)


def test_map_of_resized_images_has_the_size_of_the_image():
    """Resized from 4 of 7 pixels to 8: the map is put back to where its pixels were."""
    w = np.ones((2, 2, 8, 8), np.float32)
    found = attributions(model(w, crop=4, resize=8), torch.ones(1, 2, 7, 7), [0])
    expected = np.zeros((1, 7, 7))
    expected[:, 1:5, 1:5] = 2.0
    assert_allclose(found, expected, atol=1e-4)


def test_members_are_averaged():
    first, second = weights(7), weights(7)
    members = [model(first), model(second)]
    found = attributions(Ensemble(members[0].config, members), IMAGES, [1, 1, 0])
    assert_allclose(found, (products(IMAGES, first, [1, 1, 0]) + products(IMAGES, second, [1, 1, 0])) / 2, atol=1e-4)


def test_more_steps_come_nearer_to_the_change_of_the_output():
    """Completeness (Sundararajan et al. 2017) of a network that bends."""

    class Bent(nn.Module):
        def forward(self, images):
            return torch.stack([torch.relu(images.sum((1, 2, 3)) - 1.3) ** 3, images.sum((1, 2, 3))], 1)

    made = model(weights(7))
    made.network = Bent()
    image = torch.full((1, 2, 7, 7), 3 / 98)
    errors = [abs(attributions(made, image, [0], steps=n).sum() - 1.7**3) for n in (3, 24)]
    assert errors[1] < 0.02 * 1.7**3 < errors[0]
    assert attributions(made, image, [0]).sum() == pytest.approx(attributions(made, image, [0], steps=24).sum())
