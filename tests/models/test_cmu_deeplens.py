"""The network of CMU DeepLens, against what is published of it."""

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, elu

from darklens.models.cmu_deeplens import Bottleneck, CMUDeepLens


def test_layers_are_those_published():
    network = CMUDeepLens(1, 1)
    main = [m for name, m in network.named_modules() if isinstance(m, nn.Conv2d) and "shortcut" not in name]
    assert len(main) == 46
    assert main[0].kernel_size == (7, 7)
    assert [m.kernel_size[0] for m in main[1:]] == [1, 3, 1] * 15
    assert [m.out_channels for m in main[3::3]] == [w for w in (32, 64, 128, 256, 512) for _ in range(3)]
    assert [m.out_channels for m in main[2::3]] == [w for w in (16, 32, 64, 128, 256) for _ in range(3)]
    assert sum(m.stride == (2, 2) for m in main) == 4
    assert not any(isinstance(m, nn.ReLU) for m in network.modules())


@pytest.mark.parametrize(("side", "expected"), [(64, 4), (101, 7)])
def test_stages_halve_the_image_four_times(side, expected):
    network = CMUDeepLens(4, 2, widths=(4, 4, 4, 4, 8), units=1).eval()
    with torch.no_grad():
        images = torch.randn(2, 4, side, side)
        assert network.stages(network.stem(images)).shape == (2, 8, expected, expected)
        features = network.features(images)
        torch.testing.assert_close(features, network.stages(network.stem(images)).flatten(2).mean(2))
        torch.testing.assert_close(network(images), network.head(features))


@pytest.mark.parametrize(("stride", "activated", "wider"), [(1, False, 4), (2, False, 6), (1, True, 4)])
def test_unit_is_norm_elu_and_three_convolutions_beside_a_shortcut(stride, activated, wider):
    """Written out by functions; after a fresh norm in evaluation, features are as they were but for its epsilon."""
    unit = Bottleneck(4, wider, stride=stride, activated=activated).eval()
    x = torch.randn(2, 4, 9, 9)
    scale = (1 + 1e-5) ** -0.5
    with torch.no_grad():
        start = x if activated else elu(x * scale)
        y = elu(conv2d(start, unit.first.weight, stride=stride) * scale)
        y = elu(conv2d(y, unit.second.weight, padding=1) * scale)
        y = conv2d(y, unit.third.weight, unit.third.bias)
        beside = x if unit.shortcut is None else conv2d(start, unit.shortcut.weight, unit.shortcut.bias, stride=stride)
        torch.testing.assert_close(unit(x), y + beside)
    assert (unit.shortcut is None) == (stride == 1 and wider == 4)
