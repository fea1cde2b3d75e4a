import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn
from torchvision.models.resnet import BasicBlock

from darklens.models.compact import CompactResNet, ResidualBlock, radius_channel
from darklens.models.registry import count_parameters

NAMES = {"first": "conv1", "first_norm": "bn1", "second": "conv2", "second_norm": "bn2", "shortcut": "downsample"}


def convolutions(network):
    """Channels in and out, side of the kernel, stride, padding, and whether there is a bias, of each convolution."""
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    return [
        (m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0], m.padding[0], m.bias is not None) for m in layers
    ]


@pytest.mark.parametrize(("width", "wider", "stride"), [(5, 5, 1), (3, 4, 1), (5, 5, 2), (3, 4, 2)])
def test_residual_block_is_that_of_torchvision(width, wider, stride):
    torch.manual_seed(0)
    block = ResidualBlock(width, wider, stride)
    nn.init.uniform_(block.second_norm.weight, 0.5, 2)
    shortcut = None
    if (width, stride) != (wider, 1):
        pool = nn.AvgPool2d(2, ceil_mode=True) if stride == 2 else nn.Identity()
        shortcut = nn.Sequential(pool, nn.Conv2d(width, wider, 1, bias=False), nn.BatchNorm2d(wider))
    published = BasicBlock(width, wider, stride, shortcut)
    state = {NAMES[name.partition(".")[0]] + "." + name.partition(".")[2]: v for name, v in block.state_dict().items()}
    published.load_state_dict(state)
    x = torch.randn(3, width, 7, 7)
    torch.testing.assert_close(block(x), published(x))


def test_stages_after_the_first_halve_the_image_once():
    network = CompactResNet(2, 3, widths=(4, 6, 6), blocks=(2, 1, 2))
    assert convolutions(network) == [
        (3, 4, 5, 2, 2, False),
        *[(4, 4, 3, 1, 1, False)] * 4,
        (4, 6, 3, 2, 1, False), (6, 6, 3, 1, 1, False), (4, 6, 1, 1, 0, False),
        (6, 6, 3, 2, 1, False), (6, 6, 3, 1, 1, False), (6, 6, 1, 1, 0, False),
        *[(6, 6, 3, 1, 1, False)] * 2,
    ]  # fmt: skip
    assert [type(layer) for layer in network.stem] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]


def test_default_network_has_four_stages_of_one_block_and_no_dropout():
    network = CompactResNet(1, 3)
    assert [(block.first.in_channels, block.first.out_channels) for block in network.stages] == [
        (32, 32), (32, 64), (64, 128), (128, 256)
    ]  # fmt: skip
    # By hand: stem, 3x3 convolutions, 1x1 shortcuts, two numbers for each normalised channel, head.
    convolved = 50 * 32 + 9 * (2 * 32**2 + 96 * 64 + 192 * 128 + 384 * 256) + 32 * 64 + 64 * 128 + 128 * 256
    assert count_parameters(network) == convolved + 2 * (32 + 2 * 32 + 3 * (64 + 128 + 256)) + 257 * 3
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.0]


def test_dropout_of_all_features_leaves_the_bias():
    network = CompactResNet(1, 2, widths=(3,), blocks=(1,), dropout=1.0)
    logits = network(torch.randn(3, 1, 12, 12))
    torch.testing.assert_close(logits, network.head[-1].bias.expand(3, -1))


def test_radius_of_an_oblong_image_follows_each_side():
    images = torch.zeros(2, 4, 3, 5, dtype=torch.float64)
    radius = radius_channel(images)
    x, y = np.meshgrid([-1, -0.5, 0, 0.5, 1], [-1, 0, 1])
    assert radius.shape == (1, 1, 3, 5)
    assert radius.dtype == torch.float64
    assert_allclose(radius[0, 0], np.sqrt(x**2 + y**2) - 0.5, rtol=1e-12)
    assert radius_channel(images.to("meta")).device.type == "meta"


def test_network_gets_the_radius_after_the_channels_of_the_image():
    """A stem that passes the third channel alone gives numbers that follow from the radius, whatever the image."""
    network = CompactResNet(2, 3, widths=(4, 4), blocks=(1, 1)).eval()
    with torch.no_grad():
        network.stem[0].weight[:, :2] = 0
        assert torch.equal(network(torch.randn(1, 2, 16, 16)), network(torch.zeros(1, 2, 16, 16)))
        network.stem[0].weight[:, :2] = 1
        network.stem[0].weight[:, 2] = 0
        centre, corner = torch.zeros(1, 2, 16, 16), torch.zeros(1, 2, 16, 16)
        centre[0, 1, 8, 8] = corner[0, 1, 4, 4] = 1
        torch.testing.assert_close(network(centre), network(corner))
