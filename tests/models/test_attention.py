import torch
from torch import nn

from darklens.models.attention import cbam_densenet


def test_layers_are_those_of_a_densenet_with_attention_after_each_block():
    network = cbam_densenet(2, 5, growth=8, blocks=(2, 3))
    layers = {
        name: (m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0], m.padding[0], m.bias is not None)
        for name, m in network.named_modules()
        if isinstance(m, nn.Conv2d) and ".1.channel" not in name
    }
    # A layer narrows to 4 times the growth, and adds the growth; a transition takes half.
    assert layers == {
        "stem.0": (2, 16, 7, 2, 3, False),
        "block1.0.denselayer1.conv1": (16, 32, 1, 1, 0, False), "block1.0.denselayer1.conv2": (32, 8, 3, 1, 1, False),
        "block1.0.denselayer2.conv1": (24, 32, 1, 1, 0, False), "block1.0.denselayer2.conv2": (32, 8, 3, 1, 1, False),
        "block1.1.spatial.conv.conv": (2, 1, 7, 1, 3, False),
        "transition1.conv": (32, 16, 1, 1, 0, False),
        "block2.0.denselayer1.conv1": (16, 32, 1, 1, 0, False), "block2.0.denselayer1.conv2": (32, 8, 3, 1, 1, False),
        "block2.0.denselayer2.conv1": (24, 32, 1, 1, 0, False), "block2.0.denselayer2.conv2": (32, 8, 3, 1, 1, False),
        "block2.0.denselayer3.conv1": (32, 32, 1, 1, 0, False), "block2.0.denselayer3.conv2": (32, 8, 3, 1, 1, False),
        "block2.1.spatial.conv.conv": (2, 1, 7, 1, 3, False),
    }  # fmt: skip
    assert list(dict(network.named_children())) == [
        "stem", "block1", "transition1", "block2", "norm", "pool", "head"
    ]  # fmt: skip
    pool = network.stem[3]
    assert (pool.kernel_size, pool.stride, pool.padding) == (3, 2, 1)
    assert [type(layer) for layer in network.stem[1:3]] == [nn.BatchNorm2d, nn.ReLU]
    assert [type(layer) for layer in network.norm] == [nn.BatchNorm2d, nn.ReLU]
    assert network.pool[0].output_size == 1
    assert network.head.weight.shape == (5, 40)
    with torch.inference_mode():
        assert network.eval()(torch.randn(3, 2, 64, 40)).shape == (3, 5)


def test_defaults_are_those_of_densenet_121():
    network = cbam_densenet(1, 3)
    depths = [len(getattr(network, f"block{number}")[0]) for number in (1, 2, 3, 4)]
    assert depths == [6, 12, 24, 16]
    assert network.block1[0].denselayer1.conv2.out_channels == 32
    assert network.head.in_features == 1024
    assert network.pool[2].p == 0


def test_dropout_of_all_features_leaves_the_bias():
    network = cbam_densenet(1, 2, growth=8, blocks=(1,), dropout=1.0)
    torch.testing.assert_close(network(torch.randn(3, 1, 32, 32)), network.head.bias.expand(3, -1))
