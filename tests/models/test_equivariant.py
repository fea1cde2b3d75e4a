import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.ndimage import rotate
from scipy.signal import correlate2d
from torch import nn

from darklens.models.equivariant import (
    EquivariantBlock,
    EquivariantResNet,
    GroupConvolution,
    GroupNorm2d,
    halve,
    turn,
)

TURNS = (0, 3, 5, 6)
"""Turns by 0, 180, 90 and 270 degrees, as `darklens.data.augmentation.transform` numbers them."""


def test_lifting_convolves_with_each_turned_kernel():
    """By scipy's correlation with kernels that numpy turned."""
    layer = GroupConvolution(1, 2, TURNS, kernel=5, lifting=True).double()
    image = torch.randn(1, 1, 7, 7, dtype=torch.float64)
    found = layer(image).detach().reshape(2, 4, 7, 7)
    for field, kernel in enumerate(layer.weight.detach()[:, 0].numpy()):
        for k, quarters in enumerate((0, 2, 1, 3)):
            expected = correlate2d(image[0, 0], np.rot90(kernel, quarters), mode="same")
            assert_allclose(found[field, k], expected, atol=1e-12)


@pytest.mark.parametrize(("kernel", "lifting", "inputs"), [(3, False, 30 * 8), (5, True, 30)])
def test_weights_begin_with_the_variance_of_he(kernel, lifting, inputs):
    torch.manual_seed(0)
    weight = GroupConvolution(30, 40, range(8), kernel=kernel, lifting=lifting).weight.detach()
    assert weight.shape == (40, inputs, kernel, kernel)
    assert float(weight.std()) == pytest.approx(math.sqrt(2 / (inputs * kernel**2)), rel=0.03)
    assert abs(float(weight.mean())) < 5 * float(weight.std()) / math.sqrt(weight.numel())


def test_convolutions_have_kernels_of_three_unless_told():
    assert GroupConvolution(2, 3, TURNS).weight.shape == (3, 8, 3, 3)


def test_normalisation_is_shared_by_the_elements_of_the_group():
    torch.manual_seed(0)
    x = 3 * torch.randn(2, 6, 4, 5, dtype=torch.float64) + torch.arange(6.0)[:, None, None]
    fields = x.numpy().reshape(2, 2, 3, 4, 5)
    mean = fields.mean((0, 2, 3, 4), keepdims=True)
    expected = (fields - mean) / np.sqrt(fields.var((0, 2, 3, 4), keepdims=True) + 1e-5)
    assert_allclose(GroupNorm2d(2, 3).double()(x).detach(), expected.reshape(2, 6, 4, 5), rtol=1e-9)


def test_halving_takes_the_mean_of_neighbours():
    even = torch.arange(16.0).view(1, 1, 4, 4).square()
    assert_allclose(halve(even)[0, 0], even[0, 0].reshape(2, 2, 2, 2).mean((1, 3)), rtol=1e-6)
    odd = torch.tensor([[1.0, 4, 0, 2, 9], [3, 3, 7, 1, 1], [8, 0, 5, 2, 6], [2, 6, 1, 7, 3], [4, 1, 8, 0, 5]])
    # Three by three about every second pixel, as many as there are at the border.
    expected = [[11 / 4, 17 / 6, 13 / 4], [22 / 6, 32 / 9, 20 / 6], [13 / 4, 23 / 6, 15 / 4]]
    assert_allclose(halve(odd[None, None])[0, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("degrees", [90, 45, -20])
def test_turned_images_are_those_of_scipy(degrees):
    images = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    found = turn(images, degrees)
    assert_allclose(found, rotate(images, degrees, axes=(2, 3), order=1, mode="nearest", reshape=False), atol=1e-6)


def shapes(network):
    return {name: tuple(p.shape) for name, p in network.named_parameters() if "norm" not in name}


def test_fields_of_each_stage_are_those_that_were_asked_for():
    network = EquivariantResNet(2, 5, "C4", widths=(3, 4), dropout=0.25)
    assert shapes(network) == {
        "stem.0.weight": (3, 2, 5, 5), "stem.1.weight": (3,), "stem.1.bias": (3,),
        "stages.0.first.weight": (3, 12, 3, 3), "stages.0.second.weight": (3, 12, 3, 3),
        "stages.0.shortcut.weight": (3, 12, 1, 1),
        "stages.1.first.weight": (4, 12, 3, 3), "stages.1.second.weight": (4, 16, 3, 3),
        "stages.1.shortcut.weight": (4, 12, 1, 1),
        "head.1.weight": (5, 4), "head.1.bias": (5,),
    }  # fmt: skip
    assert isinstance(network.stem[2], nn.ReLU)
    assert network.head[0].p == 0.25
    with torch.no_grad():
        assert network(torch.randn(4, 2, 20, 20)).shape == (4, 5)
    default = EquivariantResNet(1, 3)
    assert [stage.shortcut.weight.shape[:2] for stage in default.stages] == [(8, 64), (16, 64), (32, 128), (64, 256)]
    assert default.head[0].p == 0


def test_blocks_begin_as_their_rectified_shortcut():
    torch.manual_seed(0)
    block = EquivariantBlock(2, 3, TURNS)
    x = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(block(x), torch.relu(block.shortcut(x)))
    nn.init.constant_(block.second_norm.weight, 2.0)
    added = block.second_norm(block.second(torch.relu(block.first_norm(block.first(x)))))
    torch.testing.assert_close(block(x), torch.relu(block.shortcut(x) + added))


def test_features_are_the_means_over_group_and_positions():
    """Of a network whose block begins as a shortcut of ones: twice halved positive fields, summed over fields and group."""
    network = EquivariantResNet(1, 2, "C4", widths=(3,))
    with torch.no_grad():
        network.stages[0].shortcut.weight.fill_(1.0)
        images = torch.randn(2, 1, 16, 16)
        stem = network.stem.eval()(images).numpy()
        expected = np.repeat(stem.reshape(2, 12, 16 * 16).mean(-1).sum(1)[:, None], 3, axis=1)
        assert_allclose(network.features(images), expected, rtol=1e-5)
