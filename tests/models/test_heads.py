import pytest
import torch
from torch import nn

from darklens.errors import ModelError
from darklens.models.heads import Headed, make_head, with_latent


def layers(head):
    """Kind of each layer with its numbers: features in and out, or the probability of dropout."""
    found = []
    for layer in head:
        if isinstance(layer, nn.Linear):
            found.append(("Linear", layer.in_features, layer.out_features))
        elif isinstance(layer, nn.BatchNorm1d):
            found.append(("BatchNorm1d", layer.num_features))
        else:
            found.append((type(layer).__name__, *([layer.p] if isinstance(layer, nn.Dropout) else [])))
    return found


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("linear", [("Dropout", 0.3), ("Linear", 7, 4)]),
        ("normalized", [("BatchNorm1d", 7), ("Dropout", 0.3), ("Linear", 7, 4)]),
        ("hidden", [("Linear", 7, 512), ("ReLU",), ("BatchNorm1d", 512), ("Dropout", 0.3), ("Linear", 512, 4)]),
    ],
)
def test_layers_of_each_head(kind, expected):
    assert layers(make_head(kind, 7, 4, 0.3)) == expected
    if kind == "hidden":
        assert layers(make_head(kind, 7, 4, 0.3, hidden=9))[0] == ("Linear", 7, 9)


def test_head_gets_what_the_backbone_puts_out():
    network = Headed(nn.Flatten(), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        network.head.weight.copy_(torch.tensor([[1.0, 2, 0, 0], [0, 0, -1, 3]]))
        assert network(torch.tensor([[[1.0, 2], [3, 4]]])).tolist() == [[5, 9]]


def test_latent_features_are_what_the_last_layer_reads():
    torch.manual_seed(0)
    network = with_latent(nn.Flatten(), 12, 2, size=5, dropout=0.5)
    dropout, dense, prelu = network.backbone.projection
    assert dropout.p == 0.5
    images = torch.randn(3, 3, 2, 2)
    features = network.eval().features(images)
    expected = images.flatten(1) @ dense.weight.T + dense.bias
    torch.testing.assert_close(features, torch.where(expected > 0, expected, prelu.weight * expected))
    torch.testing.assert_close(network(images), features @ network.head.weight.T + network.head.bias)
    assert not torch.equal(network.train().features(images), features), "some are left out in training"


def test_latent_of_no_features_is_refused():
    with pytest.raises(ModelError, match="latent is 0; expected a number of features, at least 1"):
        with_latent(nn.Flatten(), 12, 2, size=0, dropout=0.0)
