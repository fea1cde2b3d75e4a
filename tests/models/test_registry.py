import re

import pytest
import torch
from torch import nn

from darklens.errors import ModelError, RecipeError
from darklens.models.registry import (
    build_network,
    count_parameters,
    network_arguments,
    network_class,
    network_options,
)

OWN = """
from torch import nn

class Net(nn.Module):
    def __init__(self, in_channels, outputs, width: int = 4, pretrained: bool = True):
        super().__init__()
        self.layer = nn.Conv2d(in_channels, outputs, 1)
        self.told = (width, pretrained)
        if width == 13:
            raise ArithmeticError("thirteen")
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own_network.py").write_text(OWN)
    return f"{tmp_path / 'own_network.py'}:Net"


def test_network_gets_channels_outputs_and_options(own):
    network = build_network("compact", 2, 5, {"widths": [3, 6], "blocks": [1, 2], "dropout": "1e-1"})
    assert network.stem[0].in_channels == 3, "two of the image, and the radius"
    assert (network.head[-1].in_features, network.head[-1].out_features) == (6, 5)
    assert network.head[2].p == 0.1
    mine = build_network(own, 2, 5, {"width": 7})
    assert (mine.layer.in_channels, mine.layer.out_channels, mine.told) == (2, 5, (7, True))


def test_pretrained_false_is_for_every_network(own):
    """A network without such weights does not take the option; one that has it is told."""
    assert network_arguments("compact", {"pretrained": False, "dropout": 0.5}, "here", ModelError) == {"dropout": 0.5}
    with pytest.raises(RecipeError, match=r"^here: unknown key network\.pretrained"):
        network_arguments("compact", {"pretrained": True}, "here", RecipeError)
    assert build_network(own, 1, 2, {"pretrained": False}).told == (4, False)
    assert (
        network_arguments("timm", {"architecture": "a", "pretrained": False}, "here", ModelError)["pretrained"] is False
    )


def test_channels_and_outputs_are_no_options(own):
    with pytest.raises(RecipeError, match=r"^here: unknown key network\.outputs"):
        network_arguments(own, {"outputs": 3}, "here", RecipeError)
    assert network_options(own) == ["width", "pretrained"]
    assert network_options("compact") == ["widths", "blocks", "dropout"]
    with pytest.raises(RecipeError, match=r"^here: network\.architecture is needed"):
        network_arguments("timm", {}, "here", RecipeError)


def test_network_that_fails_is_named_with_its_arguments(own):
    with pytest.raises(
        ModelError, match=re.escape(f"network {own} cannot be made of {{'width': 13}}: ArithmeticError: th")
    ):
        build_network(own, 1, 2, {"width": 13})
    with pytest.raises(ModelError, match="network compact cannot be made of its defaults: "):
        build_network("compact", "three", 2, {})


def test_near_names_are_suggested():
    known = "compact, equivariant, ecnn, cmu-deeplens, cbam-densenet, cvt, crossformer, cct, timm, metadata"
    known += ", attention-fusion, srcnn, edsr, rrdb, mae-upconv, nafnet, flow, lens-residual"
    known += ", patch-transformer, masked-autoencoder, equivariant-transformer"
    names = f"There are {known}, and your own as my_network.py:Class"
    with pytest.raises(ModelError) as raised:
        network_class("compct")
    assert str(raised.value) == f"no network 'compct'; did you mean compact? {names}"
    with pytest.raises(ModelError) as raised:
        network_class("xyz")
    assert str(raised.value) == f"no network 'xyz'. {names}"


def test_frozen_parameters_are_not_counted():
    network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 5))
    network[0].weight.requires_grad_(False)
    assert count_parameters(network) == 2 + 10 + 5
    assert isinstance(network(torch.zeros(1, 3)), torch.Tensor)
